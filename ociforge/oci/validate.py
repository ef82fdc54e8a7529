"""Does an image keep to the specification, and to what engines make of it? Every finding, with both sides.

This reads the documents anew and trusts nothing that made them: it is the check of our own output, and of any image
that is said to be in OCI's form.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from layers.digest import Digest
from ociforge.errors import ImageError
from ociforge.oci.changes import MAX_ID
from ociforge.oci.config import DOCKER_ONLY, DOCKER_ONLY_RUN, ImageConfig
from ociforge.oci.descriptor import CONFIG, INDEX, MANIFEST, MAX_MANIFEST_SIZE, Descriptor, parse_json
from ociforge.oci.document import exact_keys, kind, optional_text, shown, string_map, texts
from ociforge.oci.envelope import MEMBERS, subject
from ociforge.oci.image import LAYER_TYPES, MAX_LAYERS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ociforge.platform import Platform

__all__ = ["validate", "validate_index"]

_MANIFEST = "image manifest"
_CONFIG = "image config"
_INDEX = "image index"
_RUN = f"{_CONFIG}: config"

# Go's names, which the specification asks for.
_ARCHITECTURES = frozenset(
    (
        *("386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle"),
        *("ppc64", "ppc64le", "riscv64", "s390x", "wasm"),
    )
)
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", re.ASCII)
_ABSOLUTE = re.compile(r"/[^\0]*", re.DOTALL)
_PORT = re.compile(r"\d{1,5}(-\d{1,5})?(/(tcp|udp|sctp))?", re.ASCII)
_SIGNAL = re.compile(r"[A-Z][A-Z0-9]*([+-]\d+)?|\d{1,2}", re.ASCII)


def validate(manifest: bytes, config: bytes, descriptor: Descriptor | None = None) -> None:
    """Check an image's manifest and configuration, and the descriptor that names the manifest, if given.

    Raises ImageError with one line for each finding.
    """
    findings: list[str] = []
    manifest_document = _read(manifest, _MANIFEST, findings)
    config_document = _read(config, _CONFIG, findings)
    if manifest_document is not None:
        findings += _manifest(manifest_document)
        findings += _naming(manifest_document.get("config"), config, f"{_MANIFEST}: config", CONFIG)
    if config_document is not None:
        findings += _config(config_document)
    if descriptor is not None:
        findings += _naming(descriptor.to_json(), manifest, f"descriptor of the {_MANIFEST}", MANIFEST)
    if manifest_document is not None and config_document is not None:
        findings += _counts(manifest_document, config_document)
    if config_document is not None and descriptor is not None:
        findings += _platforms(config_document, descriptor.platform)
    _report(findings)


def validate_index(index: bytes, descriptor: Descriptor | None = None) -> None:
    """Check an index of images, and the descriptor that names it, if given; not the images.

    Raises ImageError with one line for each finding.
    """
    findings: list[str] = []
    document = _read(index, _INDEX, findings)
    if document is not None:
        findings += _envelope(document, _INDEX, INDEX, ("config", "layers"))
        findings += _entries(document)
    if descriptor is not None:
        findings += _naming(descriptor.to_json(), index, f"descriptor of the {_INDEX}", INDEX)
    _report(findings)


def _report(findings: list[str]) -> None:
    if findings:
        raise ImageError.collect(list(dict.fromkeys(findings)))


def _attempt(read: Callable[..., object], *arguments: object) -> Iterator[str]:
    """What a reader of documents has to say against one part of one."""
    try:
        read(*arguments)
    except ImageError as error:
        yield error.message


def _read(data: bytes, what: str, findings: list[str]) -> dict[str, Any] | None:
    if len(data) > MAX_MANIFEST_SIZE:
        findings.append(f"{what}: {len(data)} bytes, but at most {MAX_MANIFEST_SIZE} are read")
        return None
    try:
        return parse_json(data, what)
    except ImageError as error:
        findings.append(error.message)
        return None


def _naming(named: object, data: bytes, what: str, media_type: str) -> Iterator[str]:
    """Does a descriptor name these bytes?"""
    try:
        descriptor = Descriptor.from_json(named, what)
    except ImageError as error:
        yield error.message
        return
    digest = Digest.of(data)
    if descriptor.media_type != media_type:
        yield f"{what}.mediaType: expected {shown(media_type)}, got `{descriptor.media_type}`"
    if descriptor.size != len(data):
        yield f"{what}.size: says {descriptor.size}, but the document has {len(data)} bytes"
    if descriptor.digest != digest:
        yield f"{what}.digest: says `{descriptor.digest}`, but the document has `{digest}`"


def _envelope(document: dict[str, Any], what: str, media_type: str, foreign: tuple[str, ...]) -> Iterator[str]:
    version = document.get("schemaVersion")
    if type(version) is not int or version != 2:
        yield f"{what}.schemaVersion: expected 2, got {shown(version)}"
    if document.get("mediaType") != media_type:
        yield f"{what}.mediaType: expected {shown(media_type)}, got {shown(document.get('mediaType'))}"
    for key in foreign:
        if key in document:
            yield f"{what}.{key}: belongs to another kind of document"
    yield from _attempt(exact_keys, document, MEMBERS, what)
    yield from _attempt(string_map, document, "annotations", what)
    yield from _attempt(optional_text, document, "artifactType", what)
    yield from _attempt(subject, document, what)


def _manifest(document: dict[str, Any]) -> Iterator[str]:
    yield from _envelope(document, _MANIFEST, MANIFEST, ("manifests",))
    layers = document.get("layers")
    if not isinstance(layers, list) or not layers:
        yield f"{_MANIFEST}.layers: expected an array of at least one layer"
        return
    if len(layers) > MAX_LAYERS:
        yield f"{_MANIFEST}.layers: {len(layers)}, but engines take at most {MAX_LAYERS}"
    for index, layer in enumerate(layers):
        yield from _attempt(Descriptor.from_json, layer, f"{_MANIFEST}: layers[{index}]")
        media_type = layer.get("mediaType") if isinstance(layer, dict) else None
        if isinstance(media_type, str) and media_type not in LAYER_TYPES:
            yield f"{_MANIFEST}: layers[{index}].mediaType: {shown(media_type)} is not that of a layer"


def _entries(document: dict[str, Any]) -> Iterator[str]:
    entries = document.get("manifests")
    if not isinstance(entries, list):
        yield f"{_INDEX}.manifests: expected an array, got {kind(entries)}"
        return
    seen: dict[str, int] = {}
    for index, entry in enumerate(entries):
        what = f"{_INDEX}: manifests[{index}]"
        try:
            descriptor = Descriptor.from_json(entry, what)
        except ImageError as error:
            yield error.message
            continue
        if descriptor.media_type not in (MANIFEST, INDEX):
            yield f"{what}.mediaType: `{descriptor.media_type}` is not that of a manifest"
        if descriptor.platform is None:
            yield f"{what}.platform: missing"
        elif descriptor.platform.os != "unknown":
            first = seen.setdefault(str(descriptor.platform), index)
            if first != index:
                yield f"{what}.platform: `{descriptor.platform}`, as manifests[{first}] has, which hides it"


def _config(document: dict[str, Any]) -> Iterator[str]:
    yield from _attempt(ImageConfig.from_json, document)
    architecture, created = document.get("architecture"), document.get("created")
    if isinstance(architecture, str) and architecture not in _ARCHITECTURES:
        yield f"{_CONFIG}.architecture: {shown(architecture)} is none of Go's names, such as `amd64`"
    if isinstance(created, str) and not _TIME.fullmatch(created):
        yield f"{_CONFIG}.created: {shown(created)} is not a time as in RFC 3339"
    for key in sorted(DOCKER_ONLY & document.keys()):
        yield f"{_CONFIG}.{key}: belongs to docker's format only"
    run = document.get("config")
    if isinstance(run, dict):
        yield from _run_config(run)


def _run_config(run: dict[str, Any]) -> Iterator[str]:
    for key in sorted(DOCKER_ONLY_RUN & run.keys()):
        yield f"{_RUN}.{key}: belongs to docker's format only"
    for key in ("Entrypoint", "Cmd", "Shell", "Env"):
        yield from _attempt(texts, run, key, _RUN)
    for key in ("User", "WorkingDir", "StopSignal"):
        yield from _attempt(optional_text, run, key, _RUN)
    yield from _attempt(string_map, run, "Labels", _RUN)
    yield from _env(run.get("Env"))
    yield from _user(run.get("User"))
    yield from _set_of(run, "ExposedPorts", _PORT, "a port such as `8000/tcp`")
    yield from _set_of(run, "Volumes", _ABSOLUTE, "an absolute path")
    workdir, signal = run.get("WorkingDir"), run.get("StopSignal")
    if isinstance(workdir, str) and workdir and not _ABSOLUTE.fullmatch(workdir):
        yield f"{_RUN}.WorkingDir: {shown(workdir)} is not an absolute path"
    if isinstance(signal, str) and not _SIGNAL.fullmatch(signal):
        yield f"{_RUN}.StopSignal: {shown(signal)} is no signal"


def _env(env: object) -> Iterator[str]:
    seen: set[str] = set()
    for index, text in enumerate(env if isinstance(env, list) else ()):
        name, equals, _ = text.partition("=") if isinstance(text, str) else ("", "", "")
        if not name or not equals or "\0" in text:
            yield f"{_RUN}.Env[{index}]: expected `NAME=value`, got {shown(text)}"
        elif name in seen:
            yield f"{_RUN}.Env[{index}]: {shown(name)} is set twice"
        seen.add(name)


def _user(user: object) -> Iterator[str]:
    for part in user.split(":") if isinstance(user, str) else ():
        if part.isdecimal() and (len(part) > 10 or int(part) > MAX_ID):
            yield f"{_RUN}.User: {shown(user)}: beyond {MAX_ID}, the largest id"


def _set_of(run: dict[str, Any], key: str, pattern: re.Pattern[str], name: str) -> Iterator[str]:
    """Checks a set, which the specification writes as an object of empty objects."""
    members = run.get(key)
    if members is not None and not isinstance(members, dict):
        yield f"{_RUN}.{key}: expected an object, got {kind(members)}"
        return
    for member, value in (members or {}).items():
        if not pattern.fullmatch(member):
            yield f"{_RUN}.{key}: {shown(member)} is not {name}"
        if value != {}:
            yield f"{_RUN}.{key}[{shown(member)}]: expected an empty object"


def _counts(manifest: dict[str, Any], config: dict[str, Any]) -> Iterator[str]:
    layers, rootfs, history = manifest.get("layers"), config.get("rootfs"), config.get("history")
    diff_ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if not isinstance(layers, list):
        return
    if isinstance(diff_ids, list) and len(diff_ids) != len(layers):
        yield f"{_MANIFEST}: {len(layers)} layers, but {_CONFIG}: {len(diff_ids)} diff_ids"
    if isinstance(history, list):
        made = sum(1 for entry in history if not (isinstance(entry, dict) and entry.get("empty_layer")))
        if made != len(layers):
            yield f"{_MANIFEST}: {len(layers)} layers, but {_CONFIG}: history of {made}"


def _platforms(config: dict[str, Any], platform: Platform | None) -> Iterator[str]:
    """No engine compares the two; all unpack by the one and run by the other."""
    said = "/".join(str(config[key]) for key in ("os", "architecture", "variant") if config.get(key))
    if platform is None:
        yield f"descriptor of the {_MANIFEST}: platform: missing, but {_CONFIG} says {shown(said)}"
        return
    named = "/".join(filter(None, (platform.os, platform.architecture, platform.variant)))
    if named != said:
        yield f"descriptor of the {_MANIFEST}: platform: {shown(named)}, but {_CONFIG} says {shown(said)}"
