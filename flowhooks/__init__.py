"""flowhooks: a completed business process, in any workflow engine, runs Python business code.

Plugins import from here and from nowhere else.
"""

from __future__ import annotations

from importlib.metadata import version as _version

from flowhooks.errors import FlowhooksError, Reject, RetryAfter
from flowhooks.hookspecs import hookimpl
from flowhooks.model.alert import Alert, AlertCause
from flowhooks.model.delivery import Delivery, Outcome, OutcomeKind, State
from flowhooks.model.event import Event
from flowhooks.model.handler import Handler, handler
from flowhooks.model.retry import Retry

__all__ = [
    "Alert",
    "AlertCause",
    "Delivery",
    "Event",
    "FlowhooksError",
    "Handler",
    "Outcome",
    "OutcomeKind",
    "Reject",
    "Retry",
    "RetryAfter",
    "State",
    "handler",
    "hookimpl",
]
__version__ = _version("flowhooks")
