"""From a description of what ran to what it cost, and back.

A mechanism is data (a `dp_accounting.DpEvent`); accounting is functions on it:

    event = poisson_gaussian_event(sampling_probability=0.01, noise_multiplier=1.1, steps=1000)
    epsilon_of(event, delta=1e-5)                               # by privacy loss distributions (PLD)
    epsilon_of(event, delta=1e-5, accountant="rdp")             # by Renyi differential privacy
    calibrate_noise_multiplier(lambda z: poisson_gaussian_event(0.01, z, 1000), PrivacyBudget(3.0, 1e-5))

Sources: PLD, Koskela et al. 2020 and Doroshenko et al. 2022 ("Connect the dots"); RDP of the sampled Gaussian, Mironov
et al. 2019. Both are dp-accounting's; PLD is the tighter one and decides, RDP is shown beside it.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Protocol

import dp_accounting
from absl import logging
from dp_accounting import pld, rdp
from scipy import optimize

from tfdpgen.privacy.budget import PrivacyBudget

_ACCOUNTANTS: dict[str, Callable[[], dp_accounting.PrivacyAccountant]] = {
    "pld": pld.PLDAccountant,
    "rdp": rdp.RdpAccountant,
}
_NOISE_TOLERANCE = 1e-4  # relative: noise beyond what the budget asks for
_MOST_NOISE = 1e4

OPERATING_SYSTEM = "operating system"  # the noise source of everything that may be released

ASSUMPTIONS = (
    "The unit of privacy is one row (one image with its label). A person who contributed several rows is protected "
    "less, by group privacy.",
    "Two data sets are neighbours if one is the other with one row added or removed. The number of rows and the "
    "declared shape, value range and classes are treated as public.",
    "Each step draws every row independently with the same probability (Poisson sampling); which rows were drawn, "
    "and how many, stays secret.",
    "Everything released was computed from the listed mechanisms' outputs alone. Hyperparameters were fixed before "
    "the private rows were touched.",
    "The statement covers this release. Other releases from the same rows add to what may be learnt about them.",
    "Norms, sums and noise are computed in floating point, the noise by a generator that is keyed by the operating "
    "system; attacks on floating-point rounding or on timing are not covered.",
)


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


def calibrate_noise_multiplier(
    make_event: Callable[[float], dp_accounting.DpEvent], budget: PrivacyBudget, accountant: str = "pld"
) -> float:
    """The smallest noise multiplier (to a relative 1e-4) whose event stays within the budget.

    Args:
      make_event: noise multiplier -> everything that will run, other mechanisms included.
      budget: never exceeded by the result.
      accountant: "pld" or "rdp".

    Raises:
      ValueError: if no noise is enough, because what runs besides already spends the budget.
    """
    check_accountant(accountant)
    unattainable = epsilon_of(make_event(_MOST_NOISE), budget.delta, accountant)
    if unattainable >= budget.epsilon:
        raise ValueError(
            f"The budget epsilon={budget.epsilon:g}, delta={budget.delta:g} is too small: with unlimited noise in this "
            f"mechanism the plan still costs epsilon={unattainable:.3g}. Give more epsilon, fewer steps or smaller "
            "batches, or a smaller share to the other mechanisms."
        )

    def excess(noise_multiplier: float, judge: str = accountant) -> float:
        return epsilon_of(make_event(noise_multiplier), budget.delta, judge) - budget.epsilon

    # PLD takes long where there is far too little noise, so RDP, which is fast everywhere, finds the neighbourhood.
    guess = 1.0
    while guess < _MOST_NOISE and excess(guess, "rdp") > 0:
        guess *= 1.25
    while guess > 0.05 and excess(guess / 1.25, "rdp") <= 0:
        guess /= 1.25
    lower, upper = guess / 1.25, guess
    while excess(upper) > 0:
        lower, upper = upper, 1.25 * upper
    while excess(lower) <= 0:
        lower, upper = lower / 1.25, lower
    tolerance = _NOISE_TOLERANCE * upper
    noise_multiplier: Any = optimize.brentq(excess, lower, upper, xtol=tolerance)
    while excess(noise_multiplier) > 0:  # a root is found to either side of it; only the side with more noise will do
        noise_multiplier += tolerance
    return float(noise_multiplier)


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


@dataclasses.dataclass(frozen=True)
class PrivacyStatement:
    """What is promised to each row, and on which assumptions; it holds no private figure and may be published.

    Attributes:
      epsilon: the cost of all mechanisms together at `delta`, by `accountant`.
      delta: the probability with which epsilon may be exceeded.
      accountant: "pld" or "rdp".
      epsilon_rdp: the same cost by the looser RDP accountant.
      epsilon_compute_dp_sgd_privacy: tensorflow-privacy's figure (RDP) for the DP-SGD mechanism alone.
      noise_multiplier: of DP-SGD: standard deviation of the noise / l2_norm_clip.
      sampling: "poisson".
      num_examples: rows that the promise is made to.
      expected_batch_size: rows that a step draws on average, and the divisor of its gradient sum.
      steps: accounted steps.
      l2_norm_clip: bound on the norm of one row's gradient.
      neighboring_relation: "add-or-remove-one".
      unit: what one row is.
      assumptions: sentences that the promise rests on.
      mechanisms: {name, event, epsilon (of this mechanism alone at delta)} of everything that touched the rows.
      compute_dp_sgd_privacy_statement: tensorflow-privacy's own text about the DP-SGD mechanism.
      noise_source: "operating system", or "seeded" for runs that protect nobody.
    """

    epsilon: float
    delta: float
    accountant: str
    epsilon_rdp: float
    epsilon_compute_dp_sgd_privacy: float
    noise_multiplier: float
    sampling: str
    num_examples: int
    expected_batch_size: int
    steps: int
    l2_norm_clip: float
    neighboring_relation: str
    unit: str
    assumptions: tuple[str, ...]
    mechanisms: tuple[Mapping[str, Any], ...]
    compute_dp_sgd_privacy_statement: str
    noise_source: str

    @property
    def is_releasable(self) -> bool:
        """Whether the noise was unpredictable; with seeded noise the mechanism ran, but protects nobody."""
        return self.noise_source == OPERATING_SYSTEM

    @functools.cached_property
    def text(self) -> str:
        """The promise in prose, for a person who has to decide whether to rely on it."""
        lines = [
            f"({self.epsilon:.4g}, {self.delta:g})-differential privacy for each of {self.num_examples} rows "
            f"({self.unit}; neighbours by {self.neighboring_relation}).",
            "",
            f"DP-SGD: {self.steps} steps, each row drawn with probability "
            f"{self.expected_batch_size / self.num_examples:.4g} (Poisson; {self.expected_batch_size} expected), "
            f"gradients clipped to {self.l2_norm_clip:g}, Gaussian noise of {self.noise_multiplier:.4g} times that.",
            f"Accountant: {self.accountant.upper()}. By RDP the same mechanisms cost {self.epsilon_rdp:.4g}; "
            f"compute_dp_sgd_privacy gives {self.epsilon_compute_dp_sgd_privacy:.4g} for DP-SGD alone.",
            "",
            "Mechanisms that touched the rows (epsilon of each alone; they compose to less than their sum):",
            *(f"- {part['name']}: epsilon {part['epsilon']:.4g}; {part['event']}" for part in self.mechanisms),
            "",
            "Assumptions:",
            *(f"- {assumption}" for assumption in self.assumptions),
        ]
        if not self.is_releasable:
            lines[0] = f"NOT FOR RELEASE: the noise was {self.noise_source} and protects nobody. Nominally " + lines[0]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """All attributes and the text (as `statement`), JSON-ready."""
        return dataclasses.asdict(self) | {"statement": self.text}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PrivacyStatement:
        """The inverse of `to_dict`, also after a trip through JSON."""
        names = {field.name for field in dataclasses.fields(cls)}
        kept: dict[str, Any] = {name: value for name, value in values.items() if name in names}
        for name in ("assumptions", "mechanisms"):
            kept[name] = tuple(kept[name])
        return cls(**kept)


def tensorflow_privacy_figures(
    num_examples: int, expected_batch_size: int, steps: int, noise_multiplier: float, delta: float
) -> tuple[float, str]:
    """What tensorflow-privacy's `compute_dp_sgd_privacy` and its statement say of a DP-SGD mechanism.

    Returns:
      (epsilon by RDP for Poisson sampling, the statement's text).
    """
    from tensorflow_privacy.privacy.analysis import compute_dp_sgd_privacy_lib as lib

    # The library turns epochs into ceil(epochs / q) steps; half a step less than asked for rounds up to what was asked.
    epochs = (steps - 0.5) * expected_batch_size / num_examples
    if noise_multiplier == 0:
        return math.inf, "Without noise there is no privacy to state."
    before = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)  # the library warns at length that the statement below is the better figure
    try:
        epsilon, _ = lib.compute_dp_sgd_privacy(num_examples, expected_batch_size, noise_multiplier, epochs, delta)
    finally:
        logging.set_verbosity(before)
    text = lib.compute_dp_sgd_privacy_statement(
        num_examples, expected_batch_size, epochs, noise_multiplier, delta, used_microbatching=False
    )
    return float(epsilon), text
