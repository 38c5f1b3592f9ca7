"""flowhooks-audit on real files: which facts are recorded, how often, and whether a change is found."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

import flowhooks_audit
import pytest
from flowhooks_audit import Audit, chain
from flowhooks_audit.__main__ import main
from flowhooks_audit.trail import Trail, TrailDamaged, index_path

from flowhooks import Delivery, Event, FlowhooksError, Reject, handler
from flowhooks.testing import AppFactory, exactly_once, make_event

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from flowhooks.testing import AppFactory, AppHarness


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The path of the trail; the file does not exist yet."""
    return tmp_path / "audit.jsonl"


@pytest.fixture
def trail(file: Path) -> Trail:
    """A trail that is empty."""
    return Trail(file)


@pytest.fixture
def audited(file: Path, flowhooks_app: AppFactory) -> Callable[..., AppHarness]:
    """Start flowhooks with the plugin, its file and further settings, and further plugins."""

    def start(*plugins: object, **settings: Any) -> AppHarness:
        return flowhooks_app(*plugins, names={"audit": Audit()}, settings={"audit": {"file": str(file)} | settings})

    return start


def records(file: Path) -> list[dict[str, Any]]:
    """The records of a trail."""
    return [json.loads(line) for line in file.read_text("ascii").splitlines()]


def verify(*words: object) -> int:
    """Run the command and return its exit code."""
    return main(["verify", *map(str, words)])


def test_the_entry_point_names_the_plugin() -> None:
    """The installed package announces its object as the plugin `audit`."""
    found = entry_points(group="flowhooks", name="audit")
    assert [entry_point.load() for entry_point in found] == [flowhooks_audit.plugin]


def test_an_event_is_a_record(audited: Callable[..., AppHarness], file: Path) -> None:
    """With any key, the event is one line with all data of the callback, and the trail is complete."""
    app = audited()
    body: dict[str, Any] = {
        "processDefinitionKey": "leave",
        "businessKey": "合同\n1",
        "conclusion": "approved",
        "more": {"x": None, "y": 1},
    }
    event_id = app.post("4711", **body).event_id
    delivery = app.wait_for(event_id, "succeeded")
    (record,) = records(file)
    assert record.pop("at")
    assert len(record.pop("hash")) == 64
    assert record == {
        "number": 1,
        "previous": "0" * 64,
        "key": delivery.id,
        "what": "event",
        "event": event_id,
        "receivedAt": app.event(event_id).received_at.isoformat(timespec="milliseconds"),
        "source": "default",
        "kind": "complete",
        "flowInstanceId": "4711",
        "businessKey": "合同\n1",
        "callBackProcessClass": None,
        "processDefinitionId": None,
        "processDefinitionKey": "leave",
        "processDefinitionVersion": None,
        "conclusion": "approved",
        "data": dict(app.event(event_id).data),
    }
    assert verify(file) == 0


def test_the_data_can_be_left_out(audited: Callable[..., AppHarness], file: Path) -> None:
    """With `data = false` the record has the data's SHA-256, which does not depend on the order of members."""
    app = audited(data=False)
    app.post("1", a=1, b="personal")
    app.post("2", b="personal", a=1)
    first, second = records(file)
    assert "personal" not in file.read_text()
    assert first["dataSha256"] == second["dataSha256"]
    assert "data" not in first


@pytest.mark.parametrize("lines", [4, pytest.param(20, marks=pytest.mark.long)])
def test_each_event_is_recorded_once_despite_kills(tmp_path: Path, lines: int) -> None:
    """After a kill at any line and a repeated callback, each event has one record and the trail is complete."""
    file = tmp_path / "audit.jsonl"
    report = exactly_once(
        Audit(),
        name="audit",
        settings={"file": str(file)},
        make={"processDefinitionKey": "leave"},
        done=lambda event: sum(record["event"] == event.id for record in records(file)) if file.exists() else 0,
        lines=lines,
    )
    assert report.ok, str(report)
    assert report.exactly_once, str(report)
    assert verify(file) == 0


def test_a_replay_writes_no_second_record(trail: Trail, file: Path) -> None:
    """A replay writes the same key once, in this process or another; only those who read the trail read its keys."""
    assert trail.append("a", {"x": 1}) is True
    assert trail.append("b", {"x": 2}) is True
    assert trail.append("a", {"x": 3}) is False
    assert Trail(file).append("b", {"x": 4}) is False
    assert [(record["number"], record["x"]) for record in records(file)] == [(1, 1), (2, 2)]
    assert index_path(file).stat().st_mode == file.stat().st_mode


def test_kill_between_file_and_index_writes(trail: Trail, file: Path) -> None:
    """Records in the file and not in the index are not written again: the index catches up."""
    trail.append("a", {})
    index = index_path(file).read_bytes()
    trail.append("b", {})
    index_path(file).write_bytes(index)
    assert Trail(file).append("b", {}) is False
    assert Trail(file).append("c", {}) is True
    assert [record["key"] for record in records(file)] == ["a", "b", "c"]
    assert verify(file) == 0


def test_kill_before_the_record_is_durable(trail: Trail, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A killed process's record is synced, with the name of its file, before it counts as written."""
    trail.append("a", {})
    index_path(file).unlink()
    synced = []
    sync = os.fsync

    def noting(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_ino)
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", noting)
    assert Trail(file).append("a", {}) is False
    assert synced == [file.stat().st_ino, file.parent.stat().st_ino]


@pytest.mark.parametrize("kept", [1, 40, -1])
def test_kill_within_a_line(trail: Trail, file: Path, kept: int) -> None:
    """An incomplete line is cut off, and its record is written again in full."""
    trail.append("a", {})
    whole = file.read_bytes()
    index = index_path(file).read_bytes()
    trail.append("b", {})
    line = file.read_bytes()[len(whole) :]
    file.write_bytes(whole + line[:kept])
    index_path(file).write_bytes(index)
    assert verify(file) == 1
    assert Trail(file).append("b", {}) is True
    assert [record["key"] for record in records(file)] == ["a", "b"]
    assert verify(file) == 0


def test_a_lost_index_is_rebuilt(trail: Trail, file: Path) -> None:
    """A lost index is rebuilt from the file."""
    for key in "abc":
        trail.append(key, {})
    index_path(file).unlink()
    assert [Trail(file).append(key, {}) for key in "abcd"] == [False, False, False, True]
    assert verify(file) == 0


def test_verify_after_a_kill_before_the_first_write_of_an_index(trail: Trail, file: Path) -> None:
    """An index that was created and has no table yet counts as no index."""
    trail.append("a", {})
    index_path(file).write_bytes(b"")
    assert verify(file) == 0


def test_a_lost_index_of_a_continuation_file_is_rebuilt(trail: Trail, file: Path, tmp_path: Path) -> None:
    """The index of a file that continues an earlier file is rebuilt; the chain continues from the file's end."""
    trail.append("a", {})
    old = file.rename(tmp_path / "audit-1.jsonl")
    trail.append("b", {})
    index_path(file).unlink()
    assert [Trail(file).append(key, {}) for key in "bc"] == [False, True]
    assert verify(old, file) == 0
    file.write_bytes(old.read_bytes() + file.read_bytes())  # as the README says
    index_path(file).unlink()
    assert [Trail(file).append(key, {}) for key in "abcd"] == [False, False, False, True]
    assert verify(file) == 0


def test_a_new_file_continues_the_chain_of_a_moved_file(trail: Trail, file: Path, tmp_path: Path) -> None:
    """A new file continues the chain and the keys; both files together are complete, the new file alone is not."""
    trail.append("a", {})
    trail.append("b", {})
    old = file.rename(tmp_path / "audit-1.jsonl")
    last = records(old)[-1]["hash"]
    file.touch()  # as logrotate does with `create`
    assert verify("--after", last, file) == verify("--after", last, "--last", last, file) == 0
    assert verify("--after", records(old)[0]["hash"], file) == 1
    assert trail.append("a", {}) is False
    assert trail.append("c", {}) is True
    assert [record["number"] for record in records(file)] == [3]
    assert verify(old, file) == 0
    assert verify("--after", last, file) == 0
    assert verify(file) == 1
    assert verify("--after", "f" * 64, file) == 1
    assert verify(file, old) == 1


def test_a_file_moved_during_an_append(
    trail: Trail, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record is the last one of the file that was moved away; the next one starts a new file."""
    trail.append("a", {})
    real = chain.encode

    def encode(*args: Any, **named: Any) -> tuple[bytes, chain.Position]:
        file.rename(tmp_path / "audit-1.jsonl")
        return real(*args, **named)

    with monkeypatch.context() as patch:
        patch.setattr(chain, "encode", encode)
        assert trail.append("b", {}) is True
    assert [trail.append(key, {}) for key in "bc"] == [False, True]
    assert [record["key"] for record in records(tmp_path / "audit-1.jsonl")] == ["a", "b"]
    assert verify(tmp_path / "audit-1.jsonl", file) == 0


def test_kill_after_the_first_record_of_a_new_file(trail: Trail, file: Path, tmp_path: Path) -> None:
    """A new file with one record is not reported as truncated."""
    for key in "abc":
        trail.append(key, {"x": "long" * 100})
    file.rename(tmp_path / "audit-1.jsonl")
    assert trail.append("a", {}) is False  # the plugin has now noticed that the file was moved away
    index = index_path(file).read_bytes()
    trail.append("d", {})
    index_path(file).write_bytes(index)
    assert Trail(file).append("d", {}) is False
    assert verify(tmp_path / "audit-1.jsonl", file) == 0


def damaged(file: Path, how: str) -> bytes:
    """A changed copy of three records."""
    first, second, third = file.read_bytes().splitlines(keepends=True)
    made = {
        "a value changed": [first, second.replace(b'"x":2', b'"x":9'), third],
        "a hash changed": [first, second.replace(b'"hash":"', b'"hash":"0')[:-4] + b'"}\n', third],
        "the first removed": [second, third],
        "one in the middle removed": [first, third],
        "the last removed": [first, second],
        "all removed": [],
        "two exchanged": [second, first, third],
        "one twice": [first, second, second, third],
        "one put in": [first, chain.encode({"x": 5}, after=chain.START)[0], second, third],
        "no JSON": [first, b"x\n", third],
        "an empty line": [first, b"\n", second, third],
        "the end cut off": [first, second, third[:-9]],
        "a line end in Windows' way": [first, second[:-1] + b"\r\n", third],
        "something after it": [first, second, third, b'{"number":4}\n'],
        "not text": [first, b"\xff\xfe\n", third],
    }
    return b"".join(made[how])


@pytest.mark.parametrize(
    "how",
    [
        "a value changed",
        "a hash changed",
        "the first removed",
        "one in the middle removed",
        "the last removed",
        "all removed",
        "two exchanged",
        "one twice",
        "one put in",
        "no JSON",
        "an empty line",
        "the end cut off",
        "a line end in Windows' way",
        "something after it",
        "not text",
    ],
)
def test_changes_of_the_trail_are_detected(
    trail: Trail, file: Path, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """For each kind of change, the command reports the place and exits with 1."""
    for number, key in enumerate("abc", 1):
        trail.append(key, {"x": number})
    assert verify(file) == 0
    assert capsys.readouterr().out.startswith("the trail is unchanged up to record 3, ")
    file.write_bytes(damaged(file, how))
    assert verify(file) == 1
    assert str(file) in capsys.readouterr().err


@pytest.mark.parametrize("members", [{"number": "1"}, {"number": 2**63}, {"number": True}, {"previous": ["0"]}])
def test_a_record_with_a_wrong_type_is_reported(trail: Trail, file: Path, members: dict[str, Any]) -> None:
    """A line with a fitting hash and a wrong type is reported, and nothing is appended to it."""
    body = json.dumps({"number": 1, "previous": chain.START.hash} | members)
    file.write_text(f'{body[:-1]},"hash":"{hashlib.sha256(body.encode()).hexdigest()}"}}\n', "ascii")
    assert verify("--after", "ab", file) == 1
    with pytest.raises(TrailDamaged, match="this is not a record"):
        trail.append("a", {})


def test_a_forged_trail_is_detected_by_an_external_hash(
    trail: Trail, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An attacker who can write both files can forge a whole chain; a hash noted elsewhere reveals that, too."""
    trail.append("a", {"x": 1})
    noted = records(file)[0]["hash"]
    trail.append("b", {"x": 2})
    assert verify("--last", noted, file) == 0
    file.unlink()
    index_path(file).unlink()
    trail.append("a", {"x": 9})
    assert verify(file) == 0
    assert verify("--last", noted, file) == 1
    assert noted in capsys.readouterr().err


@pytest.mark.parametrize("how", ["the last removed", "the end cut off", "something after it"])
def test_nothing_is_appended_to_a_damaged_trail(
    audited: Callable[..., AppHarness], trail: Trail, file: Path, how: str
) -> None:
    """On a damaged trail the delivery fails with an instruction, and nothing is appended."""
    for number, key in enumerate("abc", 1):
        trail.append(key, {"x": number})
    file.write_bytes(damaged(file, how))
    before = file.read_bytes()
    app = audited()
    delivery = app.delivery(app.post("1").event_id)
    assert (delivery.state, delivery.outcome) == ("waiting", "failed")
    assert "TrailDamaged" in delivery.error
    assert str(file) in delivery.error
    assert file.read_bytes() == before


def test_a_full_disk_leaves_no_half_record(trail: Trail, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A partly written line is cut off before the next record."""
    trail.append("a", {})
    real = os.write

    def full(descriptor: int, data: Any) -> int:
        if len(data) > 10:
            return real(descriptor, data[:10])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda descriptor, data: full(descriptor, data[:12]))
        with pytest.raises(OSError, match="No space left"):
            trail.append("b", {})
    assert not file.read_bytes().endswith(b"\n")
    assert trail.append("b", {}) is True
    assert [record["key"] for record in records(file)] == ["a", "b"]


def test_many_threads_record_at_once(trail: Trail, file: Path) -> None:
    """Forty keys, each twice, from eight threads on a trail that does not exist yet: forty records, one chain."""
    with ThreadPoolExecutor(8) as pool:
        written = list(pool.map(lambda n: trail.append(f"k{n % 40}", {"x": "y" * 5000}), range(80)))
    assert written.count(True) == 40
    assert len({record["key"] for record in records(file)}) == 40
    assert verify(file) == 0


def test_two_processes_record_at_once(file: Path) -> None:
    """Two trails on one file, as of two misconfigured servers, still write one chain and each key once."""
    code = "import pathlib, sys; from flowhooks_audit import trail as module"
    code += "\nmodule.BUSY_TIMEOUT = 60.0"  # SQLite gives the lock to anyone, not in turn
    code += "\ntrail = module.Trail(pathlib.Path(sys.argv[1]))\nfor n in range(25): trail.append(f'k{n}', {})"
    both = [subprocess.Popen([sys.executable, "-c", code, str(file)]) for _ in range(2)]
    assert [process.wait(60) for process in both] == [0, 0]
    assert len(records(file)) == 25
    assert verify(file) == 0


def test_plugin_without_a_file_logs_that_nothing_is_recorded(caplog: pytest.LogCaptureFixture) -> None:
    """Without settings the plugin writes no file and logs that it records nothing."""
    audit = Audit()
    audit.configure(settings={})
    assert audit.handlers() == []
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == ["nothing is recorded"]


def test_each_kind_has_a_handler(file: Path) -> None:
    """The plugin has a handler for each kind in its settings; the default is `complete`."""
    audit = Audit()
    audit.configure(settings={"file": str(file)})
    assert [handler.name for handler in audit.handlers()] == ["record_complete"]
    audit.configure(settings={"file": str(file), "kinds": ["complete", "cancel"]})
    assert [(handler.name, handler.selectors.kind, handler.selectors.every) for handler in audit.handlers()] == [
        ("record_complete", "complete", True),
        ("record_cancel", "cancel", True),
    ]


def test_a_relative_path_stays_where_it_was_configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another plugin that changes the working folder later does not move the trail."""
    monkeypatch.chdir(tmp_path)
    audit = Audit()
    audit.configure(settings={"file": "audit.jsonl"})
    (tmp_path / "later").mkdir()
    monkeypatch.chdir("later")
    (record,) = audit.handlers()
    record(make_event(flow_instance_id="1"), Delivery(id="d", event_id="e", handler="audit:record_complete", attempt=1))
    assert (tmp_path / "audit.jsonl").read_bytes().count(b"\n") == 1


@handler(process_key="leave")
def refuse(event: Event) -> None:
    """Reject the event."""
    raise Reject("there is no such leave")


def test_outcomes_are_recorded_if_configured(
    audited: Callable[..., AppHarness], file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `outcomes = true` attempts of other plugins are recorded in the same chain; the plugin's own are not."""
    # On a busy machine a record may take longer than a stop waits for it.
    monkeypatch.setattr("flowhooks.app.STOP_TIMEOUT", 60.0)
    app = audited(refuse, outcomes=True)
    event_id = app.post("1", processDefinitionKey="leave").event_id
    refused = app.delivery(event_id, "refuse")
    app.close()  # flushes the pending notifications
    found = {record["what"]: record for record in records(file)}
    assert len(records(file)) == 2
    outcome = found["outcome"]
    assert {
        name: outcome[name] for name in ("event", "handler", "delivery", "attempt", "outcome", "state", "error")
    } == {
        "event": event_id,
        "handler": refused.handler,
        "delivery": refused.id,
        "attempt": 1,
        "outcome": "rejected",
        "state": "dead",
        "error": "there is no such leave",
    }
    assert verify(file) == 0


def test_outcomes_are_not_recorded_by_default(audited: Callable[..., AppHarness], file: Path) -> None:
    """Without the setting only events are recorded."""
    app = audited(refuse)
    app.post("1", processDefinitionKey="leave")
    app.close()
    assert [record["what"] for record in records(file)] == ["event"]


def test_a_missing_folder_quarantines_the_plugin_at_start(tmp_path: Path, flowhooks_app: AppFactory) -> None:
    """A missing folder quarantines the plugin at start, with an instruction, before the first event."""
    settings = {"audit": {"file": str(tmp_path / "missing" / "audit.jsonl")}}
    with pytest.raises(FlowhooksError, match=r"\[plugins.audit\] file: the folder .*missing does not exist; create it"):
        flowhooks_app(names={"audit": Audit()}, settings=settings)


def test_a_folder_at_the_file_path_quarantines_the_plugin(tmp_path: Path, flowhooks_app: AppFactory) -> None:
    """A folder at the path of the file quarantines the plugin at start."""
    with pytest.raises(FlowhooksError, match=r"\[plugins.audit\] file: .* is a folder; give a file in it"):
        flowhooks_app(names={"audit": Audit()}, settings={"audit": {"file": str(tmp_path)}})


@pytest.mark.parametrize(
    "settings", [{"flie": "x"}, {"file": 5}, {"kinds": []}, {"kinds": ["a b"]}, {"data": "no"}, {"outcomes": 1}]
)
def test_wrong_settings_are_rejected(settings: dict[str, Any], flowhooks_app: AppFactory) -> None:
    """The schema of the settings reports a misspelt name or a wrong type."""
    with pytest.raises(FlowhooksError, match=next(iter(settings))):
        flowhooks_app(names={"audit": Audit()}, settings={"audit": settings})


def test_verify_command_exit_codes(trail: Trail, file: Path) -> None:
    """`python -m flowhooks_audit verify FILE` exits with 0, with 1 on damage, and with 2 if it cannot check."""

    def run(*words: object) -> tuple[int, str, str]:
        command = [sys.executable, "-m", "flowhooks_audit", *map(str, words)]
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        return ran.returncode, ran.stdout, ran.stderr

    trail.append("a", {})
    last = records(file)[0]["hash"]
    assert run("verify", file) == (0, f"the trail is unchanged up to record 1, {last}\n", "")
    code, out, err = run("verify", file.with_name("missing"))
    assert (code, out) == (2, "")
    assert err.startswith("cannot be read: ")
    assert run()[0] == 2
    file.write_bytes(file.read_bytes().replace(b'"a"', b'"b"'))
    code, out, err = run("verify", file)
    assert (code, out) == (1, "")
    assert err == f"{file}, line 1: the record was changed: it does not match its hash\n"
