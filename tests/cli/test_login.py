"""`ociforge login` and `ociforge logout`, with one real registry and foreign readers of what they write."""

from __future__ import annotations

import base64
import io
import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.cli.program import ROOT, environment
from tests.support import registry as real
from tests.support.fake_registry import PASSWORD, USER, FakeRegistry, running_fake
from tests.support.tools import need

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.cli.program import Done, Forge
    from tests.support.fake_registry import Exchange

_ENCODED = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()


@pytest.fixture
def fake() -> Iterator[FakeRegistry]:
    with running_fake() as registry:
        registry.auth = "basic"
        yield registry


@pytest.fixture
def config(clean_environment: Path) -> Path:
    """Docker's file in the home directory."""
    return clean_environment / ".docker" / "config.json"


@pytest.fixture
def login(forge: Forge, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Done]:
    """Run `ociforge login --password-stdin ARGUMENTS…`."""

    def run(*arguments: str | Path, text: bytes = PASSWORD.encode() + b"\n", user: str = USER) -> Done:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
            return forge("login", "--password-stdin", "-u", user, *arguments)

    return run


def auths(path: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads(path.read_bytes())["auths"]
    return found


def test_a_login_serves_this_program_and_others(
    forge: Forge, login: Callable[..., Done], tmp_path: Path, config: Path
) -> None:
    with real.running_registry(tmp_path / "registry", auth=True) as registry:
        refused = login(registry.host, text=b"wrong")
        assert refused.code == 1 and refused.message.endswith(": the credential from `standard input` was refused")
        assert not config.exists()
        done = login(registry.host, text=real.PASSWORD.encode(), user=real.USER)
        assert (done.code, done.err) == (0, "")
        assert done.out == f"{registry.host}: logged in as {real.USER}; stored in {config}\n"
        asked = forge("push", "-v", f"docker://{registry.host}/nothing:1", f"oci:{tmp_path}/to")
        assert f"credential for `{registry.host}` from {config}\n" in asked.err
        assert "404" in asked.err and "401" not in asked.err
        skopeo = [need("skopeo"), "login", "--authfile", str(config), "--get-login", registry.host]
        assert subprocess.run(skopeo, check=True, capture_output=True, text=True).stdout == f"{real.USER}\n"
        skopeo = [need("skopeo"), "logout", "--authfile", str(config), registry.host]
        subprocess.run(skopeo, check=True, capture_output=True)
        assert (
            forge("logout", registry.host).message == f"not logged in to `{registry.host}`: no credential in `{config}`"
        )


def test_what_others_have_stored_is_removed(forge: Forge, config: Path, tmp_path: Path) -> None:
    with real.running_registry(tmp_path / "registry", auth=True) as registry:
        skopeo = [need("skopeo"), "login", "--tls-verify=false", "--authfile", str(config)]
        skopeo += ["-u", real.USER, "--password-stdin", registry.host]
        subprocess.run(skopeo, input=real.PASSWORD.encode(), check=True, capture_output=True)
        assert forge("logout", registry.host).out == f"{registry.host}: logged out\n"
    assert auths(config) == {}


def test_the_document(login: Callable[..., Done], fake: FakeRegistry, config: Path) -> None:
    done = login("--json", f"{fake.host}/team")
    assert json.loads(done.out) == {
        "registry": fake.host,
        "namespace": "team",
        "username": USER,
        "file": str(config),
        "helper": None,
        "verified": True,
    }
    assert list(auths(config)) == [f"{fake.host}/team"]


@pytest.mark.parametrize("ending", [b"", b"\n", b"\r\n"])
def test_one_line_break_is_no_part_of_the_password(
    login: Callable[..., Done], fake: FakeRegistry, config: Path, ending: bytes
) -> None:
    assert login(fake.host, text=PASSWORD.encode() + ending).code == 0
    assert auths(config) == {fake.host: {"auth": _ENCODED}}
    assert login(fake.host, text=PASSWORD.encode() + b"\n" + ending).code == (1 if ending else 0)


@pytest.mark.parametrize(
    ("arguments", "user", "text", "message"),
    [
        (("r.io",), "alice", b"", "logging in to `r.io`: the password is empty"),
        (("r.io",), "alice", b"\n", "logging in to `r.io`: the password is empty"),
        (
            ("r.io",),
            "alice",
            b"hunter2\xff",
            "logging in to `r.io`: standard input is no password: longer than 64 KiB, or not UTF-8",
        ),
        (
            ("r.io",),
            "alice",
            b"hunter2" * 10000,
            "logging in to `r.io`: standard input is no password: longer than 64 KiB, or not UTF-8",
        ),
        (("r.io",), "al:ice", b"x", "logging in to `r.io`: `al:ice` is no user name"),
        (("r.io",), "", b"x", "logging in to `r.io`: `` is no user name"),
        (
            ("ghcr",),
            "alice",
            b"x",
            "malformed registry: `ghcr`: `ghcr`: not a registry: expected a host with a dot, a port, or `localhost`",
        ),
        (("r.io/app:1",), "alice", b"x", "malformed registry: `r.io/app:1`: `app:1`: not a namespace"),
        (("r.io", "--password", "hunter2"), "alice", b"x", "no such option `--password`"),
    ],
)
def test_usage(
    login: Callable[..., Done], config: Path, arguments: tuple[str, ...], user: str, text: bytes, message: str
) -> None:
    done = login(*arguments, user=user, text=text)
    assert (done.code, done.message) == (2, message)
    assert "hunter2" not in done.err
    assert not config.exists()


def test_without_a_terminal_nothing_is_asked(forge: Forge, monkeypatch: pytest.MonkeyPatch) -> None:
    for stdin in (io.TextIOWrapper(io.BytesIO(b"secret\n")), None):
        monkeypatch.setattr(sys, "stdin", stdin)
        done = forge("login", "-u", "alice", "r.io")
        assert (done.code, done.message) == (
            2,
            "logging in to `r.io`: there is no terminal to ask for the password on",
        )
        assert done.hint is not None and "--password-stdin" in done.hint
        assert forge("login", "r.io").message == "logging in to `r.io`: no user name"


def test_on_a_terminal_the_password_is_asked_for_and_never_shown(
    fake: FakeRegistry, clean_environment: Path, config: Path
) -> None:
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "ociforge", "login", fake.host, "--verbose"]
    process = subprocess.Popen(
        command,
        stdin=slave,
        stdout=subprocess.PIPE,
        stderr=slave,
        env=environment(clean_environment),
        start_new_session=True,
        preexec_fn=lambda: os.close(os.open(os.ttyname(0), os.O_RDWR)),  # which makes it the controlling terminal
        cwd=ROOT,
    )
    os.close(slave)
    shown = b""
    for question, reply in ((b"User name: ", USER), (b"Password: ", PASSWORD)):
        while not shown.endswith(question):
            shown += os.read(master, 1)
        os.write(master, f"{reply}\n".encode())
    out, _ = process.communicate(timeout=20)
    shown += os.read(master, 10_000)
    os.close(master)
    assert process.returncode == 0, shown
    assert out.decode() == f"{fake.host}: logged in as {USER}; stored in {config}\n"
    assert auths(config) == {fake.host: {"auth": _ENCODED}}
    assert PASSWORD.encode() not in shown
    assert f"credential for `{fake.host}` from the terminal".encode() in shown


def test_secrets_are_nowhere_to_be_seen(fake: FakeRegistry, clean_environment: Path, config: Path) -> None:
    """Not in what any process is called with or has in its environment, and not in what is said."""
    seen: list[bytes] = []

    def look(registry: FakeRegistry, exchange: Exchange) -> None:
        for path in Path("/proc").glob("[0-9]*"):
            try:
                seen.append((path / "cmdline").read_bytes() + (path / "environ").read_bytes())
            except OSError:
                continue
        FakeRegistry.serve(registry, exchange)

    fake.on("GET", "^/v2/$", look, times=2)
    for password in ("hunter2", PASSWORD):
        done = subprocess.run(
            [sys.executable, "-m", "ociforge", "login", "-v", "--json", fake.host, "-u", USER, "--password-stdin"],
            input=password.encode(),
            env=environment(clean_environment),
            capture_output=True,
            check=False,
        )
        assert done.returncode == (0 if password == PASSWORD else 1), done.stderr
        for secret in (password.encode(), base64.b64encode(f"{USER}:{password}".encode())):
            assert secret not in done.stdout + done.stderr
            assert not any(secret in process for process in seen)
    assert any(b"--password-stdin" in process for process in seen)
    assert auths(config) == {fake.host: {"auth": _ENCODED}}


def test_a_registry_that_asks_for_nothing(login: Callable[..., Done], fake: FakeRegistry, config: Path) -> None:
    fake.auth = "none"
    done = login(fake.host, "--json")
    assert json.loads(done.out)["verified"] is False
    assert f"warning: `{fake.host}` lets everybody in: whether the password is right is not known\n" in done.err
    assert list(auths(config)) == [fake.host]


def test_where_it_is_stored(
    login: Callable[..., Done], forge: Forge, fake: FakeRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The option, then the variables; a file that the other verbs would not find is told."""
    named = tmp_path / "named.json"
    done = login("--authfile", named, fake.host)
    assert list(auths(named)) == [fake.host]
    assert done.err.startswith(f"warning: `{named}` is not among the files that are read\n   hint: ")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    assert login(fake.host).err == ""
    assert list(auths(tmp_path / "docker" / "config.json")) == [fake.host]
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "auth.json"))
    assert login(fake.host).err == ""
    assert list(auths(tmp_path / "auth.json")) == [fake.host]
    done = login(fake.host, "--authfile", tmp_path / "docker" / "config.json")
    assert done.err.startswith(
        f"warning: `{tmp_path}/auth.json` has a credential for `{fake.host}`, too, and is read first\n"
        f"   hint: remove it: `ociforge logout {fake.host} --authfile {tmp_path}/auth.json`\n"
    )
    done = forge("logout", fake.host)
    assert f"there still is a credential for `{fake.host}`: `{tmp_path}/docker/config.json`" in done.err
    assert auths(tmp_path / "auth.json") == {}


def test_a_helper_keeps_it(login: Callable[..., Done], fake: FakeRegistry, config: Path, tmp_path: Path) -> None:
    program = tmp_path / "docker-credential-keeper"
    program.write_text(f"#!/bin/sh\ncat > {tmp_path}/kept\n")
    program.chmod(0o755)
    config.parent.mkdir()
    config.write_text(json.dumps({"credsStore": "keeper"}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        done = login(fake.host)
    assert done.out == f"{fake.host}: logged in as {USER}; stored in docker-credential-keeper\n"
    assert json.loads((tmp_path / "kept").read_text())["Secret"] == PASSWORD
    assert auths(config) == {fake.host: {}}


def test_logout(forge: Forge, config: Path) -> None:
    config.parent.mkdir()
    config.write_text(json.dumps({"auths": {"a.io": {"auth": _ENCODED}, "a.io/team": {"auth": _ENCODED}, "b.io": {}}}))
    done = forge("logout", "--json", "https://a.io/v1/")
    assert json.loads(done.out) == {"file": str(config), "removed": ["a.io"]}
    assert list(auths(config)) == ["a.io/team", "b.io"]
    again = forge("logout", "a.io")
    assert (again.code, again.message) == (1, f"not logged in to `a.io`: no credential in `{config}`")
    assert forge("logout", "--all").out == "a.io/team: logged out\nb.io: logged out\n"
    assert forge("logout", "--all").out == f"{config}: no credential in it\n"
    for arguments in ((), ("a.io", "--all")):
        done = forge("logout", *arguments)
        assert (done.code, done.message) == (2, "logout: name either one registry or `--all`")
