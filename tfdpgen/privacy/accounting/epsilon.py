"""What ran, and what it cost: from a `dp_accounting.DpEvent` to an epsilon.

    event = poisson_gaussian_event(sampling_probability=0.01, noise_multiplier=1.1, steps=1000)
    epsilon_of(event, delta=1e-5)                               # by privacy loss distributions (PLD)
    epsilon_of(event, delta=1e-5, accountant="rdp")             # by Renyi differential privacy
    epsilon_of(event, delta=1e-5, neighboring_relation="replace-one")

dp-accounting accounts: PLD, Koskela et al. 2020 and Doroshenko et al. 2022 ("Connect the dots"); RDP of the sampled
Gaussian, Mironov et al. 2019. Why its pair of distributions bounds what replacing one example costs is proved in
`replace_one`, which also has the Renyi divergences that it lacks. PLD is the tighter one and decides, RDP is shown
beside it.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping
from typing import Literal, get_args

import dp_accounting
from absl import logging
from dp_accounting import dp_event, pld, rdp

from tfdpgen.privacy.accounting import replace_one
from tfdpgen.privacy.accounting.events import Part, event_from_dict, event_to_dict, gaussian_parts, is_gaussian

NeighboringRelation = Literal["add-or-remove-one", "replace-one"]
NEIGHBORING_RELATIONS: tuple[NeighboringRelation, ...] = get_args(NeighboringRelation)

_RELATIONS = {
    "add-or-remove-one": dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE,
    "replace-one": dp_accounting.NeighboringRelation.REPLACE_ONE,
}
_ACCOUNTANTS = ("pld", "rdp")
_DEFAULT_INTERVAL = 1e-4  # dp-accounting's own grid of privacy losses
_COARSEST = 1e-3
_ENOUGH_CELLS = 100_000  # of one step's losses, on a grid that is finer than that
_MOST_CELLS = 1_000_000  # whatever the losses


def check_accountant(accountant: str) -> None:
    """Raises a ValueError for the name of an accountant that does not exist."""
    if accountant not in _ACCOUNTANTS:
        raise ValueError(f"`accountant` should be one of {_ACCOUNTANTS}; got {accountant!r}.")


def check_neighboring_relation(neighboring_relation: str) -> None:
    """Raises a ValueError for the name of a relation that is not accounted."""
    if neighboring_relation not in NEIGHBORING_RELATIONS:
        raise ValueError(
            f"`neighboring_relation` should be one of {NEIGHBORING_RELATIONS}; got {neighboring_relation!r}."
        )


def epsilon_of(
    event: dp_accounting.DpEvent,
    delta: float,
    accountant: str = "pld",
    neighboring_relation: NeighboringRelation = "add-or-remove-one",
) -> float:
    """The epsilon at `delta` of `event`: an upper bound, whichever the accountant and the relation.

    Args:
      event: what ran.
      delta: in (0, 1).
      accountant: "pld" or "rdp".
      neighboring_relation: "add-or-remove-one", or "replace-one": one example is exchanged for another, and the number
        of examples stays.

    Returns:
      epsilon; infinity where the event holds a mechanism without noise.

    Raises:
      ValueError: for unknown names, and for events that dp-accounting cannot compose.
    """
    check_accountant(accountant)
    check_neighboring_relation(neighboring_relation)
    return _epsilon_of(json.dumps(event_to_dict(event)), delta, accountant, neighboring_relation)


@functools.lru_cache(maxsize=4096)
def _epsilon_of(event: str, delta: float, accountant: str, neighboring_relation: str) -> float:
    """`epsilon_of` an event in JSON, remembered: calibration and statements ask for the same ones again."""
    ran = event_from_dict(json.loads(event))
    if not is_gaussian(ran):
        return _epsilon_of_any(ran, delta, accountant, neighboring_relation)
    parts = {part: count for part, count in gaussian_parts(ran).items() if part.sampling_probability > 0 and count > 0}
    if any(part.noise_multiplier == 0 for part in parts):
        return math.inf
    if not parts:
        return 0.0
    relation = _RELATIONS[neighboring_relation]
    is_replaced = any(part.is_replaced for part in parts)
    if accountant == "rdp" and (is_replaced or relation is dp_accounting.NeighboringRelation.REPLACE_ONE):
        return replace_one.epsilon_by_rdp(parts, delta)  # adding and removing never cost more
    if is_replaced:
        return _epsilon_by_pld(parts, delta, relation)
    made = (
        rdp.RdpAccountant(neighboring_relation=relation)
        if accountant == "rdp"
        else pld.PLDAccountant(relation, value_discretization_interval=_loss_interval(parts))
    )
    before = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)  # RDP says of every order that it leaves out that it does
    try:
        return float(made.compose(ran).get_epsilon(delta))
    finally:
        logging.set_verbosity(before)


def _epsilon_by_pld(parts: Mapping[Part, int], delta: float, relation: dp_accounting.NeighboringRelation) -> float:
    """Epsilon of mechanisms of which each has a relation of its own, which dp-accounting's accountant cannot have.

    Every distribution dominates what its mechanism's neighbours are apart, so what they compose to dominates as well
    (Zhu, Dong & Wang 2022, theorem 10).
    """
    interval = _loss_interval(parts)
    composed = pld.privacy_loss_distribution.identity(interval)
    for part, count in parts.items():
        own = dp_accounting.NeighboringRelation.REPLACE_ONE if part.is_replaced else relation
        is_sampled = part.sampling_probability < 1
        one = pld.privacy_loss_distribution.from_gaussian_mechanism(
            part.noise_multiplier / (1 if is_sampled else math.sqrt(count)),
            value_discretization_interval=interval,
            sampling_prob=part.sampling_probability,
            neighboring_relation=own,
        )
        composed = composed.compose(one.self_compose(count) if is_sampled else one)
    return float(composed.get_epsilon_for_delta(delta))


def _epsilon_of_any(ran: dp_accounting.DpEvent, delta: float, accountant: str, neighboring_relation: str) -> float:
    """Epsilon of events that are not Gaussian, by dp-accounting; by its other accountant where it lacks the one named.

    What replacing one example costs follows from removing one and adding another (group privacy, Vadhan 2017, lemma
    2.2): (2 epsilon, (1 + e^epsilon) delta'), here with the delta' that makes the second number delta.

    Raises:
      ValueError: if neither accountant knows the event.
    """
    if neighboring_relation == "replace-one":

        def cost(log_part: float) -> float:
            return _epsilon_of_any(ran, delta * math.exp(log_part), accountant, "add-or-remove-one")

        least = -1.0
        while least > -600 and (1 + math.exp(min(cost(least), 700.0))) * math.exp(least) > 1:
            least *= 1.25
        return 2 * cost(least) if least > -600 else math.inf
    interval = _mixture_interval(ran)
    accountants = {"pld": pld.PLDAccountant(value_discretization_interval=interval), "rdp": rdp.RdpAccountant()}
    for name in (accountant, *accountants):
        if accountants[name].supports(ran):
            return float(accountants[name].compose(ran).get_epsilon(delta))
    raise ValueError(f"`event` should be one that dp-accounting can compose; got {ran}.")


def _mixture_interval(ran: dp_accounting.DpEvent) -> float:
    """The grid of privacy losses for events with mixtures of Gaussians, of which a loss costs a search for a root.

    A thirtieth of dp-accounting's default cells changes epsilon by less than 1e-3 of it, unless losses are small.
    """
    match ran:
        case dp_event.MixtureOfGaussiansDpEvent():
            mean = sum(one * other for one, other in zip(ran.sensitivities, ran.sampling_probs, strict=True))
            return min(30 * _DEFAULT_INTERVAL, max(0.1 * mean / ran.standard_deviation, _DEFAULT_INTERVAL))
        case dp_accounting.SelfComposedDpEvent():
            return _mixture_interval(ran.event)
        case dp_accounting.ComposedDpEvent():
            intervals = [_mixture_interval(part) for part in ran.events]
            return min((one for one in intervals if one > _DEFAULT_INTERVAL), default=_DEFAULT_INTERVAL)
    return _DEFAULT_INTERVAL


def _loss_interval(parts: Mapping[Part, int]) -> float:
    """The grid of privacy losses that PLD rounds to: valid whatever it is, tight where it is finer than a step's loss.

    dp-accounting's own is coarser than the losses of steps with much noise and a low sampling probability, whose
    rounding then adds up (to 4 % of epsilon at a probability of 1e-3, 20,000 steps and a noise multiplier of 7). A
    tenth of the losses' root mean square makes the rounding's part of the total variance about 1/600. Where losses are
    larger than that grid, a hundredth of their root mean square changes epsilon by less than 1e-4 of it, in a tenth of
    the time. With next to no noise, where losses are huge, the grid is coarser still.
    """
    steps = sum(parts.values())
    rms = math.sqrt(sum(count * _loss_variance(*part[:2]) for part, count in parts.items()) / steps)
    widest = max(
        replace_one.largest_loss(probability, noise_multiplier / math.sqrt(count if probability == 1 else 1))
        for (probability, noise_multiplier, _), count in parts.items()
    )
    of_small_losses = min(_DEFAULT_INTERVAL, max(0.1 * rms, widest / _ENOUGH_CELLS))
    of_large_losses = min(_COARSEST, 0.01 * rms)
    return max(of_small_losses, of_large_losses, widest / _MOST_CELLS)


def _loss_variance(sampling_probability: float, noise_multiplier: float) -> float:
    """About the variance of a step's privacy loss where it is small: the chi-square divergence of the sampled pair."""
    return sampling_probability**2 * math.expm1(min(noise_multiplier**-2, 100.0))
