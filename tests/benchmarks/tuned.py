"""`flowhooks` with changed constants.

Run as `python tuned.py MODULE:NAME=VALUE,… flowhooks serve …`; a single comma before `flowhooks` changes nothing.
"""

from __future__ import annotations

import sys
from importlib import import_module


def change(changes: str) -> None:
    """Apply `MODULE:NAME=VALUE,…`.

    Raises:
        AttributeError: there is no such constant.
    """
    for change_text in filter(None, changes.split(",")):
        constant, value = change_text.split("=")
        module, name = constant.split(":")
        target = import_module(module)
        setattr(target, name, type(getattr(target, name))(value))


if __name__ == "__main__":
    change(sys.argv[1])
    sys.argv = sys.argv[2:]
    import_module("flowhooks.cli.main").main()
