"""Pushes and pulls that succeed in spite of what each kind of registry is known for."""

from __future__ import annotations

import base64
import io
import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from layers.compress import Codec
from layers.digest import Digest
from layers.entry import Bytes, File
from layers.layer import write_layer
from layers.tree import Segment
from ociforge.errors import RegistryError
from ociforge.oci.changes import ConfigChanges
from ociforge.oci.config import ImageConfig
from ociforge.oci.descriptor import (
    DOCKER_MANIFEST,
    INDEX,
    MANIFEST,
    Descriptor,
    canonical_json,
)
from ociforge.oci.image import ImageManifest, assemble
from ociforge.oci.reference import Reference
from ociforge.publish import Published, publish
from ociforge.transports.auth import CredentialStore
from ociforge.transports.document import ACCEPT
from ociforge.transports.http import Origin
from ociforge.transports.options import RegistryOptions
from ociforge.transports.registry import ForgeRegistry, RegistryDestination, RegistrySource
from tests.support.fake_registry import (
    IDENTITY,
    PASSWORD,
    USER,
    Exchange,
    FakeRegistry,
    answer,
    break_off,
    early,
    error_body,
    running,
    running_fake,
)
from tests.support.fault_proxy import running_proxy
from tests.support.manners import (
    Acr,
    Artifactory,
    ArtifactRegistry,
    Distribution,
    DockerHub,
    Ecr,
    Ghcr,
    GitLab,
    Harbor,
    Nexus,
    Quay,
    Zot,
)
from tests.support.memory import MemoryDestination, MemorySource, index_of, sample_image
from tests.transports.registry_tools import blob_of, no_sleep, octets

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from ociforge.transports.base import Source
    from tests.support.registry import Registry
    from tests.support.tls import Authority

DATA = bytes(range(256)) * 4096  # 1 MiB
LARGE = DATA * 9  # more than two of the small chunks
OTHER_HOST = "127.0.0.2"


@pytest.fixture
def fake(request: pytest.FixtureRequest) -> Iterator[FakeRegistry]:
    """A registry of the kind that the test is parametrized with."""
    with running(request.param) as registry:
        yield registry


def of(kind: type[FakeRegistry]) -> pytest.MarkDecorator:
    """The test is about this kind of registry."""
    return pytest.mark.parametrize("fake", [kind], indirect=True, ids=[kind.__name__])


def reference(fake: FakeRegistry, repository: str = "team/app") -> Reference:
    return Reference(registry=fake.host, repository=repository, tag="v1")


def credentials(tmp_path: Path, fake: FakeRegistry, entry: Mapping[str, str] | None = None) -> CredentialStore:
    pair = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    file = tmp_path / "auth.json"
    file.write_text(json.dumps({"auths": {fake.host: entry or {"auth": pair}}}))
    return CredentialStore(files=(file,))


def push(
    source: Source, fake: FakeRegistry, store: CredentialStore | None = None, repository: str = "team/app"
) -> Published:
    """Publish with four threads, as the program does."""
    with ThreadPoolExecutor(4) as pool:
        destination = RegistryDestination(reference(fake, repository), None, store, sleep=no_sleep)
        return publish(source, destination, map_=pool.map)


def put(fake: FakeRegistry, data: bytes, store: CredentialStore | None = None) -> None:
    """Upload one blob, and see that it arrived."""
    with RegistryDestination(reference(fake), None, store, sleep=no_sleep) as destination:
        assert destination.put(octets(data)) == "uploaded"
    assert fake.blobs["team/app", str(Digest.of(data))] == data


def tagged(fake: FakeRegistry, repository: str = "team/app") -> Digest:
    return Digest.of(fake.manifests[repository, "v1"][1])


def origin(fake: FakeRegistry, repository: str, data: bytes = DATA) -> Reference:
    return Reference(registry=fake.host, repository=repository, digest=Digest.of(data))


# -- distribution 2.x, and what stands before it


@of(Distribution)
def test_distribution_cannot_go_on_after_a_cut_so_a_new_session_after_a_head(fake: Distribution) -> None:
    fake.on("PUT", "uploads", break_off(500_000, keep=False))
    put(fake, DATA)
    methods = [c.method for c in fake.calls if "/blobs/" in c.path]
    assert methods == ["HEAD", "POST", "PUT", "HEAD", "GET", "POST", "PUT"]


@of(Distribution)
def test_distribution_takes_no_blob_by_post_so_post_and_put(fake: Distribution) -> None:
    push(sample_image(), fake)  # the fake fails if a POST has a body
    assert len(fake.seen("POST")) == len(fake.seen("PUT", "uploads")) == 3


def artifact(subject: Descriptor) -> MemorySource:
    """What refers to `subject`, as a signature does."""
    contents: dict[Digest, bytes] = {Digest.of(b"{}"): b"{}"}
    empty = Descriptor(media_type="application/vnd.oci.empty.v1+json", digest=Digest.of(b"{}"), size=2)
    document: dict[str, Any] = {"schemaVersion": 2, "mediaType": MANIFEST, "artifactType": "application/x.test"}
    document |= {"config": empty.to_json(), "layers": [empty.to_json()], "subject": bare(subject)}
    data = canonical_json(document)
    contents[Digest.of(data)] = data
    return MemorySource(Descriptor(media_type=MANIFEST, digest=Digest.of(data), size=len(data)), contents)


def bare(descriptor: Descriptor) -> dict[str, Any]:
    return {"mediaType": descriptor.media_type, "digest": str(descriptor.digest), "size": descriptor.size}


@pytest.mark.parametrize("fake", [Distribution, ArtifactRegistry], indirect=True)
def test_no_referrers_api_nor_oci_subject_so_an_index_under_a_tag(fake: FakeRegistry) -> None:
    image = sample_image()
    push(image, fake)
    signature = artifact(image.top)
    push(signature, fake)
    media_type, data = fake.manifests["team/app", f"sha256-{image.top.digest.hex}"]
    (entry,) = json.loads(data)["manifests"]
    assert (media_type, entry["digest"], entry["artifactType"]) == (
        INDEX,
        str(signature.top.digest),
        "application/x.test",
    )
    client = ForgeRegistry(reference(fake), sleep=no_sleep)
    assert [r.digest for r in client.referrers(image.top.digest)] == [signature.top.digest]
    client.close()


def test_a_registry_behind_a_tls_proxy_says_http_so_its_location_is_upgraded(
    open_registry: Registry, authority: Authority
) -> None:
    """A real one: it learns of the host from the request, of TLS from nobody."""
    with running_proxy(open_registry.host, authority.issue("proxy")) as proxy:
        options = RegistryOptions(ca_file=authority.certificate)
        place = Reference(registry=proxy.host, repository="behind/tls", tag="v1")
        with RegistryDestination(place, options, sleep=no_sleep) as destination:
            assert destination.put(octets(DATA)) == "uploaded"
    assert [line.split()[0] for line, _ in proxy.requests if "/blobs/" in line] == ["HEAD", "POST", "PUT"]
    assert open_registry.requests()[-1].endswith(" 201")


def test_a_registry_behind_a_tls_proxy_may_not_lead_to_http_elsewhere(authority: Authority) -> None:
    with running_fake(certificate=authority.issue("server")) as fake, running_fake(OTHER_HOST) as other:
        fake.location = f"http://{other.host}{{path}}"
        with (
            RegistryDestination(
                reference(fake), RegistryOptions(ca_file=authority.certificate), sleep=no_sleep
            ) as destination,
            pytest.raises(RegistryError, match="leads from https to plain http"),
        ):
            destination.put(octets(DATA))
        assert other.calls == []


def test_any_registry_may_redirect_a_post_so_a_relative_location_is_of_who_answered(tmp_path: Path) -> None:
    with running_fake() as fake, running_fake(OTHER_HOST) as other:
        fake.auth = "basic"
        other.location = "{path}?state=1"
        fake.on("POST", "uploads", _redirect_authorized(f"http://{other.host}/v2/team/app/blobs/uploads/"))
        with RegistryDestination(reference(fake), None, credentials(tmp_path, fake), sleep=no_sleep) as destination:
            assert destination.put(octets(DATA)) == "uploaded"
        assert [c.method for c in other.calls] == ["POST", "PUT"]
        assert other.blobs["team/app", str(Digest.of(DATA))] == DATA
        assert other.secrets() == []


def _redirect_authorized(target: str) -> Any:
    def reply(registry: FakeRegistry, exchange: Exchange) -> None:
        assert "Authorization" in exchange.call.headers
        exchange.send(307, headers={"Location": target})

    return reply


def test_any_registry_may_drop_the_users_443_so_origins_have_their_port() -> None:
    assert Origin.of("https://r.io:443/v2/") == Origin.of("https://r.io/v2/")
    assert Origin.of("http://r.io:80/") == Origin.of("http://r.io/")
    assert Origin.of("https://r.io:80/") != Origin.of("http://r.io/")


# -- ECR


@of(Ecr)
def test_ecr_keeps_only_the_first_patch_so_bodies_go_in_one_request(fake: Ecr) -> None:
    put(fake, LARGE)
    assert [len(c.body) for c in fake.seen("PUT", "uploads")] == [len(LARGE)]
    assert fake.seen("PATCH") == []


@of(Ecr)
def test_ecr_drops_later_patches_so_a_range_that_stands_still_begins_the_whole_anew(fake: Ecr) -> None:
    fake.on("PUT", "uploads", early(413))
    fake.on("PATCH", "uploads", early(413))
    put(fake, LARGE)
    assert len(fake.seen("PATCH")) == 3  # the refused one, the first chunk, and the one that was dropped
    assert len(fake.seen("PUT", "uploads")[-1].body) == len(LARGE)


@of(Ecr)
def test_ecr_answers_201_to_a_patch_which_is_no_end(fake: Ecr) -> None:
    fake.takes = "patch"
    put(fake, DATA)
    assert [len(c.body) for c in fake.seen("PUT", "uploads")] == [len(DATA), 0]


@of(Ecr)
def test_ecr_immutable_tags_refuse_even_the_same_so_a_tag_is_compared_and_put_once(fake: Ecr) -> None:
    image = sample_image()
    for _ in range(2):
        assert push(image, fake).descriptor == image.top
    assert [c.path.rpartition("/")[2] for c in fake.seen("PUT", "manifests")] == [str(image.top.digest), "v1"]
    with pytest.raises(RegistryError, match="400 TAG_INVALID: The image tag 'v1' already exists"):
        push(sample_image([{"etc/other": b"3"}]), fake)


@of(Ecr)
def test_ecr_refuses_artifacts_with_a_subject_after_the_image_is_there(fake: Ecr) -> None:
    image = sample_image()
    push(image, fake)
    with pytest.raises(RegistryError, match="405 UNSUPPORTED"):
        push(artifact(image.top), fake)
    assert tagged(fake) == image.top.digest


# -- GHCR


@of(Ghcr)
def test_ghcr_limits_patches_but_not_puts_so_bodies_go_in_one_request(fake: Ghcr) -> None:
    put(fake, LARGE)
    assert [len(c.body) for c in fake.seen("PUT", "uploads")] == [len(LARGE)]


@of(Ghcr)
def test_ghcr_limits_patches_to_4_mib_so_chunks_shrink_after_a_416(fake: Ghcr) -> None:
    fake.on("PUT", "uploads", early(413))
    put(fake, LARGE)
    sizes = [len(c.body) for c in fake.seen("PATCH")]
    assert sizes[0] == len(LARGE)  # in one PATCH first, which has no Content-Range
    assert max(sizes[1:], default=0) <= 4 << 20


@of(Ghcr)
def test_ghcr_refuses_to_go_on_with_more_than_4_mib_so_the_whole_is_sent_anew(fake: Ghcr) -> None:
    fake.on("PUT", "uploads", break_off(1 << 20, keep=True))
    put(fake, LARGE)
    assert [len(c.body) for c in fake.seen("PATCH")] == [len(LARGE) - (1 << 20)]
    assert len(fake.seen("PUT", "uploads")[-1].body) == len(LARGE)


@of(Ghcr)
def test_ghcr_gives_no_push_tokens_for_others_so_bases_are_asked_for_with_pull(fake: Ghcr, tmp_path: Path) -> None:
    fake.auth = "bearer"
    image = sample_image()
    for blob in image.blobs():
        fake.add_blob("their/base", image.contents[blob.digest])
    fake.add_manifest("their/base", "v1", MANIFEST, image.contents[image.top.digest])
    source = RegistrySource(reference(fake, "their/base"), None, credentials(tmp_path, fake), sleep=no_sleep)
    publish(source, MemoryDestination())
    source.close()
    asked = [scope for c in fake.seen("GET", "/token") for scope in c.query["scope"]]
    assert "repository:their/base:pull" in asked and not any("push" in scope for scope in asked)


@of(Ghcr)
def test_ghcr_challenges_with_a_placeholder_so_the_scope_follows_from_the_request(fake: Ghcr, tmp_path: Path) -> None:
    fake.auth = "bearer"
    push(sample_image(), fake, credentials(tmp_path, fake))
    (call,) = fake.seen("GET", "/token")
    assert "repository:team/app:pull,push" in call.query["scope"]


@of(Ghcr)
def test_ghcr_leads_from_referrers_to_a_page_then_429_so_the_tag_is_read(fake: Ghcr) -> None:
    image = sample_image()
    push(image, fake)
    signature = artifact(image.top)
    slept: list[float] = []
    push(signature, fake)
    client = ForgeRegistry(reference(fake), sleep=slept.append)
    for _ in range(2):
        assert [r.digest for r in client.referrers(image.top.digest)] == [signature.top.digest]
    client.close()
    assert slept == []


@of(Ghcr)
def test_ghcr_hears_late_of_blobs_so_the_manifest_is_put_again(fake: Ghcr) -> None:
    fake.late = 1
    push(sample_image(), fake)
    assert len(fake.seen("PUT", "uploads")) == 3


@of(Ghcr)
def test_ghcr_never_hears_of_some_blobs_so_they_are_sent_again_without_a_head(fake: Ghcr) -> None:
    fake.late = 2
    push(sample_image(), fake)
    assert len(fake.seen("PUT", "uploads")) == 6
    assert len(fake.seen("HEAD", "/blobs/")) == 3


# -- Docker Hub


@of(DockerHub)
def test_docker_hub_says_a_blob_is_there_and_does_not_know_it_so_it_is_sent_by_force(fake: DockerHub) -> None:
    image = sample_image()
    lied = str(image.blobs()[1].digest)
    fake.claimed.add(lied)
    push(image, fake)
    assert tagged(fake) == image.top.digest
    assert [c.query["digest"][0] for c in fake.seen("PUT", "uploads")].count(lied) == 1
    assert len(fake.seen("PUT", "uploads")) == 3


@of(DockerHub)
def test_docker_hub_wants_the_right_to_pull_the_source_of_a_mount_in_the_same_token(
    fake: DockerHub, tmp_path: Path
) -> None:
    fake.auth = "bearer"
    fake.add_blob("library/base", DATA)
    with RegistryDestination(reference(fake), None, credentials(tmp_path, fake), sleep=no_sleep) as destination:
        assert destination.put(octets(DATA, origin(fake, "library/base"))) == "mounted"
    assert fake.seen("GET", "/token")[-1].query["scope"] == [
        "repository:library/base:pull",
        "repository:team/app:pull,push",
    ]


@of(DockerHub)
def test_docker_hub_counts_manifests_so_a_tag_costs_a_head_and_a_digest_one_get(fake: DockerHub) -> None:
    fake.allowance = 1
    digest = fake.add_manifest("team/app", "v1", MANIFEST, b"{}")
    source = RegistrySource(reference(fake))
    for _ in range(3):
        with source.open(source.root()) as stream:
            assert Digest.of(stream.read()) == digest
    source.close()
    assert [c.method for c in fake.calls] == ["HEAD", "GET"]


@of(DockerHub)
def test_docker_hub_asks_to_wait_for_hours_which_nobody_does(fake: DockerHub) -> None:
    fake.allowance = 0
    fake.add_manifest("team/app", "v1", MANIFEST, b"{}")
    slept: list[float] = []
    source = RegistrySource(reference(fake), sleep=slept.append)
    with pytest.raises(RegistryError, match="429 TOOMANYREQUESTS") as caught:
        source.open(source.root())
    source.close()
    assert caught.value.hint == "the registry limits requests: wait, or log in for a higher limit"
    assert slept == [] and len(fake.seen("GET")) == 1


@of(DockerHub)
def test_docker_hub_limits_uploads_for_hours_which_nobody_waits_for(fake: DockerHub) -> None:
    fake.on("PUT", "uploads", answer(429, error_body("TOOMANYREQUESTS"), Retry_After="21600"))
    slept: list[float] = []
    with (
        RegistryDestination(reference(fake), sleep=slept.append) as destination,
        pytest.raises(RegistryError, match="429 TOOMANYREQUESTS"),
    ):
        destination.put(octets(DATA))
    assert slept == []


@of(DockerHub)
def test_docker_hub_tokens_die_before_the_manifest_so_a_401_renews_them(fake: DockerHub, tmp_path: Path) -> None:
    fake.auth, fake.tokens_die = "bearer", True
    push(sample_image(), fake, credentials(tmp_path, fake))
    assert fake.issued == 2


# -- Artifact Registry


@of(ArtifactRegistry)
def test_artifact_registry_takes_no_chunks_so_bodies_go_in_one_request(fake: ArtifactRegistry) -> None:
    put(fake, LARGE)
    assert fake.seen("PATCH") == []


@of(ArtifactRegistry)
def test_artifact_registry_refuses_the_rest_of_a_broken_upload_so_the_whole_is_sent_anew(
    fake: ArtifactRegistry,
) -> None:
    fake.on("PUT", "uploads", break_off(500_000, keep=True))
    put(fake, DATA)
    assert len(fake.seen("PATCH")) == 1
    assert len(fake.seen("PUT", "uploads")[-1].body) == len(DATA)


# -- ACR


@of(Acr)
def test_acr_storage_refuses_a_foreign_authorization_so_it_is_stripped(fake: Acr, tmp_path: Path) -> None:
    fake.auth = "bearer"
    digest = fake.add_blob("team/app", DATA)
    with running(Acr, OTHER_HOST) as storage:
        storage.add_blob("team/app", DATA)
        fake.storage = storage.host
        source = RegistrySource(reference(fake), None, credentials(tmp_path, fake), sleep=no_sleep)
        with source.open(octets(DATA).descriptor) as stream:
            assert stream.read() == DATA
        source.close()
        assert [c.target for c in storage.calls] == [f"/v2/team/app/blobs/{digest}?sig=a%2Bb"]
        assert storage.secrets() == []


@of(Acr)
def test_acr_logins_are_identity_tokens_so_they_are_exchanged_by_post(fake: Acr, tmp_path: Path) -> None:
    fake.auth = "bearer"
    user = "00000000-0000-0000-0000-000000000000"
    pair = base64.b64encode(f"{user}:".encode()).decode()
    push(sample_image(), fake, credentials(tmp_path, fake, {"auth": pair, "identitytoken": IDENTITY}))
    assert fake.seen("GET", "/token") == []
    (call,) = fake.seen("POST", "/token")
    assert b"grant_type=refresh_token" in call.body and user.encode() not in call.body


@of(Acr)
def test_acr_forgets_a_broken_session_so_a_404_means_a_new_one(fake: Acr) -> None:
    fake.on("PUT", "uploads", break_off(500_000, keep=False), times=2)
    put(fake, DATA)
    assert len(fake.seen("POST", "uploads")) == 3


# -- Harbor


@of(Harbor)
@pytest.mark.parametrize("source", ["nowhere/base", "single"], ids=["unknown project 401", "one level 400"])
@pytest.mark.parametrize("auth", ["basic", "bearer"])
def test_harbor_refuses_a_mount_so_the_blob_is_uploaded(fake: Harbor, tmp_path: Path, source: str, auth: Any) -> None:
    fake.auth = auth
    store = credentials(tmp_path, fake)
    with RegistryDestination(reference(fake), None, store, sleep=no_sleep) as destination:
        assert destination.put(octets(DATA, origin(fake, source))) == "uploaded"
        assert destination.put(octets(b"another")) == "uploaded"
    if auth == "bearer":  # the token of the mount is not used for anything else
        last = fake.seen("PUT", "uploads")[-1].headers["Authorization"].removeprefix("Bearer ")
        assert fake.tokens[last] == {"repository:team/app:pull,push"}


@of(Harbor)
@pytest.mark.parametrize("status", [401, 403])
def test_harbor_gives_no_token_for_a_mount_so_the_blob_is_uploaded(fake: Harbor, tmp_path: Path, status: int) -> None:
    fake.auth = "bearer"
    store = credentials(tmp_path, fake)
    with RegistryDestination(reference(fake), None, store, sleep=no_sleep) as destination:
        fake.on("GET", "/token", answer(status))
        for data in (DATA, b"another"):
            assert destination.put(octets(data, origin(fake, "nowhere/base", data))) == "uploaded"
    assert len(fake.seen("GET", "/token")) == 2  # and no more is asked for once it was refused


@of(Harbor)
def test_harbor_redirects_head_so_it_is_followed(fake: Harbor) -> None:
    fake.add_blob("team/app", DATA)
    with RegistryDestination(reference(fake), sleep=no_sleep) as destination:
        assert destination.put(octets(DATA)) == "exists"
        assert destination.put(octets(b"absent")) == "uploaded"


@of(Harbor)
def test_harbor_takes_cookies_for_a_browser_so_none_are_sent_back(fake: Harbor) -> None:
    push(sample_image(), fake)
    assert all("Cookie" not in c.headers for c in fake.calls)


@of(Harbor)
def test_harbor_tokens_die_during_a_large_layer_so_it_is_sent_again(fake: Harbor, tmp_path: Path) -> None:
    fake.auth = "bearer"

    def die(registry: FakeRegistry, exchange: Exchange) -> None:
        registry.tokens.clear()
        registry.serve(exchange)

    fake.on("PUT", "uploads", die)
    put(fake, DATA, credentials(tmp_path, fake))
    assert fake.issued == 2


# -- Artifactory


@of(Artifactory)
def test_artifactory_of_old_knows_no_put_with_a_body_so_patch_after_two_404(fake: Artifactory) -> None:
    put(fake, DATA)
    assert [len(c.body) for c in fake.seen("PUT", "uploads")] == [len(DATA), len(DATA), 0]
    assert [len(c.body) for c in fake.seen("PATCH")] == [len(DATA)]


@of(Artifactory)
def test_artifactory_wants_no_accept_on_uploads_so_only_manifests_have_one(fake: Artifactory) -> None:
    push(sample_image(), fake)
    assert {c.headers["Accept"] for c in fake.calls if "/blobs/" in c.path} == {"*/*"}
    assert {c.headers["Accept"] for c in fake.seen("HEAD", "manifests")} == {ACCEPT["Accept"]}


@of(Artifactory)
def test_artifactory_keeps_broken_uploads_for_ever_so_there_are_few_and_none_is_cancelled(fake: Artifactory) -> None:
    fake.on("PATCH", "uploads", break_off(1000, keep=False), times=99)
    with (
        RegistryDestination(reference(fake), sleep=no_sleep) as destination,
        pytest.raises(RegistryError),
    ):
        destination.put(octets(DATA))
    assert len(fake.seen("POST", "uploads")) <= 5
    assert fake.seen("DELETE") == []


@of(Artifactory)
def test_artifactory_names_another_repository_in_scopes_so_tokens_are_kept_by_the_path(
    fake: Artifactory, tmp_path: Path
) -> None:
    fake.auth = "bearer"
    push(sample_image(), fake, credentials(tmp_path, fake))
    (call,) = fake.seen("GET", "/token")
    assert call.query["scope"] == ["repository:app:pull", "repository:team/app:pull,push"]


@of(Artifactory)
def test_artifactory_parses_history_so_it_has_an_entry_for_each_layer(fake: Artifactory) -> None:
    base = sample_image()
    config, *layers = base.blobs()
    sink = io.BytesIO()
    entry = File(path="etc/own", size=1, content=Bytes(b"x"))
    own = write_layer([Segment("files", (entry,))], sink, Codec.parse("gzip"))
    parsed = ImageConfig.parse(base.contents[config.digest])
    image = assemble(parsed, layers, [(own, "ours", {})], ConfigChanges(), {})
    contents = base.contents | {own.digest: sink.getvalue()}
    contents |= {image.descriptor.digest: image.manifest, image.config_descriptor.digest: image.config}
    assert len(json.loads(image.config)["history"]) == 3  # the base has none, and two layers
    push(MemorySource(image.descriptor, contents), fake)
    assert tagged(fake) == image.descriptor.digest


# -- GitLab


@of(GitLab)
def test_gitlab_keeps_only_the_last_scope_so_push_is_the_last_and_a_mount_may_fail(
    fake: GitLab, tmp_path: Path
) -> None:
    fake.auth = "bearer"
    fake.mounts = False
    fake.add_blob("library/base", DATA)
    with RegistryDestination(reference(fake), None, credentials(tmp_path, fake), sleep=no_sleep) as destination:
        assert destination.put(octets(DATA, origin(fake, "library/base"))) == "uploaded"
    assert fake.seen("GET", "/token")[-1].query["scope"][-1] == "repository:team/app:pull,push"


@of(GitLab)
def test_gitlab_tokens_live_five_minutes_so_they_are_renewed_in_time(fake: GitLab, tmp_path: Path) -> None:
    fake.auth, fake.token_life = "bearer", 300
    now = [0.0]
    client = ForgeRegistry(reference(fake), None, credentials(tmp_path, fake), sleep=no_sleep, clock=lambda: now[0])
    for now[0] in (0.0, 269.0, 271.0, 280.0):  # 30 seconds are kept as a margin
        client.has(octets(DATA).descriptor)
    client.close()
    assert fake.issued == 2
    assert len(fake.seen("HEAD")) == 5  # one 401, at the very first


@of(GitLab)
def test_gitlab_compares_the_type_with_the_manifest_so_both_are_the_same(fake: GitLab) -> None:
    push(index_of(sample_image(), sample_image(platform="linux/arm64")), fake)
    put_types = {c.path.rpartition("/")[2]: c.headers["Content-Type"] for c in fake.seen("PUT", "manifests")}
    assert put_types["v1"] == INDEX and set(put_types.values()) == {INDEX, MANIFEST}


@of(GitLab)
def test_gitlab_knows_only_image_configs_so_its_refusal_of_others_is_told(fake: GitLab) -> None:
    with pytest.raises(RegistryError, match="400 MANIFEST_INVALID: manifest invalid"):
        push(artifact(sample_image().top), fake)


# -- Quay


@of(Quay)
def test_quay_takes_one_manifest_at_a_time_so_they_come_serially(fake: Quay) -> None:
    images = [sample_image(platform=platform) for platform in ("linux/amd64", "linux/arm64", "linux/ppc64le")]
    push(index_of(*images), fake)
    assert len(fake.seen("PUT", "manifests")) == 5


@of(Quay)
def test_quay_gives_schema_1_unless_oci_types_are_accepted_so_all_four_are(fake: Quay) -> None:
    image = sample_image()
    push(image, fake)
    source = RegistrySource(reference(fake), sleep=no_sleep)
    assert source.root().media_type == MANIFEST
    source.close()
    asked = [c.headers["Accept"] for c in fake.calls if c.method in ("GET", "HEAD") and "/manifests/" in c.path]
    assert {accept.count("application/vnd.") for accept in asked} == {4}


# -- zot


@of(Zot)
def test_zot_refuses_docker_types_so_a_docker_base_becomes_oci(fake: Zot) -> None:
    docker = sample_image(docker_types=True)
    with pytest.raises(RegistryError, match="415 MANIFEST_INVALID: docker media types are not supported"):
        push(docker, fake)
    rewritten = ImageManifest.parse(docker.contents[docker.top.digest], DOCKER_MANIFEST).to_oci().to_bytes()
    root = blob_of(rewritten, MANIFEST)
    with RegistryDestination(reference(fake), sleep=no_sleep) as destination:
        assert destination.put(root) == "uploaded"
        destination.tag(root.descriptor)
    assert tagged(fake) == root.descriptor.digest


# -- Nexus


@of(Nexus)
def test_nexus_fails_when_one_blob_comes_twice_at_once_so_only_one_is_in_flight(fake: Nexus) -> None:
    with (
        RegistryDestination(reference(fake), sleep=no_sleep) as destination,
        ThreadPoolExecutor(8) as pool,
    ):
        assert "uploaded" in list(pool.map(destination.put, [octets(DATA)] * 8))
    assert len(fake.seen("POST", "uploads")) == len(fake.seen("PUT", "uploads")) == 1


@of(Nexus)
@pytest.mark.parametrize("finished", [True, False], ids=["the other finished", "the other gave up"])
def test_nexus_fails_when_another_client_uploads_the_blob_so_it_is_looked_for_first(
    fake: Nexus, finished: bool
) -> None:
    fake.others[str(Digest.of(DATA))] = finished
    put(fake, DATA)
    assert len(fake.seen("PUT", "uploads")) == (1 if finished else 2)


@of(Nexus)
def test_nexus_has_a_realm_that_is_no_url_so_the_challenge_decides(fake: Nexus, tmp_path: Path) -> None:
    fake.auth = "basic"
    push(sample_image(), fake, credentials(tmp_path, fake))
    assert fake.seen("GET", "/token") == []
    assert [c.path for c in fake.calls if "Authorization" not in c.headers] == ["/v2/team/app/manifests/v1"]


# -- zstd


@pytest.mark.parametrize("fake", [FakeRegistry], indirect=True)
def test_zstd_anywhere_is_legal_only_with_oci_types_so_they_are_never_mixed(fake: FakeRegistry) -> None:
    image = sample_image(codec="zstd")
    push(image, fake)
    manifest = json.loads(fake.manifests["team/app", "v1"][1])
    assert manifest["mediaType"] == MANIFEST
    assert {layer["mediaType"] for layer in manifest["layers"]} == {"application/vnd.oci.image.layer.v1.tar+zstd"}
