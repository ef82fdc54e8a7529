"""The laboratory's real registries, of every kind: an image goes there and comes back, and strangers are refused."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from ociforge.errors import AuthError, RegistryError
from ociforge.oci.reference import Reference
from ociforge.publish import publish
from ociforge.transports.auth import CredentialStore
from ociforge.transports.options import RegistryOptions
from ociforge.transports.registry import RegistryDestination, RegistrySource
from tests.support.fault_proxy import FaultProxy, running_proxy
from tests.support.memory import MemoryDestination, index_of, sample_image
from tests.support.registry import PASSWORD, USER, Registry
from tests.transports.registry_tools import no_sleep

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.tls import Authority

KINDS = ["open_registry", "password_registry", "token_registry", "tls_registry", "mutual_registry"]


@dataclass(frozen=True, slots=True)
class Place:
    """A registry, and what a friend needs to use it."""

    registry: Registry
    options: RegistryOptions
    credentials: CredentialStore

    def reference(self, repository: str) -> Reference:
        return Reference(registry=self.registry.host, repository=repository, tag="v1")


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, authority: Authority, tmp_path: Path) -> Place:
    registry: Registry = request.getfixturevalue(request.param)
    file = tmp_path / "auth.json"
    pair = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    file.write_text(json.dumps({"auths": {registry.host: {"auth": pair}}}))
    secure = request.param in ("tls_registry", "mutual_registry")
    options = RegistryOptions(
        ca_file=authority.certificate if secure else None,
        client_cert=authority.issue("client") if request.param == "mutual_registry" else None,
    )
    return Place(registry, options, CredentialStore(files=(file,)))


def test_an_index_there_and_back(place: Place) -> None:
    index = index_of(sample_image([{"etc/a": b"1"}]), sample_image([{"etc/b": b"2"}], platform="linux/arm64"))
    reference = place.reference("laboratory/index")
    publish(index, RegistryDestination(reference, place.options, place.credentials, sleep=no_sleep))
    source = RegistrySource(reference, place.options, place.credentials, sleep=no_sleep)
    back = MemoryDestination()
    publish(source, back)
    source.close()
    assert back.contents == index.contents


@pytest.mark.parametrize("place", KINDS[1:], indirect=True)
def test_strangers_are_refused(place: Place) -> None:
    """Who has no password, trusts no authority, or has no certificate."""
    private = place.options.client_cert is not None
    options = RegistryOptions(ca_file=place.options.ca_file if private else None)
    source = RegistrySource(place.reference("laboratory/secret"), options, sleep=no_sleep)
    with pytest.raises(RegistryError) as caught:
        source.root()
    source.close()
    assert isinstance(caught.value, AuthError) == (place.options.ca_file is None)


def test_a_proxy_that_spoils_nothing_changes_nothing(open_registry: Registry) -> None:
    image = sample_image([{"etc/proxied": b"yes"}])
    with running_proxy(open_registry.host) as proxy:
        assert isinstance(proxy, FaultProxy)
        reference = Reference(registry=proxy.host, repository="laboratory/proxied", tag="v1")
        publish(image, RegistryDestination(reference, sleep=no_sleep))
        source = RegistrySource(reference, sleep=no_sleep)
        back = MemoryDestination()
        publish(source, back)
        source.close()
    assert back.contents == image.contents
    assert len(proxy.requests) == len([r for r in open_registry.requests() if "/laboratory/proxied/" in r])
