"""What a workspace asks, in the words of the solvers: the manifest's values as conda's and PyPI's plain ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ociforge.conda.solve import Cutoffs, SolveRequest
from ociforge.errors import SolveError
from ociforge.pypi.describe import Description
from ociforge.pypi.machine import Machine
from ociforge.pypi.request import GitReference, PypiRequest, Requirement
from ociforge.workspace.lockfile import PypiRow
from ociforge.workspace.satisfy.local_metadata import read_metadata

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from ociforge.conda.solve import Record
    from ociforge.pypi.request import Distribution
    from ociforge.workspace.specs import PypiSpec
    from ociforge.workspace.units import Moments, Unit

__all__ = ["conda_request", "locked_row", "pypi_request", "static_description"]


def conda_request(unit: Unit, moments: Moments, preferred: Iterable[Record]) -> SolveRequest:
    """The conda packages of a unit; `preferred` are records to keep where they fit."""
    return SolveRequest(
        what=unit.what,
        specs=unit.specs(),
        constraints=unit.constraints(),
        subdir=unit.platform.subdir,
        channels=unit.channels,
        virtual_packages=tuple((p.name, p.version, p.build) for p in unit.platform.virtual_packages),
        channel_priority=unit.channel_priority,
        strategy=unit.solve_strategy,
        cutoffs=Cutoffs(default=moments.default, packages=moments.packages, channels=moments.channels),
        preferred=tuple(preferred),
    )


def pypi_request(
    unit: Unit,
    moments: Moments,
    records: Iterable[Record],
    *,
    provided: Mapping[str, str],
    preferred: Mapping[str, str],
) -> PypiRequest:
    """The PyPI packages of a unit beside its conda `records`, which provide distributions: name -> version.

    `preferred` are versions to keep where they fit. Raises SolveError when there is no python to resolve for.
    """
    options = unit.pypi_options
    return PypiRequest(
        what=unit.what,
        requirements=tuple(_requirement(spec) for spec in unit.pypi_requirements()),
        overrides=tuple(_requirement(spec) for spec in options.dependency_overrides.values()),
        machine=_machine(unit, records),
        root=unit.root,
        provided=provided,
        indexes=options.indexes,
        find_links=tuple(place for _, place in options.find_links),
        index_strategy=options.index_strategy,
        prerelease_mode=options.prerelease_mode,
        no_build=options.no_build,
        no_binary=options.no_binary,
        no_build_isolation=options.no_build_isolation,
        skip_wheel_filename_check=bool(options.skip_wheel_filename_check),
        cutoff=moments.default,
        package_cutoffs=moments.pypi,
        preferred=preferred,
    )


def static_description(tree: Path) -> Description | None:
    """What a source tree says of itself without a build; None when only a build could tell."""
    found = read_metadata(tree)
    if found is None:
        return None
    return Description.of(
        f"`{tree}`",
        version=None if found.version is None else str(found.version),
        requires_dist=[str(requirement) for requirement in found.requires_dist],
        requires_python=None if found.requires_python is None else str(found.requires_python),
    )


def locked_row(found: Distribution) -> PypiRow:
    """What was resolved, as a row of the lock."""
    return PypiRow(
        name=found.name,
        version=found.version,
        location=found.location,
        sha256=found.sha256,
        index=found.index,
        requires_dist=found.requires_dist,
        requires_python=found.requires_python,
    )


def _machine(unit: Unit, records: Iterable[Record]) -> Machine:
    by_name = {record.name.normalized: record for record in records}
    python, abi = by_name.get("python"), by_name.get("python_abi")
    if python is None:
        raise SolveError(f"{unit.what} has PyPI requirements, but no python", "add `python` to `dependencies`")
    return Machine.of(
        subdir=unit.platform.subdir,
        virtual_packages={package.name: package.version for package in unit.platform.virtual_packages},
        python=(str(python.version), str(python.build)),
        abi=None if abi is None else str(abi.build),
    )


def _requirement(spec: PypiSpec) -> Requirement:
    git = spec.git
    reference = None
    if git is not None:
        reference = GitReference(
            url=git.url,
            branch=git.branch,
            tag=git.tag,
            rev=git.rev,
            subdirectory=spec.subdirectory or git.subdirectory,
            lfs=git.lfs,
        )
    return Requirement(
        name=spec.name,
        specifier=spec.version or "",
        extras=spec.extras,
        markers=spec.markers,
        index=spec.index,
        path=spec.path,
        url=spec.url,
        subdirectory=spec.subdirectory,
        git=reference,
    )
