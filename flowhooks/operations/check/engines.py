"""Check the engines that flowhooks asks: their clients, and what the engines say about themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flowhooks.background.reconciliation.clients import create_client, is_unloaded
from flowhooks.errors import EngineError, SettingsError
from flowhooks.operations.check.finding import note, ok, problem
from flowhooks.text import printable_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from flowhooks.operations.check.finding import CheckFinding
    from flowhooks.plugins.plugins import Plugins
    from flowhooks.settings import EngineSettings, Settings

_TO_DO = {
    "unreachable": "check that the engine runs and that this machine reaches its url",
    "refused": "check the username, password or token of its section, and the rights of that user",
    "invalid": "check the url: it is the base URL of the engine's REST API",
}


def findings(settings: Settings, plugins: Plugins, environ: Mapping[str, str]) -> Iterator[CheckFinding]:
    """Yield the findings about each engine; none if no source has one."""
    for name, source in sorted(settings.sources.items()):
        if source.engine is not None:
            if settings.safe_mode:
                yield note("engines", f"safe mode: the engine of {name} is not asked", "each of its rounds fails")
            else:
                yield _finding(name, source.engine, plugins, environ)


def _finding(name: str, engine: EngineSettings, plugins: Plugins, environ: Mapping[str, str]) -> CheckFinding:
    try:
        client = create_client(name, engine, plugins, environ)
    except SettingsError as error:
        if is_unloaded(engine.client, plugins, safe_mode=False):
            return problem("engines", str(error), "a server starts with it, but cannot reconcile the source")
        return problem("engines", str(error), "a server does not start with it")
    try:
        info = client.check()
    except EngineError as error:
        return problem("engines", f"the engine of {name} cannot be asked: {error.why}", "", _TO_DO[error.reason])
    finally:
        client.close()
    product = printable_line(f"{info.product} {info.version}".strip())
    if info.problem:
        return problem(
            "engines",
            f"the engine of {name} is {product}: {printable_line(info.problem)}",
            "until then its history is not reconciled",
        )
    return ok("engines", f"the engine of {name} is {product}, at {engine.url}")
