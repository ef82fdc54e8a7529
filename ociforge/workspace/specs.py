"""What a manifest asks of one package: conda specs and PyPI requirements, as values.

Only the form is judged here; whether a version expression can be understood is the lock check's business,
because that needs conda's own grammar.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from msgspec import Struct
from msgspec.structs import replace

from ociforge.workspace.reading import Table, describe

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self, TypeVar

    _Spec = TypeVar("_Spec", bound="PypiSpec")

__all__ = ["CondaSpec", "Condition", "GitSource", "PypiSpec", "read_conda_specs", "read_pypi_specs"]

_CONDA_NAME: Final = re.compile(r"[A-Za-z0-9_.-]+")
_ARCHIVES: Final = (".conda", ".tar.bz2")
_DEPTH: Final = 16  # of `when` tables; pixi's own examples nest two


class GitSource(Struct, frozen=True, kw_only=True):
    """A git repository; at most one of `branch`, `tag` and `rev` is set."""

    url: str
    branch: str | None = None
    tag: str | None = None
    rev: str | None = None
    subdirectory: str | None = None
    lfs: bool = False


class Condition(Struct, frozen=True, kw_only=True):
    """A `when` clause: exactly one of the four is set; `text` is a match spec, `spec` its table form."""

    text: str | None = None
    spec: CondaSpec | None = None
    every: tuple[Condition, ...] | None = None
    some: tuple[Condition, ...] | None = None


class CondaSpec(Struct, frozen=True, kw_only=True):
    """One conda requirement; `name` is lower case, `where` its breadcrumb in the manifest."""

    name: str
    where: str
    version: str | None = None
    build: str | None = None
    build_number: str | None = None
    file_name: str | None = None
    channel: str | None = None
    subdir: str | None = None
    license: str | None = None
    license_family: str | None = None
    md5: str | None = None
    sha256: str | None = None
    extras: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    track_features: tuple[str, ...] = ()
    when: Condition | None = None
    url: str | None = None
    path: str | None = None
    git: GitSource | None = None
    inline_package: bool = False

    @property
    def is_source(self) -> bool:
        """Whether it names sources, which only pixi-build can turn into a package."""
        if self.git is not None or self.inline_package:
            return True
        place = self.url if self.url is not None else self.path
        return place is not None and not place.partition("#")[0].partition("?")[0].endswith(_ARCHIVES)


class PypiSpec(Struct, frozen=True, kw_only=True):
    """One PyPI requirement; `name` is normalised, `version` a PEP 440 specifier or None for any."""

    name: str
    where: str
    version: str | None = None
    extras: tuple[str, ...] = ()
    markers: str | None = None
    index: str | None = None
    path: str | None = None
    editable: bool | None = None
    url: str | None = None
    git: GitSource | None = None
    subdirectory: str | None = None

    @classmethod
    def of_requirement(cls, text: str, where: str) -> Self:
        """The PEP 508 form; raises ValueError when it is none."""
        from packaging.requirements import InvalidRequirement, Requirement
        from packaging.utils import canonicalize_name

        try:
            parsed = Requirement(text)
        except InvalidRequirement as error:
            raise ValueError(str(error).partition("\n")[0]) from error
        spec = cls(
            name=canonicalize_name(parsed.name),
            where=where,
            version=str(parsed.specifier) or None,
            extras=tuple(sorted(parsed.extras)),
            markers=None if parsed.marker is None else str(parsed.marker),
        )
        return spec if parsed.url is None else _located(spec, parsed.url)


def _located(spec: _Spec, url: str) -> _Spec:
    """The requirement at a PEP 508 URL."""
    base, _, fragment = url.partition("#")
    options = dict(part.partition("=")[::2] for part in fragment.split("&") if part)
    subdirectory = options.get("subdirectory")
    if not base.startswith("git+"):
        return replace(spec, url=url if subdirectory is None else base, subdirectory=subdirectory)
    scheme, separator, rest = base.removeprefix("git+").partition("://")
    # An `@` before the first slash is a user name, one after it a revision.
    host, slash, repository = rest.partition("/")
    repository, _, rev = repository.partition("@")
    address = f"{scheme}{separator}{host}{slash}{repository}"
    return replace(spec, git=GitSource(url=address, rev=rev or None, subdirectory=subdirectory))


def read_conda_specs(table: Table | None, pool: Mapping[str, object] | None = None) -> dict[str, CondaSpec]:
    """A `dependencies` table; `pool` is `workspace.dependencies`, for `{ workspace = true }`."""
    found: dict[str, CondaSpec] = {}
    for name in table.values if table is not None else ():
        assert table is not None
        spec = _read_conda_spec(table, name, pool)
        if spec is None:
            continue
        if spec.name in found:
            table.wrong(name, f"`{spec.name}` is listed twice")
        found[spec.name] = spec
    return found


def _read_conda_spec(table: Table, name: str, pool: Mapping[str, object] | None) -> CondaSpec | None:
    value = table.take(name)
    if not _CONDA_NAME.fullmatch(name):
        table.wrong(name, "no conda package name: letters, digits, `-`, `_` and `.`")
        return None
    where = ".".join(str(part) for part in table.at(name))
    if isinstance(value, str):
        return _plain(table, name, value, where)
    if not isinstance(value, dict):
        table.wrong(name, f"expected a version or a table, got {describe(value)}")
        return None
    if "workspace" in value:
        return _inherited(table, name, value, pool)
    entry = table.enter(value, name)
    assert entry is not None
    return _detailed(entry, name, where, depth=0)


def _plain(table: Table, name: str, value: str, where: str) -> CondaSpec | None:
    if not value.strip():
        table.wrong(name, "expected a version: `*` means any")
        return None
    return CondaSpec(name=name.lower(), where=where, version=value.strip())


def _inherited(
    table: Table, name: str, value: Mapping[str, object], pool: Mapping[str, object] | None
) -> CondaSpec | None:
    """`{ workspace = true, … }`: the entry of `workspace.dependencies` with the other keys laid over it."""
    if value["workspace"] is not True:
        table.findings.add(table.at(name, "workspace"), f"expected `true`, got {describe(value['workspace'])}")
        return None
    base = (pool or {}).get(name)
    if base is None:
        table.wrong(name, "`workspace.dependencies` has no such entry")
        return None
    below = {"version": base} if isinstance(base, str) else base
    if not isinstance(below, dict) or "workspace" in below:
        return None  # noted where `workspace.dependencies` is read
    rest = {key: item for key, item in value.items() if key != "workspace"}
    merged = table.enter({**below, **rest}, name)
    assert merged is not None
    return _detailed(merged, name, ".".join(str(part) for part in merged.crumb), depth=0)


def _detailed(entry: Table, name: str, where: str, depth: int) -> CondaSpec | None:
    before = len(entry.findings.messages)
    spec = CondaSpec(
        name=name.lower(),
        where=where,
        version=entry.text("version"),
        build=entry.text("build"),
        build_number=entry.text("build-number"),
        file_name=entry.text("file-name"),
        channel=entry.text("channel"),
        subdir=entry.text("subdir"),
        license=entry.text("license"),
        license_family=entry.text("license-family"),
        md5=_read_digest(entry, "md5", 32),
        sha256=_read_digest(entry, "sha256", 64),
        extras=entry.texts("extras") or (),
        flags=entry.texts("flags") or (),
        track_features=entry.texts("track-features") or (),
        when=_read_when(entry, depth),
        url=entry.text("url"),
        path=entry.text("path"),
        git=_read_git(entry),
        inline_package=entry.table("package") is not None,
    )
    entry.finish()
    if not entry.values:
        entry.findings.add(entry.crumb, "expected at least one key, such as `version`")
    if sum(key in entry for key in ("url", "path", "git")) > 1:
        entry.findings.add(entry.crumb, "only one of `url`, `path` and `git` can be set")
    return spec if len(entry.findings.messages) == before else None


def _read_digest(entry: Table, key: str, length: int) -> str | None:
    value = entry.text(key)
    if value is None or re.fullmatch(rf"[0-9a-fA-F]{{{length}}}", value):
        return None if value is None else value.lower()
    entry.wrong(key, f"expected {length} hexadecimal digits")
    return None


def _read_git(entry: Table) -> GitSource | None:
    url = entry.text("git")
    refs = {key: entry.text(key) for key in ("branch", "tag", "rev")}
    lfs, subdirectory = entry.flag("lfs"), entry.text("subdirectory")
    if url is None:
        for key in ("branch", "tag", "rev", "lfs"):
            if key in entry and "git" not in entry:
                entry.wrong(key, "only valid together with `git`")
        return None
    if sum(ref is not None for ref in refs.values()) > 1:
        entry.findings.add(entry.crumb, "only one of `branch`, `tag` and `rev` can be set")
    return GitSource(url=url, subdirectory=subdirectory, lfs=bool(lfs), **refs)


def _read_when(entry: Table, depth: int) -> Condition | None:
    value = entry.take("when")
    return None if value is None else _condition(entry, value, depth, "when")


def _condition(entry: Table, value: object, depth: int, *parts: str | int) -> Condition | None:
    if isinstance(value, str) and value.strip():
        return Condition(text=value.strip())
    if depth >= _DEPTH or not isinstance(value, dict):
        why = "nested too deeply" if isinstance(value, dict) else f"expected a string or a table, got {describe(value)}"
        entry.findings.add(entry.at(*parts), why)
        return None
    table = entry.enter(value, *parts)
    assert table is not None
    if "package" in table:
        return _expanded(table, depth)
    keys = [key for key in ("all", "any") if key in table]
    if len(keys) != 1:
        table.findings.add(table.crumb, "expected exactly one of `all`, `any` and `package`")
        return None
    items = table.array(keys[0]) or []
    inner = [_condition(table, item, depth + 1, keys[0], index) for index, item in enumerate(items)]
    table.finish()
    kept = tuple(condition for condition in inner if condition is not None)
    return Condition(every=kept) if keys[0] == "all" else Condition(some=kept)


def _expanded(table: Table, depth: int) -> Condition | None:
    name = table.text("package")
    rest = Table({k: v for k, v in table.values.items() if k != "package"}, table.crumb, table.findings)
    for key in ("url", "path", "git", "branch", "tag", "rev", "lfs", "subdirectory", "md5", "sha256", "channel"):
        if key in rest:
            rest.wrong(key, "not allowed in a `when` table")
    if name is None:
        return None
    if not rest.values:
        return Condition(text=name)
    spec = _detailed(rest, name, ".".join(str(part) for part in rest.crumb), depth + 1)
    return None if spec is None else Condition(spec=spec)


def read_pypi_specs(table: Table | None) -> dict[str, PypiSpec]:
    """A `pypi-dependencies` (or `dependency-overrides`) table, by normalised name."""
    found: dict[str, PypiSpec] = {}
    for name in table.values if table is not None else ():
        assert table is not None
        spec = _read_pypi_spec(table, name)
        if spec is None:
            continue
        if spec.name in found:
            table.wrong(name, f"`{spec.name}` is listed twice")
        found[spec.name] = spec
    return found


def _read_pypi_spec(table: Table, name: str) -> PypiSpec | None:
    from packaging.utils import canonicalize_name

    value = table.take(name)
    try:
        normal = canonicalize_name(name, validate=True)
    except ValueError:
        table.wrong(name, "no PyPI package name")
        return None
    where = ".".join(str(part) for part in table.at(name))
    if isinstance(value, str):
        version = _specifier(table, name, value)
        return PypiSpec(name=normal, where=where, version=version)
    entry = table.enter(value, name) if isinstance(value, dict) else None
    if entry is None:
        table.wrong(name, f"expected a version or a table, got {describe(value)}")
        return None
    return _pypi_table(entry, PypiSpec(name=normal, where=where))


def _pypi_table(entry: Table, spec: PypiSpec) -> PypiSpec | None:
    before = len(entry.findings.messages)
    version = entry.text("version")
    spec = replace(
        spec,
        version=None if version is None else _specifier(entry, "version", version),
        extras=tuple(sorted(entry.texts("extras") or ())),
        markers=_read_markers(entry),
        index=entry.text("index"),
        path=entry.text("path"),
        editable=entry.flag("editable"),
        url=entry.text("url"),
        git=_read_git(entry),
        subdirectory=entry.text("subdirectory"),
    )
    entry.finish()
    if sum(key in entry for key in ("version", "path", "url", "git")) > 1:
        entry.findings.add(entry.crumb, "only one of `version`, `path`, `url` and `git` can be set")
    for key, owner in (("index", "version"), ("editable", "path")):
        if key in entry and owner not in entry:
            entry.wrong(key, f"only valid together with `{owner}`")
    return spec if len(entry.findings.messages) == before else None


def _read_markers(entry: Table) -> str | None:
    markers = entry.text("env-markers")
    if markers is None:
        return None
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        return str(Requirement(f"name; {markers}").marker)
    except InvalidRequirement as error:
        entry.wrong("env-markers", f"no PEP 508 marker: {str(error).partition(chr(10))[0]}")
        return None


def _specifier(table: Table, key: str, text: str) -> str | None:
    if text.strip() in ("*", ""):
        return None
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    try:
        return str(SpecifierSet(text))
    except InvalidSpecifier:
        hint = f": did you mean `=={text.strip()}`?" if text[:1].isdigit() else ""
        table.wrong(key, f"`{text}` is no version specifier{hint}")
        return None
