"""`--offline` of the verbs that build: all that is missing is told at once, with the command that fetches it."""

from __future__ import annotations

import shlex
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ociforge.cli.bases import UnpinnedError
from ociforge.errors import ForgeError, OfflineError
from ociforge.transports.unreachable import UnreachableSource

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from layers.compress import OrderedMap
    from ociforge.base import Base
    from ociforge.cli.work import Work
    from ociforge.planned import PlannedImage
    from ociforge.supplies import Lack

__all__ = ["check_plans", "missing_is_told"]


@contextmanager
def missing_is_told(work: Work, map_: OrderedMap) -> Iterator[None]:
    """Let an OfflineError of the block tell everything that the build lacks, and not only what it met first."""
    try:
        yield
    except OfflineError as error:
        raise _complete(work, error, map_) from error


def check_plans(work: Work, plans: Iterable[PlannedImage]) -> None:
    """Raise OfflineError, before anything is made, when what is planned needs something that is not here."""
    if not work.network.offline:
        return
    plans = list(plans)
    layers = [layer for plan in plans for layer in plan.layers if layer.place == "make" and layer.download]
    names = {package.split()[0] for layer in layers for package in layer.packages}
    lacks = [lack for lack in _lacks(work) if lack.name in names] if names else []
    if lacks:
        raise OfflineError.collect([lack.message for lack in lacks], _hint(work))
    for plan in plans if work.targets else ():
        _check_layers(work, plan.request.base)


def _complete(work: Work, error: OfflineError, map_: OrderedMap) -> OfflineError:
    """The error with everything that is known to be missing besides."""
    try:
        bases = list(_bases(work, map_))
        lines = [*(base.message for base in bases), *(lack.message for lack in _lacks(work))]
    except ForgeError:  # what is wrong besides shows when nothing is missing any more
        return error
    if not lines:
        return error
    rest = [] if set(error.message.splitlines()) <= set(lines) else [error.message]
    hint = _hint(work)
    if any(isinstance(base, UnpinnedError) for base in bases):
        pin = "name it by `@sha256:…`" if work.wanted.base is not None else "run `ociforge lock --only bases`"
        hint = f"{pin}, then {hint}"
    return OfflineError.collect([*lines, *rest], hint)


def _bases(work: Work, map_: OrderedMap) -> Iterator[OfflineError]:
    """An error for each base image that is not here."""
    for platform in work.platforms:
        try:
            _check_layers(work, work.base(platform, map_))
        except OfflineError as error:
            yield error


def _check_layers(work: Work, base: Base) -> None:
    """Raise OfflineError unless all of the base image's bytes are on this machine."""
    for layer in base.layers if isinstance(base.source, UnreachableSource) else ():
        if not work.store.has(layer.digest, layer.size):
            base.blob(layer).open().close()


def _lacks(work: Work) -> tuple[Lack, ...]:
    """What packages need, on all platforms, and is not here."""
    from ociforge.needs import Wanted, needs
    from ociforge.supplies import Means, lacking

    images = []
    for platform in work.platforms:
        environment, selection = work.select(platform)
        settings = work.settings_on(platform)
        images.append(Wanted(settings=settings, environment=environment, platform=platform, selection=selection))
    needed = needs(images, root=work.root)
    with work.store.staging() as staging:
        return lacking(needed, Means(store=work.store, staging=staging, network=work.network))


def _hint(work: Work) -> str:
    """The command that fetches it all."""
    wanted = work.wanted
    words = ["ociforge", "fetch", *([] if str(wanted.workspace) == "." else [str(wanted.workspace)])]
    words += ["-e", wanted.environment] if wanted.environment is not None else []
    for option, values in (("--image", wanted.images), ("--platform", wanted.platforms)):
        words += [word for value in values for word in (option, value)]
    words += ["--base", wanted.base] if wanted.base is not None else []
    words += ["--frozen"] if wanted.frozen else []
    return f"fetch it where there is a network: `{shlex.join(words)}`"
