"""uv as a program: where it is, and one run of it that depends on its arguments alone.

The only module that imports uv, which is an extra: most workspaces have no PyPI requirements.
"""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING, Final

from ociforge.errors import SolveError
from ociforge.pypi.request import PROJECT
from ociforge.url_secrets import redacted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["UnreachedError", "find_uv", "run_uv"]

# Of uv's own variables those that say how to reach things, not what to choose: the rest would change the lock.
_KEPT: Final = frozenset(
    {
        "UV_CACHE_DIR",
        "UV_CONCURRENT_BUILDS",
        "UV_CONCURRENT_DOWNLOADS",
        "UV_CREDENTIALS_DIR",
        "UV_HTTP_CONNECT_TIMEOUT",
        "UV_HTTP_RETRIES",
        "UV_HTTP_TIMEOUT",
        "UV_INSECURE_HOST",
        "UV_KEYRING_PROVIDER",
        "UV_NATIVE_TLS",
        "UV_NETRC",
        "UV_NO_CACHE",
        "UV_OFFLINE",
        "UV_SYSTEM_CERTS",
    }
)
# What uv says of failures that no other requirement would mend, in lower case, and what to do then.
_UNREACHED: Final = ("request failed", "connection refused", "error sending request", "dns error", "timed out")
_UNKNOWN: Final = ("was not found in the package registry", "not found in the provided package locations")
_URL: Final = re.compile(r"[a-z][a-z0-9+.-]*://[^\s'\"`)]+")


def find_uv() -> str:
    """The uv that is installed beside ociforge; raises SolveError that says how to install it."""
    try:
        import uv

        return uv.find_uv_bin()
    except (ImportError, FileNotFoundError) as error:
        raise SolveError(
            "resolving PyPI requirements needs `uv`, which is not installed",
            "install it beside ociforge: `pip install uv`",
        ) from error


def run_uv(
    arguments: Sequence[str],
    *,
    directory: Path,
    environ: Mapping[str, str],
    what: str,
    hint: str,
    variables: Mapping[str, str] | None = None,
    offline: bool = False,
) -> None:
    """Run `uv ARGUMENTS` in `directory`; no configuration file counts, and no variable that chooses but `variables`.

    `environ` is the environment to start from; `what` begins the message of the SolveError for a run that fails, which
    goes on in uv's words; `hint` is its hint, unless a network or a name is at fault: UnreachedError is raised for a
    network. `offline` lets uv use its cache alone.
    """
    command = [find_uv(), *arguments, "--no-config", "--no-progress", "--color=never", "--quiet"]
    command += ["--no-python-downloads", f"--python={sys.executable}", *(["--offline"] if offline else [])]
    try:
        done = subprocess.run(
            command,
            cwd=directory,
            env={**_environment(environ), **(variables or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
    except OSError as error:
        raise SolveError(f"{what}: uv cannot be run: {error.strerror}") from error
    if done.returncode:
        raise _failure(what, done.stderr, hint, offline=offline)


def _environment(environ: Mapping[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in environ.items() if not name.startswith("UV_") or name in _KEPT}
    return {**kept, "COLUMNS": "10000"}  # uv would break its lines at the terminal's width


class UnreachedError(SolveError):
    """A server that uv could not reach."""


def _failure(what: str, stderr: str, hint: str, *, offline: bool) -> SolveError:
    """uv's own text: `error: …`, causes, and perhaps a hint of its own, which then goes before ours."""
    text, _, advice = stderr.strip().partition("\nhint: ")
    text = text.strip().removeprefix("error: ").removesuffix(".").replace(f"{PROJECT} depends on", "you require")
    text = _URL.sub(lambda match: redacted(match[0]), text)
    advice = " ".join(_URL.sub(lambda match: redacted(match[0]), advice).split())
    kind, said = SolveError, text.lower()
    if offline:
        advice, hint = "", "run `ociforge lock` where there is a network"
    elif any(words in said for words in _UNREACHED):
        kind, hint = UnreachedError, "check the network, and the indexes of the manifest"
    elif any(words in said for words in _UNKNOWN):
        hint = "check the name, and the indexes of the manifest"
    return kind(f"{what}: {text}", f"{advice}; {hint}" if advice else hint)
