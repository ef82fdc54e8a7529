"""Image configurations: what a container of the image runs, and as whom (image-spec, config.md).

An `ImageConfig` is the document of a base, checked; `derive` puts layers and changes on top of it. What the base says
and we do not know is kept, so that a base's configuration is inherited as docker would.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from ociforge.errors import ImageError
from ociforge.oci.changes import ConfigChanges
from ociforge.oci.descriptor import MAX_MANIFEST_SIZE, canonical_json, parse_json, read_digest
from ociforge.oci.document import exact_keys, objects, optional_object, optional_text, shown, string_map, texts
from ociforge.platform import Platform

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Self

    from layers.digest import Digest

__all__ = ["DOCKER_ONLY", "DOCKER_ONLY_RUN", "ConfigChanges", "ImageConfig", "derive"]

_WHAT = "image config"
_TOP_MEMBERS = (
    *("architecture", "author", "config", "created", "history"),
    *("os", "os.features", "os.version", "rootfs", "variant"),
)
_RUN_MEMBERS = (
    *("ArgsEscaped", "Cmd", "Entrypoint", "Env", "ExposedPorts", "Healthcheck", "Labels", "Memory", "MemorySwap"),
    *("OnBuild", "Shell", "StopSignal", "User", "Volumes", "WorkingDir"),
)
_HISTORY_TEXTS = ("author", "comment", "created", "created_by")
# What docker notes of the container that a build committed: not true of the derived image, and no part of OCI.
DOCKER_ONLY = frozenset({"container", "container_config", "docker_version", "id", "parent"})
DOCKER_ONLY_RUN = frozenset({"ArgsEscaped", "Hostname", "Image", "OnBuild"})


class ImageConfig(Struct, frozen=True, kw_only=True):
    """A configuration that keeps to the specification: `raw` is the whole document, never to be changed; the other
    fields are what is read of it, `None` or empty where the document says nothing.

    `env` is in the document's order, the last of several values wins. `to_bytes` writes `raw` canonically, so it is not
    the inverse of `parse` for documents that others wrote.
    """

    raw: Mapping[str, Any]
    platform: Platform
    diff_ids: tuple[Digest, ...]
    created: str | None
    history: tuple[Mapping[str, Any], ...]
    env: Mapping[str, str]
    entrypoint: tuple[str, ...] | None
    cmd: tuple[str, ...] | None
    shell: tuple[str, ...] | None
    user: str
    workdir: str
    exposed_ports: tuple[str, ...]
    volumes: tuple[str, ...]
    labels: Mapping[str, str]
    stop_signal: str | None
    healthcheck: Mapping[str, Any] | None

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read a configuration; raises ImageError when it breaks the specification or exceeds 4 MiB."""
        if len(data) > MAX_MANIFEST_SIZE:
            raise ImageError(f"{_WHAT}: {len(data)} bytes, but engines read at most {MAX_MANIFEST_SIZE}")
        return cls.from_json(parse_json(data, _WHAT))

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Self:
        """Check a parsed document and keep it. Raises ImageError."""
        exact_keys(document, _TOP_MEMBERS, _WHAT)
        run = optional_object(document, "config", _WHAT) or {}
        what = f"{_WHAT}: config"
        exact_keys(run, _RUN_MEMBERS, what)
        return cls(
            raw=document,
            platform=_platform(document),
            diff_ids=_diff_ids(document),
            created=optional_text(document, "created", _WHAT),
            history=_history(document),
            env=_env(run, what),
            entrypoint=texts(run, "Entrypoint", what),
            cmd=texts(run, "Cmd", what),
            shell=texts(run, "Shell", what),
            user=optional_text(run, "User", what) or "",
            workdir=optional_text(run, "WorkingDir", what) or "",
            exposed_ports=tuple(optional_object(run, "ExposedPorts", what) or ()),
            volumes=tuple(optional_object(run, "Volumes", what) or ()),
            labels=string_map(run, "Labels", what),
            stop_signal=optional_text(run, "StopSignal", what),
            healthcheck=optional_object(run, "Healthcheck", what),
        )

    @classmethod
    def empty(cls, platform: Platform) -> Self:
        """The configuration of an image without layers, as `scratch` is."""
        return cls.from_json(
            {**_platform_json(platform), "config": {}, "rootfs": {"type": "layers", "diff_ids": []}},
        )

    def to_bytes(self) -> bytes:
        return canonical_json(self.raw)


def derive(
    base: ImageConfig,
    layers: Sequence[tuple[Digest, str]],
    changes: ConfigChanges,
    created: int | None = None,
) -> ImageConfig:
    """The configuration of `base` with `layers` on top and `changes` made.

    `layers` are pairs of diff_id and what the history says made it, lowest first. `created` is in seconds since 1970;
    None leaves it out. As in docker, a new entrypoint also removes the base's `Cmd`, which was meant for the old one.
    The base's history is kept, and filled up where it has not one entry for each layer. Raises ImageError.
    """
    stamp = {} if created is None else {"created": _timestamp(created)}
    dropped = DOCKER_ONLY | {"created"}
    rootfs = dict(base.raw["rootfs"])
    rootfs["diff_ids"] = [str(diff_id) for diff_id in (*base.diff_ids, *(diff_id for diff_id, _ in layers))]
    document = {key: value for key, value in base.raw.items() if key not in dropped and value is not None}
    document |= stamp | _platform_json(base.platform)
    document["config"] = _run_config(base, changes)
    document["rootfs"] = rootfs
    document["history"] = [*_base_history(base), *({**stamp, "created_by": made_by} for _, made_by in layers)]
    return ImageConfig.from_json(document)


def _run_config(base: ImageConfig, changes: ConfigChanges) -> dict[str, Any]:
    run = {key: value for key, value in (base.raw.get("config") or {}).items() if key not in DOCKER_ONLY_RUN}
    if changes.entrypoint is not None:
        run |= {"Entrypoint": changes.entrypoint, "Cmd": changes.cmd}
    elif changes.cmd is not None:
        run["Cmd"] = changes.cmd
    run |= {
        "Env": [f"{name}={value}" for name, value in {**base.env, **changes.env}.items()],
        "ExposedPorts": {port: {} for port in (*base.exposed_ports, *changes.ports)},
        "Volumes": {path: {} for path in (*base.volumes, *changes.volumes)},
        "Labels": {**base.labels, **changes.labels},
    }
    single = {
        "WorkingDir": changes.workdir,
        "User": changes.user,
        "StopSignal": changes.stop_signal,
        "Healthcheck": changes.healthcheck,
    }
    run |= {key: value for key, value in single.items() if value is not None}
    # Absent, null and empty mean the same to engines; absent is the one way it is written here.
    plain = ((key, list(value) if isinstance(value, tuple) else value) for key, value in run.items())
    return {key: value for key, value in plain if value not in (None, "", [], {})}


def _base_history(base: ImageConfig) -> list[Mapping[str, Any]]:
    """The base's history with exactly one entry for each layer that is not marked as empty.

    Docker refuses an image whose history speaks of more layers than there are; tools that pair them up go wrong when
    there are fewer.
    """
    missing = len(base.diff_ids) - sum(1 for entry in base.history if not entry.get("empty_layer"))
    padding = {"comment": "layer of the base image, without a history"}
    if missing < 0:
        return [padding] * len(base.diff_ids)
    return [*base.history, *[padding] * missing]


def _timestamp(seconds: int) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%04Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError) as error:
        raise ImageError(f"creation time: `{seconds}` is no number of seconds since 1970: {error}") from error


def _platform_json(platform: Platform) -> dict[str, str]:
    document = {"os": platform.os, "architecture": platform.architecture}
    # The variant of arm64 is always written, though bases often leave it out: engines normalise to it.
    variant = platform.variant or ("v8" if platform.architecture == "arm64" else None)
    return document | ({"variant": variant} if variant else {})


def _platform(document: dict[str, Any]) -> Platform:
    os, architecture, variant = (optional_text(document, key, _WHAT) for key in ("os", "architecture", "variant"))
    if not os or not architecture:
        raise ImageError(f"{_WHAT}: needs `os` and `architecture`")
    return Platform(os=os, architecture=architecture, variant=variant or None)


def _diff_ids(document: dict[str, Any]) -> tuple[Digest, ...]:
    rootfs = optional_object(document, "rootfs", _WHAT)
    if rootfs is None:
        raise ImageError(f"{_WHAT}.rootfs: missing")
    what = f"{_WHAT}: rootfs"
    exact_keys(rootfs, ("type", "diff_ids"), what)
    if rootfs.get("type") != "layers":
        raise ImageError(f"{what}.type: expected `layers`, got {shown(rootfs.get('type'))}")
    digests = enumerate(texts(rootfs, "diff_ids", what) or ())
    return tuple(read_digest(text, f"{what}.diff_ids[{index}]") for index, text in digests)


def _history(document: dict[str, Any]) -> tuple[Mapping[str, Any], ...]:
    entries = objects(document, "history", _WHAT)
    for index, entry in enumerate(entries):
        what = f"{_WHAT}: history[{index}]"
        exact_keys(entry, (*_HISTORY_TEXTS, "empty_layer"), what)
        for key in _HISTORY_TEXTS:
            optional_text(entry, key, what)
        if not isinstance(entry.get("empty_layer") or False, bool):
            raise ImageError(f"{what}.empty_layer: expected true or false")
    return entries


def _env(run: dict[str, Any], what: str) -> dict[str, str]:
    variables: dict[str, str] = {}
    for index, text in enumerate(texts(run, "Env", what) or ()):
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise ImageError(f"{what}.Env[{index}]: expected `NAME=value`, got {shown(text)}")
        variables[name] = value
    return variables
