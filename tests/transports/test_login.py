"""What a registry is asked before a credential is kept, and who else never hears of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ociforge.errors import AuthError, RegistryError
from ociforge.events import ignore
from ociforge.transports.credential import Account, Credential
from ociforge.transports.login import verify
from ociforge.transports.options import RegistryOptions
from tests.support.fake_registry import PASSWORD, USER, FakeRegistry, answer, running_fake

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def fake() -> Iterator[FakeRegistry]:
    with running_fake() as registry:
        yield registry


@pytest.fixture
def other() -> Iterator[FakeRegistry]:
    with running_fake("127.0.0.2") as registry:
        yield registry


def ask(fake: FakeRegistry, password: str = PASSWORD) -> bool:
    credential = Credential(source="here", username=USER, password=password)
    return verify(Account(registry=fake.host), credential, RegistryOptions(), ignore, sleep=lambda seconds: None)


def calls(fake: FakeRegistry) -> list[str]:
    return [str(call) for call in fake.calls]


def test_a_password(fake: FakeRegistry) -> None:
    fake.auth = "basic"
    assert ask(fake)
    assert calls(fake) == ["GET /v2/", "GET /v2/"]


def test_a_wrong_password_is_tried_once(fake: FakeRegistry) -> None:
    fake.auth = "basic"
    with pytest.raises(AuthError) as caught:
        ask(fake, "hunter2")
    assert calls(fake) == ["GET /v2/", "GET /v2/"]
    assert caught.value.message.endswith("so says the fake: the credential from `here` was refused")
    assert caught.value.hint is not None and caught.value.hint.startswith("check the user name and the password")
    assert "hunter2" not in f"{caught.value.message}{caught.value.hint}"


def test_a_token(fake: FakeRegistry) -> None:
    fake.auth = "bearer"
    assert ask(fake)
    assert calls(fake) == ["GET /v2/", "GET /token", "GET /v2/"]
    assert len({header.partition(" ")[0] for header in fake.secrets()}) == 2


@pytest.mark.parametrize("status", [401, 403])
def test_no_token_for_a_wrong_password(fake: FakeRegistry, status: int) -> None:
    """GHCR says 403."""
    fake.auth = "bearer"
    fake.on("GET", "^/token$", answer(status))
    with pytest.raises(AuthError) as caught:
        ask(fake, "hunter2")
    assert calls(fake) == ["GET /v2/", "GET /token"]
    assert caught.value.hint is not None and caught.value.hint.startswith("check the user name and the password")


def test_a_registry_that_lets_everybody_in_is_shown_the_password(fake: FakeRegistry) -> None:
    assert not ask(fake)
    assert calls(fake) == ["GET /v2/", "GET /v2/"]
    assert len(fake.secrets()) == 1


def test_a_registry_that_lets_everybody_in_may_still_mind_a_wrong_one(fake: FakeRegistry) -> None:
    fake.auth = "basic"
    fake.on("GET", "^/v2/$", answer(200))
    with pytest.raises(AuthError, match=": 401 "):
        ask(fake, "hunter2")
    assert len(fake.secrets()) == 1


def test_a_registry_that_lets_everybody_in_may_want_a_token(fake: FakeRegistry) -> None:
    fake.auth = "bearer"
    fake.on("GET", "^/v2/$", answer(200))
    assert ask(fake)
    assert calls(fake) == ["GET /v2/", "GET /v2/", "GET /token", "GET /v2/"]
    fake.on("GET", "^/v2/$", answer(200))
    with pytest.raises(AuthError):
        ask(fake, "hunter2")


@pytest.mark.parametrize("status", [403, 404])
def test_another_refusal_is_one_too(fake: FakeRegistry, status: int) -> None:
    fake.on("GET", "^/v2/$", answer(200))
    fake.on("GET", "^/v2/$", answer(status))
    with pytest.raises(RegistryError, match=f": {status} "):
        ask(fake)


def test_what_is_no_registry(fake: FakeRegistry) -> None:
    fake.on("GET", "^/v2/$", answer(404))
    with pytest.raises(RegistryError, match=r"GET `http://127\.0\.0\.1:\d+/v2/`: 404 Not Found"):
        ask(fake)
    assert fake.secrets() == []


def test_no_other_host_hears_of_it(fake: FakeRegistry, other: FakeRegistry) -> None:
    """Neither a token service that the registry names nor one that it redirects to."""
    fake.auth, fake.realm = "bearer", f"http://{other.host}/token"
    with pytest.raises(AuthError):
        ask(fake)
    assert other.calls == [] == fake.secrets()
    fake.on("GET", "^/v2/$", answer(307, Location=f"http://{other.host}/v2/"))
    other.auth = "basic"
    with pytest.raises(RegistryError):
        ask(fake)
    assert other.secrets() == [] == fake.secrets()
