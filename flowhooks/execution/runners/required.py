"""Check the requirements of the runner that the settings name."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from flowhooks.errors import SettingsError
from flowhooks.ledger import database
from flowhooks.settings import database_url

if TYPE_CHECKING:
    from types import ModuleType

    from flowhooks.settings import Settings


def procrastinate_schema_of(settings: Settings) -> ModuleType:
    """Return the module that manages the tables of the runner `procrastinate`.

    Raises:
        SettingsError: the database is not PostgreSQL, or Procrastinate is not installed.
    """
    if not database.is_shared(database_url(settings)):
        raise SettingsError('runner.kind = "procrastinate" needs PostgreSQL: with SQLite set runner.kind = "embedded"')
    if find_spec("procrastinate") is None:
        raise SettingsError("runner.kind = \"procrastinate\" needs a package: pip install 'flowhooks[postgresql]'")
    from flowhooks.execution.runners import procrastinate_schema  # noqa: PLC0415 (an optional dependency)

    return procrastinate_schema
