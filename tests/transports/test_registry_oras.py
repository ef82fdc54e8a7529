"""What ForgeRegistry leans on in oras-py, and what it takes away."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import oras.container
import oras.provider
import pytest

from ociforge.errors import ReferenceFormatError, RegistryError
from ociforge.oci.reference import Reference
from ociforge.transports.registry import ForgeRegistry, Ref
from tests.support.fake_registry import running_fake

if TYPE_CHECKING:
    from collections.abc import Callable


def test_do_request_keeps_its_signature() -> None:
    theirs = list(inspect.signature(oras.provider.Registry.do_request).parameters.values())
    ours = list(inspect.signature(ForgeRegistry.do_request).parameters.values())
    assert [(p.name, p.default) for p in ours] == [(p.name, p.default) for p in theirs]


@pytest.mark.parametrize("name", ["get_tags", "delete_tag", "get_blob", "_do_paginated_request"])
def test_what_is_inherited_reaches_the_network_through_do_request_only(name: str) -> None:
    function = inspect.unwrap(getattr(oras.provider.Registry, name))
    assert function is inspect.unwrap(getattr(ForgeRegistry, name))
    used = _attributes_of_self(function)
    assert used & {"do_request", "_do_paginated_request"}
    assert used <= {"do_request", "_do_paginated_request", "_check_200_response", "prefix", "headers"}


def _attributes_of_self(function: Callable[..., object]) -> set[str]:
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    attributes = {n for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
    return {n.attr for n in attributes if isinstance(n.value, ast.Name) and n.value.id == "self"}


def test_a_container_parses_its_name_when_it_is_made() -> None:
    class Seen(oras.container.Container):  # type: ignore[misc]  # oras has no types
        def parse(self, name: str) -> None:
            self.seen = name

    assert Seen("anything").seen == "anything"


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("ubuntu", "registry-1.docker.io/v2/library/ubuntu/manifests/latest"),
        ("docker.io/a/b:c", "registry-1.docker.io/v2/a/b/manifests/c"),
        ("localhost/foo", "localhost/v2/foo/manifests/latest"),
        ("[::1]:5000/a/b/c:1", "[::1]:5000/v2/a/b/c/manifests/1"),
        (f"r.io/x:t@sha256:{'a' * 64}", f"r.io/v2/x/manifests/sha256:{'a' * 64}"),
    ],
)
def test_urls_of_names(name: str, url: str) -> None:
    assert Ref(name).manifest_url() == url


@pytest.mark.parametrize(
    "name", ["http://r.io/a", "r.io/a:b:c", "r.io//a", "r.io/A", "r.io/a?x=1", "r.io/../a", "r.io/a@bad"]
)
def test_names_that_oras_would_let_pass(name: str) -> None:
    with pytest.raises(ReferenceFormatError):
        Ref(name)


@pytest.mark.parametrize(
    "name",
    [
        *("push", "pull", "login", "logout", "upload_blob", "put_upload", "chunked_upload", "blob_exists"),
        *("download_blob", "get_manifest", "upload_manifest"),
    ],
)
def test_dangerous_functions_are_gone(name: str) -> None:
    registry = ForgeRegistry(Reference.parse("r.io/a:b"))
    with pytest.raises(NotImplementedError):
        getattr(registry, name)("r.io/a:b", "x", "y")


def test_inherited_functions_work_and_stay_on_their_registry() -> None:
    with running_fake() as fake:
        fake.auth = "bearer"
        fake.add_manifest("team/app", "v1", "application/vnd.oci.image.manifest.v1+json", b"{}")
        digest = fake.add_blob("team/app", b"blob")
        registry = ForgeRegistry(Reference.parse(f"{fake.host}/team/app:v1"))
        assert registry.get_tags(f"{fake.host}/team/app") == ["v1"]
        assert registry.get_blob(f"{fake.host}/team/app", str(digest)).content == b"blob"
        assert fake.issued == 1
        with pytest.raises(RegistryError, match=r"`r\.io/team/app:latest` is not in the registry"):
            registry.get_tags("r.io/team/app")
        with pytest.raises(RegistryError, match="404"):
            fake.on("GET", "tags/list", lambda _, exchange: exchange.send(404))
            registry.get_tags(f"{fake.host}/team/app")
        registry.close()


def test_naming_a_place_does_not_import_the_client() -> None:
    code = "import sys, ociforge.transports; print(*({'oras', 'requests', 'urllib3'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"\n"
