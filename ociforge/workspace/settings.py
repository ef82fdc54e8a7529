"""`[tool.ociforge]`: how a workspace's images are made.

The top-level keys hold for every image; `[tool.ociforge.images.NAME]` changes them for one. Either may have
`platform."linux/arm64"`, which changes what stands beside it on that platform. Options of the command line beat all
and are held to the same rules.
"""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct, field

from layers.errors import CodecError
from ociforge.errors import BuildError, WorkspaceError
from ociforge.network import Mirrors
from ociforge.platform import Platform
from ociforge.workspace.mirrors import read_mirrors
from ociforge.workspace.reading import Findings, Table, describe, show, suggestion

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from ociforge.workspace.manifest import Manifest

__all__ = [
    "DEFAULT_BASE",
    "FileRules",
    "Healthcheck",
    "ImageSettings",
    "Settings",
    "TaskCommand",
    "literal_dollars",
    "read_settings",
]

DEFAULT_BASE: Final = "docker://ubuntu:24.04"

_WORKDIR: Final = "/app"
_LAYERS: Final = 40  # of the environment; notes on layering give the reason
_MAX_LAYERS: Final = 120  # overlayfs takes 127, and the base needs some
_COMPRESSION: Final = "gzip"
_PREFIX_LENGTH: Final = 255  # bytes: the placeholder that conda packages reserve in binaries

# A path goes into PATH, shell scripts, shebangs and `make`-like files: nothing there that any of them splits at.
_COMPONENT: Final = re.compile(r"[A-Za-z0-9_@%+=,~-][A-Za-z0-9._@%+=,~-]*|\.[A-Za-z0-9_@%+=,~-][A-Za-z0-9._@%+=,~-]*")
_IMAGE_NAME: Final = re.compile(r"[a-z0-9]+(?:[._-]+[a-z0-9]+)*")
_PORT: Final = re.compile(r"([0-9]{1,5})(?:/(tcp|udp|sctp))?")
_USER: Final = re.compile(r"([0-9]{1,10})(?::([0-9]{1,10}))?")
_CODEC: Final = re.compile(r"(?:none|gzip|zstd)(?::[0-9]{1,4})?")  # whether there is such a level says the codec
_REFERENCE: Final = re.compile(r"\$(\{?)([A-Za-z_][A-Za-z0-9_]*)")  # to another variable, in a shell's manner
_DURATION_PART: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)(h|ms|m|s)")
_UNITS: Final = {"h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}  # milliseconds
_STRIP: Final = ("static-libraries", "js-maps")
_STRIPS: Final = ("static-libraries", "js-maps", "headers", "tests", "docs", "conda-meta")
_BYTECODE: Final = ("none", "unchecked-hash")
_TESTS: Final = ("CMD", "CMD-SHELL", "NONE")  # how docker's form of a health check begins
_SIGNALS: Final = (
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM",
    "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO",
    "PWR", "SYS", "RTMIN", "RTMAX",
)  # fmt: skip
_MERGED: Final = ("env", "labels", "annotations")  # tables that are laid over each other key by key


class FileRules(Struct, frozen=True, kw_only=True):
    """Which of the workspace's files go into the image: patterns in the manner of `.gitignore`.

    Those of `include` are anchored at the workspace's root: `x` is the one there, `**/x` any. None means all files, an
    empty one no file. Those of `exclude` match at any depth, as in `.gitignore`, and come on top of what ignore files
    and the rules on secrets and images leave out.
    """

    include: tuple[str, ...] | None = None
    exclude: tuple[str, ...] = ()


class Healthcheck(Struct, frozen=True, kw_only=True):
    """Docker's health check; `test` begins with `CMD` or `CMD-SHELL`, times are nanoseconds, None is the default."""

    test: tuple[str, ...]
    interval: int | None = None
    timeout: int | None = None
    start_period: int | None = None
    start_interval: int | None = None
    retries: int | None = None


class TaskCommand(Struct, frozen=True, kw_only=True):
    """The command of a pixi task, by its name in the image's environment."""

    task: str


class ImageSettings(Struct, frozen=True, kw_only=True):
    """Everything that is said about one image, defaults filled in.

    `prefix` and `workdir` are absolute and normalised, `expose` items look like `8000/tcp`, `user` is numeric.
    `entrypoint` None means the generated one; `cmd` None that there is no default command (`task.resolve_command` looks
    up one that is a task's). `editable` keeps packages of the workspace that the manifest has as editable pointing to
    the code below `workdir`. `strip` names, sorted, what of packages is left out (`ociforge.strip`); `bytecode` is what
    Python sources without bytecode get.
    """

    environment: str
    prefix: str
    name: str | None = None
    base: str = DEFAULT_BASE
    workdir: str = _WORKDIR
    files: FileRules = field(default_factory=FileRules)
    entrypoint: tuple[str, ...] | None = None
    cmd: tuple[str, ...] | TaskCommand | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    expose: tuple[str, ...] = ()
    user: str | None = None
    volumes: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    stop_signal: str | None = None
    healthcheck: Healthcheck | None = None
    layers: int = _LAYERS
    compression: str = _COMPRESSION
    editable: bool = False
    strip: tuple[str, ...] = tuple(sorted(_STRIP))
    bytecode: str = "none"


class Settings(Struct, frozen=True, kw_only=True):
    """The settings of a workspace: what is common, and what each named image changes. Values are validated.

    `platforms` are what changes on a platform, by the image's name (None: what is common) and the platform.
    """

    common: Mapping[str, Any] = field(default_factory=dict)
    images: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    environments: tuple[str, ...] = ("default",)
    platforms: Mapping[tuple[str | None, Platform], Mapping[str, Any]] = field(default_factory=dict)
    mirrors: Mirrors = field(default_factory=Mirrors)

    def image(
        self,
        name: str | None = None,
        overrides: Mapping[str, object] | None = None,
        *,
        platform: Platform | None = None,
    ) -> ImageSettings:
        """The settings of one image; None is the one that the top-level keys describe. Those that hold for `platform`
        alone count when it is given.

        `overrides` come from the command line: keys and values as in the file (`stop-signal`, `expose`, …),
        None where an option is absent. Raises WorkspaceError for an unknown image or a wrong value.
        """
        if name is not None and name not in self.images:
            listed = ", ".join(f"`{known}`" for known in self.images) or "none"
            hint = None if self.images else "leave out `--image`: `[tool.ociforge]` describes the only image"
            raise WorkspaceError(f"there is no image `{name}` in `[tool.ociforge.images]`: found {listed}", hint)
        given = {key: value for key, value in (overrides or {}).items() if value is not None}
        findings = Findings("the options")
        above = _read_image(Table(given, (), findings), self.environments)
        findings.settle("see `ociforge build --help`")
        merged: Mapping[str, Any] = {}
        for values in (*self._said(None, platform), *(() if name is None else self._said(name, platform)), above):
            merged = _merge(merged, values)
        return _complete(name, merged)

    def _said(self, name: str | None, platform: Platform | None) -> Iterator[Mapping[str, Any]]:
        """What is said of an image everywhere, and on a platform."""
        yield self.common if name is None else self.images[name]
        if platform is not None:
            yield self.platforms.get((name, platform), {})


def read_settings(manifest: Manifest) -> Settings:
    """The settings in a manifest; raises one WorkspaceError that lists everything that is wrong with them."""
    raw = {} if manifest.settings is None else manifest.settings
    where = f"`{manifest.path.name}`"
    if not isinstance(raw, dict):
        raise WorkspaceError(f"`tool.ociforge` in {where}: expected a table, got {describe(raw)}")
    findings = Findings(where)
    table = Table(raw, ("tool", "ociforge"), findings)
    names = tuple(manifest.environments)
    images = {}
    platforms: dict[tuple[str | None, Platform], Mapping[str, Any]] = {}
    for name, inner in table.tables("images"):
        if not _IMAGE_NAME.fullmatch(name):
            inner.findings.add(inner.crumb, "no image name: lower case letters, digits and `.`, `_`, `-` between them")
        platforms |= {(name, platform): values for platform, values in _read_platforms(inner)}
        images[name] = _read_image(inner, names)
    platforms |= {(None, platform): values for platform, values in _read_platforms(table)}
    mirrors = read_mirrors(table)
    common = _read_image(table, names)
    findings.settle("ociforge's README lists the keys of `[tool.ociforge]` and what they may be")
    settings = Settings(common=common, images=images, environments=names, platforms=platforms, mirrors=mirrors)
    for wanted in (None, *images):
        for platform in dict.fromkeys([None, *(platform for _, platform in platforms)]):
            settings.image(wanted, platform=platform)
    return settings


def literal_dollars(settings: ImageSettings) -> tuple[str, ...]:
    """A warning for each variable in `env` whose value looks as if another one were to be put into it."""
    found = ((name, _REFERENCE.search(value)) for name, value in settings.env.items())
    return tuple(
        f"`{show(('env', name))}` holds `${match[1]}{match[2]}{'}' if match[1] else ''}`, which is not expanded: "
        "config variables are literal"
        for name, match in found
        if match is not None
    )


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = {**below, **above}
    for key in _MERGED:
        if key in below and key in above:
            merged[key] = {**below[key], **above[key]}
    return merged


def _complete(name: str | None, values: Mapping[str, Any]) -> ImageSettings:
    environment = values.get("environment", "default")
    workdir = values.get("workdir", _WORKDIR)
    prefix = values.get("prefix", f"{_WORKDIR}/.pixi/envs/{environment}")
    if workdir == prefix or workdir.startswith(f"{prefix}/"):
        raise WorkspaceError(
            f"the image's `workdir` `{workdir}` lies in its `prefix` `{prefix}`",
            "keep the application out of the environment, for example in `/app`",
        )
    rest = {key.replace("-", "_"): value for key, value in values.items()}
    return ImageSettings(**{**rest, "name": name, "environment": environment, "prefix": prefix, "workdir": workdir})


def _read_image(table: Table, environments: tuple[str, ...]) -> dict[str, Any]:
    """The keys of one image that are there and right; the others are noted. Without `environments` that key is let
    be.
    """
    found = {key: value for key, read in _READERS.items() if key in table and (value := read(table, key)) is not None}
    if "environment" in table and environments:
        found["environment"] = table.choice("environment", environments)
    table.ignore(*_READERS, "environment")
    table.finish()
    return found


def _read_platforms(table: Table) -> Iterator[tuple[Platform, dict[str, Any]]]:
    """What holds on some platforms alone: every key of an image but its environment."""
    seen: dict[Platform, str] = {}
    for text, inner in table.tables("platform"):
        try:
            platform = Platform.parse(text)
        except BuildError as error:
            inner.findings.add(inner.crumb, f"{error.message}: {error.hint}")
            continue
        if platform in seen:
            inner.findings.add(inner.crumb, f"this is the platform of `{seen[platform]}`, too")
        seen[platform] = text
        if "environment" in inner:
            inner.wrong("environment", "an image has one environment, on all of its platforms")
        yield platform, _read_image(inner, ())


# --- one reader per key: the validated value, or None when it is wrong and noted


def _base(table: Table, key: str) -> str | None:
    text = table.text(key)
    if text is None or (text.isprintable() and not any(c.isspace() for c in text)):
        return text
    table.wrong(key, f"{describe(text)} is no image: white space")
    return None


def _prefix(table: Table, key: str) -> str | None:
    path = _path(table, key, table.text(key))
    if path is None:
        return None
    if path.count("/") < 2:
        table.wrong(key, f"`{path}` is too near to the root: expected at least two components, such as `/opt/env`")
        return None
    if len(path) > _PREFIX_LENGTH:
        table.wrong(key, f"longer than {_PREFIX_LENGTH} bytes, the room that conda packages leave for it")
        return None
    return path


def _workdir(table: Table, key: str) -> str | None:
    return _path(table, key, table.text(key))


def _path(table: Table, key: str, path: str | None, *parts: int) -> str | None:
    """An absolute path in normal form, below the root, made of harmless characters."""
    if path is None:
        return None
    components = path.removesuffix("/").split("/")
    why = None
    if not path.startswith("/"):
        why = "expected an absolute path"
    elif len(components) < 2:
        why = "expected a directory below `/`"
    elif any(part in ("", ".", "..") for part in components[1:]):
        why = "expected a path in normal form: without `//`, `.` and `..`"
    elif any(not _COMPONENT.fullmatch(part) or part.startswith(".wh.") for part in components[1:]):
        why = "expected only letters, digits and `._-+=@%,~` between the slashes"
    if why is None:
        return "/".join(components)
    table.findings.add(table.at(key, *parts), f"{why}, got {describe(path)}")
    return None


def _files(table: Table, key: str) -> FileRules | None:
    value = table.values[key]
    if isinstance(value, list):
        return FileRules(include=table.texts(key))
    if not isinstance(value, dict):
        expected = "expected an array of patterns, or a table with `include` and `exclude`"
        table.wrong(key, f"{expected}, got {describe(value)}")
        return None
    inner = table.table(key)
    assert inner is not None
    rules = FileRules(include=inner.texts("include"), exclude=inner.texts("exclude") or ())
    inner.finish()
    return rules


def _command(table: Table, key: str) -> tuple[str, ...] | None:
    value = table.values[key]
    if isinstance(value, str):
        table.wrong(key, f"expected an array of strings{_as_array(value)}")
        return None
    return table.texts(key)


def _cmd(table: Table, key: str) -> tuple[str, ...] | TaskCommand | None:
    if not isinstance(table.values[key], dict):
        return _command(table, key)
    inner = table.table(key)
    assert inner is not None
    task = inner.text("task")
    inner.finish()
    if "task" not in inner:
        table.wrong(key, "expected an array of strings, or a table with `task`")
    return None if task is None else TaskCommand(task=task)


def _as_array(command: str) -> str:
    try:
        words = shlex.split(command)
    except ValueError:
        return ""
    quoted = ", ".join(f'"{word}"' for word in words)
    return f": did you mean `[{quoted}]`?" if len(quoted) < 200 and not {'"', "\\"} & set(command) else ""


def _variables(table: Table, key: str) -> dict[str, str] | None:
    found = table.pairs(key)
    for name in found or {}:
        if not name or "=" in name or any(c.isspace() or not c.isprintable() for c in name):
            table.findings.add(table.at(key, name), "no name for a variable")
    return found


def _words(table: Table, key: str) -> dict[str, str] | None:
    found = table.pairs(key)
    if found is not None and "" in found:
        table.findings.add(table.at(key, ""), "a key must not be empty")
    return found


def _expose(table: Table, key: str) -> tuple[str, ...] | None:
    items = table.array(key)
    if items is None:
        return None
    ports = [_port(table, key, item, index) for index, item in enumerate(items)]
    return tuple(dict.fromkeys(port for port in ports if port is not None))


def _port(table: Table, key: str, item: object, index: int) -> str | None:
    text = str(item) if isinstance(item, int) and not isinstance(item, bool) and 0 < item < 1 << 16 else item
    match = _PORT.fullmatch(text) if isinstance(text, str) else None
    if match is not None and 0 < int(match[1]) < 1 << 16:
        return f"{int(match[1])}/{match[2] or 'tcp'}"
    table.findings.add(table.at(key, index), f'expected a port such as `8000` or `"53/udp"`, got {describe(item)}')
    return None


def _user(table: Table, key: str) -> str | None:
    value = table.take(key)
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 32 else value
    match = _USER.fullmatch(text) if isinstance(text, str) else None
    if match is None or any(int(part) >= (1 << 32) - 1 for part in match.groups() if part is not None):
        table.wrong(key, f'expected a numeric user such as `1000` or `"1000:1000"`, got {describe(value)}')
        return None
    return ":".join(str(int(part)) for part in match.groups() if part is not None)


def _volumes(table: Table, key: str) -> tuple[str, ...] | None:
    items = table.texts(key)
    if items is None:
        return None
    paths = [_path(table, key, item, index) for index, item in enumerate(items)]
    return tuple(dict.fromkeys(path for path in paths if path is not None))


def _stop_signal(table: Table, key: str) -> str | None:
    value = table.take(key)
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 65 else value
    if not isinstance(text, str):
        table.wrong(key, f"expected a signal such as `SIGTERM`, got {describe(value)}")
        return None
    if text.isdecimal() and 0 < int(text[:9]) < 65:
        return str(int(text))
    name = text.upper().removeprefix("SIG")
    if name in _SIGNALS or re.fullmatch(r"RTMIN\+([1-9]|1[0-5])|RTMAX-([1-9]|1[0-4])", name):
        return f"SIG{name}"
    table.wrong(key, f"{describe(text)} is no signal{suggestion('SIG' + name, [f'SIG{s}' for s in _SIGNALS])}")
    return None


def _healthcheck(table: Table, key: str) -> Healthcheck | None:
    inner = table.table(key)
    if inner is None:
        return None
    if "cmd" not in inner:
        inner.findings.add(inner.crumb, "the key `cmd` is missing")
    raw = inner.values.get("cmd")
    test = ("CMD-SHELL", inner.text("cmd") or "") if isinstance(raw, str) else ("CMD", *(inner.texts("cmd") or ()))
    check = Healthcheck(
        test=test,
        interval=_duration(inner, "interval"),
        timeout=_duration(inner, "timeout"),
        start_period=_duration(inner, "start-period"),
        start_interval=_duration(inner, "start-interval"),
        retries=inner.integer("retries", low=1, high=1000),
    )
    inner.finish()
    if raw == []:
        inner.wrong("cmd", "expected a command that is not empty")
    if isinstance(raw, list) and raw and raw[0] in _TESTS:
        why = "an array is run as it is, a string is run by the shell"
        inner.wrong("cmd", f"write the command itself, without docker's `{raw[0]}`: {why}")
    return check


def _duration(table: Table, key: str) -> int | None:
    """`1m30s` in nanoseconds; at least one millisecond, as docker wants it."""
    text = table.text(key)
    if text is None:
        return None
    parts = _DURATION_PART.findall(text)
    total = sum(round(float(number) * 1000) * _UNITS[unit] * 1000 for number, unit in parts)
    if "".join(number + unit for number, unit in parts) == text and total >= 1_000_000 and total < 1 << 62:
        return total
    table.wrong(key, f"expected a duration such as `30s` or `1m30s`, got {describe(text)}")
    return None


def _layers(table: Table, key: str) -> int | None:
    return table.integer(key, low=1, high=_MAX_LAYERS)


def _compression(table: Table, key: str) -> str | None:
    from layers.compress import Codec

    text = table.text(key)
    if text is None:
        return None
    if not _CODEC.fullmatch(text):
        table.wrong(key, f"expected `gzip`, `zstd` or `none`, with a level if wanted (`gzip:6`), got {describe(text)}")
        return None
    try:
        Codec.parse(text)
    except CodecError as error:
        table.wrong(key, str(error))
        return None
    return text


def _strip(table: Table, key: str) -> tuple[str, ...] | None:
    names = table.texts(key)
    for index, name in enumerate(names or ()):
        if name not in _STRIPS:
            listed = ", ".join(f"`{known}`" for known in _STRIPS)
            table.findings.add(table.at(key, index), f"expected one of {listed}, got {describe(name)}")
    return None if names is None else tuple(sorted(set(names)))


def _bytecode(table: Table, key: str) -> str | None:
    return table.choice(key, _BYTECODE)


_READERS: Final[dict[str, Callable[[Table, str], Any]]] = {
    "base": _base,
    "prefix": _prefix,
    "workdir": _workdir,
    "files": _files,
    "entrypoint": _command,
    "cmd": _cmd,
    "env": _variables,
    "expose": _expose,
    "user": _user,
    "volumes": _volumes,
    "labels": _words,
    "annotations": _words,
    "stop-signal": _stop_signal,
    "healthcheck": _healthcheck,
    "layers": _layers,
    "compression": _compression,
    "editable": Table.flag,
    "strip": _strip,
    "bytecode": _bytecode,
}
