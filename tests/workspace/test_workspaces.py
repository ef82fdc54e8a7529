"""Workspaces as people write them, read as a whole."""

from __future__ import annotations

from pathlib import Path

from ociforge.workspace import load

ROOT = Path(__file__).parent.parent / "workspaces"


def test_my_project() -> None:
    found = load(ROOT / "my_project" / "my_project")
    assert found.root == ROOT / "my_project"
    prod = found.environment("prod", "linux-64")
    assert set(prod.dependencies) >= {"python", "uvicorn", "fastapi"}
    assert prod.display_name == "my_project:prod"
    assert list(prod.activation_env) == ["MY_PROJECT_MODE", "MY_PROJECT_DATA"]
    assert prod.tasks["start"].cmd == "uvicorn my_project:app --host 0.0.0.0"
    assert found.settings.image(overrides={"environment": "prod"}).prefix == "/app/.pixi/envs/prod"


def test_docker_project() -> None:
    found = load(ROOT / "docker_project")
    assert (found.name, found.manifest.version) == ("docker-project", "0.1.0")
    dev, prod = found.environment("default", "linux-64"), found.environment("prod", "linux-aarch64")
    assert [spec.version for spec in prod.dependencies["python"]] == [">=3.11"]
    assert list(dev.pypi_dependencies) == ["pytest", "docker-project", "flask"]
    assert list(prod.pypi_dependencies) == ["gunicorn", "docker-project", "flask"]
    assert dev.pypi_dependencies["docker-project"][0].editable is True
    assert prod.pypi_dependencies["docker-project"][0].editable is None
    assert "dev" not in prod.tasks
    assert dev.solve_group == prod.solve_group == "default"
    images = {name: found.settings.image(name) for name in found.settings.images}
    assert {name: image.environment for name, image in images.items()} == {"prod": "prod", "dev": "default"}
    assert {image.expose for image in images.values()} == {("8000/tcp",)}


def test_rich_platforms() -> None:
    found = load(ROOT / "rich_platforms")
    assert list(found.manifest.platforms) == ["linux-64", "linux-64-cuda-12", "old", "linux-aarch64"]
    assert found.manifest.warnings == ()
    assert found.environment("default", "linux-64").dependencies["pytorch"][0].build is None
    gpu = found.environment("gpu", "linux-64")
    assert gpu.platform.name == "linux-64-cuda-12"
    assert gpu.dependencies["pytorch"][0].build == "cuda*"
