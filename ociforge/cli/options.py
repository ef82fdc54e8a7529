"""Options that several verbs share, each declared once, and what they resolve to."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ociforge.errors import ForgeError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ociforge.platform import Platform
    from ociforge.store import Store
    from ociforge.workspace import Workspace

__all__ = [
    "OptionError",
    "cache_directory",
    "connecting_options",
    "is_offline",
    "json_output",
    "never_connects",
    "open_store",
    "open_workspace",
    "platform",
    "registry_options",
    "source_date_epoch",
    "store_at_rest",
    "transfers",
    "verbosity",
    "workers",
]

_Command = TypeVar("_Command", bound="Callable[..., Any]")


class OptionError(ForgeError):
    """A value given on the command line or in a variable that is no value of its kind."""

    exit_code = 2


def verbosity(command: _Command) -> _Command:
    """`--quiet` and `--verbose`, as the parameters `quiet` and `verbose`."""
    command = click.option("-v", "--verbose", is_flag=True, help="Show every layer, blob and credential source.")(
        command
    )
    return click.option("-q", "--quiet", is_flag=True, help="Show errors only.")(command)


json_output = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
workers = click.option(
    "--workers",
    type=click.IntRange(1, 64),
    default=min(os.cpu_count() or 1, 8),
    show_default="processors, at most 8",
    help="Threads that pack and transfer; the result does not depend on it.",
)

transfers = click.option(
    "--workers",
    type=click.IntRange(1, 64),
    default=6,  # as skopeo: what they need is answers, not processors
    show_default=True,
    help="Blobs that are transferred at a time.",
)

_REGISTRY_OPTIONS = (
    click.option(
        "--insecure",
        is_flag=True,
        help="Accept any certificate of registries, and plain http where one does not speak TLS.",
    ),
    click.option(
        "--ca-file",
        metavar="FILE",
        help="Certificates (PEM) that registries are checked by, instead of the system's.  [env: OCIFORGE_CA_FILE]",
    ),
    click.option(
        "--client-cert",
        metavar="FILE",
        help="The certificate (PEM) to show to registries.  [env: OCIFORGE_CLIENT_CERT]",
    ),
    click.option(
        "--client-key",
        metavar="FILE",
        help="Its key, if that is not in the same file.  [env: OCIFORGE_CLIENT_KEY]",
    ),
    click.option(
        "--mirror",
        "mirrors",
        metavar="HOST=MIRROR[/PREFIX]",
        multiple=True,
        help="Ask the registry MIRROR first for images of HOST; may be given several times.  [env: OCIFORGE_MIRRORS]",
    ),
    click.option(
        "--token-host",
        "token_hosts",
        metavar="HOST",
        multiple=True,
        help="A host outside a registry's domain that may have its credential for a token; may be given several times."
        "  [env: OCIFORGE_TOKEN_HOSTS]",
    ),
)


_OFFLINE = click.option(
    "--offline",
    is_flag=True,
    help="Make no connection: use what is on this machine, and say what is missing.  [env: OCIFORGE_OFFLINE]",
)


def registry_options(command: _Command) -> _Command:
    """How to talk to registries, as the parameter `registry`, a RegistryOptions; `workers`, where a verb has it, too.
    With `--offline`, they are not talked to, nor is anybody else.

    For verbs that do: options and variables that are wrong are refused before the verb starts.
    """
    return _OFFLINE(_registry_options(command))


def connecting_options(command: _Command) -> _Command:
    """`registry_options` for verbs that are nothing without a network."""

    @functools.wraps(command)
    def resolved(**values: Any) -> Any:
        if is_offline(os.environ):
            raise OptionError("OCIFORGE_OFFLINE: this needs a network", "unset the variable")
        return command(**values)

    return _registry_options(resolved)  # type: ignore[return-value]  # click calls it by the names of its options


def never_connects(command: _Command) -> _Command:
    """`--offline` for a verb that makes no connection without it either."""

    @functools.wraps(command)
    def resolved(*, offline: bool, **values: Any) -> Any:
        return command(**values)

    help_ = "Make no connection; this never does."
    return click.option("--offline", is_flag=True, help=help_)(resolved)  # type: ignore[return-value]  # as above


def is_offline(environ: Mapping[str, str]) -> bool:
    """Whether `OCIFORGE_OFFLINE` forbids connections."""
    text = environ.get("OCIFORGE_OFFLINE", "").lower()
    if text in ("", "0", "false", "no"):
        return False
    if text in ("1", "true", "yes"):
        return True
    raise OptionError(f"OCIFORGE_OFFLINE: `{text}`: expected `1` or `0`", "unset it to use the network")


def _registry_options(command: _Command) -> _Command:
    @functools.wraps(command)
    def resolved(
        *,
        offline: bool = False,
        insecure: bool,
        ca_file: str | None,
        client_cert: str | None,
        client_key: str | None,
        mirrors: tuple[str, ...],
        token_hosts: tuple[str, ...],
        **rest: Any,
    ) -> Any:
        from ociforge.cli import registries

        registry = registries.registry_options(
            os.environ,
            insecure=insecure,
            ca_file=ca_file,
            client_cert=client_cert,
            client_key=client_key,
            mirrors=mirrors,
            token_hosts=token_hosts,
            workers=rest.get("workers"),
            offline=offline or is_offline(os.environ),
        )
        return command(registry=registry, **rest)

    for option in reversed(_REGISTRY_OPTIONS):
        option(resolved)
    return resolved  # type: ignore[return-value]  # click calls it by the names of its options


def platform(text: str) -> Platform:
    """A platform that `--platform` names."""
    from ociforge.errors import BuildError
    from ociforge.platform import Platform

    try:
        return Platform.parse(text)
    except BuildError as error:
        raise OptionError(error.message, error.hint) from error


def cache_directory(environ: Mapping[str, str]) -> Path:
    """Where the store is: `OCIFORGE_CACHE`, else the user's cache directory."""
    if configured := environ.get("OCIFORGE_CACHE"):
        return Path(configured).absolute()
    import platformdirs

    try:
        found = platformdirs.user_cache_path("ociforge")
    except RuntimeError:
        found = Path("~")
    if not found.is_absolute():  # HOME is not set, and the user is not in /etc/passwd
        raise OptionError("there is no home directory for the cache", "let `OCIFORGE_CACHE` name a directory")
    return found


def open_workspace(path: Path) -> Workspace:
    """The workspace of the argument WORKSPACE: a directory of it, or its manifest. Raises WorkspaceError."""
    from ociforge.workspace import load
    from ociforge.workspace.manifest import FILE_NAMES

    return load(path.parent, path) if path.name in FILE_NAMES else load(path)


def open_store() -> Store:
    """The store that this process works with, kept from being pruned until the verb ends."""
    store = store_at_rest()
    click.get_current_context().with_resource(store.in_use())
    return store


def store_at_rest() -> Store:
    """The store, for those who look at it or prune it."""
    from ociforge.store import Store

    return Store(cache_directory(os.environ))


def source_date_epoch(environ: Mapping[str, str]) -> int | None:
    """`SOURCE_DATE_EPOCH` in seconds, or None when unset (reproducible-builds.org/specs/source-date-epoch)."""
    text = environ.get("SOURCE_DATE_EPOCH")
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and int(text) < 1 << 33):
        raise OptionError(f"SOURCE_DATE_EPOCH: `{text}`: expected seconds since 1970", "unset it or use `date +%s`")
    return int(text)
