"""What is promised to each row, on which assumptions: the statement that goes with every release."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

from absl import logging

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
