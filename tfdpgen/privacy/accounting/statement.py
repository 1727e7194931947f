"""What is promised to each example, on which assumptions: the statement that goes with every release."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import dp_accounting
from absl import logging

from tfdpgen.installation import tensorflow_privacy
from tfdpgen.privacy.accounting.epsilon import epsilon_of
from tfdpgen.privacy.accounting.events import Mechanism, compose, gaussian_parts, is_gaussian

OPERATING_SYSTEM = "operating system"  # the noise source of everything that may be released

UNITS = {
    "example": "one image with its label",
    "user": "one user with all of that user's images, however many",
}
_UNIT_ASSUMPTIONS = {
    "example": "The unit of privacy is one example (one image with its label). A person who contributed several "
    "examples is protected less, by group privacy.",
    "user": "The unit of privacy is one user: all images that the data set says are that user's. A person who is "
    "several users is protected less, by group privacy.",
}

_ASSUMPTIONS = (
    "Two data sets are neighbours if one is the other with one {unit} added or removed, or, for the epsilon under "
    "replace-one, with one {unit} replaced. The number of {unit}s and the declared shape, value range and classes are "
    "treated as public, and so is what follows from them: settings, number of steps and sampling probability.",
    "Neighbours differ in the training {unit}s as the training was given them. Where these were dealt from a larger "
    "source by position, replacing one {unit} in its place there replaces at most one training {unit}, which the "
    "epsilon under replace-one covers; adding one {unit} to the source or removing one deals others to other splits as "
    "well, which no epsilon here covers. Where the source brings its own train, validation and test split, nothing is "
    "dealt.",
    "All other hyperparameters were fixed before the private examples were touched; choosing between runs by their "
    "results is not accounted.",
    "Where a mechanism is DP-SGD, each of its steps samples every {unit} independently with the same probability "
    "(Poisson sampling); which were sampled, and how many, stays secret.",
    "One {unit} moves the sum to which a mechanism adds noise by at most the declared bound. Where a mechanism is "
    "DP-SGD, gradients are clipped {unit} by {unit}, no layer mixes examples, and a gradient that is not finite counts "
    "as zero. Whatever is random about an example in training is drawn from a secret generator.",
    "Everything released was computed from the listed mechanisms' outputs and from what is public. Losses, the count "
    "of gradients that were not finite, scores of attacks and utility, backups and the ledger stay inside the trust "
    "boundary.",
    "This statement covers this release. Other releases from the same examples add to what may be learnt about them.",
    "Noise of DP-SGD, and what is drawn for an example in training, comes from Threefry-2x32 with 64-bit keys, Poisson "
    "samples and all other noise from PCG64 with 256-bit seeds, all from the operating system's entropy. "
    "These generators are statistical, not cryptographic; nobody is assumed to predict them or to search their keys.",
    "Epsilon is computed for real numbers. Norms, sums and noise of trainings are 32-bit floating point (without "
    "TF32), normals of DP-SGD end at 6.7 standard deviations, and the accountant rounds too; attacks on rounding or "
    "timing are not covered.",
)


def assumptions_for(unit: str) -> tuple[str, ...]:
    """The sentences that every promise to an "example" or a "user" rests on."""
    return (_UNIT_ASSUMPTIONS[unit], *(sentence.format(unit=unit) for sentence in _ASSUMPTIONS))


ASSUMPTIONS = assumptions_for("example")


@dataclasses.dataclass(frozen=True)
class PrivacyStatement:
    """What is promised to each example, and on which assumptions; it holds no private metric and may be published.

    Attributes:
      epsilon: the cost of all mechanisms together at `delta`, by `accountant`.
      delta: the probability with which epsilon may be exceeded.
      accountant: "pld" or "rdp".
      epsilon_rdp: the same cost by the looser RDP accountant.
      epsilon_replace_one: the same mechanisms' cost at `delta` by `accountant` where neighbours differ by replacing one
        example.
      epsilon_compute_dp_sgd_privacy: tensorflow-privacy's epsilon (RDP) for the last DP-SGD mechanism alone. This and
        the other facts of DP-SGD are None where there was none.
      noise_multiplier: of DP-SGD: standard deviation of the noise / l2_norm_clip.
      sampling: "poisson" where a mechanism reads Poisson samples, or "none" where every mechanism reads all examples.
      num_examples: private examples, or users where these are the unit, to each of which the promise is made.
      expected_batch_size: examples that a step samples on average, and the divisor of its gradient sum.
      steps: accounted steps.
      l2_norm_clip: bound on the norm of one example's gradient.
      neighboring_relation: of every epsilon but `epsilon_replace_one`: "add-or-remove-one".
      unit: whose presence epsilon bounds: "one image with its label", or one user with all images.
      assumptions: sentences that the promise rests on.
      priors: public assumptions about the data that were built in; they cost nothing and touch no private example.
      mechanisms: {name, event, epsilon (of this mechanism alone at delta), share (of mu squared)} of everything
        that touched the private examples. The shares add up to more than 1, since mechanisms compose to less than their
      sum. compute_dp_sgd_privacy_statement: tensorflow-privacy's own text about the DP-SGD mechanism; empty without
      one. noise_source: "operating system", or "seeded" for runs that protect nobody.
    """

    epsilon: float
    delta: float
    accountant: str
    epsilon_rdp: float
    epsilon_replace_one: float
    epsilon_compute_dp_sgd_privacy: float | None
    noise_multiplier: float | None
    sampling: str
    num_examples: int
    expected_batch_size: int | None
    steps: int | None
    l2_norm_clip: float | None
    neighboring_relation: str
    unit: str
    assumptions: tuple[str, ...]
    priors: tuple[str, ...]
    mechanisms: tuple[Mapping[str, Any], ...]
    compute_dp_sgd_privacy_statement: str
    noise_source: str

    @property
    def is_releasable(self) -> bool:
        """Whether the noise was unpredictable; with seeded noise the mechanism ran, but protects nobody."""
        return self.noise_source == OPERATING_SYSTEM

    @property
    def _things(self) -> str:
        """What `num_examples` counts."""
        return "users" if self.unit == UNITS["user"] else "examples"

    @functools.cached_property
    def text(self) -> str:
        """The promise in prose, for a person who has to decide whether to rely on it."""
        lines = [
            f"({self.epsilon:.4g}, {self.delta:g})-differential privacy on {self.num_examples} private {self._things} "
            f"(unit: {self.unit}; neighbours by {self.neighboring_relation}).",
            "",
            *self._training_lines(),
            f"Accountant: {self.accountant.upper()}. By RDP the same mechanisms cost {self.epsilon_rdp:.4g}.",
            f"Where neighbours differ by replacing one unit (replace-one), epsilon is {self.epsilon_replace_one:.4g}.",
            "",
            "Mechanisms that touched private examples (epsilon of each alone, which compose to less than their sum, "
            "and its share of mu squared, which adds up):",
            *(
                f"- {part['name']}: epsilon {part['epsilon']:.4g}, {part['share']:.0%} of the whole; {part['event']}"
                for part in self.mechanisms
            ),
            "",
            f"Public priors: {'; '.join(self.priors) or 'none'}.",
            "",
            "Assumptions:",
            *(f"- {assumption}" for assumption in self.assumptions),
        ]
        if not self.is_releasable:
            lines[0] = f"NOT FOR RELEASE: the noise was {self.noise_source} and protects nobody. Nominally " + lines[0]
        return "\n".join(lines)

    def _training_lines(self) -> list[str]:
        """What DP-SGD did, if there was any."""
        if self.steps is None or self.expected_batch_size is None:
            return []
        return [
            f"DP-SGD: {self.steps} steps, each example sampled with probability "
            f"{self.expected_batch_size / self.num_examples:.4g} (Poisson; {self.expected_batch_size} expected), "
            f"gradients clipped to {self.l2_norm_clip:g}, Gaussian noise of {self.noise_multiplier:.4g} times that; "
            f"compute_dp_sgd_privacy gives {self.epsilon_compute_dp_sgd_privacy:.4g} for it alone.",
        ]

    def to_dict(self) -> dict[str, Any]:
        """All attributes and the text (as `statement`), JSON-ready."""
        return dataclasses.asdict(self) | {"statement": self.text}

    def summary(self) -> dict[str, Any]:
        """What is promised and by what, without sentences, JSON-ready."""
        names = ("epsilon", "delta", "num_examples", "unit", "noise_source")
        plan = [{name: part[name] for name in ("name", "event", "epsilon")} for part in self.mechanisms]
        return {**{name: getattr(self, name) for name in names}, "plan": plan}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PrivacyStatement:
        """The inverse of `to_dict`, also after a trip through JSON."""
        names = {field.name for field in dataclasses.fields(cls)}
        kept: dict[str, Any] = {name: value for name, value in values.items() if name in names}
        for name in ("assumptions", "priors", "mechanisms"):
            kept[name] = tuple(kept[name])
        return cls(**kept)


class TrainingFacts(Protocol):
    """What a statement says of DP-SGD; `DPSGD` has it."""

    @property
    def expected_batch_size(self) -> int: ...

    @property
    def steps(self) -> int: ...

    @property
    def l2_norm_clip(self) -> float: ...

    @property
    def noise_multiplier(self) -> float | None: ...


def make_statement(
    mechanisms: Sequence[Mechanism],
    num_examples: int,
    delta: float,
    noise_source: str,
    *,
    training: TrainingFacts | None = None,
    accountant: str = "pld",
    priors: Sequence[str] = (),
    unit: str = "example",
) -> PrivacyStatement:
    """What mechanisms promise together.

    Args:
      mechanisms: everything that touches the private examples.
      num_examples: private examples, to each of which the promise is made.
      delta: at which epsilon is stated.
      noise_source: `NoiseSource.description`.
      training: the one of them that is DP-SGD, if there is one; with noise.
      accountant: "pld" or "rdp".
      priors: public assumptions about the data.
      unit: "example" or "user".
    """
    event = compose(mechanisms)
    epsilon = epsilon_of(event, delta, accountant)
    costs = [epsilon_of(mechanism.event, delta, accountant) for mechanism in mechanisms]
    squares = [_mu_squared(cost, delta) for cost in costs]
    facts: dict[str, Any] = dict.fromkeys(
        ("noise_multiplier", "expected_batch_size", "steps", "l2_norm_clip", "epsilon_compute_dp_sgd_privacy")
    )
    facts["compute_dp_sgd_privacy_statement"] = ""
    if training is not None:
        facts.update({name: getattr(training, name) for name in facts if hasattr(training, name)})
        reported = tensorflow_privacy_epsilon(
            num_examples, training.expected_batch_size, training.steps, facts["noise_multiplier"], delta
        )
        facts["epsilon_compute_dp_sgd_privacy"], facts["compute_dp_sgd_privacy_statement"] = reported
    return PrivacyStatement(
        epsilon=epsilon,
        delta=delta,
        accountant=accountant,
        epsilon_rdp=epsilon_of(event, delta, "rdp"),
        epsilon_replace_one=epsilon_of(event, delta, accountant, "replace-one"),
        sampling="poisson" if _is_sampled(event) else "none",
        num_examples=num_examples,
        neighboring_relation="add-or-remove-one",
        unit=UNITS[unit],
        assumptions=(*assumptions_for(unit), *dict.fromkeys(filter(None, map(_assumption_of, mechanisms)))),
        priors=tuple(priors),
        mechanisms=tuple(
            {
                "name": mechanism.name,
                "event": str(mechanism.event),
                "epsilon": cost,
                "share": square / sum(squares) if 0 < sum(squares) < math.inf else 1.0,
            }
            for mechanism, cost, square in zip(mechanisms, costs, squares, strict=True)
        ),
        noise_source=noise_source,
        **facts,
    )


def _is_sampled(event: dp_accounting.DpEvent) -> bool:
    """Whether some mechanism reads a Poisson sample, of examples, users or networks on shards."""
    return is_gaussian(event) and any(part.sampling_probability < 1 for part in gaussian_parts(event))


def _assumption_of(mechanism: Mechanism) -> str:
    """What the promise of one mechanism rests on beside what all rest on; empty where there is nothing."""
    return getattr(mechanism, "assumption", "")


def _mu_squared(epsilon: float, delta: float) -> float:
    """Of the Gaussian mechanism that costs as much; squares add up where mechanisms are composed (Dong et al. 2022)."""
    if not 0 < epsilon < math.inf:
        return epsilon
    return dp_accounting.get_sigma_gaussian(epsilon, delta) ** -2


def tensorflow_privacy_epsilon(
    num_examples: int, expected_batch_size: int, steps: int, noise_multiplier: float, delta: float
) -> tuple[float, str]:
    """What tensorflow-privacy's `compute_dp_sgd_privacy` and its statement say of a DP-SGD mechanism.

    Returns:
      (epsilon by RDP for Poisson sampling, the statement's text).
    """
    lib = tensorflow_privacy("privacy.analysis.compute_dp_sgd_privacy_lib")
    # The library turns epochs into ceil(epochs / q) steps; half a step less than asked for rounds up to what was asked.
    epochs = (steps - 0.5) * expected_batch_size / num_examples
    if noise_multiplier == 0:
        return math.inf, "Without noise there is no privacy to state."
    before = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)  # the library warns at length that the statement below is the better one
    try:
        epsilon, _ = lib.compute_dp_sgd_privacy(num_examples, expected_batch_size, noise_multiplier, epochs, delta)
    finally:
        logging.set_verbosity(before)
    text = lib.compute_dp_sgd_privacy_statement(
        num_examples, expected_batch_size, epochs, noise_multiplier, delta, used_microbatching=False
    )
    return float(epsilon), text
