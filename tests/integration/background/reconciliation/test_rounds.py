"""Reconciliation takes in finished instances, by the rules of each source."""

from __future__ import annotations

import json
import sys
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from flowhooks.background.alerts.engine_causes import UNREACHABLE, EngineCauseFinder
from flowhooks.clock import DAY, SECOND, to_datetime
from flowhooks.errors import LedgerError, NotFound, SettingsError
from flowhooks.ledger.purge import PURGED_BY_DEFAULT
from flowhooks.model.engine import EndState
from flowhooks.operations.engines import ask_engine, reconcile
from flowhooks.settings import Source
from flowhooks.settings.signing_keys import Secret
from flowhooks.testing.engines.fake_engine import FakeEngine
from support.app_harness import plugin
from support.asked_engine import MINUTE, grant, settings_of
from support.waiting import until

pytestmark = pytest.mark.either
HOUR = 3600


def windows(engine):
    """The window of each page that was asked for."""
    return [call[1:3] for call in engine.calls if call[0] == "finished"]


# Instances and events.


def test_a_finished_instance_without_a_callback_becomes_an_event(asked):
    """After its grace, and not before, an instance of the history is an event with its data, once."""
    asked.finish("i1", variables={"amount": 5, "other": 1, "conclusion": "approved"}, business_key="b1")
    assert asked.round().in_grace == 1
    assert asked.events() == {}
    assert asked.after_grace().taken_in == 1
    assert asked.events() == {"i1": "reconciled"}
    assert asked.book() == {"i1": ("has_event", "")}
    event = asked.flow.app.ledger.event(asked.flow.events()[0]).event
    named = ("amount", "conclusion", "businessKey", "endState", "endTime")
    assert [event.data.get(name) for name in named] == [5, "approved", "b1", "completed", "2026-01-01T00:01:00.000Z"]
    assert "other" not in event.data
    assert asked.after_grace().taken_in == 0
    assert len(asked.flow.events()) == 1


def test_an_instance_with_a_callback_has_its_event(asked):
    """A callback before or after the first reading is the instance's event, whatever class it has."""
    asked.flow.take("i1", source="oa", wait=0)
    asked.finish("i1")
    asked.finish("i2")
    result = asked.round()
    assert (result.has_event, result.in_grace) == (1, 1)
    asked.flow.take("i2", source="oa", callback_class="com.example.Other", wait=0)
    assert asked.book()["i2"] == ("has_event", "")
    assert asked.after_grace().taken_in == 0
    assert asked.events() == {"i1": "callback", "i2": "callback"}


def test_an_event_of_another_source_is_not_the_instances_event(asked):
    """The same instance id of another engine is another instance."""
    asked.flow.take("i1", source="other", wait=0)
    asked.finish("i1")
    asked.round()
    assert asked.after_grace().taken_in == 1


def test_a_mapped_conclusion(open_app):
    """The book and the event have the conclusion in the words of the settings, the data the engine's."""
    asked = open_app(sources={"oa": settings_of(conclusion={"agree": "approved"})})
    asked.round()
    asked.finish("i1", variables={"conclusion": "agree"})
    asked.round()
    assert asked.flow.sql("SELECT conclusion FROM engine_instances") == [("approved",)]
    asked.after_grace()
    assert asked.flow.sql("SELECT conclusion FROM events") == [("approved",)]


def test_an_undecided_end_is_parked(asked):
    """An instance whose end the history cannot tell is an event that waits for an operator."""
    asked.finish("i1", end_state=EndState.UNDECIDED)
    asked.round()
    asked.after_grace()
    assert asked.flow.sql("SELECT state, parked_by, kind FROM events") == [("parked", "end_state", "complete")]


def test_an_older_event_is_not_the_event_of_a_reused_id(asked, logged):
    """If an event was received before the instance started, the instance is taken in, and the log names the id."""
    asked.flow.take("i1", source="oa", wait=0)
    asked.clock.advance(HOUR)
    asked.engine.start("i1")
    asked.clock.advance(MINUTE)
    asked.finish("i1")
    asked.round()
    assert asked.after_grace().taken_in == 1
    assert len(asked.flow.events()) == 2
    assert [record["flow_instance_id"] for record in logged if record["event"] == "instance_id_reused"] == ["i1"]


def test_an_id_that_ends_again_is_another_instance(asked):
    """An instance with the id of one that has an event is decided again, and is not lost."""
    asked.finish("i1")
    asked.round()
    asked.after_grace()
    asked.clock.advance(HOUR)
    asked.finish("i1")
    assert asked.round().in_grace == 1
    assert asked.after_grace().taken_in == 1
    assert asked.flow.sql("SELECT count(*) FROM events") == [(2,)]


# Rules that skip an instance.


def test_called_instances_are_skipped(asked):
    """An instance that another one called is skipped by the rule that names it."""
    asked.finish("child", parent_id="parent")
    assert asked.round().skipped == {"child": 1}
    assert asked.after_grace().taken_in == 0
    assert asked.book() == {"child": ("skipped", "child")}


def test_called_instances_are_imported_if_configured(open_app):
    """With children = true a called instance is like any other."""
    asked = open_app({"children": True})
    asked.round()
    asked.finish("child", parent_id="parent")
    asked.round()
    assert asked.after_grace().taken_in == 1


@pytest.mark.parametrize(("state", "kind"), [("cancelled", "cancel"), ("error", "error"), ("terminated", "terminate")])
def test_instances_with_another_end_state_are_skipped(asked, open_app, state, kind):
    """Instances that ended otherwise are skipped, unless the settings name their kind."""
    asked.finish("i1", end_state=EndState(state))
    assert asked.round().skipped == {"end_state": 1}
    asked.flow.close()
    asked = open_app({"kinds": ("complete", kind)})
    asked.finish("i2", end_state=EndState(state))
    asked.round()
    assert asked.after_grace().taken_in == 1
    assert asked.flow.sql("SELECT flow_instance_id, kind FROM events") == [("i2", kind)]


def test_instances_of_other_tenants_are_skipped(open_app, engine, monkeypatch):
    """A client that returns instances of other tenants does not make them events."""
    create = engine.client
    monkeypatch.setattr(engine, "client", lambda config: create(replace(config, tenants=())))
    asked = open_app({"tenants": ("north",)})
    asked.round()
    asked.finish("i1", tenant_id="north")
    asked.finish("i2", tenant_id="south")
    asked.finish("i3")
    asked.round()
    asked.after_grace()
    assert asked.book() == {
        "i1": ("has_event", ""),
        "i2": ("skipped", "tenant"),
        "i3": ("skipped", "tenant"),
    }


def test_a_purged_instance_is_not_imported_again(asked):
    """After its event was purged, an instance in the history stays without a new event."""
    asked.flow.take("i1", source="oa", key=None, callback_class="c", wait=0)
    ledger = asked.flow.app.ledger
    asked.flow.sql("UPDATE events SET state = 'dismissed', dismissed_by = 'operator', parked_by = NULL")
    asked.harness.check_at_end = False
    cutoffs = dict.fromkeys(PURGED_BY_DEFAULT, asked.clock.now() + DAY)
    ids = asked.flow.events()
    ledger.write(lambda transaction: ledger.purge(transaction, ids, cutoffs))
    assert asked.flow.events() == []
    asked.finish("i1")
    assert asked.round().skipped == {"purged": 1}
    assert asked.after_grace().taken_in == 0


@pytest.mark.parametrize(
    ("fields", "rule", "says"),
    [
        ({"instance_id": "a" * 300}, "invalid_id", "255"),
        ({"instance_id": "a\nb"}, "invalid_id", "U+000A"),
        ({"instance_id": "x\0y" * 300_000}, "invalid_id", "U+0000"),
        ({"variables": {"amount": "x" * 10_000_000}}, "too_large", "65,536 are allowed"),
        ({"variables": {"amount": "a\0b"}}, "invalid", ""),
        ({"variables": {"amount": "\ud800"}}, "invalid", ""),
        ({"variables": {"amount": float("nan")}}, "invalid", "JSON"),
        ({"variables": {"amount": object()}}, "invalid", "JSON"),
        ({"conclusion": "x" * 129}, "invalid", "128"),
        ({"process_definition_version": 2**40}, "invalid", "2147483647"),
        ({"business_key": "a\0b"}, "invalid", ""),
        ({"tenant_id": "\0" * 1_000_000}, "invalid", ""),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 40 else None,
)
def test_an_instance_with_invalid_data_is_skipped_with_the_reason(asked, fields, rule, says):
    """Ids, values and sizes that the API would refuse are skipped, in every database, and the others are taken in."""
    given = dict(fields)
    asked.finish(given.pop("instance_id", "bad"), **given)
    asked.finish("good")
    assert asked.round(dry_run=True).skipped == {rule: 1}
    result = asked.round()
    assert result.skipped == {rule: 1}
    assert asked.round(dry_run=True).skipped == {rule: 1}
    ((detail,),) = asked.flow.sql("SELECT detail FROM engine_instances WHERE rule <> ''")
    assert says in detail
    assert len(detail) <= 500
    assert asked.after_grace().taken_in == 1
    assert asked.events() == {"good": "reconciled"}
    assert asked.round().skipped == {rule: 1}
    assert len(asked.book()) == 2


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ("body = '{\"a\":'", "its row is damaged: "),
        ("body = NULL", "its row is damaged: "),
        ("end_state = 'finished'", "its row is damaged: 'finished' is not a valid EndState"),
    ],
)
def test_a_damaged_row_is_skipped(asked, damage, says):
    """A row that is not read in the history any more stops no other instance."""
    asked.harness.check_at_end = False  # the change is found
    for name in ("i1", "i2"):
        asked.finish(name)
    asked.round()
    asked.engine.delete("i1", "i2")
    asked.flow.sql(f"UPDATE engine_instances SET {damage} WHERE flow_instance_id = 'i1'")
    assert asked.after_grace().taken_in == 1
    assert asked.book() == {"i1": ("skipped", "invalid"), "i2": ("has_event", "")}
    ((detail,),) = asked.flow.sql("SELECT detail FROM engine_instances WHERE flow_instance_id = 'i1'")
    assert detail.startswith(says)


def test_an_instance_without_a_matching_handler_is_parked(open_app):
    """The settings that reject a callback do not reject an instance: nobody would receive the answer."""
    asked = open_app(routing={"no_handler": "reject", "no_name": "reject"})
    asked.round()
    asked.finish("i1", process_definition_key="nobody")
    asked.round()
    assert asked.after_grace().taken_in == 1
    assert asked.flow.sql("SELECT state FROM events") == [("parked",)]


def test_skipped_instances_are_decided_again_only_on_request(open_app):
    """After a change of the settings, instances that were skipped stay skipped until `since` reaches them."""
    asked = open_app()
    asked.round()
    asked.clock.advance(1)
    asked.finish("child", parent_id="p")
    asked.round()
    asked.flow.close()
    asked = open_app({"children": True})
    assert asked.round().skipped == {"child": 1}
    assert asked.round(since=asked.clock.now() - HOUR * SECOND).in_grace == 1
    assert asked.after_grace().taken_in == 1


# An operator's rounds.


def test_older_instances_are_imported_on_request(open_app):
    """After a dry run that changes nothing, a round with `since` takes in what ended before the first contact."""
    asked = open_app()
    asked.finish("old")
    asked.clock.advance(HOUR)
    asked.round()
    since = asked.clock.now() - 2 * HOUR * SECOND
    planned = asked.round(since=since, dry_run=True)
    assert (planned.read, planned.in_grace, planned.taken_in, planned.dry_run) == (1, 1, 1, True)
    assert planned.requests == 2
    assert asked.book() == {}
    assert asked.position().since == asked.clock.now()
    assert asked.round(since=since).taken_in == 1
    assert asked.position().since == since
    assert asked.events() == {"old": "reconciled"}


def test_a_dry_run_before_the_first_contact(open_app):
    """A dry run needs no earlier round, and does not make the first contact."""
    asked = open_app({"max_new": 1})
    asked.finish("old")
    asked.finish("older")
    result = asked.round(since=asked.clock.now() - HOUR * SECOND, dry_run=True)
    assert (result.in_grace, result.to_confirm) == (2, 2)
    assert asked.position() is None


def test_since_does_not_skip_an_unread_interval(asked):
    """A start later than the regular one does not leave a hole."""
    asked.finish("i1")
    asked.clock.advance(HOUR)
    assert asked.round(since=asked.clock.now()).read == 1


@pytest.mark.parametrize("since", [0, -8 * HOUR * SECOND])
def test_a_round_from_the_beginning_of_time_leaves_a_valid_ledger(open_app, since):
    """With identities kept forever, the whole history is read, and `verify` accepts all times, also before 1970."""
    asked = open_app(retention={"identities": 0})
    asked.finish("old", started_at=datetime(1970, 1, 1, tzinfo=timezone(timedelta(hours=8))))
    asked.finish("oldest", started_at=datetime(1970, 1, 1, tzinfo=UTC))
    asked.round()
    assert asked.round(since=since).read == 2
    assert asked.position().since == 0
    asked.after_grace()
    started = dict(asked.flow.sql("SELECT flow_instance_id, started_at FROM engine_instances"))
    assert started == {"old": -8 * HOUR * SECOND, "oldest": 0}
    assert asked.flow.app.ledger.verify().problems == []


def test_no_round_reads_before_the_retained_identities(open_app):
    """A time at which purged events are not known any more is not read, also if an operator asks."""
    asked = open_app(retention={"identities": 30})
    asked.finish("old")
    asked.clock.advance(31 * DAY // SECOND)
    asked.round()
    assert asked.round(since=asked.clock.now() - 60 * DAY).read == 0
    assert windows(asked.engine)[-1][0] == to_datetime(asked.clock.now() - 30 * DAY)


def test_the_retention_of_identities_can_change(open_app):
    """After SIGHUP no round reads back before the identities that the purge keeps then."""
    asked = open_app(retention={"identities": 30})
    asked.finish("old")
    asked.clock.advance(5 * DAY // SECOND)
    asked.round()
    settings = asked.flow.app.settings
    asked.flow.app.reload(replace(settings, retention=replace(settings.retention, identities=1)))
    assert asked.round(since=asked.clock.now() - 6 * DAY).read == 0
    assert windows(asked.engine)[-1][0] == to_datetime(asked.clock.now() - DAY)


def test_an_unknown_source(asked):
    """The entry points name the sources that have an engine."""
    for act in (asked.service.reconcile_now, asked.service.confirm, asked.service.client):
        with pytest.raises(NotFound, match="no source crm with an engine; the sources with one are: oa"):
            act("crm")


# Sources.


def test_a_renamed_source_keeps_its_events_and_its_position(open_app):
    """With former_names, neither events nor instances in grace of the earlier name are taken in twice."""
    asked = open_app(sources={"old": settings_of()})
    asked.round("old")
    asked.flow.take("called", source="old", wait=0)
    asked.finish("called")
    asked.finish("waits")
    asked.round("old")
    first = asked.position("old").since
    asked.flow.close()
    asked.clock.advance(121)
    asked = open_app(sources={"new": settings_of(former_names=("old",))})
    assert asked.round("new").taken_in == 1
    assert (asked.position("new").since, asked.position("old")) == (first, None)
    assert asked.events() == {"called": "callback", "waits": "reconciled"}
    assert asked.flow.sql("SELECT source FROM engine_instances WHERE flow_instance_id = 'waits'") == [("new",)]


def test_a_source_that_gets_its_former_name_back(open_app):
    """Rows that it had under this name before do not hinder the instances in grace that it has under the other one."""
    asked = open_app(sources={"oa": settings_of()})
    asked.round()
    asked.finish("i1", parent_id="p")
    asked.round()
    assert asked.book() == {"i1": ("skipped", "child")}
    sections = {
        name: settings_of({"children": True}, former_names=(former,)) for name, former in (("ob", "oa"), ("oa", "ob"))
    }
    asked.flow.close()
    asked = open_app(sources={"ob": sections["ob"]})
    assert asked.round("ob").in_grace == 1
    asked.flow.close()
    asked = open_app(sources={"oa": sections["oa"]})
    asked.clock.advance(121)
    assert asked.round("oa").taken_in == 1
    assert asked.flow.sql("SELECT source, disposition FROM engine_instances") == [("oa", "has_event")]


def test_a_rename_that_is_taken_back(asked):
    """The history stays with the new name, and each request says so, until the settings name it as a former name."""
    settings = asked.flow.app.settings
    asked.flow.app.reload(replace(settings, sources={"oa2": settings_of(former_names=("oa",))}))
    asked.round("oa2")
    asked.flow.app.reload(settings)
    asked.finish("i1")
    result = asked.failed()
    says = "the history of oa is read as oa2: add oa2 to former_names of oa, unless a server still uses the name oa2"
    assert (result.reason, result.error) == ("busy", says)
    with pytest.raises(LedgerError, match=says):
        asked.service.decline("oa", note="")
    asked.flow.app.reload(replace(settings, sources={"oa": settings_of(former_names=("oa2",))}))
    assert asked.round().in_grace == 1


def test_damaged_former_names_of_another_source(asked):
    """The first contact of a source does not depend on the row of another one."""
    asked.flow.sql("UPDATE engine_positions SET former_names = '['")
    settings = asked.flow.app.settings
    asked.flow.app.reload(replace(settings, sources={**settings.sources, "other": settings_of()}))
    asked.round("other")
    assert asked.position("other") is not None


@pytest.mark.parametrize("last", ["new", "old"])
def test_former_names_that_are_added_later(open_app, last):
    """The new source, or the old one that is back, takes over the waiting instances and unread history."""
    asked = open_app(sources={"old": settings_of()})
    asked.round("old")
    asked.flow.take("called", source="old", wait=0)
    for name in ("called", "waits", "calls_later"):
        asked.finish(name)
    asked.round("old")
    asked.flow.close()
    asked.clock.advance(MINUTE)
    asked.finish("unread")
    asked.clock.advance(MINUTE)
    asked = open_app(sources={"new": settings_of()})
    asked.round("new")
    for name in ("calls_later", "called_new"):
        asked.flow.take(name, source="new", wait=0)
    for name in ("called_new", "waits_new"):
        asked.finish(name)
    asked.round("new")
    asked.flow.close()
    asked.clock.advance(121)
    former = {"new": "old", "old": "new"}[last]
    asked = open_app(sources={last: settings_of(former_names=(former,))})
    assert asked.round(last).taken_in == 3
    taken_in, called = ("waits", "unread", "waits_new"), ("called", "calls_later", "called_new")
    assert asked.events() == dict.fromkeys(taken_in, "reconciled") | dict.fromkeys(called, "callback")
    assert asked.flow.sql("SELECT count(*) FROM events") == [(6,)]
    assert asked.flow.sql("SELECT count(*) FROM engine_instances WHERE disposition = 'in_grace'") == [(0,)]
    assert asked.position(former) is None


def test_a_pull_only_source(open_app):
    """A source without a credential is reconciled like any other."""
    asked = open_app(sources={"oa": settings_of(token_sha256=())})
    asked.round()
    asked.finish("i1")
    asked.round()
    assert asked.after_grace().taken_in == 1


def test_a_secret_file_is_read_again(harness, engine, tmp_path, logged):
    """After SIGHUP the client has the new password, though the settings name the same file."""
    file = tmp_path / "password"
    file.write_text("old")
    file.chmod(0o600)
    passwords = []

    def client(config):
        passwords.append(config.password)
        return engine.client(config)

    sources = {"oa": settings_of({"username": "u", "password": Secret(file=str(file))})}
    plugins = {"p": plugin(grant, engine_clients=lambda: {"fake": client})}
    flow = harness.open(plugins=plugins, sources=sources, start=False)
    flow.app.reload(flow.app.settings)
    file.write_text("new")
    flow.app.reload(flow.app.settings)
    assert passwords == ["old", "new"]
    file.unlink()
    flow.app.reload(flow.app.settings)
    assert flow.app.reconciliation.reconcile_now("oa").error == ""
    assert [record["event"] for record in logged].count("engine_client_refused") == 1


@pytest.fixture
def without_token(tmp_path):
    """A function that lets an app read the token of its engine from a file that does not exist; it returns its path."""
    file = tmp_path / "token"

    def change(app):
        app.reload(replace(app.settings, sources={"oa": settings_of({"token": Secret(file=str(file))})}))
        return str(file)

    return change


def exits(_config):
    """Refuse the settings as a command does."""
    sys.exit("the url is wrong")


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ({"token": Secret(file="/none/token")}, "/none/token"),
        ({"client": "exits"}, "the client exits refuses it: SystemExit: the url is wrong; send SIGHUP"),
    ],
    ids=["a token without its file", "SystemExit"],
)
def test_a_refused_client_is_a_failure_of_each_round(open_app, engine, section, says):
    """After SIGHUP with a client that cannot be created, rounds, operations and the alert say why."""
    clients = {"fake": engine.client, "exits": exits}
    asked = open_app(plugins={"p": plugin(grant, engine_clients=lambda: clients)})
    asked.round()
    app = asked.flow.app
    settings = app.settings
    app.reload(replace(settings, sources={"oa": settings_of(section)}))
    for _ in range(3):
        failed = asked.failed()
        assert (failed.reason, says in failed.error) == ("invalid", True), failed
    position = asked.position()
    assert (position.reason, position.error, position.failures) == ("invalid", failed.error, 3)
    (result,) = reconcile(app.operation_context, source="oa", dry_run=True).sources
    assert result.error == failed.error
    (answer,) = ask_engine(app.operation_context, instance="i1").answers
    assert answer.error == failed.error
    with app.ledger.connection() as connection:
        (cause,) = EngineCauseFinder(lambda: app.settings).find(connection, asked.clock.now())
    assert cause.template == UNREACHABLE
    app.reload(settings)
    asked.round()
    assert (asked.position().error, asked.service.sources) == ("", ("oa",))


def test_a_reload_creates_all_clients_at_the_same_time(open_app, logged):
    """So a signal to stop waits for one time limit at most, however many factories hang."""
    together = threading.Barrier(2)

    def factory(config):
        together.wait(5)
        return FakeEngine().client(config)

    plugins = {"p": plugin(grant, engine_clients=lambda: {"fake": factory})}
    app = open_app(plugins=plugins, sources={"x": Source()}).flow.app
    app.reload(replace(app.settings, sources={"a": settings_of(), "b": settings_of()}))
    assert app.reconciliation.sources == ("a", "b")
    assert not [record for record in logged if record["event"] == "engine_client_refused"]


def test_a_refused_client_is_recorded_at_once(open_app, without_token, logged):
    """Nobody needs to wait for the next round, and the next SIGHUP tries again although the settings are the same."""
    asked = open_app(start=True)
    until(lambda: asked.position() and asked.position().succeeded_at)
    file = without_token(asked.flow.app)
    until(lambda: file in asked.position().error)
    Path(file).write_text("secret")
    Path(file).chmod(0o600)
    without_token(asked.flow.app)
    asked.round()
    assert asked.position().error == ""
    assert [record["event"] for record in logged].count("engine_client_refused") == 1


def test_a_secret_that_changes_while_the_client_is_created(open_app, engine, tmp_path):
    """The next SIGHUP creates the client with the new secret."""
    file, tokens = tmp_path / "token", []

    def factory(config):
        tokens.append(config.token)
        file.write_text("second")
        return engine.client(config)

    file.touch(0o600)
    file.write_text("first")
    plugins = {"p": plugin(grant, engine_clients=lambda: {"fake": factory})}
    app = open_app({"token": Secret(file=str(file))}, plugins=plugins).flow.app
    for _ in range(2):
        app.reload(app.settings)
    assert tokens == ["first", "second"]


def test_a_client_that_is_refused_again_makes_no_round_at_once(open_app, without_token):
    """Its failure delays the round of another process, so repeated reloads must not record it repeatedly."""
    app, woken = open_app().flow.app, []
    for _ in range(2):
        without_token(app)
        woken.append(app.reconciliation._workers["oa"]._wake.is_set())
    assert woken == [True, False]


def broken():
    """Make a plugin that is quarantined; it would offer the client `fake`."""

    def configure(settings):
        raise RuntimeError("broken upgrade")

    return plugin(configure=configure, engine_clients=lambda: {"fake": FakeEngine})


@pytest.mark.parametrize(
    ("plugins", "settings", "to_do"),
    [
        ({}, {"safe_mode": True}, "restart the server without it"),
        ({"p": plugin(grant)}, {"safe_mode": True}, "restart the server without it"),
        ({"p": plugin(grant)}, {"plugins_deny": ("p",)}, "when the plugin can be loaded"),
        ({"p": broken()}, {}, "when the plugin can be loaded"),
    ],
    ids=["safe mode without plugins", "safe mode", "denied", "quarantined"],
)
def test_a_server_starts_without_the_plugin_of_a_client(open_app, logged, plugins, settings, to_do):
    """It stores callbacks, and each round fails and says why, also after SIGHUP."""
    asked = open_app(plugins=plugins, **settings)
    assert asked.flow.take("i1", wait=0).event_id
    assert to_do in asked.failed().error
    asked.flow.app.reload(asked.flow.app.settings)
    failed = asked.failed()
    position = asked.position()
    assert (position.reason, position.error, position.failures) == ("invalid", failed.error, 2)
    refused = [record for record in logged if record["event"] == "engine_client_refused"]
    assert [to_do in record["next"] for record in refused] == [True, True]


@pytest.mark.parametrize("settings", [{"plugins_deny": ("p",)}, {"safe_mode": True}], ids=["denied", "safe mode"])
def test_a_command_without_the_plugin_of_a_client_is_refused(asked, open_app, settings):
    """It writes nothing: the engine has not failed, and servers elsewhere may have the plugin."""
    before = asked.position()
    asked.flow.close()
    command = open_app(kind="command", **settings)
    with pytest.raises(SettingsError, match="no loaded plugin offers"):
        command.flow.app.open_reconciliation().reconcile_now("oa")
    assert command.position() == before


@pytest.mark.parametrize(
    ("client", "settings", "says"),
    [("flowable", {}, "flowhooks-flowable"), ("fake", {"plugins_deny": ("q",)}, "refuses it: ValueError: no url")],
    ids=["unknown", "refused by the client"],
)
def test_a_client_that_no_plugin_can_offer_prevents_the_start(harness, client, settings, says):
    """No start is tolerated if every plugin is loaded, or if the client refuses its settings."""

    def refuses(config):
        raise ValueError("no url")

    plugins = {"p": plugin(grant, engine_clients=lambda: {"fake": refuses}), "q": plugin()}
    with pytest.raises(SettingsError, match=says):
        harness.open(plugins=plugins, sources={"oa": settings_of({"client": client})}, start=False, **settings)


def test_two_sources_are_reconciled_each_by_itself(open_app, engine):
    """Each source has its own position and its own instances."""
    asked = open_app(sources={"a": settings_of({"tenants": ("a",)}), "b": settings_of({"tenants": ("b",)})})
    asked.round("a")
    asked.round("b")
    asked.finish("i1", tenant_id="a")
    asked.finish("i1", tenant_id="b")
    for source in ("a", "b"):
        assert asked.round(source).in_grace == 1
    asked.clock.advance(121)
    for source in ("a", "b"):
        assert asked.round(source).taken_in == 1
    assert asked.flow.sql("SELECT source FROM events ORDER BY source") == [("a",), ("b",)]


# Definitions and old rows.


def test_definitions_are_read_once_an_hour(asked):
    """The deployed definitions are in the ledger; an error in reading them fails no round."""
    read = lambda: json.loads(asked.flow.sql("SELECT definitions FROM engine_positions")[0][0])  # noqa: E731
    assert read() == []
    asked.engine.deploy("leave", 3, name="Leave")
    asked.round()
    assert read() == []
    asked.clock.advance(HOUR)
    asked.engine.fail(method="definitions", times=1)
    asked.round()
    asked.round()
    assert read() == [{"key": "leave", "version": 3, "name": "Leave", "tenant_id": None}]


def test_old_rows_of_decided_instances_are_deleted(open_app):
    """Rows of decided instances are deleted when identities of purged events are, those in grace are kept."""
    asked = open_app({"max_new": 1}, retention={"identities": 30})
    asked.round()
    asked.finish("child", parent_id="p")
    asked.finish("w1")
    asked.finish("w2")
    asked.round()
    for days in (40, 1):  # the first round does not yet trust a clock that is so much later
        assert len(asked.book()) == 3
        asked.clock.advance(days * DAY // SECOND)
        asked.round()
    assert asked.book() == {"w1": ("in_grace", ""), "w2": ("in_grace", "")}
