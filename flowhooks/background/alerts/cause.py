"""One cause for which a person should look, and the sentence that says so."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """One cause for which a person should look.

    Attributes:
        cause: why.
        subject: what it is about.
        since: from when it has been so, in microseconds since 1970.
        count: how many deliveries or events share it: counted when it is called, on a connection.
        event_id: one event that it is about; `""` where none is.
        nouns: what is counted, one and several.
        text: the sentence, with places for what it names.
        why: what a plugin cannot be used for.
        latest: the newest of them, read when it is called, on a connection; None: that is not known.
    """

    cause: AlertCause
    subject: str
    since: int
    count: Callable[[Connection], int]
    event_id: str = ""
    nouns: tuple[str, str] = ("delivery", "deliveries")
    text: str
    why: str = ""
    latest: Callable[[Connection], LatestOccurrence | None] = lambda _: None

    @property
    def key(self) -> tuple[AlertCause, str]:
        """What makes it the same cause as another one, now or later."""
        return self.cause, self.subject

    def sentence(self, count: int, since: int) -> str:
        """What to say of so many, since then (microseconds since 1970)."""
        return self.text.format(
            many=f"{count:,} {self.nouns[count != 1]}",
            are="is" if count == 1 else "are",
            have="has" if count == 1 else "have",
            count=count,
            cause=self.cause,
            subject=self.subject,
            quoted=shell_quote(self.subject),
            since=to_text(since),
            why=self.why.rstrip("."),
        )
