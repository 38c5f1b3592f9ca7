"""The callback class in the diagram of a process definition. A definition never changes, so its class is cached."""

from __future__ import annotations

from collections import OrderedDict
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Final, NoReturn
from urllib.parse import quote
from xml.etree.ElementTree import ParseError, XMLParser

from flowhooks_camunda.rest import RequestFailed, ResponseTooLarge
from flowhooks_camunda.row import Row

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flowhooks_camunda.rest import RestApi

MAX_CACHED_DEFINITIONS: Final = 1000
MAX_ID_CHARS: Final = 64
"""Maximum length of an id of a definition: that of the engine's column."""
MAX_CLASS_CHARS: Final = 512
"""Maximum length of a class, as in the contract of callbacks."""
MAX_DEPTH: Final = 200
"""Maximum depth of elements in a diagram. A malicious engine could fill the memory with open elements."""
RETRY_SECONDS: Final = 60
"""Time after which a diagram that the engine refused is read again."""


class DefinitionClasses:
    """Reads the extension property of processes whose value is the callback class.

    Args:
        api: the engine.
        name: the name of the property, such as `callBackProcessClass`.
    """

    def __init__(self, api: RestApi, name: str) -> None:
        self._api = api
        self._name = name
        # By the id of the definition: its class, and when it is read again; None for never.
        self._classes: OrderedDict[str, tuple[str | None, float | None]] = OrderedDict()

    def get(self, definition_id: str | None, key: str | None) -> str | None:
        """Return the class of a definition; None if it has none, or if the engine does not give its diagram.

        Raises:
            EngineError: the engine is not available, or it refuses the credential.
        """
        if not definition_id or not key or len(definition_id) > MAX_ID_CHARS:
            return None
        known = self._classes.get(definition_id)
        if known is None or (known[1] is not None and monotonic() >= known[1]):
            known = self._classes[definition_id] = self._read(definition_id, key)
            if len(self._classes) > MAX_CACHED_DEFINITIONS:
                self._classes.popitem(last=False)
        return known[0]

    def _read(self, definition_id: str, key: str) -> tuple[str | None, float | None]:
        path = f"process-definition/{quote(definition_id, safe='')}/xml"
        try:
            row = Row(path, self._api.get(path).json)
        except (RequestFailed, ResponseTooLarge):  # one diagram must not stop the reading of the history
            return None, monotonic() + RETRY_SECONDS
        return find_class(row.optional_text("bpmn20Xml") or "", key, self._name), None


def find_class(xml: str, key: str, name: str) -> str | None:
    """Return the value of an extension property of one process; None if it has none, or if the XML is invalid.

    Args:
        xml: the diagram. With a document type it is invalid, so it has no entities to expand.
        key: the id of the process.
        name: the name of the property.
    """
    finder = _PropertyFinder(key, name)
    with suppress(ParseError, ValueError):
        # The target keeps no element, so a large diagram needs little memory.
        parser = XMLParser(target=finder)  # noqa: S314 (the target refuses a document type)
        parser.feed(xml)
        parser.close()
        return finder.value
    return None


class _PropertyFinder:
    """A target of the parser. The names of properties differ in their namespaces between Camunda and its forks."""

    PATH: Final = ("process", "extensionElements", "properties", "property")

    def __init__(self, key: str, name: str) -> None:
        self.value: str | None = None
        self._key = key
        self._name = name
        self._path: list[str] = []
        self._is_in_process = False

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        self._path.append(tag.rpartition("}")[2])
        if len(self._path) > MAX_DEPTH:
            raise ValueError("the elements are nested too deeply")
        if len(self._path) == 2:  # noqa: PLR2004 (the root's children)
            self._is_in_process = attributes.get("id") == self._key
        is_property = self._is_in_process and tuple(self._path[1:]) == self.PATH
        if is_property and attributes.get("name") == self._name and self.value is None:
            value = attributes.get("value", "")
            self.value = value if 0 < len(value) <= MAX_CLASS_CHARS else None

    def end(self, tag: str) -> None:  # noqa: ARG002 (the parser passes it)
        self._path.pop()

    def doctype(self, *_: str | None) -> NoReturn:
        raise ValueError("a diagram has no document type")

    def close(self) -> None:
        pass
