"""A request in the words of `uv pip compile`: a project, constraints, overrides and options."""

from __future__ import annotations

import json
import os
import zipfile
from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.version import InvalidVersion, Version

from ociforge.errors import SolveError
from ociforge.pypi.request import PROJECT

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from ociforge.pypi.request import PypiRequest, Requirement

__all__ = ["as_version", "check_sources", "index_options", "options", "variables", "write_inputs"]


def check_sources(request: PypiRequest) -> None:
    """Raises SolveError for a name that is to come from two places."""
    known: dict[str, dict[str, str | bool]] = {}
    indexes: dict[str, str] = {}
    for requirement in request.requirements:
        place = _source(request, requirement, indexes)
        if place and known.setdefault(requirement.name, place) != place:
            raise SolveError(
                f"{request.what}: the PyPI package `{requirement.name}` is asked for from two places",
                "let only one feature of the environment say where it comes from",
            )


def write_inputs(request: PypiRequest, directory: Path) -> list[str]:
    """Write into `directory` the files that describe the request; returns their names as arguments."""
    (directory / "pyproject.toml").write_text(_project(request), encoding="utf-8")
    (directory / "pylock.toml").write_text(_preferences(request), encoding="utf-8")
    given = [line for name, version in sorted(request.provided.items()) if (line := _stub(directory, name, version))]
    (directory / "constraints.txt").write_text("".join(given), encoding="utf-8")
    overrides = [f"{_override(request, requirement)}\n" for requirement in request.overrides]
    (directory / "overrides.txt").write_text("".join(overrides), encoding="utf-8")
    return ["pyproject.toml", "--constraints=constraints.txt", "--overrides=overrides.txt"]


def _project(request: PypiRequest) -> str:
    """The requirements as a project: its sources say where each comes from, which a requirement alone cannot."""
    indexes: dict[str, str] = {}
    sources = {}
    for requirement in request.requirements:
        source = _source(request, requirement, indexes)
        if source:
            sources[requirement.name] = source
    lines = [
        "[project]",
        f'name = "{PROJECT}"',
        'version = "0"',
        f"dependencies = {_array(requirement.text for requirement in request.requirements)}",
        "[tool.uv.workspace]",  # so that none is looked for above
        "members = []",
        "[tool.uv.sources]",
        *(f"{name} = {{ {_pairs(source)} }}" for name, source in sorted(sources.items())),
    ]
    for url, name in indexes.items():
        lines += ["[[tool.uv.index]]", f"name = {_string(name)}", f"url = {_string(url)}", "explicit = true"]
    return "\n".join(lines) + "\n"


def _source(request: PypiRequest, requirement: Requirement, indexes: dict[str, str]) -> dict[str, str | bool]:
    if requirement.index is not None:
        return {"index": indexes.setdefault(requirement.index, f"i{len(indexes)}")}
    if requirement.path is not None:
        return {"path": os.path.normpath(request.root.absolute() / requirement.path)}
    if requirement.url is not None:
        table: dict[str, str | bool] = {"url": requirement.url}
    elif requirement.git is not None:
        git = requirement.git
        table = {"git": git.url.removeprefix("git+"), **({"lfs": True} if git.lfs else {})}
        table |= {key: ref for key in ("branch", "tag", "rev") if (ref := getattr(git, key)) is not None}
    else:
        return {}
    below = requirement.subdirectory or (requirement.git and requirement.git.subdirectory)
    return {**table, "subdirectory": below} if below else table


def _override(request: PypiRequest, requirement: Requirement) -> str:
    """A line of an overrides file; what it cannot say is refused."""
    head, _, markers = requirement.text.partition(" ; ")
    place = None
    if requirement.index is not None:
        raise SolveError(
            f"{request.what}: the override of `{requirement.name}` names an index, which is not supported",
            "name the index in `pypi-dependencies`",
        )
    if requirement.path is not None:
        place = Path(os.path.normpath(request.root.absolute() / requirement.path)).as_uri()
    elif requirement.url is not None:
        place = requirement.url + (f"#subdirectory={requirement.subdirectory}" if requirement.subdirectory else "")
    elif requirement.git is not None:
        git = requirement.git
        reference = git.rev or git.tag or git.branch
        place = f"git+{git.url.removeprefix('git+')}" + (f"@{reference}" if reference else "")
        place += f"#subdirectory={git.subdirectory}" if git.subdirectory else ""
    return head + (f" @ {place}" if place else "") + (f" ; {markers}" if markers else "")


def _stub(directory: Path, name: str, version: str) -> str | None:
    """A line that admits no distribution of `name` but an empty one; None for a version that PyPI cannot have."""
    parsed = as_version(version)
    if parsed is None:
        return None
    stem = f"{name.replace('-', '_')}-{parsed}"
    path = directory / "provided" / f"{stem}-py3-none-any.whl"
    path.parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{stem}.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {parsed}\n")
        wheel.writestr(f"{stem}.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{stem}.dist-info/RECORD", "")
    return f"{name} @ {path.as_uri()}\n"


def as_version(text: str) -> Version | None:
    """A version of PyPI's kind, or None: conda's need not be."""
    try:
        return Version(text)
    except InvalidVersion:
        return None


def _preferences(request: PypiRequest) -> str:
    """An earlier result: uv keeps the versions of the file that it is to write."""
    kept = {name: version for name, version in request.preferred.items() if name not in request.provided}
    lines = ['lock-version = "1.0"', 'created-by = "ociforge"', *([] if kept else ["packages = []"])]
    for name, version in sorted(kept.items()):
        lines += ["[[packages]]", f"name = {_string(name)}", f"version = {_string(version)}"]
    return "\n".join(lines) + "\n"


def options(request: PypiRequest) -> list[str]:
    """The arguments for `uv pip compile` that say how to choose."""
    machine = request.machine
    arguments = ["--no-header", "--no-annotate", "--generate-hashes"]
    arguments += [f"--python-version={machine.version}", f"--python-platform={machine.uv_platform}"]
    arguments += index_options(request)
    if request.prerelease_mode is not None:
        arguments.append(f"--prerelease={request.prerelease_mode}")
    arguments += _per_name("--no-binary", ":all:", request.no_binary)
    # A build without isolation would run in this process's own environment: such packages must do without.
    for unbuilt in (request.no_build, request.no_build_isolation):
        arguments += ["--no-build"] if unbuilt is True else _per_name("--only-binary", "", unbuilt)
    for name, cutoff in sorted(request.package_cutoffs.items()):
        arguments.append(f"--exclude-newer-package={name}={_moment(cutoff)}")
    return arguments


def index_options(request: PypiRequest) -> list[str]:
    """The arguments that say where distributions come from, for resolving and for building."""
    first, *others = request.indexes
    arguments = [f"--default-index={first}", *(f"--index={url}" for url in others)]
    arguments += [f"--find-links={_absolute(request, place)}" for place in request.find_links]
    if request.index_strategy is not None:
        arguments.append(f"--index-strategy={request.index_strategy}")
    if request.cutoff is not None:
        arguments.append(f"--exclude-newer={_moment(request.cutoff)}")
    return arguments


def _absolute(request: PypiRequest, place: str) -> str:
    return place if "://" in place else os.path.normpath(request.root.absolute() / place)


def _per_name(option: str, all_names: str, value: frozenset[str] | bool) -> list[str]:
    if isinstance(value, bool):
        return [f"{option}={all_names}"] if value else []
    return [f"{option}={name}" for name in sorted(value)]


def variables(request: PypiRequest) -> dict[str, str]:
    """What uv takes from its environment only."""
    found = {}
    if request.machine.subdir.startswith("osx-"):
        found["MACOSX_DEPLOYMENT_TARGET"] = request.machine.system
    if request.skip_wheel_filename_check:
        found["UV_SKIP_WHEEL_FILENAME_CHECK"] = "1"
    return found


def _moment(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _string(text: str) -> str:
    """A TOML string: JSON's escapes are TOML's too."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _array(texts: Iterable[str]) -> str:
    return f"[{', '.join(_string(text) for text in texts)}]"


def _pairs(table: Mapping[str, str | bool]) -> str:
    return ", ".join(f"{key} = {_string(v) if isinstance(v, str) else str(v).lower()}" for key, v in table.items())
