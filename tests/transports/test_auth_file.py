"""Changes to credential files: whole or not at all, nothing else touched, nobody else's to read."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from ociforge.errors import AuthError, TransportError
from ociforge.transports.auth import CredentialStore
from ociforge.transports.auth_file import AuthFile
from ociforge.transports.credential import Account, Credential

SECRET = "opensesame"
ACCOUNT = Account(registry="r.io")

# Keeps one credential in the file `kept`, and notes how it was called.
_KEEPER = """#!/bin/sh
cd "{directory}"
tr '\\0' ' ' < /proc/$$/cmdline >> seen; tr '\\0' ' ' < /proc/$$/environ >> seen
case $1 in
store) cat > kept;;
get) read server; echo "$server" >> asked; if [ -f kept ]; then cat kept; exit; fi;;
erase) read server; echo "$server" >> erased; if [ -f kept ]; then rm kept; exit; fi;;
esac
[ "$1" = store ] || {{ echo credentials not found in native keychain; exit 1; }}
"""


def credential(username: str = "alice", password: str = SECRET) -> Credential:
    return Credential(source="here", username=username, password=password)


def keeper(directory: Path) -> dict[str, str]:
    """An environment with the helper `keeper`, which keeps its files in `directory`."""
    program = directory / "docker-credential-keeper"
    program.write_text(_KEEPER.format(directory=directory))
    program.chmod(0o755)
    return {"PATH": f"{directory}:/usr/bin:/bin"}


def written(path: Path, document: dict[str, Any]) -> AuthFile:
    path.write_text(json.dumps(document))
    return AuthFile(path=path, environ=keeper(path.parent))


def test_what_is_stored_is_found(tmp_path: Path) -> None:
    """By whoever reads the file next, in a directory that only its owner can enter."""
    file = AuthFile(path=tmp_path / "new" / ".docker" / "config.json")
    assert file.store(ACCOUNT, credential()) == str(file.path)
    assert CredentialStore(files=(file.path,)).lookup("r.io", "app") == Credential(
        source=str(file.path), username="alice", password=SECRET
    )
    assert (file.path.stat().st_mode & 0o777, file.path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert list(file.path.parent.iterdir()) == [file.path]


def test_everything_else_stays_in_its_order(tmp_path: Path) -> None:
    before = {
        "zeta": [1, 2.5, None, "ü\ud800"],
        "auths": {"b.io": {"auth": "Yjpi", "email": "b@b"}, "r.io": {"identitytoken": "old"}, "a.io": {}},
        "HttpHeaders": {"X": "y"},
        "big": 10**30,
    }
    file = written(tmp_path / "config.json", before)
    file.path.chmod(0o644)
    file.store(ACCOUNT, credential())
    after = json.loads(file.path.read_bytes())
    assert after["auths"].pop("r.io") == {"auth": "YWxpY2U6b3BlbnNlc2FtZQ=="}
    del before["auths"]["r.io"]  # type: ignore[attr-defined]  # it is a dictionary
    assert json.dumps(after) == json.dumps(before)
    assert file.path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("text", "keys", "expected"),
    [
        ("r.io", ["https://r.io/v1/", "http://r.io", "R.io", "r.io/team", "r.io:5000"], ["r.io/team", "r.io:5000"]),
        ("r.io/team", ["r.io", "r.io/team/app"], ["r.io", "r.io/team/app"]),
        ("https://index.docker.io/v1/", ["docker.io", "registry-1.docker.io", "docker.io/me"], ["docker.io/me"]),
    ],
)
def test_other_spellings_of_the_same_are_replaced(
    tmp_path: Path, text: str, keys: list[str], expected: list[str]
) -> None:
    """Which of two a reader finds would depend on the reader."""
    file = written(tmp_path / "config.json", {"auths": {key: {"auth": "Yjpi"} for key in keys}})
    account = Account.parse(text)
    file.store(account, credential())
    assert list(json.loads(file.path.read_bytes())["auths"]) == [*expected, text]
    found = CredentialStore(files=(file.path,)).lookup(account.registry, account.reference().repository)
    assert found is not None and found.username == "alice"
    assert file.erase(account)
    assert list(json.loads(file.path.read_bytes())["auths"]) == expected
    assert not file.erase(account)


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "config.json").symlink_to(tmp_path / "real" / "config.json")
    for name in ("alice", "bob"):  # at first it leads nowhere
        AuthFile(path=tmp_path / "config.json").store(ACCOUNT, credential(name))
    assert (tmp_path / "config.json").is_symlink()
    assert list((tmp_path / "real").iterdir()) == [tmp_path / "real" / "config.json"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can write for another user")
def test_the_owner_stays(tmp_path: Path) -> None:
    file = written(tmp_path / "config.json", {})
    os.chown(file.path, 1234, 1235)
    file.store(ACCOUNT, credential())
    found = file.path.stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (1234, 1235, 0o600)


def test_damaged_files_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    for text in ("{hunter2", "[]", '{"auths": ["hunter2"]}'):
        path.write_text(text)
        for change in (lambda f: f.store(ACCOUNT, credential()), lambda f: f.erase(ACCOUNT), AuthFile.erase_all):
            with pytest.raises(AuthError) as caught:
                change(AuthFile(path=path))
            assert f"`{path}`" in caught.value.message and "hunter2" not in caught.value.message
        assert path.read_text() == text


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "config.json"
    with pytest.raises(TransportError) as caught:
        AuthFile(path=path).store(ACCOUNT, credential())
    assert caught.value.message.startswith(f"writing credentials: `{path}`: ")
    assert SECRET not in f"{caught.value.message}{caught.value.hint}"


def test_logins_at_one_time_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"kept": 1}')

    def store(number: int) -> None:
        for turn in range(3):
            AuthFile(path=path).store(Account(registry=f"r{number}-{turn}.io"), credential())

    threads = [threading.Thread(target=store, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = json.loads(path.read_bytes())
    assert sorted(found["auths"]) == sorted(f"r{number}-{turn}.io" for number in range(6) for turn in range(3))
    assert found["kept"] == 1
    assert list(tmp_path.iterdir()) == [path]


_ENDLESS = """
import sys
from pathlib import Path
from ociforge.transports.auth_file import AuthFile
from ociforge.transports.credential import Account, Credential
number = 0
while True:
    credential = Credential(source="", username=f"u{number}", password="p" * 9999)
    AuthFile(path=Path(sys.argv[1])).store(Account(registry="r.io"), credential)
    number += 1
"""


def test_killed_at_any_moment_the_file_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"kept": 1}')
    for round_ in range(3):
        before = path.read_bytes()
        process = subprocess.Popen([sys.executable, "-c", _ENDLESS, str(path)], cwd=Path(__file__).parents[2])
        while path.read_bytes() == before:
            assert process.poll() is None
        time.sleep(0.003 * round_)
        process.send_signal(signal.SIGKILL)
        process.wait()
        found = json.loads(path.read_bytes())
        assert found["kept"] == 1 and list(found["auths"]) == ["r.io"]
        for left in tmp_path.glob(".ociforge-*"):
            assert left.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("config", [{"credsStore": "keeper"}, {"credHelpers": {"r.io": "keeper"}}])
def test_a_helper_is_given_the_secret(tmp_path: Path, config: dict[str, Any]) -> None:
    """And the file has it no longer; by pipes, so that no process list shows it."""
    file = written(tmp_path / "config.json", {"auths": {"https://r.io": {"auth": "Yjpi"}}} | config)
    assert file.store(ACCOUNT, credential()) == "docker-credential-keeper"
    assert json.loads((tmp_path / "kept").read_text()) == {"ServerURL": "r.io", "Username": "alice", "Secret": SECRET}
    assert json.loads(file.path.read_bytes()) == {"auths": {"r.io": {}}} | config
    found = CredentialStore(files=(file.path,), environ=file.environ).lookup("r.io", "app")
    assert found is not None and (found.source, found.password) == ("docker-credential-keeper", SECRET)
    assert file.erase(ACCOUNT)
    assert not (tmp_path / "kept").exists()
    assert json.loads(file.path.read_bytes()) == {"auths": {}} | config
    assert not file.erase(ACCOUNT)
    assert (tmp_path / "erased").read_text() == "r.io\n"
    assert " store " in (tmp_path / "seen").read_text()
    assert SECRET not in (tmp_path / "seen").read_text()


def test_a_helper_knows_docker_hub_by_its_old_name(tmp_path: Path) -> None:
    file = written(tmp_path / "config.json", {"credsStore": "keeper"})
    file.store(Account.parse("docker.io"), credential())
    assert json.loads((tmp_path / "kept").read_text())["ServerURL"] == "https://index.docker.io/v1/"
    assert list(json.loads(file.path.read_bytes())["auths"]) == ["https://index.docker.io/v1/"]


def test_a_helper_keeps_nothing_for_a_namespace(tmp_path: Path) -> None:
    """And what belongs in a keyring is not written to the file instead."""
    file = written(tmp_path / "config.json", {"credsStore": "keeper"})
    before = file.path.read_bytes()
    with pytest.raises(AuthError, match="keeps one for each registry and none for a namespace") as caught:
        file.store(Account.parse("r.io/team"), credential())
    assert caught.value.hint == "log in to `r.io`, or to another file with `--authfile FILE`"
    assert file.path.read_bytes() == before
    assert not (tmp_path / "kept").exists()


def test_a_helper_that_fails_leaves_the_file_alone(tmp_path: Path) -> None:
    file = written(tmp_path / "config.json", {"credsStore": "keeper", "auths": {"r.io": {"auth": "Yjpi"}}})
    before = file.path.read_bytes()
    (tmp_path / "docker-credential-keeper").write_text(f"#!/bin/sh\necho {SECRET}; echo {SECRET} >&2; exit 3\n")
    for change in (lambda: file.store(ACCOUNT, credential()), lambda: file.erase(ACCOUNT)):
        with pytest.raises(AuthError, match="it ended with status 3") as caught:
            change()
        assert SECRET not in f"{caught.value.message}{caught.value.hint}"
        assert file.path.read_bytes() == before


def test_erasing_all(tmp_path: Path) -> None:
    """Also what a helper keeps because of a login here, and nothing else of the helper's."""
    document = {"auths": {"a.io": {"auth": "Yjpi"}, "r.io/team": {"auth": "Yjpi"}}, "credsStore": "keeper", "x": 1}
    file = written(tmp_path / "config.json", document)
    file.store(Account.parse("docker.io"), credential())
    assert file.erase_all() == ["a.io", "r.io/team", "https://index.docker.io/v1/"]
    assert json.loads(file.path.read_bytes()) == {"auths": {}, "credsStore": "keeper", "x": 1}
    assert (tmp_path / "erased").read_text() == "https://index.docker.io/v1/\n"
    assert not (tmp_path / "kept").exists()
    assert AuthFile(path=tmp_path / "nothing").erase_all() == []


@pytest.mark.parametrize(
    ("text", "registry", "namespace", "key", "server"),
    [
        ("ghcr.io", "ghcr.io", "", "ghcr.io", "ghcr.io"),
        ("GHCR.io/acme/app", "ghcr.io", "acme/app", "ghcr.io/acme/app", "ghcr.io"),
        ("https://r.io:5000/", "r.io:5000", "", "r.io:5000", "r.io:5000"),
        ("docker://r.io", "r.io", "", "r.io", "r.io"),
        ("docker.io", "docker.io", "", "https://index.docker.io/v1/", "https://index.docker.io/v1/"),
        ("registry-1.docker.io", "docker.io", "", "https://index.docker.io/v1/", "https://index.docker.io/v1/"),
        ("docker.io/me", "docker.io", "me", "docker.io/me", "https://index.docker.io/v1/"),
        ("[::1]:5000", "[::1]:5000", "", "[::1]:5000", "[::1]:5000"),
    ],
)
def test_accounts(text: str, registry: str, namespace: str, key: str, server: str) -> None:
    account = Account.parse(text)
    assert (account.registry, account.namespace, account.key, account.server) == (registry, namespace, key, server)
    assert Account.parse(str(account)) == Account.parse(account.key) == account
