"""Checksums of stored callbacks, by which `flowhooks verify` detects any change.

`body_sha256` covers the bytes of the body as received. `row_sha256` covers that digest and all other columns that never
change once a row is stored. Neither is a signature: anybody who can write to the database can replace them.

`texts_sha256` makes a key of texts that are too long for an index of PostgreSQL.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

EVENT_COLUMNS: Final = (
    "id",
    "source",
    "kind",
    "flow_instance_id",
    "callback_class",
    "business_key",
    "process_definition_id",
    "process_definition_key",
    "process_definition_version",
    "conclusion",
    "digest",
    "body_sha256",
    "received_at",
    "traceparent",
    "origin",
    "instance_started_at",
    "corrects",
    "raw_body",
    "media_type",
)
"""Columns of `events` that `row_sha256` covers, in this order."""
BODY_COLUMNS: Final = ("event_id", "digest", "body_sha256", "received_at")
"""The same for `late_callbacks`."""
CONFLICT_COLUMNS: Final = (*BODY_COLUMNS, "kind")
"""The same for `conflicts`."""
_JSON: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def body_sha256(body: str) -> str:
    """Return the SHA-256 (hexadecimal) of a body's bytes. Bodies are strict UTF-8, so the text keeps every byte."""
    return hashlib.sha256(body.encode()).hexdigest()


def row_sha256(values: Iterable[Any]) -> str:
    """Return the SHA-256 (hexadecimal) of the values of a row's columns, in their order."""
    return hashlib.sha256(_JSON.encode(list(values)).encode()).hexdigest()


def identity_sha256(identity: Sequence[str], instance_started_at: int | None = None) -> str:
    """Return the key of an event's identity.

    Args:
        identity: source, kind, process instance and class.
        instance_started_at: when the instance started, if an earlier one had the same id.
    """
    return texts_sha256(identity if instance_started_at is None else (*identity, str(instance_started_at)))


def correction_sha256(corrects: str, digest: str) -> str:
    """Return the key of a correction. It is not the key of any identity, which has more texts.

    Args:
        corrects: the id of the event that it corrects.
        digest: the digest of its body.
    """
    return texts_sha256(("correction", corrects, digest))


def instance_sha256(source: str, flow_instance_id: str) -> str:
    """Return the key of a process instance."""
    return texts_sha256((source, flow_instance_id))


def texts_sha256(texts: Sequence[str]) -> str:
    """Return the SHA-256 (hexadecimal) of several texts, such as the identity of an event."""
    return hashlib.sha256(_JSON.encode(texts).encode()).hexdigest()
