"""A row of an error group, for the pages that list error groups."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flowhooks.operations.error_groups import brief_versions
from flowhooks.web.admin.console import charts

if TYPE_CHECKING:
    from flowhooks.operations.error_groups import ErrorGroupStatus


def error_row(status: ErrorGroupStatus) -> dict[str, Any]:
    """Return the values of a group with a chart of its last 24 hours."""
    hours = status.activity.hours
    return {
        "group": status.group,
        "activity": status.activity,
        "chart": charts.bar_chart([(count,) for count in hours], ("bad",), width=120, height=24),
        "recent": sum(hours),
        "versions": brief_versions(status.group.versions),
    }
