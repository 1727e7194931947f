"""What ran, as data: what is composed, calibrated, kept in ledgers and written into statements.

    event = poisson_gaussian_event(sampling_probability=0.01, noise_multiplier=1.1, steps=1000)
    gaussian_parts(event)                                       # {(0.01, 1.1, False): 1000}
    event_from_dict(event_to_dict(event)) == event

What it costs: `epsilon`.
"""

from __future__ import annotations

import collections
import dataclasses
import inspect
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import dp_accounting
import numpy as np
from dp_accounting import dp_event
from scipy import stats

_OTHER_EVENTS: Mapping[str, Any] = {
    name: kind
    for name, kind in vars(dp_event).items()
    if isinstance(kind, type) and issubclass(kind, dp_accounting.DpEvent)
}


@dataclasses.dataclass(frozen=True)
class ReplaceOneDpEvent(dp_accounting.DpEvent):
    """`event`, of which one unit of privacy replaces one item, whatever the neighbouring relation of units is.

    Where networks that are trained on disjoint shards are what is sampled and summed, one more example neither adds a
    network nor removes one: that of its shard becomes another one. What the neighbours' outputs are apart is what
    replacing an item costs (`replace_one`), and replacing one example by another in the same shard costs no more.

    Attributes:
      event: of Gaussians and Poisson-sampled Gaussians, whose noise multiplier is the standard deviation over the bound
        on one item's norm, not on the difference of two.
    """

    event: dp_accounting.DpEvent


class Part(NamedTuple):
    """A Gaussian mechanism.

    Attributes:
      sampling_probability: 1 where nothing is sampled.
      noise_multiplier: standard deviation over the bound on an item's norm.
      is_replaced: whether a unit of privacy always replaces an item; see `ReplaceOneDpEvent`.
    """

    sampling_probability: float
    noise_multiplier: float
    is_replaced: bool = False


class Mechanism(Protocol):
    """What was done to the private examples, as data. `DPSGD` and the one-shot statistics are mechanisms."""

    @property
    def name(self) -> str: ...

    @property
    def event(self) -> dp_accounting.DpEvent: ...


def poisson_gaussian_event(sampling_probability: float, noise_multiplier: float, steps: int) -> dp_accounting.DpEvent:
    """The event of `steps` clipped sums over Poisson samples with Gaussian noise (DP-SGD, Abadi et al. 2016)."""
    gaussian = dp_accounting.GaussianDpEvent(noise_multiplier)
    return dp_accounting.SelfComposedDpEvent(dp_accounting.PoissonSampledDpEvent(sampling_probability, gaussian), steps)


def compose(mechanisms: Sequence[Mechanism]) -> dp_accounting.DpEvent:
    """The event of all mechanisms together, adaptively composed."""
    return dp_accounting.ComposedDpEvent([mechanism.event for mechanism in mechanisms])


def gaussian_parts(event: dp_accounting.DpEvent) -> Mapping[Part, int]:
    """How often each Gaussian mechanism occurs in `event`.

    Raises:
      ValueError: if the event holds anything but Gaussians and Poisson-sampled Gaussians, or numbers out of range,
        which would cost nothing or less.
    """
    parts: collections.Counter[Part] = collections.Counter()
    match event:
        case dp_accounting.GaussianDpEvent():
            parts[Part(1.0, event.noise_multiplier)] = 1
        case dp_accounting.PoissonSampledDpEvent(event=dp_accounting.GaussianDpEvent() as gaussian):
            parts[Part(event.sampling_probability, gaussian.noise_multiplier)] = 1
        case dp_accounting.SelfComposedDpEvent():
            for part, count in gaussian_parts(event.event).items():
                parts[part] = count * event.count
        case dp_accounting.ComposedDpEvent():
            for part in event.events:
                parts.update(gaussian_parts(part))
        case ReplaceOneDpEvent():
            for part, count in gaussian_parts(event.event).items():
                parts[part._replace(is_replaced=True)] += count
        case _:
            raise ValueError(
                "`event` should be composed of Gaussians and Poisson-sampled Gaussians, which are what mechanisms of "
                f"this package make; got {type(event).__name__}."
            )
    for part, count in parts.items():
        if not (0 <= part.sampling_probability <= 1 and part.noise_multiplier >= 0 and count >= 0):
            raise ValueError(
                "`event` should have sampling probabilities in [0, 1], and noise multipliers and counts of at least 0; "
                f"got {part.sampling_probability}, {part.noise_multiplier} and {count}."
            )
    return parts


def is_gaussian(event: dp_accounting.DpEvent) -> bool:
    """Whether an event is composed of Gaussians and Poisson-sampled Gaussians alone."""
    match event:
        case dp_accounting.GaussianDpEvent():
            return True
        case dp_accounting.PoissonSampledDpEvent():
            return isinstance(event.event, dp_accounting.GaussianDpEvent)
        case dp_accounting.SelfComposedDpEvent() | ReplaceOneDpEvent():
            return is_gaussian(event.event)
        case dp_accounting.ComposedDpEvent():
            return all(is_gaussian(part) for part in event.events)
    return False


def group_event(event: dp_accounting.DpEvent, size: int) -> dp_accounting.DpEvent:
    """What an event costs a group of `size` examples that are added or removed together.

    They move what is noised by `size` clips instead of one. Where each is sampled by itself, by as many clips as there
    are of them in the sample, which is binomial: a mixture of Gaussians (Choquette-Choo et al. 2023, arXiv 2310.15526).

    Raises:
      ValueError: for events of which that is not known, such as those that replace an item.
    """
    if size < 1:
        raise ValueError(f"`size` should be at least 1; got {size!r}.")
    if size == 1:
        return event
    match event:
        case dp_accounting.GaussianDpEvent():
            return dp_accounting.GaussianDpEvent(event.noise_multiplier / size)
        case dp_accounting.PoissonSampledDpEvent(event=dp_accounting.GaussianDpEvent() as gaussian):
            probabilities = stats.binom.pmf(np.arange(size + 1), size, event.sampling_probability)
            return dp_event.MixtureOfGaussiansDpEvent(
                gaussian.noise_multiplier, list(range(size + 1)), (probabilities / probabilities.sum()).tolist()
            )
        case dp_accounting.SelfComposedDpEvent():
            return dp_accounting.SelfComposedDpEvent(group_event(event.event, size), event.count)
        case dp_accounting.ComposedDpEvent():
            return dp_accounting.ComposedDpEvent([group_event(part, size) for part in event.events])
    raise ValueError(
        f"What {type(event).__name__} costs a user of {size} examples is not known. Take a method whose mechanisms are "
        "sums with Gaussian noise, or one that makes its promise to users, as fedavg_gan does."
    )


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
    if isinstance(event, ReplaceOneDpEvent):
        return {"type": "replace_one", "event": event_to_dict(event.event)}
    if type(event) not in _OTHER_EVENTS.values():
        raise ValueError(f"`event` should be of a type that dp-accounting exports; got {type(event).__name__}.")
    fields = {field: getattr(event, field) for field in inspect.signature(type(event)).parameters}
    values = {
        name: event_to_dict(value) if isinstance(value, dp_accounting.DpEvent) else value
        for name, value in fields.items()
    }
    return {"type": type(event).__name__, **values}


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
        case "replace_one":
            return ReplaceOneDpEvent(event_from_dict(values["event"]))
        case name if name in _OTHER_EVENTS:
            fields = {field: value for field, value in values.items() if field != "type"}
            return _OTHER_EVENTS[name](
                **{
                    field: event_from_dict(value) if isinstance(value, Mapping) else value
                    for field, value in fields.items()
                }
            )
        case unknown:
            raise ValueError(f"`type` should be the name of an event; got {unknown!r}.")
