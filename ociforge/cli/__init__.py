"""The command line: the only package that prints, exits or reads the environment.

Exit codes: 0 done; 1 the user or the environment can put it right; 2 the command line itself is wrong; 70 a bug in
ociforge; 130 interrupted (SIGINT or SIGTERM).
"""

from __future__ import annotations

import difflib
import importlib
import re
import signal
import sys
import traceback
from typing import TYPE_CHECKING

import click

from layers.errors import LayerError
from ociforge import __version__
from ociforge.cli.console import escaped, styled
from ociforge.errors import ForgeError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

__all__ = ["cli", "run"]

BUG = 70
INTERRUPTED = 130


class _Verbs(click.Group):
    """A group whose verbs live in modules of the same name, imported when asked for."""

    _names = (
        "build",
        "bundle",
        "cache",
        "check",
        "demo",
        "fetch",
        "inspect",
        "lock",
        "login",
        "logout",
        "plan",
        "push",
        "rebase",
        "verify",
    )

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._names)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._names:
            return None
        command = importlib.import_module(f"ociforge.cli.{cmd_name}").command
        assert isinstance(command, click.Command)
        return command


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, message="%(prog)s %(version)s")
def cli() -> None:
    """Build OCI images from pixi workspaces, without Docker, daemon, root or emulation.

    \b
    ociforge demo                                  make a small image here and now
    ociforge build -e prod --push HOST/TEAM/APP:1  build the workspace and push it
    ociforge lock                                  solve the environments and pin the base images
    ociforge check                                 does pixi.lock fit the manifest?
    ociforge fetch                                 get what a build needs; then: ociforge build --offline
    ociforge login HOST -u USER                    keep a credential for a registry
    ociforge push oci:app docker://HOST/TEAM/APP:1 copy an image between two places
    ociforge rebase docker://HOST/TEAM/APP:1 --base docker://debian:12 --push HOST/TEAM/APP:1
                                                   put a newer base image under an image
    ociforge inspect docker://HOST/TEAM/APP:1      what is in an image?

    Exit codes: 0 done, 1 something you can put right, 2 wrong usage, 70 a bug in ociforge, 130 interrupted.
    """


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit status; every error ends here as one message on stderr."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        result = cli.main(list(arguments), prog_name="ociforge", standalone_mode=False)
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.ClickException as error:
        return _usage(error, arguments)
    except ForgeError as error:
        _report(error.message, error.hint)
        return error.exit_code
    except LayerError as error:
        _report(str(error))
        return 1
    except (KeyboardInterrupt, click.Abort):
        _report("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        return 1
    except OSError as error:
        _report(_operating_system(error))
        return 1
    except Exception as error:
        return _bug(error, verbose="-v" in arguments or "--verbose" in arguments)
    return result if isinstance(result, int) else 0


def _interrupt(number: int, frame: FrameType | None) -> None:
    """SIGTERM is taken for SIGINT, whose handler knows how to unwind: an event loop's cancels what it runs."""
    handler = signal.getsignal(signal.SIGINT)
    if not callable(handler):  # SIGINT is ignored, as in a shell's background
        raise KeyboardInterrupt
    handler(signal.SIGINT, frame)


def _usage(error: click.ClickException, arguments: Sequence[str]) -> int:
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        click.echo(error.format_message())
        return error.exit_code
    context = getattr(error, "ctx", None) or _asked(arguments)  # click does not say whose option lacks its value
    hint = f"see `{context.command_path} --help`"
    unknown = re.match(r"No such command '(.*?)'", error.message)
    near = getattr(error, "possibilities", None)
    if unknown is not None and isinstance(context.command, click.Group):
        near = difflib.get_close_matches(unknown[1], context.command.list_commands(context))
    if near:
        hint = f"did you mean {' or '.join(f'`{name}`' for name in near)}?"
    listed = unknown is not None or isinstance(error, click.exceptions.NoSuchOption)  # click adds what the hint says
    text = error.message if listed else error.format_message()
    _report((text[:1].lower() + text[1:]).rstrip(".").replace("'", "`"), hint)
    return error.exit_code


def _asked(arguments: Sequence[str]) -> click.Context:
    """The verb that a command line names, as far as there is one."""
    context = click.Context(cli, info_name="ociforge")
    for name in arguments:
        group = context.command
        inner = group.get_command(context, name) if isinstance(group, click.Group) else None
        if inner is None:
            break
        context = click.Context(inner, parent=context, info_name=name)
    return context


def _operating_system(error: OSError) -> str:
    where = f": `{error.filename}`" if error.filename is not None else ""
    return f"the operating system refused{where}: {(error.strerror or str(error)).lower()}"


def _bug(error: Exception, *, verbose: bool) -> int:
    _report(
        f"this is a bug in ociforge {__version__}: {type(error).__name__}: {error}",
        "please report it with the command and this message"
        + ("" if verbose else "; `--verbose` shows where it happened"),
    )
    if verbose:
        traceback.print_exception(error, file=sys.stderr)
    return BUG


def _report(message: str, hint: str | None = None) -> None:
    click.echo(styled("error: ", "red") + escaped(message, keep="\n"), err=True)
    if hint is not None:
        click.echo("\n" + styled("hint: ", "cyan") + escaped(hint, keep="\n"), err=True)
