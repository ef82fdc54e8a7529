"""What a `pyproject.toml` adds to its `[tool.pixi]`: the project's name, its python, its dependencies and groups."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from ociforge.workspace.feature import Feature
from ociforge.workspace.reading import describe
from ociforge.workspace.specs import CondaSpec, PypiSpec

if TYPE_CHECKING:
    from ociforge.workspace.reading import Crumb, Findings

__all__ = ["Project"]

_DEPTH: Final = 64  # of groups that include groups


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value and "\0" not in value else None


def _author(value: object) -> str | None:
    if isinstance(value, str):
        return value
    name, email = _text(_mapping(value).get("name")), _text(_mapping(value).get("email"))
    return f"{name} <{email}>" if name and email else name or email


def _append(feature: Feature, specs: list[PypiSpec]) -> Feature:
    """The feature with more PyPI requirements; a name in both keeps both."""
    default, *others = feature.targets
    merged = {name: list(known) for name, known in default.pypi_dependencies.items()}
    for spec in specs:
        if spec not in merged.setdefault(spec.name, []):
            merged[spec.name].append(spec)
    frozen = {name: tuple(known) for name, known in merged.items()}
    return replace(feature, targets=(replace(default, pypi_dependencies=frozen), *others))


class Project:
    """The parts of a `pyproject.toml` outside `[tool.pixi]`."""

    def __init__(self, document: Mapping[str, object], findings: Findings) -> None:
        self.findings = findings
        self.project = _mapping(document.get("project"))
        self.poetry = _mapping(_mapping(document.get("tool")).get("poetry"))
        self.extras = _mapping(self.project.get("optional-dependencies"))
        self.group_tables = _mapping(document.get("dependency-groups"))

    def extend(self, features: Mapping[str, Feature]) -> dict[str, Feature]:
        """The features with the implied python, the project's dependencies, and a feature per extra and group."""
        extended = dict(features)
        extended["default"] = _append(self._with_python(extended["default"]), self._dependencies())
        for name, specs in self._groups().items():
            extended[name] = _append(extended.get(name, Feature(name=name)), specs)
        return extended

    @property
    def name(self) -> str | None:
        """`project.name` only: pixi does not ask poetry."""
        return _text(self.project.get("name"))

    @property
    def version(self) -> str | None:
        """`project.version`, else poetry's."""
        return _text(self.project.get("version", self.poetry.get("version")))

    @property
    def description(self) -> str | None:
        """`project.description`, else poetry's."""
        return _text(self.project.get("description", self.poetry.get("description")))

    @property
    def authors(self) -> tuple[str, ...]:
        """`Name <address>` of each author, else poetry's."""
        authors = self.project.get("authors", self.poetry.get("authors"))
        texts = [_author(author) for author in authors] if isinstance(authors, list) else []
        return tuple(text for text in texts if text)

    def _with_python(self, feature: Feature) -> Feature:
        """Pixi always adds `python`, unless the plain run dependencies have it."""
        default, *others = feature.targets
        if "python" in default.run_dependencies:
            return feature
        wanted = self.project.get("requires-python", "*")
        if not isinstance(wanted, str):
            self.findings.add(("project", "requires-python"), f"expected a string, got {describe(wanted)}")
            return feature
        version = wanted.strip().removeprefix("==") or "*"
        spec = CondaSpec(name="python", where="project.requires-python", version=version)
        dependencies = {"python": spec, **default.dependencies}
        run = {"python": spec, **default.run_dependencies}
        return replace(feature, targets=(replace(default, dependencies=dependencies, run_dependencies=run), *others))

    def _dependencies(self) -> list[PypiSpec]:
        return self._requirements(self.project.get("dependencies", []), ("project", "dependencies"))

    def _groups(self) -> dict[str, list[PypiSpec]]:
        """Extras, then groups: a group replaces an extra of the same name."""
        found = {name: self._extra(name, ()) for name in self.extras}
        found |= {name: self._group(name, ()) for name in self.group_tables}
        return found

    def _requirements(self, items: object, crumb: Crumb) -> list[PypiSpec]:
        if not isinstance(items, list):
            self.findings.add(crumb, f"expected an array, got {describe(items)}")
            return []
        found = [self._requirement(item, (*crumb, index)) for index, item in enumerate(items)]
        return [spec for spec in found if spec is not None]

    def _requirement(self, item: object, crumb: Crumb) -> PypiSpec | None:
        if not isinstance(item, str):
            self.findings.add(crumb, f"expected a string, got {describe(item)}")
            return None
        try:
            return PypiSpec.of_requirement(item, ".".join(str(part) for part in crumb))
        except ValueError as error:
            self.findings.add(crumb, str(error))
            return None

    def _extra(self, name: str, above: tuple[str, ...]) -> list[PypiSpec]:
        """The extra's requirements; `project[other]` stands for those of another extra."""
        crumb: Crumb = ("project", "optional-dependencies", name)
        if name in above or len(above) > _DEPTH:
            self.findings.add(crumb, "the extra refers to itself")
            return []
        items = self.extras[name]
        found: list[PypiSpec] = []
        for index, item in enumerate(items if isinstance(items, list) else ()):
            inner = self._own_extras(item)
            if inner is None:
                found += self._requirements([item], (*crumb, index))
            found += [spec for other in inner or () for spec in self._extra(other, (*above, name))]
        return found

    def _own_extras(self, item: object) -> list[str] | None:
        """The extras of the project itself that a requirement names, or None when it is another package."""
        from packaging.requirements import InvalidRequirement, Requirement
        from packaging.utils import canonicalize_name

        own = self.project.get("name")
        try:
            parsed = Requirement(item) if isinstance(item, str) else None
        except InvalidRequirement:
            return None
        if parsed is None or not isinstance(own, str) or canonicalize_name(parsed.name) != canonicalize_name(own):
            return None
        wanted = {canonicalize_name(extra) for extra in parsed.extras}
        return [name for name in self.extras if canonicalize_name(name) in wanted]

    def _group(self, name: str, above: tuple[str, ...]) -> list[PypiSpec]:
        crumb: Crumb = ("dependency-groups", name)
        if name in above or len(above) > _DEPTH:
            self.findings.add(crumb, "the group includes itself")
            return []
        items = self.group_tables[name]
        if not isinstance(items, list):
            self.findings.add(crumb, f"expected an array, got {describe(items)}")
            return []
        found: list[PypiSpec] = []
        for index, item in enumerate(items):
            if isinstance(item, dict):
                found += self._included(item, (*crumb, index), (*above, name))
            elif (inner := self._own_extras(item)) is not None:
                found += [spec for other in inner for spec in self._extra(other, ())]
            else:
                found += self._requirements([item], (*crumb, index))
        return found

    def _included(self, item: Mapping[str, object], crumb: Crumb, above: tuple[str, ...]) -> list[PypiSpec]:
        from packaging.utils import canonicalize_name

        other = item.get("include-group")
        names = {canonicalize_name(name): name for name in self.group_tables}
        target = names.get(canonicalize_name(other)) if isinstance(other, str) else None
        if target is None or len(item) > 1:
            self.findings.add(crumb, 'expected `{ include-group = "…" }` with the name of a group')
            return []
        return self._group(target, above)
