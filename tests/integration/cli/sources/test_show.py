"""`flowhooks sources show` and `list`: the fixed URL of a source, and its requests that were ignored."""

from __future__ import annotations

import json

import pytest

from flowhooks.settings import IngressSettings, Source, ValueTable
from support import ingress

pytestmark = pytest.mark.sqlite

HOSTILE = 'id=\x1b[31m7\u202e&x=["'
CONFIG = """
[sources.yudao]
secrets = [{file = "not-read"}]

[sources.yudao.ingress]
format = "form"
flow_instance_id = "/id"
kind = {pointer = "/status", values = {"1" = "ignore", "2" = "complete"}, other = "ignore"}

[sources.erp]
secrets = [{file = "not-read"}]
"""


@pytest.fixture
def env(harness, tmp_path):
    """The environment of a ledger with ignored requests of one of two sources."""
    (tmp_path / "flowhooks.toml").write_text(CONFIG)
    mapped = IngressSettings(
        format="form",
        flow_instance_id=("/id",),
        kind=ValueTable(pointer="/status", values={"1": "ignore", "2": "complete"}, other="ignore"),
    )
    flow = harness.open(
        start=False, sources={"yudao": Source(token_sha256=("1" * 64,), ingress=mapped), "erp": Source()}
    )
    ingress.ignore(flow, "/status = 1", body="x" * 3000, media_type="application/x-www-form-urlencoded", times=1200)
    flow.clock.advance(60)
    ingress.ignore(flow, "/status = other", body=HOSTILE)
    ingress.take(flow, "7", processDefinitionKey="leave", wait=0)
    return {"FLOWHOOKS_DATABASE": str(harness.file)}


def test_a_source_with_ignored_requests(run, env):
    """The rule of the last request comes first; a body is escaped, and a long one is cut with a note."""
    shown = run("sources", "show", "yudao", **env).stdout
    assert "  fixed URL      /in/yudao\n  format         form\n" in shown
    assert "  ignored        1,201 requests\n" in shown
    first, second = shown.index("ignored by /status = other: 1 request,"), shown.index("ignored by /status = 1: 1,200")
    assert first < second
    assert '    id=\\u001b[31m7\\u202e&x=["\n' in shown
    assert "  Content-Type   application/x-www-form-urlencoded\n" in shown
    assert "x" * 1000 in shown
    assert "x" * 1001 not in shown
    command = "flowhooks sources show yudao --body '/status = 1'"
    assert f"    … and 2,000 characters: {command}\n" in shown
    assert "/status: 1 = ignore, 2 = complete, other = ignore\n" in shown
    assert "1" * 64 not in shown


def test_only_the_last_body_is_printed(run, env):
    """The last body of a rule is printed as it was received; an unknown rule is exit code 1."""
    ran = run("sources", "show", "yudao", "--body", "/status = other", **env)
    assert (ran.exit_code, ran.stdout_bytes.decode()) == (0, HOSTILE)
    ran = run("sources", "show", "yudao", "--body", "/status = 3", **env)
    assert (ran.exit_code, "no request of yudao was ignored by the rule /status = 3" in ran.stderr) == (1, True)
    assert run("sources", "show", "yudao", "--body", "x", "--json", **env).exit_code == 2


def test_a_changed_mapping_is_tried_with_an_ignored_request(run, run_json, env, harness, tmp_path):
    """The last body of a rule, given to the preview, shows what a changed mapping makes of it."""
    ingress.ignore(harness.opened[0], "/status = 4", body="id=7&status=4", media_type="text/form")
    body = run("sources", "show", "yudao", "--body", "/status = 4", **env).stdout
    shown = run_json("sources", "test", "yudao", "--data", "-", given=body, **env)
    assert shown["items"][0]["ignored_by"] == "/status = other"
    (tmp_path / "flowhooks.toml").write_text(CONFIG.replace('"2" = "complete"', '"4" = "cancel"'))
    shown = run_json("sources", "test", "yudao", "--data", "-", given=body, code=1, **env)
    assert (shown["items"][0]["callback"]["kind"], shown["items"][0]["route"]["result"]) == ("cancel", "parked")


def test_json(run_json, run, env):
    """The whole bodies, times and counts by rule; the list has their sum."""
    shown = run_json("sources", "show", "yudao", **env)
    assert shown["fixed_url"] == {"path": "/in/yudao", "format": "form", "receiver": None}
    other, one = shown["ignored"]
    assert (other["rule"], other["requests"], other["body"], other["media_type"]) == (
        *("/status = other", 1, HOSTILE),
        None,
    )
    assert (one["rule"], one["requests"], len(one["body"]), one["body_truncated"]) == ("/status = 1", 1200, 3000, False)
    assert one["first_at"] == one["last_at"] < other["first_at"]
    shown = run_json("sources", "show", "erp", **env)
    assert (shown["fixed_url"], shown["ignored"]) == (None, [])
    erp, yudao = run_json("sources", "list", **env)["sources"]
    assert (erp["name"], erp["ignored"], yudao["ignored"]) == ("erp", 0, 1201)
    assert "1,201" in run("sources", "list", **env).stdout


def test_an_unknown_source(run, env, tmp_path):
    """An unknown source is wrong usage; the list needs no ledger."""
    ran = run("sources", "show", "nobody", **env)
    assert (ran.exit_code, "there is no source nobody" in ran.stderr) == (2, True)
    ran = run("sources", "list", "--json", FLOWHOOKS_DATABASE=str(tmp_path / "none.db"))
    assert [source["ignored"] for source in json.loads(ran.stdout)["sources"]] == [0, 0]
    assert not (tmp_path / "none.db").exists()
