"""The pixi manifest, read strictly: `pixi.toml`, `pyproject.toml` or `mojoproject.toml` to a Manifest.

The grammar is that of pixi 0.77.0. Unknown keys are errors, as they are for pixi: a key that is skipped in
silence would be a package or a variable missing from the image.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from msgspec import Struct, field
from msgspec.structs import replace

from ociforge.errors import WorkspaceError
from ociforge.workspace.feature import (
    CHANNEL_PRIORITIES,
    SOLVE_STRATEGIES,
    Channel,
    EnvironmentDeclaration,
    Feature,
    read_channels,
    read_cutoff,
    read_environments,
    read_feature,
    read_features,
)
from ociforge.workspace.platforms import SUBDIRS, WorkspacePlatform, read_platform
from ociforge.workspace.pypi_options import PypiOptions, read_pypi_options
from ociforge.workspace.pyproject import Project
from ociforge.workspace.reading import Findings, Table, read_toml
from ociforge.workspace.specs import read_conda_specs

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

__all__ = ["FILE_NAMES", "PIXI_VERSION", "Manifest", "discover", "read_manifest"]

PIXI_VERSION: Final = "0.77.0"
FILE_NAMES: Final = ("pixi.toml", "pyproject.toml", "mojoproject.toml")  # the first one in a directory counts


class Manifest(Struct, frozen=True, kw_only=True):
    """A workspace's manifest. `path` is the file; `settings` the raw `[tool.ociforge]` of the same file."""

    path: Path
    name: str
    version: str | None = None
    description: str | None = None
    authors: tuple[str, ...] = ()
    license: str | None = None
    homepage: str | None = None
    repository: str | None = None
    documentation: str | None = None
    channels: tuple[Channel, ...] = ()
    platforms: Mapping[str, WorkspacePlatform] = field(default_factory=dict)
    exclude_newer: str | None = None
    package_exclude_newer: Mapping[str, str] = field(default_factory=dict)
    pypi_exclude_newer: Mapping[str, str] = field(default_factory=dict)
    pypi_options: PypiOptions | None = None
    conda_pypi_map: bool = False
    preview: tuple[str, ...] = ()
    has_package: bool = False
    features: Mapping[str, Feature] = field(default_factory=dict)
    environments: Mapping[str, EnvironmentDeclaration] = field(default_factory=dict)
    settings: object = None
    warnings: tuple[str, ...] = ()

    @property
    def root(self) -> Path:
        """The workspace's directory."""
        return self.path.parent

    @property
    def composes(self) -> bool:
        """Whether environments compose their platforms out of deprecated system requirements."""
        return any(feature.system_requirements is not None for feature in _all_features(self))


def discover(start: Path, *, upward: bool = True) -> Path:
    """The manifest of the workspace that `start` lies in; raises WorkspaceError when there is none.

    In each directory the first of FILE_NAMES counts, if it has a workspace table; then the walk goes up.
    """
    place = start.resolve()  # `..` is the parent, also of a link
    if not place.is_dir():
        raise WorkspaceError(f"no such directory: `{start}`", "pass the directory of a pixi workspace")
    for directory in (place, *place.parents) if upward else (place,):
        path = next((directory / name for name in FILE_NAMES if (directory / name).is_file()), None)
        if path is not None and _find_workspace(path, read_toml(path)) is not None:
            return path
    raise WorkspaceError(
        f"no pixi workspace in `{start}`{' or above it' if upward else ''}",
        "a `pixi.toml` with `[workspace]`, or a `pyproject.toml` with `[tool.pixi.workspace]`, makes one",
    )


def read_manifest(path: Path) -> Manifest:
    """Read a manifest; raises one WorkspaceError that lists everything that is wrong with it."""
    document = read_toml(path)
    findings = Findings(f"`{path.name}`")
    tables = _find_workspace(path, document, findings)
    if tables is None:
        table = "[tool.pixi.workspace]" if path.name == "pyproject.toml" else "[workspace]"
        raise WorkspaceError(f"`{path}` is no pixi workspace: it has no `{table}`")
    top, workspace = tables
    _check_requires_pixi(workspace, path.name)
    project = Project(document, findings) if path.name == "pyproject.toml" else None
    manifest = _read_top(_read_workspace(path, workspace), top, workspace, project)
    manifest = replace(manifest, settings=_read_settings(document, top))
    top.finish()
    findings.settle("the keys are those of pixi " + PIXI_VERSION)
    _check_platforms(manifest)
    return replace(manifest, warnings=tuple(_warnings(manifest, workspace)))


def _find_workspace(
    path: Path, document: dict[str, object], findings: Findings | None = None
) -> tuple[Table, Table] | None:
    """The tables that hold pixi's keys and the workspace's (`workspace`, deprecated `project`), or None."""
    crumb: tuple[str, ...] = ()
    table: object = document
    if path.name == "pyproject.toml":
        tool = document.get("tool")
        table, crumb = (tool.get("pixi") if isinstance(tool, dict) else None), ("tool", "pixi")
    if not isinstance(table, dict):
        return None
    top = Table(table, crumb, findings or Findings(f"`{path.name}`"))
    key = next((name for name in ("workspace", "project") if isinstance(table.get(name), dict)), None)
    workspace = None if key is None else top.table(key)
    return None if workspace is None else (top, workspace)


def _check_requires_pixi(table: Table, document: str) -> None:
    """Before anything else: a manifest of a newer pixi must not fail over a key that only looks unknown."""
    wanted = table.text("requires-pixi")
    if wanted is None:
        return
    verdict = _version_matches(wanted, PIXI_VERSION)
    if verdict is None:
        table.wrong("requires-pixi", "no version spec, such as `>=0.60`")
    elif not verdict:
        raise WorkspaceError(
            f"`{document}` needs pixi `{wanted}`: this ociforge follows pixi {PIXI_VERSION}",
            "upgrade ociforge, or relax `requires-pixi`",
        )


def _read_workspace(path: Path, table: Table) -> Manifest:
    for key in ("channels", "platforms"):
        if key not in table:
            table.findings.add(table.crumb, f"the key `{key}` is missing")
    for key in ("license-file", "readme"):
        table.text(key)
    table.ignore("s3-options", "build-variants", "build-variants-files", "dependencies", "target")
    manifest = Manifest(
        path=path,
        name=table.text("name") or "",
        version=table.text("version"),
        description=table.text("description"),
        authors=table.texts("authors") or (),
        license=table.text("license"),
        homepage=table.text("homepage"),
        repository=table.text("repository"),
        documentation=table.text("documentation"),
        channels=read_channels(table) or (),
        platforms=_read_platforms(table),
        exclude_newer=read_cutoff(table, "exclude-newer"),
        pypi_options=read_pypi_options(table.table("pypi-options")),
        conda_pypi_map=table.take("conda-pypi-map") is not None,
        preview=_read_preview(table),
    )
    for _, target in table.tables("target"):
        target.ignore("build-variants")
        target.finish()
    return manifest


def _read_preview(table: Table) -> tuple[str, ...]:
    if isinstance(table.values.get("preview"), bool):
        return ("pixi-build",) if table.flag("preview") else ()
    return table.texts("preview") or ()


def _read_platforms(table: Table) -> dict[str, WorkspacePlatform]:
    found: dict[str, WorkspacePlatform] = {}
    for index, item in enumerate(table.array("platforms") or ()):
        platform = read_platform(item, table, "platforms", index)
        if platform is None:
            continue
        if platform.name in found:
            table.findings.add(table.at("platforms", index), f"the platform `{platform.name}` is listed twice")
        found[platform.name] = platform
    return found


def _read_top(manifest: Manifest, top: Table, workspace: Table, project: Project | None) -> Manifest:
    """The tables beside `workspace`, and what the project of a `pyproject.toml` adds."""
    shared = workspace.table("dependencies")
    pool = {} if shared is None else shared.values
    read_conda_specs(shared)
    features = {"default": _read_default(top, workspace, pool), **read_features(top, pool)}
    if project is not None:
        features = project.extend(features)
        manifest = _with_project(manifest, project)
    package = top.table("package")
    name = package.values.get("name") if package is not None and not manifest.name else None
    workspace.finish()
    return replace(
        manifest,
        name=manifest.name or (name if isinstance(name, str) else "") or manifest.path.absolute().parent.name,
        features=features,
        environments=read_environments(top, features, pool),
        has_package=package is not None,
        package_exclude_newer=_read_cutoffs(top, "exclude-newer"),
        pypi_exclude_newer=_read_cutoffs(top, "pypi-exclude-newer"),
    )


def _read_default(top: Table, workspace: Table, pool: Mapping[str, object]) -> Feature:
    """The default feature: the top level's own keys; `channels` and `platforms` are the workspace's."""
    keys = {key: value for key, value in top.values.items() if key not in _NOT_AT_TOP}
    default = read_feature("default", visible := Table(keys, top.crumb, top.findings), pool)
    top.ignore(*(key for key in visible.asked if key not in _NOT_AT_TOP))
    return replace(
        default,
        channel_priority=workspace.choice("channel-priority", CHANNEL_PRIORITIES),
        solve_strategy=workspace.choice("solve-strategy", SOLVE_STRATEGIES),
    )


_NOT_AT_TOP: Final = ("platforms", "channels", "channel-priority", "solve-strategy")


def _with_project(manifest: Manifest, project: Project) -> Manifest:
    return replace(
        manifest,
        name=manifest.name or project.name or "",
        version=manifest.version or project.version,
        description=manifest.description or project.description,
        authors=manifest.authors or project.authors,
    )


def _read_settings(document: Mapping[str, object], top: Table) -> object:
    """`[tool.ociforge]`, which stands beside `[tool.pixi]` in a `pyproject.toml`."""
    if not top.crumb:
        top.ignore("tool", "$schema")
        if "tool" in top:
            top.table("tool")
    tool = document.get("tool")
    return tool.get("ociforge") if isinstance(tool, dict) else None


def _read_cutoffs(top: Table, key: str) -> dict[str, str]:
    table = top.table(key)
    if table is None:
        return {}
    found = {name: read_cutoff(table, name) for name in table.values}
    return {name.lower(): cutoff for name, cutoff in found.items() if cutoff is not None}


def _all_features(manifest: Manifest) -> Iterator[Feature]:
    yield from manifest.features.values()
    yield from (e.inline for e in manifest.environments.values() if e.inline is not None)


def _check_platforms(manifest: Manifest) -> None:
    """System requirements and rich platforms exclude each other (pixi 0.71)."""
    rich = [platform.name for platform in manifest.platforms.values() if platform.rich]
    if rich and manifest.composes:
        raise WorkspaceError(
            f"`system-requirements` in `{manifest.path.name}` cannot be used beside the platform `{rich[0]}`",
            "declare the virtual packages in `workspace.platforms`",
        )


def _warnings(manifest: Manifest, workspace: Table) -> Iterator[str]:
    """What pixi warns about, too: parts of the manifest without effect."""
    where, platforms = manifest.path.name, manifest.platforms.values()
    if workspace.crumb[-1] == "project":
        yield f"`{where}`: the table `project` is deprecated: call it `workspace`"
    for feature in _all_features(manifest):
        for name in feature.platforms or ():
            if not any(platform.named_by(name) for platform in platforms):
                yield f"`{where}`: feature `{feature.name}` names the platform `{name}`, which the workspace lacks"
        for selector in (target.selector for target in feature.targets if target.selector is not None):
            if selector not in SUBDIRS and not any(platform.selected_by(selector) for platform in platforms):
                yield f"`{where}`: the target `{selector}` of feature `{feature.name}` matches no platform"


_COMPARISON: Final = re.compile(r"(>=|<=|==|!=|~=|>|<|=)?\s*v?(\d{1,9}(?:\.\d{1,9})*)(\.\*|\*)?")


def _version_matches(spec: str, version: str) -> bool | None:
    """Whether a version spec (`>=0.40,<1|0.77.*`) holds; None when it is none."""
    verdicts = [[_holds(part.strip(), version) for part in option.split(",")] for option in spec.split("|")]
    if any(verdict is None for option in verdicts for verdict in option):
        return None
    return any(all(option) for option in verdicts)


def _holds(part: str, version: str) -> bool | None:
    if part == "*":
        return True
    match = _COMPARISON.fullmatch(part)
    if match is None:
        return None
    operator, given = match[1], tuple(int(p) for p in match[2].split("."))
    fuzzy = match[3] is not None or operator == "="
    actual = tuple(int(p) for p in version.split("."))
    width = max(len(given), len(actual))
    left, right = actual + (0,) * (width - len(actual)), given + (0,) * (width - len(given))
    same = actual[: len(given)] == given if fuzzy else left == right
    match operator:
        case ">=":
            return left >= right
        case "<=":
            return left <= right or (fuzzy and same)
        case ">":
            return left > right and not (fuzzy and same)
        case "<":
            return left < right
        case "!=":
            return not same
        case "~=":
            return left >= right and actual[: len(given) - 1] == given[:-1]
        case _:
            return same
