"""`ociforge check`: does `pixi.lock` fit the manifest?"""

from __future__ import annotations

from pathlib import Path

import click

from ociforge.cli import options
from ociforge.cli.console import Console

__all__ = ["command"]


@click.command("check")
@click.argument("workspace", type=click.Path(path_type=Path), default=Path(), required=False)
@options.never_connects
@options.json_output
@options.verbosity
def command(workspace: Path, as_json: bool, quiet: bool, verbose: bool) -> None:
    """Check that `pixi.lock` is what the WORKSPACE's manifest asks for, as `pixi install --locked` does.

    All environments and platforms are checked, conda and PyPI packages, and nothing is downloaded, built or changed.
    Every reason against the lock is told, not only the first, and so is what only pixi can decide.

    \b
    ociforge check
    ociforge check path/to/workspace --json | jq -r '.reasons[].key'

    Exit code 0 and a line on stdout when the lock fits; 1 and the reasons on stderr when it does not or when that
    cannot be decided. With `--json` stdout has the verdict in both cases.
    """
    console = Console.of(quiet=quiet, verbose=verbose)
    from ociforge.cli.fit import examine, refusal, verdict_json
    from ociforge.events import Warned
    from ociforge.workspace import load
    from ociforge.workspace.lockfile import read

    found = load(workspace)
    for warning in found.manifest.warnings:
        console.notify(Warned(warning))
    lock = read(found.lock_path)
    verdict = examine(found, lock)
    error = refusal(verdict, found.lock_path.name, frozen="build what is locked with `ociforge build --frozen`")
    document = {
        "manifest": found.manifest.path.name,
        "lock": found.lock_path.name,
        "format": lock.version,
        **verdict_json(verdict),
    }
    if error is None or as_json:
        console.result([f"{document['lock']} fits {document['manifest']}"], document, as_json=as_json)
    if error is not None:
        raise error
