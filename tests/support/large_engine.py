"""An engine with a history of any length, which is computed and needs no memory. No tests."""

from __future__ import annotations

from datetime import timedelta

from flowhooks.model.engine import EndState, EngineInfo, FinishedInstance, FinishedPage, InstanceStatus

STEP = timedelta(milliseconds=10)
"""Time between the ends of two instances, unless a test gives another one."""


class LargeEngine:
    """A client whose history has `count` instances, one every `step` up to `newest`.

    Attributes:
        requests: the number of requests for a page.
    """

    def __init__(self, count, newest, *, step=STEP):
        self.count, self.newest, self.step, self.requests, self.size = count, newest, step, 0, 1000

    def client(self, config):
        """Return the engine as the client of a config."""
        self.size = config.page_size
        return self

    def check(self):
        """Return a product."""
        return EngineInfo(product="Large")

    def finished(self, since, until, cursor=None):
        """Return a page, by end time and then by id."""
        self.requests += 1
        oldest = self.newest - self.step * (self.count - 1)
        first = max(0, -((oldest - since) // self.step)) if cursor is None else int(cursor)
        last = min(self.count - 1, (until - oldest) // self.step)
        numbers = range(first, min(last + 1, first + self.size))
        page = [
            FinishedInstance(
                id=f"i{number:07}",
                ended_at=oldest + self.step * number,
                started_at=oldest + self.step * (number - 100),
                end_state=EndState.COMPLETED,
                process_definition_key="leave",
                business_key=f"b{number}",
                variables={"amount": number},
            )
            for number in numbers
        ]
        return FinishedPage(instances=page, cursor=str(numbers.stop) if numbers.stop <= last else None)

    def instance(self, instance_id):
        """Report that every instance is running."""
        del instance_id
        return InstanceStatus.RUNNING

    def definitions(self):
        """Return no definitions."""
        return ()

    def close(self):
        """Do nothing."""
