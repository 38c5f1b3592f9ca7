"""Late callbacks, and what flowhooks has read in the histories of engines."""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    Index,
    Integer,
    PrimaryKeyConstraint,
    Table,
    Text,
    bindparam,
    literal_column,
)

from flowhooks.ledger.tables.base import metadata

late_callbacks: Final = Table(
    "late_callbacks",
    metadata,
    Column("event_id", Text, ForeignKey("events.id"), nullable=False),
    Column("digest", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("received_at", BigInteger, nullable=False),
    Column("repeats", Integer, nullable=False, server_default="0", comment="number of repeats of the same callback"),
    Column("body_sha256", Text, nullable=False, comment="as of events"),
    Column("row_sha256", Text, nullable=False, comment="as of events"),
    PrimaryKeyConstraint("event_id", "digest"),
)
"""Callbacks that arrived after reconciliation had taken in their instance."""

engine_instances: Final = Table(
    "engine_instances",
    metadata,
    Column("source", Text, nullable=False),
    Column("flow_instance_id", Text, nullable=False),
    Column("ended_at", BigInteger, nullable=False, comment="by the engine's clock"),
    Column("started_at", BigInteger, comment="by the engine's clock; null: not known"),
    Column("end_state", Text, nullable=False, comment="completed, cancelled, error, terminated or undecided"),
    Column("process_definition_key", Text),
    Column("process_definition_version", Integer),
    Column("conclusion", Text, comment="mapped, as of events"),
    Column("tenant_id", Text),
    Column("parent_id", Text, comment="the instance that called it; null: none"),
    Column("disposition", Text, nullable=False, comment="has_event, skipped or in_grace"),
    Column("rule", Text, nullable=False, server_default="", comment="why it is skipped; otherwise ''"),
    Column("detail", Text, nullable=False, server_default="", comment="more about the rule, for operators"),
    Column("event_id", Text, comment="its event, if it has one"),
    Column("body", Text, comment="while in_grace: the body of the event that it becomes"),
    Column("first_seen_at", BigInteger, nullable=False, comment="when flowhooks first read it in the history"),
    Column("changed_at", BigInteger, nullable=False),
    PrimaryKeyConstraint("source", "flow_instance_id"),
    sqlite_with_rowid=False,
)
"""The finished instances that flowhooks has read in the histories of engines, each with what became of it."""
# With the columns by which instances are counted, so that a count reads only the index.
Index(
    "engine_instances_ended",
    engine_instances.c.source,
    engine_instances.c.ended_at,
    engine_instances.c.disposition,
    engine_instances.c.rule,
)
Index("engine_instances_event", engine_instances.c.event_id)
IS_IN_GRACE: Final = engine_instances.c.disposition == bindparam("in_grace", "in_grace", literal_execute=True)
"""Instances that have no event yet. Only a query with exactly this condition uses the index below."""
Index(
    "engine_instances_in_grace",
    engine_instances.c.source,
    engine_instances.c.ended_at,
    info={"where": IS_IN_GRACE},
)
_INVALID_RULES: Final = ("invalid", "invalid_id", "rejected", "too_large")
"""The rules that skip an instance because of its data, so that it has no event although it should have one. No rule is
named `rejected` any more."""
IS_INVALID: Final = engine_instances.c.rule.in_([literal_column(f"'{rule}'") for rule in _INVALID_RULES])
"""Instances that such a rule skips. Only a query with exactly this condition uses the index below."""
Index(
    "engine_instances_invalid",
    engine_instances.c.source,
    engine_instances.c.changed_at,
    info={"where": IS_INVALID},
)

engine_positions: Final = Table(
    "engine_positions",
    metadata,
    Column("source", Text, primary_key=True),
    Column(
        "former_names", Text, nullable=False, server_default="[]", comment="JSON: under which no process reconciles"
    ),
    Column("since", BigInteger, nullable=False, comment="the first contact: earlier ends are not taken in"),
    Column("position", BigInteger, nullable=False, comment="each instance that ended before has been decided"),
    Column("read_until", BigInteger, nullable=False, comment="the history was read until this time of the engine"),
    Column("swept_at", BigInteger, nullable=False, comment="when the last 24 hours were last read again"),
    Column("round_at", BigInteger, nullable=False, comment="when the last reconciliation ended, also with an error"),
    Column("succeeded_at", BigInteger, comment="when the last one without an error ended; null: none has"),
    Column("failed_since", BigInteger, comment="since when each one has ended with an error; null: the last did not"),
    Column(
        "reason",
        Text,
        nullable=False,
        server_default="",
        comment="unreachable, refused or invalid: the engine; database: our ledger; '': no error",
    ),
    Column("error", Text, nullable=False, server_default="", comment="the last error, for operators"),
    Column("failures", Integer, nullable=False, server_default="0", comment="errors since the last success"),
    Column("skew", BigInteger, comment="the engine's clock minus ours, in microseconds; null: not known"),
    Column("product", Text, nullable=False, server_default="", comment="the engine's name and version"),
    Column("to_confirm", Integer, nullable=False, server_default="0", comment="instances that wait for an operator"),
    Column(
        "waiting",
        Integer,
        nullable=False,
        server_default="0",
        comment="instances that wait because no server could take callbacks",
    ),
    Column("confirmed_at", BigInteger, comment="until then seen instances may be taken in; null: not confirmed"),
    Column("declining_after", BigInteger, comment="instances that were first seen after this time, and"),
    Column("declining_until", BigInteger, comment="until this one, are being declined; null: none is"),
    Column("declining_note", Text, comment="why, for operators"),
    Column("definitions", Text, comment="JSON: the deployed definitions, as last read; null: never read"),
    Column("definitions_at", BigInteger, comment="when they were read"),
    Column("process", Text, nullable=False, server_default="", comment="the process that reconciles; '': none does"),
    Column("process_until", BigInteger, nullable=False, server_default="0", comment="until when, by the database"),
)
"""How far flowhooks has read the history of each engine."""

history_gaps: Final = Table(
    "history_gaps",
    metadata,
    Column("source", Text, nullable=False),
    Column("since", BigInteger, nullable=False, comment="the interval of end times that could not be read"),
    Column("until", BigInteger, nullable=False),
    Column("reason", Text, nullable=False, comment="deleted, refused, unreachable or invalid"),
    Column("detail", Text, nullable=False, comment="for operators, in one line"),
    Column("found_at", BigInteger, nullable=False),
    Column("closed_at", BigInteger, comment="when the interval was read after all, or an operator closed the gap"),
    PrimaryKeyConstraint("source", "since"),
)
"""Intervals of an engine's history that flowhooks could not read."""
