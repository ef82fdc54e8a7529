"""Archives as `tarfile` and `zipfile` write them, and every way in which they can be broken."""

from __future__ import annotations

import bz2
import io
import tarfile
import tracemalloc
import zipfile
from typing import TYPE_CHECKING

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ociforge.conda.archive import ArchiveFile
from ociforge.conda.info import INFO_FILES
from ociforge.errors import PackageError
from tests.support.conda import CondaPackage, Form, Link, Regular, SameFile

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.conda import FileLike

NAME = "p-1.0-0"
FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
Fact = tuple[str, str, int, int, str, bytes]


def member(name: str, **metadata: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    for key, value in metadata.items():
        setattr(info, key, value)
    return info


def tar(*members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for info, data in members:
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def conda(payload: bytes, info: bytes = b"", *, compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        archive.writestr("metadata.json", "{}")
        archive.writestr(f"pkg-{NAME}.tar.zst", payload)
        archive.writestr(f"info-{NAME}.tar.zst", info)
    return buffer.getvalue()


def zst(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


def on_disk(root: Path, data: bytes, form: Form = ".conda") -> ArchiveFile:
    path = root / f"{NAME}{form}"
    path.write_bytes(data)
    return ArchiveFile(path=path, filename=path.name)


def of_tar(root: Path, data: bytes) -> ArchiveFile:
    return on_disk(root, conda(zst(data)))


def facts(file: ArchiveFile) -> list[Fact]:
    return [(m.name, m.kind, m.mode, m.mtime, m.link, m.read()) for m in file.payload()]


def why(file: ArchiveFile) -> str:
    """How reading fails."""
    with pytest.raises(PackageError) as caught:
        facts(file)
    prefix = f"reading `{file.filename}`: "
    assert caught.value.message.startswith(prefix)
    return caught.value.message.removeprefix(prefix)


@pytest.mark.parametrize("form", [".conda", ".tar.bz2"])
def test_a_package(tmp_path: Path, form: Form) -> None:
    files: dict[str, FileLike] = {
        "b": Regular(content=b"b", executable=True, mtime=7),
        "d/l": Link("../b"),
        "h": SameFile("b"),
    }
    package = CondaPackage(name="p", files=files)
    file = on_disk(tmp_path, package.archive(form), form)
    assert [fact for fact in facts(file) if not fact[0].startswith("info/")] == [
        ("b", "file", 0o755, 7, "", b"b"),
        ("d/l", "softlink", 0o777, package.mtime, "../b", b""),
        ("h", "hardlink", 0o644, package.mtime, "b", b""),
    ]
    expected = {name: data for name, data in package.info().items() if name in ("info/index.json", "info/paths.json")}
    assert expected.items() <= file.info().items()
    assert file.info(["info/about.json", "info/none"]) == {"info/about.json": package.info()["info/about.json"]}
    assert [m.name for m in file.rest()] == ([*package.info()] if form == ".conda" else [])


@pytest.mark.parametrize("form", FORMATS)
def test_members_as_tarfile_writes_them(tmp_path: Path, form: int) -> None:
    long = "directory/" * 20 + "name"
    members = [
        (member("plain", mode=0o600, mtime=1), b"data"),
        (member(long, mode=0o755, mtime=8**11 - 1), b"x" * 512),
        (member("empty"), b""),
        (member("directory", type=tarfile.DIRTYPE), b""),
        (member("hard", type=tarfile.LNKTYPE, linkname="plain"), b""),
        (member("pipe", type=tarfile.FIFOTYPE), b""),
    ]
    if form != tarfile.USTAR_FORMAT:
        members += [
            (member("soft", type=tarfile.SYMTYPE, linkname="../" + "t" * 200 + "//"), b""),
            (member("hard2", type=tarfile.LNKTYPE, linkname=long), b""),
            (member("ünï/ç" * 40), b"x"),
        ]
    kinds = {tarfile.REGTYPE: "file", tarfile.DIRTYPE: "directory", tarfile.LNKTYPE: "hardlink"}
    kinds |= {tarfile.SYMTYPE: "softlink", tarfile.FIFOTYPE: "other"}
    assert facts(of_tar(tmp_path, tar(*members, form=form))) == [
        (info.name, kinds[info.type], info.mode, info.mtime, info.linkname, data) for info, data in members
    ]


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="/\0\n"), min_size=1, max_size=120).filter(
    lambda name: name not in (".", "..")
)
FILES = st.lists(st.tuples(NAMES, st.binary(max_size=1500), st.integers(0, 2**33 - 1)), max_size=8)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(FILES, st.sampled_from(FORMATS[1:]), st.integers(1, 3000))
def test_whatever_tarfile_writes(tmp_path: Path, files: list[tuple[str, bytes, int]], form: int, size: int) -> None:
    """In any pieces: each compressed stream of the archive ends where it likes."""
    data = tar(*((member(f"d/{name}", mtime=mtime), content) for name, content, mtime in files), form=form)
    pieces = b"".join(bz2.compress(data[start : start + size], 1) for start in range(0, len(data), size))
    found = facts(on_disk(tmp_path, pieces, ".tar.bz2"))
    assert [(f[0], f[5], f[3]) for f in found] == [(f"d/{name}", content, mtime) for name, content, mtime in files]


def test_names_are_plain(tmp_path: Path) -> None:
    names = ["./a", "/b", "c//d", "e/./f", "g/", "h/..", "./.x", "./"]
    data = tar(*((member(name), b"") for name in names))
    assert [fact[0] for fact in facts(of_tar(tmp_path, data))] == ["a", "b", "c/d", "e/f", "g", "h/..", ".x", "."]
    link = tar((member("l", type=tarfile.LNKTYPE, linkname="./a//b"), b""))
    assert facts(of_tar(tmp_path, link))[0][4] == "a/b"


def test_numbers_beyond_octal(tmp_path: Path) -> None:
    data = tar((member("a", mtime=2**40), b""), (member("b", mtime=-5), b""), form=tarfile.GNU_FORMAT)
    assert [fact[3] for fact in facts(of_tar(tmp_path, data))] == [2**40, -5]


def test_contents_may_be_skipped_or_read_in_part(tmp_path: Path) -> None:
    file = of_tar(tmp_path, tar(*((member(name), name.encode() * 700_000) for name in "abcd")))
    seen = []
    for one in file.payload():
        if one.name == "b":
            seen.append(len(next(one.chunks())))
        elif one.name == "c":
            seen.append(sum(map(len, one.chunks())))
    assert 0 < seen[0] < 700_000 == seen[1]


def test_memory_is_a_few_blocks(tmp_path: Path) -> None:
    file = of_tar(tmp_path, tar((member("big"), bytes(48 << 20))))
    tracemalloc.start()
    try:
        assert sum(len(chunk) for one in file.payload() for chunk in one.chunks()) == 48 << 20
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_a_bz2_archive_is_read_as_far_as_needed(tmp_path: Path) -> None:
    """Decompressing a whole one for its first members would cost seconds."""
    data = CondaPackage(name="p", files={"a": bytes(range(256)) * 8000}).archive(".tar.bz2")
    file = on_disk(tmp_path, data[: len(data) // 2], ".tar.bz2")
    assert "info/paths.json" in file.info(INFO_FILES)
    assert why(file) == "it is cut short"


GOOD = tar((member("a"), b"x" * 1000), (member("b"), b"y"))
SPARSE = member("a", pax_headers={"GNU.sparse.major": "1"})


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (GOOD[:1000], "it is cut short"),
        (GOOD[:300], "it is cut short"),
        (GOOD[:100] + b"1" + GOOD[101:], "it has a damaged header"),
        (GOOD + b"junk", "something follows its end"),
        (GOOD[:-512] + b"j" * 512, "something follows its end"),
        (tar((SPARSE, b"")), "it has a sparse file"),
        (tar((member("a", type=tarfile.GNUTYPE_SPARSE), b"")), "it has a sparse file"),
        (tar((member("a", pax_headers={"path": "a\nb"}), b"")), "it has a name with a line break"),
        (tar((member("a", pax_headers={"size": "x"}), b"")), "it has a member of size `x`"),
        (tar((member("a", type=tarfile.XHDTYPE), b"30 path=x\n")), "it has a damaged PAX header"),
        (tar((member("a", type=tarfile.XHDTYPE), b"0 path=x\nab")), "it has a damaged PAX header"),
        (tar((member("a", type=tarfile.XHDTYPE), b"1 path=x\na")), "it has a damaged PAX header"),
        (tar((member("a", type=tarfile.XHDTYPE), b"path=x\n")), "it has a damaged PAX header"),
        (tar((member("a", type=tarfile.XHDTYPE), b"9 path=x\n")), "it is cut short"),
        (tar((member("a", type=tarfile.XGLTYPE), b"9 path=x\n")), "it has a global header with a name or size"),
        (tar((member("a", type=tarfile.XHDTYPE), bytes(2 << 20))), "it has a header of 2097152 bytes"),
    ],
)
def test_broken_tars(tmp_path: Path, data: bytes, reason: str) -> None:
    assert why(of_tar(tmp_path, data)).startswith(reason)


def test_a_number_that_is_none(tmp_path: Path) -> None:
    block = bytearray(GOOD[:512])
    block[136:148] = b"12x45678901\0"
    block[148:156] = b"%06o\0 " % (sum(block[:148]) + sum(block[156:]) + 8 * ord(" "))
    assert why(of_tar(tmp_path, bytes(block))) == "it has a header with a number b'12x45678901'"


def test_a_tar_may_end_without_saying_so(tmp_path: Path) -> None:
    """As rattler and tarfile have it; the archive's digest tells that nothing is missing."""
    assert [fact[0] for fact in facts(of_tar(tmp_path, GOOD[: 512 + 1024]))] == ["a"]


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (lambda: conda(zst(GOOD)[:-5]), "zstd data is cut short"),
        (lambda: conda(zst(GOOD) + b"junk"), "zstd data is damaged: something else follows a frame"),
        (lambda: conda(GOOD), "data of type `application/vnd.oci.image.layer.v1.tar+zstd` is not compressed so"),
        (
            lambda: conda(zst(GOOD), compression=zipfile.ZIP_DEFLATED),
            f"`pkg-{NAME}.tar.zst` is compressed or encrypted",
        ),
        (lambda: b"no zip", "File is not a zip file"),
        (lambda: conda(zst(GOOD))[:-30], "File is not a zip file"),
        (lambda: CondaPackage(name="p").archive(".tar.bz2"), "File is not a zip file"),
    ],
)
def test_broken_conda_archives(tmp_path: Path, broken: Callable[[], bytes], reason: str) -> None:
    assert why(on_disk(tmp_path, broken())).startswith(reason)


@pytest.mark.parametrize(
    ("offset", "value", "reason"), [(6, 173, "zip file version 17.3"), (45, 127, "it is cut short")]
)
def test_a_zip_whose_directory_lies(tmp_path: Path, offset: int, value: int, reason: str) -> None:
    """The version that a member asks for, and where in the file it is."""
    data = bytearray(conda(zst(GOOD)))
    entry = data.index(b"PK\x01\x02", data.index(b"PK\x01\x02") + 1)  # the payload's, after metadata.json's
    data[entry + offset] = value
    assert why(on_disk(tmp_path, bytes(data))) == reason


@pytest.mark.parametrize("count", [0, 2])
def test_one_payload(tmp_path: Path, count: int) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for number in range(count):
            archive.writestr(f"pkg-{number}.tar.zst", zst(GOOD))
    assert why(on_disk(tmp_path, buffer.getvalue())) == f"it has {count} members `pkg-….tar.zst`, not one"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (bz2.compress(GOOD)[:-5], "it is cut short"),
        (bz2.compress(GOOD) + b"junk", "Invalid data stream"),
        (b"", "it is cut short"),
        (b"no bz2 at all", "Invalid data stream"),
    ],
)
def test_broken_bz2_archives(tmp_path: Path, data: bytes, reason: str) -> None:
    assert why(on_disk(tmp_path, data, ".tar.bz2")) == reason


def test_an_archive_that_is_gone(tmp_path: Path) -> None:
    file = ArchiveFile(path=tmp_path / "x", filename="p-1.0-0.conda")
    assert why(file) == "No such file or directory"
