"""A reconciler whose engines return the results that a test defines."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Self, cast

from flowhooks.background.reconciliation.round import RoundResult
from flowhooks.errors import EngineError
from flowhooks.model.engine import InstanceStatus
from support.app_harness import plugin
from support.silent_engine import SilentClient

if TYPE_CHECKING:
    from collections.abc import Callable

    from flowhooks.app import App
    from flowhooks.model.engine import FinishedInstance, ProcessDefinition
    from flowhooks.model.handler import Handler


def engine_plugin(*handlers: Handler) -> SimpleNamespace:
    """A plugin with these handlers that offers clients named `fake` and `flowable`, of engines without instances."""
    return plugin(*handlers, engine_clients=lambda: dict.fromkeys(("fake", "flowable"), SilentClient))


class FakeReconciler:
    """Records the calls of its methods.

    Attributes:
        sources: names of the sources with an engine.
        rounds: source, since and dry_run of each reconciliation.
        confirmed: names of the sources that were confirmed.
        declined: source, seen_until and note of each decline.
        results: the members of the next results that differ from the default.
        instances: the instances that the engines know, by id.
        deployed: the definitions that the engines have.
        error: the reason why no engine responds; `""`: each engine responds.
        when_called: called when an operation waits for a round or for an engine.
        with_declined: whether the last reconciliation takes in declined instances.
    """

    with_declined = False
    real: Any = None

    def __init__(self, *sources: str) -> None:
        self.sources = sources
        self.rounds: list[tuple[str, int | None, bool]] = []
        self.confirmed: list[str] = []
        self.declined: list[tuple[str, int | None, str]] = []
        self.results: dict[str, Any] = {}
        self.instances: dict[str, FinishedInstance] = {}
        self.deployed: list[ProcessDefinition] = []
        self.error = ""
        self.when_called: Callable[[], None] = lambda: None

    def reconcile_now(self, source: str, *, since: int | None, declined: bool, dry_run: bool) -> RoundResult:
        """Record a reconciliation, and return its result."""
        self.rounds.append((source, since, dry_run))
        self.with_declined = declined
        self.when_called()
        members: dict[str, Any] = {
            "source": source,
            "since": since or 1_767_225_000_000_000,
            "until": 1_767_225_600_000_000,
            "dry_run": dry_run,
            "read": 3,
            "has_event": 1,
            "skipped": Counter(child=1),
            "in_grace": 2,
            "taken_in": 1,
        }
        return RoundResult(**(members | self.results))

    def confirm(self, source: str, _seen_until: int | None) -> None:
        """Record the confirmation of a source."""
        self.confirmed.append(source)

    def decline(self, source: str, seen_until: int | None, *, note: str) -> int:
        """Record a decline, and report 1,200 declined instances."""
        self.when_called()
        self.declined.append((source, seen_until, note))
        return 1200

    def client(self, _source: str) -> Any:
        """The client of a source."""
        return SimpleNamespace(instance=self._instance, definitions=self._definitions)

    def _instance(self, instance_id: str) -> Any:
        self._fail()
        return self.instances.get(instance_id, InstanceStatus.ABSENT)

    def _definitions(self) -> list[ProcessDefinition]:
        self._fail()
        return self.deployed

    def _fail(self) -> None:
        self.when_called()
        if self.error:
            raise EngineError("unreachable", self.error)

    def install(self, app: App) -> Self:
        """Replace an app's reconciliation for operations; the real one still starts and stops with the app."""
        self.real, app.reconciliation = app.reconciliation, cast("Any", self)
        return self

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)
