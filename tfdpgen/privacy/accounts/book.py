"""What has happened to examples and users, what it costs them, and whether they can pay more.

    book = book_of(connection, account, examples)
    book.epsilon(delta)                                # of whoever has paid most
    check(book, total, run, "the account 'hands'")     # BudgetExceededError

Composition by privacy loss distributions is slow where histories are many, and is done while others wait. So a past is
kept as what it is composed of: one Gaussian mechanism for all Gaussian ones, which compose exactly (Dong, Roth & Su
2022, corollary 3.3), and how often everything else occurs. Pasts are looked at in the order of what Renyi divergences
bound them by, which takes no time (Mironov 2017), and none that cannot cost more than another is composed.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import dp_accounting
import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, Row, and_, select

from tfdpgen.privacy import accounting
from tfdpgen.privacy.accounting.events import gaussian_parts, is_gaussian
from tfdpgen.privacy.accounts.cohorts import Examples, cohorts_of, slices
from tfdpgen.privacy.accounts.groups import Groups
from tfdpgen.privacy.accounts.tables import CHARGES, RESERVATIONS
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
    most: int = 1  # images in it of one user at most, where it promises something to single ones

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
      first: the event of the first of them, by its JSON: alone, it costs to the last digit what its run has stated.
    """

    precision: float = 0.0
    others: Mapping[str, int] = dataclasses.field(default_factory=dict)
    runs: int = 0
    first: str = ""

    @classmethod
    def of(cls, event: dp_accounting.DpEvent) -> Past:
        """That one thing happened."""
        precision, others, text = 0.0, Counter[str](), stored_event(event)
        if not is_gaussian(event):
            return cls(0.0, {text: 1}, 1, text)
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
        return cls(precision, others, 1, text)

    @classmethod
    def together(cls, pasts: Sequence[Past]) -> Past:
        """That all of these happened, in this order."""
        others = Counter[str]()
        for past in pasts:
            others.update(past.others)
        first = next((past.first for past in pasts if past.first), "")
        return cls(sum(past.precision for past in pasts), others, sum(past.runs for past in pasts), first)

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

    def bound(self, delta: float) -> float:
        """What it costs at `delta` at most, by Renyi divergences; infinity where these are not known."""
        curve = self.precision * _ORDERS / 2
        for text, count in self.others.items():
            curve = curve + count * _divergences(text)
        if not np.isfinite(curve).all():
            return math.inf
        return float(dp_accounting.rdp.compute_epsilon(_ORDERS.tolist(), curve.tolist(), delta)[0])


_ORDERS = np.array([1.25, 1.5, 1.75, 2, 2.5, 3, 3.5, 4, 5, 6, 7, 8, 10, 12, 14, 17, 20, 25, 32, 48, 64, 128, 256.0])
_SMALL = 1e-150  # a delta, at which compute_epsilon is linear in the divergence; its square is a number still


@functools.lru_cache(maxsize=4096)
def _divergences(event: str) -> npt.NDArray[np.float64]:
    """Renyi divergences of an event, in JSON, at `_ORDERS`; infinity where dp-accounting knows none."""
    found = []
    for order in _ORDERS:
        accountant = dp_accounting.rdp.RdpAccountant([order])
        what = event_of(event)
        if not accountant.supports(what):
            return np.full(len(_ORDERS), math.inf)
        accountant.compose(what)
        nothing = dp_accounting.rdp.compute_epsilon([order], [2.0], _SMALL)[0] - 2.0
        epsilon = accountant.get_epsilon(_SMALL)
        found.append(max(0.0, epsilon - nothing) + 4 * float(np.spacing(epsilon)))  # what rounding may have taken
    return np.array(found)


def cost_to(account_unit: str, unit: str, event: dp_accounting.DpEvent, most: int) -> dp_accounting.DpEvent:
    """What an event, of the presence of one `unit`, is to one of the account's unit who has up to `most` images."""
    if unit == account_unit:
        return event
    if unit == PrivacyUnit.USER:
        return accounting.ReplaceOneDpEvent(event)
    return accounting.group_event(event, most)


class Book:
    """What was charged to cohorts.

    Args:
      connection: to the ledger.
      groups: as they are now.
      unit: of what the pasts are.
      holders: sets of cohorts: whatever was charged to any in a set has happened to one example or user.
    """

    def __init__(
        self, connection: Connection, groups: Groups, unit: PrivacyUnit, holders: Iterable[frozenset[int]]
    ) -> None:
        self.unit = unit
        sets = set(holders)
        paid: dict[int, set[int]] = {cohort: set() for holder in sets for cohort in holder}
        for some in slices(list(paid)):
            asked = (
                select(CHARGES.c.cohort, CHARGES.c.reservation)
                .join(RESERVATIONS, RESERVATIONS.c.id == CHARGES.c.reservation)
                .where(and_(CHARGES.c.cohort.in_(some), RESERVATIONS.c.state != "void"))
            )
            for cohort, reservation in connection.execute(asked):
                paid[cohort].add(reservation)
        single: dict[int, Past] = {}
        for some in slices(sorted({number for numbers in paid.values() for number in numbers})):
            for row in connection.execute(select(RESERVATIONS).where(RESERVATIONS.c.id.in_(some))):
                most = 1 if unit is PrivacyUnit.EXAMPLE else _most_in(connection, groups, row)
                try:
                    single[row.id] = Past.of(cost_to(unit, row.unit, event_of(row.event), most))
                except ValueError:  # what it costs several examples together is not known
                    single[row.id] = Past(math.inf, {}, 1, stored_event(dp_accounting.NonPrivateDpEvent()))
        charged = {frozenset(number for cohort in holder for number in paid[cohort]) for holder in sets}
        self._pasts = [Past.together([single[number] for number in sorted(numbers)]) for numbers in charged]

    def worst(self, delta: float) -> tuple[float, Past]:
        """What has been spent by whoever has spent most, and their past."""
        epsilon, worst = 0.0, Past()
        for bound, past in _ranked(self._pasts, delta):
            if bound <= epsilon:
                break
            if (spent := past.epsilon(delta)) > epsilon:
                epsilon, worst = spent, past
        return epsilon, worst

    def refusing(self, run: Run, total: PrivacyBudget) -> Past | None:
        """The past of somebody who would have paid more than a total after a run; None where nobody would."""
        return self._refusing(self._pasts, run, total)

    def fitting(self, run: Run, total: PrivacyBudget) -> float:
        """About the largest epsilon at the run's delta that everybody can still pay; 0 where that is below a hundredth.

        It is that of one Gaussian mechanism, rounded down; other mechanisms of the same epsilon compose to much the
        same.
        """
        if all(not past.runs for past in self._pasts) and run.unit == self.unit and run.delta == total.delta:
            return total.epsilon

        def fits(pasts: Sequence[Past], epsilon: float) -> bool:
            noise = dp_accounting.get_sigma_gaussian(epsilon, run.delta)
            one = dataclasses.replace(run, event=dp_accounting.GaussianDpEvent(noise))
            return self._refusing(pasts, one, total) is None

        def largest(pasts: Sequence[Past], high: float) -> float:
            low = 0.01
            if high < low or not fits(pasts, low):
                return 0.0
            while high / low > 1.01:
                middle = math.sqrt(low * high)
                low, high = (middle, high) if fits(pasts, middle) else (low, middle)
            digits = 2 - math.floor(math.log10(low))
            return math.floor(0.99 * low * 10**digits) / 10**digits

        found = largest([self.worst(total.delta)[1]], total.epsilon)  # who can pay least is who has paid most, mostly
        return found if not found or fits(self._pasts, found) else largest(self._pasts, found)

    def _refusing(self, pasts: Sequence[Past], run: Run, total: PrivacyBudget) -> Past | None:
        """`refusing` for some of the pasts."""
        more = Past.of(cost_to(self.unit, run.unit, run.event, run.most))
        before = {id(after): (after, past) for past in pasts for after in [Past.together([past, more])]}
        for bound, after in _ranked([after for after, _ in before.values()], total.delta):
            if bound <= total.epsilon:
                break
            if not after.epsilon(total.delta) <= total.epsilon:  # nor where it is no number
                return before[id(after)][1]
        return None


def _ranked(pasts: Iterable[Past], delta: float) -> list[tuple[float, Past]]:
    """Pasts with what bounds their epsilon, in descending order."""
    listed = list(pasts)
    if len(listed) == 1:  # there is nothing to be spared
        return [(math.inf, listed[0])]
    return sorted(((past.bound(delta), past) for past in listed), key=lambda ranked: ranked[0], reverse=True)


def book_of(
    connection: Connection,
    groups: Groups,
    account: Row[Any],
    examples: Examples | None,
    cohorts: Sequence[int] | None = None,
) -> Book:
    """What happened to those of an account whom a run on some examples, or cohorts, happens to; or to all of them."""
    unit, mine = PrivacyUnit(account.unit), cohorts_of(connection, [account.id])
    asked = examples.distinct() if examples is not None else cohorts
    if asked is not None:
        reached = groups.reached(asked, unit)
        mine = [cohort for cohort in mine if cohort in reached]
    return Book(connection, groups, unit, (groups.together(cohort, unit) for cohort in mine))


def book_for(connection: Connection, groups: Groups, examples: Examples, unit: PrivacyUnit) -> Book:
    """What happened to the examples of a run, or to their users."""
    users, held = examples.identity.users, examples.distinct()
    if unit is PrivacyUnit.EXAMPLE or users is None:
        return Book(connection, groups, unit, (groups.together(cohort, unit) for cohort in held))
    pairs = np.unique(np.stack([users, examples.cohorts], 1), axis=0)
    pairs = pairs[pairs[:, 1] > 0]
    starts = np.flatnonzero(np.diff(pairs[:, 0], prepend=-1))
    parts = {frozenset(part[:, 1].tolist()) for part in np.split(pairs, starts[1:])} if len(pairs) else set()
    return Book(connection, groups, unit, (groups.reached(part, unit) for part in parts))


def most_of_a_user(groups: Groups, examples: Examples) -> int:
    """How many images of one user a run holds at most; at least 1.

    Accounts of users know how many of theirs one has at most, and somebody may be in several of them. What the run says
    of its users can only add to that: images that are in no such account, and copies.
    """
    identity, accounts = examples.identity, groups.accounts_of(examples.distinct(), PrivacyUnit.USER)
    known = sum(account.most for account in accounts) * identity.most_copies_of_a_user
    outside = identity.most_of_a_user(groups.outside(examples.cohorts, PrivacyUnit.USER))
    return max(1, known + outside, identity.most_of_a_user())


def _most_in(connection: Connection, groups: Groups, row: Row[Any]) -> int:
    """How many images of one user a reservation was for at most, as it was known then or is now; at least 1."""
    charged = connection.execute(select(CHARGES.c.cohort).where(CHARGES.c.reservation == row.id)).scalars().all()
    accounts = groups.accounts_of(charged, PrivacyUnit.USER)
    return max(1, row.most, row.copies * sum(account.most for account in accounts))


class Refusal(Exception):
    """A run does not fit; `error` says why, and takes its time to find what would."""

    def __init__(self, book: Book, past: Past, total: PrivacyBudget, run: Run, who: str, advice: str) -> None:
        super().__init__(who)
        self.book, self.past, self.total, self.run, self.who, self.advice = book, past, total, run, who, advice

    def error(self) -> BudgetExceededError:
        """What was asked, what was spent, and which epsilon would fit."""
        run, total, unit, runs = self.run, self.total, self.book.unit, self.past.runs
        after = Past.together([self.past, Past.of(cost_to(unit, run.unit, run.event, run.most))])
        fits = self.book.fitting(run, total)
        return BudgetExceededError(
            f"This run asks for epsilon={run.epsilon:.4g} at delta={run.delta:g} of {self.who}, in which every {unit} "
            f"may cost {total.epsilon:g} at delta={total.delta:g} in total. Of these, the {unit} that has paid most "
            f"has paid {self.past.epsilon(total.delta):.4g}, in {runs} run{'s' * (runs != 1)}, and would come to "
            f"{after.epsilon(total.delta):.4g}. Nothing was reserved and nothing was run. "
            + (f"A run of epsilon={fits:.3g} would fit. " if fits else "No run that is of use would fit. ")
            + self.advice
        )


def check(book: Book, total: PrivacyBudget, run: Run, who: str, advice: str) -> None:
    """Refuses a run after which somebody in a book would have paid more than a total.

    Raises:
      Refusal: for one who would.
    """
    if (past := book.refusing(run, total)) is not None:
        raise Refusal(book, past, total, run, who, advice)


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
