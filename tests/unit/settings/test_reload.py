"""The settings that a running process applies on a reload, and those that it leaves to the next process."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from flowhooks.settings import HttpSettings, LoginSettings, Settings, Source, diff, live_names
from flowhooks.settings.definitions import iter_settings

BEFORE = Settings(sources={"erp": Source(token_sha256=("a" * 64,)), "old": Source(token_sha256=("b" * 64,))})


def test_equal_settings_are_no_change():
    """Equal settings give the existing settings."""
    found = diff(BEFORE, replace(BEFORE))
    assert (found.settings, found.changed, found.needs_restart) == (BEFORE, (), ())


def test_changed_sources_are_named():
    """An added, a removed and a changed source are named; an unchanged one is not."""
    after = {"erp": Source(token_sha256=("c" * 64,)), "new": Source(token_sha256=("d" * 64,))}
    found = diff(BEFORE, replace(BEFORE, sources=after))
    assert found.changed == ("sources.erp", "sources.new", "sources.old")
    assert found.settings.sources == after
    assert found.needs_restart == ()


def test_settings_that_need_a_restart_are_not_applied():
    """A setting that needs a restart is named and not applied, also beside an applied one."""
    after = replace(
        BEFORE,
        database="other.db",
        plugins={"p": {"password": "very-secret"}},
        http=HttpSettings(threads=1, max_body_bytes=7),
    )
    found = diff(BEFORE, after)
    assert found.changed == ("http.max_body_bytes",)
    assert found.needs_restart == ("database", "http.threads", "plugins.p")
    assert found.settings == replace(BEFORE, http=HttpSettings(max_body_bytes=7))
    assert "very-secret" not in repr(found)


def test_the_order_of_groups_is_a_change():
    """Groups in another order are applied, because the first group that an operator has decides."""
    before = replace(BEFORE, login=LoginSettings(groups={"ops": "operate", "audit": "view"}))
    after = replace(BEFORE, login=LoginSettings(groups={"audit": "view", "ops": "operate"}))
    found = diff(before, after)
    assert (found.changed, found.needs_restart) == (("login.groups",), ())
    assert list(found.settings.login.groups) == ["audit", "ops"]


def test_the_order_of_sources_is_no_change():
    """Sources in another order are the same settings."""
    found = diff(BEFORE, replace(BEFORE, sources=dict(reversed(BEFORE.sources.items()))))
    assert (found.settings, found.changed, found.needs_restart) == (BEFORE, (), ())


def test_unchanged_sources_are_the_same_object():
    """Unchanged sources are the same object, so that derived objects stay valid."""
    found = diff(BEFORE, replace(BEFORE, sources=dict(BEFORE.sources), answer_wait=1.0))
    assert found.settings.sources is BEFORE.sources


@pytest.mark.parametrize("name", [name for name, _ in iter_settings()] + ["sources", "plugins"])
def test_every_setting_that_differs_is_named_once(name):
    """Each changed setting is either applied or reported as needing a restart."""
    changed, kept = [], []
    section, dot, inner = name.partition(".")
    if dot:
        other = {"x": "view"} if name == "login.groups" else "another"
        after = replace(BEFORE, **{section: replace(getattr(BEFORE, section), **{inner: other})})
    else:
        after = replace(BEFORE, **{name: {"x": 1} if name in {"sources", "plugins"} else "another"})
    found = diff(BEFORE, after)
    changed, kept = found.changed, found.needs_restart
    is_live = name in {*live_names(), "sources"}
    assert bool(changed) is is_live
    assert bool(kept) is not is_live
    assert (found.settings == after) is is_live


def test_live_settings_are_listed():
    """The list of live settings includes credentials; a section without a live field is not in it."""
    listed = list(live_names())
    assert {"answer_wait", "log.level", "http.max_body_bytes", "sources.NAME", "routing.ignore_process_keys"} <= set(
        listed
    )
    assert not {"database", "listen", "plugins.NAME"} & set(listed)
    assert len(listed) == len(set(listed))
    assert len([field for field in fields(Settings) if field.metadata.get("live")]) + len(
        [name for name, field in iter_settings() if "." in name and field.metadata["live"]]
    ) == len(listed)
