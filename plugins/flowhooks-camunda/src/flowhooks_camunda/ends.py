"""How process instances ended. The engine's own `state` is COMPLETED for error and terminate ends, too.

The activity history decides. An activity instance with `completeScope` was the last one of its branch, and its parent
is the process instance if it belongs to the process itself and not to a sub-process:

- A terminate end event ended the process.
- An error end event that nothing caught ended its branch. A caught error end event is `canceled` and has not completed
  a scope.
- Any other end event is a normal end.
- A sub-process was the last activity: an event sub-process, or a sub-process without a following activity. Its own last
  activities decide, in the same way, except that its terminate end event is a normal end.
- A task was the last activity. Either no end event follows it, or it has thrown an error that nothing caught. The
  history does not show which of the two, so this end is undecided. An error end beside a normal end is undecided, too.

An activity that is not read could be an error, so an instance is decided only by all its activities. One request reads
the activities that completed a scope while the instances of a page ended. The response has all activities of instances
that also started in this time. Other instances need a request each: they started earlier, another instance ended them,
or too many activities ended within a few seconds for one response.
These requests take time, so only the first instances of a page are decided if the engine is slow.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from flowhooks import EndState
from flowhooks_camunda.row import read_rows
from flowhooks_camunda.times import format_time

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from flowhooks_camunda.rest import RestApi
    from flowhooks_camunda.row import Row

PATH: Final = "history/activity-instance"
MAX_ROWS: Final = 5000
"""Maximum number of activities in a response. Each has about 700 bytes."""
LEAD_TIME: Final = timedelta(seconds=10)
"""An instance that started at most this long before the first end of its page is decided together with the page."""
MAX_CLOCK_SKEW: Final = timedelta(seconds=5)
"""Maximum difference between the clocks of an engine's nodes. Each node writes the times of its own activities."""
_CANCELLED_STATES: Final = frozenset({"EXTERNALLY_TERMINATED", "INTERNALLY_TERMINATED"})
"""States of instances that a user or another instance ended."""
_LATEST_FIRST: Final = [{"sortBy": "endTime", "sortOrder": "desc"}]


@dataclass(frozen=True, slots=True)
class End:
    """How an instance ended.

    Attributes:
        state: the end state.
        event_id: the id of the last end event; None if there is no end event, or if the last one is not known.
    """

    state: EndState
    event_id: str | None = None


def read_ends(
    api: RestApi, instances: Sequence[Row], *, is_past_deadline: Callable[[], bool] = lambda: False
) -> dict[str, End]:
    """Return how finished instances ended, by their ids. After the deadline, only the first instances are decided.

    Args:
        api: the engine.
        instances: the rows of the instances. At least one of them is decided.
        is_past_deadline: returns whether the time for requests is used up.

    Raises:
        EngineError: the engine sent no valid response.
    """
    completed = [row for row in instances if row.optional_text("state") not in _CANCELLED_STATES]
    completed_ends = _read_completed_ends(api, completed, is_past_deadline)
    ends: dict[str, End] = {}
    for row in instances:
        instance_id, state = row.text("id"), row.optional_text("state")
        if state == "EXTERNALLY_TERMINATED":
            ends[instance_id] = End(EndState.CANCELLED)
        elif instance_id in completed_ends:
            ends[instance_id] = completed_ends[instance_id]
        elif ends and is_past_deadline():
            break
        elif state == "INTERNALLY_TERMINATED":
            ends[instance_id] = _read_called_end(api, instance_id)
        else:
            ends[instance_id] = _read_completed_end(api, instance_id)
    return ends


def _read_completed_ends(
    api: RestApi, instances: Sequence[Row], is_past_deadline: Callable[[], bool]
) -> dict[str, End]:
    """Return the ends of instances that were not cancelled and that need no request of their own."""
    if not instances:
        return {}
    ends = [row.time("endTime") for row in instances]
    begin = min(ends) - LEAD_TIME
    recent = [row for row in instances if (started := row.optional_time("startTime")) is not None and started >= begin]
    return _read_ends_in_window(api, recent, begin, max(ends), is_past_deadline) if len(recent) > 1 else {}


def _read_ends_in_window(
    api: RestApi, instances: Sequence[Row], since: datetime, until: datetime, is_past_deadline: Callable[[], bool]
) -> dict[str, End]:
    """Return the ends of instances that started and ended between two times.

    A burst of ends is left out. So are instances without activities in the response: while clocks are put back, a
    window in the engine's local time can be empty.
    """
    window = {
        "finishedAfter": format_time(since - MAX_CLOCK_SKEW),
        "finishedBefore": format_time(until + MAX_CLOCK_SKEW),
    }
    activities = _read_completing_activities(api, **window)
    if len(activities) >= MAX_ROWS:  # some may be missing: decide no instance, and read shorter windows
        # No window is shorter than LEAD_TIME, so the parts of a short window would be full, too.
        if until - since <= 2 * LEAD_TIME or is_past_deadline():
            return {}
        half = len(instances) // 2
        ends = _read_completed_ends(api, instances[:half], is_past_deadline)
        return ends | _read_completed_ends(api, instances[half:], is_past_deadline)
    by_instance: dict[str, list[Row]] = {}
    for activity in activities:
        by_instance.setdefault(activity.text("processInstanceId"), []).append(activity)
    ids = (row.text("id") for row in instances)
    return {
        instance_id: _decide_end(instance_id, by_instance[instance_id])
        for instance_id in ids
        if instance_id in by_instance
    }


def _read_completed_end(api: RestApi, instance_id: str) -> End:
    """Return the end of an instance by its own request, for any start time."""
    activities = _read_completing_activities(api, processInstanceId=instance_id, sorting=_LATEST_FIRST)
    end = _decide_end(instance_id, activities)
    # If earlier activities are missing, one of them could be an error. A terminate end event is always the last one.
    is_known = len(activities) < MAX_ROWS or end.state is EndState.TERMINATED
    return end if is_known else End(EndState.UNDECIDED)


def _read_completing_activities(api: RestApi, **query: Any) -> list[Row]:
    response = api.post(PATH, {"finished": True, "completeScope": True, **query}, maxResults=MAX_ROWS)
    return read_rows(PATH, response.json, maximum=MAX_ROWS)


def _decide_end(instance_id: str, activities: Sequence[Row]) -> End:
    """Return the end of an instance.

    Args:
        instance_id: the instance.
        activities: all its activities that completed a scope.
    """
    top_level = [
        activity for activity in activities if activity.optional_text("parentActivityInstanceId") == instance_id
    ]
    if not top_level:
        return End(EndState.UNDECIDED)
    terminated = [activity for activity in top_level if _activity_type(activity) == "terminateEndEvent"]
    if terminated:
        return End(EndState.TERMINATED, _last_event_id(terminated))
    ends = _find_end_events(instance_id, activities)
    if ends is None:
        return End(EndState.UNDECIDED)
    errors = [activity for activity in ends if _is_error_end_event(activity)]
    if errors and len(errors) < len(ends):
        return End(EndState.UNDECIDED)
    return End(EndState.ERROR if errors else EndState.COMPLETED, _last_event_id(ends))


def _find_end_events(instance_id: str, activities: Sequence[Row]) -> list[Row] | None:
    """Return the end events of an instance and of its last sub-processes; None if another activity ended a branch."""
    by_parent: dict[str | None, list[Row]] = {}
    for activity in activities:
        by_parent.setdefault(activity.optional_text("parentActivityInstanceId"), []).append(activity)
    ends: list[Row] = []
    scopes = [instance_id]
    for scope in scopes:  # grows by the sub-processes that are found
        # Each scope is read once, so the loop ends even if a malicious engine lists an activity as its own parent.
        last_activities = by_parent.pop(scope, [])
        if not last_activities:
            return None
        for activity in last_activities:
            if _activity_type(activity) == "subProcess":
                scopes.append(activity.text("id"))
            elif _is_end_event(activity):
                ends.append(activity)
            else:
                return None
    return ends


def _read_called_end(api: RestApi, instance_id: str) -> End:
    """Return the end of an instance that its parent ended, after an error of the instance or by a boundary event."""
    query = {"processInstanceId": instance_id, "finished": True, "canceled": True, "sorting": _LATEST_FIRST}
    activities = read_rows(PATH, api.post(PATH, query, maxResults=MAX_ROWS).json, maximum=MAX_ROWS)
    top_level = [
        activity for activity in activities if activity.optional_text("parentActivityInstanceId") == instance_id
    ]
    errors = [activity for activity in top_level if _is_error_end_event(activity)]
    if errors:
        is_caught_inside = _has_sub_process_since(max(error.time("endTime") for error in errors), top_level)
        return End(EndState.UNDECIDED) if is_caught_inside else End(EndState.ERROR, _last_event_id(errors))
    # Such as an escalation that the parent caught; or an error of a sub-process, which the instance may have caught.
    if any(_is_end_event(activity) for activity in top_level) or any(map(_is_error_end_event, activities)):
        return End(EndState.UNDECIDED)
    return End(EndState.CANCELLED)


def _has_sub_process_since(time: datetime, activities: Sequence[Row]) -> bool:
    """Return whether a sub-process began at a time or later, such as an event sub-process that caught an error."""
    sub_processes = [activity for activity in activities if _activity_type(activity) == "subProcess"]
    return any(sub_process.time("startTime") >= time for sub_process in sub_processes)


def _activity_type(activity: Row) -> str:
    return activity.text("activityType")


def _is_end_event(activity: Row) -> bool:
    return _activity_type(activity).endswith("EndEvent")


def _is_error_end_event(activity: Row) -> bool:
    return _activity_type(activity) == "errorEndEvent"


def _last_event_id(activities: Sequence[Row]) -> str | None:
    """Return the id of the last end event; None if two different events ended at the same time."""
    latest = max(activity.time("endTime") for activity in activities)
    ids = {activity.text("activityId") for activity in activities if activity.time("endTime") == latest}
    return ids.pop() if len(ids) == 1 else None
