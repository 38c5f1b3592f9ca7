"""The names that users meet: names in pages exist, existing names are in a page, and no old name is left.

`test_docs.py` compares the tables of settings, commands, hooks and log events with the code. These tests read the rest:
prose, tables that are written by hand, the rules, and the files that are installed.
"""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
from functools import cache

import click
import pytest
from generating import numbers

from flowhooks.cli.main import COMMANDS, main
from flowhooks.schema.schemas import Schemas
from flowhooks.settings import Settings, describe
from flowhooks.settings.definitions import iter_settings
from flowhooks.web.admin.api import openapi as administration
from flowhooks.web.admin.api.resources import AuditResource
from flowhooks.web.admin.console.audit import NAMED_ACTIONS
from flowhooks.web.callback import openapi as callback
from support.code_blocks import DOCS, PAGES, PLUGINS, ROOT, name_of
from support.fork_server import FLOWHOOKS, run

FILE = ROOT / "tests/integration/docs/test_names.py"
CURRENT = [page for page in PAGES if page != ROOT / "CHANGELOG.md"]
"""The pages that describe the present version."""
TOP_LEVEL = {name for name, _ in iter_settings(Settings) if "." not in name}
SECTIONS = {name.partition(".")[0] for name, _ in iter_settings(Settings)} - TOP_LEVEL
OF_OTHERS = {
    *("acks_late", "autovacuum_vacuum_cost_limit", "max_wal_size", "pg_restore", "search_path", "job_name"),
    *("flowhooks_outbox", "record_flow", "on_success_callback", "activity_executor"),
}
"""Names in pages that belong to other programs or to an example."""


def pages_with(pattern):
    """The matches of a pattern in the pages, each with its pages."""
    found = {}
    for page in CURRENT:
        for hit in re.findall(pattern, page.read_text("utf-8")):
            found.setdefault(hit, set()).add(name_of(page))
    return found


@cache
def words():
    """Every word of the code of the package, the plugins and the tests, and the names of their files."""
    files = [file for folder in ("flowhooks", "plugins", "tests") for file in (ROOT / folder).rglob("*.py")]
    for folder in (ROOT / "flowhooks", PLUGINS):
        files += [file for file in folder.rglob("*") if file.suffix in {".html", ".json", ".toml"}]
    found = {file.stem for file in [*files, *DOCS.rglob("*.py")]}
    for file in files:
        if file != FILE:
            found.update(re.findall(r"\w+", file.read_text("utf-8")))
    return found


@cache
def variables():
    """The environment variables in the package's code, except those of settings."""
    found = set()
    for file in (ROOT / "flowhooks").rglob("*.py"):
        found.update(re.findall(r'"(FLOWHOOKS_[A-Z_]*[A-Z])"', file.read_text("utf-8")))
    return found


# Settings and the environment


def test_mentioned_settings_exist():
    """`section.name` in a page is a setting, and a link to the reference leads to its section."""
    known = {setting.name for setting in describe()}
    for name, where in pages_with(rf"`((?:{'|'.join(sorted(SECTIONS))})\.[a-z_]+)`").items():
        assert name in known, (name, where)
    linked = pages_with(r"\[`([\w.]+)`\]\([^)]*settings\.md#([\w-]+)\)")
    assert linked
    for (name, anchor), where in linked.items():
        section = name.partition(".")[0] if "." in name else "at-the-top-of-the-file"
        assert anchor in {section, name}, (name, anchor, where)
        assert name in known | SECTIONS, (name, where)


def test_mentioned_variables_exist():
    """Each `FLOWHOOKS_...` in a page or an installed file is read by flowhooks, or is a secret."""
    of_tests = {"FLOWHOOKS_MODEL_SEED"}  # read by tests/model/test_model.py
    known = {setting.variable for setting in describe()} | variables() | of_tests
    texts = {page: page.read_text("utf-8") for page in CURRENT}
    for file in [ROOT / "Makefile", *(file for file in (DOCS / "deploy").rglob("*") if file.is_file())]:
        texts[file] = file.read_text("utf-8")
    chosen = {name for text in texts.values() for name in re.findall(r'env = "(\w+)"', text)}
    for file, text in texts.items():
        others = {"FLOWHOOKS_URL"}  # read by applications that send
        assert set(re.findall(r"FLOWHOOKS_[A-Z_]+\b", text)) <= known | chosen | others, file


def test_every_variable_is_documented():
    """Each variable that the code reads is in a page."""
    assert {"FLOWHOOKS_CONFIG", "FLOWHOOKS_FAILPOINT", "FLOWHOOKS_SUPERVISOR_FD", "FLOWHOOKS_TOKEN"} <= variables()
    assert variables() <= set(pages_with(r"FLOWHOOKS_[A-Z_]+"))


# Metrics


def test_every_metric_of_the_code_is_in_the_reference():
    """The scrape from which the reference is generated has each metric that the code names."""
    named = set()
    for file in (ROOT / "flowhooks/observability").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and re.fullmatch(r"flowhooks_[a-z_]+", str(node.value)):
                named.add(node.value)
    families = {family.name for _, family in numbers.families()}
    of_files = {"flowhooks_wal_bytes", "flowhooks_database_bytes"}  # only on SQLite
    of_files |= {"flowhooks_disk_available_bytes", "flowhooks_disk_size_bytes"}
    of_client = {name for name in families if name.startswith("process_")}  # named by prometheus-client
    assert named - of_files == families - of_files - of_client
    text = (DOCS / "reference/metrics.md").read_text("utf-8")
    assert all(f"`{numbers.name(family)}`" in text for _, family in numbers.families())


def test_mentioned_metrics_exist():
    """`flowhooks_...` in a page is a metric, or a Python package of a plugin."""
    known = {numbers.name(family) for _, family in numbers.families()} | {"flowhooks_wal_bytes"} | OF_OTHERS
    known |= {folder.name.replace("-", "_") for folder in PLUGINS.iterdir()} | {"flowhooks_expenses", "flowhooks_app"}
    for name, where in pages_with(r"`(flowhooks_[a-z_]+)`").items():
        assert name in known or name in words(), (name, where)


# Paths


def documents():
    """The descriptions of both listeners."""
    schemas = Schemas.load()
    return administration.openapi(schemas), callback.openapi(schemas)


def routes():
    """Each path that a listener serves, as its code adds it."""
    found = set()
    for file in (ROOT / "flowhooks/web").rglob("*.py"):
        found |= set(re.findall(r'\.add_route\("(/[^"]+)"', file.read_text("utf-8")))
    return found | {path for document in documents() for path in document["paths"]}


def test_mentioned_paths_exist():
    """Each path below `/api/` in a page or an example is served."""
    patterns = [re.compile(re.sub(r"\{\w+\}", r"[^/]+", path)) for path in routes()]
    mentioned = pages_with(
        r"(?<![\w.])(?:http://[\w.:]+)?(/(?:api/[\w/{}%-]*[\w}]|healthz|readyz|metrics|openapi\.json))\b"
    )
    assert "/api/events" in mentioned
    for path, where in mentioned.items():
        assert any(pattern.fullmatch(path) for pattern in patterns), (path, where)


def test_every_path_is_documented():
    """Each path of the administration listener is in the reference."""
    text = "".join(
        (DOCS / "reference" / name).read_text("utf-8") for name in ("administration.md", "http.md", "metrics.md")
    )
    paths = {path for path in routes() if not path.startswith("/flow/")}
    assert {path for path in paths if path not in text} == set()


# JSON output of commands


def json_table():
    """The members that the reference names for each command with `--json`."""
    text = (DOCS / "reference/commands.md").read_text("utf-8")
    table = text.partition("## What `--json` prints\n")[2].partition("\n<!--")[0]
    found = {}
    for commands, members in re.findall(r"^\| (`[^|]+`) \| ([^|]+) \|$", table, re.MULTILINE):
        for command in re.findall(r"`([^`]+)`", commands):
            found[command] = set(re.findall(r"`(\w+)`", members))
    return found


def commands_with_json():
    """The words of every command that has `--json`."""
    for name in COMMANDS:
        command = main.get_command(click.Context(main), name)
        for words, each in (
            [(f"{name} {inner}", it) for inner, it in command.commands.items()]
            if isinstance(command, click.Group)
            else [(name, command)]
        ):
            if any("--json" in param.opts for param in each.params):
                yield words


def test_every_command_with_json_is_in_the_table():
    """The table has each command with `--json`, and no other."""
    assert {name.partition(" --")[0] for name in json_table()} == set(commands_with_json())


def test_mentioned_actions_are_recorded():
    """Each action that the help of `flowhooks audit`, the API and the guides name as a filter is in the audit log."""
    in_commands = pages_with(r"flowhooks audit\b[^\n`]*--action[= ](\w+)")
    described = pages_with(r"nly this action, such as ([^.]+)\.")
    (parameter,) = [each for each in AuditResource.parameters if each.name == "action"]
    (english,), (chinese,) = (re.findall(rf"{words} ?(\w+)", parameter.description) for words in ("such as", "例如"))
    mentioned = {*in_commands, *re.findall(r"\w+", " ".join(described)), english, chinese} - {"or"}
    assert {"login", "start", english} <= mentioned
    assert mentioned <= NAMED_ACTIONS


OPERATIONS = {
    "events replay": "start_operation",
    "operations start": "start_operation",
    "operations pause": "pause_operation",
    "operations resume": "resume_operation",
    "operations cancel": "cancel_operation",
    "operations rate": "set_operation_rate",
    "events resolve": "resolve",
    "events reroute --parked": "reroute_parked",
    "events reroute": "reroute",
    "events dismiss": "dismiss",
    "handlers pause": "pause",
    "handlers resume": "resume",
    "alerts acknowledge": "acknowledge",
    "db index": "index_fields",
    "db purge": "purge",
}
"""Commands that print the response of an operation, and the server that executed it."""


@pytest.mark.parametrize("command", OPERATIONS)
def test_members_of_operations(command):
    """A command that changes data prints the members of its operation's response, and `server`."""
    document, _ = documents()
    answer = document["paths"][f"/api/operations/{OPERATIONS[command]}"]["post"]["responses"]["200"]
    schema = answer["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
    assert json_table()[command] == {*document["components"]["schemas"][schema]["properties"], "server"}


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    """The members in the JSON that commands print in a folder with an empty ledger."""
    folder = tmp_path_factory.mktemp("names")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FLOWHOOKS_")}
    environ = kept | {"FLOWHOOKS_SAFE_MODE": "true"}
    assert run([*FLOWHOOKS, "db", "upgrade"], cwd=folder, env=environ).returncode == 0

    def ask(words):
        more = ["copy.db"] if words == "db backup" else []
        done = run([*FLOWHOOKS, *words.split(), *more, "--json"], cwd=folder, env=environ)
        assert done.returncode in {0, 1}, done.stderr
        return json.loads(done.stdout)

    return ask


@pytest.mark.parametrize(
    "command",
    [
        *("check", "plugins list", "routes", "events list", "handlers list", "alerts list", "audit", "verify"),
        *("db backup", "sources list", "operators list"),
    ],
)
def test_members_that_are_printed(printed, command):
    """Each member of a command's output is named in the table, where it has its own row."""
    assert set(printed(command)) <= json_table()[command]


# Every other name


def test_mentioned_names_exist():
    """A name with an underscore in code marks is a name of the code, a test or another program."""
    known = words() | {f"now_{state}" for state in ("waiting", "dead", "unknown")} | OF_OTHERS
    known |= {numbers.name(family) for _, family in numbers.families()}
    for name, where in pages_with(r"`([a-z]+(?:_[a-z0-9]+)+)`").items():
        assert name in known, (name, where)


# Old names

OLD_SETTINGS = [
    *("hold_after", "try_every", "stale_after", "look_every"),
    *("hold_after".upper(), "try_every".upper(), "one_core".upper(), "stale_after".upper(), "look_every".upper()),
    *(r"settings\.wait", r"[\"'`]wait = ", "FLOWHOOKS_WAIT", r"ignore\.process_key", "FLOWHOOKS_IGNORE_PROCESS_KEY"),
    *(r"ledger\.(?:queue|timeout)", "ledger__(?:queue|timeout)", "FLOWHOOKS_LEDGER_(?:QUEUE|TIMEOUT)"),
    *(r"identity\.ignore", "FLOWHOOKS_IDENTITY_IGNORE", "CRASH_AT", "crash_at", "FLOWHOOKS_PLACE"),
]
OLD_METRICS = [
    rf"flowhooks_{name}(?:_total|_bucket|_count|_sum|_created)?"
    for name in (
        *("requests", "answers", "answer_seconds", "attempt_seconds", "delivery_seconds", "commit_seconds"),
        *("commit_items", "difference", "log_ins", "oldest_seconds", "running", "build", "plugin", "notices_dropped"),
        *("handler_held", "parked"),
    )
]
OLD_WORDS = [
    *(
        "one_core",
        "taken_for_dead",
        "printed_too_much",
        "clock_off",
        "clock_right",
        "cannot_give_sign_of_life",
        "attempt_over",
    ),
    *("sign_of_life_fault", "alert_over", "notice_failed", "notice_hangs", "log_in_failed", "ledger_writes_again"),
    *("listening_failed", "listening_again", "commit_unanswered", "callback_failed", "handler_held", "handler_tried"),
    *("handler_released", "cannot_hold_or_try", "cannot_look_for_work", "cannot_look_for_alerts", "cannot_sweep"),
    *("cannot_purge", "cannot_take_jobs", "ending_all", "threads_left_behind", "settings_not_reloaded"),
    *("service_manager_not_told", "dismissed_not_delivered", "cannot_count_dismissed", "not_on_one_core"),
    *("drain_failed", "process_not_started", "not_replaced", "supervisor_ends", "supervisor_gone", "watch_fault"),
    *("thread_not_started", "notices_dropped", "process_not_made", "database_file_back", "cannot_look_after_files"),
    *("outcome_not_recorded", "cannot_correct_due_times", "listener_fault", "ledger_not_measured"),
    *("request_unanswered", "operators_not_read", "sources_not_read", "signature_misused", "body_not_kept"),
    *("credentials_not_recorded", "error_ignored"),
]
ALSO_WORDS = (
    *("not_run", "printed", "replacing", "replaced", "recovered", "serving", "working", "supervising", "stopping"),
    *("stopped", "drained", "purged", "crashed", "retiring", "logged_in"),
)
"""Old log events that are ordinary words, too: they count as old names only in logging calls and searches."""
OLD = re.compile(
    rf"(?:(?<![A-Za-z0-9])|(?<=\\n))(?:{'|'.join(OLD_SETTINGS)})(?![A-Za-z0-9_])"
    rf"|(?<![A-Za-z0-9_])(?:{'|'.join([*OLD_METRICS, *OLD_WORDS])})(?![A-Za-z0-9_])"
    rf"|\b_?log\.\w+\(\s*\"(?:{'|'.join(ALSO_WORDS)})\""
    rf"|logged\(\"(?:{'|'.join(ALSO_WORDS)})\"|\[\"event\"\] == \"(?:{'|'.join(ALSO_WORDS)})\""
)


def sources():
    """Every text file of the project in git except the changelog and this file."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    for name in filter(None, listed.stdout.split("\0")):
        file = ROOT / name
        if name not in {"CHANGELOG.md", name_of(FILE)} and file.is_file() and not file.is_symlink():
            try:
                yield name, file.read_text("utf-8")
            except UnicodeDecodeError:
                continue


def test_old_names_are_found():
    """The pattern of old names finds old names, and no new name."""
    for old in (
        *("runner.hold_after", "`ledger.queue`", "flowhooks_answers_total", "identity.ignore = 1", "'alert_over'"),
        *('log.info("serving"', 'until_logged("replaced"', "FLOWHOOKS_CRASH_AT=x", "ledger__timeout=1"),
    ):
        assert OLD.search(old), old
    for new in (
        *("identity.ignore_pointers", "flowhooks_running_deliveries", "flowhooks_plugin_info", "process_replaced"),
        *("ledger.write_timeout", "ledger.max_queued_writes", 'log.info("process_replaced"', "flowhooks_plugins"),
    ):
        assert not OLD.search(new), new


def test_no_old_name_is_left():
    """Only the changelog has a name that was changed."""
    if not (ROOT / ".git").exists():
        pytest.skip("the project is not a checkout")
    found = {name: sorted(set(OLD.findall(text))) for name, text in sources() if OLD.search(text)}
    assert found == {}


def test_threads_of_the_architecture_page():
    """The table of threads has each thread that the package starts, and no other."""
    page = (ROOT / "docs/explanation/architecture.md").read_text("utf-8")
    table = page.split("## Threads")[1].split("\n\n")[1]
    documented = {name.split("-N")[0] for name in re.findall(r"^\| `([a-z-]+(?:-[A-Z]+)?)`", table, re.MULTILINE)}
    documented = {re.sub(r"-[A-Z]+$", "", name) for name in documented} - {"listen", "admin"}
    assert documented == set(thread_names())


def thread_names():
    """The names of threads in the package's code without their numbers; those of listeners are listed by hand."""
    for file in (ROOT / "flowhooks").rglob("*.py"):
        for call in (node for node in ast.walk(ast.parse(file.read_text("utf-8"))) if isinstance(node, ast.Call)):
            called = ast.unparse(call.func).removeprefix("self.")
            names = [
                keyword.value for keyword in call.keywords if called == "threading.Thread" and keyword.arg == "name"
            ]
            names += call.args[:1] if called == "_threads.start" else []
            for name in names:
                if isinstance(name, ast.Constant):
                    yield name.value
                elif isinstance(name, ast.JoinedStr) and isinstance(name.values[0], ast.Constant):
                    yield name.values[0].value.removesuffix("-")
