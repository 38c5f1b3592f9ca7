"""The plugin author's manual: every hook, its arguments, when it is called and what it must not do.

A plugin is a module (or object) named by an entry point of the group `flowhooks`; the entry point's name
is the plugin's name. It implements any of the functions below, marked with `@hookimpl`, taking all or some
of the arguments, by name:

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
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from flowhooks.model.alert import Alert
    from flowhooks.model.delivery import Delivery, Outcome, State
    from flowhooks.model.event import Event
    from flowhooks.model.handler import Handler

PROJECT: Final = "flowhooks"
"""The name of the markers and of the entry-point group."""

hookspec: Final = pluggy.HookspecMarker(PROJECT)
hookimpl: Final = pluggy.HookimplMarker(PROJECT)


@hookspec
def configure(settings: Mapping[str, Any]) -> None:
    """Take the plugin's own section of the settings, `[plugins.NAME]`; `{}` where there is none.

    Called once, at start, after `schemas` and before any other hook of the plugin. Each plugin sees its own section
    only, and a copy. A table in it that is exactly `{env = "NAME"}` or `{file = "PATH"}` has been replaced by the
    string which that environment variable or file holds, and the whole been checked against `settings.schema.json`,
    if a schema folder of the plugin has one; where either fails the plugin is quarantined, and this is not called.
    Raise to refuse for other reasons: the plugin is then quarantined with the error, and the others run.

    Such strings are secrets: flowhooks masks them in errors and tracebacks of plugins and handlers, in what handlers
    return, and in the log, whoever logs. What the plugin itself prints or sends is its own care.

    Must not start threads or open connections that a fork would share: where any handler runs in a process of its own,
    plugins are loaded once more, in a process from which those of handlers are forked.
    """


@hookspec
def schemas() -> Sequence[Path]:  # type: ignore[empty-body]  # a specification has no body
    """Give folders of JSON Schema files, laid out like `schemas/`.

    Called once, at start, before any other hook of the plugin. In such a folder

    - `call-back/KIND.schema.json` opens `POST /flow/{flowInstanceId}/call-back/KIND`. A plugin cannot replace a kind
      that is already there;
    - `settings.schema.json` says what the plugin's own section of the settings may be;
    - `data/class/CLASS.schema.json` and `data/key/KEY.schema.json` say what `event.data` must be for the plugin's own
      handlers, where `callBackProcessClass` or `processDefinitionKey` is exactly that. A delivery whose event is
      otherwise is rejected: dead at once, and the handler's function is not entered.

    `settings.schema.json` and what lies in `data/`, also `data/NAME.schema.json` that others refer to, are the
    plugin's alone: another plugin may say something else of the same class. All other files are shared, and a plugin
    that would change one that is there is quarantined.
    """


@hookspec
def handlers() -> Sequence[Handler]:  # type: ignore[empty-body]  # a specification has no body
    """Give the plugin's handlers, each made by `@handler`.

    Called once, at start; what is returned is looked up from then on, so a handler cannot be added later.
    """


@hookspec(firstresult=True)
def run_handler(handler: Handler, event: Event, delivery: Delivery) -> Outcome | None:
    """Run one attempt of one delivery: the seam round which plugins wrap transactions, tracing or timing.

    Called once for each attempt, in a thread of the runner, after the attempt was durably marked as running.
    The built-in implementation runs last: it calls the function and returns its `Outcome`; what the function
    raises passes through the wrappers. Write a wrapper so, and return what `yield` gave:

        @hookimpl(wrapper=True)
        def run_handler(handler, event, delivery):
            with tracer.start_as_current_span(handler.id):
                return (yield)

    A wrapper that raises before its `yield` keeps the function from being entered: the attempt is made
    again whatever the handler's `retry=` says, and the wrapper's plugin is named.

    Must not call the handler twice, nor swallow an exception unless the work was done.
    """


@hookspec
def event_accepted(event: Event, handlers: Sequence[str]) -> None:
    """Learn that an event was stored; `handlers` are the ids that it goes to, none if it is parked.

    Called after the commit, from a thread of its own, one event after another. Not called for a call-back
    that came again. A notice, not work: one that is due when the process is killed is not given again, and
    an exception is logged with the plugin's name and changes nothing.
    """


@hookspec
def delivery_settled(event: Event, delivery: Delivery, outcome: Outcome, state: State) -> None:
    """Learn how an attempt ended and in which state that leaves its delivery.

    Called after the commit, from the same thread as `event_accepted` and under the same terms.
    """


@hookspec
def alert_raised(alert: Alert) -> None:
    """Learn of a cause for which a person should look, to tell that person.

    Called once for each cause, not for each delivery or event that shares it, after it was durably written down,
    from a thread of its own, one alert after another. Called again, with the same `alert.id` and the next
    `alert.notification`, when the alert has grown: when twice as many share it as at the last notification and at
    least ten more, or when a new one comes after an hour without any; never within ten minutes of the last
    notification. An acknowledged alert is notified again only when it has doubled.

    A plugin that raises is called again later, with the same `alert.id` and `alert.notification`, until it returns or
    the cause has gone; so a plugin that was killed meanwhile may be called twice.

    Must not wait without end: give whatever it sends through a timeout. Nobody else waits for it, but until it
    returns it is told of nothing more.
    """
