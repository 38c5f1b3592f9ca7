"""The resources of engines, their instances, coverage and sources."""

# ruff: noqa: RUF001 (Chinese has punctuation marks of its own)
from __future__ import annotations

from typing import TYPE_CHECKING

from flowhooks.errors import NotFound
from flowhooks.ledger import engine_queries
from flowhooks.ledger.late_callbacks import bodies_beside
from flowhooks.ledger.queries import EventFilter
from flowhooks.ledger.search import search_events
from flowhooks.operations.access import FULL
from flowhooks.operations.coverage import coverage
from flowhooks.operations.json.engines import (
    CoverageJson,
    book_entry_to_json,
    coverage_to_json,
    engines_to_json,
)
from flowhooks.operations.json.events import event_to_json, late_callbacks_to_json
from flowhooks.operations.json.sources import source_to_json
from flowhooks.operations.sources import source_names, source_statuses
from flowhooks.web.admin.api.parameters import (
    PAGE_SIZE,
    TEXT,
)
from flowhooks.web.admin.api.query import Parameter
from flowhooks.web.admin.api.resource import Resource
from flowhooks.web.admin.api.responses import (
    EnginesJson,
    InstanceJson,
    SourcesJson,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flowhooks.operations.access import Access


class EnginesResource(Resource):
    """`GET /api/engines`."""

    path = "/api/engines"
    description = (
        "Engines that flowhooks asks, and how far their history was read. / "
        "flowhooks 主动查询的流程引擎，及其历史的读取进度。"
    )
    response_type = EnginesJson
    for_masked_roles = True

    def get(self, query: Mapping[str, list[str]], path: Mapping[str, str], /) -> EnginesJson:
        """Return the engines. None of them is asked."""
        return self.get_restricted(query, path, FULL)

    def get_restricted(
        self, _query: Mapping[str, list[str]], _path: Mapping[str, str], access: Access, /
    ) -> EnginesJson:
        """Return the engines without their errors, which may quote a body."""
        app = self.app
        with app.ledger.connection() as connection:
            return {"engines": engines_to_json(connection, app.settings, app.clock.now(), access=access)}


class InstanceResource(Resource):
    """`GET /api/engines/instances/{id}`."""

    path = "/api/engines/instances/{id}"
    description = (
        "A process instance: what was read of it in the histories of engines, its events, and late callbacks. / "
        "流程实例：从流程引擎历史中读到的内容、事件、迟到的回调。"
    )
    response_type = InstanceJson
    id_has_slashes = True
    path_description = "The process instance id of the engine. / 流程引擎的流程实例 ID。"

    def get(self, _given: Mapping[str, list[str]], path: Mapping[str, str], /) -> InstanceJson:
        """Return what is known of the instance."""
        app, instance = self.app, path["id"].replace("\0", "")
        with app.ledger.connection() as connection:
            sources = {*app.settings.sources, *engine_queries.positions(connection)}
            book = engine_queries.book_entries(connection, sources, instance)
            page = search_events(connection, EventFilter(flow_instance_id=instance), limit=PAGE_SIZE)
            late = {event.id: bodies_beside(connection, event.id) for event in page.events}
        return {
            "book": [book_entry_to_json(entry) for entry in book],
            "events": [event_to_json(event) for event in page.events],
            "late_callbacks": {event_id: late_callbacks_to_json(found) for event_id, found in late.items() if found},
        }


class CoverageResource(Resource):
    """`GET /api/coverage`."""

    path = "/api/coverage"
    description = (
        "Deployed definitions, versions and conclusions that no handler takes. / 没有处理器接收的流程定义、版本和结论。"
    )
    parameters = (
        Parameter(
            name="source", description="Only the definitions of this source. / 只看该来源的流程定义。", schema=TEXT
        ),
    )
    response_type = CoverageJson
    not_found = "no_such_engine"

    def get(self, query: Mapping[str, list[str]], _path: Mapping[str, str], /) -> CoverageJson:
        """Return the comparison with the definitions that the engines had last."""
        app = self.app
        source = query["source"][0] if "source" in query else ""
        if source and (source not in app.settings.sources or app.settings.sources[source].engine is None):
            raise NotFound(f"there is no source {source} with an engine")
        return coverage_to_json(coverage(app.ledger, app.router, app.settings, app.clock.now(), source=source))


class SourcesResource(Resource):
    """`GET /api/sources`."""

    path = "/api/sources"
    description = (
        "Sources: callbacks, rejected and ignored requests, ages of credentials, engine, settings without secrets. / "
        "来源：回调、被拒绝和被忽略的请求、凭证时间、流程引擎、不含密钥的配置。"
    )
    parameters = (Parameter(name="name", description="Only this source. / 只看该来源。", schema=TEXT),)
    response_type = SourcesJson

    def get(self, query: Mapping[str, list[str]], _path: Mapping[str, str], /) -> SourcesJson:
        """Return the sources."""
        app, now = self.app, self.app.clock.now()
        names = [name for name in source_names(app.settings) if "name" not in query or name == query["name"][0]]
        statuses = source_statuses(app.ledger, app.settings, now, names)
        with app.ledger.connection() as connection:
            engines = {engine["source"]: engine for engine in engines_to_json(connection, app.settings, now)}
        return {"sources": [source_to_json(status, engines) for status in statuses]}
