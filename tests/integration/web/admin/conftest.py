"""The console on a real socket, with a ledger of either kind."""

from __future__ import annotations

import http.client
import re
import threading
from functools import cache, lru_cache
from html.parser import HTMLParser
from typing import NamedTuple
from urllib.parse import urlencode

import pytest

from flowhooks.web.admin import app as admin_app
from flowhooks.web.admin import login_audit
from flowhooks.web.admin.app import create_admin
from flowhooks.web.admin.console import operations
from flowhooks.web.admin.console.actions import ACTIONS
from flowhooks.web.server.server import Limits, Server
from support import browsers
from support.waiting import WAIT_TIMEOUT

EXPECTED = "status of (401|403|404|409|422|429)|^The Cross-Origin-Opener-Policy header has been ignored"
"""Messages of Chromium about missing pages, forbidden pages, or pages without TLS."""
# Compile the templates once: this takes a third of the processor time of a test with its own console.
admin_app.Templates = cache(admin_app.Templates)
VOID = frozenset({"meta", "link", "img", "input", "br", "path", "rect"})


class Parsed(HTMLParser):
    """A page's elements and texts; raises if tags do not match."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tags = []
        self.texts = []
        self._open = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        """Record the start of an element."""
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        """Record an empty element."""
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        """Check that the innermost element ends."""
        assert self._open.pop() == tag

    def handle_data(self, data):
        """Record text between tags."""
        if data.strip():
            self.texts.append(" ".join(data.split()))

    @property
    def text(self):
        """The whole visible text."""
        return " ".join(self.texts)

    def links(self):
        """Every address on the page."""
        return [attrs["href"] for tag, attrs in self.tags if tag == "a"]

    def to_do(self, name, form="plan"):
        """The addresses of an action's buttons: links, and buttons that make a plan or act on the selected rows."""
        buttons = [attrs for tag, attrs in self.tags if tag == "button" and attrs.get("form") == form]
        links = self.links() if form == "plan" else []
        addresses = [*links, *(attrs["formaction"] for attrs in buttons)]
        return [address for address in addresses if address.startswith(f"/console/do/{name}?")]

    def steps(self):
        """The addresses of the forms of an operation's page, by what they do."""
        actions = [
            attrs["action"] for tag, attrs in self.tags if tag == "form" and "/operations/" in attrs.get("action", "")
        ]
        return {address.partition("?")[0].rpartition("/")[2]: address for address in actions}

    def form(self):
        """The target of the page's form and its hidden values; None without a form."""
        forms = [attrs for tag, attrs in self.tags if tag == "form" and attrs["method"] == "post" and "action" in attrs]
        if not forms:
            return None
        (form,) = forms
        inputs = [attrs for tag, attrs in self.tags if tag == "input" and attrs.get("type") == "hidden"]
        return form["action"], {attrs["name"]: attrs["value"] for attrs in inputs}


class Response(NamedTuple):
    """One response as it was received."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def page(self):
        """The body, read as HTML."""
        return _parsed(self.body)


@lru_cache(maxsize=16)  # parsing a page takes longer than rendering it
def _parsed(body):
    return Parsed(body.decode())


class Console:
    """A console and its client."""

    def __init__(self, flow, address):
        self.flow = flow
        self.address = address

    def get(self, path, *, method="GET", host=None, root="/console", body=None, **headers):
        """Request a page."""
        name, _, port = self.address.rpartition(":")
        connection = http.client.HTTPConnection(name, int(port), timeout=WAIT_TIMEOUT)
        try:
            header_fields = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, root + path, body, header_fields | ({"Host": host} if host else {}))
            response = connection.getresponse()
            return Response(response.status, response.headers, response.read())
        finally:
            connection.close()

    def submit(self, address, *, language="en", **fields):
        """Send a form."""
        name, _, port = self.address.rpartition(":")
        connection = http.client.HTTPConnection(name, int(port), timeout=WAIT_TIMEOUT)
        try:
            headers = {
                "Content-Type": "application/x-www-form-urlencoded",
                "Accept-Language": language,
                "Origin": f"http://{self.address}",
            }
            connection.request("POST", address, body=urlencode(fields, doseq=True), headers=headers)
            response = connection.getresponse()
            return Response(response.status, response.headers, response.read())
        finally:
            connection.close()

    def act(self, address, language="en", **fields):
        """Open a button's page and submit its form; return the response and the page that asked."""
        page_response = self.ask(address, language)
        action, hidden = page_response.page.form()
        return self.submit(action, language=language, **hidden | fields), page_response.page

    def ask(self, address, language="en", **rows):
        """Click an action's button: the page that asks, or the plan of the operation that it makes."""
        if ACTIONS[address.split("/")[3].partition("?")[0]].bulk is None:
            page_response = self.get(address, root="", Accept_Language=language)
        else:
            planned = self.submit(address, language=language, **rows)
            assert planned.status == 303, planned.body.decode()
            page_response = self.get(planned.headers["Location"], root="", Accept_Language=language)
        assert page_response.status == 200, page_response.body.decode()
        return page_response

    def follow(self, answer, language="en"):
        """The page to which a browser is redirected after a form, with the new cookies."""
        assert answer.status == 303, answer.body.decode()
        cookie = answer.headers["Set-Cookie"].partition(";")[0]
        response = self.get(answer.headers["Location"], root="", Cookie=cookie, Accept_Language=language)
        assert response.status == 200
        return response

    def post(self, path, form=None, **headers):
        """Send a form as a page of the console does."""
        all_headers = {"Content_Type": "application/x-www-form-urlencoded", "Sec_Fetch_Site": "same-origin"} | headers
        return self.get(path, method="POST", body=urlencode(form or {}), **all_headers)

    def log_in(self, name, password, **headers):
        """Log in; return the cookie as a browser sends it back."""
        response = self.post("/login", {"name": name, "password": password}, **headers)
        assert response.status == 303, response.body.decode()
        return response.headers["Set-Cookie"].partition(";")[0]

    def page(self, path, language="en"):
        """An existing page in a language."""
        response = self.get(path, Accept_Language=language)
        assert response.status == 200, response.body.decode()
        return response.page


@pytest.fixture(autouse=True)
def recorded_logins(monkeypatch):
    """Record logins and the use of sessions even if a write takes longer than a second on a busy machine."""
    monkeypatch.setattr(login_audit, "WRITE_TIMEOUT", WAIT_TIMEOUT)


@pytest.fixture
def serve(monkeypatch):
    """Serve a flow's console: `serve(flow)`; all are stopped at the end."""
    # Tests follow the redirect after an action on one delivery, however slow the machine is.
    monkeypatch.setattr(operations, "SINGLE_WAIT", WAIT_TIMEOUT)
    running = []

    def serve(flow, listen="127.0.0.1:0", trusted_proxy=""):
        limits = Limits(trusted_proxy=trusted_proxy)
        server = Server(create_admin(flow.app, "t"), listen=listen, threads=4, limits=limits, name="admin")
        thread = threading.Thread(target=server.serve)
        thread.start()
        running.append((server, thread))
        return Console(flow, server.address)

    yield serve
    for server, thread in running:
        server.close()
        thread.join(WAIT_TIMEOUT)
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def browser():
    """One Chromium for these tests only, because it keeps an event loop in this thread."""
    from playwright.sync_api import expect

    expect.set_options(timeout=WAIT_TIMEOUT * 1000)
    with browsers.chromium() as browser:
        yield browser


@pytest.fixture
def visit(browser):
    """A function that opens a page without errors: `visit(console, path, width=…, scheme=…, locale=…)`."""
    contexts, problems = [], []

    def visit(console, path="/", *, width=1280, scheme="light", locale="en-GB", scripts=True, zone="Asia/Shanghai"):
        context = browser.new_context(
            viewport={"width": width, "height": 800},
            color_scheme=scheme,
            locale=locale,
            timezone_id=zone,
            java_script_enabled=scripts,
            base_url=f"http://{console.address}",
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(WAIT_TIMEOUT * 1000)
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: None if console.address in request.url else problems.append(request.url))
        page.goto(f"/console{path}")
        return page

    yield visit
    for context in contexts:
        context.close()
    assert [problem for problem in problems if not re.search(EXPECTED, problem)] == []
