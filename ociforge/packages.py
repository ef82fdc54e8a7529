"""The packages of an environment: what is known before any is unpacked, and their layers when they are wanted."""

from __future__ import annotations

import posixpath
import threading
from contextlib import ExitStack, nullcontext
from functools import cached_property, partial
from itertools import chain
from typing import TYPE_CHECKING, Literal

from layers.entry import Directory
from layers.tree import Segment
from ociforge.conda.facts import check, gather_facts, look_ahead
from ociforge.conda.fetch import archive_digest, archive_path, claim, fetch
from ociforge.conda.meta import identity
from ociforge.conda.survey import Summary, Survey, check_records, interpreter, summary_key, survey
from ociforge.errors import BuildError
from ociforge.parallel import beside
from ociforge.plan import Group, Kind, Member, Recipe, partition
from ociforge.planned import PlannedLayer
from ociforge.strip import remaining, stripped, tally
from ociforge.workspace.task import resolve_command

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from layers.compress import OrderedMap
    from layers.digest import Digest
    from layers.entry import Entry
    from ociforge.bytecode import Compiler
    from ociforge.conda.facts import PackageFacts
    from ociforge.conda.fetch import Archive
    from ociforge.conda.package import Activation
    from ociforge.conda.package import Package as CondaPackage
    from ociforge.events import Notify
    from ociforge.pypi.facts import WheelFacts
    from ociforge.pypi.package import Conflict as WheelConflict
    from ociforge.pypi.package import Package as Wheel
    from ociforge.pypi.survey import Survey as WheelSurvey
    from ociforge.request import Request
    from ociforge.store import Store

__all__ = ["Installer", "Packages"]

Installer = Literal["stream", "rattler"]

_SHELLS = ("bin/bash", "bin/dash", "bin/sh")


class Packages:
    """What `request` installs. A context manager: leaving it ends what was started for it.

    `staging` is an empty directory of the caller's, to be kept until the last layer is written. `admit` is called
    before anything is fetched, and raises when nothing is to be. Raises PackageError and BuildError for what cannot be
    installed, here or when a layer is made.
    """

    def __init__(
        self,
        request: Request,
        *,
        store: Store,
        staging: Path,
        admit: Callable[[], None],
        installer: Installer = "stream",
        map_: OrderedMap = map,
        notify: Notify,
    ) -> None:
        self._request = request
        self._store = store
        self._staging = staging
        self._installer = installer
        self._map = map_
        self._notify = notify
        self._lock = threading.Lock()
        self._resources = ExitStack()
        self._records = {record.name.normalized: record for record in request.selection.records}
        check_records(request.selection.records, request.settings.prefix)
        self._refuse_bytecode()
        self._asked = tuple(sorted({*_SHELLS, *self._command()}))
        self._key = summary_key(request.selection.records, prefix=request.settings.prefix, asked=self._asked)
        self._seen: Mapping[Digest, PackageFacts] | None = None
        self._checked: set[str] = set()  # packages whose facts were held against their archives
        data = store.facts.find(self._key)
        known = None if data is None else Summary.from_json(data)
        self._is_kept = known is not None
        with nullcontext() if known is not None else beside(self._look_ahead):
            admit()
        self._summary = known or self._survey_all.summary(self._asked)
        self._keep_summary()
        for warning in self._summary.warnings():
            notify(warning)
        self._wheels = self._surveyed_wheels()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._resources.close()
        if kind is None:
            self._keep_summary()

    @property
    def activation(self) -> Activation:
        """What the conda packages ask of activation."""
        return self._summary.activation

    @property
    def present(self) -> frozenset[str]:
        """The image paths of shells and of the image's command, as far as packages bring them."""
        wheels = () if self._wheels is None else self._wheels.summary.present
        return frozenset(f"{self._request.prefix}/{path}" for path in (*self._summary.present, *wheels))

    def layers(self) -> Iterator[PlannedLayer]:
        """The layers of what is locked: conda packages, then wheels."""
        together: list[list[tuple[Kind, str]]] = [
            *([("conda", name) for name in (c.winner, *c.losers)] for c in self._summary.conflicts),
            *([("wheel", name) for name in (c.winner, *c.losers)] for c in self._wheel_conflicts),
        ]
        members = [*map(self._conda_member, self._records), *map(self._wheel_member, self._locked_wheels)]
        known = {member.id for member in members}
        shared = [ids for ids in together if set(ids) <= known]  # those of the workspace's own packages are not
        for group in partition(members, budget=self._request.settings.layers, together=shared):
            yield self._layer(group, group.title)

    def local_layer(self) -> PlannedLayer | None:
        """The layer of the packages of the workspace itself: it changes with the code, so it lies above the others."""
        wheels = [wheel for wheel in self._all_wheels if wheel.local]
        if not wheels:
            return None
        group = Group(members=tuple(map(self._wheel_member, wheels)))
        return self._layer(group, ", ".join(wheel.name for wheel in wheels))

    def left_out(self) -> Mapping[str, tuple[int, int]]:
        """How many files of conda packages each policy of `strip` leaves out, and their bytes together. The records of
        what is installed are no package's files and have no size before they are made: each counts with none.
        """
        python = interpreter(self._request.selection.records)
        sizes = ((place, getattr(i, "size", 0) or 0) for f in self._facts for place, i in f.info.places(python))
        records = ((f"conda-meta/{name}.json", 0) for name in self._records)
        return tally(chain(sizes, records), self._request.settings.strip)

    # -- what is known

    def _command(self) -> Iterator[str]:
        """Where the image's command is, if a package brings it: relative to the prefix."""
        settings = self._request.settings
        command = resolve_command(settings, self._request.environment, shell="/bin/sh")
        if command.argv:
            name = command.argv[0]
            if "/" not in name:
                yield f"bin/{name}"
            elif (path := posixpath.normpath(posixpath.join(command.workdir, name))).startswith(f"{settings.prefix}/"):
                yield path.removeprefix(f"{settings.prefix}/")

    def _keep_summary(self) -> None:
        """Keep what all packages come to together, for builds of the same lock, as soon as all that it comes from was
        verified: `check` finds out what was not, and cannot take it back.
        """
        if self._is_kept:
            return
        if all(facts.verified or name in self._checked for name, facts in self._facts_by_name.items()):
            self._store.facts.record(self._key, self._summary.to_json())
            self._is_kept = True

    @cached_property
    def _archives(self) -> Path:
        return self._store.archives / "archives"

    def _look_ahead(self, wanted: Callable[[], bool]) -> None:
        self._seen = look_ahead(
            self._request.selection.records, documents=self._store.facts, wanted=wanted, notify=self._notify
        )

    @cached_property
    def _facts(self) -> tuple[PackageFacts, ...]:
        return gather_facts(
            self._request.selection.records,
            archives=self._archives,
            documents=self._store.facts,
            known=self._seen,
            network=self._request.network,
            notify=self._notify,
        )

    @cached_property
    def _survey_all(self) -> Survey:
        return survey(self._request.selection.records, self._facts, prefix=self._request.settings.prefix)

    @cached_property
    def _facts_by_name(self) -> Mapping[str, PackageFacts]:
        return dict(zip((r.name.normalized for r in self._request.selection.records), self._facts, strict=True))

    @property
    def _all_wheels(self) -> tuple[WheelFacts, ...]:
        return () if self._wheels is None else self._wheels.summary.wheels

    @property
    def _wheel_conflicts(self) -> tuple[WheelConflict, ...]:
        return () if self._wheels is None else self._wheels.summary.conflicts

    @property
    def _locked_wheels(self) -> list[WheelFacts]:
        return [wheel for wheel in self._all_wheels if not wheel.local]

    def _surveyed_wheels(self) -> WheelSurvey | None:
        """The lock's PyPI packages; the module for that is not imported where there are none."""
        request, python = self._request, self._summary.python
        rows = request.selection.pypi
        if not rows:
            return None
        if python is None:
            raise BuildError(
                f"environment `{request.environment.name}` has PyPI packages but no `python`",
                "add `python` to its dependencies, and run `ociforge lock`",
            )
        from ociforge.needs import locked_rows
        from ociforge.pypi.access import Access
        from ociforge.pypi.package import Interpreter
        from ociforge.pypi.survey import survey as survey_wheels

        return survey_wheels(
            locked_rows(request.environment, rows),
            prefix=request.settings.prefix,
            python=Interpreter.parse(python),
            platform=request.platform,
            root=request.workspace.root,
            workdir=request.settings.workdir,
            cache=self._store.archives / "pypi",
            staging=self._staging / "wheels",
            glibc=request.environment.platform.version("__glibc") or "2.28",
            keep_editable=request.settings.editable,
            taken=lambda: self._survey_all.owners,
            below=self._key,
            asked=self._asked,
            documents=self._store.facts,
            mtime=request.mtime,
            access=Access.of(request.network),
            environ=request.environ,
            offline=request.network.offline,
            map_=self._map,
            notify=self._notify,
        )

    # -- the plan

    @cached_property
    def _parents(self) -> tuple[Directory, ...]:
        """What every layer must carry: engines reset a directory that a layer leaves out to 0755 and 0:0, so where the
        base has another one above the prefix, it is repeated.
        """
        return tuple(
            directory
            for directory in self._request.base.tree.parents([self._request.prefix])
            if (directory.mode, directory.uid, directory.gid) != (0o755, 0, 0)
        )

    @cached_property
    def _recipe(self) -> Recipe:
        request = self._request
        return Recipe(
            codec=request.codec.identity,
            prefix=request.settings.prefix,
            mtime=request.mtime,
            clamp=request.epoch if request.clamp else None,
            parents=tuple(repr(directory) for directory in self._parents),
            strip=request.settings.strip,
        )

    @cached_property
    def _python(self) -> str | None:
        """What packages for the interpreter depend on; with bytecode also on the very build of it, which made that."""
        python = self._summary.python
        if python is None or not self._bytecode:
            return python
        return f"{python} {self._request.settings.bytecode} {archive_digest(self._records['python'])}"

    def _layer(self, group: Group, title: str) -> PlannedLayer:
        return PlannedLayer(
            title=title,
            key=self._recipe.key(group.members, self._settled(group)),
            packages=tuple(map(self._shown, group.members)),
            size=sum(member.size for member in group.members),
            download=sum(member.size for member in group.members if not self._is_here(member)),
            segments=partial(self._segments, group),
            claim=partial(self._claim, group),
        )

    def _settled(self, group: Group) -> Iterator[tuple[str, ...]]:
        """Who provides the paths that several packages of the group have."""
        names = {member.name for member in group.members}
        kind = group.members[0].kind
        for conflict in self._summary.conflicts if kind == "conda" else self._wheel_conflicts:
            if conflict.winner in names:
                yield conflict.path, conflict.winner, *conflict.losers

    def _conda_member(self, name: str) -> Member:
        record = self._records[name]
        return Member(
            name=name,
            version=str(record.version),
            archive=archive_digest(record),
            record=identity(record),
            size=record.size or 0,
            python=self._python if record.noarch.python else None,
            noarch=record.subdir == "noarch",
        )

    def _wheel_member(self, wheel: WheelFacts) -> Member:
        return Member(
            kind="wheel",
            name=wheel.name,
            version=wheel.version,
            archive=wheel.sha256,
            record=wheel.record,
            size=wheel.size,
            python=self._python,
            noarch=wheel.filename.endswith("-any.whl"),
        )

    def _shown(self, member: Member) -> str:
        build = "pypi" if member.kind == "wheel" else self._records[member.name].build
        return f"{member.name} {member.version} {build}"

    def _is_here(self, member: Member) -> bool:
        """Whether the archive is on this machine, whole or not."""
        if member.kind == "wheel":
            return self._wheels is not None and self._wheels.is_here(member.name)
        record = self._records[member.name]
        return record.url.startswith("file:") or archive_path(self._archives, record).exists()

    # -- the layers

    def _claim(self, group: Group) -> None:
        for member in group.members:
            if member.kind == "conda":  # wheels are, as soon as somebody asks for them
                claim(self._archives, self._records[member.name])

    def _segments(self, group: Group) -> Iterator[Segment]:
        names = [member.name for member in group.members]
        segments: Iterable[Segment]
        if group.members[0].kind == "wheel":
            assert self._wheels is not None
            segments = map(self._wheel_segment, self._wheels.packages(names))
        elif self._installer == "rattler":
            segments = (self._installed_segment(self._installed[name]) for name in names)
        else:
            segments = self._linked(names)
        for segment in segments:
            yield Segment(segment.name, segment.entries, (*self._parents, *segment.directories))

    def _linked(self, names: Sequence[str]) -> Iterator[Segment]:
        """The segments of conda packages, straight from their archives."""
        from ociforge.conda.link import link  # not needed where all of them are known

        request, policies = self._request, self._request.settings.strip
        python = interpreter(request.selection.records)
        archives = fetch(
            [self._records[name] for name in names], cache=self._archives, network=request.network, notify=self._notify
        )
        for name, archive in zip(names, archives, strict=True):
            with self._lock:  # they are gathered at the first use
                facts = self._facts_by_name[name]
            check(facts, archive, self._store.facts)
            self._checked.add(name)
            places = [place for place, _ in facts.info.places(python)]
            lost = {conflict.path for conflict in self._summary.conflicts if name in conflict.losers}
            lost |= {place for place in places if stripped(place, policies) is not None}
            segment = link(
                archive,
                facts.info,
                prefix=request.settings.prefix,
                python=self._summary.python,
                lost=frozenset(lost),
                mtime=request.mtime,
                clamp=request.epoch if request.clamp else None,
                scratch=self._staging,
            )
            segment = Segment(segment.name, _unchanged(archive, segment.entries), segment.directories)
            if "conda-meta" in policies:
                segment = Segment(segment.name, self._without_record(segment.entries), segment.directories)
            if archive.record.noarch.python:
                kept = [f"{request.prefix}/{place}" for place in places if place not in lost]
                segment = self._with_bytecode(segment, kept)
            yield segment

    def _without_record(self, entries: Iterable[Entry]) -> Iterable[Entry]:
        start = f"{self._request.prefix}/"
        return (e for e in entries if stripped(e.path.removeprefix(start), ("conda-meta",)) is None)

    @cached_property
    def _all_installed(self) -> Mapping[str, CondaPackage]:
        request = self._request
        from ociforge.conda.install import install

        installation = install(
            request.selection.records,
            prefix=request.settings.prefix,
            subdir=request.platform.subdir,
            cache=self._store.archives,
            staging=self._staging,
            mtime=request.mtime,
            clamp=request.epoch if request.clamp else None,
            network=request.network,
            notify=self._notify,
        )
        if installation.conflicts != self._summary.conflicts:
            raise BuildError(
                "rattler settled path conflicts in another way than was planned",
                "build without `--installer rattler`, and report it",
            )
        if installation.activation != self._summary.activation:
            raise BuildError(
                "what packages ask of activation is not what the channel served as their `info`",
                "build without `--installer rattler`, which tells of which package",
            )
        return {package.name: package for package in installation.packages}

    @property
    def _installed(self) -> Mapping[str, CondaPackage]:
        with self._lock:
            return self._all_installed

    def _installed_segment(self, package: CondaPackage) -> Segment:
        entries = remaining(package.entries, self._request.prefix, self._request.settings.strip)
        segment = Segment(package.name, entries)
        return self._with_bytecode(segment, [e.path for e in entries]) if package.noarch_python else segment

    def _wheel_segment(self, wheel: Wheel) -> Segment:
        entries = remaining(wheel.entries, self._request.prefix, self._request.settings.strip)
        return self._with_bytecode(Segment(wheel.name, entries), [entry.path for entry in entries])

    # -- bytecode

    @property
    def _bytecode(self) -> bool:
        return self._request.settings.bytecode != "none"

    def _refuse_bytecode(self) -> None:
        if not self._bytecode:
            return
        from ociforge.bytecode import elsewhere
        from ociforge.conda.machine import runs_here

        if not runs_here(self._request.platform.subdir):
            raise elsewhere(self._request.platform, self._request.settings.name)

    def _with_bytecode(self, segment: Segment, paths: Sequence[str]) -> Segment:
        """The segment with bytecode for its sources, if that is wanted; `paths` are all of its files."""
        if not self._bytecode:
            return segment
        from ociforge.bytecode import cache_directories, with_bytecode

        with self._lock:
            compiler = self._compiler
        mtime = self._request.mtime
        listed = [e for e in segment.entries if isinstance(e, Directory)] if isinstance(segment.entries, tuple) else []
        directories = {d.path: d for d in (*cache_directories(paths, mtime), *segment.directories, *listed)}
        files = (entry for entry in segment.entries if not isinstance(entry, Directory))
        return Segment(
            segment.name,
            with_bytecode(files, compiler.compile, paths=paths, mtime=mtime),
            tuple(directories.values()),
        )

    @cached_property
    def _compiler(self) -> Compiler:
        from ociforge.bytecode import Compiler
        from ociforge.conda.interpreter import install_interpreter

        python = install_interpreter(
            self._request.selection.records,
            cache=self._store.archives,
            staging=self._staging / "python",
            network=self._request.network,
            notify=self._notify,
        )
        assert self._summary.python is not None
        return self._resources.enter_context(Compiler(python, self._summary.python.partition(" ")[0]))


def _unchanged(archive: Archive, entries: Iterable[Entry]) -> Iterator[Entry]:
    """`entries`, which are read from `archive`, and a check at the end that it stayed what it was."""
    yield from entries
    archive.check_unchanged()
