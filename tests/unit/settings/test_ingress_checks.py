"""The kinds and the receivers that fixed URLs name: each exists, or the sentence names its line."""

from __future__ import annotations

import pytest

from flowhooks import settings
from flowhooks.settings import unknown_kinds, unknown_receivers

MAPPED = """
[sources.oa]
token_sha256 = ["{digest}"]

[sources.oa.ingress]
format = "json"
flow_instance_id = "/id"
kind = {{pointer = "/status", values = {{"1" = "ignore", "2" = "complete", "3" = "{kind}", "4" = "{kind}"}}{other}}}
"""
RECEIVED = """
[sources.feishu]
[sources.feishu.ingress]
receiver = "{receiver}"
[sources.plain]
token_sha256 = ["{digest}"]
"""


@pytest.fixture
def sources(write_settings):
    """A function that reads the sources of a settings file."""

    def read(text, **values):
        return settings.load(write_settings(text.format(digest="0" * 64, **values)), {}, {}).sources

    return read


def test_kinds_that_exist(sources):
    """A kind with a schema file and the word `ignore` are possible, also as `other`."""
    for other in ("", ', other = "ignore"', ', other = "cancel"'):
        assert unknown_kinds(sources(MAPPED, kind="cancel", other=other), ("cancel", "complete")) == []
    assert unknown_kinds(sources(RECEIVED, receiver="feishu"), ()) == []


def test_a_kind_that_does_not_exist(sources):
    """Each unknown kind is named once with its line, and a similar one is suggested."""
    found = unknown_kinds(sources(MAPPED, kind="cancelled", other=', other = "zzz"'), ("cancel", "complete"))
    assert len(found) == 2
    assert found[0].startswith("flowhooks.toml:5: sources.oa.ingress.kind names 'cancelled', but there is no such kind")
    assert found[0].endswith("did you mean cancel?")
    assert "names 'zzz'" in found[1]


@pytest.mark.parametrize(
    ("receivers", "unloaded", "says"),
    [
        (("feishu",), (), ""),
        ((), ("feishu",), ""),
        ((), (), "sources.feishu.ingress.receiver names 'feishu', but no installed plugin of this name reads requests"),
        (("feishu2", "x"), (), "reads requests; did you mean feishu2?"),
    ],
)
def test_receivers(sources, receivers, unloaded, says):
    """A receiver is a plugin that reads requests, or one that is not loaded now."""
    found = unknown_receivers(sources(RECEIVED, receiver="feishu"), receivers, unloaded)
    assert len(found) == bool(says)
    if says:
        assert found[0].startswith("flowhooks.toml:3: ")
        assert says in found[0].replace('"', "'")
