"""What a base in a registry costs to ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from ociforge.base import load
from ociforge.oci.reference import Reference
from ociforge.platform import Platform
from ociforge.store import Store
from ociforge.transports.registry import RegistrySource
from tests.support.fake_registry import FakeRegistry, running_fake
from tests.support.memory import index_of, sample_image

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ociforge.base import Base

AMD64 = Platform.parse("linux/amd64")
IMAGE = sample_image()
INDEX = index_of(IMAGE, sample_image([{"etc/arm": b"64"}], platform="linux/arm64"))


@pytest.fixture
def fake() -> Iterator[FakeRegistry]:
    with running_fake() as registry:
        for digest, data in INDEX.contents.items():
            registry.add_blob("base/os", data)
            registry.manifests["base/os", str(digest)] = (IMAGE.top.media_type, data)
        registry.add_manifest("base/os", "v1", INDEX.top.media_type, INDEX.contents[INDEX.top.digest])
        yield registry


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def pulled(fake: FakeRegistry, store: Store, **options: Any) -> Base:
    source = RegistrySource(Reference(registry=fake.host, repository="base/os", tag="v1"))
    base = load(source, platform=AMD64, store=store, **options)
    assert {path for path, _ in base.tree} >= {"etc/first", "etc/second"}
    source.close()
    return base


@pytest.mark.parametrize("auth", ["none", "bearer"])
def test_an_unchanged_tag_costs_one_head(fake: FakeRegistry, store: Store, auth: Any) -> None:
    fake.auth = auth
    first = pulled(fake, store)
    assert [c.method for c in fake.seen("GET", "/manifests/")] == ["GET", "GET"]  # the index and the image
    assert len(fake.seen("GET", "/blobs/")) == 3
    fake.calls.clear()
    assert pulled(fake, store).digest == first.digest == INDEX.top.digest
    head = "HEAD /v2/base/os/manifests/v1"
    assert [str(c) for c in fake.calls] == ([head] if auth == "none" else [head, "GET /token", head])


def test_a_pinned_digest_costs_nothing(fake: FakeRegistry, store: Store) -> None:
    pulled(fake, store)
    fake.calls.clear()
    assert pulled(fake, store, digest=INDEX.top.digest).digest == INDEX.top.digest
    assert fake.calls == []


def test_a_tag_that_moves_between_platforms_of_one_index_costs_the_new_documents(
    fake: FakeRegistry, store: Store
) -> None:
    """What the store has by its digest is not fetched under another name."""
    pulled(fake, store)
    top = index_of(IMAGE)
    fake.add_manifest("base/os", "v1", top.top.media_type, top.contents[top.top.digest])
    fake.calls.clear()
    assert pulled(fake, store).digest == top.top.digest
    assert [c.path for c in fake.calls] == [
        "/v2/base/os/manifests/v1",
        f"/v2/base/os/manifests/{top.top.digest}",
    ]
