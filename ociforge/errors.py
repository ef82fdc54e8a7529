"""Errors that a user can meet: what failed: which thing: why; then a hint that says what to do.

    ForgeError
    ├── WorkspaceError        manifest, settings, lock
    │   ├── LockError
    │   └── SolveError        requirements that no set of packages meets
    ├── PackageError          conda archives and wheels
    ├── AppError              the application's own files
    ├── BaseImageError        the base image
    │   └── PlatformError         … is not there for a platform; an ImageError, too
    ├── ImageError            an OCI document that breaks the specification
    ├── TransportError        where images live
    │   ├── ReferenceFormatError  a malformed image reference or transport name (exit 2)
    │   └── RegistryError
    │       ├── AnswerError
    │       ├── AuthError
    │       └── NotFoundError
    ├── OfflineError          what is not on this machine, where nothing may be fetched
    ├── StoreError            the local store
    └── BuildError            what fits nowhere above

Third-party errors are translated where the library is imported, with `raise … from`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

__all__ = [
    "AnswerError",
    "AppError",
    "AuthError",
    "BaseImageError",
    "BuildError",
    "ForgeError",
    "ImageError",
    "LockError",
    "NotFoundError",
    "OfflineError",
    "PackageError",
    "PlatformError",
    "ReferenceFormatError",
    "RegistryError",
    "SolveError",
    "StoreError",
    "TransportError",
    "WorkspaceError",
]


class ForgeError(Exception):
    """Something that the user or the environment can put right.

    `message` has the form "what: which: why", lower case, no final period, literals in backticks; several
    findings are joined by line breaks. `hint` says what to do. `exit_code` is the process's exit status.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    @classmethod
    def collect(cls, messages: Sequence[str], hint: str | None = None) -> Self:
        """One error for several findings, one line each, in the order given."""
        return cls("\n".join(messages), hint)


class WorkspaceError(ForgeError):
    """The manifest or the settings."""


class LockError(WorkspaceError):
    """`pixi.lock` is missing, unreadable, or does not hold what was asked for."""


class SolveError(WorkspaceError):
    """Requirements that no set of packages meets, or that cannot be looked up."""


class PackageError(ForgeError):
    """A conda archive or a wheel that cannot be fetched, verified or laid out."""


class AppError(ForgeError):
    """The application's own files."""


class BaseImageError(ForgeError):
    """The base image cannot be used."""


class ImageError(ForgeError):
    """An OCI document that breaks the specification."""


class PlatformError(BaseImageError, ImageError):
    """An image that is not there for a platform."""


class TransportError(ForgeError):
    """Reading from or writing to a place where images live."""


class ReferenceFormatError(TransportError):
    """A malformed reference or transport name."""

    exit_code = 2


class RegistryError(TransportError):
    """A registry that refuses, fails or misbehaves."""


class AnswerError(RegistryError):
    """What a registry has under a name is no image, whatever else it is."""


class AuthError(RegistryError):
    """Missing or refused credentials."""


class NotFoundError(RegistryError):
    """A place, mostly a registry, that has no such image."""


class OfflineError(ForgeError):
    """What is not on this machine, where nothing may be fetched."""


class StoreError(ForgeError):
    """The local store cannot be read or written."""


class BuildError(ForgeError):
    """A build that cannot go on."""
