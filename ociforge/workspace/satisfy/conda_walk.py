"""The closure of an environment's conda specs over the locked records' `depends`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ociforge.workspace.satisfy.matching import parse_spec, record_of, spec_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rattler import MatchSpec

    from ociforge.workspace.environment import Environment
    from ociforge.workspace.satisfy.matching import LockedConda
    from ociforge.workspace.satisfy.verdict import Report
    from ociforge.workspace.specs import CondaSpec

__all__ = ["CondaWalk", "all_specs", "listed", "parse_asked", "shown"]

_SHOWN: Final = 8  # names listed in one reason


def all_specs(specs: Mapping[str, tuple[CondaSpec, ...]]) -> list[CondaSpec]:
    """The specs of every name, in order."""
    return [spec for same in specs.values() for spec in same]


def listed(names: Iterable[str]) -> str:
    """Names as messages list them: the first few, and how many more."""
    known = list(names)
    text = ", ".join(f"`{name}`" for name in known[:_SHOWN]) or "none"
    return text if len(known) <= _SHOWN else f"{text} and {len(known) - _SHOWN} more"


def shown(package: Any) -> str:
    """A locked conda package as messages name it."""
    return f"{package.name} {package.version} {package.package_record.build}"


def parse_asked(report: Report, environment: Environment, spec: CondaSpec) -> MatchSpec | None:
    """The manifest's spec in conda's grammar; None when it cannot be read, which is noted."""
    try:
        return parse_spec(spec_text(spec))
    except ValueError as error:
        message = f"`{spec.name}`: {error}"
        report.at(environment, "FailedToParseMatchSpec", message, package=spec.name, where=spec.where)
        return None


class CondaWalk:
    """The closure of an environment's conda specs over the locked records' `depends`.

    `visited` are the records that something has led to, `expected` those of them that a conda spec has asked for.
    `broken` says that something was not found, so that nobody can tell what else it would have led to.
    """

    def __init__(self, report: Report, environment: Environment, conda: LockedConda) -> None:
        self.report = report
        self.environment = environment
        self.conda = conda
        self.stack: list[tuple[MatchSpec, str]] = []
        self.visited: set[str] = set()
        self.expected: set[str] = set()
        self.extras: dict[str, set[str]] = {}
        self.broken = False

    def run(self) -> None:
        """Visit everything that the manifest asks for and all it depends on."""
        for spec in all_specs(self.environment.dependencies):
            self._ask(spec)
        self.drain()

    def drain(self) -> None:
        """Follow what visits have pushed."""
        while self.stack:
            match, origin = self.stack.pop()
            found = self.conda.find(match)
            if found is None:
                self._unsatisfied(str(match), match, f"`{origin}` depends on it")
            elif found:
                self.expected.add(found)
                self.visit(found, match.extras or ())

    def finish(self) -> None:
        """Note the records that nothing has led to, unless a spec without a match could explain them."""
        if self.broken:
            return
        unasked = [name for name in self.conda.by_name if name not in self.visited]
        if unasked:
            message = f"the lock has packages that nothing asks for: {listed(unasked)}"
            self.report.at(self.environment, "TooManyCondaPackages", message, package=unasked[0])

    def visit(self, name: str, extras: Iterable[str]) -> None:
        """Push what a record depends on: the first time its `depends`, and each extra's once."""
        record = record_of(self.conda.by_name[name])
        depends = [] if name in self.visited else list(record.depends)
        self.visited.add(name)
        followed = self.extras.setdefault(name, set())
        for extra in extras:
            if extra not in followed:
                followed.add(extra)
                depends += record.extra_depends.get(extra, [])
        for text in depends:
            self._push(text, f"{name} {record.version}")

    def _push(self, text: str, origin: str) -> None:
        try:
            match = parse_spec(text)
            if match.condition is None or self.conda.condition_holds(match.condition):
                self.stack.append((match, origin))
        except ValueError as error:
            self.broken = True
            package = origin.partition(" ")[0]
            self.report.at(self.environment, "FailedToParseMatchSpec", f"`{origin}`: {error}", package=package)

    def _ask(self, spec: CondaSpec) -> None:
        match = parse_asked(self.report, self.environment, spec)
        if match is None:
            self.broken = True
            return
        try:
            if spec.when is not None and not self.conda.holds(spec.when):
                return
        except ValueError as error:
            self.broken = True
            message = f"`{spec.name}`: {error}"
            self.report.at(self.environment, "FailedToParseMatchSpec", message, package=spec.name, where=spec.where)
            return
        if spec.is_source:
            self._ask_for_source(spec)
            return
        found = self.conda.find(match, self.conda.place_matches(spec))
        if found is None:
            self._unsatisfied(_asked(spec), match, f"`{spec.where}` asks for it", spec.where)
        elif found:
            self.expected.add(found)
            self.visit(found, spec.extras)

    def _ask_for_source(self, spec: CondaSpec) -> None:
        """Whether the lock has the package in the right form; what it is made of, only pixi-build can tell."""
        package = self.conda.by_name.get(spec.name)
        if spec.name in self.conda.sources:
            return
        self.broken = True
        kind = "SourcePackageMissing" if package is None else "RequiredSourceIsBinary"
        has = "no such package" if package is None else f"the binary package `{shown(package)}`"
        message = f"`{spec.name}` is to be built from source: the lock has {has}, `{spec.where}` asks for it"
        self.report.at(self.environment, kind, message, package=spec.name, where=spec.where)

    def _unsatisfied(self, text: str, match: MatchSpec, why: str, where: str | None = None) -> None:
        self.broken = True
        name = getattr(match.name, "normalized", None) or text
        if name in self.conda.sources:
            return  # reported as an open question
        package = self.conda.by_name.get(name)
        has = f"the lock has `{shown(package)}`" if package is not None else "the lock has no such package"
        if package is None and name in self.conda.virtual:
            has = f"the platform has `{name} {self.conda.virtual[name][0]}`"
        self.report.at(self.environment, "UnsatisfiableMatchSpec", f"`{text}`: {has}, {why}", package=name, where=where)


def _asked(spec: CondaSpec) -> str:
    parts = [spec.name, spec.version or "", spec.build or ""]
    place = spec.url or spec.path
    text = " ".join(part for part in parts if part and part != "*")
    channel = f"{spec.channel}::" if spec.channel is not None else ""
    return f"{channel}{text}" + (f" at {place}" if place is not None else "")
