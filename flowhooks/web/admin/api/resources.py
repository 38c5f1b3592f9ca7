"""What there is, each under its path; it must not know how any of it is found or counted."""

# ruff: noqa: RUF001 (Chinese has punctuation marks of its own)
from __future__ import annotations

from typing import TYPE_CHECKING, Final

from flowhooks import __version__
from flowhooks.clock import SECOND, to_text
from flowhooks.ledger import alert_queries, audit, recent_activity, rejected_requests
from flowhooks.ledger.search import search_events
from flowhooks.operations.find_event import event_named
from flowhooks.operations.json.encoding import facts
from flowhooks.operations.json.events import WholeEventJson, event_to_json, whole_event_to_json
from flowhooks.operations.json.plugins import plugin_to_json
from flowhooks.operations.json.routing import ExplanationJson, explanation_to_json
from flowhooks.operations.overview import overview
from flowhooks.operations.parked import parked
from flowhooks.operations.plugin_status import cut, slice_of, sought_in, survey, urgent_first
from flowhooks.web.admin.api.parameters import (
    AFTER,
    AT_ONCE,
    FILTER,
    MOST_AT_ONCE,
    TEXT,
    cursor,
    how_many,
    limit,
    wanted,
)
from flowhooks.web.admin.api.query import Parameter, number, truth
from flowhooks.web.admin.api.resource import Resource
from flowhooks.web.admin.api.responses import (
    AlertsJson,
    ArrivalsJson,
    AuditJson,
    EventsJson,
    OverviewJson,
    ParkedGroupJson,
    ParkedJson,
    PerformanceJson,
    PluginsJson,
    RefusalsJson,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flowhooks.ledger.alert_queries import OpenAlert
    from flowhooks.operations.overview import Arrivals, Performance
    from flowhooks.operations.parked import Waiting

MOST_DELIVERIES: Final = 200
MOST_ATTEMPTS: Final = 50
MOST_GROUPS: Final = 200
MOST_OVER: Final = 50
MOST_HANDLERS: Final = 200


class Events(Resource):
    """`GET /api/events`."""

    path = "/api/events"
    means = "Events with their deliveries, the newest first. / 事件及其投递，最新的在前。"
    takes = (*FILTER, limit(AT_ONCE), AFTER)
    gives = EventsJson

    def give(self, given: Mapping[str, list[str]], _path: Mapping[str, str], /) -> EventsJson:
        """One page of them."""
        with self.app.ledger.connection() as connection:
            page = search_events(connection, wanted(given), limit=how_many(given), before=cursor(given))
        return {
            "events": [event_to_json(one) for one in page.events],
            "next": page.older,
            "looked_until": to_text(page.looked_until),
        }


class Event(Resource):
    """`GET /api/events/{id}`."""

    path = "/api/events/{id}"
    means = (
        "All that is known of an event: route, body, deliveries with their attempts, what operators did. / "
        "事件的全部信息：路由、请求体、投递及每次尝试、运维操作。"
    )
    gives = WholeEventJson
    named = "The id of an event, or of one of its deliveries. / 事件或其投递的 ID。"

    def give(self, _given: Mapping[str, list[str]], path: Mapping[str, str], /) -> WholeEventJson:
        """All that is known of it."""
        reader = self.app.ledger
        return whole_event_to_json(
            reader,
            event_named(reader, path["id"]),
            most_deliveries=MOST_DELIVERIES,
            most_attempts=MOST_ATTEMPTS,
        )


class Explanation(Resource):
    """`GET /api/events/{id}/explanation`."""

    path = "/api/events/{id}/explanation"
    means = (
        "Where the event would go with the handlers that are known now, and why, with the value of each condition. / "
        "按当前已知的处理器，事件会投递给谁及原因，包括每个条件的判定结果。"
    )
    gives = ExplanationJson
    named = Event.named

    def give(self, _given: Mapping[str, list[str]], path: Mapping[str, str], /) -> ExplanationJson:
        """Route it, without any change."""
        app = self.app
        stored = event_named(app.ledger, path["id"])
        return explanation_to_json(app.router.explain_event(stored.event, max_candidates=MOST_HANDLERS), self._standing)

    def _standing(self, handler: str) -> str:
        if handler in self.app.plugins.handlers:
            return "present"
        return "missing" if handler in self.app.missing_handlers else "elsewhere"


class Plugins(Resource):
    """`GET /api/handlers`."""

    path = "/api/handlers"
    means = (
        "Plugins with their handlers: what each listens to, how it stands, what is stored for it. / "
        "插件及其处理器：选择条件、状态、积压。"
    )
    takes = (
        Parameter(
            name="q",
            means="With this in the plugin's or the handler's name. / 插件或处理器名称中包含的文字。",
            schema=TEXT,
        ),
        limit(MOST_AT_ONCE),
        Parameter(
            name="after",
            means="Go on after so many handlers: next of the answer before. / "
            "跳过多少个处理器后继续；取自上一次响应的 next。",
            schema={"type": "integer", "minimum": 0, "maximum": 999_999_999},
        ),
    )
    gives = PluginsJson

    def give(self, given: Mapping[str, list[str]], _path: Mapping[str, str], /) -> PluginsJson:
        """The plugins, with the handlers of one page."""
        app = self.app
        sought = given.get("q", [""])[0]
        start = number("after", given.get("after", ["0"])[0], low=0, high=999_999_999)
        most = how_many(given, MOST_AT_ONCE)
        plugins = urgent_first(
            survey(
                app.plugins,
                app.ledger,
                app.settings.ignore.process_key,
                most=recent_activity.MAX_GROUPED,
                stale_after=app.settings.ledger.stale_after,
                settings=app.settings,
            )
        )
        with app.ledger.connection() as connection:
            called, since = recent_activity.count_by_handler(connection)
        found = [one for plugin in plugins if (one := sought_in(plugin, sought)) is not None]
        page = slice_of(found, start, most)
        here = {one.id for plugin in page for one in plugin.handlers}
        return {
            "plugins": [plugin_to_json(one) for one in page],
            "called": {
                name: {"deliveries": one.deliveries, "last_at": to_text(one.last_at)}
                for name, one in called.items()
                if name in here
            },
            "called_since": to_text(since),
            "warnings": list(app.plugins.warnings),
            "backlog_cut": cut(plugins, recent_activity.MAX_GROUPED),
            "next": str(start + most) if start + most < sum(len(one.handlers) for one in found) else "",
        }


class Parked(Resource):
    """`GET /api/parked`."""

    path = "/api/parked"
    means = "What nobody wants yet, by what it waits for. / 暂存的事件，按所等待的处理器分组。"
    gives = ParkedJson

    def give(self, _given: Mapping[str, list[str]], _path: Mapping[str, str], /) -> ParkedJson:
        """The groups, the largest first."""
        app = self.app
        found = parked(app.ledger, app.router, most=recent_activity.MAX_GROUPED, handlers=len(app.plugins.handlers))
        counted = sum(one.facts.events for one in found)
        return {
            "groups": [_group(one) for one in found[:MOST_GROUPS]],
            "left_out": max(0, len(found) - MOST_GROUPS),
            "counted": counted,
            "more": counted >= recent_activity.MAX_GROUPED,
        }


class Alerts(Resource):
    """`GET /api/alerts`."""

    path = "/api/alerts"
    means = "What somebody should look at. / 需要关注的告警。"
    takes = (
        Parameter(
            name="all",
            means="Whether to give the last ones that are over, too. / 是否同时返回最近已解除的告警。",
            schema={"type": "boolean", "default": False},
        ),
    )
    gives = AlertsJson

    def give(self, given: Mapping[str, list[str]], _path: Mapping[str, str], /) -> AlertsJson:
        """Those that are open, and the last that are over."""
        everything = truth("all", given["all"][0]) if "all" in given else False
        with self.app.ledger.connection() as connection:
            found: list[tuple[OpenAlert, int | None]] = [(one, None) for one in alert_queries.open_alerts(connection)]
            if everything:
                found += alert_queries.recently_closed(connection, limit=MOST_OVER)
        return {"alerts": [facts(one) | {"closed_at": to_text(closed)} for one, closed in found]}


class Refused(Resource):
    """`GET /api/refused`."""

    path = "/api/refused"
    means = "The call-backs that were refused last, with the reasons. / 最近被拒绝的回调及原因。"
    takes = (limit(AT_ONCE), AFTER)
    gives = RefusalsJson

    def give(self, given: Mapping[str, list[str]], _path: Mapping[str, str], /) -> RefusalsJson:
        """One page of them."""
        most = how_many(given)
        with self.app.ledger.connection() as connection:
            found = rejected_requests.latest(connection, limit=most + 1, before=cursor(given))
        return {"refused": [facts(one) for one in found[:most]], "next": found[most - 1].id if found[most:] else ""}


class Audit(Resource):
    """`GET /api/audit`."""

    path = "/api/audit"
    means = "What operators have done, the newest first. / 运维操作记录，最新的在前。"
    takes = (
        Parameter(
            name="subject",
            means="Only what is about this event, handler or alert, by its id. / "
            "只看与该事件、处理器或告警（ID）有关的操作。",
            schema=TEXT,
        ),
        limit(AT_ONCE),
        AFTER,
    )
    gives = AuditJson

    def give(self, given: Mapping[str, list[str]], _path: Mapping[str, str], /) -> AuditJson:
        """One page of it."""
        most = how_many(given)
        subject = given["subject"][0] if "subject" in given else None
        with self.app.ledger.connection() as connection:
            found = audit.entries(connection, limit=most + 1, before=cursor(given), subject=subject)
        return {"entries": [facts(one) for one in found[:most]], "next": found[most - 1].id if found[most:] else ""}


class Overview(Resource):
    """`GET /api/overview`."""

    path = "/api/overview"
    means = "How it goes: what is open, what came, how handlers do. / 概览：未完成的投递、收到的回调、处理器的表现。"
    gives = OverviewJson

    def give(self, _given: Mapping[str, list[str]], _path: Mapping[str, str], /) -> OverviewJson:
        """How it goes."""
        app = self.app
        found = overview(app.ledger, app.clock.now())
        return {
            "now": to_text(found.now),
            "version": __version__,
            "database": "PostgreSQL" if app.ledger.shared else "SQLite",
            "counts": dict(found.counts),
            "most_counted": recent_activity.MAX_COUNTED,
            "oldest": {
                name: {"since": to_text(one.since), "event_id": one.event_id, "handler": one.handler}
                for name, one in found.oldest.items()
            },
            "arrivals": _arrivals(found.arrivals),
            "performance": [_performance(one) for one in found.performance[:MOST_HANDLERS]],
            "sampled": found.sampled,
            "sampled_since": to_text(found.sampled_since),
            "alerts": found.alerts,
            "answers": {str(status): count for status, count in app.metrics.answers().items()},
            "trouble": app.readiness_problems(),
        }


RESOURCES: Final[tuple[type[Resource], ...]] = (
    Overview,
    Events,
    Event,
    Explanation,
    Plugins,
    Parked,
    Alerts,
    Refused,
    Audit,
)
"""Everything that can be asked for."""


def _group(one: Waiting) -> ParkedGroupJson:
    group = one.facts
    return {
        "kind": group.kind,
        "source": group.source,
        "callback_class": group.callback_class or None,
        "process_definition_key": group.process_key,
        "process_definition_version": group.process_version,
        "conclusion": group.conclusion,
        "undecided": one.undecided or None,
        "by_data": one.by_data,
        "events": group.events,
        "oldest": one.event_id,
        "since": to_text(one.since),
        "wanted": one.wanted,
        "hints": list(one.hints),
    }


def _arrivals(found: Arrivals) -> ArrivalsJson:
    return {"span": found.span, "total": found.total, "per_minute": found.per_minute, "bars": list(found.bars)}


def _performance(one: Performance) -> PerformanceJson:
    return {
        "handler": one.handler,
        "deliveries": one.deliveries,
        "succeeded": one.succeeded,
        "failed": one.failed,
        "rate": one.rate,
        "median": _seconds(one.median),
        "most": _seconds(one.most),
        "points": [
            {"succeeded": point.succeeded, "failed": point.failed, "slowest": point.slowest / SECOND}
            for point in one.points
        ],
    }


def _seconds(microseconds: int | None) -> float | None:
    return None if microseconds is None else microseconds / SECOND
