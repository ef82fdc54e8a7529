"""`ociforge login`: keep a credential that the registry has accepted."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
from msgspec.structs import replace

from ociforge.cli import options
from ociforge.cli.console import Console

if TYPE_CHECKING:
    from ociforge.events import Warned
    from ociforge.transports.auth import CredentialStore
    from ociforge.transports.auth_file import AuthFile
    from ociforge.transports.credential import Account, Credential
    from ociforge.transports.options import RegistryOptions

__all__ = ["authfile", "command"]

_MAX_PASSWORD = 64 << 10  # bytes; tokens of clouds have a few thousand
_BY_STDIN = "put it on standard input: `ociforge login HOST -u USER --password-stdin < FILE`"

authfile = click.option(
    "--authfile",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The file to use.  [default: $REGISTRY_AUTH_FILE, else config.json in $DOCKER_CONFIG or ~/.docker]",
)


@click.command("login")
@click.argument("account", metavar="HOST[/NAMESPACE]")
@click.option("-u", "--username", metavar="USER", help="Asked for, if there is a terminal.")
@click.option("--password-stdin", is_flag=True, help="Read the password, or a token, from standard input.")
@authfile
@options.connecting_options
@options.json_output
@options.verbosity
def command(
    account: str,
    username: str | None,
    password_stdin: bool,
    authfile: Path | None,
    registry: RegistryOptions,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """Keep the user name and password for a registry where docker and podman find them, too.

    The registry is asked first; what it does not accept is not stored. With a NAMESPACE, the credential is only for
    repositories below it. A credential helper that the file names (`credHelpers`, `credsStore`) is given the secret;
    otherwise it is written to the file, which nobody but its owner can read.

    \b
    ociforge login ghcr.io -u USER
    ociforge login registry.example.com/team -u robot --password-stdin < token

    Without `--password-stdin` the password is asked for; no option takes it, as other users could see that.
    """
    console = Console.of(quiet=quiet, verbose=verbose)
    from ociforge.cli.places import credential_store, own_auth_file
    from ociforge.events import Warned
    from ociforge.transports.credential import Account
    from ociforge.transports.login import verify

    wanted = Account.parse(account)
    file = own_auth_file(authfile)
    credential = _credential(wanted, username, by_stdin=password_stdin)
    verified = verify(wanted, credential, registry, console.notify)
    if not verified:
        message = f"`{wanted.registry}` lets everybody in: whether the password is right is not known"
        console.notify(Warned(message, "if pushing is refused later, log in again"))
    warning = _in_the_way(wanted, file, credential_store())
    where = file.store(wanted, credential)
    if warning is not None:
        console.notify(warning)
    document = {
        "registry": wanted.registry,
        "namespace": wanted.namespace or None,
        "username": credential.username,
        "file": str(file.path),
        "helper": None if where == str(file.path) else where,
        "verified": verified,
    }
    console.result([f"{wanted}: logged in as {credential.username}; stored in {where}"], document, as_json=as_json)


def _credential(account: Account, username: str | None, *, by_stdin: bool) -> Credential:
    """What the user gives; OptionError for what cannot be asked for here, or can be no credential."""
    from ociforge.transports.credential import Credential

    what = f"logging in to `{account}`"
    terminal = sys.stdin is not None and sys.stdin.isatty()
    if username is None and (by_stdin or not terminal):
        raise options.OptionError(f"{what}: no user name", "name it with `--username`")
    if not by_stdin and not terminal:
        raise options.OptionError(f"{what}: there is no terminal to ask for the password on", _BY_STDIN)
    if username is None:
        username = click.prompt("User name", type=str, err=True)
    if not username or ":" in username:  # RFC 7617
        raise options.OptionError(
            f"{what}: `{username}` is no user name", "a user name has a letter at least, and no `:`"
        )
    password = _from_stdin(what) if by_stdin else click.prompt("Password", type=str, hide_input=True, err=True)
    if not password:
        raise options.OptionError(f"{what}: the password is empty", _BY_STDIN)
    return Credential(source="standard input" if by_stdin else "the terminal", username=username, password=password)


def _from_stdin(what: str) -> str:
    """All of standard input, without the line break that editors and `echo` leave at its end."""
    data = b"" if sys.stdin is None else sys.stdin.buffer.read(_MAX_PASSWORD + 1)
    try:
        if len(data) > _MAX_PASSWORD:
            raise ValueError
        text = data.decode()
    except ValueError:  # the decoder's own message would quote it
        message = f"{what}: standard input is no password: longer than 64 KiB, or not UTF-8"
        raise options.OptionError(message, _BY_STDIN) from None
    return text[:-2] if text.endswith("\r\n") else text.removesuffix("\n")


def _in_the_way(account: Account, file: AuthFile, store: CredentialStore) -> Warned | None:
    """Why the other verbs will not find what `file` is to keep, if so."""
    from ociforge.events import Warned

    for path in store.files:
        if os.path.realpath(path) == os.path.realpath(file.path):
            return None
        found = replace(store, files=(path,)).lookup(account.registry, account.reference().repository)
        if found is not None:
            hint = f"remove it: `ociforge logout {account} --authfile {path}`"
            return Warned(f"`{found.source}` has a credential for `{account}`, too, and is read first", hint)
    return Warned(f"`{file.path}` is not among the files that are read", f"set REGISTRY_AUTH_FILE={file.path}")
