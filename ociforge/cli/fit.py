"""Whether `pixi.lock` fits the manifest, for the verbs that must know, and how they say that it does not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ociforge.errors import LockError
    from ociforge.workspace import Workspace
    from ociforge.workspace.lockfile import Lock
    from ociforge.workspace.satisfy import Reason, Verdict

__all__ = ["examine", "fitting_lock", "refusal", "verdict_json"]


def examine(workspace: Workspace, lock: Lock) -> Verdict:
    """Check the whole lock; durations of `exclude-newer` count from now."""
    from datetime import UTC, datetime

    from ociforge.workspace.satisfy import check

    return check(workspace.manifest, lock, now=datetime.now(UTC))


def refusal(verdict: Verdict, name: str, *, frozen: str) -> LockError | None:
    """One error with every reason why the lock `name` is not the manifest's, or cannot be shown to be; None if it is.

    `frozen` is how the hint says to go on without the check.
    """
    from ociforge.errors import LockError

    if verdict.satisfied:
        return None
    wrong = [f"`{name}` does not fit the manifest: {reason}" for reason in verdict.reasons]
    unknown = [f"`{name}` cannot be checked against the manifest: {reason}" for reason in verdict.undecided]
    hint = f"run `ociforge lock`, or {frozen}" if wrong else f"check it with `pixi lock --check`, then {frozen}"
    return LockError.collect([*wrong, *unknown], hint)


def fitting_lock(workspace: Workspace, *, frozen: bool, verb: str) -> Lock:
    """The workspace's lock, which fits unless it is `frozen`; `verb` is what the hint offers to do with it as it is.

    Raises LockError.
    """
    from ociforge.workspace.lockfile import read

    lock = read(workspace.lock_path)
    if not frozen:
        error = refusal(examine(workspace, lock), lock.path.name, frozen=f"pass `--frozen` to {verb} what is locked")
        if error is not None:
            raise error
    return lock


def verdict_json(verdict: Verdict) -> dict[str, Any]:
    """What `--json` says of a verdict. `key` is the manifest's key; what a reason does not concern is null."""
    return {
        "satisfied": verdict.satisfied,
        "reasons": [_reason_json(reason) for reason in verdict.reasons],
        "undecided": [_reason_json(reason) for reason in verdict.undecided],
    }


def _reason_json(reason: Reason) -> dict[str, str | None]:
    return {
        "kind": reason.kind,
        "environment": reason.environment,
        "platform": reason.platform,
        "package": reason.package,
        "key": reason.where,
        "message": reason.message,
    }
