"""Runs migrations on the connection that `store.py` hands over, in its transaction."""

from alembic import context

from tfdpgen.privacy.accounts.tables import METADATA

if hasattr(context, "config"):  # Alembic runs this file; whoever imports it by name gets nothing
    context.configure(connection=context.config.attributes["connection"], target_metadata=METADATA)
    with context.begin_transaction():
        context.run_migrations()
