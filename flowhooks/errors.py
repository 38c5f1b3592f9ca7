"""Every exception flowhooks raises or understands.

FlowhooksError
├── SettingsError        the settings, a command's options, or the files they name
├── PluginError          a plugin that cannot be used: it is quarantined
├── HandlerError         a handler declared so that it could never run
├── TransactionError     a handler's transaction that cannot be had or committed
├── HandlerProcessUnavailable   a handler's own process that cannot be had: its function was not entered
├── HandlerLost          a handler's own process that ended in the middle of an attempt
├── HandlerRaised        what a handler raised in a process of its own
├── LedgerError          the durable record
│   ├── LedgerUnusable   cannot be opened: not writable, too new, held by another process
│   │   └── LedgerSchemaTooOld   empty or of an older version: a start or `flowhooks db upgrade` brings it up
│   ├── InvalidTransition  a change of state that the table of states lacks
│   ├── NewerSelectorsError  a handler remembered by a newer flowhooks: this one cannot route for it
│   └── NotFound         no such event, delivery or handler
│       └── EventPurged  there was such an event
├── ServerUnreachable    the running server did not take a command
└── CallbackRejected     a callback that is not taken; says why in the caller's language
    ├── MalformedRequest not JSON as RFC 8259 has it
    ├── InvalidCallback  JSON that a schema refuses
    ├── UnsupportedMedia a body that is not JSON by its own headers
    ├── Unauthorized     no valid credential
    ├── Forbidden        not from an allowed address
    ├── RateLimited      its source sends more than it may: safe to repeat, later
    ├── IdentityConflict this identity came before with other data
    └── Unavailable      not known to be stored: safe to repeat

Reject, RetryAfter       raised by handlers, to say how their attempt ended
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flowhooks import messages

if TYPE_CHECKING:
    from collections.abc import Sequence


class FlowhooksError(Exception):
    """The root of everything that flowhooks itself raises."""


class SettingsError(FlowhooksError):
    """A setting, a command's option or a file that one names cannot be used. Commands exit with 2."""


class PluginError(FlowhooksError):
    """A plugin cannot be used; the message is what `flowhooks plugins` and `check` show."""


class HandlerError(FlowhooksError):
    """A handler is declared so that it could never run as meant; raised by `@handler` itself."""


class TransactionError(FlowhooksError):
    """`delivery.transaction()` was used as it cannot be, or could not commit: the attempt fails, and wrote nothing."""


class HandlerProcessUnavailable(FlowhooksError):
    """A handler is to run in a process of its own, and none can be had: its function was not entered."""


class HandlerLost(FlowhooksError):
    """A handler's own process ended, or was ended, in the middle of an attempt: it may have done its work, or not.

    Args:
        why: what became of it, one line.
        tail: what it wrote last; `""` if nothing.
    """

    def __init__(self, why: str, tail: str = "") -> None:
        super().__init__(why)
        self.why = why
        self.tail = tail


class HandlerRaised(FlowhooksError):
    """What a handler raised in a process of its own: exceptions themselves do not cross from there, their texts do.

    Args:
        name: the name of the exception's class.
        text: what it says, one line.
        traceback: its traceback there.
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
    """The database cannot be opened for what was asked: missing, not writable, too new, or in use."""


class LedgerSchemaTooOld(LedgerUnusable):
    """The database is empty or of an older version; a start of the server or `flowhooks db upgrade` brings it up."""


class NewerSelectorsError(LedgerError):
    """The ledger remembers a handler's selectors in a format of a newer flowhooks."""


class InvalidTransition(LedgerError):
    """A delivery was asked to go where the table of states does not let it."""


class NotFound(LedgerError):
    """No event, delivery or handler has the id that was given."""


class EventPurged(NotFound):
    """There was an event with the id that was given; it has been purged.

    Args:
        event_id: the id.
        received: when it was received, in words.
    """

    def __init__(self, event_id: str, received: str) -> None:
        super().__init__(f"event {event_id}, received {received}, was purged: it had grown old")


class ServerUnreachable(FlowhooksError):
    """The server that holds the ledger did not answer, or did not take a command. Commands exit with 1."""


class CallbackRejected(FlowhooksError):
    """A call-back that is not taken.

    Args:
        key: the sentence, a key of `flowhooks.messages.MESSAGES`.
        **params: what the sentence names. Never a value out of the call-back's body.
    """

    def __init__(self, key: str, /, **params: Any) -> None:
        super().__init__(key, params)
        self.key = key
        self.params = params

    def text(self, language: str) -> str:
        """The sentence in `language` (`"zh"` or `"en"`)."""
        return messages.text(self.key, language, **self.params)

    def operator_text(self, language: str) -> str:
        """The same for the operator, who may know more than the caller."""
        return self.text(language)

    def __str__(self) -> str:
        return self.text("en")


class MalformedRequest(CallbackRejected):
    """The body is not JSON as RFC 8259 has it, or not JSON that every database can keep."""


class InvalidCallback(CallbackRejected):
    """The call-back is JSON, but a schema refuses it.

    Args:
        key: the sentence that opens the answer.
        violations: the first violations, each as (JSON Pointer, sentence key, params).
        **params: what the opening sentence names.
    """

    def __init__(self, key: str, /, violations: Sequence[tuple[str, str, dict[str, Any]]] = (), **params: Any) -> None:
        super().__init__(key, **params)
        self.violations = tuple(violations)

    def text(self, language: str) -> str:
        """The opening sentence, then one clause per violation."""
        opening = super().text(language)
        if not self.violations:
            return opening
        clauses = (
            f"{pointer or '/'}: {messages.text(key, language, **params)}" for pointer, key, params in self.violations
        )
        return opening + " " + "; ".join(clauses)


class UnsupportedMedia(CallbackRejected):
    """The body says of itself that it is not JSON in UTF-8."""


class Unauthorized(CallbackRejected):
    """No credential, or none that is known. The caller is told nothing more, whatever is wrong with it.

    Args:
        key: the sentence.
        cause: what is wrong, for the operator: the rest of a key that begins with `unauthorized.`; `""`: nothing more.
    """

    def __init__(self, key: str, /, *, cause: str = "") -> None:
        super().__init__(key)
        self.cause = cause

    def operator_text(self, language: str) -> str:
        """The sentence, and what is wrong."""
        text = self.text(language)
        return f"{text} {messages.text(f'unauthorized.{self.cause}', language)}" if self.cause else text


class Forbidden(CallbackRejected):
    """The request is not allowed from where it comes."""


class RateLimited(CallbackRejected):
    """The source sends more call-backs than it may.

    Args:
        key: the sentence.
        retry_after: seconds after which one more is taken.
    """

    def __init__(self, key: str, /, *, retry_after: int) -> None:
        super().__init__(key)
        self.retry_after = retry_after


class IdentityConflict(CallbackRejected):
    """This identity was called back before with other data.

    Args:
        event_id: the event that was stored first; the second body is kept beside it.
        purged: whether that event has been purged, so that there is nothing beside which it could be kept.
    """

    def __init__(self, event_id: str, *, purged: bool = False) -> None:
        super().__init__("conflict_purged" if purged else "conflict")
        self.event_id = event_id


class Unavailable(CallbackRejected):
    """The call-back is not known to be stored; calling again is safe.

    Args:
        key: the sentence.
        retry_after: seconds after which calling again makes sense; default 5.
    """

    def __init__(self, key: str, /, *, retry_after: int = 5, **params: Any) -> None:
        super().__init__(key, **params)
        self.retry_after = retry_after


class Reject(Exception):
    """Raised by a handler: this event can never be handled. The delivery is dead at once.

    Args:
        why: shown to the engine and to operators.
    """

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class RetryAfter(Exception):
    """Raised by a handler: run me again after `seconds`. It permits its own retry, and counts as an attempt.

    Args:
        seconds: not negative, not more than 30 days.
        why: shown to operators; default none.

    Raises:
        ValueError: `seconds` is out of range.
    """

    def __init__(self, seconds: float, why: str = "") -> None:
        if not 0 <= seconds <= 30 * 86400:
            raise ValueError(f"RetryAfter takes 0 to {30 * 86400} seconds, not {seconds!r}")
        super().__init__(seconds, why)
        self.seconds = seconds
        self.why = why

    def __str__(self) -> str:
        return self.why or f"asked to be run again after {self.seconds:g} s"
