"""The page about access, in a real nginx before a real server: who is logged in, and what each role sees."""

from __future__ import annotations

import hashlib
import http.client
import http.server
import json
import re
import shutil
import socket
import subprocess
import threading
from contextlib import closing
from pathlib import Path

import pytest

from support.ports import free_port
from support.waiting import WAIT_TIMEOUT, until

PAGE = Path(__file__).parents[2] / "docs/how-to/limit-access.md"
CHINESE_PAGE = PAGE.with_name("limit-access.zh-CN.md")
TOML, NGINX = (
    re.search(rf"^ *```{language}\n(.*?)^ *```", PAGE.read_text(), re.DOTALL | re.MULTILINE)[1]
    for language in ("toml", "text")
)
CONSOLE = "ops.example.com"
PROXY = "127.0.0.2"
TOKEN = "a-token-of-the-engine-0123456789"
PLUGIN = """
from flowhooks import Reject, handler, hookimpl

@handler(process_key="{name}")
def work(event):
    raise Reject(f"no salary of {{event.data['salary']}}")

@hookimpl
def handlers():
    return [work]
"""
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
    server {{
        listen 127.0.0.1:{port};
        proxy_bind {proxy};
        location = /oauth2/auth {{
            internal;
            proxy_pass http://127.0.0.1:{login};
            proxy_pass_request_body off;
            proxy_set_header Content-Length "";
        }}
        {location}
    }}
}}
"""


class Login(http.server.BaseHTTPRequestHandler):
    """Stands for oauth2-proxy: the cookie of a browser says who has logged in, and with which groups."""

    def do_GET(self):
        """Answer 202 with the user's headers, or 401."""
        found = re.search(r"who=([^;]+); groups=([^;]*)", self.headers.get("Cookie", ""))
        self.send_response(202 if found else 401)
        if found:
            self.send_header("X-Auth-Request-User", found[1])
            self.send_header("X-Auth-Request-Groups", found[2])
        self.end_headers()

    def log_message(self, *_args):
        """Log nothing."""


@pytest.fixture(scope="module")
def site(make_site):
    """A site with two plugins."""
    site = make_site()
    for name in ("payments", "archive"):
        site.plugin(name, PLUGIN.format(name=name))
    return site


@pytest.fixture(scope="module")
def server(site):
    """A server with the settings of the page, and a dead delivery of each plugin."""
    digest = hashlib.sha256(TOKEN.encode()).hexdigest()
    source = f'[sources.erp]\ntoken_sha256 = ["{digest}"]\n'
    # A commit may take seconds on a busy machine.
    server = site.start(config=TOML.replace("10.0.0.5", PROXY) + source, ledger__write_timeout=20)
    for name in ("payments", "archive"):
        body = {"processDefinitionKey": name, "salary": "confidential"}
        assert server.post(f"{name}-1", body, Authorization=f"Bearer {TOKEN}").status == 500
    return server


@pytest.fixture(scope="module")
def nginx(server, tmp_path_factory):
    """The port of an nginx with the configuration of the page, before the server."""
    program = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
    if program is None:
        pytest.skip("nginx is not installed (Debian: apt-get install nginx-light)")
    folder, port = tmp_path_factory.mktemp("nginx"), free_port()
    login = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Login)
    thread = threading.Thread(target=login.serve_forever)
    thread.start()
    assert "http://10.0.0.6:8081" in NGINX
    location = NGINX.replace("10.0.0.6:8081", "{}:{}".format(*server.admin))
    text = WHOLE.format(folder=folder, port=port, proxy=PROXY, login=login.server_port, location=location)
    (folder / "nginx.conf").write_text(text)
    command = [program, "-p", folder, "-c", folder / "nginx.conf", "-e", "stderr"]
    checked = subprocess.run([*command, "-t"], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    process = subprocess.Popen([*command, "-g", "daemon off;"], stderr=subprocess.DEVNULL)
    try:
        until(lambda: listens(port, process))
        yield port
    finally:
        process.terminate()
        process.wait(WAIT_TIMEOUT)
        login.shutdown()
        thread.join(WAIT_TIMEOUT)
        login.server_close()


def listens(port, process):
    """Whether nginx accepts connections."""
    assert process.poll() is None
    try:
        socket.create_connection(("127.0.0.1", port), timeout=WAIT_TIMEOUT).close()
    except ConnectionRefusedError:
        return False
    return True


def ask(nginx, path, groups=None, *, method="GET", headers=(), user="li"):
    """Send a request through the proxy, as a browser of a user with groups; return the status and the body."""
    given = {"Host": CONSOLE, "Accept-Language": "en"} | dict(headers)
    given |= {} if groups is None else {"Cookie": f"who={user}; groups={groups}"}
    with closing(http.client.HTTPConnection("127.0.0.1", nginx, timeout=WAIT_TIMEOUT)) as connection:
        connection.request(method, path, headers=given)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


def flows(nginx, groups):
    """The flow instances that the API lists."""
    status, body = ask(nginx, "/api/events", groups)
    assert status == 200
    return [event["flow_instance_id"] for event in json.loads(body)["events"]]


def test_both_pages_have_the_same_examples():
    """The Chinese page has the settings and the configuration of the English one."""
    chinese = CHINESE_PAGE.read_text()
    assert TOML in chinese
    assert NGINX in chinese


def test_each_group_has_its_role(nginx):
    """Operators of all plugins, of one, and with hidden values see what the page says."""
    assert flows(nginx, "staff,ops") == ["archive-1", "payments-1"]
    assert flows(nginx, "payments-team") == ["payments-1"]
    for groups, secret in (("ops", True), ("payments-team", True), ("support", False)):
        status, page = ask(nginx, "/console/events?flow=payments-1", groups)
        assert status == 200
        assert ("confidential" in page) is secret
    assert ask(nginx, "/console/parked", "payments-team")[0] == 403
    assert ask(nginx, "/console/sources", "support")[0] == 403


def test_a_user_without_a_mapped_group_gets_a_page(nginx):
    """A user without a mapped group is refused with a page; who has not logged in never reaches the server."""
    status, page = ask(nginx, "/console/", "guests")
    assert (status, "none of your groups has a role" in page) == (403, True)
    assert ask(nginx, "/console/")[0] == 401
    assert ask(nginx, "/console/", "")[0] == 403


def test_identity_headers_of_clients_are_removed(nginx):
    """The proxy removes the headers of clients, so that nobody gets another name or group by sending them."""
    forged = {"X-Forwarded-User": "root", "X-Forwarded-Groups": "ops", "X_Forwarded_Groups": "ops"}
    assert ask(nginx, "/console/", headers=forged)[0] == 401
    assert ask(nginx, "/console/", "guests", headers=forged)[0] == 403
    assert flows_with(nginx, "payments-team", forged) == ["payments-1"]
    assert ask(nginx, "/console/handlers", "", headers=forged)[0] == 403


def flows_with(nginx, groups, headers):
    """The flow instances that the API lists for a client that sends further headers."""
    status, body = ask(nginx, "/api/events", groups, headers=headers)
    assert status == 200
    return [event["flow_instance_id"] for event in json.loads(body)["events"]]


def test_identity_headers_that_bypass_the_proxy_are_rejected(server, nginx):
    """From this machine, where the proxy is not, the headers are refused and the log says why."""
    headers = {"X-Forwarded-User": "li", "X-Forwarded-Groups": "ops", "Host": CONSOLE}
    for path in ("/console/", "/api/events", "/metrics"):
        assert server.ask("GET", path, None, headers, admin=True).status == 403
    server.until_logged("login_refused", why="the request does not come from login.proxy", address="127.0.0.1")
    assert server.ask("GET", "/console/", None, {"Host": CONSOLE}, admin=True).status == 401


def test_forms_of_other_sites_are_rejected(nginx):
    """A form of another site is refused although the proxy knows the browser; one of the console makes its plan."""
    path = "/console/do/replay?state=dead"
    assert ask(nginx, path, "ops", method="POST", headers={"Sec-Fetch-Site": "cross-site"})[0] == 403
    assert ask(nginx, path, "ops", method="POST")[0] == 403
    assert ask(nginx, path, "support", method="POST", headers={"Sec-Fetch-Site": "same-origin"})[0] == 403
    assert ask(nginx, path, "ops", method="POST", headers={"Origin": f"https://{CONSOLE}"})[0] == 303
    assert (
        ask(nginx, "/api/operations/pause", "ops", method="POST", headers={"Sec-Fetch-Site": "same-origin"})[0] == 401
    )


def test_each_login_is_in_the_audit_log(site, nginx):
    """The command of the page lists who has logged in, how, and with which role."""
    assert ask(nginx, "/console/handlers", "payments-team", user="zhao")[0] == 200

    def recorded():
        ran = site.run("audit", "--action", "login", "--json", database=site.database)
        return [entry["detail"] for entry in json.loads(ran.stdout)["entries"] if entry["actor"] == "zhao"]

    found = until(recorded)  # a request waits for its login's entry for a second at most
    assert [(entry["by"], entry["role"], entry["address"]) for entry in found] == [("proxy", "payments", "127.0.0.1")]


def test_a_reload_applies_to_logged_in_users(site, server, nginx):
    """A role that is taken away ends at the next request; settings that would let nobody in change nothing."""
    file = site.folder / "flowhooks.toml"
    before = file.read_text()
    assert ask(nginx, "/console/handlers", "support")[0] == 200
    file.write_text(before.replace('support = "support"\n', ""))
    server.reload()
    assert ask(nginx, "/console/handlers", "support")[0] == 403
    for broken in (
        before.replace('may = "operate"', 'may = "all"'),
        before.replace("[roles.payments]", "[roles.p]"),
        "",
    ):
        file.write_text(broken)
        server.reload("settings_reload_failed")
        assert ask(nginx, "/console/handlers", "payments-team")[0] == 200
    file.write_text(before)
    server.reload()
    assert ask(nginx, "/console/handlers", "support")[0] == 200


def test_check_names_the_proxy(site, server):
    """`flowhooks check` warns of a proxy on this machine, where other programs can send its headers."""
    ran = site.run("check", "--json", database=site.database)
    found = [finding for finding in json.loads(ran.stdout)["findings"] if finding["about"] == "operators"]
    (note,) = (finding for finding in found if PROXY in str(finding))
    assert (note["mark"], "log in as anyone" in note["why"]) == ("note", True)
    (typing_error,) = (
        finding for finding in findings(site, "roles.payments", "payment") if "did you mean" in str(finding)
    )
    assert "no plugin of this name is installed" in str(typing_error)


def findings(site, role, plugin):
    """The findings of `check` about operators, if a role names another plugin."""
    file = site.folder / "other.toml"
    file.write_text(
        (site.folder / "flowhooks.toml").read_text().replace('plugins = ["payments"]', f'plugins = ["{plugin}"]')
    )
    ran = site.run("check", "--json", "--config", file, database=site.database, plugins_dirs=site.plugins)
    return [finding for finding in json.loads(ran.stdout)["findings"] if role in str(finding)]
