"""Tar members, byte by byte and as others read them."""

from __future__ import annotations

import errno
import io
import tarfile
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from layers import (
    END,
    Bytes,
    Directory,
    Entry,
    EntryError,
    File,
    FileContent,
    Hardlink,
    Segment,
    Symlink,
    arrange,
    header,
    members,
)
from tests.layers.trees import fixture, generated, trees

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO


def packed(segments: list[Segment]) -> bytes:
    arrangement = arrange(segments)
    return b"".join(members(arrangement.entries(), arrangement.metadata)) + END


def alone(*entries: Entry) -> Iterator[bytes]:
    """The members of `entries`, none of which is a hard link to another."""
    return members(entries, lambda path: None)


def opened(data: bytes) -> tarfile.TarFile:
    return tarfile.open(fileobj=io.BytesIO(data), mode="r:", encoding="utf-8", errors="strict")


def read(data: bytes) -> tarfile.TarInfo:
    """The one member that `data`, a header without content, announces."""
    with opened(data) as archive:
        member = archive.next()
    assert member is not None
    return member


def test_a_header_byte_by_byte() -> None:
    data = header(File(path="opt/x", size=3, content=Bytes(b"abc"), mode=0o644, uid=1, gid=2, mtime=8))
    assert len(data) == 512
    assert data[:100] == b"opt/x".ljust(100, b"\0")
    assert data[100:148] == b"0000644\x000000001\x000000002\x0000000000003\x0000000000010\0"
    assert data[148:156] == b"%06o\0 " % (sum(data[:148]) + sum(data[156:]) + 8 * ord(" "))
    assert data[156:157] == b"0"
    assert data[157:257] == bytes(100)
    assert data[257:265] == b"ustar\x0000"
    assert data[265:] == bytes(247), "owner names, device numbers and prefix stay empty"


def test_a_pax_header_byte_by_byte() -> None:
    data = header(Directory(path="opt/ü", mtime=1))
    assert data[:100] == b"PaxHeaders/?".ljust(100, b"\0")
    assert data[100:148] == b"0000644\x000000000\x000000000\x0000000000020\x0000000000000\0"
    assert data[156:157] == b"x"
    assert data[512:1024] == "16 path=opt/ü/\n".encode().ljust(512, b"\0")
    assert data[1024:1124] == b"opt/?/".ljust(100, b"\0")
    assert data[1024 + 156 : 1024 + 157] == b"5"
    assert len(data) == 1536


@pytest.mark.parametrize("length", [*range(1, 12), *range(85, 105), *range(984, 1000)])
def test_the_length_of_a_pax_record_counts_its_own_digits(length: int) -> None:
    value = "x" * length
    data = header(Symlink(path="l", target=f"ü{value}"))
    record = data[512:].partition(b"\n")[0] + b"\n"
    assert record == f"{len(record)} linkpath=ü{value}\n".encode()


def test_types_and_metadata_of_every_kind() -> None:
    file = generated("bin/a", b"abc", mode=0o4755, uid=7, gid=8, mtime=9)
    found = [
        read(header(Directory(path="d", mode=0o1777, uid=1, gid=2, mtime=3))),
        read(header(file)),
        read(header(Symlink(path="l", target="../t", uid=4, gid=5, mtime=6))),
        read(header(Hardlink(path="h", target="bin/a"), file.metadata)),
    ]
    assert [(m.type, m.name, m.linkname, m.mode, m.uid, m.gid, m.size, m.mtime) for m in found] == [
        (b"5", "d", "", 0o1777, 1, 2, 0, 3),
        (b"0", "bin/a", "", 0o4755, 7, 8, 3, 9),
        (b"2", "l", "../t", 0o777, 4, 5, 0, 6),
        (b"1", "h", "bin/a", 0o4755, 7, 8, 0, 9),
    ]


_simple = st.text("abc-_.", min_size=1, max_size=90).filter(lambda name: name not in {".", ".."})


@given(
    st.lists(_simple, min_size=1, max_size=4).map("/".join),
    st.integers(0, 0o7777),
    st.integers(0, 0o7777777),
    st.integers(0, (8 << 30) - 1),
    st.booleans(),
)
def test_headers_that_fit_are_those_that_tarfile_writes(
    path: str, mode: int, number: int, large: int, directory: bool
) -> None:
    info = tarfile.TarInfo(path)
    info.mode, info.uid, info.gid, info.mtime = mode, number, number, large
    if directory:
        info.type = tarfile.DIRTYPE
        entry: Entry = Directory(path=path, mode=mode, uid=number, gid=number, mtime=large)
    else:
        info.size = large
        entry = File(path=path, size=large, content=Bytes(b""), mode=mode, uid=number, gid=number, mtime=large)
    try:
        expected = info.tobuf(tarfile.USTAR_FORMAT, "utf-8", "strict")
    except ValueError:  # too long for USTAR
        assert header(entry)[156:157] == b"x"
    else:
        assert header(entry) == expected


@pytest.mark.parametrize(
    ("path", "extended"),
    [
        ("n" * 100, False),
        ("n" * 101, True),
        ("p" * 155 + "/" + "n" * 100, False),
        ("p" * 156 + "/" + "n" * 100, True),
        ("p" * 155 + "/" + "n" * 101, True),
        ("/".join(["dir"] * 80), True),
        ("p" * 90 + "/" + "q" * 64 + "/" + "n" * 100, False),
    ],
)
def test_long_names(path: str, extended: bool) -> None:
    data = header(generated(path, b""))
    assert (data[156:157] == b"x") is extended
    assert read(data).name == path


@pytest.mark.parametrize(("length", "extended"), [(99, False), (100, True)])
def test_the_slash_of_a_directory_counts(length: int, extended: bool) -> None:
    data = header(Directory(path="d" * length))
    assert (data[156:157] == b"x") is extended
    assert read(data).name == "d" * length
    assert read(data).isdir()


def test_a_cut_name_never_looks_like_a_directory() -> None:
    """Old readers take a trailing slash for one."""
    path = "a" * 98 + "/" + "b" * 200
    assert header(generated(path, b""))[1024:1124] == (b"a" * 98).ljust(100, b"\0")


@pytest.mark.parametrize(("length", "extended"), [(100, False), (101, True), (300, True)])
def test_long_link_targets(length: int, extended: bool) -> None:
    target = "t" * length
    for data in (
        header(Symlink(path="l", target=target)),
        header(Hardlink(path="l", target=target), generated(target, b"").metadata),
    ):
        assert (data[156:157] == b"x") is extended
        assert read(data).linkname == target


def test_names_are_utf_8() -> None:
    assert read(header(generated("opt/ñ/😀", b""))).name == "opt/ñ/😀"
    assert read(header(Symlink(path="l", target="ñ"))).linkname == "ñ"


@pytest.mark.parametrize(
    ("field", "largest"), [("uid", 2_097_151), ("gid", 2_097_151), ("size", (8 << 30) - 1), ("mtime", (1 << 33) - 1)]
)
def test_large_numbers(field: str, largest: int) -> None:
    for value, extended in ((largest, False), (largest + 1, True)):
        data = header(replace(generated("big", b""), **{field: value}))  # a field of integers
        assert (data[156:157] == b"x") is extended
        assert getattr(read(data), field) == value
        assert (f" {field}=".encode() in data) is extended


def test_capabilities_are_repeated_on_hard_links() -> None:
    """Engines change the owner of the shared inode when they make the link, which drops its capabilities."""
    value = b"\1\0\0\2\0\4\0\0=\n" + bytes(10)
    file = generated("f", b"", xattrs=(("security.capability", value),))
    record = b"57 SCHILY.xattr.security.capability=" + value + b"\n"
    assert len(record) == 57
    for data in (header(file), header(Hardlink(path="l", target="f"), file.metadata)):
        assert data[512:1024] == record.ljust(512, b"\0")
        assert list(read(data).pax_headers) == ["SCHILY.xattr.security.capability"]


def test_pax_records_are_sorted() -> None:
    file = generated("ü" * 90, b"", uid=1 << 30, gid=1 << 30, mtime=1 << 40, xattrs=(("security.capability", b"x"),))
    assert list(read(header(file)).pax_headers) == ["SCHILY.xattr.security.capability", "gid", "mtime", "path", "uid"]


def test_a_hard_link_follows_its_file() -> None:
    with pytest.raises(EntryError, match="`l`: is a hard link to `f`, which does not come before it"):
        list(alone(Hardlink(path="l", target="f"), generated("f", b"")))


@given(trees())
def test_tarfile_reads_back_what_was_put_in(segments: list[Segment]) -> None:
    files = {entry.path: entry for segment in segments for entry in segment.entries if isinstance(entry, File)}
    expected = {}
    for segment in segments:
        for entry in segment.entries:
            if isinstance(entry, Hardlink):
                entry = replace(files[entry.target], path=entry.path)
            mode = 0o777 if isinstance(entry, Symlink) else entry.mode
            what = entry.content.open().read() if isinstance(entry, File) else getattr(entry, "target", None)
            expected[entry.path] = (mode, entry.uid, entry.gid, entry.mtime, what)
    found = {}
    with opened(packed(segments)) as archive:
        for member in archive:
            content = archive.extractfile(member) if member.isfile() or member.islnk() else None
            what = member.linkname if member.issym() else content and content.read()
            found[member.name] = (member.mode, member.uid, member.gid, member.mtime, what)
    assert found == expected


@given(trees())
def test_tars_are_whole_blocks_and_end_in_exactly_two_empty_ones(segments: list[Segment]) -> None:
    data = packed(segments)
    with opened(data) as archive:
        end = max((m.offset_data + -(-m.size // 512) * 512 for m in archive), default=0)
    assert len(data) == end + 1024
    assert data[end:] == END == bytes(1024)


def test_no_type_flag_but_these() -> None:
    data = packed(fixture())
    flags = set()
    offset = 0
    while data[offset : offset + 512] != bytes(512):
        flags.add(data[offset + 156 : offset + 157])
        offset += 512 + -(-int(data[offset + 124 : offset + 135], 8) // 512) * 512
    assert flags == {b"0", b"1", b"2", b"5", b"x"}


def test_content_is_padded_with_zeros() -> None:
    for size in (0, 1, 511, 512, 513, (1 << 20) - 1, 1 << 20, (1 << 20) + 1):
        content = b"x" * size
        data = b"".join(alone(generated("f", content)))
        assert data[512:] == content + bytes(-size % 512)


def test_chunks_are_small(tmp_path: Path) -> None:
    path = tmp_path / "big"
    path.write_bytes(bytes(5 << 20))
    chunks = alone(File(path="big", size=5 << 20, content=FileContent(path)))
    assert max(map(len, chunks)) <= 1 << 20


class Trickle:
    """Content whose stream gives a few bytes at a time, as pipes and sockets may."""

    def open(self) -> BinaryIO:
        class Slow(io.BytesIO):
            def read(self, size: int | None = -1, /) -> bytes:
                return super().read(min(3, size or 0))

        return Slow(b"slowly but surely")


def test_short_reads_are_no_end() -> None:
    data = b"".join(alone(File(path="f", size=17, content=Trickle())))
    assert data[512:529] == b"slowly but surely"


@pytest.mark.parametrize("size", [5, 2 << 20])
def test_files_have_the_size_announced(size: int) -> None:
    content = Bytes(b"x" * size)
    with pytest.raises(EntryError) as shorter:
        list(alone(File(path="a/f", size=size + 1, content=content)))
    assert str(shorter.value) == f"`a/f`: has {size} bytes, not the {size + 1} announced"
    with pytest.raises(EntryError) as longer:
        list(alone(File(path="a/f", size=size - 1, content=content)))
    assert str(longer.value) == f"`a/f`: has more than the {size - 1} bytes announced"
    assert longer.value.path == "a/f"


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    def reason(path: Path) -> str:
        with pytest.raises(EntryError) as caught:
            list(alone(File(path="opt/f", size=1, content=FileContent(path))))
        return str(caught.value)

    (tmp_path / "link").symlink_to("target")
    (tmp_path / "target").write_bytes(b"x")
    assert reason(tmp_path / "gone") == "`opt/f`: cannot be read: No such file or directory"
    assert reason(tmp_path) == "`opt/f`: cannot be read: Is a directory"
    assert reason(tmp_path / "link") == "`opt/f`: cannot be read: Too many levels of symbolic links"


def test_an_error_in_the_middle_is_named_and_the_stream_closed() -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise OSError(errno.EIO, "Input/output error")

    class Content:
        stream = Broken()

        def open(self) -> BinaryIO:
            return self.stream

    with pytest.raises(EntryError, match="`f`: cannot be read: Input/output error"):
        list(alone(File(path="f", size=1, content=Content())))
    assert Content.stream.closed


def test_contents_are_opened_one_at_a_time(tmp_path: Path) -> None:
    opened_now: list[BinaryIO] = []

    class Content:
        def open(self) -> BinaryIO:
            assert not [stream for stream in opened_now if not stream.closed]
            opened_now.append(io.BytesIO(b"x"))
            return opened_now[-1]

    list(alone(*(File(path=f"f{n}", size=1, content=Content()) for n in range(5))))
    assert len(opened_now) == 5
    assert all(stream.closed for stream in opened_now)
