"""The register of accounts: who has opened which, with what total, and which cohorts are in it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, Row, insert, select, update

from tfdpgen.privacy.accounts import history
from tfdpgen.privacy.accounts.cohorts import Examples, cohorts_of, note_members
from tfdpgen.privacy.accounts.history import Entry, TamperedError
from tfdpgen.privacy.accounts.identity import Identity, set_digest
from tfdpgen.privacy.accounts.tables import ACCOUNTS, CHARGES, COHORTS, LONGEST_NAME, MEMBERSHIPS, RESERVATIONS
from tfdpgen.privacy.budget import PrivacyBudget, PrivacyUnit


def account_of(connection: Connection, name: str) -> Row[Any] | None:
    """The account of that name, if there is one."""
    return connection.execute(select(ACCOUNTS).where(ACCOUNTS.c.name == name)).first()


def known_account(connection: Connection, name: str) -> Row[Any]:
    """The account of that name.

    Raises:
      ValueError: if there is none.
    """
    account = account_of(connection, name)
    if account is None:
        names = connection.execute(select(ACCOUNTS.c.name).order_by(ACCOUNTS.c.id)).scalars().all()
        near = [other for other in names if other.endswith(f"/{name}")] or difflib.get_close_matches(name, names, 1)
        raise ValueError(
            f"There is no account {name!r}; there are {', '.join(map(repr, names)) or 'none'}."
            + (f" Did you mean {near[0]!r}?" if len(near) == 1 else "")
        )
    return account


def account_names(connection: Connection) -> dict[int, list[str]]:
    """The accounts that each reservation was charged to."""
    asked = (
        select(CHARGES.c.reservation, ACCOUNTS.c.name)
        .join(MEMBERSHIPS, MEMBERSHIPS.c.cohort == CHARGES.c.cohort)
        .join(ACCOUNTS, ACCOUNTS.c.id == MEMBERSHIPS.c.account)
        .distinct()
        .order_by(ACCOUNTS.c.name)
    )
    names: dict[int, list[str]] = {}
    for reservation, name in connection.execute(asked):
        names.setdefault(reservation, []).append(name)
    return names


def open_account(connection: Connection, name: str, total: PrivacyBudget, unit: PrivacyUnit) -> Row[Any]:
    """A new account without examples."""
    if not name or len(name) > LONGEST_NAME or not name.isprintable():
        raise ValueError(f"`name` should be up to {LONGEST_NAME} printable characters; got {name!r}.")
    values = {"name": name, "epsilon": total.epsilon, "delta": total.delta, "unit": str(unit)}
    made = connection.execute(insert(ACCOUNTS).values(**values, most=0, joined=0, opened_at=history.now()))
    number = made.inserted_primary_key[0]  # pyright: ignore[reportOptionalSubscript]
    connection.execute(update(ACCOUNTS).where(ACCOUNTS.c.id == number).values(joined=number))
    body = {"account": name, "joined": number, "epsilon": total.epsilon, "delta": total.delta, "unit": str(unit)}
    history.append(connection, "opened", body)
    return known_account(connection, name)


def add_examples(connection: Connection, account: Row[Any], identity: Identity) -> None:
    """Puts examples into an account, whatever others they are in."""
    examples = Examples.of(connection, identity)
    added = np.zeros(len(examples.cohorts), bool)
    if not examples.cohorts.all():
        added = examples.enrol(account)
    examples.split()
    mine = set(cohorts_of(connection, [account.id]))
    if more := [cohort for cohort in examples.distinct() if cohort not in mine]:
        connection.execute(insert(MEMBERSHIPS), [{"account": account.id, "cohort": cohort} for cohort in more])
        added |= np.isin(examples.cohorts, more)
    if added.any():
        note_members(connection, account, identity.most_of_a_user(added))


def compare_examples(
    connection: Connection,
    told: Sequence[Entry],
    every: tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]],
) -> None:
    """Compares who is in which account, and what was charged to whom, with the history.

    Raises:
      TamperedError: if they differ.
    """
    digests, numbers = every

    def found(cohorts: Iterable[int]) -> str:
        return set_digest(digests[np.isin(numbers, np.array(sorted(cohorts), np.int64))])

    members = {body["account"]: body["examples_digest"] for _, _, kind, body, _ in told if kind == "added"}
    for name, expected in members.items():
        if found(cohorts_of(connection, [known_account(connection, name).id])) != expected:
            raise TamperedError(f"the examples of the account {name!r} are not those that its history says.")
    for row in connection.execute(select(RESERVATIONS.c.id, RESERVATIONS.c.name, RESERVATIONS.c.examples)).all():
        charged = connection.execute(select(CHARGES.c.cohort).where(CHARGES.c.reservation == row.id)).scalars()
        if found(charged) != row.examples:
            raise TamperedError(
                f"the examples that paid for the reservation {row.name} are not those that its history says."
            )
    sizes = {row.id: row.size for row in connection.execute(select(COHORTS))}
    counted = dict(zip(*(part.tolist() for part in np.unique(numbers, return_counts=True)), strict=True))
    if {number: size for number, size in sizes.items() if size} != counted:
        raise TamperedError("examples of the ledger were taken out or put in.")
