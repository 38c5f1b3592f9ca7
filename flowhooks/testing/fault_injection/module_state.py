"""A snapshot of the memory of a plugin's modules, restored after a simulated kill of the process.

Only the given modules are changed. Restored are module-level variables, class attributes, closures and defaults, and
the contents of lists, dicts, sets and objects of the package's own classes that are reached from them. Objects of other
packages' classes, and objects that Python cannot look into (open files, locks, counters), are left alone.
"""

from __future__ import annotations

import functools
import sys
from collections import OrderedDict, deque
from types import CellType, FunctionType, MemberDescriptorType, ModuleType
from typing import TYPE_CHECKING, Any, Final

from flowhooks.model.handler import Handler
from flowhooks.testing.fault_injection.line_tracer import is_test_code

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

_ADD_BY_TYPE: Final[Mapping[Any, Callable[..., object]]] = {
    list: list.append,
    deque: deque.append,
    set: set.add,
    OrderedDict: OrderedDict.__setitem__,  # before `dict`, whose methods would break its order
    dict: dict.__setitem__,
}
"""The types whose contents are restored, also those of their subclasses, and how an item is added."""
_CACHED: Final = type(functools.cache(len))
_CODE: Final = (FunctionType, type, _CACHED)
"""Types whose objects state their module themselves. For any other object, its class states the module."""
_EMPTY: Final = object()


def modules_of(packages: Iterable[str], plugin: str = "") -> list[ModuleType]:
    """Return the imported modules of these top-level packages, without their tests.

    Args:
        packages: the names of the packages.
        plugin: as in `is_test_code`.
    """
    top_level = {name for name in packages if name not in {"", "flowhooks", "builtins"}}
    return [
        module
        for name, module in sorted(sys.modules.items())
        if name.partition(".")[0] in top_level and not is_test_code(name, plugin) and isinstance(module, ModuleType)
    ]


class ModuleState:
    """The memory of modules at the time when this object was made.

    Args:
        modules: the modules.
    """

    def __init__(self, modules: Iterable[ModuleType]) -> None:
        module_list = list(modules)
        self._packages = {module.__name__.partition(".")[0] for module in module_list}
        self._seen: dict[int, Any] = {}
        self._restorers: list[Callable[[], object]] = []
        self._todo: list[Any] = []
        for module in module_list:
            self._save_namespace(vars(module))
        while self._todo:
            self._save(self._todo.pop())

    def restore(self) -> None:
        """Restore the memory."""
        for put_back in self._restorers:
            put_back()

    def _ours(self, module: object) -> bool:
        return isinstance(module, str) and module.partition(".")[0] in self._packages

    def _save_namespace(self, names: dict[str, Any]) -> None:
        """Save a module's variables; a restore removes later ones, but keeps imported modules."""
        before = {name: value for name, value in names.items() if not name.startswith("__")}

        def put_back() -> None:
            for name in [name for name in names if not name.startswith("__") and name not in before]:
                if not isinstance(names[name], ModuleType):
                    del names[name]
            names.update(before)

        self._restorers.append(put_back)
        self._todo.extend(before.values())

    def _save(self, value: Any) -> None:
        if id(value) in self._seen:
            return
        kind = type(value)
        is_ours = self._ours(getattr(value if isinstance(value, _CODE) else kind, "__module__", None))
        inside: list[Any] = []
        if is_ours or kind.__module__ in {"builtins", "collections"}:
            if base := next((base for base in _ADD_BY_TYPE if issubclass(kind, base)), None):
                inside += self._save_contents(base, value)
            elif issubclass(kind, tuple | frozenset):
                inside += value
        if kind is Handler:
            inside += (value.function, value.probe)
        elif is_ours:
            inside += self._save_own(value)
        self._seen[id(value)] = value
        self._todo.extend(inside)

    def _save_contents(self, base: Any, value: Any) -> list[Any]:
        """Save the contents of a container, with the methods of `base`: those of a subclass may do something else."""
        add = _ADD_BY_TYPE[base]
        before = list(base.items(value)) if issubclass(base, dict) else [(item,) for item in base.__iter__(value)]

        def put_back() -> None:
            base.clear(value)
            for item in before:
                add(value, *item)

        self._restorers.append(put_back)
        return [item[-1] for item in before]

    def _save_own(self, value: Any) -> Iterable[Any]:
        if isinstance(value, FunctionType):
            return self._save_function(value)
        if isinstance(value, type):
            return self._save_class(value)
        if isinstance(value, _CACHED):
            self._restorers.append(value.cache_clear)
            return (value.__wrapped__,)
        return self._save_object(value)

    def _save_function(self, function: FunctionType) -> Iterable[Any]:
        cells = function.__closure__ or ()
        for cell in cells:
            self._restorers.append(_cell(cell))
        contents = [_content(cell) for cell in cells]
        defaults = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
        return [*contents, *defaults, function.__dict__]

    def _save_class(self, kind: type) -> Iterable[Any]:
        before = {name: value for name, value in vars(kind).items() if not name.startswith("__")}

        def put_back() -> None:
            for name in [name for name in vars(kind) if not name.startswith("__") and name not in before]:
                delattr(kind, name)
            for name, value in before.items():
                if vars(kind).get(name, _EMPTY) is not value:
                    setattr(kind, name, value)

        self._restorers.append(put_back)
        return before.values()

    def _save_object(self, value: Any) -> Iterable[Any]:
        slots = [
            name
            for base in type(value).__mro__
            for name, member in vars(base).items()
            if isinstance(member, MemberDescriptorType)
        ]
        before = {name: getattr(value, name) for name in slots if hasattr(value, name)}

        def put_back() -> None:
            for name in slots:
                if name in before:
                    object.__setattr__(value, name, before[name])  # frozen dataclasses override `__setattr__`
                elif hasattr(value, name):
                    object.__delattr__(value, name)

        self._restorers.append(put_back)
        attributes = getattr(value, "__dict__", None)
        return [*before.values(), *([attributes] if type(attributes) is dict else [])]


def _content(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return _EMPTY


def _cell(cell: CellType) -> Callable[[], object]:
    before = _content(cell)

    def put_back() -> None:
        if before is not _EMPTY:
            cell.cell_contents = before
        elif _content(cell) is not _EMPTY:
            del cell.cell_contents

    return put_back
