"""Bundles against copying: `python -m benchmarks.bundle` prints a table in Markdown.

A workspace of packages that no codec makes smaller is bundled from a store that has everything, verified, and imported
into an empty store. Beside that, the file is copied by `cp` and digested by `openssl`, which uses the processor's own
instructions as Python's hashlib does: the least that moving bytes and knowing them costs, without the guarantee that
they are on the disk. `sha256sum` is there for comparison.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.measure import COLUMNS, Summary, environment, machine, publish, run, table
from tests.support.conda import CondaPackage
from tests.support.tiny import tiny_workspace

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from benchmarks.measure import Usage

__all__ = ["main"]

_FLOOR = "cp + openssl sha256"
_LIMIT = 2.0  # times the floor: half its speed


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure; exits with 1 when something is slower than half the speed of copying."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bundle", description=__doc__)
    parser.add_argument("--packages", type=int, default=32, help="how many  [default: 32]")
    parser.add_argument("--size", type=int, default=32, help="of each, in MB  [default: 32]")
    parser.add_argument("--runs", type=int, default=5, help="how often each is run  [default: 5]")
    parser.add_argument("--output", type=Path, help="write the table to this file, or into its marked part")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        workspace = _workspace(Path(scratch), options.packages, options.size * 10**6)
        found = _measured(Path(scratch), workspace, options.runs)
    rows = [[what, *summary.cells(found[_FLOOR])] for what, summary in found.items()]
    head = f"{machine()}. {options.packages} packages of {options.size} MB. Medians of {options.runs} runs."
    limit = (
        f"Limit for the fastest runs: {_LIMIT:.1f} x the fastest of `{_FLOOR}`: what else the machine does only adds."
    )
    publish("\n".join([head, "", table(["", *COLUMNS], rows, words=1), "", limit]), "bundle", options.output)
    if any(found[what].fastest > _LIMIT * found[_FLOOR].fastest for what in found if what.startswith("bundle")):
        sys.exit(1)


def _workspace(directory: Path, count: int, size: int) -> Path:
    """A workspace without a base image."""
    source = random.Random(1)
    packages = (
        CondaPackage(name=f"p{number}", files={f"share/p{number}": source.randbytes(size)}) for number in range(count)
    )
    root = directory / "workspace"
    tiny_workspace(root, packages=packages, settings='base = "scratch"\n')
    return root


def _measured(scratch: Path, workspace: Path, runs: int) -> Mapping[str, Summary]:
    """What -> its cost; the ways take turns."""
    bundle, copy = scratch / "a.bundle", scratch / "copy"
    program = [sys.executable, "-m", "ociforge", "bundle"]
    create = [*program, "create", "--quiet", str(workspace), "-o", str(bundle)]
    ways = {
        _FLOOR: ["sh", "-c", f"cp {bundle} {copy} && openssl dgst -sha256 {copy}"],
        "cp + sha256sum": ["sh", "-c", f"cp {bundle} {copy} && sha256sum {copy}"],
        "bundle create": create,
        "bundle verify": [*program, "verify", "--quiet", str(bundle)],
        "bundle import": [*program, "import", "--quiet", str(bundle)],
    }
    variables = environment(scratch, OCIFORGE_CACHE=str(scratch / "cache"))
    log = scratch / "log"
    run(create, variables=variables, log=log)  # fills the store
    costs: dict[str, list[Usage]] = {what: [] for what in ways}
    for _ in range(runs):
        for what, command in ways.items():
            empty = scratch / "empty"
            own = variables | ({"OCIFORGE_CACHE": str(empty)} if what == "bundle import" else {})
            costs[what] += _once(command, own, log)
            copy.unlink(missing_ok=True)
            shutil.rmtree(empty, ignore_errors=True)
    return {what: Summary.of(found, bundle.stat().st_size) for what, found in costs.items()}


def _once(command: Sequence[str], variables: Mapping[str, str], log: Path) -> Iterator[Usage]:
    """Nothing of earlier commands is left to be written to the disk meanwhile."""
    os.sync()
    yield run(command, variables=variables, log=log)


if __name__ == "__main__":
    main()
