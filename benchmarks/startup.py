"""How long programs of an image take to start: `python -m benchmarks.startup` runs containers of the web environment.

Prints a table in Markdown. With `--bytecode` the image is also built with `bytecode = "unchecked-hash"`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from benchmarks.channels import WEB, wheel_channel
from benchmarks.measure import ROOT, environment, machine, publish, table
from benchmarks.workspaces import ENVIRONMENT, debian_base, make_ground
from tests.support.containers import Crun, Options

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]

_PROGRAMS = ("pass", "import numpy", "import fastapi", "import numpy, fastapi, uvicorn")
_POLICY = "unchecked-hash"


def main(arguments: Sequence[str] | None = None) -> None:
    """Build, unpack, run, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.startup", description=__doc__)
    parser.add_argument("--runs", type=int, default=11, help="how often; medians are told  [default: 11]")
    parser.add_argument("--bytecode", action="store_true", help="compare with an image that has all bytecode")
    parser.add_argument("--output", type=Path, help="write the table to this file, or into its marked part")
    options = parser.parse_args(arguments)
    policies = ("none", _POLICY) if options.bytecode else ("none",)
    with tempfile.TemporaryDirectory(prefix="ociforge-startup-") as scratch:
        text = _measured(Path(scratch), policies, options.runs)
    publish(text, "startup", options.output)


def _measured(scratch: Path, policies: Sequence[str], runs: int) -> str:
    runtime = Crun.available(scratch)
    bundles = {policy: runtime.unpack(_layout(scratch, policy)) for policy in policies}
    walls: dict[tuple[str, str], list[float]] = {}
    for _ in range(runs):
        for program in _PROGRAMS:
            for policy, bundle in bundles.items():
                walls.setdefault((program, policy), []).append(_run(runtime, bundle, program))
    rows = [[f"`{program}`", *(f"{median(walls[program, p]):.2f}" for p in policies)] for program in _PROGRAMS]
    head = ["`python -c …` in a container", *(f"bytecode = {policy}, wall s" for policy in policies)]
    told = f"{machine()}. Medians of {runs} runs with crun, files in the page cache and not to be written."
    return "\n".join([told, "", table(head, rows, words=1)])


def _layout(scratch: Path, policy: str) -> Path:
    root, layout = scratch / f"ground-{policy}", scratch / f"image-{policy}"
    ground = make_ground(WEB.name, root, wheel_channel(WEB), changing=WEB.changing, base=debian_base())
    if policy != "none":
        with (ground.workspace / "pixi.toml").open("a") as manifest:  # its last table is that of the settings
            manifest.write(f'bytecode = "{policy}"\n')
    command: list[str | Path] = [sys.executable, "-m", "ociforge", "build", ground.workspace, "--quiet"]
    command += [f"--environment={ENVIRONMENT}", "--platform=linux/amd64"]
    command += [f"--base=oci:{ground.base.layout}", f"--output=oci:{layout}:app"]
    variables = environment(scratch, OCIFORGE_CACHE=str(scratch / "store"))
    subprocess.run(command, cwd=ROOT, env=variables, check=True)
    return layout


def _run(runtime: Crun, bundle: str, program: str) -> float:
    begin = time.perf_counter()
    # Nothing may be written, or the first run would leave bytecode for the others.
    done = runtime.run(bundle, "python", "-c", program, options=Options(read_only=True))
    assert done.returncode == 0, done.stderr
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
