"""The forms that a ledger's tables have had, and how one becomes the next (Alembic).

A ledger is only ever taken forward, when it is opened by a version that knows a later form. A form is made by
`alembic revision` or by hand, in `versions/`; `HEAD` is the last one.
"""

from __future__ import annotations

import logging
from pathlib import Path

import sqlalchemy
from sqlalchemy import Connection

HEAD = "0001"
_EARLIER = "reservations"  # a table of ledgers that were written before their tables had versions


def version(connection: Connection) -> str | None:
    """The form of the tables that are there; None where there are none of a ledger's."""
    tables = sqlalchemy.inspect(connection).get_table_names()
    if "alembic_version" not in tables:
        return "0000" if _EARLIER in tables else None
    return connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()


def upgrade(connection: Connection, name: str) -> None:
    """Makes or brings forward the tables, in the connection's transaction.

    Args:
      connection: alone in writing.
      name: of the ledger, for errors.

    Raises:
      LedgerError: if the tables are of a version that is not known here, or something else's.
    """
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    from tfdpgen.privacy.accounts.store import LedgerError

    found = version(connection)
    if found == "0000":
        raise LedgerError(
            f"{name} is a ledger of an earlier form, which knew data sets by the order of their examples. It cannot be "
            "carried over, since it does not say which examples they were. Keep it, and name another by `ledger`; "
            "open its data sets there with what they have left."
        )
    if found is None and sqlalchemy.inspect(connection).get_table_names():
        raise LedgerError(f"{name} is a database of something else; name another by `ledger`.")
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if found is not None and found not in known:
        raise LedgerError(
            f"{name} was written by a later version of tfdpgen (form {found}; this one knows {HEAD}). Use that one."
        )
    before = logging.getLogger("alembic").level
    logging.getLogger("alembic").setLevel(logging.ERROR)
    try:
        command.upgrade(config, "head")
    finally:
        logging.getLogger("alembic").setLevel(before)
