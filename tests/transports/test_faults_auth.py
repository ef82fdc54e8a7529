"""Passwords and tokens, counted: at real registries where they are checked, at a fake where they die."""

from __future__ import annotations

import base64
import io
import json
import logging
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Literal

import pytest

from layers.digest import Digest
from ociforge.errors import AuthError, ForgeError, RegistryError
from ociforge.oci.descriptor import Descriptor
from ociforge.oci.reference import Reference
from ociforge.publish import publish
from ociforge.transports.auth import CredentialStore
from ociforge.transports.base import Blob
from ociforge.transports.registry import ForgeRegistry, RegistryDestination, RegistrySource
from tests.support import fake_registry
from tests.support.fake_registry import FakeRegistry, answer, error_body, hang_up, running_fake
from tests.support.memory import MemoryDestination, sample_image
from tests.support.registry import PASSWORD, USER, Registry
from tests.transports.registry_tools import no_sleep, octets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.token_server import TokenServer


@pytest.fixture
def fake() -> Iterator[FakeRegistry]:
    with running_fake() as registry:
        yield registry


@pytest.fixture
def tokens(token_server: TokenServer) -> TokenServer:
    """The service of the token registry, which has not been asked yet."""
    token_server.asked.clear()
    token_server.life = 300
    return token_server


def store(directory: Path, host: str, password: str = PASSWORD, user: str = USER) -> CredentialStore:
    file = directory / "auth.json"
    pair = base64.b64encode(f"{user}:{password}".encode()).decode()
    file.write_text(json.dumps({"auths": {host: {"auth": pair}}}))
    return CredentialStore(files=(file,))


def place(host: str, repository: str) -> Reference:
    return Reference(registry=host, repository=repository, tag="v1")


def blob_requests(registry: Registry, repository: str) -> list[str]:
    """What was asked of a repository's blobs: method and status."""
    lines = (line.split() for line in registry.requests())
    return [f"{method} {status}" for method, path, status in lines if path.startswith(f"/v2/{repository}/blobs/")]


def all_at_once(number: int, work: Callable[[int], object]) -> None:
    """`work` in so many threads, which begin together; their errors are raised."""
    barrier = threading.Barrier(number)

    def run(index: int) -> None:
        barrier.wait()
        work(index)

    with ThreadPoolExecutor(number) as pool:
        list(pool.map(run, range(number)))


# -- numbers that are promised


def test_24_uploads_by_8_threads_to_one_repository_cost_one_token(
    token_registry: Registry, tokens: TokenServer, tmp_path: Path
) -> None:
    client = ForgeRegistry(place(token_registry.host, "many/one"), None, store(tmp_path, token_registry.host))
    all_at_once(8, lambda n: [client.push_blob(octets(f"{n} {i}".encode())) for i in range(3)])
    client.close()
    assert tokens.asked == [("repository:many/one:pull,push",)]
    assert blob_requests(token_registry, "many/one").count("PUT 201") == 24


def test_24_uploads_by_8_threads_to_three_repositories_cost_three_tokens(
    token_registry: Registry, tokens: TokenServer, tmp_path: Path
) -> None:
    credentials = store(tmp_path, token_registry.host)
    names = ["many/a", "many/b", "many/c"]
    clients = [ForgeRegistry(place(token_registry.host, name), None, credentials) for name in names]
    all_at_once(8, lambda n: [client.push_blob(octets(f"{n}".encode())) for client in clients])
    for client in clients:
        client.close()
    assert sorted(tokens.asked) == [(f"repository:{name}:pull,push",) for name in names]
    assert [blob_requests(token_registry, name).count("PUT 201") for name in names] == [8, 8, 8]


def test_push_pull_mount_tag_and_list_ask_for_each_set_of_scopes_once(
    token_registry: Registry, tokens: TokenServer, tmp_path: Path
) -> None:
    credentials = store(tmp_path, token_registry.host)
    image = sample_image([{"etc/walk": b"through"}])
    publish(image, RegistryDestination(place(token_registry.host, "walk/base"), None, credentials))
    source = RegistrySource(place(token_registry.host, "walk/base"), None, credentials)
    publish(source, MemoryDestination())
    published = publish(source, RegistryDestination(place(token_registry.host, "walk/app"), None, credentials))
    source.close()
    assert published.blobs["mounted"].count == 2
    client = ForgeRegistry(place(token_registry.host, "walk/app"), None, credentials)
    assert client.get_tags(f"{token_registry.host}/walk/app") == ["v1"]
    client.close()
    assert tokens.asked == [
        ("repository:walk/base:pull,push",),
        ("repository:walk/base:pull",),
        ("repository:walk/app:pull,push",),
        ("repository:walk/base:pull", "repository:walk/app:pull,push"),
        ("repository:walk/app:pull",),
    ]


def test_a_wrong_password_costs_two_requests_and_no_time(password_registry: Registry, tmp_path: Path) -> None:
    slept: list[float] = []
    before = len(password_registry.requests())
    credentials = store(tmp_path, password_registry.host, "wrong")
    destination = RegistryDestination(place(password_registry.host, "team/app"), None, credentials, sleep=slept.append)
    with pytest.raises(AuthError):
        publish(sample_image(), destination)
    assert [line.split()[2] for line in password_registry.requests()[before:]] == ["401", "401"]
    assert slept == []


def test_a_wrong_password_costs_one_request_for_a_token(
    token_registry: Registry, tokens: TokenServer, tmp_path: Path
) -> None:
    slept: list[float] = []
    before = len(token_registry.requests())
    credentials = store(tmp_path, token_registry.host, "wrong")
    destination = RegistryDestination(place(token_registry.host, "team/app"), None, credentials, sleep=slept.append)
    with pytest.raises(AuthError):
        publish(sample_image(), destination)
    assert (len(token_registry.requests()) - before, len(tokens.asked)) == (1, 1)
    assert slept == []


def test_forbidden_costs_one_request_and_no_time(fake: FakeRegistry, tmp_path: Path) -> None:
    for method in ("GET", "HEAD", "POST", "PUT"):
        fake.on(method, "", answer(403, error_body("DENIED")), times=9)
    slept: list[float] = []
    destination = RegistryDestination(
        place(fake.host, "team/app"), None, store(tmp_path, fake.host), sleep=slept.append
    )
    with pytest.raises(AuthError):
        publish(sample_image(), destination)
    assert (len(fake.calls), slept) == (1, [])


def test_base_blobs_that_the_tag_holds_cost_no_request(open_registry: Registry) -> None:
    base = [{"usr/one": b"1"}, {"usr/two": b"2"}]
    old, new = sample_image([*base, {"app/old": b""}]), sample_image([*base, {"app/new": b""}])
    publish(old, RegistryDestination(place(open_registry.host, "zero/base")))
    before = len(open_registry.requests())
    published = publish(new, RegistryDestination(place(open_registry.host, "zero/base")))
    assert published.blobs["exists"].count == 2
    shared = [str(blob.digest) for blob in new.blobs()[1:3]]
    assert not any(digest in line for line in open_registry.requests()[before:] for digest in shared)
    assert not set(new.opened) & {blob.digest for blob in new.blobs()[1:3]}


def test_base_blobs_that_are_there_under_another_tag_cost_a_head_and_no_upload(open_registry: Registry) -> None:
    image = sample_image([{"usr/base": b"there"}])
    publish(image, RegistryDestination(place(open_registry.host, "zero/other")))
    before = len(open_registry.requests())
    image.opened.clear()
    elsewhere = Reference(registry=open_registry.host, repository="zero/other", tag="v2")
    published = publish(image, RegistryDestination(elsewhere))
    assert published.blobs["exists"].count == 2
    lines = [line for line in open_registry.requests()[before:] if "/blobs/" in line]
    assert {line.split()[0] for line in lines} == {"HEAD"}
    assert not set(image.opened) & {blob.digest for blob in image.blobs()}


# -- tokens that die


def test_a_token_that_expires_between_the_beginning_and_the_body_is_renewed_once(
    token_registry: Registry, tokens: TokenServer, tmp_path: Path
) -> None:
    """The registry's own clock decides; the service promises more than its tokens keep."""
    tokens.life, tokens.promised = 2, 300  # 1 may be over before the upload begins
    data = bytes(range(256)) * 1000
    descriptor = Descriptor(media_type="x/y", digest=Digest.of(data), size=len(data))
    opened: list[float] = []

    def late() -> io.BytesIO:
        if not opened:
            opened.append(time.time())
            time.sleep(3 - time.time() % 1)
        tokens.life = 300
        return io.BytesIO(data)

    client = ForgeRegistry(place(token_registry.host, "short/life"), None, store(tmp_path, token_registry.host))
    assert client.push_blob(Blob(descriptor=descriptor, open=late)) == "uploaded"
    client.close()
    tokens.promised = None
    assert len(tokens.asked) == 2
    uploads = blob_requests(token_registry, "short/life")
    assert uploads.count("PUT 401") == 1 and uploads[-1] == "PUT 201"


# -- answers before the body was read


@pytest.mark.parametrize("status", [401, 403, 413, 503])
def test_an_answer_before_the_body_was_read_is_understood(fake: FakeRegistry, status: int, tmp_path: Path) -> None:
    """Even when the registry hangs up at once, with most of the body on its way."""
    fake.auth = "basic"
    data = bytes(range(256)) * 20_000

    def rude(registry: FakeRegistry, exchange: fake_registry.Exchange) -> None:
        headers = {"WWW-Authenticate": 'Basic realm="x"', "Connection": "close"}
        exchange.send(status, error_body("EARLY"), headers)
        exchange.wfile.flush()
        exchange.close_connection = True

    rude.unread = True  # type: ignore[attr-defined]
    fake.on("PUT", "uploads", rude)
    credentials = store(tmp_path, fake.host, fake_registry.PASSWORD, fake_registry.USER)
    with RegistryDestination(place(fake.host, "team/app"), None, credentials, sleep=no_sleep) as destination:
        if status in (401, 403):
            with pytest.raises(AuthError, match=f"{status} EARLY"):
                destination.put(octets(data))
        else:
            assert destination.put(octets(data)) == "uploaded"


# -- secrets


SECRET = "hunter2-hunter2"


@pytest.mark.parametrize("fault", ["401", "403", "500", "reset", "token 401", "token 500", "token junk", "location"])
@pytest.mark.parametrize("auth", ["basic", "bearer"])
def test_secrets_are_in_no_log_and_no_error(
    fake: FakeRegistry,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    auth: Literal["basic", "bearer"],
    fault: str,
) -> None:
    """At the most talkative level of every library, with a password, a token, and signed URLs."""
    caplog.set_level(logging.DEBUG)
    fake.auth = auth
    fake.location = f"http://{fake.host}{{path}}?_state={SECRET}"
    faults = {
        "401": ("PUT", "uploads", answer(401)),
        "403": ("PUT", "uploads", answer(403)),
        "500": ("PUT", "uploads", answer(500)),
        "reset": ("PUT", "uploads", hang_up()),
        "token 401": ("GET", "/token", answer(401, f'{{"details": "{SECRET}"}}'.encode())),
        "token 500": ("GET", "/token", answer(500)),
        "token junk": ("GET", "/token", answer(200, f'{{"token": "{SECRET} "}}'.encode())),
        "location": ("POST", "uploads", answer(202, Location=f"ftp://u:{SECRET}@x/?{SECRET}")),
    }
    method, pattern, reply = faults[fault]
    fake.on(method, pattern, reply, times=99)
    credentials = store(tmp_path, fake.host, fake_registry.PASSWORD, fake_registry.USER)
    destination = RegistryDestination(place(fake.host, "team/app"), None, credentials, sleep=no_sleep)
    shown = ""
    try:
        with destination:
            destination.put(octets(b"layer"))
    except ForgeError as error:
        shown = f"{error!r} {error.hint} {''.join(traceback.format_exception(error))} {credentials} {destination}"
    assert bool(shown) != (auth == "basic" and pattern == "/token")  # all but the token's faults meet Basic too
    pair = base64.b64encode(f"{fake_registry.USER}:{fake_registry.PASSWORD}".encode()).decode()
    secrets = {SECRET, fake_registry.PASSWORD, pair, *fake.tokens}
    logged = caplog.text
    assert [secret for secret in secrets if secret in shown] == []
    assert [secret for secret in secrets if secret in logged] == []


def test_a_signed_url_of_a_storage_is_in_no_error(fake: FakeRegistry) -> None:
    data = octets(b"layer")
    signed = f"http://{fake.host}/storage?X-Amz-Signature={SECRET}"
    fake.on("GET", "/blobs/", answer(307, Location=signed), times=99)
    for reply in (answer(403), hang_up(), answer(500), answer(404)):
        fake.rules = fake.rules[:1]
        fake.on("GET", "/storage", reply, times=99)
        source = RegistrySource(place(fake.host, "team/app"), sleep=no_sleep)
        with pytest.raises(RegistryError) as caught:
            source.open(data.descriptor)
        source.close()
        assert SECRET not in f"{caught.value} {''.join(traceback.format_exception(caught.value))}"
