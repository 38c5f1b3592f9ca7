"""A server without sources requires no credential: it accepts callbacks only from programs on its machine."""

from __future__ import annotations

import hashlib
import http.client
import http.server
import json
import threading
from contextlib import closing

import pytest
from sqlalchemy import select

from flowhooks.ledger.tables import rejected_requests
from support import browsers

PLUGIN = """
from flowhooks import handler, hookimpl

@handler(process_key="good")
def good(event):
    return event.source

@hookimpl
def handlers():
    return [good]
"""
GOOD = {"processDefinitionKey": "good"}
TOKEN = "the-token-of-the-engine"
SOURCE = f'[sources.erp]\ntoken_sha256 = ["{hashlib.sha256(TOKEN.encode()).hexdigest()}"]\n'
PROXIED = [
    {"X-Forwarded-For": "203.0.113.9"},
    {"x-forwarded-for": ""},
    {"X-Forwarded-Host": "hooks.example"},
    {"X-Forwarded-Proto": "https"},
    {"X-Forwarded-Server": "proxy"},
    {"Forwarded": "for=203.0.113.9"},
    {"Via": "1.1 proxy"},
    {"X-Real-IP": "203.0.113.9"},
]
BY_A_PAGE = [
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://localhost:3000"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost"},
    {"Sec-Fetch-Site": ""},
]
OTHER_NAMES = ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", "10.0.0.1:8080", "0.0.0.0", "[::2]:80"]


@pytest.fixture(scope="module")
def site(make_site):
    """A folder with a plugin."""
    site = make_site()
    site.plugin("p", PLUGIN)
    return site


@pytest.fixture(scope="module")
def server(site):
    """A server without a source."""
    return site.start()


def post(server, instance, headers, language="en"):
    """Send one callback with exactly these headers, besides Content-Length and Host."""
    with closing(http.client.HTTPConnection(*server.address, timeout=30)) as connection:
        connection.request(
            "POST",
            f"/flow/{instance}/call-back/complete",
            json.dumps(GOOD),
            {"Accept-Language": language} | headers,
        )
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read()).get("message", "")


def reasons(ledger):
    """The reasons for which callbacks were refused."""
    with ledger.connection() as connection:
        return connection.execute(select(rejected_requests.c.reason_en)).scalars().all()


def check_refused(server, site, headers, english, chinese):
    """Check that a callback with these headers is refused in both languages, and not stored."""
    before = site.balance().stored
    for language, words in (("en", english), ("zh", chinese)):
        status, message = post(server, "refused", headers, language)
        assert status == 403, headers
        assert words in message
        assert "[sources.NAME]" in message
    assert site.balance().stored == before


@pytest.mark.parametrize("headers", PROXIED, ids=str)
def test_a_callback_through_a_proxy_is_rejected(server, site, headers):
    """A callback through a proxy is refused, because any client of the proxy could send it."""
    check_refused(server, site, headers, "through a proxy", "代理")


@pytest.mark.parametrize("headers", BY_A_PAGE, ids=str)
def test_a_callback_from_a_page_of_another_site_is_rejected(server, site, headers):
    """A callback from a page of another site is refused, because any page can make a browser send it."""
    check_refused(server, site, headers, "web page", "网页")


@pytest.mark.parametrize("host", OTHER_NAMES)
def test_a_callback_to_a_foreign_host_name_is_rejected(server, site, host):
    """A callback to a foreign host name is refused, because such a name can resolve to 127.0.0.1."""
    check_refused(server, site, {"Host": host}, "Host", "Host")
    check_refused(server, site, {"Host": host, "Origin": f"http://{host}"}, "Host", "Host")


def test_callbacks_of_local_programs_are_accepted(server):
    """curl, Java and Python send none of these headers; their Host is a loopback name or the listening address."""
    port = server.address[1]
    for number, headers in enumerate(
        [
            {"User-Agent": "curl/8.5.0", "Accept": "*/*", "Content-Type": "application/json"},
            {"User-Agent": "Java/21", "Accept": "text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2"},
            {"User-Agent": "python-requests/2.32", "Accept-Encoding": "gzip", "Connection": "keep-alive"},
            {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAEAAEAAAAIAAAABAAMAAABk"},
            {"Host": f"127.0.0.1:{port}"},
            {"Host": f"localhost:{port}"},
            {"Host": "LOCALHOST"},
            {"Host": "127.3.2.1"},
            {"Host": f"[::1]:{port}"},
            {"Sec-Fetch-Site": "none"},
            {"Sec-Fetch-Site": "same-origin", "Origin": f"http://localhost:{port}", "Host": f"localhost:{port}"},
            {"Origin": f"http://localhost:{port}", "Host": f"localhost:{port}"},
        ]
    ):
        assert post(server, f"program-{number}", headers)[0] == 200, headers
    body = json.dumps(GOOD).encode()
    old = b"POST /flow/old/call-back/complete HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % len(body)
    assert b" 200 " in server.send(old + body)


def test_rejected_requests_are_listed_with_their_reason(server, site):
    """A rejected request is listed with its reason, and the contract is published all the same."""
    assert post(server, "listed", {"Via": "1.1 proxy"})[0] == 403
    site.until(lambda ledger: any("through a proxy" in reason for reason in reasons(ledger)))
    assert server.ask("GET", "/openapi.json").status == 200


@pytest.mark.parametrize(
    "config",
    [
        '[http]\ntrusted_proxy = "127.0.0.1"\n',
        'public_url = "https://ops.example"\n',
        '[login]\nproxy = "127.0.0.1"\ngroups = {ops = "view"}\n',
    ],
)
def test_every_callback_is_rejected_with_a_proxy_and_no_source(make_site, config):
    """With a proxy in the settings and no source, every callback is refused, because not every proxy sends headers."""
    site = make_site()
    site.plugin("p", PLUGIN)
    server = site.start(config=config)
    check_refused(server, site, {}, "through a proxy", "代理")
    server.stop()


def test_a_source_requires_its_credential(make_site):
    """With a source, callbacks through a proxy or browser need its token."""
    site = make_site()
    site.plugin("p", PLUGIN)
    server = site.start(config=SOURCE)
    for number, headers in enumerate([*PROXIED, *BY_A_PAGE, *({"Host": host} for host in OTHER_NAMES)]):
        assert post(server, "1", headers)[0] == 401
        assert post(server, f"ok-{number}", headers | {"Authorization": f"Bearer {TOKEN}"})[0] == 200, headers
    server.stop()


def test_insecure_accepts_other_machines_but_no_pages(make_site):
    """With `insecure`, callbacks through a proxy and under any name are accepted; pages of other sites are refused."""
    site = make_site()
    site.plugin("p", PLUGIN)
    for listen in ("127.0.0.1:0", "0.0.0.0:0"):
        server = site.start("--insecure", listen=listen)
        assert post(server, f"name-{listen}", {"Host": "flowhooks:8080", "X-Forwarded-For": "203.0.113.9"})[0] == 200
        for headers in BY_A_PAGE:
            assert post(server, "page", headers)[0] == 403, headers
        rebound = {"Host": "evil.example:8080", "Origin": "http://evil.example:8080"}
        assert post(server, "page", rebound)[0] == 403
        server.stop()


PAGE = """<!DOCTYPE html><title>a page of another site</title><script>
fetch("http://127.0.0.1:PORT/flow/by-a-page/call-back/complete",
      {method: "POST", mode: "no-cors", body: new Blob([JSON.stringify({processDefinitionKey: "good"})])})
  .then(() => document.title = "sent", error => document.title = "failed: " + error)
</script>"""


@pytest.mark.browser
@pytest.mark.skipif(browsers.program() is None, reason="no Chromium: apt-get install chromium-headless-shell")
def test_a_page_in_a_real_browser_creates_no_event(make_site):
    """A callback that Chromium sends without a preflight request is refused, and nothing is stored."""
    site = make_site()
    site.plugin("p", PLUGIN)
    server = site.start()

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = PAGE.replace("PORT", str(server.address[1])).encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as pages:
        threading.Thread(target=pages.serve_forever, daemon=True).start()
        with browsers.chromium() as browser:
            page = browser.new_page()
            page.goto(f"http://localhost:{pages.server_port}/")
            page.wait_for_function("document.title == 'sent'")
        pages.shutdown()
    site.until(lambda ledger: any("web page" in reason for reason in reasons(ledger)))
    assert site.balance().stored == 0
    server.stop()
