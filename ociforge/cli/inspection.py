"""What `ociforge inspect` says of an image, as lines and as JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ociforge.cli.console import escaped, megabytes
from ociforge.oci.annotations import FORMAT, LAYER_KEY, LAYER_TITLE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from ociforge.oci.config import ImageConfig
    from ociforge.oci.descriptor import Descriptor
    from ociforge.oci.summary import ImageSummary, Summary

__all__ = ["lines", "to_json"]

_MOST = 300  # characters of one value; `--json` gives all
_SHORT = len("sha256:") + 12


def to_json(name: str, summary: Summary) -> dict[str, Any]:
    """The document of `--json`; sizes in bytes. The README documents it."""
    return {
        "name": name,
        **_descriptor_json(summary.root),
        "annotations": dict(summary.annotations),
        "images": [_image_json(image) for image in summary.images],
        "attachments": [
            {**_descriptor_json(entry), "annotations": dict(entry.annotations)} for entry in summary.attachments
        ],
    }


def lines(name: str, summary: Summary) -> list[str]:
    """The same for people, the least of it left out; text of the image's is escaped."""
    single = len(summary.images) == 1 and summary.images[0].descriptor == summary.root
    listed = ", ".join(dict.fromkeys(_platform(image) for image in summary.images))
    head = [
        ("digest", [str(summary.root.digest)]),
        ("media type", [summary.root.media_type]),
        ("platforms", [listed] if listed else []),
        ("annotations", [] if single else _pairs(summary.annotations)),
        ("attached", [f"{_short(entry.digest)}  {entry.media_type}" for entry in summary.attachments]),
    ]
    found = [_shown(name), *_fields(head)]
    for image in summary.images:
        found += ["", f"{_platform(image)}  {image.descriptor.digest}", *_fields(_facts(image))]
    return found


def _descriptor_json(descriptor: Descriptor) -> dict[str, Any]:
    return {"digest": str(descriptor.digest), "mediaType": descriptor.media_type, "size": descriptor.size}


def _image_json(image: ImageSummary) -> dict[str, Any]:
    manifest, config = image.manifest, image.config
    return {
        **_descriptor_json(image.descriptor),
        "platform": None if image.platform is None else str(image.platform),
        "artifactType": manifest.artifact_type,
        "annotations": dict(manifest.annotations),
        "format": manifest.annotations.get(FORMAT),
        "created": None if config is None else config.created,
        "config": {**_descriptor_json(manifest.config), **({} if config is None else _config_json(config))},
        "layers": [
            {
                **_descriptor_json(layer),
                "diffId": None if diff_id is None else str(diff_id),
                "title": layer.annotations.get(LAYER_TITLE),
                "key": layer.annotations.get(LAYER_KEY),
                "annotations": dict(layer.annotations),
            }
            for layer, diff_id in zip(manifest.layers, image.diff_ids, strict=True)
        ],
        "layersSize": image.size,
    }


def _config_json(config: ImageConfig) -> dict[str, Any]:
    return {
        "entrypoint": None if config.entrypoint is None else list(config.entrypoint),
        "cmd": None if config.cmd is None else list(config.cmd),
        "env": dict(config.env),
        "user": config.user,
        "workdir": config.workdir,
        "ports": list(config.exposed_ports),
        "volumes": list(config.volumes),
        "labels": dict(config.labels),
        "stopSignal": config.stop_signal,
        "healthcheck": config.healthcheck,
    }


def _facts(image: ImageSummary) -> Iterator[tuple[str, list[str]]]:
    annotations = image.manifest.annotations
    if image.config is not None:
        yield from _config_facts(image.config)
    elif image.manifest.artifact_type is not None:
        yield "artifact", [_shown(image.manifest.artifact_type)]
    yield "format", [_shown(annotations[FORMAT])] if FORMAT in annotations else []
    yield "annotations", _pairs({key: value for key, value in annotations.items() if key != FORMAT})
    yield "layers", [f"{len(image.manifest.layers)}, {megabytes(image.size)}", *_table(image.manifest.layers)]


def _config_facts(config: ImageConfig) -> Iterator[tuple[str, list[str]]]:
    yield "created", [] if config.created is None else [_shown(config.created)]
    yield "entrypoint", _words(config.entrypoint)
    yield "cmd", _words(config.cmd)
    yield "user", [_shown(config.user)] if config.user else []
    yield "workdir", [_shown(config.workdir)] if config.workdir else []
    yield "ports", _listed(config.exposed_ports)
    yield "volumes", _listed(config.volumes)
    yield "env", _pairs(config.env)
    yield "labels", _pairs(config.labels)


def _fields(facts: Iterable[tuple[str, list[str]]]) -> Iterator[str]:
    """A line for each value, the name before the first; nothing for facts without values."""
    for name, values in facts:
        for label, value in zip([name, *[""] * len(values)], values, strict=False):
            yield f"  {label:<11}  {value}".rstrip()


def _table(layers: Sequence[Descriptor]) -> list[str]:
    """One line for each layer, with a head; columns that would be empty are left out."""
    columns = {
        "digest": [_short(layer.digest) for layer in layers],
        "type": [_suffix(layer.media_type) for layer in layers],
        "size": [megabytes(layer.size) for layer in layers],
        "key": [_short(layer.annotations.get(LAYER_KEY, "")) for layer in layers],
        "title": [_shown(layer.annotations.get(LAYER_TITLE, "")) for layer in layers],
    }
    padded = [_padded(name, cells) for name, cells in columns.items() if any(cells)]
    return ["  ".join(row).rstrip() for row in zip(*padded, strict=True)]


def _padded(name: str, cells: list[str]) -> list[str]:
    """A column of one width, numbers to the right."""
    width = max(map(len, (name, *cells)))
    return [cell.rjust(width) if name == "size" else cell.ljust(width) for cell in (name, *cells)]


def _suffix(media_type: str) -> str:
    """How the layer is packed: `tar+gzip`; the whole media type of what is no layer."""
    before, tar, packing = media_type.rpartition(".tar")
    return f"tar{packing}" if tar and before else media_type


def _platform(image: ImageSummary) -> str:
    return "no platform" if image.platform is None else _shown(str(image.platform))


def _pairs(values: Mapping[str, str]) -> list[str]:
    return [_shown(f"{name}={value}") for name, value in values.items()]


def _words(command: tuple[str, ...] | None) -> list[str]:
    return [] if not command else [_shown(json.dumps(command, ensure_ascii=False))]


def _listed(values: tuple[str, ...]) -> list[str]:
    return [_shown(" ".join(values))] if values else []


def _short(text: object) -> str:
    return _shown(str(text)[:_SHORT])


def _shown(text: str) -> str:
    return escaped(text) if len(text) <= _MOST else f"{escaped(text[:_MOST])}…"
