"""Another base under an image: what becomes of its configuration, manifest and annotations. Layers stay as they are.

What the image has from its old base, it gets from the new one; what it set itself, it keeps. A value that equals the
old base's is taken for inherited, as nothing tells the two apart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from layers.digest import Digest
from ociforge.errors import ImageError
from ociforge.oci.annotations import BASE_DIGEST, BASE_NAME, IMAGE_KEY
from ociforge.oci.changes import ConfigChanges
from ociforge.oci.config import ImageConfig, derive
from ociforge.oci.descriptor import CONFIG, MANIFEST, Descriptor
from ociforge.oci.envelope import check_size
from ociforge.oci.image import MAX_LAYERS, Image, ImageManifest, oci_layer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["rebase_annotations", "rebase_config", "rebase_image"]

_PLATFORM = ("architecture", "os", "os.features", "os.version", "variant")
_DONE_APART = frozenset({*_PLATFORM, "config", "created", "history", "rootfs"})
_SETS = ("ExposedPorts", "Labels", "Volumes")  # of which each member is inherited or not
_COMMAND = ("Cmd", "Entrypoint")
_SET_BY_BUILD = (*_COMMAND, "WorkingDir")  # by every build of ours, whatever the base says
_ACTIVATION = ("CONDA_", "PIXI_")  # variables that every build of ours sets, too
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"  # what engines set where an image has no PATH
_PADDING = {"comment": "layer without a history"}


def rebase_config(image: ImageConfig, old: ImageConfig, new: ImageConfig, *, ours: bool) -> ImageConfig:
    """The configuration of `image`, which stands on `old`, when it stands on `new`.

    The layers of `old` are the lowest of `image`. Of an image that is `ours`, it is known which values the build has
    set; of others Docker's rule for `Entrypoint` and `Cmd` holds. Raises ImageError.
    """
    count = len(image.diff_ids) - len(old.diff_ids)
    # In the form in which a build writes what it inherits, so that values can be compared.
    image_, old_, new_ = (derive(config, (), ConfigChanges()) for config in (image, old, new))
    document = _merged(*({k: v for k, v in c.raw.items() if k not in _DONE_APART} for c in (image_, old_, new_)))
    document |= {key: new_.raw[key] for key in _PLATFORM if key in new_.raw}
    if image.created is not None:
        document["created"] = image.created
    document["config"] = _run_config(image_, old_, new_, ours=ours)
    document["rootfs"] = {
        **new_.raw["rootfs"],
        "diff_ids": [str(diff_id) for diff_id in (*new.diff_ids, *image.diff_ids[len(old.diff_ids) :])],
    }
    document["history"] = [*new_.history, *_own_history(image, old_.history, count)]
    return ImageConfig.from_json(document)


def rebase_annotations(
    annotations: Mapping[str, str], name: str | None, digest: Digest | None, *, add: bool = True
) -> dict[str, str]:
    """The annotations of an image, or of an index of such, on the base that `name` and `digest` say.

    Without `add`, only what was said of the base before is said anew. The key of the image is left out: it named
    another one.
    """
    said = {BASE_NAME: name, BASE_DIGEST: None if digest is None else str(digest)}
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


def _merged(image: Mapping[str, Any], old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """`new`, with what `image` does otherwise than `old`: sets, or leaves out."""
    kept = {key: value for key, value in new.items() if key in image or key not in old}
    return kept | {key: value for key, value in image.items() if key not in old or value != old[key]}


def _run_config(image: ImageConfig, old: ImageConfig, new: ImageConfig, *, ours: bool) -> dict[str, Any]:
    before, below, above = (dict(config.raw.get("config") or {}) for config in (image, old, new))
    run = _merged(before, below, above)
    fixed = _SET_BY_BUILD if ours else _own_command(before, below)
    run |= {key: before.get(key) for key in fixed}
    run |= {key: _merged(*(config.get(key, {}) for config in (before, below, above))) for key in _SETS}
    run["Env"] = [f"{name}={value}" for name, value in _env(image, old, new, ours=ours).items()]
    return {key: value for key, value in run.items() if value not in (None, "", [], {})}


def _own_command(image: Mapping[str, Any], old: Mapping[str, Any]) -> tuple[str, ...]:
    """What the image set of its command. An entrypoint of its own also removed the base's `Cmd`, as in docker."""
    if image.get("Entrypoint") != old.get("Entrypoint"):
        return _COMMAND
    return ("Cmd",) if image.get("Cmd") != old.get("Cmd") else ()


def _env(image: ImageConfig, old: ImageConfig, new: ImageConfig, *, ours: bool) -> dict[str, str]:
    env = _merged(image.env, old.env, new.env)
    if ours:
        env |= {name: value for name, value in image.env.items() if name.startswith(_ACTIVATION)}
    own, below = image.env.get("PATH"), old.env.get("PATH") or _PATH
    if own is not None and own.endswith(f":{below}"):  # directories in front of the base's
        env["PATH"] = own.removesuffix(below) + (new.env.get("PATH") or _PATH)
    return env


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
