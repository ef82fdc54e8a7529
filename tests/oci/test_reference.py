from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from layers.digest import Digest
from ociforge.errors import ReferenceFormatError
from ociforge.oci.reference import Reference

HEX = "4bf5122f344554c53bde2ebb8cd2b7e3d1600ad631c385a5d7cce23c7785459a"
DIGEST = f"sha256:{HEX}"


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("ubuntu", "docker.io/library/ubuntu:latest"),
        ("ubuntu:24.04", "docker.io/library/ubuntu:24.04"),
        ("docker.io/ubuntu", "docker.io/library/ubuntu:latest"),
        ("index.docker.io/ubuntu", "docker.io/library/ubuntu:latest"),
        ("Docker.IO/ubuntu", "docker.io/library/ubuntu:latest"),
        ("acme/app", "docker.io/acme/app:latest"),
        ("docker.io/acme/team/app:1", "docker.io/acme/team/app:1"),
        ("docker.io", "docker.io/library/docker.io:latest"),
        ("docker.io/localhost/foo", "docker.io/localhost/foo:latest"),
        ("localhost/foo", "localhost/foo:latest"),
        ("localhost:5000/foo", "localhost:5000/foo:latest"),
        ("localhost:5000/foo:1.4", "localhost:5000/foo:1.4"),
        ("foo:5000/bar", "foo:5000/bar:latest"),
        ("foo:5000", "docker.io/library/foo:5000"),
        ("127.0.0.1:5000/foo", "127.0.0.1:5000/foo:latest"),
        ("[::1]:5000/foo", "[::1]:5000/foo:latest"),
        ("[::1]:5000/foo:1", "[::1]:5000/foo:1"),
        ("[2001:DB8::1]/foo", "[2001:db8::1]/foo:latest"),
        ("[::ffff:10.0.0.1]:443/foo", "[::ffff:10.0.0.1]:443/foo:latest"),
        ("ghcr.io/acme/app", "ghcr.io/acme/app:latest"),
        ("GHCR.io/acme/app:V1", "ghcr.io/acme/app:V1"),
        ("registry.example.com:443/a/b/c/d:x", "registry.example.com:443/a/b/c/d:x"),
        ("xn--bcher-kva.example/a", "xn--bcher-kva.example/a:latest"),
        ("ghcr.io/a.b/c_d/e__f/g-h/i---j/0", "ghcr.io/a.b/c_d/e__f/g-h/i---j/0:latest"),
        ("ghcr.io/a:_", "ghcr.io/a:_"),
        ("ghcr.io/a:v1.2-3_4", "ghcr.io/a:v1.2-3_4"),
        ("ghcr.io/a:" + "t" * 128, "ghcr.io/a:" + "t" * 128),
        (f"ubuntu@{DIGEST}", f"docker.io/library/ubuntu@{DIGEST}"),
        (f"ubuntu:24.04@{DIGEST}", f"docker.io/library/ubuntu:24.04@{DIGEST}"),
        (f"localhost:5000/a:1@{DIGEST}", f"localhost:5000/a:1@{DIGEST}"),
        (f"ghcr.io/{HEX}", f"ghcr.io/{HEX}:latest"),
        ("ghcr.io/" + "a" * 247, "ghcr.io/" + "a" * 247 + ":latest"),
    ],
)
def test_good_references(text: str, canonical: str) -> None:
    reference = Reference.parse(text)
    assert str(reference) == canonical
    assert Reference.parse(canonical) == reference


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "/",
        "/ubuntu",
        "ubuntu/",
        "a//b",
        "host.io//foo",
        "host.io/foo:tag:bad",
        "host.io/foo:",
        "host.io/foo:-tag",
        "host.io/foo:.tag",
        "host.io/foo:a/b:c",
        "host.io/foo:" + "t" * 129,
        "host.io/foo:tägg",
        "host.io/foo?x=1",
        "host.io/foo#x",
        "host.io/foo bar",
        "host.io/foo\n",
        "host.io/foo:tag\n",
        "host.io/foo%2fbar",
        "host.io/../foo",
        "host.io/foo/..",
        "host.io/./foo",
        "host.io/-foo",
        "host.io/foo-",
        "host.io/foo_",
        "host.io/fo..o",
        "host.io/fo.-o",
        "host.io/fo___o",
        "host.io/fóo",
        "host.io/٣",
        "host.io:/foo",
        "host.io:0/foo",
        "host.io:080/foo",
        "host.io:65536/foo",
        "host.io:99999999999/foo",
        "host.io:5٣/foo",
        "host.io:5000:5000/foo",
        "-host.io/foo",
        "host-.io/foo",
        "host..io/foo",
        ".io/foo",
        "host_name.io/foo",
        "user@host.io/foo",
        "user:password@host.io/foo",
        "[::1/foo",
        "::1]/foo",
        "[]/foo",
        "[::1]5000/foo",
        "[::1]:/foo",
        "[::g]:5000/foo",
        "[fe80::1%eth0]:5000/foo",
        "[127.0.0.1]:5000/foo",
        "a[::1]:5000/foo",
        "foo@",
        "foo@bad",
        "foo@sha256:",
        "foo@sha256:" + HEX[:-1],
        "foo@sha256:" + HEX.upper(),
        "foo@sha256:../../" + HEX,
        "foo@sha512:" + HEX * 2,
        f"foo@{DIGEST}:tag",
        f"foo@{DIGEST}@{DIGEST}",
        f"foo@{DIGEST}\n",
        HEX,
        f"{HEX}:tag",
        "ghcr.io/" + "a" * 248,
        "a" * 1_000_000,
        "a-" * 500_000,
    ],
)
def test_bad_references(text: str) -> None:
    with pytest.raises(ReferenceFormatError) as caught:
        Reference.parse(text)
    message = caught.value.message
    assert message.startswith("malformed image reference: `")
    assert "\n" not in message
    assert len(message) < 1500
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("text", ["Ubuntu", "acme/App", "Acme/app", "ghcr.io/Acme/app"])
def test_upper_case_repositories_are_explained(text: str) -> None:
    with pytest.raises(ReferenceFormatError, match="upper-case letters") as caught:
        Reference.parse(text)
    assert caught.value.hint == "repository must be lowercase"


@pytest.mark.parametrize("text", ["UPPER", "a..b", "x@", ""])
def test_what_was_not_written_is_not_quoted(text: str) -> None:
    with pytest.raises(ReferenceFormatError) as caught:
        Reference.parse(text)
    assert "library" not in caught.value.message


@pytest.mark.parametrize("scheme", ["https://", "http://", "HTTPS://", "docker://", "oci+x://"])
def test_schemes_are_explained(scheme: str) -> None:
    with pytest.raises(ReferenceFormatError) as caught:
        Reference.parse(f"{scheme}ghcr.io/acme/app:1")
    assert caught.value.message == f"malformed image reference: `{scheme}ghcr.io/acme/app:1`: a reference has no scheme"
    assert caught.value.hint == f"leave out `{scheme}`"


def test_parts_of_a_reference() -> None:
    reference = Reference.parse(f"localhost:5000/team/app:1.4@{DIGEST}")
    assert reference == Reference(
        registry="localhost:5000", repository="team/app", tag="1.4", digest=Digest.parse(DIGEST)
    )
    assert reference.name == "localhost:5000/team/app"
    assert reference.identifier == DIGEST
    assert Reference.parse("localhost:5000/team/app:1.4").identifier == "1.4"
    assert Reference.parse(f"a@{DIGEST}").tag is None


@pytest.mark.parametrize(
    ("registry", "repository", "tag"),
    [
        ("docker.io", "ubuntu", "latest"),
        ("index.docker.io", "library/ubuntu", "latest"),
        ("GHCR.io", "a", "latest"),
        ("ghcr", "a", "latest"),
        ("ghcr.io/a", "b", "latest"),
        ("ghcr.io", "a:b", "latest"),
        ("ghcr.io", "a", "b:c"),
        ("ghcr.io", "a", ""),
        ("ghcr.io", "a", None),
        ("", "a", "latest"),
    ],
)
def test_what_could_not_be_read_back_cannot_be_made(registry: str, repository: str, tag: str | None) -> None:
    with pytest.raises(ReferenceFormatError):
        Reference(registry=registry, repository=repository, tag=tag)


_components = st.from_regex(r"[a-z0-9]{1,5}((\.|_|__|-{1,3})[a-z0-9]{1,5}){0,2}", fullmatch=True)
_hosts = st.one_of(
    st.sampled_from(["localhost", "docker.io", "ghcr.io", "10.0.0.1", "[::1]", "[2001:db8::a]"]),
    st.from_regex(r"[a-z0-9]([a-z0-9-]{0,5}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,5}[a-z0-9])?){1,3}", fullmatch=True),
)


@st.composite
def references(draw: st.DrawFn) -> Reference:
    host = draw(_hosts.filter(lambda host: host != "index.docker.io"))
    port = draw(st.none() | st.integers(min_value=1, max_value=65535))
    registry = host if port is None else f"{host}:{port}"
    least = 2 if registry == "docker.io" else 1
    tag = draw(st.none() | st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,20}", fullmatch=True))
    digest = draw(st.builds(Digest.of, st.binary(max_size=4)) if tag is None else st.none() | st.just(Digest.of(b"")))
    repository = "/".join(draw(st.lists(_components, min_size=least, max_size=4)))
    return Reference(registry=registry, repository=repository, tag=tag, digest=digest)


@settings(deadline=None)
@given(references())
def test_parse_and_str_are_inverse(reference: Reference) -> None:
    assert Reference.parse(str(reference)) == reference


@settings(deadline=None)
@given(st.text(alphabet="aA0.:/@-_[]sha256% \n", max_size=40) | st.text(max_size=20))
@example(f"a@{DIGEST}")
def test_any_text_is_a_reference_that_reads_back_or_an_error(text: str) -> None:
    try:
        reference = Reference.parse(text)
    except ReferenceFormatError:
        return
    assert Reference.parse(str(reference)) == reference


@pytest.mark.parametrize(
    "text",
    [
        "user:s3cret@host.io/a/b:1",
        "https://user:s3cret@host.io/a",
        "s3cret@host.io/a",
        "user:s3cret@host.io",
        ":s3cret@h/a",
    ],
)
def test_passwords_are_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(ReferenceFormatError, match="holds no user and password") as caught:
        Reference.parse(text)
    assert "s3cret" not in caught.value.message
