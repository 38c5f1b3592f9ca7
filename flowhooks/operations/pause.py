"""Pause and resume: a handler's deliveries are stored and wait, and later run after all; it must not know who asks.

What runs already goes on to its end. No delivery is changed, so it costs the same with a million that wait.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final

from flowhooks.ledger import pauses as pausing
from flowhooks.ledger.backlog import HandlerBacklog, backlog
from flowhooks.operations.context import Deed

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from flowhooks.operations.context import Desk

_WILD: Final = frozenset("*?[")


@dataclass(frozen=True, slots=True, kw_only=True)
class Paused:
    """What was paused or resumed, or would be.

    Attributes:
        handlers: the ids of those that were changed.
        passed_over: what was given and changed nothing: ids that the ledger does not know, or of handlers that are
            retired, or were as they should be already; and patterns that mean no others.
        waiting: how many deliveries of `handlers` waited.
        running: how many of theirs ran, and go on to their end.
        dry_run: whether nothing was changed.
    """

    handlers: tuple[str, ...]
    passed_over: tuple[str, ...]
    waiting: int
    running: int
    dry_run: bool


def pause(desk: Desk, handlers: Sequence[str], *, note: str = "", dry_run: bool = False) -> Paused:
    """Have no delivery of handlers begin, in no process, until they are resumed; one that is held is not tried, then.

    Args:
        desk: what operations work with.
        handlers: their ids, `plugin:name`, or patterns of them, such as `contracts:*`.
        note: why, for those who look later.
        dry_run: only say which would be paused.

    Raises:
        Unavailable: the ledger could not be written; nothing was changed.
    """
    meant = _meant(desk, handlers, paused=False)
    return _changed(desk, handlers, meant, "pause", note=note, dry_run=dry_run)


def resume(desk: Desk, handlers: Sequence[str], *, dry_run: bool = False) -> Paused:
    """Have deliveries of handlers that were paused or held run again, those first that have waited longest.

    Args:
        desk: what operations work with.
        handlers: their ids, `plugin:name`, or patterns of them, such as `contracts:*`.
        dry_run: only say which would be resumed.

    Raises:
        Unavailable: the ledger could not be written; nothing was changed.
    """
    meant = _meant(desk, handlers, paused=True)
    return _changed(desk, handlers, meant, "resume", dry_run=dry_run)


def _meant(desk: Desk, given: Sequence[str], *, paused: bool) -> frozenset[str]:
    """The ids of the known handlers that are meant, out of those that are paused or those that are not."""
    known = [
        one.id
        for one in desk.ledger.registered_handlers()
        if (one.paused_at is not None if paused else one.paused_at is None or one.circuit is not None)
    ]
    return frozenset(one for one in known if any(_means(word, one) for word in given))


def _means(given: str, handler: str) -> bool:
    return given == handler or (not _WILD.isdisjoint(given) and fnmatchcase(handler, given))


def _changed(
    desk: Desk,
    given: Sequence[str],
    meant: frozenset[str],
    action: str,
    *,
    note: str = "",
    dry_run: bool,
) -> Paused:
    with desk.ledger.connection() as connection:
        stored = backlog(connection)  # before: what is resumed may be done with by the time that it is counted
    done = meant
    if meant and not dry_run:
        change = pausing.pause if action == "pause" else pausing.resume
        pauses, now = desk.ledger.pauses, desk.clock.now()
        done = desk.change(
            lambda transaction: change(transaction, meant, now, pauses), lambda them: _deed(action, them, note)
        )
    theirs = [stored.get(one, HandlerBacklog()) for one in done]
    return Paused(
        handlers=tuple(sorted(done)),
        passed_over=tuple(word for word in dict.fromkeys(given) if not any(_means(word, one) for one in done)),
        waiting=sum(one.waiting for one in theirs),
        running=sum(one.running for one in theirs),
        dry_run=dry_run,
    )


def _deed(action: str, changed: Collection[str], note: str) -> Deed:
    subject = next(iter(changed)) if len(changed) == 1 else ""
    return Deed(action, subject, {"handlers": sorted(changed), **({"note": note} if note else {})})
