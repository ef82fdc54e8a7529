from __future__ import annotations

import gzip
import io
import lzma
import os
import subprocess
import tarfile
import zipfile
from base64 import b64encode
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from ociforge.errors import PackageError
from ociforge.pypi.location import Repository
from ociforge.pypi.sources import check_out, copy_tree, scrubbed, subdirectory, unpack
from tests.pypi.projects import git
from tests.support.tools import need

if TYPE_CHECKING:
    from collections.abc import Iterator

    from layers.digest import Digest

SECRET = "s3cr3t-0f-git"


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def names(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir() or path.is_symlink())


# --- trees


def test_a_copy_has_the_code_and_not_what_lies_about(tmp_path: Path) -> None:
    source = tree(
        tmp_path / "source",
        {
            "pyproject.toml": "",
            "src/demo/__init__.py": "",
            "src/demo/data.txt": "",
            "build/notes.txt": "",
            ".gitignore": "",
            # what lies about
            ".pixi/envs/default/bin/python": "",
            "src/demo/__pycache__/a.pyc": "",
            "env/pyvenv.cfg": "",
            "env/bin/python": "",
            "conda/conda-meta/history": "",
            ".mypy_cache/CACHEDIR.TAG": "",
            "build/lib/demo/old.py": "",
            "build/lib.linux-x86_64-cpython-312/demo/old.so": "",
            "build/bdist.linux-x86_64/x": "",
            "demo.egg-info/SOURCES.txt": "",
            "src/demo.egg-info/SOURCES.txt": "",
        },
    )
    copy_tree(source, tmp_path / "copy")
    assert names(tmp_path / "copy") == [
        ".gitignore",
        "build/notes.txt",
        "pyproject.toml",
        "src/demo/__init__.py",
        "src/demo/data.txt",
    ]


def test_modes_are_settled_and_digests_see_every_change(tmp_path: Path) -> None:
    source = tree(tmp_path / "source", {"a": "1", "b/c": "2"})
    (source / "a").chmod(0o600)
    digests: list[Digest] = []

    def look() -> None:
        digests.append(copy_tree(source, tmp_path / f"copy-{len(digests)}"))

    look()
    (source / "a").chmod(0o644)
    os.utime(source / "a", (1, 1))
    look()
    assert digests[0] == digests[1]
    (source / "a").chmod(0o700)
    look()
    (source / "a").write_text("3")
    look()
    (source / "b" / "c").rename(source / "b" / "d")
    look()
    (source / "empty").mkdir()
    look()
    (source / "link").symlink_to("a")
    look()
    assert len(set(digests)) == len(digests) - 1
    assert oct((tmp_path / "copy-2" / "a").stat().st_mode)[-3:] == "755"
    assert oct((tmp_path / "copy-0" / "a").stat().st_mode)[-3:] == "644"


def test_links_lead_where_they_led(tmp_path: Path) -> None:
    source = tree(tmp_path / "source", {"a": "inside", "b/c": ""})
    tree(tmp_path, {"outside": "one"})
    (source / "b" / "in").symlink_to("../a")
    (source / "out").symlink_to("../outside")
    (source / "absolute").symlink_to(tmp_path / "outside")
    (source / "loop").symlink_to(".")
    (source / "dangling").symlink_to("nowhere")
    first = copy_tree(source, tmp_path / "deep" / "er")
    copy = tmp_path / "deep" / "er"
    assert (copy / "b" / "in").readlink() == Path("../a")
    assert (copy / "out").read_text() == "one"
    assert (copy / "absolute").read_text() == "one"
    assert (copy / "loop").readlink() == Path()
    assert (copy / "dangling").is_symlink()
    (tmp_path / "outside").write_text("another")
    assert copy_tree(source, tmp_path / "again") != first


def test_a_directory_outside_is_part_of_the_digest(tmp_path: Path) -> None:
    source = tree(tmp_path / "source", {"a": ""})
    outside = tree(tmp_path / "outside", {"x/y": "1", ".git/z": "1"})
    (outside / "x" / "circle").symlink_to("..")
    tree(tmp_path, {"far/z": "1"})
    (outside / "on").symlink_to("../far")
    (source / "link").symlink_to("../outside")
    digests = [copy_tree(source, tmp_path / "copies" / "0")]
    for name in ("outside/.git/z", "outside/x/y", "far/z", "outside/x/new"):
        (tmp_path / name).write_text("2")
        digests.append(copy_tree(source, tmp_path / "copies" / str(len(digests))))
    assert digests[0] == digests[1]
    assert len(set(digests)) == 4


@pytest.mark.parametrize("target", ["..", "/", "../beside"])
def test_a_link_to_what_the_tree_is_in_is_refused(target: str, tmp_path: Path) -> None:
    source = tree(tmp_path / "source", {"a": ""})
    (tmp_path / "beside").symlink_to(".")
    (source / "link").symlink_to(target)
    with pytest.raises(PackageError, match="a directory that it is in itself"):
        copy_tree(source, tmp_path / "copy")


def test_a_bottomless_tree_is_refused(tmp_path: Path) -> None:
    place = Path.cwd()
    os.chdir(tmp_path)
    try:
        for _ in range(1200):
            Path("d").mkdir()
            os.chdir("d")
        os.chdir(tmp_path)
        with pytest.raises(PackageError, match="more than 200 directories in each other"):
            copy_tree(tmp_path / "d", tmp_path / "copy")
    finally:
        os.chdir(place)
        subprocess.run(["rm", "-r", tmp_path / "d"], check=True)  # Python's own way has no end for it


@pytest.mark.parametrize("content", [b"\xff\x00\x01", b"gitdir: \0a", b"gitdir: loop", b"text", None])
def test_a_broken_reference_to_a_repository_is_none(content: bytes | None, tmp_path: Path) -> None:
    source = tree(tmp_path / "source", {"a": ""})
    (source / "loop").symlink_to("loop")
    if content is None:
        (source / ".git").symlink_to(".git")
    else:
        (source / ".git").write_bytes(content)
    copy_tree(source, tmp_path / "copy")
    assert not (tmp_path / "copy" / ".git").exists()


def test_a_copy_knows_the_repository_and_leaves_it_alone(tmp_path: Path) -> None:
    need("git")
    source = tree(tmp_path / "source", {"a": "1"})
    git(source, "init", "--quiet")
    git(source, "add", ".")
    git(source, "commit", "--quiet", "--message", "one")
    before = {path: path.stat().st_mtime_ns for path in (source / ".git").rglob("*")}
    digests = [copy_tree(source, tmp_path / "copy")]
    assert git(tmp_path / "copy", "log", "--format=%s").strip() == "one"
    assert git(tmp_path / "copy", "status", "--porcelain", GIT_OPTIONAL_LOCKS="0") == ""
    assert before == {path: path.stat().st_mtime_ns for path in (source / ".git").rglob("*")}
    git(source, "tag", "v1")
    digests.append(copy_tree(source, tmp_path / "tagged"))
    git(source, "commit", "--quiet", "--allow-empty", "--message", "two")
    digests.append(copy_tree(source, tmp_path / "moved"))
    assert len(set(digests)) == 3
    git(source, "worktree", "add", "--quiet", str(tmp_path / "worktree"))
    copy_tree(tmp_path / "worktree", tmp_path / "of-worktree")
    assert git(tmp_path / "of-worktree", "log", "-1", "--format=%s").strip() == "two"


# --- source distributions


def tarball(path: Path, *members: tuple[str, bytes] | tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                archive.addfile(info, io.BytesIO(member[1]))
    return path


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = target
    return info


def test_source_distributions_are_unpacked(tmp_path: Path) -> None:
    packed = tarball(tmp_path / "demo-1.0.tar.gz", ("demo-1.0/pyproject.toml", b""), ("demo-1.0/a/b.py", b""))
    root = unpack(packed, packed.name, tmp_path / "one")
    assert (root.name, names(root)) == ("demo-1.0", ["a/b.py", "pyproject.toml"])
    zipped = tmp_path / "demo-1.0.zip"
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("demo-1.0/setup.py", "")
    assert names(unpack(zipped, zipped.name, tmp_path / "two")) == ["setup.py"]


@pytest.mark.parametrize(
    "members",
    [
        [("../evil", b"")],
        [("demo-1.0/../../evil", b"")],
        [special("demo-1.0/link", tarfile.SYMTYPE, "/etc"), ("demo-1.0/link/evil", b"")],
        [special("demo-1.0/link", tarfile.SYMTYPE, "../../..")],
        [special("demo-1.0/link", tarfile.LNKTYPE, "../../evil")],
        [special("demo-1.0/device", tarfile.CHRTYPE)],
        [special("demo-1.0/pipe", tarfile.FIFOTYPE)],
    ],
)
def test_members_that_lead_out_are_refused(members: list[tuple[str, bytes] | tarfile.TarInfo], tmp_path: Path) -> None:
    packed = tarball(tmp_path / "demo-1.0.tar.gz", *members)
    with pytest.raises(PackageError, match=r"`demo-1\.0\.tar\.gz` cannot be unpacked: "):
        unpack(packed, packed.name, tmp_path / "deep" / "er")
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("content", [b"", b"text", b"\x1f\x8b\x08\0\0\0\0\0"])
def test_what_is_no_archive_is_refused(content: bytes, tmp_path: Path) -> None:
    for name in ("demo-1.0.tar.gz", "demo-1.0.zip"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(PackageError, match="cannot be unpacked"):
            unpack(tmp_path / name, name, tmp_path / name.replace(".", "-"))


def test_damaged_lzma_is_refused(tmp_path: Path) -> None:
    packed = tarball(tmp_path / "plain.tar.gz", ("demo-1.0/a", os.urandom(1 << 16)))
    content = lzma.compress(gzip.decompress(packed.read_bytes()))
    (tmp_path / "demo-1.0.tar.xz").write_bytes(content[:5000] + bytes(50) + content[5050:])
    with zipfile.ZipFile(tmp_path / "demo-1.0.zip", "w", zipfile.ZIP_LZMA) as zipped:
        zipped.writestr("demo-1.0/a", "text" * 1000)
    damaged = bytearray((tmp_path / "demo-1.0.zip").read_bytes())
    damaged[30 + len("demo-1.0/a") + 4] = 0xFF  # the properties, after the version and their length
    (tmp_path / "demo-1.0.zip").write_bytes(damaged)
    for name in ("demo-1.0.tar.xz", "demo-1.0.zip"):
        with pytest.raises(PackageError, match="cannot be unpacked"):
            unpack(tmp_path / name, name, tmp_path / name.replace(".", "-"))


def test_there_is_one_top_level_directory(tmp_path: Path) -> None:
    packed = tarball(tmp_path / "demo-1.0.tar.gz", ("a/x", b""), ("b/x", b""))
    with pytest.raises(PackageError, match="does not have exactly one top-level directory"):
        unpack(packed, packed.name, tmp_path / "target")


def test_a_subdirectory_is_inside(tmp_path: Path) -> None:
    root = tree(tmp_path / "root", {"a/b/c": ""})
    (root / "out").symlink_to(tmp_path)
    assert subdirectory(root, "", "x") == root
    assert subdirectory(root, "a/b/", "x") == root / "a" / "b"
    for wrong in ("..", "a/../..", "/", "missing", "a/b/c", "out"):
        with pytest.raises(PackageError, match="x has no subdirectory"):
            subdirectory(root, wrong, "x")


# --- repositories


def test_a_commit_is_checked_out_with_tags_and_submodules(tmp_path: Path) -> None:
    need("git")
    part = tree(tmp_path / "part", {"part.txt": ""})
    whole = tree(tmp_path / "whole", {"a": "old"})
    for directory in (part, whole):
        git(directory, "init", "--quiet")
        git(directory, "add", ".")
        git(directory, "commit", "--quiet", "--message", "one")
    git(whole, "submodule", "--quiet", "add", part.as_uri(), "sub")
    git(whole, "commit", "--quiet", "--all", "--message", "two")
    git(whole, "tag", "v1.0")
    commit = git(whole, "rev-parse", "HEAD").strip()
    tree(whole, {"a": "new"})
    git(whole, "commit", "--quiet", "--all", "--message", "three")
    repository = Repository(url=whole.as_uri(), commit=commit)
    environ = {"PATH": os.environ["PATH"], "GIT_DIR": "/nowhere"}
    check_out(repository, tmp_path / "target", environ)
    assert (tmp_path / "target" / "a").read_text() == "old"
    assert (tmp_path / "target" / "sub" / "part.txt").exists()
    assert git(tmp_path / "target", "describe", "--tags").strip() == "v1.0"


class _Guarded(SimpleHTTPRequestHandler):
    """Serves repositories to one user, and looks at what all processes are called with while they ask."""

    server: _Guards

    def do_GET(self) -> None:
        told = {path for path in Path("/proc").glob("[0-9]*/cmdline") if SECRET.encode() in _content(path)}
        self.server.told |= told
        name, password = self.server.account
        expected = b64encode(f"{name}:{password}".encode()).decode()
        if self.headers.get("Authorization") != f"Basic {expected}":
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="git"')
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            super().do_GET()

    def log_message(self, format: str, *args: object) -> None:
        return None


class _Guards(ThreadingHTTPServer):
    account = ("user", "")
    told: set[Path]


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # a process that is gone
        return b""


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[_Guards]:
    """`whole.git` with the submodule `../part.git`, where git reads files."""
    need("git")
    served = tmp_path / "served"
    for name in ("part", "whole"):
        git(tree(tmp_path / name, {f"{name}.txt": ""}), "init", "--quiet")
        if name == "whole":
            git(tmp_path / name, "submodule", "--quiet", "add", (served / "part.git").as_uri(), "sub")
            git(tmp_path / name, "config", "--file", ".gitmodules", "submodule.sub.url", "../part.git")
        git(tmp_path / name, "add", ".")
        git(tmp_path / name, "commit", "--quiet", "--message", "one")
        git(tmp_path, "clone", "--quiet", "--bare", str(tmp_path / name), str(served / f"{name}.git"))
        git(served / f"{name}.git", "update-server-info")
    server = _Guards(("127.0.0.1", 0), partial(_Guarded, directory=str(served)))
    server.told = set()
    with server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("password", [SECRET, f"{SECRET} @:/'\"\\ü", ""])
def test_credentials_are_in_no_process_list(tmp_path: Path, guarded: _Guards, password: str) -> None:
    """Nor does the code that is checked out find them, nor does git hand them to the user's own helpers."""
    (tmp_path / "gitconfig").write_text(
        f'[credential]\n\tuseHttpPath = true\n\thelper = "!cat >> {tmp_path}/helped; echo password=wrong"\n'
    )
    environ = {**os.environ, "GIT_CONFIG_GLOBAL": str(tmp_path / "gitconfig")}
    guarded.account = ("user" if password else SECRET, password)
    account = f"{quote(guarded.account[0])}:{quote(password, safe='')}"
    url = f"http://{account}@127.0.0.1:{guarded.server_port}/whole.git"
    commit = git(tmp_path / "whole", "rev-parse", "HEAD").strip()
    target = tmp_path / "tar 'get"
    check_out(Repository(url=url, commit=commit), target, environ)
    assert (target / "sub" / "part.txt").exists()
    assert guarded.told == set()
    assert not [path for path in target.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]
    assert not (tmp_path / "helped").exists()


def test_a_user_without_a_password_is_known_to_helpers(tmp_path: Path, guarded: _Guards) -> None:
    (tmp_path / "gitconfig").write_text(
        f'[credential]\n\thelper = "!cat >> {tmp_path}/asked; echo password=known; :"\n'
    )
    environ = {**os.environ, "GIT_CONFIG_GLOBAL": str(tmp_path / "gitconfig")}
    guarded.account = (SECRET, "known")
    url = f"http://{SECRET}@127.0.0.1:{guarded.server_port}/whole.git"
    commit = git(tmp_path / "whole", "rev-parse", "HEAD").strip()
    check_out(Repository(url=url, commit=commit), tmp_path / "target", environ)
    assert f"username={SECRET}\n" in (tmp_path / "asked").read_text()
    assert guarded.told == set()


def test_a_missing_commit_is_told_without_credentials(tmp_path: Path) -> None:
    need("git")
    source = tree(tmp_path / "source", {"a": ""})
    git(source, "init", "--quiet")
    git(source, "add", ".")
    git(source, "commit", "--quiet", "--message", "one")
    with pytest.raises(PackageError) as caught:
        check_out(Repository(url=source.as_uri(), commit="0" * 40), tmp_path / "target", os.environ)
    assert caught.value.message.startswith(f"git repository `{source.as_uri()}`, commit `{'0' * 40}`: `git fetch` fail")
    with pytest.raises(PackageError) as caught:
        check_out(
            Repository(url="http://user:secret@127.0.0.1:1/a.git", commit="0" * 40), tmp_path / "other", os.environ
        )
    assert "secret" not in caught.value.message
    assert "`http://127.0.0.1:1/a.git`" in caught.value.message


def test_a_machine_without_git_is_told(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match="there is no `git` on this machine"):
        check_out(
            Repository(url="https://example.com/a.git", commit="0" * 40), tmp_path / "target", {"PATH": "/nowhere"}
        )


def test_words_of_other_programs_are_cut_and_cleaned() -> None:
    lines = [f"line {number}" for number in range(40)]
    assert scrubbed("\n\n".join(lines)) == "\n".join(lines[-20:])
    assert scrubbed(b"\x1b[31mfetching https://user:secret@host/a 'ssh://git@host'\xff") == (
        "[31mfetching https://host/a 'ssh://host'�"
    )
    assert scrubbed(None) == ""
