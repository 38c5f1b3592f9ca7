"""Refused settings and their error texts, without secrets."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from flowhooks import settings
from flowhooks.errors import SettingsError

HASH = "a3" * 32
STAMP = '"/timestamp"'
SECTIONS = (
    "alerts, circuit_breaker, handlers, http, identity, ledger, log, login, masking, operators, plugins, retention, "
    "roles, routing, runner, search, shutdown, sources"
)
TOKEN = "Zx9-kQ_secret_token_that_nobody_may_ever_see_"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("answer_wait = \n", "flowhooks.toml: is not TOML: Invalid value (at line 1, column 15)"),
        (
            "answer_wait = 1\nanswer_wait = 2",
            "flowhooks.toml: is not TOML: Cannot overwrite a value (at end of document)",
        ),
        (b"answer_wait = 1 # \xff", "flowhooks.toml: is not UTF-8 at byte 18"),
        ("a = " + "9" * 5000, "flowhooks.toml: cannot be read: it is not a settings file"),
        ("a = " + "[" * 100_000, "flowhooks.toml: cannot be read: it is not a settings file"),
    ],
)
def test_unreadable_content(load_errors, content, says):
    """Invalid TOML is refused with the place of the error."""
    assert load_errors(content) == [says]


@pytest.mark.parametrize("by", ["option", "environment"])
def test_missing_file(by):
    """A file that is named must exist."""
    with pytest.raises(SettingsError, match=r"^nowhere\.toml: cannot be read: No such file or directory$"):
        settings.load(
            Path("nowhere.toml") if by == "option" else None,
            {"FLOWHOOKS_CONFIG": "nowhere.toml"} if by == "environment" else {},
            {},
        )


def test_broken_default_file():
    """An unreadable ./flowhooks.toml is an error too, unlike a missing one."""
    Path("flowhooks.toml").symlink_to("gone.toml")

    with pytest.raises(SettingsError, match=r"^flowhooks\.toml: cannot be read: No such file"):
        settings.load(None, {}, {})


@pytest.mark.parametrize("name", ["a\nb.toml", "a\x00b.toml", "x" * 5000, "."])
def test_hostile_file_names(name):
    """For any file name the error is one line."""
    with pytest.raises(SettingsError) as caught:
        settings.load(Path(name), {}, {})

    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("answer_wait = true", "answer_wait must be a number of seconds, 0 to 60, not true"),
        ("answer_wait = 60.5", "answer_wait must be a number of seconds, 0 to 60, not 60.5"),
        ("answer_wait = -1", "answer_wait must be a number of seconds, 0 to 60, not -1"),
        ("answer_wait = nan", "answer_wait must be a number of seconds, 0 to 60, not nan"),
        ("answer_wait = inf", "answer_wait must be a number of seconds, 0 to 60, not inf"),
        ('answer_wait = "5"', "answer_wait must be a number of seconds, 0 to 60, not '5': write it without quotes"),
        ("answer_wait = [1]", "answer_wait must be a number of seconds, 0 to 60, not a list"),
        ("answer_wait = 2026-01-01", "answer_wait must be a number of seconds, 0 to 60, not a date"),
        ("insecure = 1", "insecure must be true or false, not 1"),
        ('safe_mode = "true"', "safe_mode must be true or false, not 'true'"),
        (
            '[routing]\nno_handler = "prak"',
            'routing.no_handler must be "park" or "reject", not \'prak\'; did you mean park?',
        ),
        ("[routing]\nno_handler = []", 'routing.no_handler must be "park" or "reject", not a list'),
        ("http.threads = 0", "http.threads must be a whole number, 1 to 1000, not 0"),
        ("http.threads = 1001", "http.threads must be a whole number, 1 to 1000, not 1001"),
        ("http.threads = 16.0", "http.threads must be a whole number, 1 to 1000, not 16.0"),
        ("http.threads = true", "http.threads must be a whole number, 1 to 1000, not true"),
        ('http.threads = "16"', "http.threads must be a whole number, 1 to 1000, not '16': write it without quotes"),
        (f"http.threads = {10**40}", "http.threads must be a whole number, 1 to 1000, not such a large number"),
        ("http.max_header_bytes = 10", "http.max_header_bytes must be a whole number, 1024 to 1048576, not 10"),
        (
            "ledger.write_timeout = 0",
            "ledger.write_timeout must be a number of seconds, more than 0 and at most 86400, not 0",
        ),
        (
            'log.level = "INFO"',
            'log.level must be "debug", "info", "warning", "error" or "critical", not \'INFO\'; did you mean info?',
        ),
        (
            'listen = ":8080"',
            (
                "listen must be host:port, not ':8080': write 0.0.0.0:8080 for all interfaces, 127.0.0.1:8080 for "
                "this machine only"
            ),
        ),
        ("listen = 8080", "listen must be host:port, not 8080"),
        (
            'identity.ignore_pointers = "/a"',
            f"identity.ignore_pointers must be a list, each a JSON Pointer such as {STAMP}, not a string",
        ),
        (
            'identity.ignore_pointers = ["/a", "b"]',
            f"identity.ignore_pointers item 2 must be a JSON Pointer such as {STAMP}, not 'b'",
        ),
        (
            'identity.ignore_pointers = ["/~2"]',
            f"identity.ignore_pointers item 1 must be a JSON Pointer such as {STAMP}, not '/~2'",
        ),
        (
            'identity.ignore_pointers = [""]',
            f"identity.ignore_pointers item 1 must be a JSON Pointer such as {STAMP}, not ''",
        ),
        (
            "routing.ignore_process_keys = ['']",
            "routing.ignore_process_keys item 1 must be a string that is not empty, not ''",
        ),
        (
            "routing.ignore_process_keys = 1",
            "routing.ignore_process_keys must be a list, each a string that is not empty, not a single value",
        ),
        (
            "plugins_deny = ['a b']",
            ("plugins_deny item 1 must be a name of 1 to 100 letters, digits, '.', '_' or '-', not 'a b'"),
        ),
        (
            'plugins_dirs = [""]',
            (
                "plugins_dirs item 1 must be a folder's path, not '': a path must not be empty and must have only "
                "printable characters"
            ),
        ),
        ("database = 1", "database must be a file's path, not 1"),
        (
            'database = ""',
            (
                "database must be a file's path or a database URL: a path must not be empty and must have "
                "only printable characters"
            ),
        ),
        ("log = 1", "log must be a section, [log], not 1"),
        ("htpp.threads = 1", "htpp is not a section; did you mean http?"),
        ("[source.erp]", "source is not a section; did you mean sources?"),
        ("[xyzzy]", f"xyzzy is not a section; the sections are {SECTIONS}"),
        ("http.thread = 1", "http.thread is not a setting; did you mean http.threads?"),
        ("threads = 1", "threads is not a setting; did you mean http.threads or runner.threads?"),
        (
            "http.max_queued_writes = 1",
            ("http.max_queued_writes is not a setting; did you mean ledger.max_queued_writes?"),
        ),
        ("xyzzy = 1", "xyzzy is not a setting"),
        ('"http.threads" = 1', "'http.threads' is not a setting"),
        ('"a\\nb" = 1', "'a\\nb' is not a setting"),
        ("plugins = 1", "plugins must be sections, [plugins.NAME], not a value"),
        ("[[plugins]]", "plugins must be sections, [plugins.NAME], not a list"),
        ("plugins.contracts = 1", "plugins.contracts must be a section, [plugins.NAME], not a single value"),
        ("[plugins.'a b']", "[plugins.'a b'] must have a name of 1 to 100 letters, digits, '.', '_' or '-'"),
        (
            "[sources.erp]",
            (
                "sources.erp has no token_sha256, token_file or secrets, so no engine can authenticate as this source, "
                "and no section engine, so flowhooks cannot ask it"
            ),
        ),
        (f"[plugins.p]\n{'a.' * 999}a = 1", "plugins.p is nested more than 64 levels deep"),
        ("[plugins.p]\na = " + "[" * 64 + "]" * 64, "plugins.p is nested more than 64 levels deep"),
        ("[handlers.x]\ntimeout = 3", '[handlers.x] must have a handler\'s id as its name: [handlers."plugin:name"]'),
        (
            "[handlers.'a:b']\ntimeout = 0",
            "handlers.'a:b'.timeout must be a number of seconds, more than 0 and at most 86400, not 0",
        ),
        ("[handlers.'a:b']\ntime = 1", "handlers.'a:b'.time is not a setting; did you mean timeout?"),
    ],
)
def test_mistakes_in_the_file(load_errors, content, says):
    """Each mistake in the file is one line with its place, the fault and the allowed values."""
    (error,) = load_errors(content)
    assert re.fullmatch(rf"flowhooks\.toml:\d+: {re.escape(says)}", error), error


@pytest.mark.parametrize(
    ("section", "says"),
    [
        (
            "token_sha256 = []",
            (
                "sources.erp.token_sha256 must be a list, each the SHA-256 of a token in 64 hexadecimal "
                "digits: the list is empty"
            ),
        ),
        (
            f"token_sha256 = ['{HASH}']\nallow = ['10.0.0.0/33']",
            ("sources.erp.allow item 1 must be a network such as \"10.0.0.0/8\", not '10.0.0.0/33'"),
        ),
        (f"token_sha256 = ['{HASH}']\nallowed = []", "sources.erp.allowed is not a setting; did you mean allow?"),
        (
            f"token_sha256 = ['{HASH}']\n[sources.crm]\ntoken_sha256 = ['{HASH}']",
            ("sources erp and crm have the same token_sha256; give each its own token"),
        ),
    ],
)
def test_unusable_or_shared_sources_are_rejected(load_errors, section, says):
    """A source that cannot be used, or that two engines would share, is refused."""
    (error,) = load_errors(f"[sources.erp]\n{section}")
    assert re.fullmatch(rf"flowhooks\.toml:\d+: {re.escape(says)}", error), error


@pytest.mark.parametrize(
    "content",
    [
        f"[sources.erp]\ntoken_sha256 = ['{TOKEN}']",
        f"[sources.erp]\ntoken_sha256 = ['{TOKEN:0<64}', '{HASH}']",
        f"[sources.erp]\ntoken_sha256 = ['{TOKEN:0<63}\\n']",
        f"[sources.erp]\ntoken_sha256 = '{TOKEN}'",
        f"[sources.erp]\ntoken_sha256 = [['{TOKEN}']]",
        f"[sources.erp]\ntoken_sha256 = ['{HASH}']\ntoken = '{TOKEN}'",
        f"[sources]\nerp = '{TOKEN}'",
        f"token = '{TOKEN}'",
        f"database = 'mysql://flowhooks:{TOKEN}@db/flowhooks'",
        f"plugins = '{TOKEN}'",
    ],
)
def test_secrets_are_not_repeated(load_errors, content):
    """An error never shows a token, its hash or a password, even in a wrong place."""
    problems = load_errors(content, {"FLOWHOOKS_TOKENS": TOKEN, "FLOWHOOKS_SOURCES_ERP_TOKEN_SHA256": TOKEN})

    assert len(problems) >= 3
    assert not any(TOKEN[:8] in line or HASH[:8] in line for line in problems)


@pytest.mark.parametrize(
    ("variable", "text", "says"),
    [
        ("HTTP_THREADS", "many", "must be a whole number, 1 to 1000, not 'many'"),
        ("HTTP_THREADS", "", "must be a whole number, 1 to 1000, not ''"),
        ("HTTP_THREADS", "٣", "must be a whole number, 1 to 1000, not '٣'"),
        ("HTTP_THREADS", "1_0", "must be a whole number, 1 to 1000, not '1_0'"),
        ("HTTP_THREADS", "9" * 5000, f"must be a whole number, 1 to 1000, not '{'9' * 60}…'"),
        ("ANSWER_WAIT", "nan", "must be a number of seconds, 0 to 60, not 'nan'"),
        ("ANSWER_WAIT", "5s", "must be a number of seconds, 0 to 60, not '5s'"),
        ("SAFE_MODE", "on", "must be true or false, not 'on'"),
        ("SAFE_MODE", "\x1b[31m\n", "must be true or false, not '\\x1b[31m\\n'"),
        ("PLUGINS_ALLOW", "a,,b", "item 2 must be a name of 1 to 100 letters, digits, '.', '_' or '-', not ''"),
        ("THREADS", "4", "is not a setting; did you mean FLOWHOOKS_HTTP_THREADS or FLOWHOOKS_RUNNER_THREADS?"),
        (
            "PLUGINS_DIR",
            "x",
            ("is not a setting; write [plugins.NAME] in the settings file; did you mean FLOWHOOKS_PLUGINS_DIRS?"),
        ),
        ("SOURCES_X_ALLOW", "x", "is not a setting; write [sources.NAME] in the settings file"),
        ("PORT", "8080", "is not a setting"),
        ("Config", "x", "is not a setting"),
        ("", "x", "is not a setting"),
    ],
)
def test_mistakes_in_the_environment(load_errors, variable, text, says):
    """Each mistake in the environment is one line that names the variable; unknown variables are mistakes."""
    assert load_errors(environ={f"FLOWHOOKS_{variable}": text}) == [f"environment variable FLOWHOOKS_{variable} {says}"]


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("http.thread", 3, "is not a setting; did you mean http.threads?"),
        ("http.threads", 0, "must be a whole number, 1 to 1000, not 0"),
        ("http.threads", "x", "must be a whole number, 1 to 1000, not 'x'"),
        ("insecure", 1, "must be true or false, not 1"),
        (
            "plugins_dirs",
            ("",),
            (
                "item 1 must be a folder's path, not '': a path must not be empty and must have only printable "
                "characters"
            ),
        ),
        ("sources.erp.x", "x", "is not a setting"),
    ],
)
def test_mistakes_in_options(load_errors, name, value, says):
    """Each mistake in an option is one line that names it."""
    assert load_errors(options={name: value}) == [f"option {name} {says}"]


def test_all_problems_at_once(load_errors):
    """All problems from all places are reported at once, one per line."""
    problems = load_errors(
        'answer_wait = 99\n[http]\nthreads = 0\nfoo = 1\n[sources.erp]\nallow = ["x"]',
        {"FLOWHOOKS_LISTEN": "nowhere", "FLOWHOOKS_FOO": "1"},
        {"admin": "x:1:2"},
    )

    assert [line.split(" must ")[0].split(" is ")[0].split(" has ")[0] for line in problems] == [
        "flowhooks.toml:1: answer_wait",
        "flowhooks.toml:3: http.threads",
        "flowhooks.toml:4: http.foo",
        "flowhooks.toml:6: sources.erp.allow item 1",
        "flowhooks.toml:5: sources.erp",
        "environment variable FLOWHOOKS_FOO",
        "environment variable FLOWHOOKS_LISTEN",
        "option admin",
    ]


def test_both_listeners_at_one_address(load_errors):
    """Two listeners cannot share an address, unless the system assigns their ports."""
    same = {"listen": "127.0.0.1:8080", "admin": "127.0.0.1:8080"}

    assert load_errors(options=same) == ["listen and admin are both '127.0.0.1:8080': give each its own address"]
    settings.load(None, {}, {"listen": "127.0.0.1:0", "admin": "127.0.0.1:0"})
