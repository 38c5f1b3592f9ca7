"""The metrics in queries of the rules and the dashboard exist, in the right process and with the used labels."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from flowhooks.web.admin.console.filters import CHOICES, FIELDS

DOCS = Path(__file__).resolve().parents[3] / "docs"
RULES = DOCS / "deploy/flowhooks.rules.yml"
DASHBOARD = DOCS / "deploy/flowhooks.dashboard.json"
DATA = DOCS.parent / "tests/data/prometheus"
CONSOLE_PATHS = {
    *("/console/", "/console/events", "/console/handlers", "/console/parked", "/console/alerts", "/console/engines"),
    *("/console/sources", "/console/sources/{name}", "/console/handlers/{name}", "/console/rejected-requests"),
}
"""Pages that links lead to."""
OF_PROMETHEUS = {"job", "instance", "le"}
"""Labels that Prometheus adds."""


@pytest.fixture(scope="module")
def told():
    """The labels of each exported metric by its name in a query."""
    sys.path.insert(0, str(DOCS / "_build"))
    try:
        from generating import numbers
    finally:
        sys.path.remove(str(DOCS / "_build"))
    names = {}
    for _, family in numbers.families():
        for sample in family.samples:
            names.setdefault(sample.name, set()).update(sample.labels)
        names.setdefault(numbers.name(family), set())
    return names


def rules():
    """Every rule by its name."""
    (group,) = yaml.safe_load(RULES.read_text("utf-8"))["groups"]
    return {rule["alert"]: rule for rule in group["rules"]}


def panels():
    """Every panel of the dashboard with a query."""
    return [panel for panel in json.loads(DASHBOARD.read_text("utf-8"))["panels"] if panel["type"] != "row"]


def queries():
    """Every query of both with its place."""
    yield from ((name, rule["expr"]) for name, rule in rules().items())
    yield from ((panel["title"], target["expr"]) for panel in panels() for target in panel["targets"])
    for row in re.findall(r"\| .* \| (`.*`)", (DOCS / "how-to/monitor.md").read_text("utf-8")):
        yield from (("monitor.md", query.replace("\\|", "|")) for query in re.findall("`([^`]*flowhooks_[^`]*)`", row))


@pytest.mark.parametrize(("where", "query"), list(queries()))
def test_queried_metrics_and_labels_exist(told, where, query):
    """Each metric of a query is one of flowhooks, with each label that filters or groups it."""
    asked = re.findall(r"((?:flowhooks|process)_\w+)(?:\{([^}]*)\})?", query)
    assert asked or query.startswith("up{"), where
    assert query.count("(") == query.count(")")
    labels = set()
    for name, narrowed in asked:
        assert name in told, f"{where}: there is no {name}"
        assert set(re.findall(r"(\w+)\s*(?:=~|!=|=)", narrowed)) <= told[name] | OF_PROMETHEUS, where
        labels |= told[name]
    for grouped in re.findall(r"by \(([^)]*)\)", query):
        assert {label.strip() for label in grouped.split(",")} <= labels | OF_PROMETHEUS, where


@pytest.mark.parametrize("name", list(rules()))
def test_an_alert_states_the_problem_and_the_first_step(name):
    """Each alert states the problem and the first step; the sections that it names exist."""
    rule = rules()[name]
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert set(rule["annotations"]) == {"summary", "description"}
    named = set(re.findall(r"\$labels\.(\w+)", json.dumps(rule["annotations"])))
    grouped = re.findall(r"by \(([^)]*)\)", rule["expr"])
    there = {label.strip() for label in ",".join(grouped).split(",")} if grouped else {"instance", "job"}
    assert named <= there


def test_commands_in_rules_exist():
    """Commands in rules exist, because operators type them in a hurry."""
    known = (DOCS / "reference/commands.md").read_text("utf-8")
    text = RULES.read_text("utf-8")
    commands = re.findall(r"`(flowhooks [a-z]+(?: [a-z]+)?)", text)
    assert len(commands) > 5
    for command in commands:
        assert f"## {command}\n" in known, command


def test_panels_do_not_overlap():
    """No two panels share an id or overlap, and each has a unit."""
    everything = json.loads(DASHBOARD.read_text("utf-8"))["panels"]
    assert len({panel["id"] for panel in everything}) == len(everything)
    taken = {}
    for panel in everything:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert taken.setdefault((x, y), panel["title"]) == panel["title"]
    assert all(panel["fieldConfig"]["defaults"]["unit"] for panel in panels())


def test_the_settings_of_prometheus_are_as_shown():
    """The page's block names the existing rules, and the job of the rules and the dashboard; a table has each rule."""
    page = (DOCS / "how-to/monitor.md").read_text("utf-8")
    assert re.findall(r"^\| `(Flowhooks\w+)` \|", page, re.MULTILINE) == list(rules())
    (shown,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    settings = yaml.safe_load(shown)
    assert settings["rule_files"] == [RULES.name]
    (scraped,) = settings["scrape_configs"]
    assert f'job="{scraped["job_name"]}"' in rules()["FlowhooksDown"]["expr"]
    assert scraped["static_configs"] == [{"targets": ["127.0.0.1:8081"]}]


def links():
    """Every link of the dashboard, of its panels and of their series."""
    dashboard = json.loads(DASHBOARD.read_text("utf-8"))
    yield from dashboard["links"]
    for panel in panels():
        yield from panel.get("links", ())
        yield from panel["fieldConfig"]["defaults"].get("links", ())


def test_links_lead_to_pages_of_the_console():
    """Each link starts with the address of the console, which is a variable, and names a page and its parameters."""
    pages = {path.removeprefix("/console") for path in CONSOLE_PATHS}
    urls = {link["url"] for link in links()}
    assert len(urls) > 10
    for url in urls:
        path, _, query = url.removeprefix("${console}").partition("?")
        assert url.startswith("${console}/"), url
        assert re.sub(r"\$\{__field\.labels\.\w+\}", "{name}", path) in pages, url
        named = set(re.findall(r"(\w+)=", query))
        known = {"/events": {*FIELDS, *CHOICES}, "/rejected-requests": {"status", "source"}}
        assert named <= known.get(path, set()), url


def test_each_series_of_a_handler_links_to_its_page():
    """A click on a handler in any panel offers the page of that handler in the console."""
    of_handlers = [
        panel for panel in panels() if any("{{handler}}" in target["legendFormat"] for target in panel["targets"])
    ]
    assert len(of_handlers) > 5
    for panel in of_handlers:
        urls = [link["url"] for link in panel["fieldConfig"]["defaults"]["links"]]
        assert urls[0] == "${console}/handlers/${__field.labels.handler}", panel["title"]
        for target in panel["targets"]:
            assert re.search(r"by \((handler|handler, le)\)", target["expr"]), "the series have no label handler"


def test_every_variable_is_defined():
    """Queries and links use only the variables of the dashboard and those of Grafana."""
    text = DASHBOARD.read_text("utf-8")
    defined = {variable["name"] for variable in json.loads(text)["templating"]["list"]}
    used = {braced or plain for braced, plain in re.findall(r"\$(?:\{(\w+)[.}]|([a-z_]\w*))", text)}
    assert used - {"__rate_interval", "__field"} == defined


def test_rules_fire_in_the_described_cases(tmp_path):
    """`promtool test rules` evaluates the rules over made-up series."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian: apt-get install prometheus)")
    for file in (RULES, DATA / "rules.test.yml"):
        shutil.copy(file, tmp_path)
    command = [promtool, "test", "rules", "rules.test.yml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_accepts_the_rules():
    """`promtool check rules`, if installed, accepts the rules; the tests above need no promtool."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian: apt-get install prometheus)")
    done = subprocess.run([promtool, "check", "rules", RULES], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
