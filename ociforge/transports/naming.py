"""How `index.json` names the images of a layout or archive (image-spec, annotations.md; containerd's importer).

An image named `host/repo:tag` gets two annotations: `io.containerd.image.name` with the whole name, for containerd and
docker, and `org.opencontainers.image.ref.name` with the tag, for umoci and skopeo. Together they are right everywhere;
the tag alone is no usable name for containerd, the whole name alone none for umoci.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import replace

from ociforge.errors import NotFoundError, ReferenceFormatError, TransportError
from ociforge.oci.descriptor import INDEX, INDEX_TYPES, MANIFEST_TYPES, Descriptor, parse_json
from ociforge.oci.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from layers.digest import Digest

__all__ = [
    "CONTAINERD_NAME",
    "REF_NAME",
    "Name",
    "entries_of",
    "labelled",
    "listing",
    "matching",
    "merge",
    "names_in",
    "names_of",
    "same_image",
    "select",
]

REF_NAME = "org.opencontainers.image.ref.name"
CONTAINERD_NAME = "io.containerd.image.name"


class Name(Struct, frozen=True, kw_only=True):
    """What to call an image: by a tag, by a whole name, or both (the tag is then the name's or one of its own)."""

    tag: str | None = None
    whole: Reference | None = None

    def __post_init__(self) -> None:
        if self.tag is not None and not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}", self.tag, re.ASCII):
            raise ReferenceFormatError(
                f"`{self.tag}` is not a tag", "a tag has at most 128 letters, digits, `_`, `.` and `-`"
            )

    @classmethod
    def of(cls, reference: Reference) -> Name:
        """Raises ReferenceFormatError for a reference by digest, which gives no name."""
        if reference.digest is not None or reference.tag is None:
            raise ReferenceFormatError(
                f"`{reference}` is no name for an image: it has a digest", "leave out the digest"
            )
        return cls(tag=reference.tag, whole=reference)

    @classmethod
    def plan(cls, ref: Name | None, names_besides: Iterable[Reference | Name]) -> tuple[Name, ...]:
        """All names of one image, without repetition, `ref` first; a tag is given to the first that has it."""
        besides = [name if isinstance(name, Name) else cls.of(name) for name in names_besides]
        names: list[Name] = []
        for name in (*([] if ref is None else [ref]), *besides):
            same_tag = next((i for i, other in enumerate(names) if other.tag == name.tag), None)
            if same_tag is not None and names[same_tag].whole is None:
                names[same_tag] = name
            elif same_tag is None and name.whole is None:
                names.append(name)
            elif name.whole is not None and name.whole not in [other.whole for other in names]:
                names.append(name if same_tag is None else replace(name, tag=None))
        return tuple(names)

    def annotations(self) -> dict[str, str]:
        return ({} if self.tag is None else {REF_NAME: self.tag}) | (
            {} if self.whole is None else {CONTAINERD_NAME: str(self.whole)}
        )


def labelled(root: Descriptor, names: Sequence[Name]) -> list[dict[str, Any]]:
    """The entries of `index.json` for an image: one for each name, or a nameless one. Names that it had are dropped."""
    kept = _without(root.annotations, REF_NAME, CONTAINERD_NAME)
    return [replace(root, annotations=kept | name.annotations()).to_json() for name in names or [Name()]]


def merge(index: Mapping[str, Any] | None, entries: list[dict[str, Any]]) -> dict[str, Any]:
    """`index` (None: a new one) with `entries` in the place of those with the same names; the rest stays as it is.

    A tag passes from another image to the new one, which stays only if it has a whole name besides. A nameless entry
    takes the place of one for the same bytes.
    """
    document: dict[str, Any] = dict(index) if index is not None else {"schemaVersion": 2, "mediaType": INDEX}
    present: list[dict[str, Any]] = document.get("manifests", [])
    others = [_yield_names(old, entries) for old in present]
    return document | {"manifests": [old for old in others if old is not None] + entries}


def _yield_names(old: dict[str, Any], entries: list[dict[str, Any]]) -> dict[str, Any] | None:
    """What is left of an older entry beside the new ones: all, all but its tag, or nothing."""
    annotations = old.get("annotations") or {}
    tag, whole = annotations.get(REF_NAME), annotations.get(CONTAINERD_NAME)
    new = [entry.get("annotations") or {} for entry in entries]
    if tag is None and whole is None:
        return None if old.get("digest") in [entry["digest"] for entry in entries] else old
    if whole is not None and whole in [names.get(CONTAINERD_NAME) for names in new]:
        return None
    if tag is None or tag not in [names.get(REF_NAME) for names in new]:
        return old
    return None if whole is None else old | {"annotations": _without(annotations, REF_NAME)}


def entries_of(data: bytes, what: str) -> tuple[Descriptor, ...]:
    """The manifests that the `index.json` of `what` lists. Raises ImageError when it is none."""
    manifests = parse_json(data, f"`index.json` of `{what}`").get("manifests")
    if not isinstance(manifests, list):
        raise TransportError(f"`index.json` of `{what}`: no list of manifests")
    return tuple(
        Descriptor.from_json(entry, f"`index.json` of `{what}`: manifests[{i}]") for i, entry in enumerate(manifests)
    )


def select(entries: Sequence[Descriptor], ref: str | None, digest: Digest | None, what: str) -> Descriptor:
    """The one image of `entries` with the name `ref` and the `digest`; without them, the only one there is.

    `ref` is a tag or a whole name. `what` names the place in errors: TransportError lists the names there are, and is
    a NotFoundError when none fits.
    """
    found = {entry.digest: entry for entry in reversed(matching(entries, ref, digest))}
    if len(found) != 1:
        wanted = "".join([f" `{ref}`" if ref is not None else "", f" with the digest `{digest}`" if digest else ""])
        why = f"no image{wanted}" if not found else f"{len(found)} images{wanted}"
        hint = "name one of them behind the path, as in `:TAG` or `@sha256:…`" if entries else None
        kind = TransportError if found else NotFoundError
        raise kind(f"`{what}`: {why}: found {listing(map(_shown, entries))}", hint)
    (entry,) = found.values()
    if entry.media_type not in INDEX_TYPES | MANIFEST_TYPES:
        raise TransportError(f"`{what}`: `{entry.digest}` is no image: `{entry.media_type}`")
    return entry


def matching(entries: Sequence[Descriptor], ref: str | None, digest: Digest | None) -> list[Descriptor]:
    """The `entries` that `ref` and `digest` mean, in order: several, when an image has several names."""
    return [
        entry
        for entry in entries
        if (ref is None or _is_called(entry, ref)) and (digest is None or entry.digest == digest)
    ]


def names_of(entries: Iterable[Descriptor]) -> tuple[Name, ...]:
    """The names that `entries` have; those that nothing could be named by are left out."""
    return tuple(name for entry in entries for name in _name_of(entry))


def _name_of(entry: Descriptor) -> tuple[Name, ...]:
    """The whole name if there is one, else the tag."""
    tag, whole = entry.annotations.get(REF_NAME), entry.annotations.get(CONTAINERD_NAME)
    if found := names_in(text for text in (whole, tag) if text is not None and (text is whole or _is_whole(text))):
        return found[:1]
    try:
        return () if tag is None else (Name(tag=tag),)
    except ReferenceFormatError:
        return ()


def names_in(texts: Iterable[str]) -> tuple[Name, ...]:
    """The `texts` that are whole names with a tag; a digest behind it is left out."""
    references = [reference for text in texts if (reference := _reference(text)) is not None]
    return tuple(Name.of(replace(reference, digest=None)) for reference in references if reference.tag is not None)


def _is_whole(text: str) -> bool:
    """Whether a tool put the whole name where the tag belongs; a bare word is a tag, though it reads as a name too."""
    return bool({"/", ":"} & set(text))


def _is_called(entry: Descriptor, ref: str) -> bool:
    tag, whole = entry.annotations.get(REF_NAME), entry.annotations.get(CONTAINERD_NAME)
    if ref in (tag, whole):
        return True
    return same_image(ref, [name for name in (whole, tag) if name is not None and (name is whole or _is_whole(name))])


def same_image(ref: str, names: Iterable[str]) -> bool:
    """Whether `ref` is one of `names`, `ubuntu` and `docker.io/library/ubuntu:latest` being one."""
    wanted = _reference(ref)
    return wanted is not None and wanted in [_reference(name) for name in names]


def _reference(text: str) -> Reference | None:
    try:
        return Reference.parse(text)
    except ReferenceFormatError:
        return None


def _shown(entry: Descriptor) -> str:
    return entry.annotations.get(CONTAINERD_NAME) or entry.annotations.get(REF_NAME) or str(entry.digest)


def listing(names: Iterable[str]) -> str:
    """The names for an error message, in order, the first twenty of them."""
    shown = [f"`{name}`" for name in dict.fromkeys(names)]
    more = f" and {len(shown) - 20} more" if len(shown) > 20 else ""
    return ", ".join(shown[:20]) + more if shown else "none"


def _without(annotations: Mapping[str, str], *keys: str) -> dict[str, str]:
    return {key: value for key, value in annotations.items() if key not in keys}
