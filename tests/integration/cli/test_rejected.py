"""`flowhooks rejected`: rejected callbacks with the filters of the console and the API."""

from __future__ import annotations

import pytest

from flowhooks.clock import to_text

from .test_output import CONTROLS

EVENT = "019ab2c4-5d1e-7a00-8000-3f6f1e0c9a11"


@pytest.fixture
def rejected(harness, hostile):
    """A stopped server's ledger with four rejected requests of two sources and of none."""
    flow = harness.open(start=False)

    def record(status, source, instance, **more):
        flow.clock.advance(60)
        flow.app.rejected_requests.record(
            **{
                "path": f"/flow/{instance}/call-back/complete",
                "address": "192.0.2.1",
                "status": status,
                "source": source,
                "english": f"reason {status}",
                "chinese": "原因",
                **more,
            }
        )
        flow.app.rejected_requests.flush()

    record(401, "", "i1", user_agent="Engine/1")
    for number in range(3):
        record(429, "erp", f"i{number}")
    record(422, "oa", "a%2Fb", english=hostile)
    record(409, "oa", "i4", event_id=EVENT)
    flow.close()
    return flow


@pytest.fixture
def listed(rejected, run_json):
    """A function from options to the statuses of the listed requests."""

    def ask(*options):
        found = run_json("rejected", "list", *options, server=rejected)
        return [request["status"] for request in found["rejected_requests"]]

    return ask


@pytest.fixture
def run_json(run_json, rejected):
    """As `asked`, with the database of the ledger."""

    def ask(*words, server=None, **more):
        assert server in {None, rejected}
        return run_json(*words, "--database", rejected.address, **more)

    return ask


def test_filters(listed, rejected):
    """Each filter selects, newest first; the id in a path is compared decoded, and a part of the path as sent."""
    assert listed() == [409, 422, 429, 401]
    assert listed("--status", "409") == [409]
    assert listed("--source", "oa") == [409, 422]
    assert listed("--source", "oa", "--status", "429") == []
    assert listed("--source", "(none)") == [401]
    assert listed("--flow", "a/b") == [422]
    assert listed("--flow", "a%2Fb") == []
    assert listed("--path", "a%2Fb/") == [422]
    assert listed("--path", "/call-back/", "--limit", "2") == [409, 422]
    ((since,),) = rejected.sql("SELECT rejected_at FROM rejected_requests WHERE status = 422")
    assert listed("--since", to_text(since)) == [409, 422]
    assert listed("--until", to_text(since)) == [429, 401]
    assert listed("--since", to_text(since), "--status", "422") == [422]


def test_pages(run_json):
    """`next` continues a filtered list."""
    first = run_json("rejected", "list", "--path", "/flow/", "--limit", "3")
    assert [request["status"] for request in first["rejected_requests"]] == [409, 422, 429]
    rest = run_json("rejected", "list", "--path", "/flow/", "--after", first["next"])
    assert [request["status"] for request in rest["rejected_requests"]] == [401]
    assert rest["next"] == ""


def test_output_of_list_and_show(rejected, run, run_json):
    """The list has number, reason and event; `show` has everything; neither prints a control character."""
    text = run("rejected", "list", "--database", rejected.address).stdout
    assert "3 since" in text
    assert f"event {EVENT}" in text
    assert "(none)" in text
    assert not CONTROLS.search(text)
    conflict, invalid, _, unauthorized = run_json("rejected", "list")["rejected_requests"]
    text = run("rejected", "show", conflict["id"], "--database", rejected.address).stdout
    assert f"Next: flowhooks events show {EVENT}\n" in text
    assert "source      oa\n" in text
    text = run("rejected", "show", unauthorized["id"], "--database", rejected.address).stdout
    assert "user agent  Engine/1\n" in text
    assert "event       -\n" in text
    assert not CONTROLS.search(run("rejected", "show", invalid["id"], "--database", rejected.address).stdout)
    assert run_json("rejected", "show", conflict["id"]) == conflict
    gone = run("rejected", "show", "nothing", "--database", rejected.address)
    assert gone.exit_code == 1
    assert "gives its record another id" in gone.stderr


def test_an_empty_list(harness, run):
    """Nothing rejected, and nothing that matches, are different answers."""
    flow = harness.open(start=False)
    flow.close()
    assert run("rejected", "list", "--database", flow.address).stdout == "No callback was rejected.\n"
    assert run("rejected", "list", "--database", flow.address, "--status", "409").stdout == "No matching entries.\n"
    wrong = run("rejected", "list", "--database", flow.address, "--since", "1h", "--until", "2h")
    assert (wrong.exit_code, "--since must be before --until" in wrong.stderr) == (2, True)
