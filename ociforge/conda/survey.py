"""An environment as its packages' facts tell it, before anything is linked: what layer keys and configuration need."""

from __future__ import annotations

from collections import Counter
from contextlib import nullcontext
from typing import TYPE_CHECKING

import msgspec

from layers.digest import Digest
from ociforge.conda.clobber import Claim, link_order, settle
from ociforge.conda.conflict import warnings as conflict_warnings
from ociforge.conda.facts import STATE, VARIABLES
from ociforge.conda.info import HINT, PathInfo, Python, is_plain
from ociforge.conda.meta import identity
from ociforge.conda.package import Activation, Conflict
from ociforge.conda.prefix import PrefixError, Replacement, binary, text
from ociforge.errors import PackageError
from ociforge.events import Warned

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
    from typing import Self

    from rattler import RepoDataRecord

    from ociforge.conda.facts import PackageFacts
    from ociforge.conda.info import PackageInfo

__all__ = ["Summary", "Survey", "check_records", "check_rows", "claim", "interpreter", "summary_key", "survey"]

_FORMAT = 1  # of summaries, and part of their keys
_SCRIPTS = "etc/conda/activate.d"


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """What the image's configuration and the layers' keys take from an environment's packages as a whole.

    `python`, `conflicts` and `activation` are those of `Installation`. `link_scripts`: (archive's name, path) of what
    conda would run after linking. `present`: which of the paths that were asked for are there, below the prefix.
    """

    python: str | None
    conflicts: tuple[Conflict, ...]
    activation: Activation
    link_scripts: tuple[tuple[str, str], ...]
    present: frozenset[str]

    def to_json(self) -> bytes:
        """Small enough for an annotation: a few kilobytes, whatever the size of the environment."""
        groups: dict[tuple[str, tuple[str, ...], bool], list[str]] = {}
        for conflict in self.conflicts:
            groups.setdefault((conflict.winner, conflict.losers, conflict.differs), []).append(conflict.path)
        document = _Document(
            format=_FORMAT,
            python=self.python,
            conflicts=tuple(_Group(*group, tuple(paths)) for group, paths in sorted(groups.items())),
            scripts=self.activation.scripts,
            variables=self.activation.variables,
            state=self.activation.state,
            link_scripts=self.link_scripts,
            present=tuple(sorted(self.present)),
        )
        return msgspec.json.encode(document)

    @classmethod
    def from_json(cls, data: bytes) -> Self | None:
        """The inverse; None for what is not of this format."""
        try:
            found = msgspec.json.decode(data, type=_Document)
        except msgspec.MsgspecError:
            return None
        if found.format != _FORMAT:
            return None
        return cls(
            python=found.python,
            conflicts=tuple(sorted(conflict for group in found.conflicts for conflict in group.conflicts())),
            activation=Activation(scripts=found.scripts, variables=found.variables, state=found.state),
            link_scripts=found.link_scripts,
            present=frozenset(found.present),
        )

    def warnings(self) -> Iterator[Warned]:
        """What the user should know before the build."""
        for filename, path in self.link_scripts:
            yield Warned(
                f"`{filename}` has a link script, which is not run: `{path}`",
                "what it would do must be done when the container starts; pixi does not run it either",
            )
        yield from conflict_warnings(self.conflicts)


class Survey(msgspec.Struct, frozen=True, kw_only=True):
    """An environment that could be linked. `facts` are sorted by name, `conflicts` by path.

    `python` is as in `Installation`; `owners` has, for each path below the prefix, the name of the package whose file
    is there in the end. Its order means nothing.
    """

    facts: tuple[PackageFacts, ...]
    python: str | None
    conflicts: tuple[Conflict, ...]
    owners: Mapping[str, str]
    activation: Activation
    link_scripts: tuple[tuple[str, str], ...]

    def summary(self, asked: Iterable[str]) -> Summary:
        """What is worth keeping; `asked` are the paths below the prefix that may be looked up later."""
        return Summary(
            python=self.python,
            conflicts=self.conflicts,
            activation=self.activation,
            link_scripts=self.link_scripts,
            present=frozenset(path for path in asked if path in self.owners),
        )


def survey(records: Sequence[RepoDataRecord], facts: Sequence[PackageFacts], *, prefix: str) -> Survey:
    """Put together what `facts` tell of `records`, which are in the same order, for the environment `prefix`.

    Raises PackageError for packages that cannot be in one environment and for what cannot be linked.
    """
    pairs = sorted(zip(records, facts, strict=True), key=lambda pair: pair[0].name.normalized)
    python = interpreter(records)
    claims = [claim(record, one.info, python) for record, one in pairs]
    conflicts = settle(claims, link_order(records))
    owners = {path: claim.name for claim in claims for path in claim.places}
    owners |= {conflict.path: conflict.winner for conflict in conflicts}
    by_name = {claim.name: one for claim, (_, one) in zip(claims, pairs, strict=True)}
    return Survey(
        facts=tuple(by_name.values()),
        python=None if python is None else str(python),
        conflicts=conflicts,
        owners=owners,
        activation=_activation(owners, by_name, prefix),
        link_scripts=tuple(script for claim in claims for script in _link_scripts(claim)),
    )


def summary_key(records: Iterable[RepoDataRecord], *, prefix: str, asked: Collection[str]) -> Digest:
    """What a summary may be kept under: all that it depends on, from the lock and the settings."""
    rows = sorted([record.name.normalized, (record.sha256 or b"").hex(), str(identity(record))] for record in records)
    return Digest.of(msgspec.json.encode([_FORMAT, prefix, sorted(asked), rows]))


def check_records(records: Sequence[RepoDataRecord], prefix: str) -> None:
    """Raise PackageError for records that cannot be installed together, or for a `prefix` that is none."""
    if prefix[:1] != "/" or not is_plain(prefix[1:]):
        raise PackageError(f"`{prefix}` is no prefix: expected an absolute, normalised path below `/`")
    check_rows(records)


def check_rows(records: Iterable[RepoDataRecord]) -> None:
    """Raise PackageError for records that cannot be installed together.

    Also for one with a field that leads elsewhere where it becomes a path, on this machine or in the image: rows are
    what a channel says.
    """
    problems = [problem for record in records for problem in _misleading(record)]
    if problems:
        raise PackageError.collect(problems, "the channel's index is wrong: tell its owner, or lock another build")
    seen: dict[str, RepoDataRecord] = {}
    for record in records:
        if record.name.source != record.name.normalized:
            raise PackageError(f"`{record.file_name}` has capitals in its name, with which rattler cannot link it")
        other = seen.setdefault(record.name.normalized, record)
        if other is not record:
            raise PackageError(
                f"two packages are called `{record.name.normalized}`: `{other.file_name}` and `{record.file_name}`"
            )


def _misleading(record: RepoDataRecord) -> Iterator[str]:
    """What is wrong with fields of `record` that become paths: of `conda-meta`, of rattler's cache, of files."""
    directory = record.python_site_packages_path
    if directory is not None and not is_plain(directory):
        yield f"`{record.file_name}`: `python_site_packages_path` is `{directory}`: expected a path below the prefix"
    parts = {
        "name": record.name.normalized,
        "version": str(record.version),
        "build": str(record.build),
        "subdir": record.subdir,
        "file name": record.file_name,
    }
    for field, part in parts.items():
        if "/" in part or not is_plain(part):
            yield f"`{record.file_name}`: the {field} is `{part}`: expected a part of a path"


def interpreter(records: Iterable[RepoDataRecord]) -> Python | None:
    """The environment's Python, which noarch packages are laid out for."""
    for record in records:
        if record.name.normalized == "python":
            minor = ".".join(str(record.version).split(".")[:2])
            # Not told by the version alone: free-threaded builds have a directory of their own (CEP 17).
            directory = record.python_site_packages_path or f"lib/python{minor}/site-packages"
            return Python(version=minor, site_packages=directory)
    return None


def claim(record: RepoDataRecord, info: PackageInfo, python: Python | None) -> Claim:
    """Where the files of `record`, whose archive says `info`, go. Raises PackageError for two in one place, where the
    two contradict each other, and for a noarch Python package where `python` is None.
    """
    if (info.noarch == "python") != record.noarch.python:
        raise PackageError(
            f"`{record.file_name}`: the lock and the archive disagree whether it is a noarch Python package",
            "update the lock",
        )
    found = list(info.places(python))
    places = dict(found)
    if len(places) < len(found):  # or else a script takes the place of a file, as with rattler
        counts = Counter(place for place, there in found if isinstance(there, PathInfo))
        if shared := [place for place, count in counts.items() if count > 1]:
            raise PackageError(f"`{record.file_name}` ships two files for `{shared[0]}`", HINT)
    return Claim(name=record.name.normalized, filename=record.file_name, places=places)


def _activation(owners: Mapping[str, str], facts: Mapping[str, PackageFacts], prefix: str) -> Activation:
    found = sorted(path for path in owners if path.startswith(("etc/conda/", STATE)))
    texts = {path: _text(facts[owners[path]], path, prefix) for path in found if path in facts[owners[path]].texts}
    return Activation(
        scripts=tuple(path for path in found if path.rpartition("/")[0] == _SCRIPTS and path.endswith(".sh")),
        variables=tuple((path, text) for path, text in texts.items() if path.rpartition("/")[0] == VARIABLES),
        state=texts.get(STATE),
    )


def _text(facts: PackageFacts, path: str, prefix: str) -> str:
    """The file's content at the prefix."""
    info = next(info for info in facts.info.paths if info.path == path)
    if info.placeholder is None:
        return facts.texts[path]
    data, replacement = facts.texts[path].encode(), Replacement(info.placeholder, prefix)
    try:
        pieces = text(data, replacement) if info.file_mode == "text" else binary(iter([data]), replacement, _held)
        return b"".join(pieces).decode()
    except PrefixError as error:
        raise PackageError(
            f"`{path}` of `{facts.info.filename}`: {error}",
            "choose a shorter prefix: binaries have no room for this one",
        ) from error


def _held(chunks: Iterable[bytes]) -> nullcontext[bytes]:
    return nullcontext(b"".join(chunks))


def _link_scripts(claim: Claim) -> Iterator[tuple[str, str]]:
    """What conda would run after linking; `pre-unlink` scripts have no meaning in an image."""
    for moment in ("post-link", "pre-link"):
        path = f"bin/.{claim.name}-{moment}.sh"
        if path in claim.places:
            yield claim.filename, path


class _Group(msgspec.Struct, frozen=True, array_like=True):
    winner: str
    losers: tuple[str, ...]
    differs: bool
    paths: tuple[str, ...]

    def conflicts(self) -> Iterator[Conflict]:
        for path in self.paths:
            yield Conflict(path=path, winner=self.winner, losers=self.losers, differs=self.differs)


class _Document(msgspec.Struct, frozen=True, rename="camel"):
    format: int
    python: str | None
    conflicts: tuple[_Group, ...]
    scripts: tuple[str, ...]
    variables: tuple[tuple[str, str], ...]
    state: str | None
    link_scripts: tuple[tuple[str, str], ...]
    present: tuple[str, ...]
