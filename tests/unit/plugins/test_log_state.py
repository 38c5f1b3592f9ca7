"""A plugin that configures the log for itself does not take it away from the server and the other plugins."""

from __future__ import annotations

import io
import json
import logging

import pytest
import structlog

from flowhooks.observability.logging import configure
from support.logging_state import restore_logging  # noqa: F401 (a fixture)

CHANGES = {
    "dict_config": "import logging.config\nlogging.config.dictConfig({'version': 1, 'root': {'level': 'CRITICAL'}})",
    "basic_config": "import logging\nlogging.basicConfig(force=True)",
    "disable": "import logging\nlogging.disable()",
    "level": "import logging\nlogging.getLogger().setLevel(100)",
    "clear": "import logging\nlogging.getLogger().handlers.clear()",
    "structlog": "import structlog\nstructlog.configure(logger_factory=structlog.ReturnLoggerFactory())",
}


@pytest.fixture
def stream():
    """The stream of the log, configured as by a server with the secret `pa55`."""
    stream = io.StringIO()
    root = logging.getLogger()
    handlers = root.handlers[:]
    configure("info", "json", stream, redact=lambda text: text.replace("pa55", "…"))
    yield stream
    root.handlers[:] = handlers
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("fails", [False, True])
def test_a_changed_log_is_restored(site, good, stream, change, fails):
    """The log continues as before, masked and on one line, and a warning names the plugin."""
    own = logging.getLogger("flowhooks.of_this_test")
    site.single_file("greedy", CHANGES[change] + ("\n1 / 0\n" if fails else "\n"))
    site.install("good", good)
    handlers = logging.getLogger().handlers[:]
    (warning,) = site.load().warnings
    assert warning.startswith("plugin 'greedy' has changed the log of the whole process")
    assert logging.getLogger().handlers == handlers
    own.info("server_started")
    structlog.get_logger("flowhooks").info("listening", password="pa55")
    records = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(record["event"], record.get("password")) for record in records] == [
        ("server_started", None),
        ("listening", "…"),
    ]


def test_an_own_handler_stays(site, good, stream):
    """A plugin may add a log handler, for example for a service that collects records."""
    site.single_file("adds", "import logging\nlogging.getLogger().addHandler(logging.NullHandler())\n")
    site.install("good", good)
    assert site.load().warnings == ()
    assert isinstance(logging.getLogger().handlers[-1], logging.NullHandler)
