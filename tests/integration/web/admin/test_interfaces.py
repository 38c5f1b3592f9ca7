"""One operation in three interfaces: the JSON API, the command line and the console act on the same state."""

from __future__ import annotations

import hashlib
import json
import os

import pytest
from argon2 import PasswordHasher
from click.testing import CliRunner

from flowhooks import Reject
from flowhooks.cli.main import main
from flowhooks.ledger import audit
from flowhooks.ledger.lock import publish_admin_address
from flowhooks.settings import OperatorSettings
from support.logging_state import restore_logging  # noqa: F401 (a fixture)

PASSWORD = "correct horse battery staple"
TOKEN = "robot-token-0123456789abcdefghij"
LOCK = "t"
"""The token of commands with which the fixture `serve` serves."""


@pytest.mark.sqlite
def test_an_operation_is_controlled_by_each_interface(harness, serve, listens, monkeypatch):
    """Started over the API, paused by a command, resumed in the console, cancelled over the API; all are audited."""
    for name in [name for name in os.environ if name.startswith("FLOWHOOKS_")]:
        monkeypatch.delenv(name)

    def book(_event):
        raise Reject("closed")

    robot = OperatorSettings(role="operate", token_sha256=(hashlib.sha256(TOKEN.encode()).hexdigest(),))
    ann = OperatorSettings(role="operate", password=PasswordHasher(1, 8, 1).hash(PASSWORD))  # quick to compute
    flow = harness.open(listens(book), operators={"robot": robot, "ann": ann})
    for number in range(3):
        flow.take(f"i{number}")
    console = serve(flow)
    publish_admin_address(flow.app.lock, f"http://{console.address}", LOCK)
    cookie = console.log_in("ann", PASSWORD)

    def over_api(name, **arguments):
        path, body = f"/api/operations/{name}_operation", json.dumps(arguments)
        answer = console.get(path, method="POST", root="", body=body, Authorization=f"Bearer {TOKEN}")
        assert answer.status == 200, answer.body
        return json.loads(answer.body)

    def by_command(*words):
        env = {"FLOWHOOKS_DATABASE": str(flow.file), "FLOWHOOKS_PLUGINS_ALLOW": "none", "USER": "bob", "LOGNAME": "bob"}
        result = CliRunner(env=env).invoke(main, ["operations", *words, "--json"], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    operation_id = over_api("plan", action="replay", event_filter={"handler": "p:book"}, rate=0.001)["id"]
    assert over_api("start", operation_id=operation_id)["state"] == "running"
    assert by_command("pause", operation_id)["state"] == "paused"
    page = console.get(f"/operations/{operation_id}", Cookie=cookie).page
    assert page.steps().keys() == {"resume", "cancel", "rate"}
    assert console.post(f"/operations/{operation_id}/resume", Cookie=cookie).status == 303
    assert by_command("show", operation_id)["state"] == "running"
    cancelled = over_api("cancel", operation_id=operation_id)
    assert (cancelled["state"], cancelled["planned"]) == ("cancelled", 3)
    assert console.get(f"/operations/{operation_id}", Cookie=cookie).page.steps() == {}
    with flow.app.ledger.connection() as connection:
        entries = audit.entries(connection, limit=10, target=operation_id)
    assert [(entry.detail["change"], entry.interface, entry.actor) for entry in reversed(entries)] == [
        ("started", "api", "robot"),
        ("paused", "cli", "bob"),
        ("resumed", "console", "ann"),
        ("cancelled", "api", "robot"),
    ]
