"""`flowhooks` with changed constants.

Run as `python tuned.py MODULE:NAME=VALUE,… flowhooks serve …`; a single comma before `flowhooks` changes nothing.
"""

from __future__ import annotations

import sys
from importlib import import_module


def change(what: str) -> None:
    """Apply `MODULE:NAME=VALUE,…`.

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
