"""The database file is deleted, moved, replaced, truncated or damaged before a server starts or while it runs."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from contextlib import closing

import pytest

from support.app_harness import until
from support.clients import send_callbacks, until_more
from support.waiting import WAIT_TIMEOUT

BESIDE = ("", "-wal", "-shm")
NOBODY = {"processDefinitionKey": "nobody"}


def beside(file, suffix):
    """The database file, or another file of SQLite next to it."""
    return file.with_name(file.name + suffix)


def move(file, folder, suffixes=BESIDE):
    """Move the database away or back."""
    folder.mkdir(exist_ok=True)
    for suffix in suffixes:
        if beside(file, suffix).exists():
            beside(file, suffix).rename(folder / beside(file, suffix).name)


def move_log(file):
    """Move all data of the log into the database file."""
    # The log stays if a delayed reader of the server uses it for longer than the timeout.
    with closing(sqlite3.connect(file, isolation_level=None, timeout=WAIT_TIMEOUT)) as outside:
        outside.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def cut(file, size):
    """Truncate a database that has all its data in its file."""
    move_log(file)
    os.truncate(file, size(file.stat().st_size))


def backup_over(file, folder):
    """Move an older backup to the path."""
    (folder / "backup.db").rename(file)


CASES = {
    "the file is deleted": lambda file, _folder: file.unlink(),
    "the file is deleted with its log": lambda file, _folder: [beside(file, suffix).unlink() for suffix in BESIDE],
    "the file is moved away": lambda file, folder: move(file, folder / "away", [""]),
    "the file is moved away with its log": lambda file, folder: move(file, folder / "away"),
    "the log is deleted": lambda file, _folder: beside(file, "-wal").unlink(),
    "an older backup is moved over it": backup_over,
    "it is cut to half": lambda file, _folder: cut(file, lambda size: size // 2),
    "it is cut to nothing": lambda file, _folder: cut(file, lambda _size: 0),
}


@pytest.mark.parametrize("case", CASES)
def test_no_callback_is_acknowledged_after_a_file_change(site, case):
    """After any such change callbacks get 503, the log has one error, and `/readyz` and `flowhooks check` report it."""
    server = site.start()
    site.run("db", "backup", site.folder / "backup.db", "--database", site.database)
    for number in range(5):
        assert server.post(f"before-{number}", NOBODY).status == 202
    CASES[case](site.database, site.folder)
    # With or without callbacks.
    event = "database_damaged" if "cut" in case else "database_file_changed"
    record = server.until_logged(event)
    assert (record["level"], str(site.database) in record["why"]) == ("error", True)
    assert "503" in record["next"]
    answers = [server.post(f"after-{number}", NOBODY) for number in range(5)]
    for answer in answers:
        assert "database cannot be used now" in answer.check_error(503)
        assert answer.headers["Retry-After"]
    ready = server.ask("GET", "/readyz", admin=True)
    assert (ready.status, ready.json["ready"]) == (503, False)
    assert ready.json["trouble"][0] == record["why"]
    assert server.ask("GET", "/console/", admin=True).status == 503
    checked = site.run("check", "--database", site.database)
    assert checked.returncode == 1, checked.stdout
    assert "database" in checked.stdout
    assert len(server.logged(event)) == 1
    server.stop()
    server.check_log()


@pytest.mark.parametrize("case", ["the file is moved away", "the file is moved away with its log"])
def test_the_server_continues_once_its_file_is_back_at_the_path(site, case):
    """The server continues once its open file is back at the path; all acknowledged callbacks are in it."""
    server = site.start()
    taken = {f"before-{number}": server.post(f"before-{number}", NOBODY).event_id for number in range(5)}
    CASES[case](site.database, site.folder)
    server.until_logged("database_file_changed")
    assert server.post("meanwhile", NOBODY).status == 503
    for file in sorted((site.folder / "away").iterdir(), reverse=True):  # the database last, as below
        file.rename(site.folder / file.name)
    server.until_logged("database_file_restored")
    until(lambda: server.ask("GET", "/readyz", admin=True).status == 200)
    taken["after"] = server.post("after", NOBODY).event_id
    server.stop()
    with site.ledger() as ledger:
        assert all(ledger.event(event_id).event.flow_instance_id == instance for instance, event_id in taken.items())
    assert site.balance().stored == len(taken)


def test_a_copy_at_the_path_is_not_accepted(site):
    """A copy at the path, even an identical one, is not the file that the server writes."""
    server = site.start()
    server.post("before", NOBODY)
    move_log(site.database)
    shutil.copy(site.database, site.folder / "copy")
    site.database.unlink()
    server.until_logged("database_file_changed")
    (site.folder / "copy").rename(site.database)
    # The reason changes, because the path has a file again.
    until(lambda: len(server.logged("database_file_changed")) == 2)
    assert server.post("after", NOBODY).status == 503
    assert server.ask("GET", "/readyz", admin=True).status == 503
    assert not server.logged("database_file_restored")
    server.stop()


def test_a_file_moved_and_restored_while_engines_send_callbacks(site):
    """A file is moved away and back during transactions: it has each callback with a 2xx, and engines repeat others."""
    server = site.start()
    with send_callbacks([server.address], clients=4, key="nobody") as (taken, problems):
        for _ in range(5):
            until_more(taken, 20)
            move(site.database, site.folder / "away")
            server_says = server.ask("GET", "/readyz", admin=True)
            # The file comes last: a reader that opened it before would make other files beside it.
            move(site.folder / "away" / site.database.name, site.folder, reversed(BESIDE))
            assert server_says.status == 503
        until_more(taken, 20)
    assert problems == []
    server.stop()
    server.check_log()
    with site.ledger() as ledger:
        for instance, event_id, _ in taken:
            assert ledger.event(event_id).event.flow_instance_id == instance
    assert site.balance().accepted >= len({instance for instance, _, _ in taken})


def test_a_file_that_another_program_has_vacuumed(site):
    """A file that VACUUM has made smaller is intact, and callbacks are accepted."""
    server = site.start()
    for number in range(20):
        server.post(f"i-{number}", NOBODY | {"pad": "x" * 100_000})
    with closing(sqlite3.connect(site.database, isolation_level=None, timeout=20)) as outside:
        outside.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        assert server.post("between", NOBODY).status == 202
        before = site.database.stat().st_size
        outside.execute("DELETE FROM events WHERE flow_instance_id LIKE 'i-%'")
        outside.execute("VACUUM")
        outside.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        assert site.database.stat().st_size < before / 2
    assert server.post("after", NOBODY).status == 202
    assert server.ask("GET", "/readyz", admin=True).status == 200
    server.stop()
    assert not server.logged("database_damaged")


def fill(site, *, bodies):
    """A closed ledger with `bodies` bodies of 900 kB, damaged in the middle."""
    # Among these commits is one that copies 16 MB into the file, which may take seconds on a busy machine.
    server = site.start(ledger__write_timeout=20)
    for number in range(bodies):
        assert (
            server.post(f"i-{number}", NOBODY | {"pad": f"{number}" * 900_000 if number < 10 else "x" * 900_000}).status
            == 202
        )
    server.stop()
    size = site.database.stat().st_size
    with site.database.open("r+b") as file:
        file.seek(size // 2)
        file.write(b"\xff" * (size // 8))
    return size


def test_a_server_does_not_start_on_a_damaged_file(site):
    """A small file is checked before the first write."""
    fill(site, bodies=3)
    server = site.start(ready=False)
    assert server.wait() == 1
    assert any("is damaged" in line and "restore a backup" in line for line in server.lines)
    assert not any("Traceback" in line for line in server.lines)


def test_a_large_damaged_file_is_found_while_the_server_works(site):
    """A large file is checked in the background; after a fault no callback is acknowledged."""
    assert fill(site, bodies=24) > 16 * 1024 * 1024
    server = site.start()
    record = server.until_logged("database_damaged")
    assert server.post("after", NOBODY).status == 503
    ready = server.ask("GET", "/readyz", admin=True)
    assert (ready.status, ready.json["trouble"][0]) == (503, record["why"])
    server.stop()


def test_an_unreadable_page_makes_the_server_not_ready(site):
    """After an unreadable page the server is not ready and acknowledges nothing."""
    server = site.start()
    event_id = server.post("before", NOBODY | {"pad": "x" * 500_000}).event_id
    move_log(site.database)
    size = site.database.stat().st_size
    with site.database.open("r+b") as file:
        file.seek(size - 400_000)
        file.write(b"\xff" * 400_000)
    assert server.ask("GET", f"/console/events/{event_id}", admin=True).status == 503
    record = server.until_logged("database_damaged")
    # A write of the server itself, such as the audit entry of its start, may have found it before the reader.
    assert "malformed" in record["why"] or "another program has written to it" in record["why"]
    ready = server.ask("GET", "/readyz", admin=True)
    assert (ready.status, ready.json["trouble"][0]) == (503, record["why"])
    assert server.post("after", NOBODY).status == 503
    assert len(server.logged("database_damaged")) == 1
    server.stop()


def test_a_new_ledger_is_logged(site):
    """The log reports a new ledger, because a wrong path or a missing file would look like an empty one."""
    server = site.start()
    record = server.until_logged("ledger_created")
    assert (record["level"], record["path"]) == ("warning", str(site.database))
    server.stop()
    server = site.start()
    assert not server.logged("ledger_created")
    server.stop()
    site.database.unlink()
    site.start().until_logged("ledger_created")


def test_a_removed_lock_file_allows_no_second_server(site):
    """The database file is locked too; the running server recreates its lock file and logs it."""
    first = site.start()
    lock = site.database.with_name(site.database.name + ".lock")
    lock.unlink()
    second = site.start(ready=False)
    assert second.wait() == 1
    assert any("in use by" in line for line in second.lines)
    record = first.until_logged("lock_file_lost")
    assert (record["level"], record["path"]) == ("error", str(lock))
    # Commands find the server again, which continues.
    assert site.run("events", "reroute", "--parked", "--database", site.database).returncode == 0
    assert first.post("after", NOBODY).status == 202
    third = site.start(ready=False)
    assert third.wait() == 1
    assert any(f"in use by process {first.process.pid}" in line for line in third.lines)
    assert len(first.logged("lock_file_lost")) == 1
    first.stop()
    site.balance()
    site.start().stop()


def test_another_program_reads_and_writes_beside_the_locks(site):
    """The lock on the database file blocks no other SQLite program, and does not delete its log."""
    server = site.start()
    server.post("before", NOBODY)
    program = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], timeout=20);"
        "c.execute('UPDATE counters SET value = value + 0'); c.commit();"
        "print(c.execute('SELECT count(*) FROM events').fetchone()[0])"
    )
    done = subprocess.run(["python3", "-c", program, str(site.database)], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"
    # Without SQLite's own lock the other program would believe to be the last one, and delete the log.
    assert beside(site.database, "-wal").exists()
    assert server.post("after", NOBODY).status == 202
    server.stop()
