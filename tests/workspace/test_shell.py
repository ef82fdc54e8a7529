"""The language of task commands: what is split, what is left to `sh`, what is refused; checked with `sh` itself."""

from __future__ import annotations

import re
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ociforge.workspace.shell import join, parse, unquote
from tests.support.tools import need


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("gunicorn app:app", ("gunicorn", "app:app")),
        ("  gunicorn \t app:app \n", ("gunicorn", "app:app")),
        ("serve;", ("serve",)),
        ("python -c 'print(\"a  b\")'", ("python", "-c", 'print("a  b")')),
        ("a 'b'\"c\"d''", ("a", "bcd")),
        ("a \"\" ''", ("a", "", "")),
        (r"a b\ c \$HOME \"q\" \(x\) \`", ("a", "b c", "$HOME", '"q"', "(x)", "`")),
        (r'a "\$HOME \"q\" \`x\` \d ( ) ; | *"', ("a", r'$HOME "q" `x` \d ( ) ; | *')),
        ("a '$HOME `x` \\ {b} # **'", ("a", "$HOME `x` \\ {b} # **")),
        ('a 5$ $/x "$" b#c x~y !', ("a", "5$", "$/x", "$", "b#c", "x~y", "!")),
        ("a --x=1 B=2 in", ("a", "--x=1", "B=2", "in")),
        ("./run ]x", ("./run", "]x")),
    ],
)
def test_commands_that_need_no_shell(text: str, words: tuple[str, ...]) -> None:
    assert parse(text).words == words


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("serve --port $PORT", "exec serve --port $PORT"),
        ('serve "${HOST}:$PORT" $?', 'exec serve "${HOST}:$PORT" $?'),
        ("$SERVER now", "exec $SERVER now"),
        ("serve $(nproc)", "exec serve $(nproc)"),
        ("serve \"$(cat 'a b' | head)\"", "exec serve \"$(cat 'a b' | head)\""),
        ("ls *.py a?c [ab]", "exec ls *.py a?c [ab]"),
        ("ls ~/x", "exec ls ~/x"),
        ("A=1 B='x y' serve", "A=1 B='x y' exec serve"),
        ("cd src && serve", "cd src && exec serve"),
        ("a || b && c", "a || b && exec c"),
        ("a\n\nb; c;", "a\n\nb; exec c;"),
        ("a &&\n  b", "a &&\n  exec b"),
        ("serve > log 2>&1", "exec serve > log 2>&1"),
        ("serve < in >>log 2>|x >&2", "exec serve < in >>log 2>|x >&2"),
        # The last one is not alone in its pipeline, or the shell's own.
        ("a | b", "a | b"),
        ("a && b |\nc", "a && b |\nc"),
        ("a && ! b", "a && ! b"),
        ("a && (b; c) > log", "a && (b; c) > log"),
        ("echo hi", "echo hi"),
        ("a; exit 3", "a; exit 3"),
        ("export A=1 && echo $A", "export A=1 && echo $A"),
        ("A=1", "A=1"),
        ("[ -f x ] && [ -f y ]", "[ -f x ] && [ -f y ]"),
    ],
)
def test_commands_that_a_shell_runs(text: str, script: str) -> None:
    found = parse(text)
    assert (found.words, found.text) == (None, script)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "a command is missing at the end"),
        ("  \n", "a command is missing at the end"),
        ("a &&", "a command is missing at the end"),
        ("a | ", "a command is missing at the end"),
        ("&& a", "unexpected `&& a`"),
        ("a; ; b", "unexpected `; b`"),
        ("a;; b", "unexpected `;; b`"),
        ("a b)", "unexpected `)`"),
        ("f() x", "unexpected `() x`"),
        ("> log a", "unexpected `> log a`"),
        ("(a", "a parenthesis without its end"),
        ("a $(b", "a parenthesis without its end"),
        ("a 'b", "a single quotation mark without its end"),
        ('a "b', "a double quotation mark without its end"),
        ("a &", "`&` puts a command into the background, where `sh` does not wait for it"),
        ("a & b", "`&` puts a command into the background, where `sh` does not wait for it"),
        ("a |& b", "`|&` is not known to `sh`: write `2>&1 |`"),
        ("a &> b", "`&>` is not known to `sh`: write `> FILE 2>&1`"),
        ("a << END", "`<<` is not known to pixi's shell"),
        ("a >", "`>` without a file"),
        ("a `b`", "backticks are not known to pixi's shell: write `$(…)`"),
        ('a "`b`"', "backticks are not known to pixi's shell: write `$(…)`"),
        ("a $((1 + 1))", "`$((` is not known to pixi's shell"),
        ("((a))", "`((` is not known to pixi's shell"),
        ("if a; then b; fi", "`if` is no command in `sh`, or none that pixi's shell knows"),
        ("a && shopt -s x", "`shopt` is no command in `sh`, or none that pixi's shell knows"),
        ("a $1", "`$1` is not the same in `sh`: write it in single quotes, or as `\\$`"),
        ("a ${B:-c}", "`${` is not the same in `sh`: write it in single quotes, or as `\\$`"),
        ('a "$@"', "`$@` is not the same in `sh`: write it in single quotes, or as `\\$`"),
        ("a {b,c}", "`{` is not the same in `sh`: write it in quotes"),
        ("a # b", "`#` is not the same in `sh`: write it in quotes"),
        ("a **/b", "`**` is not the same in `sh`: write it in quotes"),
        ("a b\\c", "a backslash before `c` is not the same in `sh`: write it in single quotes"),
        ('a "b\\\\c"', "a backslash before `\\` is not the same in `sh`: write it in single quotes"),
        ("a \\\n b", "a backslash before a line break is not the same in `sh`: write it in single quotes"),
        ("a\u00a0b", "the character U+00A0 is not the same in `sh`: write it in quotes"),
        ("(" * 2000, "`((` is not known to pixi's shell"),
        ("( " * 2000, "parentheses nested more than 20 deep"),
        ("$(a " * 2000, "parentheses nested more than 20 deep"),
    ],
)
def test_what_is_not_the_same_in_sh_is_refused_by_name(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(why)}$"):
        parse(text)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["serve", "--port", "80"], "serve --port 80"),
        (["serve", "a b", "", "[::]:80"], 'serve "a b" "" "[::]:80"'),
        (["serve", 'a "b"'], 'serve "a \\"b\\""'),
        (["serve", "$PORT", "&&", "x"], "serve $PORT && x"),
    ],
)
def test_arrays_are_joined_as_pixi_does(words: list[str], text: str) -> None:
    assert join(words) == text


@pytest.mark.parametrize(
    ("text", "value"),
    [("plain; 'x'", "plain; 'x'"), ('a \\"b\\"', 'a "b"'), ("$HOME/x", None), ("$(x)", None), ("5$", "5$"), ("", "")],
)
def test_double_quotes(text: str, value: str | None) -> None:
    assert unquote(text) == value


def test_double_quotes_that_end_too_early() -> None:
    with pytest.raises(ValueError, match=r"^a quotation mark in the middle$"):
        unquote('a" b')


@given(st.text("ab '\"\\$(;|&*#~{=\n", max_size=24))
@settings(max_examples=300, deadline=None)
def test_sh_splits_words_as_we_do(text: str) -> None:
    """Whatever is found to need no shell: `sh` makes the same words of it."""
    try:
        words = parse(f"show x{text}").words
    except ValueError:
        return
    if words is not None:
        script = f"show() {{ printf '%s\\0' \"$@\"; }}\nshow x{text}"
        done = subprocess.run([need("sh"), "-c", script], capture_output=True, check=True, text=True)
        assert tuple(done.stdout.split("\0")[:-1]) == words[1:]


@given(st.text(max_size=40) | st.text("ab '\"\\$({})<>;|&!*#~=\n", max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        parse(text)
    except ValueError as error:
        assert str(error)


@pytest.mark.parametrize("name", ["sh", "bash"])
def test_scripts_mean_the_same_to_shells(name: str) -> None:
    """`exec` stands where it changes nothing but the process."""
    script = parse("A=1; B=$A C='x y' env > /dev/null; cd / && B=2 C=\"$A z\" env").text
    done = subprocess.run([need(name), "-c", script], capture_output=True, check=True, text=True, env={})
    assert {"B=2", "C=1 z", "PWD=/"} <= set(done.stdout.splitlines())
