"""Ask a handler's `probe=` whether the lost attempt of an *unknown* delivery did its work."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import structlog

from flowhooks.clock import SECOND
from flowhooks.ledger.deliveries import StateChange, apply_changes, defer_probe
from flowhooks.ledger.delivery_settled import DeliverySettled
from flowhooks.model.delivery import Delivery, State, Trigger
from flowhooks.model.log_fields import delivery_log_fields
from flowhooks.plugins.default_hooks import call_probe
from flowhooks.plugins.error_text import clear_tracebacks, traceback_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from flowhooks.clock import Clock
    from flowhooks.execution.isolation import IsolatedCalls
    from flowhooks.ledger.ledger import Ledger
    from flowhooks.model.handler import Handler
    from flowhooks.model.ready_delivery import ReadyDelivery
    from flowhooks.plugins.plugins import Plugins

PROBE_RETRY_INTERVAL: Final = 60 * SECOND
"""Microseconds until a probe is called again, if it gave no answer or its process was killed."""

log = structlog.get_logger(__name__)


class Prober:
    """Calls probes and applies their answers. Without an answer the delivery stays *unknown*.

    Args:
        ledger: reads and changes deliveries.
        plugins: mask secrets in the traceback of a probe that fails.
        clock: current time.
        publish: publishes that a delivery has settled.
        isolated: the call functions of isolated handlers, by handler id.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        plugins: Plugins,
        clock: Clock,
        publish: Callable[[DeliverySettled], None],
        isolated: Mapping[str, IsolatedCalls] = MappingProxyType({}),
    ) -> None:
        self._ledger = ledger
        self._plugins = plugins
        self._clock = clock
        self._publish = publish
        self._isolated = isolated

    def run(self, handler: Handler, queued: ReadyDelivery) -> None:
        """Call the handler's probe for a delivery. Without a probe, only postpone it."""
        if (stored := self._ledger.delivery(queued.delivery_id)) is None:
            return
        event, status = stored
        asked_at = self._clock.now()
        # Before the call, because another process may have read the same delivery. Also without a probe: a process with
        # another version of the plugin may have one, and runners must not find the delivery at each poll until then.
        if (
            not self._ledger.write(
                lambda transaction: defer_probe(
                    transaction, queued.delivery_id, now=asked_at, until=asked_at + PROBE_RETRY_INTERVAL
                )
            )
            or handler.probe is None
        ):
            return
        delivery = Delivery(id=status.delivery_id, event_id=event.id, handler=handler.id, attempt=status.attempt)
        try:
            isolated = self._isolated.get(handler.id)
            verdict = call_probe(isolated.probe if isolated else handler.probe, event, delivery)
        except BaseException as error:  # noqa: BLE001 (after any exception of a plugin the delivery stays unknown)
            traceback = self._plugins.redact(traceback_text(error))
            log.error("probe_failed", **delivery_log_fields(event, delivery), traceback=traceback)  # noqa: TRY400 (it is in the field)
            clear_tracebacks(error)
            return
        if verdict is True:
            change = StateChange(
                delivery.id,
                State.UNKNOWN,
                State.SUCCEEDED,
                status.attempt,
                self._clock.now(),
                comment="its probe says that its work was done",
            )
            if self._ledger.write(lambda transaction: apply_changes(transaction, [change])):
                self._publish(DeliverySettled(event, delivery, status._replace(state=State.SUCCEEDED, due_at=None)))
        elif verdict is False:
            note = "its probe says that its work was not done"
            self._ledger.write(
                lambda transaction: self._ledger.requeue(
                    transaction, [status], trigger=Trigger.PROBE, reset_retries=True, comment=note
                )
            )
