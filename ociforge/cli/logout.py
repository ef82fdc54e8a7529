"""`ociforge logout`: forget credentials."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ociforge.cli import options
from ociforge.cli.console import Console
from ociforge.cli.login import authfile

if TYPE_CHECKING:
    from pathlib import Path

    from ociforge.transports.auth_file import AuthFile
    from ociforge.transports.credential import Account

__all__ = ["command"]


@click.command("logout")
@click.argument("account", metavar="HOST[/NAMESPACE]", required=False)
@click.option("--all", "everything", is_flag=True, help="Forget all that is stored in the file.")
@authfile
@options.json_output
@options.verbosity
def command(
    account: str | None, everything: bool, authfile: Path | None, as_json: bool, quiet: bool, verbose: bool
) -> None:
    """Forget the credential for a registry, in the file that `ociforge login` writes and in the helper that it names.

    Only the entry for just this HOST, or HOST/NAMESPACE, is removed; it is an error if there is none.

    \b
    ociforge logout ghcr.io
    ociforge logout --all --authfile auth.json
    """
    console = Console.of(quiet=quiet, verbose=verbose)
    from ociforge.cli.places import own_auth_file
    from ociforge.transports.credential import Account

    if everything == (account is not None):
        raise options.OptionError("logout: name either one registry or `--all`", "see `ociforge logout --help`")
    file = own_auth_file(authfile)
    if account is None:
        removed = file.erase_all()
    else:
        wanted = Account.parse(account)
        _erase(wanted, file)
        removed = [str(wanted)]
        _tell_of_others(wanted, file, console)
    lines = [f"{name}: logged out" for name in removed] or [f"{file.path}: no credential in it"]
    console.result(lines, {"file": str(file.path), "removed": removed}, as_json=as_json)


def _erase(account: Account, file: AuthFile) -> None:
    from ociforge.errors import AuthError

    if not file.erase(account):
        raise AuthError(
            f"not logged in to `{account}`: no credential in `{file.path}`",
            "`--verbose` of other verbs says where a credential comes from; name the file with `--authfile`",
        )


def _tell_of_others(account: Account, file: AuthFile, console: Console) -> None:
    """Other files, and entries for more, may still have a credential."""
    from ociforge.cli.places import credential_store
    from ociforge.events import Warned

    found = credential_store().lookup(account.registry, account.reference().repository)
    if found is not None:
        message = f"there still is a credential for `{account}`: `{found.source}`"
        console.notify(Warned(message, "name its file with `--authfile` to remove it, too"))
