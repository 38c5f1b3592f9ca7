"""Keys, versions and diagrams of process definitions, which never change: read once."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import quote

from flowhooks_flowable.instances import MAX_CLASS_CHARS, key_and_version
from flowhooks_flowable.rest_api import AnswerTooLarge, NotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from flowhooks_flowable.rest_api import RestApi

MAX_CACHED: Final = 1000
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Diagram:
    """The parts of a definition's BPMN model that this client uses.

    Attributes:
        terminate_events: the ids of its terminate end events.
        data_objects: the values of its data objects that are texts, by name.
    """

    terminate_events: frozenset[str]
    data_objects: Mapping[str, str]


class Definitions:
    """Reads definitions, and remembers them."""

    def __init__(self, api: RestApi) -> None:
        self._api = api
        self._identities: OrderedDict[str, tuple[str | None, int | None]] = OrderedDict()
        self._diagrams: OrderedDict[str, Diagram | None] = OrderedDict()

    def identity(self, definition_id: str) -> tuple[str | None, int | None]:
        """Return the key and the version of a definition; None for both if the engine does not know it."""
        return key_and_version(definition_id) or _cached(self._identities, definition_id, self._read_identity)

    def diagram(self, definition_id: str) -> Diagram | None:
        """Return the diagram of a definition; None if the engine does not give it."""
        return _cached(self._diagrams, definition_id, self._read_diagram)

    def _read_identity(self, definition_id: str) -> tuple[str | None, int | None]:
        members = self._get(f"repository/process-definitions/{quote(definition_id, safe='')}")
        key, version = members.get("key"), members.get("version")
        return (key if isinstance(key, str) else None, version if isinstance(version, int) else None)

    def _read_diagram(self, definition_id: str) -> Diagram | None:
        key, _ = self.identity(definition_id)
        model = self._get(f"repository/process-definitions/{quote(definition_id, safe='')}/model")
        try:
            (process,) = [candidate for candidate in model.get("processes", ()) if candidate["id"] == key]
            return Diagram(
                frozenset(element["id"] for element in _elements(process) if _is_terminate_end_event(element)),
                {
                    data_object["name"]: data_object["value"]
                    for data_object in process.get("dataObjects") or ()
                    if _is_class(data_object.get("value"))
                },
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None

    def _get(self, path: str) -> dict[str, Any]:
        # Another error may end, and what this returns is remembered: it fails the page, which is read again.
        try:
            return self._api.get(path).members
        except (NotFound, AnswerTooLarge):  # NotFound: the definition was deleted
            return {}


def _cached(cache: OrderedDict[str, T], key: str, read: Callable[[str], T]) -> T:
    if key not in cache:
        cache[key] = read(key)
        if len(cache) > MAX_CACHED:
            cache.popitem(last=False)
    return cache[key]


def _elements(scope: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for element in scope.get("flowElements") or ():
        yield element
        yield from _elements(element)


def _is_terminate_end_event(element: Mapping[str, Any]) -> bool:
    # The answer has no types. Only this kind of event definition has the member.
    return any("terminateAll" in event_definition for event_definition in element.get("eventDefinitions") or ())


def _is_class(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MAX_CLASS_CHARS
