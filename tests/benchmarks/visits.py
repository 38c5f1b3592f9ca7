"""Count the functions of the package that a callback visits until it is answered with the outcome of its handler.

`python tests/benchmarks/visits.py --output docs/explanation/performance.md` writes its table into that page. Functions
that not every callback visits, such as those of background work, are left out.
"""

from __future__ import annotations

import ast
import inspect
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

import click
from profiling import HTTP, LOOP, replace_parts

sys.path.append(str(Path(__file__).parents[1]))  # where `support` is

from flowhooks import composition, handler, hookimpl
from flowhooks.app import App
from flowhooks.settings import Settings
from support.callback_trace import CallbackTrace, Visit, callback_server

CALLBACKS: Final = 20
WARM_UP: Final = 5
QUIET: Final = 0.05
"""Seconds after each response in which all threads finish their work for the callback."""
THREADS: Final = {"io": LOOP, "listen-N": HTTP, "ledger-writer": "the writer", "runner-N": "the runner's threads"}
DISPATCHER: Final = "execution/dispatcher.py"


class _Plugin:
    @hookimpl
    def handlers(self) -> list[Any]:
        return [handler(process_key="leave", name="nothing")(lambda _event: None)]


def visits(callbacks: int = CALLBACKS) -> list[Counter[Visit]]:
    """The calls of each callback."""
    counted = []
    with tempfile.TemporaryDirectory(prefix="flowhooks-bench-") as folder:
        settings = Settings(database=str(Path(folder) / "flowhooks.db"), plugins_allow=("bench",))
        with CallbackTrace() as trace:
            app = App(settings, objects={"bench": _Plugin()}, entry_points=())
            app.start()
            with callback_server(app) as send:
                for number in range(WARM_UP + callbacks):
                    trace.visits.clear()
                    if send(f"i{number}") != 200:
                        raise SystemExit("a callback was not answered with the outcome")
                    time.sleep(QUIET)
                    counted.append(Counter(visit for visit in trace.visits if visit.event == "call"))
            app.close(1)
    return counted[WARM_UP:]


def callables() -> int:
    """Count the callables that the composition root passes to the components of the path."""
    functions = {"open_base", "build_path"}
    module = ast.parse(inspect.getsource(composition))
    calls = [
        call
        for function in module.body
        if isinstance(function, ast.FunctionDef) and function.name in functions
        for call in ast.walk(function)
        if isinstance(call, ast.Call)
    ]
    total = 0
    for call in calls:
        built = getattr(composition, ast.unparse(call.func), None)
        if inspect.isclass(built) and built.__module__.startswith("flowhooks."):
            parameters = inspect.signature(built).parameters
            passed = {keyword.arg for keyword in call.keywords} | set(list(parameters)[: len(call.args)])
            total += sum("Callable[" in str(parameters[name].annotation) for name in passed if name in parameters)
    return total


def table(counted: list[Counter[Visit]]) -> list[str]:
    """A table of the functions that every callback visits, by thread, and the figures of the whole."""
    steady = set.intersection(*(set(callback) for callback in counted))
    functions = {
        (visit.thread, visit.file, visit.function)
        for visit in steady
        if visit.thread in THREADS and not visit.function.endswith(("comp>", "genexpr>"))
    }
    lines = ["| thread | functions | files |", "|---|---|---|"]
    for thread, name in THREADS.items():
        own = [(file, function) for where, file, function in functions if where == thread]
        lines.append(f"| {name} | {len(own)} | {len({file for file, _ in own})} |")
    whole = {(file, function) for _, file, function in functions}
    lines.append(f"| all, each function once | {len(whole)} | {len({file for file, _ in whole})} |")
    entered = min(
        sum(times for visit, times in callback.items() if visit.file == DISPATCHER != visit.caller)
        for callback in counted
    )
    times = "once" if entered == 1 else f"{entered} times"
    callables_text = f"{callables()} callables to the components of the path"
    return [*lines, "", f"The dispatcher is entered {times}. The composition root gives {callables_text}."]


@click.command()
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Write the table into this page, too.")
@click.option("--details", is_flag=True, help="Print each function.")
def main(output: Path | None, *, details: bool) -> None:
    """Print how many functions a callback visits."""
    counted = visits()
    if details:
        steady = set.intersection(*(set(callback) for callback in counted))
        for visit in sorted(steady, key=lambda visit: (visit.thread, visit.file, visit.function)):
            click.echo(f"{visit.thread:15} {visit.file:45} {visit.function}")
    lines = table(counted)
    click.echo("\n".join(lines))
    if output:
        output.write_text(replace_parts(output.read_text(), {"visits": lines}))


if __name__ == "__main__":
    main()
