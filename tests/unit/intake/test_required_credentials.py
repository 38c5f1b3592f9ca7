"""Which credentials a start requires."""

from __future__ import annotations

from flowhooks.intake.required_credentials import explain_missing
from flowhooks.settings import EngineSettings, Settings, Source

PULL_ONLY = {"oa": Source(engine=EngineSettings(client="fake", url="http://oa"))}


def test_a_pull_only_source_provides_no_credential():
    """Settings that have only pull-only sources left lack the credential that callers needed before."""
    required = {"sources": 1}

    (line,) = explain_missing(Settings(sources=PULL_ONLY), required, ["sources"])
    assert line.startswith("the settings have no source, but a credential has been required for callbacks")
    erp = {"erp": Source(token_sha256=("a3" * 32,))}
    assert not list(explain_missing(Settings(sources=PULL_ONLY | erp), required, ["sources"]))
