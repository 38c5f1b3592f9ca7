"""The page of the ledger's size in both languages, and the same as JSON."""

# ruff: noqa: RUF001 (Chinese has punctuation marks of its own)
from __future__ import annotations

import json

import pytest

from flowhooks.operations.json.storage import storage_to_json
from flowhooks.operations.storage import read_storage

pytestmark = pytest.mark.either


def test_the_storage_page(harness, serve):
    """The page has the retention and the limits of the alerts in force, and the footer links to it."""
    flow = harness.open(start=False, retention={"succeeded": 90, "closed": 1}, alerts={"ledger_max_mib": 5_000})
    flow.take("i1", key="nobody", wait=0)
    console = serve(flow)
    page = console.page("/storage")
    for said in ("90 days", "1 day", "forever", "more than 5,000 MiB", "less than 1,024 MiB free", "no alert"):
        assert said in page.text
    assert "known after an hour of running" in page.text
    chinese = console.page("/storage", "zh").text
    for said in ("存储", "90 天", "永久保留", "超过 5,000 MiB", "不告警"):
        assert said in chinese
    assert "/console/storage" in console.page("/events").links()


def test_the_growth_on_the_page(harness, serve):
    """After an hour, the page has the growth and since when."""
    flow = harness.open(start=False)
    flow.app.alerts.poll()
    for number in range(12):
        flow.take(str(number), key="nobody", wait=0, text="x" * 100_000)
    flow.clock.advance(7200)
    console = serve(flow)
    for language, said in (("en", "MB since 2026-01-01"), ("zh", "MB 起始时间： 2026-01-01")):
        text = " ".join(console.page("/storage", language).text.split())
        assert said in text


def test_the_storage_as_json(harness, serve):
    """`GET /api/storage` has the same numbers."""
    flow = harness.open(start=False)
    flow.take("i1", key="nobody", wait=0)
    answer = serve(flow).get("/storage", root="/api")
    assert answer.status == 200
    found = json.loads(answer.body)
    expected = storage_to_json(read_storage(flow.app.ledger, flow.app.settings, flow.clock.now()))
    volatile = {"free_disk_bytes", "days_until_full", "log_bytes"}
    assert {name: value for name, value in found.items() if name not in volatile} == {
        name: value for name, value in expected.items() if name not in volatile
    }
    assert set(found) == set(expected)


def test_an_alert_about_the_ledger_links_to_the_storage_page(harness, serve):
    """The alert about a missing backup links to the storage page."""
    flow = harness.open(start=False, alerts={"backup_max_age": 86_400.0})
    flow.clock.advance(86_401)
    flow.app.alerts.poll()
    assert serve(flow).page("/alerts").links().count("/console/storage") == 2  # the alert, and the footer
