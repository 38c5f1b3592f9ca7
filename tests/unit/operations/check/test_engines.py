"""The findings of `flowhooks check` about the engines that flowhooks asks."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from flowhooks.errors import EngineError
from flowhooks.model.engine import EngineInfo
from flowhooks.operations.check.engines import findings
from flowhooks.settings import EngineSettings, Secret, Settings, Source

FLOWABLE = EngineInfo(product="Flowable", version="7.1.0")


def check(answer=FLOWABLE, *, client="fake", unloaded=(), safe_mode=False, **engine):
    """The only finding about a source whose engine answers like this, or raises this."""

    def answered():
        if isinstance(answer, Exception):
            raise answer
        return answer

    plugins = SimpleNamespace(
        engine_clients={"fake": lambda _config: SimpleNamespace(check=answered, close=lambda: None)},
        unloaded=unloaded,
    )
    source = Source(engine=EngineSettings(client=client, url="http://oa.internal/rest", **engine))
    settings = Settings(sources={"oa": source, "crm": Source()}, safe_mode=safe_mode)
    (finding,) = findings(settings, plugins, {"P": "s3cret"})
    assert finding.about == "engines"
    return finding


def test_an_engine_that_responds():
    """The product, its version and its address are shown."""
    finding = check()
    assert (finding.mark, finding.what) == ("ok", "the engine of oa is Flowable 7.1.0, at http://oa.internal/rest")


def test_an_engine_with_an_unsuitable_history():
    """The problem that the client reports is a problem."""
    finding = check(EngineInfo(product="Camunda", problem="Set the history level to audit."))
    assert (finding.mark, finding.what) == (
        "problem",
        "the engine of oa is Camunda: Set the history level to audit.",
    )


@pytest.mark.parametrize(
    ("reason", "to_do"), [("unreachable", "runs"), ("refused", "password"), ("invalid", "base URL")]
)
def test_an_engine_that_does_not_respond(reason, to_do):
    """The error is a problem, with what to do, and without the password."""
    finding = check(EngineError(reason, "401 with s3cret"), password=Secret(env="P"))
    assert (finding.mark, finding.what) == ("problem", "the engine of oa cannot be asked: 401 with …")
    assert to_do in finding.next


def test_a_client_that_is_not_installed():
    """An unknown client is a problem."""
    finding = check(client="flowable")
    assert finding.mark == "problem"
    assert "install the plugin that offers it, such as flowhooks-flowable" in finding.what
    assert finding.why == "a server does not start with it"


def test_a_client_whose_plugin_may_be_denied():
    """It stays a problem, because nothing is reconciled, but a server starts with it."""
    finding = check(client="flowable", unloaded=["flowable"])
    assert finding.mark == "problem"
    assert finding.what.endswith("a plugin that is not loaded may offer it: flowable")
    assert finding.why == "a server starts with it, but cannot reconcile the source"


def test_no_engine_is_asked_in_safe_mode():
    """Safe mode loads no client, which is no problem of the settings."""
    finding = check(EngineError("unreachable", "not asked"), safe_mode=True)
    assert (finding.mark, finding.what) == ("note", "safe mode: the engine of oa is not asked")
