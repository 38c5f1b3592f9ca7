"""Values of engines, plugins and operators are plain text in every page."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace
from urllib.parse import quote

import pytest

from flowhooks import Reject, State, hookimpl
from support import engine_ledger
from support.waiting import WAIT_TIMEOUT

pytestmark = pytest.mark.either

PAYLOADS = {
    "script": "<script>document.title='pwned'</script>",
    "attribute": '" onmouseover="document.title=\'pwned\'" x="',
    "image": "'><img src=x onerror=\"document.title='pwned'\"><!--",
    "closing": "</pre></code></bdi></td></table></main><h1>pwned</h1>",
    "address": "javascript:document.title='pwned'",
    "template": "{{ 7 * 7 }}{% raw %}{{ config }}",
    "entity": "&lt;script&gt;&#x3c;script&#62;&amp",
    "sql": "'; DROP TABLE events; -- \" OR 1=1",
    "csv": "=cmd|'/C calc'!A1\n+1\t@SUM(1)",
    "ansi": "\x1b[2J\x1b[31mred\x1b]0;title\x07\x9b1m\x08\x08",
    "direction": "\u202egpj.exe\u2066\u200f\u061c",
    "unseen": "a\u200b\u2060\ufeff\u00adb\u2028c\u2029d",
    "log": 'x\r\n2026-11-24 [error] {"event": "forged"}\n',
    "long": "L" * 100_000,
    "marks": "Z\u0351\u0351\u0351\u0351\u0351" * 50,
}
TOGETHER = {
    "html": ("script", "attribute", "image", "closing", "address", "template", "entity"),
    "others": ("sql", "csv", "log", "marks"),
    "unseen": ("ansi", "direction", "unseen"),
    "script": ("script",),
    "long": ("long",),
}
TOGETHER = {name: " ".join(PAYLOADS[payload_name] for payload_name in several) for name, several in TOGETHER.items()}
"""The payloads that are tested in one value, because a page for each would take long and show no more."""
FORBIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u00ad\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]")
FORM_VALUE = re.compile(r' value="[^"]*"|<textarea[^>]*>[^<]*')
"""A value that a form sends as it is, so that it cannot be escaped for the reader."""
PAGES = (
    "/",
    "/live",
    "/events",
    "/handlers",
    "/parked",
    "/operations",
    "/operations/o-planned",
    "/operations/o-paused",
    "/operations/o-paused/live",
    "/sources",
    "/engines",
    "/rejected-requests",
    "/alerts",
    "/audit",
    "/storage",
)


@pytest.fixture
def hostile(harness, serve, listens):
    """A function that returns a console with a payload in every field, and its events."""

    def open_with(payload):
        def reject(event):
            raise Reject(payload)

        def fail(event):
            raise RuntimeError(payload)

        def broken():
            raise ValueError(payload)

        reject.__doc__ = fail.__doc__ = payload
        plugin = SimpleNamespace(
            __doc__=payload,
            handlers=hookimpl(
                lambda: [
                    listens(reject, process_key="k", versions="<9"),
                    listens(fail, process_key="k"),
                    listens(lambda event: payload, name="give", process_key="k"),
                    listens(lambda event: None, name="odd", callback_class=f"{payload}!", process_key=f"{payload}?"),
                    listens(
                        lambda event: None,
                        name="narrow",
                        process_key="k",
                        conclusion=payload[:128],
                        when={"/" + payload[:500].replace("~", "~0").replace("/", "~1"): payload[:1_000]},
                    ),
                ]
            ),
        )
        flow = harness.open(plugins={"p": plugin, "broken": SimpleNamespace(handlers=hookimpl(broken))})
        body = {
            "businessKey": payload,
            "processDefinitionId": payload,
            "processDefinitionVersion": 1,
            "more": {payload: [payload]},
        }
        whole = flow.take("i1", key="k", callback_class=payload, **body).event_id
        flow.take("i2", key=payload, callback_class=payload, **body)
        flow.sql(
            "INSERT INTO conflicts (event_id, digest, body, received_at) VALUES (?, 'd', ?, 1)",
            whole,
            json.dumps(body, ensure_ascii=False),
        )
        flow.take("i3", key="k", callback_class=payload, kind="cancel", **body)
        no_match = json.dumps({"reasons": {payload: payload}, "total": 30})
        flow.sql("UPDATE events SET conclusion = ?, no_match = ?", payload, no_match)
        flow.sql("UPDATE deliveries SET comment = ?", payload)
        flow.sql("UPDATE events SET source = ?, kind = ?", payload, payload)
        flow.sql("UPDATE attempts SET error = ?, traceback = ?, log = ? WHERE error != ''", payload, payload, payload)
        flow.sql("INSERT INTO rejected_requests VALUES ('r', 2, 1, 2, ?, ?, ?, 400, ?, ?, 'f', ?, ?)", *[payload] * 7)
        engine_ledger.position(flow, payload, product=payload, error=payload, failed_since=1, to_confirm=5, skew=9)
        engine_ledger.gap(flow, payload, 1, 2, payload, detail=payload)
        engine_ledger.instance(flow, payload, payload, rule=payload, disposition=payload, event_id=whole)
        engine_ledger.late_callback(flow, whole, payload)
        flow.sql(
            "INSERT INTO audit_log (id, at, actor, interface, action, target, detail) VALUES (?, 1, ?, ?, ?, ?, ?)",
            f"0-{payload[:50]}",
            *[payload] * 4,
            json.dumps({"note": payload, payload: [payload]}),
        )
        entry = json.dumps({"handlers": ["p:give"], "note": payload, "event_filter": {"handler": payload}})
        for number, about in enumerate((whole, "p:give")):
            flow.sql(
                "INSERT INTO audit_log (id, at, actor, interface, action, target, detail) VALUES (?, 1, ?, ?, ?, ?, ?)",
                *(f"1-{number}", payload, payload, "pause", about, entry),
            )
        flow.sql("UPDATE handlers SET paused_at = 1 WHERE id = 'p:give'")
        flow.app.alerts.stop(WAIT_TIMEOUT)  # a check would close an alert without a cause
        for closed in (None, 1):
            flow.sql(
                "INSERT INTO alerts "
                "(id, cause, subject, message, started_at, count, event_id, opened_at, notified, closed_at, "
                "acknowledged_at, acknowledged_by) VALUES (?, 'parked', ?, ?, 1, 1, ?, 1, ?, ?, 1, ?)",
                f"alert {closed}",
                payload,
                payload,
                payload,
                json.dumps([payload]),
                closed,
                payload,
            )
        for action, face in (("dismiss", "console"), ("resolve", payload), (payload, payload)):
            detail = json.dumps({"verdict": "close", "handler": payload, "note": payload, payload: payload})
            flow.sql(
                "INSERT INTO audit_log VALUES (?, 1, ?, ?, ?, ?, ?)", f"{action}", payload, face, action, whole, detail
            )
        for kind, subject in (("handler", "p:give"), ("source", "default")):
            minute = (flow.clock.now() // 60_000_000 - 1) * 60_000_000
            flow.sql("INSERT INTO trends VALUES (?, ?, 60, ?, ?, 5, 3)", kind, subject, minute, payload)
        add_operations(flow, payload)
        return serve(flow), whole

    return open_with


def add_operations(flow, payload):
    """Store a plan and a paused operation with the payload in every field, each with all deliveries."""
    selection = json.dumps({"handler": payload, "ids": [payload] * 5, "error_group": payload, payload[:50]: payload})
    for state in ("planned", "paused"):
        flow.sql(
            "INSERT INTO operations (id, action, event_filter, note, state, actor, interface, created_at, changed_at,"
            " planned, released, changed) VALUES (?, 'close', ?, ?, ?, ?, ?, 1, 1, 9, 1, 0)",
            *(f"o-{state}", selection, payload, state, payload, payload),
        )
        flow.sql(
            "INSERT INTO operation_items (operation_id, delivery_id, planned_state, attempt, status)"
            " SELECT ?, id, 'dead', 1, 'planned' FROM deliveries",
            f"o-{state}",
        )
    flow.sql(
        "INSERT INTO error_groups (fingerprint, handler, error_type, message, frame, first_seen_at, last_seen_at,"
        " count, sample_delivery_id, sample_attempt, versions) VALUES ('f', ?, ?, ?, ?, 1, 1, 1, 'd', 1, '[]')",
        *[payload] * 4,
    )
    flow.sql("UPDATE attempts SET error_group = 'f' WHERE error != ''")
    flow.sql("DELETE FROM error_groups WHERE fingerprint != 'f'")
    flow.sql("UPDATE error_groups SET count = (SELECT count(*) FROM attempts WHERE error_group = 'f')")


def looked_at(console, event, payload):
    """Every page, with the payload in the address where it has a parameter."""
    given = quote(payload[:300])
    looks = [
        *PAGES,
        f"/events/{event}",
        "/sources/default",
        f"/sources/default?from={given}&to={given}&zone={given}",
        "/handlers/p:give",
        f"/events/{event}?explain={given}",
        f"/events/{event}?list={given}",
        f"/operations/o-paused?items={given}&after={given}&back={given}",
        f"/operations?before={given}",
        *(f"/events/{event_id}" for state in ("parked", "dismissed") for event_id in console.flow.events(state=state)),
        f"/handlers?q={given}&from={given}",
        f"/events?conclusion={given}",
        f"/events?conclusion={given}&dismissed_by={given}",
        f"/events?flow={given}&business_key={given}&class={given}&key={given}&handler={given}",
        f"/events?state={given}&since={given}&until={given}&before={given}&after={given}",
        f"/events?lang={given}&{given}={given}",
    ]
    pages = [console.get(path) for path in looks]
    assert {answer.status for answer in pages} == {200}
    # Actions refuse invalid values on a page that repeats them.
    whom = f"flow={given}&business_key={given}&class={given}&key={given}&handler={given}&id={given}&conclusion={given}"
    acts = [f"/do/{name}?{whom}&back={given}" for name in ("replay", "replay_again", "dismiss", "reroute")]
    acts += [
        f"/do/replay?state={given}&since={given}",
        f"/do/reroute?dismissed_by={given}",
        f"/do/{given}?x={given}",
        f"/do/replay?{given}={given}",
        f"/do/run_now?delivery={given}",
    ]
    acts += [f"/do/close?delivery={given}&back={given}", f"/do/pause?handler={given}", "/do/resume?handler=p:give"]
    acts += [f"/do/acknowledge?alert={given}", "/do/acknowledge?alert=alert%20None", f"/audit?target={given}"]
    acts += [
        f"/audit?target={event}&before={given}",
        f"/sources/{given}",
        f"/handlers/{given}",
        f"/handlers/p:give?from={given}&to={given}&zone={given}",
    ]
    acts += [f"/do/confirm_reconciliation?source={given}&back={given}"]
    asked = [console.get(path) for path in acts]
    fields = dict.fromkeys(("note", "after", "sure", "total", "events", "deliveries"), payload[:2_000])
    asked += [console.submit(f"/console{path}", **fields) for path in acts if path.startswith("/do/")]
    assert {answer.status for answer in asked} <= {200, 303, 404, 405, 409, 422}
    return pages + [answer for answer in asked if answer.body]


@pytest.mark.sqlite
@pytest.mark.parametrize("name", TOGETHER)
def test_payloads_add_no_elements_to_a_page(hostile, name):
    """With payloads in every field the pages have only the console's elements, and show their content."""
    console, event = hostile(TOGETHER[name])
    for answer in looked_at(console, event, TOGETHER[name]):
        text = answer.body.decode()
        assert {tag for tag, _ in answer.page.tags} <= EXPECTED
        assert not FORBIDDEN.search(FORM_VALUE.sub("", text))
        assert "pwned" not in [*answer.page.texts, *(tag for tag, _ in answer.page.tags)]
        for tag, attributes in answer.page.tags:
            assert not [
                attribute for attribute in attributes if attribute.startswith("on") or attribute in {"style", "srcdoc"}
            ]
            assert tag != "script" or attributes["src"].startswith("/console/static/console.js")
            assert tag != "img" or attributes["src"].startswith("/console/static/icon.svg")
            for attribute in ("href", "src", "action", "formaction"):
                assert re.match(r"[/#]", attributes.get(attribute, "/"))
        assert len(text) < 1_500_000


EXPECTED = {
    *(
        "small",
        "progress",
        "html",
        "head",
        "meta",
        "title",
        "link",
        "script",
        "body",
        "header",
        "main",
        "footer",
        "nav",
        "section",
        "article",
    ),
    *("a", "img", "ul", "ol", "li", "p", "span", "div", "h1", "h2", "h3", "strong", "bdi", "time", "pre", "code"),
    *("table", "caption", "thead", "tbody", "tr", "th", "td", "dl", "dt", "dd", "details", "summary"),
    *("h4", "del", "ins", "dialog", "kbd", "optgroup"),
    *(
        "form",
        "label",
        "input",
        "textarea",
        "select",
        "option",
        "button",
        "figure",
        "figcaption",
        "svg",
        "path",
        "rect",
    ),
}
"""The elements of the pages."""


@pytest.mark.sqlite
def test_forms_keep_invisible_characters(harness, serve, listens):
    """A value in a form is the value that was entered, also with an emoji that is joined by an invisible character."""
    console = serve(harness.open(listens(lambda event: None, name="h", process_key="k")))
    values = ("👩\u200d👧", "\u0646\u200c\u0647", "❤\ufe0f", "\ufeffB-1", '"<b>&amp;')
    fields = {
        "business_key": "/events?business_key=",
        "q": "/events?q=",
        "target": "/audit?target=",
        "path": "/rejected-requests?path=",
    }
    for value in values:
        for name, address in fields.items():
            page = console.page(address + quote(value))
            assert value in [tag.get("value") for _, tag in page.tags if tag.get("name") == name], (name, value)


@pytest.mark.postgresql
def test_all_payloads_are_harmless_on_postgresql(hostile):
    """All payloads together in one value are harmless on PostgreSQL too."""
    payload = " ".join(text for name, text in PAYLOADS.items() if name != "long")
    console, event = hostile(payload)
    for answer in looked_at(console, event, payload):
        assert not FORBIDDEN.search(FORM_VALUE.sub("", answer.body.decode()))
        assert {tag for tag, _ in answer.page.tags} <= EXPECTED


@pytest.mark.sqlite
def test_a_payload_is_shown_as_text(hostile):
    """The text of a payload is shown in its place, and not left out."""
    console, event = hostile(PAYLOADS["script"])
    text = console.page(f"/events/{event}").text
    assert text.count(PAYLOADS["script"]) > 5
    assert PAYLOADS["script"] in console.page("/handlers").text
    assert PAYLOADS["script"] in console.page("/alerts").text
    assert {delivery_status.state for delivery_status in console.flow.delivery_statuses(event)} == {
        State.DEAD,
        State.SUCCEEDED,
    }
