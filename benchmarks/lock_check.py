"""What the check of a large lock costs: `python -m benchmarks.lock_check` prints a table in Markdown."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.measure import Summary, environment, machine, publish, run, table
from ociforge.workspace import load, lockfile
from ociforge.workspace.satisfy import check
from tests.support.lock import LockedConda, LockedEnvironment, LockedPypi, write_lock

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

__all__ = ["main", "write_workspace"]

_LIMIT = 2.0  # seconds of processor time
_SEED = 3
_CHANNEL = "https://conda.anaconda.org/conda-forge/"
_SUBDIRS = ("linux-64", "linux-aarch64")
_ENVIRONMENTS = ("default", "test", "prod")
_CONDA = 210  # packages, on each platform
_PYPI = 180
_DIGEST = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"
_MARKERS = (
    "",
    "",
    "",
    " ; python_full_version < '3.9'",
    " ; sys_platform == 'win32'",
    " ; platform_python_implementation == 'CPython' and extra == 'speed'",
    " ; extra == 'test'",
    " ; python_full_version >= '3.8' and platform_system != 'Windows'",
)
_HEAD = """\
[workspace]
name = "large"
channels = ["conda-forge"]
platforms = ["linux-64", "linux-aarch64"]

[environments]
test = { features = ["test"], solve-group = "default" }
prod = { features = ["prod"], solve-group = "default" }

[feature.test.dependencies]
c000 = "*"

[feature.prod.dependencies]
c000 = ">=1"

[dependencies]
python = "3.12.*"
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Write a lock with some 11,000 lines, check it, and print what that took."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lock_check", description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="how often; medians are told  [default: 5]")
    parser.add_argument("--output", type=Path, help="write the table to this file, or into its marked part")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        text = _measured(Path(scratch), options.runs)
    publish(text, "lock_check", options.output)


def write_workspace(root: Path) -> Path:
    """A workspace whose lock fits: three environments in one solve group, two platforms, conda and PyPI packages."""
    rng = random.Random(_SEED)
    pypi = _pypi_rows(rng)
    packages: dict[str, tuple[LockedConda | LockedPypi, ...]] = {
        subdir: (*_conda_rows(subdir), *pypi) for subdir in _SUBDIRS
    }
    locked = LockedEnvironment(channels=(_CHANNEL,), packages=packages, indexes=("https://pypi.org/simple",))
    asked = [f'c{number:03} = ">=1.0,<3"' for number in range(0, _CONDA, 7)]
    wanted = [f'p{number:03} = {{ version = ">=1", extras = ["speed"] }}' for number in range(0, _PYPI, 9)]
    (root / "pixi.toml").write_text("\n".join([_HEAD + "\n".join(asked), "", "[pypi-dependencies]", *wanted, ""]))
    return write_lock(root / "pixi.lock", dict.fromkeys(_ENVIRONMENTS, locked))


def _conda_rows(subdir: str) -> tuple[LockedConda, ...]:
    """python and a chain of packages, each with dependencies further down; every third brings a distribution."""
    rng = random.Random(_SEED)  # the same packages on every platform
    rows = [_conda(subdir, "python", "3.12.4", ["__glibc >=2.17,<3.0.a0", f"c{_CONDA - 1:03} >=1"])]
    for number in range(_CONDA):
        below = sorted({number + 1, *(rng.randrange(number + 1, number + 40) for _ in range(rng.randrange(6)))})
        depends = [f"c{other:03} >={rng.choice(['1.0', '1.0.1', '1'])},<3.0a0" for other in below if other < _CONDA]
        rows.append(_conda(subdir, f"c{number:03}", "1.2.3", ["__glibc >=2.17,<3.0.a0", *depends]))
    return tuple(rows)


def _conda(subdir: str, name: str, version: str, depends: list[str]) -> LockedConda:
    build, number = f"h{_DIGEST[:7]}_{len(depends)}", len(depends)
    provides = [f"pkg:pypi/{name}?source=hash-mapping"] if name.endswith(("3", "6", "9")) else []
    record: dict[str, Any] = {
        "name": name,
        "version": version,
        "build": build,
        "build_number": number,
        "subdir": subdir,
        "sha256": _DIGEST,
        "md5": _DIGEST[:32],
        "depends": depends,
        "constrains": [f"{name}-extras <1.0"],
        "license": "BSD-3-Clause",
        "license_family": "BSD",
        "purls": provides,
        "size": 123_456,
        "timestamp": 1_700_000_000_000,
    }
    return LockedConda(location=f"{_CHANNEL}{subdir}/{name}-{version}-{build}.conda", channel=_CHANNEL, record=record)


def _pypi_rows(rng: random.Random) -> tuple[LockedPypi, ...]:
    rows = []
    for number in range(_PYPI):
        below = sorted({number + 1, *(rng.randrange(number + 1, number + 30) for _ in range(rng.randrange(9)))})
        requires = [f"p{other:03}>=1,<3" for other in below[:1] if other < _PYPI]
        requires += [f"p{other:03}[speed]>=1.0.1{rng.choice(_MARKERS)}" for other in below[1:] if other < _PYPI]
        requires += [f"c{rng.randrange(3, _CONDA, 10):03}>=1.2", f"absent-{number} ; extra == 'docs'"]
        rows.append(
            LockedPypi(
                name=f"p{number:03}",
                version="2.0.1",
                location=f"https://files.pythonhosted.org/packages/{_DIGEST[:2]}/p{number:03}-2.0.1-py3-none-any.whl",
                sha256=_DIGEST,
                requires_dist=tuple(requires),
                requires_python=">=3.8",
            )
        )
    return tuple(rows)


def _measured(root: Path, runs: int) -> str:
    lock = write_workspace(root)
    lines = lock.read_text().count("\n")
    program = _whole(root, runs)
    stages = _stages(root, runs)
    rows = [["`ociforge check`, the whole process", f"{program.cpu:.2f}", f"{program.memory / 1e6:.0f}"]]
    rows += [[name, f"{seconds:.2f}", ""] for name, seconds in stages.items()]
    count = len(_ENVIRONMENTS) * len(_SUBDIRS) * (_CONDA + 1 + _PYPI)
    head = (
        f"{machine()}. Medians of {runs} runs. A lock of {lines} lines: {_CONDA + 1} conda packages for each of"
        f" {len(_SUBDIRS)} platforms, {_PYPI} PyPI packages, {len(_ENVIRONMENTS)} environments that have them all:"
        f" {count} packages to visit."
    )
    return "\n".join(
        [
            head,
            "",
            table(["what", "CPU s", "peak RSS MB"], rows, words=1),
            "",
            f"Limit: {_LIMIT} s of processor time for the whole process.",
        ]
    )


def _whole(root: Path, runs: int) -> Summary:
    command: list[str | Path] = [sys.executable, "-m", "ociforge", "check", root]
    return Summary.of([run(command, variables=environment(root), log=root / "log") for _ in range(runs)], 0)


def _stages(root: Path, runs: int) -> dict[str, float]:
    """Processor time of each stage, in one process, imports left out."""
    workspace = load(root)
    lock = lockfile.read(workspace.lock_path)
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert check(workspace.manifest, lock, now=now).satisfied
    return {
        "reading the manifest": _median(lambda: load(root), runs),
        "reading the lock": _median(lambda: lockfile.read(workspace.lock_path), runs),
        "checking": _median(lambda: check(workspace.manifest, lock, now=now), runs),
    }


def _median(stage: Callable[[], object], runs: int) -> float:
    taken = []
    for _ in range(runs):
        begin = time.process_time()
        stage()
        taken.append(time.process_time() - begin)
    return sorted(taken)[len(taken) // 2]


if __name__ == "__main__":
    main()
