"""What is said of a run before anything is reserved: its cost, its chance, and whether it would fit.

    facts = Facts.of(Splits.load("examples"))             # counts labels; holds no example afterwards
    preflight = check(facts, "gaussian_mixture", PrivacyBudget(3.0, 1e-5), num_synthetic=6000, expected_bytes=...)
    print(preflight.text)
    preflight.refusal                                     # a sentence if the run would not fit into memory, or ""

Three parts: what the training takes on this machine (`rehearsal.py`, measured on noise), what the budget leaves of a
class (`signal.py`, from public facts), and what this machine has (`tfdpgen.machine`). The one number that is counted on
private examples is the size of the smallest class. It is marked internal, is shown to whoever runs this, and decides
nothing. Which declared classes have no example is private as well, so that none is named.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tfdpgen.data.dataset import Dataset, DataSpec, LabeledDataset
from tfdpgen.data.public_images import PublicImages
from tfdpgen.data.splits import Splits
from tfdpgen.machine import available_memory, memory_in_use
from tfdpgen.methods.rehearsal import Cost, rehearse
from tfdpgen.methods.signal import HOPELESS, Advice, advise, signal_of
from tfdpgen.methods.training import promises_to
from tfdpgen.privacy import PrivacyBudget, PrivacyUnit
from tfdpgen.privacy.session import num_users

_LATER_STEPS = 2**29  # bytes that attacks and evaluation hold beyond the data, measured on digits and MNIST
_WRITE_SECONDS = 3e-4  # to write one synthetic example, besides drawing it, measured; see docs/preflight.md
_KEPT = 3  # places that a run keeps the synthetic examples in: generate's artifact, publish's, and output_dir

_MEASURED = ("gaussian_mixture", "c_vae")  # with which the threshold of signal to noise was found


@dataclasses.dataclass(frozen=True)
class Facts:
    """What the preflight knows of the data.

    Attributes:
      spec: public facts.
      num_examples: of the private training split; public by assumption.
      bytes_in_memory: of the images of all splits that are in memory; public, since counts and shape are.
      is_in_memory: whether the training split is.
      smallest_class: training examples of the class that has fewest. INTERNAL: no noise is added to it.
      num_users: of the training split, public by assumption; None where users are not known.
    """

    spec: DataSpec
    num_examples: int
    bytes_in_memory: int
    is_in_memory: bool
    smallest_class: int
    num_users: int | None = None

    @classmethod
    def of(cls, splits: Splits) -> Facts:
        """Reads the training split once, block by block, for its labels."""
        parts: tuple[Dataset, ...] = (splits.train, splits.holdout, splits.test)
        in_memory = sum(len(part) for part in parts if isinstance(part, LabeledDataset))
        counts = np.zeros(splits.spec.num_classes, np.int64)
        for _, labels in splits.train.blocks():
            counts += np.bincount(labels, minlength=len(counts))
        return cls(
            spec=splits.spec,
            num_examples=len(splits.train),
            bytes_in_memory=in_memory * math.prod(splits.spec.image_shape),
            is_in_memory=isinstance(splits.train, LabeledDataset),
            smallest_class=int(counts.min()),
            num_users=None if splits.train.user_ids is None else num_users(splits.train),
        )


@dataclasses.dataclass(frozen=True)
class Preflight:
    """What was found.

    Attributes:
      facts: of the data; `facts.smallest_class` is internal.
      method, epsilon, delta, num_synthetic, label_distribution: what was asked for.
      cost: of the training.
      signal: the signal-to-noise ratio of a class; see `signal.py`.
      advice: what would raise it to `HOPELESS`; None where that is not needed.
      bytes_on_disk: that the synthetic examples take at most, in all places that a run keeps them.
      disk_there: bytes that are free where the run writes; None where that is not known.
      seconds_of_synthesis: to draw and write them.
      memory_needed: bytes that this process would hold at most.
      memory_there: bytes that it could; None where the system does not say.
    """

    facts: Facts
    method: str
    epsilon: float
    delta: float
    num_synthetic: int
    label_distribution: str
    cost: Cost
    signal: float
    advice: Advice | None
    bytes_on_disk: int
    disk_there: int | None
    seconds_of_synthesis: float
    memory_needed: int
    memory_there: int | None

    @property
    def refusal(self) -> str:
        """Why the run should not start, and which flag helps; empty where it may."""
        if self.memory_there is None or self.memory_needed <= self.memory_there:
            return ""
        data = self.facts.bytes_in_memory
        helps = (
            "on_disk keeps a TFDS data set on disk; other data need fewer examples or a smaller `image_shape`"
            if data > self.memory_needed / 4
            else "a smaller `image_shape` or `method` gaussian_mixture needs less"
        )
        return (
            f"this run would need about {_size(self.memory_needed)} of memory, and {_size(self.memory_there)} are "
            f"there. Nothing was reserved. Free some, or take another machine; {helps}."
        )

    @property
    def text(self) -> str:
        """All of it for people, a line for each number."""
        facts, spec = self.facts, self.facts.spec
        height, width, channels = spec.image_shape
        there = "unknown" if self.memory_there is None else _size(self.memory_there)
        disk = f"at most {_size(self.bytes_on_disk)} on disk"
        if self.disk_there is not None and self.disk_there < self.bytes_on_disk:
            disk += f", WHERE ONLY {_size(self.disk_there)} ARE FREE: ask for a smaller --num_synthetic or free some"
        lines = [
            f"Data: {facts.num_examples:,} private training examples{self._users()}, {spec.num_classes} declared "
            f"classes, images of {height} x {width} x {channels}",
            f"Smallest class: {facts.smallest_class:,} training example{'s' * (facts.smallest_class != 1)} "
            "[internal: counted without noise, not for release]",
            f"Training with {self.method} on this machine: {_time(self.cost.seconds)}",
            f"Memory: about {_size(self.memory_needed)}, of {there} that this process can have",
            f"Synthetic examples: {self.num_synthetic:,}, {_time(self.seconds_of_synthesis)} to draw and write, {disk}",
            self._labels(),
            f"Signal to noise of a class at epsilon {self.epsilon:g}: {_ratio(self.signal)} ({self._judged()})",
        ]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON-ready values, with `internal`: the names of those that are private."""
        values = dataclasses.asdict(self)
        smallest = values["facts"].pop("smallest_class")
        return {**values, "hopeless_below": HOPELESS, "smallest_class": smallest, "internal": ["smallest_class"]}

    def _users(self) -> str:
        """How many users they are of, where the promise is made to these."""
        is_to_users = promises_to(self.method) is PrivacyUnit.USER
        return f" of {self.facts.num_users:,} users, to each of whom the promise is made" if is_to_users else ""

    def _labels(self) -> str:
        """How many synthetic examples a class gets."""
        if self.label_distribution == "private":
            return (
                "Their labels: by noisy counts of the private ones, which a fiftieth of the budget buys. A declared "
                "class that is rare may get none."
            )
        return (
            f"Their labels: balanced, about {self.num_synthetic / self.facts.spec.num_classes:,.0f} of each declared "
            "class, whatever the private frequencies are. A declared class without private examples gets as many, all "
            "noise. Which classes have examples is private, so that none can be named here."
        )

    def _judged(self) -> str:
        """What the ratio means."""
        if self.advice is None:
            other = (
                "" if self.method in _MEASURED else f", measured with {_MEASURED[0]}: {self.method} may need far more"
            )
            return f"hopeless below {HOPELESS:g}{other}; docs/preflight.md says what to expect"
        advice, (height, width, channels) = self.advice, self.advice.image_shape or (0, 0, 0)
        ways = [
            f"--epsilon={advice.epsilon:.2g}" if advice.epsilon is not None else "",
            f"at most {advice.num_classes} classes of the same examples" if advice.num_classes else "",
            f"images of {height} x {width} x {channels}, prepared so" if advice.image_shape else "",
        ]
        would = ", or ".join(way for way in ways if way) or "more examples"
        if self.method not in _MEASURED:
            would = f"--method={_MEASURED[0]}, with which this was measured, and with it {would}"
        return f"HOPELESS: below {HOPELESS:g} images are hardly more than noise. What would help: {would}"


def check(
    facts: Facts,
    method: str,
    budget: PrivacyBudget,
    *,
    num_synthetic: int,
    expected_bytes: Callable[..., int],
    labeller_share: float = 0.0,
    label_distribution: str = "balanced",
    public_images: PublicImages | None = None,
    augment: bool = False,
    disk_there: int | None = None,
    available: int | None = None,
) -> Preflight:
    """Measures and derives all of it. No example is at hand here, and nothing is reserved.

    Args:
      facts: of the data.
      method: the method's name.
      budget: of the training.
      num_synthetic: plain synthetic examples that are asked for.
      expected_bytes: (num_synthetic, spec, has_augmented=bool) -> the most bytes that one copy takes on disk.
      labeller_share: as in `train`.
      label_distribution: as in `train`.
      public_images: as in `train`.
      augment: whether augmented examples come without a labeller too.
      disk_there: bytes that are free where the run writes, if that is known.
      available: bytes of memory that this process may still take; by default what the system says.

    Raises:
      ValueError: whatever the training would refuse before it reserves.
    """
    spec, num_examples = facts.spec, facts.num_examples
    cost = rehearse(
        method, spec, num_examples, budget, labeller_share, label_distribution, public_images, facts.num_users
    )
    units = num_examples if promises_to(method) is PrivacyUnit.EXAMPLE else facts.num_users or 1
    gathered = cost.bytes_per_example * num_examples if facts.is_in_memory else 0
    needed = cost.memory + facts.bytes_in_memory + max(gathered, _LATER_STEPS)
    available = available_memory() if available is None else available
    ratio = signal_of(spec, units, budget)
    has_augmented = augment or cost.has_labeller
    written = num_synthetic * (2 if has_augmented else 1)
    return Preflight(
        facts=facts,
        method=method,
        epsilon=budget.epsilon,
        delta=budget.delta,
        num_synthetic=num_synthetic,
        label_distribution=label_distribution,
        cost=cost,
        signal=ratio,
        advice=advise(spec, units, budget) if ratio < HOPELESS else None,
        bytes_on_disk=_KEPT * expected_bytes(num_synthetic, spec, has_augmented=has_augmented),
        disk_there=disk_there,
        seconds_of_synthesis=written * (cost.seconds_per_sample + _WRITE_SECONDS),
        memory_needed=needed,
        memory_there=None if available is None else memory_in_use() + available,
    )


def _ratio(number: float) -> str:
    """A ratio for people."""
    return f"{number:.0f}" if number >= 10 else f"{number:.2g}"


def _size(number: float) -> str:
    """Bytes for people."""
    return f"{number / 2**30:.1f} GiB" if number >= 2**29 else f"{max(1, math.ceil(number / 2**20))} MiB"


def _time(seconds: float) -> str:
    """Seconds for people, no more exact than the estimate is."""
    if seconds < 5:
        return "a few seconds"
    if seconds < 100:
        return f"about {seconds:.0f} s"
    return f"about {seconds / 60:.0f} minutes" if seconds < 7200 else f"about {seconds / 3600:.1f} hours"
