"""Alembic's entry point: run the migrations on the connection that it is given."""

from __future__ import annotations

from alembic import context

from flowhooks.failpoints import hit
from flowhooks.ledger.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
    transactional_ddl=True,
    on_version_apply=lambda **_applied: hit("migrate.applied"),
)
context.run_migrations()
