"""The ledger: what has been reserved on a data set, across runs and processes.

A run reserves its whole cost before it touches an example, and nothing gives a reservation back: a crash or a retry can
waste budget, never exceed it.

    ledger = Ledger("privacy.sqlite")
    ledger.reserve(dataset_id(train), plan.event, delta=1e-5)                              # before the first step
    ledger.reserve(dataset_id(train), plan.event, delta=1e-5, limit=PrivacyBudget(8, 1e-5))     # or it is refused
    ledger.spent(dataset_id(train), delta=1e-5)        # epsilon of everything reserved so far, composed

The file names data sets by digests of their examples and belongs inside the trust boundary.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import os
import pathlib
import sqlite3
import uuid
from collections.abc import Iterator
from typing import NamedTuple

import dp_accounting
import numpy as np

from tfdpgen.data.dataset import Dataset
from tfdpgen.privacy import accounting
from tfdpgen.privacy.budget import PrivacyBudget

_SCHEMA = """
CREATE TABLE IF NOT EXISTS reservations (
    id INTEGER PRIMARY KEY,
    dataset TEXT NOT NULL,
    event TEXT NOT NULL,
    delta REAL NOT NULL,
    purpose TEXT NOT NULL,
    reserved_at TEXT NOT NULL,
    reservation TEXT NOT NULL UNIQUE
)
"""


class BudgetExceededError(RuntimeError):
    """A reservation would take a data set past its limit; nothing was reserved and nothing may run."""


def dataset_id(dataset: Dataset) -> str:
    """A digest of the examples in their order, the same in memory and on disk.

    Names of classes, value range and users are none of it: the same images under other names are the same examples.
    It is computed from private examples and stays inside the trust boundary. Examples on disk are read once, block by
    block; their labels are kept until all images are digested, in a byte an example where there are at most 256
    classes.
    """
    digest = hashlib.sha256(json.dumps(list(dataset.spec.image_shape)).encode())
    labels, kind = [], np.min_scalar_type(dataset.spec.num_classes - 1)
    for images, some_labels in dataset.blocks():
        digest.update(images.tobytes())
        labels.append(some_labels.astype(kind))
    for some_labels in labels:
        digest.update(some_labels.astype(np.int64).tobytes())
    return digest.hexdigest()


class Reservation(NamedTuple):
    """One entry of a ledger.

    Attributes:
      dataset: from `dataset_id`.
      event: what was reserved.
      delta: at which the run stated its epsilon.
      purpose: a note for people.
      reserved_at: when, in ISO 8601, UTC.
    """

    dataset: str
    event: dp_accounting.DpEvent
    delta: float
    purpose: str
    reserved_at: str


def read_ledger(path: str | os.PathLike[str]) -> list[Reservation]:
    """Everything that was reserved in a ledger file, in the order in which it was; the file is only read.

    Raises:
      ValueError: if the file is missing or is no ledger.
    """
    address = f"{pathlib.Path(path).absolute().as_uri()}?mode=ro"
    try:
        with contextlib.closing(sqlite3.connect(address, uri=True, timeout=60)) as connection:
            rows = connection.execute(
                "SELECT dataset, event, delta, purpose, reserved_at FROM reservations ORDER BY id"
            ).fetchall()
    except sqlite3.Error as error:
        raise ValueError(f"{path} should be a ledger of what has been spent; reading it failed: {error}.") from None
    return [
        Reservation(dataset, accounting.event_from_dict(json.loads(event)), delta, purpose, reserved_at)
        for dataset, event, delta, purpose, reserved_at in rows
    ]


class Ledger:
    """An SQLite file of reservations; safe for concurrent processes on one machine.

    Args:
      path: the file, made if there is none, with its folder.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = pathlib.Path(path)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._transaction() as connection:
            connection.execute(_SCHEMA)

    def reserve(
        self,
        dataset: str,
        event: dp_accounting.DpEvent,
        *,
        delta: float,
        purpose: str = "",
        limit: PrivacyBudget | None = None,
    ) -> str:
        """Writes down, durably, that `event` is about to happen to `dataset`.

        Args:
          dataset: from `dataset_id`.
          event: everything that will run.
          delta: at which the run states its epsilon.
          purpose: a note for people.
          limit: the most that all reservations on the data set may cost together.

        Returns:
          A name of the reservation, which no other has, for `has`.

        Raises:
          BudgetExceededError: if they would cost more than `limit`; nothing is written then.
        """
        with self._transaction() as connection:
            if limit is not None:
                total = accounting.epsilon_of(
                    dp_accounting.ComposedDpEvent([*self._events(connection, dataset), event]), limit.delta
                )
                if total > limit.epsilon:
                    raise BudgetExceededError(
                        f"With this run the data set would have cost epsilon={total:.4g} at delta={limit.delta:g}; "
                        f"its limit is {limit.epsilon:g}. Nothing was run. Ask for less epsilon, or raise the limit "
                        "knowingly."
                    )
            now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
            reservation = uuid.uuid4().hex
            connection.execute(
                "INSERT INTO reservations (dataset, event, delta, purpose, reserved_at, reservation) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                (dataset, _stored(event), delta, purpose, now, reservation),
            )
        return reservation

    def has(self, reservation: str | None, dataset: str, event: dp_accounting.DpEvent) -> bool:
        """Whether this ledger holds that reservation, of this event on this data set."""
        with self._transaction() as connection:
            found = connection.execute(
                "SELECT COUNT(*) FROM reservations WHERE reservation = ? AND dataset = ? AND event = ?",
                (reservation, dataset, _stored(event)),
            )
            return bool(found.fetchone()[0])

    def reservations(self, dataset: str) -> int:
        """How many runs have reserved budget on the data set."""
        with self._transaction() as connection:
            return len(self._events(connection, dataset))

    def spent(self, dataset: str, delta: float) -> float:
        """The epsilon at `delta` of everything reserved on the data set, finished or not; 0 where nothing was."""
        with self._transaction() as connection:
            events = self._events(connection, dataset)
        return accounting.epsilon_of(dp_accounting.ComposedDpEvent(events), delta) if events else 0.0

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """A connection that holds the write lock; commits on success, durably, and rolls back on an error."""
        connection = sqlite3.connect(self._path, timeout=60, isolation_level=None)
        try:
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        finally:
            connection.close()

    @staticmethod
    def _events(connection: sqlite3.Connection, dataset: str) -> list[dp_accounting.DpEvent]:
        """The events reserved on a data set."""
        rows = connection.execute("SELECT event FROM reservations WHERE dataset = ? ORDER BY id", (dataset,))
        return [accounting.event_from_dict(json.loads(event)) for (event,) in rows]


def _stored(event: dp_accounting.DpEvent) -> str:
    """An event as the ledger writes it."""
    return json.dumps(accounting.event_to_dict(event))
