"""Whether cost grows with size alone: `python -m benchmarks.growth` builds environments of rising size.

Prints tables in Markdown. The packages are made up, of bytes of real ones, so that nothing but their number differs.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.archives import package_tar
from benchmarks.channels import WEB, wheel_channel
from benchmarks.contestants import Forge, take_turn
from benchmarks.measure import Summary, machine, publish, table
from benchmarks.workspaces import make_ground, tiny_base
from tests.support.channel import write_channel
from tests.support.conda import CondaPackage

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.measure import Usage

__all__ = ["Shape", "main", "packages"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """An environment of `count` packages, each with `files` files of `size` bytes."""

    count: int
    files: int
    size: int

    @property
    def total(self) -> int:
        """Bytes of all files."""
        return self.count * self.files * self.size


_LEAST = Shape(count=1, files=1, size=1)
_BYTES = tuple(Shape(count=count, files=20, size=1_000_000) for count in (10, 25, 50, 100))  # 0.2 to 2 GB
_FILES = tuple(Shape(count=count, files=250, size=4_000) for count in (4, 20, 80, 200))  # 1,000 to 50,000
_STRIDE = 1_234_577  # a prime: where in the pool the next file begins
_LIMIT = 0.2  # how much more the largest may cost for each byte or file than the smallest


def main(arguments: Sequence[str] | None = None) -> None:
    """Build every shape from nothing, and print what it took."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="how often; medians are told  [default: 3]")
    parser.add_argument("--codec", default="gzip", help="as for `ociforge build --compression`  [default: gzip]")
    parser.add_argument("--option", action="append", default=[], help="for `ociforge build`, such as --option=--x=y")
    parser.add_argument("--quick", action="store_true", help="a hundredth of the bytes and files: to see that it runs")
    parser.add_argument("--output", type=Path, help="write the tables to this file, or into its marked part")
    parser.add_argument("--directory", type=Path, help="where to work; not on a memory file system")
    options = parser.parse_args(arguments)
    pool = _pool()
    forge = Forge(codec=options.codec, options=options.option)
    scale = 100 if options.quick else 1
    with tempfile.TemporaryDirectory(prefix="ociforge-growth-", dir=options.directory) as scratch:
        measured = {
            shape: _measured(shape, pool, forge, Path(scratch), options.runs)
            for shape in (_LEAST, *(_scaled(shape, scale) for shape in (*_BYTES, *_FILES)))
        }
    publish(_report(measured, options.runs, scale), "growth", options.output)


def packages(shape: Shape, pool: bytes) -> Iterator[CondaPackage]:
    """The packages of an environment: no two files have the same bytes."""
    for number in range(shape.count):
        name = f"grown-{number:04}"
        begins = (_STRIDE * (number * shape.files + index) % (len(pool) - shape.size) for index in range(shape.files))
        files = {f"share/{name}/{index:05}": pool[begin : begin + shape.size] for index, begin in enumerate(begins)}
        yield CondaPackage(name=name, noarch="generic", files=files)


def _pool() -> bytes:
    """Compiled code and Python of a real environment."""
    archives = wheel_channel(WEB).named("numpy", "python")
    data = bytearray()
    for archive in archives:
        with package_tar(archive.path) as stream:
            data += stream.read()
    return bytes(data)


def _scaled(shape: Shape, scale: int) -> Shape:
    return Shape(count=shape.count, files=max(1, shape.files // scale), size=shape.size // min(scale, shape.size))


def _measured(shape: Shape, pool: bytes, forge: Forge, scratch: Path, runs: int) -> Summary:
    root = scratch / "shape"
    channel = write_channel(root / "channel", packages(shape, pool))
    ground = make_ground("growth", root / "ground", channel, changing="", base=tiny_base())
    usages: list[Usage] = []
    for number in range(runs):
        usages += [result.usage for result in take_turn(forge, ground, root, ["cold"])]
        print(f"round {number + 1} of {runs}: {shape}: {usages[-1].wall:.2f} s", file=sys.stderr)
    shutil.rmtree(root)
    return Summary.of(usages, 0)


def _report(measured: dict[Shape, Summary], runs: int, scale: int) -> str:
    start = measured[_LEAST]
    by_bytes = [_scaled(shape, scale) for shape in _BYTES]
    by_files = [_scaled(shape, scale) for shape in _FILES]
    head = ["packages", "files", "MB", "wall s (range)", "CPU s", "peak RSS MB", "wall", "CPU"]
    head += ["wall, ratio", "CPU, ratio"]
    told = (
        f"{machine()}. Medians of {runs} cold builds with push. `wall` and `CPU` are for each GB, or for each 1,000"
        f" files, without what an environment of one file takes ({start.wall:.2f} s, CPU {start.cpu:.2f} s)."
    )
    lines = [
        told,
        "",
        table(head, [_row(shape, measured, by_bytes[0], shape.total / 1e9) for shape in by_bytes], words=0),
        "",
        table(head, [_row(shape, measured, by_files[0], _thousands(shape)) for shape in by_files], words=0),
        "",
        f"Limit for the ratio of the largest: {1 + _LIMIT:.1f}.",
    ]
    return "\n".join(lines)


def _thousands(shape: Shape) -> float:
    return shape.count * shape.files / 1000


def _row(shape: Shape, measured: dict[Shape, Summary], first: Shape, units: float) -> list[str]:
    """`units`: how many GB, or thousands of files, the shape has."""
    summary, start, smallest = measured[shape], measured[_LEAST], measured[first]
    wall, cpu = (summary.wall - start.wall) / units, (summary.cpu - start.cpu) / units
    least = units * first.count / shape.count
    return [
        str(shape.count),
        str(shape.count * shape.files),
        f"{shape.total / 1e6:.0f}",
        f"{summary.wall:.2f} ({summary.fastest:.2f} - {summary.slowest:.2f})",
        f"{summary.cpu:.2f}",
        f"{summary.memory / 1e6:.0f}",
        f"{wall:.2f}",
        f"{cpu:.2f}",
        f"{wall / (smallest.wall - start.wall) * least:.2f}",
        f"{cpu / (smallest.cpu - start.cpu) * least:.2f}",
    ]


if __name__ == "__main__":
    main()
