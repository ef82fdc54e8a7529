"""How to talk to registries, out of options and variables; what is wrong with them is told before anything starts.

An option beats its variable. A certificate and its key belong together: with `--client-cert`, no variable names the
key. All functions raise OptionError.
"""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import TYPE_CHECKING

from ociforge.cli.options import OptionError
from ociforge.errors import ReferenceFormatError
from ociforge.oci.document import shown
from ociforge.oci.reference import Reference
from ociforge.transports.credential import Account
from ociforge.transports.options import RegistryOptions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["registry_options"]

_HOST = re.compile(r"(?!-)[a-z0-9-]+(?:\.[a-z0-9-]+)*", re.ASCII)


def registry_options(
    environ: Mapping[str, str],
    *,
    insecure: bool = False,
    ca_file: str | None = None,
    client_cert: str | None = None,
    client_key: str | None = None,
    mirrors: Sequence[str] = (),
    token_hosts: Sequence[str] = (),
    workers: int | None = None,
    offline: bool = False,
) -> RegistryOptions:
    """What the options say, as they were given, or the variables in `environ`."""
    authorities = _file("--ca-file", ca_file, "OCIFORGE_CA_FILE", environ)
    certificate = _file("--client-cert", client_cert, "OCIFORGE_CLIENT_CERT", environ)
    key = _file("--client-key", client_key, "OCIFORGE_CLIENT_KEY", environ if client_cert is None else {})
    known = RegistryOptions()
    return RegistryOptions(
        insecure=insecure,
        ca_file=None if authorities is None else _checked_authorities(*authorities),
        client_cert=_client(certificate, key),
        mirrors=_mirrors(*_listed("--mirror", mirrors, "OCIFORGE_MIRRORS", environ)),
        token_hosts=_hosts(*_listed("--token-host", token_hosts, "OCIFORGE_TOKEN_HOSTS", environ)),
        workers=known.workers if workers is None else workers,
        offline=offline,
    )


def _file(option: str, given: str | None, variable: str, environ: Mapping[str, str]) -> tuple[str, Path] | None:
    """A file that can be read, and what named it."""
    name, text = (option, given) if given is not None else (variable, environ.get(variable))
    if text is None or (given is None and not text):  # an empty variable is none
        return None
    path = Path(text)
    try:
        path.open("rb").close()
    except OSError as error:
        raise OptionError(f"{name}: `{path}`: {error.strerror}", "name a file that can be read") from error
    return name, path


def _checked_authorities(name: str, path: Path) -> Path:
    import ssl

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except ssl.SSLError as error:
        raise OptionError(f"{name}: `{path}`: no certificate in PEM in it", "name a bundle of certificates") from error
    return path


def _client(certificate: tuple[str, Path] | None, key: tuple[str, Path] | None) -> Path | tuple[Path, Path] | None:
    """The certificate, with its key in the same file or in the other one."""
    if certificate is None:
        if key is not None:
            raise OptionError(f"{key[0]}: there is no certificate to go with it", "name it with `--client-cert`")
        return None
    import ssl

    name, path = certificate
    where = None if key is None else key[1]
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(path, where, password=_no_password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise OptionError(f"{name}: `{path}`: the key is another certificate's", "name its own key") from error
        files = (
            f"`{path}` is not a certificate with its key" if where is None else f"`{path}` and `{where}` are no pair"
        )
        hint = "name the certificate, and with `--client-key` its key, if that has a file of its own"
        raise OptionError(f"{name}: {files} in PEM", hint) from error
    return path if where is None else (path, where)


def _no_password() -> str:
    """In place of OpenSSL's question on the terminal, which nobody may be at."""
    raise OptionError("the key of the client certificate is encrypted", "decrypt it: `openssl pkey -in KEY -out FILE`")


def _listed(
    option: str, given: Sequence[str], variable: str, environ: Mapping[str, str]
) -> tuple[str, tuple[str, ...]]:
    """What is named, and by what; in a variable it is separated by commas."""
    if given:
        return option, tuple(given)
    return variable, tuple(part.strip() for part in environ.get(variable, "").split(",") if part.strip())


def _mirrors(name: str, texts: Sequence[str]) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for text in texts:
        registry, mirror = _mirror(name, text)
        found[registry] = (*found.get(registry, ()), mirror)
    return found


def _mirror(name: str, text: str) -> tuple[str, str]:
    registry, _, mirror = text.partition("=")
    host, slash, prefix = mirror.partition("/")
    try:
        account = Account.parse(registry)
        Reference(registry=host, repository=f"{prefix}{slash}library/any", tag="latest")
        if account.namespace:
            raise ReferenceFormatError("mirrors are for whole registries")
    except ReferenceFormatError as error:
        hint = "write `HOST=MIRROR[:PORT][/PREFIX]`, such as `docker.io=mirror.example.com/hub`"
        raise OptionError(f"{name}: {shown(text)}: {error.message}", hint) from error
    return account.registry, mirror


def _hosts(name: str, texts: Sequence[str]) -> frozenset[str]:
    return frozenset(_host(name, text) for text in texts)


def _host(name: str, text: str) -> str:
    host = text.lower().removeprefix("[").removesuffix("]")
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        if _HOST.fullmatch(host):
            return host
    raise OptionError(f"{name}: `{text}`: not a host name", "such as `auth.example.com`: no scheme, port or path")
