"""The `info` of an archive behind http, without the archive: a few kilobytes, by range requests.

Nothing here is verified: what is read of a part cannot be held against the digest of the whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rattler.package_streaming import PackageArchive

from ociforge.conda.info import INFO_FILES

if TYPE_CHECKING:
    from rattler.networking import Client

__all__ = ["TAIL", "remote_info"]

# What is asked for first, in bytes: rattler's own choice. It holds the zip's directory and, where `info` is the last
# member as conda-build, rattler-build and conda-package-handling write it, nearly always all that is wanted.
TAIL = 64 << 10


async def remote_info(client: Client, url: str) -> dict[str, bytes]:
    """Those of INFO_FILES that the `.conda` at `url` has: one request for its tail, one more for a larger `info`.

    Raises one of RATTLER_ERRORS where it cannot be read in parts, which some servers do not know.
    """
    archive = await PackageArchive.from_url(client, url, sparse="require")
    found = await archive.read_files(INFO_FILES)
    return {name: data for name, data in found.items() if data is not None}
