"""What a check of the lock finds: reasons against it, and questions that stay open."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct, field

from ociforge.url_secrets import public

if TYPE_CHECKING:
    from ociforge.workspace.environment import Environment

__all__ = ["Reason", "Report", "Verdict"]


class Reason(Struct, frozen=True, kw_only=True):
    """Why the lock does not fit, or what cannot be decided.

    `kind` is pixi's name for it, such as `ChannelsMismatch`. `where` is the manifest's key. `str` is the message with
    environment, platform and key.
    """

    kind: str
    message: str
    environment: str | None = None
    platform: str | None = None
    package: str | None = None
    where: str | None = None

    def __str__(self) -> str:
        places = [f"`{place}`" for place in (self.environment, self.platform) if place is not None]
        key = f" (`{self.where}`)" if self.where is not None and f"`{self.where}`" not in self.message else ""
        return ": ".join([", ".join(places), self.message + key] if places else [self.message + key])


class Verdict(Struct, frozen=True, kw_only=True):
    """The outcome of a check. `satisfied` is true only when there is no reason against it and no open question.

    `lasting`: nothing but manifest and lock decided it, neither the time nor other files.
    """

    reasons: tuple[Reason, ...]
    undecided: tuple[Reason, ...]
    lasting: bool

    @property
    def satisfied(self) -> bool:
        """Whether the lock is known to fit."""
        return not self.reasons and not self.undecided


class Report(Struct):
    """Collects what a check finds, in order. Whatever URLs a message has, their secrets are not kept."""

    reasons: list[Reason] = field(default_factory=list)
    undecided: list[Reason] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.reasons) + len(self.undecided)

    def against(
        self,
        kind: str,
        message: str,
        environment: str | None = None,
        platform: str | None = None,
        *,
        package: str | None = None,
        where: str | None = None,
    ) -> None:
        """Note a reason against the lock."""
        self.reasons.append(
            Reason(
                kind=kind,
                message=public(message),
                environment=environment,
                platform=platform,
                package=package,
                where=where,
            )
        )

    def at(
        self,
        environment: Environment,
        kind: str,
        message: str,
        *,
        package: str | None = None,
        where: str | None = None,
    ) -> None:
        """Note a reason that concerns one environment on one platform."""
        self.against(kind, message, environment.name, environment.platform.name, package=package, where=where)

    def open(
        self, environment: Environment | None, kind: str, message: str, package: str | None, where: str | None = None
    ) -> None:
        """Note a question that cannot be decided."""
        self.undecided.append(
            Reason(
                kind=kind,
                message=public(message),
                environment=None if environment is None else environment.name,
                platform=None if environment is None else environment.platform.name,
                package=package,
                where=where,
            )
        )

    def verdict(self, *, lasting: bool) -> Verdict:
        """Everything noted so far."""
        return Verdict(reasons=tuple(self.reasons), undecided=tuple(self.undecided), lasting=lasting)
