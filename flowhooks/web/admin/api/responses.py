"""What the administration API answers, as JSON has it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, TypedDict

if TYPE_CHECKING:
    from flowhooks.ledger.alert_queries import OpenAlert
    from flowhooks.ledger.audit import AuditEntry
    from flowhooks.ledger.rejected_requests import RejectedRequest
    from flowhooks.operations.json.encoding import TimestampJson
    from flowhooks.operations.json.events import EventJson
    from flowhooks.operations.json.plugins import PluginJson


class EventsJson(TypedDict):
    """Events, the newest first.

    Attributes:
        events: the events.
        next: what to give as `after` for the next older ones; empty where there are none.
        searched_until: null if these are the first of all that there are; else the search has no index to go by, its
            time was over, and it has come back to events of this moment: `next` goes on from there.
    """

    events: list[EventJson]
    next: str
    searched_until: TimestampJson | None


class CallCountJson(TypedDict):
    """How often a handler was called lately.

    Attributes:
        deliveries: how many of the newest deliveries are for it.
        last_at: when the last of them was made.
    """

    deliveries: int
    last_at: TimestampJson


class PluginsJson(TypedDict):
    """Plugins with their handlers.

    Attributes:
        plugins: the plugins, those first that somebody should look at, with the handlers of this page.
        recent_calls: by the handler's id, how often it was called lately; handlers that were not are left out.
        oldest_sampled_at: when the oldest of the deliveries was made that were counted for that; null if all were.
        warnings: what was noticed while the plugins were loaded.
        backlog_truncated: whether there may be more in the backlogs than was counted.
        next: what to give as `after` for the handlers that follow; empty where there are none.
    """

    plugins: list[PluginJson]
    recent_calls: dict[str, CallCountJson]
    oldest_sampled_at: TimestampJson | None
    warnings: list[str]
    backlog_truncated: bool
    next: str


class ParkedGroupJson(TypedDict):
    """Parked events that any look-up would treat alike.

    Attributes:
        kind: their kind of call-back.
        source: the engine that sent them.
        callback_class: their call-back class.
        process_definition_key: their process definition key.
        process_definition_version: their process definition version.
        conclusion: their conclusion; null: they have none.
        undecided: the member that a handler's condition needs and that they lack: `conclusion` or a JSON Pointer; null:
            there is none, or it was not looked up.
        by_data: whether a condition reads their data, so that each of them is routed by its own body.
        events: how many there are.
        oldest_event_id: the id of the oldest one.
        oldest_received_at: when that was received.
        deliverable: whether a loaded or registered handler takes them now, so that `reroute_parked` would deliver them.
        hints: what may have been meant instead.
    """

    kind: str
    source: str
    callback_class: str | None
    process_definition_key: str | None
    process_definition_version: int | None
    conclusion: str | None
    undecided: str | None
    by_data: bool
    events: int
    oldest_event_id: str
    oldest_received_at: TimestampJson
    deliverable: bool
    hints: list[str]


class ParkedJson(TypedDict):
    """What is parked, by what it waits for.

    Attributes:
        groups: the groups, the largest first.
        left_out: how many more groups there are.
        counted: how many events were counted, the oldest ones.
        more: whether there may be more than that.
    """

    groups: list[ParkedGroupJson]
    left_out: int
    counted: int
    more: bool


class ClosedJson(TypedDict):
    """When an alert was closed.

    Attributes:
        closed_at: when its cause had gone; null while it goes on.
    """

    closed_at: TimestampJson | None


AlertJson: TypeAlias = "Annotated[dict[str, Any], OpenAlert, ClosedJson]"


class AlertsJson(TypedDict):
    """What somebody should look at.

    Attributes:
        alerts: those that are open, the oldest first; where all are asked for, the last ones whose causes have gone
            after them, the newest first.
    """

    alerts: list[AlertJson]


class RejectedRequestsJson(TypedDict):
    """The requests that were rejected last.

    Attributes:
        rejected_requests: the requests, the newest first.
        next: what to give as `after` for the next older ones; empty where there are none.
    """

    rejected_requests: list[Annotated[dict[str, Any], RejectedRequest]]
    next: str


class AuditJson(TypedDict):
    """What operators have done.

    Attributes:
        entries: what was done, the newest first.
        next: what to give as `after` for the next older ones; empty where there are none.
    """

    entries: list[Annotated[dict[str, Any], AuditEntry]]
    next: str


class OldestJson(TypedDict):
    """The oldest delivery or event of a state.

    Attributes:
        started_at: when it entered the state.
        event_id: its event.
        handler: its handler's id; empty for a parked event.
    """

    started_at: TimestampJson
    event_id: str
    handler: str


class ArrivalsJson(TypedDict):
    """How many events came lately.

    Attributes:
        period_seconds: how long the period is that ends now.
        total: how many came in them.
        per_minute: how many that is a minute.
        buckets: how many came in each part of it, the oldest first.
    """

    period_seconds: int
    total: int
    per_minute: float
    buckets: list[int]


class PointJson(TypedDict):
    """One part of the time that was looked at.

    Attributes:
        succeeded: attempts that succeeded.
        failed: attempts that did not.
        max_seconds: how long the longest of them took.
    """

    succeeded: int
    failed: int
    max_seconds: float


class PerformanceJson(TypedDict):
    """How a handler has done lately: the last attempts of its newest deliveries.

    Attributes:
        handler: its id.
        deliveries: how many of them were looked at.
        succeeded: how many of their last attempts succeeded.
        failed: how many did not.
        success_rate: the share that succeeded, from 0 to 1; null where none has ended.
        median_seconds: how long half of them took at most; null where none has ended.
        p95_seconds: how long 95 % of them took at most; null where none has ended.
        points: the same over time, the oldest first.
    """

    handler: str
    deliveries: int
    succeeded: int
    failed: int
    success_rate: float | None
    median_seconds: float | None
    p95_seconds: float | None
    points: list[PointJson]


class OverviewJson(TypedDict):
    """How it goes.

    Attributes:
        generated_at: when this was read.
        version: of flowhooks.
        database: SQLite or PostgreSQL.
        counts: how many deliveries are waiting, running, unknown, dead and handler_missing (waiting for a missing
            handler), and how many events are parked; where there are more than `count_limit`, one more than that.
        count_limit: how far is counted.
        oldest: of each of these states, its oldest delivery or event; states without any are left out.
        arrivals: how many events came.
        performance: how handlers have done, those with failures first, then the busiest.
        sampled_deliveries: of how many deliveries that is, the newest ones.
        oldest_sampled_at: when the oldest of those was made.
        alerts: how many alerts are open.
        responses: how many call-backs this process has answered since its start, by HTTP status.
        problems: why this process is not ready for call-backs; empty if it is.
    """

    generated_at: TimestampJson
    version: str
    database: str
    counts: dict[str, int]
    count_limit: int
    oldest: dict[str, OldestJson]
    arrivals: ArrivalsJson
    performance: list[PerformanceJson]
    sampled_deliveries: int
    oldest_sampled_at: TimestampJson | None
    alerts: int
    responses: dict[str, int]
    problems: list[str]
