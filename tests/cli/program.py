"""The command line as its users run it: in a process of its own, or, quicker, in this one."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ociforge.cli import run
from tests.support.tools import missing, need

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pytest

__all__ = ["ROOT", "Done", "Forge", "environment", "nobody", "ociforge"]

ROOT = Path(__file__).parents[2]
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """How a command line ended."""

    code: int
    out: str
    err: str

    @property
    def message(self) -> str:
        """What the one error says, hint left out; the errors of a command have a fixed shape, which is checked."""
        return self._error()[0]

    @property
    def hint(self) -> str | None:
        return self._error()[1]

    def _error(self) -> tuple[str, str | None]:
        assert self.code in (1, 2), self
        assert self.out == ""
        assert "Traceback" not in self.err
        match = re.fullmatch(r"(?:(?!error: ).*\n)*error: ((?:.+\n)+)(?:\nhint: (.+)\n)?", self.err)
        assert match is not None, self.err
        assert not match[1].endswith(".\n")
        return match[1].removesuffix("\n"), match[2]


def environment(home: Path, **variables: str) -> dict[str, str]:
    """What a user's process has, and nothing of this one's."""
    return {
        "PATH": _PATH,
        "HOME": str(home),
        "OCIFORGE_CACHE": str(home / "cache"),
        "PYTHONPATH": str(ROOT),
        "PYTHONWARNINGS": "error",
        **variables,
    }


def ociforge(
    *arguments: str | Path,
    home: Path,
    prefix: Sequence[str] = (),
    umask: int = -1,
    variables: Mapping[str, str] | None = None,
) -> Done:
    """Run `ociforge ARGUMENTS…`, behind `prefix`, with the cache and working directory in `home`."""
    done = subprocess.run(
        [*prefix, sys.executable, "-m", "ociforge", *map(str, arguments)],
        env=environment(home, **(variables or {})),
        cwd=home,
        umask=umask,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=120,
        check=False,
    )
    return Done(code=done.returncode, out=done.stdout.decode(), err=done.stderr.decode())


def nobody(user: int = 65534) -> tuple[str, ...]:
    """A command's prefix that makes another user run it; skips where that cannot be done.

    The interpreter and the checkout may lie where only their owner can go, so all can be read, but not written.
    """
    if os.geteuid():
        missing("only root can become another user")
    become = (need("setpriv"), f"--reuid={user}", f"--regid={user}", "--clear-groups")
    able = (*become, "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
    probe = subprocess.run([*able, "true"], capture_output=True, text=True, check=False)
    if probe.returncode:
        missing(f"`setpriv` cannot do this here: {probe.stderr.strip()}")
    return able


@dataclass(frozen=True, slots=True, kw_only=True)
class Forge:
    """The command line in this process; the cache is `cache`."""

    cache: Path
    capture: pytest.CaptureFixture[str]
    monkeypatch: pytest.MonkeyPatch

    def __call__(self, *arguments: str | Path, variables: Mapping[str, str] | None = None) -> Done:
        handler: Any = signal.getsignal(signal.SIGTERM)
        with self.monkeypatch.context() as patch:
            for name, value in ({"OCIFORGE_CACHE": str(self.cache)} | dict(variables or {})).items():
                patch.setenv(name, value)
            try:
                code = run([os.fspath(argument) for argument in arguments])
            finally:
                signal.signal(signal.SIGTERM, handler)
        out, err = self.capture.readouterr()
        return Done(code=code, out=out, err=err)
