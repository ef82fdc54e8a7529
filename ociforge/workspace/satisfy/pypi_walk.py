"""The closure of an environment's PyPI requirements over the lock's rows and what conda packages provide."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from packaging.version import Version

from ociforge.workspace.satisfy.conda_walk import listed
from ociforge.workspace.satisfy.local_metadata import differences
from ociforge.workspace.satisfy.pypi_match import Mismatch, RowMatcher, allows, asked, parse_requirement, python_fits
from ociforge.workspace.satisfy.pypi_places import GitPlace, LocalPlace, UrlPlace, locked_place, wanted_place

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ociforge.workspace.environment import Environment
    from ociforge.workspace.lockfile import LockedEnvironment, PypiRow
    from ociforge.workspace.satisfy.conda_walk import CondaWalk
    from ociforge.workspace.satisfy.context import Context
    from ociforge.workspace.satisfy.markers import Markers
    from ociforge.workspace.satisfy.provided import Provided
    from ociforge.workspace.specs import PypiSpec

__all__ = ["PypiWalk"]

_ON_CONDA: Final = {
    UrlPlace: ("DirectUrlDependencyOnCondaInstalledPackage", "a direct URL"),
    GitPlace: ("GitDependencyOnCondaInstalledPackage", "a git repository"),
    LocalPlace: ("PathDependencyOnCondaInstalledPackage", "a path"),
}


class PypiWalk:
    """Walks after the conda specs have been followed, because a requirement may lead to conda packages again.

    `used` are the conda packages that a requirement has led to; `markers` are those of the locked python. `broken`
    says that something was not found, so that nobody can tell what else it would have led to.
    """

    def __init__(
        self,
        context: Context,
        environment: Environment,
        conda: CondaWalk,
        rows: Iterable[PypiRow],
        locked: LockedEnvironment,
        markers: Markers,
    ) -> None:
        links = [place for place in locked.find_links if "://" in place]
        self.context = context
        self.report = context.report
        self.environment = environment
        self.conda = conda
        self.rows = {row.name: row for row in rows}
        self.markers = markers
        self.matcher = RowMatcher(context.manifest.root, context.lock.version, [*(locked.indexes or ()), *links])
        self.provided: Mapping[str, Provided] = context.purls.provided(conda.conda)
        self.queue: list[tuple[PypiSpec, str | None]] = []  # a requirement, and the package that has it
        self.seen: set[PypiSpec] = set()
        self.visited: set[str] = set()
        self.used: set[str] = set()
        self.broken = False

    def run(self) -> None:
        """Visit everything that the manifest asks for and all it depends on."""
        specs = [spec for same in self.environment.pypi_dependencies.values() for spec in same]
        wanted = [spec for spec in specs if self._exists(spec) and self.markers.hold(spec.markers, spec.extras)]
        if not wanted and not self.broken and self.rows:
            self._too_many(list(self.rows), "the lock has PyPI packages, but none is asked for")
            self.visited.update(self.rows)  # so that `finish` does not name them again
            return
        self.seen.update(wanted)
        for spec in wanted:
            self._ask(spec, None)
        while self.queue:
            self._ask(*self.queue.pop())

    def finish(self) -> None:
        """Note the rows that nothing has led to, unless a requirement without a match could explain them."""
        unasked = [name for name in self.rows if name not in self.visited]
        if unasked and not self.broken and not self.conda.broken:
            self._too_many(unasked, "the lock has PyPI packages that nothing asks for")

    def _too_many(self, names: list[str], message: str) -> None:
        self.report.at(self.environment, "TooManyPypiPackages", f"{message}: {listed(names)}", package=names[0])

    def _exists(self, spec: PypiSpec) -> bool:
        """A path of the manifest must be there, whether or not its marker holds: pixi reads it first."""
        place = wanted_place(spec, self.context.manifest.root)
        if not isinstance(place, LocalPlace):
            return True
        self.context.beside.add(place.path)
        path, why = Path(place.path), None
        if not path.exists():
            why = "there is no such path"
        elif spec.editable and not path.is_dir():
            why = "it is editable, but no directory"
        if why is not None:
            self.broken = True
            self._against(spec, None, Mismatch("AsPep508Error", why))
        return why is None

    # --- requirements

    def _ask(self, spec: PypiSpec, origin: str | None) -> None:
        override = self.environment.pypi_options.dependency_overrides.get(spec.name)
        provided, row = self.provided.get(spec.name), self.rows.get(spec.name)
        if provided is not None:
            self._ask_conda(spec, override, provided, origin)
        elif row is not None:
            self._ask_row(spec if override is None else override, spec, row, origin)
        elif self.conda.conda.sources:
            self.broken = True
            message = f"`{asked(spec)}`: the lock has no such package, unless one that it builds provides it"
            self.report.open(self.environment, "UnsatisfiableRequirement", message, spec.name, spec.where or None)
        else:
            self.broken = True
            self._against(spec, origin, Mismatch("UnsatisfiableRequirement", "the lock has no such package"))

    def _ask_conda(self, spec: PypiSpec, override: PypiSpec | None, provided: Provided, origin: str | None) -> None:
        """A requirement that a conda package meets, or fails to; what that depends on is asked for, too."""
        has = f"the conda package `{provided.conda} {provided.version}` provides it"
        place = wanted_place(spec, self.context.manifest.root)
        checked = spec if override is None else override
        if spec.editable:
            mismatch = Mismatch("EditableDependencyOnCondaInstalledPackage", f"{has}, so it cannot be editable")
            self._against(spec, origin, mismatch)
        elif place is not None:
            kind, words = _ON_CONDA[type(place)]
            self._against(spec, origin, Mismatch(kind, f"{has}, so it cannot come from {words}"))
        elif not allows(checked, provided.version):
            self._against(checked, origin, Mismatch("CondaUnsatisfiableRequirement", has))
        self.used.add(provided.conda)
        self.conda.visit(provided.conda, ())
        self.conda.drain()

    def _ask_row(self, spec: PypiSpec, original: PypiSpec, row: PypiRow, origin: str | None) -> None:
        siblings = self.environment.pypi_dependencies.get(spec.name, ())
        mismatch = self.matcher.mismatch(spec, row, direct=origin is None, siblings=siblings)
        if mismatch is not None:
            self._against(spec, origin, mismatch, original)
        self._visit(row, spec.extras)

    def _against(
        self, spec: PypiSpec, origin: str | None, mismatch: Mismatch, original: PypiSpec | None = None
    ) -> None:
        where = spec.where or None
        why = f"`{origin}` depends on it" if origin is not None else f"`{where}` asks for it"
        if original is not None and original is not spec:
            why = f"`{where}` overrides `{asked(original)}`"
        message = f"`{asked(spec)}`: {mismatch.message}, {why}"
        self.report.at(self.environment, mismatch.kind, message, package=spec.name, where=where)

    # --- rows

    def _visit(self, row: PypiRow, extras: Iterable[str]) -> None:
        """Check a row itself, the first time; queue the requirements that hold with these extras, each once."""
        if row.name not in self.visited:
            self.visited.add(row.name)
            self._check_tree(row)
            self._check_python(row)
        origin = f"{row.name} {row.version}" if row.version is not None else row.name
        for text in row.requires_dist:
            try:
                spec = parse_requirement(text)
            except ValueError as error:
                self.broken = True
                message = f"`{origin}`: `{text[:200]}` is no requirement: {error}"
                self.report.at(self.environment, "FailedToConvertRequirement", message, package=row.name)
                continue
            if spec not in self.seen and self.markers.hold(spec.markers, extras):
                self.seen.add(spec)
                self.queue.append((spec, origin))

    def _check_tree(self, row: PypiRow) -> None:
        """Whether a source tree still is what was locked; what only a build could tell is taken from the lock."""
        place = locked_place(row.location, self.context.manifest.root)
        directory = Path(place.path) if isinstance(place, LocalPlace) else None
        if directory is None or not directory.is_dir():
            return
        if row.location.endswith(".whl"):
            message = f"`{row.location}` is a wheel in the lock, but a directory"
            self._against_row(row, "DistributionShouldBeSource", message)
            return
        tree = self.context.tree(directory)
        changes = [] if tree is None else differences(row, tree, self.context.manifest.root)
        if changes:
            message = f"`{row.name}` at `{row.location}` has changed: {', '.join(changes)}"
            self._against_row(row, "LocalPackageMetadataMismatch", message)

    def _check_python(self, row: PypiRow) -> None:
        python = self.markers.environment["python_full_version"]
        if row.requires_python is not None and not python_fits(row.requires_python, python):
            message = f"`{row.name}` requires Python `{row.requires_python}`, the lock has `{Version(python)}`"
            self._against_row(row, "PythonVersionMismatch", message)

    def _against_row(self, row: PypiRow, kind: str, message: str) -> None:
        asked_by = self.environment.pypi_dependencies.get(row.name, ())
        where = next((spec.where for spec in asked_by), None)
        self.report.at(self.environment, kind, message, package=row.name, where=where)
