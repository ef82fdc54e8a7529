"""Against a real registry, read by others."""

from __future__ import annotations

import base64
import io
import json
import socket
import subprocess
import threading
import tracemalloc
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING

import pytest

from ociforge.errors import AuthError, RegistryError
from ociforge.oci.descriptor import MANIFEST, Descriptor, parse_json
from ociforge.oci.reference import Reference
from ociforge.publish import publish
from ociforge.transports.auth import CredentialStore
from ociforge.transports.base import Blob
from ociforge.transports.options import RegistryOptions
from ociforge.transports.registry import ForgeRegistry, RegistryDestination, RegistrySource
from tests.support.memory import MemoryDestination, index_of, sample_image
from tests.support.registry import PASSWORD, USER, Registry, running_registry
from tests.support.tools import need
from tests.transports.registry_tools import no_sleep, octets

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with running_registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry that asks for a password."""
    with running_registry(tmp_path_factory.mktemp("closed"), auth=True) as running:
        yield running


def place(registry: Registry, name: str, tag: str = "v1") -> Reference:
    return Reference(registry=registry.host, repository=name, tag=tag)


def credentials(tmp_path: Path, registry: Registry, password: str = PASSWORD) -> CredentialStore:
    file = tmp_path / "auth.json"
    pair = base64.b64encode(f"{USER}:{password}".encode()).decode()
    file.write_text(json.dumps({"auths": {registry.host: {"auth": pair}}}))
    return CredentialStore(files=(file,))


def test_an_index_there_and_back(registry: Registry) -> None:
    index = index_of(sample_image(), sample_image([{"etc/arm": b"64"}], platform="linux/arm64"))
    published = publish(index, RegistryDestination(place(registry, "team/index")))
    assert published.name == f"{registry.host}/team/index@{index.top.digest}"
    source = RegistrySource(place(registry, "team/index"))
    back = MemoryDestination()
    publish(source, back)
    source.close()
    assert back.contents == index.contents
    inspected = subprocess.run(
        [need("skopeo"), "inspect", "--raw", "--tls-verify=false", f"docker://{registry.host}/team/index:v1"],
        capture_output=True,
        check=True,
    )
    assert inspected.stdout == index.contents[index.top.digest]


def test_a_second_push_moves_nothing(registry: Registry) -> None:
    image = sample_image()
    publish(image, RegistryDestination(place(registry, "team/twice")))
    before = len(registry.requests())
    published = publish(image, RegistryDestination(place(registry, "team/twice")))
    assert published.blobs["exists"].count == 3
    assert [line.split()[0] for line in registry.requests()[before:]] == ["HEAD", "GET", "HEAD"]


def test_a_second_push_of_many_layers_asks_little(registry: Registry) -> None:
    """One of two platforms has changed in one layer of 45: what it shares with the image behind the tag is not asked
    for, and what is not there is asked for once.
    """
    files = [{f"etc/{number}": b"%d" % number} for number in range(45)]
    old = index_of(sample_image(files), sample_image(files, platform="linux/arm64"))
    publish(old, RegistryDestination(place(registry, "team/many")))
    before = len(registry.requests())
    publish(old, RegistryDestination(place(registry, "team/many")))
    assert [line.split()[0] for line in registry.requests()[before:]] == ["HEAD", "GET", "GET", "GET", "HEAD"]
    files[44] = {"etc/44": b"new"}
    new = index_of(sample_image(files), sample_image(files, platform="linux/arm64"))
    before = len(registry.requests())
    publish(new, RegistryDestination(place(registry, "team/many")))
    steps = [line.split()[0] for line in registry.requests()[before:]]
    assert steps.count("POST") == 3  # the layer and both configurations
    assert steps.count("HEAD") == 1 + 3  # the tag, the blobs: what names them must be new
    assert steps.count("GET") == 3
    assert steps.count("PUT") == 3 + 3 + 1


def test_blobs_are_mounted_from_a_repository_beside(registry: Registry) -> None:
    image = sample_image([{"etc/mounted": b"yes"}])
    publish(image, RegistryDestination(place(registry, "base/one")))
    source = RegistrySource(place(registry, "base/one"))
    published = publish(source, RegistryDestination(place(registry, "team/mounted")))
    source.close()
    assert published.blobs["mounted"].count == 2


def test_tags_are_listed_and_deleted(registry: Registry) -> None:
    for tag in ("a", "b"):
        publish(sample_image(), RegistryDestination(place(registry, "team/tags", tag)))
    client = ForgeRegistry(place(registry, "team/tags"))
    name = f"{registry.host}/team/tags"
    assert sorted(client.get_tags(name)) == ["a", "b"]
    assert len(client.get_tags(name, N=1)) == 1
    assert client.delete_tag(name, "a")
    client.close()


def test_a_password(closed: Registry, tmp_path: Path) -> None:
    image = sample_image()
    publish(image, RegistryDestination(place(closed, "team/app"), None, credentials(tmp_path, closed)))
    source = RegistrySource(place(closed, "team/app"), None, credentials(tmp_path, closed))
    assert source.root().digest == image.top.digest
    source.close()


def test_a_wrong_password_fails_at_once(closed: Registry, tmp_path: Path) -> None:
    before = len(closed.requests())
    with pytest.raises(AuthError) as caught:
        RegistrySource(place(closed, "team/app"), None, credentials(tmp_path, closed, "wrong")).root()
    assert len(closed.requests()) - before == 2
    assert caught.value.hint is not None
    with pytest.raises(AuthError):
        RegistrySource(place(closed, "team/app")).root()


def test_no_such_image(registry: Registry) -> None:
    with pytest.raises(RegistryError, match=r"has no `v1`.*404 MANIFEST_UNKNOWN: manifest unknown"):
        RegistrySource(place(registry, "team/nothing")).root()


def test_a_manifest_without_its_blobs_is_refused(registry: Registry) -> None:
    image = sample_image([{"etc/never": b"pushed"}])
    manifest = Blob(descriptor=image.top, open=partial(image.open, image.top))
    with (
        RegistryDestination(place(registry, "team/incomplete"), sleep=no_sleep) as destination,
        pytest.raises(RegistryError, match="MANIFEST_BLOB_UNKNOWN"),
    ):
        destination.put(manifest)


@contextmanager
def cutting_proxy(registry: Registry, after: list[int]) -> Iterator[str]:
    """A way to the registry on which each connection ends after so many bytes have gone there; later ones do not."""

    def pump(source: socket.socket, target: socket.socket, limit: int | None) -> None:
        left = limit
        with suppress(OSError):
            while chunk := source.recv(65536 if left is None else min(65536, left)):
                target.sendall(chunk)
                if left is not None and (left := left - len(chunk)) == 0:
                    break
        for end in (source, target):
            with end, suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def serve() -> None:
        while True:
            try:
                client = server.accept()[0]
            except OSError:
                return
            there = socket.create_connection((host, int(port)))
            limit = after.pop(0) if after else None
            threading.Thread(target=pump, args=(client, there, limit), daemon=True).start()
            threading.Thread(target=pump, args=(there, client, None), daemon=True).start()

    host, _, port = registry.host.partition(":")
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_uploads_that_break_off_are_begun_again(registry: Registry) -> None:
    data = bytes(range(256)) * 20_000
    blob = octets(data)
    with cutting_proxy(registry, [1_000_000, 3_000_000]) as host:
        reference = Reference(registry=host, repository="team/broken", tag="v1")
        with RegistryDestination(reference, sleep=no_sleep) as destination:
            assert destination.put(blob) == "uploaded"
    assert sum(line.startswith("POST /v2/team/broken") for line in registry.requests()) == 3
    source = RegistrySource(place(registry, "team/broken"))
    with source.open(blob.descriptor) as stream:
        assert stream.read() == data
    source.close()


def test_a_large_blob_is_never_in_memory(registry: Registry) -> None:
    size = 64 << 20
    data = bytes(size)
    blob = octets(data)
    del data
    open_zeros = partial(_Zeros, size)
    tracemalloc.start()
    try:
        with RegistryDestination(place(registry, "team/large")) as destination:
            destination.put(Blob(descriptor=blob.descriptor, open=open_zeros))
        source = RegistrySource(place(registry, "team/large"))
        with source.open(blob.descriptor) as stream:
            while stream.read(1 << 20):
                pass
        source.close()
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


class _Zeros(io.BytesIO):
    """`size` zero bytes that are nowhere."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self._left = size

    def read(self, size: int | None = -1, /) -> bytes:
        count = self._left if size is None or size < 0 else min(size, self._left)
        self._left -= count
        return bytes(count)


# -- TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1, and its key."""
    directory = tmp_path_factory.mktemp("tls")
    paths = directory / "cert.pem", directory / "key.pem"
    command = [need("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command += ["-subj", "/CN=tests", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
    subprocess.run([*command, "-out", str(paths[0]), "-keyout", str(paths[1])], check=True, capture_output=True)
    return paths


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory, certificate: tuple[Path, Path]) -> Iterator[Registry]:
    with running_registry(tmp_path_factory.mktemp("secure"), certificate=certificate) as running:
        yield running


def test_an_own_authority(secure: Registry, certificate: tuple[Path, Path]) -> None:
    options = RegistryOptions(ca_file=certificate[0])
    image = sample_image()
    publish(image, RegistryDestination(place(secure, "team/app"), options))
    source = RegistrySource(place(secure, "team/app"), options)
    assert source.root() == Descriptor(media_type=MANIFEST, digest=image.top.digest, size=image.top.size)
    with source.open(source.root()) as stream:
        assert "layers" in parse_json(stream.read(), "manifest")
    source.close()


def test_an_authority_that_did_not_sign(secure: Registry) -> None:
    import certifi

    slept: list[float] = []
    options = RegistryOptions(ca_file=type(secure.storage)(certifi.where()))
    with pytest.raises(RegistryError) as caught:
        RegistrySource(place(secure, "team/app"), options, sleep=slept.append).root()
    assert "no TLS connection" in caught.value.message and "certificate" in caught.value.message.lower()
    assert caught.value.hint == (
        "if an authority of your own signed the certificate, name its file with `--ca-file`; "
        "`--insecure` accepts any certificate"
    )
    assert slept == []


@pytest.mark.parametrize("encrypted", [False, True])
def test_insecure_takes_what_there_is(
    tmp_path: Path, certificate: tuple[Path, Path], encrypted: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    """With a password, there and back; whether there is TLS is asked once for each client, and nobody is warned."""
    options, image = RegistryOptions(insecure=True), sample_image()
    with running_registry(tmp_path / "r", auth=True, certificate=certificate if encrypted else None) as running:
        publish(image, RegistryDestination(place(running, "team/app"), options, credentials(tmp_path, running)))
        source = RegistrySource(place(running, "team/app"), options, credentials(tmp_path, running))
        assert source.root().digest == image.top.digest
        with source.open(image.blobs()[1]) as stream:
            assert stream.read() == image.contents[image.blobs()[1].digest]
        source.close()
    seen = running.requests()
    assert seen.count("GET /v2/ 401") == (2 if encrypted else 0)
    assert "200" not in {line.split()[2] for line in seen[: 2 if encrypted else 1]}
    assert capfd.readouterr().err == ""


def test_tags_by_the_scheme_that_was_found(secure: Registry) -> None:
    options = RegistryOptions(insecure=True)
    publish(sample_image(), RegistryDestination(place(secure, "team/listed", "a"), options))
    client = ForgeRegistry(place(secure, "team/listed"), options)
    assert client.get_tags(f"{secure.host}/team/listed") == ["a"]
    client.close()


def test_plain_http_to_https(secure: Registry) -> None:
    with pytest.raises(RegistryError) as caught:
        RegistrySource(place(secure, "team/app")).root()
    url = f"http://{secure.host}/v2/team/app/manifests/v1"
    assert caught.value.message == f"pulling `{secure.host}/team/app:v1`: HEAD `{url}`: 400 Bad Request"
    assert caught.value.hint == (
        "if the registry speaks TLS, name the file of the authority that signed its certificate with `--ca-file`; "
        "`--insecure` accepts any certificate"
    )


def test_https_to_plain_http(registry: Registry, certificate: tuple[Path, Path]) -> None:
    with pytest.raises(RegistryError) as caught:
        RegistrySource(place(registry, "team/app"), RegistryOptions(ca_file=certificate[0])).root()
    assert caught.value.hint == "if the registry speaks plain http, allow it with `--insecure`"


def test_a_ca_file_that_is_not_there(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match=r"the CA file `.*` does not exist"):
        RegistrySource(place(registry, "team/app"), RegistryOptions(ca_file=tmp_path / "ca.pem"))
