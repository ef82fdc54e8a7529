from __future__ import annotations

import base64
import json
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

import pytest

from tests.support.bases import tiny_image
from tests.support.images import digest_of, write_layout
from tests.support.registry import PASSWORD, USER, push_layout, running_registry

if TYPE_CHECKING:
    from pathlib import Path


def test_an_index_is_pushed_and_requests_are_counted(tmp_path: Path) -> None:
    digest = write_layout([tiny_image(), tiny_image(architecture="arm64")], tmp_path / "layout", dialect="docker")

    with running_registry(tmp_path / "registry") as registry:
        assert push_layout(tmp_path / "layout", registry, "library/tiny", "1") == digest
        request = urllib.request.Request(
            f"{registry.url}/v2/library/tiny/manifests/1",
            headers={"Accept": "application/vnd.docker.distribution.manifest.list.v2+json"},
        )
        with urllib.request.urlopen(request) as response:
            data = response.read()

    assert digest_of(data) == digest
    assert [entry["platform"]["architecture"] for entry in json.loads(data)["manifests"]] == ["amd64", "arm64"]
    assert registry.requests()[-1] == "GET /v2/library/tiny/manifests/1 200"
    assert sum(request.startswith("POST ") for request in registry.requests()) == 6


def test_a_registry_can_ask_for_a_password(tmp_path: Path) -> None:
    token = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    with running_registry(tmp_path / "registry", auth=True) as registry:
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(f"{registry.url}/v2/")
        caught.value.close()
        assert caught.value.code == 401
        request = urllib.request.Request(f"{registry.url}/v2/", headers={"Authorization": f"Basic {token}"})
        with urllib.request.urlopen(request) as response:
            assert response.status == 200
