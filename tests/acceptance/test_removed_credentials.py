"""If sources or operators vanish from the settings, a server keeps requiring credentials or does not start."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import signal
from contextlib import closing

import pytest

PLUGIN = """
from flowhooks import handler, hookimpl

@handler(process_key="good")
def good(event):
    return event.source

@hookimpl
def handlers():
    return [good]
"""
GOOD = {"processDefinitionKey": "good"}
TOKEN, OPERATOR = "the-token-of-the-engine", "the-token-of-the-operator"


def sha256(text):
    return hashlib.sha256(text.encode()).hexdigest()


REST = "answer_wait = 60\n[log]\nlevel = 'info'\n"
SOURCES = f'[sources.erp]\ntoken_sha256 = ["{sha256(TOKEN)}"]\n'
OPERATORS = f'[operators.li]\nrole = "operate"\ntoken_sha256 = ["{sha256(OPERATOR)}"]\n'
WHOLE = REST + SOURCES + OPERATORS
CAUSES = {
    "empty": ("", "source"),
    "only a comment": ("# to do\n", "source"),
    "cut before [sources]": (REST, "source"),
    "cut before [operators]": (REST + SOURCES, "operator"),
    "without [sources]": (REST + OPERATORS, "source"),
}


@pytest.fixture
def plugin_site(site):
    """A site with a plugin."""
    site.plugin("p", PLUGIN)
    return site


def write(site, text):
    """Write the settings file."""
    (site.folder / "flowhooks.toml").write_text(text)


def check_closed(server):
    """Check that callbacks and the administration are refused without a credential and accepted with it."""
    assert server.post("closed", GOOD).status == 401
    assert server.ask("GET", "/api/overview", admin=True).status == 401
    assert server.ask("GET", "/console/", admin=True).status == 401
    assert server.post("closed", GOOD, Authorization=f"Bearer {TOKEN}").status == 200
    assert server.ask("GET", "/api/overview", headers={"Authorization": f"Bearer {OPERATOR}"}, admin=True).status == 200


def refused_start(site, words, *arguments, **settings):
    """Start a server, check that it exits with code 2 and a reason, and return its last output."""
    server = site.start(*arguments, ready=False, config=(site.folder / "flowhooks.toml").read_text(), **settings)
    assert server.wait() == 2, server.lines[-5:]
    said = "\n".join(server.lines[-5:])
    for word in words:
        assert word in said, said
    return said


@pytest.mark.parametrize("cause", CAUSES)
def test_a_reload_that_removes_all_credentials_of_a_kind_fails(plugin_site, cause):
    """The previous settings stay in force, and the log has the reason; corrected settings are accepted."""
    text, kind = CAUSES[cause]
    server = plugin_site.start(config=WHOLE)
    check_closed(server)
    write(plugin_site, text)
    server.signal(signal.SIGHUP)
    said = server.until_logged("settings_reload_failed")
    assert said["level"] == "error"
    assert f"no {kind}" in said["why"]
    assert "--insecure" in said["why"]
    check_closed(server)
    write(plugin_site, WHOLE + SOURCES.replace("erp", "crm").replace(sha256(TOKEN), sha256("another")))
    server.signal(signal.SIGHUP)
    assert server.until_logged("settings_reloaded")["changed"] == ["sources.crm"]
    check_closed(server)
    server.stop()
    server.check_log()


@pytest.mark.parametrize("cause", CAUSES)
def test_a_start_with_removed_credentials_fails(plugin_site, cause):
    """The ledger records earlier credentials; the error states the remedy, and corrected settings start."""
    text, kind = CAUSES[cause]
    plugin_site.start(config=WHOLE).stop()
    write(plugin_site, text)
    refused_start(plugin_site, [f"no {kind}", "--insecure", str(plugin_site.database)])
    server = plugin_site.start(config=WHOLE)
    check_closed(server)
    server.stop()


def test_credentials_that_were_added_by_a_reload_are_remembered(plugin_site):
    """Credentials of both kinds count from a reload, even on a server started without any."""
    server = plugin_site.start(config=REST)
    assert server.post("open", GOOD).status == 200
    write(plugin_site, WHOLE)
    server.signal(signal.SIGHUP)
    server.until_logged("settings_reloaded")
    check_closed(server)
    server.kill()
    write(plugin_site, REST)
    refused_start(plugin_site, ["no source", "no operator"])


def test_a_start_with_insecure_ends_the_requirement(plugin_site):
    """After one start with `insecure`, the ledger requires no credentials until they are configured again."""
    plugin_site.start(config=WHOLE).stop()
    server = plugin_site.start("--insecure", config=REST)
    said = server.until_logged("credentials_not_required")
    assert said["level"] == "warning"
    assert said["kinds"] == ["sources", "operators"]
    assert server.post("open", GOOD).status == 200
    server.stop()
    server = plugin_site.start(config=REST)
    assert server.post("open-2", GOOD).status == 200
    assert server.ask("GET", "/console/", admin=True).status == 200
    server.stop()
    plugin_site.start(config=WHOLE).stop()
    write(plugin_site, REST)
    refused_start(plugin_site, ["no source", "no operator"])


def test_an_insecure_server_reloads_without_credentials(plugin_site):
    """A server started with `insecure` accepts a reload without credentials."""
    server = plugin_site.start("--insecure", config=WHOLE)
    check_closed(server)
    write(plugin_site, REST)
    server.signal(signal.SIGHUP)
    server.until_logged("settings_reloaded")
    assert server.post("open", GOOD).status == 200
    server.stop()
    plugin_site.start(config=REST).stop()


def test_check_reports_that_a_start_would_fail(plugin_site):
    """`check` reports the refusal before the start."""
    plugin_site.start(config=WHOLE).stop()
    write(plugin_site, REST)
    checked = plugin_site.run("check", "--json", "--database", plugin_site.database)
    assert checked.returncode == 1
    found = [finding for finding in json.loads(checked.stdout)["findings"] if "no source" in finding["what"]]
    assert [finding["mark"] for finding in found] == ["problem"]
    write(plugin_site, WHOLE)
    checked = plugin_site.run("check", "--json", "--database", plugin_site.database)
    assert not [finding for finding in json.loads(checked.stdout)["findings"] if "no source" in finding["what"]]


def test_supervised_processes_still_require_credentials(sharing):
    """A supervisor, its restarted processes and a new start refuse such settings."""
    sharing.plugin("p", PLUGIN)
    sharing.forks_children = True
    server = sharing.start("--processes", "2", config=WHOLE, **sharing.settings)
    server.until_logged("server_started", times=2)  # both have read the settings
    check_closed(server)
    write(sharing, REST)
    server.signal(signal.SIGHUP)
    assert "no source" in server.until_logged("process_replace_failed")["why"]
    check_closed(server)
    server.stop()
    refused_start(sharing, ["no source", "no operator", "--insecure"], "--processes", "2", **sharing.settings)
    server = sharing.start("--processes", "2", config=WHOLE, **sharing.settings)
    pid = server.until_logged("server_started", times=2)["pid"]  # both have read the settings
    write(sharing, REST)
    os.kill(pid, signal.SIGKILL)
    server.until_logged("process_died", process=pid)
    failed = server.until_logged("process_died", times=2)  # the process that replaced it
    assert "no source" in failed["why"]
    check_closed(server)
    server.stop()


def test_a_worker_requires_only_operators(sharing):
    """A worker ignores sources, and without an administration listener also operators."""
    sharing.plugin("p", PLUGIN)
    sharing.start(config=WHOLE, **sharing.settings).stop()
    write(sharing, REST)
    words = ("--plugins-dir", sharing.plugins)
    sharing.start_worker(*words, **sharing.settings).stop()
    worker = sharing.start_worker(*words, "--admin", "127.0.0.1:0", ready=False, **sharing.settings)
    assert worker.wait() == 2
    assert any("no operator" in line for line in worker.lines)
    assert not any("no source" in line for line in worker.lines)
    write(sharing, OPERATORS)
    worker = sharing.start_worker(*words, "--admin", "127.0.0.1:0", **sharing.settings)
    with closing(http.client.HTTPConnection(*worker.admin, timeout=30)) as connection:
        connection.request("GET", "/metrics")
        assert connection.getresponse().status == 401
    worker.stop()
