"""Search advisories for all locked packages, and report clearly if the database cannot be reached."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
UNREACHED: Final = ("ConnectionError", "Failed to establish a new connection", "Max retries exceeded", "service error")
PASSED_OVER: Final = "could not be audited"
"""The tool's text about a package that the service does not know, which the tool treats as no failure."""


def main() -> int:
    """Exit with 0 if no advisory is known, 1 if one is, 2 if the database or a package could not be checked."""
    files = [word for name in ("run", "dev", "upkeep") for word in ("--requirement", str(HERE / f"{name}.txt"))]
    tool = Path(sys.executable).with_name("pip-audit")
    command = [str(tool), "--require-hashes", "--disable-pip", "--progress-spinner=off", "--timeout=20", *files]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode and not ran.stdout.strip() and any(word in ran.stderr for word in UNREACHED):
        why = ran.stderr.strip().splitlines()[-1].partition(":")[0]
        said = "cannot be reached from here, so nothing is known of what is locked: run it where there is a network"
        print(f"The advisories {said} ({why}).", file=sys.stderr)
        return 2
    print(ran.stdout, ran.stderr, sep="", end="", flush=True)
    passed_over = ran.stdout.count(PASSED_OVER)
    if passed_over:
        many = "1 package that is" if passed_over == 1 else f"{passed_over} packages that are"
        print(f"Nothing is known of {many} locked: see the list above.", file=sys.stderr)
    return ran.returncode or (2 if passed_over else 0)


if __name__ == "__main__":
    sys.exit(main())
