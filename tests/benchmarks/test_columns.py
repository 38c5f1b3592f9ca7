"""Each row of the benchmarks states processor time, rate, p50 and p99, or the reason why it does not."""

from __future__ import annotations

import ast
import json
from dataclasses import replace
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.fixture
def quiet(part, tmp_path):
    """A session that prints nothing."""
    return part("bench").Bench(seconds=1, events=1, folder=tmp_path, rounds=1, show_progress=lambda *_args: None)


def test_the_code_of_each_row_states_all_columns(part):
    """Each cost in the code of a row has four columns that are measured, except those with a reason."""
    figures, run = part("figures"), part("run")
    incomplete, left_out = [], set()
    for file in sorted(HERE.glob("*.py")):
        if file.stem == "figures" or "Cost(" not in file.read_text() or file.stem.startswith("test_"):
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Cost":
                columns = {keyword.arg: keyword.value for keyword in node.keywords}
                is_constant = any(isinstance(value, ast.Constant) for value in columns.values())
                if columns.keys() != figures.COLUMNS.keys() or is_constant:
                    incomplete.append(f"{file.name}:{node.lineno}")
                left_out |= {(file.stem, name) for name, value in columns.items() if "NOT_STATED" in ast.dump(value)}
    assert incomplete == []
    modules = {row.name: row.measure.__module__ for row in run.ROWS}
    assert left_out == {(modules[row], name) for row, reasons in figures.EXCEPTIONS.items() for name in reasons}


def test_a_row_that_was_measured_without_a_column_is_not_stored(part, quiet):
    """A missing column makes a row fail, and a column that is left out for a reason does not: a note has the reason."""
    figures, report, run = part("figures"), part("report"), part("run")
    rows = {row.name: row for row in run.ROWS}

    def measured(row, **columns):
        cost = figures.Cost(**({"processor": 1, "rate": 2, "p50": 3, "p99": 4} | columns))
        figure = figures.Figure(measured="2/s", judged=1, ours=cost)
        return run._measure_row(replace(rows[row], measure=lambda _bench: ([figure], [])), quiet)

    assert measured("start").broke == ""
    assert measured("start", rate=0, p99=0).broke == "not measured: rate, p99"
    assert measured("postgresql-started", p99=0).broke == "not measured: p99"
    started = measured("postgresql-started", rate=0)
    assert started.broke == ""
    reason = figures.EXCEPTIONS["postgresql-started"]["rate"]
    assert report.notes([started]) == [f"{started.title}: no rate: {reason}"]


def test_a_stored_row_states_all_columns_or_is_older(part):
    """Each row that was stored with a rate has all columns; a note names those that older rows do not have."""
    figures, report, run, storing = part("figures"), part("report"), part("run"), part("storing")
    for row in run.ROWS:
        if stored := storing.load(row.name, row.goal):
            content = json.loads((storing.FOLDER / f"{row.name}.json").read_text())
            lacking = figures.missing_columns(row.name, stored.result.figures)
            if "rate" in content["result"]["figures"][0]["ours"]:
                assert lacking == [], row.name
            notes = [note for note in report.notes([stored.result]) if "measured before the row stated" in note]
            assert bool(notes) == bool(lacking), row.name


def test_an_older_row_has_the_rate_that_its_text_shows(part):
    """A cost that was stored without a rate has that of the text, if the text has one."""
    cost = part("figures").Cost
    older = {"processor": 600.0, "p50": 1.0, "p99": 2.0}
    assert cost.load(older, "2,000/s stored").rate == 2000
    assert cost.load(older, "5.60 µs with 10,000").rate == 0
    assert cost.load(older | {"rate": 3.0}, "2,000/s stored").rate == 3


def test_the_p99_of_few_times_is_at_most_the_longest_time(part):
    """The p99 of few times is at most the longest one; the rate follows from the mean time."""
    bench = part("bench")
    assert bench.spread([7.0]) == (7.0, 7.0)
    p50, p99 = bench.spread([10.0, 30.0, 20.0])
    assert (p50, 29 < p99 <= 30) == (20.0, True)
    cost = bench.cost_of_repeated([10.0, 30.0], 500.0)
    assert (cost.processor, cost.rate, cost.p50) == (500.0, 50.0, 20.0)


def test_the_rows_about_single_calls_state_all_columns(part, monkeypatch, quiet):
    """Dispatch is timed in batches and call by call, isolation with the processor time of its processes."""
    dispatching, figures, isolating = part("dispatching"), part("figures"), part("isolating")
    monkeypatch.setattr(dispatching, "TURNS", 1)
    monkeypatch.setattr(isolating, "TURNS", isolating.WARM_UP_CALLS + 8)
    with quiet.site() as site:
        subject = dispatching._subject(site.plugins(), handlers=1, called=1)
        figure = dispatching._compare_subjects(quiet, "one of them called", subject, subject)
    assert figures.missing_columns("dispatch", [figure]) == []
    assert figures.missing_columns("isolation", isolating.isolation(quiet)[0]) == []
