"""What refers to a manifest: by the API, or by the list under a tag."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from layers.digest import Digest
from ociforge.errors import AuthError, RegistryError
from ociforge.oci.descriptor import CONFIG, INDEX, MANIFEST, Descriptor, canonical_json
from ociforge.oci.reference import Reference
from ociforge.transports.document import Document
from ociforge.transports.registry import ForgeRegistry, RegistryDestination
from tests.support.fake_registry import Exchange, FakeRegistry, answer, running_fake
from tests.support.registry import running_registry
from tests.transports.registry_tools import blob_of, no_sleep

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SUBJECT = Descriptor(media_type=MANIFEST, digest=Digest.of(b"subject"), size=7)
TAG = f"sha256-{SUBJECT.digest.hex}"
SBOM, SIGNATURE = "application/spdx+json", "application/vnd.example.signature"


@pytest.fixture
def fake() -> Iterator[FakeRegistry]:
    with running_fake() as registry:
        yield registry


@pytest.fixture
def registry(fake: FakeRegistry) -> Iterator[ForgeRegistry]:
    registry = ForgeRegistry(Reference(registry=fake.host, repository="team/app", tag="v1"), sleep=no_sleep)
    yield registry
    registry.close()


def entry(name: str, artifact_type: str | None = SBOM) -> Descriptor:
    return Descriptor(media_type=MANIFEST, digest=Digest.of(name.encode()), size=1, artifact_type=artifact_type)


def index(*entries: Descriptor, **members: Any) -> bytes:
    document = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [e.to_json() for e in entries]}
    return canonical_json(document | members)


def attached(artifact_type: str | None = SBOM, subject: Descriptor | None = SUBJECT, **members: Any) -> Document:
    """A manifest that refers to another."""
    content: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": str(Digest.of(b"{}")), "size": 2},
        "layers": [],
    }
    content |= {} if subject is None else {"subject": subject.to_json()}
    content |= {} if artifact_type is None else {"artifactType": artifact_type}
    return Document.of(canonical_json(content | members), MANIFEST, "manifest")


def listed(fake: FakeRegistry) -> dict[str, Any]:
    media_type, data = fake.manifests["team/app", TAG]
    assert media_type == INDEX
    document: dict[str, Any] = json.loads(data)
    return document


# -- reading


def test_the_api_is_asked_first_and_followed_to_its_last_page(fake: FakeRegistry, registry: ForgeRegistry) -> None:
    def page(exchange: Exchange, entries: list[Descriptor], link: str | None) -> None:
        headers = {"Content-Type": INDEX} | ({} if link is None else {"Link": f'<{link}>; rel="next"'})
        exchange.send(200, index(*entries), headers)

    following = f"/v2/team/app/referrers/{SUBJECT.digest}?last=a%2Fb"
    fake.on("GET", "/referrers/", lambda _, exchange: page(exchange, [entry("a"), entry("b", SIGNATURE)], following))
    fake.on("GET", "/referrers/", lambda _, exchange: page(exchange, [entry("c")], None))
    assert registry.referrers(SUBJECT.digest, SBOM) == [entry("a"), entry("c")]
    assert [c.target for c in fake.calls] == [
        f"/v2/team/app/referrers/{SUBJECT.digest}?artifactType=application%2Fspdx%2Bjson",
        following,
    ]


def test_what_the_registry_has_filtered_is_not_filtered_again(fake: FakeRegistry, registry: ForgeRegistry) -> None:
    unnamed = entry("a", None)  # its configuration's type may be the one that was asked for
    reply = answer(200, index(unnamed), Content_Type=INDEX, OCI_Filters_Applied="artifactType")
    fake.on("GET", "/referrers/", reply)
    assert registry.referrers(SUBJECT.digest, SBOM) == [unnamed]


@pytest.mark.parametrize(
    "reply",
    [
        answer(404),
        answer(400),
        answer(401),
        answer(403),
        answer(405),
        answer(501),
        answer(200, b"<html>", Content_Type="text/html"),
        answer(200, b"{}", Content_Type=INDEX),
        answer(303, Location="http://127.0.0.9:1/page/for/people"),  # GHCR; it is not visited
        answer(302, Location="login"),
    ],
)
def test_any_other_answer_means_the_tag(fake: FakeRegistry, registry: ForgeRegistry, reply: Any) -> None:
    fake.on("GET", "/referrers/", reply)
    fake.add_manifest("team/app", TAG, INDEX, index(entry("a"), entry("b", SIGNATURE)))
    assert registry.referrers(SUBJECT.digest, SIGNATURE) == [entry("b", SIGNATURE)]
    assert [c.path.rpartition("/")[2] for c in fake.calls] == [str(SUBJECT.digest), TAG]


def test_without_api_and_tag_there_are_none(fake: FakeRegistry, registry: ForgeRegistry) -> None:
    assert registry.referrers(SUBJECT.digest) == []
    fake.add_manifest("team/app", TAG, MANIFEST, attached().data)
    assert registry.referrers(SUBJECT.digest) == []


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_registry_that_is_busy_is_not_one_without_api(
    fake: FakeRegistry, registry: ForgeRegistry, status: int
) -> None:
    fake.on("GET", "/referrers/", answer(status), times=9)
    with pytest.raises(RegistryError, match=f": {status} "):
        registry.referrers(SUBJECT.digest)
    assert len(fake.calls) == 5


def test_who_may_not_read_is_told(fake: FakeRegistry, registry: ForgeRegistry) -> None:
    fake.auth = "basic"
    with pytest.raises(AuthError):
        registry.referrers(SUBJECT.digest)


def test_the_next_page_is_on_the_registry(fake: FakeRegistry, registry: ForgeRegistry) -> None:
    reply = answer(200, index(), Content_Type=INDEX, Link='<http://127.0.0.9:1/next?token=x>; rel="next"')
    fake.on("GET", "/referrers/", reply)
    with pytest.raises(RegistryError) as caught:
        registry.referrers(SUBJECT.digest)
    assert caught.value.message == f"the registry `{fake.host}` leads elsewhere: `http://127.0.0.9:1/next`"


def test_a_page_that_breaks_the_row_is_an_error(fake: FakeRegistry, registry: ForgeRegistry) -> None:
    fake.on("GET", "/referrers/", answer(200, index(), Content_Type=INDEX, Link='<?page=2>; rel="next"'))
    with pytest.raises(RegistryError, match="is not the next page of the referrers"):
        registry.referrers(SUBJECT.digest)


def test_pages_without_end_end(fake: FakeRegistry, registry: ForgeRegistry) -> None:
    reply = answer(200, index(entry("a")), Content_Type=INDEX, Link='<?again>; rel="next"')
    fake.on("GET", "/referrers/", reply, times=999)
    assert len(registry.referrers(SUBJECT.digest)) == len(fake.calls) == 100


# -- writing


def test_a_registry_with_the_api_keeps_the_list(fake: FakeRegistry, registry: ForgeRegistry) -> None:
    fake.on("PUT", "/manifests/", answer(201, OCI_Subject=str(SUBJECT.digest)))
    document = attached()
    registry.put_manifest(str(document.descriptor.digest), document)
    assert [c.method for c in fake.calls] == ["PUT"]


def test_a_registry_without_it_gets_a_new_list(fake: FakeRegistry, registry: ForgeRegistry) -> None:
    document = attached(annotations={"org.example": "x"})
    registry.put_manifest(str(document.descriptor.digest), document)
    assert [str(c).replace(str(document.descriptor.digest), "DIGEST") for c in fake.calls] == [
        "PUT /v2/team/app/manifests/DIGEST",
        f"GET /v2/team/app/manifests/{TAG}",
        f"PUT /v2/team/app/manifests/{TAG}",
    ]
    own = document.descriptor.to_json() | {"annotations": {"org.example": "x"}, "artifactType": SBOM}
    assert listed(fake) == {"schemaVersion": 2, "mediaType": INDEX, "manifests": [own]}
    registry.put_manifest("v1", document)
    assert len(listed(fake)["manifests"]) == 1
    assert len(fake.seen("PUT", TAG)) == 1


def test_the_entries_of_others_are_kept_as_they_are(fake: FakeRegistry, registry: ForgeRegistry) -> None:
    other = entry("other", SIGNATURE).to_json() | {"x-unknown": [1]}
    data = canonical_json({"schemaVersion": 2, "mediaType": INDEX, "manifests": [other], "x-more": "kept"})
    fake.add_manifest("team/app", TAG, INDEX, data)
    registry.put_manifest("v1", attached())
    assert listed(fake)["manifests"][0] == other
    assert listed(fake)["x-more"] == "kept"
    assert len(listed(fake)["manifests"]) == 2


@pytest.mark.parametrize(
    ("document", "kind"),
    [
        (attached(None), "application/vnd.oci.empty.v1+json"),
        (attached(""), "application/vnd.oci.empty.v1+json"),
        (attached(SIGNATURE), SIGNATURE),
        (Document.of(index(subject=SUBJECT.to_json()), INDEX, "index"), None),
    ],
)
def test_the_type_of_an_entry(
    fake: FakeRegistry, registry: ForgeRegistry, document: Document, kind: str | None
) -> None:
    registry.put_manifest("v1", document)
    assert listed(fake)["manifests"][0].get("artifactType") == kind


def test_what_is_not_attached_is_on_no_list(fake: FakeRegistry, registry: ForgeRegistry) -> None:
    registry.put_manifest("v1", attached(subject=None))
    assert [c.method for c in fake.calls] == ["PUT"]


def test_a_tag_that_is_no_list_is_not_overwritten(fake: FakeRegistry, registry: ForgeRegistry) -> None:
    fake.add_manifest("team/app", TAG, MANIFEST, attached().data)
    with pytest.raises(RegistryError) as caught:
        registry.put_manifest("v1", attached())
    what = f"manifest `{TAG}` of `{fake.host}/team/app`"
    assert caught.value.message == f"{what} is not the list of referrers that its name promises"
    assert not fake.seen("PUT", TAG)


def test_a_push_that_was_killed_before_the_list_makes_it_up(fake: FakeRegistry) -> None:
    document = attached()
    fake.add_manifest("team/app", "v1", MANIFEST, document.data)
    with RegistryDestination(Reference(registry=fake.host, repository="team/app", tag="v1")) as destination:
        destination.put(blob_of(document.data, MANIFEST))
    assert len(listed(fake)["manifests"]) == 1


def test_a_real_registry_without_the_api(tmp_path: Path) -> None:
    with running_registry(tmp_path) as running:
        reference = Reference(registry=running.host, repository="team/app", tag="v1")
        with RegistryDestination(reference) as destination:
            destination.put(blob_of(b"{}", CONFIG))
            subject = attached(None, None)
            destination.put(blob_of(subject.data, MANIFEST))
            for kind in (SBOM, SIGNATURE):
                destination.put(blob_of(attached(kind, subject.descriptor).data, MANIFEST))
        registry = ForgeRegistry(reference)
        found = registry.referrers(subject.descriptor.digest)
        assert [e.artifact_type for e in found] == [SBOM, SIGNATURE]
        assert registry.referrers(subject.descriptor.digest, SIGNATURE) == found[1:]
        registry.close()
