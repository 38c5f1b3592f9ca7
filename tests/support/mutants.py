"""Insert faults into ten modules, one at a time, and count how many the tests find; `make mutants` runs it."""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[2]
FOLDER: Final = ROOT / "mutants"
KILLED_STATUSES: Final = frozenset({"killed", "timeout", "segfault", "check was interrupted by user"})
"""mutmut's results for a mutant with which a test fails, hangs, is ended by a signal, or cannot be collected."""
MODULES: Final = {
    "retry": ("unit/model/test_retry.py",),
    "delivery": ("unit/model/test_delivery.py", "unit/model/test_invocation.py"),
    "conditions": ("unit/model/test_conditions.py",),
    "router": ("unit/routing/test_router.py", "unit/routing/test_router_conditions.py"),
    "index": ("unit/routing/test_router.py", "unit/routing/test_router_conditions.py"),
    "selectors": (
        "unit/model/test_selectors.py",
        "unit/model/test_handler.py",
        "unit/routing/test_router.py",
        "unit/routing/test_router_conditions.py",
    ),
    "schema": (
        "unit/schema/test_cloud_events.py",
        "unit/schema/test_files.py",
        "unit/schema/test_form.py",
        "unit/schema/test_plugin_schemas.py",
        "unit/schema/test_schemas.py",
        "unit/schema/test_strict_json.py",
    ),
    "intake": ("unit/intake/test_accept.py",),
    "mapping": ("unit/intake/test_mapping.py",),
    "dispatcher": ("unit/execution/test_dispatcher.py",),
}
"""The modules, and the tests of each; files of `tests/`, so that each runs for seconds."""
FILES: Final = {
    "retry": "model/retry.py",
    "delivery": "model/delivery.py",
    "conditions": "model/conditions.py",
    "router": "routing/router.py",
    "index": "routing/index.py",
    "selectors": "model/selectors.py",
    "schema": "schema/*.py",
    "intake": "intake/accept.py",
    "mapping": "intake/mapping.py",
    "dispatcher": "execution/dispatcher.py",
}
"""Where each module is, below `flowhooks/`."""
MIN_PERCENT: Final = dict.fromkeys(MODULES, 85) | dict.fromkeys(
    ("conditions", "router", "index", "selectors", "mapping"), 95
)
"""Percent of each module's mutants that the tests must kill; more for the modules that decide what an event is and
which handlers it has.
"""


def settings(module: str) -> dict[str, Any]:
    """Return mutmut's settings for a module."""
    return {
        "source_paths": ["flowhooks"],
        "only_mutate": [f"flowhooks/{FILES[module]}"],
        "also_copy": ["schemas"],
        "pytest_add_cli_args_test_selection": [f"tests/{file}" for file in MODULES[module]],
        "pytest_add_cli_args": [
            # Tests that cannot run in the copy of the checkout are left out.
            *("-k", "not postgresql and not procrastinate and not wheel"),
            *("-p", "no:cacheprovider", "--hypothesis-seed=0"),
            # Seconds: on a busy machine the first Hypothesis test can take half of that to list Unicode's characters.
            "--timeout=60",
        ],
        "timeout_constant": 90.0,  # seconds, for a mutant that a test's own limit does not stop
        "timeout_multiplier": 2.0,
    }


def prepare(module: str) -> Path:
    """Create a folder for mutmut that looks like the checkout, with its settings in `pyproject.toml`."""
    folder = FOLDER / module
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in ("flowhooks", "schemas", "tests"):
        (folder / name).symlink_to(ROOT / name)
    lines = [f"{key} = {json.dumps(value)}" for key, value in settings(module).items()]
    project_settings = (ROOT / "pyproject.toml").read_text()
    (folder / "pyproject.toml").write_text("\n".join([project_settings, "[tool.mutmut]", *lines, ""]))
    return folder


def mutmut(folder: Path, *words: str, printed: bool) -> str:
    """Run a mutmut command; return its output, if it is not printed.

    Raises:
        subprocess.CalledProcessError: the command failed.
    """
    command = [str(Path(sys.executable).with_name("mutmut")), *words]
    completed = subprocess.run(command, cwd=folder, check=True, stdout=None if printed else subprocess.PIPE, text=True)
    return completed.stdout or ""


def count_results(listing: str) -> Counter[str]:
    """Count the mutants by result, from the output of `mutmut results --all`."""
    return Counter(status for line in listing.splitlines() for _, colon, status in [line.rpartition(": ")] if colon)


def row(module: str, results: Counter[str]) -> tuple[str, bool]:
    """Return a module's line of the table, and whether the tests killed enough of its mutants."""
    killed = sum(results[status] for status in KILLED_STATUSES)
    passed = killed * 100 >= MIN_PERCENT[module] * results.total() > 0
    share = 100 * killed / results.total() if results.total() else 0.0
    line = f"{module:10}{results.total():>9}{killed:>9}{share:>9.1f}{results['timeout']:>10}"
    return line if passed else f"{line}   fewer than {MIN_PERCENT[module]} in 100", passed


def main() -> int:
    """Run mutmut and print the results; return 0 if the tests kill enough mutants of every requested module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("modules", nargs="*", metavar="MODULE", help=f"some of {', '.join(MODULES)}; default: all")
    parser.add_argument("--at-once", type=int, default=2, help="mutants that are tested at the same time; default 2")
    arguments = parser.parse_args()
    if unknown := set(arguments.modules) - MODULES.keys():
        parser.error(f"there is no module {', '.join(sorted(unknown))}")
    rows = []
    for module in arguments.modules or MODULES:
        print(f"{module}:", flush=True)
        folder = prepare(module)
        mutmut(folder, "run", "--max-children", str(arguments.at_once), printed=True)
        rows.append(row(module, count_results(mutmut(folder, "results", "--all", "true", printed=False))))
    print(f"{'module':10}{'mutants':>9}{'killed':>9}{'percent':>9}{'timeouts':>10}")
    for line, _ in rows:
        print(line)
    print("In mutants/MODULE, `mutmut results` names those that live, and `mutmut show NAME` says what they change.")
    return 0 if all(passed for _, passed in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
