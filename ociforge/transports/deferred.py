"""Imports that wait until something of them is used."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

__all__ = ["defer"]


def defer(name: str) -> None:
    """Let `import` of the module `name` take no time: it is loaded when one of its attributes is asked for.

    `importlib.util.LazyLoader` would load it at the next `import` statement. Nothing changes where it was imported
    before; one that is not installed shows at its first use.
    """
    if name in sys.modules:
        return
    standing_in = ModuleType(name)

    def load(attribute: str) -> object:
        if sys.modules.get(name) is standing_in:
            del sys.modules[name]
        return getattr(importlib.import_module(name), attribute)

    standing_in.__getattr__ = load  # type: ignore[method-assign]  # PEP 562
    sys.modules[name] = standing_in
