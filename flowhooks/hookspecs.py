"""The hooks that plugins can implement: their arguments, when they are called, and what they must not do.

A plugin is a module or object that an entry point of the group `flowhooks` names; the entry point's name is the
plugin's name. The plugin implements any of the functions below, marked with `@hookimpl`. An implementation takes all or
some of the arguments, by name:

    from flowhooks import Event, Retry, handler, hookimpl

    @handler(process_key="contract_approval", retry=Retry(attempts=5))
    def archive_contract(event: Event) -> None:
        \"\"\"Move the signed contract into the archive.\"\"\"

    @hookimpl
    def handlers():
        return [archive_contract]
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pluggy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from flowhooks.model.alert import Alert
    from flowhooks.model.delivery import Delivery, Outcome, State
    from flowhooks.model.engine import EngineClient, EngineConfig
    from flowhooks.model.event import Event
    from flowhooks.model.handler import Handler
    from flowhooks.model.receiver import ReceivedCallback, ReceivedRequest, ReceiverResponse

PROJECT: Final = "flowhooks"
"""Name of pluggy's markers and of the entry-point group."""

hookspec: Final = pluggy.HookspecMarker(PROJECT)
hookimpl: Final = pluggy.HookimplMarker(PROJECT)


@hookspec
def configure(settings: Mapping[str, Any]) -> None:
    """Receive the plugin's own section of the settings, `[plugins.NAME]`; `{}` if there is none.

    Called once, at start, after `schemas` and before any other hook of the plugin. Each plugin receives a copy of its
    own section only. flowhooks has replaced each table that is exactly `{env = "NAME"}` or `{file = "PATH"}` by the
    content of that environment variable or file. It has then validated the section against `settings.schema.json`, if
    a schema directory of the plugin contains one. If either step fails, the plugin is quarantined and this hook is not
    called. Raise an exception to refuse the settings for another reason: the plugin is then quarantined with the error,
    and the other plugins run.

    The replaced strings are secrets. flowhooks masks them in errors and tracebacks of plugins and handlers, in results
    of handlers, and in the whole log. The plugin is responsible for its own output and for the data it sends.

    Must not start threads or open connections that a fork would share: if any handler runs in a process of its own,
    plugins are loaded a second time, in the fork server from which the processes of handlers are forked.
    """


@hookspec
def schemas() -> Sequence[Path]:  # type: ignore[empty-body]  # a specification has no body
    """Return directories of JSON Schema files, laid out like `schemas/`.

    Called once, at start, before any other hook of the plugin. In such a directory

    - `call-back/KIND.schema.json` adds the kind of callback `POST /flow/{flowInstanceId}/call-back/KIND`. A plugin
      cannot replace an existing kind;
    - `settings.schema.json` validates the plugin's own section of the settings;
    - `data/class/CLASS.schema.json` and `data/key/KEY.schema.json` validate `event.data` for the plugin's own handlers
      if `callBackProcessClass` is exactly CLASS, or `processDefinitionKey` is exactly KEY. A delivery whose event is
      invalid is rejected: it is dead at once, and the handler's function is not entered.

    `settings.schema.json` and the files in `data/`, including a `data/NAME.schema.json` that other schemas refer to,
    belong to the plugin alone: another plugin may have a different schema for the same class. All other files are
    shared. A plugin that would change an existing shared file is quarantined.
    """


@hookspec
def handlers() -> Sequence[Handler]:  # type: ignore[empty-body]  # a specification has no body
    """Return the plugin's handlers, each created by `@handler`.

    Called once, at start. A handler cannot be added later.
    """


@hookspec
def engine_clients() -> Mapping[str, Callable[[EngineConfig], EngineClient]]:  # type: ignore[empty-body]  # as above
    """Return factories of engine clients, by the name that the settings use: `[sources.NAME.engine] client = "…"`.

    Called once, at start. flowhooks calls the factory with the section's values for each source that names it, each
    time in a new thread, and for several sources at the same time. The factory must not connect. It raises an exception
    to refuse the values, and the server then does not start. The same happens if it does not return within `timeout` of
    the section; a client that it returns later is closed. Two plugins must not offer the same name: the second one is
    quarantined.

    `flowhooks.testing` has a fake engine and a suite of tests for such a client.
    """


@hookspec(firstresult=True)
def receive_request(source: str, request: ReceivedRequest) -> ReceivedCallback | ReceiverResponse | None:
    """Authenticate and read one request to the fixed URL of a source, `/in/SOURCE`.

    Called only for the sources whose settings name this plugin, `[sources.SOURCE.ingress] receiver = "…"`, and for no
    other request. flowhooks has checked the address, the size and the rate of the request, and nothing else: the body
    may be from anybody. Called in a thread of its own, up to eight at a time for each source; a further request is
    answered with 503. After one second a request is answered with 503, too, whatever the plugin then returns.

    Return a `ReceivedCallback` once the request is authenticated: flowhooks checks it against the schemas, stores it,
    and answers. Return a `ReceiverResponse` for a handshake, or for a request that becomes no callback: nothing is
    stored, and the request is counted. Return None if the credential is missing or invalid: the answer is 401. An
    exception, a result of a wrong type, or a `ReceivedCallback` for a GET, which stores nothing, is logged, and the
    answer is 503. Data that no database can store, such as the character NUL, is answered with 400.

    Must compare secrets with `hmac.compare_digest`. Must not do business work: the callback is not stored yet.
    """


@hookspec(firstresult=True)
def run_handler(handler: Handler, event: Event, delivery: Delivery) -> Outcome | None:
    """Run one attempt of one delivery. Plugins wrap this hook to add transactions, tracing or timing.

    Called once for each attempt, in a thread of the runner, after the attempt was durably marked as running. It is not
    called if the attempt ends before: the plugin's schema rejects the data, or a condition of the handler is no longer
    true. The built-in implementation runs last: it calls the handler's function and returns the `Outcome`. An exception
    of the function passes through the wrappers. A wrapper looks like this and returns the result of `yield`:

        @hookimpl(wrapper=True)
        def run_handler(handler, event, delivery):
            with tracer.start_as_current_span(handler.id):
                return (yield)

    If a wrapper raises before its `yield`, the function is not entered. The attempt is then retried even if the
    handler's `retry=` does not allow it: by the default schedule of `Retry`, up to 8 attempts in total. The error names
    the wrapper's plugin. `Reject` is the exception: the delivery is dead at once.

    An exception of a handler in a process of its own arrives as `HandlerRaised`, with its name, text and traceback;
    `Reject` and `RetryAfter` arrive as themselves.

    Must not call the handler twice. Must not suppress an exception unless the work was done.
    """


@hookspec
def event_accepted(event: Event, handlers: Sequence[str]) -> None:
    """Receive a notification that an event was stored.

    `handlers` lists the ids of the handlers that the event is delivered to; it is empty if there are none.

    Called after the commit, in a separate thread, for one event after another. Not called for a repeated callback. Do
    not do work in this hook that must not be missed: notifications that are pending when the process is killed are
    lost, and while 10,000 notifications are pending, further ones are dropped. An exception is logged with the plugin's
    name and has no other effect.
    """


@hookspec
def delivery_settled(event: Event, delivery: Delivery, outcome: Outcome, state: State) -> None:
    """Receive the outcome of an attempt, and the delivery's state after it.

    Called after the commit, in the same thread as `event_accepted` and with the same limits. It may be called before
    `event_accepted` of the same event, because a handler starts as soon as the event is stored. Another process may
    call it, too.
    """


@hookspec
def alert_raised(alert: Alert) -> None:
    """Receive an alert, in order to notify a person.

    Called once for each cause, not for each delivery or event concerned, after the alert was durably stored, in a
    separate thread, for one alert after another. Called again, with the same `alert.id` and the next
    `alert.notification`, when the alert has grown. An alert has grown if its count is at least twice the count of the
    last notification and at least ten higher, or if a delivery or event is added after an hour without one. It is never
    called again within ten minutes of the last notification. An acknowledged alert is notified again only when its
    count has doubled in this way.

    A plugin that raises is called again later, with the same `alert.id` and `alert.notification`, until it returns or
    the cause has ended. It is called for other alerts meanwhile. If it has raised for several alerts, they are repeated
    one at a time until it accepts one. If the process is killed during a call, the plugin may be called twice.

    Must not block without limit: set a timeout on each connection that the plugin uses. A call that does not return
    does not block other plugins, but its own plugin receives no further alert until it returns.

    The test message of `flowhooks alerts test` is sent in a thread of its own, so its call may run at the same time as
    the call for an alert.
    """


@hookspec
def alert_resolved(alert: Alert) -> None:
    """Receive a notification that an alert is closed because its cause has ended.

    Called once for each alert for which this plugin's `alert_raised` was called, in the same thread and with the same
    limits. It is called even if `alert_raised` raised each time, because a plugin with several receivers may have
    reached some of them. `alert.resolved_at` is when the alert was closed, `alert.notification` is the number of its
    last notification, and `alert.count` is the last count.

    A plugin that raises is called again later, for up to a day. If the process is killed during a call, the plugin may
    be called twice.
    """
