"""Activation: the variables and scripts that make an environment usable, twice.

Static variables go into the image's config `Env`, which `docker exec`, Kubernetes' `command:` and Apptainer see;
the entrypoint exports them again in pixi's order, sources the scripts, and expands what needs a shell. The order is
that of `pixi shell-hook`: packages' variables and scripts, the workspace's scripts, `activation.env`.
"""

from __future__ import annotations

import json
import posixpath
import re
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct, field

from ociforge.errors import PackageError, WorkspaceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from ociforge.workspace.environment import Environment

__all__ = ["DEFAULT_PATH", "Activation", "PackageFacts", "activate", "package_facts", "workspace_scripts"]

# What docker and podman set when an image has no PATH.
DEFAULT_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_BARE: Final = re.compile(r"[A-Za-z0-9_+./:@-]+")
_SCRIPT_SUFFIXES: Final = (".sh", ".bash")
_SHEBANG_LENGTH: Final = 127  # bytes that Linux reads of the first line
_PROTECTED: Final = ("PATH", "CONDA_SHLVL", "CONDA_PREFIX")  # packages must not set what activation itself sets


class PackageFacts(Struct, frozen=True, kw_only=True):
    """What the packages of an environment contribute. `scripts` are relative to the prefix, in sourcing order."""

    scripts: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


class Activation(Struct, frozen=True, kw_only=True):
    """`config_env` is for the image's `Env`; `entrypoint` is the text of the script.

    `needs_shell` names what only the script can do; when it is empty, an image without a shell loses nothing.
    """

    config_env: Mapping[str, str]
    entrypoint: str
    needs_shell: tuple[str, ...]


def package_facts(scripts: Iterable[str], env_files: Mapping[str, bytes], state: bytes | None = None) -> PackageFacts:
    """Read what packages leave for activation.

    `scripts` are paths below the prefix; those of `etc/conda/activate.d/*.sh` count. `env_files` are the files of
    `etc/conda/env_vars.d` by path, `state` is `conda-meta/state`. Raises PackageError for a file that is no JSON
    object, or names a variable that no shell can set.
    """
    variables: dict[str, str] = {}
    warnings: list[str] = []
    for path in sorted(env_files):
        variables |= _strings(path, _object(path, env_files[path]), warnings)
    if state is not None:
        table = _object("conda-meta/state", state).get("env_vars")
        if not isinstance(table, dict):
            raise PackageError("`conda-meta/state`: expected an object `env_vars`")
        found = _strings("conda-meta/state", table, warnings)
        variables |= {name.upper(): value for name, value in found.items()}
    kept = sorted(path for path in scripts if posixpath.dirname(path) == "etc/conda/activate.d")
    return PackageFacts(
        scripts=tuple(path for path in kept if path.endswith(".sh")), variables=variables, warnings=tuple(warnings)
    )


def _object(path: str, raw: bytes) -> dict[str, Any]:
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise PackageError(f"`{path}`: no JSON: {error}") from error
    if not isinstance(value, dict):
        raise PackageError(f"`{path}`: expected a JSON object")
    return value


def _strings(path: str, table: Mapping[str, Any], warnings: list[str]) -> dict[str, str]:
    found = {}
    for name, value in table.items():
        if not isinstance(value, str):
            warnings.append(f"`{path}`: the variable `{name}` is skipped: its value is no string")
        elif not _NAME.fullmatch(name) or "\0" in value:
            raise PackageError(f"`{path}`: `{name[:80]}` cannot be set as a variable")
        elif name.upper() in _PROTECTED:
            warnings.append(f"`{path}`: the variable `{name}` is skipped: activation sets it itself")
        else:
            found[name] = value
    return found


def workspace_scripts(
    environment: Environment, exists: Callable[[str], bool]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The workspace's activation scripts that an image needs, and warnings about those that do nothing.

    Paths are relative to the workspace, normalised. `exists` tells whether one is a file there. As with pixi, a
    script that is missing or not for a POSIX shell is only warned about. Raises WorkspaceError for a script
    outside the workspace: it would be missing in the image.
    """
    found, warnings = [], []
    for script in environment.activation_scripts:
        path = posixpath.normpath(script)
        if path.startswith(("/", "../")) or path == ".." or "\0" in path:
            raise WorkspaceError(
                f"the activation script `{script}` of environment `{environment.name}` lies outside the workspace",
                "move it into the workspace, so that it can be copied into the image",
            )
        if not path.endswith(_SCRIPT_SUFFIXES):
            warnings.append(f"the activation script `{script}` is skipped: neither `.sh` nor `.bash`")
        elif not exists(path):
            warnings.append(f"the activation script `{script}` is skipped: there is no such file")
        else:
            found.append(path)
    return tuple(found), tuple(warnings)


def activate(
    environment: Environment,
    facts: PackageFacts,
    *,
    prefix: str,
    workdir: str,
    base_path: str | None,
    interpreter: str = "/bin/sh",
    scripts: Iterable[str] = (),
    fixed: Iterable[str] = (),
    manifest_name: str | None = None,
) -> Activation:
    """How an image activates an environment at `prefix`, its workspace being at `workdir`.

    `base_path` is the PATH of the base image's config. `scripts` are the workspace's scripts, relative to
    `workdir`. `fixed` are names that the image's own settings give a value: activation leaves them alone.
    `manifest_name` is set when the manifest is in the image. `interpreter` runs the entrypoint.
    """
    if not interpreter.startswith("/") or len(interpreter.encode()) > _SHEBANG_LENGTH - 2:
        raise WorkspaceError(f"the entrypoint cannot be run by `{interpreter}`: not an absolute path, or too long")
    keep = frozenset(fixed)
    path = base_path or DEFAULT_PATH
    before = _without(keep, {"CONDA_PREFIX": prefix, **facts.variables, **_pixi(environment, workdir, manifest_name)})
    after = _without(keep, dict(environment.activation_env))
    everything = {**before, **after}
    static = {name: value for name, value in everything.items() if "$" not in value}
    sourced = [posixpath.join(prefix, script) for script in facts.scripts]
    sourced += [posixpath.join(workdir, script) for script in scripts]
    expanding = [name for name, value in everything.items() if "$" in value]
    return Activation(
        config_env={"PATH": f"{prefix}/bin:{path}", **static},
        entrypoint=_script(interpreter, prefix, path, before, sourced, after),
        needs_shell=(*sourced, *(f"${name}" for name in expanding)),
    )


def _without(names: frozenset[str], variables: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in variables.items() if name not in names}


def _pixi(environment: Environment, workdir: str, manifest_name: str | None) -> dict[str, str]:
    """The variables that pixi sets. Those that point to pixi itself (PIXI_EXE, PIXI_IN_SHELL) would dangle."""
    found = {"PIXI_PROJECT_ROOT": workdir, "PIXI_PROJECT_NAME": environment.workspace_name}
    if manifest_name is not None:
        found["PIXI_PROJECT_MANIFEST"] = posixpath.join(workdir, manifest_name)
    return {
        **found,
        "PIXI_PROJECT_VERSION": environment.workspace_version or "NO_VERSION_SPECIFIED",
        "CONDA_DEFAULT_ENV": environment.display_name,
        "PIXI_ENVIRONMENT_NAME": environment.name,
        # The image's platform alone: the list of all would change the image whenever one is added.
        "PIXI_ENVIRONMENT_PLATFORMS": environment.platform.name,
    }


def _script(
    interpreter: str,
    prefix: str,
    path: str,
    before: Mapping[str, str],
    sourced: Iterable[str],
    after: Mapping[str, str],
) -> str:
    binaries = f"{prefix}/bin"
    lines = [
        f"#!{interpreter}",
        "# Written by ociforge: activates the environment, then becomes the command.",
        'case ":${PATH:-}:" in',
        f"*:{_quote(binaries)}:*) ;;",
        f'*) PATH={_quote(binaries)}:"${{PATH:-{_in_double_quotes(path)}}}" ;;',
        "esac",
        "export PATH",
        "export CONDA_SHLVL=1",
        *(_export(name, value) for name, value in before.items()),
        *(f". {_quote(script)}" for script in sourced),
        *(_export(name, value) for name, value in after.items()),
        f'[ "$#" -gt 0 ] || set -- {_quote(interpreter)}',
        'exec "$@"',
    ]
    return "\n".join(lines) + "\n"


def _export(name: str, value: str) -> str:
    return f"export {name}={_expand(value) if '$' in value else _quote(value)}"


def _quote(value: str) -> str:
    """The value as one literal word of a shell."""
    if _BARE.fullmatch(value):
        return value
    return "'" + value.replace("'", "'\\''") + "'"


def _expand(value: str) -> str:
    """The value in double quotes, where `$NAME`, `$(command)` and backticks still mean something.

    Backslashes stay as they are but before a quotation mark or at the end, where they would take its meaning away.
    """
    escaped = re.sub(r'(\\*)"', r'\1\1\\"', value)
    return '"' + re.sub(r"(\\+)$", r"\1\1", escaped) + '"'


def _in_double_quotes(value: str) -> str:
    """The value as literal text inside double quotes and `${…:-…}`."""
    return re.sub(r'([$`"\\}])', r"\\\1", value)
