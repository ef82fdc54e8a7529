"""How the image runs: activation, settings and the workspace's own description, put together for its configuration."""

from __future__ import annotations

import posixpath
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from msgspec import Struct

from layers.entry import Bytes, File
from ociforge.errors import BuildError
from ociforge.events import Warned, ignore
from ociforge.oci.annotations import FORMAT as FORMAT_ANNOTATION
from ociforge.oci.changes import ConfigChanges
from ociforge.plan import FORMAT
from ociforge.workspace.activation import DEFAULT_PATH, activate, package_facts, workspace_scripts
from ociforge.workspace.task import resolve_command

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from ociforge.base import Base
    from ociforge.conda.package import Activation as PackageActivation
    from ociforge.events import Notify
    from ociforge.workspace import Environment, ImageSettings, Manifest
    from ociforge.workspace.settings import Healthcheck
    from ociforge.workspace.task import Command

__all__ = ["ENTRYPOINT", "Runtime", "annotate", "description", "runtime"]

ENTRYPOINT = "app/entrypoint.sh"  # where pixi's own recipe puts it

_SHELLS = ("bash", "sh", "dash")
_ANNOTATION = "org.opencontainers.image."


class Runtime(Struct, frozen=True, kw_only=True):
    """`changes` to the base's configuration, and the `entrypoint` they name, None when the image can have none."""

    changes: ConfigChanges
    entrypoint: File | None


def runtime(
    environment: Environment,
    wanted: PackageActivation,
    settings: ImageSettings,
    base: Base,
    *,
    manifest: Manifest,
    installed: Collection[str],
    application: Collection[str],
    mtime: int = 0,
    notify: Notify = ignore,
) -> Runtime:
    """Activate `environment` in the image's configuration and, where there is a shell, in an entrypoint.

    `wanted` is what the packages ask of activation. `installed` and `application` are the image paths of the packages'
    and the workspace's files; the latter hold the scripts that activation needs. Raises
    BuildError when something needs a shell that the image does not have, WorkspaceError and PackageError for what
    cannot be activated at all.
    """
    facts = package_facts(
        wanted.scripts,
        {path: text.encode() for path, text in wanted.variables},
        None if wanted.state is None else wanted.state.encode(),
    )
    workdir = settings.workdir.strip("/")
    scripts, warnings = workspace_scripts(environment, lambda path: f"{workdir}/{path}" in application)
    for warning in (*facts.warnings, *warnings):
        notify(Warned(warning))
    shell = _shell(base, installed, settings.prefix)
    command = resolve_command(settings, environment, shell=shell)
    env = {**_accelerator(environment), **command.env, **settings.env}
    activation = activate(
        environment,
        facts,
        prefix=settings.prefix,
        workdir=settings.workdir,
        base_path=base.config.env.get("PATH"),
        interpreter=shell or "/bin/sh",
        scripts=scripts,
        fixed=env,
        manifest_name=manifest.path.name if f"{workdir}/{manifest.path.name}" in application else None,
    )
    called = settings.entrypoint is None or f"/{ENTRYPOINT}" in settings.entrypoint
    if called and ENTRYPOINT in application and settings.entrypoint is not None:
        called = False  # it is the workspace's own script
    if called and shell is None and (activation.needs_shell or settings.entrypoint is not None):
        raise BuildError(
            "neither the base image nor the environment has a shell, but activation needs one for "
            + ", ".join(f"`{need}`" for need in activation.needs_shell or (f"/{ENTRYPOINT}",)),
            "choose a base image with `/bin/sh`, or add `bash` to the environment's dependencies",
        )
    if not called and activation.needs_shell:
        notify(
            Warned(
                "the image's own `entrypoint` leaves out what activation needs a shell for: "
                + ", ".join(f"`{need}`" for need in activation.needs_shell),
                f"let it run `/{ENTRYPOINT}` followed by its command",
            )
        )
    generated = called and shell is not None
    data = activation.entrypoint.encode()
    if not settings.entrypoint and "PATH" not in env:
        _warn_of_missing_command(command, settings, base, {*installed, *application}, notify)
    return Runtime(
        changes=ConfigChanges(
            env={**activation.config_env, **env},
            entrypoint=settings.entrypoint or ((f"/{ENTRYPOINT}",) if generated else ()),
            cmd=command.argv,
            workdir=command.workdir,
            user=settings.user,
            expose=settings.expose,
            volumes=settings.volumes,
            labels={**description(manifest), **settings.labels},
            stop_signal=settings.stop_signal,
            healthcheck=None if settings.healthcheck is None else _healthcheck(settings.healthcheck),
        ),
        entrypoint=File(path=ENTRYPOINT, size=len(data), content=Bytes(data), mode=0o755, mtime=mtime)
        if generated
        else None,
    )


def annotate(manifest: Manifest, settings: ImageSettings, base: Base, created: int | None) -> dict[str, str]:
    """The manifest's annotations: what the image is, what it stands on, and which format its bytes have."""
    found = description(manifest)
    if base.name is not None:
        found[f"{_ANNOTATION}base.name"] = base.name
    if base.digest is not None:
        found[f"{_ANNOTATION}base.digest"] = str(base.digest)
    if created is not None:
        stamp = datetime.fromtimestamp(created, UTC).isoformat().replace("+00:00", "Z")
        found[f"{_ANNOTATION}created"] = stamp
    return {**found, FORMAT_ANNOTATION: str(FORMAT), **settings.annotations}


def _warn_of_missing_command(
    command: Command, settings: ImageSettings, base: Base, files: Collection[str], notify: Notify
) -> None:
    """Tell of a command that the container would not find, while it can be put right easily."""
    if not command.argv:
        return
    name = command.argv[0]
    if "/" in name:
        places = [posixpath.normpath(posixpath.join(command.workdir, name)).strip("/")]
    else:
        path = base.config.env.get("PATH", DEFAULT_PATH).split(":")
        places = [f"{directory}/{name}".strip("/") for directory in (f"{settings.prefix}/bin", *path)]
    if not any(place in files or base.tree.lookup(place) is not None for place in places):
        notify(
            Warned(
                f"the command `{name}` is neither in the environment `{settings.environment}` nor in the base image",
                "check `environment` and `cmd`",
            )
        )


def _accelerator(environment: Environment) -> dict[str, str]:
    """What nvidia's images set so that its container runtime hands the driver to the container: no other base does."""
    cuda = environment.platform.version("__cuda")
    if cuda is None:
        return {}
    return {
        "NVIDIA_VISIBLE_DEVICES": "all",
        "NVIDIA_DRIVER_CAPABILITIES": "compute,utility",
        "NVIDIA_REQUIRE_CUDA": f"cuda>={cuda}",
    }


def _shell(base: Base, installed: Collection[str], prefix: str) -> str | None:
    """The shell that runs the entrypoint: bash if there is one, since activation scripts are written for it."""
    for name in _SHELLS:
        node = base.tree.lookup(f"bin/{name}")
        if node is not None and node.kind == "file":
            return f"/bin/{name}"
        if f"{prefix.strip('/')}/bin/{name}" in installed:
            return f"{prefix}/bin/{name}"
    return None


def description(manifest: Manifest) -> dict[str, str]:
    """What the manifest says of the workspace, by the image-spec's names (annotations.md)."""
    said: Mapping[str, str | None] = {
        "title": manifest.name,
        "version": manifest.version,
        "description": manifest.description,
        "authors": ", ".join(manifest.authors) or None,
        "licenses": manifest.license,
        "url": manifest.homepage,
        "source": manifest.repository,
        "documentation": manifest.documentation,
    }
    return {f"{_ANNOTATION}{key}": value for key, value in said.items() if value}


def _healthcheck(check: Healthcheck) -> dict[str, object]:
    """Docker's object, times in nanoseconds, absent where docker's default holds."""
    said: Mapping[str, object] = {
        "Test": list(check.test),
        "Interval": check.interval,
        "Timeout": check.timeout,
        "StartPeriod": check.start_period,
        "StartInterval": check.start_interval,
        "Retries": check.retries,
    }
    return {key: value for key, value in said.items() if value is not None}
