"""A process that evaluates events with the plugins of its environment: `python -m flowhooks…evaluator SETTINGS`.

It reads events from its standard input, one JSON document a line, and answers each with a line on its standard output.
The first line of its output describes the plugins. It writes nothing to the ledger.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from contextlib import closing
from typing import IO, TYPE_CHECKING, Any

import click

from flowhooks.cli.operations_client import load_plugins
from flowhooks.cli.options import settings_options
from flowhooks.errors import FlowhooksError
from flowhooks.ledger.reader import Reader
from flowhooks.observability import logging
from flowhooks.operations.backtest import evaluate, event_from_json
from flowhooks.operations.json.plugins import plugin_to_json
from flowhooks.operations.lookup import build_lookup
from flowhooks.operations.plugin_status import list_plugins
from flowhooks.settings import database_url
from flowhooks.settings.secrets import settings_redactor

if TYPE_CHECKING:
    from flowhooks.operations.lookup import Lookup
    from flowhooks.plugins.plugins import Plugins
    from flowhooks.settings import Settings


def own_streams() -> tuple[IO[str], IO[str]]:
    """Return standard input and output for this process alone: plugins read nothing, and print to standard error."""
    requests = os.fdopen(os.dup(0), encoding="utf-8")
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)
    sys.stdout.flush()
    os.dup2(2, 1)
    return requests, answers


def serve(settings: Settings, requests: IO[str], answers: IO[str]) -> None:
    """Load the plugins, then answer each event until the input ends."""
    try:
        plugins, lookup = _load(settings, answers)
        for line in requests:
            outcome = evaluate(event_from_json(json.loads(line)), lookup=lookup, plugins=plugins)
            _answer(answers, outcome.to_json())
    except FlowhooksError as error:
        _answer(answers, {"error": str(error)})


def _load(settings: Settings, answers: IO[str]) -> tuple[Plugins, Lookup]:
    # Log at critical only: the answers have the errors of plugins.
    logging.configure("critical", "text", redact=settings_redactor(settings, os.environ))
    _, plugins = load_plugins(settings)
    with closing(Reader(database_url(settings))) as reader:
        registered = reader.registered_handlers()
    ignored = settings.routing.ignore_process_keys
    # Without the ledger, which would also count deliveries.
    statuses = list_plugins(plugins, None, ignored, settings=settings)
    _answer(answers, {"plugins": [plugin_to_json(status) for status in statuses]})
    return plugins, build_lookup(plugins, registered, ignored)


def _answer(answers: IO[str], document: Any) -> None:
    answers.write(json.dumps(document) + "\n")
    answers.flush()


@click.command()
@settings_options
def main(settings: Settings) -> None:
    """Evaluate events."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the command, which then ends this process
    requests, answers = own_streams()
    with requests, answers:
        serve(settings, requests, answers)
    sys.stderr.flush()
    os._exit(0)  # threads of plugins would keep the process


if __name__ == "__main__":
    main()
