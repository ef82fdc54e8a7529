"""What every test can count on: an environment that holds nothing of the developer's own."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# A shell that starts the tests in the background lets them ignore SIGINT, which programs under test would inherit.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

pytest_plugins = ["tests.support.fixtures"]

_LEAKS = ("SOURCE_DATE_EPOCH", "DOCKER_CONFIG", "REGISTRY_AUTH_FILE", "NETRC", "http_proxy", "https_proxy", "no_proxy")
_PREFIXES = ("RATTLER_", "PIXI_", "CONDA_", "OCIFORGE_")
_KEPT = frozenset({"OCIFORGE_REQUIRE_TOOLS", "OCIFORGE_TEST_CACHE"})


@pytest.fixture(autouse=True)
def clean_environment(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home of its own and none of the variables that could steer a build; yields the home."""
    for name in list(os.environ):
        if name not in _KEPT and (name.upper().startswith(_PREFIXES) or name in _LEAKS or name.lower() in _LEAKS):
            monkeypatch.delenv(name)
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / ".cache"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(home / "run"))
    yield home


_STATUS = pytest.StashKey[int]()


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    session.config.stash[_STATUS] = int(exitstatus)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """Leave as the program does: py-rattler's runtime can crash while the interpreter is torn down."""
    if "rattler" in sys.modules and _STATUS in config.stash:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(config.stash[_STATUS])
