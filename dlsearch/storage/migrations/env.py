"""Run by Alembic, with the connection and the lock that :mod:`dlsearch.storage.schema` has."""

from alembic import context

from dlsearch.storage.tables import VERSION_TABLE, Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    version_table=VERSION_TABLE,
)
with context.begin_transaction():
    context.run_migrations()
