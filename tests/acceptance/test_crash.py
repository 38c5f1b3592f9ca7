"""`kill -9` under load, repeatedly on one database: no callback is lost, and no handler silently runs twice."""

from __future__ import annotations

import random
import time
from collections import Counter, defaultdict

import pytest

from flowhooks.ledger.queries import EventFilter
from support.clients import SEED, send_callbacks, until_more
from support.load import END_TIMEOUT, operate_until_available, running_operations
from support.waiting import until

PLUGIN = '''
import os, random, time
from pathlib import Path
from flowhooks import Retry, handler, hookimpl

FOLDER = Path(os.environ["JOURNAL"]).parent

def enter(name, event, delivery):
    """Write down, durably, that it was entered; wait as long as the gate is shut."""
    line = f"{name} {event.id} {delivery.id} {delivery.attempt} {event.flow_instance_id}\\n".encode()
    file = os.open(os.environ["JOURNAL"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, line)
        os.fsync(file)
    finally:
        os.close(file)
    if (FOLDER / "shut").exists():
        (FOLDER / f"held-{name}").touch()
    while (FOLDER / "shut").exists():
        time.sleep(0.01)
    time.sleep(random.choice([0, 0, 0.002, 0.03]))

@handler(process_key="crash")
def plain(event, delivery):
    """Not safe to run twice."""
    enter("plain", event, delivery)

@handler(process_key="crash", retry=Retry(attempts=50, delays=[0.05], jitter=0))
def repeatable(event, delivery):
    """Safe to run twice; fails sometimes."""
    enter("repeatable", event, delivery)
    if random.random() < 0.02:
        raise OSError("sometimes")

@hookimpl
def handlers():
    return [plain, repeatable]
'''
ROUNDS = 5
CLIENTS = 8
SETTINGS = {"answer_wait": 2, "ledger__write_timeout": 2}
DONE_WITH_IT = {"succeeded", "unknown", "dead", "closed"}


@pytest.fixture(scope="module")
def crashed(make_site):
    """The state after several rounds of load and `kill -9`, once a last server has finished the work."""
    site = make_site()
    site.plugin("demo", PLUGIN)
    chance = random.Random(SEED)
    server = site.start(**SETTINGS)
    places = [server.address]
    logs = []
    gate = site.folder / "shut"
    with send_callbacks(places, clients=CLIENTS, key="crash") as (taken, problems):
        for number in range(ROUNDS):
            time.sleep(chance.uniform(0.1, 0.8))
            until_more(taken, 20)
            if number == 0:
                # The other kills may by chance interrupt no attempt, or none of the handler without `retry=`.
                gate.touch()
                until((site.folder / "held-plain").exists)
            server.kill()
            gate.unlink(missing_ok=True)
            logs.append(server)
            server = site.start(**SETTINGS)
            places[:] = [server.address]
        until_more(taken, 20)
        orderly = server
        orderly.signal()
        orderly.wait()
        server = site.start(**SETTINGS)
        places[:] = [server.address]
        until_more(taken, 20)
    site.until(lambda ledger: not unfinished(ledger))
    journal = [line.split() for line in site.journal.read_text().splitlines()]
    site.crashes = logs
    site.orderly = orderly
    site.server = server
    site.taken = taken
    site.problems = problems
    site.entered = [(name, event, delivery, int(attempt)) for name, event, delivery, attempt, _ in journal]
    return site


def unfinished(ledger):
    """The number of waiting or running deliveries."""
    tally = ledger.count_by_state()
    return tally["waiting"] + tally["running"] + tally["handler_missing"]


@pytest.fixture(scope="module")
def stored(crashed):
    """Every stored event by its instance."""
    found, after = {}, ""
    with crashed.ledger() as ledger:
        while page := ledger.page(EventFilter(), limit=500, after=after):
            found |= {stored_event.event.flow_instance_id: stored_event for stored_event in page}
            after = page[-1].event.id
    return found


@pytest.fixture(scope="module")
def attempts(crashed, stored):
    """Every recorded attempt by its delivery and number, before a test of this file lets further ones run."""
    with crashed.ledger() as ledger:
        return {
            (delivery_status.delivery_id, attempt.number): attempt
            for status in stored.values()
            for delivery_status in status.delivery_statuses
            for attempt in ledger.attempts(delivery_status.delivery_id)
        }


def test_the_kills_interrupted_attempts(crashed):
    """The kills interrupted attempts; otherwise the other tests of this file show nothing."""
    assert len(crashed.taken) > 20 * ROUNDS
    assert all(server.process.returncode == -9 for server in crashed.crashes)
    lost = [
        record for server in (*crashed.crashes[1:], crashed.orderly) for record in server.logged("deliveries_recovered")
    ]
    assert sum(record["now_unknown"] + record["now_waiting"] for record in lost) > 0


def test_graceful_shutdown_under_load_leaves_nothing_to_recover(crashed):
    """After exit code 0 the next start finds no interrupted attempt."""
    assert crashed.orderly.process.returncode == 0
    assert crashed.orderly.logged("shutdown_finished", all_ended=True)
    assert not crashed.server.logged("deliveries_recovered")
    crashed.orderly.check_log()


def test_engines_got_only_2xx_and_503(crashed):
    """Engines got 2xx, 503 or a broken connection; no 4xx, no 500, no conflict of a callback with itself."""
    assert crashed.problems == []


def test_every_callback_with_a_2xx_is_stored(crashed, stored):
    """I1: a callback with a 2xx has exactly one durable row."""
    missing = {instance for instance, _, _ in crashed.taken} - set(stored)
    assert missing == set()


def test_all_2xx_for_one_callback_name_the_same_event(crashed, stored):
    """All 2xx for one callback name the same event, for any number of repeats and servers."""
    ids = defaultdict(set)
    for instance, event_id, _ in crashed.taken:
        ids[instance].add(event_id)
    assert {instance: found for instance, found in ids.items() if found != {stored[instance].event.id}} == {}


def test_every_delivery_has_the_expected_state(stored, attempts):
    """Waiting deliveries ran; a lost attempt was retried with `retry=` and is unknown without; none is dead."""
    states = Counter()
    for stored_event in stored.values():
        assert len(stored_event.delivery_statuses) == 2, stored_event
        states.update(
            (delivery_status.handler, delivery_status.state.value) for delivery_status in stored_event.delivery_statuses
        )
    assert set(states) <= {("demo:plain", "succeeded"), ("demo:plain", "unknown"), ("demo:repeatable", "succeeded")}
    numbers = Counter(delivery_id for delivery_id, _ in attempts)
    for status in stored.values():
        for delivery_status in status.delivery_statuses:
            if delivery_status.state.value == "unknown":
                assert numbers[delivery_status.delivery_id] == 1
                attempt = attempts[delivery_status.delivery_id, 1]
                assert attempt.outcome.value == "lost"
                assert "killed while this attempt ran" in attempt.error


def test_no_handler_without_retry_was_entered_twice(crashed):
    """Without `retry=` a handler is entered at most once for each delivery."""
    twice = Counter(delivery for name, _, delivery, _ in crashed.entered if name == "plain")
    assert [delivery for delivery, times in twice.items() if times > 1] == []


def test_no_attempt_was_entered_twice_or_unrecorded(crashed, stored, attempts):
    """The handler's own records match the attempts that the ledger recorded before it was entered."""
    entered = Counter((delivery, attempt) for _, _, delivery, attempt in crashed.entered)
    assert [key for key, times in entered.items() if times > 1] == []
    assert set(entered) <= set(attempts)
    succeeded = {key for key, attempt in attempts.items() if attempt.outcome and attempt.outcome.value == "succeeded"}
    assert succeeded <= set(entered)
    events = {
        delivery_status.delivery_id: stored_event.event.id
        for stored_event in stored.values()
        for delivery_status in stored_event.delivery_statuses
    }
    assert all(events[delivery] == event for _, event, delivery, _ in crashed.entered)


def test_ledger_counts_balance_and_logs_are_complete(crashed, stored):
    """Counts balance over all rounds; a log line may only be incomplete where its process was killed."""
    assert crashed.balance().accepted == len(stored)
    for server in crashed.crashes:
        for line, record in zip(server.lines[:-1], server.records[:-1], strict=True):
            assert record["event"] is not None, line
            assert "traceback" not in record, line
    crashed.server.check_log()


@pytest.mark.usefixtures("attempts")
def test_resolve_and_replay_still_work(crashed, stored):
    """An operator resolves the unknown deliveries, and those recorded as not done are run."""
    token = crashed.token()
    unknown = [
        delivery_status
        for stored_event in stored.values()
        for delivery_status in stored_event.delivery_statuses
        if delivery_status.state.value == "unknown"
    ]
    assert unknown, "no attempt of the handler without retry= was killed in the middle"
    verdicts = dict(
        zip(
            (delivery_status.delivery_id for delivery_status in unknown),
            ["did-not", "did", "close"] * len(unknown),
            strict=False,
        )
    )
    for delivery_id, verdict in verdicts.items():
        answer, was_unavailable = operate_until_available(
            crashed.server, token, "resolve", delivery_id=delivery_id, verdict=verdict, note="looked"
        )
        assert answer.status == 200 or (was_unavailable and answer.status == 409), answer
    crashed.until(lambda ledger: not unfinished(ledger))
    after = {"did-not": "succeeded", "did": "succeeded", "close": "closed"}
    with crashed.ledger() as ledger:
        for delivery_id, verdict in verdicts.items():
            _, delivery_status = ledger.delivery(delivery_id)
            assert delivery_status.state.value == after[verdict]
            assert delivery_status.attempt == (2 if verdict == "did-not" else 1)
    event_filter = {"state": "succeeded", "handler": "demo:plain"}
    again, _ = operate_until_available(
        crashed.server, token, "plan_operation", action="rerun", event_filter=event_filter
    )
    assert again.status == 200
    assert again.json["planned"] > 0
    started, was_unavailable = operate_until_available(
        crashed.server, token, "start_operation", operation_id=again.json["id"]
    )
    assert started.status == 200 or (was_unavailable and started.status == 409), started
    crashed.until(lambda ledger: not running_operations(ledger), within=END_TIMEOUT)
    crashed.until(lambda ledger: not unfinished(ledger))
    crashed.server.stop()
    crashed.balance()
