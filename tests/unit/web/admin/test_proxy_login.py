"""The headers in which a proxy names an operator: what is accepted, and what is refused."""

from __future__ import annotations

import pytest

from flowhooks.settings import LoginSettings
from flowhooks.web.admin.proxy_login import MAX_GROUPS, InvalidLoginHeader, ProxyUser, proxy_user
from flowhooks.web.server.channel import REPEATED_HEADERS
from flowhooks.web.server.trusted_proxy import PEER

PROXY = "10.0.0.5"
LOGIN = LoginSettings(proxy=PROXY, groups={"ops": "operate"})


def environ(user=None, groups=None, *, peer=PROXY, repeated=frozenset()):
    """The environ of a request with these headers."""
    found = {PEER: peer, REPEATED_HEADERS: frozenset(repeated)}
    found |= {} if user is None else {"HTTP_X_FORWARDED_USER": user}
    return found | ({} if groups is None else {"HTTP_X_FORWARDED_GROUPS": groups})


def as_sent(text):
    """A header's value as WSGI passes its UTF-8."""
    return text.encode().decode("latin-1")


@pytest.mark.parametrize(
    ("user", "groups", "found"),
    [
        ("li", "ops,dev", ("li", {"ops", "dev"})),
        ("li@example.com", " ops , dev ops,, ", ("li@example.com", {"ops", "dev ops"})),
        ("CORP\\li", "", ("CORP\\li", set())),
        ("li", None, ("li", set())),
        (as_sent("李雷"), as_sent("运维,开发"), ("李雷", {"运维", "开发"})),
        ("x" * 100, "g" * 255, ("x" * 100, {"g" * 255})),
    ],
)
def test_the_proxy_names_a_user(user, groups, found):
    """A user has a name and the groups between the separators, in UTF-8."""
    assert proxy_user(environ(user, groups), LOGIN) == ProxyUser(found[0], frozenset(found[1]))


def test_other_headers_and_separators():
    """The settings choose the headers and the separator; the others then mean nothing."""
    login = LoginSettings(
        proxy="::1",
        user_header="Remote-User",
        groups_header="Remote-Groups",
        groups_separator="|",
        groups={"a": "view"},
    )
    sent = environ("li", "ops", peer="::1")
    assert proxy_user(sent, login) is None
    named = sent | {"HTTP_REMOTE_USER": "wang", "HTTP_REMOTE_GROUPS": "cn=a,dc=b|c"}
    assert proxy_user(named, login) == ProxyUser("wang", frozenset({"cn=a,dc=b", "c"}))


def test_a_request_without_headers_names_no_user():
    """Without the headers, or without a proxy in the settings, a request names nobody."""
    assert proxy_user(environ(), LOGIN) is None
    assert proxy_user(environ(peer="192.0.2.1"), LOGIN) is None
    assert proxy_user(environ("li", "ops"), LoginSettings()) is None


@pytest.mark.parametrize(
    "peer", ["10.0.0.50", "10.0.0.4", "127.0.0.1", "::ffff:10.0.0.5", "", None, "/run/flowhooks.sock", "10.0.0.5 "]
)
@pytest.mark.parametrize(("user", "groups"), [("li", "ops"), ("li", None), (None, "ops"), ("", "")])
def test_headers_from_any_other_address_are_rejected(peer, user, groups):
    """One of the headers from another address than the proxy's, also from a Unix socket, refuses the request."""
    with pytest.raises(InvalidLoginHeader, match=r"login\.proxy"):
        proxy_user(environ(user, groups, peer=peer), LOGIN)


def test_headers_from_an_unknown_address_are_rejected():
    """Where nobody has recorded the address of the connection, the headers are refused."""
    sent = environ("li", "ops")
    for missing in (PEER, REPEATED_HEADERS):
        with pytest.raises(InvalidLoginHeader):
            proxy_user({name: value for name, value in sent.items() if name != missing}, LOGIN)


@pytest.mark.parametrize("repeated", ["X_FORWARDED_USER", "X_FORWARDED_GROUPS"])
def test_repeated_headers_are_rejected(repeated):
    """A header that is there twice is refused: one may be the client's own."""
    with pytest.raises(InvalidLoginHeader, match="repeated"):
        proxy_user(environ("li", "ops", repeated={repeated}), LOGIN)


@pytest.mark.parametrize(
    "user",
    [
        *("", "li,admin", "li, admin", " li", "li ", "x" * 101, "l\ti", "l\x7fi", "l\x85i", "l\xa0i", "l\xffi"),
        *(as_sent(name) for name in ("l\u2028i", "l\u202ei", "l\u200bi", "l\u0000i", "l\u3000i", "\ufeffli")),
        *("flowhooks", "Flowhooks", "local", "LOCAL", "unknown", "somebody"),
    ],
)
def test_hostile_names_are_rejected(user):
    """Empty, long and joined names, control characters, invisible ones, and names of flowhooks itself are refused."""
    with pytest.raises(InvalidLoginHeader):
        proxy_user(environ(user, "ops"), LOGIN)


@pytest.mark.parametrize(
    "groups", ["ops\x00", "o\x1bps", "\xff", as_sent("o\u202eps"), "g" * 256, ",".join(map(str, range(MAX_GROUPS + 1)))]
)
def test_hostile_groups_are_rejected(groups):
    """Control characters, long names and very many groups are refused as a whole."""
    with pytest.raises(InvalidLoginHeader):
        proxy_user(environ("li", groups), LOGIN)


def test_groups_without_a_user_are_rejected():
    """Groups without the user's name are refused."""
    with pytest.raises(InvalidLoginHeader, match="name is missing"):
        proxy_user(environ(None, "ops"), LOGIN)


def test_the_reason_has_no_value_of_the_request():
    """The reason is logged, so nothing of the header is in it."""
    with pytest.raises(InvalidLoginHeader) as caught:
        proxy_user(environ("evil\x1b[31m", "ops"), LOGIN)
    assert "evil" not in str(caught.value)
