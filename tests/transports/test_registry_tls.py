"""Certificates and proxies on the way to a real registry."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from ociforge.errors import RegistryError
from ociforge.oci.reference import Reference
from ociforge.publish import publish
from ociforge.transports.options import RegistryOptions
from ociforge.transports.registry import RegistryDestination, RegistrySource
from tests.support.fake_registry import running_fake
from tests.support.http_proxy import HTTPProxy, running_http_proxy
from tests.support.memory import MemoryDestination, sample_image
from tests.support.registry import Registry, running_registry
from tests.support.tls import Authority, new_authority

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

IMAGE = sample_image()
SECRET = "pr0xy-secret"


@dataclass(frozen=True)
class Keys:
    """An authority, another one, and what they have issued to servers and clients."""

    authority: Authority
    stranger: Authority
    server: tuple[Path, Path]
    client: tuple[Path, Path]
    impostor: tuple[Path, Path]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    directory = tmp_path_factory.mktemp("keys")
    authority, stranger = new_authority(directory / "own"), new_authority(directory / "strange", "stranger")
    return Keys(
        authority=authority,
        stranger=stranger,
        server=authority.issue("server"),
        client=authority.issue("client"),
        impostor=stranger.issue("impostor"),
    )


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory, keys: Keys) -> Iterator[Registry]:
    with running_registry(tmp_path_factory.mktemp("secure"), certificate=keys.server) as running:
        yield running


@pytest.fixture(scope="module")
def mutual(tmp_path_factory: pytest.TempPathFactory, keys: Keys) -> Iterator[Registry]:
    """A registry that lets in only who has a certificate of the authority."""
    directory = tmp_path_factory.mktemp("mutual")
    with running_registry(directory, certificate=keys.server, clients=keys.authority.certificate) as running:
        yield running


@pytest.fixture
def proxy() -> Iterator[HTTPProxy]:
    with running_http_proxy("user", SECRET) as running:
        yield running


def place(host: str, tag: str = "v1") -> Reference:
    return Reference(registry=host, repository="team/app", tag=tag)


def there_and_back(reference: Reference, options: RegistryOptions) -> None:
    publish(IMAGE, RegistryDestination(reference, options))
    source, copy = RegistrySource(reference, options), MemoryDestination()
    publish(source, copy)
    source.close()
    assert copy.contents == IMAGE.contents


def refused(reference: Reference, options: RegistryOptions) -> RegistryError:
    """The error of a push, which is that of a pull, too."""
    source = RegistrySource(reference, options, sleep=lambda _: None)
    with pytest.raises(RegistryError) as pull:
        source.root()
    source.close()
    with pytest.raises(RegistryError) as push:
        RegistryDestination(reference, options, sleep=lambda _: None).__enter__()
    told = pull.value.message.partition(": no TLS connection: ")[0]  # how far the handshake comes differs
    assert push.value.message.startswith(told.replace("pulling", "pushing", 1))
    return push.value


# -- certificates


def test_the_certificate_of_an_own_authority(secure: Registry, keys: Keys) -> None:
    there_and_back(place(secure.host), RegistryOptions(ca_file=keys.authority.certificate))


def test_the_certificate_of_a_strange_authority(secure: Registry, keys: Keys) -> None:
    error = refused(place(secure.host), RegistryOptions(ca_file=keys.stranger.certificate))
    assert "no TLS connection" in error.message
    assert error.hint is not None and error.hint.startswith("if an authority of your own signed the certificate")


def test_a_client_certificate(mutual: Registry, keys: Keys) -> None:
    there_and_back(place(mutual.host), RegistryOptions(ca_file=keys.authority.certificate, client_cert=keys.client))


def test_a_client_certificate_in_one_file_with_its_key(mutual: Registry, keys: Keys, tmp_path: Path) -> None:
    both = tmp_path / "both.pem"
    both.write_bytes(b"".join(path.read_bytes() for path in keys.client))
    there_and_back(place(mutual.host, "v2"), RegistryOptions(ca_file=keys.authority.certificate, client_cert=both))


@pytest.mark.parametrize("shown", [False, True])
def test_without_the_right_client_certificate(mutual: Registry, keys: Keys, shown: bool) -> None:
    options = RegistryOptions(ca_file=keys.authority.certificate, client_cert=keys.impostor if shown else None)
    error = refused(place(mutual.host), options)
    assert "no TLS connection" in error.message
    assert error.hint == "the registry may ask for a client certificate: name one that it accepts with `--client-cert`"
    assert not any(line.endswith("200") and "/team/app/manifests/v9" in line for line in mutual.requests())


# -- proxies


def test_https_goes_through_a_tunnel(
    secure: Registry, keys: Keys, proxy: HTTPProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose other end only the proxy can find."""
    monkeypatch.setenv("HTTPS_PROXY", proxy.url)
    host = f"registry.test:{secure.host.partition(':')[2]}"
    there_and_back(place(host, "tunnel"), RegistryOptions(ca_file=keys.authority.certificate))
    assert set(proxy.seen) == {f"CONNECT {host}"}
    assert len(proxy.seen) <= 4  # one for each connection, not for each request


def test_http_goes_by_way_of_the_proxy(proxy: HTTPProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    monkeypatch.setenv("http_proxy", proxy.url)
    monkeypatch.setattr(socket, "getaddrinfo", only(proxy))
    with running_fake() as fake:
        host = f"registry.test:{fake.host.partition(':')[2]}"
        fake.location = "{path}"
        there_and_back(place(host), RegistryOptions(insecure=True))
        assert proxy.seen
        assert {line.split("/")[2] for line in proxy.seen} == {host}
        assert len(proxy.seen) == len(fake.calls)
        assert all("Proxy-Authorization" not in call.headers for call in fake.calls)


def test_hosts_without_proxy(secure: Registry, keys: Keys, proxy: HTTPProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    port = secure.host.partition(":")[2]
    monkeypatch.setenv("HTTPS_PROXY", proxy.url)
    monkeypatch.setenv("NO_PROXY", "example.com,.test")
    monkeypatch.setattr(socket, "getaddrinfo", only("registry.test"))
    there_and_back(place(f"registry.test:{port}", "direct"), RegistryOptions(ca_file=keys.authority.certificate))
    assert proxy.seen == []


def test_loopback_needs_no_proxy(proxy: HTTPProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, proxy.url)
    with running_fake() as fake:
        there_and_back(place(fake.host), RegistryOptions())
    assert proxy.seen == []


@pytest.mark.parametrize(("password", "up"), [("wrong-" + SECRET, True), (SECRET, False)])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_does_not_help_is_told_of_without_its_password(
    keys: Keys, proxy: HTTPProxy, monkeypatch: pytest.MonkeyPatch, scheme: str, password: str, up: bool
) -> None:
    url = proxy.url.replace(SECRET, password)
    if not up:
        with socket.create_server(("127.0.0.1", 0)) as server:
            url = url.rpartition(":")[0] + f":{server.getsockname()[1]}"
    monkeypatch.setenv(f"{scheme}_proxy", url)
    monkeypatch.setattr(socket, "getaddrinfo", only(proxy))
    options = RegistryOptions(insecure=scheme == "http")
    error = refused(place("registry.test:5000"), options)
    shown = f"{error} {error.hint} {error.__cause__} {error.__context__}"
    assert SECRET not in shown and "user" not in shown
    assert "proxy" in shown.lower()
    assert ("407" in shown) == up


def only(known: HTTPProxy | str) -> Any:
    """A resolver that knows addresses, and at most one name."""
    real = socket.getaddrinfo

    def resolve(host: str, *args: Any, **kwargs: Any) -> Any:
        if host == known or host.replace(".", "").isdigit():
            return real("127.0.0.1", *args, **kwargs)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    return resolve
