"""A workspace of a few kB with all that a build can meet: it is built in a moment."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.support.bases import tiny_image
from tests.support.channel import Channel, write_channel
from tests.support.conda import PLACEHOLDER, CondaPackage, Link, Regular, SameFile, binary
from tests.support.images import write_layout
from tests.support.lock import LockedEnvironment, conda_rows, write_lock

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from tests.support.lock import Locked

__all__ = ["MANIFEST", "SETTINGS", "Tiny", "tiny_base", "tiny_packages", "tiny_workspace"]

# The manifest and the lock name the channel's directory, so an image that holds them is one of this machine.
SETTINGS = """\
files = { exclude = ["pixi.*"] }
cmd = ["tool"]
"""

MANIFEST = """\
[workspace]
name = "tiny"
version = "0.1.0"
channels = ["{channel}"]
platforms = [{platforms}]

[dependencies]
{dependencies}

[tool.ociforge]
{settings}"""

_FILES = {"main.py": "print('tiny')\n", "pkg/__init__.py": "", "pkg/grüße.txt": "grüße\n", "run.sh": "#!/bin/sh\n"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiny:
    """A workspace in the directory `root`, locked for its one environment from `channel`."""

    root: Path
    channel: Channel

    @property
    def manifest(self) -> Path:
        return self.root / "pixi.toml"

    @property
    def lock(self) -> Path:
        return self.root / "pixi.lock"

    def archive(self, name: str) -> Path:
        """The file of one of the channel's packages."""
        (found,) = self.channel.named(name)
        return found.path

    def settings(self, text: str) -> None:
        """Add keys to `[tool.ociforge]`."""
        self.manifest.write_text(self.manifest.read_text(encoding="utf-8") + text, encoding="utf-8")

    def copy(self, root: Path) -> Tiny:
        """The same workspace in another directory, with the same channel."""
        shutil.copytree(self.root, root, symlinks=True)
        return Tiny(root=root, channel=self.channel)


def tiny_packages(subdir: str = "linux-64") -> tuple[CondaPackage, ...]:
    """Packages of every kind: placeholders, links, scripts, noarch, and a `python` that only looks like one."""
    return (
        CondaPackage(
            name="liba",
            subdir=subdir,
            files={
                "lib/liba.so": Link("liba.so.1"),
                "lib/liba.so.1": Regular(content=binary("{prefix}/share"), placeholder="binary"),
                "share/a/data": b"data " * 1000,
                "share/a/same": SameFile("share/a/data"),
            },
        ),
        CondaPackage(
            name="tool",
            version="2.1",
            build="h1_3",
            build_number=3,
            subdir=subdir,
            depends=("liba",),
            files={"bin/tool": _script("echo tool")},
            env_vars={"TOOL_HOME": "/opt/tool"},
        ),
        CondaPackage(name="hook", subdir=subdir, activate="export HOOKED=1\n"),
        CondaPackage(
            name="python",
            version="3.11.9",
            subdir=subdir,
            files={"bin/python3.11": _script("exit 1"), "bin/python": Link("python3.11")},
        ),
        CondaPackage(
            name="pure",
            noarch="python",
            depends=("python",),
            files={"site-packages/pure/__init__.py": "def main(): ...\n"},
            entry_points=("pure = pure:main",),
        ),
        CondaPackage(
            name="words",
            noarch="generic",
            files={"share/words/grüße": Regular(content="grüße\n".encode(), mtime=1_600_000_000)},
        ),
    )


def tiny_workspace(
    root: Path,
    *,
    channel: Path | None = None,
    packages: Iterable[CondaPackage] | None = None,
    settings: str = SETTINGS,
    platforms: Sequence[str] = ("linux-64",),
    extra: Iterable[Locked] = (),
) -> Tiny:
    """Write channel, manifest, lock and files. `channel` is a directory, by default beside the workspace.

    All `packages` that fit are locked for each of `platforms`, which are subdirs, and so are the rows `extra`.
    """
    made = write_channel(
        root.with_name(f"{root.name}-channel") if channel is None else channel,
        tiny_packages() if packages is None else packages,
        form=".tar.bz2",  # unlike zstd, the same bytes from every version of its library
    )
    rows = {name: (*conda_rows(made, platform=name), *extra) for name in platforms}
    root.mkdir(parents=True)
    tiny = Tiny(root=root, channel=made)
    names = sorted({archive.record["name"] for archive in made.archives})
    tiny.manifest.write_text(
        MANIFEST.format(
            channel=made.url,
            platforms=", ".join(f'"{name}"' for name in rows),
            dependencies="\n".join(f'{name} = "*"' for name in names),
            settings=settings,
        ),
        encoding="utf-8",
    )
    write_lock(tiny.lock, {"default": LockedEnvironment(channels=(made.url,), packages=rows)})
    for name, text in _FILES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    (root / "run.sh").chmod(0o755)
    (root / "link").symlink_to("main.py")
    return tiny


def tiny_base(directory: Path) -> Path:
    """A layout with the tiny base image; its layers are plain tars, so its digest depends on no compressor."""
    write_layout(tiny_image(), directory, compression="none")
    return directory


def _script(body: str) -> Regular:
    return Regular(content=f"#!{PLACEHOLDER}/bin/sh\n{body}\n".encode(), executable=True, placeholder="text")
