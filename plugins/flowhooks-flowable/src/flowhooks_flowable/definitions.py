"""A cache of the keys, versions and diagrams of process definitions, which never change."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import quote

from flowhooks_flowable.instances import MAX_CLASS_CHARS, key_and_version
from flowhooks_flowable.rest_api import NotFound, RequestFailed, ResponseTooLarge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from flowhooks_flowable.rest_api import RestApi

MAX_CACHED_DEFINITIONS: Final = 1000
MAX_KEY_CHARS: Final = 255
"""Maximum length of an id or a key that is cached. Flowable's columns have the same length."""
MAX_TERMINATE_EVENTS: Final = 100
"""Maximum number of ids that are cached of a diagram. A malicious engine could fill the memory with them."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Diagram:
    """The parts of a definition's BPMN model that this client uses.

    Attributes:
        terminate_events: the ids of its terminate end events.
        callback_class: the value of its data object for the callback class; None if no such data object has a text.
    """

    terminate_events: frozenset[str]
    callback_class: str | None


class Definitions:
    """Reads definitions and caches them.

    Args:
        api: the engine.
        class_variable: the name of the data object whose value is the callback class.
    """

    def __init__(self, api: RestApi, class_variable: str) -> None:
        self._api = api
        self._class_variable = class_variable
        self._identities: OrderedDict[str, tuple[str | None, int | None]] = OrderedDict()
        self._diagrams: OrderedDict[str, Diagram | None] = OrderedDict()

    def identity(self, definition_id: str) -> tuple[str | None, int | None]:
        """Return the key and the version of a definition; None for both if the engine has no such definition."""
        return key_and_version(definition_id) or _get_cached(self._identities, definition_id, self._read_identity)

    def diagram(self, definition_id: str) -> Diagram | None:
        """Return the diagram of a definition; None if the engine cannot give it, or if it is invalid or too large."""
        try:
            return _get_cached(self._diagrams, definition_id, self._read_diagram)
        except RequestFailed:  # an engine that cannot convert one model must not stop the reading of the history
            return None

    def _read_identity(self, definition_id: str) -> tuple[str | None, int | None]:
        members = self._get_members(f"repository/process-definitions/{quote(definition_id, safe='')}")
        key, version = members.get("key"), members.get("version")
        is_key = isinstance(key, str) and len(key) <= MAX_KEY_CHARS
        return (key if is_key else None, version if isinstance(version, int) else None)

    def _read_diagram(self, definition_id: str) -> Diagram | None:
        key, _ = self.identity(definition_id)
        model = self._get_members(f"repository/process-definitions/{quote(definition_id, safe='')}/model")
        try:
            (process,) = [candidate for candidate in model.get("processes", ()) if candidate["id"] == key]
            terminate_events = frozenset(
                element["id"] for element in _all_elements(process) if _is_terminate_end_event(element)
            )
            values = [item["value"] for item in process.get("dataObjects") or () if self._is_class(item)]
            is_small = (
                len(terminate_events) <= MAX_TERMINATE_EVENTS
                and max(map(len, terminate_events), default=0) <= MAX_KEY_CHARS
            )
            return Diagram(terminate_events, values[-1] if values else None) if is_small else None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None

    def _is_class(self, data_object: Mapping[str, Any]) -> bool:
        value = data_object.get("value")
        is_text = isinstance(value, str) and 0 < len(value) <= MAX_CLASS_CHARS
        return is_text and data_object["name"] == self._class_variable

    def _get_members(self, path: str) -> dict[str, Any]:
        # Other errors may be temporary, and the result is cached. So they fail the page, which is then read again.
        try:
            return self._api.get(path).members
        except (NotFound, ResponseTooLarge):  # NotFound: the definition was deleted
            return {}


def _get_cached(cache: OrderedDict[str, T], key: str, read: Callable[[str], T]) -> T:
    if len(key) > MAX_KEY_CHARS:
        return read(key)
    if key not in cache:
        cache[key] = read(key)
        if len(cache) > MAX_CACHED_DEFINITIONS:
            cache.popitem(last=False)
    return cache[key]


def _all_elements(scope: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for element in scope.get("flowElements") or ():
        yield element
        yield from _all_elements(element)


def _is_terminate_end_event(element: Mapping[str, Any]) -> bool:
    # The response has no types. Only a terminate event definition has this member.
    return any("terminateAll" in event_definition for event_definition in element.get("eventDefinitions") or ())
