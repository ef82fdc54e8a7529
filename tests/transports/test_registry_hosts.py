"""Whom a pull or a push speaks to: nobody that the user did not name.

One exception the protocol makes: a registry may lead to a storage of its choice, for the bytes of blobs on their way
down (a redirect) or up (the Location of an upload). It gets those bytes, and no credential.
"""

from __future__ import annotations

import base64
import json
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from ociforge.errors import AuthError, RegistryError
from ociforge.oci.descriptor import INDEX
from ociforge.oci.reference import Reference
from ociforge.publish import publish
from ociforge.transports.auth import CredentialStore
from ociforge.transports.options import RegistryOptions
from ociforge.transports.registry import ForgeRegistry, RegistryDestination, RegistrySource
from tests.support.fake_registry import PASSWORD, USER, Exchange, FakeRegistry, answer, running_fake
from tests.support.memory import MemoryDestination, sample_image
from tests.transports.registry_tools import no_sleep

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

IMAGE = sample_image()
_EVENTS = frozenset({"socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"})
_listeners: list[set[str]] = []


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if not _listeners or event not in _EVENTS:
        return
    if event in ("socket.connect", "socket.sendto"):
        address = arguments[1]
        _listeners[-1].add(":".join(map(str, address[:2])) if isinstance(address, tuple) else str(address))
    elif event == "socket.getaddrinfo":
        _listeners[-1].add(f"{arguments[0]}:{arguments[1]}")
    else:
        _listeners[-1].add(str(arguments[0]))


@contextmanager
def listening() -> Iterator[set[str]]:
    """Every host:port that this process resolves or connects to meanwhile."""
    heard: set[str] = set()
    _listeners.append(heard)
    try:
        yield heard
    finally:
        _listeners.remove(heard)


@pytest.fixture(scope="module", autouse=True)
def hook() -> None:
    sys.addaudithook(_hear)  # for good: there is no way to remove it


@pytest.fixture
def fake() -> Iterator[FakeRegistry]:
    with running_fake() as registry:
        yield registry


@pytest.fixture
def other() -> Iterator[FakeRegistry]:
    """What nobody named; it would serve whoever comes."""
    with running_fake("127.0.0.2") as registry:
        fill(registry)
        yield registry


def fill(fake: FakeRegistry) -> None:
    for blob in IMAGE.blobs():
        fake.add_blob("team/app", IMAGE.contents[blob.digest])
    fake.add_manifest("team/app", "v1", IMAGE.top.media_type, IMAGE.contents[IMAGE.top.digest])


def place(fake: FakeRegistry, tag: str = "v1") -> Reference:
    return Reference(registry=fake.host, repository="team/app", tag=tag)


def credentials(tmp_path: Path, fake: FakeRegistry) -> CredentialStore:
    file = tmp_path / "auth.json"
    pair = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    file.write_text(json.dumps({"auths": {fake.host: {"auth": pair}}}))
    return CredentialStore(files=(file,))


def pull(fake: FakeRegistry, store: CredentialStore | None = None, options: RegistryOptions | None = None) -> None:
    source = RegistrySource(place(fake), options, store, sleep=no_sleep)
    try:
        publish(source, MemoryDestination())
    finally:
        source.close()


def push(fake: FakeRegistry, store: CredentialStore | None = None, options: RegistryOptions | None = None) -> None:
    publish(IMAGE, RegistryDestination(place(fake, "new"), options, store, sleep=no_sleep))


@pytest.mark.parametrize("auth", ["none", "basic", "bearer"])
def test_the_registry_and_nobody_else(fake: FakeRegistry, tmp_path: Path, auth: Any) -> None:
    store = credentials(tmp_path, fake)
    fake.auth = auth
    with listening() as heard:
        push(fake, store)
        fill(fake)
        pull(fake, store)
    assert heard == {fake.host}


def test_the_listener_hears(fake: FakeRegistry, other: FakeRegistry) -> None:
    fill(fake)
    with listening() as heard:
        pull(fake)
        pull(other)
    assert heard == {fake.host, other.host}


@pytest.mark.parametrize("known", [False, True])
def test_a_token_service_elsewhere(fake: FakeRegistry, other: FakeRegistry, tmp_path: Path, known: bool) -> None:
    """With a credential it must not have, and without any: it is not where a registry on loopback may point to."""
    fake.auth = "bearer"
    fake.realm = f"http://{other.host}/token"
    store = credentials(tmp_path, fake) if known else None
    with listening() as heard:
        for move in (pull, push):
            with pytest.raises(AuthError, match="the token service"):
                move(fake, store)
    assert heard == {fake.host}
    assert other.calls == []


def test_a_mirror_that_is_named_and_one_for_others(fake: FakeRegistry, other: FakeRegistry) -> None:
    fill(fake)
    with listening() as heard:
        pull(fake, options=RegistryOptions(mirrors={"docker.io": (other.host,)}))
    assert heard == {fake.host}
    with listening() as heard:
        pull(fake, options=RegistryOptions(mirrors={fake.host: (other.host,)}))
        push(fake, options=RegistryOptions(mirrors={fake.host: ("127.0.0.3:1",)}))
    assert heard == {fake.host, other.host}


def test_next_pages_elsewhere(fake: FakeRegistry, other: FakeRegistry) -> None:
    link = f'<http://{other.host}/v2/team/app/tags/list>; rel="next"'
    fake.on("GET", "/tags/", answer(200, b'{"tags": ["a"]}', Link=link))
    empty = b'{"schemaVersion": 2, "manifests": []}'
    fake.on("GET", "/referrers/", answer(200, empty, Link=link, Content_Type=INDEX))
    registry = ForgeRegistry(place(fake), sleep=no_sleep)
    with listening() as heard:
        with pytest.raises(RegistryError, match="leads elsewhere"):
            registry.get_tags(f"{fake.host}/team/app")
        with pytest.raises(RegistryError, match="leads elsewhere"):
            registry.referrers(IMAGE.top.digest)
        fake.on("GET", "/referrers/", answer(303, Location=f"http://{other.host}/page"))
        assert registry.referrers(IMAGE.top.digest) == []
    registry.close()
    assert heard == {fake.host}


def test_what_documents_name_is_not_visited(fake: FakeRegistry, other: FakeRegistry) -> None:
    """`urls` of layers, annotations, `Warning` headers and error documents are text."""
    url = f"http://{other.host}/v2/team/app/blobs/x"
    document = json.loads(IMAGE.contents[IMAGE.top.digest])
    document["layers"][0]["urls"] = [url]
    document["annotations"] = {"org.opencontainers.image.url": url}
    fill(fake)
    fake.add_manifest("team/app", "v1", IMAGE.top.media_type, json.dumps(document).encode())
    with listening() as heard:
        pull(fake)
    assert heard == {fake.host}


def test_blobs_elsewhere_are_the_exception_and_get_no_credential(
    fake: FakeRegistry, other: FakeRegistry, tmp_path: Path
) -> None:
    def elsewhere(registry: FakeRegistry, exchange: Exchange) -> None:
        exchange.send(307, headers={"Location": f"http://{other.host}{exchange.call.path}"})

    fill(fake)
    fake.auth = "basic"
    fake.on("GET", "/blobs/", elsewhere, times=1 + len(IMAGE.blobs()))  # the first of them is asked for twice (401)
    with listening() as heard:
        pull(fake, credentials(tmp_path, fake))
    assert heard == {fake.host, other.host}
    assert {c.method for c in other.calls} == {"GET"}
    assert other.secrets() == []


def test_netrc_is_for_others(
    fake: FakeRegistry, tmp_path: Path, clean_environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in (clean_environment / ".netrc", clean_environment / "_netrc", tmp_path / "netrc"):
        file.write_text(f"machine 127.0.0.1 login {USER} password {PASSWORD}\ndefault login x password y\n")
        file.chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    push(fake)
    fill(fake)
    pull(fake)
    assert fake.secrets() == []
    fake.auth = "basic"
    with pytest.raises(AuthError):
        pull(fake)
    assert fake.secrets() == []
