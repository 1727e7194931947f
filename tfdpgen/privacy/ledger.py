"""The ledger: what has been reserved on each example, across runs, processes and machines.

    ledger = Ledger("ledger.sqlite")                             # or "postgresql://host/database"
    ledger.open(dataset, PrivacyBudget(8, 1e-5), name="hands")   # by the owner, once
    name = ledger.reserve(train, plan.event, delta=1e-5)         # before the first access; or BudgetExceededError
    ledger.confirm(name)                                         # it has run
    ledger.spent(train)                                          # epsilon of the example that has paid most

**Whose account.** Accounts follow examples, by keyed digests of single images (`accounts/identity.py`): into another
file, another order, a part of the data, other labels. A reservation is charged to every example that the run holds. A
data set that was opened has a total budget, and every example in it is held to that: a run is refused if what would
have happened to **the example that has paid most** would cost more. Everything is composed by privacy loss
distributions, never by adding epsilons. What an account does not see is written there too.

**When.** One transaction, alone in writing, finds the examples, composes, refuses or writes down. What is reserved
counts as spent, finished or not: a crash or a retry can waste budget, never exceed it. Only the owner can say of a
reservation that nothing ran under it (`void`).

**Users.** An account is of single examples, or of users (`unit`). What a run for users costs an example is what
replacing its user by another costs (`ReplaceOneDpEvent`), since one image more changes what its user sends into
something else. What a run for examples costs a user of m examples is what m of them cost together (`group_event`). A
ledger does not know who is who: in an account of users every run counts for everybody.

The database holds a secret key and digests of private examples, and belongs inside the trust boundary.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import secrets
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import dp_accounting
import numpy as np
from sqlalchemy import Connection, Row, insert, select, update

from tfdpgen.choices import check_budget
from tfdpgen.data.dataset import Dataset
from tfdpgen.privacy.accounts import history
from tfdpgen.privacy.accounts.book import (
    BudgetExceededError,
    Refusal,
    Run,
    book_for,
    book_of,
    charged_to,
    check,
    event_of,
    stored_event,
    total_of,
    what_fits,
)
from tfdpgen.privacy.accounts.cohorts import Examples, cohorts_of, every_example
from tfdpgen.privacy.accounts.history import Entry, TamperedError
from tfdpgen.privacy.accounts.identity import KEY_BYTES, Identity, set_digest
from tfdpgen.privacy.accounts.register import (
    account_names,
    account_of,
    accounts_of,
    add_examples,
    compare_examples,
    known_account,
    open_account,
)
from tfdpgen.privacy.accounts.store import LedgerError, Store
from tfdpgen.privacy.accounts.tables import ACCOUNTS, CHARGES, COHORTS, FACTS, RESERVATIONS
from tfdpgen.privacy.budget import PrivacyBudget, PrivacyUnit

_ADVICE = "`tfdpgen ledger status` shows what was spent; `tfdpgen ledger limit` gives an account another total."
TOTAL_EPSILON = 10.0  # of examples that a first run opens without having been told another total

Whose = Dataset | Identity | str


def dataset_id(dataset: Dataset) -> str:
    """A digest of the examples in their order, the same in memory and on disk, by which a backup knows its training.

    Names of classes, value range and users are none of it. It is computed from private examples and stays inside the
    trust boundary. Examples on disk are read once, block by block; their labels are kept until all images are digested,
    in a byte an example where there are at most 256 classes.
    """
    digest = hashlib.sha256(json.dumps(list(dataset.spec.image_shape)).encode())
    labels, kind = [], np.min_scalar_type(dataset.spec.num_classes - 1)
    for images, some_labels in dataset.blocks():
        digest.update(images.tobytes())
        labels.append(some_labels.astype(kind))
    for some_labels in labels:
        digest.update(some_labels.astype(np.int64).tobytes())
    return digest.hexdigest()


@dataclasses.dataclass(frozen=True)
class Reservation:
    """What was reserved for one run.

    Attributes:
      name: which no other has.
      event: what was to happen.
      unit: whose presence the event is of.
      delta: at which the run stated its epsilon.
      purpose: a note for people.
      reserved_at: when, in ISO 8601, UTC.
      state: "reserved", "confirmed" (it has run) or "void" (the owner says that it has not); all but void count.
      num_examples: that it was charged to.
      accounts: names of accounts that these are in.
    """

    name: str
    event: dp_accounting.DpEvent
    unit: PrivacyUnit
    delta: float
    purpose: str
    reserved_at: str
    state: str
    num_examples: int
    accounts: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Standing:
    """What an account has come to.

    Attributes:
      name: of the account.
      total: what every example, or user, may cost at most.
      unit: whose.
      num_examples: that are in it.
      spent: epsilon, at the total's delta, of the example or user that has paid most; of the data set that was asked
        about, or of the whole account.
      runs: how many reservations they have paid.
      joined: names of accounts that are charged together with it.
    """

    name: str
    total: PrivacyBudget
    unit: PrivacyUnit
    num_examples: int
    spent: float
    runs: int
    joined: tuple[str, ...]


class Ledger:
    """Accounts of private examples in an SQLite file or a PostgreSQL database; safe for any number of processes.

    Args:
      address: a path, or an address as in postgresql://host/database, without a password.
      create: whether to make a ledger where there is none; otherwise that is an error.
      account: what an account is called that a run opens.
      total_epsilon: what every example in it may cost in total then, at the run's delta.
      say: prints a line for people where an account is opened, or something is reserved; None: nothing is said.

    Raises:
      LedgerError: if it cannot be opened, is no ledger, or is of another version.
      ValueError: for an address that is none, or a total that is not greater than 0.
    """

    def __init__(
        self,
        address: str | os.PathLike[str],
        *,
        create: bool = True,
        account: str = "",
        total_epsilon: float = TOTAL_EPSILON,
        say: Callable[[str], object] | None = None,
    ) -> None:
        self._store = Store(address, create=create)
        self._account, self._total_epsilon, self._say = account, total_epsilon, say
        check_budget(total_epsilon, 0.5)
        with self._store.reading() as connection:
            key = _key(connection)
        self._key = key or self._store.write(_made_key)

    @property
    def address(self) -> str:
        """Where it is."""
        return self._store.name

    def identity(self, whose: Whose) -> Identity:
        """Who examples are to this ledger: computed once, where a data set is asked about several times."""
        if isinstance(whose, Identity):
            return whose
        return Identity.named(whose, self._key) if isinstance(whose, str) else Identity.of(whose, self._key)

    def open(self, whose: Whose, total: PrivacyBudget, *, name: str, unit: str = PrivacyUnit.EXAMPLE) -> Standing:
        """Opens an account: says what examples may cost in total.

        Examples may be in several accounts, and are then held to each of them.

        Args:
          whose: the examples.
          total: what every one of them may cost at most.
          name: of the account, which no other has.
          unit: "example", or "user": what every user may cost.

        Raises:
          ValueError: if there is an account of that name, or users are not known.
        """
        identity, unit = self.identity(whose), PrivacyUnit(unit)
        if unit is PrivacyUnit.USER and identity.users is None and not isinstance(whose, str):
            raise ValueError("`unit` cannot be user: the data set does not say whose its examples are.")

        def work(connection: Connection) -> Standing:
            history.check(connection)
            if account_of(connection, name):
                raise ValueError(
                    f"`name` should be new: there is an account {name!r} already, with a total of its own."
                )
            account = open_account(connection, name, total, unit)
            add_examples(connection, account, identity)
            return _standing(connection, account, identity)

        return self._store.write(work)

    def add(self, name: str, whose: Whose) -> Standing:
        """Adds examples to an account.

        Raises:
          ValueError: if there is no account of that name.
        """
        identity = self.identity(whose)

        def work(connection: Connection) -> Standing:
            history.check(connection)
            account = known_account(connection, name)
            add_examples(connection, account, identity)
            return _standing(connection, account, identity)

        return self._store.write(work)

    def limit(self, name: str, total: PrivacyBudget, *, reason: str) -> None:
        """Gives an account another total, which is written down with the reason.

        Raises:
          ValueError: if there is no account of that name.
        """

        def work(connection: Connection) -> None:
            history.check(connection)
            account = known_account(connection, name)
            values = {"epsilon": total.epsilon, "delta": total.delta}
            connection.execute(update(ACCOUNTS).where(ACCOUNTS.c.id == account.id).values(values))
            history.append(connection, "limited", {"account": name, "reason": reason, **values})

        self._store.write(work)

    def join(self, names: Sequence[str], *, reason: str) -> None:
        """Says that data sets belong together, as copies of the same images do that digests cannot see.

        From then on, whatever was or is charged to any example of one of them counts for all of them.

        Args:
          names: two accounts or more, of the same unit.
          reason: a note for people.

        Raises:
          ValueError: if there is no account of one of the names, or units differ.
        """

        def work(connection: Connection) -> None:
            history.check(connection)
            accounts = [known_account(connection, name) for name in names]
            if len({account.unit for account in accounts}) > 1:
                raise ValueError("`names` should be accounts of one unit: of examples, or of users.")
            joined = min(account.joined for account in accounts)
            groups = {account.joined for account in accounts}
            every = connection.execute(select(ACCOUNTS.c.name).where(ACCOUNTS.c.joined.in_(groups))).scalars().all()
            connection.execute(update(ACCOUNTS).where(ACCOUNTS.c.joined.in_(groups)).values(joined=joined))
            history.append(connection, "joined", {"accounts": sorted(every), "joined": joined, "reason": reason})

        if len(set(names)) < 2:
            raise ValueError(f"`names` should be two accounts or more; got {list(names)}.")
        self._store.write(work)

    def reserve(
        self,
        whose: Whose,
        event: dp_accounting.DpEvent,
        *,
        delta: float,
        purpose: str = "",
        unit: str = PrivacyUnit.EXAMPLE,
        limit: PrivacyBudget | None = None,
    ) -> str:
        """Writes down, durably, that `event` is about to happen to examples.

        Examples that no account has are opened on the way: they join the account that all others of them are in, or
        that is called as this ledger's `account`, or else get one of their own.

        Args:
          whose: everything that is about to be read.
          event: everything that will run.
          delta: at which the run states its epsilon.
          purpose: a note for people.
          unit: whose presence the event is of: "example" or "user".
          limit: the most that all reservations on any of these examples may cost, besides what accounts say; the total
            of an account that is opened on the way, in place of `total_epsilon`.

        Returns:
          A name of the reservation, which no other has.

        Raises:
          BudgetExceededError: if somebody would have paid more than their total, or than `limit`; nothing is written.
          ValueError: if an account is of users, and whose the examples are is not known, or what would happen to a user
            cannot be accounted; nothing is written.
        """
        identity, run = self.identity(whose), Run(event, PrivacyUnit(unit), delta, purpose)
        name = self._account or (whose if isinstance(whose, str) else "")

        def work(connection: Connection) -> tuple[str, str]:
            history.check(connection)
            examples, said, advice = Examples.of(connection, identity), "", _ADVICE
            if not examples.cohorts.all():
                said, advice = self._open_for(connection, examples, run, limit, name)
            examples.split(accounts_of(connection, examples.distinct()))
            for account in accounts_of(connection, examples.distinct()):
                if account.unit == PrivacyUnit.USER and run.unit is PrivacyUnit.EXAMPLE and identity.users is None:
                    raise ValueError(
                        f"The account {account.name!r} is of users, and these examples do not say whose they are. Give "
                        "the column that says so (`user_column`), or open an account of examples for them."
                    )
                book = book_of(connection, account, examples)
                check(book, total_of(account), run, f"the account {account.name!r}", advice)
            if limit is not None:
                book = book_for(connection, examples, examples.distinct(), run.unit)
                check(book, limit, run, "these examples", "That is the limit which was given.")
            return _write(connection, examples, run), said

        try:
            reserved, said = self._store.write(work)
        except Refusal as refusal:  # what would fit is looked for while nobody has to wait
            raise refusal.error() from None
        if self._say is not None:
            self._tell(identity, run, said, self._say)
        return reserved

    def confirm(self, reservation: str) -> None:
        """Writes down that what was reserved has run.

        Raises:
          ValueError: if there is no such reservation, or it is void.
        """
        self._set_state(reservation, "confirmed", {})

    def void(self, reservation: str, *, reason: str) -> None:
        """Writes down, on the owner's word, that nothing has run under a reservation: it no longer counts.

        Raises:
          ValueError: if there is no such reservation, or it was confirmed.
        """
        self._set_state(reservation, "void", {"reason": reason})

    def has(self, reservation: str | None, whose: Whose, event: dp_accounting.DpEvent) -> bool:
        """Whether this ledger holds that reservation, of this event on these examples, and it is not void."""
        examples = set_digest(self.identity(whose).digests)
        with self._store.reading() as connection:
            found = connection.execute(select(RESERVATIONS).where(RESERVATIONS.c.name == reservation)).first()
        return (
            found is not None
            and found.state != "void"
            and found.event == stored_event(event)
            and found.examples == examples
        )

    def spent(self, whose: Whose, delta: float, unit: str = PrivacyUnit.EXAMPLE) -> float:
        """The epsilon at `delta` of everything reserved on the one example, or user, that has paid most."""
        identity = self.identity(whose)
        with self._store.reading() as connection:
            examples = Examples.of(connection, identity)
            book = book_for(connection, examples, examples.distinct(), PrivacyUnit(unit))
            return book.epsilon(delta)

    def standings(self, whose: Whose | None = None) -> list[Standing]:
        """What accounts have come to.

        Args:
          whose: examples: the accounts that any of them is in, and what these examples have paid. None: all accounts.
        """
        identity = None if whose is None else self.identity(whose)
        with self._store.reading() as connection:
            if identity is None:
                accounts = list(connection.execute(select(ACCOUNTS).order_by(ACCOUNTS.c.id)))
            else:
                accounts = accounts_of(connection, Examples.of(connection, identity).distinct())
            return [_standing(connection, account, identity) for account in accounts]

    def fitting(self, name: str) -> float:
        """The largest epsilon, at the total's delta, of a one-shot run that every example of an account can pay.

        Raises:
          ValueError: if there is no account of that name.
        """
        with self._store.reading() as connection:
            account = known_account(connection, name)
            book = book_of(connection, account, None)
            unit, total = PrivacyUnit(account.unit), total_of(account)
            run = Run(dp_accounting.GaussianDpEvent(1.0), unit, account.delta, "")
            return min((what_fits(past, run, total, unit) for past in book.worst()), default=account.epsilon)

    def reservations(self, whose: Whose | None = None) -> list[Reservation]:
        """Everything that was reserved, on any of these examples or at all, in the order in which it was."""
        identity = None if whose is None else self.identity(whose)
        with self._store.reading() as connection:
            rows = list(connection.execute(select(RESERVATIONS).order_by(RESERVATIONS.c.id)))
            if identity is not None:
                charged = charged_to(connection, Examples.of(connection, identity).distinct())
                rows = [row for row in rows if row.id in charged]
            names = account_names(connection)
            return [
                Reservation(
                    row.name,
                    event_of(row.event),
                    PrivacyUnit(row.unit),
                    row.delta,
                    row.purpose,
                    row.reserved_at,
                    row.state,
                    row.num_examples,
                    tuple(names.get(row.id, ())),
                )
                for row in rows
            ]

    def history(self) -> list[Entry]:
        """Everything that happened, oldest first.

        Raises:
          TamperedError: if the ledger was changed by something else.
        """
        with self._store.reading() as connection:
            return history.check(connection)

    def verify(self) -> str:
        """Compares all tables with the history, and examples with what was charged to them.

        Returns:
          The head: a digest of everything that happened, which an owner may note elsewhere.

        Raises:
          TamperedError: if the ledger was changed by something else.
        """
        with self._store.reading() as connection:
            told = history.check(connection)
            in_cohort = every_example(connection)
            compare_examples(connection, told, in_cohort)
            return history.head(connection)

    def _tell(self, identity: Identity, run: Run, said: str, say: Callable[[str], object]) -> None:
        """Says what was reserved, and what accounts have come to."""
        if said:
            say(said)
        for account in self.standings(identity):
            say(
                f"Ledger: reserved epsilon {run.epsilon:.4g} for {run.purpose or 'a run'}. Of the account "
                f"{account.name!r} every {account.unit} may cost {account.total.epsilon:g} at delta "
                f"{account.total.delta:g} in total; with this run it has come to {account.spent:.4g}."
            )

    def _open_for(
        self, connection: Connection, examples: Examples, run: Run, limit: PrivacyBudget | None, name: str
    ) -> tuple[str, str]:
        """Opens an account for examples that are in none, or finds the one that they belong to.

        Returns:
          What is said of it, and what would help a run that is refused.
        """
        others = accounts_of(connection, examples.distinct())
        account = account_of(connection, name) if name else None
        if account is None and len(others) == 1:
            account = others[0]
        is_opened, new = account is None, int((examples.cohorts == 0).sum())
        if account is None:
            total = limit or PrivacyBudget(self._total_epsilon, run.delta)
            account = open_account(
                connection, name or f"opened {history.now()} {secrets.token_hex(3)}", total, run.unit
            )
        examples.enrol(account)
        if not is_opened:
            return f"Ledger: {new:,} examples are new, and were added to the account {account.name!r}.", _ADVICE
        said = (
            f"Ledger: these examples are new to {self.address}. The account {account.name!r} was opened for {new:,} of "
            f"them, in which every {account.unit} may cost epsilon {account.epsilon:g} at delta {account.delta:g} in "
            "total. `tfdpgen ledger limit` gives it another total."
        )
        return said, "The account would have been opened with this total: --total_epsilon (`total_epsilon`) is another."

    def _set_state(self, reservation: str, state: str, body: Mapping[str, Any]) -> None:
        def work(connection: Connection) -> None:
            history.check(connection)
            found = connection.execute(select(RESERVATIONS).where(RESERVATIONS.c.name == reservation)).first()
            if found is None:
                raise ValueError(f"`reservation` {reservation!r} is not in the ledger {self.address}.")
            if found.state == state:
                return
            if found.state != "reserved":
                raise ValueError(f"`reservation` {reservation!r} is {found.state}, and cannot be made {state}.")
            connection.execute(update(RESERVATIONS).where(RESERVATIONS.c.id == found.id).values(state=state))
            history.append(connection, state, {"reservation": reservation, **body})

        self._store.write(work)


def _write(connection: Connection, examples: Examples, run: Run) -> str:
    """Writes a reservation and its charges; returns its name."""
    name = uuid.uuid4().hex
    facts = {
        "event": stored_event(run.event),
        "unit": str(run.unit),
        "delta": run.delta,
        "purpose": run.purpose,
        "num_examples": len(examples.identity),
        "examples": set_digest(examples.identity.digests),
    }
    values = {"name": name, "reserved_at": history.now(), "state": "reserved", **facts}
    number = connection.execute(insert(RESERVATIONS).values(values)).inserted_primary_key[0]  # pyright: ignore[reportOptionalSubscript]
    charges = [
        {"reservation": number, "cohort": cohort, "multiplicity": multiplicity}
        for cohort, multiplicity in examples.multiplicities().items()
    ]
    connection.execute(insert(CHARGES), charges)
    accounts = sorted(account.name for account in accounts_of(connection, examples.distinct()))
    history.append(connection, "reserved", {"reservation": name, "accounts": accounts, **facts})
    return name


def _key(connection: Connection) -> bytes:
    """The secret of this ledger's digests; empty before there is one."""
    return bytes.fromhex(connection.execute(select(FACTS.c.value).where(FACTS.c.name == "key")).scalar() or "")


def _made_key(connection: Connection) -> bytes:
    """The secret of this ledger's digests, made where another process has not made it meanwhile."""
    if not (key := _key(connection)):
        key = secrets.token_bytes(KEY_BYTES)
        connection.execute(insert(FACTS).values(name="key", value=key.hex()))
        history.append(connection, "made", {"key": history.key_digest(key.hex())})
    return key


def _standing(connection: Connection, account: Row[Any], identity: Identity | None) -> Standing:
    """What an account has come to, or the examples in it that are asked about."""
    examples = None if identity is None else Examples.of(connection, identity)
    book = book_of(connection, account, examples)
    total = total_of(account)
    mine = cohorts_of(connection, [account.id])
    sizes = {row.id: row.size for row in connection.execute(select(COHORTS))}
    joined = connection.execute(select(ACCOUNTS.c.name).where(ACCOUNTS.c.joined == account.joined)).scalars()
    return Standing(
        name=account.name,
        total=total,
        unit=PrivacyUnit(account.unit),
        num_examples=sum(sizes[cohort] for cohort in mine),
        spent=book.epsilon(total.delta),
        runs=len(book.reservations),
        joined=tuple(sorted(name for name in joined if name != account.name)),
    )


__all__ = [
    "TOTAL_EPSILON",
    "BudgetExceededError",
    "Ledger",
    "LedgerError",
    "Reservation",
    "Standing",
    "TamperedError",
    "dataset_id",
]
