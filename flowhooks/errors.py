"""All exceptions that flowhooks raises or handles.

FlowhooksError
├── SettingsError        invalid settings, options of a command, or files that they name
├── AddressInUse         another process listens on an address; a later start may succeed
├── PluginError          a plugin cannot be used and is quarantined
├── HandlerError         a handler is declared in a way that it could never run
├── TransactionError     a handler's transaction could not be opened or committed
├── HandlerProcessUnavailable   a handler's own process is not available; its function was not entered
├── HandlerLost          a handler's own process ended during an attempt
├── HandlerRaised        an exception that a handler raised in its own process
├── LedgerError          the ledger refused or failed
│   ├── LedgerUnusable   the database cannot be opened: not writable, too new, or used by another process
│   │   └── LedgerSchemaTooOld   empty or older; a server start or `flowhooks db upgrade` upgrades it
│   │       └── LedgerEmpty      it has no tables: new, or truncated
│   ├── InvalidTransition  a change of state that the table of states does not allow
│   ├── NewerSelectorsError  a newer flowhooks has recorded a handler, so this one cannot route to it
│   └── NotFound         no such event, delivery or handler
│       └── EventPurged  the event existed and has been purged
├── ServerUnreachable    the running server did not accept a command
├── EngineError          an engine did not answer a question about its process instances
└── CallbackRejected     a callback is not accepted; has a text in the client's language
    ├── MalformedRequest the body is not valid JSON (RFC 8259)
    ├── InvalidCallback  a schema rejects the JSON
    ├── UnsupportedMedia the headers of the body name another format than JSON
    ├── Unauthorized     no valid credential
    ├── Forbidden        the client's address is not allowed
    ├── RateLimited      the source exceeds its rate limit; safe to repeat later
    ├── IdentityConflict an earlier callback with this identity had other data
    └── Unavailable      not known to be stored; safe to repeat
        ├── DamagedRow   a stored row cannot be read
        └── ProcessExpired   other processes have taken this process for stopped, or it is shutting down

Reject, RetryAfter       raised by handlers to set the outcome of their attempt
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal

from flowhooks import messages

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_DELAY_SECONDS: Final = 30 * 86400
"""Maximum seconds (30 days) until the next attempt that `RetryAfter` and the delays of `Retry` can ask for."""


class FlowhooksError(Exception):
    """Base class of all exceptions that flowhooks itself raises."""


class SettingsError(FlowhooksError):
    """A setting, a command's option, or a file that one of them names is invalid. Commands exit with 2."""


class AddressInUse(FlowhooksError):
    """Another process listens on an address. Commands exit with 1, because a later start may succeed."""


class PluginError(FlowhooksError):
    """A plugin cannot be used. `flowhooks plugins` and `flowhooks check` show the message."""


class HandlerError(FlowhooksError):
    """A handler is declared in a way that it could never run as intended. Raised by `@handler`."""


class TransactionError(FlowhooksError):
    """`delivery.transaction()` was used incorrectly or could not commit. The attempt fails and has written nothing."""


class HandlerProcessUnavailable(FlowhooksError):
    """No process is available for an isolated handler. The handler's function was not entered."""


class HandlerLost(FlowhooksError):
    """A handler's own process exited or was killed during an attempt. It is unknown whether the work was done.

    Args:
        why: how the process ended, on one line.
        tail: the last lines that the process printed; `""` if none.
    """

    def __init__(self, why: str, tail: str = "") -> None:
        super().__init__(why)
        self.why = why
        self.tail = tail


class HandlerRaised(FlowhooksError):
    """An exception that a handler raised in its own process. Only its texts are sent to the server, not the object.

    Args:
        name: the name of the exception's class.
        text: the exception's text, on one line.
        traceback: the exception's traceback in the handler's process.

    Attributes:
        name: the class name, such as `ValueError`.
        text: the text; it may be empty.
        traceback: the traceback as text; it may be empty.
    """

    def __init__(self, name: str, text: str, traceback: str) -> None:
        super().__init__(f"{name}: {text}" if text else name)
        self.name = name
        self.text = text
        self.traceback = traceback
        if traceback:
            self.add_note(traceback)


class LedgerError(FlowhooksError):
    """The ledger refused or failed. Commands exit with 1."""


class LedgerUnusable(LedgerError):
    """The database cannot be used: it is missing, not writable, too new, or in use by another process."""


class LedgerSchemaTooOld(LedgerUnusable):
    """The database is empty or of an older version. A start of the server or `flowhooks db upgrade` upgrades it."""


class LedgerEmpty(LedgerSchemaTooOld):
    """The database has no tables: it is new, or its file was truncated."""


class NewerSelectorsError(LedgerError):
    """The ledger has a handler's selectors in the format of a newer flowhooks."""


class InvalidTransition(LedgerError):
    """The table of states does not allow a requested change of a delivery's state."""


class NotFound(LedgerError):
    """No event, delivery or handler has the given id."""


class EventPurged(NotFound):
    """The event with the given id has been purged.

    Args:
        event_id: the event's id.
        received: when the event was received, as text.
    """

    def __init__(self, event_id: str, received: str) -> None:
        super().__init__(f"event {event_id}, received {received}, has been purged")


class ServerUnreachable(FlowhooksError):
    """The server that uses the ledger did not respond, or did not accept a command. Commands exit with 1."""


class EngineError(FlowhooksError):
    """An engine did not answer a question about its process instances or definitions. Raised by engine clients.

    Args:
        reason: the kind of failure: `"unreachable"`: no answer, or an answer 5xx; `"refused"`: the credential or its
            rights do not suffice; `"invalid"`: an answer that the client cannot read.
        why: one sentence for an operator, with the status and the path, never a credential.

    Attributes:
        reason: the kind of failure.
        why: the sentence.
    """

    def __init__(self, reason: Literal["unreachable", "refused", "invalid"], why: str) -> None:
        super().__init__(why)
        self.reason = reason
        self.why = why


class CallbackRejected(FlowhooksError):
    """A callback is not accepted.

    Args:
        key: key of the message in `flowhooks.messages.MESSAGES`.
        **params: values for the message's placeholders. Never a value from the callback's body.
    """

    def __init__(self, key: str, /, **params: Any) -> None:
        super().__init__(key, params)
        self.key = key
        self.params = params

    def text(self, language: str) -> str:
        """Return the message for the client in `language` (`"zh"` or `"en"`)."""
        return messages.text(self.key, language, **self.params)

    def operator_text(self, language: str) -> str:
        """Return the message for the operator, which may contain more than the client's."""
        return self.text(language)

    def __str__(self) -> str:
        return self.text("en")


class MalformedRequest(CallbackRejected):
    """The body is not valid JSON (RFC 8259), or is JSON that some supported databases cannot store."""


class InvalidCallback(CallbackRejected):
    """A schema rejects the callback's JSON.

    Args:
        key: key of the message that starts the response.
        violations: the first violations, each as (JSON Pointer, message key, params).
        **params: values for the placeholders of the first message.
    """

    def __init__(self, key: str, /, violations: Sequence[tuple[str, str, dict[str, Any]]] = (), **params: Any) -> None:
        super().__init__(key, **params)
        self.violations = tuple(violations)

    def text(self, language: str) -> str:
        """Return the first message, followed by one clause per violation."""
        opening = super().text(language)
        if not self.violations:
            return opening
        clauses = (
            f"{pointer or '/'}: {messages.text(key, language, **params)}" for pointer, key, params in self.violations
        )
        return opening + " " + "; ".join(clauses)


class UnsupportedMedia(CallbackRejected):
    """The headers of the body name another format than JSON in UTF-8."""


class Unauthorized(CallbackRejected):
    """The credential is missing or invalid. The client is not told which.

    Args:
        key: key of the message.
        cause: the reason for the operator: the part of a message key after `unauthorized.`; `""`: no further reason.
    """

    def __init__(self, key: str, /, *, cause: str = "") -> None:
        super().__init__(key)
        self.cause = cause

    def operator_text(self, language: str) -> str:
        """Return the message and the reason."""
        text = self.text(language)
        return f"{text} {messages.text(f'unauthorized.{self.cause}', language)}" if self.cause else text


class Forbidden(CallbackRejected):
    """The client's address is not allowed.

    Args:
        key: key of the message.
        source: the source whose token the request has; `""` if not known.
    """

    def __init__(self, key: str, /, *, source: str = "") -> None:
        super().__init__(key)
        self.source = source


class RateLimited(CallbackRejected):
    """The source exceeds its rate limit.

    Args:
        key: key of the message.
        retry_after: seconds until another callback is accepted.
    """

    def __init__(self, key: str, /, *, retry_after: int) -> None:
        super().__init__(key)
        self.retry_after = retry_after


class IdentityConflict(CallbackRejected):
    """An earlier callback with the same identity had other data.

    Args:
        event_id: id of the event that was stored first; the conflicting body is stored with it.
        purged: whether that event has been purged, so that the conflicting body cannot be stored.
    """

    def __init__(self, event_id: str, *, purged: bool = False) -> None:
        super().__init__("conflict_purged" if purged else "conflict")
        self.event_id = event_id
        self.purged = purged


class Unavailable(CallbackRejected):
    """The callback is not known to be stored; repeating it is safe.

    Args:
        key: key of the message.
        retry_after: seconds after which the client should repeat the callback; default: 5.
        **params: values for the message's placeholders.
    """

    def __init__(self, key: str, /, *, retry_after: int = 5, **params: Any) -> None:
        super().__init__(key, **params)
        self.retry_after = retry_after

    def __str__(self) -> str:
        """Return the reason for logs and commands, because the message tells the client to repeat the callback."""
        return _UNAVAILABLE_REASONS.get(self.key) or super().__str__()


_UNAVAILABLE_REASONS: Final = {
    "ledger_down": "the database cannot be written now",
    "ledger_slow": "the database has not answered in time",
}


class DamagedRow(Unavailable):
    """A stored row cannot be read: a value of it is of another type, or is not one of the values that it may have.

    Args:
        why: the row, and what is wrong with it.
    """

    def __init__(self, why: str) -> None:
        super().__init__("event_damaged")
        self.why = why


class ProcessExpired(Unavailable):
    """No attempt can start, because the ledger lists this process as stopped. It continues under a new id."""

    def __init__(self) -> None:
        super().__init__("draining")  # while it shuts down, it gets no new id


class Reject(Exception):
    """Raised by a handler that can never handle this event. The delivery is dead at once, without a retry.

    Args:
        why: the reason, shown to the engine and to operators.
    """

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class RetryAfter(Exception):
    """Raised by a handler to be run again after `seconds`.

    The retry is made even without `retry=`. The attempt counts towards the handler's maximum number of attempts, which
    is 8 without `retry=`. A subclass must call `super().__init__(seconds, why)`. Otherwise it counts as any other
    exception.

    Args:
        seconds: delay until the next attempt, from 0 seconds to 30 days.
        why: the reason, shown to operators; default: none.

    Raises:
        ValueError: `seconds` is out of range.
    """

    def __init__(self, seconds: float, why: str = "") -> None:
        if not 0 <= seconds <= MAX_DELAY_SECONDS:
            raise ValueError(f"RetryAfter takes 0 to {MAX_DELAY_SECONDS} seconds, not {seconds!r}")
        super().__init__(seconds, why)
        self.seconds = seconds
        self.why = why

    def __str__(self) -> str:
        return self.why or f"asked to be retried after {self.seconds:g} s"
