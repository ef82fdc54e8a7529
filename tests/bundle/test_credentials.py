"""Credentials in the documents of a workspace do not get into a bundle, nor into a message."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ociforge.bundle.credentials import refuse_credentials
from ociforge.errors import WorkspaceError
from ociforge.events import Warned, ignore
from tests.bundle.making import Bench

if TYPE_CHECKING:
    from pathlib import Path

    from ociforge.events import Event


def refusal(text: str, name: str = "pixi.lock") -> WorkspaceError:
    with pytest.raises(WorkspaceError) as caught:
        refuse_credentials({name: text.encode()}, ignore)
    assert "hidden" not in f"{caught.value.message} {caught.value.hint}"
    return caught.value


@pytest.mark.parametrize(
    ("text", "kind", "shown"),
    [
        ('"http://h.io/" = ["http://mu:hidden@m.io/"]', "a password in", "http://m.io/"),
        ("'https://:hidden@m.io/x'", "a password in", "https://m.io/x"),
        ("- pypi: https://u:hidden@h.io/a.whl\n", "a password in", "https://h.io/a.whl"),
        ("- pypi: git+https://u:hidden@h.io/a?rev=x#1\n", "a password in", "git+https://h.io/a?rev=x#1"),
        ("- pypi: direct+https://u:hid:den:hidden@h.io/a\n", "a password in", "direct+https://h.io/a"),
        ("HTTPS://u:hidden@h.io/a", "a password in", "HTTPS://h.io/a"),
        ("- conda: https://h.io/t/hidden/ch/noarch/a.conda", "a channel's token in", "https://h.io/ch/noarch/a.conda"),
        ("git+https://ghp_hidden@h.io/a", "a token in the place of a user in", "git+https://h.io/a"),
        ("https://h.io/a.whl?x=1&private_token=hidden", "a token in the query of", "https://h.io/a.whl"),
        ("https://h.io/a.whl?sig=hidden", "a token in the query of", "https://h.io/a.whl"),
    ],
)
def test_kinds(text: str, kind: str, shown: str) -> None:
    error = refusal(text)
    assert error.message == f"`pixi.lock` has {kind} the URL `{shown}`: the bundle would have it"
    assert error.hint is not None
    assert all(place in error.hint for place in ("netrc", "rattler", "OCIFORGE_CONDA_MIRRORS"))


@pytest.mark.parametrize(
    "text",
    [
        "https://conda.anaconda.org/conda-forge/noarch/a-1.0-0.conda",
        "git+ssh://git@github.com/a/b?rev=1#2",
        "https://organization@dev.azure.com/organization/_git/b",
        "https://h.io:8080/@scope/a@1.0/t/x",
        '"https://u:${TOKEN}@h.io/" "https://u:$TOKEN@h.io/" "https://h.io/t/<TOKEN>/ch/" "https://h.io/?token={{x}}"',
        "https://h.io/a?rev=main&subdirectory=token",
    ],
)
def test_what_is_none(text: str) -> None:
    refuse_credentials({"pixi.toml": text.encode()}, ignore)


def test_many_are_told_in_a_line() -> None:
    lines = "".join(f"- conda: https://h.io/t/hidden/ch/{n}.conda\n- pypi: https://u:hidden@h.io/w\n" for n in range(9))
    assert [line.removesuffix(": the bundle would have it") for line in refusal(lines).message.splitlines()] == [
        "`pixi.lock` has a channel's token in the URL `https://h.io/ch/0.conda`, and in 8 more",
        "`pixi.lock` has a password in the URL `https://h.io/w`",
    ]


def test_addresses_of_other_services_are_warned_of() -> None:
    events: list[Event] = []
    refuse_credentials({"pixi.toml": b'URL = "postgres://me:hidden@localhost/db"'}, events.append)
    (warned,) = events
    assert isinstance(warned, Warned)
    assert warned.message == "`pixi.toml` has a password in the URL `postgres://localhost/db`"


def test_nothing_is_fetched_before(tmp_path: Path) -> None:
    bench = Bench.make(tmp_path)
    bench.tiny.settings('\n[tool.ociforge.mirrors]\n"https://h.io/" = ["https://u:hidden@m.io/"]\n')
    with pytest.raises(WorkspaceError, match=r"`pixi.toml` has a password in the URL `https://m.io/`"):
        bench.bundle()
    assert not (bench.store.archives / "archives").exists()
