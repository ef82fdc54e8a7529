"""`ociforge inspect`: what an image is, without fetching its layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ociforge.cli import options, platforms
from ociforge.cli.console import Console

if TYPE_CHECKING:
    from ociforge.oci.descriptor import Descriptor
    from ociforge.platform import Platform
    from ociforge.transports.base import Source
    from ociforge.transports.options import RegistryOptions

__all__ = ["command"]


@click.command("inspect")
@click.argument("source", metavar="REF")
@platforms.one_platform
@click.option("--raw", is_flag=True, help="Print the manifest or index, byte by byte as it is.")
@click.option("--config", "only_config", is_flag=True, help="Print the image's configuration, byte by byte as it is.")
@options.registry_options
@options.json_output
@options.verbosity
def command(
    source: str,
    platform: Platform | None,
    raw: bool,
    only_config: bool,
    registry: RegistryOptions,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """Show what the image or image index REF is: platforms, configuration and layers.

    Only manifests and configurations are read, no layers.

    \b
    ociforge inspect docker://HOST/REPOSITORY:TAG
    ociforge inspect --json oci:DIRECTORY[:TAG]
    ociforge inspect --raw oci-archive:FILE > manifest.json     whose sha256 is the digest
    ociforge inspect --config --platform linux/arm64 docker-archive:FILE[:NAME]
    """
    if raw + only_config + as_json > 1:
        raise options.OptionError("--raw, --config and --json exclude each other", "leave out all but one of them")
    console = Console.of(quiet=quiet, verbose=verbose)
    from ociforge.cli.inspection import lines, to_json
    from ociforge.cli.places import Places
    from ociforge.oci.summary import summarize
    from ociforge.transports import parse

    location = parse(source)
    found = platforms.select(Places(registry, console.notify).source(location), platform)
    if raw:
        _write(_read(found, found.root()), console)
    elif only_config:
        _write(_read(found, _config(found)), console)
    else:
        summary = summarize(found.root(), lambda descriptor: _read(found, descriptor))
        console.result(lines(str(location), summary), to_json(str(location), summary), as_json=as_json)


def _read(source: Source, descriptor: Descriptor) -> bytes:
    from ociforge.oci.blob import read_document

    return read_document(source.open(descriptor), descriptor)


def _config(source: Source) -> Descriptor:
    """The configuration of the one image that `source` names."""
    from ociforge.oci.descriptor import INDEX_TYPES
    from ociforge.oci.image import ImageManifest
    from ociforge.oci.index import ImageIndex

    root = source.root()
    if root.media_type in INDEX_TYPES:
        index = ImageIndex.parse(_read(source, root), root.media_type)
        listed = dict.fromkeys(f"`{entry.platform}`" for entry in index.manifests if entry.platform is not None)
        raise options.OptionError(
            "--config: this is an index, and each of its images has a configuration",
            f"choose one with `--platform`: {', '.join(listed) or 'none is named'}",
        )
    return ImageManifest.parse(_read(source, root), root.media_type).config


def _write(data: bytes, console: Console) -> None:
    console.close()
    click.echo(data, nl=False)
