"""Another base under an image: what becomes of its configuration, manifest and annotations. Layers stay as they are.

What the image has from its old base, it gets from the new one; what it set itself, it keeps. A value that equals the
old base's is taken for inherited, unless an annotation tells that the image restates it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from layers.digest import Digest
from ociforge.errors import ImageError
from ociforge.oci.annotations import BASE_DIGEST, BASE_NAME, IMAGE_KEY, RESTATED
from ociforge.oci.changes import ConfigChanges
from ociforge.oci.config import ImageConfig, derive
from ociforge.oci.descriptor import CONFIG, MANIFEST, Descriptor
from ociforge.oci.envelope import check_size
from ociforge.oci.image import MAX_LAYERS, Image, ImageManifest, oci_layer
from ociforge.oci.restated import COLLECTIONS, SET_BY_BUILD, is_set_by_build, same, settings, told

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

__all__ = ["rebase_annotations", "rebase_config", "rebase_image"]

_PLATFORM = ("architecture", "os", "os.features", "os.version", "variant")
_DONE_APART = frozenset({*_PLATFORM, "config", "created", "history", "rootfs"})
_COMMAND = ("Cmd", "Entrypoint")
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"  # what engines set where an image has no PATH
_PADDING = {"comment": "layer without a history"}


def rebase_config(
    image: ImageConfig, old: ImageConfig, new: ImageConfig, *, ours: bool, restated: Collection[str] = ()
) -> tuple[ImageConfig, tuple[str, ...]]:
    """The configuration of `image`, which stands on `old`, when it stands on `new`; and what it restates there.

    The layers of `old` are the lowest of `image`, which is known to restate what `restated` names. Of an image that is
    `ours`, it is known which values the build has set; of others Docker's rule for `Entrypoint` and `Cmd` holds. Raises
    ImageError.
    """
    count = len(image.diff_ids) - len(old.diff_ids)
    # In the form in which a build writes what it inherits, so that values can be compared.
    image_, old_, new_ = (derive(config, (), ConfigChanges()) for config in (image, old, new))
    tops = [{k: v for k, v in c.raw.items() if k not in _DONE_APART} for c in (image_, old_, new_)]
    document = _merged(*tops, own=_differing(tops[0], tops[1]))
    document |= {key: new_.raw[key] for key in _PLATFORM if key in new_.raw}
    if image.created is not None:
        document["created"] = image.created
    before, below, above = (settings(config) for config in (image, old, new))
    own = _own(before, below, restated, ours=ours)
    document["config"] = _run_config(before, below, above, own)
    document["rootfs"] = {
        **new_.raw["rootfs"],
        "diff_ids": [str(diff_id) for diff_id in (*new.diff_ids, *image.diff_ids[len(old.diff_ids) :])],
    }
    document["history"] = [*new_.history, *_own_history(image, old_.history, count)]
    config = ImageConfig.from_json(document)
    again = (name for name in same(settings(config), above) if name in own and not (ours and is_set_by_build(name)))
    return config, tuple(again)


def rebase_annotations(
    annotations: Mapping[str, str],
    name: str | None,
    digest: Digest | None,
    restated: Iterable[str] = (),
    *,
    add: bool = True,
) -> dict[str, str]:
    """The annotations of an image, or of an index of such, on the base that `name` and `digest` say, of which it states
    anew what `restated` names.

    Without `add`, only what was said of the base before is said anew. The key of the image is left out: it named
    another one.
    """
    said = {BASE_NAME: name, BASE_DIGEST: None if digest is None else str(digest), RESTATED: None, **told(restated)}
    kept = {key: value for key, value in annotations.items() if key not in said and key != IMAGE_KEY}
    return kept | {key: value for key, value in said.items() if value is not None and (add or key in annotations)}


def rebase_image(
    manifest: ImageManifest, config: ImageConfig, base_layers: Sequence[Descriptor], annotations: Mapping[str, str]
) -> Image:
    """The image of `base_layers` and, above them, as many upper layers of `manifest` as `config` has more diff_ids.

    Raises ImageError for more layers than engines take, or documents larger than registries take.
    """
    count = len(config.diff_ids) - len(base_layers)
    if len(config.diff_ids) > MAX_LAYERS:
        raise ImageError(
            f"image: {len(config.diff_ids)} layers: engines take at most {MAX_LAYERS}",
            f"the image has {count} of its own: choose a base with fewer than {len(base_layers)}",
        )
    layers = (
        *(replace(oci_layer(layer), platform=None) for layer in base_layers),
        *manifest.to_oci().layers[len(manifest.layers) - count :],
    )
    config_data = config.to_bytes()
    check_size(config_data, "image config")
    data = replace(
        manifest,
        media_type=MANIFEST,
        config=Descriptor(media_type=CONFIG, digest=Digest.of(config_data), size=len(config_data)),
        layers=layers,
        annotations=annotations,
    ).to_bytes()
    check_size(data, "image manifest")
    return Image(
        manifest=data,
        config=config_data,
        descriptor=Descriptor(media_type=MANIFEST, digest=Digest.of(data), size=len(data), platform=config.platform),
    )


def _differing(image: Mapping[str, Any], old: Mapping[str, Any]) -> frozenset[str]:
    return frozenset(image) - frozenset(same(image, old))


def _own(image: Mapping[str, Any], old: Mapping[str, Any], restated: Collection[str], *, ours: bool) -> frozenset[str]:
    """The names of what the image sets itself, or leaves out."""
    always = (name for name in (*image, *SET_BY_BUILD) if ours and is_set_by_build(name))
    own = _differing(image, old) | frozenset(restated) | frozenset(always)
    # An entrypoint of its own also removed the base's `Cmd`, as in docker; and either may be removed by being empty.
    if "Entrypoint" in own or "Entrypoint" in old.keys() - image.keys():
        return own | frozenset(_COMMAND)
    return own | {"Cmd"} if "Cmd" in old.keys() - image.keys() else own


def _merged(
    image: Mapping[str, Any], old: Mapping[str, Any], new: Mapping[str, Any], *, own: Collection[str]
) -> dict[str, Any]:
    """`new`, with what is the image's own; what `old` has and the image does not, it has left out."""
    kept = {key: value for key, value in new.items() if key in image or (key not in old and key not in own)}
    return kept | {key: value for key, value in image.items() if key in own}


def _run_config(
    image: Mapping[str, Any], old: Mapping[str, Any], new: Mapping[str, Any], own: Collection[str]
) -> dict[str, Any]:
    merged = _merged(image, old, new, own=own)
    path, below = image.get("Env:PATH"), old.get("Env:PATH") or _PATH
    if path is not None and path.endswith(f":{below}"):  # directories in front of the base's
        merged["Env:PATH"] = path.removesuffix(below) + (new.get("Env:PATH") or _PATH)
    several = {key: dict(_members(merged, key)) for key in (*COLLECTIONS, "Env")}
    run = {name: value for name, value in merged.items() if name.partition(":")[0] not in several} | several
    run["Env"] = [f"{name}={value}" for name, value in several["Env"].items()]
    return {key: value for key, value in run.items() if value not in (None, "", [], {})}


def _members(merged: Mapping[str, Any], key: str) -> Iterable[tuple[str, Any]]:
    return ((name.removeprefix(f"{key}:"), value) for name, value in merged.items() if name.startswith(f"{key}:"))


def _own_history(image: ImageConfig, below: Sequence[Mapping[str, Any]], count: int) -> Sequence[Mapping[str, Any]]:
    """The image's entries above those of its base, which as a build of ours writes them are `below`."""
    history = image.history
    made = [position for position, entry in enumerate(history) if not entry.get("empty_layer")]
    if len(made) != len(image.diff_ids):
        return [_PADDING] * count
    if list(history[: len(below)]) == list(below):
        return history[len(below) :]
    lower = len(image.diff_ids) - count
    return history[made[lower - 1] + 1 if lower else 0 :]
