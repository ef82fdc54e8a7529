from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from ociforge.transports.deferred import defer

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = "a_package_to_be_deferred"
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("import sys\nsys.loaded_packages = ['it']\nvalue = 7\n")
    (tmp_path / name / "part.py").write_text("other = 8\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "loaded_packages", [], raising=False)
    for known in (name, f"{name}.part"):
        monkeypatch.delitem(sys.modules, known, raising=False)
    return name


def loaded() -> list[str]:
    return sys.loaded_packages  # type: ignore[attr-defined,no-any-return]  # the fixture's


def test_a_module_is_loaded_when_it_is_used(package: str) -> None:
    defer(package)
    module = __import__(package)
    assert loaded() == []
    assert module.value == 7
    assert loaded() == ["it"]
    assert __import__(package).value == 7 and __import__(package) is not module


def test_a_part_of_it_can_be_imported_first(package: str) -> None:
    defer(package)
    assert __import__(f"{package}.part").part.other == 8


def test_what_was_imported_stays(package: str) -> None:
    module = __import__(package)
    defer(package)
    assert __import__(package) is module


def test_what_is_not_there_shows_at_its_first_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "no_such_package", raising=False)
    defer("no_such_package")
    module = sys.modules["no_such_package"]
    with pytest.raises(ModuleNotFoundError):
        _ = module.anything
