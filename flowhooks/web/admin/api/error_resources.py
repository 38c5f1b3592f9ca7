"""The resources of the administration API for error groups."""

# ruff: noqa: RUF001 (Chinese has punctuation marks of its own)
from __future__ import annotations

from typing import TYPE_CHECKING, Final

from flowhooks.operations.access import FULL
from flowhooks.operations.error_groups import find_error_group, list_error_groups, newest_sample
from flowhooks.operations.json.errors import (
    ErrorGroupsJson,
    WholeErrorGroupJson,
    error_groups_to_json,
    whole_error_group_to_json,
)
from flowhooks.web.admin.api.parameters import (
    PAGE_SIZE,
    TEXT,
    filter_from_query,
    limit_from_query,
    limit_parameter,
    since_parameter,
)
from flowhooks.web.admin.api.query import Parameter, parse_integer
from flowhooks.web.admin.api.resource import Resource

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flowhooks.operations.access import Access

MAX_SKIPPED: Final = 999_999_999


class ErrorsResource(Resource):
    """`GET /api/errors`."""

    path = "/api/errors"
    description = (
        "Failed attempts in groups with the same error, the one seen last first. / "
        "失败的尝试，按错误分组，最近出现的在前。"
    )
    parameters = (
        Parameter(name="handler", description="Only errors of this handler. / 只看该处理器的错误。", schema=TEXT),
        since_parameter("Seen at or after this", "在该时刻或之后出现"),
        limit_parameter(PAGE_SIZE),
        Parameter(
            name="after",
            description="Number of groups to skip: next of the previous response. / "
            "要跳过的分组个数，取自上一次响应的 next。",
            schema={"type": "integer", "minimum": 0, "maximum": MAX_SKIPPED},
        ),
    )
    response_type = ErrorGroupsJson
    for_limited_roles = True

    def get(self, query: Mapping[str, list[str]], path: Mapping[str, str], /) -> ErrorGroupsJson:
        """Return one page of error groups."""
        return self.get_restricted(query, path, FULL)

    def get_restricted(
        self, query: Mapping[str, list[str]], _path: Mapping[str, str], access: Access, /
    ) -> ErrorGroupsJson:
        """Return one page of the error groups that the operator sees."""
        now, given = self.app.clock.now(), {name: query[name] for name in ("handler", "since") if name in query}
        event_filter = filter_from_query(given, now=now)
        skip = parse_integer("after", query.get("after", ["0"])[0], low=0, high=MAX_SKIPPED)
        page = list_error_groups(
            self.app.ledger,
            now=now,
            handler=event_filter.handler,
            plugins=access.plugins,
            since=event_filter.since,
            limit=limit_from_query(query),
            skip=skip,
        )
        return error_groups_to_json(page, skip)


class ErrorResource(Resource):
    """`GET /api/errors/{id}`."""

    path = "/api/errors/{id}"
    description = (
        "An error group with the traceback of its newest attempt. / 一组相同的错误，以及最新一次尝试的错误堆栈。"
    )
    response_type = WholeErrorGroupJson
    not_found = "no_such_error_group"
    for_limited_roles = True
    path_description = (
        "The id of an error group, or at least its first 8 characters. / 错误分组的 ID，或其开头的至少 8 个字符。"
    )

    def get(self, query: Mapping[str, list[str]], path: Mapping[str, str], /) -> WholeErrorGroupJson:
        """Return the group with its newest attempt."""
        return self.get_restricted(query, path, FULL)

    def get_restricted(
        self, _query: Mapping[str, list[str]], path: Mapping[str, str], access: Access, /
    ) -> WholeErrorGroupJson:
        """Return the group with its newest attempt if the operator sees its handler."""
        reader = self.app.ledger
        status = find_error_group(reader, path["id"], now=self.app.clock.now(), plugins=access.plugins)
        return whole_error_group_to_json(status, newest_sample(reader, status.group))
