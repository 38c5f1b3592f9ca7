"""`flowhooks check`: print the findings of a check as text or JSON."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

import click

from flowhooks.cli import output
from flowhooks.cli.http_client import ask_readiness
from flowhooks.cli.operations_client import load_plugins
from flowhooks.cli.options import json_option, settings_source_options
from flowhooks.errors import SettingsError
from flowhooks.execution.isolation import check_isolation
from flowhooks.execution.runners.required import procrastinate_schema_of
from flowhooks.observability import logging
from flowhooks.operations.check.finding import Severity
from flowhooks.operations.check.run import check, from_settings_error
from flowhooks.settings import database_url
from flowhooks.settings.secrets import settings_redactor

if TYPE_CHECKING:
    from flowhooks.cli.options import SettingsSource
    from flowhooks.operations.check.finding import CheckFinding

_STYLES: Final = {Severity.OK: "green", Severity.NOTE: "yellow", Severity.PROBLEM: "red"}


@click.command("check", short_help="Check settings, plugins and database for problems.")
@json_option
@settings_source_options
def command(settings_source: SettingsSource, *, as_json: bool) -> None:
    r"""Check the settings, plugins, routes and database, and print each problem with its remedy.

    The command changes nothing and needs no running server. If a server is running on SQLite, it names the process, and
    each reason for which its /readyz answers 503. On PostgreSQL it checks all processes that share the ledger: which of
    them are alive, and whether each handler is run by one of them. Plugins are imported and configured as in a server.

    \b
    Examples:
      flowhooks check
      flowhooks check --config /etc/flowhooks.toml
      flowhooks check --json | jq '.findings[] | select(.mark == "problem")'
      flowhooks check --json | jq '.findings[] | select(.about == "processes") | .facts'

    Exit codes: 0 no problem (there may be notes), 1 at least one problem, 2 wrong usage.
    """
    logging.configure("critical", "text")  # log entries of plugins are among the findings
    try:
        settings = settings_source.load()
        logging.configure("critical", "text", redact=settings_redactor(settings, os.environ))
        environ = dict(os.environ)  # copied before plugins are loaded, because they may change it
        findings = check(
            settings,
            lambda: load_plugins(settings),
            jobs=lambda: procrastinate_schema_of(settings).check(database_url(settings)),
            isolated=lambda plugins: check_isolation(settings, plugins, environ, settings_source.folder),
            readiness=lambda server: ask_readiness(server.admin),
            options=settings_source.arguments,
        )
    except SettingsError as error:
        findings = from_settings_error(error)
    marks = Counter(finding.mark for finding in findings)
    if as_json:
        counts = {"problems": marks[Severity.PROBLEM], "notes": marks[Severity.NOTE]}
        output.print_json({**counts, "findings": [asdict(finding) for finding in findings]})
    else:
        _print_findings(findings)
        problems = output.pluralize(marks[Severity.PROBLEM], "problem")
        output.print_line()
        output.print_line(f"{problems}, {output.pluralize(marks[Severity.NOTE], 'note')}.")
    if marks[Severity.PROBLEM]:
        raise SystemExit(1)


def _print_findings(findings: list[CheckFinding]) -> None:
    width = max(len(finding.about) for finding in findings)
    for finding in findings:
        output.print_line(f"{finding.mark:<7}  {finding.about:<{width}}  {finding.what}", style=_STYLES[finding.mark])
        for word, text in (("why", finding.why), ("next", finding.next)):
            if text:
                output.print_line(f"{'':<7}  {'':<{width}}  {word}: {text}")
