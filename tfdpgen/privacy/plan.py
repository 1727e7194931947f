"""PrivacyPlan: everything that will be done to the private examples, by key, calibrated together against one budget.

    plan = PrivacyPlan(
        mechanisms={"class_means": ClassMeans(...), "dp_sgd": DPSGD(num_examples, 512, steps=1000)},
        shares={"class_means": 0.3},                   # of the budget; "dp_sgd" takes what is left
        num_examples=num_examples,
    )
    plan = plan.calibrate(PrivacyBudget(3.0, 1e-5))    # a copy, in which every mechanism has its noise
    plan.event, plan.statement(1e-5)

A plan is made of public facts alone and is frozen: a session reserves its event before the first access and carries out
what it lists, nothing else. Statement, ledger and backup write it down.

Shares are of mu squared, which adds up (`budget.py`). They are fixed beforehand; the mechanism without a share is
calibrated by the accountant to what the others leave, so that the whole costs the budget and never more.

Shards. `Shards` is a plan for each of k disjoint shards. An example is in one of them, so all of them together cost
what one costs (parallel composition, McSherry 2009).
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping, Sequence
from typing import Any, Self, cast

import dp_accounting

from tfdpgen.privacy import accounting
from tfdpgen.privacy.accounting import PrivacyStatement
from tfdpgen.privacy.budget import PrivacyBudget, PrivacyUnit
from tfdpgen.privacy.mechanisms.base import GroupSum, Mechanism
from tfdpgen.privacy.mechanisms.dp_sgd import DPSGD


@dataclasses.dataclass(frozen=True)
class PrivacyPlan:
    """Mechanisms by key and what each may cost.

    Attributes:
      mechanisms: in the order in which they are carried out. A key is an identifier; what people read is a mechanism's
        `name`. All have one unit of privacy.
      num_examples: of the private data set; public by assumption, which the statement lists.
      shares: of the budget's mu squared, in (0, 1), of all mechanisms but one, which gets the rest.
      accountant: "pld" or "rdp".

    Raises:
      ValueError: if an attribute is out of range, or the mechanisms' units differ.
    """

    mechanisms: Mapping[str, Mechanism]
    num_examples: int
    shares: Mapping[str, float] = dataclasses.field(default_factory=dict)
    accountant: str = "pld"

    def __post_init__(self) -> None:
        object.__setattr__(self, "mechanisms", types.MappingProxyType(dict(self.mechanisms)))
        object.__setattr__(self, "shares", types.MappingProxyType(dict(self.shares)))
        if not self.mechanisms:
            raise ValueError("`mechanisms` should hold at least one mechanism: a plan of none releases nothing.")
        if wrong := [key for key in self.mechanisms if not key.isidentifier()]:
            raise ValueError(f"`mechanisms` should have identifiers as keys, such as 'class_means'; got {wrong[0]!r}.")
        if not isinstance(self.num_examples, int) or self.num_examples < 1:
            raise ValueError(f"`num_examples` should be an integer of at least 1; got {self.num_examples!r}.")
        without = [key for key in self.mechanisms if key not in self.shares]
        if len(without) != 1 or set(self.shares) - set(self.mechanisms):
            raise ValueError(
                f"`shares` should hold one share for every mechanism but one, which takes the rest; got shares of "
                f"{sorted(self.shares)} for mechanisms {list(self.mechanisms)}."
            )
        if any(not 0 < share < 1 for share in self.shares.values()) or sum(self.shares.values()) >= 1:
            raise ValueError(f"`shares` should lie in (0, 1) and add up to less than 1; got {dict(self.shares)}.")
        if len(units := {mechanism.unit for mechanism in self.mechanisms.values()}) > 1:
            raise ValueError(
                f"`mechanisms` should all protect the same unit of privacy; got {sorted(units)}. An epsilon for one "
                "example is none for a user with several."
            )
        for key, mechanism in self.mechanisms.items():
            if isinstance(mechanism, DPSGD) and mechanism.num_examples != self.num_examples:
                raise ValueError(
                    f"`mechanisms` should be for num_examples={self.num_examples}; {key!r} is for "
                    f"{mechanism.num_examples}, so that its sampling probability would be another."
                )
            is_of_users = isinstance(mechanism, GroupSum) and mechanism.unit is PrivacyUnit.USER
            if is_of_users and cast(GroupSum, mechanism).num_groups != self.num_examples:
                raise ValueError(
                    f"`mechanisms` should be for num_examples={self.num_examples} users; {key!r} is for "
                    f"{cast(GroupSum, mechanism).num_groups}, so that its sampling probability would be another."
                )
        accounting.check_accountant(self.accountant)

    @property
    def unit(self) -> PrivacyUnit:
        """Whose presence the plan's epsilon bounds."""
        return next(iter(self.mechanisms.values())).unit

    @property
    def rest(self) -> str:
        """The key of the mechanism that takes what the others leave."""
        return next(key for key in self.mechanisms if key not in self.shares)

    @property
    def event(self) -> dp_accounting.DpEvent:
        """All mechanisms, adaptively composed.

        Raises:
          ValueError: if the plan is not calibrated.
        """
        return accounting.compose(list(self.mechanisms.values()))

    @property
    def is_calibrated(self) -> bool:
        """Whether every mechanism has its noise."""
        return all(mechanism.noise_multiplier is not None for mechanism in self.mechanisms.values())

    def epsilon(self, delta: float) -> float:
        """The cost of all mechanisms together."""
        return accounting.epsilon_of(self.event, delta, self.accountant)

    def with_mechanism(self, key: str, mechanism: Mechanism, share: float) -> PrivacyPlan:
        """A copy with one mechanism more, at the end, which has this share; the others keep 1 - share among them."""
        return dataclasses.replace(
            self,
            mechanisms={**self.mechanisms, key: mechanism},
            shares={**{name: of_it * (1 - share) for name, of_it in self.shares.items()}, key: share},
        )

    def calibrate(self, budget: PrivacyBudget) -> PrivacyPlan:
        """A copy whose mechanisms have the least noise with which the whole stays within the budget.

        Raises:
          ValueError: if delta is not smaller than 1 / num_examples.
        """
        budget.check_num_examples(self.num_examples, self.unit)
        made = {key: self._of_share(self.mechanisms[key], budget.share(share)) for key, share in self.shares.items()}
        made[self.rest] = self._calibrated(self.mechanisms[self.rest], budget, list(made.values()))
        return dataclasses.replace(self, mechanisms={key: made[key] for key in self.mechanisms})

    def _of_share(self, mechanism: Mechanism, budget: PrivacyBudget) -> Mechanism:
        """The mechanism that costs this much: in closed form where it is Gaussian."""
        if isinstance(mechanism.with_noise(1.0).event, dp_accounting.GaussianDpEvent):
            return mechanism.with_noise(budget.gaussian_noise_multiplier)
        return self._calibrated(mechanism, budget, [])

    def _calibrated(self, mechanism: Mechanism, budget: PrivacyBudget, others: Sequence[Mechanism]) -> Mechanism:
        """The mechanism with the least noise that keeps it and the others within the budget, by the accountant."""

        def make_event(noise_multiplier: float) -> dp_accounting.DpEvent:
            return accounting.compose([*others, mechanism.with_noise(noise_multiplier)])

        return mechanism.with_noise(accounting.calibrate_noise_multiplier(make_event, budget, self.accountant))

    def statement(self, delta: float, noise_source: str, priors: Sequence[str] = ()) -> PrivacyStatement:
        """What the plan promises at `delta`, where noise comes from `noise_source` (`NoiseSource.description`)."""
        return accounting.make_statement(
            list(self.mechanisms.values()),
            self.num_examples,
            delta,
            noise_source,
            training=next((part for part in self.mechanisms.values() if isinstance(part, DPSGD)), None),
            accountant=self.accountant,
            priors=priors,
            unit=self.unit,
        )

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON-ready values, by which a backup knows the plan again."""
        return {
            "num_examples": self.num_examples,
            "accountant": self.accountant,
            "shares": dict(self.shares),
            "mechanisms": {
                key: {"type": type(mechanism).__name__, **_facts(mechanism)}
                for key, mechanism in self.mechanisms.items()
            },
        }


@dataclasses.dataclass(frozen=True)
class Shards:
    """A plan for each of k disjoint shards of the examples, of which every example is in exactly one.

    The session deals every example to a shard independently and uniformly, by randomness that is part of the secret:
    dealt by position, one more example would move all later ones into other shards. So adding or removing one example
    changes one shard alone, and the event is that of the plan of one shard (McSherry 2009, theorem 4).

    Attributes:
      num_shards: k, at least 1.
      plan: what is done to each shard. Its `num_examples` is that of the whole divided by k, rounded down: the number
        in a shard is random, and sampling probabilities follow from this public one.
      name: what the statement calls it.

    Raises:
      ValueError: if `num_shards` is out of range.
    """

    num_shards: int
    plan: PrivacyPlan
    name: str = "disjoint shards"

    def __post_init__(self) -> None:
        if self.num_shards < 1:
            raise ValueError(f"`num_shards` should be at least 1; got {self.num_shards!r}.")
        if any(isinstance(part, GroupSum) and part.unit is PrivacyUnit.USER for part in self.plan.mechanisms.values()):
            raise ValueError(
                "`plan` of shards should hold no federated average: how many users a shard has is private, and is "
                "public in its sampling probability."
            )

    @property
    def unit(self) -> PrivacyUnit:
        return self.plan.unit

    @property
    def noise_multiplier(self) -> float | None:
        """That of the first mechanism of a shard's plan; None until all have theirs."""
        return next(iter(self.plan.mechanisms.values())).noise_multiplier if self.plan.is_calibrated else None

    @property
    def event(self) -> dp_accounting.DpEvent:
        """The event of one shard's plan."""
        return self.plan.event

    def with_noise(self, noise_multiplier: float) -> Self:
        """A copy in which the first mechanism has this noise multiplier, and every other the noise of its share.

        Where a share is s times that of the first mechanism, its noise multiplier is 1 / sqrt(s) of the first's, as for
        Gaussian mechanisms. What the whole costs is the accountant's matter.
        """
        plan = self.plan
        shares = {**plan.shares, plan.rest: 1 - sum(plan.shares.values())}
        first = next(iter(plan.mechanisms))
        made = {
            key: mechanism.with_noise(noise_multiplier * (shares[first] / shares[key]) ** 0.5)
            for key, mechanism in plan.mechanisms.items()
        }
        return dataclasses.replace(self, plan=dataclasses.replace(plan, mechanisms=made))


def _facts(mechanism: Any) -> dict[str, Any]:
    """A mechanism's fields; a plan within it as its own facts."""
    return {
        field.name: value.to_dict() if isinstance(value := getattr(mechanism, field.name), PrivacyPlan) else value
        for field in dataclasses.fields(mechanism)
    }
