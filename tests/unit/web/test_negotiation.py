"""Language, wait and media type in valid and invalid headers."""

from __future__ import annotations

import pytest

from flowhooks.errors import UnsupportedMedia
from flowhooks.web import negotiation


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, "en"),
        ("", "en"),
        ("zh", "zh"),
        ("ZH-cn", "zh"),
        ("zh-Hans-CN", "zh"),
        ("zh_CN", "zh"),
        ("zh-TW", "zh"),
        ("en", "en"),
        ("en-GB, zh", "en"),
        ("zh, en", "zh"),
        ("zh-CN,zh;q=0.9,en;q=0.8", "zh"),
        ("en;q=0.8, zh;q=0.9", "zh"),
        ("en; q=0.9 , zh ; q=0.8", "en"),
        ("zh;Q=0.5, en;q=0.4", "zh"),
        ("fr, de;q=0.5", "en"),
        ("fr, zh;q=0.1", "zh"),
        ("*", "en"),
        ("zh;q=0.5, *;q=0.8", "en"),
        ("zh;q=0.5, *;q=0.1", "zh"),
        ("zh;q=0", "en"),
        ("zh;q=0.000, fr", "en"),
        ("en;q=0, zh;q=0.001", "zh"),
        ("zh;q=1.000", "zh"),
        ("zh;q=1.001", "en"),
        ("zh;q=2", "en"),
        ("zh;q=-1", "en"),
        ("zh;q=nan", "en"),
        ("zh;q=", "en"),
        ("zh;q=0.5;q=1", "en"),
        ("zhongwen-", "en"),
        ("yue", "en"),
        ("zhx", "en"),
        ("中文", "en"),
        (",,;,=,zh", "zh"),
        ("\x00\r\n", "en"),
    ],
)
def test_language(header, expected):
    """Chinese if it is preferred over English, otherwise English."""
    assert negotiation.parse_accept_language(header) == expected


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, (10.0, None)),
        ("", (10.0, None)),
        ("wait=5", (5.0, "wait=5")),
        ("Wait = 5", (5.0, "wait=5")),
        ('wait="5"', (5.0, "wait=5")),
        ("wait=0", (0.0, "wait=0")),
        ("wait=007", (7.0, "wait=7")),
        ("wait=60", (60.0, "wait=60")),
        ("wait=61", (60.0, "wait=60")),
        ("wait=" + "9" * 5000, (60.0, "wait=60")),
        ("respond-async", (0.0, "respond-async")),
        ("Respond-Async", (0.0, "respond-async")),
        ('respond-async=""', (0.0, "respond-async")),
        ("respond-async, wait=5", (5.0, "respond-async, wait=5")),
        ("wait=5, respond-async", (5.0, "respond-async, wait=5")),
        ("respond-async,wait=100", (60.0, "respond-async, wait=60")),
        ("respond-async, respond-async", (0.0, "respond-async")),
        ("wait=5, wait=6", (5.0, "wait=5")),
        ("wait=x, wait=6", (6.0, "wait=6")),
        ("wait=5; a=b; c", (5.0, "wait=5")),
        ("respond-async; wait=9", (0.0, "respond-async")),
        ("return=minimal, handling=lenient", (10.0, None)),
        ('foo="a, wait=3", wait=4', (4.0, "wait=4")),
        ('foo="a\\", wait=3", wait=4', (4.0, "wait=4")),
        ('foo="a, wait=3', (3.0, "wait=3")),
        ("wait", (10.0, None)),
        ("wait=", (10.0, None)),
        ("wait=-1", (10.0, None)),
        ("wait=+1", (10.0, None)),
        ("wait=1.5", (10.0, None)),
        ("wait=1e3", (10.0, None)),
        ("wait=1_0", (10.0, None)),
        ("wait=\xb2", (10.0, None)),
        ("wait=٣", (10.0, None)),
        ("wait=nan", (10.0, None)),
        ("respond-async=no", (10.0, None)),
        (",,;=,", (10.0, None)),
    ],
)
def test_wait(header, expected):
    """RFC 7240: the first of several counts, malformed ones do not, and the applied one is returned."""
    assert negotiation.parse_prefer_wait(header, 10.0) == expected


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "",
        "application/json",
        "Application/JSON",
        "application/json;",
        "application/json; charset=utf-8",
        "application/json;charset=UTF8",
        'application/json; charset="Utf-8"',
        "application/json; Charset = utf-8 ; profile=x",
        "application/vnd.engine.v2+json",
        "application/problem+JSON; charset=utf-8",
    ],
)
def test_accepted_media_types(content_type):
    """JSON in UTF-8 in any spelling, and no type, are accepted."""
    negotiation.check_media_type(content_type, None)


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "text/json",
        "application/xml",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=a",
        "application/jsonp",
        "application/+json",
        "application/a+json+xml",
        "application/json, application/json",
        "application/json; charset=gbk",
        "application/json; charset=utf-16",
        "application/json; charset=",
        "application/json; charset",
        "application/json; charset=utf-8; charset=gbk",
        "json",
        " ; charset=utf-8",
    ],
)
def test_rejected_media_types(content_type):
    """Another media type is refused, and the refusal repeats it."""
    with pytest.raises(UnsupportedMedia) as caught:
        negotiation.check_media_type(content_type, None)
    assert content_type in caught.value.text("zh")


def test_a_rejection_shows_a_short_plain_text():
    """The refusal repeats a short, plain part of a long or odd header."""
    with pytest.raises(UnsupportedMedia) as caught:
        negotiation.check_media_type("a\u202e\n" + "b" * 5000, None)
    assert caught.value.text("en").isprintable()
    assert len(caught.value.text("en")) < 300


@pytest.mark.parametrize("coding", [None, "", "identity", "Identity", "identity, identity"])
def test_accepted_codings(coding):
    """A body without a content coding is accepted."""
    negotiation.check_media_type("application/json", coding)


@pytest.mark.parametrize("coding", ["gzip", "identity, gzip", "br", "x", "identity,"])
def test_rejected_codings(coding):
    """Every content coding is refused by its name."""
    with pytest.raises(UnsupportedMedia) as caught:
        negotiation.check_media_type("application/json", coding)
    assert caught.value.key == "content_encoding"
    assert coding in str(caught.value)


@pytest.mark.parametrize("header", ['"' * 100_000, "," * 100_000, " " * 100_000 + "x", '"\\' * 50_000, "zh;" * 30_000])
@pytest.mark.timeout(60)  # quadratic parsing would take minutes
def test_long_headers_are_parsed_quickly(header):
    """A header of any length is parsed quickly."""
    negotiation.parse_accept_language(header)
    negotiation.parse_prefer_wait(header, 1.0)
