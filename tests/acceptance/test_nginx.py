"""The example for nginx, in a real nginx before a real server: accepted clients, and the errors of refused clients."""

from __future__ import annotations

import html
import http.client
import json
import re
import shutil
import socket
import ssl
import subprocess
from contextlib import closing
from pathlib import Path

import pytest
import trustme

from flowhooks.operations.event_export import ExportFormat
from flowhooks.settings import Settings
from flowhooks.web.admin.passwords import hash_password
from flowhooks.web.negotiation import MAX_WAIT_SECONDS
from support.ports import free_port
from support.waiting import WAIT_TIMEOUT, until

FILE = Path(__file__).parents[2] / "docs/deploy/nginx.conf"
ENGINES, CONSOLE = "flowhooks.example.com", "flowhooks-console.example.com"
ELSEWHERE = "127.0.0.2"
"""An address of this machine that is not among those allowed."""
OTHER = "127.0.0.3"
"""An address that nginx accepts and no source allows."""
PLUGIN = '''
from flowhooks import handler, hookimpl

@handler(process_key="good")
def good(event):
    """Do nothing."""

@hookimpl
def handlers():
    return [good]
'''
WHOLE = """\
user root;
pid {folder}/nginx.pid;
error_log stderr warn;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/flowhooks.conf;
}}
"""
LIMITS = {
    name: re.search(rf"^ *{name} +([^;]+);", FILE.read_text(), re.MULTILINE)[1]
    for name in ("client_max_body_size", "proxy_read_timeout", "keepalive_timeout", "client_body_timeout", "limit_conn")
}


class Nginx:
    """An nginx with the example configuration, in which only addresses, paths and networks are replaced."""

    def __init__(self, folder, server, nginx):
        self.port, self.program = free_port(), nginx
        ca = trustme.CA()
        certificate = ca.issue_cert(ENGINES, CONSOLE)
        certificate.private_key_and_cert_chain_pem.write_to_path(folder / "certificate.pem")
        certificate.private_key_pem.write_to_path(folder / "key.pem")
        text = FILE.read_text()
        for old, new in {
            "listen 443 ssl": f"listen 127.0.0.1:{self.port} ssl",
            "server 127.0.0.1:8080;": "server {}:{};".format(*server.address),
            "server 127.0.0.1:8081;": "server {}:{};".format(*server.admin),
            "/etc/nginx/flowhooks/": f"{folder}/",
            "192.0.2.0/24": f"127.0.0.1; allow {OTHER}",
            "198.51.100.0/24": "127.0.0.1",
        }.items():
            assert old in text
            text = text.replace(old, new)
        (folder / "flowhooks.conf").write_text(text)
        (folder / "nginx.conf").write_text(WHOLE.format(folder=folder))
        command = [nginx, "-p", folder, "-c", folder / "nginx.conf", "-e", "stderr"]
        checked = subprocess.run([*command, "-t"], capture_output=True, text=True, check=False)
        assert checked.returncode == 0, checked.stderr
        assert "[warn]" not in checked.stderr.replace('[warn] the "user" directive', ""), checked.stderr
        self.process = subprocess.Popen([*command, "-g", "daemon off;"], stderr=subprocess.DEVNULL)
        self.trusted = ssl.create_default_context()
        ca.configure_trust(self.trusted)
        self._wait()

    def _wait(self):
        def listens():
            assert self.process.poll() is None
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=WAIT_TIMEOUT).close()
            except ConnectionRefusedError:
                return False
            return True

        until(listens)

    def ask(self, name, method, path, body=None, headers=None, *, source="127.0.0.1", sni=None):
        """Send one request under a name; return the response and its body."""
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=30, source_address=(source, 0))
        with closing(http.client.HTTPConnection(name)) as connection:
            connection.sock = self.trusted.wrap_socket(plain, server_hostname=sni or name)
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer, answer.read()

    def post(self, instance, body, headers=None, **given):
        """Send one callback."""
        headers = {"Content-Type": "application/json", "Authorization": "Bearer token"} | (headers or {})
        return self.ask(ENGINES, "POST", f"/flow/{instance}/call-back/complete", body, headers, **given)

    def close(self):
        """Stop nginx."""
        self.process.terminate()
        self.process.wait(WAIT_TIMEOUT)


GOOD = json.dumps({"processDefinitionKey": "good"})


@pytest.fixture(scope="module")
def server(make_site):
    """A server that requires a token."""
    site = make_site()
    site.plugin("p", PLUGIN)
    digest = "3c469e9d6c5875d37a43f353d4f88e61fcf812c66eee3457465a40b0da4153e0"  # of "token"
    config = f"""
public_url = "https://{CONSOLE}"
[http]
trusted_proxy = "127.0.0.1"
[sources.erp]
token_sha256 = ["{digest}"]
allow = ["127.0.0.1"]
[operators.anna]
role = "operate"
password = "{hash_password("secret of anna")}"
"""
    return site.start(config=config, ledger__write_timeout=20)  # a commit may take seconds on a busy machine


@pytest.fixture(scope="module")
def nginx(server, tmp_path_factory):
    """The example in front of the server."""
    program = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
    if program is None:
        pytest.skip("nginx is not installed (Debian: apt-get install nginx-light)")
    running = Nginx(tmp_path_factory.mktemp("nginx"), server, program)
    yield running
    running.close()


def test_a_callback_passes(nginx):
    """A callback passes over TLS with its token; without, flowhooks refuses it. An id with `%2F` arrives unchanged."""
    answer, body = nginx.post("n-1", GOOD)
    assert (answer.status, body) == (200, b'{"success": true}')
    assert answer.headers["Flowhooks-Event"]
    assert nginx.post("n-2", GOOD, {"Authorization": ""})[0].status == 401
    assert nginx.post("a%2Fb+%20c", GOOD)[0].status == 200
    answer, body = nginx.post("a%2Fb%C2%85", GOOD)
    assert (answer.status, json.loads(body)["path"]) == (422, "/flow/a%2Fb%C2%85/call-back/complete")


def test_a_foreign_address_is_rejected(nginx, server):
    """A foreign address is refused, even with a token or with any header about its address."""
    for headers in ({}, {"X-Forwarded-For": "127.0.0.1", "X-Real-IP": "127.0.0.1", "Forwarded": "for=127.0.0.1"}):
        answer, body = nginx.post("n-3", GOOD, headers, source=ELSEWHERE)
        assert answer.status == 403
        assert answer.headers["Content-Type"] == "application/json"
        said = json.loads(body)
        assert (said["success"], said["status"], said["errorInfo"]) == (False, 403, {"message": said["message"]})


def test_a_source_is_identified_by_its_address(nginx):
    """A source is identified by the address that nginx sees, not by headers of the engine."""
    for headers in ({}, {"X-Forwarded-For": "127.0.0.1", "X-Real-IP": "127.0.0.1", "Forwarded": "for=127.0.0.1"}):
        answer, body = nginx.post("n-7", GOOD, headers, source=OTHER)
        assert answer.status == 403
        assert "is not allowed from this address" in json.loads(body)["message"]
    assert nginx.post("n-7", GOOD, {"X-Forwarded-For": "203.0.113.1"})[0].status == 200


def test_only_callbacks_are_passed_on(nginx):
    """The engines' host name serves no console, no API and no metrics."""
    for path in ("/", "/console/", "/metrics", "/api/operations/reroute_parked", "/openapi.json"):
        assert nginx.ask(ENGINES, "GET", path)[0].status == 404


def test_fixed_urls_are_passed_on(nginx):
    """A request to a fixed URL reaches flowhooks. Requests from other addresses do not."""
    headers = {"Content-Type": "application/json", "Authorization": "Bearer token"}
    answer, body = nginx.ask(ENGINES, "POST", "/in/erp", GOOD, headers)
    assert (answer.status, json.loads(body)["path"]) == (401, "/in/erp")
    assert nginx.ask(ENGINES, "POST", "/in/erp", GOOD, headers, source=ELSEWHERE)[0].status == 403


def test_an_oversized_body_is_rejected_in_the_same_format(nginx):
    """A body that is too large is refused by flowhooks or, above nginx's own limit, by nginx in the same format."""
    for megabytes in (1.5, 3):
        answer, body = nginx.post("n-4", b"x" * int(megabytes * 1024**2))
        assert (answer.status, json.loads(body)["status"]) == (413, 413)
    answer, body = nginx.post("n-5", GOOD, {f"X-{number}": "x" * 8000 for number in range(3)})
    assert (answer.status, json.loads(body)["status"]) == (431, 431)


def test_other_host_names_get_no_response(nginx):
    """Other host names get no response and no certificate."""
    with pytest.raises(ssl.SSLError):
        nginx.ask("elsewhere.example.com", "GET", "/")


def log_in(nginx):
    """Log Anna in; return the header with her session."""
    form = {"Content-Type": "application/x-www-form-urlencoded", "Origin": f"https://{CONSOLE}"}
    answer, _ = nginx.ask(CONSOLE, "POST", "/console/login", "name=anna&password=secret+of+anna", form)
    assert answer.status == 303
    cookie = answer.headers["Set-Cookie"]
    assert cookie.startswith("__Host-")
    assert "Secure" in cookie
    return {"Cookie": cookie.partition(";")[0]}


def test_the_console_is_served_only_by_its_host_name(nginx):
    """The console's host name serves only the console, after login and from an allowed address."""
    assert nginx.ask(CONSOLE, "GET", "/console/")[0].status == 401
    logged_in = log_in(nginx)
    answer, body = nginx.ask(CONSOLE, "GET", "/console/", headers=logged_in)
    assert answer.status == 200
    assert b"anna" in body
    answer, _ = nginx.ask(CONSOLE, "GET", "/", headers=logged_in)
    assert (answer.status, answer.headers["Location"].endswith("/console/")) == (302, True)
    assert nginx.ask(CONSOLE, "GET", "/console/", headers=logged_in, source=ELSEWHERE)[0].status == 403
    assert nginx.ask(CONSOLE, "GET", "/console/", headers=logged_in, sni=ENGINES)[0].status == 421
    for path in ("/metrics", "/readyz", "/api/operations/reroute_parked", "/flow/1/call-back/complete"):
        assert nginx.ask(CONSOLE, "GET", path, headers=logged_in)[0].status == 404


def test_downloads_of_the_console_are_served(nginx):
    """The links of a search to its file lead to the file, for an operator only."""
    assert nginx.post("n-8", GOOD)[0].status == 200
    logged_in = log_in(nginx)
    _, page = nginx.ask(CONSOLE, "GET", "/console/events?key=good", headers=logged_in)
    links = [html.unescape(link) for link in re.findall(r'href="([^"]*format=[^"]*)"', page.decode())]
    assert len(links) == len(ExportFormat)
    for link in links:
        answer, _ = nginx.ask(CONSOLE, "GET", link, headers=logged_in)
        assert (answer.status, answer.headers["Content-Disposition"][:11]) == (200, "attachment;"), link
        assert nginx.ask(CONSOLE, "GET", link)[0].status == 401


def test_engines_get_503_while_the_server_is_down(tmp_path, site, nginx, server):
    """While the server is down, engines get 503 with a Retry-After, as from flowhooks."""
    away = site.start()
    running = Nginx(tmp_path, away, nginx.process.args[0])
    try:
        away.stop()
        answer, body = running.post("n-6", GOOD)
        assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
        assert json.loads(body)["error"] == "Service Unavailable"
    finally:
        running.close()


def test_nginx_limits_fit_the_limits_of_flowhooks():
    """Nginx accepts larger bodies, waits longer and closes idle connections sooner. Both limit addresses alike."""
    http_ = Settings().http
    assert int(LIMITS["client_max_body_size"].removesuffix("m")) * 1024**2 > http_.max_body_bytes
    assert float(LIMITS["proxy_read_timeout"].removesuffix("s")) > MAX_WAIT_SECONDS
    assert float(LIMITS["keepalive_timeout"].removesuffix("s")) < http_.idle_timeout
    assert float(LIMITS["client_body_timeout"].removesuffix("s")) == http_.read_timeout
    assert LIMITS["limit_conn"] == f"flowhooks_clients {http_.max_connections // 4}"


def test_login_headers_of_clients_are_not_passed_on(nginx, make_site, tmp_path):
    """Even if the address of nginx is trusted to log operators in, the example passes on no such header of a client."""
    site = make_site()
    config = f"""
public_url = "https://{CONSOLE}"
[login]
proxy = "127.0.0.1"
groups = {{ops = "operate"}}
"""
    server = site.start(config=config)
    running = Nginx(tmp_path, server, nginx.program)
    try:
        headers = {"X-Forwarded-User": "li", "X-Forwarded-Groups": "ops"}
        assert running.ask(CONSOLE, "GET", "/console/handlers", headers=headers)[0].status == 401
        direct = server.ask("GET", "/console/handlers", None, headers | {"Host": CONSOLE}, admin=True)
        assert direct.status == 200
    finally:
        running.close()
        server.stop()
