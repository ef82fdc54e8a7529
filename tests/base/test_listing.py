"""Reading the tars of other people: as the engines read them, and nothing malformed."""

from __future__ import annotations

import gzip
import io
import subprocess
import tarfile
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layers.digest import Digest
from ociforge.base.listing import Listing, Member, TarReader, decode, encode, read_layer
from ociforge.errors import BaseImageError
from tests.support.tools import need

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from ociforge.base.listing import Kind

_TYPES: dict[Kind, bytes] = {
    "file": tarfile.REGTYPE,
    "directory": tarfile.DIRTYPE,
    "symlink": tarfile.SYMTYPE,
    "hardlink": tarfile.LNKTYPE,
    "fifo": tarfile.FIFOTYPE,
    "device": tarfile.CHRTYPE,
}
END = bytes(1024)


def info(name: str, kind: Kind = "file", **fields: object) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type = _TYPES[kind]
    for key, value in fields.items():
        setattr(made, key, value)
    return made


def tar(members: Iterable[tarfile.TarInfo], format_: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format_) as archive:
        for member in members:
            archive.addfile(member, io.BytesIO(bytes(member.size)))
    return buffer.getvalue()


def members(data: bytes) -> list[Member]:
    return list(TarReader(io.BytesIO(data), "the layer"))


def paths(data: bytes) -> list[str]:
    return [member.path for member in members(data)]


def patched(data: bytes, offset: int, field: bytes, block: int = 0) -> bytes:
    """`data` with other bytes in one header, and the checksum that goes with them."""
    header = bytearray(data[512 * block : 512 * block + 512])
    header[offset : offset + len(field)] = field
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return data[: 512 * block] + bytes(header) + data[512 * block + 512 :]


ONE = tar([info("etc/file", mode=0o640, uid=3, gid=4, mtime=5, size=600)])


def test_every_kind_of_member() -> None:
    data = tar(
        [
            info("etc", "directory", mode=0o755, mtime=1),
            info("etc/file", mode=0o4755, uid=1, gid=2, mtime=3, size=1000),
            info("etc/link", "symlink", linkname="../usr//x", mode=0o777),
            info("etc/second", "hardlink", linkname="./etc/file"),
            info("run/pipe", "fifo"),
            info("dev/null", "device"),
        ]
    )

    def plain(path: str, kind: Kind, target: str | None = None) -> Member:
        return Member(path=path, kind=kind, mode=0o644, uid=0, gid=0, mtime=0, target=target)

    assert members(data) == [
        Member(path="etc", kind="directory", mode=0o755, uid=0, gid=0, mtime=1),
        Member(path="etc/file", kind="file", mode=0o4755, uid=1, gid=2, mtime=3),
        Member(path="etc/link", kind="symlink", mode=0o777, uid=0, gid=0, mtime=0, target="../usr//x"),
        plain("etc/second", "hardlink", "etc/file"),
        plain("run/pipe", "fifo"),
        plain("dev/null", "device"),
    ]


names = st.text(st.characters(codec="utf-8", exclude_characters="\0/"), min_size=1, max_size=120).filter(
    lambda name: name not in (".", "..")
)
numbers = st.integers(0, 2**40)


@given(
    st.lists(st.tuples(st.lists(names, min_size=1, max_size=4).map("/".join), numbers, numbers, st.integers(0, 3000))),
    st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
)
def test_it_reads_what_tarfile_wrote(entries: list[tuple[str, int, int, int]], format_: int) -> None:
    data = tar([info(path, uid=uid, mtime=mtime, size=size) for path, uid, mtime, size in entries], format_)
    found = [(member.path, member.uid, member.mtime) for member in members(data)]
    assert found == [(path, uid, mtime) for path, uid, mtime, _ in entries]


@pytest.mark.parametrize("format_", ["v7", "oldgnu", "gnu", "ustar", "pax"])
def test_it_reads_what_gnu_tar_wrote(tmp_path: Path, format_: str) -> None:
    (tmp_path / "in" / "etc").mkdir(parents=True)
    (tmp_path / "in" / "etc" / "file").write_bytes(bytes(2000))
    (tmp_path / "in" / "etc" / "link").symlink_to("file")
    (tmp_path / "in" / ("n" * 90)).write_bytes(b"")
    options = [f"--format={format_}", "--mtime=@7", "--owner=0", "--group=0", "--sort=name", "-C", str(tmp_path / "in")]
    made = subprocess.run([need("tar"), *options, "-c", "."], capture_output=True, check=True)
    listing = read_layer(io.BytesIO(made.stdout), "the layer", strict=True)
    assert [(member.path, member.kind, member.mtime) for member in listing.members] == [
        ("", "directory", 7),
        ("etc", "directory", 7),
        ("etc/file", "file", 7),
        ("etc/link", "symlink", 7),
        ("n" * 90, "file", 7),
    ]
    assert listing.diff_id == Digest.of(made.stdout)


@pytest.mark.parametrize(
    ("name", "path"),
    [("./etc/x", "etc/x"), ("/etc/x", "etc/x"), ("//etc/./x//", "etc/x"), ("etc/..x", "etc/..x"), ("./", "")],
)
def test_names_are_relative_to_the_root(name: str, path: str) -> None:
    assert paths(tar([info(name, "directory")])) == [path]


def test_a_long_star_or_ustar_name_has_a_prefix() -> None:
    long = f"{'d' * 120}/{'f' * 90}"
    data = tar([info(long)], tarfile.USTAR_FORMAT)
    assert paths(data) == [long]
    gnu = patched(data, 257, b"ustar  \0")  # where the prefix field holds something else
    assert paths(gnu) == ["f" * 90]
    star = patched(patched(data, 476, b"1" * 24), 508, b"tar\0")
    assert paths(star) == [long]


def test_an_old_file_with_a_slash_is_a_directory() -> None:
    data = patched(tar([info("etc/")]), 0, b"etc/\0")
    assert members(patched(data, 156, b"\0"))[0].kind == "directory"


def test_names_that_are_no_utf8_are_kept_apart() -> None:
    data = patched(patched(ONE, 0, b"etc/f\xff\xfe\0"), 156, b"0")
    (member,) = members(data)
    assert member.path.encode("utf-8", "surrogateescape") == b"etc/f\xff\xfe"
    listing = Listing(Digest.of(data), (member,))
    assert decode(encode(listing)) == listing


def test_pax_beats_the_header_and_global_headers_are_passed_over() -> None:
    member = info("short", size=3)
    member.pax_headers = {"path": "really/long", "size": "3", "mtime": "12.9", "uid": "70000000", "gid": "5"}
    plain = tar([member, info("next")])
    assert [(m.path, m.mtime, m.uid, m.gid) for m in members(plain)] == [
        ("really/long", 12, 70000000, 5),
        ("next", 0, 0, 0),
    ]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", pax_headers={"path": "everything"}) as archive:
        archive.addfile(info("one"))
    assert paths(buffer.getvalue()) == ["one"]


def test_pax_sparse_files_have_their_real_name() -> None:
    member = info("GNUSparseFile.0/file")
    member.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "data/file"}
    assert paths(tar([member])) == ["data/file"]


def test_text_is_kept_of_few_small_files() -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in {"./etc/os-release": b"ID=x\n", "etc/shadow": b"secret", "etc/passwd": bytes(65537)}.items():
            archive.addfile(info(name, size=len(data)), io.BytesIO(data))
        archive.addfile(info("last"))
    assert [(m.path, m.text) for m in members(buffer.getvalue())] == [
        ("etc/os-release", "ID=x\n"),
        ("etc/shadow", None),
        ("etc/passwd", None),
        ("last", None),
    ]


def pax(record: bytes) -> bytes:
    header = tar([info("x", size=len(record))])
    return patched(header, 156, b"x")[:512] + record.ljust(512, b"\0") + ONE


def test_a_layer_without_padding_is_explained() -> None:
    with pytest.raises(BaseImageError, match="truncated in an entry") as caught:
        read_layer(io.BytesIO(ONE[: 512 + 1]), "layer")
    assert "`umoci insert`" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (tar([info("a/../../etc/passwd")]), "`a/../../etc/passwd`: `..` in a path"),
        (tar([info("..")]), "`..`: `..` in a path"),
        (tar([info("x", "hardlink", linkname="../up")]), "`../up`: `..` in a path"),
        (tar([info("/".join(["d" * 200] * 21))]), "a name of 4220 bytes"),
        (ONE[:700], "truncated in an entry"),
        (ONE[:100], "truncated in a header"),
        (ONE[:200] + b"?" + ONE[201:], "a header with a wrong checksum"),
        (b"?" * 2000, "a header with the number"),
        (ONE[:1536] + bytes(512) + ONE, "a lone zero block"),
        (patched(ONE, 124, b"\xff" * 12), "a negative size"),
        (patched(ONE, 108, b"\xff" * 8), "a negative uid"),
        (patched(ONE, 124, b"0000000009\0"), "a header with the number"),
        (patched(ONE, 156, b"S"), "a sparse file in GNU's old format"),
        (patched(ONE, 156, b"7"), "`etc/file`: an entry of the type b'7', which no engine unpacks"),
        (patched(ONE, 0, b"./" + bytes(98)), "an entry for the root that is no directory"),
        (patched(patched(ONE, 156, b"L"), 124, b"77777777777\0"), "an extended header of 8589934591 bytes"),
        (patched(patched(ONE, 156, b"x"), 124, b"\xff" * 12), "an extended header of -1 bytes"),
        (pax(b"11 path=x"), "a malformed PAX header"),
        (pax(b"4 x\n"), "a malformed PAX header"),
        (pax(b"12 path=a\0b\n"), "`a\\\\x00b`: a NUL in a name"),
        (pax(b"99 path=x\n"), "a malformed PAX header"),
        (pax(b"0 path=x\n"), "a malformed PAX header"),
        (pax(b"path=x\n"), "a malformed PAX header"),
        (pax(b"9 size=x\n"), "a PAX header with `size=x`"),
        (pax(b"11 size=-1\n"), "a negative size"),
        (pax(b"31 size=9999999999999999999999\n"), "a PAX header with `size=9999999999999999999999`"),
    ],
)
def test_malformed_tars_are_refused(data: bytes, why: str) -> None:
    with pytest.raises(BaseImageError) as caught:
        members(data)
    assert caught.value.message.startswith("the layer is not a usable tar archive: ")
    assert why.replace("\\\\", "\\") in caught.value.message


def test_the_smaller_of_two_sizes_does_not_hide_entries() -> None:
    """The size in a PAX header counts, as in Go: a reader of the other one would see different members."""
    hidden = tar([info("hidden")])[:512]
    carrier = info("carrier", size=512)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        carrier.pax_headers = {"size": "512"}
        archive.addfile(carrier, io.BytesIO(hidden))
    data = buffer.getvalue()
    block = next(index for index in range(4) if data[512 * index :].startswith(b"carrier\0"))
    assert paths(patched(data, 124, b"00000000000\0", block)) == ["carrier"]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (ONE[:1536], "it has no end marker"),
        (b"", "it has no end marker"),
        (ONE + ONE, "there is data behind its end marker"),
        (END + b"x", "there is data behind its end marker"),
    ],
)
def test_oddities_are_refused_where_asked_for(data: bytes, why: str) -> None:
    read_layer(io.BytesIO(data), "the layer")
    with pytest.raises(BaseImageError, match=why):
        read_layer(io.BytesIO(data), "the layer", strict=True)


def test_the_diff_id_is_of_all_bytes() -> None:
    data = ONE + bytes(100_000)
    assert read_layer(io.BytesIO(data), "the layer").diff_id == Digest.of(data)


@given(st.binary(max_size=40), st.integers(0, 511), st.booleans())
def test_whatever_comes_is_read_or_refused(noise: bytes, offset: int, sound: bool) -> None:
    data = patched(ONE, offset, noise[: 512 - offset]) if sound else ONE[:offset] + noise + ONE[offset + len(noise) :]
    try:
        found = members(data)
    except BaseImageError:
        return
    assert all(not member.path.startswith("/") and ".." not in member.path.split("/") for member in found)


@given(st.binary(max_size=200))
def test_whatever_was_kept_is_read_or_refused(noise: bytes) -> None:
    with pytest.raises(ValueError):
        decode(noise)


@pytest.mark.parametrize("text", ["[]", '{"format": 2}', '{"format": 1}', '{"format":1,"diffId":"x","members":[]}'])
def test_another_format_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"damaged|another format"):
        decode(gzip.compress(text.encode()))
