"""What may be reached for packages, out of settings and variables: mirrors, credentials, or nothing at all."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ociforge.cli.options import OptionError
from ociforge.network import Mirrors, Network, prefix_problem

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["network"]


def network(environ: Mapping[str, str], configured: Mirrors, *, offline: bool) -> Network:
    """The mirrors that variables name, and where they name none for a prefix, the `configured` ones.

    Raises OptionError for a variable that is wrong.
    """
    return Network(
        offline=offline,
        netrc=_netrc(environ),
        conda=_mirrors("OCIFORGE_CONDA_MIRRORS", environ).over(configured),
        pypi=_mirrors("OCIFORGE_PYPI_MIRRORS", environ).over(configured),
    )


def _netrc(environ: Mapping[str, str]) -> Path | None:
    """Where the user's passwords for indexes may be; None for a user without a home."""
    if named := environ.get("NETRC"):
        return Path(named)
    try:
        return Path.home() / ".netrc"
    except RuntimeError:
        return None


def _mirrors(variable: str, environ: Mapping[str, str]) -> Mirrors:
    found: dict[str, tuple[str, ...]] = {}
    for text in filter(None, (part.strip() for part in environ.get(variable, "").split(","))):
        prefix, _, mirror = text.partition("=")
        problem = prefix_problem(prefix, mirror=False) or prefix_problem(mirror, mirror=True)
        if problem is not None:
            # Not the text itself, in which a password may be.
            raise OptionError(
                f"{variable}: a mirror for `{prefix.rpartition('@')[2]}`: {problem}",
                "write `URL=MIRROR`, such as `https://conda.anaconda.org/=https://mirror.example.com/conda/`,"
                " separated by commas",
            )
        found[prefix] = (*found.get(prefix, ()), mirror)
    return Mirrors(prefixes=found)
