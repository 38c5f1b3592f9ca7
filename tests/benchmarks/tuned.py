"""`flowhooks`, with a constant of its own changed.

Run as `python tuned.py MODULE:NAME=VALUE,… flowhooks serve …`; nothing before `flowhooks` but a comma changes nothing.
"""

from __future__ import annotations

import sys
from importlib import import_module


def change(what: str) -> None:
    """Change what `MODULE:NAME=VALUE,…` says.

    Raises:
        AttributeError: there is no such constant.
    """
    for one in filter(None, what.split(",")):
        place, value = one.split("=")
        module, name = place.split(":")
        found = import_module(module)
        setattr(found, name, type(getattr(found, name))(value))


if __name__ == "__main__":
    change(sys.argv[1])
    sys.argv = sys.argv[2:]
    import_module("flowhooks.cli.main").main()
