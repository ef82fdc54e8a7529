"""Bad input: one error that says what, which and why, then a hint, and no traceback; nothing is left behind."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.cli.program import Forge, nobody, ociforge
from tests.support.bases import tiny_image
from tests.support.images import write_layout
from tests.support.lock import LockedPypi
from tests.support.registry import USER, running_registry
from tests.support.tiny import SETTINGS, Tiny, tiny_packages, tiny_workspace
from tests.support.tools import missing, need

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tests.cli.program import Done
    from tests.support.bases import Member
    from tests.support.images import HandmadeImage

Refuse = Callable[..., tuple[str, str | None]]

_KEYS_HINT = "ociforge's README lists the keys of `[tool.ociforge]` and what they may be"
_DOWN_HINT = "check the name, and that the registry is running and can be reached from here"
_CACHE_HINT = "free some space, or let `OCIFORGE_CACHE` name a directory that can be written"


@pytest.fixture
def refuse(forge: Forge, tiny: Tiny, base: str, tmp_path: Path) -> Refuse:
    """Run a build of `tiny` that must fail; its message and hint, this test's directory written as `~`."""

    def run(*arguments: str, code: int = 1, variables: dict[str, str] | None = None) -> tuple[str, str | None]:
        chosen = () if "--base" in arguments else ("--base", base)
        done = forge("build", tiny.root, *chosen, *arguments, variables=variables)
        assert done.code == code, done
        return told(done, tmp_path)

    return run


def told(done: Done, directory: Path) -> tuple[str, str | None]:
    """Message and hint of the one error."""
    hint = done.hint
    return done.message.replace(str(directory), "~"), None if hint is None else hint.replace(str(directory), "~")


class TestWorkspace:
    def test_no_workspace(self, forge: Forge, tiny: Tiny, tmp_path: Path) -> None:
        hint = "a `pixi.toml` with `[workspace]`, or a `pyproject.toml` with `[tool.pixi.workspace]`, makes one"
        tiny.manifest.unlink()
        assert told(forge("build", tiny.root), tmp_path) == ("no pixi workspace in `~/workspace` or above it", hint)
        assert told(forge("build", tmp_path / "nothing"), tmp_path) == (
            "no such directory: `~/nothing`",
            "pass the directory of a pixi workspace",
        )
        assert told(forge("build", tiny.root / "main.py"), tmp_path)[0] == "no such directory: `~/workspace/main.py`"

    @pytest.mark.parametrize("garbage", ["x = [", "= 3", "\0", "\udcff"])
    def test_garbage(self, refuse: Refuse, tiny: Tiny, garbage: str) -> None:
        tiny.manifest.write_bytes(tiny.manifest.read_bytes() + garbage.encode("utf-8", "surrogateescape"))
        message, _ = refuse()
        assert re.match(r"`pixi\.toml` is not (valid TOML: [a-z]|UTF-8: byte )", message)

    @pytest.mark.parametrize(
        ("line", "expected"),
        [
            ('bsae = "x"', "`tool.ociforge.bsae` in `pixi.toml`: unknown key: did you mean `base`?"),
            ("zzz = 1", "`tool.ociforge.zzz` in `pixi.toml`: unknown key"),
            ("layers = 0", "`tool.ociforge.layers` in `pixi.toml`: expected an integer from 1 to 120, got integer `0`"),
            (
                "layers = 121",
                "`tool.ociforge.layers` in `pixi.toml`: expected an integer from 1 to 120, got integer `121`",
            ),
            (
                "expose = [0]",
                (
                    "`tool.ociforge.expose[0]` in `pixi.toml`: "
                    'expected a port such as `8000` or `"53/udp"`, got integer `0`'
                ),
            ),
            (
                'user = "root"',
                (
                    "`tool.ociforge.user` in `pixi.toml`: "
                    'expected a numeric user such as `1000` or `"1000:1000"`, got string `root`'
                ),
            ),
            (
                'compression = "xz"',
                (
                    "`tool.ociforge.compression` in `pixi.toml`: "
                    "expected `gzip`, `zstd` or `none`, with a level if wanted (`gzip:6`), got string `xz`"
                ),
            ),
            (
                "[tool.ociforge.images.A]",
                (
                    "`tool.ociforge.images.A` in `pixi.toml`: "
                    "no image name: lower case letters, digits and `.`, `_`, `-` between them"
                ),
            ),
            (
                'environment = "nope"',
                "`tool.ociforge.environment` in `pixi.toml`: expected one of `default`, got `nope`",
            ),
        ],
    )
    def test_settings(self, refuse: Refuse, tiny: Tiny, line: str, expected: str) -> None:
        tiny.settings(f"{line}\n")
        assert refuse() == (expected, _KEYS_HINT)

    def test_all_that_is_wrong_is_told_at_once(self, refuse: Refuse, tiny: Tiny) -> None:
        tiny.settings('layers = 0\nuser = "root"\n')
        keys = {line.split("`")[1] for line in refuse()[0].splitlines()}
        assert keys == {"tool.ociforge.layers", "tool.ociforge.user"}

    def test_the_manifests_own_keys(self, refuse: Refuse, tiny: Tiny) -> None:
        text = tiny.manifest.read_text(encoding="utf-8")
        tiny.manifest.write_text(text.replace("[dependencies]", "[dependencis]"), encoding="utf-8")
        message, hint = refuse()
        assert message.startswith("`dependencis` in `pixi.toml`: unknown key: did you mean `dependencies`?")
        assert hint is not None
        assert hint.startswith("the keys are those of pixi ")


class TestLock:
    def test_missing_it_is_made(self, forge: Forge, tiny: Tiny, base: str) -> None:
        tiny.lock.unlink()
        done = forge("build", tiny.root, "--base", base)
        assert done.code == 0 and tiny.lock.is_file(), done
        assert forge("build", tiny.root, "--base", base).out == done.out

    def test_a_base_image_must_be_pinned(self, refuse: Refuse, forge: Forge, tiny: Tiny, base: str) -> None:
        message, hint = refuse("--locked")
        assert message.endswith("for `linux/amd64` is not pinned in `ociforge.lock`")
        assert hint == "run `ociforge lock`; what only `--base` names can be pinned by `@sha256:…` in its name"

    def test_missing(self, refuse: Refuse, tiny: Tiny) -> None:
        tiny.lock.unlink()
        for option in ("--locked", "--frozen"):
            assert refuse(option) == (
                "there is no `pixi.lock` beside the manifest: `~/workspace/pixi.lock`",
                "run `ociforge lock`",
            )

    @pytest.mark.parametrize(
        ("text", "why"),
        [
            ("{{{: garbage", "`~/workspace/pixi.lock` is no lock of pixi's: it has no `version`"),
            ("\0\0", "`~/workspace/pixi.lock` is no lock of pixi's: it has no `version`"),
            ("", "`~/workspace/pixi.lock` is no lock of pixi's: it has no `version`"),
            ("version: 7\nenvironments: [1,2\n", "`pixi.lock` is damaged: "),
            ("version: 7\nenvironments: {}\npackages: &a [*a]\n", "`pixi.lock` is damaged: "),
            ("version: 99\n", "`pixi.lock` has format 99: newer than the formats 4 to 7 that this ociforge reads"),
            ("version: 3\n", "`pixi.lock` has format 3: older than the formats 4 to 7 that this ociforge reads"),
        ],
    )
    def test_garbage(self, refuse: Refuse, tiny: Tiny, text: str, why: str) -> None:
        tiny.lock.write_text(text, encoding="utf-8")
        message, hint = refuse("--frozen")
        assert message.startswith(why)
        assert hint == ("upgrade ociforge" if "99" in text else "run `ociforge lock`")

    def test_cut(self, refuse: Refuse, tiny: Tiny) -> None:
        text = tiny.lock.read_text(encoding="utf-8")
        tiny.lock.write_text(text[: len(text) // 2], encoding="utf-8")
        message, hint = refuse()
        assert message.startswith("`pixi.lock` is damaged: ")
        assert hint == "run `ociforge lock`"

    def test_of_another_manifest(self, refuse: Refuse, tiny: Tiny) -> None:
        text = tiny.manifest.read_text(encoding="utf-8")
        tiny.manifest.write_text(text.replace('hook = "*"', 'hook = ">=2"\nmore = "*"'), encoding="utf-8")
        message, hint = refuse()
        assert message.count("`pixi.lock` does not fit the manifest: ") == message.count("\n") + 1 == 2
        assert hint == "run `ociforge lock`, or pass `--frozen` to build what is locked"

    def test_unknown_environment(self, refuse: Refuse, tiny: Tiny) -> None:
        assert refuse("-e", "prod", code=2) == (
            "`environment` in the options: expected one of `default`, got `prod`",
            "see `ociforge build --help`",
        )
        text = tiny.manifest.read_text(encoding="utf-8")
        tiny.manifest.write_text(text.replace("[tool", "[environments]\nprod = []\n\n[tool"), encoding="utf-8")
        assert refuse("-e", "prod", "--frozen") == (
            "`pixi.lock` has no environment `prod`: found `default`",
            "run `ociforge lock`, or pass `--environment default`",
        )
        message, hint = refuse("-e", "prod")
        assert message.startswith("`pixi.lock` does not fit the manifest: `prod`: ")
        assert hint == "run `ociforge lock`, or pass `--frozen` to build what is locked"

    def test_platform_that_is_not_locked(self, forge: Forge, tmp_path: Path) -> None:
        tiny = tiny_workspace(tmp_path / "ws", packages=tiny_packages()[:2])
        arguments = ("build", tiny.root, "--base", "scratch", "--frozen", "--platform", "linux/arm64")
        hint = "add `linux-aarch64` to `workspace.platforms`, and run `ociforge lock`"
        assert told(forge(*arguments), tmp_path) == (
            "the environment `default` does not support the platform `linux-aarch64`: it has `linux-64`",
            hint,
        )
        text = tiny.manifest.read_text(encoding="utf-8")
        tiny.manifest.write_text(text.replace('"linux-64"', '"linux-64", "linux-aarch64"'), encoding="utf-8")
        assert told(forge(*arguments), tmp_path) == (
            "`pixi.lock` does not lock `default` for `linux-aarch64`: found `linux-64`",
            hint,
        )

    def test_unknown_platform(self, refuse: Refuse) -> None:
        for text in ("linux/arm", "linux", "windows/amd64", ""):
            message, hint = refuse("--platform", text, code=2)
            assert message == f"unknown platform: `{text}`"
            assert hint is not None
            assert hint.startswith("one of `linux/amd64`, ")

    def test_pypi_packages(self, forge: Forge, tmp_path: Path) -> None:
        """What cannot be installed is told, never left out in silence."""
        row = LockedPypi(name="requests", location="./requests-2.0-py3-none-any.whl", version="2.0", sha256="0" * 64)
        packages = tiny_packages()
        for name, chosen in (("alone", packages[:2]), ("gone", [p for p in packages if p.name in ("python", "pure")])):
            tiny = tiny_workspace(tmp_path / name, packages=chosen, extra=[row])
            found = told(forge("build", tiny.root, "--base", "scratch", "--frozen"), tmp_path)
            assert (
                found
                == {
                    "alone": (
                        "environment `default` has PyPI packages but no `python`",
                        "add `python` to its dependencies, and run `ociforge lock`",
                    ),
                    "gone": (
                        "`requests` is locked at `./requests-2.0-py3-none-any.whl`, which does not exist",
                        "update the lock, or restore the file or directory",
                    ),
                }[name]
            )


class TestPackages:
    def test_not_the_locked_archive(self, forge: Forge, tmp_path: Path) -> None:
        """Another one, one cut off, one with more behind it, none."""
        tiny = tiny_workspace(tmp_path / "ws", packages=tiny_packages()[:2])
        archive = tiny.archive("tool")
        data = archive.read_bytes()
        place = "`tool-2.1-h1_3.tar.bz2` from `file://~/ws-channel/linux-64/tool-2.1-h1_3.tar.bz2`"
        hint = "download it again, or update the lock when the channel replaced the archive"
        for bad, count in ((data[:-1] + b"x", f"{len(data)} bytes"), (data[:99], f"99 of {len(data)} bytes")):
            archive.write_bytes(bad)
            message, found = told(forge("build", tiny.root, "--base", "scratch"), tmp_path)
            assert message.startswith(f"{place} is not the archive that the lock names: expected `sha256:")
            assert message.endswith(f" ({count})")
            assert found == hint
        archive.write_bytes(data + b"x")
        assert told(forge("build", tiny.root, "--base", "scratch"), tmp_path) == (
            f"{place} is not the archive that the lock names: it has more than {len(data)} bytes",
            "update the lock when the channel replaced the archive",
        )
        archive.unlink()
        assert told(forge("build", tiny.root, "--base", "scratch"), tmp_path) == (
            f"fetching {place}: No such file or directory",
            "update the lock: the channel no longer has this archive",
        )
        assert not list((forge.cache / "archives").rglob("*.part"))
        archive.write_bytes(data)
        assert forge("build", tiny.root, "--base", "scratch").code == 0

    def test_what_is_wrong_with_several_is_told_at_once(self, forge: Forge, tmp_path: Path) -> None:
        tiny = tiny_workspace(tmp_path / "ws", packages=tiny_packages()[:2])
        shutil.rmtree(tiny.channel.path)
        message, _ = told(forge("build", tiny.root, "--base", "scratch"), tmp_path)
        assert [line.split("`")[1] for line in message.splitlines()] == ["liba-1.0-0.tar.bz2", "tool-2.1-h1_3.tar.bz2"]

    def test_no_shell_for_activation(self, refuse: Refuse) -> None:
        assert refuse("--base", "scratch") == (
            (
                "neither the base image nor the environment has a shell, but activation needs one for "
                "`/app/.pixi/envs/default/etc/conda/activate.d/hook.sh`"
            ),
            "choose a base image with `/bin/sh`, or add `bash` to the environment's dependencies",
        )


def other_base(directory: Path, image: HandmadeImage | None = None, extra: Mapping[str, Member] | None = None) -> str:
    write_layout(tiny_image(extra=extra) if image is None else image, directory)
    return f"oci:{directory}"


class TestBase:
    def test_another_platform(self, refuse: Refuse, tmp_path: Path) -> None:
        assert refuse("--base", other_base(tmp_path / "base", tiny_image(architecture="arm64"))) == (
            "base image: it is for `linux/arm64`, not for `linux/amd64`",
            "choose a base image for `linux/amd64`, or pass `--platform linux/arm64`",
        )
        write_layout([tiny_image(architecture="arm64")], tmp_path / "index")
        assert refuse("--base", f"oci:{tmp_path}/index") == (
            "base image: image index: no image for `linux/amd64`: found `linux/arm64`",
            "choose another image, or a platform that this one has",
        )

    @pytest.mark.parametrize(
        ("extra", "setting", "message", "hint"),
        [
            (
                {"opt": 0o755, "opt/env": 0o755, "opt/env/file": b""},
                'prefix = "/opt/env"',
                "prefix `/opt/env`: the base image has a directory there",
                "let `prefix` be a directory that the base image does not have, such as `/opt/env`",
            ),
            (
                {},
                'prefix = "/var/run/env"',
                "prefix `/var/run/env`: the base image has a symbolic link on the way: it is `/run/env` there",
                "set `prefix` to a path without links: it is written into the environment's files",
            ),
            (
                {},
                'workdir = "/etc/passwd"',
                "`etc/passwd`: a directory would replace the base image's file",
                "choose another path, or a base image that does not have this one",
            ),
            (
                {"app": "srv", "srv": 0o755},
                "",
                "`app`: a directory would replace the base image's link to `srv`",
                "choose another path, or a base image that does not have this one",
            ),
        ],
    )
    def test_paths_that_the_base_has(
        self,
        refuse: Refuse,
        tiny: Tiny,
        tmp_path: Path,
        extra: Mapping[str, Member],
        setting: str,
        message: str,
        hint: str,
    ) -> None:
        tiny.settings(f"{setting}\n")
        assert refuse("--base", other_base(tmp_path / "base", extra=extra)) == (message, hint)

    def test_damaged(self, refuse: Refuse, tmp_path: Path) -> None:
        base = other_base(tmp_path / "base")
        layer = max((tmp_path / "base/blobs/sha256").iterdir(), key=lambda path: path.stat().st_size)
        layer.write_bytes(layer.read_bytes()[:-1])
        message, _ = refuse("--base", base)
        assert f"sha256:{layer.name}" in message
        layer.unlink()
        assert refuse("--base", base) == (
            f"`oci:~/base` has no blob `sha256:{layer.name}`",
            "the layout is incomplete",
        )

    @pytest.mark.parametrize(
        ("base", "message", "hint"),
        [
            (
                "oci:~/nothing",
                "reading `oci:~/nothing`: `~/nothing/oci-layout`: No such file or directory",
                "check the path",
            ),
            ("oci:~/file", "reading `oci:~/file`: `~/file` is a file", "for an archive write `oci-archive:~/file`"),
            (
                "oci-archive:~/nothing",
                "reading `~/nothing`: `~/nothing`: No such file or directory",
                "check the path",
            ),
            ("oci-archive:~/file", "reading `~/file`: not a whole tar archive: truncated header", None),
            ("docker-archive:~/file", "reading `~/file`: not a whole tar archive: truncated header", None),
            ("rootfs:~/nothing", "rootfs `~/nothing`: it cannot be read: No such file or directory", None),
        ],
    )
    def test_unreadable(self, refuse: Refuse, tmp_path: Path, base: str, message: str, hint: str | None) -> None:
        (tmp_path / "file").write_bytes(b"x")
        assert refuse("--base", base.replace("~", str(tmp_path))) == (message, hint)

    @pytest.mark.parametrize(
        ("base", "message", "hint"),
        [
            (
                "ubuntu:24.04",
                (
                    "no transport in the location `ubuntu:24.04`: "
                    "expected `docker://`, `oci:`, `oci-archive:`, `docker-archive:`"
                ),
                "for an image in a registry write `docker://ubuntu:24.04`",
            ),
            ("docker:x", "malformed location: `docker:x`", "write `docker://x`"),
            (
                "docker://UPPER",
                "malformed image reference: `UPPER`: `UPPER`: upper-case letters",
                "repository must be lowercase",
            ),
        ],
    )
    def test_malformed(self, refuse: Refuse, base: str, message: str, hint: str) -> None:
        also = "a base image can also be `rootfs:FILE` (a root file system as a tar) or `scratch`"
        assert refuse("--base", base, code=2) == (f"base image: {message}", f"{hint}; {also}")


class TestApplication:
    def test_a_file_of_the_environment(self, refuse: Refuse, tiny: Tiny) -> None:
        (tiny.root / "entrypoint.sh").touch()
        assert refuse() == (
            "the application's `/app/entrypoint.sh` would replace a file of the environment in the image",
            "rename it, exclude it in `files`, or choose another `workdir` or `prefix`",
        )
        tiny.settings('prefix = "/app/pkg"\n')
        (tiny.root / "entrypoint.sh").unlink()
        assert refuse()[0].splitlines() == [
            f"the application's `/app/{path}` would replace a file of the environment in the image"
            for path in ("pkg", "pkg/__init__.py", "pkg/grüße.txt")
        ]

    def test_what_no_image_can_hold(self, refuse: Refuse, tiny: Tiny) -> None:
        os.mkfifo(tiny.root / "pipe")
        (tiny.root / "pkg/.wh.x").touch()
        (tiny.root / os.fsdecode(b"pkg/\xff")).touch()
        assert refuse() == (
            (
                "`pipe`: a named pipe cannot go into an image\n"
                "`pkg/.wh.x`: engines take names with `.wh.` for deletions\n"
                "`pkg/\\udcff`: the name, or the target of the link, is not UTF-8"
            ),
            "leave out what is not needed with `.ociforgeignore`, or list what is in `files`",
        )

    def test_secrets_are_left_out_with_a_warning(self, forge: Forge, tiny: Tiny, base: str) -> None:
        expected = forge("build", tiny.root, "--base", base)
        for name in (".env", "id_rsa", "pkg/server.key"):
            (tiny.root / name).write_text("secret")
        done = forge("build", tiny.root, "--base", base)
        assert done.out == expected.out
        assert "warning: left out as secrets: `.env`, `id_rsa`, `pkg/server.key`\n   hint: " in done.err

    def test_patterns_without_a_match(self, forge: Forge, tiny: Tiny, base: str, tmp_path: Path) -> None:
        text = tiny.manifest.read_text(encoding="utf-8")
        tiny.manifest.write_text(text.replace(SETTINGS, 'files = ["main.py", "dist/*"]\n'), encoding="utf-8")
        message, _ = told(forge("build", tiny.root, "--base", base), tmp_path)
        assert message == "`files`: `dist/*`: nothing in the workspace matches it"

    def test_a_workspace_behind_a_link(self, forge: Forge, tiny: Tiny, base: str, tmp_path: Path) -> None:
        (tmp_path / "link").symlink_to(tiny.root, target_is_directory=True)
        links = [forge("build", place, "--base", base).out for place in (tiny.root, tmp_path / "link")]
        assert links[0] == links[1] != ""


class TestOutput:
    @pytest.mark.parametrize(
        ("output", "message", "hint"),
        [
            (
                "oci-archive:~/none/a.tar",
                "writing `oci-archive:~/none/a.tar`: there is no directory `~/none`",
                "make it first",
            ),
            (
                "oci-archive:~/full",
                "writing `oci-archive:~/full`: `~/full` is not a regular file",
                "for a directory write `oci:~/full`",
            ),
            (
                "oci:~/full",
                "writing `oci:~/full`: `~/full` has files in it, but is no OCI layout",
                "name a new or empty directory",
            ),
            ("oci:~/file", "writing `oci:~/file`: `~/file` is a file", "for an archive write `oci-archive:~/file`"),
            ("oci:~/file/x", "writing `oci:~/file/x`: `~/file` is not a directory", "check the path"),
            ("oci:/proc/x", "writing `oci:/proc/x`: `/proc/x`: No such file or directory", "check the path"),
        ],
    )
    def test_unwritable(self, refuse: Refuse, tmp_path: Path, output: str, message: str, hint: str) -> None:
        (tmp_path / "full").mkdir()
        (tmp_path / "full/x").touch()
        (tmp_path / "file").touch()
        assert refuse("-o", output.replace("~", str(tmp_path))) == (message, hint)

    def test_a_build_that_fails_early_leaves_no_layout(self, forge: Forge, made: Tiny, tmp_path: Path) -> None:
        done = forge("build", made.root, "--base", "scratch", "-o", f"oci:{tmp_path}/layout")
        assert "has a shell" in done.message
        assert not (tmp_path / "layout").exists()

    def test_no_permission(self, reachable: Path) -> None:
        """Of a user who may write nowhere but into the cache."""
        tiny = tiny_workspace(reachable / "workspace", packages=tiny_packages()[:2])
        (reachable / "home").mkdir()
        (reachable / "home").chmod(0o777)
        (reachable / "out").mkdir(mode=0o555)
        for output in ("oci-archive:{}/out/a.tar", "oci:{}/out/layout"):
            done = ociforge(
                *("build", tiny.root, "--base", "scratch", "-o", output.format(reachable)),
                home=reachable / "home",
                prefix=nobody(),
            )
            message, hint = told(done, reachable)
            where = output.format("~")
            assert message == f"writing `{where}`: `{where.partition(':')[2]}`: Permission denied"
            assert hint == "check the permissions"

    @pytest.mark.parametrize(
        ("output", "message", "hint"),
        [
            (
                "a.tar",
                "no transport in the location `a.tar`: expected `docker://`, `oci:`, `oci-archive:`, `docker-archive:`",
                "for an archive write `oci-archive:a.tar`",
            ),
            (
                "docker-archive:a.tar",
                "cannot write `docker-archive:a.tar`: `docker-archive:` is only read",
                "write `oci-archive:a.tar`: docker loads it",
            ),
            (
                "oci:x:bad tag",
                "malformed location: `oci:x:bad tag`: `bad tag` is no image name",
                "leave out the last colon, or put a tag behind it",
            ),
            (
                "oci-archive:a:UPPER/x",
                "malformed image reference: `UPPER/x`: `UPPER/x`: upper-case letters",
                "repository must be lowercase",
            ),
        ],
    )
    def test_malformed(self, refuse: Refuse, forge: Forge, output: str, message: str, hint: str) -> None:
        """Noticed before anything is done."""
        assert refuse("-o", output, code=2) == (message, hint)
        assert not forge.cache.exists()

    @pytest.mark.parametrize("option", ["--push", "-t"])
    @pytest.mark.parametrize(
        ("reference", "why"),
        [
            ("UPPER/x", "`UPPER/x`: upper-case letters"),
            ("x:tag:tag", "`tag:tag`: not a tag"),
            ("x@sha256:1", "`sha256:1`: not a digest"),
        ],
    )
    def test_malformed_references(self, refuse: Refuse, option: str, reference: str, why: str) -> None:
        message, hint = refuse(option, reference, code=2)
        assert message == f"malformed image reference: `{reference}`: {why}"
        assert hint


class TestRegistry:
    def test_down(self, refuse: Refuse, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("ociforge.transports.http._BACKOFF", 0.01)  # seconds between attempts
        for option, what, place, tag in (
            ("--push", "pushing", "127.0.0.1:1/team/app", "latest"),
            ("--base", "pulling", "127.0.0.1:1/team/base", "1"),
        ):
            url = f"http://{place.replace('/', '/v2/', 1)}/manifests/{tag}"
            assert refuse(option, f"docker://{place}:{tag}") == (
                f"{what} `{place}:{tag}`: HEAD `{url}`: connection refused",
                _DOWN_HINT,
            )

    def test_no_such_image(self, refuse: Refuse, tmp_path: Path) -> None:
        with running_registry(tmp_path / "registry") as registry:
            message, hint = refuse("--base", f"docker://{registry.host}/team/base:1")
        place, url = f"{registry.host}/team/base", f"{registry.url}/v2/team/base/manifests/1"
        assert message.startswith(f"pulling `{place}:1`: `{place}` has no `1`: GET `{url}`: 404 ")
        assert hint == "check the name of the image"

    def test_credentials(self, refuse: Refuse, tmp_path: Path) -> None:
        """None, wrong ones, and a file that holds none."""
        docker = tmp_path / "docker"
        docker.mkdir()
        variables = {"DOCKER_CONFIG": str(docker)}
        with running_registry(tmp_path / "registry", auth=True) as registry:
            for password in (None, "wrong"):
                if password is not None:
                    login = base64.b64encode(f"{USER}:{password}".encode()).decode()
                    (docker / "config.json").write_text(json.dumps({"auths": {registry.host: {"auth": login}}}))
                refused = "" if password is None else ": the credential from `~/docker/config.json` was refused"
                message, hint = refuse("--base", f"docker://{registry.host}/base:1", variables=variables)
                why = f"HEAD `{registry.url}/v2/base/manifests/1`: 401 Unauthorized{refused}"
                assert message == f"pulling `{registry.host}/base:1`: {why}"
                searched = f"no credential for `{registry.host}` in `~/docker/config.json`, "
                login = f"with `ociforge login {registry.host}`, or set REGISTRY_AUTH_FILE"
                assert hint is not None
                if password is None:
                    assert hint.startswith(searched) and hint.endswith(f": log in {login}")
                else:
                    assert hint == f"log in again {login}"
                message, again = refuse("--push", f"{registry.host}/app:1", variables=variables)
                why = f"HEAD `{registry.url}/v2/app/manifests/1`: 401 Unauthorized{refused}"
                assert message == f"pushing `{registry.host}/app:1`: {why}"
                assert password is None or again == hint
            (docker / "config.json").write_text("{garbage")
            assert refuse("--push", f"{registry.host}/app:1", variables=variables) == (
                f"pushing `{registry.host}/app:1`: reading credentials: `~/docker/config.json`: not a JSON object",
                "repair or remove the file",
            )
        assert not list((tmp_path / "registry/storage").rglob("_manifests"))


class TestStore:
    @pytest.mark.parametrize(
        ("place", "message"),
        [
            ("~/file", "the store cannot be used: `~/file/lock`: Not a directory"),
            ("~/file/x", "the store cannot be used: `~/file`: File exists"),
            ("/proc/x", "the store cannot be used: `/proc/x`: No such file or directory"),
        ],
    )
    def test_unusable(self, refuse: Refuse, tmp_path: Path, place: str, message: str) -> None:
        (tmp_path / "file").touch()
        variables = {"OCIFORGE_CACHE": place.replace("~", str(tmp_path))}
        assert refuse(variables=variables) == (message, _CACHE_HINT)


@contextmanager
def small_disk(place: Path, size: str) -> Iterator[Path]:
    """A file system of `size`."""
    place.mkdir()
    if os.geteuid():
        missing("only root can mount a file system")
    mount = [need("mount"), "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        missing(f"no file system can be mounted here: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run([need("umount"), str(place)], check=True)


class TestFullDisk:
    def test_of_the_store(self, forge: Forge, tmp_path: Path, made: Tiny, base: str) -> None:
        """From the first byte to the last, wherever it runs full: one error, and no name for what is not whole."""
        with small_disk(tmp_path / "disk", "400k") as disk:
            filler = disk / "filler"
            codes = []
            for left in (0, 4, 12, 24, 48, 72, 96, 128, 160, 200, 400):
                filler.write_bytes(bytes(max(0, 396 - left) << 10))
                variables = {"OCIFORGE_CACHE": str(disk / "cache")}
                done = forge("build", made.root, "--base", base, variables=variables)
                codes.append(done.code)
                if done.code:
                    assert "No space left on device" in done.message, done.err
                    assert done.hint is not None
                for blob in disk.glob("cache/blobs/sha256/*"):
                    found = subprocess.run(["sha256sum", blob], capture_output=True, text=True, check=True).stdout
                    assert found.split()[0] == blob.name
                filler.unlink()
                shutil.rmtree(disk / "cache", ignore_errors=True)
        assert codes[0] == 1

    def test_of_the_output(self, forge: Forge, tmp_path: Path, made: Tiny, base: str) -> None:
        with small_disk(tmp_path / "disk", "60k") as disk:
            for output in (f"oci-archive:{disk}/a.tar", f"oci:{disk}/layout"):
                done = forge("build", made.root, "--base", base, "--compression", "none", "-o", output)
                assert re.search(r"^writing `.*`: No space left on device$", done.message), done.err
                assert done.hint == "free some space, or name another place"
                assert not (disk / "a.tar").exists()
                assert not any(json.loads(p.read_bytes())["manifests"] for p in disk.glob("layout/index.json"))
                assert not list(disk.rglob(".ociforge-*"))
                shutil.rmtree(disk / "layout", ignore_errors=True)


class TestUsage:
    @pytest.mark.parametrize(
        ("arguments", "message", "hint"),
        [
            (("bogus",), "no such command `bogus`", "see `ociforge --help`"),
            (("build", "--bas", "x"), "no such option `--bas`", "did you mean `--base` or `--tag`?"),
            (("build", "--zzzzzzzz"), "no such option `--zzzzzzzz`", "see `ociforge build --help`"),
            (("build", "--base"), "option `--base` requires an argument", "see `ociforge build --help`"),
            (("build", "a", "b"), "got unexpected extra argument (b)", "see `ociforge build --help`"),
            (
                ("build", "--workers", "0"),
                "invalid value for `--workers`: 0 is not in the range 1<=x<=64",
                "see `ociforge build --help`",
            ),
            (("push",), "missing argument `SOURCE`", "see `ociforge push --help`"),
            (("push", "x"), "missing argument `DESTINATION...`", "see `ociforge push --help`"),
        ],
    )
    def test_usage(self, forge: Forge, arguments: tuple[str, ...], message: str, hint: str) -> None:
        done = forge(*arguments)
        assert (done.code, done.message, done.hint) == (2, message, hint)
        assert not forge.cache.exists()
