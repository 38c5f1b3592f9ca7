"""Logins, logouts and refused logins in the audit log.

A login with a password is recorded with its session. A token and a proxy's header come with every request, so their
first use counts as the login, and is recorded once per hour, address and process.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from contextlib import suppress
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

import structlog

from flowhooks.clock import SECOND
from flowhooks.errors import FlowhooksError
from flowhooks.ledger import audit
from flowhooks.text import escape_control
from flowhooks.web.client_network import client_network

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flowhooks.app import App
    from flowhooks.clock import Clock
    from flowhooks.ledger.ledger import Ledger
    from flowhooks.ledger.transaction import WriteTransaction
    from flowhooks.web.admin.operators import Operator

COLLAPSED_WITHIN: Final = 3600 * SECOND
"""Microseconds within which refused logins of one operator are one entry."""
UNKNOWN_OPERATOR: Final = "unknown"
"""Stands for every name that no operator has, so that a client which guesses names cannot fill the audit log."""
MAX_ADDRESS_CHARS: Final = 100
MAX_REMEMBERED: Final = 10_000
"""Maximum number of logins that a process remembers, so that their next requests are not recorded."""
RETRY_INTERVAL: Final = 60 * SECOND
"""Microseconds after which a login that could not be recorded is recorded again."""
REFUSAL_LOG_INTERVAL: Final = 60 * SECOND
"""Microseconds between two log records about refused logins of one client for one reason."""
WRITE_TIMEOUT: Final = 1.0
"""Seconds for which a request waits until its login, or the use of its session, is recorded."""

_log = structlog.get_logger(__name__)


class LoginMethod(StrEnum):
    """How an operator has logged in."""

    PASSWORD = "password"  # noqa: S105 (a word, not a password)
    TOKEN = "token"  # noqa: S105 (as above)
    PROXY = "proxy"


class LoginRecorder:
    """Records the first use of a token or of a proxy's header. Every method may be called from any thread.

    A request is admitted even if the ledger cannot be written, because operators need the console most then. The log
    has the login in any case.

    Args:
        app: a started `App`.
    """

    def __init__(self, app: App) -> None:
        self._app = app
        self._lock = threading.Lock()
        self._due: OrderedDict[tuple[str, ...], int] = OrderedDict()
        self._unrecorded: set[tuple[str, ...]] = set()

    def record(self, operator: Operator, method: LoginMethod, address: str, interface: str) -> None:
        """Record a login unless this process has recorded it within the last hour.

        Args:
            operator: the operator.
            method: how the operator was identified.
            address: the client's address.
            interface: `"console"` or `"api"`.
        """
        clock, key = self._app.clock, (operator.name, operator.role_name or operator.role, method, address)
        with self._lock:
            now = clock.now()
            is_retry = key in self._unrecorded
            # If the clock was set back, the login may be due much later. It is then recorded at once.
            if 0 < self._due.get(key, now) - now <= (RETRY_INTERVAL if is_retry else COLLAPSED_WITHIN):
                return
            self._remember(key, now + COLLAPSED_WITHIN)
            self._unrecorded.discard(key)
        if not is_retry:
            self._app.metrics.logged_in("succeeded")
            _log.info("login_succeeded", operator=operator.name, address=address, by=method.value)
        detail = {"address": _shown(address), "by": method.value, "role": operator.role_name or operator.role}
        entry = _entry(clock, operator.name, "login", detail, interface)
        try:
            self._app.ledger.write(
                lambda transaction: audit.record_collapsed(transaction, entry, within=COLLAPSED_WITHIN, ignored=()),
                timeout=WRITE_TIMEOUT,
                certain=False,
            )
        except FlowhooksError as error:
            _log.error("login_not_recorded", operator=operator.name, why=str(error))
            with self._lock:
                self._unrecorded.add(key)
                self._remember(key, now + RETRY_INTERVAL)

    def _remember(self, key: tuple[str, ...], due: int) -> None:
        self._due[key] = due
        self._due.move_to_end(key)
        while len(self._due) > MAX_REMEMBERED:
            oldest, _ = self._due.popitem(last=False)
            self._unrecorded.discard(oldest)


class RefusalLog:
    """Logs refused logins by the header of a proxy: the first of each client and reason, and then one a minute.

    So a client that repeats such a request cannot fill the log. Every method may be called from any thread.

    Args:
        clock: the clock.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._refused: OrderedDict[tuple[str, str], tuple[int, int]] = OrderedDict()

    def add(self, operator: str, address: str, why: str) -> None:
        """Log a refused login, or count it for the next record.

        Args:
            operator: the name that the proxy states; `""` if it has no valid one.
            address: the client's address.
            why: the reason.
        """
        key = client_network(address) if address else "", why
        with self._lock:
            now = self._clock.now()
            logged_at, count = self._refused.get(key, (now - REFUSAL_LOG_INTERVAL, 0))
            # If the clock was set back, `logged_at` may be in the future. That must not suppress the record.
            is_due = not 0 <= now - logged_at < REFUSAL_LOG_INTERVAL
            self._refused[key] = (now, 0) if is_due else (logged_at, count + 1)
            self._refused.move_to_end(key)
            while len(self._refused) > MAX_REMEMBERED:
                self._refused.popitem(last=False)
        if is_due:
            _log.warning("login_refused", operator=operator, address=address, why=why, requests=count + 1)


def record_login(transaction: WriteTransaction, clock: Clock, operator: Operator, address: str) -> None:
    """Record a login with a password, in the transaction that creates the session."""
    detail = {"address": _shown(address), "by": LoginMethod.PASSWORD.value, "role": operator.role_name or operator.role}
    audit.record(transaction, _entry(clock, operator.name, "login", detail))


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
            timeout=WRITE_TIMEOUT,
            certain=False,
        )


def _entry(
    clock: Clock, actor: str, action: str, detail: Mapping[str, Any], interface: str = "console"
) -> audit.AuditEntry:
    return audit.AuditEntry(
        id=clock.new_id(), at=clock.now(), actor=actor, interface=interface, action=action, target="", detail=detail
    )


def _shown(address: str) -> str:
    return escape_control(address, MAX_ADDRESS_CHARS)
