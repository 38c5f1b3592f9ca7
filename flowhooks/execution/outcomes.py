"""Build an attempt's outcome from the handler's exception or result."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import structlog

from flowhooks.errors import HandlerLost, HandlerProcessUnavailable, HandlerRaised, Reject
from flowhooks.execution.result_encoding import EncodedResult, encode_result, to_json
from flowhooks.model.delivery import Outcome, OutcomeKind
from flowhooks.plugins.error_text import error_to_line, retry_delay, traceback_text
from flowhooks.text import one_line, to_storable

if TYPE_CHECKING:
    from collections.abc import Callable

    from flowhooks.model.delivery import Delivery
    from flowhooks.model.invocation import Invocation
    from flowhooks.plugins.plugins import Plugins

MAX_ERROR_CHARS: Final = 2_000
MAX_TRACEBACK_CHARS: Final = 20_000
"""Maximum stored characters of an error line and a traceback, so that a handler cannot fill the disk."""
UNREADABLE_ERROR: Final = "an error that cannot be read"
"""The error of an attempt whose exception cannot be described."""
_MAX_CAUSES: Final = 20
"""Maximum length of a chain of exception causes that is searched."""

log = structlog.get_logger(__name__)


class Raised(NamedTuple):
    """An exception that ended an attempt.

    Attributes:
        error: the exception.
        entered: whether the handler was entered.
    """

    error: BaseException
    entered: bool


class OutcomeBuilder:
    """Builds outcomes, with the secrets in their texts masked.

    Args:
        plugins: name the plugin that raised an exception, and mask secrets.
    """

    def __init__(self, plugins: Plugins) -> None:
        self._plugins = plugins

    def build(self, answer: object, *, entered: bool) -> Outcome:
        """Return the outcome of an attempt that ended with `answer`.

        Args:
            answer: the return value of the `run_handler` hook, or the exception that was `Raised`.
            entered: whether the handler was entered.

        Raises:
            BaseException: raised by code of the plugin, which may run whenever its exception is read.
        """
        if isinstance(answer, Raised):
            return self.raised(answer.error, entered=answer.entered)
        if isinstance(answer, Outcome):
            return self._redacted(answer)
        kind = type(answer).__name__
        why = f"a run_handler wrapper returned {kind} instead of the Outcome that its yield returned"
        return Outcome(kind=OutcomeKind.FAILED, error=why, entered=entered)

    def raised(self, error: BaseException, *, entered: bool) -> Outcome:
        """Return the outcome of an attempt that raised `error` before or after its handler was entered."""
        return self._redacted(self._failure(error, entered=entered))

    @staticmethod
    def build_without_details(answer: object, problem: BaseException, *, entered: bool) -> Outcome:
        """Return the outcome that `build` would return, without its texts and its value.

        Args:
            answer: the argument of `build`.
            problem: why these cannot be read.
            entered: whether the handler was entered.
        """
        error = f"{UNREADABLE_ERROR}: {type(problem).__name__}"
        if isinstance(answer, Outcome):
            error = "" if answer.succeeded else error
            return Outcome(kind=answer.kind, error=error, retry_after=answer.retry_after, entered=answer.entered)
        entered = answer.entered if isinstance(answer, Raised) else entered
        return Outcome(kind=OutcomeKind.FAILED, error=error, entered=entered)

    def stored_texts(self, outcome: Outcome) -> tuple[str, str]:
        """Return the error line and the traceback as they are stored."""
        if not (outcome.error or outcome.traceback):
            return "", ""
        return to_storable(one_line(outcome.error), MAX_ERROR_CHARS), to_storable(
            outcome.traceback, MAX_TRACEBACK_CHARS
        )

    def _redacted(self, outcome: Outcome) -> Outcome:
        # Before any text is truncated or published: half a secret could not be recognised.
        if outcome.error or outcome.traceback:
            redact = self._plugins.redact
            return replace(outcome, error=redact(outcome.error), traceback=redact(outcome.traceback))
        return outcome

    def _failure(self, error: BaseException, *, entered: bool) -> Outcome:
        if isinstance(error, Reject):
            return Outcome(kind=OutcomeKind.REJECTED, error=error_to_line(error), entered=entered)
        if (lost := _find_handler_lost(error)) is not None:
            return Outcome(kind=OutcomeKind.LOST, error=lost.why, traceback=lost.tail, entered=entered)
        if isinstance(error, HandlerProcessUnavailable) and not entered:
            return Outcome(kind=OutcomeKind.FAILED, error=error_to_line(error), entered=False)
        if isinstance(error, HandlerRaised):
            # The same text as for a handler in a thread: the exception's class and text.
            line = f"{error.name}: {error.text}" if error.text else error.name
            return Outcome(kind=OutcomeKind.FAILED, error=line, traceback=error.traceback, entered=entered)
        line, retry_after = error_to_line(error), retry_delay(error)
        if retry_after is None:
            line = f"{type(error).__qualname__}: {line}" if line else type(error).__qualname__
        plugin = self._plugins.responsible_plugin(error)
        if not entered:
            origin = f"the run_handler wrapper of plugin {plugin}" if plugin else "flowhooks or a plugin"
            line = f"{origin} raised before the handler was entered: {line}"
        elif plugin:
            line = f"{line} (raised by the run_handler wrapper of plugin {plugin})"
        return Outcome(
            kind=OutcomeKind.FAILED,
            error=line,
            traceback=traceback_text(error),
            retry_after=retry_after,
            entered=entered,
        )

    def result(self, outcome: Outcome, delivery: Delivery, invocation: Invocation) -> EncodedResult:
        """Return the handler's result for the ledger. The reason why it cannot be stored is logged, too."""
        encoded = encode_result(outcome.value)
        # A wrapper may have replaced the result that the handler's process could not send.
        dropped = encoded.dropped or (invocation.result_dropped if outcome.value is None else "")
        if dropped and outcome.succeeded:
            plugin, _, name = delivery.handler.partition(":")
            why = to_storable(
                one_line(self._plugins.redact(f"handler {name} of plugin {plugin} {dropped}")), MAX_ERROR_CHARS
            )
            log.warning(
                "result_dropped",
                **{"handler": delivery.handler, "delivery": delivery.id, **invocation.log_fields()},
                why=why,
            )
            return EncodedResult(None, why)
        text = encoded.text
        if text is not None and (redact := self._plugins.redact)(text) != text:
            text = to_json(_redact(json.loads(text), redact))
        return EncodedResult(text)


def _find_handler_lost(error: BaseException) -> HandlerLost | None:
    """Find a `HandlerLost` in an exception or its causes: a wrapper may have replaced it."""
    cause: BaseException | None = error
    for _ in range(_MAX_CAUSES):
        if cause is None or isinstance(cause, HandlerLost):
            return cause
        cause = cause.__cause__ or cause.__context__
    return None


def _redact(value: Any, redact: Callable[[str], str]) -> Any:
    """Redact every string in a JSON value; numbers stay."""
    match value:
        case str():
            return redact(value)
        case list():
            return [_redact(item, redact) for item in value]
        case dict():
            return {redact(name): _redact(item, redact) for name, item in value.items()}
    return value
