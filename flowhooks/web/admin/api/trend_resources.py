"""The resources of trends: a handler, a source or an error group over time."""

# ruff: noqa: RUF001 (Chinese has punctuation marks of its own)
from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

from flowhooks.clock import DAY
from flowhooks.errors import NotFound
from flowhooks.model.trend import TrendKind
from flowhooks.operations.access import FULL
from flowhooks.operations.error_groups import find_error_group
from flowhooks.operations.json.trends import TrendJson, trend_to_json
from flowhooks.operations.sources import source_names
from flowhooks.operations.trends import MAX_LENGTH, InvalidRange, TimeRange, Trend, load_trend, minutes_since
from flowhooks.web.admin.api.error_resources import ErrorResource
from flowhooks.web.admin.api.parameters import time_from_query, time_parameter
from flowhooks.web.admin.api.resource import Resource
from flowhooks.web.admin.console.filters import to_query_text
from flowhooks.web.errors import LocalizedHTTPError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flowhooks.operations.access import Access

_RANGE: Final = (
    time_parameter("from", "From this time on; default: 6 hours before to", "从该时刻起，默认为 to 之前 6 小时"),
    time_parameter("to", "Before this time; default: now", "该时刻之前，默认为现在"),
)


class _TrendResource(Resource):
    """A subject over time."""

    kind: ClassVar[TrendKind]
    parameters = _RANGE
    response_type = TrendJson

    def get(self, query: Mapping[str, list[str]], path: Mapping[str, str], /) -> TrendJson:
        """Return the subject over time."""
        return self.get_restricted(query, path, FULL)

    def get_restricted(self, query: Mapping[str, list[str]], path: Mapping[str, str], access: Access, /) -> TrendJson:
        """Return the subject over time, with the marks that the operator sees."""
        app, now = self.app, self.app.clock.now()
        time_range = range_from_query(query, now)
        (name,) = path.values()
        subject = self.find(to_query_text(name), access)
        with app.ledger.connection() as connection:
            trend = load_trend(
                connection, self.kind, subject, time_range, minutes_since=minutes_since(app.settings, now)
            )
        if not self.is_known(subject, trend):
            raise NotFound(f"there is no {self.kind} {subject}")
        return trend_to_json(access.trend(trend))

    def find(self, name: str, access: Access) -> str:
        """Return the subject that a path names.

        Raises:
            NotFound: it does not exist, or the operator does not see it.
        """
        if not access.sees(name):
            raise NotFound(f"there is no {self.kind} {name}")
        return name

    def is_known(self, subject: str, trend: Trend) -> bool:
        """Tell whether there is such a subject."""
        raise NotImplementedError


class HandlerTrendResource(_TrendResource):
    """`GET /api/handlers/{id}/trend`."""

    path = "/api/handlers/{id}/trend"
    description = (
        "The attempts of a handler over time, with the same time yesterday and last week: throughput, success, p50 "
        "and p95. / 处理器在各时段的尝试，并与昨天和上周同一时段比较：吞吐量、成功率、P50 和 P95 耗时。"
    )
    path_description = "The id of a handler, PLUGIN:NAME. / 处理器 ID，格式为 PLUGIN:NAME。"
    not_found = "no_such_handler"
    for_limited_roles = for_masked_roles = True
    kind = TrendKind.HANDLER

    def is_known(self, subject: str, trend: Trend) -> bool:
        """Tell whether the handler is loaded or registered, or anything of it is recorded."""
        registered = self.app.ledger.registered_handlers
        return (
            subject in self.app.plugins.handlers
            or not trend.is_empty
            or any(handler.id == subject for handler in registered())
        )


class SourceTrendResource(_TrendResource):
    """`GET /api/sources/{name}/trend`."""

    path = "/api/sources/{name}/trend"
    description = (
        "The requests of a source over time, with the same time yesterday and last week: throughput, success, p50 "
        "and p95. / 来源在各时段的请求，并与昨天和上周同一时段比较：吞吐量、成功率、P50 和 P95 耗时。"
    )
    path_description = "The name of a source. / 来源的名称。"
    not_found = "no_such_source"
    kind = TrendKind.SOURCE

    def is_known(self, subject: str, _trend: Trend) -> bool:
        """Tell whether the settings have the source."""
        return subject in source_names(self.app.settings)


class ErrorTrendResource(_TrendResource):
    """`GET /api/errors/{id}/trend`."""

    path = "/api/errors/{id}/trend"
    description = (
        "The attempts of an error group over time, with the same time yesterday and last week. / "
        "一组相同的错误在各时段的尝试，并与昨天和上周同一时段比较。"
    )
    path_description = ErrorResource.path_description
    not_found = ErrorResource.not_found
    for_limited_roles = True
    kind = TrendKind.ERROR_GROUP

    def find(self, name: str, access: Access) -> str:
        """Return the whole id of the group, if the operator sees its handler."""
        found = find_error_group(self.app.ledger, name, now=self.app.clock.now(), plugins=access.plugins)
        return found.group.fingerprint

    def is_known(self, _subject: str, _trend: Trend) -> bool:
        """Return True: `find` has found the group."""
        return True


def range_from_query(query: Mapping[str, list[str]], now: int) -> TimeRange:
    """Return the time range that a query states.

    Raises:
        LocalizedHTTPError: a value is not a time, or the range cannot be shown.
    """
    since, until = (time_from_query(query, name, now=now) for name in ("from", "to"))
    try:
        return TimeRange.of(since, until, now=now)
    except InvalidRange:
        raise LocalizedHTTPError(422, "query_range", days=MAX_LENGTH // DAY) from None
