"""On SIGHUP a process uses new settings during load, and rejects no callback that it should accept."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import signal
import socket
import threading
import time
from collections import Counter
from contextlib import closing

import pytest

from support.service_manager import next_state
from support.waiting import WAIT_TIMEOUT, until

PLUGIN = '''
import time
from flowhooks import handler, hookimpl

@handler(process_key="good")
def good(event):
    """Do nothing."""

@handler(process_key="slow")
def slow(event):
    """Take longer than anybody waits."""
    time.sleep(5)

@hookimpl
def handlers():
    return [good, slow]
'''
GOOD = {"processDefinitionKey": "good"}
OLD, NEW = "the-old-token", "the-new-token"


def source(*tokens, name="erp", allow=()):
    """A settings section of a source."""
    hashes = [hashlib.sha256(token.encode()).hexdigest() for token in tokens]
    return f"[sources.{name}]\ntoken_sha256 = {json.dumps(hashes)}\nallow = {json.dumps(list(allow))}\n"


@pytest.fixture
def plugin_site(site):
    """A site with a plugin."""
    site.plugin("p", PLUGIN)
    return site


def write(site, text):
    """Replace the settings file as an editor does."""
    new = site.folder / "flowhooks.toml.new"
    new.write_text(text)
    new.replace(site.folder / "flowhooks.toml")


class Engine:
    """Clients that send callbacks with one token without a pause, every other one on a persistent connection."""

    def __init__(self, server, token, *, callers=4):
        self.address, self.token = server.address, token
        self.name = token.removesuffix("-token")  # the log has the ids of rejected callbacks, and may have no token
        self.statuses = Counter()
        self.failures = []
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._call, args=(number,)) for number in range(callers)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        for thread in self._threads:
            thread.join(120)

    def until(self, condition):
        """Wait until a condition on the statuses holds."""
        until(lambda: condition(self.statuses), why=lambda: (self.statuses, self.failures[:3]))

    def more(self, count=50):
        """Wait for `count` more responses."""
        least = sum(self.statuses.values()) + count
        self.until(lambda statuses: sum(statuses.values()) >= least)

    def _call(self, caller):
        connection = http.client.HTTPConnection(*self.address, timeout=90)
        number = 0
        while not self._over.is_set():
            number += 1
            headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self.token}"}
            try:
                path = f"/flow/{self.name}-{caller}-{number}/call-back/complete"
                connection.request("POST", path, json.dumps(GOOD), headers)
                answer = connection.getresponse()
                answer.read()
                self.statuses[answer.status] += 1
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
                connection.close()
            if caller % 2:
                connection.close()
        connection.close()


def test_a_token_is_rotated_under_load(plugin_site):
    """With both tokens and then only the new one, no caller with a valid token is refused or disconnected."""
    # On a busy machine, a commit or an outcome may take longer than the defaults.
    server = plugin_site.start(config=source(OLD), ledger__write_timeout=20, answer_wait=60)
    assert server.post("n", GOOD, Authorization=f"Bearer {NEW}").status == 401
    with Engine(server, OLD) as old:
        old.more()
        write(plugin_site, source(OLD, NEW))
        assert server.reload()["changed"] == ["sources.erp"]
        with Engine(server, NEW) as new:
            new.more()
            for _ in range(5):  # nothing changed, so no caller is affected
                assert server.reload()["changed"] == []
            old.more()
            assert set(old.statuses) == set(new.statuses) == {200}
            write(plugin_site, source(NEW))
            server.reload()
            old.until(lambda statuses: statuses[401] > 20)
            new.more()
        assert set(new.statuses) == {200}
    assert set(old.statuses) == {200, 401}
    assert old.failures == new.failures == []
    server.stop()
    server.check_log()
    assert not [line for line in server.lines if OLD in line or hashlib.sha256(NEW.encode()).hexdigest() in line]
    books = plugin_site.balance()
    assert books.accepted == books.stored == old.statuses[200] + new.statuses[200]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[sources.erp]\ntoken", "is not TOML"),
        ("answer_wait = -1\n", "answer_wait"),
        ("[sources.erp]\n", "has no token_sha256"),
        (None, "cannot be read"),
    ],
)
def test_an_unusable_settings_file_changes_nothing(plugin_site, text, why):
    """The server logs the reason, keeps its settings, and accepts the file once it is fixed."""
    server = plugin_site.start(config=source(OLD))
    if text is None:
        (plugin_site.folder / "flowhooks.toml").unlink()  # the defaults would require no credential
    else:
        write(plugin_site, text)
    said = server.reload("settings_reload_failed")
    assert why in said["why"]
    assert said["level"] == "error"
    assert server.post("1", GOOD, Authorization=f"Bearer {OLD}").status == 200
    assert server.post("2", GOOD).status == 401
    write(plugin_site, source(NEW))
    server.reload()
    assert server.post("3", GOOD, Authorization=f"Bearer {NEW}").status == 200
    assert server.post("4", GOOD, Authorization=f"Bearer {OLD}").status == 401
    server.stop()


def test_settings_that_need_a_restart_are_named_but_not_applied(plugin_site):
    """Settings that need a restart are named without values and not applied; all others are applied."""
    server = plugin_site.start(config=source(OLD))
    changed = (
        'plugins_dirs = []\nanswer_wait = 0\n[plugins.p]\npassword = "very-secret"\n'
        "[http]\nthreads = 3\nmax_body_bytes = 90\n"
    )
    write(plugin_site, f"{changed}[log]\nlevel = 'debug'\n{source(OLD)}")
    assert server.reload()["changed"] == ["answer_wait", "http.max_body_bytes", "log.level"]
    assert server.until_logged("restart_needed")["settings"] == ["http.threads", "plugins.p"]
    large = json.dumps(GOOD | {"x": "y" * 90}).encode()
    assert server.post("1", large, Authorization=f"Bearer {OLD}").status == 413
    assert server.post("2", {"processDefinitionKey": "slow"}, Authorization=f"Bearer {OLD}").status == 202
    assert not [line for line in server.lines if "very-secret" in line]
    write(plugin_site, source(OLD))
    assert server.reload()["changed"] == ["answer_wait", "http.max_body_bytes", "log.level"]
    assert server.post("3", large, Authorization=f"Bearer {OLD}").status == 200


def test_an_incoming_body_is_rejected_by_the_new_limit(plugin_site):
    """A body whose headers arrived before a lower limit is refused by that limit, and not stored."""
    server = plugin_site.start()
    body = json.dumps(GOOD | {"x": "y" * 500}).encode()
    head = (
        f"POST /flow/1/call-back/complete HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode()
    with closing(socket.create_connection(server.address, timeout=WAIT_TIMEOUT)) as connection:
        connection.sendall(head + body[:100])
        write(plugin_site, "[http]\nmax_body_bytes = 200\n")
        server.reload()
        connection.sendall(body[100:])
        assert b" 413 " in connection.recv(65536)
    with plugin_site.ledger() as ledger:
        assert ledger.verify().stored == 0
    server.stop()


def test_newly_ignored_process_keys_apply_to_parked_events(plugin_site):
    """A new key in `routing.ignore_process_keys` applies to new events and to parked ones."""
    server = plugin_site.start()
    assert "no handler is installed" in server.post("1", {"processDefinitionKey": "nobody"}).json["message"]
    write(plugin_site, '[routing]\nignore_process_keys = ["nobody"]\n')
    server.reload()
    assert server.post("2", {"processDefinitionKey": "nobody"}).body == b'{"success": true}'
    plugin_site.until(lambda ledger: ledger.verify().events == {"dismissed": 2})
    server.stop()


def test_newly_ignored_members_do_not_count_in_comparisons(plugin_site):
    """A member newly named in `identity.ignore_pointers` no longer counts in comparisons."""
    server = plugin_site.start()
    assert server.post("1", GOOD).status == 200
    write(plugin_site, '[identity]\nignore_pointers = ["/sentAt"]\n')
    assert server.reload()["changed"] == ["identity.ignore_pointers"]
    assert server.post("1", GOOD | {"sentAt": 2}).status == 200
    server.stop()


def test_a_public_server_rejects_settings_without_sources(plugin_site):
    """A public server whose settings lose their sources keeps its sources and requires a token."""
    server = plugin_site.start(config=source(OLD), listen="0.0.0.0:0")
    write(plugin_site, 'listen = "127.0.0.1:8080"\n')
    assert "no credential is configured" in server.reload("settings_reload_failed")["why"]
    host, port = server.address
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_TIMEOUT)) as connection:
        connection.request("POST", "/flow/1/call-back/complete", json.dumps(GOOD))
        assert connection.getresponse().status == 401
    assert host == "0.0.0.0"
    server.stop()


def test_a_new_alert_interval_applies_at_once(plugin_site):
    """A process that checked for alerts hourly checks at once, and then at the new interval."""
    server = plugin_site.start(config="[alerts]\npoll_interval = 3600\nparked_after = 3600\n")
    server.post("1", {"processDefinitionKey": "nobody"})
    write(plugin_site, "[alerts]\npoll_interval = 0.1\nparked_after = 0\n")
    assert server.reload()["changed"] == ["alerts.poll_interval", "alerts.parked_after"]
    server.until_logged("alert_raised", cause="parked")
    server.stop()


def test_the_service_manager_is_notified(plugin_site, tmp_path):
    """The service manager is notified of ready, reloading and stopping; child processes do not get the socket."""
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as manager:
        manager.settimeout(WAIT_TIMEOUT)
        manager.bind(str(tmp_path / "notify"))
        os.environ["NOTIFY_SOCKET"] = str(tmp_path / "notify")
        try:
            server = plugin_site.start()
        finally:
            del os.environ["NOTIFY_SOCKET"]
        assert next_state(manager) == b"READY=1"
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        server.signal(signal.SIGHUP)
        reloading, _, since = manager.recv(1000).decode().partition("\n")
        assert reloading == "RELOADING=1"
        told = int(since.removeprefix("MONOTONIC_USEC="))
        assert before // 1000 <= told <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        assert manager.recv(1000) == b"READY=1"
        write(plugin_site, "no TOML")
        server.signal(signal.SIGHUP)
        assert manager.recv(1000).startswith(b"RELOADING=1\n")
        assert manager.recv(1000) == b"READY=1"
        server.stop()
        assert manager.recv(1000) == b"STOPPING=1"


def test_starts_and_reloads_are_in_the_audit_log(plugin_site):
    """The log has each plugin with its digest; the audit log has what changed, by name, and no value of a setting."""

    def audited(action):
        listed = json.loads(plugin_site.run("audit", "--action", action, "--json").stdout)["entries"]
        return [entry["detail"] for entry in listed]

    server = plugin_site.start(config=source(OLD))
    loaded = server.until_logged("plugin_loaded")
    assert (loaded["plugin"], loaded["version"], len(loaded["digest"]), loaded["handlers"]) == ("p", "", 64, 2)
    write(plugin_site, f"answer_wait = 0\n[http]\nthreads = 3\n{source(OLD)}")
    server.reload()
    (reload,) = until(lambda: audited("reload"))
    assert reload == {"changed": ["answer_wait"], "needs_restart": ["http.threads"]}
    server.stop()
    plugin_site.plugin("p", PLUGIN + '\n__version__ = "2.0"\n')
    config = f"answer_wait = 0\n[http]\nthreads = 3\n{source(OLD)}{source(NEW, name='other')}"
    server = plugin_site.start(config=config)
    start = until(lambda: next((detail for detail in audited("start") if "plugins_changed" in detail), None))
    assert start["plugins_changed"] == {"p": f"{loaded['digest'][:16]} -> {start['plugins']['p']}"}
    assert start["plugins"]["p"].startswith("2.0 ")
    assert {"answer_wait", "http.threads", "sources.other"} <= set(start["settings_changed"])
    server.stop()
