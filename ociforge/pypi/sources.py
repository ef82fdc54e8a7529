"""Source code to build wheels from: copies of trees, unpacked source distributions, checked-out commits.

A build gets a copy, never the workspace itself: backends leave files behind, and what they leave gets into the next
build.
"""

from __future__ import annotations

import lzma
import os
import re
import shlex
import shutil
import subprocess
import tarfile
import zipfile
import zlib
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit, urlunsplit

from layers.digest import Digest, DigestWriter
from ociforge.errors import OfflineError, PackageError
from ociforge.url_secrets import redacted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ociforge.pypi.location import Repository

__all__ = ["GIT_TRUST", "check_out", "copy_tree", "scrubbed", "subdirectory", "unpack"]

# The code of the tree is about to be run, so whom its repository belongs to does not matter; nothing is written to it.
GIT_TRUST = {
    "GIT_CONFIG_COUNT": "1",
    "GIT_CONFIG_KEY_0": "safe.directory",
    "GIT_CONFIG_VALUE_0": "*",
    "GIT_OPTIONAL_LOCKS": "0",
}

_READ_SIZE = 1 << 20  # 1 MiB
_DEEPEST = 200  # directories one in another; no source code is, and recursion has an end
_SHOWN = 20  # lines of another program's words
# What tools keep beside the code and no wheel is made of.
_LEFT_OUT = frozenset(
    {".git", ".hg", ".svn", ".pixi", "__pycache__", "node_modules", ".tox", ".nox", ".venv", ".DS_Store"}
)
# Marks of directories that are environments or caches (bford.info/cachedir).
_MARKS = ("pyvenv.cfg", "CACHEDIR.TAG", "conda-meta/history")
# What earlier builds in place leave, and setuptools would take up again.
_STALE = re.compile(r"build/(lib|temp|bdist|scripts)[^/]*|(src/)?[^/]+\.egg-info", re.ASCII)
# What a git hook that runs us says of its own repository.
_ELSEWHERE = frozenset(
    {"GIT_COMMON_DIR", "GIT_DIR", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_PREFIX", "GIT_WORK_TREE"}
)
_ACCESS = ".git/ociforge-access"  # what of git's configuration is for the time of fetching only
_PROTOCOLS = "https:http:ssh:git:file"  # of git, without those that run other programs
_BROKEN = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, ValueError, RuntimeError)
_CREDENTIALS = re.compile(r"(?<=://)[^/@\s'\"]+@")


def copy_tree(root: Path, target: Path) -> Digest:
    """Copy the source tree `root` to `target` (which must not exist); returns a digest of all that was copied.

    Modes are 0755 and 0644. Left out are version control, environments, caches and what earlier builds left. Symbolic
    links lead where they led. The copy of a git working tree refers to the repository, from which many backends take
    the version. The digest covers what links out of the tree lead to; a link to a directory that the tree is in is
    refused.
    Raises PackageError.
    """
    summary = DigestWriter()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _copy_directory(root, root, target, summary)
        _refer_to_repository(root, target, summary)
    except OSError as error:
        raise PackageError(f"cannot copy the source tree `{root}`: {error.filename}: {error.strerror}") from error
    return summary.digest()


def unpack(archive: Path, filename: str, target: Path) -> Path:
    """Unpack a source distribution into the directory `target`; returns its one top-level directory.

    Members that lead out, devices and the like are refused. Raises PackageError.
    """
    try:
        target.mkdir(parents=True)
        if filename.endswith(".zip"):
            with zipfile.ZipFile(archive) as members:
                members.extractall(target)  # drops `..` and leading slashes
        else:
            with tarfile.open(archive) as members_of_tar:
                members_of_tar.extractall(target, filter="data")
        tops = sorted(target.iterdir())
    except (*_BROKEN, OSError) as error:
        raise PackageError(f"`{filename}` cannot be unpacked: {error}", "the source distribution is broken") from error
    if len(tops) != 1 or not tops[0].is_dir():
        raise PackageError(f"`{filename}` does not have exactly one top-level directory")
    return tops[0]


def subdirectory(root: Path, relative: str, what: str) -> Path:
    """The directory of the project in `root`; `what` is named in the PackageError for one that is not there."""
    place = Path(os.path.normpath(root / relative))
    if not place.is_relative_to(root) or not place.resolve().is_relative_to(root.resolve()) or not place.is_dir():
        raise PackageError(f"{what} has no subdirectory `{relative}`")
    return place


def check_out(repository: Repository, target: Path, environ: Mapping[str, str], *, offline: bool = False) -> None:
    """Clone into the directory `target` and check out the commit, submodules included.

    `environ` is git's environment, for credential helpers and proxies; nothing is ever asked on a terminal. All
    branches and tags are fetched: versions are made of them. `offline`: only repositories on this machine are read,
    and OfflineError is raised for others. Raises PackageError.
    """
    if offline and (repository.lfs or not repository.url.startswith("file:")):
        raise OfflineError(
            f"the commit `{repository.commit}` of `{redacted(repository.url)}` is not in the store, nor a wheel of it",
            "fetch it where there is a network: `ociforge fetch`",
        )
    git = _Git(repository, target, environ, protocols="file" if offline else _PROTOCOLS)
    target.mkdir(parents=True)
    git.run("init", "--quiet", "--template=", ".")
    with _remote(repository.url, target / ".git"):
        git.run("fetch", "--quiet", "origin", "+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*")
        if not git.succeeds("cat-file", "-e", f"{repository.commit}^{{commit}}"):
            git.run("fetch", "--quiet", "origin", repository.commit)
        git.run("checkout", "--quiet", "--detach", repository.commit)
        git.run("submodule", "--quiet", "update", "--init", "--recursive")


def scrubbed(output: bytes | str | None) -> str:
    """The last lines of another program's output, without credentials and control characters."""
    text = output.decode(errors="replace") if isinstance(output, bytes) else output or ""
    lines = ["".join(c for c in line if c.isprintable()) for line in text.splitlines() if line.strip()]
    return _CREDENTIALS.sub("", "\n".join(lines[-_SHOWN:]))


class _Git:
    def __init__(self, repository: Repository, directory: Path, environ: Mapping[str, str], *, protocols: str) -> None:
        self._repository = repository
        self._directory = directory
        self._environ = {
            **{name: value for name, value in environ.items() if name not in _ELSEWHERE},
            "GIT_ALLOW_PROTOCOL": protocols,
            "GIT_LFS_SKIP_SMUDGE": "0" if repository.lfs else "1",
            "GIT_TERMINAL_PROMPT": "0",
            "LC_ALL": "C.UTF-8",
        }

    def run(self, *arguments: str) -> None:
        done = self._call(*arguments)
        if done.returncode:
            raise PackageError(
                f"git repository `{redacted(self._repository.url)}`, commit `{self._repository.commit}`:"
                f" `git {arguments[0]}` failed\n{scrubbed(done.stdout)}",
                "check that the repository can be reached and still has the commit",
            )

    def succeeds(self, *arguments: str) -> bool:
        return self._call(*arguments).returncode == 0

    def _call(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        # The last is for submodules too, whose own configuration is elsewhere; git minds no file that is not there.
        settings = (
            "core.autocrlf=false",
            "advice.detachedHead=false",
            f"include.path={self._directory.absolute() / _ACCESS}",
        )
        command = ["git", *(word for setting in settings for word in ("-c", setting)), *arguments]
        try:
            return subprocess.run(
                command,
                cwd=self._directory,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                check=False,
            )
        except FileNotFoundError as error:
            raise PackageError(
                f"`{redacted(self._repository.url)}` is a git repository, and there is no `git` on this machine",
                "install git",
            ) from error


@contextmanager
def _remote(url: str, directory: Path) -> Iterator[None]:
    """Let a repository fetch from `url` while the context lasts.

    Git hands the URL of a remote to another program as an argument, which every user of the machine can read. So user
    and password are not in it but in a file, as git-credential-store(1) has them, for all of the host: relative URLs of
    submodules lead there. The code that is checked out does not get to see them.
    """
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    hidden = bool(at) and parts.scheme in ("http", "https")
    plain = urlunsplit(parts._replace(netloc=host)) if hidden else url
    with (directory / "config").open("a", encoding="utf-8") as config:
        config.write(f'[remote "origin"]\n\turl = "{_quoted(plain)}"\n')
    access, secrets = directory.parent / _ACCESS, directory / "ociforge-credentials"
    try:
        if hidden:
            secrets.touch(mode=0o600)
            secrets.write_text(f"{parts.scheme}://{user.replace('@', '%40')}@{host}\n", encoding="utf-8")
            access.touch(mode=0o600)
            access.write_text(_access(f"{parts.scheme}://{host}", user, secrets), encoding="utf-8")
        yield
    finally:
        for path in (access, secrets):
            path.unlink(missing_ok=True)


def _access(host: str, user: str, secrets: Path) -> str:
    """Git's configuration for a host: its user, of whom helpers know the password, or the file that has both."""
    name, colon, _ = user.partition(":")
    if colon:
        helper = f"store --file={shlex.quote(str(secrets.absolute()))}"
        lines = ["helper =", f'helper = "{_quoted(helper)}"', "useHttpPath = false"]  # in the place of other helpers
    else:
        lines = [f'username = "{_quoted(unquote(name))}"']
    return "\n\t".join([f'[credential "{_quoted(host)}"]', *lines]) + "\n"


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _copy_directory(root: Path, source: Path, target: Path, summary: DigestWriter) -> None:
    if len(source.relative_to(root).parts) > _DEEPEST:
        raise PackageError(f"cannot copy the source tree `{root}`: more than {_DEEPEST} directories in each other")
    target.mkdir(mode=0o755)
    for entry in sorted(source.iterdir(), key=lambda entry: entry.name):
        relative = entry.relative_to(root).as_posix()
        if entry.name in _LEFT_OUT or _STALE.fullmatch(relative):
            continue
        if entry.is_symlink():
            _copy_link(root, entry, target / entry.name, summary)
        elif entry.is_dir():
            if not _is_marked(entry):
                _note(summary, "directory", relative)
                _copy_directory(root, entry, target / entry.name, summary)
        elif entry.is_file():  # sockets and pipes are nobody's source code
            _copy_file(entry, target / entry.name, relative, summary)


def _is_marked(directory: Path) -> bool:
    return any((directory / mark).exists() for mark in _MARKS)


def _copy_link(root: Path, link: Path, target: Path, summary: DigestWriter) -> None:
    """A link inside the tree stays as it is; one that leads out leads to the same place from the copy."""
    text = str(link.readlink())
    place = Path(os.path.normpath(link.parent / text))
    inside = not Path(text).is_absolute() and place.is_relative_to(root)
    target.symlink_to(text if inside else place)
    _note(summary, "link", link.relative_to(root).as_posix(), os.fsencode(text))
    if not inside:
        _note_outside(root, place, summary)


def _note_outside(root: Path, place: Path, summary: DigestWriter) -> None:
    """Take in the file or directory that a link out of the tree leads to: the build sees it there."""
    above = Path(os.path.realpath(root)).parents
    waiting, seen = [place], set()
    while waiting:
        found = waiting.pop()
        relative = os.path.relpath(found, place)
        if found.is_file():
            with found.open("rb") as stream:
                _note(summary, "content", relative, str(Digest.of_stream(stream)).encode())
        elif found.is_dir() and (found == place or not _is_marked(found)):
            real = Path(os.path.realpath(found))
            if real in above:
                raise PackageError(
                    f"the source tree `{root}` has a link to `{real}`, a directory that it is in itself",
                    "remove the link, or make it lead to the files that the build needs",
                )
            _note(summary, "directory", relative)
            if real not in seen:  # links may lead in circles
                seen.add(real)
                waiting += sorted(entry for entry in found.iterdir() if entry.name not in _LEFT_OUT)


def _copy_file(source: Path, target: Path, relative: str, summary: DigestWriter) -> None:
    with source.open("rb") as stream, target.open("xb") as sink:
        mode = 0o755 if os.fstat(stream.fileno()).st_mode & 0o111 else 0o644
        writer = DigestWriter(sink)
        while chunk := stream.read(_READ_SIZE):
            writer.write(chunk)
    target.chmod(mode)
    _note(summary, f"file {mode:o}", relative, str(writer.digest()).encode())


def _note(summary: DigestWriter, kind: str, path: str, *facts: bytes) -> None:
    for part in (kind.encode(), os.fsencode(path), *facts):
        summary.write(len(part).to_bytes(8, "big") + part)


def _refer_to_repository(root: Path, target: Path, summary: DigestWriter) -> None:
    """Make the copy of a git working tree a working tree of the same repository (gitrepository-layout(5))."""
    repository = _repository(root)
    if repository is None:
        return
    (target / ".git").write_bytes(b"gitdir: " + os.fsencode(repository) + b"\n")
    for fact in _repository_state(target):
        _note(summary, "git", fact)


def _repository(root: Path) -> Path | None:
    place = root / ".git"
    try:
        if place.is_dir():
            return place.resolve()
        text = place.read_text(encoding="utf-8").strip()  # a worktree or submodule
        return (root / text.removeprefix("gitdir:").strip()).resolve() if text.startswith("gitdir:") else None
    except (OSError, ValueError, RuntimeError):  # there is none, or its file is anything else
        return None


def _repository_state(tree: Path) -> Iterator[str]:
    """What versions are made of: the commit, the nearest tag, and whether the tree has changes."""
    git = shutil.which("git")
    if git is None:
        return
    for command in (("rev-parse", "HEAD"), ("describe", "--tags", "--long", "--always"), ("status", "--porcelain")):
        done = subprocess.run(
            [git, *command],
            cwd=tree,
            env={**GIT_TRUST, "PATH": os.defpath, "HOME": os.fspath(tree)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        yield done.stdout.decode(errors="replace")
