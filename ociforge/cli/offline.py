"""`--offline` of the verbs that build: all that is missing is told at once, with the command that fetches it."""

from __future__ import annotations

import shlex
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ociforge.base.absent import Absent, AbsentError
from ociforge.cli.bases import UnpinnedError
from ociforge.errors import ForgeError, OfflineError
from ociforge.transports.unreachable import UnreachableSource

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from layers.compress import OrderedMap
    from ociforge.base import Base
    from ociforge.cli import work as asked
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
        if not work.network.offline:  # then what the store lacks is no matter
            raise
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
        bases, lacks = list(_bases(work, map_)), _lacks(work)
        lines = [*(base.message for base in bases), *(lack.message for lack in lacks)]
    except ForgeError:  # what is wrong besides shows when nothing is missing any more
        return error
    if not lines:
        return error if work.wanted.bundle is None else OfflineError(error.message, _hint(work))
    rest = [] if set(error.message.splitlines()) <= set(lines) else [error.message]
    absent = next((base.hint for base in bases if isinstance(base, AbsentError)), None)
    if absent is not None and work.wanted.bundle is None:  # fetching leaves it where it is
        more = [_hint(work)] if lacks or rest else []
        return OfflineError.collect([*lines, *rest], "; ".join([absent, *more]))
    unpinned = any(isinstance(base, UnpinnedError) for base in bases)
    if unpinned and work.wanted.base is None:
        return OfflineError.collect([*lines, *rest], f"run `ociforge lock --only bases`, then {_hint(work)}")
    named = unpinned and work.wanted.bundle is None
    hint = f"name the base image by its digest, here and there: {_hint(work, '@sha256:…')}" if named else _hint(work)
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
    for layer in base.layers if isinstance(base.source, UnreachableSource | Absent) else ():
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


def _hint(work: Work, pin: str = "") -> str:
    """The command that brings it all; `pin` is what the name of the base image lacks."""
    wanted = work.wanted
    if wanted.bundle is not None:
        return _bundle_hint(work, wanted.bundle)
    base = [] if wanted.base is None else ["--base", f"{wanted.base}{pin}"]
    return f"fetch it where there is a network: `{_command('fetch', *_words(wanted), *base)}`"


def _bundle_hint(work: Work, path: Path) -> str:
    from ociforge.bundle import open_bundle
    from ociforge.cli.bundle import differing

    offer = open_bundle(path)
    others = " and ".join(f"`{name}`" for name in differing(offer, work.root))
    why = f"the bundle was made for another {others}: " if others else ""
    held = sorted({image.platform for image in offer.manifest.images})
    if not {str(platform) for platform in work.platforms} <= set(held):
        why = f"the bundle is for {', '.join(f'`{name}`' for name in held)} alone: {why}"
    bases = "" if work.wanted.base is None else "; it has the base images that the settings name, and no others"
    words = [*_words(work.wanted), "--since", path.name, "-o", f"new-{path.name}"]
    return f"{why}make one where there is a network: `{_command('bundle', 'create', *words)}`{bases}"


def _words(wanted: asked.Wanted) -> list[str]:
    """What the command line says of what to build, as `fetch` and `bundle create` understand it."""
    words = [] if str(wanted.workspace) == "." else [str(wanted.workspace)]
    words += ["-e", wanted.environment] if wanted.environment is not None else []
    for option, values in (("--image", wanted.images), ("--platform", wanted.platforms)):
        words += [word for value in values for word in (option, value)]
    return [*words, "--frozen"] if wanted.frozen else words


def _command(*words: str) -> str:
    """As a shell reads it; what the reader has to fill in stays readable."""
    return " ".join(word if word.endswith("…") else shlex.quote(word) for word in ("ociforge", *words))
