from __future__ import annotations

import platform
import sys
import sysconfig

import pytest
from packaging.tags import sys_tags

from ociforge.errors import PackageError
from ociforge.platform import Platform
from ociforge.pypi.package import Interpreter
from ociforge.pypi.tags import Filename, Target

AMD64 = Platform.parse("linux/amd64")


def python(version: str = "3.12", *, free_threaded: bool = False) -> Interpreter:
    directory = f"python{version}{'t' if free_threaded else ''}"
    return Interpreter.parse(f"{version} lib/{directory}/site-packages")


def target(on: Platform = AMD64, glibc: str = "2.28", interpreter: Interpreter | None = None) -> Target:
    return Target.of(interpreter or python(), on, glibc)


def wheel(tag: str) -> Filename:
    return Filename.parse(f"demo-1.0-{tag}.whl")


@pytest.mark.parametrize(
    "tag",
    [
        "py3-none-any",
        "py2.py3-none-any",
        "py312-none-any",
        "py310-none-any",
        "cp312-none-any",
        "cp312-cp312-linux_x86_64",
        "cp312-cp312-manylinux_2_28_x86_64",
        "cp312-cp312-manylinux_2_17_x86_64.manylinux2014_x86_64",
        "cp312-cp312-manylinux2010_x86_64",
        "cp312-cp312-manylinux1_x86_64",
        "cp38-abi3-manylinux_2_5_x86_64",
        "py3-none-manylinux_2_12_x86_64",
        "cp311.cp312-cp311.cp312-manylinux_2_28_x86_64",
    ],
)
def test_wheels_that_fit(tag: str) -> None:
    assert target().fits(wheel(tag))
    target().check(wheel(tag))


@pytest.mark.parametrize(
    "tag",
    [
        "py2-none-any",
        "py313-none-any",
        "cp311-cp311-manylinux_2_28_x86_64",
        "cp312-cp312-manylinux_2_29_x86_64",
        "cp312-cp312-manylinux_2_28_aarch64",
        "cp312-cp312-musllinux_1_2_x86_64",
        "cp312-cp312-macosx_11_0_x86_64",
        "cp312-cp312-win_amd64",
        "cp312-cp312t-manylinux_2_28_x86_64",
        "cp313-abi3-manylinux_2_28_x86_64",
        "pp310-pypy310_pp73-manylinux_2_28_x86_64",
    ],
)
def test_wheels_that_do_not_fit(tag: str) -> None:
    assert not target().fits(wheel(tag))


def test_the_message_names_what_was_wanted_and_what_there_is() -> None:
    with pytest.raises(PackageError) as caught:
        target().check(wheel("cp312-cp312-manylinux_2_34_x86_64"))
    assert caught.value.message == (
        "`demo-1.0-cp312-cp312-manylinux_2_34_x86_64.whl` does not fit Python 3.12 on `linux/amd64` with glibc 2.28:"
        " it is for `cp312-cp312-manylinux_2_34_x86_64`"
    )
    assert caught.value.hint


def test_other_machines_have_their_own_tags() -> None:
    arm = target(Platform.parse("linux/arm64"))
    assert arm.fits(wheel("cp312-cp312-manylinux_2_17_aarch64"))
    assert arm.fits(wheel("cp312-cp312-manylinux2014_aarch64"))
    assert not arm.fits(wheel("cp312-cp312-manylinux_2_12_aarch64"))
    assert not arm.fits(wheel("cp312-cp312-manylinux_2_17_x86_64"))


def test_an_old_glibc_takes_fewer_wheels() -> None:
    old = target(glibc="2.16.1")
    assert old.fits(wheel("cp312-cp312-manylinux2010_x86_64"))
    assert not old.fits(wheel("cp312-cp312-manylinux2014_x86_64"))


def test_a_free_threaded_interpreter_takes_its_own_wheels_only() -> None:
    free = target(interpreter=python("3.13", free_threaded=True))
    assert free.fits(wheel("cp313-cp313t-manylinux_2_28_x86_64"))
    assert free.fits(wheel("py3-none-any"))
    assert not free.fits(wheel("cp313-cp313-manylinux_2_28_x86_64"))
    assert not free.fits(wheel("cp39-abi3-manylinux_2_28_x86_64"))


@pytest.mark.skipif(platform.machine() != "x86_64", reason="packaging's tags are those of this machine")
def test_tags_are_those_that_packaging_finds_on_such_a_machine() -> None:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    free = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
    glibc = platform.libc_ver()[1]
    ours = target(glibc=glibc, interpreter=python(version, free_threaded=free)).tags
    assert ours == {tag for tag in sys_tags() if "musllinux" not in tag.platform}


@pytest.mark.parametrize(
    "text", ["demo.whl", "demo-1.0.tar.gz", "demo-1.0-py3-none.whl", "demo-x-py3-none-any.whl", ""]
)
def test_other_names_are_refused(text: str) -> None:
    with pytest.raises(PackageError, match="is no name of a wheel"):
        Filename.parse(text)


def test_only_wheels_for_any_platform_are_pure() -> None:
    assert wheel("py3-none-any").pure
    assert not wheel("py3-none-manylinux_2_17_x86_64").pure
    assert not wheel("cp312-abi3-linux_x86_64").pure


@pytest.mark.parametrize("glibc", ["", "1.28", "2", "2.x", "musl"])
def test_other_versions_of_glibc_are_refused(glibc: str) -> None:
    with pytest.raises(PackageError, match="is no version of glibc"):
        target(glibc=glibc)


@pytest.mark.parametrize("text", ["", "3.12", "2.7 lib/python2.7/site-packages", "3.12 a b"])
def test_other_interpreters_are_refused(text: str) -> None:
    with pytest.raises(PackageError, match="is no interpreter"):
        Interpreter.parse(text)
