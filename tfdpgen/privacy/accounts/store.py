"""Where a ledger is: an SQLite file, or a database of PostgreSQL; one transaction at a time writes.

    store = Store("/data/ledger.sqlite")                       # or postgresql://host/database
    with store.writing() as connection:                        # others wait; all of it is kept, durably, or none
        ...

On SQLite a writer holds the file's write lock from its first statement (BEGIN IMMEDIATE). On PostgreSQL it is a
serialisable transaction that locks the tables first, so that others wait for it instead of failing. A file is made for
its owner alone.
"""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy
from sqlalchemy import Connection, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, OperationalError, SQLAlchemyError
from sqlalchemy.pool import NullPool

_WAIT = 90.0  # seconds for a writer that another one keeps waiting
_TRIES = 20  # of a transaction that PostgreSQL could not serialise; the lock leaves next to none
_NOT_SERIALISED = {"40001", "40P01"}  # PostgreSQL's codes of serialisation failures and deadlocks
_LOCK = 7_376_110_402_118_934  # of migrations, whose tables are not there to be locked


class LedgerError(RuntimeError):
    """A ledger cannot be used: the message says which, why, and what to do. Nothing was reserved."""


class Store:
    """The database of a ledger.

    Args:
      address: a path, or a database address such as postgresql://host/database.
      create: whether to make what is missing; otherwise that is an error.

    Raises:
      LedgerError: if it cannot be opened, is no ledger, or was written by a later version.
      ValueError: for an address that is none, or that holds a password.
    """

    def __init__(self, address: str | os.PathLike[str], *, create: bool = True) -> None:
        self.name, self._url, self._path = _parsed(address)
        if self._path is not None:
            self._make_file(self._path, create)
        try:
            self._engine = sqlalchemy.create_engine(
                self._url, poolclass=NullPool, hide_parameters=True, **_options(self._url)
            )
        except (ArgumentError, ImportError, NoSuchModuleError) as error:
            raise ValueError(f"`ledger` {self.name}: {_reason(error)}. {_INSTALL}") from None
        if self._path is not None:
            event.listen(self._engine, "connect", _connected)
            event.listen(self._engine, "begin", _begun)
        self._migrate(create)

    @contextlib.contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that is alone in writing; it waits for others.

        Raises:
          LedgerError: if others keep it waiting for too long, or the database fails. Nothing was written then.
        """
        with self._said(), self._engine.connect().execution_options(is_writing=True) as connection:
            if self._path is None:
                connection = connection.execution_options(isolation_level="SERIALIZABLE")
            with connection.begin():
                if self._path is None:
                    connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_WAIT:.0f}s'")
                    connection.exec_driver_sql("LOCK TABLE facts IN EXCLUSIVE MODE")  # before the snapshot is taken
                yield connection

    def write(self, work: Any) -> Any:
        """`work(connection)` in a transaction of its own, again where PostgreSQL could not serialise it.

        Raises:
          LedgerError: as of `writing`.
        """
        for left in reversed(range(_TRIES)):
            try:
                with self.writing() as connection:
                    return work(connection)
            except LedgerError as error:
                if left == 0 or not _is_not_serialised(error.__cause__):
                    raise
                time.sleep(random.uniform(0, 0.1 * (_TRIES - left)))
        raise AssertionError

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that sees one state of the ledger, and changes nothing.

        Raises:
          LedgerError: if the database fails.
        """
        with self._said(), self._engine.connect() as connection:
            if self._path is None:
                connection = connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            with connection.begin():
                yield connection

    @staticmethod
    def _make_file(path: Path, create: bool) -> None:
        """Makes an empty file that its owner alone may read, or finds that there is one."""
        if path.is_dir():
            raise LedgerError(f"`ledger` {path} should be a file, or a database address; it is a folder.")
        if path.exists():
            if path.stat().st_mode & 0o077:  # others must not read the key, whoever made the file
                with contextlib.suppress(PermissionError):  # of a file of somebody else, who decides
                    path.chmod(0o600)
            return
        if not create:
            raise LedgerError(
                f"There is no ledger {str(path)!r}: nothing was spent in it yet. `tfdpgen ledger open`, or a first "
                "run, makes it."
            )
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with contextlib.suppress(FileExistsError):  # another process was quicker
                os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        except OSError as error:
            raise LedgerError(
                f"The ledger {path} cannot be made: {error.strerror}. Name another by `ledger`."
            ) from None

    def _migrate(self, create: bool) -> None:
        """Brings the tables to this version's form.

        Raises:
          LedgerError: if they are of a later version, or what is there is no ledger.
        """
        from tfdpgen.privacy.accounts import migrations

        with self._said(), self._engine.connect() as connection:
            with connection.begin():
                found = migrations.version(connection)
            if found == migrations.HEAD:
                return
            if found is None and not create:
                raise LedgerError(f"{self.name} is no ledger: it has none of its tables.")
        with self._said(), self._engine.connect().execution_options(is_writing=True) as connection, connection.begin():
            if self._path is None:
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
            migrations.upgrade(connection, self.name)

    @contextlib.contextmanager
    def _said(self) -> Iterator[None]:
        """Has the database's errors speak to the user."""
        try:
            yield
        except SQLAlchemyError as error:
            reason = _reason(error)
            if "database is locked" in reason or "lock timeout" in reason:
                raise LedgerError(
                    f"The ledger {self.name} has been in use by another process for {_WAIT:.0f} seconds. Nothing was "
                    "reserved; try again when that one is done."
                ) from error
            if "not a database" in reason or "malformed" in reason:
                raise LedgerError(
                    f"{self.name} is no ledger, or a damaged one: {reason}. What it says cannot be trusted, and "
                    "nothing is reserved in it. Restore it from a backup, or name another by `ledger`."
                ) from error
            raise LedgerError(f"The ledger {self.name} cannot be used: {reason}. Nothing was reserved.") from error


_INSTALL = "PostgreSQL needs pip install 'tfdpgen[postgres]'"


def _parsed(address: str | os.PathLike[str]) -> tuple[str, URL, Path | None]:
    """What to call a ledger, its address for SQLAlchemy, and its file if it is one.

    Raises:
      ValueError: for another database, or an address with a password.
    """
    text = os.fspath(address)
    if "://" not in text:
        path = Path(os.path.realpath(Path(text).expanduser()))  # a link is followed once, here
        return str(path), URL.create("sqlite+pysqlite", database=str(path)), path
    try:
        url = make_url(text)
    except ArgumentError:
        raise ValueError("`ledger` should be a path or an address as in postgresql://host/database.") from None
    if url.password is not None or "password" in url.query:
        raise ValueError(
            "`ledger` should hold no password, since settings are written beside results. PostgreSQL's clients take it "
            "from ~/.pgpass, PGPASSWORD or a service file."
        )
    if url.get_backend_name() == "sqlite" and url.database:
        return _parsed(url.database)
    if url.get_backend_name() not in ("postgresql", "postgres"):
        raise ValueError(
            f"`ledger` should be a path (SQLite) or an address as in postgresql://host/database; got a database of "
            f"{url.get_backend_name()}."
        )
    return text, url.set(drivername="postgresql+psycopg"), None


def _options(url: URL) -> dict[str, Any]:
    """What to tell the driver: how long to wait."""
    if url.get_backend_name() == "sqlite":
        return {"connect_args": {"timeout": _WAIT}}
    return {"connect_args": {"connect_timeout": 30}}


def _connected(connection: sqlite3.Connection, _: Any) -> None:
    """Leaves transactions of an SQLite file to SQLAlchemy, and has each be on the disk when it ends."""
    connection.isolation_level = None
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")


def _begun(connection: Connection) -> None:
    """Takes an SQLite file's lock at once where a transaction will write."""
    is_writing = connection.get_execution_options().get("is_writing", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if is_writing else "BEGIN")


def _reason(error: BaseException) -> str:
    """An error of a database on one line, without its statement and values, which may be private."""
    original = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    return " ".join(str(original).split()).rstrip(".") or type(error).__name__


def _is_not_serialised(error: BaseException | None) -> bool:
    """Whether a transaction failed since others ran beside it."""
    return isinstance(error, (DBAPIError, OperationalError)) and getattr(error.orig, "sqlstate", "") in _NOT_SERIALISED
