"""`python -m flowhooks_audit verify FILE`: check that an audit trail is complete and unchanged."""

from __future__ import annotations

import argparse
import sqlite3
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from flowhooks_audit import chain
from flowhooks_audit.trail import last_indexed

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        The exit code: 0 if the trail is complete and unchanged, 1 if it is not, 2 if a file cannot be read.
    """
    parser = argparse.ArgumentParser(
        prog="python -m flowhooks_audit", description="Check whether an audit trail is unchanged."
    )
    verify = parser.add_subparsers(required=True).add_parser(
        "verify", help="check each record, its position in the chain, and that no record is missing at the end"
    )
    verify.add_argument("files", nargs="+", type=Path, metavar="FILE", help="the files of one trail, oldest first")
    verify.add_argument(
        "--after",
        metavar="HASH",
        help="the hash before the first record, if the earlier files are not available",
    )
    verify.add_argument(
        "--last", metavar="HASH", help="a hash that the trail must contain, such as one stored in another place earlier"
    )
    options = parser.parse_args(arguments)
    try:
        return _verify(options.files, after=options.after, last=options.last)
    except (OSError, sqlite3.Error) as error:
        print(f"cannot be read: {error}", file=sys.stderr)  # noqa: T201 (the output of this command)
        return 2


def _verify(files: Sequence[Path], *, after: str | None, last: str | None) -> int:
    # The index is read before the files: a server may append meanwhile, and each indexed record is in a file already.
    indexed = last_indexed(files[-1])
    missing_hashes = {last} if last else set()
    if indexed is not None and indexed != chain.START:
        missing_hashes.add(indexed.hash)
    missing_hashes.discard(after or "")  # in an earlier file: after a rotation, the new file may have no record yet
    position = None if after else chain.START
    for file in files:
        with file.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    members, position = chain.decode(line, after=position)
                except chain.InvalidRecord as error:
                    return _report(f"{file}, line {number}: {error}")
                if after not in {None, members["previous"]}:
                    return _report(f"{file}, line {number}: this record does not follow {after}")
                after = None  # only the first record must follow `after`
                missing_hashes.discard(position.hash)
    end = position or after or chain.START
    if indexed is not None and indexed.hash in missing_hashes:
        return _report(f"{files[-1]} ends with {end}, but its index has {indexed}: the last records were removed")
    if missing_hashes:
        return _report(f"no record has the hash {last}: records were removed, or all records were rewritten")
    print(f"the trail is unchanged up to {end}")  # noqa: T201 (the output of this command)
    return 0


def _report(problem: str) -> int:
    print(problem, file=sys.stderr)  # noqa: T201 (the output of this command)
    return 1


if __name__ == "__main__":
    sys.exit(main())
