"""What a hostile registry may serve to a build that wants a base image: nothing of it is believed, kept or obeyed."""

from __future__ import annotations

import base64
import gzip
import json
from typing import TYPE_CHECKING, Any

import pytest

from layers.digest import Digest
from ociforge.base import load
from ociforge.errors import AuthError, ForgeError, RegistryError
from ociforge.oci.descriptor import CONFIG, DOCKER_MANIFEST, INDEX, MANIFEST, Descriptor, canonical_json
from ociforge.oci.reference import Reference
from ociforge.platform import Platform
from ociforge.store import Store
from ociforge.transports.auth import CredentialStore
from ociforge.transports.options import RegistryOptions
from ociforge.transports.registry import RegistryDestination, RegistrySource
from tests.support.bases import tar_of
from tests.support.fake_registry import PASSWORD, USER, Exchange, FakeRegistry, answer, running_fake
from tests.support.memory import sample_image
from tests.transports.registry_tools import no_sleep, octets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.tls import Authority

AMD64 = Platform.parse("linux/amd64")
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
HEX = "a" * 64
OTHER_HOST = "127.0.0.2"

BAD_DIGESTS = {
    "upper case": f"sha256:{HEX.upper()}",
    "upper-case algorithm": f"SHA256:{HEX}",
    "short": f"sha256:{HEX[1:]}",
    "long": f"sha256:{HEX}0",
    "path traversal": f"sha256:../../../{HEX[9:]}",
    "another path": "sha256:../../../../../../etc/passwd",
    "sha512": f"sha512:{HEX}{HEX}",
    "no algorithm": HEX,
    "line break": f"sha256:{HEX}\n",
    "empty": "",
    "a number": 1,
}


@pytest.fixture
def fake() -> Iterator[FakeRegistry]:
    with running_fake() as registry:
        yield registry


@pytest.fixture
def other() -> Iterator[FakeRegistry]:
    """A host that nobody named."""
    with running_fake(OTHER_HOST) as registry:
        yield registry


class Puller:
    """Builds on `team/base:v1` of a registry, into a store of its own, with a password for that registry."""

    def __init__(self, fake: FakeRegistry, directory: Path) -> None:
        self.fake = fake
        self.directory = directory
        self.slept: list[float] = []

    def credentials(self) -> CredentialStore:
        file = self.directory / "auth.json"
        pair = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        file.write_text(json.dumps({"auths": {self.fake.host: {"auth": pair}}}))
        return CredentialStore(files=(file,))

    def source(self, options: RegistryOptions | None = None) -> RegistrySource:
        reference = Reference(registry=self.fake.host, repository="team/base", tag="v1")
        return RegistrySource(reference, options, self.credentials(), sleep=self.slept.append)

    def pull(self, options: RegistryOptions | None = None) -> None:
        source = self.source(options)
        try:
            base = load(source, platform=AMD64, store=Store(self.directory / "cache" / "store"))
            assert base.tree is base.tree  # all layers are fetched and listed
        finally:
            source.close()

    def refused(self, why: str, kind: type[ForgeError] = ForgeError, options: RegistryOptions | None = None) -> str:
        """The message of the error, which contains `why`; nothing that came is kept where it is not proven."""
        with pytest.raises(kind) as caught:
            self.pull(options)
        told = f"{caught.value.message}\n{caught.value.hint}"
        assert why in told
        assert PASSWORD not in told
        for path in (p for p in self.directory.rglob("*") if p.is_file() and p.name not in ("auth.json", "lock")):
            assert path.parent.name == "sha256" or path.parent.name == "trees", path
            assert path.parent.name == "trees" or Digest.of(path.read_bytes()).hex == path.name
        return told

    def serve(self, **members: Any) -> None:
        """Serve the sample image, its manifest changed; `None` takes a member away."""
        image = sample_image()
        for blob in image.blobs():
            self.fake.add_blob("team/base", image.contents[blob.digest])
        manifest = json.loads(image.contents[image.top.digest]) | members
        self.serve_document({k: v for k, v in manifest.items() if v is not None})

    def serve_document(self, document: Any, media_type: str = MANIFEST) -> Digest:
        data = document if isinstance(document, bytes) else canonical_json(document)
        return self.fake.add_manifest("team/base", "v1", media_type, data)

    def serve_config(self, data: bytes) -> None:
        digest = self.fake.add_blob("team/base", data)
        self.serve(config=Descriptor(media_type=CONFIG, digest=digest, size=len(data)).to_json())

    def serve_layer(self, data: bytes, media_type: str = LAYER, size: int | None = None) -> Digest:
        digest = self.fake.add_blob("team/base", data)
        layer = {"mediaType": media_type, "digest": str(digest), "size": len(data) if size is None else size}
        image = sample_image()
        config = json.loads(image.contents[image.blobs()[0].digest])
        config["rootfs"]["diff_ids"] = [f"sha256:{HEX}"]
        text = canonical_json(config)
        self.fake.add_blob("team/base", text)
        named = Descriptor(media_type=CONFIG, digest=Digest.of(text), size=len(text)).to_json()
        self.serve(config=named, layers=[layer])
        return digest


@pytest.fixture
def puller(fake: FakeRegistry, tmp_path: Path) -> Puller:
    return Puller(fake, tmp_path)


def test_an_honest_registry_is_built_on(puller: Puller) -> None:
    puller.serve()
    puller.pull()


# -- digests


@pytest.mark.parametrize("digest", BAD_DIGESTS.values(), ids=BAD_DIGESTS)
@pytest.mark.parametrize("place", ["config", "layer", "index entry"])
def test_a_bad_digest_never_becomes_a_path_or_a_url(puller: Puller, place: str, digest: object) -> None:
    bad = {"mediaType": LAYER if place == "layer" else MANIFEST, "digest": digest, "size": 2}
    if place == "index entry":
        entry = bad | {"platform": {"os": "linux", "architecture": "amd64"}}
        puller.serve_document({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}, INDEX)
    elif place == "layer":
        puller.serve(layers=[bad])
    else:
        puller.serve(config=bad | {"mediaType": CONFIG})
    puller.refused("digest")
    assert all(c.path.rpartition("/")[2] in ("v1", str(_served(puller))) for c in puller.fake.calls)


def _served(puller: Puller) -> Digest:
    return Digest.of(puller.fake.manifests["team/base", "v1"][1])


@pytest.mark.parametrize("digest", [f"sha256:{HEX.upper()}", "sha256:../../x", f"sha256:{HEX[1:]}"])
@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_a_bad_docker_content_digest_is_refused(puller: Puller, method: str, digest: str) -> None:
    headers = {"Content-Type": MANIFEST, "Content-Length": "2", "Docker-Content-Digest": digest}
    if method == "GET":
        puller.fake.on("HEAD", "manifests", answer(404))
    puller.fake.on(method, "manifests", lambda _, exchange: exchange.send(200, b"{}", headers))
    puller.refused("digest", RegistryError)


# -- bodies


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda data: data + b"x", "expected"),
        (lambda data: data[:-1], "expected"),
        (lambda data: data[:-1] + bytes([data[-1] ^ 1]), "got bytes with the digest"),
    ],
    ids=["longer", "shorter", "another"],
)
@pytest.mark.parametrize("announced", [True, False], ids=["Content-Length", "until the connection closes"])
def test_a_body_that_is_not_the_one_named(
    puller: Puller, change: Callable[[bytes], bytes], why: str, announced: bool
) -> None:
    data = gzip.compress(tar_of({"x": bytes(3000)}))
    digest = puller.serve_layer(data)
    changed = change(data)

    def lie(registry: FakeRegistry, exchange: Exchange) -> None:
        exchange.send_response(200)
        if announced:
            exchange.send_header("Content-Length", str(len(changed)))
        exchange.send_header("Connection", "close")
        exchange.end_headers()
        exchange.wfile.write(changed)
        exchange.close_connection = True

    puller.fake.on("GET", f"/blobs/{digest}", lie, times=9)
    cut = not announced and len(changed) < len(data)  # which looks like a broken connection
    puller.refused("closed early" if cut else why)


def test_a_false_content_length_is_noticed_before_the_body_is_read(puller: Puller) -> None:
    data = gzip.compress(tar_of({"x": bytes(3000)}))
    digest = puller.serve_layer(data)
    huge = {"Content-Length": str(1 << 40)}
    puller.fake.on("GET", f"/blobs/{digest}", lambda _, exchange: exchange.send(200, data, huge))
    puller.refused(f"the registry has {1 << 40}")


def test_a_size_that_is_not_the_blobs_is_noticed(puller: Puller) -> None:
    data = gzip.compress(tar_of({"x": b""}))
    puller.serve_layer(data, size=len(data) + 1)
    puller.refused(f"expected {len(data) + 1} bytes")


@pytest.mark.parametrize("size", [-1, 1 << 63, 1.5, "2", None, True])
def test_a_size_that_is_none_is_refused(puller: Puller, size: object) -> None:
    puller.serve(layers=[{"mediaType": LAYER, "digest": f"sha256:{HEX}", "size": size}])
    puller.refused("size")


def test_a_manifest_of_more_than_4_mib_is_refused(puller: Puller) -> None:
    puller.serve_document(b"{}" + b" " * (4 << 20))
    puller.refused("4194304")


def test_a_manifest_that_never_ends_is_not_read_to_its_end(puller: Puller) -> None:
    def endless(registry: FakeRegistry, exchange: Exchange) -> None:
        exchange.send_response(200)
        exchange.send_header("Content-Type", MANIFEST)
        exchange.send_header("Connection", "close")
        exchange.end_headers()
        sent.append(0)
        while sent[0] < 1 << 30:
            exchange.wfile.write(bytes(1 << 20))
            sent[0] += 1 << 20

    sent: list[int] = []
    puller.fake.on("HEAD", "", answer(404))
    puller.fake.on("GET", "", endless)
    puller.refused("an answer of more than")
    assert sent[0] < 64 << 20


@pytest.mark.parametrize(
    ("config", "why"),
    [
        (b"\x7fELF", "JSON"),
        (b"[]", "JSON"),
        (b'{"os":"linux","os":"windows"}', "JSON"),
        (b'{"os":NaN}', "JSON"),
        (b'{"os":' + b"[" * 100 + b"]" * 100 + b"}", "JSON"),
        (b"{" + b" " * (5 << 20) + b"}", "4194304"),
    ],
    ids=["not JSON", "an array", "duplicate keys", "NaN", "nested too deep", "5 MiB"],
)
def test_a_config_that_is_none_is_refused(puller: Puller, config: bytes, why: str) -> None:
    puller.serve_config(config)
    puller.refused(why)


# -- documents


def test_a_manifest_that_is_an_index_too_is_refused(puller: Puller) -> None:
    puller.serve(manifests=[])
    puller.refused("manifests")


def test_an_index_that_is_a_manifest_too_is_refused(puller: Puller) -> None:
    puller.serve_document({"schemaVersion": 2, "mediaType": INDEX, "manifests": [], "layers": []}, INDEX)
    puller.refused("layers")


@pytest.mark.parametrize("announced", [INDEX, DOCKER_MANIFEST, "text/html", ""])
def test_a_content_type_that_is_not_the_media_type_is_refused(puller: Puller, announced: str) -> None:
    digest = puller.serve_document(sample_image().contents[sample_image().top.digest], announced or "x")
    if not announced:
        headers = {"Docker-Content-Digest": str(digest)}
        data = puller.fake.manifests["team/base", "v1"][1]
        puller.fake.on("GET", "manifests", lambda _, exchange: exchange.send(200, data, headers), times=9)
        puller.fake.on("HEAD", "manifests", answer(404), times=9)
    puller.refused("type")


def _index(*entries: Descriptor) -> bytes:
    return canonical_json({"schemaVersion": 2, "mediaType": INDEX, "manifests": [e.to_json() for e in entries]})


def test_an_index_without_the_platform_lists_what_there_is(puller: Puller) -> None:
    arm = Descriptor(media_type=MANIFEST, digest=Digest.of(b""), size=0, platform=Platform.parse("linux/arm64"))
    puller.serve_document(_index(arm), INDEX)
    puller.refused("linux/arm64")


def test_an_index_nested_too_deep_is_not_followed(puller: Puller) -> None:
    data = _index()
    for _ in range(4):
        digest = puller.serve_document(data, INDEX)
        data = _index(Descriptor(media_type=INDEX, digest=digest, size=len(data)))
    puller.serve_document(data, INDEX)
    puller.refused("deep")


def test_an_index_that_claims_to_hold_itself_is_not_followed(puller: Puller) -> None:
    """Its digest cannot be in it; a registry can only say so, and serve it again under the name of its entry."""
    child = Descriptor(media_type=INDEX, digest=Digest.parse(f"sha256:{HEX}"), size=500)
    data = _index(child)
    puller.serve_document(data, INDEX)
    puller.fake.manifests["team/base", f"sha256:{HEX}"] = (INDEX, data)
    puller.refused(f"sha256:{HEX}")
    assert len(puller.fake.seen("GET", "manifests")) <= 2


def test_diff_ids_must_be_as_many_as_layers(puller: Puller) -> None:
    image = sample_image()
    puller.serve(layers=[image.blobs()[1].to_json()])
    puller.refused("1 layers in the manifest, 2 in the configuration")


def test_a_diff_id_must_be_the_layers(puller: Puller) -> None:
    puller.serve_layer(gzip.compress(tar_of({"x": b""})))
    puller.refused(f"sha256:{HEX}")


def test_urls_of_descriptors_are_not_fetched(puller: Puller, other: FakeRegistry) -> None:
    image = sample_image()
    elsewhere = {"urls": [f"http://{other.host}/layer"]}
    puller.serve(layers=[blob.to_json() | elsewhere for blob in image.blobs()[1:]])
    puller.pull()
    assert other.calls == []


# -- layers


def _members(count: int) -> bytes:
    return gzip.compress(b"", 1, mtime=0) * count


@pytest.mark.parametrize(
    ("data", "media_type", "why"),
    [
        (_members(20_000) + gzip.compress(tar_of({"x": b""})), LAYER, f"sha256:{HEX}"),
        (gzip.compress(tar_of({"x": b""})) + b"garbage", LAYER, "gzip data is damaged"),
        (gzip.compress(tar_of({"x": b""})) + gzip.compress(b"y" * 999)[:-9], LAYER, "gzip data is cut short"),
        (bytes.fromhex("28b52ffd 00 90 010000"), LAYER.replace("gzip", "zstd"), "zstd data is damaged"),
        (bytes.fromhex("502a4d18 04000000 00000000"), LAYER.replace("gzip", "zstd"), "layer `"),
        (tar_of({"../x": b""}), LAYER.removesuffix("+gzip"), "`..` in a path"),
    ],
    ids=[
        "empty members are read over",
        "trailing garbage",
        "truncated second member",
        "window of 256 MiB",
        "nothing but a skippable frame",
        "escape",
    ],
)
def test_a_layer_that_is_hostile_is_refused(puller: Puller, data: bytes, media_type: str, why: str) -> None:
    puller.serve_layer(data, media_type)
    puller.refused(why)


# -- who may be asked, and for what


@pytest.mark.parametrize(
    ("realm", "why"),
    [
        (f"http://{OTHER_HOST}:PORT/token", "a private address that is not the registry's own"),
        ("http://169.254.169.254/latest/meta-data", "a private address that is not the registry's own"),
        ("http://[::ffff:127.0.0.2]:PORT/token", "a private address that is not the registry's own"),
        ("http://[::1%25lo]/token", "token service"),
        ("http://localhost:PORT/token", "a private address that is not the registry's own"),
        ("http://auth.example.com/token", "outside its domain"),
        ("file:///etc/passwd", "not an http or https URL"),
        ("//127.0.0.1/token", "not an http or https URL"),
        ("http://user:hunter2@127.0.0.1/token", "not an http or https URL"),
        ("http://127.0.0.1:99999/token", "not an http or https URL"),
    ],
    ids=["other host", "link-local", "mapped", "zone", "localhost", "other domain", "file", "relative", "user", "port"],
)
def test_a_realm_elsewhere_gets_no_request(puller: Puller, other: FakeRegistry, realm: str, why: str) -> None:
    puller.fake.auth = "bearer"
    puller.fake.realm = realm.replace("PORT", other.host.rpartition(":")[2])
    told = puller.refused(why, AuthError)
    assert "hunter2" not in told
    assert other.calls == [] and puller.fake.secrets() == []


def test_a_realm_over_http_of_an_https_registry_gets_no_request(
    authority: Authority, other: FakeRegistry, tmp_path: Path
) -> None:
    with running_fake(certificate=authority.issue("realm")) as fake:
        fake.auth, fake.realm = "bearer", f"http://{other.host}/token"
        options = RegistryOptions(ca_file=authority.certificate)
        Puller(fake, tmp_path).refused("plain http, though the registry speaks https", AuthError, options)
        assert fake.secrets() == []
    assert other.calls == []


def test_a_redirect_loop_ends(puller: Puller) -> None:
    puller.fake.on("HEAD", "", answer(307, Location="/v2/team/base/manifests/v1"), times=99)
    puller.refused("more than 5 redirects", RegistryError)
    assert len(puller.fake.calls) == 6


@pytest.mark.parametrize("auth", ["basic", "bearer"])
def test_a_401_loop_ends(puller: Puller, auth: Any) -> None:
    puller.fake.auth = auth
    challenge = {"basic": 'Basic realm="x"', "bearer": f'Bearer realm="http://{puller.fake.host}/token"'}[auth]
    puller.fake.on("HEAD", "", answer(401, WWW_Authenticate=challenge), times=99)
    puller.refused("401", AuthError)
    assert len(puller.fake.calls) == (2 if auth == "basic" else 3)
    assert puller.slept == []


@pytest.mark.parametrize("size", [2 << 20, 64 << 20], ids=["2 MiB", "64 MiB"])
def test_a_token_of_more_than_a_mib_is_none(puller: Puller, size: int) -> None:
    puller.fake.auth = "bearer"
    puller.fake.on("GET", "/token", answer(200, b'{"token": "' + b"x" * size + b'"}'))
    puller.refused("gave no token" if size < 32 << 20 else "an answer of more than", RegistryError)


@pytest.mark.parametrize("life", ["-5", "0", "1e400", "NaN", '"60"', '"x"', "null", "[1]", "true"])
def test_a_token_of_any_life_is_used_or_refused(puller: Puller, life: str) -> None:
    puller.fake.auth = "bearer"
    puller.serve()
    puller.fake.tokens["given"] = frozenset({"repository:team/base:pull"})
    puller.fake.on("GET", "/token", answer(200, f'{{"token": "given", "expires_in": {life}}}'.encode()), times=99)
    if life in ('"x"', "[1]"):
        puller.refused("gave no token", RegistryError)
    else:
        puller.pull()


@pytest.mark.parametrize("wait", ["3600", "1e9", "99999999999999999999", "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_an_absurd_retry_after_is_not_kept(puller: Puller, wait: str) -> None:
    puller.serve()
    puller.fake.on("HEAD", "", answer(503, Retry_After=wait))
    if wait == "1e9":  # no number of seconds (RFC 9110), so our own patience counts
        puller.pull()
    else:
        puller.refused("503", RegistryError)
    assert sum(puller.slept) < 1


def test_an_upload_is_led_elsewhere_without_credentials(
    fake: FakeRegistry, other: FakeRegistry, puller: Puller
) -> None:
    fake.auth = "basic"
    fake.location = f"http://{other.host}/steal"
    other.on("PUT", "/steal", answer(401, WWW_Authenticate='Basic realm="give"'), times=9)
    reference = Reference(registry=fake.host, repository="team/base", tag="v1")
    with (
        RegistryDestination(reference, None, puller.credentials(), sleep=no_sleep) as destination,
        pytest.raises(RegistryError, match="401"),
    ):
        destination.put(octets(b"layer"))
    assert other.secrets() == []
    assert len(other.calls) == 1
