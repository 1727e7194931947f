"""What has happened to examples and users, what it costs them, and whether they can pay more.

    book = book_of(connection, account, examples)
    for past in book.worst():                          # of whoever has paid most
        past.epsilon(delta)                            # composed by privacy loss distributions
    check(book, total, run, "the account 'hands'")     # BudgetExceededError

Composition is slow where pasts are many, and is done while others wait. So a past is kept as what it is composed of:
one Gaussian mechanism for all Gaussian ones, which compose exactly (Dong, Roth & Su 2022, corollary 3.3), and how often
everything else occurs. A past that has no more of anything than another costs no more, and is not looked at.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import dp_accounting
import numpy as np
from sqlalchemy import Connection, Row, and_, select

from tfdpgen.privacy import accounting
from tfdpgen.privacy.accounting.events import gaussian_parts, is_gaussian
from tfdpgen.privacy.accounts.cohorts import Examples, cohorts_of, slices
from tfdpgen.privacy.accounts.tables import ACCOUNTS, CHARGES, RESERVATIONS
from tfdpgen.privacy.budget import PrivacyBudget, PrivacyUnit


class BudgetExceededError(RuntimeError):
    """A reservation would take an example past its total; nothing was reserved and nothing may run."""


@dataclasses.dataclass(frozen=True)
class Run:
    """What is asked for."""

    event: dp_accounting.DpEvent
    unit: PrivacyUnit
    delta: float
    purpose: str

    @property
    def epsilon(self) -> float:
        """Of it alone, at its delta."""
        return accounting.epsilon_of(self.event, self.delta)


@dataclasses.dataclass(frozen=True)
class Past:
    """Everything that happened to somebody.

    Attributes:
      precision: sum of 1 / noise multiplier^2 of all Gaussian mechanisms: they compose to one of its inverse root.
      others: how often each other event occurs, by its JSON.
      runs: how many reservations that was.
      multiplicity: how many examples they have in a run that is asked for.
      first: the event of the first of them, by its JSON: alone, it costs to the last digit what its run has stated.
    """

    precision: float = 0.0
    others: Mapping[str, int] = dataclasses.field(default_factory=dict)
    runs: int = 0
    multiplicity: int = 1
    first: str = ""

    def plus(self, event: dp_accounting.DpEvent) -> Past:
        """With one event more."""
        precision, others = self.precision, Counter(self.others)
        more: dict[str, Any] = {"runs": self.runs + 1, "first": self.first or stored_event(event)}
        if not is_gaussian(event):
            others[stored_event(event)] += 1
            return dataclasses.replace(self, others=others, **more)
        for part, count in gaussian_parts(event).items():
            one: dp_accounting.DpEvent = dp_accounting.GaussianDpEvent(part.noise_multiplier)
            if part.sampling_probability < 1:
                one = dp_accounting.PoissonSampledDpEvent(part.sampling_probability, one)
            if part.is_replaced:
                one = accounting.ReplaceOneDpEvent(one)
            if part.sampling_probability < 1 or part.is_replaced:
                others[stored_event(one)] += count
            elif part.noise_multiplier:
                precision += count / part.noise_multiplier**2
            else:
                precision = math.inf
        return dataclasses.replace(self, precision=precision, others=others, **more)

    def is_within(self, other: Past) -> bool:
        """Whether the other has at least as much of everything, and costs no less."""
        return (
            self.precision <= other.precision
            and self.multiplicity <= other.multiplicity
            and all(count <= other.others.get(event, 0) for event, count in self.others.items())
        )

    def epsilon(self, delta: float) -> float:
        """What it costs at `delta`."""
        if self.runs == 1:
            return accounting.epsilon_of(event_of(self.first), delta)
        if math.isinf(self.precision):
            return math.inf
        events: list[dp_accounting.DpEvent] = [
            dp_accounting.SelfComposedDpEvent(event_of(text), count) for text, count in sorted(self.others.items())
        ]
        if self.precision:
            events.append(dp_accounting.GaussianDpEvent(self.precision**-0.5))
        return accounting.epsilon_of(dp_accounting.ComposedDpEvent(events), delta) if events else 0.0


def cost_to(account_unit: str, unit: str, event: dp_accounting.DpEvent, multiplicity: int) -> dp_accounting.DpEvent:
    """What an event, of the presence of one `unit`, is to somebody of the account's unit."""
    if unit == account_unit:
        return event
    if unit == PrivacyUnit.USER:
        return accounting.ReplaceOneDpEvent(event)
    return accounting.group_event(event, multiplicity)


class Book:
    """What was charged to cohorts.

    Args:
      connection: to the ledger.
      cohorts: of examples.
      unit: of what the pasts are.
      users: sets of cohorts that one user has examples in, and how many examples in a run; None: an example is in one.
    """

    def __init__(
        self,
        connection: Connection,
        cohorts: Iterable[int],
        unit: PrivacyUnit,
        users: Iterable[tuple[frozenset[int], int]] | None = None,
    ) -> None:
        self.unit, self._users = unit, users
        self._paid: dict[int, dict[int, int]] = {cohort: {} for cohort in cohorts}
        for some in slices(list(self._paid)):
            asked = (
                select(CHARGES.c.cohort, CHARGES.c.reservation, CHARGES.c.multiplicity)
                .join(RESERVATIONS, RESERVATIONS.c.id == CHARGES.c.reservation)
                .where(and_(CHARGES.c.cohort.in_(some), RESERVATIONS.c.state != "void"))
            )
            for cohort, reservation, multiplicity in connection.execute(asked):
                self._paid[cohort][reservation] = multiplicity
        self.reservations = {number for paid in self._paid.values() for number in paid}
        self._rows: dict[int, Row[Any]] = {}
        for some in slices(sorted(self.reservations)):
            for row in connection.execute(select(RESERVATIONS).where(RESERVATIONS.c.id.in_(some))):
                self._rows[row.id] = row

    def worst(self) -> list[Past]:
        """What happened to whoever has paid most: all pasts but those that are within another."""
        whole = self._users if self._users is not None else [(frozenset([cohort]), 1) for cohort in self._paid]
        pasts = {(self._together(cohorts), many) for cohorts, many in whole}
        kept: list[Past] = []
        for past in sorted((self._past(charges, many) for charges, many in pasts), key=_size, reverse=True):
            if not any(past.is_within(other) for other in kept):
                kept.append(past)
        return kept

    def epsilon(self, delta: float) -> float:
        """What has been spent by whoever has spent most."""
        return max((past.epsilon(delta) for past in self.worst()), default=0.0)

    def _together(self, cohorts: Iterable[int]) -> frozenset[tuple[int, int]]:
        """Reservations of examples in any of these cohorts, with how many examples of theirs paid."""
        together: dict[int, int] = {}
        for cohort in cohorts:
            for reservation, multiplicity in self._paid[cohort].items():
                together[reservation] = max(multiplicity, together.get(reservation, 0))
        return frozenset(together.items())

    def _past(self, charges: Iterable[tuple[int, int]], multiplicity: int) -> Past:
        """What these reservations come to."""
        past = Past(multiplicity=multiplicity)
        for number, times in sorted(charges):
            row = self._rows[number]
            past = past.plus(cost_to(self.unit, row.unit, event_of(row.event), times))
        return past


def _size(past: Past) -> tuple[float, int, int]:
    """Pasts that another is within come before it in descending order."""
    return (past.precision, sum(past.others.values()), past.multiplicity)


def book_of(connection: Connection, account: Row[Any], examples: Examples | None) -> Book:
    """What happened to those of an account that a run holds, or to all of them.

    A ledger knows examples and no users: in an account of users, and where accounts are joined, anybody may have
    examples in all that was ever charged there, whatever this run holds of them.
    """
    unit, mine = PrivacyUnit(account.unit), cohorts_of(connection, [account.id])
    joined = connection.execute(select(ACCOUNTS.c.id).where(ACCOUNTS.c.joined == account.joined)).scalars().all()
    if len(joined) > 1 or unit is PrivacyUnit.USER:
        every = cohorts_of(connection, joined)
        most = 1 if examples is None else max(examples.multiplicities().values(), default=1)
        return Book(connection, every, unit, [(frozenset(every), most)])
    if examples is None:
        return Book(connection, mine, unit)
    known = set(mine)
    return book_for(connection, examples, [cohort for cohort in examples.distinct() if cohort in known], unit)


def book_for(connection: Connection, examples: Examples, held: Sequence[int], unit: PrivacyUnit) -> Book:
    """What happened to those of a run who are in some cohorts."""
    if unit is PrivacyUnit.EXAMPLE or examples.identity.users is None:
        return Book(connection, held, unit)
    pairs = np.unique(np.stack([examples.identity.users, examples.cohorts], 1), axis=0)
    pairs = pairs[np.isin(pairs[:, 1], held)]
    starts = np.flatnonzero(np.diff(pairs[:, 0], prepend=-1))
    most = examples.multiplicities()
    every = {frozenset(part[:, 1].tolist()) for part in np.split(pairs, starts[1:])} if len(pairs) else set()
    return Book(connection, held, unit, [(cohorts, max(most[cohort] for cohort in cohorts)) for cohorts in every])


class Refusal(Exception):
    """A run does not fit; `error` says why, and takes its time to find what would."""

    def __init__(self, past: Past, unit: PrivacyUnit, total: PrivacyBudget, run: Run, who: str, advice: str) -> None:
        super().__init__(who)
        self.past, self.unit, self.total, self.run, self.who, self.advice = past, unit, total, run, who, advice

    def error(self) -> BudgetExceededError:
        """What was asked, what was spent, and which epsilon would fit."""
        run, total, unit, runs = self.run, self.total, self.unit, self.past.runs
        together = _after(self.past, run, unit).epsilon(total.delta)
        fits = what_fits(self.past, run, total, unit)
        return BudgetExceededError(
            f"This run asks for epsilon={run.epsilon:.4g} at delta={run.delta:g} of {self.who}, in which every {unit} "
            f"may cost {total.epsilon:g} at delta={total.delta:g} in total. Of these, the {unit} that has paid most "
            f"has paid {self.past.epsilon(total.delta):.4g}, in {runs} run{'s' * (runs != 1)}, and would come to "
            f"{together:.4g}. Nothing was reserved and nothing was run. "
            + (f"A run of epsilon={fits:.3g} would fit. " if fits else "No run that is of use would fit. ")
            + self.advice
        )


def check(book: Book, total: PrivacyBudget, run: Run, who: str, advice: str) -> None:
    """Refuses a run after which somebody in a book would have paid more than a total.

    Raises:
      Refusal: for the first who would.
    """
    for past in book.worst():
        if _after(past, run, book.unit).epsilon(total.delta) > total.epsilon:
            raise Refusal(past, book.unit, total, run, who, advice)


def what_fits(past: Past, run: Run, total: PrivacyBudget, unit: PrivacyUnit) -> float:
    """About the largest epsilon at the run's delta that somebody can still pay; 0 where that is below a hundredth.

    It is that of one Gaussian mechanism, rounded down; other mechanisms of the same epsilon compose to much the same.
    """

    def fits(epsilon: float) -> bool:
        noise = dp_accounting.get_sigma_gaussian(epsilon, run.delta)
        one = dataclasses.replace(run, event=dp_accounting.GaussianDpEvent(noise))
        return _after(past, one, unit).epsilon(total.delta) <= total.epsilon

    low, high = 0.01, total.epsilon
    if not fits(low):
        return 0.0
    while high / low > 1.01:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if fits(middle) else (low, middle)
    digits = 2 - math.floor(math.log10(low))
    return math.floor(0.99 * low * 10**digits) / 10**digits


def _after(past: Past, run: Run, unit: PrivacyUnit) -> Past:
    """What somebody's past is after a run."""
    return past.plus(cost_to(unit, run.unit, run.event, past.multiplicity))


def charged_to(connection: Connection, cohorts: Sequence[int]) -> set[int]:
    """The reservations that any of these cohorts was ever charged for."""
    asked = (select(CHARGES.c.reservation).where(CHARGES.c.cohort.in_(some)).distinct() for some in slices(cohorts))
    return {number for one in asked for number in connection.execute(one).scalars()}


def total_of(account: Row[Any]) -> PrivacyBudget:
    """What everybody in an account may cost."""
    return PrivacyBudget(account.epsilon, account.delta)


def stored_event(event: dp_accounting.DpEvent) -> str:
    """An event as the ledger writes it."""
    return json.dumps(accounting.event_to_dict(event))


def event_of(text: str) -> dp_accounting.DpEvent:
    """The event that `stored_event` wrote."""
    return accounting.event_from_dict(json.loads(text))
