"""What every test can count on: an environment that holds nothing of the developer's own."""

from __future__ import annotations

import itertools
import os
import signal
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# A shell that starts the tests in the background lets them ignore SIGINT, which programs under test would inherit.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

pytest_plugins = ["tests.support.fixtures"]

# Property tests fail for what they find, never for how long a busy machine takes. Each run tries other examples; for
# many more of them in one run there is `--hypothesis-profile=thorough`.
settings.register_profile("quick", max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("thorough", settings.get_profile("quick"), max_examples=1000)
settings.load_profile("quick")

_LEAKS = ("SOURCE_DATE_EPOCH", "DOCKER_CONFIG", "REGISTRY_AUTH_FILE", "NETRC", "http_proxy", "https_proxy", "no_proxy")
_PREFIXES = ("RATTLER_", "PIXI_", "CONDA_", "OCIFORGE_")
_KEPT = frozenset({"OCIFORGE_REQUIRE_TOOLS", "OCIFORGE_TEST_CACHE"})


@pytest.fixture(scope="session")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Paths for as many homes as wanted. pytest's own numbering would look at all directories for each new one."""
    parent = tmp_path_factory.mktemp("homes")
    return (parent / str(number) for number in itertools.count())


@pytest.fixture(autouse=True)
def clean_environment(homes: Iterator[Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home of its own and none of the variables that could steer a build; yields the home."""
    for name in list(os.environ):
        if name not in _KEPT and (name.upper().startswith(_PREFIXES) or name in _LEAKS or name.lower() in _LEAKS):
            monkeypatch.delenv(name)
    home = next(homes)
    home.mkdir(mode=0o700)
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
