"""Results in the two forms that verbs give: lines for people and scripts, and JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ociforge.cli.console import megabytes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from layers.compress import OrderedMap
    from ociforge.built import Built, BuiltLayer
    from ociforge.cli.console import Console
    from ociforge.platform import Platform
    from ociforge.publish import Published, Transfer
    from ociforge.transports.base import Destination, Outcome, Source
    from ociforge.workspace.lockfile import Selection

__all__ = ["built_json", "layers_line", "packages_json", "published_json", "send", "tell"]

_WORDS: Mapping[Outcome, str] = {"exists": "there already", "mounted": "mounted", "uploaded": "written"}


def send(source: Source, destination: Destination, map_: OrderedMap, console: Console) -> Published:
    """Publish and say what happened."""
    from ociforge.publish import publish

    published = publish(source, destination, map_=map_, notify=console.notify)
    tell(published, console)
    return published


def tell(published: Published, console: Console) -> None:
    """Say in one line what became of the blobs."""
    parts = [
        f"{tally.count} {_WORDS[outcome]} ({megabytes(tally.size)})"
        for outcome, tally in published.blobs.items()
        if tally.count
    ]
    console.say(f"{published.name}: blobs: {', '.join(parts) or 'none'}")


def layers_line(layers: Sequence[BuiltLayer]) -> str:
    """How much of an image had to be made, in one line."""
    made = [layer for layer in layers if not layer.reused]
    size = sum(layer.layer.size for layer in made)
    return f"{len(layers)} layers: {len(layers) - len(made)} reused, {len(made)} made ({megabytes(size)})"


def published_json(published: Published) -> dict[str, Any]:
    """What `--json` says of a copy; sizes in bytes. The README documents it."""
    return {
        "name": published.name,
        "digest": str(published.descriptor.digest),
        "mediaType": published.descriptor.media_type,
        "sent": published.sent,
        "blobs": {
            outcome: {"count": tally.count, "size": tally.size} for outcome, tally in sorted(published.blobs.items())
        },
        "transfers": [_transfer_json(transfer) for transfer in published.transfers],
    }


def _transfer_json(transfer: Transfer) -> dict[str, Any]:
    return {
        "digest": str(transfer.descriptor.digest),
        "mediaType": transfer.descriptor.media_type,
        "size": transfer.descriptor.size,
        "kind": transfer.kind,
        "outcome": transfer.outcome,
        "sent": transfer.sent,
    }


def built_json(
    built: Built, images: Mapping[Platform, Built], selections: Mapping[Platform, Selection]
) -> dict[str, Any]:
    """What `--json` says of an image, or of the index of `images`; sizes in bytes. The README documents it.

    But for `reused` it is the same for the same image, whether it was made or known.
    """
    return {
        "digest": str(built.descriptor.digest),
        "mediaType": built.descriptor.media_type,
        "size": built.descriptor.size,
        "images": [
            {
                "platform": str(platform),
                "digest": str(image.descriptor.digest),
                "mediaType": image.descriptor.media_type,
                "size": image.descriptor.size,
                "packages": packages_json(selections[platform]),
            }
            for platform, image in images.items()
        ],
        "layers": [
            {
                "platform": str(platform),
                "title": made.title,
                "digest": str(made.layer.digest),
                "diffId": str(made.layer.diff_id),
                "size": made.layer.size,
                "key": None if made.key is None else str(made.key),
                "reused": made.reused,
            }
            for platform, image in images.items()
            for made in image.layers
        ],
    }


def packages_json(selection: Selection) -> list[dict[str, str | None]]:
    """What the lock has for an image; the version of a package of the workspace may be known to its build alone."""
    conda = [("conda", r.name.normalized, str(r.version), str(r.build)) for r in selection.records]
    pypi = [("pypi", row.name, row.version, None) for row in selection.pypi]
    packages = [*sorted(conda), *sorted(pypi, key=lambda package: package[1])]
    return [dict(zip(("kind", "name", "version", "build"), package, strict=True)) for package in packages]
