"""A real flowhooks that loads the plugins of a test, on a ledger of its own, called through its real WSGI app."""

from __future__ import annotations

import json
import logging
import tempfile
import time
import warnings
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Self

from flowhooks.app import App
from flowhooks.errors import SettingsError
from flowhooks.ledger.queries import EventFilter
from flowhooks.model.delivery import COMPLETED_STATES, State
from flowhooks.observability.logging import AttemptLogHandler
from flowhooks.settings import CircuitBreakerSettings, IngressSettings, LedgerSettings, Settings, Source
from flowhooks.testing import plugin_names, text
from flowhooks.testing.clock import ManualClock
from flowhooks.testing.postgres_schema import TemporarySchema
from flowhooks.testing.posting import post, receive
from flowhooks.testing.views import DeliveryView, PostResult, delivery_view, event_id_of
from flowhooks.testing.waiting import (
    MAX_EVENTS,
    POLL_INTERVAL,
    WAIT_TIMEOUT,
    check_consistency,
    next_starts,
    settle,
    wait_until_idle,
)
from flowhooks.web.callback.app import create_app
from flowhooks.web.callback.credentials import new_token

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import falcon

    from flowhooks.ledger.queries import StoredEvent
    from flowhooks.model.delivery import StateName
    from flowhooks.model.event import Event
    from flowhooks.model.handler import Handler

_NONE: Final[Mapping[str, Any]] = MappingProxyType({})
_LEDGER: Final = "flowhooks.db"
_SETTLED: Final = COMPLETED_STATES | {State.DEAD}
"""States in which a delivery blocks no other delivery."""


class AppHarness:
    """flowhooks under test, without the server: plugins, ledger, retries, recovery and the HTTP contract are real.

    Only the given plugins are loaded, whatever plugins are installed. The clock stands still until `advance` is called.
    The circuit breaker is off, however often a handler fails.

    Args:
        *plugins: modules or objects with hooks, or handlers made by `@handler`. An installed plugin is named after its
            entry point, and any other module after the last part of its name. Single handlers form the plugin
            `handlers`.
        names: further plugins, by their names.
        settings: the sections `[plugins.NAME]`, by plugin name. Default: none.
        clock: the clock of the app. Default: a new `ManualClock`.
        folder: the folder of the ledger. Default: a temporary folder, which `close` removes. If an earlier app has used
            it, give the `clock` of that app, so that times and ids continue.
        sources: names of engines. Each gets a credential, and `post` calls as the first one by default.
        database: the URL of a PostgreSQL database, for handlers that use `delivery.transaction()`. The ledger is then
            in a new schema of that database, which `close` removes. Default: a SQLite file in `folder`.
        receivers: further sources, each with the name of the plugin that is its receiver. `receive` sends to them. If
            there are any, `post` needs a source of `sources`.

    Attributes:
        clock: the clock.
        folder: the folder of the ledger.

    Raises:
        FlowhooksError: a plugin is quarantined. The message has the reason and, if there is one, the traceback.
    """

    def __init__(
        self,
        *plugins: object,
        names: Mapping[str, object] = _NONE,
        settings: Mapping[str, Mapping[str, Any]] = _NONE,
        clock: ManualClock | None = None,
        folder: Path | None = None,
        sources: Sequence[str] = (),
        database: str = "",
        receivers: Mapping[str, str] = _NONE,
    ) -> None:
        self._objects = plugin_names.name_plugins(plugins, names)
        for name in settings:
            if name not in self._objects:
                raise SettingsError(
                    f"settings: there is no plugin {name!r}; the plugins are {', '.join(self._objects)}"
                )
        if twice := sorted(set(sources) & set(receivers)):
            raise SettingsError(f"sources and receivers both have {', '.join(twice)}: give each source its own name")
        if folder is not None and clock is None and not database and (folder / _LEDGER).exists():
            raise SettingsError(f"{folder} has the ledger of an earlier app: give its clock, clock=earlier.clock")
        sections = {name: dict(section) for name, section in settings.items()}
        self._schema = TemporarySchema(database) if database else None
        self._temporary = None if folder else tempfile.TemporaryDirectory(prefix="flowhooks-")
        self.folder = folder or Path(self._temporary.name if self._temporary else ".")
        self.clock = clock or ManualClock()
        tokens = {name: new_token() for name in sources}
        self._tokens = {name: token for name, (token, _) in tokens.items()}
        self._settings = Settings(
            database=self._schema.url if self._schema else str(self.folder / _LEDGER),
            plugins=sections,
            sources={name: Source(token_sha256=(digest,)) for name, (_, digest) in tokens.items()}
            | {name: Source(ingress=IngressSettings(receiver=plugin)) for name, plugin in receivers.items()},
            ledger=LedgerSettings(write_timeout=WAIT_TIMEOUT),
            circuit_breaker=CircuitBreakerSettings(failures=0),
        )
        self._open: tuple[App, falcon.App[Any, Any]] | None = None
        self._crashed: list[App] = []
        self._closed = False
        self._log_handler = AttemptLogHandler(self._redact)
        logging.getLogger().addHandler(self._log_handler)
        try:
            self._start()
        except BaseException:
            self._abandon()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_rest: object) -> None:
        if kind is None:
            self.close()
        else:
            self._abandon()  # report the first failure only

    @property
    def app(self) -> App:
        """The real `App`, for everything that this class does not offer. `restart` replaces it with a new one."""
        if self._open is None:
            raise AssertionError("this app was crashed or closed: call restart() first")
        return self._open[0]

    @property
    def handlers(self) -> Mapping[str, Handler]:
        """The loaded handlers, by their ids."""
        return self.app.plugins.handlers

    def post(
        self,
        flow_instance_id: str,
        /,
        *,
        kind: str = "complete",
        wait: float = WAIT_TIMEOUT,
        headers: Mapping[str, str] | None = None,
        source: str | None = None,
        data: Mapping[str, Any] | None = None,
        **body: Any,
    ) -> PostResult:
        """Send a callback and return its response.

        Args:
            flow_instance_id: the engine's process instance id.
            kind: the kind of callback.
            wait: whole seconds that the response waits for the handlers, at most 60. Default: 20. 0: respond as soon as
                the event is stored. The response also comes as soon as nothing more can happen because the clock stands
                still.
            headers: further headers, such as `{"Accept-Language": "zh"}` or `traceparent`.
            source: the engine that calls, one of `sources`. Default: the first one.
            data: members of the body, by their names.
            **body: further members of the body, such as `conclusion="approved"`. They win over those of `data`.

        Returns:
            The response.

        Raises:
            TypeError: the body cannot be encoded as JSON.
            KeyError: no source has the name `source`.
        """
        app = self.app
        web = self._open[1] if self._open else None
        sent = {"Content-Type": "application/json", "Prefer": f"wait={int(wait)}"} | dict(headers or {})
        if self._tokens:
            sent["Authorization"] = f"Bearer {self._tokens[source or next(iter(self._tokens))]}"
        elif source is not None:
            raise KeyError(f"there is no source {source!r}: give sources=({source!r},) when you create the app")
        return post(app, web, path=(flow_instance_id, kind), text=json.dumps({**(data or {}), **body}), headers=sent)

    def post_event(self, event: Event, *, wait: float = WAIT_TIMEOUT) -> PostResult:
        """Send an event again as a callback, such as one of `stored_events`, and return its response.

        Args:
            event: the event. The callback has its process instance id, kind, data, conclusion and `traceparent`. It
                comes from the event's source if that is one of `sources`, otherwise from the first one.
            wait: as for `post`.

        Returns:
            The response. Its event is a new one, with another id.
        """
        headers = {} if event.traceparent is None else {"traceparent": event.traceparent}
        conclusion = {} if event.conclusion is None else {"conclusion": event.conclusion}
        return self.post(
            event.flow_instance_id,
            kind=event.kind,
            wait=wait,
            headers=headers,
            source=event.source if event.source in self._tokens else None,
            data={**event.data, **conclusion},
        )

    def receive(
        self,
        source: str,
        /,
        body: bytes = b"",
        *,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
        method: str = "POST",
    ) -> PostResult:
        """Send a request to the fixed URL of a source, whose receiver reads it, and return the response.

        The response does not wait for handlers. `wait_for` waits for a delivery of `event_id`.

        Args:
            source: one of `receivers`.
            body: the body.
            headers: the headers, such as those of a signature. The time of the request is that of `clock`.
            query: the parameters of the query.
            method: `"POST"`, or `"GET"` for a handshake.

        Returns:
            The response. `event_id` is `""` if nothing is stored.
        """
        _ = self.app
        web = self._open[1] if self._open else None
        return receive(web, source=source, method=method, query=query or {}, body=body, headers=headers or {})

    def event(self, event: str | PostResult) -> Event:
        """Return a stored event.

        Args:
            event: the event's id, or the result of `post`.

        Raises:
            FlowhooksError: no event has this id.
        """
        return self.app.ledger.event(event_id_of(event)).event

    def events(self) -> tuple[Event, ...]:
        """Return all stored events, the oldest first."""
        return tuple(stored.event for stored in self._stored())

    def parked(self) -> tuple[Event, ...]:
        """Return the parked events, the oldest first: no class or key handler takes them yet."""
        return tuple(stored.event for stored in self._stored(state="parked"))

    def dismissed(self) -> tuple[Event, ...]:
        """Return the dismissed events, such as events with another conclusion, the oldest first."""
        return tuple(stored.event for stored in self._stored(state="dismissed"))

    def why_not(self, event: str | PostResult) -> str:
        """Explain why an event is parked or dismissed, and why each handler of its class or key does not match.

        Args:
            event: the event's id, or the result of `post`.

        Returns:
            One reason per line, such as `leave:grant does not match: conclusion 'rejected' is not one of approved`;
            `""` if the event is routed.

        Raises:
            FlowhooksError: no event has this id.
        """
        return "\n".join(text.no_match_reasons(self.app.ledger.event(event_id_of(event))))

    def deliveries(self, event: str | PostResult, handler: str | None = None) -> tuple[DeliveryView, ...]:
        """Return the current state of an event's deliveries.

        Args:
            event: the event's id, or the result of `post`.
            handler: return only the delivery of this handler, given by name or id. Default: all deliveries.

        Raises:
            FlowhooksError: no event has this id.
        """
        ledger, event_id = self.app.ledger, event_id_of(event)
        return tuple(
            delivery_view(event_id, status, ledger.attempts(status.delivery_id))
            for status in ledger.event(event_id).delivery_statuses
            if handler is None or handler in {status.handler, status.handler.partition(":")[2]}
        )

    def delivery(self, event: str | PostResult, handler: str | None = None) -> DeliveryView:
        """Return the only delivery of an event, or its delivery for one handler.

        Args:
            event: the event's id, or the result of `post`.
            handler: the handler's name or id; needed if the event has several deliveries.

        Raises:
            AssertionError: no delivery matches, or several do.
            FlowhooksError: no event has this id.
        """
        __tracebackhide__ = True
        event_id = event_id_of(event)
        deliveries = self.deliveries(event_id, handler)
        if len(deliveries) == 1:
            return deliveries[0]
        all_deliveries = self.deliveries(event_id)
        if not all_deliveries:
            raise AssertionError(text.no_delivery(self.app, self.app.ledger.event(event_id)))
        handlers = ", ".join(delivery.handler for delivery in all_deliveries)
        raise AssertionError(
            f"event {event_id} has deliveries of {handlers}: choose one with handler="
            if handler is None
            else f"event {event_id} has no delivery of {handler!r}, only of {handlers}"
        )

    def wait_for(
        self,
        event: str | PostResult,
        state: StateName | State = "succeeded",
        handler: str | None = None,
        *,
        attempt: int | None = None,
        timeout: float = WAIT_TIMEOUT,
    ) -> DeliveryView:
        """Wait until a delivery is in a state; fail at once, with the reason, if it cannot get there by itself.

        Args:
            event: the event's id, or the result of `post`.
            state: the state to wait for, such as `"waiting"`, `"dead"` or `"unknown"`. Default: `"succeeded"`.
            handler: the handler's name or id; needed if the event has several deliveries.
            attempt: also wait until this is the number of the last attempt. Default: any attempt.
            timeout: the maximum wait, in real seconds. Default: 20.

        Returns:
            The delivery in that state.

        Raises:
            AssertionError: the delivery is in another state, and stays in it until the test does something, or the
                timeout has passed. The message has the expected state, the actual state and the reason.
            ValueError: `state` is not a state.
        """
        __tracebackhide__ = True
        event_id, expected_state = event_id_of(event), State(state)
        deadline = time.monotonic() + timeout
        while True:
            rates = next_starts(self.app)
            delivery = self.delivery(event_id, handler)
            if delivery.state is expected_state and (attempt is None or delivery.attempt == attempt):
                return delivery
            why = self._why_idle(delivery, rates)
            if why is None and time.monotonic() > deadline:
                why = f"{timeout:g} seconds have passed"
            if why is not None:
                raise AssertionError(text.wait_failure(delivery, expected_state, attempt, why))
            time.sleep(POLL_INTERVAL)

    def _why_idle(self, delivery: DeliveryView, rates: Mapping[str, int]) -> str | None:
        now = self.clock.now()
        if delivery.blocked_by is None:
            return text.why_idle(delivery, now) or text.why_at_rate(delivery, rates.get(delivery.handler, now), now)
        in_front = self.delivery(delivery.blocked_by, delivery.handler)
        if in_front.state in _SETTLED:
            return None  # it has ended since `delivery` was read
        return text.why_blocked(in_front, text.why_idle(in_front, now))

    def advance(self, seconds: float = 0, *, minutes: float = 0, hours: float = 0, days: float = 0) -> None:
        """Move the clock forward and wake the runner, which then runs due deliveries; use `wait_for` to wait for them.

        Args:
            seconds: the distance; the four arguments are added up.
            minutes: as above.
            hours: as above.
            days: as above.
        """
        self.clock.advance(seconds, minutes=minutes, hours=hours, days=days)
        self.app.runner.wake()

    def settle(self, *events: str | PostResult) -> None:
        """Run everything that runs by itself: move the clock from one due time to the next.

        Afterwards each delivery has succeeded, is dead or closed, or is *unknown* and waits for an operator. A delivery
        of an ordered handler may also be blocked by an *unknown* one.

        Args:
            *events: wait only until these events are settled; each is an id or the result of `post`. Default: all
                events.

        Raises:
            AssertionError: nothing has changed for 20 real seconds, but not everything is settled, for example because
                a handler is still running.
        """
        __tracebackhide__ = True
        settle(self.app, self.clock, tuple(map(event_id_of, events)))

    def crash(self) -> None:
        """Simulate a kill of the process: running handlers continue, but nothing records how they end.

        Raises:
            AssertionError: the app has crashed before, or was closed.
        """
        app = self.app
        self._open = None
        self._crashed.append(app)
        app.close(0)

    def restart(self) -> None:
        """Start again on the same ledger, after `crash` or after an orderly stop.

        Raises:
            AssertionError: a handler did not end within 20 real seconds, or the app was closed.
            FlowhooksError: a plugin is now quarantined.
        """
        __tracebackhide__ = True
        if self._closed:
            raise AssertionError("this app was closed")
        if self._open is not None:
            self._stop()
        self._start()

    def close(self) -> None:
        """Stop the app and check the consistency of the ledger. Closing twice does nothing.

        Raises:
            AssertionError: a handler did not end within 20 real seconds, or the ledger is inconsistent.
        """
        __tracebackhide__ = True
        if self._closed:
            return
        try:
            if self._open is not None:
                self._stop()
            for app in self._crashed:
                wait_until_idle(app)
            check_consistency(self._settings)
        finally:
            self._abandon()

    def _start(self) -> None:
        # No entry points: an installed copy of a plugin under test would be quarantined, and that would raise an alert.
        app = App(self._settings, clock=self.clock, objects=self._objects, entry_points=())
        try:
            plugin_names.check_loaded(app.plugins)
            web = create_app(app)
            for text in plugin_names.plugin_warnings(app.plugins, self._objects):
                warnings.warn(text, stacklevel=4)
        except BaseException:
            app.close()
            raise
        self._open = app, web
        app.start()

    def _stop(self) -> None:
        __tracebackhide__ = True
        app = self.app
        self._open = None
        if not app.close(WAIT_TIMEOUT):
            self._crashed.append(app)
            raise AssertionError(text.still_running(app, WAIT_TIMEOUT))

    def _abandon(self) -> None:
        # As after a kill, nothing is written.
        self._closed = True
        try:
            if self._open is not None:
                app, self._open = self._open[0], None
                app.close(0)
        finally:
            self._clean_up()

    def _redact(self, text: str) -> str:
        running = self._open
        return running[0].plugins.redact(text) if running else text

    def _clean_up(self) -> None:
        logging.getLogger().removeHandler(self._log_handler)
        try:
            if self._schema is not None:
                self._schema.drop()
        finally:
            if self._temporary is not None:
                self._temporary.cleanup()

    def _stored(self, **filters: Any) -> list[StoredEvent]:
        return self.app.ledger.page(EventFilter(**filters), limit=MAX_EVENTS)
