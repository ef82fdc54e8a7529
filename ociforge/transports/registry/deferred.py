"""Imports that wait until something of them is used."""

from __future__ import annotations

import importlib.util
import sys

__all__ = ["defer"]


def defer(name: str) -> None:
    """Let the next `import` of the top-level module `name` take no time: it is loaded at the first use of an attribute.

    Where it is not installed or was imported before, nothing changes.
    """
    spec = None if name in sys.modules else importlib.util.find_spec(name)
    if spec is None or spec.loader is None:
        return
    spec.loader = loader = importlib.util.LazyLoader(spec.loader)
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
