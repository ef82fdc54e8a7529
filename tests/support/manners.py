"""Registries with the manners of well-known ones, as far as they make trouble for a client.

Each class has the quirks that clients' authors have reported of that registry; what the docstring of the class does not
name is as in `FakeRegistry`.
"""

from __future__ import annotations

import json
import re
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from layers.digest import Digest
from ociforge.oci.descriptor import CONFIG, DOCKER_CONFIG, DOCKER_MANIFEST
from tests.support.fake_registry import FakeRegistry, error_body

if TYPE_CHECKING:
    from tests.support.fake_registry import Call, Exchange

__all__ = [
    "Acr",
    "ArtifactRegistry",
    "Artifactory",
    "Distribution",
    "DockerHub",
    "Ecr",
    "Ghcr",
    "GitLab",
    "Harbor",
    "Nexus",
    "Quay",
    "Zot",
]


@dataclass
class Distribution(FakeRegistry):
    """docker-registry 2.x: POST takes no blob, there is no referrers API, and a subject is not acknowledged."""

    def start(self, exchange: Exchange, repository: str) -> None:
        assert not exchange.call.body and "digest" not in exchange.call.query, "a single POST would be thrown away"
        super().start(exchange, repository)


@dataclass
class Ecr(FakeRegistry):
    """Amazon: PATCH is answered 201, and all but the first of a session are thrown away. Tags cannot be put twice, even
    to the same manifest. A manifest with `artifactType` and `subject` is answered 405.
    """

    def patch(self, exchange: Exchange, repository: str, session: str) -> None:
        if not self.sessions[session]:
            self.sessions[session] = exchange.call.body
        self.tell(exchange, 201, repository, session)

    def put_manifest(self, exchange: Exchange, repository: str, name: str) -> None:
        document = json.loads(exchange.call.body)
        if "artifactType" in document and "subject" in document:
            exchange.send(405, error_body("UNSUPPORTED"))
        elif ":" not in name and (repository, name) in self.manifests:
            exchange.send(400, error_body("TAG_INVALID", f"The image tag '{name}' already exists and is immutable"))
        else:
            super().put_manifest(exchange, repository, name)


@dataclass
class Ghcr(FakeRegistry):
    """GitHub: a PATCH with a Content-Range may have 4 MiB. Tokens to push are refused outside `writable`; challenges
    ask for a scope that stands for nothing. Referrers lead to a web page, which is soon answered 429. The first `late`
    manifests name blobs that have not been heard of yet.
    """

    writable: frozenset[str] = frozenset({"team/app"})
    late: int = 0

    def patch(self, exchange: Exchange, repository: str, session: str) -> None:
        if "Content-Range" in exchange.call.headers and len(exchange.call.body) > 4 << 20:
            exchange.send(416, error_body("BLOB_UPLOAD_INVALID"))
        else:
            super().patch(exchange, repository, session)

    def challenge(self, scope: str) -> str:
        return super().challenge("repository:user/image:pull")

    def grant(self, scopes: list[str]) -> list[str] | None:
        for scope in scopes:
            _, name, actions = scope.split(":")
            if "push" in actions and name not in self.writable:
                return None
        return scopes

    def put_manifest(self, exchange: Exchange, repository: str, name: str) -> None:
        if self.late:
            self.late -= 1
            exchange.send(404, error_body("MANIFEST_BLOB_UNKNOWN", "unknown blob"))
        else:
            super().put_manifest(exchange, repository, name)

    def _referrers(self, exchange: Exchange, repository: str, digest: str) -> None:
        exchange.send(303, headers={"Location": "/page"})

    def serve(self, exchange: Exchange) -> None:
        if exchange.call.path != "/page":
            super().serve(exchange)
        elif len(self.seen("GET", "^/page")) == 1:
            exchange.send(200, b"<html>", {"Content-Type": "text/html"})
        else:
            exchange.send(429, headers={"Retry-After": "3600"})


@dataclass
class DockerHub(FakeRegistry):
    """Docker Hub: it claims to have the blobs in `claimed`, until a manifest names one. A mount needs the right to pull
    the source. GETs of manifests count, beyond `allowance` they are answered 429. Before a manifest is put, all tokens
    die if `tokens_die`.
    """

    claimed: set[str] = field(default_factory=set)
    allowance: int = 1000
    tokens_die: bool = False

    def blob_answer(self, call: Call) -> tuple[int, bytes, dict[str, str]]:
        digest = call.path.rpartition("/")[2]
        return (200, b"", {}) if digest in self.claimed else super().blob_answer(call)

    def start(self, exchange: Exchange, repository: str) -> None:
        source = exchange.call.query.get("from")
        token = exchange.call.headers.get("Authorization", "").removeprefix("Bearer ")
        if source and self.auth == "bearer" and f"repository:{source[0]}:pull" not in self.tokens[token]:
            exchange.send(401, error_body("UNAUTHORIZED"), {"WWW-Authenticate": self.challenge("")})
        else:
            super().start(exchange, repository)

    def put_manifest(self, exchange: Exchange, repository: str, name: str) -> None:
        if self.tokens_die:
            self.tokens_die = False
            self.tokens.clear()
            self.serve(exchange)
            return
        blobs = _named(exchange.call.body)
        missing = [blob for blob in blobs if (repository, blob) not in self.blobs]
        if missing:
            exchange.send(400, error_body("MANIFEST_BLOB_UNKNOWN", f"blob unknown to registry: {missing[0]}"))
        else:
            super().put_manifest(exchange, repository, name)

    def finish(self, exchange: Exchange, repository: str, session: str) -> None:
        self.claimed.discard(exchange.call.query["digest"][0])
        super().finish(exchange, repository, session)

    def get_manifest(self, exchange: Exchange, repository: str, name: str) -> None:
        if exchange.call.method == "GET":
            self.allowance -= 1
        if self.allowance < 0:
            exchange.send(429, error_body("TOOMANYREQUESTS"), {"Retry-After": "21600"})
        else:
            super().get_manifest(exchange, repository, name)


def _named(manifest: bytes) -> list[str]:
    document = json.loads(manifest)
    return [blob["digest"] for blob in (document["config"], *document["layers"])] if "config" in document else []


@dataclass
class ArtifactRegistry(FakeRegistry):
    """Google: blobs come in one request; bytes of PATCHes with a Content-Range are not wanted, though the state of a
    session suggests it. No referrers API.
    """

    def patch(self, exchange: Exchange, repository: str, session: str) -> None:
        if "Content-Range" in exchange.call.headers:
            exchange.send(400, error_body("UNSUPPORTED", "chunked uploads are not supported"))
        else:
            super().patch(exchange, repository, session)


@dataclass
class Acr(FakeRegistry):
    """Azure: blobs are in a storage at `storage`, which takes no request with somebody else's Authorization."""

    storage: str = ""

    def _blobs(self, exchange: Exchange, repository: str, digest: str) -> None:
        if self.storage and exchange.call.method == "GET":
            exchange.send(307, headers={"Location": f"http://{self.storage}/v2/{repository}/blobs/{digest}?sig=a%2Bb"})
        elif "sig" in exchange.call.query and "Authorization" in exchange.call.headers:
            exchange.send(400, error_body("InvalidAuthenticationInfo"))
        else:
            super()._blobs(exchange, repository, digest)


@dataclass
class Harbor(FakeRegistry):
    """Harbor: a mount from a project that there is not is answered 401, from a name of one level 400. HEAD of a blob
    may redirect. Answers set a cookie, and who sends it back is asked for a CSRF token.
    """

    projects: frozenset[str] = frozenset({"team", "library"})

    def serve(self, exchange: Exchange) -> None:
        if "Cookie" in exchange.call.headers:
            exchange.send(403, error_body("FORBIDDEN", "CSRF token not found in request"))
        else:
            super().serve(exchange)

    def start(self, exchange: Exchange, repository: str) -> None:
        source = exchange.call.query.get("from", [""])[0]
        if source and "/" not in source:
            exchange.send(400, error_body("BAD_REQUEST", "bad request"))
        elif source and source.partition("/")[0] not in self.projects:
            exchange.send(401, error_body("UNAUTHORIZED"), {"WWW-Authenticate": self.challenge("")})
        else:
            super().start(exchange, repository)

    def tell(self, exchange: Exchange, status: int, repository: str, session: str) -> None:
        exchange.extra["Set-Cookie"] = "sid=1; Path=/; HttpOnly"
        super().tell(exchange, status, repository, session)

    def _blobs(self, exchange: Exchange, repository: str, digest: str) -> None:
        if "moved" in exchange.call.query or (repository, digest) not in self.blobs:
            super()._blobs(exchange, repository, digest)
        else:
            exchange.send(307, headers={"Location": f"{exchange.call.path}?moved"})


@dataclass
class Artifactory(FakeRegistry):
    """JFrog: old ones know no upload whose PUT has a body. Upload calls must accept anything. Challenges name the
    repository without the key that the path begins with. The history of a configuration must fit its layers.
    """

    def put_manifest(self, exchange: Exchange, repository: str, name: str) -> None:
        document = json.loads(exchange.call.body)
        config = json.loads(self.blobs[repository, document["config"]["digest"]])
        steps = [step for step in config.get("history", []) if not step.get("empty_layer")]
        if steps and len(steps) != len(document["layers"]):
            exchange.send(400, error_body("MANIFEST_INVALID", "history and layers differ"))
        else:
            super().put_manifest(exchange, repository, name)

    def _blobs_uploads(self, exchange: Exchange, repository: str, session: str) -> None:
        if exchange.call.headers.get("Accept") != "*/*":
            exchange.send(406, error_body("NOT_ACCEPTABLE"))
        elif exchange.call.method == "PUT" and exchange.call.body:
            exchange.send(404, error_body("BLOB_UNKNOWN"))
        else:
            super()._blobs_uploads(exchange, repository, session)

    def challenge(self, scope: str) -> str:
        return super().challenge(re.sub(r":[^/:]+/", ":", scope, count=1))


@dataclass
class GitLab(FakeRegistry):
    """GitLab: of several scopes the last one counts. Manifests must come under the type that they say, with a config of
    a type that is known.
    """

    def grant(self, scopes: list[str]) -> list[str]:
        return scopes[-1:]

    def put_manifest(self, exchange: Exchange, repository: str, name: str) -> None:
        document = json.loads(exchange.call.body)
        config = document.get("config", {}).get("mediaType", CONFIG)
        if document.get("mediaType") != exchange.call.headers["Content-Type"] or config not in (CONFIG, DOCKER_CONFIG):
            exchange.send(400, error_body("MANIFEST_INVALID", "manifest invalid"))
        else:
            super().put_manifest(exchange, repository, name)


@dataclass
class Quay(FakeRegistry):
    """Quay: one manifest at a time. Who does not accept OCI types gets schema 1."""

    busy: threading.Lock = field(default_factory=threading.Lock)

    def put_manifest(self, exchange: Exchange, repository: str, name: str) -> None:
        if not self.busy.acquire(blocking=False):
            exchange.send(400, error_body("MANIFEST_INVALID"))
            return
        try:
            time.sleep(0.01)  # so that two that come together do meet
            super().put_manifest(exchange, repository, name)
        finally:
            self.busy.release()

    def get_manifest(self, exchange: Exchange, repository: str, name: str) -> None:
        wanted = exchange.call.headers.get("Accept", "")
        if all(f"application/vnd.{kind}" in wanted for kind in ("oci.image.manifest", "oci.image.index")):
            super().get_manifest(exchange, repository, name)
        else:
            schema1 = {"Content-Type": "application/vnd.docker.distribution.manifest.v1+prettyjws"}
            exchange.send(200, b'{"schemaVersion": 1}', schema1)


@dataclass
class Zot(FakeRegistry):
    """zot: OCI types and no others."""

    def put_manifest(self, exchange: Exchange, repository: str, name: str) -> None:
        if exchange.call.headers["Content-Type"] == DOCKER_MANIFEST or b"vnd.docker." in exchange.call.body:
            exchange.send(415, error_body("MANIFEST_INVALID", "docker media types are not supported"))
        else:
            super().put_manifest(exchange, repository, name)


@dataclass
class Nexus(FakeRegistry):
    """Nexus: Basic, with a realm that is no URL. A blob that another client is uploading cannot be uploaded: for the
    digests in `others`, the first closing PUT fails, and then the other client's blob is there, or is given up
    (False).
    """

    others: dict[str, bool] = field(default_factory=dict)

    def finish(self, exchange: Exchange, repository: str, session: str) -> None:
        digest = exchange.call.query["digest"][0]
        if digest not in self.others:
            super().finish(exchange, repository, session)
            return
        data = self.sessions.pop(session)
        if self.others.pop(digest):
            self.blobs[repository, digest] = data
        assert str(Digest.of(data)) == digest
        exchange.send(400, error_body("UNKNOWN", "Asset is being updated by another request and cannot be updated"))
