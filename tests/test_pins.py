"""`ociforge.lock`: reading, writing, and what it is held against."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layers.digest import Digest
from ociforge.errors import LockError
from ociforge.pins import Pins, Use
from ociforge.platform import Platform

if TYPE_CHECKING:
    from pathlib import Path

AMD, ARM = Platform.parse("linux/amd64"), Platform.parse("linux/arm64")
UBUNTU = "docker://ubuntu:24.04"
ONE, TWO = Digest.of(b"one"), Digest.of(b"two")
CHANGED = "the base image `oci:layout` for `linux/amd64` has changed since it was pinned in `ociforge.lock`"
UNPINNED = "is not pinned in `ociforge.lock`"
PINS = Pins(digests={Use.of(UBUNTU, AMD): ONE, Use.of(UBUNTU, ARM): ONE, Use.of("oci:layout", AMD): TWO})


def test_the_text() -> None:
    assert PINS.to_bytes().decode() == (
        "{\n"
        '  "bases": {\n'
        f'    "{UBUNTU}": {{\n'
        f'      "linux/amd64": "{ONE}",\n'
        f'      "linux/arm64": "{ONE}"\n'
        "    },\n"
        '    "oci:layout": {\n'
        f'      "linux/amd64": "{TWO}"\n'
        "    }\n"
        "  },\n"
        '  "version": 1\n'
        "}\n"
    )


@given(
    st.dictionaries(
        st.tuples(st.text(min_size=1), st.sampled_from([AMD, ARM])), st.binary(max_size=2).map(Digest.of), max_size=4
    )
)
def test_reading_and_writing_are_inverse(digests: dict[tuple[str, Platform], Digest]) -> None:
    pins = Pins(digests={Use.of(base, platform): digest for (base, platform), digest in digests.items()})
    assert Pins.parse(pins.to_bytes()) == pins
    backwards = Pins(digests=dict(reversed(list(pins.digests.items()))))
    assert backwards.to_bytes() == pins.to_bytes()


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "ociforge.lock"
    assert Pins.read(path) == Pins()
    PINS.write(path)
    assert Pins.read(path) == PINS
    assert path.stat().st_mode & 0o777 == 0o644 and list(tmp_path.iterdir()) == [path]
    with pytest.raises(LockError, match="cannot write"):
        PINS.write(tmp_path / "missing" / "ociforge.lock")
    with pytest.raises(LockError, match=r"cannot read .*: Is a directory"):
        Pins.read(tmp_path)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "Expecting value"),
        ("[]", "it has no `version`"),
        ("{}", "it has no `version`"),
        ('{"version": "1", "bases": {}}', "it has no `version`"),
        ('{"version": 0, "bases": {}}', "expected `version` and `bases`, and nothing else"),
        ('{"version": 1}', "expected `version` and `bases`, and nothing else"),
        ('{"version": 1, "bases": {}, "more": 1}', "expected `version` and `bases`, and nothing else"),
        ('{"version": 1, "bases": []}', "expected an object under `bases`"),
        ('{"version": 1, "bases": {"a": 1}}', "expected an object under `a`"),
        ('{"version": 1, "version": 1, "bases": {}}', "a key stands twice"),
        (f'{{"version": 1, "bases": {{"a": {{"linux/pdp11": "{ONE}"}}}}}}', "`a`: unknown platform: `linux/pdp11`"),
        ('{"version": 1, "bases": {"a": {"linux/amd64": "sha256:12"}}}', "`a`: "),
        ('{"version": 1, "bases": {"a": {"linux/amd64": 7}}}', "`a`: "),
        ("[" * 100_000, ""),
    ],
)
def test_what_is_damaged_is_refused(text: str, why: str) -> None:
    with pytest.raises(LockError) as caught:
        Pins.parse(text.encode())
    assert caught.value.message.startswith(f"`ociforge.lock` is damaged: {why}")
    assert caught.value.hint is not None and "`ociforge lock --upgrade --only bases`" in caught.value.hint


def test_a_newer_format_is_not_called_damaged() -> None:
    with pytest.raises(LockError, match=r"`ociforge.lock` has format 2: newer than this ociforge reads"):
        Pins.parse(json.dumps({"version": 2, "bases": {}, "more": 1}).encode())


def test_what_fits() -> None:
    assert PINS.find(Use.of(UBUNTU, ARM)) == ONE
    assert PINS.find(Use.of("oci:layout", ARM)) is None
    PINS.require(Use.of(UBUNTU, AMD), ONE)
    PINS.require(Use.of("scratch", ARM), None)


@pytest.mark.parametrize(
    ("pins", "use", "digest", "complaint"),
    [
        (
            PINS,
            Use.of("oci:layout", ARM),
            TWO,
            "the base image `oci:layout` for `linux/arm64` is not pinned in `ociforge.lock`: it has `linux/amd64`",
        ),
        (
            PINS,
            Use.of("oci:b", AMD),
            TWO,
            f"the base image `oci:b` for `linux/amd64` {UNPINNED}: it has `{UBUNTU}`, `oci:layout`",
        ),
        (
            Pins(),
            Use.of(UBUNTU, AMD),
            ONE,
            f"the base image `{UBUNTU}` for `linux/amd64` is not pinned in `ociforge.lock`",
        ),
        (
            PINS,
            Use.of("oci:layout", AMD),
            ONE,
            f"{CHANGED}: it was `{TWO}`, it is `{ONE}`",
        ),
        (
            PINS,
            Use.of("oci:layout", AMD),
            None,
            f"{CHANGED}: it was `{TWO}`, it is not known by digest",
        ),
    ],
)
def test_complaints(pins: Pins, use: Use, digest: Digest | None, complaint: str) -> None:
    assert pins.complaint(use, digest) == complaint
    with pytest.raises(LockError) as caught:
        pins.require(use, digest)
    assert (caught.value.message, caught.value.hint) == (complaint, "run `ociforge lock`")
