"""`ociforge.lock`: which bytes the names of base images stood for when the workspace was locked.

One digest for each base image as the settings name it and each platform: that of the index or manifest that the name
leads to, or of the file of a `rootfs:` base. The text is canonical JSON, one line for each pin.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct, field

from layers.digest import Digest
from layers.errors import DigestError
from ociforge.errors import BuildError, LockError
from ociforge.platform import Platform
from ociforge.replacing import replacing

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path
    from typing import Self

__all__ = ["FILE_NAME", "Pins", "Use"]

FILE_NAME: Final = "ociforge.lock"

_FORMAT: Final = 1
_LIMIT: Final = 16 << 20  # 16 MiB: more than a hundred thousand pins
_HINT: Final = "run `ociforge lock`"
_DAMAGED_HINT: Final = "resolve the conflict in it, or make a new one with `ociforge lock --upgrade --only bases`"


class Use(Struct, frozen=True, kw_only=True, order=True):
    """A base image that an image of the workspace is built on; `base` is as the settings name it."""

    base: str
    platform: str

    @classmethod
    def of(cls, base: str, platform: Platform) -> Self:
        """`platform` is OCI's; its variant counts only where it is not the usual one."""
        return cls(base=base, platform=str(platform))


class Pins(Struct, frozen=True, kw_only=True):
    """The pins of a workspace; `parse` and `to_bytes` are inverse."""

    digests: Mapping[Use, Digest] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Self:
        """The pins in a file; none when there is no such file. Raises LockError when it is damaged."""
        try:
            with path.open("rb") as stream:
                data = stream.read(_LIMIT + 1)
        except FileNotFoundError:
            return cls()
        except OSError as error:
            raise LockError(f"cannot read `{path}`: {error.strerror or error}") from error
        if len(data) > _LIMIT:
            raise LockError(f"cannot read `{path}`: it is larger than {_LIMIT >> 20} MiB")
        return cls.parse(data)

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read the text; raises LockError when it is none of ours."""
        try:
            document = json.loads(data, object_pairs_hook=_object)
        except (ValueError, RecursionError) as error:
            raise LockError(f"`{FILE_NAME}` is damaged: {error}", _DAMAGED_HINT) from error
        if not isinstance(document, dict) or not isinstance(version := document.get("version"), int):
            raise _damaged("it has no `version`")
        if version > _FORMAT:
            raise LockError(f"`{FILE_NAME}` has format {version}: newer than this ociforge reads", "upgrade ociforge")
        if version < _FORMAT or document.keys() != {"bases", "version"}:
            raise _damaged("expected `version` and `bases`, and nothing else")
        return cls(digests=dict(_pins(document["bases"])))

    def to_bytes(self) -> bytes:
        """The canonical text."""
        found: dict[str, dict[str, str]] = {}
        for use, digest in sorted(self.digests.items()):
            found.setdefault(use.base, {})[use.platform] = str(digest)
        document = {"bases": found, "version": _FORMAT}
        return (json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()

    def write(self, path: Path) -> None:
        """Write the text in one step: whoever reads the file meanwhile sees the old one or the new one."""
        try:
            with replacing(path) as stream:
                stream.write(self.to_bytes())
        except OSError as error:
            raise LockError(f"cannot write `{path}`: {error.strerror or error}") from error

    def find(self, use: Use) -> Digest | None:
        """The digest to build on, None when there is no pin."""
        return self.digests.get(use)

    def complaint(self, use: Use, digest: Digest | None) -> str | None:
        """Why the base that was found does not agree with its pin, None when it does; `scratch` needs no pin.

        `digest` is what the base's name leads to now.
        """
        pinned = self.find(use)
        if use.base == "scratch":
            return None
        if pinned is None:
            return f"the base image `{use.base}` for `{use.platform}` is not pinned in `{FILE_NAME}`{self._others(use)}"
        if digest != pinned:
            return (
                f"the base image `{use.base}` for `{use.platform}` has changed since it was pinned in `{FILE_NAME}`:"
                f" it was `{pinned}`, it is {f'`{digest}`' if digest is not None else 'not known by digest'}"
            )
        return None

    def require(self, use: Use, digest: Digest | None, hint: str = _HINT) -> None:
        """Raise LockError when there is a complaint."""
        complaint = self.complaint(use, digest)
        if complaint is not None:
            raise LockError(complaint, hint)

    def _others(self, use: Use) -> str:
        """What is pinned instead."""
        platforms = [f"`{known.platform}`" for known in sorted(self.digests) if known.base == use.base]
        if platforms:
            return f": it has {', '.join(platforms)}"
        named = [f"`{known}`" for known in dict.fromkeys(known.base for known in sorted(self.digests))]
        return f": it has {', '.join(named)}" if named else ""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice")
    return found


def _pins(document: object) -> Iterator[tuple[Use, Digest]]:
    if not isinstance(document, dict):
        raise _damaged("expected an object under `bases`")
    for base, platforms in document.items():
        if not isinstance(platforms, dict):
            raise _damaged(f"expected an object under `{base}`")
        for platform, text in platforms.items():
            try:
                yield Use.of(base, Platform.parse(platform)), Digest.parse(text if isinstance(text, str) else "")
            except (BuildError, DigestError) as error:
                raise _damaged(f"`{base}`: {error}") from error


def _damaged(why: str) -> LockError:
    return LockError(f"`{FILE_NAME}` is damaged: {why}", _DAMAGED_HINT)
