"""Consistency checks of corrections, for `flowhooks.ledger.consistency`."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Select, or_, select

from flowhooks.ledger.tables import conflicts, events, purged_identities
from flowhooks.model.event import Origin

_ORIGINAL = events.alias("original")
CHECKS: Final[tuple[tuple[Select[str], str], ...]] = (
    (
        select(events.c.id).where((events.c.origin == Origin.CORRECTION.value) != events.c.corrects.is_not(None)),
        "event {} is a correction of no event, or corrects an event and is no correction",
    ),
    (
        # A purged original is no longer stored, and neither is its conflict.
        select(events.c.id)
        .join(_ORIGINAL, _ORIGINAL.c.id == events.c.corrects)
        .outerjoin(conflicts, (conflicts.c.event_id == events.c.corrects) & (conflicts.c.corrected_by == events.c.id))
        .where(or_(conflicts.c.event_id.is_(None), conflicts.c.digest != events.c.digest)),
        "event {} is a correction whose body is not recorded with the event that it corrects",
    ),
    (
        select(conflicts.c.event_id)
        .join(events, events.c.id == conflicts.c.corrected_by)
        .where(or_(events.c.corrects.is_(None), events.c.corrects != conflicts.c.event_id)),
        "a conflicting body of event {} is recorded as accepted with an event that does not correct it",
    ),
)
"""Each query with the sentence that is reported for each id that it returns."""
LOST: Final = (
    select(conflicts.c.event_id)
    .outerjoin(events, events.c.id == conflicts.c.corrected_by)
    .outerjoin(purged_identities, purged_identities.c.event_id == conflicts.c.corrected_by)
    .where(conflicts.c.corrected_by.is_not(None), events.c.id.is_(None), purged_identities.c.identity_sha256.is_(None))
)
"""Events with an accepted body whose correction is neither stored nor purged."""
