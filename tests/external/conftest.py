"""The seed's example, built once: everything here reads what that one build made."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.external.clients import Built, Forge, Image, Podman, as_root, running_podman
from tests.support.bases import debian_layout
from tests.support.registry import Registry, push_layout, running_registry
from tests.support.workspaces import my_project

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.containers import Crun, Runtime
    from tests.support.docker import Docker

NAME = "my_project:1"


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """One registry for all; it holds the base image as `base/debian:latest`."""
    with running_registry(tmp_path_factory.mktemp("registry")) as running:
        push_layout(debian_layout(), running, "base/debian", "latest")
        yield running
    shutil.rmtree(running.storage)


@pytest.fixture(scope="session")
def forge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forge]:
    """ociforge, with a cache that is empty at first."""
    home = tmp_path_factory.mktemp("forge")
    yield Forge(home=home)
    shutil.rmtree(home)


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workspace."""
    return my_project(tmp_path_factory.mktemp("workspace"))


@pytest.fixture(scope="session")
def built(project: Path, forge: Forge, registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Built]:
    """The image of the environment `prod`, on a base from the registry, in the registry, a layout and an archive."""
    directory = tmp_path_factory.mktemp("built")
    reference, layout, archive = f"{registry.host}/team/my_project:1", directory / "layout", directory / "app.tar"
    before = len(registry.requests())
    places = ("--push", reference, "-o", f"oci:{layout}:1", "-o", f"oci-archive:{archive}", "-t", NAME)
    result = forge("build", project, "-e", "prod", "--base", f"docker://{registry.host}/base/debian:latest", *places)
    yield Built(
        image=Image.only(layout),
        archive=archive,
        reference=reference,
        name=NAME,
        result=result,
        requests=tuple(registry.requests()[before:]),
    )
    shutil.rmtree(directory)


@pytest.fixture(scope="session")
def podman() -> Iterator[Podman]:
    """podman, without images at first."""
    with running_podman() as running:
        yield running


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """An image in a runtime, under the name that it has there."""

    runtime: Runtime
    image: str


@pytest.fixture(scope="session")
def in_docker(docker: Docker, built: Built) -> Loaded:
    """The archive after `docker load`."""
    as_root()
    return Loaded(runtime=docker, image=docker.load(built.archive))


@pytest.fixture(scope="session")
def in_crun(crun: Crun, built: Built) -> Iterator[Loaded]:
    """The layout after `umoci unpack`."""
    as_root()
    name = crun.unpack(built.image.layout)
    yield Loaded(runtime=crun, image=name)
    shutil.rmtree(crun.directory / name)


@pytest.fixture(scope="session", params=["docker", "crun"])
def loaded(request: pytest.FixtureRequest) -> Loaded:
    """The image, ready to run: in docker, and where no daemon is needed."""
    found: Loaded = request.getfixturevalue(f"in_{request.param}")
    return found
