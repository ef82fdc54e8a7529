"""Credential files and helpers."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from ociforge.errors import AuthError
from ociforge.transports.auth import Credential, CredentialStore, login_file


def auth(username: str, password: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{username}:{password}".encode()).decode()}


def write(path: Path, document: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))
    return path


def look(tmp_path: Path, document: dict[str, Any], registry: str, repository: str = "team/app") -> Credential | None:
    return CredentialStore(files=(write(tmp_path / "config.json", document),)).lookup(registry, repository)


def helper(tmp_path: Path, name: str, script: str) -> dict[str, str]:
    """An environment whose PATH has one credential helper."""
    program = tmp_path / "bin" / f"docker-credential-{name}"
    program.parent.mkdir(exist_ok=True)
    program.write_text(f"#!/bin/sh\nread server\n{script}\n")
    program.chmod(0o755)
    return {"PATH": f"{program.parent}:/usr/bin:/bin"}


@pytest.mark.parametrize(
    "key",
    [
        "registry.example.com",
        "https://registry.example.com",
        "https://registry.example.com/",
        "https://registry.example.com/v1/",
        "https://registry.example.com/v2/",
        "registry.example.com/team",
        "registry.example.com/team/app",
    ],
)
def test_every_way_to_write_a_registry(tmp_path: Path, key: str) -> None:
    found = look(tmp_path, {"auths": {key: auth("u", "p:w")}}, "registry.example.com")
    assert found is not None
    assert (found.username, found.password) == ("u", "p:w")
    place = str(tmp_path / "config.json")
    assert found.source == (place if key == "registry.example.com" else f"{place}: {key}")


@pytest.mark.parametrize("key", ["registry.example.com:5000", "example.com", "registry.example.com/other", "x/team"])
def test_other_registries_do_not_match(tmp_path: Path, key: str) -> None:
    assert look(tmp_path, {"auths": {key: auth("u", "p")}}, "registry.example.com") is None


@pytest.mark.parametrize("key", ["docker.io", "https://index.docker.io/v1/", "index.docker.io", "registry-1.docker.io"])
def test_docker_hub_goes_by_many_names(tmp_path: Path, key: str) -> None:
    found = look(tmp_path, {"auths": {key: auth("u", "p")}}, "docker.io", "library/ubuntu")
    assert found is not None


def test_the_longest_namespace_wins(tmp_path: Path) -> None:
    auths = {name: auth(name, "p") for name in ("r.io", "r.io/team", "r.io/team/app", "r.io/team/app/deeper")}
    names = {
        repository: found.username if (found := look(tmp_path, {"auths": auths}, "r.io", repository)) else None
        for repository in ("team/app", "team/other", "else")
    }
    assert names == {"team/app": "r.io/team/app", "team/other": "r.io/team", "else": "r.io"}


def test_kinds_of_secrets(tmp_path: Path) -> None:
    identity = look(tmp_path, {"auths": {"r.io": auth("u", "") | {"identitytoken": "refresh"}}}, "r.io")
    registry = look(tmp_path, {"auths": {"r.io": {"registrytoken": "bearer"}}}, "r.io")
    plain = look(tmp_path, {"auths": {"r.io": {"username": "u", "password": "p"}}}, "r.io")
    assert identity is not None and registry is not None and plain is not None
    assert (identity.identity_token, registry.registry_token, plain.password) == ("refresh", "bearer", "p")
    for secret, credential in (("refresh", identity), ("bearer", registry)):
        assert secret not in repr(credential)
    assert "password" not in repr(plain)


def test_files_in_the_order_of_docker_and_podman(tmp_path: Path) -> None:
    home = tmp_path / "home"
    environ = {
        "REGISTRY_AUTH_FILE": str(tmp_path / "named.json"),
        "DOCKER_CONFIG": str(tmp_path / "docker"),
        "XDG_RUNTIME_DIR": str(tmp_path / "run"),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
    }
    files = [
        tmp_path / "named.json",
        tmp_path / "docker" / "config.json",
        tmp_path / "run" / "containers" / "auth.json",
        tmp_path / "config" / "containers" / "auth.json",
        home / ".docker" / "config.json",
    ]
    store = CredentialStore.from_environment(environ, home)
    assert list(store.files) == files
    for file in reversed(files):
        write(file, {"auths": {"r.io": auth(str(file), "p")}})
        found = store.lookup("r.io", "app")
        assert found is not None and found.username == str(file)


def test_without_variables_the_home_is_read(tmp_path: Path) -> None:
    store = CredentialStore.from_environment({}, tmp_path)
    assert tmp_path / ".config" / "containers" / "auth.json" in store.files
    assert store.files[-1] == tmp_path / ".docker" / "config.json"
    assert store.lookup("r.io", "app") is None


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"REGISTRY_AUTH_FILE": "/run/auth.json", "DOCKER_CONFIG": "/docker"}, "/run/auth.json"),
        ({"DOCKER_CONFIG": "/docker", "XDG_RUNTIME_DIR": "/run"}, "/docker/config.json"),
        ({"XDG_RUNTIME_DIR": "/run"}, "/home/me/.docker/config.json"),
    ],
)
def test_logins_are_kept_where_they_are_read(environ: dict[str, str], expected: str) -> None:
    found = login_file(environ, Path("/home/me"))
    assert found == Path(expected)
    assert found in CredentialStore.from_environment(environ, Path("/home/me")).files


def test_a_helper_for_the_registry_comes_before_the_file(tmp_path: Path) -> None:
    environ = helper(
        tmp_path,
        "mine",
        'echo "{\\"ServerURL\\": \\"$server\\", \\"Username\\": \\"u\\", \\"Secret\\": \\"$server\\"}"',
    )
    file = write(tmp_path / "config.json", {"auths": {"r.io": auth("f", "f")}, "credHelpers": {"r.io": "mine"}})
    found = CredentialStore(files=(file,), environ=environ).lookup("r.io", "app")
    assert found == Credential(source="docker-credential-mine", username="u", password="r.io")


def test_the_default_helper_comes_last_and_knows_docker_hub_by_its_old_name(tmp_path: Path) -> None:
    environ = helper(tmp_path, "desktop", 'echo "{\\"Username\\": \\"<token>\\", \\"Secret\\": \\"$server\\"}"')
    document = {"auths": {"https://index.docker.io/v1/": {}, "r.io": auth("f", "f")}, "credsStore": "desktop"}
    store = CredentialStore(files=(write(tmp_path / "config.json", document),), environ=environ)
    hub, other = store.lookup("docker.io", "library/ubuntu"), store.lookup("r.io", "app")
    assert hub == Credential(source="docker-credential-desktop", identity_token="https://index.docker.io/v1/")
    assert other is not None and other.username == "f"


def test_a_helper_that_knows_nothing_means_anonymous(tmp_path: Path) -> None:
    environ = helper(tmp_path, "empty", "echo credentials not found in native keychain; exit 1")
    file = write(tmp_path / "config.json", {"credsStore": "empty"})
    assert CredentialStore(files=(file,), environ=environ).lookup("r.io", "app") is None


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo hunter2 >&2; exit 1", "it ended with status 1"),
        ("sleep 5", "no answer within 0.3 s"),
        ("echo hunter2", "its answer is not the JSON expected"),
        ('echo \'{"Username": "hunter2"}\'', "its answer is not the JSON expected"),
        ("exec sleep 5", "no answer within 0.3 s"),
    ],
)
def test_helpers_that_fail(tmp_path: Path, script: str, message: str) -> None:
    environ = helper(tmp_path, "bad", script)
    file = write(tmp_path / "config.json", {"credHelpers": {"r.io": "bad"}})
    with pytest.raises(AuthError) as caught:
        CredentialStore(files=(file,), environ=environ, helper_timeout=0.3).lookup("r.io", "app")
    assert caught.value.message == f"asking `docker-credential-bad` for the credential of `r.io`: {message}"
    assert caught.value.hint is not None
    assert "hunter2" not in str(caught.value)


def test_what_the_helpers_of_a_file_do_not_know_another_file_may(tmp_path: Path) -> None:
    environ = helper(tmp_path, "empty", "echo credentials not found in native keychain; exit 1")
    first = write(tmp_path / "first.json", {"credHelpers": {"r.io": "empty"}, "auths": {"r.io": auth("hidden", "p")}})
    second = write(tmp_path / "second.json", {"auths": {"r.io": auth("u", "p")}})
    found = CredentialStore(files=(first, second), environ=environ).lookup("r.io", "app")
    assert found is not None and found.username == "u"


def test_an_entry_without_a_secret_is_none(tmp_path: Path) -> None:
    """What docker leaves beside a `credsStore`; the next best name is tried."""
    document = {"auths": {"r.io/team": {}, "r.io": auth("u", "p")}}
    found = look(tmp_path, document, "r.io")
    assert found is not None and found.username == "u"


@pytest.mark.parametrize("text", ["", " \n"])
def test_an_empty_file_has_nothing(tmp_path: Path, text: str) -> None:
    """Such as `REGISTRY_AUTH_FILE=$(mktemp)` names."""
    (tmp_path / "config.json").write_text(text)
    assert CredentialStore(files=(tmp_path / "config.json",)).lookup("r.io", "app") is None


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(AuthError) as caught:
        CredentialStore(files=(tmp_path,)).lookup("r.io", "app")
    assert caught.value.message == f"reading credentials: `{tmp_path}`: Is a directory"


@pytest.mark.parametrize("name", ["../../bin/sh", "a b", "x;y", "$(id)"])
def test_helper_names_are_checked(tmp_path: Path, name: str) -> None:
    with pytest.raises(AuthError, match="is not the name of a credential helper"):
        look(tmp_path, {"credsStore": name}, "r.io")


def test_a_missing_helper_is_named(tmp_path: Path) -> None:
    file = write(tmp_path / "config.json", {"credsStore": "nowhere"})
    with pytest.raises(AuthError) as caught:
        CredentialStore(files=(file,), environ={"PATH": str(tmp_path)}).lookup("r.io", "app")
    assert caught.value.message == f"reading credentials: `{file}` names `docker-credential-nowhere`: not found on PATH"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hunter2 {", "not a JSON object"),
        ("[]", "not a JSON object"),
        ('{"auths": ["hunter2"]}', "`auths` is not a JSON object"),
        ('{"auths": {"r.io": "hunter2"}}', "the entry for `r.io` is malformed"),
        ('{"auths": {"r.io": {"auth": "hunter2!"}}}', "the entry for `r.io`: `auth` is not base64 text"),
        ('{"auths": {"r.io": {"auth": "aHVudGVyMg=="}}}', "the entry for `r.io`: `auth` holds no `username:password`"),
        ('{"auths": {"r.io": {"auth": 1}}}', "the entry for `r.io` is malformed"),
    ],
)
def test_damaged_files_are_named_and_not_quoted(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "config.json"
    file.write_text(text)
    with pytest.raises(AuthError) as caught:
        CredentialStore(files=(file,)).lookup("r.io", "app")
    assert caught.value.message == f"reading credentials: `{file}`: {message}"
