"""The benchmark harness itself works; its figures are not asserted, and wrk is not run."""

from __future__ import annotations

import http.client
import importlib
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import Future
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from urllib.parse import urlsplit
from xml.etree import ElementTree as ET

import pytest

from flowhooks.clock import Clock
from flowhooks.ledger.pauses import PausedHandlers
from flowhooks.ledger.upgrade import upgrade
from flowhooks.ledger.waiters import Waiter, WaiterRegistry
from flowhooks.settings import load
from support.waiting import until

HERE = Path(__file__).parent
PRINTED = 'Running 8s test\nRESULT {{"requests":100,"microseconds":2000000,"p50":1500,"p99":9000,{}}}\n'
GOOD = '"refused":0,"broken":0,"ok":90,"accepted":10,"other":0'


@pytest.mark.parametrize("stores", [False, True])
def test_the_bare_app_answers_like_a_full_success(part, tmp_path, stores):
    """The baseline accepts a callback on the contract's path and returns the constant, also if it stores the body."""
    with part("servers").bare(tmp_path, stores=stores) as server:
        connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=60)
        headers = {"Content-Type": "application/json"}
        connection.request("POST", "/flow/a-1/call-back/complete", '{"businessKey": "HT-1"}', headers)
        answer = connection.getresponse()
        body = json.loads(answer.read())
        connection.close()
        assert server.memory() > 1
    assert (answer.status, body) == (200, {"success": True})
    if stores:
        with closing(sqlite3.connect(tmp_path / "bare.db")) as connection:
            assert connection.execute("SELECT * FROM events").fetchall() == [("a-1", '{"businessKey": "HT-1"}')]


def test_a_server_is_stopped_when_measuring_fails(part, tmp_path):
    """A server is stopped after its measurement, even if that fails."""
    with pytest.raises(ZeroDivisionError), part("servers").bare(tmp_path) as server:
        raise ZeroDivisionError
    with pytest.raises(ProcessLookupError):
        os.kill(server.pid, 0)


def test_the_output_of_wrk_is_parsed(part):
    """Rates are of the counted responses: all, or those with status 200."""
    parse_output = part("load").parse_output
    assert parse_output(PRINTED.format(GOOD), only_200=False).rate == 50
    assert parse_output(PRINTED.format(GOOD), only_200=True).rate == 45
    assert parse_output(PRINTED.format(GOOD), only_200=True).later == 10


@pytest.mark.parametrize("wrong", ["refused", "broken", "other"])
def test_a_load_with_errors_is_not_measured(part, wrong):
    """A load with an error response or a broken connection is not measured."""
    load = part("load")
    output = PRINTED.format(GOOD.replace(f'"{wrong}":0', f'"{wrong}":1'))
    with pytest.raises(load.LoadError):
        load.parse_output(output, only_200=False)


def test_verdicts_follow_the_better_direction_of_the_goal(part):
    """A larger figure is better, unless the goal says that a smaller one is."""
    goal = part("figures").Goal
    more, less = goal(least=0.5, aim=0.65), goal(least=1.2, aim=1.0, smaller=True)
    assert [more.verdict(figure) for figure in (0.7, 0.5, 0.4)] == ["aim met", "met", "missed"]
    assert [less.verdict(figure) for figure in (0.9, 1.2, 1.3)] == ["aim met", "met", "missed"]


def test_every_result_is_on_the_page_also_of_failed_rows(part):
    """The page and the JSON show each row, its costs, its verdict, the machine and the command, also of failed rows."""
    figures, report, storing = part("figures"), part("report"), part("storing")
    goal = figures.Goal(least=0.5, aim=0.65)
    cost = figures.Cost(processor=612.4, rate=2000, p50=4.1, p99=9)
    other = figures.Cost(processor=306, rate=0, p50=0.05, p99=7)
    figure = figures.Figure(
        case="8 connections", measured="2,000/s", yardstick="4,000/s", judged=0.5, ours=cost, theirs=other
    )
    results = [
        figures.Result(name="a", title="first", goal=goal, figures=(figure,), notes=("seen",)),
        figures.Result(name="b", title="second", goal=goal, broke="it did not start"),
    ]
    stored = [storing.Stored(result=result, command="make bench", machine=report.machine()) for result in results]
    page = report.page(stored)
    for shown in ("| 0.50 | 0.65 | met |", "broke", "it did not start", "seen", "SQLite", "`make bench`: a, b"):
        assert shown in page
    assert "| 612 ÷ 306 | 2,000 | 4.1 ÷ 0.05 | 9.0 ÷ 7.0 |" in page
    assert json.loads(report.as_json(stored))[0]["verdicts"] == ["met"]
    assert report.table(results).row_count == 2


def test_without_wrk_the_command_names_its_installation(tmp_path):
    """Without wrk the command exits with 2 and one line before it starts anything."""
    command = [sys.executable, str(HERE / "run.py")]
    ran = subprocess.run(command, env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False)
    assert ran.returncode == 2
    assert ran.stderr.splitlines() == [
        "wrk is not installed: apt-get install wrk (Debian, Ubuntu) or brew install wrk (macOS)"
    ]


def test_an_unknown_row_is_a_wrong_usage():
    """An unknown row is reported with the list of rows."""
    command = [sys.executable, str(HERE / "run.py"), "--rows", "accept,typo"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 2
    assert "no row typo; there are accept-processor, outcome-processor" in ran.stderr


def test_busy_processes_are_on_each_core_and_end(part):
    """Rows beside busy processes have one on each core, and none of them remains."""
    with part("crowded").busy_cores() as loops:
        until(
            lambda: [os.sched_getaffinity(loop.pid) for loop in loops] == [{core} for core in os.sched_getaffinity(0)]
        )
        assert [loop.poll() for loop in loops] == [None] * len(loops)
    assert {loop.returncode for loop in loops} == {-signal.SIGKILL}


def test_each_event_of_the_rows_about_conditions_has_exactly_one_handler(part, tmp_path):
    """Each event matches one handler of one or a thousand, for all conditions; each case has its figure."""
    conditions, bench = part("conditions"), part("bench")
    for case in (conditions.CONCLUSIONS, *conditions.WHEN):
        for handlers in (1, conditions.HANDLERS):
            router, events = conditions.router_of(case, handlers), conditions.events_of(handlers)
            taken = [list(router.route(event).handlers) for event in events]
            assert taken == [[f"bench:h{event.data['office']}"] for event in events]
            assert len({handler for (handler,) in taken}) == min(handlers, conditions.EVENTS)
    quiet = bench.Bench(seconds=1, events=1, folder=tmp_path, show_progress=lambda *_args: None)
    conditions.TURNS = 1
    (figure,), notes = conditions.conclusions(quiet)
    assert (figure.case, notes, figure.judged > 0) == ("conclusion=, one each", [], True)
    assert part("figures").missing_columns("dispatch-conclusions", [figure]) == []


def test_function_calls_of_a_callback_are_counted_by_thread(part):
    """The functions of each thread are counted; the dispatcher is entered once, by the runner."""
    visits = part("visits")
    rows = visits.table(visits.visits(callbacks=2))
    counts = [int(row.split("|")[2]) for row in rows[2:7]]
    assert min(counts) > 0
    assert max(counts[:4]) < counts[4] <= sum(counts[:4])
    assert rows[-1].startswith("The dispatcher is entered once. ")


def test_rows_about_dispatch_are_named_one_by_one(part):
    """`--rows` accepts the names of rows about conditions."""
    names = ["dispatch-conclusions", "dispatch-conditions"]
    assert [row.name for row in part("run")._select_rows(None, None, ",".join(names))] == names


def test_the_row_about_fixed_urls_stores_the_same_callback_on_both_paths(part, tmp_path):
    """With the settings of the row, the mapped request and the callback are stored with the same members."""
    servers, ingress = part("servers"), part("ingress")
    site = servers.Site(folder=tmp_path, config=ingress.CONFIG)
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {ingress.TOKEN}"}
    members = {"businessKey": "HT-1", "processDefinitionKey": "contract_approval", "processDefinitionVersion": 3}
    statuses = []
    with site.serve(plugin=False) as server:
        connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=30)
        for path, body in (
            (ingress.PATH[0], members | {"id": "fixed", "status": 2}),
            ("plain".join(part("load").PATH), members),
        ):
            connection.request("POST", path, json.dumps(body), headers | {"Prefer": "respond-async"})
            answer = connection.getresponse()
            answer.read()
            statuses.append(answer.status)
        connection.close()
        assert site.query_value("SELECT count(*) FROM events") == 2
        assert (
            site.query_value(
                "SELECT count(DISTINCT kind || business_key || process_definition_key || process_definition_version) "
                "FROM events"
            )
            == 1
        )
    assert statuses == [200, 202]


@pytest.mark.parametrize("indexed", [True, False])
def test_the_row_about_search_fields_indexes_both_members(part, tmp_path, indexed):
    """The measured server indexes the amount and the vendor of the bodies of the load, and the baseline neither."""
    servers, indexing = part("servers"), part("indexing")
    site = servers.Site(folder=tmp_path, config=indexing.CONFIG if indexed else "")
    values = re.search(r"^local VALUES = '(.*)'$", part("load").SCRIPT.read_text(), re.MULTILINE)[1]
    body = f'{{{values % (1_234_567, 42)}"businessKey":"HT-1"}}'
    with site.serve(plugin=False) as server:
        connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=30)
        connection.request("POST", "plain".join(part("load").PATH), body, {"Content-Type": "application/json"})
        assert connection.getresponse().status in {200, 202}
        connection.close()
    assert site.query_value("SELECT count(*) FROM events") == 1
    assert (
        site.query_value("SELECT count(*) FROM event_fields WHERE number = 1234567 OR value = 'V-000042'")
        == 2 * indexed
    )


@pytest.mark.parametrize("counted", [True, False])
def test_the_row_about_trends_compares_with_a_server_without_trends(part, tmp_path, counted):
    """The measured server counts its callbacks in trends, and the baseline does not; otherwise both do the same."""
    servers, trending = part("servers"), part("trending")
    site = servers.Site(folder=tmp_path)
    body = json.dumps({"callBackProcessClass": "com.cnooc.test.CallbackHandler"})
    with site.serve(wrapper=() if counted else trending.WITHOUT) as server:
        connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=30)
        connection.request("POST", "plain".join(part("load").PATH), body, {"Content-Type": "application/json"})
        assert connection.getresponse().status == 200
        connection.close()
    assert site.query_value("SELECT count(*) FROM deliveries WHERE state = 'succeeded'") == 1
    assert site.query_value("SELECT count(*) FROM trends WHERE kind IN ('handler', 'source')") == (2 if counted else 0)
    p50, p99 = part("bench").run_times(site.rows)
    assert 0 < p50 == p99


def test_processor_time_includes_ended_child_processes(part):
    """The time of a watched process includes that of its children, also of those that have ended."""
    processor = part("processor")
    work = "import time\nwhile time.process_time() < 0.3: pass"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {work!r}]); print(1); input()"
    with subprocess.Popen(
        [sys.executable, "-c", child], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        with processor.watch(process.pid):
            assert process.stdout.readline() == "1\n"
            assert processor.spent() >= 0.3
            assert processor.parent(process.pid) == os.getpid()
        process.communicate("\n")
    assert processor.spent() == 0


@pytest.mark.parametrize(("left", "spent"), [([3, 0, 0], 500), ([0, 9], 0)])
def test_processor_time_includes_work_after_the_response(part, monkeypatch, left, spent):
    """The processor time of a load is counted until its work is done, for each response; it is 0 if work is left."""
    measuring, load = part("measuring"), part("load")
    answer = load.Load(counted=900, later=100, seconds=1, p50=1, p99=2)
    monkeypatch.setattr(load, "run", lambda *_args, **_options: answer)
    monkeypatch.setattr(part("processor"), "spent", iter([1.0, 1.5]).__next__)
    monkeypatch.setattr(measuring, "DRAIN_TIMEOUT", 0 if left[-1] else 60)
    waiting = iter(left)
    target = measuring.Target(url="", count_unfinished=lambda _answered: next(waiting))
    assert measuring.measure_load(target, connections=0, seconds=1).processor == spent


def test_a_plot_shows_each_series_and_size(part):
    """A plot is XML with a mark for each measured figure; what was not measured is left out."""
    figures, plots = part("figures"), part("plots")
    cost = replace(figures.UNKNOWN, processor=300, p99=5)
    points = tuple(plots.Point(size=size, cost=cost) for size in (0, 10_000, 1_000_000))
    unknown = (*points[:2], plots.Point(size=1_000_000, cost=replace(figures.UNKNOWN, p99=500)))
    drawn = plots.svg(plots.Plot(title="Events", axis="events <stored>", series={"bare": points, "flowhooks": unknown}))
    root = ET.fromstring(drawn)
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"bare", "flowhooks", "0", "10 k", "1 M", "events <stored>"} <= set(texts)
    assert drawn.count("<circle") == 1 + 6
    assert drawn.count('width="7"') == 1 + 5


def test_growth_is_measured_for_each_size_with_responses(part, tmp_path):
    """Each size is compared with the first one or with the bare app; one that answers nothing is left out."""
    bench, growth, load = part("bench"), part("growth"), part("load")
    quiet = bench.Bench(seconds=1, events=1, folder=tmp_path, show_progress=lambda *_args: None)

    def one(size):
        if size == 1_000:
            raise load.NoResponses
        return load.Load(counted=100, later=0, seconds=1, p50=1, p99=2, processor=100 + size)

    bare = growth.OURS["bare"]
    found = growth._measure_sizes(quiet, {"ours": one, bare: lambda _size: one(0)}, (0, 10, 100, 1_000), "things")
    first = growth._against_first({"ours": found["ours"]}, "things")
    assert [(figure.case, figure.judged) for figure in first] == [("ours, 10 things", 1.1), ("ours, 100 things", 2.0)]
    assert [figure.judged for figure in growth._against_bare(found, "things")] == [1.0, 1.1, 2.0]
    plot = growth._plot("Things", "things", found)
    assert [point.size for point in plot.series["ours"]] == [0, 10, 100]


def test_a_row_of_a_busy_machine_has_no_verdict(part):
    """A row that was measured while other programs used the machine shows its figures, and `busy` as its verdict."""
    figures, report = part("figures"), part("report")
    figure = figures.Figure(measured="2,000/s", judged=0.5, ours=figures.UNKNOWN)
    goal = figures.Goal(least=0.5, aim=0.65)
    result = figures.Result(name="a", title="first", goal=goal, figures=(figure,), busy=True)
    ((_, _, measured, *_, verdict),) = report._rows([result])
    assert (measured, verdict) == ("2,000/s", "busy")


def test_a_stored_row_is_read_back_unchanged(part, monkeypatch, tmp_path):
    """A row's figures, notes, plot and machine are stored; its goal is that of today."""
    figures, plots, storing = part("figures"), part("plots"), part("storing")
    monkeypatch.setattr(storing, "FOLDER", tmp_path / "measured")
    goal = figures.Goal(least=0.5, aim=0.65)
    figure = figures.Figure(measured="2,000/s", judged=0.5, ours=figures.Cost(processor=600, rate=3, p50=1, p99=2))
    result = figures.Result(name="a", title="first", goal=goal, figures=(figure,), notes=("seen",), took=3)
    plot = plots.Plot(title="A", axis="b", series={"c": (plots.Point(size=1, cost=figure.ours),)})
    stored = storing.Stored(result=result, command="make bench", machine={"date": "today"}, plot=plot)
    assert storing.load("a", goal) is None
    storing.store(stored)
    assert storing.load("a", goal) == stored
    later = figures.Goal(least=0.6, aim=0.7)
    assert storing.load("a", later).result.goal == later


def test_pages_and_plots_match_the_stored_figures(part, tmp_path):
    """`tests/benchmarks/run.py --draw` changes nothing: the pages of the documentation have the stored figures."""
    run = part("run")
    files = run.write_pages(tmp_path)
    assert files
    for file in files:
        assert file.read_text() == (run.PAGES / file.name).read_text(), f"{file.name}: run.py --draw"


def test_waiting_callbacks_are_answered_when_their_handler_ends(part, tmp_path, eventually):
    """The connections of waiting callbacks have no response until the benchmark ends their handler."""
    waiting, servers = part("waiting"), part("servers")
    site = servers.Site(folder=tmp_path, source=waiting.PLUGIN)
    os.mkfifo(site.plugins() / "end")
    with site.serve(settings={"FLOWHOOKS_ANSWER_WAIT": "60"}) as server, waiting._waiting(server, 2) as connections:
        eventually(lambda: site.count_unfinished() == 2)
        assert waiting._answered(connections) == 0
        end = os.open(site.plugins() / "end", os.O_RDWR)  # as a writer; as a reader it waits for nobody
        eventually(lambda: waiting._answered(connections) == 2)
        os.close(end)


@pytest.mark.long
def test_the_stations_are_measured():
    """The profile prints a figure for each station and size of batch."""
    command = [sys.executable, str(HERE / "stations.py"), "--events", "64"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    figures = [line.strip("| ").split(" | ") for line in ran.stdout.splitlines()[2:]]
    assert len(figures) == 5 + 3 * 4
    assert all(int(figure) >= 0 for _, figure in figures)


def test_every_station_exists(part):
    """All functions under the stopwatch exist, so that a missing station is noticed."""
    stopwatch = part("stopwatch")
    places = [place for places in (*stopwatch.FLOWHOOKS.values(), *stopwatch.BARE.values()) for place in places]
    assert all(callable(getattr(*stopwatch.resolve(place))) for place in places)


def test_the_stopwatch_counts_nothing_twice(part, tmp_path):
    """While a station calls another station, only the stopwatch of the called station runs."""
    stopwatch = part("stopwatch").Stopwatches()

    def work(seconds):
        end = time.thread_time() + seconds
        while time.thread_time() < end:
            pass

    inner = stopwatch._wrap("inner", lambda: work(0.05))
    outer = stopwatch._wrap("outer", lambda: (work(0.01), inner(), work(0.01), inner()))
    outer()
    stopwatch.write(tmp_path / "spent.json")
    measurements = json.loads((tmp_path / "spent.json").read_text())
    assert list(measurements["threads"].values()) == ["MainThread"]
    ((calls),) = measurements["spent"].values()
    assert {name: times for name, (_, times) in calls.items()} == {"outer": 1, "inner": 2}
    assert calls["inner"][0] >= 0.1
    assert calls["inner"][0] > calls["outer"][0] >= 0.02


def test_measured_tables_replace_their_parts_of_the_page(part):
    """Each measured part exists on the page on performance, and only measured parts are replaced."""
    profiling = part("profiling")
    page = (HERE.parents[1] / "docs/explanation/performance.md").read_text()
    names = re.findall("<!-- measured: (.*) -->", page)
    parts = [f"parts-{many}" for many in part("bench").CONNECTIONS]
    others = ["alone", "visits", "handovers", "starting", "replacing", "lost-jobs", "tuning", "machine"]
    assert names == ["whole", *parts, *others]
    replaced = profiling.replace_parts(page, {name: [f"table {name}"] for name in names})
    assert [f"table {name}" in replaced for name in names] == [True] * len(names)
    assert replaced.count("<!-- end -->") == len(names)
    assert profiling.replace_parts(replaced, {}) == replaced


def test_the_time_of_a_start_is_the_processor_time_of_the_process(part, tmp_path):
    """The processor time of a command is measured, and the first run is not counted."""
    starting = part("starting")
    assert starting.time_of_command("--version", folder=tmp_path) > 0
    assert starting.table({"`flowhooks`": [900.0, 100.0, 120.0]})[-1] == "| `flowhooks` | 110 |"
    assert part("replacing").table({(1_000, 12): [0.1, 0.3]})[-1] == "| 1,000 | 12 | 2 | 0.20 | 0.30 |"


@pytest.mark.long
def test_replacements_are_measured_also_if_handlers_do_not_end(part, tmp_path):
    """A server with events in its ledger is replaced twice, once while two handlers run until their process ends."""
    found = part("replacing").waits(tmp_path, 1, events=100, running=(0, 2))
    assert [(running, len(times), min(times) > 0) for running, times in found.items()] == [(0, 1, True), (2, 1, True)]
    statement = "SELECT count(*) FROM deliveries WHERE state = 'unknown' AND handler = 'bench:endless'"
    assert part("servers").Site(folder=tmp_path).query_value(statement) == 2


def test_each_tuning_variant_changes_an_existing_constant_or_setting(part):
    """Each variant changes an existing constant to another value, or is a setting."""
    for variant in part("tuning").VARIANTS[1:]:
        for constant in filter(None, variant.constants.split(",")):
            module, name = constant.split("=")[0].split(":")
            found = importlib.import_module(module)
            before = getattr(found, name)
            try:
                part("tuned").change(constant)
                assert getattr(found, name) != before
                assert type(getattr(found, name)) is type(before)
            finally:
                setattr(found, name, before)
        loaded = load(None, variant.settings, {})
        assert variant.constants or loaded != load(None, {}, {})


def test_all_rows_of_postgresql_can_be_named_at_once(part):
    """`--rows postgresql` selects exactly the rows that begin with it."""
    run = part("run")
    chosen = run._select_rows(None, None, "postgresql")
    assert [row.name for row in chosen] == [
        f"postgresql-{name}" for name in ("accept", "deliveries", "started", "answered", "stored")
    ]


def test_all_rows_about_alternatives_can_be_named_at_once(part):
    """`--rows peers` selects all rows of the page about alternatives."""
    run, report = part("run"), part("report")
    chosen = run._select_rows(None, None, "peers")
    assert [row.name for row in chosen] == ["peers-answered", "peers-run", "peers-processor"]
    assert {run._group(row) for row in chosen} == {"peers"}
    assert "Durability of a response" in report.page([], template=run.GROUPS["peers"])


def test_alternatives_that_are_not_installed_are_skipped_and_named(part, monkeypatch, tmp_path):
    """Without Redis and webhook they are left out, and the row says how to install them."""
    contending, bench, servers = part("contending"), part("bench"), part("servers")
    monkeypatch.setattr("shutil.which", lambda _name: None)
    quiet = bench.Bench(seconds=1, events=1, folder=tmp_path, show_progress=lambda *_args: None)
    quiet.cache["peers"] = {(contending.OURS.name, connections): [] for connections in bench.CONNECTIONS}
    with pytest.raises(servers.ServerError, match=r"redis-server is not installed.*webhook is not installed"):
        contending.ran(quiet)


def test_alternatives_are_compared_round_by_round(part, tmp_path):
    """The median of the pairs' ratios counts; unfinished work is reported."""
    contending, bench = part("contending"), part("bench")
    other = contending.OTHERS[0]
    times = {"p50": 1, "p99": 5, "processor": 700}
    ours = [contending.Score(answered=rate, ran=100, left=0, **times) for rate in (100, 200, 300)]
    theirs = [contending.Score(answered=100, ran=50, left=left, **times) for left in (0, 7, 0)]
    names = {contending.OURS.name: ours, other.name: theirs}
    quiet = bench.Bench(seconds=1, events=1, folder=tmp_path, show_progress=lambda *_args: None)
    quiet.cache["peers"] = {(name, many): found for name, found in names.items() for many in bench.CONNECTIONS}
    figures, notes = contending.ran(quiet)
    assert [(figure.case, figure.judged) for figure in figures] == [
        (f"{many} connections, {other.name}", 2) for many in bench.CONNECTIONS
    ]
    assert any("7 answered and not run" in note for note in notes)
    figures, notes = contending.cheapest(quiet)
    assert [(figure.ours.processor, figure.judged) for figure in figures] == [(700, 1)] * len(bench.CONNECTIONS)


def test_processor_time_of_unfinished_work_is_unknown(part, tmp_path):
    """An alternative that has not run all callbacks has no processor time, and the row says so."""
    contending, bench, servers = part("contending"), part("bench"), part("servers")
    of = {"answered": 9, "ran": 9, "left": 0, "p50": 1, "p99": 5}
    scores = {contending.OURS.name: 700, contending.OTHERS[0].name: 0}
    quiet = bench.Bench(seconds=1, events=1, folder=tmp_path, show_progress=lambda *_args: None)
    quiet.cache["peers"] = {
        (name, many): [contending.Score(**of, processor=spent)] for name, spent in scores.items() for many in (8, 32)
    }
    (figure, _), _ = contending.ran(quiet)
    assert (figure.ours.processor, figure.theirs.processor) == (700, 0)
    with pytest.raises(servers.ServerError, match=r"nothing was|not installed"):
        contending.cheapest(quiet)


def test_the_measured_pages_have_content(part, tmp_path):
    """Every page is served with content, and each filter of events selects some unless its name says otherwise."""
    operating, filling, servers = part("operating"), part("filling"), part("servers")
    site = servers.Site(folder=tmp_path)
    upgrade(f"sqlite:///{site.database}")
    filling.of_sqlite(site.database, 2_100, *filling.HISTORY)
    first, wrong = filling.event_id(1), []
    contents = {
        **dict.fromkeys(("one handler", "one handler, 30 days", "one source", "one source, 30 days"), "p95"),
        **dict.fromkeys(("sources", "rejected"), "default"),
        **dict.fromkeys(("audit", "audit, by operator"), "bench:handler-0"),
        **dict.fromkeys(("one operation", "one operation, failed deliveries"), first),
        **dict.fromkeys(("a plan", "errors", "one error"), "the archive does not answer"),
        "engines": "Flowable 7.1.0",
        "storage": "Growth",
    }
    with site.serve() as server:
        for page, path in operating.pages(2_100).items():
            connection = http.client.HTTPConnection(urlsplit(server.admin).netloc, timeout=60)
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read().decode()
            connection.close()
            is_empty = any(text in page for text in ("not there", "no attempt has", "by time"))
            has_content = first[:18] in body if page.startswith("events") else contents.get(page, "") in body
            if answer.status != 200 or has_content == is_empty:
                wrong.append((page, answer.status))
    assert wrong == []


def test_the_rows_about_an_operation_are_measured(part, monkeypatch, tmp_path):
    """A plan is timed by a command and in the console; beside a running operation, its own pages are requested, too."""
    bench, planning, operating, missing_columns = (
        part("bench"),
        part("planning"),
        part("operating"),
        part("figures").missing_columns,
    )
    quiet = bench.Bench(seconds=1, events=600, folder=tmp_path, rounds=1, show_progress=lambda *_args: None)
    monkeypatch.setattr(planning, "DEAD", 500)
    monkeypatch.setattr(planning, "RATE", "10/s")
    monkeypatch.setattr(planning, "REQUESTS_PER_PAGE", 1)
    monkeypatch.setattr(planning, "_senders", lambda _bench: {"steadily": planning._send_steadily})
    monkeypatch.setattr(operating, "pages", lambda _events: {"overview": "/console/"})
    figures, _ = planning.planned(quiet)
    assert [figure.judged > 0 for figure in figures] == [True, True]
    assert missing_columns("operation-plan", figures) == []
    (figure,), (note,) = planning.looking(quiet)
    assert figure.judged > 0
    assert missing_columns("operation-pages", [figure]) == []
    assert "Overview: " in note
    assert "The running operation, refreshed part: " in note


def test_only_finished_runs_of_answered_callbacks_count(part, monkeypatch):
    """Runs count from the start of the load until none is left; callbacks left over are no runs."""
    contending, load = part("contending"), part("load")
    loads = iter(
        load.Load(counted=counted, later=0, seconds=seconds, p50=1, p99=2) for counted, seconds in ((10, 1), (100, 2))
    )
    monkeypatch.setattr(load, "run", lambda *_args, **_options: next(loads))
    asked, waiting = [], iter([30, 10, 0])

    def left(answered):
        asked.append(answered)
        return next(waiting)

    score = contending.measure(contending.Target(url="", count_unfinished=left), 8, 2)
    assert (score.answered, score.left, asked) == (50, 0, [110, 110, 110])
    assert score.ran > 0


@pytest.mark.long
@pytest.mark.postgresql
def test_a_server_with_two_workers_is_measured(part, tmp_path):
    """A server accepts a callback, two workers run it, and no plan scans a full table completely."""
    cluster, sharing, plans, filling = part("cluster"), part("sharing"), part("plans"), part("filling")
    with cluster.cluster(tmp_path) as postgresql, postgresql.ledger("embedded") as ledger:
        ledger.rows(filling.of_postgresql(2_000))
        ledger.rows("VACUUM ANALYZE")
        with ledger.serve() as server:
            connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=60)
            body = json.dumps({"callBackProcessClass": "com.cnooc.test.CallbackHandler"})
            headers = {"Content-Type": "application/json", "Prefer": "respond-async"}
            for number in range(3):
                connection.request("POST", f"/flow/n{number}/call-back/complete", body, headers)
                assert connection.getresponse().read()
            connection.close()
        ran = sharing.run_all(ledger, 2)
        assert (ran.count, 0 < ran.p50 <= ran.p99) == (3, True)
        shown = plans.collect_plans(ledger.url)
    for step in ("### Accept", "### Claim", "### Settle", "### Poll for due deliveries", "### A repeated callback"):
        assert step in shown
    for table in ("events", "deliveries", "attempts"):
        assert f"Seq Scan on {table}\n" not in shown


@pytest.mark.postgresql
def test_the_database_cost_of_a_callback_is_added_up(part, tmp_path):
    """Without any callback, a query returns log, commits, connections and events; each step has its plans."""
    cluster, costs, plans = part("cluster"), part("costs"), part("plans")
    with cluster.cluster(tmp_path) as postgresql, postgresql.ledger("embedded") as ledger:
        log, commits, connections, events = ledger.rows(costs.COUNTERS)[0]
        shown = plans.collect_plans(ledger.url)
    for step in ("Accept", "A repeated callback", "Poll for due deliveries", "Claim", "Settle"):
        assert f"### {step}\n\n```text\n" in shown
    assert log > 0
    assert commits >= 0
    assert connections == 0
    assert events == 0


@pytest.mark.long
@pytest.mark.postgresql
def test_transactions_of_idle_processes_are_counted(part, tmp_path):
    """A server and a worker without callbacks make transactions, which are counted for the time asked for."""
    cluster, idling = part("cluster"), part("idling")
    with cluster.cluster(tmp_path) as postgresql:
        counts = idling.transactions(postgresql, "procrastinate", handlers=2, workers=1, seconds=2, windows=2, rest=0)
    assert len(counts) == 2
    assert max(counts) > 0


@pytest.mark.long
@pytest.mark.postgresql
def test_the_time_until_a_lost_job_is_replaced_is_measured(part, tmp_path):
    """In each round, deliveries start whose jobs were lost: with both workers, and after one of them is killed."""
    cluster, lost_jobs = part("cluster"), part("lost_jobs")
    with cluster.cluster(tmp_path) as postgresql:
        found = lost_jobs.seconds(postgresql, rounds=2)
    assert {case: len(times) for case, times in found.items()} == {lost_jobs.RUNS: 2, lost_jobs.KILLED: 2}
    assert all(taken > 0 for times in found.values() for taken in times)
    assert lost_jobs.table({"runs": [0.5, 1.0, 2.5]})[-1] == "| runs | 3 | 0.50 | 1.00 | 2.50 |"


@pytest.mark.postgresql
def test_the_time_until_a_worker_has_run_a_handler_is_measured(part, monkeypatch, tmp_path):
    """With a server and a worker on each runner, both rows about a single callback have a figure for each runner."""
    bench, promptness = part("bench"), part("promptness")
    monkeypatch.setattr(promptness, "SAMPLES", 6)
    monkeypatch.setattr(promptness, "WARM_UP_CALLBACKS", 2)
    quiet = bench.Bench(seconds=1, events=1, folder=tmp_path, show_progress=lambda *_args: None)
    for row, shown in ((promptness.started, "p50"), (promptness.answered, "p99")):
        figures, notes = row(quiet)
        assert [figure.case for figure in figures] == [f"{runner}, {shown}" for runner in ("embedded", "procrastinate")]
        assert all(figure.judged > 0 for figure in figures)
        assert part("figures").missing_columns(f"postgresql-{row.__name__}", figures) == []
        assert all("4 callbacks" in note for note in notes)


def test_runners_are_compared_row_by_row(part):
    """The median ratio of each figure is shown, the larger the better, and the rows below nine tenths are named."""
    runners = part("runners")
    figures = {name: [100.0, 200.0, 300.0] for name in runners.ROWS}
    equal = {"embedded": figures, "procrastinate": dict(figures)}
    assert runners.table(equal)[-1] == "procrastinate has 0.9 or more on every row"
    other = figures | {"deliveries": [120.0, 120.0, 120.0], "started": [200.0, 180.0, 300.0]}
    lines = runners.table({"embedded": figures, "procrastinate": other})
    assert "| deliveries run by two workers | 200/s | 120/s | 0.60 |" in lines
    assert "| accepted until started, p50 | 200.0 ms | 200.0 ms | 1.00 |" in lines
    assert lines[-1] == "procrastinate has less than 0.9 of embedded: deliveries run by two workers"


def test_a_small_soak_reports_only_violated_conditions(tmp_path):
    """A small `make soak` writes its figures, and exits with 1 if a condition does not hold."""
    file = tmp_path / "figures.json"
    # With more clients, the thread that samples may get no turn in a tenth of so few callbacks.
    few = ["--call-backs", "1500", "--clients", "8"]
    command = [sys.executable, HERE / "soak.py", *few, "--growth", "0.01", "--json", file]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert file.exists(), ran.stdout + ran.stderr
    assert ran.returncode == 1
    figures = json.loads(file.read_text())
    assert figures["problems"] == ["memory, MiB: last ÷ early tenth ≤ 0.01 does not hold"]
    assert figures["calls"] == 1500
    assert figures["books"]["accepted"] == figures["books"]["stored"] + figures["books"]["purged"] > 1000
    assert {figure["what"]: figure["holds"] for figure in figures["figures"]}.pop("file handles")
    assert "not as it should be" in ran.stdout


def test_a_soak_opens_no_circuit_and_leaves_no_backlog(part, tmp_path):
    """Failures in a row before the first retry do not open the circuit, and all deliveries are done."""
    soak, mixture, servers = part("soak"), part("mixture"), part("servers")
    site = servers.Site(folder=tmp_path)
    with soak.serving(site) as (_, address):
        callers = mixture.Callers(address, clients=8, calls=300, name="held", kinds=["fails once"])
        callers.start()
        while callers.busy:
            time.sleep(0.05)
        assert soak.unsettled(site, seconds=60) == []
        assert site.query_value("SELECT count(*) FROM deliveries WHERE state = 'succeeded'") == 300


def test_a_soak_that_leaks_is_reported(part):
    """Growing memory, handles, threads or log are each reported."""
    soak = part("soak")
    flat = {"memory": 100.0, "handles": 30, "threads": 45, "wal": 16.0}

    def judged(**grows):
        samples = [
            soak.Sample(
                done=done, **{name: value + grows.get(name, 0) * done // 1_000_000 for name, value in flat.items()}
            )
            for done in range(0, 1_000_001, 5000)
        ]
        return [figure.what for figure in soak.evaluate(samples, 1_000_000, 1.1) if not figure.holds]

    assert judged() == []
    assert judged(memory=15, handles=8, threads=4, wal=40) == ["memory, MiB"]
    assert judged(handles=20) == ["file handles"]
    assert judged(threads=10) == ["threads"]
    assert judged(wal=60) == ["write-ahead log, MiB"]


@pytest.mark.parametrize(
    ("calls", "early"), [(1_000_000, 1), (500_000, 1), (200_000, 3), (100_000, 5), (60_000, 5), (1_500, 5)]
)
def test_the_last_tenth_of_a_soak_is_compared_with_a_warm_tenth(part, calls, early):
    """The last tenth is compared with the first one after all caches were full, the sixth at the latest."""
    assert part("soak").early_tenth(calls) == early


def test_a_short_soak_distinguishes_full_caches_from_leaks(part):
    """Growth in the first 50,000 callbacks only is no leak; continued growth is one."""
    soak = part("soak")

    def judged(memory):
        samples = [
            soak.Sample(done=done, memory=memory(done), handles=30, threads=45, wal=16.0)
            for done in range(0, 100_001, 500)
        ]
        return [figure.what for figure in soak.evaluate(samples, 100_000, 1.1) if not figure.holds]

    assert judged(lambda done: 80 + min(done, 50_000) / 2500) == []
    assert judged(lambda done: 80 + done / 2500) == ["memory, MiB"]


def test_all_locks_and_queues_with_counted_wake_ups_exist(part):
    """All locks and queues whose wake-ups are counted exist, so that a missing one is noticed."""
    wakeups = part("wakeups")
    for place, *functions in wakeups.LOCKS:
        for function in functions:
            assert callable(getattr(*part("stopwatch").resolve(f"{place}.{function}")))
    for place in wakeups.QUEUES:
        assert getattr(*part("stopwatch").resolve(place)) is SimpleQueue


def test_wake_ups_are_counted_by_thread(part, tmp_path):
    """A wake-up of a thread that sleeps is counted once, by the names of both threads; of another thread it is none."""
    wakeups = part("wakeups").Wakeups()
    queue = wakeups._counting_queue()()
    taken = []
    sleeper = threading.Thread(target=lambda: taken.extend([queue.get(), queue.get()]), name="writer-1")
    sleeper.start()
    while not queue.sleeper:
        pass
    queue.put("wakes")
    while not queue.sleeper:
        pass
    queue.put("wakes again")
    sleeper.join()
    queue.put("wakes nobody")
    wakeups.write(tmp_path / "wakeups.json")
    assert json.loads((tmp_path / "wakeups.json").read_text()) == [["MainThread", "writer", 2]]


def test_the_wake_up_of_a_waiting_callback_is_counted(part, tmp_path):
    """Each thread that waits until its event is stored and settled is counted once when it is woken."""

    class CountedWaiter(Waiter):
        __slots__ = ()

    wakeups = part("wakeups")
    counts = wakeups.Wakeups()
    functions = next(functions for place, *functions in wakeups.LOCKS if place.endswith(":Waiter"))
    counts._count_locks(CountedWaiter, *functions)
    registry = WaiterRegistry(clock=Clock(), max_waiters=1, max_unreplaced=1, pauses=PausedHandlers())
    waiter = CountedWaiter(registry, "event", 2**62, ["delivery"], {})
    arguments = (Future(), [("delivery", "handler")], 60)
    callback = threading.Thread(target=waiter.wait_from_storing, args=arguments, name="listen-1")
    callback.start()
    until(lambda: counts._asleep)
    waiter.cancel()
    callback.join()
    counts.write(tmp_path / "wakeups.json")
    assert json.loads((tmp_path / "wakeups.json").read_text()) == [["MainThread", "listen", 1]]
