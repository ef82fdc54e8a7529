"""Channels: a directory of conda packages with `repodata.json`, used as `file://` or served over HTTP with faults."""

from __future__ import annotations

import json
import shutil
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Literal

from tests.support.conda import Archive, CondaPackage, Form

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

__all__ = ["Channel", "Fault", "Served", "serve", "write_channel"]

Fault = Literal["truncated", "corrupt", "missing", "busy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """A channel on disk; `url` ends in a slash, as locks and rattler write channels."""

    path: Path
    url: str
    archives: tuple[Archive, ...]

    def at(self, url: str) -> Channel:
        """The same channel under another address, such as that of a server."""
        return Channel(path=self.path, url=url.rstrip("/") + "/", archives=self.archives)

    def named(self, *names: str) -> tuple[Archive, ...]:
        """The archives of the packages called `names` (all, when none is given), in the channel's order."""
        return tuple(archive for archive in self.archives if not names or archive.record["name"] in names)

    def url_of(self, archive: Archive) -> str:
        """Where the package file is."""
        return f"{self.url}{archive.subdir}/{archive.filename}"


def write_channel(
    root: Path, packages: Iterable[CondaPackage | Archive], *, form: Form = ".conda", subdirs: Iterable[str] = ()
) -> Channel:
    """Write package files and `repodata.json` of each subdir below `root`; files that exist already are copied."""
    archives = tuple(_place(root, package, form) for package in packages)
    for subdir in sorted({archive.subdir for archive in archives} | {"noarch", "linux-64", "linux-aarch64", *subdirs}):
        text = json.dumps(_repodata(subdir, archives), indent=1, sort_keys=True) + "\n"
        (root / subdir).mkdir(parents=True, exist_ok=True)
        (root / subdir / "repodata.json").write_text(text)
    return Channel(path=root, url=root.absolute().as_uri() + "/", archives=archives)


def _place(root: Path, package: CondaPackage | Archive, form: Form) -> Archive:
    if isinstance(package, CondaPackage):
        return package.write(root, form)
    target = root / package.subdir / package.filename
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(package.path, target)  # not a link: a test that spoils it must not spoil the original
    return Archive(path=target, subdir=package.subdir, record=package.record)


def _repodata(subdir: str, archives: Iterable[Archive]) -> dict[str, Any]:
    tables: dict[str, dict[str, Any]] = {"packages": {}, "packages.conda": {}}
    for archive in archives:
        if archive.subdir == subdir:
            table = "packages.conda" if archive.filename.endswith(".conda") else "packages"
            tables[table][archive.filename] = dict(archive.record)
    return {"info": {"subdir": subdir}, **tables, "repodata_version": 1}


@dataclass(slots=True, kw_only=True)
class Served:
    """A running server. `faults` maps a path such as `/linux-64/a-1.0-0.conda` to what goes wrong with it.

    A fault stays until it is removed; `requests` is every `METHOD path` seen, in order.
    """

    url: str
    faults: dict[str, Fault] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)


@contextmanager
def serve(root: Path) -> Iterator[Served]:
    """Serve `root` on a free loopback port until the block ends."""
    served = Served(url="")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, served=served, directory=str(root)))
    served.url = f"http://127.0.0.1:{server.server_port}/"
    thread = threading.Thread(target=partial(server.serve_forever, poll_interval=0.02))
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(SimpleHTTPRequestHandler):
    def __init__(self, *args: Any, served: Served, **kwargs: Any) -> None:
        self._served = served
        super().__init__(*args, **kwargs)

    def do_GET(self) -> None:
        self._served.requests.append(f"GET {self.path}")
        match self._served.faults.get(self.path.partition("?")[0]):
            case None:
                super().do_GET()
            case "missing":
                self.send_error(HTTPStatus.NOT_FOUND)
            case "busy":
                self.send_error(HTTPStatus.SERVICE_UNAVAILABLE)
            case fault:
                self._damaged(fault)

    def do_HEAD(self) -> None:
        self._served.requests.append(f"HEAD {self.path}")
        super().do_HEAD()

    def _damaged(self, fault: Literal["truncated", "corrupt"]) -> None:
        with open(self.translate_path(self.path), "rb") as stream:  # noqa: PTH123  # translate_path gives a str
            body = stream.read()
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        middle = len(body) // 2
        self.wfile.write(body[:middle] if fault == "truncated" else _flipped(body, middle))
        self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are kept in `Served.requests`; nothing is printed."""


def _flipped(body: bytes, position: int) -> bytes:
    return body[:position] + bytes([body[position] ^ 0xFF]) + body[position + 1 :]
