"""Who may import whom: dependencies point one way, and each foreign library has one home."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LEAVES = {
    "ociforge.errors",
    "ociforge.events",
    "ociforge.network",
    "ociforge.platform",
    "ociforge.regular",
    "ociforge.replacing",
    "ociforge.url_secrets",
}

# unit -> units it may import, itself apart; a unit is a module or package directly below `ociforge`
ALLOWED: dict[str, set[str]] = {
    "layers": set(),
    "ociforge": set(),
    "ociforge.errors": set(),
    "ociforge.replacing": set(),
    "ociforge.url_secrets": set(),
    "ociforge.platform": {"ociforge.errors"},
    "ociforge.events": {"layers"},
    "ociforge.network": {"ociforge.events"},
    "ociforge.parallel": {"layers"},
    "ociforge.demo": set(),
    "ociforge.oci": {"layers", *LEAVES},
    "ociforge.workspace": {"layers", *LEAVES},
    "ociforge.conda": {"layers", *LEAVES},
    "ociforge.pypi": {"layers", *LEAVES},
    "ociforge.app": {"layers", *LEAVES},
    "ociforge.plan": {"layers", "ociforge.oci", *LEAVES},
    "ociforge.store": {"layers", "ociforge.oci", *LEAVES},
    "ociforge.prune": {"ociforge.store"},
    "ociforge.bytecode": {"layers", *LEAVES},
    "ociforge.supplies": {
        "layers",
        "ociforge.base",
        "ociforge.conda",
        "ociforge.needs",
        "ociforge.oci",
        "ociforge.pypi",
        "ociforge.store",
        *LEAVES,
    },
    "ociforge.strip": {"layers"},
    "ociforge.request": {"layers", "ociforge.base", "ociforge.workspace", *LEAVES},
    "ociforge.verify": {"layers", "ociforge.oci", "ociforge.transports.base", *LEAVES},
    "ociforge.inputs": {
        "layers",
        "ociforge.conda",
        "ociforge.oci",
        "ociforge.plan",
        "ociforge.request",
        "ociforge.runtime",
        "ociforge.workspace",
    },
    "ociforge.reuse": {"layers", "ociforge.oci", "ociforge.store", "ociforge.transports.base", *LEAVES},
    "ociforge.base": {"layers", "ociforge.oci", "ociforge.store", "ociforge.transports.base", *LEAVES},
    "ociforge.transports": {"layers", "ociforge", "ociforge.oci", *LEAVES},
    "ociforge.publish": {"layers", "ociforge.oci", "ociforge.transports.base", *LEAVES},
    "ociforge.questions": {"layers", "ociforge.conda", "ociforge.pypi", "ociforge.workspace", *LEAVES},
    "ociforge.lock": {
        "layers",
        "ociforge.conda",
        "ociforge.pypi",
        "ociforge.questions",
        "ociforge.workspace",
        *LEAVES,
    },
    "ociforge.pins": {"layers", "ociforge.oci", *LEAVES},
    "ociforge.runtime": {
        "layers",
        "ociforge.base",
        "ociforge.conda",
        "ociforge.oci",
        "ociforge.plan",
        "ociforge.workspace",
        *LEAVES,
    },
    "ociforge.built": {
        "layers",
        "ociforge.base",
        "ociforge.oci",
        "ociforge.reuse",
        "ociforge.store",
        "ociforge.transports.base",
        *LEAVES,
    },
    "ociforge.packages": {
        "layers",
        "ociforge.bytecode",
        "ociforge.conda",
        "ociforge.needs",
        "ociforge.parallel",
        "ociforge.plan",
        "ociforge.planned",
        "ociforge.pypi",
        "ociforge.request",
        "ociforge.store",
        "ociforge.strip",
        "ociforge.workspace",
        *LEAVES,
    },
    "ociforge.planned": {
        "layers",
        "ociforge.built",
        "ociforge.oci",
        "ociforge.request",
        "ociforge.reuse",
        *LEAVES,
    },
    "ociforge.build": {
        "layers",
        "ociforge.app",
        "ociforge.base",
        "ociforge.built",
        "ociforge.conda",
        "ociforge.inputs",
        "ociforge.oci",
        "ociforge.packages",
        "ociforge.parallel",
        "ociforge.planned",
        "ociforge.request",
        "ociforge.reuse",
        "ociforge.runtime",
        "ociforge.store",
        "ociforge.workspace",
        *LEAVES,
    },
    "ociforge.rebase": {
        "layers",
        "ociforge.base",
        "ociforge.built",
        "ociforge.oci",
        "ociforge.store",
        "ociforge.transports.base",
        *LEAVES,
    },
    "ociforge.needs": {"layers", "ociforge.conda", "ociforge.pypi", "ociforge.workspace", *LEAVES},
    "ociforge.foreign": {
        "ociforge.bytecode",
        "ociforge.conda",
        "ociforge.needs",
        "ociforge.pypi",
        "ociforge.workspace",
        *LEAVES,
    },
    "ociforge.bundle": {
        "layers",
        "ociforge.base",
        "ociforge.conda",
        "ociforge.needs",
        "ociforge.oci",
        "ociforge.pins",
        "ociforge.pypi",
        "ociforge.store",
        "ociforge.supplies",
        "ociforge.transports",
        "ociforge.workspace",
        *LEAVES,
    },
    "ociforge.cli": {
        "layers",
        "ociforge",
        "ociforge.base",
        "ociforge.build",
        "ociforge.bundle",
        "ociforge.built",
        "ociforge.demo",
        "ociforge.foreign",
        "ociforge.lock",
        "ociforge.needs",
        "ociforge.oci",
        "ociforge.parallel",
        "ociforge.packages",
        "ociforge.planned",
        "ociforge.reuse",
        "ociforge.pins",
        "ociforge.plan",
        "ociforge.prune",
        "ociforge.publish",
        "ociforge.pypi",
        "ociforge.rebase",
        "ociforge.request",
        "ociforge.store",
        "ociforge.supplies",
        "ociforge.transports",
        "ociforge.verify",
        "ociforge.workspace",
        *LEAVES,
    },
    "ociforge.__main__": {"ociforge.cli"},
}

HOMES: dict[str, set[str]] = {
    "build": {"ociforge.pypi"},
    "installer": {"ociforge.pypi"},
    "pyproject_hooks": {"ociforge.pypi"},
    "uv": {"ociforge.pypi"},
    "rattler": {"ociforge.conda", "ociforge.workspace"},
    "oras": {"ociforge.transports.registry"},
    "zstandard": {"layers.compress", "layers.decompress"},
    "deflate": {"layers.compress"},
    "zlib_ng": {"layers.decompress"},
    "click": {"ociforge.cli"},
    "rich": {"ociforge.cli"},
    "platformdirs": {"ociforge.cli"},
    "tomli": {"ociforge.workspace"},
    "yaml": {"ociforge.workspace"},
    "pathspec": {"ociforge.app"},
}


@cache
def modules() -> dict[str, Path]:
    found = {}
    for path in sorted([*ROOT.glob("layers/**/*.py"), *ROOT.glob("ociforge/**/*.py")]):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def parsed(module: str) -> ast.Module:
    """The syntax tree of a module, read once; whoever gets it leaves it as it is."""
    return ast.parse(modules()[module].read_text())


@cache
def imports(module: str) -> frozenset[str]:
    """Every module that a module imports, wherever the import stands; `from a import b` counts as `a` and `a.b`."""
    names: set[str] = set()
    for node in ast.walk(parsed(module)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            assert node.module is not None
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(names)


def unit(name: str) -> str:
    parts = name.split(".")
    return "layers" if parts[0] == "layers" else ".".join(parts[:2])


def within(name: str, places: set[str]) -> bool:
    return any(name == place or name.startswith(place + ".") for place in places)


def resolve(name: str, known: dict[str, Path]) -> str:
    """The module that an imported name lies in: `ociforge.errors.ForgeError` -> `ociforge.errors`."""
    while name not in known:
        name = name.rpartition(".")[0]
    return name


@pytest.mark.parametrize("module", sorted(modules()))
def test_imports_point_one_way(module: str) -> None:
    known = modules()
    own = unit(module)
    for name in imports(module):
        if name.split(".")[0] not in ("layers", "ociforge"):
            continue
        target = resolve(name, known)
        if unit(target) == own:
            continue
        allowed = ALLOWED[own]
        exact = {place for place in allowed if place == "ociforge"}
        assert target in exact or within(target, allowed - exact), f"{module} imports {target}"


@pytest.mark.parametrize("module", sorted(modules()))
def test_foreign_libraries_have_one_home(module: str) -> None:
    for name in imports(module):
        homes = HOMES.get(name.split(".")[0])
        assert homes is None or within(module, homes), f"{module} imports {name}"


def test_there_are_no_import_cycles() -> None:
    known = modules()
    graph = {}
    for module in known:
        names = set()
        for node in parsed(module).body:
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names |= {f"{node.module}.{alias.name}" for alias in node.names}
        graph[module] = {resolve(n, known) for n in names if n.split(".")[0] in ("layers", "ociforge")} - {module}
    visiting: list[str] = []
    done: set[str] = set()

    def visit(module: str) -> None:
        assert module not in visiting, " -> ".join([*visiting, module])
        if module in done:
            return
        visiting.append(module)
        for target in sorted(graph[module]):
            visit(target)
        visiting.pop()
        done.add(module)

    for module in sorted(graph):
        visit(module)


@pytest.mark.parametrize("module", sorted(modules()))
def test_all_names_exist_and_are_sorted(module: str) -> None:
    tree = parsed(module)
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets):
            names = ast.literal_eval(node.value)
            defined = {
                getattr(n, "name", None) or getattr(getattr(n, "targets", [None])[0], "id", None) or _target(n)
                for n in tree.body
            }
            imported = {a.asname or a.name for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) for a in n.names}
            assert set(names) <= defined | imported, f"{module}: {set(names) - defined - imported}"


def _target(node: ast.stmt) -> str | None:
    return node.target.id if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) else None
