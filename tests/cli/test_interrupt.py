"""Interrupted at any point: a name stands for the whole thing or for nothing, and the next build works."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.cli.moments import End, Job, running_jobs
from tests.cli.program import environment, ociforge
from tests.support.bases import tiny_image
from tests.support.fake_registry import FakeRegistry, running_fake
from tests.support.images import write_layout
from tests.support.lock import LockedEnvironment, conda_rows, write_lock
from tests.support.reading import archive_images, whole_images
from tests.support.tiny import Tiny, tiny_packages, tiny_workspace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    Run = Callable[[Sequence[Job]], list[End]]

_OLD = b"what was there before"

_SIGNALS = [signal.SIGKILL, signal.SIGINT, signal.SIGTERM]

# One of how many moments is tried: of the store, and of the destination. The last are always tried.
_STRIDES = {signal.SIGKILL: (17, 3), signal.SIGINT: (23, 5), signal.SIGTERM: (41, 9)}
_LAST = 4


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """Two packages: fewer moments."""
    return tiny_workspace(tmp_path_factory.mktemp("small") / "workspace", packages=tiny_packages()[:2])


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    with running_jobs() as run:
        yield run


class Runs:
    """Builds of one workspace to places of their own, each struck at another moment."""

    def __init__(self, run: Run, small: Tiny, base: str, directory: Path, output: Callable[[Path], str]) -> None:
        self._run = run
        self._arguments = ("build", str(small.root), "--base", base, "--workers", "2", "--json", "-o")
        self._directory = directory
        self._output = output

    def job(self, name: str, number: int = 0, moment: int = -1) -> Job:
        place = self._directory / name
        return Job(
            arguments=(*self._arguments, self._output(place)), directory=str(place), signal=number, moment=moment
        )

    def undisturbed(self) -> tuple[str, tuple[str, ...]]:
        """The digest of the image, and the moments of a build."""
        (end,) = self._run([self.job("undisturbed")])
        assert end.code == 0, end.err
        return digest_of(end), end.events

    def struck(self, number: int, moments: Sequence[int], prepare: Callable[[Path], None]) -> dict[Path, End]:
        """How builds ended that were struck at `moments`, by their directories."""
        jobs = [self.job(f"{moment}", number, moment) for moment in moments]
        places = [self._directory / f"{moment}" for moment in moments]
        for place in places:
            place.mkdir()
            prepare(place)
        return dict(zip(places, self._run(jobs), strict=True))

    def again(self, places: Sequence[Path]) -> list[End]:
        """The next build in each place."""
        return self._run([self.job(place.name) for place in places])


def digest_of(end: End) -> str:
    """What a build that came to its end made."""
    digest: str = json.loads(end.out)["digest"]
    return digest


def chosen(events: Sequence[str], mark: str, number: int) -> list[int]:
    """Some moments that touch the store, more of those that touch the destination, and the last."""
    ours = [index for index, event in enumerate(events) if mark not in event]
    theirs = [index for index, event in enumerate(events) if mark in event]
    assert theirs
    few, many = _STRIDES[signal.Signals(number)]
    return sorted({*ours[::few], *theirs[::many], *range(len(events) - _LAST, len(events))})


def check_end(end: End, number: int) -> None:
    """A build that was killed says nothing; one that was interrupted, one word."""
    if number == signal.SIGKILL:
        assert end.code in (-signal.SIGKILL, 0)
        return
    assert end.code in (130, 0), end
    assert "Traceback" not in end.err
    if end.code:
        assert end.out == ""
        assert end.err.endswith("\nerror: interrupted\n") or end.err == "error: interrupted\n"


def check_place(place: Path, number: int) -> None:
    """What is left besides the store: nothing, unless there was no time to clean up; then the next build does."""
    if number != signal.SIGKILL:
        assert not list(place.rglob(".ociforge-*"))
        assert not list(place.rglob("*.part"))
        assert not list((place / "tmp").iterdir())
        assert not [path for path in place.glob("cache/ingest/*/**/*") if path.is_file()]


def check_again(ends: Sequence[End], places: Sequence[Path], digest: str) -> None:
    """The next build succeeds, and clears up in the store and at the destination."""
    for end, place in zip(ends, places, strict=True):
        assert end.code == 0, end.err
        assert digest_of(end) == digest
        assert not list((place / "cache/ingest").iterdir())
        assert not list(place.glob("out/**/.ociforge-*"))


@pytest.mark.parametrize("number", _SIGNALS)
def test_archive(run: Run, small: Tiny, base: str, tmp_path: Path, number: int) -> None:
    """FILE is the old one or the new one."""

    def prepare(place: Path) -> None:
        (place / "out").mkdir()
        (place / "out/app.tar").write_bytes(_OLD)

    runs = Runs(run, small, base, tmp_path, lambda place: f"oci-archive:{place}/out/app.tar")
    (tmp_path / "undisturbed/out").mkdir(parents=True)
    digest, events = runs.undisturbed()
    ends = runs.struck(number, chosen(events, "/out", number), prepare)
    assert {end.code == 0 for end in ends.values()} >= {False}
    for place, end in ends.items():
        check_end(end, number)
        check_place(place, number)
        if (place / "out/app.tar").read_bytes() != _OLD:
            [(image,)] = archive_images(place / "out/app.tar").values()
            assert image.digest == digest
        else:
            assert end.code != 0
    places = list(ends)
    check_again(runs.again(places), places, digest)
    for place in places:
        [(image,)] = archive_images(place / "out/app.tar").values()
        assert image.digest == digest


@pytest.mark.parametrize("number", _SIGNALS)
def test_layout(run: Run, small: Tiny, base: str, tmp_path: Path, number: int) -> None:
    """`index.json` leads to whole images, those of before among them."""
    old = write_layout(tiny_image(extra={"old": b"image"}), tmp_path / "old", tag="old")

    def prepare(place: Path) -> None:
        (place / "out").mkdir()
        if int(place.name) % 2:
            shutil.copytree(tmp_path / "old", place / "out/layout")

    (tmp_path / "undisturbed/out").mkdir(parents=True)
    runs = Runs(run, small, base, tmp_path, lambda place: f"oci:{place}/out/layout:new")
    digest, events = runs.undisturbed()
    ends = runs.struck(number, chosen(events, "/out/", number), prepare)
    before = {place: {"old": old} if int(place.name) % 2 else {} for place in ends}
    for place, end in ends.items():
        check_end(end, number)
        check_place(place, number)
        found = whole_images(place / "out/layout")
        assert found in (before[place], before[place] | {"new": digest})
        assert end.code != 0 or "new" in found
    places = list(ends)
    check_again(runs.again(places), places, digest)
    for place in places:
        assert whole_images(place / "out/layout") == before[place] | {"new": digest}


@pytest.mark.parametrize("number", _SIGNALS)
def test_registry(run: Run, small: Tiny, base: str, tmp_path: Path, number: int) -> None:
    """A tag leads to a manifest whose blobs are all there."""
    with running_fake() as registry:
        runs = Runs(run, small, base, tmp_path, lambda place: f"docker://{registry.host}/r{place.name}:1")
        digest, events = runs.undisturbed()
        ends = runs.struck(number, chosen(events, "http.client.send", number), lambda place: None)
        for place, end in ends.items():
            check_end(end, number)
            check_place(place, number)
            tagged = check_repository(registry, f"r{place.name}")
            assert tagged in (None, digest)
            assert end.code != 0 or tagged
        places = list(ends)
        check_again(runs.again(places), places, digest)
        assert {check_repository(registry, f"r{place.name}") for place in places} == {digest}


def check_repository(registry: FakeRegistry, repository: str) -> str | None:
    """What the tag `1` leads to, after checking that every manifest has its blobs; None without a tag."""
    with registry.lock:
        for (name, _), (_, data) in registry.manifests.items():
            if name == repository:
                document = json.loads(data)
                for blob in (document["config"], *document["layers"]):
                    assert len(registry.blobs[repository, blob["digest"]]) == blob["size"]
        _, tagged = registry.manifests.get((repository, "1"), ("", b""))
        digests = [key for (name, key), (_, data) in registry.manifests.items() if (name, data) == (repository, tagged)]
    return next((digest for digest in digests if digest.startswith("sha256:")), None)


@pytest.mark.parametrize("module", ["click", "ociforge.errors", "layers.digest", "ociforge.build", "rattler", "yaml"])
def test_while_the_program_is_loaded(made: Tiny, base: str, tmp_path: Path, module: str) -> None:
    program = f"""
import os, signal, sys
def strike(event, arguments):
    if event == "import" and arguments[0] == {module!r}:
        os.kill(os.getpid(), signal.SIGINT)
sys.addaudithook(strike)
sys.argv = ["ociforge", "build", {str(made.root)!r}, "--base", {base!r}]
from ociforge.__main__ import main
main()
"""
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment(tmp_path), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr.splitlines()[-1:] == ["error: interrupted"]
    assert "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def fresh(small: Tiny, base: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What an undisturbed build says on stdout."""
    done = ociforge("build", small.root, "--base", base, home=tmp_path_factory.mktemp("fresh"))
    assert done.code == 0, done.err
    return done.out


@pytest.mark.parametrize(
    ("milliseconds", "number"), [(0, signal.SIGKILL), (4, signal.SIGKILL), (9, signal.SIGINT), (15, signal.SIGKILL)]
)
def test_while_packages_are_linked(
    small: Tiny, base: str, fresh: str, tmp_path: Path, milliseconds: int, number: signal.Signals
) -> None:
    """In the midst of what is not Python and has no moments."""
    command = [sys.executable, "-m", "ociforge", "build", str(small.root), "--base", base, "--installer", "rattler"]
    with subprocess.Popen(command, env=environment(tmp_path), stderr=subprocess.PIPE, stdout=subprocess.PIPE) as struck:
        assert struck.stderr is not None
        assert any(b"linking" in line for line in iter(struck.stderr.readline, b""))
        time.sleep(milliseconds / 1000)
        struck.send_signal(number)
        _, err = struck.communicate()
    assert struck.returncode in (0, 130 if number == signal.SIGINT else -number), err.decode()
    assert b"Traceback" not in err
    again = ociforge("build", small.root, "--base", base, home=tmp_path)
    assert (again.code, again.out) == (0, fresh)
    assert not list((tmp_path / "cache/ingest").iterdir())


class TestSilence:
    """Ctrl-C while the other side keeps silent."""

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_of_a_registry(self, made: Tiny, tmp_path: Path, number: int) -> None:
        self.interrupt(lambda host: (str(made.root), "--base", f"docker://{host}/base"), tmp_path, number)

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_of_a_channel(self, tiny: Tiny, tmp_path: Path, base: str, number: int) -> None:
        def arguments(host: str) -> tuple[str, ...]:
            channel = tiny.channel.at(f"http://{host}/")
            rows = LockedEnvironment(channels=(channel.url,), packages={"linux-64": conda_rows(channel)})
            write_lock(tiny.lock, {"default": rows})
            return (str(tiny.root), "--base", base, "--frozen")

        self.interrupt(arguments, tmp_path, number)

    def test_of_a_registry_that_is_pushed_to(self, small: Tiny, base: str, tmp_path: Path) -> None:
        """Threads that wait get a few seconds to clean up; whoever has no patience presses again."""
        arguments = lambda host: (str(small.root), "--base", base, "--push", f"{host}/app")  # noqa: E731
        self.interrupt(arguments, tmp_path, signal.SIGINT, times=2)

    def interrupt(self, arguments: Callable[[str], Sequence[str]], home: Path, number: int, times: int = 1) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.settimeout(30)
            host = f"127.0.0.1:{server.getsockname()[1]}"
            running = subprocess.Popen(
                [sys.executable, "-m", "ociforge", "build", *arguments(host)],
                env=environment(home),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            connection, _ = server.accept()
            with connection:
                connection.settimeout(30)
                assert connection.recv(1)
                start = time.monotonic()
                for _ in range(times):
                    running.send_signal(number)
                    time.sleep(0.2)
                out, err = running.communicate(timeout=30)
                seconds = time.monotonic() - start
        assert (running.returncode, out) == (130, "")
        assert re.search(r"^error: interrupted$", err, re.MULTILINE)
        assert "Traceback" not in err
        assert seconds < 4
        assert not list(home.rglob("*.part"))
        assert not list((home / "cache").glob("ingest/*"))
