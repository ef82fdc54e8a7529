"""Which packages share a layer, and under which key each layer is known before any of its bytes exist.

The partition is stateless: the same lock gives the same plan on every machine, with no history and no popularity
data. Most layers hold one package, chosen by size; the rest are bins chosen by a hash of the package's name, so
that adding a package changes one bin. The budget and the share of single packages were found by simulating the
history of real locks: at 40 layers an update re-pulls within 1.5 points of what one layer per package would.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from layers.digest import Digest
from ociforge.errors import BuildError
from ociforge.oci.descriptor import canonical_json

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

__all__ = ["DEFAULT_BUDGET", "FORMAT", "Group", "Member", "Recipe", "partition"]

Kind = Literal["conda", "wheel"]

FORMAT = 2  # raising it is the only way in which the bytes of a layer may change; see CHANGELOG.md

DEFAULT_BUDGET = 40
_SINGLES_SHARE = 0.8

_FNV_OFFSET = 0xCBF29CE484222325
_FNV_PRIME = 0x100000001B3


class Member(Struct, frozen=True, kw_only=True):
    """One package as the plan sees it: all from the lock.

    `kind` tells conda packages from wheels, whose layers lie above; `name`, unique in its kind, is without
    version or build; `size` of the archive in bytes; `archive` its sha256; `record` the digest of
    what its metadata takes from the lock; `python` says which interpreter the files are laid out for, and compiled by,
    when they depend on it; `noarch` packages are the same for every platform.
    """

    kind: Kind = "conda"
    name: str
    version: str
    archive: Digest
    size: int
    record: Digest
    python: str | None = None
    noarch: bool = False

    @property
    def id(self) -> tuple[Kind, str]:
        return self.kind, self.name


class Recipe(Struct, frozen=True, kw_only=True):
    """What all environment layers of a build have in common and their bytes depend on.

    `codec` is the codec's identity; `mtime` the time of generated files in seconds; `clamp` the latest time that
    any file may have; `parents` stands for directories above the prefix that every layer must carry; `strip` are the
    names of what is left out, sorted.
    """

    codec: str
    prefix: str
    mtime: int
    clamp: int | None = None
    parents: tuple[str, ...] = ()
    strip: tuple[str, ...] = ()

    def key(self, members: Sequence[Member], settled: Iterable[tuple[str, ...]] = ()) -> Digest:
        """The layer key: a digest of everything that decides the layer's bytes.

        `settled` tells, for each path that several members provide, who does in the end: (path, winner, losers…). That
        follows from the whole environment, not from the members alone.
        """
        packages = sorted([m.kind, m.name, str(m.archive), str(m.record), m.python or ""] for m in members)
        facts = {
            "format": FORMAT,
            "codec": self.codec,
            "prefix": self.prefix,
            "mtime": self.mtime,
            "clamp": self.clamp,
            "parents": list(self.parents),
            "strip": list(self.strip),
            "packages": packages,
            "settled": sorted(list(facts) for facts in settled),
        }
        return Digest.of(canonical_json(facts))


class Group(Struct, frozen=True, kw_only=True):
    """The packages of one layer, by name."""

    members: tuple[Member, ...]

    @property
    def title(self) -> str:
        """What to call the layer in reports and in the image's history."""
        if len(self.members) == 1:
            return f"{self.members[0].name} {self.members[0].version}"
        shown = ", ".join(member.name for member in self.members[:3])
        return shown if len(self.members) <= 3 else f"{shown} and {len(self.members) - 3} more"


def partition(
    members: Iterable[Member],
    *,
    budget: int = DEFAULT_BUDGET,
    together: Iterable[Collection[tuple[Kind, str]]] = (),
) -> tuple[Group, ...]:
    """Split packages into at most `budget` groups (at least one for each kind), whatever the order of `members`.

    `together` lists sets of ids, each of one kind, that must share a layer because they provide the same path. The
    result has conda packages before wheels and is ordered by name, single packages first, so that it does not shift
    when sizes change. Raises BuildError for a budget below 1.
    """
    if budget < 1:
        raise BuildError(f"layer budget: {budget}: at least one layer is needed", "set `layers` to 40, for instance")
    units = sorted(_units(list(members), together), key=lambda unit: (-sum(m.size for m in unit), unit[0].id))
    if len(units) <= budget:
        singles, rest = units, []
    else:
        count = min(max(1, int(budget * _SINGLES_SHARE)), budget - 1)
        singles, rest = units[:count], units[count:]
    room = budget - len(singles)
    # Apart, if there is room for that: images for several platforms share layers in which all is noarch.
    apart = len({_shelf(unit, apart=True) for unit in rest}) <= room
    shelves = {_shelf(unit, apart=apart) for unit in rest}
    count = max(1, room // max(1, len(shelves)))
    bins: dict[tuple[Kind, bool, int], list[Member]] = defaultdict(list)
    for unit in rest:
        bins[*_shelf(unit, apart=apart), _fnv1a64(unit[0].name) % count].extend(unit)
    ordered = [*sorted(singles, key=lambda unit: unit[0].name), *(bins[key] for key in sorted(bins))]
    ordered.sort(key=lambda unit: unit[0].kind)
    return tuple(Group(members=tuple(sorted(unit, key=lambda m: m.name))) for unit in ordered)


def _shelf(unit: Sequence[Member], *, apart: bool) -> tuple[Kind, bool]:
    """Which units may share a bin: those of one kind, and of those the noarch ones, where these are kept `apart`."""
    return unit[0].kind, apart and all(member.noarch for member in unit)


def _units(members: Sequence[Member], together: Iterable[Collection[tuple[Kind, str]]]) -> list[list[Member]]:
    """Members joined into inseparable units, each sorted by name."""
    leader = {member.id: member.id for member in members}

    def find(one: tuple[Kind, str]) -> tuple[Kind, str]:
        while leader[one] != one:
            one = leader[one]
        return one

    for ids in together:
        first, *others = sorted(ids)
        for other in others:
            low, high = sorted((find(first), find(other)))
            leader[high] = low
    units: dict[tuple[Kind, str], list[Member]] = defaultdict(list)
    for member in sorted(members, key=lambda m: m.id):
        units[find(member.id)].append(member)
    return list(units.values())


def _fnv1a64(text: str) -> int:
    """64-bit FNV-1a of the UTF-8 text: unlike `hash`, the same in every process."""
    value = _FNV_OFFSET
    for byte in text.encode():
        value = ((value ^ byte) * _FNV_PRIME) & 0xFFFFFFFFFFFFFFFF
    return value
