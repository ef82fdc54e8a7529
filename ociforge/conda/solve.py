"""Specs -> records: rattler's solver over the channels, for the platform asked for and never for this machine.

asyncio stops here. The values are plain, so that the manifest's meaning stays where manifests are read.
"""

from __future__ import annotations

import asyncio
import re
from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

import rattler
from msgspec import Struct, field
from rattler import (
    BuildString,
    Channel,
    ChannelPriority,
    Gateway,
    GenericVirtualPackage,
    MatchSpec,
    PackageName,
    RepoDataRecord,
    SourceConfig,
    Subdir,
    Version,
    exceptions,
)
from rattler.networking import Client
from rattler.package_streaming import download_to_writer

from layers.digest import DigestWriter
from ociforge.conda.translate import RATTLER_ERRORS, reason
from ociforge.conda.url import without_credentials
from ociforge.errors import OfflineError, SolveError
from ociforge.events import ignore
from ociforge.network import ONLINE, Route

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from rattler.solver.solver import SolveStrategy

    from ociforge.events import Notify
    from ociforge.network import Network, Place

__all__ = ["Cutoffs", "Record", "SolveRequest", "solve"]

Record = RepoDataRecord  # for those who pass records on, but do not know rattler

_PRIORITIES: Final = {
    "strict": ChannelPriority.Strict,
    "flexible": ChannelPriority.Flexible,
    "disabled": ChannelPriority.Disabled,
}
_STRATEGIES: Final[Mapping[str, SolveStrategy]] = {
    "highest": "highest",
    "lowest": "lowest",
    "lowest-direct": "lowest-direct",
}
_CHANNEL_ERRORS: Final = (
    exceptions.CacheDirError,
    exceptions.FetchRepoDataError,
    exceptions.GatewayError,
    exceptions.InvalidChannelError,
    exceptions.InvalidUrlError,
    exceptions.IoError,
    OSError,
    RuntimeError,
)
_SPEC_ERRORS: Final = (
    exceptions.InvalidMatchSpecError,
    exceptions.InvalidPackageNameError,
    exceptions.InvalidVersionError,
    exceptions.InvalidVersionSpecError,
    exceptions.PackageNameMatcherParseError,
    ValueError,
)
_OFFLINE_HINT: Final = "run `ociforge lock` where there is a network"
_READ_SIZE: Final = 1 << 20  # 1 MiB
_UNREAD: Final = ": a channel cannot be read: "
_WAITED: Final = "a coalesced request failed"
_SOLVER_PREFIX: Final = "Cannot solve the request because of: "
_URL: Final = re.compile(r"[a-z][a-z0-9+.-]*://[^\s'\"`)]+")
_MISSING: Final = re.compile(r"No candidates were found for (\S+)")


class Cutoffs(Struct, frozen=True, kw_only=True):
    """The times after which packages count as not yet made: a package's own, else its channel's, else `default`.

    Times have a time zone; channels are base URLs ending in `/`. A record without a time always passes.
    """

    default: datetime | None = None
    packages: Mapping[str, datetime] = field(default_factory=dict)
    channels: Mapping[str, datetime] = field(default_factory=dict)

    def of(self, package: str, channel: str) -> datetime | None:
        """The cutoff for a package of a channel."""
        return self.packages.get(package, self.channels.get(channel, self.default))


class SolveRequest(Struct, frozen=True, kw_only=True):
    """One set of packages to find. `what` names it in messages: "environment `prod` on `linux-64`".

    `specs` and `constraints` are match specs, `channels` base URLs in order, `virtual_packages` (name, version,
    build) of the machine that the result is for. `channel_priority` is `strict`, `flexible` or `disabled`, `strategy`
    `highest`, `lowest` or `lowest-direct`. `preferred` are records to keep where the specs allow it.
    """

    what: str
    specs: tuple[str, ...]
    subdir: str
    channels: tuple[str, ...]
    virtual_packages: tuple[tuple[str, str, str], ...]
    constraints: tuple[str, ...] = ()
    channel_priority: str = "strict"
    strategy: str = "highest"
    cutoffs: Cutoffs = field(default_factory=Cutoffs)
    preferred: tuple[RepoDataRecord, ...] = ()


class _Means(Struct, frozen=True, kw_only=True):
    """What channels are read with."""

    gateway: Gateway
    client: Client
    route: Route
    offline: bool


def solve(
    requests: Sequence[SolveRequest],
    *,
    cache: Path,
    retries: int = 3,
    network: Network = ONLINE,
    notify: Notify = ignore,
) -> tuple[tuple[RepoDataRecord, ...], ...]:
    """The records for each request, in the order of the requests; each tuple is sorted by package name.

    Channel indexes are kept in `cache`; requests share them, and offline nothing else but local channels is read.
    `retries`: how often a request to a channel is repeated. Indexes come from the mirrors that `network` has for a
    channel, if they give them; records name the channel all the same.
    Raises one SolveError for all requests that have no answer, in the solver's words.
    """
    return asyncio.run(_solved(requests, cache, retries, network, notify))


async def _solved(
    requests: Sequence[SolveRequest], cache: Path, retries: int, network: Network, notify: Notify
) -> tuple[tuple[RepoDataRecord, ...], ...]:
    client = Client.default_client(max_retries=retries, user_agent="ociforge")
    config = SourceConfig(cache_action="force-cache-only" if network.offline else "cache-or-fetch")
    means = _Means(
        gateway=Gateway(cache_dir=cache, default_config=config, client=client),
        client=client,
        route=Route(network.conda, notify=notify),
        offline=network.offline,
    )
    results = await asyncio.gather(*(_answer(request, means) for request in requests), return_exceptions=True)
    found = [result for result in results if not isinstance(result, BaseException)]
    if len(found) < len(results):
        raise _together([result for result in results if isinstance(result, BaseException)])
    return tuple(found)


def _together(failures: Sequence[BaseException]) -> BaseException:
    """One error for several; what is no SolveError comes first, as it is."""
    errors = [failure for failure in failures if isinstance(failure, SolveError)]
    if len(errors) < len(failures):
        return next(failure for failure in failures if not isinstance(failure, SolveError))
    hints = dict.fromkeys(error.hint for error in errors if error.hint is not None)
    messages = _explained([error.message for error in errors])
    return SolveError.collect(list(dict.fromkeys(messages)), "; ".join(hints) or None)


def _explained(messages: Sequence[str]) -> list[str]:
    """Of requests for the same file, all but one only wait: rattler tells the reason of that one alone."""
    found = {why for _, unread, why in (text.partition(_UNREAD) for text in messages) if unread and _WAITED not in why}
    reason = found.pop() if len(found) == 1 else "what another environment asks for, too, is not to be had"
    return [f"{text.partition(_UNREAD)[0]}{_UNREAD}{reason}" if _WAITED in text else text for text in messages]


async def _answer(request: SolveRequest, means: _Means) -> tuple[RepoDataRecord, ...]:
    if not request.specs:
        return ()
    specs, constraints = _parsed(request, request.specs), _parsed(request, request.constraints)
    subdirs, virtual_packages = _machine(request)
    try:
        records = await rattler.solve(
            sources=_sources(request, means),
            specs=specs,
            gateway=means.gateway,
            platforms=subdirs,
            locked_packages=request.preferred,
            virtual_packages=virtual_packages,
            channel_priority=_PRIORITIES[request.channel_priority],
            exclude_newer=_single_cutoff(request.cutoffs),
            timestamp_policy="allow-missing",
            strategy=_STRATEGIES[request.strategy],
            constraints=constraints,
            # Exactly the channels of the manifest: a lock must not depend on what a channel says of others.
            channel_relations="disabled",
        )
    except exceptions.SolverError as error:
        raise _unsolvable(request, error) from None  # the solver's text is the message
    except _CHANNEL_ERRORS as error:
        raise _unreachable(request, error, offline=means.offline) from None  # not chained: it may hold a token
    for record in records:
        if record.sha256 is None or record.size is None:
            await _complete(request, record, means)
    return tuple(sorted(records, key=lambda record: record.name.normalized))


def _parsed(request: SolveRequest, texts: Sequence[str]) -> list[MatchSpec]:
    specs = []
    for text in texts:
        try:
            specs.append(MatchSpec(text))
        except _SPEC_ERRORS as error:
            why = str(error).partition("\n")[0]
            raise SolveError(
                f"{request.what}: `{text}` is no spec that can be solved: {why}",
                "write it as conda's match specs have it",
            ) from error
    return specs


def _machine(request: SolveRequest) -> tuple[list[Subdir], list[GenericVirtualPackage]]:
    """The subdirs to look in, and the virtual packages of the machine."""
    found = []
    try:
        subdirs = [Subdir(request.subdir), Subdir("noarch")]
        for name, version, build in request.virtual_packages:
            # Manifests and locks give `__archspec` the version 0; packages that depend on it ask for 1.
            solved = "1" if (name, version) == ("__archspec", "0") else version
            found.append(GenericVirtualPackage(PackageName(name), Version(solved), BuildString(build or "0")))
    except (*_SPEC_ERRORS, exceptions.ParseSubdirError) as error:
        why = str(error).partition("\n")[0]
        raise SolveError(f"{request.what}: its platform cannot be solved for: {why}") from error
    return subdirs, found


# --- archives that a spec names by their place


async def _complete(request: SolveRequest, record: RepoDataRecord, means: _Means) -> None:
    """Add digest and size to the record of an archive that no channel lists.

    No mirror is asked: nothing tells what it would have to be.
    """
    shown = without_credentials(record.url)
    if means.offline and not record.url.startswith("file:"):
        raise OfflineError(f"{request.what}: `{shown}` cannot be read without a network", _OFFLINE_HINT)
    writer = DigestWriter(_Nowhere())
    try:
        if record.url.startswith("file:"):
            with Path(unquote(urlsplit(record.url).path)).open("rb") as stream:
                while chunk := stream.read(_READ_SIZE):
                    writer.write(chunk)
        else:
            await download_to_writer(means.client, record.url, writer)
    except RATTLER_ERRORS as error:
        raise SolveError(f"{request.what}: `{shown}` cannot be read: {reason(error)}", "check the address") from None
    digest = writer.digest()
    if record.sha256 is not None and record.sha256.hex() != digest.hex:
        raise SolveError(
            f"{request.what}: `{shown}` is not the archive that the manifest names: expected `{record.sha256.hex()}`,"
            f" got `{digest.hex}`",
            "correct the `sha256` of the spec, or its address",
        )
    record.sha256, record.size = bytes.fromhex(digest.hex), writer.size


class _Nowhere:
    def write(self, data: bytes, /) -> int:
        return len(data)


# --- cutoffs


def _is_plain(cutoffs: Cutoffs) -> bool:
    """Whether one cutoff holds for everything, which the solver itself can apply."""
    return not cutoffs.packages and not cutoffs.channels


def _single_cutoff(cutoffs: Cutoffs) -> datetime | None:
    """The one cutoff in UTC: py-rattler takes the numbers as such, whatever the time zone says."""
    return cutoffs.default.astimezone(UTC) if _is_plain(cutoffs) and cutoffs.default is not None else None


def _sources(request: SolveRequest, means: _Means) -> list[Channel | _View]:
    channels = dict.fromkeys(request.channels)
    if _is_plain(request.cutoffs) and all(len(_places(means.route, url)) == 1 for url in channels):
        return [Channel(url) for url in channels]
    return [_View(means, url, request.cutoffs) for url in channels]


def _places(route: Route, url: str) -> tuple[Place, ...]:
    return route.places(url, without_credentials(url))


class _View:
    """A channel as it was: without the records that are newer than their cutoff; read from a mirror where there is one
    (rattler's RepoDataSource).
    """

    def __init__(self, means: _Means, url: str, cutoffs: Cutoffs) -> None:
        self._means = means
        self._url = url
        self._plain = _is_plain(cutoffs)  # then the solver applies it
        self._cutoffs = cutoffs

    async def fetch_package_records(self, platform: Subdir, name: PackageName) -> list[RepoDataRecord]:
        found = await self._query(platform, MatchSpec(name.source))
        cutoff = None if self._plain else self._cutoffs.of(name.normalized, self._url)
        return [record for record in found if cutoff is None or _is_older(record, cutoff)]

    async def _query(self, platform: Subdir, spec: MatchSpec) -> list[RepoDataRecord]:
        """The records of a package, from the first place that gives them, as if it were the channel itself."""
        places = _places(self._means.route, self._url)
        for place in places:
            channel = Channel(place.url)
            try:
                found = await self._means.gateway.query(
                    sources=[channel], platforms=[platform], specs=[spec], recursive=False
                )
            except _CHANNEL_ERRORS as error:
                if place.mirror is None or place is places[-1]:
                    raise
                self._means.route.leave(place.mirror, _why(error), lacks=False)
                continue
            records = [record for several in found for record in several]
            if place.mirror is not None:
                for record in records:
                    _rename(record, channel.base_url, Channel(self._url).base_url)
            return records
        raise AssertionError("unreachable")

    def package_names(self, platform: Subdir) -> list[str]:
        return []  # only asked for to resolve patterns, and names here are exact


def _rename(record: RepoDataRecord, mirror: str, channel: str) -> None:
    """Let a record of a mirror be one of the channel."""
    record.channel = channel
    if record.url.startswith(mirror):
        record.url = channel + record.url[len(mirror) :]


def _is_older(record: RepoDataRecord, cutoff: datetime) -> bool:
    moment = record.timestamp
    return moment is None or moment.replace(tzinfo=moment.tzinfo or UTC) <= cutoff


# --- errors


def _unsolvable(request: SolveRequest, error: BaseException) -> SolveError:
    text = str(error).removeprefix(_SOLVER_PREFIX).strip().removesuffix(".")
    return SolveError(f"{request.what} cannot be solved: {_without_secrets(text)}", _advice(request, text))


def _advice(request: SolveRequest, text: str) -> str:
    missing = _MISSING.search(text)
    if missing is not None and missing[1].startswith("__"):
        return f"declare `{missing[1]}` for `{request.subdir}` in `workspace.platforms`"
    if missing is not None:
        listed = ", ".join(f"`{without_credentials(channel)}`" for channel in request.channels) or "none"
        return f"check the name and the version; the channels are {listed}"
    if "__" in text:
        return "relax one of these requirements, or promise more in `workspace.platforms`"
    return "relax one of these requirements"


def _unreachable(request: SolveRequest, error: BaseException, *, offline: bool) -> SolveError:
    return SolveError(
        f"{request.what}{_UNREAD}{_why(error)}",
        _OFFLINE_HINT if offline else "check the network and the channels of the manifest",
    )


def _why(error: BaseException) -> str:
    text = ": ".join(line.removeprefix("Caused by: ").strip() for line in str(error).splitlines())
    text = text.removeprefix("GatewayError: ")
    return _without_secrets(text)


def _without_secrets(text: str) -> str:
    return _URL.sub(lambda match: without_credentials(match[0]), text)
