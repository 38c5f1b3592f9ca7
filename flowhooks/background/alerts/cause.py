"""The cause of an alert, and its message."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from flowhooks.clock import to_text
from flowhooks.text import shell_quote

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from flowhooks.ledger.alert_queries import LatestOccurrence
    from flowhooks.model.alert import AlertCause


@dataclass(frozen=True, slots=True)
class MessageTemplate:
    """The message of a cause, with placeholders.

    Attributes:
        text: the message; `{many}` is the count with its noun, `{are}` and `{have}` are verbs for the count.
        nouns: singular and plural of the counted objects.
    """

    text: str
    nouns: tuple[str, str] = ("delivery", "deliveries")

    def fill(self, *, cause: AlertCause, subject: str, count: int, since: int, why: str) -> str:
        """Return the message; `since` is in microseconds since 1970."""
        return self.text.format(
            many=f"{count:,} {self.nouns[count != 1]}",
            are="is" if count == 1 else "are",
            have="has" if count == 1 else "have",
            count=count,
            cause=cause,
            subject=subject,
            quoted=shell_quote(subject),
            since=to_text(since),
            why=why.rstrip("."),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """The cause of an alert.

    Attributes:
        cause: the kind of problem.
        subject: the object concerned, such as a handler's id.
        since: when the problem started, in microseconds since 1970.
        count: counts the deliveries or events concerned, on a connection.
        event_id: id of one event concerned; `""` if none is.
        template: the message.
        why: the error or reason, for the placeholder `{why}`.
        latest: reads the newest occurrence, on a connection; returns None if it is not known.
    """

    cause: AlertCause
    subject: str
    since: int
    count: Callable[[Connection], int]
    event_id: str = ""
    template: MessageTemplate
    why: str = ""
    latest: Callable[[Connection], LatestOccurrence | None] = lambda _: None

    @property
    def key(self) -> tuple[AlertCause, str]:
        """Identifies the cause over several polls."""
        return self.cause, self.subject

    def sentence(self, count: int, since: int) -> str:
        """Return the message for a count and a start time in microseconds since 1970."""
        return self.template.fill(cause=self.cause, subject=self.subject, count=count, since=since, why=self.why)
