"""Facts that an engine client reads about the process instances and definitions of its engine."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

MAX_PAGE_INSTANCES: Final = 1000
"""Maximum number of instances of a `FinishedPage`. A client returns fewer if its engine gives fewer."""
MAX_VARIABLES_BYTES: Final = 65_536
"""Maximum size of an instance's variables, as JSON in UTF-8."""


class EndState(StrEnum):
    """How a process instance ended, as far as its engine knows."""

    COMPLETED = "completed"
    """It reached an end event of the process."""
    CANCELLED = "cancelled"
    """Somebody deleted or cancelled it."""
    ERROR = "error"
    """It reached an error end event of the process."""
    TERMINATED = "terminated"
    """It reached a terminate end event of the process."""
    UNDECIDED = "undecided"
    """It ended, and the engine's history does not tell how."""


class InstanceStatus(StrEnum):
    """Why an engine has no `FinishedInstance` of an id."""

    RUNNING = "running"
    """The instance has not ended."""
    ABSENT = "absent"
    """The engine does not know the id: it never existed, or its history was deleted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedInstance:
    """A process instance that has ended, as its engine's history describes it.

    Attributes:
        id: the process instance id, the same that a callback would have in its path.
        ended_at: when it ended, by the engine's clock; an aware time.
        end_state: how it ended.
        started_at: when it started, by the engine's clock; an aware time. None if it is not known.
        process_definition_id: the id of its definition, or None.
        process_definition_key: the key of its definition, or None.
        process_definition_version: the version of its definition, or None.
        business_key: its business key, or None.
        callback_class: the value for `callBackProcessClass`, from a variable of this instance, never from its parent's;
            or None.
        conclusion: how it ended in business terms, in the engine's words, or None. The table
            `[sources.NAME.conclusion]` maps it.
        variables: the variables that the settings name and that the instance has. The values are JSON.
        parent_id: the id of the instance that called it; None if none did.
        tenant_id: its tenant, or None.
    """

    id: str
    ended_at: datetime
    end_state: EndState
    started_at: datetime | None = None
    process_definition_id: str | None = None
    process_definition_key: str | None = None
    process_definition_version: int | None = None
    business_key: str | None = None
    callback_class: str | None = None
    conclusion: str | None = None
    variables: Mapping[str, Any] = field(default_factory=dict)
    parent_id: str | None = None
    tenant_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedPage:
    """One page of finished instances.

    Attributes:
        instances: at most 1,000 instances, by end time and then by id.
        cursor: passed to the next call to continue after this page; None if this was the last page. Only the client
            that made it can read it.
        engine_time: the engine's clock, from the header `Date` of its answer; None if the answer had none.
    """

    instances: Sequence[FinishedInstance]
    cursor: str | None = None
    engine_time: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessDefinition:
    """The latest version of a deployed process definition.

    Attributes:
        key: its key.
        version: the number of its latest version.
        name: its name for people, or `""`.
        tenant_id: its tenant, or None.
    """

    key: str
    version: int
    name: str = ""
    tenant_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineInfo:
    """The description of an engine by itself.

    Attributes:
        product: its name, such as `"Flowable"`.
        version: its version, or `""` if it does not tell.
        problem: why its history cannot tell which instances ended, and how, in one sentence that says what to do, such
            as a history level that is too low; `""` if it can.
    """

    product: str
    version: str = ""
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """The section `[sources.NAME.engine]`, as passed to the factory of its client.

    Attributes:
        source: the name of the source.
        url: the base URL of the engine's REST API, without a `/` at the end.
        username: the user for HTTP Basic authentication; `""`: none.
        password: the password of that user. A secret.
        token: a bearer token; `""`: none. A secret.
        variables: the names of the variables to read.
        conclusion_from: where the conclusion comes from: `"variable"`, `"end_event"` or `"business_status"`.
        conclusion_variable: the variable that has the conclusion, if `conclusion_from` is `"variable"`.
        class_variable: the variable that has `callBackProcessClass`; `""`: none.
        tenants: the tenants to read; empty: all.
        page_size: how many instances to ask for at once.
        timeout: seconds that one request may take.
    """

    source: str
    url: str
    username: str = ""
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    variables: tuple[str, ...] = ()
    conclusion_from: str = "variable"
    conclusion_variable: str = "conclusion"
    class_variable: str = "callBackProcessClass"
    tenants: tuple[str, ...] = ()
    page_size: int = 200
    timeout: float = 30.0


class EngineClient(Protocol):
    """Asks one engine about its process instances and definitions. A plugin's hook `engine_clients` offers factories.

    flowhooks calls the methods from one thread at a time. Each may raise `EngineError`. Each must end within a bounded
    time: set a timeout on each request, and do not repeat requests without limit.
    """

    def check(self) -> EngineInfo:
        """Return what the engine says about itself. Called at the start, and by `flowhooks check`."""
        ...

    def finished(self, since: datetime, until: datetime, cursor: str | None = None) -> FinishedPage:
        """Return the instances that ended from `since` to `until`, both included, one page at a time.

        The pages together have each instance that was in the history when the first one was read, at least once. An
        instance may be in two pages. Instances are ordered by end time and then by id. A client does not page by an
        offset across end times: rows that appear or disappear meanwhile would shift it.

        Args:
            since: the earliest end, by the engine's clock.
            until: the latest end, by the engine's clock.
            cursor: the `cursor` of the page before; None for the first page.
        """
        ...

    def instance(self, instance_id: str) -> FinishedInstance | InstanceStatus:
        """Return an instance, or why there is none."""
        ...

    def definitions(self) -> Sequence[ProcessDefinition]:
        """Return the latest version of each deployed definition."""
        ...

    def close(self) -> None:
        """Close all connections."""
        ...


EngineClientFactory: TypeAlias = "Callable[[EngineConfig], EngineClient]"
"""Creates a client for one source. It must not connect."""

KIND_OF_END: Final = MappingProxyType(
    {
        EndState.COMPLETED: "complete",
        EndState.CANCELLED: "cancel",
        EndState.ERROR: "error",
        EndState.TERMINATED: "terminate",
        EndState.UNDECIDED: "complete",
    }
)
"""The kind of callback for each way to end. An event of an undecided end is parked."""
