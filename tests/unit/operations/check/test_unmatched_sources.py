"""`flowhooks check` warns of callbacks that belong to no source although flowhooks asks the engine that may call."""

from __future__ import annotations

import pytest

from flowhooks.operations.check.sources import findings
from flowhooks.settings import EngineSettings, Settings, Source

ENGINE = EngineSettings(client="fake", url="http://oa.internal")


@pytest.mark.parametrize(
    ("sources", "warns"),
    [
        ({"oa": Source(engine=ENGINE)}, True),
        ({"oa": Source(engine=ENGINE, former_names=("default",))}, False),
        ({"default": Source(engine=ENGINE)}, False),
        ({"oa": Source(engine=ENGINE, token_sha256=("0" * 64,))}, False),
        ({"oa": Source(engine=ENGINE), "crm": Source(token_sha256=("0" * 64,))}, False),
        ({}, False),
    ],
)
def test_callbacks_without_a_credential(sources, warns):
    """A pull-only source is named, unless callbacks without a credential are refused or belong to a source."""
    found = [finding for finding in findings(Settings(sources=sources)) if "without a credential" in finding.what]
    assert [(finding.mark, "belong to oa" in finding.what) for finding in found] == ([("note", True)] if warns else [])
