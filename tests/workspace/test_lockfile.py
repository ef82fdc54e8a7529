from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ociforge.errors import LockError
from ociforge.workspace import lockfile
from ociforge.workspace.platforms import VirtualPackage, WorkspacePlatform, merge_virtual_packages

if TYPE_CHECKING:
    from pathlib import Path

SHA = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"
URL = "https://conda.anaconda.org/conda-forge/noarch/foo-1.2-0.conda"
LINUX = WorkspacePlatform.of_subdir("linux-64")

V7 = f"""\
version: 7
platforms:
- name: linux-64
environments:
  default:
    channels:
    - url: https://conda.anaconda.org/conda-forge/
    packages:
      linux-64:
      - conda: {URL}
packages:
- conda: {URL}
  sha256: {SHA}
  depends:
  - python >=3
  size: 42
"""

V6 = V7.replace("version: 7\nplatforms:\n- name: linux-64\n", "version: 6\n")

V5 = f"""\
version: 5
environments:
  default:
    channels:
    - url: https://conda.anaconda.org/conda-forge/
    packages:
      linux-64:
      - conda: {URL}
packages:
- kind: conda
  name: foo
  version: '1.2'
  build: '0'
  subdir: noarch
  url: {URL}
  sha256: {SHA}
  depends:
  - python >=3
  size: 42
"""

V4 = V5.replace("version: 5\n", "version: 4\n").replace("  subdir: noarch\n", "  build_number: 0\n  subdir: noarch\n")


def read(root: Path, text: str | bytes) -> lockfile.Lock:
    path = root / "pixi.lock"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return lockfile.read(path)


def failure(root: Path, text: str | bytes, platform: WorkspacePlatform = LINUX, environment: str = "default") -> str:
    with pytest.raises(LockError) as caught:
        lockfile.select(read(root, text), environment, platform)
    assert caught.value.hint is not None
    return caught.value.message


def rich(name: str, *packages: str) -> WorkspacePlatform:
    parsed = [package for text in packages if (package := VirtualPackage.parse(text)) is not None]
    return WorkspacePlatform(name=name, subdir="linux-64", virtual_packages=merge_virtual_packages("linux-64", parsed))


@pytest.mark.parametrize(("text", "version"), [(V4, 4), (V5, 5), (V6, 6), (V7, 7)])
def test_every_format(tmp_path: Path, text: str, version: int) -> None:
    lock = read(tmp_path, text)
    assert lock.version == version
    selection = lockfile.select(lock, "default", LINUX)
    (record,) = selection.records
    assert (record.name.normalized, str(record.version), record.url, record.size) == ("foo", "1.2", URL, 42)
    assert record.sha256 is not None
    assert record.sha256.hex() == SHA
    assert list(record.depends) == ["python >=3"]
    assert selection.channels == ("https://conda.anaconda.org/conda-forge/",)
    assert selection.pypi == ()


def test_options_and_indexes(tmp_path: Path) -> None:
    more = (
        "    indexes:\n    - https://pypi.org/simple\n    find-links:\n    - path: ./links\n    - url: https://l\n"
        "    options:\n      strategy: lowest-version\n      channel-priority: disabled\n"
        "      pypi-prerelease-mode: allow\n"
    )
    found = read(tmp_path, V7.replace("    packages:\n", f"{more}    packages:\n", 1)).environments["default"]
    assert found.indexes == ("https://pypi.org/simple",)
    assert found.find_links == ("./links", "https://l")
    assert (found.strategy, found.channel_priority, found.prerelease_mode) == ("lowest-version", "disabled", "allow")


def test_defaults_of_the_options(tmp_path: Path) -> None:
    found = read(tmp_path, V7).environments["default"]
    assert (found.indexes, found.strategy, found.channel_priority) == (None, "highest", "strict")
    assert found.prerelease_mode == "if-necessary-or-explicit"


def test_pypi_rows(tmp_path: Path) -> None:
    wheel, tree = "https://files/foo_bar-1-py3-none-any.whl", "./app"
    text = V7.replace(f"      - conda: {URL}\n", f"      - conda: {URL}\n      - pypi: {wheel}\n      - pypi: {tree}\n")
    text += (
        f"- pypi: {wheel}\n  name: foo-bar\n  version: '1'\n  sha256: {SHA}\n  index: https://my/simple\n"
        "  requires_dist:\n  - click>=8\n  requires_python: '>=3.9'\n"
        f"- pypi: {tree}\n  name: app\n"
    )
    selection = lockfile.select(read(tmp_path, text), "default", LINUX)
    assert selection.pypi == (
        lockfile.PypiRow(name="app", version=None, location=tree),
        lockfile.PypiRow(
            name="foo-bar",
            version="1",
            location=wheel,
            sha256=SHA,
            index="https://my/simple",
            requires_dist=("click>=8",),
            requires_python=">=3.9",
        ),
    )


@pytest.mark.parametrize("location", ["./channel/noarch/foo-1.2-0.conda", "channel/noarch/foo-1.2-0.conda"])
def test_a_path_relative_to_the_lock(tmp_path: Path, location: str) -> None:
    text = V7.replace(URL, location) + "  subdir: noarch\n"
    (record,) = lockfile.select(read(tmp_path, text), "default", LINUX).records
    assert record.url == f"file://{tmp_path}/channel/noarch/foo-1.2-0.conda"
    assert (record.file_name, record.channel, record.size) == ("foo-1.2-0.conda", f"file://{tmp_path}/channel/", 42)


def test_a_link_keeps_the_name_that_the_lock_has(tmp_path: Path) -> None:
    """Stores of files by content: what a link's target is called must not come into the image."""
    place = tmp_path / "channel/noarch/foo-1.2-0.conda"
    place.parent.mkdir(parents=True)
    (tmp_path / "0123abcd").touch()
    place.symlink_to(tmp_path / "0123abcd")
    text = V7.replace(URL, "./channel/noarch/foo-1.2-0.conda") + "  subdir: noarch\n"
    (record,) = lockfile.select(read(tmp_path, text), "default", LINUX).records
    assert (record.url, record.file_name) == (f"file://{place}", "foo-1.2-0.conda")


class TestPlatforms:
    """Rich platforms are aliases in the lock: identity decides, then the name, then the bare subdir."""

    ROWS = """\
- name: linux-64
- name: p1
  subdir: linux-64
  virtual-packages:
  - __cuda=12
- name: p2
  subdir: linux-64
  virtual-packages:
  - __glibc=2.28
  - __cuda=12
  - __linux=5.10
"""

    def lock(self, root: Path) -> lockfile.LockedEnvironment:
        rows = "".join(f"      {name}:\n      - conda: {URL}\n" for name in ("linux-64", "p1", "p2"))
        text = V7.replace("- name: linux-64\n", self.ROWS)
        text = text.replace(f"      linux-64:\n      - conda: {URL}\n", rows)
        return read(root, text).environments["default"]

    @pytest.mark.parametrize(
        ("platform", "row"),
        [
            (LINUX, "linux-64"),
            (rich("linux-64-cuda-12", "__cuda=12.0"), "p1"),
            (rich("gpu", "__linux=5.10", "__cuda=12"), "p2"),
            (rich("p1", "__linux=5.10", "__cuda=12"), "p2"),
            (rich("p2", "__cuda=13"), "p2"),
            (rich("other", "__cuda=13"), "linux-64"),
            (WorkspacePlatform.of_subdir("osx-arm64"), None),
        ],
    )
    def test_find(self, tmp_path: Path, platform: WorkspacePlatform, row: str | None) -> None:
        found = self.lock(tmp_path).find(platform)
        assert (None if found is None else found.name) == row

    @pytest.mark.parametrize(("packages", "row"), [(["__cuda=12"], "linux-64"), (["__cuda=13"], None)])
    def test_a_bare_row_must_list_all_that_is_declared(
        self, tmp_path: Path, packages: list[str], row: str | None
    ) -> None:
        platform = rich("gpu", *packages)
        listed = "".join(f"  - {p}\n" for p in merge_virtual_packages("linux-64", rich("g", "__cuda=12").customised))
        head = f"- name: linux-64\n  subdir: linux-64\n  virtual-packages:\n{listed}  - __extra=1\n"
        found = read(tmp_path, V7.replace("- name: linux-64\n", head)).environments["default"].find(platform)
        assert (None if found is None else found.name) == row


class TestRefusals:
    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(LockError) as caught:
            lockfile.read(tmp_path / "pixi.lock")
        assert caught.value.message == f"there is no `pixi.lock` beside the manifest: `{tmp_path}/pixi.lock`"
        assert caught.value.hint == "run `ociforge lock`"

    def test_unreadable(self, tmp_path: Path) -> None:
        (tmp_path / "pixi.lock").mkdir()
        with pytest.raises(LockError, match="Is a directory"):
            lockfile.read(tmp_path / "pixi.lock")

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (b"", "is no lock of pixi's: it has no `version`"),
            (b"\x00\xff\xfe", "is no lock of pixi's: it has no `version`"),
            (b"version: 8\n", "`pixi.lock` has format 8: newer than the formats 4 to 7 that this ociforge reads"),
            (b"version: 3\n", "`pixi.lock` has format 3: older than the formats 4 to 7 that this ociforge reads"),
            (b"version: 7\n", "`pixi.lock` is damaged: missing field `environments`"),
            (b"version: 7\nx: \xff\n", "`pixi.lock` is damaged: "),
            (b"version: 7\nx: " + b"[" * 100_000, "`pixi.lock` is damaged: it is nested too deeply"),
            (b"version: 7\nx: [\n", "`pixi.lock` is damaged: "),
            (b"version: 7\nenvironments: 7\npackages: []\n", "`pixi.lock` is damaged: invalid type: integer `7`"),
        ],
    )
    def test_damaged(self, tmp_path: Path, text: bytes, message: str) -> None:
        assert message in failure(tmp_path, text)

    def test_no_such_environment(self, tmp_path: Path) -> None:
        text = V7.replace("environments:\n", "environments:\n  test:\n    channels: []\n    packages: {}\n")
        with pytest.raises(LockError) as caught:
            read(tmp_path, text).environment("prod")
        assert caught.value.message == "`pixi.lock` has no environment `prod`: found `default`, `test`"
        assert caught.value.hint == "run `ociforge lock`, or pass `--environment default`"
        with pytest.raises(LockError) as caught:
            read(tmp_path, text).environment("tests")
        assert caught.value.hint == "run `ociforge lock`, or pass `--environment test`"

    def test_no_such_platform(self, tmp_path: Path) -> None:
        assert failure(tmp_path, V7, WorkspacePlatform.of_subdir("linux-aarch64")) == (
            "`pixi.lock` does not lock `default` for `linux-aarch64`: found `linux-64`"
        )

    def test_without_sha256(self, tmp_path: Path) -> None:
        text = V7.replace(f"  sha256: {SHA}\n", "  md5: 6f5902ac237024bdd0c176cb93063dc4\n")
        assert failure(tmp_path, text) == (
            "`pixi.lock`, environment `default`: `foo 1.2` has no sha256, so its archive cannot be verified"
        )

    def test_a_package_twice(self, tmp_path: Path) -> None:
        other = URL.replace("1.2", "1.3")
        text = V7.replace(f"      - conda: {URL}\n", f"      - conda: {URL}\n      - conda: {other}\n")
        text += f"- conda: {other}\n  sha256: {SHA}\n"
        assert failure(tmp_path, text) == "`pixi.lock`, environment `default`: `foo 1.3` is locked twice"

    def test_another_platform(self, tmp_path: Path) -> None:
        assert failure(tmp_path, V7.replace("noarch/foo", "linux-aarch64/foo")) == (
            "`pixi.lock`, environment `default`: `foo 1.2` is for `linux-aarch64`, not for `linux-64`"
        )

    def test_source_packages(self, tmp_path: Path) -> None:
        text = V7.replace(f"      - conda: {URL}\n", f"      - conda: {URL}\n      - conda_source: bar[1234] @ ./bar\n")
        text += "- conda_source: bar[1234] @ ./bar\n  depends: []\n"
        assert failure(tmp_path, text) == (
            "`pixi.lock` has conda source packages in `default`, which ociforge cannot build: `bar`"
        )


def test_the_order_of_the_document_does_not_matter(tmp_path: Path) -> None:
    head, blocks = V7.split("environments:\n")
    environments, packages = blocks.split("packages:\n- conda")
    options = "    options:\n      strategy: lowest-version\n"
    environments = environments.replace("    packages:\n", f"{options}    packages:\n")
    found = []
    for text in (
        f"{head}environments:\n{environments}packages:\n- conda{packages}",
        f"{head}packages:\n- conda{packages}environments:\n{environments}",
        f"{head}packages:\n- conda{packages}# a remark\nenvironments:\n{environments}",
    ):
        (tmp_path / "pixi.lock").write_text(text)
        found.append(lockfile.read(tmp_path / "pixi.lock").environment("default"))
    assert found[0] == found[1] == found[2]
    assert found[0].strategy == "lowest-version"
