"""The laboratory: real registries of every kind, each started when the first test asks for it and shared by all.

Tests keep to repositories of their own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.registry import Registry, running_registry
from tests.support.tls import Authority, new_authority
from tests.support.token_server import TokenServer, running_token_server

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def open_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry that anyone may read and write."""
    with running_registry(tmp_path_factory.mktemp("open")) as running:
        yield running


@pytest.fixture(scope="session")
def password_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry that asks for a password (htpasswd)."""
    with running_registry(tmp_path_factory.mktemp("password"), auth=True) as running:
        yield running


@pytest.fixture(scope="session")
def token_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TokenServer]:
    """The token service of `token_registry`."""
    with running_token_server(tmp_path_factory.mktemp("tokens")) as running:
        yield running


@pytest.fixture(scope="session")
def token_registry(tmp_path_factory: pytest.TempPathFactory, token_server: TokenServer) -> Iterator[Registry]:
    """A registry that asks for tokens of `token_server`."""
    with running_registry(tmp_path_factory.mktemp("token"), tokens=token_server) as running:
        yield running


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """An authority that nobody knows."""
    return new_authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def tls_registry(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Registry]:
    """A registry whose certificate `authority` signed."""
    with running_registry(tmp_path_factory.mktemp("tls"), certificate=authority.issue("registry")) as running:
        yield running


@pytest.fixture(scope="session")
def mutual_registry(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Registry]:
    """As `tls_registry`, but clients too must have a certificate of `authority` (mTLS)."""
    certificate = authority.issue("mutual")
    with running_registry(
        tmp_path_factory.mktemp("mutual"), certificate=certificate, clients=authority.certificate
    ) as running:
        yield running
