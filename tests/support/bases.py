"""Base images: a Debian that programs can run on, and a tiny one for fast tests."""

from __future__ import annotations

import io
import platform
import subprocess
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tests.support import images
from tests.support.cache import cached, fingerprint
from tests.support.images import HandmadeImage, write_layout
from tests.support.tools import missing, need

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["PATH", "Member", "debian_image", "debian_layout", "debian_rootfs", "tar_of", "tiny_image"]

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# A directory's mode, a link's target or a file's content.
Member = int | str | bytes

_MTIME = 1_704_164_645

# The smallest system with a shell that mmdebstrap makes. That /usr is merged from the beginning spares the program that
# merges it, and Perl with it.
_LEFT_OUT = ("/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/man/*", "/usr/lib/*/gconv/*")
_SMALL = (
    "--variant=essential",
    "--include=usr-is-merged",
    "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr",
    *(f"--dpkgopt=path-exclude={pattern}" for pattern in _LEFT_OUT),
)
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def tar_of(members: Mapping[str, Member]) -> bytes:
    """A layer tar: int makes a directory of that mode, str a symbolic link, bytes a file (executable below `bin`)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path, value in members.items():
            member = tarfile.TarInfo(path)
            member.mtime = _MTIME
            match value:
                case int():
                    member.type, member.mode = tarfile.DIRTYPE, value
                case str():
                    member.type, member.linkname, member.mode = tarfile.SYMTYPE, value, 0o777
                case bytes():
                    member.size = len(value)
                    member.mode = 0o755 if path.split("/")[-2:-1] == ["bin"] else 0o644
            tar.addfile(member, io.BytesIO(value) if isinstance(value, bytes) else None)
    return buffer.getvalue()


_OS_RELEASE = b'ID=tiny\nNAME="Tiny"\nVERSION_ID="1"\nPRETTY_NAME="Tiny 1"\n'

# Merged /usr, as all large distributions have it: a layer that makes `lib` a directory breaks the image.
_TINY: dict[str, Member] = {
    "bin": "usr/bin",
    "lib": "usr/lib",
    "lib64": "usr/lib64",
    "sbin": "usr/sbin",
    "etc": 0o755,
    "etc/os-release": "../usr/lib/os-release",
    "etc/passwd": b"root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n",
    "etc/group": b"root:x:0:\napp:x:1000:\n",
    "home": 0o755,
    "root": 0o700,
    "run": 0o755,
    "tmp": 0o1777,
    "usr": 0o755,
    "usr/bin": 0o755,
    "usr/bin/env": b"not a program\n",
    "usr/bin/sh": b"not a program\n",
    "usr/lib": 0o755,
    "usr/lib/os-release": _OS_RELEASE,
    "usr/lib64": 0o755,
    "usr/sbin": 0o755,
    "var": 0o755,
    "var/run": "/run",
}


def tiny_image(
    *, architecture: Literal["amd64", "arm64"] = "amd64", extra: Mapping[str, Member] | None = None
) -> HandmadeImage:
    """Two small layers (the second holds `extra`, by default a certificate) and a config with Env and Labels."""
    certificates: dict[str, Member] = {"etc/ssl": 0o755, "etc/ssl/certs.pem": b"certificates\n"}
    config = {
        "Env": [f"PATH={PATH}", "LANG=C.UTF-8"],
        "Cmd": ["/bin/sh"],
        "WorkingDir": "/",
        "Labels": {"org.opencontainers.image.version": "1", "maintainer": "tiny"},
    }
    return HandmadeImage(
        layers=(tar_of(_TINY), tar_of(certificates if extra is None else extra)),
        config=config,
        architecture=architecture,
        variant="v8" if architecture == "arm64" else None,
        history=(
            {"created": "2024-01-02T03:04:05Z", "created_by": "tiny rootfs"},
            {"created_by": "CMD", "empty_layer": True},
            {"created_by": "certificates"},
        ),
    )


def debian_rootfs(*, small: bool) -> Path:
    """A tar of this Debian's minimal system (so that this machine's programs run in it), cached between runs.

    It is of apt and what apt needs, 170 MB; a `small` one has the essential packages without their texts, 46 MB.
    """
    program = need("mmdebstrap")
    codename = platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    if platform.freedesktop_os_release().get("ID") != "debian":
        missing("the base image is made of the Debian that the tests run on, and this is none")

    def make(directory: Path) -> None:
        wanted = _SMALL if small else ("--variant=minbase",)
        command = [program, *wanted, "--quiet", codename, str(directory / "rootfs.tar")]
        environment = {"PATH": PATH, "SOURCE_DATE_EPOCH": str(_MTIME), "LC_ALL": "C.UTF-8"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            missing(f"`mmdebstrap {codename}` failed: {done.stderr.strip().splitlines()[-1:]}")

    kind = f"{codename}-small" if small else codename
    return cached(f"debian-{kind}-{fingerprint(Path(__file__))}", make) / "rootfs.tar"


def debian_image(*, small: bool = False) -> HandmadeImage:
    """The minimal Debian as an image of one layer; `small` as `debian_rootfs` has it."""
    return HandmadeImage(
        layers=(debian_rootfs(small=small).read_bytes(),),
        config={"Env": [f"PATH={PATH}"], "Cmd": ["bash"]},
        architecture=_ARCHITECTURES[platform.machine()],
    )


def debian_layout() -> Path:
    """An OCI layout with the small Debian tagged `latest`, cached between runs.

    It is what tests unpack, load, pull and push again and again.
    """
    rootfs = debian_rootfs(small=True)
    key = f"{rootfs.parent.name}-{fingerprint(Path(images.__file__))}"

    def make(directory: Path) -> None:
        write_layout(debian_image(small=True), directory)

    return cached(f"layout-{key}", make)
