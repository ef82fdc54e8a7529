"""Options and variables that say how to talk to registries, and values that are no values: exit status 2."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from ociforge.cli.options import OptionError
from ociforge.cli.registries import registry_options
from ociforge.transports.options import RegistryOptions
from tests.support.registry import running_registry
from tests.support.tools import need

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.program import Forge
    from tests.support.tiny import Tiny


@dataclass(frozen=True, slots=True)
class Pem:
    """Files in PEM: a certificate, its key, that with a password, both in one, and a key of another."""

    certificate: Path
    key: Path
    encrypted: Path
    both: Path
    stranger: Path


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Pem:
    directory = tmp_path_factory.mktemp("pem")
    found = Pem(*(directory / name for name in ("cert", "key", "encrypted", "both", "stranger")))
    names = ["-addext", "subjectAltName=IP:127.0.0.1"]
    curve = ["-pkeyopt", "ec_paramgen_curve:P-256"]
    make = ["req", "-x509", "-newkey", "ec", *curve, "-nodes", "-subj", "/CN=x", *names, "-out", str(found.certificate)]
    for arguments in (
        [*make, "-keyout", str(found.key)],
        ["pkey", "-in", str(found.key), "-aes128", "-passout", "pass:x", "-out", str(found.encrypted)],
        ["genpkey", "-algorithm", "ec", *curve, "-out", str(found.stranger)],
    ):
        subprocess.run([need("openssl"), *arguments], check=True, capture_output=True)
    found.both.write_bytes(found.certificate.read_bytes() + found.key.read_bytes())
    return found


def resolve(environ: dict[str, str] | None = None, **given: Any) -> RegistryOptions:
    return registry_options(environ or {}, **given)


def test_without_any_all_is_as_it_was() -> None:
    assert resolve() == RegistryOptions()
    assert resolve({"OCIFORGE_CA_FILE": "", "OCIFORGE_MIRRORS": " , ", "OCIFORGE_TOKEN_HOSTS": ""}) == RegistryOptions()
    assert resolve(insecure=True, workers=7) == RegistryOptions(insecure=True, workers=7)


def test_files(pem: Pem) -> None:
    for environ, given in (
        ({}, {"ca_file": pem.certificate, "client_cert": pem.certificate, "client_key": pem.key}),
        (
            {
                "OCIFORGE_CA_FILE": str(pem.certificate),
                "OCIFORGE_CLIENT_CERT": str(pem.certificate),
                "OCIFORGE_CLIENT_KEY": str(pem.key),
            },
            {},
        ),
    ):
        found = resolve(environ, **{name: str(path) for name, path in given.items()})
        assert (found.ca_file, found.client_cert) == (pem.certificate, (pem.certificate, pem.key))
    assert resolve(client_cert=str(pem.both)).client_cert == pem.both


def test_a_registry_that_wants_certificates(
    forge: Forge, pem: Pem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is trusted by its own authority, and trusts those whom that has signed."""
    monkeypatch.setattr("ociforge.transports.http._BACKOFF", 0.01)  # seconds between attempts
    trusted = {"OCIFORGE_CA_FILE": str(pem.certificate)}
    shown = ("--client-cert", pem.certificate, "--client-key", pem.key)
    with running_registry(
        tmp_path / "registry", certificate=(pem.certificate, pem.key), clients=pem.certificate
    ) as registry:
        image = f"docker://{registry.host}/nothing:1"
        for arguments, variables, expected in (
            (shown, {}, "no TLS connection"),
            ((), trusted, "HEAD `https://.*: "),
            (shown, trusted, "has no `1`"),
        ):
            done = forge("push", image, f"oci:{tmp_path}/to", *arguments, variables=variables)
            assert done.code == 1
            assert re.search(expected, done.message), done.message
            assert ("404" in done.message.replace(registry.host, "")) == (expected == "has no `1`")


def test_options_beat_variables(pem: Pem) -> None:
    """And a certificate that an option names is not matched with a variable's key."""
    environ = {
        "OCIFORGE_CA_FILE": "/nothing",
        "OCIFORGE_CLIENT_CERT": "/nothing",
        "OCIFORGE_CLIENT_KEY": str(pem.stranger),
        "OCIFORGE_MIRRORS": "r.io=no.io",
        "OCIFORGE_TOKEN_HOSTS": "no.io",
    }
    given = {"ca_file": str(pem.certificate), "client_cert": str(pem.both)}
    found = resolve(environ, **given, mirrors=["r.io=m.io"], token_hosts=["t.io"])
    assert found == RegistryOptions(
        ca_file=pem.certificate,
        client_cert=pem.both,
        mirrors={"r.io": ("m.io",)},
        token_hosts=frozenset({"t.io"}),
    )


def test_mirrors_and_token_hosts() -> None:
    texts = ["docker.io=m.io:5000/hub", "index.docker.io=localhost:5000", "R.io:1=[::1]:5000/a/b"]
    expected = {"docker.io": ("m.io:5000/hub", "localhost:5000"), "r.io:1": ("[::1]:5000/a/b",)}
    for found in (resolve(mirrors=texts), resolve({"OCIFORGE_MIRRORS": ", ".join(texts)})):
        assert found.mirrors == expected
    hosts = ["Auth.Example.com", "127.0.0.1", "[::1]"]
    for found in (resolve(token_hosts=hosts), resolve({"OCIFORGE_TOKEN_HOSTS": ",".join(hosts)})):
        assert found.token_hosts == {"auth.example.com", "127.0.0.1", "::1"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"mirrors": ["docker.io"]}, "--mirror: `docker.io`: "),
        ({"mirrors": ["=m.io"]}, "--mirror: `=m.io`: "),
        ({"mirrors": ["docker.io=https://m.io"]}, "--mirror: `docker.io=https://m.io`: "),
        ({"mirrors": ["docker.io=m.io/"]}, "--mirror: `docker.io=m.io/`: "),
        ({"mirrors": ["docker.io=m.io/UP"]}, "--mirror: `docker.io=m.io/UP`: "),
        ({"mirrors": ["r.io/team=m.io"]}, "--mirror: `r.io/team=m.io`: mirrors are for whole registries"),
        ({"token_hosts": ["https://t.io"]}, "--token-host: `https://t.io`: not a host name"),
        ({"token_hosts": ["t.io:443"]}, "--token-host: `t.io:443`: not a host name"),
        ({"token_hosts": [""]}, "--token-host: ``: not a host name"),
        ({"ca_file": "~/none"}, "--ca-file: `~/none`: No such file or directory"),
        ({"ca_file": ""}, "--ca-file: `.`: Is a directory"),
        ({"ca_file": "~/junk"}, "--ca-file: `~/junk`: no certificate in PEM in it"),
        ({"client_cert": "~/none"}, "--client-cert: `~/none`: No such file or directory"),
        ({"client_cert": "~/cert"}, "--client-cert: `~/cert` is not a certificate with its key in PEM"),
        ({"client_cert": "~/junk"}, "--client-cert: `~/junk` is not a certificate with its key in PEM"),
        ({"client_cert": "~/cert", "client_key": "~/none"}, "--client-key: `~/none`: No such file or directory"),
        (
            {"client_cert": "~/cert", "client_key": "~/junk"},
            "--client-cert: `~/cert` and `~/junk` are no pair in PEM",
        ),
        ({"client_cert": "~/cert", "client_key": "~/stranger"}, "--client-cert: `~/cert`: the key is another"),
        ({"client_cert": "~/cert", "client_key": "~/encrypted"}, "the key of the client certificate is encrypted"),
        ({"client_key": "~/key"}, "--client-key: there is no certificate to go with it"),
    ],
)
def test_wrong_values(pem: Pem, given: dict[str, Any], message: str) -> None:
    directory = str(pem.key.parent)
    (pem.key.parent / "junk").write_text("junk")
    given = {key: value.replace("~", directory) if isinstance(value, str) else value for key, value in given.items()}
    with pytest.raises(OptionError) as caught:
        resolve(**given)
    assert caught.value.message.replace(directory, "~").startswith(message)
    assert (caught.value.exit_code, bool(caught.value.hint)) == (2, True)


def test_wrong_variables_are_named() -> None:
    for name, value in (("CA_FILE", "/none"), ("CLIENT_CERT", "/none"), ("MIRRORS", "x"), ("TOKEN_HOSTS", "/")):
        with pytest.raises(OptionError, match=f"^OCIFORGE_{name}: `{value}`: "):
            resolve({f"OCIFORGE_{name}": value})


@pytest.mark.parametrize(
    "arguments",
    [
        ("build", "--ca-file", "/none"),
        ("build", "--mirror", "x"),
        ("build", "--platform", "linux"),
        ("build", "--platform", ""),
        ("build", "--compression", "xz"),
        ("build", "--compression", "zstd:99"),
        ("build", "--environment", ""),
        ("build", "--environment", "nope"),
        ("build", "--image", "nope"),
        ("build", "--base", ""),
        ("build", "--base", "ubuntu"),
        ("build", "--tag", "UP/x", "-o", "oci:x"),
        ("build", "--push", "UP/x"),
        ("build", "--output", "x"),
        ("build", "--workers", "x"),
        ("lock", "--ca-file", "/none"),
        ("lock", "--only", "x"),
        ("push", "--token-host", "/", "oci:x", "oci:y"),
        ("push", "x", "oci:y"),
        ("login", "--client-cert", "/none", "r.io"),
        ("login", "r"),
        ("logout", "r"),
    ],
)
def test_wrong_values_end_with_2_before_anything_is_done(
    forge: Forge, made: Tiny, arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(made.root)
    done = forge(*arguments)
    assert (done.code, bool(done.message)) == (2, True)
    assert not list(forge.cache.rglob("*sha256*/*"))
