from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layers.digest import Digest
from ociforge.errors import ImageError
from ociforge.oci.descriptor import Descriptor, canonical_json, parse_json
from ociforge.platform import Platform
from tests.oci.documents import GZIP, descriptor, digest, json_values

HEX = "4bf5122f344554c53bde2ebb8cd2b7e3d1600ad631c385a5d7cce23c7785459a"


def test_canonical_json() -> None:
    document = {"b": [1, {"d": "é\u2028<&", "c": None}], "a": True}
    assert canonical_json(document) == '{"a":true,"b":[1,{"c":null,"d":"é\u2028<&"}]}'.encode()


@settings(deadline=None)
@given(st.dictionaries(st.text(), json_values, max_size=4))
def test_canonical_json_reads_back(document: dict[str, Any]) -> None:
    data = canonical_json(document)
    assert parse_json(data, "document") == document
    assert canonical_json(parse_json(data, "document")) == data


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b"1",
        b'{"a":1,"a":1}',
        b'{"a":{"b":1,"b":2}}',
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":-Infinity}',
        b'{"a":1e999}',
        b'{"a":1}x',
        b"{'a':1}",
        b'{"a":1,}',
        b'\xef\xbb\xbf{"a":1}',
        b'{"a":"\xff"}',
        '{"a":1}'.encode("utf-16"),
        b'{"a":"\\ud800"}',
        b'{"\\udfff":1}',
        b'{"a":"\n"}',
        b'{"a":' + b"9" * 5000 + b"}",
        b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"a":' + b"[" * 70 + b"]" * 70 + b"}",
    ],
)
def test_what_parsers_read_differently_is_refused(data: bytes) -> None:
    with pytest.raises(ImageError, match=r"^document is not "):
        parse_json(data, "document")


@settings(deadline=None)
@given(st.binary(max_size=30) | st.text(alphabet='{}[]":,\\ud8aE0.-', max_size=30).map(str.encode))
def test_any_bytes_are_an_object_or_an_error(data: bytes) -> None:
    try:
        document = parse_json(data, "document")
    except ImageError:
        return
    assert canonical_json(document)


def test_descriptor_reads_back() -> None:
    original = Descriptor(
        media_type=GZIP,
        digest=digest("x"),
        size=1,
        annotations={"b": "2", "a": "1"},
        platform=Platform(architecture="arm64", variant="v8"),
        artifact_type="application/spdx+json",
    )
    assert Descriptor.from_json(json.loads(canonical_json(original.to_json())), "x") == original
    assert descriptor().to_json() == {"mediaType": GZIP, "digest": str(digest("base")), "size": 4}


def test_null_is_absent_and_the_unknown_is_ignored() -> None:
    document = descriptor().to_json() | {"annotations": None, "platform": None, "artifactType": None, "urls": 5, "x": 1}
    assert Descriptor.from_json(document, "x") == descriptor()
    platform = {"os": "linux", "architecture": "amd64", "variant": "", "os.version": "1"}
    read = Descriptor.from_json(descriptor().to_json() | {"platform": platform}, "x")
    assert read.platform == Platform(architecture="amd64")


@pytest.mark.parametrize(
    ("member", "value", "message"),
    [
        ("mediaType", None, "x.mediaType: missing or not a media type"),
        ("mediaType", "", "x.mediaType: missing or not a media type"),
        ("mediaType", "text", "x.mediaType: missing or not a media type"),
        ("mediaType", "text/plain\r\nX-Evil: 1", "x.mediaType: missing or not a media type"),
        ("mediaType", 1, "x.mediaType: missing or not a media type"),
        ("size", None, "x.size: expected a number of bytes, got `None`"),
        ("size", -1, "x.size: expected a number of bytes, got `-1`"),
        ("size", 1.0, "x.size: expected a number of bytes, got `1.0`"),
        ("size", True, "x.size: expected a number of bytes, got `True`"),
        ("size", "1", "x.size: expected a number of bytes, got `1`"),
        ("size", 1 << 63, f"x.size: expected a number of bytes, got `{1 << 63}`"),
        ("annotations", [], "x.annotations: expected an object, got an array"),
        ("annotations", {"a": 1}, "x.annotations[`a`]: expected a string, got a number"),
        ("artifactType", 1, "x.artifactType: expected a string, got a number"),
        ("platform", "linux/amd64", "x.platform: expected an object, got a string"),
        ("platform", {"os": "linux"}, "x.platform: needs `os` and `architecture`"),
        ("platform", {"os": 1, "architecture": "amd64"}, "x.platform.os: expected a string, got a number"),
    ],
)
def test_bad_descriptors(member: str, value: object, message: str) -> None:
    with pytest.raises(ImageError) as caught:
        Descriptor.from_json(descriptor().to_json() | {member: value}, "x")
    assert caught.value.message == message


@pytest.mark.parametrize(
    "text",
    [
        None,
        1,
        "",
        HEX,
        f"sha256:{HEX.upper()}",
        f"sha256:{HEX[1:]}",
        f"sha256:{HEX}0",
        f"sha512:{HEX}{HEX}",
        f"sha256:../../{HEX[6:]}",
        f"sha256:{HEX}\n",
        f" sha256:{HEX}",
    ],
)
def test_bad_digests(text: object) -> None:
    with pytest.raises(ImageError, match=r"^x\.digest: expected `sha256:` and 64 lower-case .*, got `.*`$"):
        Descriptor.from_json(descriptor().to_json() | {"digest": text}, "x")


@settings(deadline=None)
@given(
    st.dictionaries(st.sampled_from(["mediaType", "size", "annotations", "platform", "x"]), json_values) | json_values
)
def test_any_json_is_a_descriptor_or_an_error(document: object) -> None:
    if isinstance(document, dict):
        document = {"mediaType": GZIP, "digest": str(Digest.of(b"")), "size": 0} | document
    try:
        read = Descriptor.from_json(document, "x")
    except ImageError:
        return
    assert Descriptor.from_json(read.to_json(), "x") == read
