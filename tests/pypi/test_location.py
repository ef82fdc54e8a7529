from __future__ import annotations

import json
from pathlib import Path

import pytest

from layers.digest import Digest
from ociforge.errors import PackageError
from ociforge.pypi.location import Local, Remote, Repository, Tree, direct_url, image_path, locate
from ociforge.pypi.package import Locked
from ociforge.url_secrets import redacted

SHA256 = Digest.of(b"")
COMMIT = "1c4b2c7864a60ea169e091901fcde63a8d6fbfdc"
URL = "https://files.example.com/packages/ab/demo-1.0%2Bcu121-py3-none-any.whl"


def row(location: str, sha256: Digest | None = None) -> Locked:
    return Locked(name="demo", location=location, sha256=sha256)


def refusal(location: str, root: Path = Path("/nowhere"), sha256: Digest | None = None) -> PackageError:
    with pytest.raises(PackageError) as caught:
        locate(row(location, sha256), root)
    return caught.value


def told(location: str, root: Path, *, editable: bool = False) -> object:
    source = locate(row(location, SHA256), root)
    place = image_path(source.path, root=root, workdir="/srv/app") if isinstance(source, Tree | Local) else None
    text = direct_url(source, place=place, digest=SHA256, editable=editable)
    return None if text is None else json.loads(text)


def test_a_file_of_an_index() -> None:
    source = locate(row(URL, SHA256), Path("/nowhere"))
    assert source == Remote(url=URL, filename="demo-1.0+cu121-py3-none-any.whl", sha256=SHA256, direct=False)
    assert told(URL, Path("/nowhere")) is None


def test_a_direct_url_may_carry_its_digest() -> None:
    source = locate(row(f"direct+{URL}#sha256={SHA256.hex.upper()}"), Path("/nowhere"))
    assert source == Remote(url=URL, filename="demo-1.0+cu121-py3-none-any.whl", sha256=SHA256, direct=True)


def test_what_comes_from_afar_needs_a_digest() -> None:
    error = refusal(f"direct+{URL.replace('https://', 'https://user:secret@')}?token=secret")
    assert error.message == f"the lock names no sha256 for `demo`: `{URL}` cannot be verified"
    assert error.hint == "lock it with `ociforge lock`, or add `#sha256=<64 hex digits>` to the URL in the manifest"


def test_two_digests_must_agree() -> None:
    assert "two sha256" in refusal(f"direct+{URL}#sha256={'0' * 64}", sha256=SHA256).message
    assert "is none" in refusal(f"direct+{URL}#sha256=abc").message


def test_a_direct_url_is_told_without_what_may_be_secret() -> None:
    location = "direct+https://user:secret@example.com/demo-1.0.tar.gz?token=secret#subdirectory=sub"
    assert told(location, Path("/nowhere")) == {
        "url": "https://example.com/demo-1.0.tar.gz",
        "archive_info": {"hashes": {"sha256": SHA256.hex}},
        "subdirectory": "sub",
    }


def test_files_and_trees_of_the_workspace(tmp_path: Path) -> None:
    tree = tmp_path / "packages" / "a b"
    tree.mkdir(parents=True)
    wheel = tmp_path / "demo-1.0-py3-none-any.whl"
    wheel.write_bytes(b"")
    assert locate(row("."), tmp_path) == Tree(path=tmp_path)
    assert locate(row("./packages/a b/"), tmp_path) == Tree(path=tree)
    assert locate(row(tree.as_uri()), tmp_path) == Tree(path=tree)
    assert locate(row("../a b"), tree) == Tree(path=tree)
    for location in ("demo-1.0-py3-none-any.whl", str(wheel), wheel.as_uri(), f"direct+{wheel.as_uri()}"):
        assert locate(row(location), tmp_path) == Local(path=wheel, filename=wheel.name, sha256=None)


def test_paths_are_told_as_their_places_in_the_image(tmp_path: Path) -> None:
    root = tmp_path / "workspace"
    (root / "packages" / "a b").mkdir(parents=True)
    (tmp_path / "beside").mkdir()
    (root / "demo-1.0.zip").write_bytes(b"")
    assert told(".", root) == {"url": "file:///srv/app", "dir_info": {}}
    assert told("packages/a b", root, editable=True) == {
        "url": "file:///srv/app/packages/a%20b",
        "dir_info": {"editable": True},
    }
    assert told("../beside", root) == {"url": "file:///beside", "dir_info": {}}
    assert told("demo-1.0.zip", root) == {
        "url": "file:///srv/app/demo-1.0.zip",
        "archive_info": {"hashes": {"sha256": SHA256.hex}},
    }


def test_a_commit_as_pixi_locks_it(tmp_path: Path) -> None:
    location = f"git+https://git.example.com/MyProject.git?tag=v1.0&subdirectory=pkg_dir#{COMMIT}"
    expected = Repository(
        url="https://git.example.com/MyProject.git", commit=COMMIT, requested="v1.0", subdirectory="pkg_dir"
    )
    assert locate(row(location), tmp_path) == expected
    assert told(location, tmp_path) == {
        "url": "https://git.example.com/MyProject.git",
        "vcs_info": {"vcs": "git", "commit_id": COMMIT, "requested_revision": "v1.0"},
        "subdirectory": "pkg_dir",
    }


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("git+https://user:secret@example.com/a.git", "https://example.com/a.git"),
        ("git+ssh://git:secret@example.com/a.git", "ssh://git@example.com/a.git"),
        ("git+file:///home/someone/a", "file:///a"),
    ],
)
def test_a_repository_is_told_without_password_and_host_path(url: str, shown: str, tmp_path: Path) -> None:
    assert told(f"{url}#{COMMIT}", tmp_path) == {"url": shown, "vcs_info": {"vcs": "git", "commit_id": COMMIT}}


@pytest.mark.parametrize(
    ("location", "why"),
    [
        ("git+https://example.com/a.git?rev=main#1c4b2c7", "without a whole commit id"),
        ("git+https://example.com/a.git", "without a whole commit id"),
        (f"git+ext::sh -c true://x#{COMMIT}", "by `ext`"),
        (f"git+ext://x#{COMMIT}", "by `ext`"),
        ("ftp://example.com/demo-1.0-py3-none-any.whl", "nothing is known about such addresses"),
        ("https:///demo-1.0-py3-none-any.whl", "nothing is known about such addresses"),
        ("file://elsewhere/demo-1.0-py3-none-any.whl", "on another machine"),
        ("https://[::1/demo-1.0-py3-none-any.whl", "which is no URL"),
        ("https://example.com:port/demo-1.0-py3-none-any.whl", "which is no URL"),
        ("https://example.com/demo-1.0.exe", "neither a wheel nor a source distribution"),
        ("https://example.com/a%2Fdemo-1.0-py3-none-any.whl", "neither a wheel nor a source distribution"),
        ("https://example.com/", "neither a wheel nor a source distribution"),
        ("./missing", "does not exist"),
        ("a\nb", "control characters"),
    ],
)
def test_other_locations_are_refused(location: str, why: str, tmp_path: Path) -> None:
    error = refusal(location, tmp_path, SHA256)
    assert why in error.message
    assert "\n" not in error.message


def test_a_file_that_is_no_package_is_refused(tmp_path: Path) -> None:
    (tmp_path / "demo.txt").write_text("")
    assert "neither a wheel nor a source distribution: `demo.txt`" in refusal("demo.txt", tmp_path).message


def test_addresses_are_shown_without_secrets() -> None:
    assert redacted("https://u:p@h:8/a?b#c") == "https://h:8/a"
    assert redacted("https://u:p@[h/a?b#c") == "[h/a"
