"""An engine's id is accepted, shown and found as the engine wrote it, whatever characters it has."""

from __future__ import annotations

import json
import re
from html import unescape
from urllib.parse import quote, urlencode

import pytest

PLUGIN = """
from flowhooks import handler, hookimpl

@handler(process_key="k")
def give_back(event):
    return event.flow_instance_id

@hookimpl
def handlers():
    return [give_back]
"""
STRANGEST = "👩\u200d🚒 'x' \"y\" $(z) `w` <b>&amp;?q=1#f;%2F\\\\n +/@"
IDS = [
    "scheduled__2026-11-27T00:00:00+00:00",
    "order/2026/17",
    "a/call-back/complete",
    "../../console/events",
    "approval@example.com",
    "合同审批 17号",
    "e\u0301",
    "\u00e9",
    STRANGEST,
    "--help",
    "é" * 255,
    "😀" * 128,
]


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def site_with_plugin(request, site):
    """A site with one plugin, on each database."""
    if request.param == "postgresql":
        site.database = site.url = request.getfixturevalue("postgresql_url")
    site.plugin("plain", PLUGIN)
    return site


def test_every_interface_accepts_and_shows_any_id(site_with_plugin):
    """Each id is one event of its own: in the handler, the API, the console and the commands."""
    site = site_with_plugin
    server = site.start(answer_wait=25, ledger__write_timeout=20)  # a commit may take seconds on a busy machine

    def read(path):
        answer = server.ask("GET", path, admin=True)
        assert answer.status == 200, (path, answer.body[:300])
        return answer

    def command(*words):
        ran = site.run(*words, database=site.database)
        assert ran.returncode == 0, (words, ran.stderr)
        return ran.stdout

    events = {}
    for text in IDS:
        segment = quote(text, safe="+@")  # a raw plus sign is a plus sign
        answer = server.post(segment, {"processDefinitionKey": "k"})
        assert (answer.status, answer.json) == (200, {"success": True}), text
        events[text] = answer.event_id
        assert server.post(quote(text, safe=""), {"processDefinitionKey": "k"}).event_id == answer.event_id
    assert len(set(events.values())) == len(IDS)
    for text, event_id in events.items():
        assert [event["id"] for event in read(f"/api/events?{urlencode({'flow': text})}").json["events"]] == [event_id]
        assert read(f"/api/events/{event_id}").json["flow_instance_id"] == text
        page = read(f"/console/events/{event_id}").body.decode()
        link = unescape(re.search(r'href="(/console/events\?flow=[^"]*)"', page)[1])
        listed = set(re.findall(r"/console/events/([0-9a-f-]{36})", read(link).body.decode()))
        assert listed == {event_id}, text
    # Commands take an id from their arguments; the strangest one shows it, because each command is a process.
    (shown,) = json.loads(command("events", "show", "--json", "--", STRANGEST))["events"]
    assert shown["deliveries"][0]["attempts"][0]["result"] == shown["flow_instance_id"] == STRANGEST
    (listed,) = json.loads(command("events", "list", "--json", f"--flow={STRANGEST}"))["events"]
    assert listed["id"] == events[STRANGEST]
    host, port = server.address
    sent = command("send", STRANGEST, "--key", "k", "--to", f"http://{host}:{port}")
    assert events[STRANGEST] in sent  # the same event again
    server.check_log()
    server.stop()
    site.balance()
