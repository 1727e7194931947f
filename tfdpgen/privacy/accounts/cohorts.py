"""Cohorts: sets of examples with one history, and which examples are in them.

    examples = Examples.of(connection, identity)       # the cohort of each; 0 where a ledger does not know it
    examples.enrol(account)                            # those into a new cohort of an account
    examples.split()                                   # cohorts of which something happens to a part, into two
    examples.distinct()

What happens to all of a cohort is one row of `charges`, whatever the number of examples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, Row, insert, select, update

from tfdpgen.privacy.accounts import history
from tfdpgen.privacy.accounts.identity import Identity, set_digest
from tfdpgen.privacy.accounts.tables import (
    ACCOUNTS,
    CHARGES,
    CHUNKS,
    COHORTS,
    EXAMPLES,
    MEMBERSHIPS,
)

_SHIFT = np.uint64(64 - int(math.log2(CHUNKS)))
_IN_A_STATEMENT = 500  # values that a database takes in one list


class Examples:
    """Examples of a run, and the cohort that each is in; 0 where it is in none."""

    def __init__(self, connection: Connection, identity: Identity, cohorts: npt.NDArray[np.int64]) -> None:
        self._connection, self.identity, self.cohorts = connection, identity, cohorts

    @classmethod
    def of(cls, connection: Connection, identity: Identity) -> Examples:
        cohorts = np.zeros(len(identity.digests), np.int64)
        for chunk, part in _chunks(identity.digests):
            digests, known = _read_chunk(connection, chunk)
            places = np.searchsorted(digests, identity.digests[part])
            is_there = places < len(digests)
            is_there[is_there] = digests[places[is_there]] == identity.digests[part][is_there]
            found = np.zeros(len(places), np.int64)
            found[is_there] = known[places[is_there]]
            cohorts[part] = found
        return cls(connection, identity, cohorts)

    def distinct(self) -> list[int]:
        """The cohorts that any of the examples is in."""
        return [int(cohort) for cohort in np.unique(self.cohorts) if cohort]

    def enrol(self, account: Row[Any]) -> npt.NDArray[np.bool_]:
        """Puts examples that are in no cohort into a new one of that account; returns which these are."""
        is_new = self.cohorts == 0
        cohort = _new_cohort(self._connection, len(np.unique(self.identity.digests[is_new])))
        self._connection.execute(insert(MEMBERSHIPS).values(account=account.id, cohort=cohort))
        self._put(is_new, cohort)
        return is_new

    def split(self) -> None:
        """Makes cohorts of their own of examples to which something happens that does not happen to all of theirs."""
        sizes = {row.id: row.size for row in self._connection.execute(select(COHORTS))}
        for cohort in self.distinct():
            of_it = self.cohorts == cohort
            if len(np.unique(self.identity.digests[of_it])) < sizes[cohort]:
                self._move(of_it, cohort)

    def _move(self, group: npt.NDArray[np.bool_], old: int) -> None:
        """Gives a part of a cohort a new one with the same past."""
        size = len(np.unique(self.identity.digests[group]))
        new = _new_cohort(self._connection, size)
        self._connection.execute(update(COHORTS).where(COHORTS.c.id == old).values(size=COHORTS.c.size - size))
        for table in (MEMBERSHIPS, CHARGES):
            kept = [dict(row._mapping) for row in self._connection.execute(select(table).where(table.c.cohort == old))]
            if kept:
                self._connection.execute(insert(table), [{**row, "cohort": new} for row in kept])
        self._put(group, new)

    def _put(self, group: npt.NDArray[np.bool_], cohort: int) -> None:
        """Writes down the cohort of examples."""
        self.cohorts[group] = cohort
        put = np.unique(self.identity.digests[group])
        for chunk, part in _chunks(put):
            digests, cohorts = _read_chunk(self._connection, chunk)
            merged = np.union1d(digests, put[part])
            numbers = np.zeros(len(merged), np.uint32)
            numbers[np.searchsorted(merged, digests)] = cohorts
            numbers[np.searchsorted(merged, put[part])] = cohort
            _write_chunk(self._connection, chunk, merged, numbers)
        twice = np.isin(self.identity.digests, put)  # an image of two users
        self.cohorts[twice] = cohort


def cohorts_of(connection: Connection, accounts: Sequence[int]) -> list[int]:
    """The cohorts in any of these accounts."""
    asked = select(MEMBERSHIPS.c.cohort).where(MEMBERSHIPS.c.account.in_(accounts)).distinct()
    return sorted(connection.execute(asked).scalars())


def every_example(connection: Connection) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
    """Digests and cohorts of all examples."""
    parts = [_read_chunk(connection, chunk) for chunk in connection.execute(select(EXAMPLES.c.chunk)).scalars()]
    if not parts:
        return np.zeros(0, np.uint64), np.zeros(0, np.int64)
    digests, cohorts = zip(*parts, strict=True)
    return np.concatenate(digests), np.concatenate(cohorts).astype(np.int64)


def note_members(connection: Connection, account: Row[Any], more: int) -> None:
    """Writes down which examples an account has, and that up to so many more of them are of one user."""
    most = connection.execute(select(ACCOUNTS.c.most).where(ACCOUNTS.c.id == account.id)).scalar_one() + more
    connection.execute(update(ACCOUNTS).where(ACCOUNTS.c.id == account.id).values(most=most))
    cohorts = np.array(cohorts_of(connection, [account.id]), np.int64)
    digests, numbers = every_example(connection)
    members = digests[np.isin(numbers, cohorts)]
    body = {"account": account.name, "num_examples": len(members), "examples_digest": set_digest(members), "most": most}
    history.append(connection, "added", body)


def slices(values: Sequence[int]) -> list[list[int]]:
    """Lists short enough for one statement."""
    listed = list(values)
    return [listed[start : start + _IN_A_STATEMENT] for start in range(0, len(listed), _IN_A_STATEMENT)]


def _new_cohort(connection: Connection, size: int) -> int:
    return connection.execute(insert(COHORTS).values(size=size)).inserted_primary_key[0]  # pyright: ignore[reportOptionalSubscript]


def _chunks(digests: npt.NDArray[np.uint64]) -> list[tuple[int, slice]]:
    """The chunks that sorted digests are in, and where."""
    if not len(digests):
        return []
    numbers = (digests >> _SHIFT).astype(np.int64)
    starts = np.flatnonzero(np.diff(numbers, prepend=-1))
    ends = [*starts[1:], len(numbers)]
    return [(int(numbers[start]), slice(int(start), int(end))) for start, end in zip(starts, ends, strict=True)]


def _read_chunk(connection: Connection, chunk: int) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint32]]:
    """Digests, sorted, and cohorts."""
    row = connection.execute(select(EXAMPLES).where(EXAMPLES.c.chunk == chunk)).first()
    if row is None:
        return np.zeros(0, np.uint64), np.zeros(0, np.uint32)
    return _array(row.digests, ">u8").astype(np.uint64), _array(row.cohorts, ">u4").astype(np.uint32)


def _write_chunk(
    connection: Connection, chunk: int, digests: npt.NDArray[np.uint64], cohorts: npt.NDArray[np.uint32]
) -> None:
    values = {"digests": digests.astype(">u8").tobytes(), "cohorts": cohorts.astype(">u4").tobytes()}
    changed = connection.execute(update(EXAMPLES).where(EXAMPLES.c.chunk == chunk).values(values))
    if not changed.rowcount:
        connection.execute(insert(EXAMPLES).values(chunk=chunk, **values))


def _array(stored: Any, kind: str) -> npt.NDArray[Any]:
    return np.frombuffer(bytes(stored), kind)
