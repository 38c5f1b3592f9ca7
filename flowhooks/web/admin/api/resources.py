"""The resources of the administration API."""

# ruff: noqa: RUF001 (Chinese has punctuation marks of its own)
from __future__ import annotations

from typing import TYPE_CHECKING, Final

from flowhooks.clock import to_text
from flowhooks.ledger import alert_queries, audit, rejected_requests, stats
from flowhooks.ledger.search import search_events
from flowhooks.operations.access import FULL
from flowhooks.operations.find_event import find_event
from flowhooks.operations.json.encoding import dataclass_to_json
from flowhooks.operations.json.events import WholeEventJson, event_to_json, whole_event_to_json
from flowhooks.operations.json.plugins import plugin_to_json
from flowhooks.operations.json.routing import ExplanationJson, explanation_to_json
from flowhooks.operations.parked import list_parked_groups
from flowhooks.operations.plugin_status import (
    filter_handlers,
    is_backlog_truncated,
    list_plugins,
    slice_handlers,
    sort_by_urgency,
    visible_plugins,
)
from flowhooks.operations.seen_page import seen_page
from flowhooks.web.admin.api.engine_resources import (
    CoverageResource,
    EnginesResource,
    InstanceResource,
    SourcesResource,
)
from flowhooks.web.admin.api.error_resources import ErrorResource, ErrorsResource
from flowhooks.web.admin.api.operation_resources import (
    OperationItemsResource,
    OperationResource,
    OperationsResource,
)
from flowhooks.web.admin.api.overview import overview_to_json
from flowhooks.web.admin.api.parameters import (
    AFTER,
    FILTER,
    MAX_PAGE_SIZE,
    PAGE_SIZE,
    REJECTED_FILTER,
    SINCE,
    TEXT,
    cursor_from_query,
    limit_from_query,
    limit_parameter,
    rejected_filter_from_query,
    searched_filter,
    time_from_query,
)
from flowhooks.web.admin.api.query import Parameter, parse_boolean, parse_integer
from flowhooks.web.admin.api.resource import Resource
from flowhooks.web.admin.api.responses import (
    AlertsJson,
    AuditJson,
    EventsJson,
    OverviewJson,
    ParkedGroupJson,
    ParkedJson,
    PluginsJson,
    RejectedRequestsJson,
)
from flowhooks.web.admin.api.storage_resource import StorageResource
from flowhooks.web.admin.api.trend_resources import ErrorTrendResource, HandlerTrendResource, SourceTrendResource

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flowhooks.ledger.alert_queries import OpenAlert
    from flowhooks.operations.access import Access
    from flowhooks.operations.parked import ParkedGroupStatus

MAX_DELIVERIES: Final = 200
MAX_ATTEMPTS: Final = 50
MAX_GROUPS: Final = 200
MAX_CLOSED_ALERTS: Final = 50
MAX_HANDLERS: Final = 200


class EventsResource(Resource):
    """`GET /api/events`."""

    path = "/api/events"
    description = "Events with their deliveries, newest first. / 事件及其投递，最新的在前。"
    parameters = (*FILTER, limit_parameter(PAGE_SIZE), AFTER)
    response_type = EventsJson
    for_limited_roles = for_masked_roles = True

    def get(self, query: Mapping[str, list[str]], path: Mapping[str, str], /) -> EventsJson:
        """Return one page of events."""
        return self.get_restricted(query, path, FULL)

    def get_restricted(self, query: Mapping[str, list[str]], _path: Mapping[str, str], access: Access, /) -> EventsJson:
        """Return one page of the events that the operator sees."""
        event_filter = searched_filter(query, self.app, access)
        with self.app.ledger.connection() as connection:
            page = search_events(
                connection, event_filter, limit=limit_from_query(query), before=cursor_from_query(query)
            )
        return {
            "events": [event_to_json(access.summary(event)) for event in page.events],
            "next": page.older,
            "searched_until": to_text(page.searched_until),
        }


class EventResource(Resource):
    """`GET /api/events/{id}`."""

    path = "/api/events/{id}"
    description = (
        "An event in full: route, body, deliveries with their attempts, and actions of operators. / "
        "事件的全部信息：路由、请求体、投递及每次尝试、运维操作。"
    )
    response_type = WholeEventJson
    path_description = "The id of an event, or of one of its deliveries. / 事件或其投递的 ID。"
    for_limited_roles = for_masked_roles = True

    def get(self, query: Mapping[str, list[str]], path: Mapping[str, str], /) -> WholeEventJson:
        """Return the event with everything stored about it."""
        return self.get_restricted(query, path, FULL)

    def get_restricted(
        self, _query: Mapping[str, list[str]], path: Mapping[str, str], access: Access, /
    ) -> WholeEventJson:
        """Return the event with everything that the operator sees of it."""
        reader = self.app.ledger
        return whole_event_to_json(
            reader,
            access.find_event(reader, path["id"]),
            access=access,
            max_deliveries=MAX_DELIVERIES,
            max_attempts=MAX_ATTEMPTS,
        )


class ExplanationResource(Resource):
    """`GET /api/events/{id}/explanation`."""

    path = "/api/events/{id}/explanation"
    description = (
        "Which registered handlers match the event now, and why, with the result of each condition. / "
        "当前已注册的处理器中哪些匹配该事件及原因，包括每个条件的判定结果。"
    )
    response_type = ExplanationJson
    path_description = EventResource.path_description

    def get(self, _given: Mapping[str, list[str]], path: Mapping[str, str], /) -> ExplanationJson:
        """Return the event's current routing; nothing is changed."""
        app = self.app
        stored = find_event(app.ledger, path["id"])
        return explanation_to_json(
            app.router.explain_event(stored.event, max_candidates=MAX_HANDLERS), self._availability
        )

    def _availability(self, handler: str) -> str:
        if handler in self.app.plugins.handlers:
            return "present"
        return "missing" if handler in self.app.operation_context.missing_handlers else "elsewhere"


class PluginsResource(Resource):
    """`GET /api/handlers`."""

    path = "/api/handlers"
    description = "Plugins with their handlers: selectors, state and backlog. / 插件及其处理器：选择条件、状态、积压。"
    parameters = (
        Parameter(
            name="q",
            description="Only plugins and handlers whose name contains this text. / 插件或处理器名称中包含的文字。",
            schema=TEXT,
        ),
        limit_parameter(MAX_PAGE_SIZE),
        Parameter(
            name="after",
            description="Number of handlers to skip: next of the previous response. / "
            "要跳过的处理器个数，取自上一次响应的 next。",
            schema={"type": "integer", "minimum": 0, "maximum": 999_999_999},
        ),
    )
    response_type = PluginsJson
    for_limited_roles = for_masked_roles = True

    def get(self, query: Mapping[str, list[str]], path: Mapping[str, str], /) -> PluginsJson:
        """Return the plugins, with one page of their handlers."""
        return self.get_restricted(query, path, FULL)

    def get_restricted(
        self, query: Mapping[str, list[str]], _path: Mapping[str, str], access: Access, /
    ) -> PluginsJson:
        """Return the plugins that the operator sees, with one page of their handlers."""
        app = self.app
        text = query.get("q", [""])[0]
        start = parse_integer("after", query.get("after", ["0"])[0], low=0, high=999_999_999)
        max_handlers = limit_from_query(query, MAX_PAGE_SIZE)
        plugins = sort_by_urgency(
            list_plugins(
                app.plugins,
                app.ledger,
                app.settings.routing.ignore_process_keys,
                max_counted=stats.MAX_GROUPED,
                heartbeat_timeout=app.settings.ledger.heartbeat_timeout,
                settings=app.settings,
            )
        )
        with app.ledger.connection() as connection:
            called, since = stats.count_by_handler(connection)
        plugins = visible_plugins(plugins, access)
        matching = [filtered for plugin in plugins if (filtered := filter_handlers(plugin, text)) is not None]
        page = slice_handlers(matching, start, max_handlers)
        page_ids = {handler.id for plugin in page for handler in plugin.handlers}
        return {
            "plugins": [plugin_to_json(plugin) for plugin in page],
            "recent_calls": {
                name: {"deliveries": count.deliveries, "last_at": to_text(count.last_at)}
                for name, count in called.items()
                if name in page_ids
            },
            "oldest_sampled_at": to_text(since),
            "warnings": [] if access.is_limited else list(app.plugins.warnings),
            "backlog_truncated": is_backlog_truncated(plugins),
            "next": str(start + max_handlers)
            if start + max_handlers < sum(len(plugin.handlers) for plugin in matching)
            else "",
        }


class ParkedResource(Resource):
    """`GET /api/parked`."""

    path = "/api/parked"
    description = "Parked events, in groups that are routed alike. / 暂存的事件，按路由字段分组。"
    response_type = ParkedJson

    def get(self, _given: Mapping[str, list[str]], _path: Mapping[str, str], /) -> ParkedJson:
        """Return the groups of parked events, the largest first."""
        app = self.app
        groups = list_parked_groups(
            app.ledger, app.router, max_events=stats.MAX_GROUPED, n_handlers=len(app.plugins.handlers)
        )
        counted = sum(group.facts.events for group in groups)
        return {
            "groups": [_group(group) for group in groups[:MAX_GROUPS]],
            "left_out": max(0, len(groups) - MAX_GROUPS),
            "counted": counted,
            "more": counted >= stats.MAX_GROUPED,
        }


class AlertsResource(Resource):
    """`GET /api/alerts`."""

    path = "/api/alerts"
    description = "Open alerts. / 未关闭的告警。"
    parameters = (
        Parameter(
            name="all",
            description="Whether to include recently closed alerts. / 是否同时返回最近已关闭的告警。",
            schema={"type": "boolean", "default": False},
        ),
    )
    response_type = AlertsJson
    for_limited_roles = for_masked_roles = True

    def get(self, query: Mapping[str, list[str]], path: Mapping[str, str], /) -> AlertsJson:
        """Return the open alerts and, on request, the last closed ones."""
        return self.get_restricted(query, path, FULL)

    def get_restricted(self, query: Mapping[str, list[str]], _path: Mapping[str, str], access: Access, /) -> AlertsJson:
        """Return the alerts that the operator sees."""
        with_closed = parse_boolean("all", query["all"][0]) if "all" in query else False
        with self.app.ledger.connection() as connection:
            alerts: list[tuple[OpenAlert, int | None]] = [
                (alert, None) for alert in alert_queries.open_alerts(connection)
            ]
            if with_closed:
                alerts += alert_queries.recently_closed(connection, limit=MAX_CLOSED_ALERTS)
        return {
            "alerts": [
                dataclass_to_json(access.alert(alert)) | {"closed_at": to_text(closed)}
                for alert, closed in alerts
                if access.sees_alert(alert)
            ]
        }


class RejectedRequestsResource(Resource):
    """`GET /api/rejected-requests`."""

    path = "/api/rejected-requests"
    description = "The most recently rejected requests, with the reasons. / 最近被拒绝的请求及原因。"
    parameters = (*REJECTED_FILTER, limit_parameter(PAGE_SIZE), AFTER)
    response_type = RejectedRequestsJson

    def get(self, query: Mapping[str, list[str]], _path: Mapping[str, str], /) -> RejectedRequestsJson:
        """Return one page of rejected requests."""
        limit = limit_from_query(query)
        with self.app.ledger.connection() as connection:
            entries = rejected_requests.latest(
                connection,
                limit=limit + 1,
                before=cursor_from_query(query),
                request_filter=rejected_filter_from_query(query, now=self.app.clock.now()),
            )
        return {
            "rejected_requests": [dataclass_to_json(entry) for entry in entries[:limit]],
            "next": entries[limit - 1].id if entries[limit:] else "",
        }


class AuditResource(Resource):
    """`GET /api/audit`."""

    path = "/api/audit"
    description = "Actions of operators, newest first. / 运维操作记录，最新的在前。"
    parameters = (
        Parameter(
            name="target",
            description="Only actions on this event, handler or alert (id), with bulk operations that acted on it. / "
            "只看与该事件、处理器或告警（ID）有关的操作，包括处理过该事件的批量操作。",
            schema=TEXT,
        ),
        Parameter(name="actor", description="Only actions of this operator. / 只看该运维人员的操作。", schema=TEXT),
        Parameter(
            name="action",
            description="Only this action, such as operation. / 只看该操作，例如 operation。",
            schema=TEXT,
        ),
        SINCE,
        limit_parameter(PAGE_SIZE),
        AFTER,
    )
    response_type = AuditJson
    for_limited_roles = for_masked_roles = True

    def get(self, query: Mapping[str, list[str]], path: Mapping[str, str], /) -> AuditJson:
        """Return one page of the audit log."""
        return self.get_restricted(query, path, FULL)

    def get_restricted(self, query: Mapping[str, list[str]], _path: Mapping[str, str], access: Access, /) -> AuditJson:
        """Return one page of the entries that the operator sees."""
        limit = limit_from_query(query)
        only = {name: query[name][0] if name in query else None for name in ("target", "actor", "action")}
        since, before = time_from_query(query, now=self.app.clock.now()), cursor_from_query(query)
        with self.app.ledger.connection() as connection:

            def read(before: str, count: int) -> list[audit.AuditEntry]:
                return audit.entries(connection, limit=count, before=before, since=since, **only)

            page = seen_page(read, access.sees_entry, limit=limit, before=before)
        return {"entries": [dataclass_to_json(access.entry(entry)) for entry in page.items], "next": page.next}


class OverviewResource(Resource):
    """`GET /api/overview`."""

    path = "/api/overview"
    description = (
        "Overview: outstanding deliveries, received events, performance of handlers. / "
        "总览：待处理的投递、收到的事件、处理器的表现。"
    )
    response_type = OverviewJson

    def get(self, _given: Mapping[str, list[str]], _path: Mapping[str, str], /) -> OverviewJson:
        """Return the numbers of the overview."""
        return overview_to_json(self.app)


RESOURCES: Final[tuple[type[Resource], ...]] = (
    OverviewResource,
    EventsResource,
    EventResource,
    ExplanationResource,
    PluginsResource,
    ParkedResource,
    AlertsResource,
    RejectedRequestsResource,
    AuditResource,
    EnginesResource,
    InstanceResource,
    CoverageResource,
    SourcesResource,
    ErrorResource,
    ErrorsResource,
    OperationItemsResource,
    OperationResource,
    OperationsResource,
    StorageResource,
    HandlerTrendResource,
    SourceTrendResource,
    ErrorTrendResource,
)
"""All resources."""


def _group(waiting: ParkedGroupStatus) -> ParkedGroupJson:
    group = waiting.facts
    return {
        "kind": group.kind,
        "source": group.source,
        "callback_class": group.callback_class or None,
        "process_definition_key": group.process_key,
        "process_definition_version": group.process_version,
        "conclusion": group.conclusion,
        "undecided": waiting.undecided or None,
        "by_data": waiting.by_data,
        "events": group.events,
        "oldest_event_id": waiting.event_id,
        "oldest_received_at": to_text(waiting.oldest_received_at),
        "deliverable": waiting.deliverable,
        "hints": list(waiting.hints),
    }
