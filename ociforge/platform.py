"""Platforms: OCI's `linux/amd64` and conda's `linux-64`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from ociforge.errors import BuildError

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Platform"]

# OCI architecture and variant <-> conda subdir. The variant of arm64 is written because engines
# normalise it to v8; that of amd64 is not, because containerd selects by it.
_SUBDIRS = {
    "linux-64": ("amd64", None),
    "linux-aarch64": ("arm64", "v8"),
    "linux-ppc64le": ("ppc64le", None),
    "linux-s390x": ("s390x", None),
    "linux-riscv64": ("riscv64", None),
}


class Platform(Struct, frozen=True, kw_only=True):
    """An OCI platform (image-spec, image-index.md, "platform"). `parse` and `str` are inverse."""

    os: str = "linux"
    architecture: str
    variant: str | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `os/architecture[/variant]`; `linux/arm64` means `linux/arm64/v8`.

        Raises BuildError when it is no platform that an image can be built for.
        """
        parts = text.split("/")
        if len(parts) in (2, 3) and parts[0] == "linux":
            for architecture, variant in _SUBDIRS.values():
                if parts[1] == architecture and parts[2:] in ([], [variant]):
                    return cls(architecture=architecture, variant=variant)
        if text in _SUBDIRS:
            raise BuildError(f"unknown platform: `{text}`", f"did you mean `{cls.from_subdir(text)}`?")
        known = ", ".join(f"`linux/{architecture}`" for architecture, _ in _SUBDIRS.values())
        raise BuildError(f"unknown platform: `{text}`", f"one of {known}")

    @classmethod
    def from_subdir(cls, subdir: str) -> Self:
        """The platform of a conda subdir such as `linux-64`; raises BuildError when it has none."""
        try:
            architecture, variant = _SUBDIRS[subdir]
        except KeyError:
            raise BuildError(
                f"no image can be built for `{subdir}`", "images are made for the Linux subdirs of the lock"
            ) from None
        return cls(architecture=architecture, variant=variant)

    @property
    def subdir(self) -> str:
        """The conda subdir, such as `linux-64`."""
        return next(s for s, (architecture, _) in _SUBDIRS.items() if architecture == self.architecture)

    def matches(self, other: Platform) -> bool:
        """Whether an image of `other` runs where `self` is asked for: an absent variant matches any."""
        return (self.os, self.architecture) == (other.os, other.architecture) and (
            self.variant is None or other.variant is None or self.variant == other.variant
        )

    def __str__(self) -> str:
        base = f"{self.os}/{self.architecture}"
        if self.variant is None or (self.architecture, self.variant) == ("arm64", "v8"):
            return base
        return f"{base}/{self.variant}"
