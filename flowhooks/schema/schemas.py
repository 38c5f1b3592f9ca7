"""The schemas in force, and the validation of callbacks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import chain
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from referencing import Registry
from referencing.jsonschema import DRAFT202012

from flowhooks import messages
from flowhooks.errors import InvalidCallback, SettingsError
from flowhooks.schema import callback_body, files, flow_instance_id
from flowhooks.schema.ecma_regex import translate
from flowhooks.schema.fast_path import FastPathValidator
from flowhooks.schema.validator import Validator
from flowhooks.schema.violations import Violation, violations

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

MAX_SHOWN_VIOLATIONS: Final = 20
"""Maximum number of violations listed in a response."""
MAX_VIOLATIONS: Final = 1000
"""Maximum number of violations searched for, which bounds the time for a large body with many errors."""
SHARED_SCHEMA: Final = f"process-end-call-back-ro{files.SUFFIX}"
FLOW_INSTANCE_ID: Final = f"flow-instance-id{files.SUFFIX}"
_KIND_FOLDER: Final = "call-back/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Schemas:
    """The schema files in force: the shipped ones, and files that replace or extend them. Created by `load`.

    A file `call-back/KIND.schema.json` opens a kind of callback. Whatever that file says, the six names of
    `process-end-call-back-ro.schema.json` have the same meaning in every kind, and the types of `Event`. `format` is an
    annotation, which is the default of JSON Schema 2020-12: it is published and not checked.

    Attributes:
        documents: content of each file, by its path in the folder.
        kinds: kinds of callback, sorted.
    """

    documents: Mapping[str, files.Document]
    kinds: tuple[str, ...]
    _validators: Mapping[str, tuple[FastPathValidator, ...]]

    @classmethod
    def load(cls, extra: Sequence[Path] = ()) -> Schemas:
        """Load the shipped schemas, then those of further folders.

        Args:
            extra: folders structured like `schemas/`; a file with the same path replaces the earlier one.

        Raises:
            SettingsError: a folder or file cannot be used; one line that names it.
        """
        if not extra:
            return _shipped()
        documents = dict(_shipped().documents)
        for folder in extra:
            documents |= files.read_folder(folder)
            if own := next(filter(files.is_plugin_only, documents), None):
                raise SettingsError(
                    f"schema file {folder / own}: {files.SETTINGS_FILE} and data/ belong in the plugin's own folder"
                )
        return cls._of(documents)

    def with_folder(self, folder: Path, *, replace: bool = False) -> Schemas:
        """Return these schemas and those of one more folder, such as a plugin's.

        Args:
            folder: a folder structured like `schemas/`. Schemas of a plugin's own settings and data in it are ignored.
            replace: whether a file with the same path may replace the earlier one; default: it is refused unless its
                content is equal.

        Raises:
            SettingsError: the folder or a file cannot be used; one line that names it.
        """
        added = {
            name: document for name, document in files.read_folder(folder).items() if not files.is_plugin_only(name)
        }
        return self.with_documents(added, folder, replace=replace)

    def with_documents(self, added: Mapping[str, files.Document], folder: Path, *, replace: bool = False) -> Schemas:
        """Return these schemas and files that were already read, by their path in `folder`.

        Raises:
            SettingsError: as with `with_folder`.
        """
        for name, document in added.items():
            if not replace and self.documents.get(name, document) != document:
                raise SettingsError(f"schema file {folder / name}: this file exists already and must not be replaced")
        return self._of({**self.documents, **added}) if added else self

    @classmethod
    def _of(cls, documents: dict[str, files.Document]) -> Schemas:
        files.check_references(documents)
        ready, registry = _prepare(documents)
        shared = _validator(ready[SHARED_SCHEMA], registry)
        bodies: dict[str, tuple[FastPathValidator, ...]] = {
            FLOW_INSTANCE_ID: (_validator(ready[FLOW_INSTANCE_ID], registry),)
        }
        kinds = sorted(files.names_in(documents, _KIND_FOLDER))
        for kind in kinds:
            name = f"{_KIND_FOLDER}{kind}{files.SUFFIX}"
            own = Validator(ready[name], registry=registry)
            bodies[kind] = (shared, FastPathValidator(own, _without_shared(name, ready[name])))
        return cls(documents=MappingProxyType(documents), kinds=tuple(kinds), _validators=MappingProxyType(bodies))

    def check_body(self, kind: str, body: Mapping[str, Any]) -> None:
        """Check a body against the schema of its kind of callback.

        Args:
            kind: one of `kinds`.
            body: result of `parse_callback`.

        Raises:
            InvalidCallback: the body is invalid; has the first 20 violations.
            KeyError: there is no such kind.
        """
        validators = self._validators[kind]
        try:
            violations_found = _find_violations(validators, body) or list(callback_body.find_violations(body))
        except Exception as error:  # jsonschema's own limits, such as of nesting and of huge numbers
            raise InvalidCallback("body_unchecked") from error
        if not violations_found:
            return
        first = _first_violations(violations_found)
        if len(violations_found) <= MAX_SHOWN_VIOLATIONS:
            raise InvalidCallback("body_refused", first)
        if len(violations_found) <= MAX_VIOLATIONS:
            raise InvalidCallback("body_refused_more", first, total=len(violations_found), shown=MAX_SHOWN_VIOLATIONS)
        raise InvalidCallback("body_refused_many", first, total=MAX_VIOLATIONS, shown=MAX_SHOWN_VIOLATIONS)

    def why_member_invalid(self, kind: str, name: str, value: Any) -> str | None:
        """Return a sentence why no callback of a kind can have `value` as its member `name`; None if one can.

        Args:
            kind: one of `kinds`.
            name: name of the member, such as `callBackProcessClass`.
            value: value of the member.

        Raises:
            KeyError: there is no such kind.
        """
        validators = self._validators[kind]
        try:
            violations_found = _find_violations(validators, {name: value})
        except Exception:  # noqa: BLE001 (a value that cannot be checked may be possible)
            return None
        # Other members that such a body lacks do not matter.
        of_member = [violation for violation in violations_found if violation.path[:1] == (name,)]
        return messages.text(of_member[0].key, "en", **dict(of_member[0].params)) if of_member else None

    def check_flow_instance_id(self, text: str) -> None:
        """Check the percent-decoded flowInstanceId of a path.

        Raises:
            InvalidCallback: the text is not a flowInstanceId.
        """
        broken_rules = flow_instance_id.find_violations(text)
        if not broken_rules and (found := _find_violations(self._validators[FLOW_INSTANCE_ID], text)):
            broken_rules = [(key, params) for _, key, params in _first_violations(found)]
        if broken_rules:
            raise InvalidCallback("path_id", [("flowInstanceId", key, params) for key, params in broken_rules])


def build_validators(documents: Mapping[str, files.Document]) -> dict[str, FastPathValidator]:
    """Return a validator for each document. Documents may refer to one another.

    Raises:
        SettingsError: a reference leads nowhere; one line that names the file.
    """
    files.check_references(documents)
    ready, registry = _prepare(documents)
    return {name: _validator(document, registry) for name, document in ready.items()}


@cache
def _shipped() -> Schemas:
    """Load the shipped schemas, which no process changes: the test kit opens many apps in one."""
    return Schemas._of(files.read_folder(files.shipped_dir()))  # noqa: SLF001 (its own class)


def _prepare(documents: Mapping[str, files.Document]) -> tuple[dict[str, files.Document], Registry[Any]]:
    """Return the documents and the registry that resolves their `$ref`."""
    ready = {name: translate(document) | {"$id": files.uri_of(name)} for name, document in documents.items()}
    for document in ready.values():
        document.pop("$schema", None)  # as `Validator` requires; `files` has checked it
    resources = {name: DRAFT202012.create_resource(document) for name, document in ready.items()}
    registry = Registry().with_resources(
        (uri, resource) for name, resource in resources.items() for uri in {files.uri_of(name), files.BASE_URI + name}
    )
    return ready, registry.crawl()  # once, not at each `$ref`


def _validator(document: files.Document, registry: Registry[Any]) -> FastPathValidator:
    return FastPathValidator(Validator(document, registry=registry))


def _find_violations(validators: tuple[FastPathValidator, ...], value: Any) -> list[Violation]:
    # The validators first answer yes or no, which is much faster than a list.
    for validator in validators:
        if not validator.is_valid(value):
            errors = chain.from_iterable(checker.iter_errors(value) for checker in validators)
            return violations(value, errors, MAX_VIOLATIONS + 1)
    return []


def _first_violations(violations_found: list[Violation]) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (violation.pointer, violation.key, dict(violation.params))
        for violation in violations_found[:MAX_SHOWN_VIOLATIONS]
    ]


def _without_shared(name: str, document: files.Document) -> files.Document:
    """Return a kind's schema for the fast path, without a reference to the shared schema, which is checked before."""
    if "$ref" in document and files.resolve_reference(name, document["$ref"]) == (SHARED_SCHEMA, ""):
        return {key: value for key, value in document.items() if key != "$ref"}
    return document
