"""The handlers of flowhooks-contracts, called as flowhooks calls them, on real files."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

import flowhooks_contracts as contracts
import pytest

from flowhooks import Delivery, Event, Reject, Retry, RetryAfter
from flowhooks.errors import InvalidCallback
from flowhooks.plugins.plugins import Plugins
from flowhooks.schema.plugin_schemas import load_plugin_schemas
from flowhooks.schema.schemas import Schemas

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder for the archive and the outbox of each test, set through the plugin's own settings."""
    contracts.configure({"database": str(tmp_path / "contracts.db"), "outbox": str(tmp_path / "outbox.txt")})
    yield tmp_path
    contracts.configure({})


def event(**changes: Any) -> Event:
    """The event of the API page's example, with changes."""
    members: dict[str, Any] = {
        "id": "event-1",
        "flow_instance_id": "1",
        "business_key": "1",
        "callback_class": "com.cnooc.test.CallbackHandler",
        "process_definition_key": "test_flow_key",
        "process_definition_version": 1,
        "data": {},
        "received_at": datetime.now(UTC),
    }
    return Event(**members | changes)


def delivery(number: int = 1, *, attempt: int = 1) -> Delivery:
    """One delivery of the first handler."""
    return Delivery(id=f"delivery-{number}", event_id="event-1", handler="contracts:archive_contract", attempt=attempt)


def rows(folder: Path, columns: str) -> list[tuple[Any, ...]]:
    """The rows of the archive, ordered by number."""
    with closing(sqlite3.connect(folder / "contracts.db")) as connection:
        return connection.execute(f"SELECT {columns} FROM contracts ORDER BY archive_number").fetchall()


def test_the_entry_point_names_the_plugin() -> None:
    """The installed package announces the module as the plugin `contracts`."""
    found = entry_points(group="flowhooks", name="contracts")
    assert [entry_point.load() for entry_point in found] == [contracts]


def test_an_event_becomes_a_row(folder: Path) -> None:
    """A completed process is one row of the archive, and the row's number is the handler's result."""
    assert contracts.archive_contract(event(), delivery()) == {"archive_number": 1}
    assert rows(folder, "delivery_id, source, flow_instance_id, business_key, version, revoked_at") == [
        ("delivery-1", "default", "1", "1", 1, None)
    ]
    ((archived_at,),) = rows(folder, "archived_at")
    assert datetime.fromisoformat(archived_at).tzinfo is UTC


def test_a_second_attempt_archives_no_second_row(folder: Path) -> None:
    """A second attempt of the same delivery leaves one row and returns the same number."""
    first = contracts.archive_contract(event(), delivery())
    contracts.archive_contract(event(flow_instance_id="2"), delivery(2))
    assert contracts.archive_contract(event(), delivery(attempt=2)) == first
    assert rows(folder, "delivery_id") == [("delivery-1",), ("delivery-2",)]


def test_many_threads_archive_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forty deliveries, each run twice, from eight threads on a file that does not exist yet: forty rows."""
    monkeypatch.setattr(contracts.archive, "busy_timeout", 60.0)  # SQLite gives the lock to anyone, not in turn
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda n: contracts.archive_contract(event(), delivery(n % 40)), range(80)))
    assert results[:40] == results[40:]
    assert sorted(result["archive_number"] for result in results[:40]) == list(range(1, 41))
    assert len(rows(folder, "1")) == 40


@pytest.mark.parametrize("key", [None, ""])
def test_an_event_without_a_business_key_is_rejected(folder: Path, key: str | None) -> None:
    """An event without a business key is rejected before any file is created."""
    with pytest.raises(Reject, match="no businessKey"):
        contracts.archive_contract(event(business_key=key), delivery())
    assert not (folder / "contracts.db").exists()


@pytest.mark.parametrize("handler", ["archive_contract", "revoke_contract"])
def test_a_busy_archive_requests_a_retry(folder: Path, handler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """While another program writes, the handlers request a retry after five seconds; later they succeed."""
    contracts.archive_contract(event(), delivery())
    monkeypatch.setattr(contracts.archive, "busy_timeout", 0.05)
    given = (event(data={"revokeReason": "withdrawn"}), delivery(2))[: 2 if handler == "archive_contract" else 1]
    function = getattr(contracts, handler)
    with closing(sqlite3.connect(folder / "contracts.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(RetryAfter, match="in use by another program") as raised:
            function(*given)
    assert raised.value.seconds == 5
    function(*given)


def test_a_broken_archive_is_not_reported_as_busy(tmp_path: Path) -> None:
    """Only a busy archive raises `RetryAfter`; a missing folder is a failure for which `retry=` decides."""
    contracts.configure({"database": str(tmp_path / "missing" / "contracts.db")})
    with pytest.raises(sqlite3.OperationalError, match="unable to open"):
        contracts.archive_contract(event(), delivery())


def test_a_revocation_marks_the_contract(folder: Path) -> None:
    """A revocation marks the contract once: a second run keeps the first reason, and other contracts do not change."""
    contracts.archive_contract(event(), delivery(1))
    contracts.archive_contract(event(flow_instance_id="2"), delivery(2))
    contracts.archive_contract(event(source="other-engine"), delivery(3))
    contracts.revoke_contract(event(kind="revoke", data={"revokeReason": "withdrawn"}))
    contracts.revoke_contract(event(kind="revoke", data={"revokeReason": "again"}))
    assert rows(folder, "revoke_reason, revoked_at IS NOT NULL") == [("withdrawn", 1), (None, 0), (None, 0)]


def test_a_revocation_before_its_contract_fails(folder: Path) -> None:
    """A revocation that arrives before its contract fails; the attempt after the contract succeeds."""
    early = event(kind="revoke", data={"revokeReason": "withdrawn"})
    with pytest.raises(LookupError, match="flow 1 has no contract"):
        contracts.revoke_contract(early)
    contracts.archive_contract(event(), delivery())
    contracts.revoke_contract(early)
    assert rows(folder, "revoke_reason") == [("withdrawn",)]


def test_an_announcement_is_sent_and_found(folder: Path) -> None:
    """The probe returns no before the announcement and yes after it, only for this delivery."""
    probe = contracts.announce_contract.probe
    assert probe is not None
    assert probe(event(), delivery()) is False
    contracts.announce_contract(event(business_key="合同 7\ndelivery-2 x"), delivery())
    assert probe(event(), delivery()) is True
    assert probe(event(), delivery(2)) is False
    assert (folder / "outbox.txt").read_text("utf-8") == ('delivery-1 "Contract 合同 7\\ndelivery-2 x was signed."\n')


def test_a_repeated_announcement_is_sent_twice(folder: Path) -> None:
    """Running the announcement twice announces twice, which is why its handler declares no retry."""
    contracts.announce_contract(event(), delivery())
    contracts.announce_contract(event(), delivery(attempt=2))
    assert len((folder / "outbox.txt").read_text("utf-8").splitlines()) == 2
    assert contracts.announce_contract.retry is None


@pytest.mark.parametrize("begun", [b"delive", b'delivery-2 "Contr', 'delivery-2 "合'.encode()[:-1]])
def test_the_probe_reports_an_unknown_result(folder: Path, begun: bytes) -> None:
    """If a line is incomplete, also before others, the probe does not know whether its message was sent."""
    contracts.announce_contract(event(), delivery())
    with (folder / "outbox.txt").open("ab") as out:
        out.write(begun)
    assert contracts.was_announced(event(), delivery()) is True
    assert contracts.was_announced(event(), delivery(2)) is None
    contracts.announce_contract(event(), delivery(3))
    assert contracts.was_announced(event(), delivery(3)) is True
    assert contracts.was_announced(event(), delivery(2)) is None
    contracts.announce_contract(event(), delivery(2))
    assert contracts.was_announced(event(), delivery(2)) is True


def test_many_threads_announce_at_once(folder: Path) -> None:
    """Long announcements of eight threads do not mix: each is found complete."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: contracts.announce_contract(event(business_key="x" * 20_000), delivery(n)), range(40)))
    lines = (folder / "outbox.txt").read_text("utf-8").splitlines()
    assert {len(line.partition(" ")[2]) for line in lines if line} == {len('"Contract  was signed."') + 20_000}
    assert all(contracts.was_announced(event(), delivery(n)) for n in range(40))


def test_a_schema_file_adds_a_callback_kind() -> None:
    """The package's schema folder adds the kind `revoke`, which requires a reason and has the same six members."""
    schemas, _ = load_plugin_schemas(Schemas.load(), contracts.schemas())
    assert set(schemas.kinds) == {"cancel", "complete", "error", "revoke", "terminate"}
    schemas.check_body("revoke", {"revokeReason": "withdrawn", "businessKey": "1", "more": 1})
    with pytest.raises(InvalidCallback) as raised:
        schemas.check_body("revoke", {"businessKey": True})
    assert [pointer for pointer, *_ in raised.value.violations] == ["", "/businessKey"]


def test_handler_declarations_match_the_readme() -> None:
    """Class, key, kind and retry of the three handlers match the README."""
    archive, announce, revoke = contracts.handlers()
    for each, kind in ((archive, "complete"), (revoke, "revoke")):
        assert each.selectors.callback_classes == ("com.cnooc.test.CallbackHandler",)
        assert each.selectors.process_keys == ("test_flow_key",)
        assert each.selectors.kind == kind
    assert (archive.retry, revoke.retry) == (Retry(attempts=10), Retry())
    assert (announce.selectors.process_keys, announce.retry) == (("contract_announcement",), None)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"databse": "x.db"}, "[plugins.contracts] databse is not a setting; the settings are database, outbox"),
        ({"database": 5}, "[plugins.contracts] database must be of type string"),
        ({"outbox": ""}, "[plugins.contracts] outbox must not be shorter than 1 characters"),
    ],
)
def test_wrong_settings_are_rejected(folder: Path, settings: dict[str, Any], message: str) -> None:
    """A misspelt setting or a wrong type is reported, the plugin is not used, and no file changes."""
    plugins = Plugins.load(
        dirs=(),
        allow=(),
        deny=(),
        safe_mode=False,
        sections={"contracts": settings},
        entry_points=(),
        objects={"contracts": contracts},
    )
    assert plugins.infos[0].error.endswith(message)
    assert not plugins.handlers
    assert contracts.archive.database == folder / "contracts.db"


def test_the_class_schema_reports_unsearchable_values() -> None:
    """The schema of the class's data accepts what engines send, and reports values that the archive cannot search."""
    _, own = load_plugin_schemas(Schemas.load(), contracts.schemas())
    assert own.classes == (contracts.CALLBACK_CLASS,)

    def refused(**data: Any) -> str | None:
        return own.why_data_invalid(data, callback_class=contracts.CALLBACK_CLASS, process_key=None)

    assert refused(businessKey="1", processDefinitionVersion=1) is None
    assert refused(businessKey="HT-2026 第7号", revokeReason="signed by mistake") is None
    assert refused() is None
    said = refused(businessKey="HT-7 ", processDefinitionVersion=0)
    assert said is not None
    assert "/businessKey: must match" in said
    assert "/processDefinitionVersion: must be at least 1" in said


def test_default_file_paths_without_a_settings_section(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without settings both files are in the server's working directory, even if another plugin changes it later."""
    monkeypatch.chdir(tmp_path)
    contracts.configure({})
    assert contracts.archive.database == tmp_path / "contracts.db"
    assert contracts.outbox.file == tmp_path / "contracts-outbox.txt"
