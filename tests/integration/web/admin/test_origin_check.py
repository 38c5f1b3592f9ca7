"""Requests are accepted only from this machine, under a name that no web site can have."""

from __future__ import annotations

import pytest

from flowhooks.web.admin.origin_check import is_page

pytestmark = pytest.mark.either


@pytest.mark.sqlite
def test_only_host_names_of_this_machine_are_accepted(harness, serve):
    """Under any other name each page, its parts and its files are refused with the remedy."""
    console = serve(harness.open())
    for host in ("127.0.0.1", "localhost:9", "LOCALHOST", "[::1]:8081", "127.3.2.1:80"):
        assert console.get("/", host=host).status == 200, host
    for host in (
        "evil.example",
        "127.0.0.1.evil.example",
        "10.0.0.1:8081",
        "localhost.evil.example",
        "[::2]",
        "0.0.0.0",
    ):
        for path in ("/", "/events", "/static/console.css", "/live", "/nothing", ""):
            answer = console.get(path, host=host)
            assert answer.status == 403, (host, path)
            assert "127.0.0.1" in answer.page.text
        assert console.get("/", host=host, root="").status == 403
    assert "隧道" not in console.get("/", host="evil.example", Accept_Language="zh").page.text
    # Paths for engines and monitoring are not subject to the console's rule.
    assert console.get("", host="evil.example", root="/healthz").status == 200


@pytest.mark.sqlite
def test_a_public_listener_shows_no_console_without_a_login(harness, serve):
    """A public listener shows no console without a login."""
    console = serve(harness.open(admin="0.0.0.0:8081", insecure=True))
    answer = console.get("/", Accept_Language="zh-CN")
    assert answer.status == 403
    assert "隧道" in answer.page.text
    assert console.get("", root="/healthz").status == 200


def test_page_paths():
    """The root, the console and all paths below it are pages."""
    assert all(map(is_page, ("/", "/console", "/console/", "/console/events/1")))
    assert not any(map(is_page, ("/healthz", "/consoles", "/api/operations/dismiss", "")))


@pytest.mark.sqlite
@pytest.mark.parametrize("path", ["/metrics", "/openapi.json"])
def test_metrics_and_the_contract_need_a_local_host_name(harness, serve, path):
    """A web site whose name resolves to 127.0.0.1 can read neither; a public listener does not change."""
    console = serve(harness.open())
    for host in ("127.0.0.1", "localhost:9", "[::1]:8081"):
        assert console.get("", host=host, root=path).status == 200, host
    for host in ("evil.example", "10.0.0.1:8081"):
        assert console.get("", host=host, root=path).status == 403, host


@pytest.mark.sqlite
@pytest.mark.parametrize("path", ["/metrics", "/openapi.json"])
def test_metrics_and_the_contract_on_an_insecure_public_listener(harness, serve, path):
    """With `insecure`, monitors on other machines can use any name."""
    assert serve(harness.open(admin="0.0.0.0:8081", insecure=True)).get("", host="flowhooks", root=path).status == 200
