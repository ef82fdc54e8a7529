"""Tokens, passwords, and where they never go. Requests are counted where a number is promised."""

from __future__ import annotations

import base64
import json
import threading
from typing import TYPE_CHECKING

import pytest

from layers.digest import Digest
from ociforge.errors import AuthError, RegistryError
from ociforge.events import CredentialUsed, Event
from ociforge.oci.descriptor import MANIFEST, Descriptor
from ociforge.oci.reference import Reference
from ociforge.transports.auth import CredentialStore
from ociforge.transports.http import Origin, resolve
from ociforge.transports.options import RegistryOptions
from ociforge.transports.registry import ForgeRegistry, RegistryDestination, RegistrySource
from ociforge.transports.tokens import check_realm, parse_challenges, same_domain
from tests.support.fake_registry import (
    IDENTITY,
    PASSWORD,
    USER,
    Exchange,
    FakeRegistry,
    answer,
    running_fake,
)
from tests.support.memory import sample_image
from tests.transports.registry_tools import blob_of, no_sleep, octets

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

OTHER_HOST = "127.0.0.2"


@pytest.fixture
def fake() -> Iterator[FakeRegistry]:
    with running_fake() as registry:
        yield registry


@pytest.fixture
def other() -> Iterator[FakeRegistry]:
    with running_fake(OTHER_HOST) as registry:
        yield registry


def store(tmp_path: Path, fake: FakeRegistry, entry: Mapping[str, str] | None = None) -> CredentialStore:
    pair = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    file = tmp_path / "auth.json"
    file.write_text(json.dumps({"auths": {fake.host: entry or {"auth": pair}}}))
    return CredentialStore(files=(file,))


def wrong(tmp_path: Path, fake: FakeRegistry) -> CredentialStore:
    return store(tmp_path, fake, {"username": USER, "password": "hunter2"})


def reference(fake: FakeRegistry, repository: str = "team/app", tag: str = "v1") -> Reference:
    return Reference(registry=fake.host, repository=repository, tag=tag)


def test_a_push_asks_for_one_token_and_a_pull_for_another(fake: FakeRegistry, tmp_path: Path) -> None:
    fake.auth = "bearer"
    events: list[Event] = []
    image = sample_image()
    with RegistryDestination(reference(fake), None, store(tmp_path, fake), events.append) as destination:
        for blob in image.blobs():
            destination.put(blob_of(image.contents[blob.digest], blob.media_type))
        destination.put(blob_of(image.contents[image.top.digest], MANIFEST))
        destination.tag(image.top)
    assert [str(c) for c in fake.seen("GET", "token")] == ["GET /token"]
    assert fake.seen("GET", "token")[0].query == {
        "service": ["fake, really"],
        "scope": ["repository:team/app:pull,push"],
    }
    assert [e for e in events if isinstance(e, CredentialUsed)] == [
        CredentialUsed(fake.host, str(tmp_path / "auth.json"))
    ]
    source = RegistrySource(reference(fake), None, store(tmp_path, fake))
    assert source.root().digest == image.top.digest
    for blob in image.blobs():
        with source.open(blob) as stream:
            assert stream.read() == image.contents[blob.digest]
    assert fake.issued == 2
    source.close()


def test_no_body_crosses_before_the_registry_knows_us(fake: FakeRegistry, tmp_path: Path) -> None:
    fake.auth = "basic"
    with RegistryDestination(reference(fake), None, store(tmp_path, fake)) as destination:
        destination.put(octets(b"x" * 1000))
        destination.put(octets(b"y" * 1000))
    assert [len(c.body) for c in fake.seen("PUT")] == [1000, 1000]
    assert [c.headers.get("Authorization") is None for c in fake.calls] == [True, *[False] * (len(fake.calls) - 1)]


def test_a_mount_asks_for_both_repositories(fake: FakeRegistry, tmp_path: Path) -> None:
    fake.auth = "bearer"
    digest = fake.add_blob("base/ubuntu", b"layer")
    blob = octets(b"layer", origin=Reference(registry=fake.host, repository="base/ubuntu", digest=digest))
    with RegistryDestination(reference(fake), None, store(tmp_path, fake)) as destination:
        assert destination.put(blob) == "mounted"
    assert [c.query["scope"] for c in fake.seen("GET", "token")] == [
        ["repository:team/app:pull,push"],
        ["repository:base/ubuntu:pull", "repository:team/app:pull,push"],
    ]


def test_many_threads_ask_for_one_token_per_repository(fake: FakeRegistry, tmp_path: Path) -> None:
    fake.auth = "bearer"
    credentials = store(tmp_path, fake)
    destinations = [RegistryDestination(reference(fake, name), None, credentials) for name in ("a", "b", "c")]
    failures: list[Exception] = []

    def push(number: int) -> None:
        try:
            for destination in destinations:
                destination.put(octets(f"blob {number}".encode()))
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=push, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for destination in destinations:
        destination.__exit__(None, None, None)
    assert failures == []
    assert fake.issued == 3
    assert len(fake.blobs) == 24


def test_an_expired_token_is_renewed_before_it_is_used(fake: FakeRegistry, tmp_path: Path) -> None:
    fake.auth, fake.token_life = "bearer", 100
    now = [0.0]
    registry = ForgeRegistry(reference(fake), None, store(tmp_path, fake), clock=lambda: now[0])
    descriptor = octets(b"x").descriptor
    for now[0] in (0.0, 89.0, 91.0):  # a tenth of its life is kept as a margin
        registry.has(descriptor)
    registry.close()
    assert fake.issued == 2
    assert [c.path for c in fake.calls if c.path != "/token"] == [f"/v2/team/app/blobs/{descriptor.digest}"] * 4


def test_a_token_that_dies_during_the_upload_is_renewed_once(fake: FakeRegistry, tmp_path: Path) -> None:
    fake.auth = "bearer"
    data = b"z" * 300_000

    def die(registry: FakeRegistry, exchange: Exchange) -> None:
        registry.tokens.clear()
        FakeRegistry.serve(registry, exchange)

    fake.on("PUT", "uploads", die)
    with RegistryDestination(reference(fake), None, store(tmp_path, fake)) as destination:
        assert destination.put(octets(data)) == "uploaded"
    assert fake.issued == 2
    assert [c.body == data for c in fake.seen("PUT")] == [True, True]


@pytest.mark.parametrize("auth", ["basic", "bearer"])
def test_a_wrong_password_is_tried_once(fake: FakeRegistry, tmp_path: Path, auth: str) -> None:
    fake.auth = "basic" if auth == "basic" else "bearer"
    slept: list[float] = []
    registry = ForgeRegistry(reference(fake), None, wrong(tmp_path, fake), sleep=slept.append)
    for _ in range(3):
        with pytest.raises(AuthError) as caught:
            registry.has(octets(b"x").descriptor)
        assert "401 UNAUTHORIZED" in caught.value.message or "401" in caught.value.message
        assert caught.value.hint is not None and "ociforge login" in caught.value.hint
        assert caught.value.message.endswith(f": the credential from `{tmp_path}/auth.json` was refused")
        assert "hunter2" not in f"{caught.value.message}{caught.value.hint}"
    registry.close()
    with_password = [c for c in fake.calls if "Authorization" in c.headers]
    assert len(with_password) == 1
    assert slept == []
    assert len(fake.calls) <= 2 + (0 if auth == "basic" else 2)


def test_a_wrong_password_costs_two_requests(fake: FakeRegistry, tmp_path: Path) -> None:
    for fake.auth in ("basic", "bearer"):
        fake.calls.clear()
        with pytest.raises(AuthError):
            RegistrySource(reference(fake), None, wrong(tmp_path, fake), sleep=no_sleep).root()
        assert len(fake.calls) == 2


def test_forbidden_is_final(fake: FakeRegistry, tmp_path: Path) -> None:
    body = b'{"errors": [{"code": "DENIED", "message": "requested access to the resource is denied"}]}'
    fake.on("HEAD", "", answer(403), times=9)
    fake.on("GET", "", answer(403, body), times=9)
    with pytest.raises(AuthError):
        RegistrySource(reference(fake), None, store(tmp_path, fake), sleep=no_sleep).root()
    assert len(fake.calls) == 1
    with pytest.raises(AuthError) as caught:
        RegistrySource(reference(fake), sleep=no_sleep).open(octets(b"x").descriptor)
    assert caught.value.message.endswith("403 DENIED: requested access to the resource is denied")
    assert len(fake.calls) == 2
    assert fake.secrets() == []


def test_without_credentials_the_hint_says_what_to_do(fake: FakeRegistry) -> None:
    fake.auth = "basic"
    with pytest.raises(AuthError) as caught:
        RegistrySource(reference(fake), sleep=no_sleep).root()
    url = f"http://{fake.host}/v2/team/app/manifests/v1"
    assert caught.value.message == f"pulling `{reference(fake)}`: HEAD `{url}`: 401 Unauthorized"
    assert caught.value.hint == f"log in with `ociforge login {fake.host}`, or set REGISTRY_AUTH_FILE"
    assert len(fake.calls) == 1


@pytest.mark.parametrize("auth", ["basic", "bearer"])
def test_where_no_credential_was_found_is_told(fake: FakeRegistry, tmp_path: Path, auth: str) -> None:
    fake.auth = "basic" if auth == "basic" else "bearer"
    fake.on("GET", "/token", answer(401))
    credentials = CredentialStore(files=(tmp_path / "a.json", tmp_path / "b.json"))
    with pytest.raises(AuthError) as caught:
        RegistrySource(reference(fake), None, credentials, sleep=no_sleep).root()
    assert caught.value.hint == (
        f"no credential for `{fake.host}` in `{tmp_path}/a.json`, `{tmp_path}/b.json`: "
        f"log in with `ociforge login {fake.host}`, or set REGISTRY_AUTH_FILE"
    )


def test_a_right_that_is_lacking_is_not_a_wrong_credential(fake: FakeRegistry, tmp_path: Path) -> None:
    fake.auth = "bearer"
    fake.on("GET", "/token", answer(403))
    for _ in range(2):  # refused by the token service, then by the registry, which is not content with its token
        with pytest.raises(AuthError) as caught:
            RegistrySource(reference(fake), None, store(tmp_path, fake), sleep=no_sleep).root()
        assert "was refused" not in caught.value.message
        assert caught.value.hint is not None
        assert f"the account of the credential from `{tmp_path}/auth.json` may lack the right" in caught.value.hint
        challenge = f'Bearer realm="http://{fake.host}/token",service="x"'
        fake.on("HEAD", "", answer(401, WWW_Authenticate=challenge), times=2)


def test_a_token_where_a_password_is_asked_for(fake: FakeRegistry, tmp_path: Path) -> None:
    fake.auth = "basic"
    with pytest.raises(AuthError) as caught:
        RegistrySource(reference(fake), None, store(tmp_path, fake, {"identitytoken": IDENTITY})).root()
    assert caught.value.message.endswith(
        f"the registry asks for a password, but the credential from `{tmp_path}/auth.json` is a token"
    )
    assert fake.secrets() == []


def test_an_identity_token_is_exchanged(fake: FakeRegistry, tmp_path: Path) -> None:
    fake.auth = "bearer"
    fake.add_manifest("team/app", "v1", MANIFEST, b"{}")
    source = RegistrySource(reference(fake), None, store(tmp_path, fake, {"identitytoken": IDENTITY}))
    assert source.root().digest == Digest.of(b"{}")
    source.close()
    (call,) = fake.seen("POST", "token")
    assert "Authorization" not in call.headers
    assert b"grant_type=refresh_token" in call.body and b"scope=repository%3Ateam%2Fapp%3Apull" in call.body


def test_a_registry_token_is_used_as_it_is(fake: FakeRegistry, tmp_path: Path) -> None:
    fake.auth = "bearer"
    fake.tokens["given"] = frozenset({"repository:team/app:pull"})
    fake.add_manifest("team/app", "v1", MANIFEST, b"{}")
    source = RegistrySource(reference(fake), None, store(tmp_path, fake, {"registrytoken": "given"}))
    source.root()
    source.close()
    assert fake.issued == 0
    assert fake.secrets() == ["Bearer given"]


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"{}", 200), (b"[]", 200), (b'{"token": 1}', 200), (b'{"token": "a b"}', 200), (b"junk", 200), (b"", 302)],
)
def test_token_services_that_answer_nonsense(fake: FakeRegistry, body: bytes, status: int) -> None:
    fake.auth = "bearer"
    fake.on("GET", "/token", answer(status, body, Location=f"http://{fake.host}/else"))
    with pytest.raises(RegistryError):
        RegistrySource(reference(fake), sleep=no_sleep).root()
    assert [str(c) for c in fake.calls] == ["HEAD /v2/team/app/manifests/v1", "GET /token"]


def test_a_token_service_that_is_busy_is_asked_again(fake: FakeRegistry) -> None:
    fake.auth = "bearer"
    fake.add_manifest("team/app", "v1", MANIFEST, b"{}")
    fake.on("GET", "/token", answer(503))
    source = RegistrySource(reference(fake), sleep=no_sleep)
    source.root()
    source.close()
    assert len(fake.seen("GET", "/token")) == 2


# -- leaks


def test_a_realm_on_another_host_gets_nothing(fake: FakeRegistry, other: FakeRegistry, tmp_path: Path) -> None:
    fake.auth, fake.realm = "bearer", f"http://{other.host}/token"
    with pytest.raises(AuthError, match="a private address that is not the registry's own"):
        RegistrySource(reference(fake), None, store(tmp_path, fake), sleep=no_sleep).root()
    assert other.calls == []
    assert fake.secrets() == []


def test_a_redirect_target_gets_no_credentials_and_cannot_ask_for_them(
    fake: FakeRegistry, other: FakeRegistry, tmp_path: Path
) -> None:
    fake.auth = "bearer"
    blob = octets(b"layer")
    other.add_blob("elsewhere", b"layer")

    def redirect(registry: FakeRegistry, exchange: Exchange) -> None:
        target = f"http://{other.host}/v2/elsewhere/blobs/{blob.descriptor.digest}?signature=hunter2"
        if "Authorization" in exchange.call.headers:
            exchange.send(307, headers={"Location": target})
        else:
            FakeRegistry.serve(registry, exchange)

    fake.on("GET", "/blobs/", redirect, times=9)
    source = RegistrySource(reference(fake), None, store(tmp_path, fake), sleep=no_sleep)
    with source.open(blob.descriptor) as stream:
        assert stream.read() == b"layer"
    assert [c.target.partition("?")[2] for c in other.calls] == ["signature=hunter2"]
    other.auth = "basic"
    with pytest.raises(RegistryError) as caught:
        source.open(blob.descriptor)
    source.close()
    assert not isinstance(caught.value, AuthError)
    assert "hunter2" not in f"{caught.value} {caught.value.__cause__}"
    assert other.secrets() == []


def test_an_upload_on_another_host_gets_the_blob_but_no_credentials(
    fake: FakeRegistry, other: FakeRegistry, tmp_path: Path
) -> None:
    fake.auth = "bearer"
    other.sessions["s0"] = b""
    fake.location = f"http://{other.host}/v2/team/app/blobs/uploads/s0?signed=yes"
    with RegistryDestination(reference(fake), None, store(tmp_path, fake), sleep=no_sleep) as destination:
        destination.put(octets(b"layer"))
    (call,) = other.calls
    assert (call.body, call.query["signed"]) == (b"layer", ["yes"])
    assert other.secrets() == []


def test_challenges_at_every_hop_end(fake: FakeRegistry, tmp_path: Path) -> None:
    def turn(registry: FakeRegistry, exchange: Exchange) -> None:
        if "Authorization" in exchange.call.headers and len(registry.calls) % 2 == 0:
            exchange.send(307, headers={"Location": f"{exchange.call.path}x"})
        else:
            exchange.send(401, headers={"WWW-Authenticate": 'Basic realm="again"'})

    fake.on("HEAD", "", turn, times=100)
    with pytest.raises(RegistryError):
        RegistrySource(reference(fake), None, store(tmp_path, fake), sleep=no_sleep).root()
    assert len(fake.calls) <= 12


def test_redirects_are_bounded(fake: FakeRegistry) -> None:
    fake.on("HEAD", "", answer(307, Location="again?secret=1"), times=100)
    with pytest.raises(RegistryError) as caught:
        RegistrySource(reference(fake), sleep=no_sleep).root()
    url = f"http://{fake.host}/v2/team/app/manifests/v1"
    assert caught.value.message == f"pulling `{reference(fake)}`: HEAD `{url}`: more than 5 redirects"
    assert len(fake.calls) == 6


def test_netrc_is_not_read(
    fake: FakeRegistry, other: FakeRegistry, monkeypatch: pytest.MonkeyPatch, clean_environment: Path
) -> None:
    (clean_environment / ".netrc").write_text(
        "".join(f"machine {host} login netrc password netrc\n" for host in ("127.0.0.1", OTHER_HOST))
    )
    (clean_environment / ".netrc").chmod(0o600)
    blob = octets(b"layer")
    other.add_blob("elsewhere", b"layer")
    fake.on("GET", "/blobs/", answer(302, Location=f"http://{other.host}/v2/elsewhere/blobs/{blob.descriptor.digest}"))
    # As if it were no loopback host: only then does the session look at the environment at all.
    monkeypatch.setattr(Origin, "is_loopback", False)
    source = RegistrySource(reference(fake), RegistryOptions(insecure=True), sleep=no_sleep)
    with source.open(blob.descriptor) as stream:
        assert stream.read() == b"layer"
    source.close()
    assert fake.secrets() == other.secrets() == []


def test_plain_http_only_where_nobody_can_listen() -> None:
    def scheme(registry: str) -> str:
        client = ForgeRegistry(Reference.parse(f"{registry}/a:b"))
        client.close()
        return str(client.prefix)

    for loopback in ("localhost", "localhost:5000", "127.0.0.1:5000", "127.1.2.3", "[::1]:5000"):
        assert scheme(loopback) == "http"
    for remote in ("r.io", "10.0.0.1:5000", "localhost.example.com", "docker.io/library"):
        assert scheme(remote) == "https"


def test_no_credential_crosses_before_the_scheme_is_settled(fake: FakeRegistry, tmp_path: Path) -> None:
    fake.auth = "basic"
    options = RegistryOptions(insecure=True)
    with RegistryDestination(reference(fake), options, store(tmp_path, fake), sleep=no_sleep) as destination:
        destination.put(octets(b"x"))
    assert [str(call).split()[0] for call in fake.calls] == ["HEAD", "HEAD", "HEAD", "POST", "PUT"]
    assert "Authorization" not in fake.calls[0].headers


def test_a_registry_that_is_down_is_told_of_under_insecure_too(tmp_path: Path) -> None:
    down = Reference(registry="127.0.0.1:1", repository="team/app", tag="v1")
    with pytest.raises(RegistryError) as caught:
        RegistrySource(down, RegistryOptions(insecure=True), sleep=no_sleep).root()
    url = "http://127.0.0.1:1/v2/team/app/manifests/v1"
    assert caught.value.message == f"pulling `{down}`: HEAD `{url}`: connection refused"


@pytest.mark.parametrize(
    ("registry", "realm"),
    [
        ("https://r.io", "https://r.io/token"),
        ("https://r.io", "https://auth.example.com/token"),
        ("https://10.0.0.1", "https://10.0.0.1:8443/token"),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5001/token"),
        ("http://127.0.0.1:5000", "http://auth.example.com/token"),
    ],
)
def test_realms_that_may_be(registry: str, realm: str) -> None:
    assert check_realm(realm, Origin.of(registry)) == Origin.of(realm)


@pytest.mark.parametrize(
    ("realm", "why"),
    [
        ("http://r.io/token", "plain http, though the registry speaks https"),
        ("https://127.0.0.1/token", "a private address that is not the registry's own"),
        ("https://10.1.2.3/token", "a private address that is not the registry's own"),
        ("https://169.254.169.254/latest", "a private address that is not the registry's own"),
        ("https://[::1]/token", "a private address that is not the registry's own"),
        ("https://[fe80::1]/token", "a private address that is not the registry's own"),
        ("https://localhost/token", "a private address that is not the registry's own"),
        ("https://x.localhost/token", "a private address that is not the registry's own"),
        ("file:///etc/passwd", "not an http or https URL"),
        ("https://user:hunter2@r.io/token", "not an http or https URL"),
        ("basic-realm", "not an http or https URL"),
    ],
)
def test_realms_that_may_not_be(realm: str, why: str) -> None:
    with pytest.raises(AuthError) as caught:
        check_realm(realm, Origin.of("https://r.io"))
    assert caught.value.message.endswith(why)
    assert "hunter2" not in caught.value.message


@pytest.mark.parametrize(
    ("header", "challenges"),
    [
        ('Bearer realm="https://a/t",service="s"', [("bearer", {"realm": "https://a/t", "service": "s"})]),
        ("BEARER Realm=https", [("bearer", {"realm": "https"})]),
        (
            'Basic realm="a, b", Bearer realm="c",scope="x:y:pull,push x:z:pull"',
            [("basic", {"realm": "a, b"}), ("bearer", {"realm": "c", "scope": "x:y:pull,push x:z:pull"})],
        ),
        ('Bearer realm="a\\"b",service="",error=x', [("bearer", {"realm": 'a"b', "service": "", "error": "x"})]),
        ("Negotiate, Basic", [("negotiate", {}), ("basic", {})]),
        ('realm="x"', []),
        ("", []),
        (',,  "" =', []),
    ],
)
def test_challenges(header: str, challenges: list[tuple[str, dict[str, str]]]) -> None:
    assert [(c.scheme, c.parameters) for c in parse_challenges(header)] == challenges


@pytest.mark.parametrize(
    ("base", "location", "url"),
    [
        ("https://r.io/v2/a/blobs/uploads/", "/v2/a/x?s=1", "https://r.io/v2/a/x?s=1"),
        ("https://r.io/v2/a/blobs/uploads/", "x?s=&s=%2f", "https://r.io/v2/a/blobs/uploads/x?s=&s=%2f"),
        ("https://r.io/v2/", "//s.io/x", "https://s.io/x"),
        ("https://r.io/v2/", "http://r.io/x?a#b", "https://r.io/x?a"),
        ("https://s.io/v2/", "http://r.io/x", "https://r.io/x"),
        ("http://r.io/v2/", "https://s.io/x", "https://s.io/x"),
        ("http://r.io/v2/", "http://s.io/x", "http://s.io/x"),
    ],
)
def test_locations(base: str, location: str, url: str) -> None:
    assert resolve(base, location, Origin.of("https://r.io")) == url


@pytest.mark.parametrize(
    "location", ["", None, "http://s.io/x?hunter2", "ftp://r.io/x", "https://u:p@r.io/", "a b", "é"]
)
def test_locations_that_are_refused(location: str | None) -> None:
    with pytest.raises(RegistryError) as caught:
        resolve("https://r.io/v2/?hunter2", location, Origin.of("https://r.io"))
    assert "hunter2" not in caught.value.message and "u:p" not in caught.value.message


def test_credentials_stay_in_the_domain_of_the_registry() -> None:
    same = [("auth.docker.io", "registry-1.docker.io"), ("gitlab.com", "registry.gitlab.com"), ("a.r.io", "r.io")]
    assert all(same_domain(*pair) for pair in same)
    different = [
        ("evil.com", "r.io"),
        ("evil.io", "r.io"),
        ("evilr.io", "r.io"),
        ("r.io.evil.com", "r.io"),
        ("9.0.0.1", "1.0.0.1"),
    ]
    assert not any(same_domain(*pair) for pair in different)


def test_a_descriptor_of_another_kind_is_asked_for_elsewhere(fake: FakeRegistry) -> None:
    digest = fake.add_manifest("team/app", "v1", MANIFEST, b"{}")
    registry = ForgeRegistry(reference(fake))
    assert registry.has(Descriptor(media_type=MANIFEST, digest=digest, size=2))
    assert not registry.has(Descriptor(media_type="application/x", digest=digest, size=2))
    registry.close()
