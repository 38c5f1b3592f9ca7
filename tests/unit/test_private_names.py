"""Internal names of libraries that flowhooks uses are listed, exist in the installed versions, and are pinned."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys
import textwrap
import tomllib
from functools import cache
from pathlib import Path

import pytest
from packaging.requirements import Requirement

CHECKOUT = Path(__file__).parents[2]
PACKAGE = CHECKOUT / "flowhooks"

PRIVATE_NAMES = {
    "procrastinate": {
        "procrastinate.schema:SchemaManager": "get_migrations_path get_schema",
    },
    "psycopg": {
        "psycopg:AsyncConnection": "pgconn wait",
        "psycopg:Connection": "pgconn wait",
        "psycopg:ServerCursor": "connection",
    },
    "sqlalchemy": {
        "sqlalchemy.engine:Connection": "_handle_dbapi_exception",
        "sqlalchemy.engine:Row": "_mapping",
        "sqlalchemy.sql.elements:ColumnElement": "_from_objects _traverse_internals",
    },
    "waitress": {
        "waitress.adjustments:Adjustments": (
            "inbuf_overflow max_request_body_size max_request_header_size send_bytes url_scheme"
        ),
        "waitress.buffers:OverflowableBuffer": "append",
        "waitress.channel:ClientDisconnected": "",
        "waitress.channel:HTTPChannel": (
            "_fileno _flush_exception _flush_some _flush_some_if_lockable add_channel addr adj close_when_flushed"
            " connected del_channel error_task_class handle_close handle_read handle_write last_activity logger"
            " outbuf_lock parser_class readable received recv request requests requests_lock server socket"
            " task_class total_outbufs_len will_close writable write_soon"
        ),
        "waitress.parser:HTTPRequestParser": (
            "adj body_rcv chunked close command completed content_length error expect_continue header_plus headers"
            " headers_finished path query received request_uri url_scheme version"
        ),
        "waitress.receiver:ChunkedReceiver": "buf completed received",
        "waitress.receiver:FixedStreamReceiver": "completed received",
        "waitress.server:TcpWSGIServer": (
            "_sock accept accepting active_channels add_task adj bind_socket channel_class closing dispatcher"
            " handle_accept maintenance map pull_trigger readable sockinfo trigger"
        ),
        "waitress.task:ErrorTask": "channel execute finish request write",
        "waitress.task:WSGITask": (
            "build_response_header channel chunked_response close_on_finish complete content_bytes_written"
            " content_length execute finish get_environment request response_headers set_close_on_finish start_time"
            " status version write wrote_header"
        ),
        "waitress.utilities": "build_http_date",
        "waitress.wasyncore": "poll2",
        "waitress.wasyncore:dispatcher": "close",
    },
}
"""The names, by the library and by the class or module that has them. Besides what Python marks as private by an
underscore, these are names that the library does not document: of waitress, psycopg and procrastinate."""
UNDOCUMENTED = ("waitress", "psycopg")
"""Libraries of whose classes all names count that a subclass overrides or uses."""
OTHERS = {"_asdict", "_fields", "_make", "_proxy_to_logger", "_replace"}
"""Public names with an underscore: of named tuples, and the one that structlog documents for wrapper classes."""


def is_private(name):
    """Whether Python's convention marks a name as private."""
    return isinstance(name, str) and name.startswith("_") and not name.startswith("__") and name != "_"


def root(module):
    """The library of a module; None: the standard library or flowhooks itself."""
    name = module.partition(".")[0]
    return None if name in sys.stdlib_module_names or name == "flowhooks" else name


def resolve(path):
    """The object of a key of `PRIVATE_NAMES`."""
    module, _, name = path.partition(":")
    found = importlib.import_module(module)
    return getattr(found, name) if name else found


@cache
def attributes_set(owner):
    """The attributes that a class's own code sets on its instances, and the parameters of its constructor."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(owner)))
    except (OSError, TypeError):
        return frozenset()
    return frozenset(
        {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)}
        | {getattr(node.target, "id", "") for node in ast.walk(tree) if isinstance(node, ast.AnnAssign)}
        | {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    )


def has(owner, name):
    """Whether a module or a class has a name: on the class, on its instances, or as a parameter."""
    return hasattr(owner, name) or (
        inspect.isclass(owner)
        and any(name in attributes_set(class_) for class_ in owner.__mro__ if class_ is not object)
    )


def listed(library):
    """All listed names of a library."""
    return {name for names in PRIVATE_NAMES.get(library, {}).values() for name in names.split()}


@cache
def trees():
    """The parsed modules of flowhooks by their dotted names."""
    found = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        parts = file.relative_to(CHECKOUT).with_suffix("").parts
        found[".".join(parts).removesuffix(".__init__")] = ast.parse(file.read_text())
    return found


def imports(tree):
    """The meaning of each name that a module imports: the module, and for `from` the name in it."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                found[alias.asname or alias.name.partition(".")[0]] = alias.name
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                found[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return found


@cache
def own_names():
    """The private names that flowhooks itself defines."""
    found = set()
    for tree in trees().values():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                found.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                found.add(node.id)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                found.add(node.attr)
    return found


def uses(tree):
    """Private names of libraries that a module uses: `(library or None if it is not known, name)`."""
    imported = imports(tree)
    for module in imported.values():
        yield from ((root(module), part) for part in module.split(".") if is_private(part) and root(module))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            module = imported.get(first_name(node))
            if module is None or root(module):
                yield module and root(module), node.attr
        elif isinstance(node, ast.keyword) and is_private(node.arg or ""):
            yield None, node.arg
        elif isinstance(node, ast.Call) and first_name(node) in {"getattr", "setattr", "hasattr", "delattr"}:
            yield from (
                (None, argument.value)
                for argument in node.args
                if isinstance(argument, ast.Constant) and is_private(argument.value)
            )


def first_name(node):
    """The first name of a chain of attributes and calls; `""` if it begins with something else."""
    while isinstance(node, ast.Attribute | ast.Call):
        node = node.value if isinstance(node, ast.Attribute) else node.func
    return node.id if isinstance(node, ast.Name) else ""


def class_names(tree):
    """The names that a class defines in its body, and those that its methods use of `self` and `super()`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name
        elif isinstance(node, ast.Attribute):
            at = node.value.func if isinstance(node.value, ast.Call) else node.value
            if isinstance(at, ast.Name) and at.id in {"self", "cls", "super"}:
                yield node.attr
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        yield from (target.id for target in targets if isinstance(target, ast.Name))


def subclasses():
    """Each class of flowhooks with its first library class, and the names that it uses of that class."""
    for module, tree in trees().items():
        derived = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.bases]
        if not derived or ".migrations." in module:
            continue
        loaded = importlib.import_module(module)
        for node in derived:
            owner = getattr(loaded, node.name)
            base = next((class_ for class_ in owner.__mro__ if root(class_.__module__)), None)
            if base is None:
                continue
            own = [class_ for class_ in owner.__mro__ if class_.__module__.startswith("flowhooks.")]
            names = {
                name
                for class_ in own
                for name in class_names(ast.parse(textwrap.dedent(inspect.getsource(class_))).body[0])
                if not name.startswith("__") and has(base, name)
            }
            yield owner, base, names


def resolve_class(path):
    """The class of a key; an empty class for a module."""
    owner = resolve(path)
    return owner if inspect.isclass(owner) else type("Nothing", (), {})


@pytest.mark.parametrize("library", PRIVATE_NAMES)
def test_every_listed_name_exists(library):
    """Each listed name exists at its place in the installed version."""
    for path, names in PRIVATE_NAMES[library].items():
        owner = resolve(path)
        assert [name for name in names.split() if not has(owner, name)] == [], path


def test_a_missing_name_is_reported():
    """The check of the list reports a missing name."""
    assert not has(resolve("waitress.channel:HTTPChannel"), "_flush_everything")
    assert not has(resolve("waitress.wasyncore"), "poll9")


def test_every_private_name_is_listed():
    """Each attribute, keyword or import with an underscore that is not flowhooks' own is listed."""
    everything = {name for library in PRIVATE_NAMES for name in listed(library)}
    for module, tree in trees().items():
        for library, name in uses(tree):
            if name not in OTHERS and (library or name not in own_names()):
                assert name in (everything if library is None else listed(library)), (module, library, name)


def test_every_use_of_a_base_class_is_listed():
    """Names that a subclass uses of a library's class are listed: all of waitress and psycopg, others' private ones."""
    found = set()
    for owner, base, names in subclasses():
        library = root(base.__module__)
        found.add(library)
        wanted = {name for name in names if library in UNDOCUMENTED or (is_private(name) and name not in OTHERS)}
        paths = PRIVATE_NAMES.get(library, {}).items()
        mine = {name for path, some in paths if issubclass(owner, resolve_class(path)) for name in some.split()}
        assert wanted <= mine, (owner, wanted - mine)
    assert found >= {"waitress", "psycopg", "sqlalchemy", "click"}


def test_every_listed_name_is_used():
    """Each listed name is used, so that a pin can be removed with its reason."""
    words = set()
    for file in PACKAGE.rglob("*.py"):
        words.update(re.findall(r"\w+", file.read_text()))
    for library in PRIVATE_NAMES:
        assert listed(library) <= words


def test_uses_are_recognised():
    """Each kind of use is found, but no name of flowhooks or the standard library."""
    code = """
import os
import waitress
from falcon import _secret
from sqlalchemy._private import thing
waitress.channel._attribute
os._exit
anything()._unheard_of
anything(_keyword=1)
getattr(anything, "_in_a_string")
"""
    assert set(uses(ast.parse(code))) == {
        ("falcon", "_secret"),
        ("sqlalchemy", "_private"),
        ("waitress", "_attribute"),
        (None, "_unheard_of"),
        (None, "_keyword"),
        (None, "_in_a_string"),
    }


@pytest.mark.parametrize("library", PRIVATE_NAMES)
def test_each_library_with_listed_names_is_pinned(library):
    """Each such library is pinned to bug-fix releases in all project files."""
    asked = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
    lists = [
        asked["project"]["dependencies"],
        *asked["project"]["optional-dependencies"].values(),
        *asked["dependency-groups"].values(),
    ]
    requirements = [found for some in lists for text in some if (found := Requirement(text)).name == library]
    assert requirements
    for requirement in requirements:
        (specifier,) = requirement.specifier
        assert specifier.operator == "~="
        assert specifier.version.count(".") == 2
