"""Alembic's entry: migrates over the connection that ``Database.migrate`` hands in."""

from __future__ import annotations

from alembic import context

from ridgeline_service.store.tables import metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, transactional_ddl=False)
context.run_migrations()
