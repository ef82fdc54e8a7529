"""Entry points of noarch Python packages: the scripts that rattler makes of them, byte for byte."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ociforge.conda.prefix import SHEBANG_LIMIT

if TYPE_CHECKING:
    from ociforge.conda.info import EntryPoint, Python

__all__ = ["entry_point_script"]

_SCRIPT = """\
{shebang}
# -*- coding: utf-8 -*-
import re
import sys

from {module} import {name}

if __name__ == '__main__':
\tsys.argv[0] = re.sub(r'(-script\\.pyw?|\\.exe)?$', '', sys.argv[0])
\tsys.exit({function}())
"""


def entry_point_script(entry_point: EntryPoint, prefix: str, python: Python) -> bytes:
    """The script that calls `entry_point` with the `python` of the environment `prefix`, an absolute path."""
    return _SCRIPT.format(
        shebang=_shebang(f"{prefix}/{python.executable}"),
        module=entry_point.module,
        name=entry_point.function.partition(".")[0],
        function=entry_point.function,
    ).encode()


def _shebang(executable: str) -> str:
    """The first line: a path too long for the kernel, or with a blank, is started by `/bin/sh`, which Python skips."""
    line = f"#!{executable}"
    if len(line.encode()) <= SHEBANG_LIMIT and " " not in executable:
        return line
    return f"#!/bin/sh\n'''exec' \"{executable}\" \"$0\" \"$@\" #'''"
