"""Addresses to listen on and the place of the database, as text."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import make_url

from flowhooks import settings
from flowhooks.errors import SettingsError


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("127.0.0.1:8080", ("127.0.0.1", 8080)),
        ("0.0.0.0:0", ("0.0.0.0", 0)),
        ("localhost:65535", ("localhost", 65535)),
        ("flows.example.com:80", ("flows.example.com", 80)),
        ("my_host-1:80", ("my_host-1", 80)),
        ("[::1]:8080", ("::1", 8080)),
        ("[2001:DB8:0::1]:8080", ("2001:db8::1", 8080)),
        ("[fe80::1%eth0]:8080", ("fe80::1%eth0", 8080)),
    ],
)
def test_addresses(text, found):
    """Names, IPv4 and bracketed IPv6 addresses are parsed."""
    assert settings.host_and_port(text) == found


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "the port is missing"),
        ("8080", "the port is missing"),
        ("localhost", "the port is missing"),
        (":8080", "write 0.0.0.0:8080 for all interfaces"),
        ("*:8080", "write 0.0.0.0:8080 for all interfaces"),
        ("localhost:", "a number from 0 to 65535"),
        ("localhost:65536", "a number from 0 to 65535"),
        ("localhost:-1", "a number from 0 to 65535"),
        ("localhost:+80", "a number from 0 to 65535"),
        ("localhost: 80", "a number from 0 to 65535"),
        ("localhost:٨٠", "a number from 0 to 65535"),
        ("localhost:80\n", "a number from 0 to 65535"),
        (":" + "9" * 5000, "a number from 0 to 65535"),
        ("http://localhost:80", "leave out the scheme"),
        ("::1:8080", "in brackets"),
        ("[::1]", "a number from 0 to 65535"),
        ("[]:80", "not an IPv6 address"),
        ("[127.0.0.1]:80", "not an IPv6 address"),
        ("[::1%a\nb]:80", "not an IPv6 address"),
        ("256.0.0.1:80", "not an IPv4 address"),
        ("127.1:80", "not an IPv4 address"),
        ("0:80", "not an IPv4 address"),
        ("0x7f.0.0.0x1:80", "not an IPv4 address"),
        ("127.0.0.010:80", "not an IPv4 address"),
        ("a b:80", "neither an IP address nor a name"),
        ("a..b:80", "neither an IP address nor a name"),
        ("-a:80", "neither an IP address nor a name"),
        ("/run/flowhooks.sock:80", "neither an IP address nor a name"),
        ("höst:80", "neither an IP address nor a name"),
        ("a" * 254 + ":80", "neither an IP address nor a name"),
    ],
)
def test_rejected_addresses(text, says):
    """An invalid address is refused, and so is one that the system would interpret in an unexpected way."""
    with pytest.raises(ValueError, match=says) as caught:
        settings.host_and_port(text)

    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.9.10", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("localhost", True),
        ("LocalHost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("::ffff:0.0.0.0", False),
        ("192.168.0.1", False),
        ("", False),
        ("localhost.example.com", False),
        ("some-name", False),
    ],
)
def test_loopback(host, loopback):
    """Only loopback addresses and `localhost` count as private; an unknown name does not."""
    assert settings.is_loopback(host) is loopback


@pytest.mark.parametrize("name", ["flowhooks.db", "a b/100%25?#.db", "库.db", "data:v1.db"])
def test_paths_become_urls(name, tmp_path, monkeypatch):
    """A path becomes an absolute URL, in which SQLAlchemy finds exactly this path again."""
    monkeypatch.chdir(tmp_path)

    url = make_url(settings.database_url(settings.Settings(database=name)))

    assert (url.drivername, url.database, dict(url.query)) == ("sqlite", str(tmp_path / name), {})


def test_a_path_in_a_removed_working_folder(tmp_path, monkeypatch):
    """Settings that were made without `load` have an error, too; a setting is checked without the folder."""
    (tmp_path / "removed").mkdir()
    monkeypatch.chdir(tmp_path / "removed")
    (tmp_path / "removed").rmdir()
    with pytest.raises(SettingsError, match="database: the working folder cannot be used: No such file or directory"):
        settings.database_url(settings.Settings())
    assert settings.load(None, {}, {"database": "f.db"}, tmp_path).database == str(tmp_path / "f.db")


def test_home_folder():
    """`~` is the home folder."""
    url = settings.database_url(settings.Settings(database="~/flowhooks.db"))

    assert make_url(url).database == str(Path.home() / "flowhooks.db")


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:///flowhooks.db",
        "sqlite:////var/lib/flowhooks.db",
        "postgresql://",
        "postgresql:///flows?host=/run/postgresql",
        "postgresql://db/flows",
        "postgresql://user@server:p/w@db:5432/flows?sslmode=require",
        "postgresql://user@[::1]:5432/flows",
        "postgresql://[fe80::1%eth0]",
    ],
)
def test_urls_are_unchanged(url):
    """A URL is used as it is."""
    assert settings.database_url(settings.Settings(database=url)) == url


def test_postgres_is_a_name_of_postgresql():
    """The scheme of hosting providers names the same database."""
    url = settings.database_url(settings.Settings(database="postgres://user:p%40w@db:5433/flows"))

    assert url == "postgresql://user:p%40w@db:5433/flows"


@pytest.mark.parametrize(
    ("database", "says"),
    [
        ("mysql://user:hidden@db/flows", "mysql:// is not supported"),
        ("postgresql+psycopg://user:hidden@db/flows", r"postgresql\+psycopg:// is not supported"),
        (
            "postgresql://user:hidden@db:notaport/flows",
            "write postgresql://user@host:port/name, with a port from 1 to 65535",
        ),
        ("postgresql://user:hidden@db:/flows", "write postgresql://user@host:port/name, with a port from 1 to 65535"),
        (
            "postgresql://user:hidden@db:65536/flows",
            "write postgresql://user@host:port/name, with a port from 1 to 65535",
        ),
        (
            "postgresql://user:hidden@db:5432,other:5432/flows",
            "write postgresql://user@host:port/name, with a port from 1 to 65535",
        ),
        ("postgresql://[::hidden", "write .*, an IPv6 address in brackets"),
        ("postgresql://user:hidden@[::1/flows", "write .*, an IPv6 address in brackets"),
        ("postgresql://user:hidden@[localhost]/flows", "the host is not an IPv6 address"),
        ("postgresql://user:p@hidden@db/flows", "write .* %40 for each @"),
        ("postgresql://user:hidden%00@db/flows", "it must not contain %00"),
        ("SQLITE:///hidden.db", "SQLITE:// is not supported"),
        ("file://hidden.db", "file:// is not supported"),
        ("sqlite://hidden.db", "three slashes"),
        ("sqlite:///", "the path is missing"),
        ("sqlite:///hidden.db?mode=memory", "remove the '?'"),
        (":memory:", "is lost at a restart"),
        ("sqlite:///:memory:", "is lost at a restart"),
        ("sqlite:///file::memory:", "is lost at a restart"),
        ("sqlite://", "is lost at a restart"),
        ("", "a path must not be empty"),
        ("hidden\x00.db", "only printable"),
        ("hidden\n.db", "only printable"),
        ("hidden\udcff.db", "only printable"),
        ("~nobody-of-this-name/hidden.db", "no home folder"),
    ],
)
def test_rejected_databases(database, says):
    """A text that is no SQLite file is refused, here and when the settings are read, without repeating a password."""
    with pytest.raises(SettingsError, match=f"^database: .*{says}") as direct:
        settings.database_url(settings.Settings(database=database))
    with pytest.raises(
        SettingsError, match=(f"^option database must be a file's path or a database URL: .*{says}")
    ) as read:
        settings.load(None, {}, {"database": database})

    assert "hidden" not in f"{direct.value} {read.value}"
