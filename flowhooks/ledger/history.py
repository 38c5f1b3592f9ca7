"""Find the rows of callbacks that a client recorded. Nothing is changed."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import TYPE_CHECKING, Final, NamedTuple

from sqlalchemy import Text, select

from flowhooks.ledger import checksums, database, identities, purge
from flowhooks.ledger.tables import conflicts, equals_indexed, events, late_callbacks, purged_identities
from flowhooks.model.event import Origin

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy import Connection

_IDENTITY_DIGESTS = database.row_array("digests", identity_sha256=Text)
_EVENTS: Final = select(events.c.id, events.c.digest, events.c.body_sha256, events.c.identity_sha256).join(
    _IDENTITY_DIGESTS, events.c.identity_sha256 == _IDENTITY_DIGESTS.c.identity_sha256
)
_CONFLICTS: Final = select(conflicts.c.event_id, conflicts.c.digest, conflicts.c.body_sha256).where(
    conflicts.c.event_id.in_(database.string_array("event_ids"))
)
_LATE: Final = select(late_callbacks.c.event_id, late_callbacks.c.digest, late_callbacks.c.body_sha256).where(
    late_callbacks.c.event_id.in_(database.string_array("event_ids"))
)
_RECONCILED: Final = select(events.c.id, events.c.digest, events.c.body_sha256).where(
    events.c.origin == Origin.RECONCILED.value
)
_PURGED_RECONCILED: Final = select(purged_identities.c.event_id).where(
    purged_identities.c.instance_sha256.in_(database.string_array("digests")),
    purged_identities.c.origin == Origin.RECONCILED.value,
)
_IDENTITIES: Final = select(
    events.c.id, events.c.source, events.c.kind, events.c.flow_instance_id, events.c.callback_class
).where(events.c.id.in_(database.string_array("event_ids")))
_BODY: Final = select(events.c.body)


class StoredBody(NamedTuple):
    """A stored body without its text.

    Attributes:
        event_id: the event that stores it.
        digest: the digest of its JSON values.
        body_sha256: the SHA-256 of its bytes; None: not recorded.
    """

    event_id: str
    digest: str
    body_sha256: str | None


class StoredCallbacks(NamedTuple):
    """The stored rows of several callbacks.

    Attributes:
        events: the body of each stored event, and what is left of each purged one, by the SHA-256 of its identity.
        conflicts: the conflicting bodies of each of the stored events, by its id.
    """

    events: dict[str, StoredBody | purge.PurgedIdentity]
    conflicts: dict[str, list[StoredBody]]


def find_callbacks(connection: Connection, identities_sha256: Collection[str]) -> StoredCallbacks:
    """Return the rows of the callbacks with these identities."""
    digests = sorted(set(identities_sha256))
    rows = connection.execute(_EVENTS, {"digests": json.dumps([[digest] for digest in digests])})
    stored = {row.identity_sha256: StoredBody(row.id, row.digest, row.body_sha256) for row in rows}
    conflicting = defaultdict(list)
    for row in connection.execute(_CONFLICTS, {"event_ids": json.dumps([body.event_id for body in stored.values()])}):
        conflicting[row.event_id].append(StoredBody(row.event_id, row.digest, row.body_sha256))
    return StoredCallbacks({**purge.find_purged(connection, digests), **stored}, dict(conflicting))


def bodies_of_instance(connection: Connection, sources: Collection[str], flow_instance_id: str) -> list[StoredBody]:
    """Return all bodies that are stored of the events of a process instance that reconciliation took in.

    Args:
        connection: any connection.
        sources: the source and its former names.
        flow_instance_id: the process instance.
    """
    of_instance = _RECONCILED.where(
        events.c.source.in_(sorted(sources)), equals_indexed(events.c.flow_instance_id, flow_instance_id)
    )
    found = [StoredBody(*row) for row in connection.execute(of_instance)]
    if found:
        event_ids = {"event_ids": json.dumps([body.event_id for body in found])}
        for query in (_LATE, _CONFLICTS):
            found += [StoredBody(*row) for row in connection.execute(query, event_ids)]
    return found


def purged_events_of_instance(connection: Connection, sources: Collection[str], flow_instance_id: str) -> set[str]:
    """Return the ids of purged events that reconciliation took in for a process instance id, which may be reused.

    Args:
        connection: any connection.
        sources: the source and its former names.
        flow_instance_id: the id of the process instances.
    """
    digests = [checksums.instance_sha256(source, flow_instance_id) for source in sorted(sources)]
    return set(connection.execute(_PURGED_RECONCILED, {"digests": json.dumps(digests)}).scalars())


def correction_of(connection: Connection, event_id: str, digests: Collection[str]) -> str:
    """Return the id of an event's correction whose body has one of these digests, also a purged one; `""` if none."""
    keys = {checksums.correction_sha256(event_id, digest) for digest in digests}
    return next((existing[0] for existing in identities.find_all(connection, keys).values()), "")


def event_identities(connection: Connection, event_ids: Collection[str]) -> dict[str, tuple[str, str, str, str]]:
    """Return the identity of each event that is stored with one of these ids, by its id."""
    rows = connection.execute(_IDENTITIES, {"event_ids": json.dumps(sorted(event_ids))})
    return {row.id: (row.source, row.kind, row.flow_instance_id, row.callback_class) for row in rows}


def event_body(connection: Connection, event_id: str) -> str:
    """Return the body of a stored event."""
    return str(connection.execute(_BODY.where(events.c.id == event_id)).scalar_one())


def identity_sha256(*, source: str, kind: str, flow_instance_id: str, callback_class: str) -> str:
    """Return the SHA-256 of an identity, as `events.identity_sha256` has it."""
    return checksums.texts_sha256((source, kind, flow_instance_id, callback_class))
