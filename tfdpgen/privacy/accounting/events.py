"""What ran, as data, and what it cost: from a `dp_accounting.DpEvent` to an epsilon.

    event = poisson_gaussian_event(sampling_probability=0.01, noise_multiplier=1.1, steps=1000)
    epsilon_of(event, delta=1e-5)                               # by privacy loss distributions (PLD)
    epsilon_of(event, delta=1e-5, accountant="rdp")             # by Renyi differential privacy

Sources: PLD, Koskela et al. 2020 and Doroshenko et al. 2022 ("Connect the dots"); RDP of the sampled Gaussian, Mironov
et al. 2019. Both are dp-accounting's; PLD is the tighter one and decides, RDP is shown beside it.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Protocol

import dp_accounting
from dp_accounting import pld, rdp

_ACCOUNTANTS: dict[str, Callable[[], dp_accounting.PrivacyAccountant]] = {
    "pld": pld.PLDAccountant,
    "rdp": rdp.RdpAccountant,
}


class Mechanism(Protocol):
    """What was done to the private rows, as data. `DPSGDPlan` and the one-shot statistics are mechanisms."""

    name: ClassVar[str]

    @property
    def event(self) -> dp_accounting.DpEvent: ...


def check_accountant(accountant: str) -> None:
    """Raises a ValueError for the name of an accountant that does not exist."""
    if accountant not in _ACCOUNTANTS:
        raise ValueError(f"`accountant` should be one of {sorted(_ACCOUNTANTS)}; got {accountant!r}.")


def poisson_gaussian_event(sampling_probability: float, noise_multiplier: float, steps: int) -> dp_accounting.DpEvent:
    """The event of `steps` clipped sums over Poisson samples with Gaussian noise (DP-SGD, Abadi et al. 2016)."""
    gaussian = dp_accounting.GaussianDpEvent(noise_multiplier)
    return dp_accounting.SelfComposedDpEvent(dp_accounting.PoissonSampledDpEvent(sampling_probability, gaussian), steps)


def compose(mechanisms: Sequence[Mechanism]) -> dp_accounting.DpEvent:
    """The event of all mechanisms together, adaptively composed."""
    return dp_accounting.ComposedDpEvent([mechanism.event for mechanism in mechanisms])


def epsilon_of(event: dp_accounting.DpEvent, delta: float, accountant: str = "pld") -> float:
    """The epsilon at `delta` of `event`, for neighbours by adding or removing one row.

    Args:
      event: what ran.
      delta: in (0, 1).
      accountant: "pld" or "rdp".

    Returns:
      epsilon; infinity where the event holds a mechanism without noise.
    """
    check_accountant(accountant)
    return _epsilon_of(json.dumps(event_to_dict(event)), delta, accountant)


@functools.lru_cache(maxsize=4096)
def _epsilon_of(event: str, delta: float, accountant: str) -> float:
    """`epsilon_of` an event in JSON, remembered: calibration and statements ask for the same ones again."""
    return float(_ACCOUNTANTS[accountant]().compose(event_from_dict(json.loads(event))).get_epsilon(delta))


def event_to_dict(event: dp_accounting.DpEvent) -> dict[str, Any]:
    """The event as JSON-ready values; `event_from_dict` is the inverse."""
    if isinstance(event, dp_accounting.GaussianDpEvent):
        return {"type": "gaussian", "noise_multiplier": event.noise_multiplier}
    if isinstance(event, dp_accounting.PoissonSampledDpEvent):
        inner = event_to_dict(event.event)
        return {"type": "poisson_sampled", "sampling_probability": event.sampling_probability, "event": inner}
    if isinstance(event, dp_accounting.SelfComposedDpEvent):
        return {"type": "self_composed", "count": event.count, "event": event_to_dict(event.event)}
    if isinstance(event, dp_accounting.ComposedDpEvent):
        return {"type": "composed", "events": [event_to_dict(part) for part in event.events]}
    raise ValueError(f"`event` holds {type(event).__name__}, which no mechanism of this package makes.")


def event_from_dict(values: Mapping[str, Any]) -> dp_accounting.DpEvent:
    """The event that `event_to_dict` wrote."""
    match values["type"]:
        case "gaussian":
            return dp_accounting.GaussianDpEvent(values["noise_multiplier"])
        case "poisson_sampled":
            return dp_accounting.PoissonSampledDpEvent(values["sampling_probability"], event_from_dict(values["event"]))
        case "self_composed":
            return dp_accounting.SelfComposedDpEvent(event_from_dict(values["event"]), values["count"])
        case "composed":
            return dp_accounting.ComposedDpEvent([event_from_dict(part) for part in values["events"]])
        case unknown:
            raise ValueError(f"`type` should be the name of an event; got {unknown!r}.")
