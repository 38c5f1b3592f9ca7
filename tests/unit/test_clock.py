"""Time and ids: microseconds since 1970, and ids that sort by time."""

from __future__ import annotations

import re
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from flowhooks.clock import SECOND, Clock, id_lower_bound, id_time, to_datetime, to_text

UUID_7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


class At(Clock):
    """A clock at a given time."""

    def __init__(self, moment):
        self.moment = moment

    def now(self):
        """The given time."""
        return self.moment


def test_now_is_the_machine_time_in_microseconds():
    """The real clock returns the machine's time."""
    before = time.time()
    now = Clock().now()
    assert before - 0.001 <= now / SECOND <= time.time() + 0.001
    assert isinstance(now, int)


def test_a_random_number_is_between_0_and_1():
    """The random number is between 0 and 1 and varies."""
    drawn = [Clock().random() for _ in range(100)]
    assert all(0 <= number < 1 for number in drawn)
    assert len(set(drawn)) > 90


def test_an_id_is_a_uuid_of_version_7_with_its_time():
    """An id has the form of RFC 9562, and its first 48 bits are the milliseconds."""
    moment = 1_767_225_600_123_456
    made = At(moment).new_id()
    assert UUID_7.fullmatch(made)
    parsed = uuid.UUID(made)
    assert (parsed.version, parsed.variant) == (7, uuid.RFC_4122)
    assert parsed.int >> 80 == moment // 1000


def test_ids_sort_by_the_microsecond():
    """An id made a microsecond later sorts later, also across milliseconds."""
    ids = [At(1_767_225_600_000_000 + step).new_id() for step in range(5_000)]
    assert ids == sorted(ids)


def test_an_id_contains_its_creation_time():
    """An id has its creation time to the millisecond; other texts give none."""
    moment = 1_767_225_600_123_456
    assert id_time(At(moment).new_id()) == 1_767_225_600_123_000
    assert id_time("no id") is None


def test_the_id_bound_of_a_time_sorts_after_all_earlier_ids():
    """The bound sorts after all earlier ids and before all of its millisecond; out of range it is the nearest."""
    moment = 1_767_225_600_123_000
    bound = id_lower_bound(moment)
    assert At(moment - 1).new_id() < bound < At(moment).new_id()
    assert id_lower_bound(-1) == id_lower_bound(0) < id_lower_bound(2**63) < "g"


def test_ids_of_one_microsecond_differ():
    """Ten thousand ids of the same microsecond are all different."""
    clock = At(1_767_225_600_000_000)
    assert len({clock.new_id() for _ in range(10_000)}) == 10_000


def test_ids_of_concurrent_threads_differ():
    """Random parts are generated in batches, and no two threads get the same."""
    clock = At(1_767_225_600_000_000)
    with ThreadPoolExecutor(8) as pool:
        made = [
            identifier
            for ids in pool.map(lambda _: [clock.new_id() for _ in range(2_000)], range(8))
            for identifier in ids
        ]
    assert len(set(made)) == len(made)


def test_conversion_of_a_timestamp_to_datetime_and_text():
    """A moment is converted exactly to an aware time, and to ISO 8601 truncated to milliseconds."""
    moment = 1_767_225_600_123_956
    assert to_datetime(moment) == datetime(2026, 1, 1, 0, 0, 0, 123_956, tzinfo=UTC)
    assert to_text(moment) == "2026-01-01T00:00:00.123Z"
    assert to_text(0) == "1970-01-01T00:00:00.000Z"
    assert to_text(None) is None
