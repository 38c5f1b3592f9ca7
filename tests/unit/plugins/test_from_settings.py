"""A plugin's section before `configure`: secrets are filled in, checked by the plugin's schema, and masked."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from flowhooks import handler, hookimpl
from flowhooks.app import load as load_app
from flowhooks.operations.check.run import check
from flowhooks.plugins.plugins import Plugins
from flowhooks.settings import Settings

SECRET = "hunter2-värde"
SCHEMA = {
    "properties": {
        "endpoints": {
            "items": {
                "properties": {"url": {"type": "string"}, "secret": {"type": "string", "minLength": 4}},
                "required": ["url", "secret"],
                "additionalProperties": False,
            }
        }
    },
    "required": ["endpoints"],
    "additionalProperties": False,
}


class Hooks:
    """A plugin that records its settings and the order of its calls."""

    def __init__(self, folder, schema=SCHEMA):
        self.calls = []
        self.settings = None
        self.folder = folder
        if schema is not None:
            (folder / "settings.schema.json").write_text(json.dumps(schema))

    @hookimpl
    def schemas(self):
        """Return the folder."""
        self.calls.append("schemas")
        return [self.folder]

    @hookimpl
    def configure(self, settings):
        """Record the settings."""
        self.calls.append("configure")
        self.settings = settings

    @hookimpl
    def handlers(self):
        """Return one handler."""
        self.calls.append("handlers")
        return [handler(process_key="leave", name="h")(lambda event: None)]


@pytest.fixture
def folder(tmp_path):
    """A schema folder."""
    (tmp_path / "schemas").mkdir()
    return tmp_path / "schemas"


def load(section, environ=None, **objects):
    """Load plugins passed directly, `hooks` with this section."""
    return Plugins.load(
        dirs=(),
        allow=(),
        deny=(),
        safe_mode=False,
        sections={} if section is None else {"hooks": section},
        entry_points=(),
        objects=objects,
        environ=environ or {},
    )


def test_secrets_are_filled_in_before_configure(folder):
    """The schema and `configure` see the string, `configure` runs after `schemas`, and the settings keep the table."""
    section = {"endpoints": [{"url": "https://example.com", "secret": {"env": "HOOKS_SECRET"}}]}
    plugin = Hooks(folder)
    plugins = load(section, {"HOOKS_SECRET": SECRET}, hooks=plugin)
    assert [(info.state, info.error) for info in plugins.infos] == [("loaded", "")]
    assert plugin.settings == {"endpoints": [{"url": "https://example.com", "secret": SECRET}]}
    assert plugin.calls == ["schemas", "configure", "handlers"]
    assert section["endpoints"][0]["secret"] == {"env": "HOOKS_SECRET"}
    assert plugins.warnings == ()


@pytest.mark.parametrize(
    ("section", "environ", "why"),
    [
        (
            {"endpoints": [{"url": "x", "secret": {"env": "HOOKS_SECRET"}}]},
            {},
            "[plugins.hooks] endpoints[0].secret: the environment variable HOOKS_SECRET is not set; set it in ",
        ),
        (
            {"endpoints": [{"url": "x", "secret": {"file": "/no/such"}}]},
            {},
            "[plugins.hooks] endpoints[0].secret: the file /no/such cannot be read: No such file or directory; write ",
        ),
        (None, {}, '[plugins.hooks] must have "endpoints"'),
        (
            {"endpoints": [{"url": 3, "secret": SECRET, "time out": 1}], "endpoint": []},
            {},
            (
                "[plugins.hooks] endpoint is not a setting; the settings are endpoints; "
                "[plugins.hooks] endpoints[0].'time out' is "
            ),
        ),
        (
            {"endpoints": [{"url": "x", "secret": {"env": "S"}}]},
            {"S": "abc"},
            "[plugins.hooks] endpoints[0].secret must not be shorter than 4 characters",
        ),
    ],
)
def test_an_invalid_section_quarantines_only_its_plugin(section, environ, why, folder):
    """One line names plugin, place and remedy without values; `configure` is not called, and other plugins run."""
    plugin = Hooks(folder)
    other = SimpleNamespace(handlers=hookimpl(lambda: [handler(every=True, name="o")(print)]))
    plugins = load(section, environ, hooks=plugin, other=other)
    bad, fine = plugins.infos
    assert (bad.state, fine.state) == ("quarantined", "loaded")
    assert bad.error.startswith(f"plugin 'hooks' (object): {why}")
    assert bad.traceback == ""
    assert plugin.calls == ["schemas"]
    assert list(plugins.handlers) == ["other:o"]


def test_callbacks_of_a_plugin_rejected_after_loading_are_stored(folder):
    """Its callbacks are stored and wait for the fixed plugin, instead of a 404."""
    (folder / "call-back").mkdir()
    (folder / "call-back/revoke.schema.json").write_text("{}")
    plugins = load({}, hooks=Hooks(folder))
    assert plugins.infos[0].state == "quarantined"
    assert plugins.schemas.kinds == ("cancel", "complete", "error", "revoke", "terminate")


def test_a_plugin_without_configure_is_reported(folder):
    """A schema of settings or a section without `configure` is reported, because it has no effect."""
    (folder / "settings.schema.json").write_text("{}")
    plugin = SimpleNamespace(schemas=hookimpl(lambda: [folder]))
    assert load(None, hooks=plugin).warnings == (
        "plugin 'hooks' has a schema for settings, but has no settings: it has no hook 'configure'",
    )
    assert load({"a": {"env": "NOT_SET"}}, hooks=plugin).warnings == (
        "the settings have a section [plugins.hooks], but plugin 'hooks' has no settings",
    )


def test_a_schema_for_data_without_a_handler(folder):
    """A schema for a class or key without a handler in the plugin is only a warning, because it may be misspelt."""
    for path in ("class/com.Known", "class/com.Unknown", "key/leave", "key/unknown"):
        file = folder / f"data/{path}.schema.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("{}")
    listening = handler(callback_class="com.Known", process_key="leave", name="h")(print)
    every = handler(every=True, name="e")(print)
    others = handler(process_key="unknown", name="o")(print)

    def warnings(*handlers):
        hooks = SimpleNamespace(schemas=hookimpl(lambda: [folder]), handlers=hookimpl(lambda: list(handlers)))
        return load(None, hooks=hooks, others=SimpleNamespace(handlers=hookimpl(lambda: [others]))).warnings

    has = "plugin 'hooks' has a schema data/"
    assert warnings(listening) == (
        f"{has}class/com.Unknown.schema.json, but none of its handlers has that callback_class=",
        f"{has}key/unknown.schema.json, but none of its handlers has that process_key=",
    )
    assert warnings(listening, every) == ()


def test_secrets_are_masked_in_the_reason_of_a_quarantine(folder):
    """Line and traceback have no secret, in any encoding by the plugin, even where the line is cut."""

    def configure(settings):
        cause = LookupError(f"no host in {settings['url']}")
        raise ValueError(f"cannot connect: {'x' * 580}{settings['url']}{settings['url']!r}") from cause

    plugin = SimpleNamespace(configure=hookimpl(configure))
    (info,) = load({"url": {"env": "URL"}}, {"URL": f"https://me:{SECRET}\t@example.com"}, hooks=plugin).infos
    assert info.state == "quarantined"
    assert "hunter" not in info.error + info.traceback
    assert "ValueError: cannot connect: xxx" in info.error
    assert "LookupError: no host in …" in info.traceback
    assert info.traceback.endswith("x…'…'\n")


def test_secrets_of_all_plugins_are_masked(folder):
    """Secrets of all plugins are masked, because one plugin's error may have another's secret."""

    def takes(section):
        return SimpleNamespace(configure=hookimpl(lambda settings: None), section=section)

    plugins = Plugins.load(
        dirs=(),
        allow=(),
        deny=(),
        safe_mode=False,
        sections={"a": {"x": [{"env": "A"}]}, "b": {"y": {"env": "B"}}, "c": {"z": {"env": "C"}}},
        entry_points=(),
        objects={"a": takes("a"), "b": takes("b"), "c": SimpleNamespace()},
        environ={"A": "alpha-secret", "B": "beta", "C": "gamma", "D": "delta"},
    )
    assert plugins.redact("alpha-secret beta gamma delta") == "… … gamma delta"
    assert "alpha" not in repr(plugins)


@pytest.mark.parametrize("hook", ["event_accepted", "delivery_settled", "alert_raised"])
def test_secrets_are_masked_in_the_log_of_a_failing_listener(hook, logged, event, delivery):
    """A raising listener is logged with its traceback, without secrets."""
    kept = {}

    def configure(settings):
        kept.update(settings)

    def fail():
        raise ConnectionError(f"refused {kept['token']}")

    plugin = SimpleNamespace(configure=hookimpl(configure), **{hook: hookimpl(fail)})
    plugins = load({"token": {"env": "TOKEN"}}, {"TOKEN": SECRET}, hooks=plugin)
    arguments = {
        "event_accepted": (event, ()),
        "delivery_settled": (event, delivery, None, None),
        "alert_raised": (None, "hooks"),
    }
    getattr(plugins, hook)(*arguments[hook])
    (entry,) = [record for record in logged if record["event"] == "hook_failed"]
    assert (entry["plugin"], entry["hook"], entry["log_level"]) == ("hooks", hook, "error")
    assert "ConnectionError: refused …" in entry["traceback"]
    assert SECRET not in str(logged)


def test_check_reports_a_missing_secret(tmp_path):
    """`flowhooks check` loads plugins as a server does, so it finds what a server would."""
    (tmp_path / "hooks.py").write_text(
        "from flowhooks import hookimpl\n@hookimpl\ndef configure(settings):\n    print(settings)\n"
    )
    settings = Settings(
        database=str(tmp_path / "flowhooks.db"),
        plugins_dirs=(str(tmp_path),),
        plugins_allow=("hooks",),
        plugins={"hooks": {"token": {"env": "HOOKS_TOKEN"}}},
    )
    missing = [
        finding
        for finding in check(settings, lambda: load_app(settings, environ={}), jobs=lambda: None)
        if finding.about == "plugins"
    ]
    assert "the environment variable HOOKS_TOKEN is not set" in str(missing)
    found = [
        finding
        for finding in check(settings, lambda: load_app(settings, environ={"HOOKS_TOKEN": SECRET}), jobs=lambda: None)
        if finding.about == "plugins"
    ]
    assert "is loaded" in str(found)
    assert "quarantined" not in str([finding for finding in found if "hooks" in str(finding)])


def test_secrets_default_to_the_environment_of_the_process(tmp_path, monkeypatch, capsys):
    """By default secrets are read from the process's environment."""
    (tmp_path / "hooks.py").write_text(
        "from flowhooks import hookimpl\n@hookimpl\ndef configure(settings):\n    print(settings)\n"
    )
    monkeypatch.setenv("HOOKS_TOKEN", "from outside")
    settings = Settings(
        plugins_dirs=(str(tmp_path),),
        plugins_allow=("hooks",),
        plugins={"hooks": {"token": {"env": "HOOKS_TOKEN"}}},
    )
    load_app(settings)
    assert "{'token': 'from outside'}" in capsys.readouterr().out
