"""Logins, logouts and refused logins in the audit log."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from flowhooks.clock import SECOND
from flowhooks.errors import FlowhooksError
from flowhooks.ledger import audit
from flowhooks.text import escape_control

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flowhooks.clock import Clock
    from flowhooks.ledger.ledger import Ledger
    from flowhooks.ledger.transaction import WriteTransaction

COLLAPSED_WITHIN: Final = 3600 * SECOND
"""Microseconds within which refused logins of one operator are one entry."""
UNKNOWN_OPERATOR: Final = "unknown"
"""Stands for every name that no operator has, so that a client which guesses names cannot fill the audit log."""
MAX_ADDRESS_CHARS: Final = 100


def record_login(transaction: WriteTransaction, clock: Clock, operator: str, address: str) -> None:
    """Record a login, in the transaction that creates the session."""
    audit.record(transaction, _entry(clock, operator, "login", {"address": _shown(address)}))


def record_logout(transaction: WriteTransaction, clock: Clock, operator: str, address: str) -> None:
    """Record a logout, in the transaction that ends the session."""
    audit.record(transaction, _entry(clock, operator, "logout", {"address": _shown(address)}))


def record_refusal(ledger: Ledger, clock: Clock, operator: str | None, address: str) -> None:
    """Record a refused login. Those of one operator within an hour are one entry, with the last address.

    Args:
        ledger: the ledger.
        clock: time and ids.
        operator: the operator's name; None if no operator has the entered name.
        address: the client's address.
    """
    entry = _entry(clock, operator or UNKNOWN_OPERATOR, "login_refused", {"address": _shown(address)})
    with suppress(FlowhooksError):  # the login is refused anyway, and the ledger logs its own write errors
        ledger.write(
            lambda transaction: audit.record_collapsed(
                transaction, entry, within=COLLAPSED_WITHIN, ignored={"address"}
            ),
            certain=False,
        )


def _entry(clock: Clock, actor: str, action: str, detail: Mapping[str, Any]) -> audit.AuditEntry:
    return audit.AuditEntry(
        id=clock.new_id(), at=clock.now(), actor=actor, interface="console", action=action, target="", detail=detail
    )


def _shown(address: str) -> str:
    return escape_control(address, MAX_ADDRESS_CHARS)
