"""On a full disk there is no false 2xx, no accepted callback is lost, and work continues when there is space."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
from contextlib import suppress

import pytest

from flowhooks.ledger.lock import Lock
from support.waiting import until

PLUGIN = '''
from flowhooks import Retry, handler, hookimpl

@handler(process_key="good", retry=Retry(attempts=9, delays=[0.05], jitter=0))
def good(event):
    """Do nothing."""

@hookimpl
def handlers():
    return [good]
'''
ROOM = 4_000_000
"""The maximum size of the server's files in bytes: space for a few callbacks."""
DISK = 6_000_000
UNLIMITED = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)


def post_until_run(server, instance, body):
    """Send a callback again while its handler has not ended, as on a busy machine; return the last response."""

    def answered():
        answer = server.post(instance, body)
        return answer if answer.status != 202 else None

    return until(answered)


def test_a_full_disk_is_503_and_loses_no_callback(site):
    """The log reports the failure once and the recovery once."""
    site.plugin("demo", PLUGIN)
    site.forks_children = True
    server = site.start(answer_wait=5)
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (ROOM, resource.RLIM_INFINITY))
    taken = {}
    body = {"processDefinitionKey": "good", "pad": "x" * 300_000}
    for number in range(60):
        answer = server.post(f"a-{number}", body)
        if answer.status == 503:
            break
        assert answer.status in {200, 202}
        taken[f"a-{number}"] = answer.event_id
    assert len(taken) > 2
    # Now even the small write fails by which the server checks for free space.
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
    for _ in range(3):
        # A large body is written to the disk before it reaches the database.
        refused = server.post(f"a-{len(taken)}", body)
        assert "no room" in refused.check_error(503)
        assert refused.headers["Retry-After"]
        refused = server.post("small", {"processDefinitionKey": "good"})
        assert "database cannot be used" in refused.check_error(503)
        assert refused.headers["Retry-After"]
    ready = server.ask("GET", "/readyz", admin=True)
    assert (ready.status, ready.json["ready"]) == (503, False)

    def told():
        return [record for record in server.logged("ledger_write_failed") if record["why"] in ready.json["trouble"][0]]

    site.plugin("broken", "raise ImportError")
    server.signal(signal.SIGUSR2)
    server.until_logged("process_replace_failed")
    record = until(told)[-1]
    assert record["level"] == "error"
    assert "disk" in record["why"]
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, UNLIMITED)
    for instance in (*taken, f"a-{len(taken)}"):
        answer = post_until_run(server, instance, body)
        assert (answer.status, answer.body) == (200, b'{"success": true}')
        assert answer.event_id == taken.get(instance, answer.event_id)
    assert server.until_logged("ledger_write_recovered")
    assert server.ask("GET", "/readyz", admin=True).status == 200
    until(lambda: Lock(site.database).owner().refused_started)  # which `flowhooks restart` reads
    server.stop()
    server.check_log()
    assert len(server.logged("ledger_write_failed")) == len(server.logged("ledger_write_recovered"))
    books = site.balance()
    assert books.accepted == len(taken) + 1
    assert books.deliveries == {"succeeded": len(taken) + 1}
    with site.ledger() as ledger:
        assert ledger.quick_check() is None


@pytest.fixture
def small_disk(tmp_path):
    """A disk of a few megabytes, and the file to delete for free space, which fills half of it."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", folder]
    try:
        mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount here")
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
    other = folder / "others-log"
    other.write_bytes(bytes(DISK // 2))
    yield other
    subprocess.run(["umount", folder], check=True)


@pytest.fixture
def cramped(small_disk, site):
    """A site whose database is on such a disk."""
    site.plugin("demo", PLUGIN)
    site.database = small_disk.with_name("flowhooks.db")
    site.url = f"sqlite:///{site.database}"
    return site


def test_a_small_disk_that_is_really_full(cramped, small_disk):
    """On a full disk callbacks get 503, and the log states the remedy once; with space the server recovers."""
    server = cramped.start(answer_wait=5)
    taken, refused, body = {}, [], {"processDefinitionKey": "good", "pad": "x" * 30_000}
    for number in range(400):
        answer = server.post(f"a-{number}", body)
        if answer.status in {200, 202}:
            taken[f"a-{number}"] = answer.event_id
            continue
        refused.append(f"a-{number}")
        assert "database cannot be used" in answer.check_error(503)
        assert int(answer.headers["Retry-After"]) > 0
        if len(refused) == 20:
            break
    assert len(taken) > 20
    assert len(refused) == 20
    ready = server.ask("GET", "/readyz", admin=True)
    assert (ready.status, ready.json["ready"]) == (503, False)
    assert "free some space" in ready.json["trouble"][-1]
    record = server.until_logged("ledger_write_failed")
    assert (record["level"], record["why"]) == ("error", "database or disk is full")
    assert record["next"].startswith("free some space on the disk of the database; callbacks are answered 503 until")
    # An administrator who frees space sends no signal, and no callback is sent meanwhile.
    small_disk.unlink()
    until(lambda: server.ask("GET", "/readyz", admin=True).status == 200)
    assert server.until_logged("ledger_write_recovered")
    for instance in (*taken, *refused):
        answer = post_until_run(server, instance, body)
        assert (answer.status, answer.body) == (200, b'{"success": true}')
        assert answer.event_id == taken.get(instance, answer.event_id)
    server.stop()
    server.check_log()
    assert len(server.logged("ledger_write_failed")) == len(server.logged("ledger_write_recovered"))
    assert cramped.balance().deliveries == {"succeeded": len(taken) + len(refused)}
    with cramped.ledger() as ledger:
        assert ledger.quick_check() is None


def test_kill_on_a_full_disk(cramped, small_disk):
    """A server killed on a full disk restarts, logs the fault and recovers with space; no accepted callback is lost."""
    server = cramped.start(answer_wait=5)
    taken, body = {}, {"processDefinitionKey": "good", "pad": "x" * 30_000}
    while (answer := server.post(f"a-{len(taken)}", body)).status != 503:
        taken[f"a-{len(taken)}"] = answer.event_id
    server.kill()
    with suppress(OSError), small_disk.with_name("the-rest").open("wb", buffering=0) as rest:
        while rest.write(bytes(1024)):
            pass
    # A start writes a few pages, more if an attempt was running; whether they fit into the rest of the log varies.
    os.truncate(small_disk, small_disk.stat().st_size - 131_072)
    large = body | {"pad": "x" * 300_000}
    server = cramped.start(answer_wait=5)
    ready = server.ask("GET", "/readyz", admin=True)
    assert ready.status == 503
    assert "free some space" in ready.json["trouble"][-1]
    assert server.post("new", large).status == 503
    small_disk.unlink()
    for instance, event_id in taken.items():
        answer = post_until_run(server, instance, body)
        assert (answer.status, answer.event_id) == (200, event_id)
    assert post_until_run(server, "new", large).status == 200
    assert server.ask("GET", "/readyz", admin=True).status == 200
    server.stop()
    assert cramped.balance().deliveries == {"succeeded": len(taken) + 1}
