"""Operators of real servers: on a public administration listener, and over several processes."""

from __future__ import annotations

import json
import subprocess
from urllib.parse import urlencode

import pytest

from flowhooks.web.admin.passwords import hash_password

PASSWORD = "correct horse battery staple"
TOKEN = "robot-token-0123456789abcdefghij"
FORM = {"Content-Type": "application/x-www-form-urlencoded", "Sec-Fetch-Site": "same-origin"}


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """Settings with an operator who logs in, and a program whose token is in a file."""
    file = tmp_path_factory.mktemp("secret") / "token"
    file.write_text(f"{TOKEN}\n")
    file.chmod(0o600)
    return f"""
[operators.li]
role = "operate"
password = "{hash_password(PASSWORD)}"
[operators.robot]
role = "view"
token_file = "{file}"
"""


def log_in(server):
    """Log in; return the headers of a browser's later requests."""
    form = urlencode({"name": "li", "password": PASSWORD})
    answer = server.ask("POST", "/console/login", form, FORM, admin=True)
    assert answer.status == 303, answer.body
    return {"Cookie": answer.headers["Set-Cookie"].partition(";")[0]}


def test_a_public_administration_listener_with_operators(make_site, config):
    """With operators the administration may listen on all addresses, and refuses requests without a credential."""
    site = make_site()
    server = site.start(admin="0.0.0.0:0", config=config)
    there = {"Host": "ops.example.com:8081"}
    for path, status in (("/healthz", 200), ("/readyz", 200), ("/metrics", 401), ("/console/", 401), ("/api/x", 401)):
        assert server.ask("GET", path, None, there, admin=True).status == status, path
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    assert b"flowhooks_logins_total" in server.ask("GET", "/metrics", None, there | bearer, admin=True).body
    assert server.ask("POST", "/api/operations/reroute_parked", "{}", bearer, admin=True).status == 403
    assert server.operate(site.token(), "reroute_parked").status == 200
    cookie = log_in(server)
    assert server.ask("GET", "/console/", None, there | cookie, admin=True).status == 200
    ran = site.run("check", "--json", admin="0.0.0.0:1", database=site.database)
    (note,) = [finding for finding in json.loads(ran.stdout)["findings"] if finding["about"] == "operators"]
    assert (note["mark"], "without TLS" in note["why"]) == ("note", True)
    server.stop()
    for secret in (TOKEN, PASSWORD, "argon2id", cookie["Cookie"].partition("=")[2]):
        assert not [line for line in server.lines if secret in line]
        assert secret not in ran.stdout + ran.stderr
    again = site.start(config=config)
    assert again.ask("GET", "/console/", None, cookie, admin=True).status == 200
    again.stop()


def test_a_public_listener_without_operators_serves_no_console(make_site):
    """Without operators a public listener serves no console page, even with `insecure`."""
    site = make_site()
    server = site.start("--insecure", admin="0.0.0.0:0")
    assert server.ask("GET", "/console/", admin=True).status == 403
    server.stop()


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ('role = "operate"\n', "has no password, token_sha256 or token_file"),
        ('role = "operate"\ntoken_file = "/nowhere"\n', "operators.li.token_file: the file /nowhere cannot be read"),
    ],
)
def test_an_invalid_operator_stops_the_start(make_site, section, says):
    """An invalid operator stops the start with exit code 2 and a reason; no file changes."""
    site = make_site()
    server = site.start(ready=False, config=f"[operators.li]\n{section}")
    assert server.wait() == 2
    assert any(says in line for line in server.lines)
    assert not site.database.exists()


def test_processes_share_their_sessions(make_site, postgresql_url, config):
    """On two servers with one PostgreSQL, a login or logout at either server is valid at both."""
    site = make_site()
    site.database = site.url = postgresql_url
    assert site.run("db", "upgrade", "--database", postgresql_url).returncode == 0
    one, other = (site.start(config=config) for _ in range(2))
    cookie = log_in(one)
    page = other.ask("GET", "/console/", None, cookie, admin=True)
    assert (page.status, b"Log out" in page.body) == (200, True)
    assert other.ask("POST", "/console/logout", "", FORM | cookie, admin=True).status == 303
    assert one.ask("GET", "/console/", None, cookie, admin=True).status == 401
    one.stop()
    other.stop()


def test_operators_new_prints_valid_settings(make_site):
    """The output of `operators new`, added to the settings unchanged, lets its operator log in."""
    site = make_site()
    asked = [*site.flowhooks, "operators", "new", "li", "--role", "operate"]
    made = _run(site, asked, f"{PASSWORD}\n")
    program = _run(site, [*site.flowhooks, "operators", "new", "prom.1", "--role", "view", "--token"], "")
    token = program.stderr.splitlines()[-1]
    server = site.start(config=made.stdout + program.stdout)
    cookie = log_in(server)
    assert server.ask("GET", "/console/", None, cookie, admin=True).status == 200
    assert server.ask("GET", "/metrics", None, {"Authorization": f"Bearer {token}"}, admin=True).status == 200
    listed = site.run("operators", "list")
    assert [line.split() for line in listed.stdout.splitlines()[2:]] == [
        ["li", "operate", "password", "-"],
        ["prom.1", "view", "1", "token", "-"],
    ]
    server.stop()


def _run(site, command, given):
    ran = subprocess.run(command, cwd=site.folder, input=given, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    assert PASSWORD not in ran.stdout + ran.stderr
    return ran
