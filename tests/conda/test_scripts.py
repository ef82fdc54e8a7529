from __future__ import annotations

import pytest

from ociforge.conda.info import EntryPoint, Python
from ociforge.conda.scripts import entry_point_script

PYTHON = Python.parse("3.12 lib/python3.12/site-packages")


def test_a_script() -> None:
    """Byte for byte what rattler writes: tabs, and a pattern that only matters elsewhere."""
    script = entry_point_script(EntryPoint.parse("run = a.b:Class.main"), "/opt/env", PYTHON)
    assert script == (
        b"#!/opt/env/bin/python3.12\n# -*- coding: utf-8 -*-\nimport re\nimport sys\n\nfrom a.b import Class\n\n"
        b"if __name__ == '__main__':\n\tsys.argv[0] = re.sub(r'(-script\\.pyw?|\\.exe)?$', '', sys.argv[0])\n"
        b"\tsys.exit(Class.main())\n"
    )


@pytest.mark.parametrize(
    ("prefix", "direct"), [("/" + "p" * 109, True), ("/" + "p" * 110, False), ("/" + "é" * 55, False), ("/a b", False)]
)
def test_first_lines_that_kernels_cannot_read(prefix: str, direct: bool) -> None:
    first, second = entry_point_script(EntryPoint.parse("r = a:b"), prefix, PYTHON).decode().splitlines()[:2]
    if direct:
        assert first == f"#!{prefix}/bin/python3.12"
    else:
        assert first == "#!/bin/sh"
        assert second == "'''exec' \"" + prefix + '/bin/python3.12" "$0" "$@" #\'\'\''
