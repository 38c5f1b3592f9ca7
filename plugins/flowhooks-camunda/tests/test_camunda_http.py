"""flowhooks-camunda against servers that answer as broken engines, proxies and attackers do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from flowhooks_camunda.client import CamundaClient

from flowhooks.testing import HttpClientContract

if TYPE_CHECKING:
    from flowhooks.model.engine import EngineClientFactory


@pytest.fixture
def factory() -> EngineClientFactory:
    """The factory of the plugin."""
    return CamundaClient


class TestCamundaOverHttp(HttpClientContract):
    """No server can stop the client, fill the memory or learn the credential."""
