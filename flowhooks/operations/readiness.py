"""Find out why a server should not receive callbacks at present."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flowhooks.ledger import database
from flowhooks.settings import database_url

if TYPE_CHECKING:
    from flowhooks.ledger.ledger import Ledger
    from flowhooks.routing.router import Router
    from flowhooks.settings import Settings


def find_problems(ledger: Ledger, settings: Settings, router: Router, *, runner_problem: str | None) -> list[str]:
    """Return the problems, each as one sentence that says what to do; empty if there are none.

    Args:
        ledger: the ledger that stores callbacks.
        settings: the settings.
        router: selects the handlers of an event.
        runner_problem: why deliveries cannot be run; None if they can.
    """
    problems = []
    if ledger.guard is not None and (why := ledger.guard.find_problem()):
        problems.append(why)
    elif ledger.write_error and not ledger.probe_writable():
        problems.append(f"the last write to the database failed ({ledger.write_error})")
    # A small write may succeed although the disk has no space for a callback.
    free_bytes = database.free_disk_bytes(database_url(settings))
    if free_bytes is not None and free_bytes < settings.http.max_body_bytes:
        problems.append(f"the disk of the database has {free_bytes // 1024} KiB left; free some space")
    if router.unreadable_handlers:
        problems.append(
            f"a newer version of flowhooks has registered {', '.join(router.unreadable_handlers[:3])}, and "
            "this version cannot read the selectors; run the newer version here too"
        )
    if runner_problem:
        problems.append(f"deliveries cannot be run: {runner_problem}")
    return problems
