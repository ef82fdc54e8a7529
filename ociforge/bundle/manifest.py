"""The manifest of a bundle: an OCI artifact with one blob for each file that a build needs (image-spec, manifest.md).

    artifactType  application/vnd.ociforge.bundle.v1
    config        the empty one
    layers        the files, each with the annotations
                  org.opencontainers.image.title   its name, a relative path
                  dev.ociforge.bundle.role         what it is there for (ROLES)
                  dev.ociforge.bundle.source       where it came from, for people
                  dev.ociforge.bundle.built-from   of a wheel that was built: the source's digest, or repository, commit
                  dev.ociforge.bundle.subdirectory and the directory of the project in it
                  dev.ociforge.bundle.built-by     and the Python and machine that built it
    annotations   dev.ociforge.bundle.images       for which images the bundle is, as JSON

No blob has a media type of images: registries would look for the manifests among them, and tools compress layers anew.
The same bytes are listed once for each role that they have.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct, field

from layers.digest import Digest
from ociforge.errors import BuildError, ImageError, PackageError, TransportError
from ociforge.oci.descriptor import Descriptor, canonical_json, parse_json
from ociforge.oci.document import objects
from ociforge.oci.envelope import check_size
from ociforge.oci.image import ImageManifest
from ociforge.platform import Platform
from ociforge.pypi.provided import Origin
from ociforge.pypi.tags import Filename

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Self

__all__ = [
    "ARTIFACT_TYPE",
    "BUILT_BY",
    "BUILT_FROM",
    "DOCUMENTS",
    "EMPTY",
    "EMPTY_DATA",
    "ROLES",
    "SOURCE",
    "SUBDIRECTORY",
    "BundleManifest",
    "BundledImage",
    "Item",
    "conda_suffix",
    "unnamed",
]

ARTIFACT_TYPE: Final = "application/vnd.ociforge.bundle.v1"
EMPTY_DATA: Final = b"{}"
EMPTY: Final = Descriptor(
    media_type="application/vnd.oci.empty.v1+json", digest=Digest.of(EMPTY_DATA), size=len(EMPTY_DATA)
)

SOURCE: Final = "dev.ociforge.bundle.source"
BUILT_FROM: Final = "dev.ociforge.bundle.built-from"
BUILT_BY: Final = "dev.ociforge.bundle.built-by"
SUBDIRECTORY: Final = "dev.ociforge.bundle.subdirectory"
_ROLE = "dev.ociforge.bundle.role"
_IMAGES = "dev.ociforge.bundle.images"
_TITLE = "org.opencontainers.image.title"
_NOTES = (SOURCE, BUILT_FROM, BUILT_BY, SUBDIRECTORY)

# What the files are, as messages call them, in the order of the manifest.
ROLES: Final = {
    "manifest": "manifest",
    "lock": "lock",
    "pins": "pins of base images",
    "base-document": "base image's document",
    "base-layer": "base image's layer",
    "base-rootfs": "base image's root file system",
    "conda": "conda archive",
    "wheel": "wheel",
    "built": "wheel built from source",
    "requirement": "wheel for builds",
}
DOCUMENTS: Final = frozenset({"manifest", "lock", "pins", "base-document"})  # small; every bundle has its own
_WHEELS = frozenset({"wheel", "built", "requirement"})
_CONDA_TYPES = {".conda": "application/vnd.conda.package.v2", ".tar.bz2": "application/vnd.conda.package.v1"}
_TYPES = {
    "manifest": "application/toml",
    "lock": "application/yaml",
    **dict.fromkeys(_WHEELS, "application/vnd.ociforge.wheel.v1+zip"),
}


class Item(Struct, frozen=True, kw_only=True):
    """One file of a bundle. `name` is its title; `notes` are further annotations."""

    role: str
    name: str
    digest: Digest
    size: int
    notes: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, descriptor: Descriptor, what: str) -> Self:
        """Raises ImageError for what is no file of a bundle."""
        role, name = (descriptor.annotations.get(key) for key in (_ROLE, _TITLE))
        if role not in ROLES or not name:
            raise ImageError(f"{what}: no title, or a role that is not known: `{role}`", "upgrade ociforge")
        if not name.isprintable() or {"", ".", ".."} & set(name.split("/")):
            raise ImageError(f"{what}: the title {name[:100]!r} is no relative path")
        item = cls(
            role=role,
            name=name,
            digest=descriptor.digest,
            size=descriptor.size,
            notes={key: text for key in _NOTES if (text := descriptor.annotations.get(key)) is not None},
        )
        if role in _WHEELS:
            Filename.parse(item.filename)  # it becomes the name of a file
        if role == "conda" and not item.suffix:
            raise ImageError(f"{what}: {item} is no conda archive: expected `.conda` or `.tar.bz2`")
        if role == "built" and BUILT_FROM not in item.notes:
            raise ImageError(f"{what}: {item} does not say what it was built from")
        return item

    @property
    def filename(self) -> str:
        """The last component of the name."""
        return self.name.rpartition("/")[2]

    @property
    def suffix(self) -> str:
        """`.conda` or `.tar.bz2`, if the name ends so."""
        return conda_suffix(self.name)

    @property
    def origin(self) -> Origin:
        """What a wheel was built from."""
        return Origin(identity=self.notes[BUILT_FROM], subdirectory=self.notes.get(SUBDIRECTORY, ""))

    @property
    def descriptor(self) -> Descriptor:
        own = _TYPES.get(self.role, f"application/vnd.ociforge.bundle.{self.role}.v1")
        return Descriptor(
            media_type=_CONDA_TYPES[self.suffix] if self.role == "conda" else own,
            digest=self.digest,
            size=self.size,
            annotations={_TITLE: self.name, _ROLE: self.role, **self.notes},
        )

    def __str__(self) -> str:
        return f"{ROLES[self.role]} `{self.name}`"


class BundledImage(Struct, frozen=True, kw_only=True, order=True):
    """An image that a bundle is for: an environment on a `platform` of OCI's, which the lock calls `locked`."""

    environment: str
    platform: str
    locked: str
    base: str

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Raises ImageError."""
        names = ("environment", "platform", "locked", "base")
        if not all(isinstance(document.get(name), str) for name in names):
            raise ImageError(f"`{_IMAGES}`: expected {', '.join(f'`{name}`' for name in names)}")
        try:
            Platform.parse(document["platform"])
        except BuildError as error:
            raise ImageError(f"`{_IMAGES}`: {error.message}", error.hint) from error
        return cls(**{name: document[name] for name in names})

    def to_json(self) -> dict[str, Any]:
        return {
            "environment": self.environment,
            "platform": self.platform,
            "locked": self.locked,
            "base": self.base,
        }

    def __str__(self) -> str:
        return f"`{self.environment}` on `{self.platform}`"


class BundleManifest(Struct, frozen=True, kw_only=True):
    """What is in a bundle, and for which images. `of` sorts; `parse` and `to_bytes` are inverse."""

    items: tuple[Item, ...]
    images: tuple[BundledImage, ...]

    @classmethod
    def of(cls, items: Iterable[Item], images: Iterable[BundledImage]) -> Self:
        """Each file once for each role; names that several files of a role have get a part of the digest."""
        by_role = {(item.role, item.digest): item for item in sorted(items, key=lambda item: item.name, reverse=True)}
        named: dict[tuple[str, str], int] = {}
        for item in by_role.values():
            named[item.role, item.name] = named.get((item.role, item.name), 0) + 1
        unique = [_renamed(item) if named[item.role, item.name] > 1 else item for item in by_role.values()]
        order = list(ROLES)
        unique.sort(key=lambda item: (order.index(item.role), item.name, item.digest))
        return cls(items=tuple(unique), images=tuple(sorted(set(images))))

    @classmethod
    def parse(cls, data: bytes, where: str) -> Self:
        """Raises TransportError for what is no bundle's manifest; `where` names the bundle."""
        try:
            manifest = ImageManifest.parse(data)
            if manifest.artifact_type != ARTIFACT_TYPE:
                raise TransportError(
                    f"`{where}` is no bundle: its `artifactType` is `{manifest.artifact_type}`",
                    "make one with `ociforge bundle create`",
                )
            if manifest.config.digest != EMPTY.digest:
                raise TransportError(f"`{where}` is no bundle: its configuration is not the empty one")
            images = parse_json(manifest.annotations.get(_IMAGES, "").encode(), f"`{_IMAGES}`")
            return cls(
                items=tuple(Item.parse(layer, f"layers[{i}]") for i, layer in enumerate(manifest.layers)),
                images=tuple(BundledImage.from_json(image) for image in objects(images, "images", f"`{_IMAGES}`")),
            )
        except (ImageError, PackageError) as error:
            raise TransportError(f"`{where}` is no bundle: {error.message}", error.hint) from error

    def to_bytes(self) -> bytes:
        """Raises ImageError when there are too many files for a manifest that registries take."""
        images = canonical_json({"images": [image.to_json() for image in self.images]})
        data = ImageManifest(
            config=EMPTY,
            layers=tuple(item.descriptor for item in self.items),
            annotations={_IMAGES: images.decode()},
            artifact_type=ARTIFACT_TYPE,
        ).to_bytes()
        check_size(data, f"bundle of {len(self.items)} files")
        return data

    def with_role(self, *roles: str) -> tuple[Item, ...]:
        return tuple(item for item in self.items if item.role in roles)


def conda_suffix(filename: str) -> str:
    """`.conda` or `.tar.bz2`, if the name ends so."""
    return next((suffix for suffix in _CONDA_TYPES if filename.endswith(suffix)), "")


def unnamed(base: Digest) -> str:
    """What a base image that is in no registry is called in a bundle."""
    return f"base-{base.hex[:12]}"


def _renamed(item: Item) -> Item:
    folder, _, filename = item.name.rpartition("/")
    name = "/".join(filter(None, (folder, item.digest.hex[:12], filename)))
    return Item(role=item.role, name=name, digest=item.digest, size=item.size, notes=item.notes)
