"""A password that somebody writes where none belongs is refused, and not repeated."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ociforge.cli import run

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.tiny import Tiny

PLACE = "docker://user:s3cret@host.example/x"


@pytest.mark.parametrize(
    "arguments",
    [
        ("verify", PLACE),
        ("inspect", PLACE),
        ("inspect", PLACE.removeprefix("docker://")),
        ("push", PLACE, "oci:copy"),
        ("push", "oci:copy", PLACE),
        ("rebase", PLACE, "--base", PLACE, "-o", "oci:copy"),
        ("bundle", "import", PLACE),
        ("login", "user:s3cret@host.example"),
        ("login", "https://user:s3cret@host.example"),
        ("verify", "docker://host.example/x", "--mirror", "host.example=user:s3cret@mirror.example"),
    ],
    ids=lambda arguments: " ".join(arguments[:2]).replace("s3cret", "…"),
)
def test_places(
    arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OCIFORGE_CACHE", str(tmp_path / "cache"))
    assert run(arguments) in (1, 2)
    out, err = capfd.readouterr()
    assert "error: " in err
    assert "s3cret" not in out + err


@pytest.mark.parametrize("option", ["--base", "--push", "--reuse", "--output"])
def test_options_of_builds(
    option: str, made: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OCIFORGE_CACHE", str(tmp_path / "cache"))
    assert run(["build", str(made.root), option, PLACE]) in (1, 2)
    out, err = capfd.readouterr()
    assert "holds no user and password" in err
    assert "s3cret" not in out + err
