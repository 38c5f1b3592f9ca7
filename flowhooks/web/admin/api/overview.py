"""The numbers of the overview as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from flowhooks import __version__
from flowhooks.clock import SECOND, to_text
from flowhooks.ledger import stats
from flowhooks.operations.json.overview import condition_to_json
from flowhooks.operations.overview import overview

if TYPE_CHECKING:
    from flowhooks.app import App
    from flowhooks.operations.failing_now import FailingNow
    from flowhooks.operations.overview import Arrivals, Performance
    from flowhooks.web.admin.api.responses import ArrivalsJson, FailingNowJson, OverviewJson, PerformanceJson

MAX_HANDLERS: Final = 200
"""Maximum number of handlers whose performance is returned."""


def overview_to_json(app: App) -> OverviewJson:
    """Return the numbers of the overview."""
    status = overview(app.ledger, app.clock.now(), process=app.ledger.process)
    return {
        "generated_at": to_text(status.generated_at),
        "version": __version__,
        "started_at": to_text(status.started_at),
        "database": "PostgreSQL" if app.ledger.shared else "SQLite",
        "counts": dict(status.counts),
        "count_limit": stats.MAX_COUNTED,
        "oldest": {
            name: {"started_at": to_text(oldest.started_at), "event_id": oldest.event_id, "handler": oldest.handler}
            for name, oldest in status.oldest.items()
        },
        "arrivals": _arrivals(status.arrivals),
        "performance": [_performance(performance) for performance in status.performance[:MAX_HANDLERS]],
        "sampled_deliveries": status.sampled_deliveries,
        "oldest_sampled_at": to_text(status.oldest_sampled_at),
        "alerts": status.alerts,
        "waiting": {
            "due": status.waiting.due,
            "retrying": status.waiting.retrying,
            "blocked": status.waiting.blocked,
            "paused": status.waiting.paused,
        },
        "failing": _failing(status.failing),
        "failed_notifications": [
            {"plugin": failed.plugin, "alerts": failed.alerts, "error": failed.error}
            for failed in status.failed_notifications
        ],
        "responses": {str(status): count for status, count in app.metrics.answers().items()},
        "problems": app.readiness_problems(),
    }


def _failing(failing: FailingNow) -> FailingNowJson:
    return {
        "conditions": [condition_to_json(alert) for alert in failing.conditions],
        "circuits": [
            {"handler": circuit.handler, "since": to_text(circuit.since), "reason": circuit.reason}
            for circuit in failing.circuits
        ],
        "paused": [
            {"handler": paused.handler, "since": to_text(paused.since), "by": paused.by, "note": paused.note}
            for paused in failing.paused
        ],
        "left_out": failing.left_out,
        "error_groups": [
            {
                "fingerprint": group.fingerprint,
                "handler": group.handler,
                "error": group.error,
                "last_hour": group.last_hour,
                "attempts": group.attempts,
                "last_seen_at": to_text(group.last_seen_at),
            }
            for group in failing.error_groups
        ],
        "alerts": [alert.id for alert in failing.alerts],
    }


def _arrivals(arrivals: Arrivals) -> ArrivalsJson:
    return {
        "period_seconds": arrivals.period_seconds,
        "total": arrivals.total,
        "per_minute": arrivals.per_minute,
        "buckets": list(arrivals.buckets),
    }


def _performance(performance: Performance) -> PerformanceJson:
    return {
        "handler": performance.handler,
        "deliveries": performance.deliveries,
        "succeeded": performance.succeeded,
        "failed": performance.failed,
        "success_rate": performance.success_rate,
        "median_seconds": _seconds(performance.median),
        "p95_seconds": _seconds(performance.p95),
        "points": [
            {"succeeded": point.succeeded, "failed": point.failed, "max_seconds": point.slowest / SECOND}
            for point in performance.points
        ],
    }


def _seconds(microseconds: int | None) -> float | None:
    return None if microseconds is None else microseconds / SECOND
