"""Look-ups of events by the SHA-256 of their identities, in which purged events are still known."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final, TypeAlias

from sqlalchemy import Text, select

from flowhooks.ledger import checksums, database, purge
from flowhooks.ledger.tables import events

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from sqlalchemy import Connection

    from flowhooks.ledger.new_event import Identity

Existing: TypeAlias = "tuple[str, str, str]"
"""Id, digest and state of an event; the state of a purged one is `purge.PURGED`."""
_DIGESTS = database.row_array("digests", identity_sha256=Text)
_FIND: Final = select(events.c.id, events.c.digest, events.c.state, events.c.identity_sha256).join(
    _DIGESTS, events.c.identity_sha256 == _DIGESTS.c.identity_sha256
)
_FIND_AND_LOCK: Final = _FIND.with_for_update(read=True, key_share=True, of=events)
"""The same, with a lock: no other transaction purges these events before this one ends."""


def find(connection: Connection, digests: Iterable[str], *, lock: bool = False) -> dict[str, Existing]:
    """Return the stored events with these identities, by identity."""
    parameters = {"digests": json.dumps([[digest] for digest in digests])}
    rows = connection.execute(_FIND_AND_LOCK if lock else _FIND, parameters)
    return {row.identity_sha256: (row.id, row.digest, row.state) for row in rows}


def find_purged(connection: Connection, digests: Iterable[str]) -> dict[str, Existing]:
    """Return the purged events with these identities, by identity."""
    return {
        digest: (purged_identity.event_id, purged_identity.digest, purge.PURGED)
        for digest, purged_identity in purge.find_purged(connection, digests).items()
    }


def find_all(connection: Connection, digests: Collection[str]) -> dict[str, Existing]:
    """Return the stored and the purged events with these identities, by identity."""
    stored = find(connection, digests)
    # In this order, because another process may purge an event between the two statements.
    return find_purged(connection, digests) | stored


def is_stored(connection: Connection, identity: Identity) -> bool:
    """Return whether an event with this identity is stored or was purged."""
    digests = [checksums.texts_sha256(identity)]
    return bool(find(connection, digests) or purge.find_purged(connection, digests))
