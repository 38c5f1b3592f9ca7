"""Read folders of JSON Schema files; a folder with an unusable file is refused."""

from __future__ import annotations

import graphlib
import json
import os
import re
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, unquote, urldefrag, urljoin

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError

from flowhooks.errors import SettingsError
from flowhooks.schema.ecma_regex import FORMATS, translate
from flowhooks.schema.keywords import IN_PLACE_APPLICATORS, keyword_subschemas, subschemas
from flowhooks.text import escape_control

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

Document = dict[str, Any]

BASE_URI: Final = "https://flowhooks.example/schemas/"
"""Base of the files' `$id`s. Its domain is reserved by RFC 2606, so it is never fetched."""
DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
SUFFIX: Final = ".schema.json"
SETTINGS_FILE: Final = f"settings{SUFFIX}"
"""Schema of a plugin's own section of the settings."""
CLASS_FOLDER: Final = "data/class/"
"""Folder whose files are named exactly after a value of `callBackProcessClass`."""
KEY_FOLDER: Final = "data/key/"
"""Folder whose files are named exactly after a value of `processDefinitionKey`."""
_NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,63}")
_UNSUPPORTED: Final = ("$dynamicRef", "$dynamicAnchor")


def shipped_dir() -> Path:
    """Return the folder of the schema files that flowhooks ships.

    Returns:
        Package data of an installed flowhooks; in an editable install, `schemas/` of the checkout.

    Raises:
        SettingsError: neither exists.
    """
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "schemas", package.parent / "schemas"):
        if (folder / f"call-back/complete{SUFFIX}").is_file():
            return folder
    raise SettingsError(
        f"flowhooks is installed without its schema files: the folder {package / 'schemas'} does not exist"
    )


def is_plugin_only(name: str) -> bool:
    """Tell whether a file in a plugin's folder applies to that plugin only: to its settings or its data."""
    return name == SETTINGS_FILE or name.startswith("data/")


def names_in(names: Iterable[str], folder: str) -> Iterator[str]:
    """Yield the classes, keys or kinds after which the files of `folder`, such as `CLASS_FOLDER`, are named."""
    return (name.removeprefix(folder).removesuffix(SUFFIX) for name in names if name.startswith(folder))


def uri_of(name: str) -> str:
    """Return the URI of a file, percent-encoded because names of classes and keys may have any printable character."""
    return BASE_URI + quote(name)


def read_folder(folder: Path) -> dict[str, Document]:
    """Read and check each schema file of a folder.

    Args:
        folder: a folder structured like `schemas/`. Names that start with a dot, and files that are not named `*.json`,
            are ignored.

    Returns:
        The documents by their path in the folder, such as `call-back/complete.schema.json`.

    Raises:
        SettingsError: the folder or a file cannot be read or used; the message names the file.
    """
    if not folder.is_dir():
        raise SettingsError(f"the folder of schema files {folder} does not exist")
    return {name: _read(folder / name, name) for name in sorted(_names(folder))}


def _names(folder: Path) -> Iterator[str]:
    seen = set()
    for here, folders, files in os.walk(folder, followlinks=True, onerror=_unreadable):
        if (real := os.path.realpath(here)) in seen:  # a link to a folder already visited
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            if name.endswith(".json") and not name.startswith("."):
                yield (Path(here) / name).relative_to(folder).as_posix()


def _unreadable(error: OSError) -> None:
    raise SettingsError(f"the folder of schema files {error.filename} cannot be read: {error.strerror}") from None


def _read(file: Path, name: str) -> Document:
    if why := _why_misnamed(name):
        raise SettingsError(f"schema file {escape_control(str(file), 300)}: {why}")
    try:
        text = file.read_text("utf-8-sig")
        document = json.loads(text, parse_constant=_refuse_constant)
        # /openapi.json has the schema. A number beyond the range of floats was read as infinity.
        json.dumps(document, ensure_ascii=False, allow_nan=False).encode()
        _check(document, text, name)
    except (OSError, ValueError, OverflowError, SchemaError) as error:  # OverflowError: a regular expression's count
        raise SettingsError(f"schema file {file}: {_error_text(error)}") from None
    except RecursionError:
        raise SettingsError(f"schema file {file}: it is nested too deeply") from None
    return document  # type: ignore[no-any-return]  # _check refuses values other than objects


def _why_misnamed(name: str) -> str | None:
    *parents, last = name.removesuffix(SUFFIX).split("/")
    for folder, what in ((CLASS_FOLDER, "callBackProcessClass"), (KEY_FOLDER, "processDefinitionKey")):
        if name.startswith(folder):
            return _why_value_misnamed(name, folder, what)
    if not name.endswith(SUFFIX) or not all(_NAME.fullmatch(part) for part in (*parents, last)):
        return (
            f"its name must be NAME{SUFFIX}, where NAME and the name of each folder have 1 to 64 of a-z, 0-9 and -, "
            "starting with a letter"
        )
    if parents != ["call-back"] and "call-back" in parents:
        return "kinds of callback must be files directly in the folder call-back"
    if parents[:1] == ["data"] and len(parents) > 1:
        return f"the folder data may only have the folders {CLASS_FOLDER} and {KEY_FOLDER}"
    return None


def _why_value_misnamed(name: str, folder: str, what: str) -> str | None:
    value = name.removeprefix(folder).removesuffix(SUFFIX)
    if not name.endswith(SUFFIX):
        return f"its name must be NAME{SUFFIX}, where NAME is a {what}"
    if "/" in value:
        return (
            f"a {what} must be the name of a file directly in the folder {folder}, so a {what} with a / cannot "
            "have a schema"
        )
    if not value.isprintable():  # lone surrogates, which represent bytes that are not UTF-8, are not printable
        return f"its name is not a printable {what}"
    return None


def _refuse_constant(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


def _error_text(error: Exception) -> str:
    if isinstance(error, SchemaError):
        where = "/".join(str(part) for part in error.absolute_path)
        return f"not a JSON Schema of 2020-12, at /{escape_control(where, 200)}: {escape_control(error.message, 200)}"
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8 at byte {error.start + 1}"
    if isinstance(error, UnicodeEncodeError):
        return f"it has {error.object[error.start : error.end]!r}, half of a surrogate pair"
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON: {error}"
    return getattr(error, "strerror", None) or str(error)


@lru_cache(maxsize=128)
def _check_schema(text: str) -> None:
    # Cached, because this check takes longer than all others in this module.
    Draft202012Validator.check_schema(json.loads(text), format_checker=FORMATS)


def _check(document: Any, text: str, name: str) -> None:
    if not isinstance(document, dict):
        raise ValueError("it is not an object")  # noqa: TRY004 (a file's content, not an argument)
    if document.get("$schema", DIALECT) != DIALECT:
        raise ValueError(f"its $schema is not {DIALECT}")
    if document.get("$id", uri_of(name)) != uri_of(name):
        raise ValueError(f"its $id is not {uri_of(name)}; leave it out or write this")
    _check_schema(text)
    for pointer, schema in subschemas(document):
        for keyword in (*_UNSUPPORTED, "$id", "$schema") if pointer else _UNSUPPORTED:
            if isinstance(schema, dict) and keyword in schema:
                raise ValueError(f"{keyword} at {escape_control(pointer, 200) or '/'} is not supported")
    translate(document)


def resolve_reference(name: str, reference: str) -> tuple[str, str]:
    """Return the target of a `$ref` in the file `name`: the other file's name, and the fragment without its `#`."""
    there, fragment = urldefrag(urljoin(uri_of(name), reference))
    file = unquote(there.removeprefix(BASE_URI))
    # Accept the plain or the fully percent-encoded URI. A partly encoded one would not be found later.
    return file if there in {uri_of(file), BASE_URI + file} else there, unquote(fragment)


def locate(documents: Mapping[str, Document], name: str, reference: str) -> tuple[str, str]:
    """Return the file and the JSON Pointer of the schema that a `$ref` in the file `name` points to.

    Raises:
        LookupError: there is no such schema.
    """
    try:
        file, fragment = resolve_reference(name, reference)
    except ValueError:  # not a URI
        raise LookupError(reference) from None
    for pointer, schema in subschemas(documents.get(file)):
        anchor = schema.get("$anchor") if isinstance(schema, dict) else None
        if schema is not None and fragment in {pointer, anchor}:
            return file, pointer
    raise LookupError(reference)


def check_references(documents: Mapping[str, Document]) -> None:
    """Check that each `$ref` points to a schema and leads back to itself only through a nested value.

    Raises:
        SettingsError: a `$ref` does not; the message names the file.
    """
    graph: dict[tuple[str, str], set[tuple[str, str]]] = {}
    for name, document in documents.items():
        for pointer, schema in subschemas(document):
            if not isinstance(schema, dict):
                continue
            edges = graph.setdefault((name, pointer), set())
            for keyword in IN_PLACE_APPLICATORS & schema.keys():
                edges.update((name, pointer + path) for path, _ in keyword_subschemas(keyword, schema[keyword]))
            if "$ref" in schema:
                edges.add(_checked_reference(documents, name, pointer, schema["$ref"]))
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        name, pointer = error.args[1][0]
        raise SettingsError(f"schema file {name}: the schema at {pointer or '/'} refers to itself endlessly") from None


def _checked_reference(documents: Mapping[str, Document], name: str, pointer: str, reference: str) -> tuple[str, str]:
    try:
        return locate(documents, name, reference)
    except LookupError:
        raise SettingsError(
            f"schema file {name}: $ref {escape_control(reference, 200)} at {escape_control(pointer, 200) or '/'} "
            "does not resolve to a schema"
        ) from None
