"""An event as it is handed to the ledger: routed, and not stored yet."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeAlias

from flowhooks import schema
from flowhooks.ledger import checksums

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flowhooks.model.event import DismissedBy, Event, EventState, ParkedBy

Identity: TypeAlias = tuple[str, str, str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEvent:
    """An event that is to be stored, already routed.

    Attributes:
        event: the event.
        body: its body as received.
        digest: its body's digest.
        state: routed, parked or dismissed.
        parked_by: why it is parked; None if it is not.
        dismissed_by: why it is dismissed; None if it is not.
        no_match: why handlers that share its class or key do not get it, as JSON; None where that is not kept.
        unknown_conclusion: whether no handler of its class or key names its conclusion.
        route: handler id to the reason why.
        deliveries: (delivery id, handler id) for each of the route's handlers.
        missing_handlers: those of the handlers that are not loaded here: their deliveries wait for them.
        order_keys: the event's order key, for each of the handlers that is ordered.
        webhook_id: the id under which its call-back was signed; None if it was not.
        read: whether somebody reads the event's data once it is stored, and be it a plugin that is told of it.
        now: microseconds since 1970.
        body_sha256: of its body's bytes.
        identity_sha256: of its identity.
    """

    event: Event
    body: str
    digest: str
    state: EventState
    parked_by: ParkedBy | None = None
    dismissed_by: DismissedBy | None = None
    no_match: str | None = None
    unknown_conclusion: bool = False
    route: Mapping[str, str]
    deliveries: Sequence[tuple[str, str]]
    missing_handlers: frozenset[str] = frozenset()
    order_keys: Mapping[str, str] = field(default_factory=dict)
    webhook_id: str | None = None
    read: bool = True
    now: int
    body_sha256: str = field(init=False)
    identity_sha256: str = field(init=False)

    def __post_init__(self) -> None:
        # Here, and not in the writer's thread, for which all others wait.
        object.__setattr__(self, "body_sha256", checksums.body_sha256(self.body))
        object.__setattr__(self, "identity_sha256", checksums.texts_sha256(self.event.identity))

    def load(self) -> Event:
        """The event for one delivery; its data read anew, so that nobody shares it, unless nobody else would."""
        if not self.read and len(self.deliveries) == 1:
            return self.event
        return replace(self.event, data=schema.parse(self.body.encode()))
