"""A real Prometheus scrapes a real server: every rule and every query of the dashboard is evaluated."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import pytest

from support.waiting import WAIT_TIMEOUT, until

DEPLOY = Path(__file__).resolve().parents[2] / "docs/deploy"
PROGRAM = shutil.which("prometheus")
PLUGIN = """
from flowhooks import handler, hookimpl

@handler(process_key="good")
def good(event):
    return event.flow_instance_id

@handler(process_key="bad")
def bad(event):
    raise ValueError("no room")

@hookimpl
def handlers():
    return [good, bad]
"""
EMPTY = {
    # No engine, paused handler, open circuit, late delivery or plugin that notifies is in this test.
    *("Taken in and missed per hour", "Time since the history was read", "Finished instances, by disposition"),
    *("Open circuits and paused handlers", "Delay of due deliveries"),
    "Notifications of alerts, by plugin and result",
}
"""Panels of the dashboard that may have no value."""

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no Prometheus: apt-get install prometheus")


class Prometheus:
    """A Prometheus process that scrapes one server each second, with the rules of the documentation."""

    def __init__(self, folder, target):
        shutil.copy(DEPLOY / "flowhooks.rules.yml", folder)
        config = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": ["flowhooks.rules.yml"],
            "scrape_configs": [{"job_name": "flowhooks", "static_configs": [{"targets": [target]}]}],
        }
        (folder / "prometheus.yml").write_text(json.dumps(config))  # JSON is YAML
        self.log = folder / "prometheus.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    PROGRAM,
                    f"--config.file={folder / 'prometheus.yml'}",
                    f"--storage.tsdb.path={folder / 'data'}",
                    "--web.listen-address=127.0.0.1:0",
                ],
                stdout=log,
                stderr=log,
            )
        found = until(lambda: re.search(r'"Listening on" address=(\S+)', self.log.read_text("utf-8")))
        self.address = found[1]
        until(self._is_ready)

    def _is_ready(self):
        """Whether it answers queries: it listens before its database is open."""
        try:
            with urllib.request.urlopen(f"http://{self.address}/-/ready", timeout=WAIT_TIMEOUT) as response:
                return response.status == 200
        except urllib.error.HTTPError:
            return False

    def get(self, path, **query):
        """The data of an answer of the HTTP API."""
        url = f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=WAIT_TIMEOUT) as response:
            answer = json.load(response)
        assert answer["status"] == "success"
        return answer["data"]

    def query(self, expression):
        """The values of an expression now."""
        return self.get("query", query=expression)["result"]

    def close(self):
        """End the process."""
        self.process.kill()
        self.process.wait(WAIT_TIMEOUT)


@pytest.fixture
def prometheus(site, tmp_path):
    """A Prometheus, and a server that has answered callbacks of every kind before and after the first scrape."""
    site.plugin("kit", PLUGIN)
    site.plugin("broken", "raise ValueError('broken')")
    server = site.start()
    folder = tmp_path / "prometheus"
    folder.mkdir()
    host, port = server.admin
    started = Prometheus(folder, f"{host}:{port}")
    try:
        for number in range(2):
            assert server.post(f"good-{number}", {"processDefinitionKey": "good"}).status == 200
            assert server.post(f"bad-{number}", {"processDefinitionKey": "bad"}).status == 500
            assert server.post(f"parked-{number}", {"processDefinitionKey": "nobody"}).status == 202
            assert server.post(f"good-{number}", {"processDefinitionKey": "good", "a": 1}).status == 409
            assert server.post(f"wrong-{number}", {"processDefinitionKey": 5}).status == 422
            scraped = f'count_over_time(up{{job="flowhooks"}}[1h]) >= {3 * (number + 1)}'
            until(lambda scraped=scraped: started.query(scraped))
        yield started
    finally:
        started.close()
        server.stop()


def panels():
    """Every query of the dashboard with the title of its panel, as Grafana sends it."""
    dashboard = json.loads((DEPLOY / "flowhooks.dashboard.json").read_text("utf-8"))
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            expression = target["expr"].replace("$__rate_interval", "1m").replace("$job", "flowhooks")
            yield panel["title"], re.sub(r"\$(handler|source)\b", ".*", expression)


def test_rules_and_dashboard(prometheus):
    """Every rule is evaluated without an error, every panel has values, and a broken plugin raises an alert.

    Dead deliveries raise none: Prometheus has just started, and does not know how many there were before.
    """

    def evaluated():
        (group,) = prometheus.get("rules")["groups"]
        return all(rule["health"] != "unknown" for rule in group["rules"]) and group["rules"]

    rules = until(evaluated)
    assert {rule["name"]: rule.get("lastError", "") for rule in rules if rule["health"] != "ok"} == {}
    assert len(rules) > 20
    alerting = 'ALERTS{alertname="FlowhooksPluginQuarantined",alertstate="firing",plugin="broken",job="flowhooks"}'
    until(lambda: prometheus.query(alerting))
    until(lambda: prometheus.query('flowhooks_deliveries{state="dead",handler="kit:bad"} > 0'))
    assert prometheus.query('ALERTS{alertname="FlowhooksDeadGrows"}') == []
    queries = list(panels())
    assert len(queries) > 30
    # Metrics of the ledger are cached for a few seconds, so a value may come later than its callback.
    until(lambda: {title for title, expression in queries if not prometheus.query(expression)} <= EMPTY)
    # None has a value while the last scrape is one that a busy machine did not answer in a second.
    sources = until(lambda: prometheus.query("sum by (source) (flowhooks_http_responses_total) > 0"))
    assert {value["metric"]["source"] for value in sources} == {"default"}
