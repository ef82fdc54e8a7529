"""A channel behind HTTP whose server answers range requests, or does not."""

from __future__ import annotations

import re
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Ranged", "serve_ranges"]


@dataclass(slots=True, kw_only=True)
class Ranged:
    """A running server. `sent` has (file's name, Range header, bytes) of each answer; `ranges` can be turned off."""

    url: str = ""
    ranges: bool = True
    sent: list[tuple[str, str | None, int]] = field(default_factory=list)

    def total(self) -> int:
        """How many bytes of files were sent."""
        return sum(size for _, _, size in self.sent)


@contextmanager
def serve_ranges(root: Path) -> Iterator[Ranged]:
    """Serve `root` on a free loopback port until the block ends."""
    ranged = Ranged()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, ranged=ranged, directory=str(root)))
    ranged.url = f"http://127.0.0.1:{server.server_port}/"
    thread = threading.Thread(target=partial(server.serve_forever, poll_interval=0.02))
    thread.start()
    try:
        yield ranged
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(SimpleHTTPRequestHandler):
    def __init__(self, *args: Any, ranged: Ranged, **kwargs: Any) -> None:
        self._ranged = ranged
        super().__init__(*args, **kwargs)

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        body, wanted = path.read_bytes(), self.headers.get("Range")
        match = re.fullmatch(r"bytes=(\d*)-(\d*)", wanted or "") if self._ranged.ranges else None
        start, end = 0, len(body)
        if match is not None:
            start = int(match[1]) if match[1] else max(0, len(body) - int(match[2]))
            end = min(end, int(match[2]) + 1) if match[1] and match[2] else end
        self._ranged.sent.append((path.name, wanted, end - start))
        self.send_response(HTTPStatus.OK if match is None else HTTPStatus.PARTIAL_CONTENT)
        if match is not None:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(body)}")
        self.send_header("Content-Length", str(end - start))
        self.end_headers()
        try:
            self.wfile.write(body[start:end])
        except OSError:  # the client does not want the rest
            self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are kept in `Ranged.sent`; nothing is printed."""
