"""A temporary PostgreSQL schema that holds the ledger of one app under test."""

from __future__ import annotations

import uuid
from typing import Final

from sqlalchemy import make_url

from flowhooks.errors import SettingsError
from flowhooks.ledger import database as dialects
from flowhooks.ledger.upgrade import upgrade

_PREFIX: Final = "flowhooks_test_"


class TemporarySchema:
    """A new schema with the ledger's tables. Names that are not in it are looked up in the schema `public`.

    Args:
        database: the URL of a PostgreSQL database in which the user may create schemas.

    Attributes:
        url: the URL of the database, with the new schema as search path.

    Raises:
        SettingsError: the URL does not name a PostgreSQL database.
        LedgerUnusable: the database cannot be used.
    """

    def __init__(self, database: str) -> None:
        if not dialects.is_readable(database) or not dialects.is_shared(database):
            raise SettingsError(
                "database= must be a PostgreSQL URL such as postgresql://USER@HOST/NAME; SQLite needs no URL"
            )
        self._database = database
        self._name = f"{_PREFIX}{uuid.uuid4().hex}"
        self._run(f"CREATE SCHEMA {self._name}")
        self.url = self._url_with_path(f"{self._name},public")
        try:
            upgrade(self._url_with_path(self._name))  # without `public`, which may contain another ledger
        except BaseException:
            self.drop()
            raise

    def drop(self) -> None:
        """Drop the schema with everything in it."""
        self._run(f"DROP SCHEMA IF EXISTS {self._name} CASCADE")

    def _url_with_path(self, path: str) -> str:
        url = make_url(self._database).update_query_dict({"options": f"-csearch_path={path}"})
        return url.render_as_string(hide_password=False)

    def _run(self, statement: str) -> None:
        engine = dialects.open_engine(self._database, writing=True)
        try:
            with engine.begin() as connection:
                connection.exec_driver_sql(statement)
        finally:
            engine.dispose()
