"""Write events and outcomes into an audit trail: a flowhooks plugin."""

from __future__ import annotations

import hashlib
import json
import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from flowhooks import Delivery, Event, Handler, Outcome, Retry, State, handler, hookimpl
from flowhooks_audit.trail import Trail

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

log: Final = logging.getLogger(__name__)

NAME: Final = "audit"
"""The plugin's name in its entry point."""


class Audit:
    """Records every event of the configured kinds and, if configured, the outcomes of other plugins' attempts.

    Args:
        now: returns the current time in UTC, which is stored in each record; default: the machine's clock.
    """

    def __init__(self, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._now = now
        self._kinds: tuple[str, ...] = ()
        self._with_data = True
        self._with_outcomes = False
        self._trail: Trail | None = None

    @hookimpl
    def schemas(self) -> Sequence[Path]:
        """Return the folder with the schema of the section `[plugins.audit]`."""
        return [Path(__file__).with_name("schemas")]

    @hookimpl
    def configure(self, settings: Mapping[str, Any]) -> None:
        """Apply `[plugins.audit]`.

        Raises:
            ValueError: the folder of `file` does not exist, or `file` is a folder.
        """
        self._trail = self._open_trail(settings["file"]) if "file" in settings else None
        if self._trail is None:
            log.warning("nothing is recorded: set the path of the audit trail, file in [plugins.audit]")
        self._kinds = tuple(settings.get("kinds", ("complete",)))
        self._with_data = settings.get("data", True)
        self._with_outcomes = settings.get("outcomes", False)

    @hookimpl
    def handlers(self) -> Sequence[Handler]:
        """Return one handler for each configured kind of callback, or none if `file` is not set."""
        if self._trail is None:
            return []
        record = self._make_recorder(self._trail)
        return [handler(every=True, kind=kind, name=f"record_{kind}", retry=Retry())(record) for kind in self._kinds]

    def _make_recorder(self, trail: Trail) -> Callable[[Event, Delivery], dict[str, bool]]:
        def record(event: Event, delivery: Delivery) -> dict[str, bool]:
            """Record the event once in the audit trail."""
            return {"written_now": trail.append(delivery.id, self._event_members(event))}

        return record

    def _event_members(self, event: Event) -> dict[str, Any]:
        return {
            "what": "event",
            "at": self._now().isoformat(timespec="milliseconds"),
            "event": event.id,
            "receivedAt": event.received_at.isoformat(timespec="milliseconds"),
            "source": event.source,
            "kind": event.kind,
            "flowInstanceId": event.flow_instance_id,
            "businessKey": event.business_key,
            "callBackProcessClass": event.callback_class,
            "processDefinitionId": event.process_definition_id,
            "processDefinitionKey": event.process_definition_key,
            "processDefinitionVersion": event.process_definition_version,
            "conclusion": event.conclusion,
            **self._data_members(event.data),
        }

    @hookimpl
    def delivery_settled(self, event: Event, delivery: Delivery, outcome: Outcome, state: State) -> None:
        """Record the outcome of another plugin's attempt. It is not recorded if the server is killed first."""
        if self._trail is None or not self._with_outcomes or delivery.handler.startswith(f"{NAME}:"):
            return
        self._trail.append(
            f"{delivery.id} attempt {delivery.attempt}",
            {
                "what": "outcome",
                "at": self._now().isoformat(timespec="milliseconds"),
                "event": event.id,
                "handler": delivery.handler,
                "delivery": delivery.id,
                "attempt": delivery.attempt,
                "outcome": outcome.kind.value,
                "state": state.value,
                "error": outcome.error,
            },
        )

    def _open_trail(self, file: str) -> Trail:
        path = Path(file).absolute()  # another plugin or a handler may change the working folder later
        if not path.parent.is_dir():
            raise ValueError(f"[plugins.audit] file: the folder {path.parent} does not exist; create it")
        if path.is_dir():
            raise ValueError(f"[plugins.audit] file: {path} is a folder; give a file in it")
        return Trail(path)

    def _data_members(self, data: Mapping[str, Any]) -> dict[str, Any]:
        if self._with_data:
            return {"data": dict(data)}
        text = json.dumps(dict(data), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return {"dataSha256": hashlib.sha256(text.encode()).hexdigest()}


plugin: Final = Audit()
"""The plugin object that the entry point names."""
