"""Run by Alembic, with the connection and the lock that :mod:`dlsearch.search.schema` has."""

from alembic import context

from dlsearch.search.tables import VERSION_TABLE, Base

context.configure(
    connection=context.config.attributes["connection"], target_metadata=Base.metadata, version_table=VERSION_TABLE
)
with context.begin_transaction():
    context.run_migrations()
