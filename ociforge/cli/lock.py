"""`ociforge lock`: solve the workspace's environments and pin its base images."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

from ociforge.cli import options
from ociforge.cli.console import Console

if TYPE_CHECKING:
    from layers.compress import OrderedMap
    from layers.digest import Digest
    from ociforge.cli.bases import Bases
    from ociforge.lock import Change, LockResult, Tally
    from ociforge.pins import Pins, Use
    from ociforge.transports.options import RegistryOptions
    from ociforge.workspace import Workspace
    from ociforge.workspace.lockfile import Lock

__all__ = ["command", "solve_packages", "write_packages"]

_PARTS = ("packages", "bases")


@click.command("lock")
@click.argument("workspace", type=click.Path(path_type=Path), default=Path(), required=False)
@click.option("--upgrade", is_flag=True, help="Keep nothing that was locked before: take the best there is now.")
@click.option(
    "--only", type=click.Choice(_PARTS), help="Lock the packages (pixi.lock) or the base images (ociforge.lock) alone."
)
@options.registry_options
@options.workers
@options.json_output
@options.verbosity
def command(
    workspace: Path,
    upgrade: bool,
    only: str | None,
    registry: RegistryOptions,
    workers: int,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """Write `pixi.lock` and `ociforge.lock` of the WORKSPACE.

    Every environment is solved for every platform that it supports, whatever this machine is: conda packages from their
    channels, and PyPI packages by uv (`pip install uv`). A `pixi.lock` that fits the manifest is left as
    it is; one that does not is changed as little as possible. Base images are pinned by digest, for each platform.

    \b
    ociforge lock
    ociforge lock --upgrade
    ociforge lock --upgrade --only bases

    stdout has one line for each file; what changed is on stderr. A file appears only when all of it is known.
    """
    console = Console.of(quiet=quiet, verbose=verbose)
    from ociforge.cli.bases import Bases
    from ociforge.cli.places import Places
    from ociforge.events import Warned
    from ociforge.parallel import ordered_map
    from ociforge.pins import FILE_NAME, Pins
    from ociforge.workspace import load

    found = load(workspace)
    for warning in found.manifest.warnings:
        console.notify(Warned(warning))
    lines, document = [], {}
    pins_path = found.root / FILE_NAME
    before = Pins() if upgrade or only == "packages" else Pins.read(pins_path)
    with ordered_map(workers) as map_:
        result = (
            solve_packages(found, console, map_, offline=registry.offline, upgrade=upgrade) if only != "bases" else None
        )
    if only != "bases":
        if result is not None:
            write_packages(found, result, console)
        lines.append(_line(found.lock_path.name, changed=result is not None))
        document["lock"] = _lock_json(found.lock_path.name, result)
    if only != "packages":
        places = Places(registry, console.notify)
        after = _pins(found, before, Bases(found.root, places), console, upgrade=upgrade)
        # Where there is nothing to pin, a file that is there says so, and none is made.
        there = pins_path.exists()
        changed = pins_path.read_bytes() != after.to_bytes() if there else bool(after.digests)
        if changed:
            after.write(pins_path)
        lines.append(_line(FILE_NAME, changed=changed) if there or changed else f"{FILE_NAME}: not needed")
        document["bases"] = _pins_json(after, changed=changed)
    console.result(lines, document, as_json=as_json)


def _line(name: str, *, changed: bool) -> str:
    return f"{name}: {'written' if changed else 'unchanged'}"


# --- packages


def solve_packages(
    workspace: Workspace, console: Console, map_: OrderedMap, *, offline: bool, upgrade: bool = False
) -> LockResult | None:
    """What `pixi.lock` is to be, None when it is to stay as it is; `upgrade` keeps nothing that was locked. `offline`
    takes what earlier runs have left in caches for all that there is.
    """
    from datetime import UTC, datetime

    from ociforge.cli.fit import examine
    from ociforge.cli.network import network
    from ociforge.lock import LockRequest, lock
    from ociforge.pypi.fetch import Access, Cache, Fetcher

    previous = _previous(workspace, upgrade=upgrade)
    if previous is not None and not upgrade and examine(workspace, previous).satisfied:
        return None
    store = options.open_store()
    reachable = network(os.environ, workspace.settings.mirrors, offline=offline)
    access = Access.of(reachable)
    request = LockRequest(
        workspace=workspace,
        previous=previous,
        upgrade=upgrade,
        now=datetime.now(UTC),
        cache=store.root / "repodata",
        fetcher=Fetcher(Cache(store.archives / "pypi" / "files"), access, console.notify),  # where builds look, too
        access=access,
        environ=os.environ,
        network=reachable,
        map_=map_,
    )
    result = lock(request, notify=console.notify)
    unchanged = workspace.lock_path.is_file() and workspace.lock_path.read_bytes() == result.text.encode()
    return None if unchanged else result


def write_packages(workspace: Workspace, result: LockResult, console: Console) -> None:
    """Write `pixi.lock` and say what is in it."""
    from ociforge.workspace.lockwriter import write_lock

    known = workspace.lock_path.exists()
    write_lock(workspace.lock_path, result.text)
    _tell(result, console, known=known)
    _warn_of_mirrors(workspace, console)


def _warn_of_mirrors(workspace: Workspace, console: Console) -> None:
    """Say so when the lock that was written names a mirror, which builds elsewhere may not have."""
    from ociforge.cli.network import network
    from ociforge.events import Warned
    from ociforge.url_secrets import redacted
    from ociforge.workspace.lockfile import read

    mirrors = network(os.environ, workspace.settings.mirrors, offline=False).pypi
    if not mirrors.prefixes:
        return
    found: dict[str, set[str]] = {}
    for url in _locked_urls(read(workspace.lock_path)):
        mirror = mirrors.host_of(url)
        if mirror is not None:
            found.setdefault(mirror, set()).add(redacted(url))
    for mirror, urls in found.items():
        console.notify(
            Warned(
                f"`{workspace.lock_path.name}` names the host of the mirror `{mirror}`: {len(urls)} of its files are"
                f" there, such as `{min(urls)}`",
                "let a mirror for `https://files.pythonhosted.org/` be the place that the mirror's index links to, and"
                " run `ociforge lock --upgrade --only packages`",
            )
        )


def _locked_urls(lock: Lock) -> set[str]:
    """Where the files of indexes are, but for those on the host of an index that the manifest names itself."""
    found = set()
    for environment in lock.environments.values():
        own = {urlsplit(url).netloc for url in (*(environment.indexes or ()), *environment.find_links)}
        for platform in environment.platforms:
            urls = (row.location for row in lock.rows(environment.name, platform).pypi)
            found |= {url for url in urls if url.startswith(("https:", "http:")) and urlsplit(url).netloc not in own}
    return found


def _previous(workspace: Workspace, *, upgrade: bool) -> Lock | None:
    """The lock that there is; one that cannot be read is in the way only of those who want to keep it."""
    from ociforge.errors import LockError
    from ociforge.workspace.lockfile import read

    if not workspace.lock_path.exists():
        return None
    try:
        return read(workspace.lock_path)
    except LockError as error:
        if upgrade:
            return None
        raise LockError(error.message, "make a new one with `ociforge lock --upgrade`, or upgrade ociforge") from error


def _tell(result: LockResult, console: Console, *, known: bool) -> None:
    """The packages of each environment, and, where there was a lock before, what has changed."""
    for tally in result.tallies:
        console.say(f"{tally.environment} on {tally.platform}: {_counts(tally)}")
        changes = [c for c in result.changes if (c.environment, c.platform) == (tally.environment, tally.platform)]
        for change in changes if known else ():
            console.say(f"  {_change(change)}")


def _counts(tally: Tally) -> str:
    counts = [f"{tally.conda} conda package{'' if tally.conda == 1 else 's'}"]
    if tally.pypi:
        counts.append(f"{tally.pypi} from PyPI")
    return ", ".join(counts)


def _change(change: Change) -> str:
    if change.before is None:
        return f"+ {change.name} {change.after}"
    if change.after is None:
        return f"- {change.name} {change.before}"
    return f"~ {change.name} {change.before} -> {change.after}"


def _lock_json(name: str, result: LockResult | None) -> dict[str, Any]:
    if result is None:
        return {"path": name, "changed": False, "environments": [], "changes": []}
    return {
        "path": name,
        "changed": True,
        "environments": [
            {"environment": t.environment, "platform": t.platform, "conda": t.conda, "pypi": t.pypi}
            for t in result.tallies
        ],
        "changes": [
            {
                "environment": change.environment,
                "platform": change.platform,
                "kind": change.kind,
                "name": change.name,
                "before": change.before,
                "after": change.after,
            }
            for change in result.changes
        ],
    }


# --- base images


def _pins(workspace: Workspace, before: Pins, looked_up: Bases, console: Console, *, upgrade: bool) -> Pins:
    """A pin for every base image and platform; those of before are kept for images in registries, unless upgraded."""
    from ociforge.cli.bases import is_local
    from ociforge.errors import BaseImageError
    from ociforge.events import StageStarted, Warned
    from ociforge.lock import bases
    from ociforge.pins import Pins, Use

    found: dict[Use, Digest] = {}
    failures: dict[Use, BaseImageError] = {}
    for base, platform in bases(workspace):
        use = Use.of(base, platform)
        known = before.find(use)
        if known is not None and not upgrade and not is_local(base):
            found[use] = known
            continue
        console.notify(StageStarted(f"pinning the base image {base} for {use.platform}"))
        try:
            found[use] = looked_up.digest(base, platform)
        except BaseImageError as error:
            failures[use] = error
    for use, failure in failures.items():
        if not any(pinned.base == use.base for pinned in found):
            raise failure
        # An image may be meant for one of the workspace's platforms only.
        hint = failure.hint or f"choose a base image for `{use.platform}`, if images are to be built for it"
        console.notify(Warned(f"not pinned for `{use.platform}`: {failure.message}", hint))
    return Pins(digests=found)


def _pins_json(pins: Pins, *, changed: bool) -> dict[str, Any]:
    from ociforge.pins import FILE_NAME

    found = [
        {"base": use.base, "platform": use.platform, "digest": str(digest)}
        for use, digest in sorted(pins.digests.items())
    ]
    return {"path": FILE_NAME, "changed": changed, "pins": found}
