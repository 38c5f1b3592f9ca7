"""Test alerts: send a test message through the plugins that receive alerts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from flowhooks.errors import NotFound
from flowhooks.operations.context import AuditRecord

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flowhooks.operations.context import OperationContext


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertTestResult:
    """Result of a test of alerts.

    Attributes:
        route: the route whose plugins were tested; `""` if all were.
        errors: the error of each plugin, by its name; `""` if it accepted the test message.
    """

    route: str
    errors: Mapping[str, str]


def send_test_alerts(context: OperationContext, *, route: str = "") -> AlertTestResult:
    """Send a test message through each plugin that receives alerts, and wait for the results.

    Args:
        context: what operations work with; `by` is named in the message.
        route: the route whose plugins are tested; `""`: all plugins that receive alerts.

    Raises:
        NotFound: there is no such route, or this process does not load plugins.
        Unavailable: the audit record could not be written; the message was sent.
    """
    if context.alert_tester is None:
        raise NotFound("this process sends no alerts")
    errors = context.alert_tester.send(route, context.by.name if context.by else "")
    context.change(
        lambda _: True,
        lambda _: AuditRecord("test_alerts", route, {"route": route, "errors": errors}),
    )
    return AlertTestResult(route=route, errors=errors)
