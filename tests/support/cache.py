"""Things too slow to make for each run, kept on disk between runs."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["cached", "fingerprint"]


def cached(key: str, make: Callable[[Path], None]) -> Path:
    """The directory `key`; `make` fills it when it does not exist yet. It appears whole or not at all.

    The place is OCIFORGE_TEST_CACHE, by default a directory of this user below the system's temporary one.
    """
    default = Path(tempfile.gettempdir()) / f"ociforge-tests-{os.getuid()}"
    root = Path(os.environ.get("OCIFORGE_TEST_CACHE") or default)
    target = root / key
    if target.is_dir():
        return target
    root.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{key}-", dir=root))
    try:
        make(work)
        work.chmod(0o755)
        work.rename(target)
    except OSError:
        # Another process was faster: the target exists and is not empty.
        if not target.is_dir():
            raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return target


def fingerprint(*parts: str | Path) -> str:
    """A short digest of texts and of the files at paths: the part of a key that changes with what made the thing."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.read_bytes() if isinstance(part, Path) else part.encode())
        digest.update(b"\0")
    return digest.hexdigest()[:16]
