"""The application's files: what is taken, what is left out, what cannot be."""

from __future__ import annotations

import io
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layers.compress import Codec
from layers.entry import Directory, File, Symlink
from layers.errors import EntryError
from layers.layer import write_layer
from layers.tree import Segment
from ociforge import transports
from ociforge.app import collect
from ociforge.errors import AppError
from ociforge.events import Event, Warned
from ociforge.publish import publish
from tests.support.memory import sample_image

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from layers.digest import Digest


def make(root: Path, files: str | Mapping[str, str]) -> Path:
    """Files by name (empty when only named), links as `name>target`, directories as `name/`."""
    for name, content in (dict.fromkeys(files.split(), "") if isinstance(files, str) else files).items():
        link, arrow, target = name.partition(">")
        path = root / link
        path.parent.mkdir(parents=True, exist_ok=True)
        if arrow:
            path.symlink_to(target)
        elif name.endswith("/"):
            path.mkdir()
        else:
            path.write_text(content)
    return root


def taken(root: Path, **options: Any) -> str:
    """Everything but directories, below the working directory."""
    entries = collect(root, workdir="/app", mtime=0, **options)
    return " ".join(e.path.removeprefix("app/") for e in entries if not isinstance(e, Directory))


def warnings(root: Path, **options: Any) -> list[Warned]:
    events: list[Event] = []
    collect(root, workdir="/app", mtime=0, notify=events.append, **options)
    return [event for event in events if isinstance(event, Warned)]


def refusals(root: Path, **options: Any) -> list[str]:
    with pytest.raises(AppError) as caught:
        collect(root, workdir="/app", mtime=0, **options)
    assert caught.value.hint is not None
    return caught.value.message.splitlines()


def test_files_links_and_directories_become_entries(tmp_path: Path) -> None:
    make(tmp_path, {"src/main.py": "print()\n", "run.sh": "#!/bin/sh\n", "src/link>main.py": ""})
    (tmp_path / "run.sh").chmod(0o4711)
    (tmp_path / "src/main.py").chmod(0o666)
    entries = collect(tmp_path, workdir="/srv/app/", mtime=7)
    run, src, link, main = entries
    assert isinstance(run, File)
    assert (run.path, run.mode, run.size, run.mtime, run.uid) == ("srv/app/run.sh", 0o755, 10, 7, 0)
    assert src == Directory(path="srv/app/src", mtime=7)
    assert link == Symlink(path="srv/app/src/link", target="main.py", mtime=7)
    assert isinstance(main, File)
    assert (main.path, main.mode) == ("srv/app/src/main.py", 0o644)
    with main.content.open() as stream:
        assert stream.read() == b"print()\n"


def test_the_working_directory_may_be_the_root(tmp_path: Path) -> None:
    assert [entry.path for entry in collect(make(tmp_path, "a/b"), workdir="/", mtime=0)] == ["a", "a/b"]


def test_order_is_by_path_component(tmp_path: Path) -> None:
    make(tmp_path, "a/b a-b a.b B é")
    assert [e.path for e in collect(tmp_path, workdir="/", mtime=0)] == ["B", "a", "a/b", "a-b", "a.b", "é"]


def test_nothing_gives_nothing(tmp_path: Path) -> None:
    assert collect(tmp_path, workdir="/app", mtime=0) == ()


def test_directories_without_files_are_left_out(tmp_path: Path) -> None:
    make(tmp_path, {"empty/": "", "deep/er/": "", "logs/x.log": "", "a": "", ".ociforgeignore": "*.log\n"})
    assert [e.path for e in collect(tmp_path, workdir="/", mtime=0)] == [".ociforgeignore", "a"]


def test_hard_links_on_disk_are_files_of_their_own(tmp_path: Path) -> None:
    make(tmp_path, {"a": "x"})
    os.link(tmp_path / "a", tmp_path / "b")
    assert [type(entry) for entry in collect(tmp_path, workdir="/", mtime=0)] == [File, File]


def test_version_control_pixi_and_caches_stay(tmp_path: Path) -> None:
    make(
        tmp_path,
        ".git/config sub/.git .hg/x .svn/x .pixi/envs/prod/bin/python a/__pycache__/b.pyc .venv/bin/python "
        ".pytest_cache/x .mypy_cache/x .ruff_cache/x .DS_Store a/.DS_Store app.py legacy.pyc .github/x",
    )
    assert taken(tmp_path) == ".github/x app.py legacy.pyc"
    assert warnings(tmp_path) == []


# Ignore files.


def test_gitignore_counts_with_the_nested_ones(tmp_path: Path) -> None:
    make(
        tmp_path,
        {
            ".gitignore": "*.log\n/build/\ndata/*\n!data/keep\n",
            "a.log": "",
            "src/.gitignore": "!b.log\n/local\n",
            "src/b.log": "",
            "src/c.log": "",
            "src/local": "",
            "src/deep/local": "",
            "build/x": "",
            "src/build/x": "",
            "data/x": "",
            "data/keep": "",
        },
    )
    assert taken(tmp_path) == ".gitignore data/keep src/.gitignore src/b.log src/build/x src/deep/local"


def test_ociforgeignore_has_the_last_word(tmp_path: Path) -> None:
    make(
        tmp_path,
        {
            ".gitignore": "dist/\n*.log\n",
            ".ociforgeignore": "!dist/\ntests/\n!wanted.log\n.*ignore\n",
            "dist/app.js": "",
            "dist/app.log": "",
            "tests/test_app.py": "",
            "wanted.log": "",
            "app.py": "",
            "sub/.ociforgeignore": "!x.log\n",
            "sub/x.log": "",
            "sub/wanted.log": "",
        },
    )
    assert taken(tmp_path) == "app.py dist/app.js sub/wanted.log sub/x.log wanted.log"


def test_ignore_files_of_the_host_do_not_count(tmp_path: Path, clean_environment: Path) -> None:
    make(tmp_path, {".gitignore": "*\n", "ws/.git/info/exclude": "*\n", "ws/app.py": "", "ws/link>.gitignore": ""})
    make(clean_environment, {".config/git/ignore": "*\n"})
    assert taken(tmp_path / "ws") == "app.py link"


def test_a_linked_ignore_file_does_not_count(tmp_path: Path) -> None:
    make(tmp_path, {"outside": "*\n", "ws/.gitignore>../outside": "", "ws/app.py": ""})
    assert taken(tmp_path / "ws") == ".gitignore app.py"


# Secrets.

SECRET = (
    ".env .env.local sub/.env .netrc .npmrc .pypirc .condarc .git-credentials id_rsa id_ed25519 tls/server.key x.p12"
)
SECRET_DIRECTORIES = ".aws/credentials .ssh/config .kube/config .docker/config.json"
HARMLESS = (
    ".env.example .env.sample .env.template .docker/daemon.json id_rsa.pub keys.py cert.pem .environment "
    "pkg/kubeconfig/__init__.py credentials.py service.json"
)
KEY = "-----BEGIN PRIVATE KEY-----\n"


def test_secrets_are_left_out_and_reported(tmp_path: Path) -> None:
    make(tmp_path, f"{SECRET} {SECRET_DIRECTORIES} {HARMLESS}")
    assert taken(tmp_path).split() == sorted(HARMLESS.split())
    (warning,) = warnings(tmp_path)
    assert warning.message.startswith("left out as secrets: `.aws`, `.condarc`, `.docker/config.json`, `.env`, ")
    assert warning.message.endswith("` and 6 more")
    assert "`files`" in str(warning.hint)


def test_a_pem_file_with_a_private_key_is_a_secret(tmp_path: Path) -> None:
    key = "-----BEGIN CERTIFICATE-----\n-----BEGIN EC PRIVATE KEY-----\n"
    make(tmp_path, {"a.pem": key, "b.pem": "-----BEGIN CERTIFICATE-----\n", "c.pem/x": "", "d.pem>a.pem": ""})
    assert taken(tmp_path) == "b.pem c.pem/x d.pem"


@pytest.mark.parametrize(
    "name",
    [
        *("kubeconfig", "deploy/prod.kubeconfig", "credentials.json", ".rattler/credentials.json"),
        *("client_secret.json", "a/client_secret_1.apps.json", "service-account.json", "service_account-ci.json"),
    ],
)
def test_names_of_secrets(tmp_path: Path, name: str) -> None:
    make(tmp_path, f"{name} app.py")
    assert taken(tmp_path) == "app.py"
    assert warnings(tmp_path)[0].message == f"left out as secrets: `{name}`"
    assert taken(tmp_path, include=[name, "app.py"]) == " ".join(sorted([name, "app.py"]))


@pytest.mark.parametrize("name", ["a.pem", "a.PEM", "a.crt", "a.cer", "a.cert"])
def test_certificates_are_searched_for_a_private_key(tmp_path: Path, name: str) -> None:
    certificate = "-----BEGIN CERTIFICATE-----\n" * 1500
    make(tmp_path, {name: certificate + KEY, f"sub/{name}": certificate})
    assert taken(tmp_path) == f"sub/{name}"


@pytest.mark.parametrize(
    "content",
    [
        KEY,
        f"\ufeff\n  \t{KEY}",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\r\n",
        "-----BEGIN OPENSSH PRIVATE KEY-----\n" + "x" * 3000,
        "-----BEGIN PGP PRIVATE KEY BLOCK-----\n",
    ],
)
def test_what_begins_as_a_private_key_is_a_secret_whatever_its_name(tmp_path: Path, content: str) -> None:
    make(tmp_path, {"deploy": content, "src/notes.txt": content, "app.py": "", "link>deploy": ""})
    assert taken(tmp_path) == "app.py link"
    assert taken(tmp_path, include=["deploy", "**/*.txt", "app.py", "src/notes.txt"]) == "app.py deploy src/notes.txt"


@pytest.mark.parametrize(
    "content",
    [f'KEY = """{KEY}"""', "-----BEGIN PUBLIC KEY-----\n", "-----BEGIN CERTIFICATE-----\n", KEY + "x" * (64 << 10)],
)
def test_other_content_is_no_secret(tmp_path: Path, content: str) -> None:
    assert taken(make(tmp_path, {"file": content})) == "file"


def test_ignored_secrets_are_not_worth_a_word(tmp_path: Path) -> None:
    make(tmp_path, {".gitignore": ".env\n", ".env": "", "app.py": ""})
    assert warnings(tmp_path) == []


@pytest.mark.parametrize("include", [[".env", "."], ["./.env", "."], ["/.env", "./"]])
def test_a_secret_is_taken_when_it_is_named(tmp_path: Path, include: list[str]) -> None:
    make(tmp_path, ".env .netrc app.py")
    assert taken(tmp_path, include=include) == ".env app.py"


@pytest.mark.parametrize("include", [["*"], ["**"], [".en*", "app.py"], ["**/.e*", "app.py"]])
def test_a_wildcard_does_not_name_a_secret(tmp_path: Path, include: list[str]) -> None:
    make(tmp_path, ".env .env.sample app.py")
    options = {"include": [*include, ".env.sample"]}
    assert taken(tmp_path, **options) == ".env.sample app.py"
    assert warnings(tmp_path, **options)[0].message == "left out as secrets: `.env`"


def test_what_lies_in_a_secret_directory_must_be_named_too(tmp_path: Path) -> None:
    make(tmp_path, ".aws/config .aws/credentials .ssh/id_rsa .ssh/known_hosts app.py")
    assert taken(tmp_path, include=[".aws/config", "app.py"]) == ".aws/config app.py"
    assert taken(tmp_path, include=[".aws/*", "app.py", ".aws/config"]) == ".aws/config app.py"
    assert taken(tmp_path, include=[".ssh"]) == ".ssh/known_hosts"


# Images that earlier builds left.


def archive(path: Path, *names: str) -> None:
    """A tar with members of these names, directories as `name/`."""
    with tarfile.open(path, "w") as tar:
        for name in names:
            member = tarfile.TarInfo(name.removesuffix("/"))
            member.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            tar.addfile(member)


HEX = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    "first",
    [
        *("blobs/", f"blobs/sha256/{HEX}", "oci-layout", "manifest.json", "index.json"),
        *(f"{HEX}/", f"{HEX}.tar", f"{HEX}.json"),
    ],
)
def test_image_archives_are_left_out_and_reported(tmp_path: Path, first: str) -> None:
    make(tmp_path, "app.py out/x")
    archive(tmp_path / "app.tar", first, "other")
    archive(tmp_path / "out/image", first)
    assert taken(tmp_path) == "app.py out/x"
    (warning,) = warnings(tmp_path)
    assert warning.message == "left out as images, such as earlier builds wrote: `app.tar`, `out/image`"
    assert "`files`" in str(warning.hint)
    assert taken(tmp_path, include=["*", "app.tar"]) == "app.py app.tar out/x"


@pytest.mark.parametrize("first", ["blob", "blobs", "src/", "data/manifest.json", "index.html", f"{HEX}.txt", HEX[1:]])
def test_other_archives_are_taken(tmp_path: Path, first: str) -> None:
    archive(tmp_path / "data.tar", first, "blobs/", "manifest.json")
    assert taken(tmp_path) == "data.tar"


def test_what_is_no_tar_is_taken(tmp_path: Path) -> None:
    archive(tmp_path / "cut", "oci-layout")
    whole = (tmp_path / "cut").read_bytes()
    (tmp_path / "cut").write_bytes(whole[:-1])
    (tmp_path / "header").write_bytes(whole[:512])
    (tmp_path / "magic").write_bytes(whole.replace(b"ustar", b"USTAR"))
    (tmp_path / "zeros").write_bytes(bytes(1024))
    assert taken(tmp_path) == "cut header magic zeros"


def test_our_own_outputs_are_left_out(tmp_path: Path) -> None:
    for output in (f"oci-archive:{tmp_path}/app.tar", f"oci:{tmp_path}/layout"):
        publish(sample_image(({"a": b"1"},)), transports.destination(output))
    assert taken(make(tmp_path, "app.py")) == "app.py"


def test_image_layouts_are_left_out_and_reported(tmp_path: Path) -> None:
    whole = "oci-layout index.json blobs/sha256/x"
    make(tmp_path, "app.py " + " ".join(f"out/layout/{name}" for name in whole.split()))
    make(tmp_path, "unfinished/oci-layout unfinished/blobs/x site/index.json notes/oci-layout other/blobs/x")
    assert taken(tmp_path) == "app.py notes/oci-layout other/blobs/x site/index.json"
    (warning,) = warnings(tmp_path)
    assert warning.message == "left out as images, such as earlier builds wrote: `out/layout`, `unfinished`"


def test_an_image_layout_is_taken_when_it_is_named(tmp_path: Path) -> None:
    make(tmp_path, "app.py out/layout/oci-layout out/layout/index.json out/layout/blobs/x")
    everything = "out/layout/blobs/x out/layout/index.json out/layout/oci-layout"
    assert taken(tmp_path, include=["out/layout"]) == everything
    assert taken(tmp_path, include=["out/layout/index.json"]) == "out/layout/index.json"
    assert taken(tmp_path, include=["*", "out/layout/blobs"]) == "app.py out/layout/blobs/x"
    assert refusals(tmp_path, include=["out/layout/*"]) == [
        "`files`: `out/layout/*`: all that it matches is ignored, or looks like a secret or an image"
    ]


# Settings.


def test_an_empty_include_takes_nothing(tmp_path: Path) -> None:
    make(tmp_path, {"a": "", "src/b": "", ".gitignore": "!*\n", ".env": ""})
    assert taken(tmp_path, include=[]) == ""
    assert warnings(tmp_path, include=[]) == []
    assert taken(tmp_path, include=None) == ".gitignore a src/b"


@pytest.mark.parametrize(
    ("include", "expected"),
    [
        (["src"], "src/a.py src/deep/b.py src/deep/c.txt"),
        (["src/"], "src/a.py src/deep/b.py src/deep/c.txt"),
        (["/src/deep"], "src/deep/b.py src/deep/c.txt"),
        (["*.py"], "top.py"),
        (["**/*.py"], "lib/src/d.py src/a.py src/deep/b.py top.py"),
        (["src/**/*.py"], "src/a.py src/deep/b.py"),
        (["src/*"], "src/a.py src/deep/b.py src/deep/c.txt"),
        (["s?c/[a-b].py", "top.py"], "src/a.py top.py"),
        (["[!t]*"], "lib/src/d.py src/a.py src/deep/b.py src/deep/c.txt"),
        (["."], "lib/src/d.py src/a.py src/deep/b.py src/deep/c.txt top.py"),
    ],
)
def test_include_names_what_to_take(tmp_path: Path, include: list[str], expected: str) -> None:
    make(tmp_path, "src/a.py src/deep/b.py src/deep/c.txt lib/src/d.py top.py")
    assert taken(tmp_path, include=include) == expected


def test_exclude_has_the_last_word(tmp_path: Path) -> None:
    make(tmp_path, "src/a.py src/tests/b.py tests/c.py doc/d.txt")
    assert taken(tmp_path, exclude=["tests", "*.txt"]) == "src/a.py"
    assert taken(tmp_path, include=["src", "doc"], exclude=["/src/tests/"]) == "doc/d.txt src/a.py"
    assert taken(tmp_path, exclude=["*.py", "!a.py", "/tests"]) == "doc/d.txt src/a.py"


def test_what_is_named_overrules_ignore_files(tmp_path: Path) -> None:
    make(
        tmp_path,
        {
            ".gitignore": "dist/\n*.log\n__pycache__/\n",
            "dist/app.js": "",
            "dist/app.log": "",
            "dist/.gitignore": "*\n",
            "dist/__pycache__/x": "",
            "src/a.py": "",
            "src/a.log": "",
        },
    )
    assert taken(tmp_path, include=["dist", "src"]) == "dist/.gitignore dist/app.js dist/app.log src/a.py"
    assert taken(tmp_path, include=["dist/app.js", "src/*.log"]) == "dist/app.js src/a.log"
    assert taken(tmp_path, include=["dist/__pycache__"]) == "dist/__pycache__/x"


@pytest.mark.parametrize("everything", ["*", ".", "**"])
def test_what_is_named_is_found_in_what_else_is_left_out(tmp_path: Path, everything: str) -> None:
    make(tmp_path, {".gitignore": "dist/\n", "app.py": ""})
    named = [".aws/config", ".venv/x/y", "dist/app.js", "layout/index.json"]
    make(tmp_path, " ".join(named) + " .aws/credentials .venv/z layout/oci-layout layout/blobs/x")
    options: dict[str, Any] = {"include": [everything, *named], "exclude": ["z", "/layout/blobs"]}
    assert taken(tmp_path, **options).split() == sorted([".gitignore", "app.py", *named])
    messages = [warning.message for warning in warnings(tmp_path, **options)]
    assert "left out as secrets: `.aws`" in messages[0]
    assert "`layout`" in messages[1]


def test_every_pattern_must_take_something(tmp_path: Path) -> None:
    make(tmp_path, {".gitignore": "*.log\n", "logs/a.log": "", "src/a.py": "", "out.tar": ""})
    assert refusals(
        tmp_path, include=["src", "scr", "lib/*.py", "logs", "out.tar"], leave_out=[tmp_path / "out.tar"]
    ) == [
        "`files`: `scr`: nothing in the workspace matches it",
        "`files`: `lib/*.py`: nothing in the workspace matches it",
        "`files`: `logs`: all that it matches is ignored, or looks like a secret or an image",
        "`files`: `out.tar`: nothing in the workspace matches it",
    ]


@pytest.mark.parametrize(
    ("include", "words"),
    [
        (["main.py"], ["`**/x` matches at any depth"]),
        (["logs", "*.env"], ["name the very path"]),
        (["."], [".ociforgeignore"]),
        (["src", "pipe", "x", "logs"], [".ociforgeignore", "`**/x` matches at any depth", "name the very path"]),
    ],
)
def test_hints_fit(tmp_path: Path, include: list[str], words: list[str]) -> None:
    make(tmp_path, {".gitignore": "*.log\n", "logs/a.log": "", "src/main.py": "", "a.env": KEY})
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(AppError) as caught:
        collect(tmp_path, workdir="/app", mtime=0, include=include)
    hint = caught.value.hint or ""
    assert [
        word for word in (".ociforgeignore", "`**/x` matches at any depth", "name the very path") if word in hint
    ] == (words)


def test_an_empty_directory_is_taken_when_it_is_named(tmp_path: Path) -> None:
    make(tmp_path, "var/data/ app.py")
    entries = collect(tmp_path, workdir="/app", mtime=0, include=["var/data", "app.py"])
    assert [entry.path for entry in entries] == ["app/app.py", "app/var", "app/var/data"]


@pytest.mark.parametrize("pattern", ["../x", "src/../../x", "!src", "#x", "", " "])
def test_patterns_that_mean_nothing_here(tmp_path: Path, pattern: str) -> None:
    assert refusals(make(tmp_path, "x"), include=[pattern])[0].startswith(f"`files`: `{pattern}`: ")


def test_outputs_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "ws/app.tar ws/out/blobs/x ws/app.py ws/sub/app.tar linked>ws")
    outputs = [tmp_path / "linked" / "app.tar", tmp_path / "ws/out", tmp_path / "elsewhere.tar", Path("sub/app.tar")]
    monkeypatch.chdir(tmp_path / "ws")
    assert taken(tmp_path / "ws", leave_out=outputs) == "app.py"
    assert taken(tmp_path / "linked", leave_out=outputs, include=["."]) == "app.py"


# What cannot be taken.


@pytest.fixture
def short_directory() -> Iterator[Path]:
    """Sockets have short names."""
    with tempfile.TemporaryDirectory() as directory:
        yield Path(directory)


def test_what_is_no_file_is_refused_all_at_once(short_directory: Path) -> None:
    root = make(short_directory, "src/app.py a/.wh.x .wh.d/y")
    os.mkfifo(root / "pipe")
    (root / "src/bad\udcff").write_text("")
    (root / "src/line\nbreak").symlink_to("bad\udcfe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(root / "src/sock"))
        assert (
            sorted(refusals(root))
            == [
                "`.wh.d/y`: engines take names with `.wh.` for deletions",
                "`a/.wh.x`: engines take names with `.wh.` for deletions",
                "`pipe`: a named pipe cannot go into an image",
                "`src/bad\\udcff`: the name, or the target of the link, is not UTF-8",
                "`src/line\\nbreak`: the name, or the target of the link, is not UTF-8",
                "`src/sock`: a socket cannot go into an image",
            ]
            + ["`.wh..wh..opq/y`: engines take names with `.wh.` for deletions"] * 0
        )
        assert taken(root, exclude=["sock", "pipe", "bad*", "line*", ".wh.*"]) == "src/app.py"


def test_a_device_is_refused(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can make devices")
    try:
        os.mknod(tmp_path / "null", 0o600 | 0o020000, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("no devices can be made here")
    assert refusals(tmp_path) == ["`null`: a character device cannot go into an image"]


def test_unreadable_files_are_refused() -> None:
    code = """
        import os, sys
        from pathlib import Path
        sys.path.insert(0, sys.argv[2])
        from ociforge.app import collect
        from ociforge.errors import AppError
        if os.geteuid() == 0:
            os.setgid(65534)
            os.setuid(65534)
        try:
            collect(Path(sys.argv[1]), workdir="/app", mtime=0)
        except AppError as error:
            print(error.message)
    """
    with tempfile.TemporaryDirectory() as directory:
        root = make(Path(directory), "file closed/x open/.gitignore")
        for path, mode in {".": 0o755, "file": 0, "closed": 0, "open": 0o755, "open/.gitignore": 0}.items():
            (root / path).chmod(mode)
        lines = "\n".join(line.removeprefix("        ") for line in code.splitlines())
        command = [sys.executable, "-c", lines, directory, str(Path(__file__).parents[2])]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        (root / "closed").chmod(0o755)
    assert sorted(done.stdout.splitlines()) == [
        "`closed`: the directory cannot be read: Permission denied",
        "`file`: no permission to read it",
        "`open/.gitignore`: it cannot be read: Permission denied",
        "`open/.gitignore`: no permission to read it",
    ]


@pytest.mark.parametrize("name", ["none", "file"])
def test_a_workspace_that_is_no_directory_is_refused(tmp_path: Path, name: str) -> None:
    make(tmp_path, "file")
    assert refusals(tmp_path / name)[0].startswith(f"`{tmp_path / name}`: the directory cannot be read: ")


def test_a_file_that_changes_is_noticed_when_it_is_written(tmp_path: Path) -> None:
    make(tmp_path, {"data": "12345"})
    entries = collect(tmp_path, workdir="/app", mtime=0)
    (tmp_path / "data").write_text("123456")
    with pytest.raises(EntryError, match="`app/data`"):
        write_layer([Segment("app", entries)], io.BytesIO(), Codec.parse("none"))


# What is worth a word.


def test_links_out_of_the_workspace_are_kept_and_reported(tmp_path: Path) -> None:
    make(tmp_path / "ws", "a/in>../b a/out>../../x abs>/etc/passwd loop>loop up>.. dangling>none b dir>a")
    entries = collect(tmp_path / "ws", workdir="/", mtime=0)
    links = {entry.path: entry.target for entry in entries if isinstance(entry, Symlink)}
    assert links == {
        "a/in": "../b",
        "a/out": "../../x",
        "abs": "/etc/passwd",
        "loop": "loop",
        "up": "..",
        "dangling": "none",
        "dir": "a",
    }
    (warning,) = warnings(tmp_path / "ws")
    assert warning.message == "symbolic links that lead out of the workspace: `a/out`, `abs`, `up`"


def test_link_targets_are_verbatim(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("a//b/./c/")
    (link,) = collect(tmp_path, workdir="/", mtime=0)
    assert isinstance(link, Symlink)
    assert link.target == "a//b/./c/"


def test_names_that_differ_in_case_only_are_reported(tmp_path: Path) -> None:
    make(tmp_path, "src/Read.me src/read.me readme")
    (warning,) = warnings(tmp_path)
    assert warning.message == "names that differ in case only: `src/Read.me`, `src/read.me`"


# Nothing but the files counts.


def digest(root: Path) -> Digest:
    entries = collect(root, workdir="/app", mtime=0)
    return write_layer([Segment("app", entries)], io.BytesIO(), Codec.parse("none")).diff_id


def test_place_umask_time_and_order_of_making_do_not_matter(tmp_path: Path) -> None:
    files = {"b/x.py": "1", "a.sh": "2", "b/link>x.py": "", "c/d/e": "3"}
    first = make(tmp_path / "first", files)
    before = os.umask(0o077)
    try:
        second = make(tmp_path / "else" / "where", dict(reversed(files.items())))
    finally:
        os.umask(before)
    os.utime(second / "a.sh", (5, 5))
    assert digest(first) == digest(second)
    (second / "a.sh").chmod(0o700)
    assert digest(first) != digest(second)


def test_the_environment_does_not_matter(tmp_path: Path) -> None:
    make(tmp_path, {"é.py": "1", "B/x": "2", "a": "3"})
    code = "import pathlib, sys; from tests.app.test_files import digest; print(digest(pathlib.Path(sys.argv[1])))"
    for variables in ({"TZ": "Asia/Tokyo", "LC_ALL": "C", "PYTHONHASHSEED": "1"}, {"LC_ALL": "C.UTF-8", "TZ": "UTC"}):
        done = subprocess.run(
            [sys.executable, "-c", code, tmp_path],
            cwd=Path(__file__).parents[2],
            env={"PATH": os.environ["PATH"], "PYTHONUTF8": "0"} | variables,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == str(digest(tmp_path))


names = st.text("ab.-é", min_size=1, max_size=3).filter(lambda name: name.strip(".") and not name.startswith(".wh."))


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.lists(names, min_size=1, max_size=3).map("/".join), st.text(max_size=3), max_size=6))
def test_a_layer_of_any_workspace_unpacks_to_it(files: dict[str, str]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory) / "ws"
        root.mkdir()
        kept = {}
        for name, content in files.items():
            if not (root / name).exists() and not any(above.is_file() for above in (root / name).parents):
                make(root, {name: content})
                kept[name] = content
        sink = io.BytesIO()
        write_layer([Segment("app", collect(root, workdir="/", mtime=0))], sink, Codec.parse("none"))
        shutil.rmtree(root)
        with tarfile.open(fileobj=io.BytesIO(sink.getvalue())) as tar:
            members = {member.name: member for member in tar}
            read = {name: tar.extractfile(member) for name, member in members.items() if member.isfile()}
            assert {name: stream.read().decode() for name, stream in read.items() if stream is not None} == kept


@pytest.mark.parametrize("name", ["pixi.lock", "pixi.toml", "pyproject.toml"])
@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("https://conda.example.com/team", True),
        ("https://conda.example.com/t/<TOKEN>/team", True),
        ("git+https://git@example.com/a/b.git", True),
        ("https://user:secret@conda.example.com/team", False),
        ("https://conda.example.com/t/to-1234567890/team", False),
        ("https://:secret@conda.example.com/team", False),
        ("https://ghp_0123456789abcdef@conda.example.com/team", False),
        ("https://conda.example.com/team?token=secret", False),
        ("https://user:${PASSWORD}@conda.example.com/team", True),
    ],
)
def test_documents_with_credentials_in_urls_are_secrets(tmp_path: Path, name: str, url: str, kept: bool) -> None:
    (tmp_path / name).write_text(f'channels = ["{url}"]\n')
    warnings: list[Event] = []
    found = collect(tmp_path, workdir="/app", mtime=0, notify=warnings.append)
    assert [entry.path for entry in found] == ([f"app/{name}"] if kept else [])
    assert bool(warnings) is not kept
