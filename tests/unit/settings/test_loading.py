"""The places from which settings are read, their order, and the result."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path

import pytest

from flowhooks import settings

HASH = "a3" * 32
OTHER = "b4" * 32
TOKEN = "Zx9-kQ_secret_token_that_nobody_may_ever_see_"


def test_defaults():
    """Without file, environment and options, each setting has its documented default."""
    loaded = settings.load(None, {}, {})

    assert loaded == settings.Settings()
    assert (loaded.database, loaded.listen, loaded.admin) == ("flowhooks.db", "127.0.0.1:8080", "127.0.0.1:8081")
    assert (loaded.routing.no_handler, loaded.answer_wait, loaded.insecure, loaded.safe_mode) == (
        "park",
        10.0,
        False,
        False,
    )
    assert (loaded.plugins_dirs, loaded.plugins_allow, loaded.plugins_deny, loaded.schemas_dir) == ((), (), (), "")
    assert loaded.http == settings.HttpSettings(
        threads=16,
        max_body_bytes=1048576,
        max_header_bytes=16384,
        read_timeout=10.0,
        idle_timeout=60.0,
        max_connections=1000,
    )
    assert (loaded.runner.threads, loaded.ledger.max_queued_writes, loaded.ledger.write_timeout) == (32, 10000, 5.0)
    assert (loaded.shutdown.timeout, loaded.identity.ignore_pointers, loaded.routing.ignore_process_keys) == (
        30.0,
        (),
        (),
    )
    assert (loaded.log.level, loaded.log.format, loaded.sources, loaded.plugins) == ("info", "auto", {}, {})


def test_a_whole_file(write_settings):
    """Every section is read; sections of plugins stay as in TOML."""
    path = write_settings(f"""
        database = "~/ledger.db"
        listen = "[::1]:0"
        answer_wait = 0
        plugins_dirs = ["~/one", "two"]
        [http]
        threads = 4
        read_timeout = 2
        [identity]
        ignore_pointers = ["/sentAt", "/a~1b/0"]
        [routing]
        ignore_process_keys = ["leave", "请假"]
        [log]
        level = "debug"
        [sources.erp]
        token_sha256 = ["{HASH.upper()}", "{HASH}", "{OTHER}"]
        allow = ["10.1.2.3/8", "2001:db8::/32", "::ffff:192.168.0.0/112", "192.0.2.7"]
        [sources.default]
        token_sha256 = ["{"c5" * 32}"]
        [plugins.contracts]
        archive = {{ url = "https://example.com", tries = [1, 2] }}
    """)

    loaded = settings.load(path, {}, {})

    assert (loaded.database, loaded.listen, loaded.answer_wait) == (str(Path.home() / "ledger.db"), "[::1]:0", 0.0)
    assert loaded.plugins_dirs == (str(Path("~/one").expanduser()), "two")
    assert (loaded.http.threads, loaded.http.read_timeout, loaded.http.idle_timeout) == (4, 2.0, 60.0)
    assert isinstance(loaded.http.read_timeout, float)
    assert (loaded.identity.ignore_pointers, loaded.routing.ignore_process_keys) == (
        ("/sentAt", "/a~1b/0"),
        ("leave", "请假"),
    )
    assert loaded.log == settings.LogSettings(level="debug", format="auto")
    assert loaded.sources["erp"].token_sha256 == (HASH, OTHER)
    assert loaded.sources["erp"].allow == tuple(
        map(ip_network, ("10.0.0.0/8", "2001:db8::/32", "192.168.0.0/16", "192.0.2.7/32"))
    )
    assert loaded.sources["default"].allow == ()
    assert loaded.plugins == {"contracts": {"archive": {"url": "https://example.com", "tries": [1, 2]}}}


def test_precedence(write_settings):
    """Options override the environment, which overrides the file, which overrides defaults; None is not given."""
    path = write_settings(
        'listen = "127.0.0.1:1"\nadmin = "127.0.0.1:2"\nanswer_wait = 3\n[http]\nthreads = 4\nmax_connections = 5'
    )
    environ = {"FLOWHOOKS_ADMIN": "127.0.0.1:20", "FLOWHOOKS_ANSWER_WAIT": "30", "FLOWHOOKS_HTTP_THREADS": "40"}
    options = {"answer_wait": 31, "http.threads": "41", "http.max_connections": None, "plugins_dirs": None}

    loaded = settings.load(path, environ, options)

    assert (loaded.listen, loaded.admin, loaded.answer_wait) == ("127.0.0.1:1", "127.0.0.1:20", 31.0)
    assert (loaded.http.threads, loaded.http.max_connections) == (41, 5)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("safe_mode", "true", True),
        ("safe_mode", "YES", True),
        ("safe_mode", "1", True),
        ("safe_mode", "no", False),
        ("safe_mode", "0", False),
        ("safe_mode", "False", False),
        ("answer_wait", "2.5", 2.5),
        ("answer_wait", "0", 0.0),
        ("plugins_allow", "one, two,one", ("one", "two")),
        ("plugins_allow", " ", ()),
        ("plugins_dirs", "/a,b", ("/a", "b")),
        ("schemas_dir", "", ""),
    ],
)
def test_text_of_environment_and_options(name, text, value):
    """Lists are comma-separated and truth values have three spellings each, in the environment and in options."""
    by_environ = settings.load(None, {f"FLOWHOOKS_{name.upper()}": text}, {})
    by_option = settings.load(None, {}, {name: text})

    assert getattr(by_environ, name) == value
    assert getattr(by_option, name) == value


def test_every_described_variable_is_read():
    """Each setting that the reference lists with a variable can be set by it, to its own default."""
    environ = {
        setting.variable: setting.default.strip('"').replace("[]", "")
        for setting in settings.describe()
        if setting.variable
    }

    assert settings.load(None, environ, {}) == settings.Settings()
    assert len(environ) == 65


def test_choice_of_the_settings_file(write_settings, tmp_path):
    """The option names the file, otherwise FLOWHOOKS_CONFIG, otherwise ./flowhooks.toml is read if it exists."""
    write_settings("answer_wait = 1")
    named = write_settings("answer_wait = 2", "named.toml")
    given = write_settings("answer_wait = 3", "given.toml")

    assert settings.load(None, {}, {}).answer_wait == 1
    assert settings.load(None, {"FLOWHOOKS_CONFIG": ""}, {}).answer_wait == 1
    assert settings.load(None, {"FLOWHOOKS_CONFIG": str(named)}, {}).answer_wait == 2
    assert settings.load(given, {"FLOWHOOKS_CONFIG": str(named)}, {}).answer_wait == 3


def test_byte_order_mark(write_settings):
    """A file with a byte order mark, as from Windows' Notepad, is read."""
    assert settings.load(write_settings(b"\xef\xbb\xbfanswer_wait = 1\r\n"), {}, {}).answer_wait == 1


def test_variables_that_are_not_settings_are_ignored():
    """Variables of commands and tests, and those of Kubernetes for a service named `flowhooks`, are no mistakes."""
    environ = {
        "PATH": "/bin",
        "FLOWHOOKSX": "1",
        "FLOWHOOKS_TEST_PG_DSN": "x",
        "FLOWHOOKS_FAILPOINT": "x",
        "FLOWHOOKS_TOKEN": "x",
        "FLOWHOOKS_SERVICE_HOST": "10.1.2.3",
        "FLOWHOOKS_SERVICE_PORT": "8080",
        "FLOWHOOKS_SERVICE_PORT_HTTP": "8080",
        "FLOWHOOKS_PORT": "tcp://10.1.2.3:8080",
        "FLOWHOOKS_PORT_8080_TCP": "tcp://10.1.2.3:8080",
        "FLOWHOOKS_PORT_8080_TCP_PROTO": "tcp",
        "FLOWHOOKS_PORT_8080_TCP_PORT": "8080",
        "FLOWHOOKS_PORT_8080_TCP_ADDR": "10.1.2.3",
        "FLOWHOOKS_ADMIN_SERVICE_HOST": "10.1.2.4",
        "FLOWHOOKS_ADMIN_PORT": "tcp://10.1.2.4:8081",
    }

    assert settings.load(None, environ, {}) == settings.Settings()


def test_secrets_are_not_shown(write_settings):
    """Neither token hashes nor the plugins' sections are in the settings' repr."""
    path = write_settings(f"[sources.erp]\ntoken_sha256 = ['{HASH}']\n[plugins.mail]\npassword = '{TOKEN}'")

    loaded = settings.load(path, {}, {})

    assert loaded.plugins["mail"]["password"] == TOKEN
    assert loaded.sources["erp"].token_sha256 == (HASH,)
    for text in (repr(loaded), str(loaded), f"{loaded.sources}"):
        assert TOKEN not in text
        assert HASH not in text


@pytest.mark.parametrize(
    ("environ", "options", "expected"),
    [
        ({"FLOWHOOKS_LISTEN": "127.0.0.1:2"}, {"listen": "127.0.0.1:3"}, "option --listen"),
        ({"FLOWHOOKS_LISTEN": "127.0.0.1:2"}, {"listen": None}, "environment variable FLOWHOOKS_LISTEN"),
        ({}, {"listen": None}, "{path}: listen"),
        ({}, {"listen": None, "file": None}, "default of listen"),
    ],
)
def test_origin_of_a_setting(write_settings, environ, options, expected):
    """The place that decided the value is named."""
    path = write_settings("admin = '127.0.0.1:0'" if "file" in options else "listen = '127.0.0.1:1'")

    assert settings.origin("listen", path, environ, options) == expected.format(path=path)


def test_origin_in_the_default_file(write_settings, monkeypatch):
    """The file of `FLOWHOOKS_CONFIG` counts too; without a file the default decides."""
    path = write_settings("listen = '127.0.0.1:1'").absolute()
    monkeypatch.chdir(path.parent.parent)

    assert settings.origin("listen", None, {"FLOWHOOKS_CONFIG": str(path)}, {}) == f"{path}: listen"
    assert settings.origin("listen", None, {}, {}) == "default of listen"
