"""How process instances ended. The engine's own `state` is COMPLETED for error and terminate ends, too.

The activity history decides. An activity instance with `completeScope` was the last one of its branch, and its parent
is the process instance if it belongs to the process itself and not to a sub-process:

- A terminate end event ended the process.
- An error end event that nothing caught ended its branch. A caught one is `canceled`, and has not completed a scope.
- Any other end event is a normal end.
- A sub-process was the last one: an event sub-process, or one that nothing follows. Its own end events count.
- A task was the last one. Either no end event follows it, or it has thrown an error that nothing caught. The history
  does not tell which of the two, so this end is undecided, and so is an error end beside a normal one.

An activity that is not read could be an error, so an instance is decided only by all its activities. One request reads
the activities that completed a scope while the instances of a page ended. It has all activities of the instances that
started in this time, too. The others are asked about one by one: they started before, another instance ended them, or
so many activities ended within seconds that one answer does not have them all.
These requests take time, so only the first instances of a page are decided if the engine is slow.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from flowhooks import EndState
from flowhooks_camunda.row import rows
from flowhooks_camunda.times import format_time

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from flowhooks_camunda.rest import RestApi
    from flowhooks_camunda.row import Row

PATH: Final = "history/activity-instance"
MAX_ROWS: Final = 5000
"""Maximum number of activities of an answer. Each has about 700 bytes."""
LEAD: Final = timedelta(seconds=10)
"""How long before the first end of a page an instance may have started, to be decided with the whole page at once."""
MAX_CLOCK_SKEW: Final = timedelta(seconds=5)
"""By how much the clocks of an engine's nodes may differ: each writes the times of the activities that it executes."""
_ENDED_FROM_OUTSIDE: Final = frozenset({"EXTERNALLY_TERMINATED", "INTERNALLY_TERMINATED"})
_LATEST_FIRST: Final = [{"sortBy": "endTime", "sortOrder": "desc"}]


@dataclass(frozen=True, slots=True)
class End:
    """How an instance ended.

    Attributes:
        state: the way.
        event_id: the id of the last end event; None if there is none, or if it is not known which one was the last.
    """

    state: EndState
    event_id: str | None = None


def read_ends(api: RestApi, listed: Sequence[Row], *, is_late: Callable[[], bool] = lambda: False) -> dict[str, End]:
    """Return how finished instances ended, by their ids; if it is late, only of the first ones, and at least of one.

    Args:
        api: the engine.
        listed: the rows of the instances.
        is_late: returns whether the time for requests is used up.

    Raises:
        EngineError: there is no readable answer.
    """
    completed = [row for row in listed if row.optional_text("state") not in _ENDED_FROM_OUTSIDE]
    together = _completed_together(api, completed, is_late)
    ends: dict[str, End] = {}
    for row in listed:
        instance_id, state = row.text("id"), row.optional_text("state")
        if state == "EXTERNALLY_TERMINATED":
            ends[instance_id] = End(EndState.CANCELLED)
        elif instance_id in together:
            ends[instance_id] = together[instance_id]
        elif ends and is_late():
            break
        elif state == "INTERNALLY_TERMINATED":
            ends[instance_id] = _ended_by_another(api, instance_id)
        else:
            ends[instance_id] = _completed_alone(api, instance_id)
    return ends


def _completed_together(api: RestApi, listed: Sequence[Row], is_late: Callable[[], bool]) -> dict[str, End]:
    """Return the ends of the instances, of those that nothing has cancelled, that need no request of their own."""
    if not listed:
        return {}
    ends = [row.time("endTime") for row in listed]
    begin = min(ends) - LEAD
    together = [row for row in listed if (started := row.optional_time("startTime")) is not None and started >= begin]
    return _completed_in(api, together, begin, max(ends), is_late) if len(together) > 1 else {}


def _completed_in(
    api: RestApi, listed: Sequence[Row], since: datetime, until: datetime, is_late: Callable[[], bool]
) -> dict[str, End]:
    """Return the ends of instances that started and ended between two times, except in a burst of ends."""
    window = {
        "finishedAfter": format_time(since - MAX_CLOCK_SKEW),
        "finishedBefore": format_time(until + MAX_CLOCK_SKEW),
    }
    activities = _last_of_branches(api, **window)
    if len(activities) >= MAX_ROWS:  # some are missing, so no instance can be decided: read shorter windows
        if until - since <= 2 * LEAD or is_late():  # no window is shorter than LEAD, so parts would be full, too
            return {}
        half = len(listed) // 2
        return _completed_together(api, listed[:half], is_late) | _completed_together(api, listed[half:], is_late)
    by_instance: dict[str, list[Row]] = {}
    for activity in activities:
        by_instance.setdefault(activity.text("processInstanceId"), []).append(activity)
    return {
        instance_id: _decide(instance_id, by_instance.get(instance_id, ()))
        for instance_id in (row.text("id") for row in listed)
    }


def _completed_alone(api: RestApi, instance_id: str) -> End:
    """Return the end of an instance, however long ago it started."""
    activities = _last_of_branches(api, processInstanceId=instance_id, sorting=_LATEST_FIRST)
    end = _decide(instance_id, activities)
    # If earlier ones are missing, one of them could be an error. A terminate end event was the last one.
    is_known = len(activities) < MAX_ROWS or end.state is EndState.TERMINATED
    return end if is_known else End(EndState.UNDECIDED)


def _last_of_branches(api: RestApi, **query: Any) -> list[Row]:
    answer = api.post(PATH, {"finished": True, "completeScope": True, **query}, maxResults=MAX_ROWS)
    return rows(PATH, answer.json)


def _decide(instance_id: str, activities: Sequence[Row]) -> End:
    """Return the end of an instance.

    Args:
        instance_id: the instance.
        activities: all its activities that completed a scope.
    """
    top = [activity for activity in activities if activity.optional_text("parentActivityInstanceId") == instance_id]
    if not top:
        return End(EndState.UNDECIDED)
    terminated = [activity for activity in top if _kind(activity) == "terminateEndEvent"]
    if terminated:
        return End(EndState.TERMINATED, _last(terminated))
    ends = []
    for activity in top:
        if _kind(activity) == "subProcess":
            inner = [other for other in activities if _is_child(other, activity) and _kind(other).endswith("EndEvent")]
            if not inner:
                return End(EndState.UNDECIDED)
            ends += inner
        elif _kind(activity).endswith("EndEvent"):
            ends.append(activity)
        else:
            return End(EndState.UNDECIDED)
    errors = [activity for activity in ends if _kind(activity) == "errorEndEvent"]
    if errors and len(errors) < len(ends):
        return End(EndState.UNDECIDED)
    return End(EndState.ERROR if errors else EndState.COMPLETED, _last(ends))


def _ended_by_another(api: RestApi, instance_id: str) -> End:
    """Return the end of a called instance that its parent has ended: its own error, or a boundary event of the call."""
    query = {"processInstanceId": instance_id, "finished": True, "canceled": True, "sorting": _LATEST_FIRST}
    activities = rows(PATH, api.post(PATH, query, maxResults=MAX_ROWS).json)
    top = [activity for activity in activities if activity.optional_text("parentActivityInstanceId") == instance_id]
    errors = [activity for activity in top if _kind(activity) == "errorEndEvent"]
    if errors:
        return End(EndState.ERROR, _last(errors))
    if any(_kind(activity).endswith("EndEvent") for activity in top):  # such as an escalation that the parent caught
        return End(EndState.UNDECIDED)
    return End(EndState.CANCELLED)


def _kind(activity: Row) -> str:
    return activity.text("activityType")


def _is_child(activity: Row, parent: Row) -> bool:
    return activity.optional_text("parentActivityInstanceId") == parent.text("id")


def _last(activities: Sequence[Row]) -> str | None:
    """Return the id of the last end event; None if two different ones ended at the same time."""
    latest = max(activity.time("endTime") for activity in activities)
    ids = {activity.text("activityId") for activity in activities if activity.time("endTime") == latest}
    return ids.pop() if len(ids) == 1 else None
