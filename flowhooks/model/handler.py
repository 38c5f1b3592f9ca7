"""Handlers: a plugin's function with its selectors and run options."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from flowhooks.errors import HandlerError
from flowhooks.model.callables import check_probe, takes_delivery
from flowhooks.model.rate import Rate
from flowhooks.model.retry import Retry
from flowhooks.model.selectors import Selectors, check_satisfiable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from flowhooks.model.delivery import Delivery
    from flowhooks.model.event import Event

HandlerFunction: TypeAlias = "Callable[[Event], Any] | Callable[[Event, Delivery], Any]"
"""A function that `@handler` decorates."""
OrderBy: TypeAlias = Literal["business_key", "process_key"]
Isolation: TypeAlias = Literal["thread", "process"]

NAME_PATTERN: Final = re.compile(r"[A-Za-z0-9._-]{1,100}")
"""Pattern of the names of plugins, handlers and sources."""
ORDER_BY_CHOICES: Final = ("business_key", "process_key")
"""Allowed values of `order_by=`."""
MAX_CONCURRENCY: Final = 1_000
"""Maximum of `concurrency=`. A larger number would exceed the threads of all machines, so it would limit nothing."""
ISOLATION_CHOICES: Final = ("thread", "process")
"""Allowed values of `isolation=`."""
MAX_TIMEOUT_SECONDS: Final = 86_400.0
"""Maximum of `timeout=` in seconds: one day."""
MIN_MEMORY_MIB: Final = 64
MAX_MEMORY_MIB: Final = 1_048_576
"""Range of `memory_mib=` in mebibytes: from little more than the interpreter itself to one tebibyte."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Handler:
    """A function with its selectors and run options. Created by `@handler`; calling it calls the function.

    Attributes:
        function: called as `(event)` or `(event, delivery)`.
        name: unique within its plugin; the function's name unless given.
        selectors: the events that the handler listens to.
        retry: the retry schedule; it states that running the function twice is safe. None: a failure is final.
        probe: called as `(event, delivery)` when it is unknown whether an attempt did its work. Returns True (it did),
            False (it did not) or None (not known).
        order_by: `"business_key"` or `"process_key"`: deliveries with the same key run one at a time, in the order in
            which their callbacks were accepted. None: in any order.
        concurrency: maximum number of deliveries that run at the same time, over all machines; None: no limit.
        rate: maximum number of attempts that start in a time, over all machines, such as `"10/s"`; None: no limit.
        isolation: `"process"`: the function runs in a process of its own. `"thread"`: it runs in a thread of the
            server or worker. None: as configured in the settings.
        timeout: seconds after which an attempt is overdue; None: as configured in the settings. An overdue process is
            killed. A thread cannot be killed, so an alert is raised instead.
        memory_mib: memory limit of the handler's own process in mebibytes; None: as configured in the settings.
        plugin: the plugin's name, filled in when the plugin is loaded.
        takes_delivery: whether `function` takes the delivery as its second argument.

    Raises:
        HandlerError: an argument has a wrong type or is out of range, or the function has wrong parameters.
    """

    function: Callable[..., Any]
    name: str
    selectors: Selectors
    retry: Retry | None = None
    probe: Callable[[Event, Delivery], bool | None] | None = None
    order_by: str | None = None
    concurrency: int | None = None
    rate: str | None = None
    isolation: str | None = None
    timeout: float | None = None
    memory_mib: int | None = None
    plugin: str = ""
    takes_delivery: bool = field(init=False)

    def __post_init__(self) -> None:
        # Checked here and not in `@handler`, because a plugin may copy a handler with `dataclasses.replace`.
        _check_name(self.name)
        _instance_of("selectors", self.selectors, Selectors)
        _instance_of("retry", self.retry, Retry, None)
        check_probe(self.probe)
        _check_order_by(self.order_by)
        _check_concurrency(self.concurrency)
        _check_isolation(self.isolation, self.memory_mib)
        _check_memory(self.memory_mib)
        object.__setattr__(self, "rate", _check_rate(self.rate))
        object.__setattr__(self, "timeout", _check_timeout(self.timeout))
        object.__setattr__(self, "takes_delivery", _takes_delivery(self.function))

    @property
    def id(self) -> str:
        """The handler's id, `plugin:name`."""
        return f"{self.plugin}:{self.name}"

    @property
    def summary(self) -> str:
        """The first line of the function's docstring, or `""`."""
        return (inspect.getdoc(self.function) or "").partition("\n")[0]

    @property
    def source_location(self) -> str:
        """`file:line` of the function, or its `repr` if it has no source file."""
        code = getattr(inspect.unwrap(self.function), "__code__", None)
        return f"{code.co_filename}:{code.co_firstlineno}" if code else repr(self.function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function directly, for unit tests."""
        return self.function(*args, **kwargs)


def handler(
    *,
    callback_class: str | tuple[str, ...] | list[str] = (),
    process_key: str | tuple[str, ...] | list[str] = (),
    versions: str = "",
    source: str | tuple[str, ...] | list[str] = (),
    kind: str = "complete",
    conclusion: str | tuple[str, ...] | list[str] = (),
    when: Mapping[str, Any] | None = None,
    every: bool = False,
    retry: Retry | None = None,
    probe: Callable[[Event, Delivery], bool | None] | None = None,
    order_by: OrderBy | None = None,
    concurrency: int | None = None,
    rate: str | None = None,
    isolation: Isolation | None = None,
    timeout: float | None = None,
    memory_mib: int | None = None,
    name: str | None = None,
) -> Callable[[HandlerFunction], Handler]:
    """Declare a function as a handler, with the events that it listens to.

    Give `callback_class=`, `process_key=` or `every=True`.

    Args:
        callback_class: one or several values of `callBackProcessClass`.
        process_key: one or several values of `processDefinitionKey`.
        versions: range of `processDefinitionVersion`, such as `">=3,<5"`; default: any version, or none.
        source: one or several names of engines; default: all.
        kind: the kind of callback; default: `"complete"`.
        conclusion: one or several values of `Event.conclusion`: the handler runs only for processes with one of these
            conclusions. Default: any conclusion, or none; a rejected approval then runs the handler like an approved
            one.
        when: conditions on the event's data: a dict from JSON Pointers (RFC 6901) to the expected value, which is a
            JSON Schema (a dict without `$ref`), a constant, or a list of constants. None as a constant means that the
            value is absent. Values are compared as JSON values: `True` is not 1, and 1 equals 1.0. All conditions must
            hold. Default: no conditions.
        every: listen to every event of this kind.
        retry: the retry schedule, `Retry(...)`; it states that running the function twice is safe. Default: a failure
            is final.
        probe: function of `(event, delivery)` that returns whether a lost attempt did its work; default: none.
        order_by: `"business_key"` or `"process_key"`: deliveries with the same key run one at a time, in the order in
            which their callbacks were accepted. Default: in any order.
        concurrency: maximum number of deliveries that run at the same time, over all machines, 1 to 1000; default: no
            limit.
        rate: maximum number of attempts that start in a second, minute or hour, over all machines, such as `"10/s"`,
            `"0.5/m"` or `"100/h"`, from one a day to 1000 a second. Retries count. After a pause, the attempts of one
            second may start at once. Default: no limit.
        isolation: `"process"` runs the function in a process of its own, so that a crash, a leak or an endless loop
            affects only that attempt. `"thread"` runs it in a thread of the server or worker;
            `delivery.transaction()` requires that. Default: as configured in the settings, whose default is a thread.
        timeout: seconds after which an attempt is overdue, more than 0 and at most a day; default: as configured in
            the settings.
        memory_mib: memory limit of the handler's own process in mebibytes, 64 to 1048576; requires
            `isolation="process"`. Default: as configured in the settings.
        name: the handler's name in its plugin; default: the function's name.

    Returns:
        A decorator that turns the function into a `Handler`, which the hook `handlers` returns.

    Raises:
        HandlerError: the handler could never run: no selector, contradictory versions, an invalid condition, an
            argument of a wrong type or out of range, `async def`, or a function with wrong parameters. Raised when the
            function is decorated.
    """

    def decorate(function: HandlerFunction) -> Handler:
        handler_name = getattr(function, "__name__", "") if name is None else name
        try:
            return Handler(
                function=function,
                name=handler_name,
                selectors=Selectors(
                    callback_classes=_as_strings("callback_class", callback_class),
                    process_keys=_as_strings("process_key", process_key),
                    versions=check_satisfiable(versions),
                    sources=_check_sources(source),
                    kind=kind,
                    every=_instance_of("every", every, bool),
                    conclusions=_as_strings("conclusion", conclusion),
                    when={} if when is None else when,
                ),
                retry=retry,
                probe=probe,
                order_by=order_by,
                concurrency=concurrency,
                rate=rate,
                isolation=isolation,
                timeout=timeout,
                memory_mib=memory_mib,
            )
        except HandlerError as error:
            code = getattr(inspect.unwrap(function), "__code__", None)
            where = f" ({code.co_filename}:{code.co_firstlineno})" if code else ""
            raise HandlerError(f"handler {handler_name!r}{where}: {error}") from None

    return decorate


def _check_name(name: str) -> None:
    if not isinstance(name, str) or not NAME_PATTERN.fullmatch(name):
        raise HandlerError(f"name= must have 1 to 100 letters, digits, '.', '_' or '-', not {name!r}")


def _as_strings(parameter: str, value: str | tuple[str, ...] | list[str]) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, tuple | list) or not all(isinstance(item, str) for item in value):
        raise HandlerError(f"{parameter}= must be a string or a list of strings, not {value!r}")
    return tuple(dict.fromkeys(value))


def _check_sources(value: str | tuple[str, ...] | list[str]) -> tuple[str, ...]:
    sources = _as_strings("source", value)
    for source in sources:
        if source and not NAME_PATTERN.fullmatch(source):
            raise HandlerError(
                f"source= {source!r} is not the name of a source: 1 to 100 letters, digits, '.', '_' or '-'"
            )
    return sources


def _check_order_by(order_by: str | None) -> None:
    if order_by is not None and (not isinstance(order_by, str) or order_by not in ORDER_BY_CHOICES):
        raise HandlerError(f"order_by= must be {' or '.join(map(repr, ORDER_BY_CHOICES))}, not {order_by!r}")


def _check_concurrency(concurrency: int | None) -> None:
    is_integer = isinstance(concurrency, int) and not isinstance(concurrency, bool)
    if concurrency is not None and not (is_integer and 1 <= concurrency <= MAX_CONCURRENCY):
        raise HandlerError(f"concurrency= must be a whole number from 1 to {MAX_CONCURRENCY}, not {concurrency!r}")


def _check_rate(rate: str | None) -> str | None:
    if rate is None:
        return None
    try:
        return Rate.parse(rate).text
    except ValueError as error:
        raise HandlerError(str(error)) from None


def _check_isolation(isolation: str | None, memory_mib: int | None) -> None:
    if isolation is not None and (not isinstance(isolation, str) or isolation not in ISOLATION_CHOICES):
        raise HandlerError(f"isolation= must be {' or '.join(map(repr, ISOLATION_CHOICES))}, not {isolation!r}")
    if isolation != "process" and memory_mib is not None:
        raise HandlerError('memory_mib= needs isolation="process": threads share the memory of the server')


def _check_timeout(timeout: float | None) -> float | None:
    is_number = isinstance(timeout, int | float) and not isinstance(timeout, bool)
    if timeout is not None and not (is_number and 0 < timeout <= MAX_TIMEOUT_SECONDS):
        raise HandlerError(
            f"timeout= must be a number of seconds, more than 0 and at most {MAX_TIMEOUT_SECONDS:g}, not {timeout!r}"
        )
    return timeout if timeout is None else float(timeout)


def _check_memory(memory_mib: int | None) -> None:
    is_integer = isinstance(memory_mib, int) and not isinstance(memory_mib, bool)
    if memory_mib is not None and not (is_integer and MIN_MEMORY_MIB <= memory_mib <= MAX_MEMORY_MIB):
        raise HandlerError(
            f"memory_mib= must be a whole number of mebibytes from {MIN_MEMORY_MIB} to {MAX_MEMORY_MIB}, not "
            f"{memory_mib!r}"
        )


def _takes_delivery(function: Any) -> bool:
    if isinstance(function, Handler):
        raise HandlerError(f"@handler must decorate a function, not {function!r}")
    return takes_delivery(function)


def _instance_of(parameter: str, value: Any, kind: type, *others: Any) -> Any:
    if not isinstance(value, kind) and value not in others:
        hint = ": write Retry()" if kind is Retry else ""
        raise HandlerError(f"{parameter}= must be a {kind.__name__}, not {value!r}{hint}")
    return value
