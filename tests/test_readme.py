"""What the README says about names is what the code has."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ociforge.cli import cli
from ociforge.plan import DEFAULT_BUDGET, FORMAT
from ociforge.workspace.settings import _READERS, DEFAULT_BASE

if TYPE_CHECKING:
    from collections.abc import Iterator

README = (Path(__file__).parent.parent / "README.md").read_text()


def table(heading: str) -> list[list[str]]:
    """The rows of the first table below a heading."""
    section = re.split(rf"\n####? {re.escape(heading)}\n", README, maxsplit=1)[1]
    lines = section[section.index("|") :].split("\n\n", 1)[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def test_every_setting_is_documented_and_every_documented_setting_exists() -> None:
    documented = {row[0].strip("`") for row in table("Settings")}
    assert documented == {*_READERS, "environment", "mirrors"}


def test_documented_defaults_are_the_defaults() -> None:
    defaults = {row[0].strip("`"): row[1] for row in table("Settings")}
    assert defaults["base"] == f'`"{DEFAULT_BASE}"`'
    assert defaults["layers"] == f"`{DEFAULT_BUDGET}`"
    assert f"`dev.ociforge.format`, now {FORMAT}" in README.replace("annotation ", "")


def commands(group: click.Group, context: click.Context) -> Iterator[click.Command]:
    """Every verb, and those below verbs."""
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield command
        if isinstance(command, click.Group):
            yield from commands(command, context)


def test_every_option_that_the_readme_uses_exists() -> None:
    context = click.Context(cli)
    known = {"--app", "--bind", "--debug", "--editable", "--host", "--port", "--quiet"}  # other programs
    for command in commands(cli, context):
        known |= {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    used = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", README))
    assert used - known == {"--help"}  # of every verb


def test_the_readme_shows_every_verb_and_no_other() -> None:
    code = re.findall(r"```sh\n(.*?)```|`([^`\n]+)`", README, re.DOTALL)
    shown = {verb for found in code for verb in re.findall(r"\bociforge ([a-z]+)\b", "\n".join(found))}
    assert shown == set(cli.list_commands(click.Context(cli)))


def test_the_commands_of_the_readme_can_be_found_by_scripts() -> None:
    for marker in ("demo command", "test command"):
        found = re.search(rf"<!-- {marker} -->\n```sh\n(python3 -m venv \.venv && .*)\n```\n", README)
        assert found is not None, marker
