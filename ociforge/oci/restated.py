"""What an image sets itself although its base says the same: its configuration cannot tell that from what it inherits.

Settings have names here: `User`, and `Env:LANG` for a member of what is a collection. An annotation lists those that
are restated, in the rare image that has any, so that they stay when it gets another base.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from ociforge.errors import ImageError
from ociforge.oci.annotations import RESTATED
from ociforge.oci.changes import ConfigChanges
from ociforge.oci.config import derive
from ociforge.oci.descriptor import canonical_json

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from ociforge.oci.config import ImageConfig

__all__ = ["COLLECTIONS", "SET_BY_BUILD", "is_set_by_build", "read_restated", "restated", "same", "settings", "told"]

COLLECTIONS = ("ExposedPorts", "Labels", "Volumes")  # of which each member is inherited or not, as of `Env`
SET_BY_BUILD = ("Cmd", "Entrypoint", "WorkingDir")  # by every build of ours, whatever the base says
_ACTIVATION = ("Env:CONDA_", "Env:PIXI_")  # variables that every build of ours sets, too


def settings(config: ImageConfig) -> dict[str, Any]:
    """The settings of an image by their names, in the form in which a build writes what it inherits: they compare."""
    config = derive(config, (), ConfigChanges())
    run = dict(config.raw["config"])
    run.pop("Env", None)
    members = {f"{key}:{name}": value for key in COLLECTIONS for name, value in run.pop(key, {}).items()}
    return run | members | {f"Env:{name}": value for name, value in config.env.items()}


def restated(base: ImageConfig, changes: ConfigChanges) -> dict[str, str]:
    """The annotation of an image that makes `changes` to `base`: none, unless one of them changes nothing."""
    below = settings(base)
    set_: dict[str, Any] = {f"Env:{name}": value for name, value in changes.env.items()}
    set_ |= {f"Labels:{name}": value for name, value in changes.labels.items()}
    set_ |= {f"ExposedPorts:{port}": {} for port in changes.ports} | {f"Volumes:{path}": {} for path in changes.volumes}
    set_ |= {"User": changes.user, "StopSignal": changes.stop_signal, "Healthcheck": changes.healthcheck}
    return told(name for name in same(set_, below) if not is_set_by_build(name))


def same(left: Mapping[str, Any], right: Mapping[str, Any]) -> list[str]:
    """The names of what is equal."""
    return [name for name in left if name in right and canonical_json(left[name]) == canonical_json(right[name])]


def is_set_by_build(name: str) -> bool:
    """Whether every build of ours sets this, so that it is known without being told."""
    return name in SET_BY_BUILD or name.startswith(_ACTIVATION)


def told(names: Iterable[str]) -> dict[str, str]:
    """The annotation that lists `names`; none where there are none."""
    listed = sorted(names)
    return {RESTATED: canonical_json(listed).decode()} if listed else {}


def read_restated(annotations: Mapping[str, str]) -> Collection[str]:
    """The inverse of `told`. Raises ImageError for what is no list of names."""
    text = annotations.get(RESTATED)
    try:
        return frozenset() if text is None else msgspec.json.decode(text, type=frozenset[str])
    except (msgspec.DecodeError, UnicodeEncodeError) as error:
        raise ImageError(f"annotation `{RESTATED}`: {error}") from error
