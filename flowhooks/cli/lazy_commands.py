"""The commands of a group, each imported when it is called."""

from __future__ import annotations

import gc
from collections import UserDict
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


class LazyCommands(UserDict[str, Any]):
    """Commands by name. The first access to a command imports its module.

    Args:
        modules: `module:attribute` of each command, by its name.
    """

    def __init__(self, modules: Mapping[str, str]) -> None:
        super().__init__(modules)

    def __getitem__(self, name: str) -> click.Command:
        found = self.data[name]
        if isinstance(found, click.Command):
            return found
        module, _, attribute = found.partition(":")
        with _garbage_collector_paused():
            command: click.Command = getattr(import_module(module), attribute)
        self.data[name] = mark_help_blocks(command)
        return command


@contextmanager
def _garbage_collector_paused() -> Iterator[None]:
    # Imports create many objects and hardly any garbage. The collector would examine them repeatedly, which takes a
    # sixth of the time of a start.
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()  # otherwise the next collection would examine all of them
        gc.enable()


def mark_help_blocks(command: click.Command) -> click.Command:
    r"""Mark preformatted blocks as click expects: `\b` is two characters in a raw docstring, and click needs one."""
    command.help = (command.help or "").replace("\\b\n", "\b\n")
    if isinstance(command, click.Group) and not isinstance(command.commands, LazyCommands):
        for inner in command.commands.values():
            mark_help_blocks(inner)
    return command
