"""Makes what `ociforge demo` builds from: a channel of tiny real packages, a workspace and its lock.

Run `python -m tests.support.demo` after a change here; a test holds the files in the package to what this makes.
"""

from __future__ import annotations

import shutil
import struct
from pathlib import Path

import ociforge
from tests.support.channel import Channel, write_channel
from tests.support.conda import PLACEHOLDER, CondaPackage, Regular
from tests.support.lock import LockedEnvironment, conda_rows, write_lock

__all__ = ["executable", "main", "packages", "write_demo"]

_SUBDIRS = ("linux-64", "linux-aarch64")

_MANIFEST = """\
[workspace]
name = "demo"
version = "1.0.0"
channels = ["./channel"]
platforms = ["linux-64", "linux-aarch64"]

[dependencies]
hello = "*"

[tool.ociforge]
base = "scratch"
cmd = ["hello"]
files = ["pixi.toml"]
"""

_README = f"""\
The packages of this demonstration are real conda packages, a few kilobytes each.
This environment was made for {PLACEHOLDER}
"""

_GREETING = b"hello from "
_NEWLINE = b"\n"
_PREFIX = PLACEHOLDER.encode() + b"\0"


def packages() -> tuple[CondaPackage, ...]:
    """`hello` for both architectures, and the noarch `greeting` that it depends on."""
    hello = tuple(
        CondaPackage(
            name="hello",
            version="1.0.0",
            build="h0123456_0",
            subdir=subdir,
            depends=("greeting >=1.0",),
            files={"bin/hello": Regular(content=executable(subdir), executable=True, placeholder="binary")},
        )
        for subdir in _SUBDIRS
    )
    text = Regular(content=_README.encode(), placeholder="text")
    return (*hello, CondaPackage(name="greeting", noarch="generic", files={"share/greeting/README.txt": text}))


def executable(subdir: str) -> bytes:
    """A static program that prints `hello from <prefix>`; the prefix is a string of 255 bytes to be patched.

    The string is measured when it runs: patched, it is shorter and padded with NULs.
    """
    build, machine, page = {"linux-64": (_x86_64, 62, 0x1000), "linux-aarch64": (_aarch64, 183, 0x10000)}[subdir]
    size = len(build(0, 0, 0))
    greeting, prefix = size, size + len(_GREETING)
    body = build(greeting, prefix, prefix + len(_PREFIX)) + _GREETING + _PREFIX + _NEWLINE
    return _elf(body, machine, page)


def _elf(body: bytes, machine: int, page: int) -> bytes:
    """An ELF64 file of one segment, readable and executable, that starts at `body` (System V ABI, chapter 4 and 5)."""
    headers, base = 64 + 56, 0x400000
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    header = struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, base + headers, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    size = headers + len(body)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, size, size, page)
    return ident + header + segment + body


def _x86_64(greeting: int, prefix: int, newline: int) -> bytes:
    """System calls write (1) and exit (60); arguments in rdi, rsi, rdx. Offsets are from the start of the code."""
    code = bytearray()

    def lea_rsi(target: int) -> None:
        code.extend(b"\x48\x8d\x35" + struct.pack("<i", target - (len(code) + 7)))

    def write() -> None:
        code.extend(b"\xb8\x01\x00\x00\x00\xbf\x01\x00\x00\x00\x0f\x05")  # mov eax, 1; mov edi, 1; syscall

    lea_rsi(greeting)
    code.extend(b"\xba" + struct.pack("<I", len(_GREETING)))  # mov edx, length
    write()
    lea_rsi(prefix)
    code.extend(b"\x31\xd2")  # xor edx, edx
    code.extend(b"\x80\x3c\x16\x00\x74\x04\xff\xc2\xeb\xf6")  # again: cmp [rsi+rdx], 0; je done; inc edx; jmp again
    write()
    lea_rsi(newline)
    code.extend(b"\xba\x01\x00\x00\x00")  # mov edx, 1
    write()
    code.extend(b"\xb8\x3c\x00\x00\x00\x31\xff\x0f\x05")  # mov eax, 60; xor edi, edi; syscall
    return bytes(code)


def _aarch64(greeting: int, prefix: int, newline: int) -> bytes:
    """System calls write (64) and exit (93); number in x8, arguments in x0, x1, x2. Offsets as above."""
    code: list[int] = []

    def mov(register: int, value: int) -> None:
        code.append(0xD2800000 | value << 5 | register)

    def adr(register: int, target: int) -> None:
        offset = target - 4 * len(code)
        code.append(0x10000000 | (offset & 3) << 29 | (offset >> 2 & 0x7FFFF) << 5 | register)

    def call(number: int, first: int) -> None:
        mov(0, first)
        mov(8, number)
        code.append(0xD4000001)  # svc #0

    adr(1, greeting)
    mov(2, len(_GREETING))
    call(64, 1)
    adr(1, prefix)
    mov(2, 0)
    code.append(0x38626823)  # again: ldrb w3, [x1, x2]
    code.append(0x34000000 | 3 << 5 | 3)  # cbz w3, done
    code.append(0x91000442)  # add x2, x2, #1
    code.append(0x14000000 | (-3 & 0x3FFFFFF))  # b again
    call(64, 1)
    adr(1, newline)
    mov(2, 1)
    call(64, 1)
    call(93, 0)
    return struct.pack(f"<{len(code)}I", *code)


def write_demo(directory: Path) -> None:
    """Write `channel/`, `pixi.toml` and a `pixi.lock` whose packages are named relative to it into `directory`."""
    channel = write_channel(directory / "channel", packages())
    placed = Channel(path=channel.path, url="./channel/", archives=channel.archives)
    rows = {subdir: conda_rows(placed, platform=subdir) for subdir in _SUBDIRS}
    (directory / "pixi.toml").write_text(_MANIFEST)
    write_lock(directory / "pixi.lock", {"default": LockedEnvironment(channels=(placed.url,), packages=rows)})


def main() -> None:
    """Replace the data in `ociforge/demo`."""
    target = Path(ociforge.__file__).parent / "demo"
    shutil.rmtree(target / "channel", ignore_errors=True)
    write_demo(target)


if __name__ == "__main__":
    main()
