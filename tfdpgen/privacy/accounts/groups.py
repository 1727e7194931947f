"""Groups: cohorts that are charged together, since their owner says so or nobody can tell who is who in them.

    groups = Groups(connection)
    groups.together(cohort, "example")         # all cohorts whose charges have happened to examples of this one
    groups.reached(cohorts, "example")         # all cohorts to whose examples what is charged to these happens
    groups.held(cohorts)                       # accounts whose totals have to hold after a run on these

Accounts that an owner has joined hold other copies of the same images. Which image is a copy of which is not known: so
whatever is charged to any example of one has happened to every example of all of them, and, where one of these is in a
further joined account, to everybody there. In an account of users a user may have any of the images: what is charged to
one has happened to every user in it, and in other accounts of users that share an image with it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, Row, select

from tfdpgen.privacy.accounts.tables import ACCOUNTS, MEMBERSHIPS
from tfdpgen.privacy.budget import PrivacyUnit


class Groups:
    """The groups as they are when this is made.

    Args:
      connection: to the ledger.
    """

    def __init__(self, connection: Connection) -> None:
        self._accounts: list[Row[Any]] = list(connection.execute(select(ACCOUNTS).order_by(ACCOUNTS.c.id)))
        self._members: dict[int, set[int]] = {account.id: set() for account in self._accounts}
        for account, cohort in connection.execute(select(MEMBERSHIPS.c.account, MEMBERSHIPS.c.cohort)):
            self._members[account].add(cohort)
        self._together = {unit: self._components(unit) for unit in PrivacyUnit}

    def together(self, cohort: int, unit: str) -> frozenset[int]:
        """The cohorts, with this one, whose charges have happened to an example of it, or to its user."""
        return self._together[PrivacyUnit(unit)].get(cohort, frozenset([cohort]))

    def reached(self, cohorts: Iterable[int], unit: str) -> frozenset[int]:
        """All cohorts that are together with any of these."""
        return frozenset(other for cohort in cohorts for other in self.together(cohort, unit))

    def accounts_of(self, cohorts: Iterable[int], unit: PrivacyUnit | None = None) -> list[Row[Any]]:
        """The accounts, of a unit or of any, that have some of these cohorts."""
        asked = set(cohorts)
        return [
            account
            for account in self._accounts
            if self._members[account.id] & asked and (unit is None or account.unit == unit)
        ]

    def outside(self, cohorts: npt.NDArray[np.int64], unit: PrivacyUnit) -> npt.NDArray[np.bool_]:
        """Which of these cohorts no account of a unit has."""
        inside = {cohort for account in self._accounts if account.unit == unit for cohort in self._members[account.id]}
        return ~np.isin(cohorts, np.array(sorted(inside), np.int64))

    def held(self, cohorts: Iterable[int]) -> list[Row[Any]]:
        """The accounts of whom something happens to where a run holds these cohorts."""
        asked = list(cohorts)
        found = {
            account.id: account for unit in PrivacyUnit for account in self.accounts_of(self.reached(asked, unit), unit)
        }
        return [found[number] for number in sorted(found)]

    def _components(self, unit: PrivacyUnit) -> dict[int, frozenset[int]]:
        """Each cohort of a group -> all cohorts that it is together with."""
        groups: dict[int, set[int]] = {}
        sizes: dict[int, int] = {}
        for account in self._accounts:
            groups.setdefault(account.joined, set()).update(self._members[account.id])
            sizes[account.joined] = sizes.get(account.joined, 0) + 1
        by_user = {a.joined for a in self._accounts if a.unit == PrivacyUnit.USER and unit is PrivacyUnit.USER}
        merged: list[set[int]] = []
        for joined, cohorts in groups.items():
            if sizes[joined] == 1 and joined not in by_user:
                continue
            one, others = set(cohorts), []
            for other in merged:
                if other & one:
                    one |= other
                else:
                    others.append(other)
            merged = [*others, one]
        return {cohort: whole for group in merged for whole in [frozenset(group)] for cohort in whole}
