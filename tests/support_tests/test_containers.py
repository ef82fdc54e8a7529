from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest

from tests.support.bases import debian_image, debian_layout
from tests.support.containers import Options
from tests.support.images import write_docker_archive

if TYPE_CHECKING:
    from tests.support.containers import Crun, Runtime
    from tests.support.docker import Docker


@pytest.fixture(scope="module", params=["docker", "crun"])
def runtime(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Runtime, str]:
    """A runtime and the name of a Debian image in it."""
    if request.param == "crun":
        crun: Crun = request.getfixturevalue("crun")
        return crun, crun.unpack(debian_layout())
    docker: Docker = request.getfixturevalue("docker")
    archive = tmp_path_factory.mktemp("runtime") / "debian.tar"
    write_docker_archive(debian_image(small=True), archive, tags=["debian:test"])
    return docker, docker.load(archive)


def test_a_program_runs_to_its_end(runtime: tuple[Runtime, str]) -> None:
    runner, image = runtime

    done = runner.run(
        image, "sh", "-c", "echo out; echo $HELLO >&2; exit 3", options=Options(environment={"HELLO": "hi"})
    )

    assert (done.returncode, done.stdout, done.stderr) == (3, "out\n", "hi\n")


def test_user_and_root_are_as_asked(runtime: tuple[Runtime, str]) -> None:
    runner, image = runtime

    done = runner.run(image, "-c", "id -u; touch /x", options=Options(user="4242", read_only=True, entrypoint="sh"))

    assert done.stdout == "4242\n"
    assert "Read-only file system" in done.stderr


def test_a_container_is_entered_and_stopped(runtime: tuple[Runtime, str]) -> None:
    runner, image = runtime
    program = "trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done"

    with runner.start(image, "sh", "-c", program) as container:
        deadline = time.monotonic() + 20
        while "ready" not in container.logs() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert container.exec("cat", "/etc/debian_version").returncode == 0
        assert container.stop(5) == 7


def test_the_base_says_what_it_is() -> None:
    index = json.loads((debian_layout() / "index.json").read_text())

    assert index["manifests"][0]["annotations"] == {"org.opencontainers.image.ref.name": "latest"}
