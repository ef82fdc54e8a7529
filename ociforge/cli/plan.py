"""`ociforge plan`: what a build would do, and the digest that it would have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import click
from msgspec import Struct

from ociforge.cli import options
from ociforge.cli.console import Console, counted, megabytes
from ociforge.cli.work import work_options

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from typing import Self

    from layers.digest import Digest
    from ociforge.cli.traffic import Traffic
    from ociforge.cli.work import Wanted
    from ociforge.planned import Place, PlannedImage, PlannedLayer

__all__ = ["command"]

_WORDS = {"store": "in the store", "image": "in an image", "make": "to make", "shared": "as above"}


@click.command("plan")
@work_options
@options.json_output
@options.verbosity
def command(wanted: Wanted, as_json: bool, quiet: bool, verbose: bool) -> None:
    """Tell what `ociforge build` with the same options would do, and do nothing of it.

    For each layer: its packages (`--verbose` names all), whether the store or the image that is going to be replaced
    has it, or what has to be downloaded, made and uploaded for it; what several platforms share counts once. The sums
    count what is missing of the base image, too; what is written with `--output` is no upload. Before a layer is made,
    its size is taken to be that of its archives or files. When every layer is known, the last line is the digest that
    the build will have: of the image, or of the index of several.

    A lock that is missing is an error: nothing is written but to the store. What nobody knows yet is read for the plan,
    and kept there for the build: the base image, and of each package the list of its files. For that, wheels, small
    packages and what lies on servers without range requests are downloaded as a whole, and what is locked as source is
    built; the sums tell what is then left to download.
    """
    console = Console.of(quiet=quiet, verbose=verbose)
    from ociforge.cli.offline import missing_is_told
    from ociforge.cli.plans import asked_of, planned_images
    from ociforge.cli.traffic import Traffic
    from ociforge.cli.work import Work
    from ociforge.parallel import ordered_map

    work = Work(wanted, console, solve=False)
    lines: list[str] = []
    documents: list[dict[str, Any]] = []
    with ordered_map(wanted.workers) as map_, missing_is_told(work, map_):
        asked = asked_of(work, map_)
        with planned_images(work, asked.requests, map_) as plans:
            above: set[Digest] = set()
            for platform, plan in plans.items():
                known = (*plan.previous, *work.replaced(platform))
                traffic = Traffic.plan(work.pushed, known, local=len(work.targets) > len(work.pushed), store=work.store)
                told = _Told.of(plan.image, traffic, above)
                above |= told.names
                lines += [f"{platform}:", *_table(told.rows, verbose=verbose), *_totals(told)]
                if len(plans) > 1 and told.digest is not None:
                    lines.append(f"  {told.digest}")
                documents.append({"platform": str(platform), **_json(told)})
            digest = _digest([plan.image for plan in plans.values()], work.settings.annotations)
    lines += [] if digest is None else [str(digest)]
    document = {"digest": _text(digest), "images": documents, "leftOutPlatforms": asked.left_out_json()}
    console.result(lines, document, as_json=as_json)


def _digest(images: Sequence[PlannedImage], annotations: Mapping[str, str]) -> Digest | None:
    """The digest that the build will have: that of the one image, or of the index; None while one is not known."""
    from ociforge.oci.index import assemble_index

    known = [descriptor for image in images if (descriptor := image.descriptor) is not None]
    if len(known) < len(images):
        return None
    return known[0].digest if len(known) == 1 else assemble_index(known, annotations)[1].digest


def _text(digest: Digest | None) -> str | None:
    return None if digest is None else str(digest)


def _layers(plan: PlannedImage) -> Sequence[PlannedLayer]:
    from ociforge.planned import PlannedLayer

    if plan.known is None:
        return plan.layers
    return [
        PlannedLayer(title=layer.title, key=layer.key, layer=layer.layer, found=layer.found, segments=tuple)
        for layer in plan.known.layers
        if layer.key is not None
    ]


class _Row(Struct, frozen=True, kw_only=True):
    """What is going to be done about a layer. `place` is its own, or `shared` where the image of another platform has
    it, too, and comes first; `download` and `upload` are bytes.
    """

    layer: PlannedLayer
    place: Place | Literal["shared"]
    download: int
    upload: int


class _Told(Struct, frozen=True, kw_only=True):
    """What is going to be done for one image: `rows` for its own layers; of its base image, bytes."""

    image: PlannedImage
    rows: Sequence[_Row]
    base_download: int
    base_upload: int

    @classmethod
    def of(cls, image: PlannedImage, traffic: Traffic, above: Collection[Digest]) -> Self:
        """`above` are the keys of layers, and the digests of base layers, that are told of already."""
        from ociforge.cli.traffic import Piece

        base = [piece for piece in Piece.of_base(image.request.base) if piece.digest not in above]
        return cls(
            image=image,
            rows=[_row(layer, traffic, shared=layer.key in above) for layer in _layers(image)],
            base_download=sum(map(traffic.pull, base)),
            base_upload=sum(map(traffic.upload, base)),
        )

    @property
    def names(self) -> set[Digest]:
        """What later images need not tell of."""
        return {row.layer.key for row in self.rows} | {layer.digest for layer in self.image.request.base.layers}

    @property
    def digest(self) -> Digest | None:
        descriptor = self.image.descriptor
        return None if descriptor is None else descriptor.digest

    @property
    def left_out(self) -> Mapping[str, tuple[int, int]] | None:
        """By policies of `strip`; None where nobody looks, because there is nothing to do."""
        return None if self.image.known is not None else self.image.left_out()

    @property
    def download(self) -> int:
        return self.base_download + sum(row.download for row in self.rows)

    @property
    def upload(self) -> int:
        return self.base_upload + sum(row.upload for row in self.rows)


def _row(layer: PlannedLayer, traffic: Traffic, *, shared: bool) -> _Row:
    from ociforge.cli.traffic import Piece

    piece, place = Piece.of_layer(layer), layer.place
    archives = layer.download if place == "make" else 0
    return _Row(
        layer=layer,
        place="shared" if shared and place == "make" else place,
        download=0 if shared else archives + traffic.pull(piece),
        upload=0 if shared else traffic.upload(piece),
    )


def _table(rows: Sequence[_Row], *, verbose: bool) -> Iterator[str]:
    for row in rows:
        layer = row.layer
        size = f"~{megabytes(layer.size)}" if layer.layer is None else megabytes(layer.layer.size)
        fetch = f", {megabytes(row.download)} to download" if row.download else ""
        yield f"  {_WORDS[row.place]:12}  {size:>10}  {layer.key.hex[:12]}  {layer.title}{fetch}"
        if verbose and len(layer.packages) > 1:
            yield from (f"      {package}" for package in layer.packages)


def _totals(told: _Told) -> Iterator[str]:
    make = [row for row in told.rows if row.place == "make"]
    yield (
        f"  {counted(len(told.rows), 'layer')}: {len(make)} to make,"
        f" {megabytes(told.download)} to download,"
        f" about {megabytes(told.upload)} to upload"
    )
    for name, (count, size) in (told.left_out or {}).items():
        if count:
            # Of what is generated nobody knows the size before.
            yield f"  without {counted(count, 'file')} of `{name}`{f', {megabytes(size)}' if size else ''}"


def _json(told: _Told) -> dict[str, Any]:
    from ociforge.cli.report import packages_json

    left_out = told.left_out
    return {
        "digest": _text(told.digest),
        "download": told.download,
        "upload": told.upload,
        "leftOut": None
        if left_out is None
        else {name: {"count": count, "size": size} for name, (count, size) in left_out.items()},
        "packages": packages_json(told.image.request.selection),
        "layers": [
            {
                "title": layer.title,
                "packages": None if told.image.known is not None else list(layer.packages),
                "key": str(layer.key),
                "place": row.place,
                "image": None if layer.found is None else layer.found.image.name,
                "digest": None if layer.layer is None else str(layer.layer.digest),
                "size": None if layer.layer is None else layer.layer.size,
                "estimate": layer.size if layer.layer is None else None,
                "download": row.download,
                "upload": row.upload,
            }
            for row in told.rows
            for layer in [row.layer]
        ],
    }
