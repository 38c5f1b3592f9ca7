"""Rejected requests are stored and logged in the background."""

from __future__ import annotations

from flowhooks.intake import rejected_requests
from flowhooks.intake.rejected_requests import RejectedRequestLog


class Ledger:
    """A ledger whose first write fails by a defect."""

    def __init__(self):
        self.written = []

    def write(self, function, *, certain):
        """Fail once, then note the paths of the requests."""
        self.written.append([request.path for request in function.keywords["requests"]])
        if len(self.written) == 1:
            raise KeyError("defect")


def test_an_exception_does_not_stop_the_storing_of_later_requests(clock, monkeypatch, eventually, logged):
    """An exception is logged, and later requests are stored."""
    monkeypatch.setattr(rejected_requests, "FLUSH_INTERVAL", 0.01)
    ledger = Ledger()
    log = RejectedRequestLog(ledger=ledger, clock=clock)
    log.start()
    for number, path in enumerate(("/first", "/second"), 1):
        log.record(path=path, address="127.0.0.1", status=400, english="no", chinese="")
        eventually(lambda number=number: len(ledger.written) == number)
    log.stop(timeout=60)
    assert ledger.written == [["/first"], ["/second"]]
    assert "rejected_requests_fault" in [entry["event"] for entry in logged]
