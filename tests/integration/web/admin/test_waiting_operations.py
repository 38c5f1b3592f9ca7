"""Operations that wait for a round of reconciliation or for an engine leave the threads to other requests."""

from __future__ import annotations

import http.client
import json
import threading
from contextlib import closing

import pytest

from flowhooks.web.admin.app import create_admin
from support.engine_fakes import FakeReconciler
from support.waiting import WAIT_TIMEOUT

TOKEN = "t" * 43


@pytest.mark.either
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("reconcile", {"source": "oa"}),
        ("decline_reconciliation", {"source": "oa", "instances": 1}),
        ("ask_engine", {"instance": "4711"}),
        ("read_definitions", {}),
    ],
)
def test_a_waiting_operation_occupies_no_thread(harness, start, name, arguments):
    """While it waits, a listener with one thread answers other requests, also those of a health check."""
    flow = harness.open()
    waits, may_go_on = threading.Event(), threading.Event()
    engines = FakeReconciler("oa").install(flow.app)
    engines.when_called = lambda: (waits.set(), may_go_on.wait(WAIT_TIMEOUT))
    server = start(create_admin(flow.app, TOKEN), threads=1)

    def status(method, path, body=None):
        with closing(http.client.HTTPConnection(*server.address.split(":"), timeout=WAIT_TIMEOUT)) as connection:
            connection.request(method, path, body, {"Authorization": f"Bearer {TOKEN}"})
            return connection.getresponse().status

    statuses = []
    operator = threading.Thread(
        target=lambda: statuses.append(status("POST", f"/api/operations/{name}", json.dumps(arguments)))
    )
    operator.start()
    assert waits.wait(WAIT_TIMEOUT)
    try:
        assert status("GET", "/healthz") == 200
    finally:
        may_go_on.set()
        operator.join(WAIT_TIMEOUT)
    assert statuses == [200]
