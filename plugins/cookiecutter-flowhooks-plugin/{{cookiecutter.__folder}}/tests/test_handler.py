"""Test the handler alone, with a real callback, and with crashes and repeated callbacks."""

from pathlib import Path
from typing import Any

import pytest
from flowhooks import Delivery, Event, Reject
from flowhooks.testing import AppFactory, exactly_once, make_event

import {{ cookiecutter.__module }} as plugin
from {{ cookiecutter.__module }}.register import Register

PLUGIN = "{{ cookiecutter.__plugin }}"
CALL_BACK: dict[str, Any] = {
{% if cookiecutter.callback_class %}
    "callBackProcessClass": "{{ cookiecutter.callback_class }}",
{% endif %}
{% if cookiecutter.process_key %}
    "processDefinitionKey": "{{ cookiecutter.process_key }}",
{% endif %}
{% if cookiecutter.conclusion %}
    "conclusion": "{{ cookiecutter.conclusion }}",
{% endif %}
}
"""The data that the engine sends for every flow of the handler."""


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """The register of one test, which the plugin gets through its settings."""
    database = tmp_path / "register.db"
    plugin.configure({"database": str(database)})
    return database


def test_the_function(database: Path) -> None:
    """Called twice for the same delivery, it enters the flow once."""
    event = make_event(flow_instance_id="4711", business_key="K-1")
    delivery = Delivery(id="d-1", event_id=event.id, handler=f"{PLUGIN}:record_flow", attempt=1)
    assert plugin.record_flow(event, delivery) == {"number": 1}
    assert plugin.record_flow(event, delivery) == {"number": 1}
    assert Register(database).flows() == [("4711", "K-1")]


def test_a_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It starts from the working folder of the start, even if another plugin changes that later."""
    monkeypatch.chdir(tmp_path)
    plugin.configure({})
    monkeypatch.chdir("/")
    assert plugin.register.database.parent == tmp_path


def test_no_business_key() -> None:
    """A flow without a business key is rejected, because a retry cannot fix that."""
    event = make_event(flow_instance_id="4711")
    delivery = Delivery(id="d-1", event_id=event.id, handler=f"{PLUGIN}:record_flow", attempt=1)
    with pytest.raises(Reject, match="no businessKey"):
        plugin.record_flow(event, delivery)


def test_a_call_back(flowhooks_app: AppFactory, database: Path) -> None:
    """A callback over HTTP is answered with success, and its flow is in the register."""
    app = flowhooks_app(plugin, settings={PLUGIN: {"database": str(database)}})
    answer = app.post("4711", businessKey="K-1", **CALL_BACK)
    assert (answer.status, answer.json) == (200, {"success": True})
    assert Register(database).flows() == [("4711", "K-1")]


{% if cookiecutter.conclusion %}
def test_another_conclusion(flowhooks_app: AppFactory, database: Path) -> None:
    """A flow that ended otherwise is answered with success, and the handler does not run."""
    app = flowhooks_app(plugin, settings={PLUGIN: {"database": str(database)}})
    other = "{{ 'approved' if cookiecutter.conclusion == 'rejected' else 'rejected' }}"
    body: dict[str, Any] = {**CALL_BACK, "conclusion": other}
    answer = app.post("4712", businessKey="K-2", **body)
    assert (answer.status, answer.json) == (200, {"success": True})
    assert [event.flow_instance_id for event in app.dismissed()] == ["4712"]
    assert Register(database).flows() == []


{% endif %}
def test_exactly_once(database: Path) -> None:
    """Killed at any line, sent again or run again: the flow is in the register once."""

    def times(event: Event) -> int:
        return Register(database).flows().count((event.flow_instance_id, event.business_key or ""))

    report = exactly_once(plugin, done=times, make=CALL_BACK, settings={"database": str(database)})
    assert report.ok, str(report)
