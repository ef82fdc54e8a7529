"""What the check of the lock leaves behind for the next run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ociforge.cli import options
from ociforge.cli.fit import fitting_lock
from ociforge.errors import LockError
from ociforge.store import Store
from ociforge.workspace import satisfy
from tests.support.tiny import tiny_workspace

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.tiny import Tiny


class Scene:
    """A workspace, a store, and how often the lock was checked."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.tiny: Tiny = tiny_workspace(root / "workspace")
        self.store = Store(root / "store")
        self.checks = 0
        check = satisfy.check

        def counted(*args: object, **kwargs: object) -> satisfy.Verdict:
            self.checks += 1
            return check(*args, **kwargs)  # type: ignore[arg-type]  # as they are

        monkeypatch.setattr(satisfy, "check", counted)

    def read(self, *, frozen: bool = False) -> int:
        """How many checks it took to get the lock."""
        before = self.checks
        workspace = options.open_workspace(self.tiny.root)
        lock = fitting_lock(workspace, frozen=frozen, verb="build", known=self.store.facts)
        assert lock.path == self.tiny.lock
        return self.checks - before

    def write(self, old: str, new: str) -> None:
        text = self.tiny.manifest.read_text()
        assert old in text
        self.tiny.manifest.write_text(text.replace(old, new, 1))


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    return Scene(tmp_path, monkeypatch)


def test_a_lock_that_fits_is_checked_once(scene: Scene) -> None:
    assert [scene.read(), scene.read(), scene.read()] == [1, 0, 0]


def test_a_changed_manifest_is_checked_again(scene: Scene) -> None:
    scene.read()
    scene.write("[dependencies]", "[dependencies]\nabsent = '*'")
    for _ in range(2):  # that it does not fit is never remembered
        with pytest.raises(LockError, match="does not fit the manifest"):
            scene.read()
    assert scene.checks == 3


def test_a_changed_lock_is_checked_again(scene: Scene) -> None:
    scene.read()
    scene.tiny.lock.write_text(scene.tiny.lock.read_text() + "\n")
    assert scene.read() == 1


def test_what_follows_from_the_time_is_checked_each_time(scene: Scene) -> None:
    scene.write("[workspace]", "[workspace]\nexclude-newer = '7d'")
    assert [scene.read(), scene.read()] == [1, 1]


def test_frozen_is_not_checked(scene: Scene) -> None:
    assert [scene.read(frozen=True), scene.read()] == [0, 1]


def test_a_damaged_note_is_none(scene: Scene) -> None:
    scene.read()
    for path in (scene.store.root / "facts").iterdir():
        path.write_bytes(b"damaged")
    assert scene.read() == 1
