"""The `pypi-options` tables and how those of a workspace and of features combine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import Struct, field

from ociforge.errors import WorkspaceError
from ociforge.workspace.reading import Table, describe
from ociforge.workspace.specs import PypiSpec, read_pypi_specs

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import TypeVar

    _T = TypeVar("_T")

__all__ = ["DEFAULT_INDEX", "PypiOptions", "combine", "overlay", "read_pypi_options"]

DEFAULT_INDEX: Final = "https://pypi.org/simple"

_STRATEGIES: Final = ("first-index", "unsafe-first-match", "unsafe-best-match")
_PRERELEASES: Final = ("disallow", "allow", "if-necessary", "explicit", "if-necessary-or-explicit")
_SINGLE: Final = ("index_url", "index_strategy", "prerelease_mode")


class PypiOptions(Struct, frozen=True, kw_only=True):
    """How PyPI packages are looked for. A set of names is "these"; `True` is "all"; `find_links` are (kind, place)."""

    index_url: str | None = None
    extra_index_urls: tuple[str, ...] = ()
    find_links: tuple[tuple[str, str], ...] = ()
    index_strategy: str | None = None
    prerelease_mode: str | None = None
    no_build: frozenset[str] | bool = False
    no_binary: frozenset[str] | bool = False
    no_build_isolation: frozenset[str] | bool = False
    dependency_overrides: Mapping[str, PypiSpec] = field(default_factory=dict)
    skip_wheel_filename_check: bool | None = None

    @property
    def indexes(self) -> tuple[str, ...]:
        """Every index in order, the primary one first, as a lock lists them."""
        return (self.index_url or DEFAULT_INDEX, *self.extra_index_urls)


def read_pypi_options(table: Table | None) -> PypiOptions | None:
    """The table, or None when it is absent."""
    if table is None:
        return None
    options = PypiOptions(
        index_url=table.text("index-url"),
        extra_index_urls=_unique(table.texts("extra-index-urls") or ()),
        find_links=_read_find_links(table),
        index_strategy=table.choice("index-strategy", _STRATEGIES),
        prerelease_mode=table.choice("prerelease-mode", _PRERELEASES),
        no_build=_read_names(table, "no-build"),
        no_binary=_read_names(table, "no-binary"),
        no_build_isolation=_read_names(table, "no-build-isolation"),
        dependency_overrides=read_pypi_specs(table.table("dependency-overrides")),
        skip_wheel_filename_check=table.flag("skip-wheel-filename-check"),
    )
    table.finish()
    return options


def _read_find_links(table: Table) -> tuple[tuple[str, str], ...]:
    found = []
    for index, item in enumerate(table.array("find-links") or ()):
        entry = table.enter(item, "find-links", index)
        if entry is None:
            continue
        places = [(kind, place) for kind in ("path", "url") if (place := entry.text(kind)) is not None]
        entry.finish()
        if len(places) != 1:
            entry.findings.add(entry.crumb, "expected exactly one of `path` and `url`")
        found += places
    return _unique(found)


def _read_names(table: Table, key: str) -> frozenset[str] | bool:
    value = table.values.get(key)
    if value is None or isinstance(value, bool):
        return bool(table.flag(key))
    if isinstance(value, list):
        from packaging.utils import canonicalize_name

        return frozenset(canonicalize_name(name) for name in table.texts(key) or ())
    table.take(key)
    table.wrong(key, f"expected `true`, `false` or an array of names, got {describe(value)}")
    return False


def combine(options: Iterable[PypiOptions], where: str) -> PypiOptions:
    """The union over features; raises WorkspaceError when two of them set one value differently."""
    result = PypiOptions()
    for other in options:
        for name in _SINGLE:
            mine, theirs = getattr(result, name), getattr(other, name)
            if mine is not None and theirs is not None and mine != theirs:
                key = name.replace("_", "-")
                raise WorkspaceError(
                    f"features of {where} disagree on `pypi-options.{key}`: `{mine}` and `{theirs}`",
                    "set it in `[workspace.pypi-options]` or in one feature only",
                )
        result = _merge(result, other)
    return result


def overlay(base: PypiOptions | None, above: PypiOptions) -> PypiOptions:
    """The workspace's options below the union over features: single values of `above` win."""
    return above if base is None else _merge(base, above)


def _merge(first: PypiOptions, second: PypiOptions) -> PypiOptions:
    """Lists of both in order; of single values the second's wins."""
    skip = second.skip_wheel_filename_check
    return PypiOptions(
        index_url=second.index_url or first.index_url,
        index_strategy=second.index_strategy or first.index_strategy,
        prerelease_mode=second.prerelease_mode or first.prerelease_mode,
        extra_index_urls=_unique((*first.extra_index_urls, *second.extra_index_urls)),
        find_links=_unique((*first.find_links, *second.find_links)),
        no_build=_union(first.no_build, second.no_build),
        no_binary=_union(first.no_binary, second.no_binary),
        no_build_isolation=_union(first.no_build_isolation, second.no_build_isolation),
        dependency_overrides={**first.dependency_overrides, **second.dependency_overrides},
        skip_wheel_filename_check=first.skip_wheel_filename_check if skip is None else skip,
    )


def _union(left: frozenset[str] | bool, right: frozenset[str] | bool) -> frozenset[str] | bool:
    if isinstance(left, bool):
        return left or right
    if isinstance(right, bool):
        return right or left
    return left | right


def _unique(items: Iterable[_T]) -> tuple[_T, ...]:
    return tuple(dict.fromkeys(items))
