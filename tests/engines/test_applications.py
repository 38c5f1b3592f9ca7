"""Applications that are not Java, with the outbox of their pages: nothing is lost or doubled, whatever is killed.

The code is taken out of the pages. Python needs nothing else; SpiffWorkflow and Node are installed by the tests of
`make test-engines`, which are skipped where these cannot be had.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
import uuid
from pathlib import Path

import psycopg
import pytest

from support.code_blocks import blocks
from support.waiting import WAIT_TIMEOUT, until

PROJECTS = Path(__file__).parents[1] / "data/engines"
PAGES = Path(__file__).parents[2] / "docs/how-to/engines"
PLUGIN = '''
import json, os
from flowhooks import Retry, handler, hookimpl

@handler(process_key="contract_approval", conclusion="approved", retry=Retry())
def archive(event):
    """Write one line per run, as a business system would have one booking."""
    booking = {"instance": event.flow_instance_id, "source": event.source, "business_key": event.business_key}
    with open(os.environ["JOURNAL"], "a", encoding="utf-8") as journal:
        journal.write(json.dumps(booking) + "\\n")

@hookimpl
def handlers():
    return [archive]
'''
ENGINES = [
    pytest.param(name, marks=[pytest.mark.engine, pytest.mark.timeout(600)])
    for name in ("spiffworkflow", "bpmn-engine")
]
APPLICATIONS = ["sqlite", "postgresql", *ENGINES]
ROWS = 12
"""Callbacks that wait when an application is killed."""


@pytest.fixture(scope="module")
def spiffworkflow(tmp_path_factory):
    """The folder into which SpiffWorkflow is installed."""
    folder = tmp_path_factory.mktemp("spiffworkflow")
    locked = PROJECTS / "python/requirements.txt"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary", ":all:", "--require-hashes", "--target", str(folder), "--requirement", str(locked)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"SpiffWorkflow cannot be had: {done.stderr.strip().splitlines()[-1]}")
    return folder


@pytest.fixture(scope="module")
def node_modules(tmp_path_factory):
    """The folder into which bpmn-engine and the client of PostgreSQL are installed."""
    if missing := [program for program in ("node", "npm") if shutil.which(program) is None]:
        pytest.skip(f"{' and '.join(missing)} not found")
    folder = tmp_path_factory.mktemp("node")
    for file in ("package.json", "package-lock.json"):
        shutil.copy(PROJECTS / "node" / file, folder)
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"bpmn-engine cannot be had: {(done.stderr.strip() or done.stdout.strip()).splitlines()[0]}")
    return folder / "node_modules"


def write_files(folder, name):
    """Write the files that a page shows, beside the harness; the harness's name."""
    page, harness = ("node", "harness.cjs") if name == "bpmn-engine" else ("python", "harness.py")
    for block in blocks(PAGES / f"{page}.md", "python", "js"):
        (folder / block.file).write_text(block.text, "utf-8")
    (table,) = blocks(PAGES / f"{page}.md", "sql")
    (folder / "table.sql").write_text(table.text, "utf-8")
    for file in (PROJECTS / page / harness, *(PROJECTS / page).glob("*.bpmn")):
        shutil.copy(file, folder)
    return harness


@pytest.fixture(scope="module")
def application(request, tmp_path_factory, start_process):
    """Start an application: `application("sqlite", folder, url=…, token=…)`; a folder keeps its database."""

    def start(name, folder=None, **given):
        folder = folder or tmp_path_factory.mktemp("application")
        harness = write_files(folder, name)
        command, more = [sys.executable, harness, name, "table.sql"], {"PYTHONPATH": str(folder)}
        if name == "spiffworkflow":
            more["PYTHONPATH"] += f":{request.getfixturevalue('spiffworkflow')}"
        if name == "bpmn-engine":
            command = ["node", harness]
            if not (folder / "node_modules").exists():
                (folder / "node_modules").symlink_to(request.getfixturevalue("node_modules"))
        if name in {"postgresql", "bpmn-engine"}:
            if not (folder / "database").exists():
                server = request.getfixturevalue("postgresql_server")
                (folder / "database").write_text(server.make(f"application_{uuid.uuid4().hex}"))
            more["APPLICATION_DATABASE"] = (folder / "database").read_text()
        return start_process(command, cwd=folder, extra_environ=more, **given)

    return start


class Both:
    """An application and the flowhooks that it calls back."""

    def __init__(self, name, site, app):
        self.name, self.site, self.app = name, site, app

    def start(self, business_key="C-2026-17"):
        """Start a flow; its id."""
        return self.app.do("start", "contract_approval", business_key)["id"]


@pytest.fixture(scope="module")
def site_of(make_site, source):
    """A server that knows an application by its token, started once: `site_of("sqlite")`."""
    sites = {}

    def find(name):
        if name not in sites:
            sites[name] = make_site(PLUGIN, source(name, f"the-token-of-{name}")).start()
        return sites[name], f"the-token-of-{name}"

    return find


@pytest.fixture(scope="module")
def both_of(site_of, application):
    """An application beside its server, started once."""
    found = {}

    def find(name):
        if name not in found:
            site, token = site_of(name)
            found[name] = Both(name, site, application(name, url=site.url, token=token))
        return found[name]

    return find


@pytest.fixture(params=APPLICATIONS)
def both(request, both_of):
    """Each application beside its server."""
    return both_of(request.param)


def test_a_flow_that_ends_runs_its_handler_once(both):
    """The handler runs once, and the body has the members that the page shows, in the same order."""
    flow = both.start()
    assert both.site.stored(flow) == []
    both.app.do("complete", flow, {"decision": "approved"})
    sent = json.loads(both.site.settled(flow).body)
    shown = json.loads((PROJECTS / "payloads/python.json").read_text("utf-8"))
    assert list(sent.items()) == list(shown.items())
    assert both.site.records(flow) == [{"instance": flow, "source": both.name, "business_key": "C-2026-17"}]
    until(lambda: both.app.outbox() == [])


def test_a_rejected_flow_runs_no_handler_for_approved_flows(both):
    """Its conclusion is sent, and its event is dismissed."""
    flow = both.start()
    both.app.do("complete", flow, {"decision": "rejected"})
    until(lambda: both.app.outbox() == [])
    (stored,) = both.site.stored(flow)
    assert (stored.event.conclusion, stored.state) == ("rejected", "dismissed")
    assert both.site.records(flow) == []


def test_a_transaction_that_is_rolled_back_sends_nothing(both):
    """The callback is rolled back with the flow's end; the flow can still end, once."""
    flow = both.start()
    running = both.app.do("look")["running"]
    assert both.app.do("refuse", flow)["written"] == 1
    assert both.app.do("look") == {"running": running, "outbox": []}
    assert both.site.stored(flow) == []
    both.app.do("complete", flow)
    assert both.site.settled(flow).repeats == 0
    until(lambda: both.app.outbox() == [])
    assert len(both.site.records(flow)) == 1


def test_flowhooks_is_down_when_flows_end(both):
    """The application goes on, and sends the same body until flowhooks is up."""
    both.site.stop()
    flow = both.start()
    both.app.do("complete", flow)
    (row,) = until(lambda: [row for row in both.app.outbox() if row["tries"] >= 1])
    assert (row["id"], row["problem"]) == (flow, None)
    both.site.start()
    assert both.site.settled(flow).body == row["body"]
    until(lambda: both.app.outbox() == [])
    assert len(both.site.records(flow)) == 1


@pytest.mark.parametrize("name", APPLICATIONS)
def test_a_token_that_ends_in_a_newline(name, site_of, application):
    """As read from a file: the callback is stored, and no log has the token."""
    site, token = site_of(name)
    both = Both(name, site, application(name, url=site.url, token=f"{token}\n"))
    flow = both.start()
    both.app.do("complete", flow)
    until(lambda: both.app.outbox() == [] or both.app.log)
    both.app.close()
    assert token not in both.app.log
    assert site.settled(flow).event.source == name


@pytest.mark.parametrize("name", APPLICATIONS)
def test_the_application_is_killed_while_it_sends(name, site_of, application, relay, tmp_path):
    """Killed with kill -9 before it read an answer, it loses nothing, and no handler runs twice."""
    site, token = site_of(name)
    between = relay(site.url, ROWS // 2)
    app = application(name, tmp_path, url=between.url, token=token)
    both = Both(name, site, app)
    flows = [both.start(f"C-2026-{number}") for number in range(ROWS)]
    unended = both.start("C-2026-99")
    for flow in flows:
        app.do("complete", flow)
    assert between.kept.wait(WAIT_TIMEOUT)
    app.kill()
    events = [event for flow in flows for event in site.stored(flow)]
    assert len(events) == ROWS // 2 + 1  # the last of them without the application's knowledge
    app = application(name, tmp_path, url=site.url, token=token)
    for number, flow in enumerate(flows):
        stored = site.settled(flow)
        assert stored.event.business_key == f"C-2026-{number}"
        assert len(site.records(flow)) == 1
    until(lambda: app.outbox() == [])
    assert sum(site.settled(flow).repeats for flow in flows) == 1
    assert app.do("look")["running"] == 1
    assert site.stored(unended) == []


@pytest.mark.parametrize("name", APPLICATIONS)
def test_a_login_page_is_not_the_answer_of_flowhooks(name, site_of, application, relay):
    """A proxy answers 200 with a page of its own: the callback stays, the log says why, and it is sent again."""
    site, token = site_of(name)
    between = relay(site.url)
    between.shows_login = True
    both = Both(name, site, application(name, url=between.url, token=token))
    flow = both.start()
    both.app.do("complete", flow)
    (row,) = until(lambda: [row for row in both.app.outbox() if row["tries"] >= 1])
    assert (row["id"], row["problem"], site.stored(flow)) == (flow, None, [])
    assert f"{flow} is sent again: HTTP 200 without Flowhooks-Event: not answered by flowhooks" in both.app.log
    between.shows_login = False
    assert site.settled(flow).body == row["body"]
    until(lambda: both.app.outbox() == [])
    assert site.settled(flow).repeats == 0


BREAK = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> %s"


@pytest.mark.parametrize("name", [ENGINES[1]])
def test_a_pool_survives_a_restart_of_the_database(name, site_of, application, tmp_path):
    """Its idle connections break, the process lives, and a flow that ends then is delivered."""
    site, token = site_of(name)
    app = application(name, tmp_path, url=site.url, token=token)
    flow = Both(name, site, app).start()
    with psycopg.connect((tmp_path / "database").read_text(), autocommit=True) as connection:
        broken = connection.execute(BREAK, (connection.info.backend_pid,)).fetchall()
    assert broken
    until(lambda: "error" not in app.ask("look"))
    app.do("complete", flow)
    site.settled(flow)
    until(lambda: app.outbox() == [])
    assert len(site.records(flow)) == 1
    assert "A connection to the database broke" in app.log


@pytest.mark.parametrize("name", [ENGINES[1]])
def test_a_transaction_survives_a_restart_of_the_database(name, both_of):
    """Its connection breaks before the commit: the flow still runs, the process lives, and the flow can end."""
    both = both_of(name)
    flow = both.start()
    running = both.app.do("look")["running"]
    assert "connection" in both.app.do("lose", flow)["lost"]
    assert both.app.do("look") == {"running": running, "outbox": []}
    assert both.site.stored(flow) == []
    both.app.do("complete", flow)
    assert both.site.settled(flow).repeats == 0
    until(lambda: both.app.outbox() == [])


ANSWERS = {
    "200-stored": ("sent", 0),
    "202-stored": ("sent", 0),
    "500-stored": ("sent", 0),
    "200": ("again", 1),
    "202": ("again", 1),
    "204": ("again", 1),
    "500": ("again", 1),
    "502": ("again", 1),
    "503-7": ("again", 7),
    "503-later": ("again", 1),
    "408": ("again", 1),
    "429-30": ("again", 30),
    "cut": ("again", 1),
    "302": ("problem", 0),
    "401": ("problem", 0),
    "404": ("problem", 0),
    "409-stored": ("problem", 0),
    "422": ("problem", 0),
}
"""What happens to a row at each answer, and how many seconds it waits at least."""


@pytest.mark.parametrize("name", ["sqlite", ENGINES[1]])
def test_the_outbox_handles_each_response_by_its_status(name, application, status_server):
    """A stored callback is deleted, a failure is sent again after its time, and a refusal is kept with its text."""
    app = application(name, url=status_server, token="a-token")
    before = int(time.time() * 1000)
    for answer in ANSWERS:
        app.do("call", answer, {"businessKey": answer})

    def looked_at():
        app.do("wake")  # a failure ends a pass
        rows = {row["id"]: row for row in app.outbox()}
        return all(row["tries"] or row["problem"] for row in rows.values()) and rows

    rows = until(looked_at)
    found = {name: "problem" if row["problem"] else "again" for name, row in rows.items()}
    assert {answer: found.get(answer, "sent") for answer in ANSWERS} == {
        answer: consequence for answer, (consequence, _) in ANSWERS.items()
    }
    for answer, (consequence, seconds) in ANSWERS.items():
        if consequence == "again":
            assert rows[answer]["due_at"] >= before + 1000 * seconds, answer
        if consequence == "problem":
            assert rows[answer]["problem"].startswith(answer.removesuffix("-stored"))


# Engines


WAYS = {
    "spiffworkflow": {"approved": "yes", "rejected": "yes", "fraud": "yes", "stopped": "yes", "cancelled": "no"},
    "bpmn-engine": {"approved": "yes", "rejected": "yes", "fraud": "yes", "stopped": "yes", "cancelled": "no"},
}
"""Which ends of `expense.bpmn` send a callback: an error end event is *fraud*, a terminate end event is *stopped*."""
PAGE_OF = {"spiffworkflow": "python", "bpmn-engine": "node"}


@pytest.mark.parametrize("name", ENGINES)
def test_which_ends_send_a_callback(name, both_of):
    """The page's table of ends, with the conclusion of each."""
    both = both_of(name)
    flows = {way: both.start() for way in WAYS[name]}
    for way, flow in flows.items():
        both.app.do("complete", flow, {"decision": way})
    until(lambda: both.app.outbox() == [])
    found = {way: both.site.stored(flow) for way, flow in flows.items()}
    assert {way: "yes" if events else "no" for way, events in found.items()} == WAYS[name]
    assert {way: events[0].event.conclusion for way, events in found.items() if events} == {
        way: way for way, sends in WAYS[name].items() if sends == "yes"
    }


@pytest.mark.parametrize("name", ENGINES)
def test_a_variable_is_the_conclusion(name, both_of):
    """The variable `conclusion` wins over the end event."""
    both = both_of(name)
    flow = both.start()
    both.app.do("complete", flow, {"conclusion": "withdrawn"})
    until(lambda: both.app.outbox() == [])
    (stored,) = both.site.stored(flow)
    assert stored.event.conclusion == "withdrawn"


@pytest.mark.parametrize("name", [ENGINES[1]])
def test_ends_before_a_resume_count(name, both_of):
    """A process that reached one end before its state was stored, and one after it was resumed, has no conclusion."""
    both = both_of(name)
    flow = both.app.do("start", "two_ends", "C-2026-18")["id"]
    both.app.do("complete", flow)
    until(lambda: both.app.outbox() == [])
    (stored,) = both.site.stored(flow)
    assert json.loads(stored.body)["conclusion"] is None
    assert both.site.records(flow) == []


@pytest.mark.parametrize("name", WAYS)
def test_the_page_lists_which_ends_send_a_callback(name):
    """The engine's table has these ends in this order."""
    page = (PAGES / f"{PAGE_OF[name]}.md").read_text("utf-8").partition(" ends | ")[2]
    rows = re.findall(r"^\| (?:at|by) .*?\| (yes|no) \|", page, re.MULTILINE)
    expected = [sends for way, sends in WAYS[name].items() if way != "rejected"]
    assert rows == expected
