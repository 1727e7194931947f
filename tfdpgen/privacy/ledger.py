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
import math
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
from tfdpgen.machine import user_name
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
    most_of_a_user,
    stored_event,
    total_of,
)
from tfdpgen.privacy.accounts.cohorts import Examples, cohorts_of, every_example, note_members
from tfdpgen.privacy.accounts.groups import Groups
from tfdpgen.privacy.accounts.history import Entry, TamperedError
from tfdpgen.privacy.accounts.identity import KEY_BYTES, Identity, set_digest
from tfdpgen.privacy.accounts.register import (
    account_names,
    account_of,
    add_examples,
    compare_examples,
    known_account,
    open_account,
)
from tfdpgen.privacy.accounts.store import LedgerError, Store
from tfdpgen.privacy.accounts.tables import ACCOUNTS, CHARGES, COHORTS, FACTS, RESERVATIONS
from tfdpgen.privacy.budget import PrivacyBudget, PrivacyUnit

_ADVICE = "`tfdpgen ledger status` shows what was spent; `tfdpgen ledger limit` gives an account another total."
_OPENING_ADVICE = "The account would have been opened with this total: --total_epsilon (`total_epsilon`) is another."
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
      runs: how many reservations that one has paid.
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
      note: is added to the purpose of what is reserved, such as which run of whom it is.

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
        note: str = "",
    ) -> None:
        self._store = Store(address, create=create)
        self._account, self._total_epsilon, self._say, self._note = account, total_epsilon, say, note
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
          ValueError: if there is an account of that name, users are not known, or the total's delta is not smaller
            than 1 / number of examples.
        """
        identity, unit = self.identity(whose), PrivacyUnit(unit)
        if not isinstance(whose, str):
            users = identity.users if unit is PrivacyUnit.USER and identity.users is not None else None
            _check_delta(total, len(identity) if users is None else len(np.unique(users)), unit)
        if unit is PrivacyUnit.USER and identity.users is None and not isinstance(whose, str):
            raise ValueError("`unit` cannot be user: the data set does not say whose its examples are.")

        def work(connection: Connection) -> Standing:
            history.check(connection)
            if account_of(connection, name):
                raise ValueError(
                    f"`name` should be new: there is an account {name!r} already, with a total of its own."
                )
            endless = self._endless(connection)
            account = open_account(connection, name, total, unit)
            add_examples(connection, account, identity)
            self._check_known(connection, endless)
            return _standing(connection, account, None)

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
            if account.unit == PrivacyUnit.USER and identity.users is None and not isinstance(whose, str):
                raise _unknown_users(account)
            endless = self._endless(connection)
            add_examples(connection, account, identity)
            self._check_known(connection, endless)
            return _standing(connection, account, identity)

        return self._store.write(work)

    def limit(self, name: str, total: PrivacyBudget, *, reason: str) -> None:
        """Gives an account another total, which is written down with the reason.

        Raises:
          ValueError: if there is no account of that name, or no reason, or if the total's delta is not smaller than
            1 / number of examples.
        """
        _check_reason(reason)

        def work(connection: Connection) -> None:
            history.check(connection)
            account = known_account(connection, name)
            if account.unit == PrivacyUnit.EXAMPLE:  # how many users there are is not known
                _check_delta(total, _num_examples(connection, account), PrivacyUnit.EXAMPLE)
            values = {"epsilon": total.epsilon, "delta": total.delta}
            connection.execute(update(ACCOUNTS).where(ACCOUNTS.c.id == account.id).values(values))
            history.append(connection, "limited", {"account": name, "reason": reason, "by": user_name(), **values})

        self._store.write(work)

    def join(self, names: Sequence[str], *, reason: str) -> None:
        """Says that data sets belong together, as copies of the same images do that digests cannot see.

        From then on, whatever was or is charged to any example of one of them counts for all of them.

        Args:
          names: two accounts or more, of the same unit.
          reason: a note for people.

        Raises:
          ValueError: if there is no account of one of the names, units differ, there is no reason, or what users would
            have paid together is not known.
        """
        _check_reason(reason)

        def work(connection: Connection) -> None:
            history.check(connection)
            accounts = [known_account(connection, name) for name in names]
            if len({account.unit for account in accounts}) > 1:
                raise ValueError("`names` should be accounts of one unit: of examples, or of users.")
            joined = min(account.joined for account in accounts)
            endless = self._endless(connection)
            groups = {account.joined for account in accounts}
            every = connection.execute(select(ACCOUNTS.c.name).where(ACCOUNTS.c.joined.in_(groups))).scalars().all()
            connection.execute(update(ACCOUNTS).where(ACCOUNTS.c.joined.in_(groups)).values(joined=joined))
            body = {"accounts": sorted(every), "joined": joined, "reason": reason, "by": user_name()}
            history.append(connection, "joined", body)
            self._check_known(connection, endless)

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
        identity, run = self.identity(whose), Run(event, PrivacyUnit(unit), delta, purpose + self._note)
        name = self._account or (whose if isinstance(whose, str) else "")
        try:
            reserved, new = self._store.write(lambda connection: self._reserve(connection, identity, run, limit, name))
        except Refusal as refusal:  # what would fit is looked for while nobody has to wait
            raise refusal.error() from None
        if self._say is not None:
            self._tell(identity, run, purpose, new, self._say)
        return reserved

    def rehearse(
        self, whose: Whose, event: dp_accounting.DpEvent, *, delta: float, unit: str = PrivacyUnit.EXAMPLE
    ) -> list[str]:
        """What `reserve` would say of it. Nothing is written, and no account is opened.

        Returns:
          Lines for people: whether an account would be opened, and what each account has come to and would come to.

        Raises:
          BudgetExceededError, LedgerError, ValueError: as `reserve` does.
        """
        identity, run = self.identity(whose), Run(event, PrivacyUnit(unit), delta, "")
        name = self._account or (whose if isinstance(whose, str) else "")

        def work(connection: Connection) -> None:
            before = {account.id for account in Groups(connection).held(Examples.of(connection, identity).distinct())}
            others = [row.name for row in connection.execute(select(ACCOUNTS)) if row.id not in before]
            had = {standing.name: standing for standing in self._standings(connection, identity)}
            new = self._reserve(connection, identity, run, limit=None, name=name)[1]
            copies = _of_copies(identity, run)
            raise _Rehearsed(new, copies, others if not before else [], had, self._standings(connection, identity))

        try:
            self._store.write(work)
        except Refusal as refusal:
            raise refusal.error() from None
        except _Rehearsed as rehearsed:
            return rehearsed.lines(run)
        raise AssertionError

    def _reserve(
        self, connection: Connection, identity: Identity, run: Run, limit: PrivacyBudget | None, name: str
    ) -> tuple[str, _New | None]:
        """The transaction of `reserve`: the reservation's name, and who was new."""
        history.check(connection)
        if not len(identity):
            raise ValueError("`whose` should hold examples: nothing can happen to none.")
        examples, new = Examples.of(connection, identity), None
        is_of_unknown_users = run.unit is PrivacyUnit.EXAMPLE and identity.users is None
        groups = Groups(connection)
        touched = groups.accounts_of(examples.distinct(), PrivacyUnit.USER)
        if is_of_unknown_users and touched:
            account = touched[0]
            if not account.most or groups.outside(examples.cohorts, PrivacyUnit.USER).any():
                raise _unknown_users(account)
        if not examples.cohorts.all():
            new = self._open_for(connection, examples, run, limit, name)
        advice = _OPENING_ADVICE if new is not None and new.is_opened else _ADVICE
        examples.split()
        groups = Groups(connection)
        if run.unit is PrivacyUnit.EXAMPLE:
            run = dataclasses.replace(run, most=most_of_a_user(groups, examples))
        for account in groups.held(examples.distinct()):
            book = book_of(connection, groups, account, examples)
            check(book, total_of(account), run, f"the account {account.name!r}", advice)
        if limit is not None:
            book = book_for(connection, groups, examples, run.unit)
            check(book, limit, run, "these examples", "That is the limit which was given.")
        return _write(connection, examples, run), new

    def confirm(self, reservation: str) -> None:
        """Writes down that what was reserved has run.

        Raises:
          ValueError: if there is no such reservation, or it is void.
        """
        self._set_state(reservation, "confirmed", {})

    def void(self, reservation: str, *, reason: str) -> None:
        """Writes down, on the owner's word, that nothing has run under a reservation: it no longer counts.

        Raises:
          ValueError: if there is no such reservation, it was confirmed, or there is no reason.
        """
        _check_reason(reason)
        self._set_state(reservation, "void", {"reason": reason, "by": user_name()})

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
            return book_for(connection, Groups(connection), examples, PrivacyUnit(unit)).worst(delta)[0]

    def standings(self, whose: Whose | None = None) -> list[Standing]:
        """What accounts have come to.

        Args:
          whose: examples: the accounts that any of them is in, or that are joined with these, and what these examples
            have paid. None: all accounts.
        """
        identity = None if whose is None else self.identity(whose)
        with self._store.reading() as connection:
            return self._standings(connection, identity)

    def _endless(self, connection: Connection) -> set[str]:
        """The accounts of whose users it is not known what they have paid, or that have paid without noise."""
        accounts = connection.execute(select(ACCOUNTS).where(ACCOUNTS.c.unit == str(PrivacyUnit.USER))).all()
        return {account.name for account in accounts if math.isinf(_standing(connection, account, None).spent)}

    def _check_known(self, connection: Connection, before: set[str]) -> None:
        """Refuses what would make it unknown what users have paid.

        Raises:
          ValueError: if there is such an account that was none before.
        """
        if unknown := sorted(self._endless(connection) - before):
            raise ValueError(
                f"What a user in the account {unknown[0]!r} would have paid is not known: a run on these examples, "
                "such as one of gs_wgan, promises something to single images, and what it costs several of one user "
                "together cannot be accounted."
            )

    def _standings(self, connection: Connection, identity: Identity | None) -> list[Standing]:
        """`standings` in a transaction."""
        if identity is None:
            accounts = list(connection.execute(select(ACCOUNTS).order_by(ACCOUNTS.c.id)))
        else:
            accounts = Groups(connection).held(Examples.of(connection, identity).distinct())
        return [_standing(connection, account, identity) for account in accounts]

    def fitting(self, name: str) -> float:
        """About the largest epsilon of a one-shot run that every example, or user, of an account can pay.

        Its promise is to the account's unit, at the account's delta. What other accounts of the same examples, or
        joined ones, can pay is taken into account.

        Raises:
          ValueError: if there is no account of that name.
        """
        with self._store.reading() as connection:
            account = known_account(connection, name)
            run = Run(dp_accounting.GaussianDpEvent(1.0), PrivacyUnit(account.unit), account.delta, "")
            mine, groups = cohorts_of(connection, [account.id]), Groups(connection)
            books = [(book_of(connection, groups, other, None, mine), total_of(other)) for other in groups.held(mine)]
        return min((book.fitting(run, total) for book, total in books), default=account.epsilon)

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

    def _tell(self, identity: Identity, run: Run, purpose: str, new: _New | None, say: Callable[[str], object]) -> None:
        """Says what was reserved, and what accounts have come to."""
        for line in _of_copies(identity, run):
            say(line)
        if new is not None:
            say(new.sentence("was" if new.is_opened else "were"))
        for account in self.standings(identity):
            say(
                f"Ledger: reserved epsilon {run.epsilon:.3g} for {purpose or 'a run'}, which counts as spent from "
                f"now on. {_of_account(account)}; with this run it has come to {account.spent:.3g}."
            )

    def _open_for(
        self, connection: Connection, examples: Examples, run: Run, limit: PrivacyBudget | None, name: str
    ) -> _New:
        """Opens an account for examples that are in none, or finds the one that they belong to."""
        others = Groups(connection).accounts_of(examples.distinct())
        account = account_of(connection, name) if name else None
        if account is None and len(others) == 1:
            account = others[0]
        is_opened, new = account is None, int((examples.cohorts == 0).sum())
        if account is None:
            total = limit or PrivacyBudget(self._total_epsilon, run.delta)
            account = open_account(
                connection, name or f"opened {history.now()} {secrets.token_hex(3)}", total, run.unit
            )
        elif account.unit == PrivacyUnit.USER and run.unit is PrivacyUnit.EXAMPLE and examples.identity.users is None:
            raise _unknown_users(account)
        note_members(connection, account, examples.identity.most_of_a_user(examples.enrol(account)))
        return _New(account.name, total_of(account), account.unit, new, is_opened, self.address)

    def _set_state(self, reservation: str, state: str, body: Mapping[str, Any]) -> None:
        def work(connection: Connection) -> None:
            history.check(connection)
            found = connection.execute(select(RESERVATIONS).where(RESERVATIONS.c.name == reservation)).first()
            if found is None:
                raise ValueError(f"`reservation` {reservation!r} is not in the ledger {self.address}.")
            if found.state == state:
                return
            if found.state != "reserved":
                what = {"confirmed": "has finished", "void": "is void already"}[found.state]
                raise ValueError(f"`reservation` {reservation!r} {what}, and cannot be made {state}.")
            connection.execute(update(RESERVATIONS).where(RESERVATIONS.c.id == found.id).values(state=state))
            history.append(connection, state, {"reservation": reservation, **body})

        self._store.write(work)


@dataclasses.dataclass(frozen=True)
class _New:
    """Examples that a ledger did not know: how many there are, and the account that was opened for them or had them."""

    account: str
    total: PrivacyBudget
    unit: str
    num_examples: int
    is_opened: bool
    address: str

    def sentence(self, verb: str) -> str:
        """For people."""
        if not self.is_opened:
            return f"Ledger: {self.num_examples:,} examples are new, and {verb} added to the account {self.account!r}."
        return (
            f"Ledger: these examples are new to {self.address}. The account {self.account!r} {verb} opened for "
            f"{self.num_examples:,} of them, in which every {self.unit} may cost epsilon {self.total.epsilon:g} at "
            f"delta {self.total.delta:g} in all runs together (--total_epsilon; later `tfdpgen ledger limit`)."
        )


class _Rehearsed(Exception):
    """Ends a transaction that is not to be kept, with what it has shown."""

    def __init__(
        self,
        new: _New | None,
        copies: list[str],
        others: list[str],
        before: dict[str, Standing],
        after: list[Standing],
    ) -> None:
        super().__init__()
        self.new, self.copies, self.others, self.before, self.after = new, copies, others, before, after

    def lines(self, run: Run) -> list[str]:
        """What it has shown, for people."""
        lines = self.copies if self.new is None else [*self.copies, self.new.sentence("would be")]
        if self.new is not None and self.others:
            lines.append(
                f"Ledger: IF THESE ARE IMAGES OF {' or '.join(map(repr, self.others))}, the ledger does not see it: "
                "read them as before (value_range, resize, image_shape), or say so by `tfdpgen ledger join`."
            )
        for account in self.after:
            had = self.before.get(account.name)
            lines.append(
                f"Ledger: this run fits. {_of_account(account)}; it has come to {had.spent if had else 0:.3g} in "
                f"{had.runs if had else 0} run{'s' * (had is None or had.runs != 1)}, and with this one of "
                f"{run.epsilon:.3g} would come to {account.spent:.3g}."
            )
        return lines


def _unknown_users(account: Row[Any]) -> ValueError:
    """That a run cannot be charged to users, since it does not say who they are, nor does the account."""
    return ValueError(
        f"The account {account.name!r} is of users, and these examples, or some that are not in it, do not say whose "
        "they are. Give the column that says so (`user_column`), or leave out what is not in the account."
    )


def _of_copies(identity: Identity, run: Run) -> list[str]:
    """A warning where an image is there more than once: each copy is an example, and is charged as one."""
    if run.unit is not PrivacyUnit.EXAMPLE or (copies := identity.most_copies) < 2:
        return []
    return [
        f"Ledger: AN IMAGE IS THERE {copies} TIMES. The promise is to each copy by itself. If they are of one person, "
        "take the others out, or make the promise to users (docs/ledger.md)."
    ]


def _of_account(account: Standing) -> str:
    """What everybody in an account may cost."""
    return (
        f"In the account {account.name!r} every {account.unit} may cost epsilon {account.total.epsilon:g} at delta "
        f"{account.total.delta:g} in all runs together"
    )


def _write(connection: Connection, examples: Examples, run: Run) -> str:
    """Writes a reservation and its charges; returns its name."""
    name = uuid.uuid4().hex
    facts = {
        "event": stored_event(run.event),
        "unit": str(run.unit),
        "delta": run.delta,
        "purpose": run.purpose,
        "num_examples": len(examples.identity),
        "num_distinct": len(np.unique(examples.identity.digests)),
        "most": run.most,
        "copies": examples.identity.most_copies_of_a_user,
    }
    digest = set_digest(examples.identity.digests)
    values = {"name": name, "reserved_at": history.now(), "state": "reserved", "examples": digest, **facts}
    number = connection.execute(insert(RESERVATIONS).values(values)).inserted_primary_key[0]  # pyright: ignore[reportOptionalSubscript]
    charges = [{"reservation": number, "cohort": cohort} for cohort in examples.distinct()]
    connection.execute(insert(CHARGES), charges)
    accounts = sorted(account.name for account in Groups(connection).accounts_of(examples.distinct()))
    body = {"reservation": name, "accounts": accounts, "examples_digest": digest, **facts}
    history.append(connection, "reserved", body)
    return name


def _key(connection: Connection) -> bytes:
    """The secret of this ledger's digests; empty before there is one."""
    return bytes.fromhex(connection.execute(select(FACTS.c.value).where(FACTS.c.name == "key")).scalar() or "")


def _made_key(connection: Connection) -> bytes:
    """The secret of this ledger's digests, made where another process has not made it meanwhile."""
    if not (key := _key(connection)):
        key = secrets.token_bytes(KEY_BYTES)
        connection.execute(insert(FACTS).values(name="key", value=key.hex()))
        history.append(connection, "made", {"key_digest": history.key_digest(key.hex())})
    return key


def _num_examples(connection: Connection, account: Row[Any]) -> int:
    """How many examples are in an account."""
    sizes = {row.id: row.size for row in connection.execute(select(COHORTS))}
    return sum(sizes[cohort] for cohort in cohorts_of(connection, [account.id]))


def _check_reason(reason: str) -> None:
    """Refuses to write down nothing as the reason of an owner."""
    if not reason.strip():
        raise ValueError("`reason` should say why, for whoever reads the history later; got nothing.")


def _check_delta(total: PrivacyBudget, count: int, unit: PrivacyUnit) -> None:
    """Refuses a total whose delta permits publishing some example outright."""
    if count:
        total.check_num_examples(count, unit)


def _standing(connection: Connection, account: Row[Any], identity: Identity | None) -> Standing:
    """What an account has come to, or the examples in it that are asked about."""
    examples = None if identity is None else Examples.of(connection, identity)
    book, total = book_of(connection, Groups(connection), account, examples), total_of(account)
    spent, past = book.worst(total.delta)
    joined = connection.execute(select(ACCOUNTS.c.name).where(ACCOUNTS.c.joined == account.joined)).scalars()
    return Standing(
        name=account.name,
        total=total,
        unit=PrivacyUnit(account.unit),
        num_examples=_num_examples(connection, account),
        spent=spent,
        runs=past.runs,
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
