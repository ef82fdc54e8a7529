"""PyPI requirements -> distributions, by uv, for the machine asked for and never for this one.

What conda provides is taken as given: uv sees a distribution of that name and version without requirements of its own,
and no other one. So a requirement that it does not meet is a conflict, and nothing of it is in the result.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from msgspec import Struct
from msgspec.structs import replace
from packaging.version import Version

from layers.digest import Digest
from ociforge.errors import OfflineError, PackageError, SolveError
from ociforge.events import ignore
from ociforge.network import Route
from ociforge.pypi.answer import needs_indexes, read_indexes, read_packages, row
from ociforge.pypi.describe import Describer
from ociforge.pypi.gather import gather
from ociforge.pypi.location import locate
from ociforge.pypi.package import Locked
from ociforge.pypi.question import as_version, check_sources, index_options, options, variables, write_inputs
from ociforge.pypi.request import DEFAULT_INDEX
from ociforge.pypi.uv import UnreachedError, run_uv
from ociforge.url_secrets import redacted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from layers.compress import OrderedMap
    from ociforge.events import Notify
    from ociforge.network import Mirrors
    from ociforge.pypi.answer import Package
    from ociforge.pypi.describe import Description
    from ociforge.pypi.fetch import Access, Fetcher
    from ociforge.pypi.request import Distribution, PypiRequest

__all__ = ["Resolver"]

_HINT: Final = "relax one of these requirements"


class Resolver(Struct, frozen=True, kw_only=True):
    """Resolves with what this process has: `environ` is the environment of uv and git, `fetcher` brings archives.

    `static` reads a source tree without running anything and gives None where only a build knows. Metadata is read
    through `map_`.
    """

    fetcher: Fetcher
    access: Access
    static: Callable[[Path], Description | None]
    environ: Mapping[str, str]
    map_: OrderedMap = map
    notify: Notify = ignore

    def resolve(self, request: PypiRequest) -> tuple[Distribution, ...]:
        """The distributions that meet the requirements, sorted by name, without those that conda provides.

        Raises SolveError in uv's words when there are none, PackageError when one of them cannot be read, OfflineError
        when it would have to be fetched for that.
        """
        check_sources(request)
        found = self._resolved(request)
        _check_provided(request, found)
        describer = Describer(
            fetcher=self.fetcher,
            access=self.access,
            static=self.static,
            build=partial(self._build, request),
            environ=self.environ,
        )
        rows = [made for made in found if made.name not in request.provided]
        try:
            return tuple(gather(partial(_described, describer, request), rows, self.map_))
        except OfflineError as error:
            raise OfflineError(
                f"{request.what}: {error.message}", "run `ociforge lock` where there is a network"
            ) from error

    def _resolved(self, request: PypiRequest) -> list[Distribution]:
        """Ask the mirrors of the indexes, and those themselves when they cannot be reached; rows do not tell which."""
        route = Route(self.access.mirrors, notify=self.notify)
        while True:
            asked, mirrors = _mirrored(request, route)
            try:
                return [_original(row, self.access.mirrors) for row in self._asked(asked)]
            except UnreachedError as error:
                if not mirrors:
                    raise
                for mirror in mirrors:
                    route.leave(mirror, error.message, lacks=False)

    def _asked(self, request: PypiRequest) -> list[Distribution]:
        with tempfile.TemporaryDirectory(prefix="ociforge-") as place:
            directory = Path(place)
            arguments = ["pip", "compile", *write_inputs(request, directory), *options(request)]
            packages = read_packages(self._compiled(request, directory, arguments, "pylock.toml"))
            indexes: dict[str, str] = {}
            if needs_indexes(request):
                (directory / "requirements.txt").write_text(_pins(packages), encoding="utf-8")
                arguments.append("--emit-index-annotation")
                told = self._compiled(request, directory, arguments, "requirements.txt")
                indexes = read_indexes(told.read_text(encoding="utf-8"))
        rows = [row(request, package, indexes) for package in packages]
        return sorted(rows, key=lambda made: made.name)

    def _compiled(self, request: PypiRequest, directory: Path, arguments: list[str], output: str) -> Path:
        """Run uv; it keeps to the versions that the file `output` has before. Returns the path of that file."""
        run_uv(
            [*arguments, f"--format={output}", f"--output-file={output}"],
            directory=directory,
            environ=self.environ,
            variables=variables(request),
            what=f"{request.what}: the PyPI requirements cannot be resolved",
            hint=_hint(request),
            offline=self.access.offline,
        )
        return directory / output

    def _build(self, request: PypiRequest, tree: Path, place: Path) -> None:
        """A wheel of a source tree, for its metadata."""
        run_uv(
            ["build", "--wheel", f"--out-dir={place}", *index_options(request), str(tree)],
            directory=tree,
            environ=self.environ,
            what=f"{request.what}: the metadata of a source tree is dynamic, and no wheel of it can be built",
            hint="state `dependencies` in its `pyproject.toml` without `dynamic`, or look at its build backend",
            offline=self.access.offline,
        )


def _mirrored(request: PypiRequest, route: Route) -> tuple[PypiRequest, list[str]]:
    """The request with the first place of each index, and the mirrors among those."""
    mirrors = []

    def nearest(url: str) -> str:
        place = route.places(url, redacted(url))[0]
        if place.mirror is not None:
            mirrors.append(place.mirror)
        return place.url

    asked = replace(
        request,
        indexes=tuple(nearest(url) for url in request.indexes),
        requirements=tuple(
            requirement if requirement.index is None else replace(requirement, index=nearest(requirement.index))
            for requirement in request.requirements
        ),
    )
    return asked, mirrors


def _original(made: Distribution, mirrors: Mirrors) -> Distribution:
    """The row as if no mirror had been asked."""
    index = None if made.index is None else mirrors.original(made.index)
    if index is not None and index.rstrip("/") == DEFAULT_INDEX:
        index = None
    return replace(made, location=mirrors.original(made.location), index=index)


def _pins(packages: Iterable[Package]) -> str:
    return "".join(f"{package.name}=={package.version}\n" for package in packages if package.version is not None)


def _hint(request: PypiRequest) -> str:
    isolated = request.no_build_isolation
    if not isolated:
        return _HINT
    names = "all packages" if isinstance(isolated, bool) else ", ".join(f"`{name}`" for name in sorted(isolated))
    return f"{_HINT}; builds without isolation are not supported: {names} must have wheels or static metadata"


def _check_provided(request: PypiRequest, found: Iterable[Distribution]) -> None:
    for made in found:
        version = request.provided.get(made.name)
        if version is not None and as_version(version) is None:
            raise SolveError(
                f"{request.what}: a PyPI package needs `{made.name}`, which conda provides as `{version}`:"
                " no version of PyPI's kind",
                f"leave the conda package `{made.name}` out, so that it comes from PyPI",
            )


def _described(describer: Describer, request: PypiRequest, made: Distribution) -> Distribution:
    """The row with what the distribution says of itself."""
    digest = None if made.sha256 is None else Digest(made.sha256)
    source = locate(Locked(name=made.name, location=_reachable(request, made), sha256=digest), request.root)
    found = describer.describe(made.name, source)
    version = found.version if made.version is None else made.version
    if version is not None and found.version is not None and Version(version) != Version(found.version):
        if not request.skip_wheel_filename_check:
            raise PackageError(
                f"`{made.name} {made.version}` at `{redacted(made.location)}` says that it is version {found.version}",
                "`skip-wheel-filename-check` in `pypi-options` lets it pass",
            )
        version = found.version
    return replace(made, version=version, requires_dist=found.requires_dist, requires_python=found.requires_python)


def _reachable(request: PypiRequest, made: Distribution) -> str:
    """The location with the credentials that the manifest has for its host."""
    scheme, separator, rest = made.location.partition("://")
    host = rest.partition("/")[0]
    for url in _addresses(request) if separator else ():
        credentials, at, place = url.partition("://")[2].partition("/")[0].rpartition("@")
        if at and place == host:
            return f"{scheme}://{credentials}@{rest}"
    return made.location


def _addresses(request: PypiRequest) -> Iterator[str]:
    yield from request.indexes
    yield from request.find_links
    for requirement in (*request.requirements, *request.overrides):
        yield from (url for url in (requirement.index, requirement.url) if url is not None)
        if requirement.git is not None:
            yield requirement.git.url
