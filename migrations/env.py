"""Alembic's environment: runs the scripts over the connection it is given, on SQLite and PostgreSQL alike."""

from alembic import context

from pacs.index.tables import metadata


def run() -> None:
    connection = context.config.attributes.get("connection")
    if connection is None:
        raise SystemExit("migrations run at the start of `pacs serve`, which brings the connection and the lock")
    context.configure(
        connection=connection,
        target_metadata=metadata,
        compare_type=True,
        render_as_batch=connection.dialect.name == "sqlite",
        transaction_per_migration=True,
        # Both have it: our SQLite connections begin their transactions themselves.
        transactional_ddl=True,
    )
    with context.begin_transaction():
        context.run_migrations()


run()
