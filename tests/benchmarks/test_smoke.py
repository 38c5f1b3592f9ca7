"""The benchmark harness itself works; its figures are not asserted, and wrk is not run."""

from __future__ import annotations

import http.client
import importlib
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flowhooks.settings import load

HERE = Path(__file__).parent
PRINTED = 'Running 8s test\nRESULT {{"requests":100,"microseconds":2000000,"p50":1500,"p99":9000,{}}}\n'
GOOD = '"refused":0,"broken":0,"ok":90,"accepted":10,"other":0'


@pytest.fixture
def part(monkeypatch):
    """A function that returns a module of the harness, which is a folder of scripts and not a package."""
    monkeypatch.syspath_prepend(HERE)
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and Path(sys.modules[name].__file__).parent == HERE:
            del sys.modules[name]


def test_the_bare_app_answers_what_a_full_success_answers(part, tmp_path):
    """The baseline accepts a callback on the contract's path and returns the constant."""
    with part("servers").bare(tmp_path) as server:
        connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=10)
        headers = {"Content-Type": "application/json"}
        connection.request("POST", "/flow/a-1/call-back/complete", '{"businessKey": "HT-1"}', headers)
        answer = connection.getresponse()
        body = json.loads(answer.read())
        connection.close()
        assert server.memory() > 1
    assert (answer.status, body) == (200, {"success": True})


def test_a_server_is_stopped_when_measuring_fails(part, tmp_path):
    """A server is stopped after its measurement, even if that fails."""
    with pytest.raises(ZeroDivisionError), part("servers").bare(tmp_path) as server:
        raise ZeroDivisionError
    with pytest.raises(ProcessLookupError):
        os.kill(server.pid, 0)


def test_what_wrk_printed_is_read(part):
    """Rates are of the counted responses: all, or those with status 200."""
    read = part("load").read
    assert read(PRINTED.format(GOOD), only_200=False).rate == 50
    assert read(PRINTED.format(GOOD), only_200=True).rate == 45
    assert read(PRINTED.format(GOOD), only_200=True).later == 10


@pytest.mark.parametrize("wrong", ["refused", "broken", "other"])
def test_a_load_with_errors_is_worthless(part, wrong):
    """A load with an error response or a broken connection is not measured."""
    load = part("load")
    output = PRINTED.format(GOOD.replace(f'"{wrong}":0', f'"{wrong}":1'))
    with pytest.raises(load.LoadError):
        load.read(output, only_200=False)


def test_verdicts_go_by_the_better_side(part):
    """A larger figure is better, unless the goal says that a smaller one is."""
    goal = part("figures").Goal
    more, less = goal(least=0.5, aim=0.65), goal(least=1.2, aim=1.0, smaller=True)
    assert [more.verdict(figure) for figure in (0.7, 0.5, 0.4)] == ["aim met", "met", "missed"]
    assert [less.verdict(figure) for figure in (0.9, 1.2, 1.3)] == ["aim met", "met", "missed"]


def test_every_result_is_on_the_page_also_one_that_broke(part):
    """The page and the JSON show each row, its verdict, the machine and the command, also of failed rows."""
    figures, report = part("figures"), part("report")
    goal = figures.Goal(least=0.5, aim=0.65)
    figure = figures.Figure(case="8 connections", measured="2,000/s", yardstick="4,000/s", judged=0.5)
    results = [
        figures.Result(name="a", title="first", goal=goal, figures=(figure,), notes=("seen",)),
        figures.Result(name="b", title="second", goal=goal, broke="it did not start"),
    ]
    page = report.page(results, report.machine(), "make bench")
    for shown in ("| 0.50 | 0.65 | met |", "broke", "it did not start", "seen", "SQLite", "make bench"):
        assert shown in page
    assert json.loads(report.as_json(results, {}, ""))["rows"][0]["verdicts"] == ["met"]
    assert report.table(results).row_count == 2


def test_without_wrk_the_command_says_how_to_get_it(tmp_path):
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
    assert "no row typo; there are accept, outcome" in ran.stderr


def test_each_event_of_the_rows_about_conditions_has_exactly_one_handler(part, tmp_path):
    """Each event matches one handler of one or a thousand, for all conditions; each case has its figure."""
    conditions, bench = part("conditions"), part("bench")
    for case in (conditions.CONCLUSIONS, *conditions.WHEN):
        for handlers in (1, conditions.HANDLERS):
            router, events = conditions.router_of(case, handlers), conditions.events_of(handlers)
            taken = [list(router.route(event).handlers) for event in events]
            assert taken == [[f"bench:h{event.data['office']}"] for event in events]
            assert len({handler for (handler,) in taken}) == min(handlers, conditions.EVENTS)
    quiet = bench.Bench(seconds=1, events=1, folder=tmp_path, tell=lambda *_args: None)
    conditions.TURNS = 1
    (figure,), notes = conditions.conclusions(quiet)
    assert (figure.case, notes, figure.judged > 0) == ("conclusion=, one each", [], True)


def test_rows_about_dispatch_are_named_one_by_one(part):
    """`--rows` accepts the names of rows about conditions."""
    names = ["dispatch-conclusions", "dispatch-conditions"]
    assert [row.name for row in part("run")._chosen(None, None, ",".join(names))] == names


@pytest.mark.long
def test_the_stations_are_measured():
    """The profile prints a figure for each station and size of batch."""
    command = [sys.executable, str(HERE / "stations.py"), "--events", "64"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    figures = [line.strip("| ").split(" | ") for line in ran.stdout.splitlines()[2:]]
    assert len(figures) == 5 + 3 * 4
    assert all(int(figure) >= 0 for _, figure in figures)


def test_every_station_is_there(part):
    """All functions under the stopwatch exist, so that a missing station is noticed."""
    stopwatch = part("stopwatch")
    places = [place for places in (*stopwatch.FLOWHOOKS.values(), *stopwatch.BARE.values()) for place in places]
    assert all(callable(getattr(*stopwatch.found(place))) for place in places)


def test_the_stopwatch_counts_nothing_twice(part, tmp_path):
    """While a station calls another station, only the stopwatch of the called station runs."""
    stopwatch = part("stopwatch").Stopwatches()

    def work(seconds):
        end = time.thread_time() + seconds
        while time.thread_time() < end:
            pass

    inner = stopwatch._watched("inner", lambda: work(0.05))
    outer = stopwatch._watched("outer", lambda: (work(0.01), inner(), work(0.01), inner()))
    outer()
    stopwatch.write(tmp_path / "spent.json")
    said = json.loads((tmp_path / "spent.json").read_text())
    assert list(said["threads"].values()) == ["MainThread"]
    ((found),) = said["spent"].values()
    assert {name: times for name, (_, times) in found.items()} == {"outer": 1, "inner": 2}
    assert found["inner"][0] >= 0.1
    assert found["inner"][0] > found["outer"][0] >= 0.02


def test_tables_are_put_into_the_page(part):
    """Each measured part exists on the page on performance, and only measured parts are replaced."""
    profiling = part("profiling")
    page = (HERE.parents[1] / "docs/explanation/performance.md").read_text()
    names = re.findall("<!-- measured: (.*) -->", page)
    parts = [f"parts-{many}" for many in part("bench").CONNECTIONS]
    assert names == ["whole", *parts, "alone", "starting", "tuning", "machine"]
    put = profiling.put(page, {name: [f"table {name}"] for name in names})
    assert [f"table {name}" in put for name in names] == [True] * len(names)
    assert put.count("<!-- end -->") == len(names)
    assert profiling.put(put, {}) == put


def test_the_time_of_a_start_is_that_of_the_process(part, tmp_path):
    """The processor time of a command is measured, and the first run is not counted."""
    starting = part("starting")
    assert starting.of_command("--version", folder=tmp_path) > 0
    assert starting.table({"`flowhooks`": [900.0, 100.0, 120.0]})[-1] == "| `flowhooks` | 110 |"


def test_what_other_numbers_would_do_is_tried_on_what_is_there(part):
    """Each variant changes an existing constant to another value, or is a setting."""
    for variant in part("tuning").VARIANTS[1:]:
        for one in filter(None, variant.constants.split(",")):
            module, name = one.split("=")[0].split(":")
            found = importlib.import_module(module)
            before = getattr(found, name)
            try:
                part("tuned").change(one)
                assert getattr(found, name) != before
                assert type(getattr(found, name)) is type(before)
            finally:
                setattr(found, name, before)
        loaded = load(None, variant.settings, {})
        assert variant.constants or loaded != load(None, {}, {})


def test_all_rows_of_postgresql_can_be_named_at_once(part):
    """`--rows postgresql` selects exactly the rows that begin with it."""
    run = part("run")
    chosen = run._chosen(None, None, "postgresql")
    assert [row.name for row in chosen] == [
        f"postgresql-{name}" for name in ("accept", "deliveries", "started", "answered", "stored")
    ]


def test_all_rows_about_others_can_be_named_at_once(part):
    """`--rows peers` selects both rows of the page about alternatives."""
    run, report = part("run"), part("report")
    chosen = run._chosen(None, None, "peers")
    assert [row.name for row in chosen] == ["peers-answered", "peers-run"]
    assert {run._group(row) for row in chosen} == {"peers"}
    assert "Durability of a response" in report.page([], {}, "", template=run.GROUPS["peers"])


def test_what_is_not_installed_is_left_out_and_named(part, monkeypatch, tmp_path):
    """Without Redis and webhook they are left out, and the row says how to install them."""
    contending, bench, servers = part("contending"), part("bench"), part("servers")
    monkeypatch.setattr("shutil.which", lambda _name: None)
    quiet = bench.Bench(seconds=1, events=1, folder=tmp_path, tell=lambda *_args: None)
    quiet.kept["peers"] = {(contending.OURS.name, connections): [] for connections in bench.CONNECTIONS}
    with pytest.raises(servers.ServerError, match=r"redis-server is not installed.*webhook is not installed"):
        contending.ran(quiet)


def test_what_others_do_is_compared_round_by_round(part, tmp_path):
    """The median of the pairs' ratios counts; unfinished work is reported."""
    contending, bench = part("contending"), part("bench")
    other = contending.OTHERS[0]
    ours = [contending.Score(answered=rate, ran=100, left=0, p99=5) for rate in (100, 200, 300)]
    theirs = [contending.Score(answered=100, ran=50, left=left, p99=9) for left in (0, 7, 0)]
    names = {contending.OURS.name: ours, other.name: theirs}
    quiet = bench.Bench(seconds=1, events=1, folder=tmp_path, tell=lambda *_args: None)
    quiet.kept["peers"] = {(name, many): found for name, found in names.items() for many in bench.CONNECTIONS}
    figures, notes = contending.ran(quiet)
    assert [(one.case, one.judged) for one in figures] == [
        (f"{many} connections, {other.name}", 2) for many in bench.CONNECTIONS
    ]
    assert any("7 answered and not run" in note for note in notes)


def test_what_was_answered_has_to_be_run(part, monkeypatch):
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

    score = contending.measure(contending.Taken(url="", left=left), 8, 2)
    assert (score.answered, score.left, asked) == (50, 0, [110, 110, 110])
    assert score.ran > 0


@pytest.mark.long
@pytest.mark.postgresql
def test_what_servers_and_workers_share_is_measured(part, tmp_path):
    """A server accepts a callback, two workers run it, and no plan scans a full table completely."""
    cluster, sharing, plans, filling = part("cluster"), part("sharing"), part("plans"), part("filling")
    with cluster.cluster(tmp_path) as postgresql, postgresql.ledger("embedded") as ledger:
        ledger.rows(filling.of_postgresql(2_000))
        ledger.rows("VACUUM ANALYZE")
        with ledger.serve() as server:
            connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=10)
            body = json.dumps({"callBackProcessClass": "com.cnooc.test.CallbackHandler"})
            headers = {"Content-Type": "application/json", "Prefer": "respond-async"}
            for number in range(3):
                connection.request("POST", f"/flow/n{number}/call-back/complete", body, headers)
                assert connection.getresponse().read()
            connection.close()
        assert sharing.run_all(ledger, 2).count == 3
        shown = plans.of(ledger.url)
    for step in ("### Accept", "### Claim", "### Settle", "### Poll for due deliveries", "### A repeated callback"):
        assert step in shown
    for table in ("events", "deliveries", "attempts"):
        assert f"Seq Scan on {table}\n" not in shown


@pytest.mark.postgresql
def test_what_a_call_back_costs_is_added_up(part, tmp_path):
    """Without any callback, a query returns log, commits, connections and events."""
    cluster, costs = part("cluster"), part("costs")
    with cluster.cluster(tmp_path) as postgresql, postgresql.ledger("embedded") as ledger:
        log, commits, connections, events = ledger.rows(costs.SO_FAR)[0]
    assert log > 0
    assert commits >= 0
    assert connections == 0
    assert events == 0


def test_a_soak_of_a_few_finds_all_as_it_should_be_but_what_it_is_told_to_find(tmp_path):
    """A small `make soak` writes its figures, and exits with 1 if a condition does not hold."""
    file = tmp_path / "figures.json"
    command = [sys.executable, HERE / "soak.py", "--call-backs", "1500", "--growth", "0.01", "--json", file]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 1, ran.stdout + ran.stderr
    figures = json.loads(file.read_text())
    assert figures["trouble"] == ["memory, MiB: last ÷ early tenth ≤ 0.01 does not hold"]
    assert figures["calls"] == 1500
    assert figures["books"]["accepted"] == figures["books"]["stored"] + figures["books"]["purged"] > 1000
    assert {one["what"]: one["holds"] for one in figures["figures"]}.pop("file handles")
    assert "not as it should be" in ran.stdout


def test_what_a_soak_sends_piles_up_for_no_handler(part, tmp_path):
    """Failures in a row before the first retry do not open the circuit, and all deliveries are done."""
    soak, mixture, servers = part("soak"), part("mixture"), part("servers")
    site = servers.Site(folder=tmp_path)
    with soak.serving(site) as (_, place):
        callers = mixture.Callers(place, several=8, calls=300, name="held", kinds=["fails once"])
        callers.start()
        while callers.busy:
            time.sleep(0.05)
        assert soak.unsettled(site, seconds=60) == []
        assert site.ask("SELECT count(*) FROM deliveries WHERE state = 'succeeded'") == 300


def test_a_soak_that_leaks_is_found_out(part):
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
        return [one.what for one in soak.judged(samples, 1_000_000, 1.1) if not one.holds]

    assert judged() == []
    assert judged(memory=15, handles=8, threads=4, wal=40) == ["memory, MiB"]
    assert judged(handles=20) == ["file handles"]
    assert judged(threads=10) == ["threads"]
    assert judged(wal=60) == ["write-ahead log, MiB"]


@pytest.mark.parametrize(
    ("calls", "early"), [(1_000_000, 1), (500_000, 1), (200_000, 3), (100_000, 5), (60_000, 5), (1_500, 5)]
)
def test_the_last_tenth_of_a_soak_is_compared_with_one_that_was_warm(part, calls, early):
    """The last tenth is compared with the first one after all caches were full, the sixth at the latest."""
    assert part("soak").early_tenth(calls) == early


def test_a_short_soak_tells_what_fills_from_what_leaks(part):
    """Growth in the first 50,000 callbacks only is no leak; continued growth is one."""
    soak = part("soak")

    def judged(memory):
        samples = [
            soak.Sample(done=done, memory=memory(done), handles=30, threads=45, wal=16.0)
            for done in range(0, 100_001, 500)
        ]
        return [one.what for one in soak.judged(samples, 100_000, 1.1) if not one.holds]

    assert judged(lambda done: 80 + min(done, 50_000) / 2500) == []
    assert judged(lambda done: 80 + done / 2500) == ["memory, MiB"]
