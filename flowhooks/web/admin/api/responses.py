"""The types of the administration API's responses, as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, TypedDict

if TYPE_CHECKING:
    from flowhooks.ledger.alert_queries import OpenAlert
    from flowhooks.ledger.audit import AuditEntry
    from flowhooks.ledger.rejected_requests import RejectedRequest
    from flowhooks.operations.json.encoding import TimestampJson
    from flowhooks.operations.json.engines import BookEntryJson, EngineJson
    from flowhooks.operations.json.events import EventJson, LateCallbackJson
    from flowhooks.operations.json.overview import LastingConditionJson
    from flowhooks.operations.json.plugins import PluginJson
    from flowhooks.operations.json.sources import SourceJson


class EventsJson(TypedDict):
    """Events, the newest first.

    Attributes:
        events: the events.
        next: the value of `after` for the next older events; empty if there are none.
        searched_until: null if these are the first of all matching events; otherwise the search, which no index
            supports, has used up its time after it searched back to events of this time, and `next` continues it.
    """

    events: list[EventJson]
    next: str
    searched_until: TimestampJson | None


class CallCountJson(TypedDict):
    """The recent calls of a handler.

    Attributes:
        deliveries: the number of deliveries for the handler among the newest deliveries.
        last_at: the time at which the last of them was made.
    """

    deliveries: int
    last_at: TimestampJson


class PluginsJson(TypedDict):
    """Plugins with their handlers.

    Attributes:
        plugins: the plugins with the handlers of this page; plugins that need attention come first.
        recent_calls: the recent calls of each handler, by its id; handlers without recent calls are left out.
        oldest_sampled_at: the time at which the oldest of the deliveries counted for recent_calls was made; null if all
            deliveries were counted.
        warnings: the warnings that were found while the plugins were loaded.
        backlog_truncated: whether the backlogs may be larger than was counted.
        next: the value of `after` for the handlers that follow; empty if there are none.
    """

    plugins: list[PluginJson]
    recent_calls: dict[str, CallCountJson]
    oldest_sampled_at: TimestampJson | None
    warnings: list[str]
    backlog_truncated: bool
    next: str


class ParkedGroupJson(TypedDict):
    """Parked events that are routed alike.

    Attributes:
        kind: their kind of callback.
        source: the engine that sent them.
        callback_class: their callback class.
        process_definition_key: their process definition key.
        process_definition_version: their process definition version.
        conclusion: their conclusion; null if they have none.
        undecided: the member that a handler's condition needs and that they lack: `conclusion` or a JSON Pointer; null
            if there is none, or if it was not looked up.
        by_data: whether a condition reads their data, so that each of them is routed by its own body.
        events: the number of events.
        oldest_event_id: the id of the oldest event.
        oldest_received_at: the time at which the oldest event was received.
        deliverable: whether a loaded or registered handler takes them now, so that `reroute_parked` would deliver them.
        hints: selectors that may have been meant instead.
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
    """Parked events, in groups that are routed alike.

    Attributes:
        groups: the groups, the largest first.
        left_out: the number of further groups.
        counted: the number of events that were counted, the oldest ones.
        more: whether there may be more events than were counted.
    """

    groups: list[ParkedGroupJson]
    left_out: int
    counted: int
    more: bool


class ClosedJson(TypedDict):
    """The time at which an alert was closed.

    Attributes:
        closed_at: the time at which its cause ended; null while the alert is open.
    """

    closed_at: TimestampJson | None


AlertJson: TypeAlias = "Annotated[dict[str, Any], OpenAlert, ClosedJson]"


class AlertsJson(TypedDict):
    """Alerts that need attention.

    Attributes:
        alerts: the open alerts, the oldest first; if all are requested, they are followed by the last closed ones, the
            newest first.
    """

    alerts: list[AlertJson]


class RejectedRequestsJson(TypedDict):
    """The last rejected requests.

    Attributes:
        rejected_requests: the requests, the newest first.
        next: the value of `after` for the next older requests; empty if there are none.
    """

    rejected_requests: list[Annotated[dict[str, Any], RejectedRequest]]
    next: str


class AuditJson(TypedDict):
    """The actions of operators.

    Attributes:
        entries: the entries of the audit log, the newest first.
        next: the value of `after` for the next older entries; empty if there are none.
    """

    entries: list[Annotated[dict[str, Any], AuditEntry]]
    next: str


class OldestJson(TypedDict):
    """The oldest delivery or event of a state.

    Attributes:
        started_at: the time at which it entered the state.
        event_id: the id of its event.
        handler: the id of its handler; empty for a parked event.
    """

    started_at: TimestampJson
    event_id: str
    handler: str


class ArrivalsJson(TypedDict):
    """The number of events received recently.

    Attributes:
        period_seconds: the length of the period, which ends now, in seconds.
        total: the number of events received in the period.
        per_minute: the average number of events per minute.
        buckets: the number of events in each part of the period, the oldest first.
    """

    period_seconds: int
    total: int
    per_minute: float
    buckets: list[int]


class PointJson(TypedDict):
    """The attempts in one part of the sampled time.

    Attributes:
        succeeded: the number of attempts that succeeded.
        failed: the number of attempts that did not succeed.
        max_seconds: the duration of the longest attempt, in seconds.
    """

    succeeded: int
    failed: int
    max_seconds: float


class PerformanceJson(TypedDict):
    """The recent performance of a handler: the last attempts of its newest deliveries.

    Attributes:
        handler: the handler's id.
        deliveries: the number of sampled deliveries.
        succeeded: the number of their last attempts that succeeded.
        failed: the number of their last attempts that did not succeed.
        success_rate: the share that succeeded, from 0 to 1; null if none has ended.
        median_seconds: the median duration of the attempts that were not lost, with storing their start, in seconds;
            null if there is none.
        p95_seconds: the 95th percentile of these durations, in seconds; null if there is none.
        points: the attempts over time, the oldest first.
    """

    handler: str
    deliveries: int
    succeeded: int
    failed: int
    success_rate: float | None
    median_seconds: float | None
    p95_seconds: float | None
    points: list[PointJson]


class FailedNotificationsJson(TypedDict):
    """Notifications of alerts that a plugin did not accept, and will get again.

    Attributes:
        plugin: the plugin.
        alerts: the number of alerts.
        error: the error for the newest of these alerts.
    """

    plugin: str
    alerts: int
    error: str


class OpenCircuitJson(TypedDict):
    """A handler whose circuit is open.

    Attributes:
        handler: the id of the handler.
        since: the time at which the circuit was opened.
        reason: the error that opened it.
    """

    handler: str
    since: TimestampJson
    reason: str


class PausedHandlerJson(TypedDict):
    """A handler that an operator has paused.

    Attributes:
        handler: the id of the handler.
        since: the time at which it was paused.
        by: the operator; empty if not known.
        note: the operator's note; empty if there is none.
    """

    handler: str
    since: TimestampJson
    by: str
    note: str


class GrowingErrorGroupJson(TypedDict):
    """An error group with a failure in the last hour, and with a delivery that has not succeeded since.

    Attributes:
        fingerprint: the id of the group.
        handler: the id of the handler.
        error: the type and the message of the error.
        last_hour: the number of attempts that failed in the last hour.
        attempts: the number of all its stored attempts.
        last_seen_at: the time at which the last of them failed.
    """

    fingerprint: str
    handler: str
    error: str
    last_hour: int
    attempts: int
    last_seen_at: TimestampJson


class FailingNowJson(TypedDict):
    """The problems of this moment.

    Attributes:
        conditions: the open alerts about conditions that last, such as silent sources and a full disk, whether they are
            acknowledged or not; at most 20.
        circuits: the handlers with an open circuit, at most 20.
        paused: the handlers that operators have paused, at most 20.
        left_out: the number of conditions, circuits and paused handlers that are left out because of these limits.
        error_groups: the error groups with the most failures in the last hour, of which a delivery is dead or unknown,
            or is retried; at most 5.
        alerts: the ids of the three newest other alerts that are not acknowledged.
    """

    conditions: list[LastingConditionJson]
    circuits: list[OpenCircuitJson]
    paused: list[PausedHandlerJson]
    left_out: int
    error_groups: list[GrowingErrorGroupJson]
    alerts: list[str]


class WaitingJson(TypedDict):
    """The waiting deliveries by the reason why they wait: of the first 3,000 blocked ones, and of 3,000 others.

    Attributes:
        due: the number of those that could run now, and wait for a thread.
        retrying: the number of those that failed, and run again later.
        blocked: the number of those behind an earlier delivery of the same order key, or a concurrency limit.
        paused: the number of those whose handler is paused, or whose circuit is open.
    """

    due: int
    retrying: int
    blocked: int
    paused: int


class OverviewJson(TypedDict):
    """The numbers of the overview.

    Attributes:
        generated_at: the time at which the numbers were read.
        version: the version of flowhooks.
        started_at: the time at which this process started; null if it is not known.
        database: SQLite or PostgreSQL.
        counts: the number of deliveries that are waiting, running, unknown, dead and handler_missing (waiting for a
            missing handler), and the number of parked events; `count_limit` plus one stands for any larger number.
        count_limit: the largest exact number in counts.
        oldest: the oldest delivery or event of each of these states; states without any are left out.
        arrivals: the events received recently.
        performance: the performance of handlers, those with failures first, then the busiest.
        sampled_deliveries: the number of the newest deliveries from which the performance was computed.
        oldest_sampled_at: the time at which the oldest of them was made.
        alerts: the number of open alerts.
        failed_notifications: the plugins that could not pass on alerts.
        waiting: the waiting deliveries by the reason why they wait.
        failing: the problems of this moment.
        responses: the number of callbacks that this process has answered since its start, by HTTP status.
        problems: the reasons why this process is not ready for callbacks; empty if it is ready.
    """

    generated_at: TimestampJson
    version: str
    started_at: TimestampJson | None
    database: str
    counts: dict[str, int]
    count_limit: int
    oldest: dict[str, OldestJson]
    arrivals: ArrivalsJson
    performance: list[PerformanceJson]
    sampled_deliveries: int
    oldest_sampled_at: TimestampJson | None
    alerts: int
    failed_notifications: list[FailedNotificationsJson]
    waiting: WaitingJson
    failing: FailingNowJson
    responses: dict[str, int]
    problems: list[str]


class EnginesJson(TypedDict):
    """The engines that flowhooks asks.

    Attributes:
        engines: the engines, by source.
    """

    engines: list[EngineJson]


class InstanceJson(TypedDict):
    """The stored data of a process instance. No engine is asked: `ask_engine` does it.

    Attributes:
        book: what was read of the instance in the histories of engines.
        events: its newest 50 events, the newest first.
        late_callbacks: the callbacks that arrived after an event had been taken in, by the event's id.
    """

    book: list[BookEntryJson]
    events: list[EventJson]
    late_callbacks: dict[str, list[LateCallbackJson]]


class SourcesJson(TypedDict):
    """The sources.

    Attributes:
        sources: the sources in the settings, by name; also `default` if callbacks need no credential.
    """

    sources: list[SourceJson]
