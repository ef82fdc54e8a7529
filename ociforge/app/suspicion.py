"""What looks as if it should not go into an image, by its name or the first bytes of its content."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final, Literal, TypeAlias

from layers.entry import FileContent
from ociforge.app.ignore import Patterns
from ociforge.url_secrets import url_secrets

__all__ = ["Suspicion", "suspicion"]

# A credential; or an image, which is what an earlier build left in the workspace: each build would pack the last one's.
Suspicion: TypeAlias = Literal["secret", "image"]

# Where credentials are kept by convention.
_SECRET_NAMES: Final = """
    .env .env.* !.env.defaults !.env.dist !.env.example !.env.sample !.env.template .envrc
    .netrc _netrc .npmrc .pypirc .condarc .git-credentials .htpasswd .my.cnf .pgpass .vault-token
    id_dsa* id_ecdsa* id_ed25519* id_rsa* !id_*.pub *.key *.jks *.kdbx *.p12 *.pfx
    credentials.json client_secret*.json service[-_]account*.json kubeconfig *.kubeconfig !kubeconfig/
    .aws/ .azure/ .gnupg/ .kube/ .ssh/ **/.config/gcloud/ **/.docker/config.json
"""
_SECRETS: Final = Patterns(_SECRET_NAMES.split())

_KEY: Final = rb"-----BEGIN [A-Z ]*PRIVATE KEY(?: BLOCK)?-----"  # RFC 7468; `BLOCK` is OpenPGP's
_HOLDS_KEY: Final = re.compile(_KEY).search
_BEGINS_WITH_KEY: Final = re.compile(rb"(?:\xef\xbb\xbf)?\s*" + _KEY).match
_KEY_SIZE: Final = 64 << 10  # 64 KiB: keys and certificates are short
_CERTIFICATES: Final = (".pem", ".crt", ".cer", ".cert")  # the key stands before or after them

# A lock and a manifest hold the URLs of channels and indexes, some with a password or conda's token in them.
_WITH_URLS: Final = ("pixi.lock", "pixi.toml", "pyproject.toml", "mojoproject.toml")

_BLOCK: Final = 512  # of a tar: a header is one, and the end of the archive two
_NAME: Final = slice(0, 100)
_MAGIC: Final = slice(257, 262)
# The first member of an image archive: ours and skopeo's begin with the directory `blobs/`, those of `docker save`
# with it or, as `podman save`, with a layer or a configuration.
_FIRST_MEMBER: Final = re.compile(
    rb"blobs/(?:sha256/.*)?|oci-layout|index\.json|manifest\.json|[0-9a-f]{64}(?:/.*|\.tar|\.json)"
)


def suspicion(path: str, child: os.DirEntry[bytes]) -> Suspicion | None:
    """What a file or directory looks like; `path` is relative to the workspace. Links look like nothing.

    Reads little: the first block of small files and of what may be a tar, more of certificates alone.
    """
    is_directory = child.is_dir(follow_symlinks=False)
    if _SECRETS.decide(path, is_directory=is_directory):
        return "secret"
    place = Path(os.fsdecode(child.path))
    try:
        if is_directory:
            return "image" if _is_layout(place) else None
        if child.is_file(follow_symlinks=False):
            return _of_content(place, child.stat(follow_symlinks=False).st_size)
    except OSError:
        pass  # reported when it is to be taken
    return None


def _is_layout(directory: Path) -> bool:
    """Whether this is an OCI image layout, finished or not: `index.json` is written last."""
    index, blobs = directory / "index.json", directory / "blobs"
    return (directory / "oci-layout").is_file() and (index.is_file() or blobs.is_dir())


def _of_content(file: Path, size: int) -> Suspicion | None:
    if file.name in _WITH_URLS:
        with FileContent(file).open() as stream:
            text = stream.read().decode("utf-8", "replace")
        return "secret" if any(url_secrets(text)) else None
    is_certificate = file.name.lower().endswith(_CERTIFICATES)
    may_be_key = is_certificate or size <= _KEY_SIZE
    may_be_tar = size >= 2 * _BLOCK and size % _BLOCK == 0
    if not may_be_key and not may_be_tar:
        return None
    with FileContent(file).open() as stream:
        head = stream.read(_KEY_SIZE if is_certificate else _BLOCK)
    if may_be_key and (_HOLDS_KEY if is_certificate else _BEGINS_WITH_KEY)(head):
        return "secret"
    return "image" if may_be_tar and _begins_image(head) else None


def _begins_image(header: bytes) -> bool:
    first = header[_NAME].split(b"\0", 1)[0]
    return header[_MAGIC] == b"ustar" and _FIRST_MEMBER.fullmatch(first) is not None
