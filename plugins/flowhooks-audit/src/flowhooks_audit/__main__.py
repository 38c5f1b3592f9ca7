"""`python -m flowhooks_audit verify FILE`: check that an audit trail is complete and unchanged."""

from __future__ import annotations

import argparse
import sqlite3
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from flowhooks_audit import chain
from flowhooks_audit.trail import last_noted

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        The exit code: 0 if all records are as they were written, 1 if they are not, 2 if that cannot be checked.
    """
    parser = argparse.ArgumentParser(
        prog="python -m flowhooks_audit", description="Check whether an audit trail is unchanged."
    )
    verify = parser.add_subparsers(required=True).add_parser(
        "verify", help="check every record, its place in the chain, and that no record is missing at the end"
    )
    verify.add_argument("files", nargs="+", type=Path, metavar="FILE", help="the files of one trail, oldest first")
    verify.add_argument(
        "--after",
        metavar="HASH",
        help="the hash before the first record, if the earlier files are not available",
    )
    verify.add_argument("--last", metavar="HASH", help="a hash that the trail must contain, as noted elsewhere earlier")
    given = parser.parse_args(arguments)
    try:
        return _verify(given.files, after=given.after, last=given.last)
    except (OSError, sqlite3.Error) as error:
        print(f"cannot be read: {error}", file=sys.stderr)  # noqa: T201 (this is a command)
        return 2


def _verify(files: Sequence[Path], *, after: str | None, last: str | None) -> int:
    # The index is asked first: a server may append while this reads, and what it noted before is in the file.
    noted = last_noted(files[-1])
    wanted = {last} if last else set()
    if noted is not None and noted != chain.START:
        wanted.add(noted.hash)
    wanted.discard(after or "")  # of the files before; after a rotation, a new one has no record yet
    link = None if after else chain.START
    for file in files:
        with file.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    members, link = chain.read(line, after=link)
                except chain.Broken as error:
                    return _problem(f"{file}, line {number}: {error}")
                if after not in {None, members["previous"]}:
                    return _problem(f"{file}, line {number}: this record does not follow {after}")
                after = None  # that was the first record of all
                wanted.discard(link.hash)
    found = link or after or chain.START
    if noted is not None and noted.hash in wanted:
        return _problem(f"{files[-1]} ends with {found}, but its index has {noted}: the last records were removed")
    if wanted:
        return _problem(f"no record has the hash {last}: records were removed, or all records were rewritten")
    print(f"the trail is unchanged up to {found}")  # noqa: T201 (as above)
    return 0


def _problem(what: str) -> int:
    print(what, file=sys.stderr)  # noqa: T201 (as above)
    return 1


if __name__ == "__main__":
    sys.exit(main())
