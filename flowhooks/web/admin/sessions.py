"""Login sessions of operators.

The browser has 32 random bytes. The ledger has only a SHA-256 of them, of the operator's name and of the hash of the
password. A changed password therefore ends all sessions of that operator. Operators with the same password hash have
different digests.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from flowhooks.clock import SECOND
from flowhooks.errors import FlowhooksError
from flowhooks.ledger import sessions
from flowhooks.web.admin import login_audit
from flowhooks.web.admin.operators import operator_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    import falcon

    from flowhooks.app import App
    from flowhooks.ledger.transaction import WriteTransaction
    from flowhooks.web.admin.operators import Operator, Operators, PasswordLogin

TOUCH_INTERVAL: Final = 60 * SECOND
"""Microseconds between two updates of a session's last use, so that not every request writes."""
_SECRET: Final = re.compile(r"[A-Za-z0-9_-]{43}")


class Sessions:
    """The sessions of operators, shared by all processes that use the ledger.

    Args:
        app: a started `App`.
        operators: the operators.
    """

    def __init__(self, app: App, operators: Operators) -> None:
        self._app = app
        self._operators = operators
        self._touch_failed_at = -TOUCH_INTERVAL

    def create(self, request: falcon.Request, response: falcon.Response, login: PasswordLogin) -> None:
        """Log an operator in with a new secret, and end the browser's earlier session.

        The session has the hash that was verified. If a reload has replaced it since, the session is not valid.

        Raises:
            Unavailable: the ledger could not be written.
        """
        secret = secrets.token_urlsafe(32)
        operator = login.operator
        digest = _digest(secret, operator.name, login.password_hash)
        now = self._app.clock.now()
        session = sessions.Session(digest=digest, operator=operator.name, created_at=now, used_at=now)
        before = list(self._digests(self._secret(request)))

        def begun(transaction: WriteTransaction) -> None:
            sessions.remove(transaction, before)
            sessions.create(transaction, session)
            login_audit.record_login(transaction, self._app.clock, operator, request.remote_addr or "")

        self._app.ledger.write(begun)
        self._set_cookie(response, secret)

    def operator(self, request: falcon.Request) -> Operator | None:
        """Return the operator who has logged in with this browser; None if none has, or if they were removed.

        Raises:
            LedgerUnusable: the ledger cannot be read.
        """
        digests = self._digests(self._secret(request))
        if not digests:
            return None
        now = self._app.clock.now()
        with self._app.ledger.connection() as connection:
            session = sessions.find(connection, list(digests), now)
        if session is None or digests[session.digest] != session.operator:
            return None
        if now - session.used_at >= TOUCH_INTERVAL:
            self._touch(session.digest, now)
        return self._operators.by_name(session.operator)

    def _touch(self, digest: str, now: int) -> None:
        # If writes hang, only few requests wait for them: operators need the console most then.
        if 0 <= now - self._touch_failed_at < TOUCH_INTERVAL:
            return
        try:
            self._app.ledger.write(
                lambda transaction: sessions.touch(transaction, digest, now),
                timeout=login_audit.WRITE_TIMEOUT,
                certain=False,
            )
        except FlowhooksError:  # a request that only reads must not fail because of this write
            self._touch_failed_at = now

    def delete(self, request: falcon.Request, response: falcon.Response) -> None:
        """End the session.

        Raises:
            Unavailable: the ledger could not be written, so the session still exists.
        """
        if digests := list(self._digests(self._secret(request))):
            operator = operator_of(request)

            def ended(transaction: WriteTransaction) -> None:
                sessions.remove(transaction, digests)
                login_audit.record_logout(transaction, self._app.clock, operator.name, request.remote_addr or "")

            self._app.ledger.write(ended)
        self._set_cookie(response, "", expires=datetime(1970, 1, 2, tzinfo=UTC))

    @property
    def _cookie(self) -> str:
        # Browsers accept a cookie with the prefix `__Host-` only over TLS, and only from this host.
        return "__Host-flowhooks_session" if self._secure else "flowhooks_session"

    @property
    def _secure(self) -> bool:
        return self._app.settings.public_url.startswith("https://")

    def _set_cookie(self, response: falcon.Response, value: str, expires: datetime | None = None) -> None:
        response.set_cookie(
            self._cookie, value, expires=expires, path="/", http_only=True, same_site="Strict", secure=self._secure
        )

    def _secret(self, request: falcon.Request) -> str:
        """Return the session secret of a request; `""` if it is missing, malformed or ambiguous."""
        values = request.get_cookie_values(self._cookie) or []
        return values[0] if len(values) == 1 and _SECRET.fullmatch(values[0]) else ""

    def _digests(self, secret: str) -> Mapping[str, str]:
        """Map the digests that a secret has for each operator to the operator's name."""
        if not secret:
            return {}
        return {_digest(secret, name, password): name for name, password in self._operators.passwords().items()}


def _digest(secret: str, name: str, password: str) -> str:
    return hashlib.sha256(f"{secret}\0{name}\0{password}".encode()).hexdigest()
