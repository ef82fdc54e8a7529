"""Whether `pixi.lock` fits the manifest, for the verbs that must know, and how they say that it does not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from layers.digest import Digest
    from ociforge.errors import LockError
    from ociforge.store import Documents
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


def fitting_lock(workspace: Workspace, *, frozen: bool, verb: str, known: Documents | None = None) -> Lock:
    """The workspace's lock, which fits unless it is `frozen`; `verb` is what the hint offers to do with it as it is.

    What is found to fit is remembered in `known`: the check takes longer than all else that a build does when nothing
    has changed. Raises LockError.
    """
    from ociforge.workspace.lockfile import read

    key = None if frozen or known is None else _key(workspace)
    lock = read(workspace.lock_path)
    if frozen or (known is not None and key is not None and known.find(key) is not None):
        return lock
    verdict = examine(workspace, lock)
    error = refusal(verdict, lock.path.name, frozen=f"pass `--frozen` to {verb} what is locked")
    if error is not None:
        raise error
    if known is not None and key is not None and verdict.lasting and _key(workspace) == key:
        known.record(key, b"{}")
    return lock


def _key(workspace: Workspace) -> Digest | None:
    """A digest of what the check reads, by this version; None where a file cannot be read."""
    from layers.digest import Digest
    from ociforge import __version__

    texts = [f"the lock fits, says ociforge {__version__}"]
    for path in (workspace.manifest.path, workspace.lock_path):
        try:
            texts.append(str(Digest.of(path.read_bytes())))
        except OSError:
            return None
    return Digest.of("\n".join(texts).encode())


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
