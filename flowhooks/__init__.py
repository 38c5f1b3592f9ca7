"""flowhooks runs Python business code when a business process has completed in a workflow engine.

Plugins import from this package only, not from its modules.
"""

from __future__ import annotations

from flowhooks.errors import EngineError, FlowhooksError, HandlerError, HandlerRaised, Reject, RetryAfter
from flowhooks.hookspecs import hookimpl
from flowhooks.model.alert import Alert, AlertCause, AlertSeverity
from flowhooks.model.delivery import Delivery, Outcome, OutcomeKind, State
from flowhooks.model.engine import (
    EndState,
    EngineClient,
    EngineConfig,
    EngineInfo,
    FinishedInstance,
    FinishedPage,
    InstanceStatus,
    ProcessDefinition,
)
from flowhooks.model.event import Event
from flowhooks.model.handler import Handler, handler
from flowhooks.model.receiver import ReceivedCallback, ReceivedRequest, ReceiverResponse
from flowhooks.model.retry import Retry

__all__ = [
    "Alert",
    "AlertCause",
    "AlertSeverity",
    "Delivery",
    "EndState",
    "EngineClient",
    "EngineConfig",
    "EngineError",
    "EngineInfo",
    "Event",
    "FinishedInstance",
    "FinishedPage",
    "FlowhooksError",
    "Handler",
    "HandlerError",
    "HandlerRaised",
    "InstanceStatus",
    "Outcome",
    "OutcomeKind",
    "ProcessDefinition",
    "ReceivedCallback",
    "ReceivedRequest",
    "ReceiverResponse",
    "Reject",
    "Retry",
    "RetryAfter",
    "State",
    "handler",
    "hookimpl",
]
# A constant: reading the metadata of the installed package would take a quarter of the start of a short command.
__version__ = "0.1.0"
