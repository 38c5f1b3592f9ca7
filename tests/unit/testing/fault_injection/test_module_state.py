"""The state of a plugin's modules in memory, reset as in a new process."""

from __future__ import annotations

import copy
import sys

import pytest

from flowhooks.testing.fault_injection.module_state import ModuleState, modules_of

CODE = """
    import functools
    import json
    from collections import Counter, OrderedDict, defaultdict, deque
    from dataclasses import dataclass, field

    from flowhooks import handler

    number = 1
    words = ["one"]
    table = {"one": [1]}
    chosen = {1}
    counted = Counter(a=1)
    by_default = defaultdict(list)
    last = deque([1], maxlen=3)
    ordered = OrderedDict(a=1)
    pair = ([1], {2})

    class Box:
        every = []

        def __init__(self):
            self.inside = {"a": 1}

    @dataclass(frozen=True, slots=True)
    class Slotted:
        items: list = field(default_factory=list)

    box = Box()
    slotted = Slotted([1])

    @functools.cache
    def looked_up(name):
        words.append(name)
        return len(words)

    def counter():
        made = 0
        seen = set()

        def count(key="a", again=[]):
            nonlocal made
            made += 1
            seen.add(key)
            again.append(key)
            return made, len(seen), len(again)

        return count

    count = counter()

    @handler(every=True)
    def grant(event, already=[]):
        already.append(event)
        return len(already)

    def change():
        global number, new
        number = 2
        new = 3
        words.append("two")
        table["one"].append(2)
        table["two"] = [2]
        chosen.clear()
        counted["a"] += 1
        by_default["x"].append(1)
        last.extend([2, 3, 4])
        ordered["b"] = 2
        pair[0].append(2)
        pair[1].clear()
        Box.every.append(1)
        Box.later = 1
        box.inside["b"] = 2
        box.outside = 3
        slotted.items.append(2)
        looked_up("three")
        count("b")
        grant("event")
"""


def state(module):
    """All state of the module."""
    return repr(
        [
            {
                name: value
                for name, value in vars(module).items()
                if not name.startswith("__") and isinstance(value, int | list | dict | set | tuple | module.deque)
            },
            vars(module.box),
            module.Box.every,
            hasattr(module.Box, "later"),
            module.slotted,
        ]
    )


def test_module_state_is_restored(module):
    """Variables, their contents, attributes, caches, closures and defaults are reset."""
    kept = module("kept", CODE)
    memory = ModuleState([kept])
    before = state(kept)
    for _ in range(2):
        kept.change()
        assert state(kept) != before
        memory.restore()
        assert state(kept) == before
        assert kept.looked_up.cache_info().currsize == 0
        assert kept.count("c") == (1, 1, 1)
        assert kept.grant("event") == 1
        memory.restore()


CONTAINERS = """
    from collections import OrderedDict, UserDict, deque, namedtuple

    class Seen(set):
        added = 0

        def add(self, item):
            self.added += 1
            super().add(item)

        def clear(self):
            raise NotImplementedError

        def __iter__(self):
            return iter(())

    class Table(dict):
        __slots__ = ("last",)

        def __setitem__(self, name, value):
            self.last = name
            super().__setitem__(name, value)

        def items(self):
            return []

        keys = __iter__ = items

    class Newest(OrderedDict):
        def __setitem__(self, name, value):
            super().__setitem__(name, value)
            if len(self) > 2:
                self.popitem(last=False)

    class Words(list):
        def extend(self, words):
            raise NotImplementedError

    class Recent(deque):
        pass

    class Wrapped(UserDict):
        pass

    Pair = namedtuple("Pair", "left right")

    seen = Seen([1])
    table = Table(a=[1])
    newest = Newest(a=1, b=2)
    words = Words(["one"])
    recent = Recent([1], maxlen=2)
    wrapped = Wrapped(a=1)
    pair = Pair([1], {2})

    def change():
        seen.add(2)
        dict.__getitem__(table, "a").append(2)
        table["b"] = 2
        newest["c"] = 3
        words.append("two")
        recent.extend([2, 3])
        wrapped["b"] = 2
        pair.left.append(2)
        pair.right.clear()

    def contents():
        return (
            set.copy(seen),
            seen.added,
            list(dict.items(table)),
            getattr(table, "last", None),
            list(newest.items()),
            list(words),
            list(recent),
            dict(wrapped),
            pair,
        )
"""


def test_subclasses_of_containers_are_restored(module):
    """Of a subclass of a container the contents and the attributes are reset, without its own methods."""
    kept = module("containers", CONTAINERS)
    memory = ModuleState([kept])
    before = copy.deepcopy(kept.contents())
    for _ in range(2):
        kept.change()
        assert all(value != earlier for value, earlier in zip(kept.contents(), before, strict=True))
        memory.restore()
        assert kept.contents() == before


def test_objects_of_other_packages_are_not_reset(module):
    """An object of another package's class keeps its state, even in a module's variable; so do imports."""
    kept = module("kept", CODE)

    class Fake:
        """A fake of a test."""

        def __init__(self):
            self.sent = []

    class Outbox(list):
        """A fake that is a container."""

    kept.gateway = Fake()
    kept.outbox = Outbox()
    memory = ModuleState([kept])
    kept.gateway.sent.append("message")
    kept.outbox.append("message")
    kept.sqlite3 = pytest.importorskip("sqlite3")
    memory.restore()
    assert kept.gateway.sent == kept.outbox == ["message"]
    assert kept.sqlite3


def test_selection_of_modules(module):
    """The modules are the imported ones of the packages, without tests, and never flowhooks's own."""
    kept = module("kept", "value = 1\n")
    assert modules_of(["acme_kept", "flowhooks", "", "not_imported"]) == [kept]
    assert sys.modules["flowhooks"] not in modules_of(["flowhooks"])
