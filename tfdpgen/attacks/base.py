"""What an attack is: a question, and a score for each candidate that answers it from what the attacker holds.

    attack = get("gan_leaks")
    known = Knowledge(release, synthetic=rows_handed_out, reference=rows_of_the_attacker)
    attack.score(known, candidates, np.random.default_rng(0))       # float [n]; higher is likelier a member

An attacker first prepares (trains a classifier, fits a density) and then scores each candidate on its own. It never
sees who is a member, nor any private example that is not among its candidates: `Knowledge` is all that it has.
`run_attacks` knows the members, and compares. A new attack is a preparing function in a file of its own, registered
with what it asks:

    def prepare(known: Knowledge, rng: np.random.Generator) -> Scorer:
        return NearestOfLabel(known.synthetic)

    register(Attack("distance", "...", access="samples", paper="...", is_membership=True, prepare_fn=prepare))
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from tfdpgen.data import Dataset, DataSpec, LabeledDataset

Access = Literal["samples", "model", "many trainings"]

CHUNK = 1000  # candidates that are scored at a time


class ReleaseLike(Protocol):
    """What is attacked: anything that draws labelled images, such as `tfdpgen.methods.Release`."""

    @property
    def spec(self) -> DataSpec:
        """The public facts about the data."""
        ...

    def sample(self, labels: Sequence[int] | npt.NDArray[np.integer], seed: int) -> npt.NDArray[np.uint8]:
        """One image [h, w, c] for each label."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class Knowledge:
    """All that an attacker holds.

    Attributes:
      release: the generator, to draw from at will.
      synthetic: examples that were handed out, with their labels.
      reference: real examples of the same population that are neither members nor candidates, for calibration. A real
        attacker has them from elsewhere.
      networks: what was trained privately beside the generator (`tfdpgen.methods.Fitted.networks`), by name.
        Empty for attackers that hold no more than was released.

    Raises:
      ValueError: if there are no synthetic or no reference examples, or their shape or classes are not the release's.
    """

    release: ReleaseLike
    synthetic: LabeledDataset
    reference: LabeledDataset
    networks: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        expected = self.release.spec.image_shape, self.release.spec.num_classes
        for name in ("synthetic", "reference"):
            examples: LabeledDataset = getattr(self, name)
            got = examples.spec.image_shape, examples.spec.num_classes
            if not len(examples) or got != expected:
                raise ValueError(
                    f"`{name}` should hold examples of the release's image_shape and num_classes, {expected}; got "
                    f"{len(examples)} examples of {got}."
                )


Scorer = Callable[[LabeledDataset], npt.NDArray[np.floating]]
PrepareFn = Callable[[Knowledge, np.random.Generator], Scorer]
Task = tuple[Scorer, LabeledDataset]
RunTasks = Callable[[Sequence[Task]], Sequence[npt.NDArray[np.floating]]]


@dataclasses.dataclass(frozen=True)
class Attack:
    """A question put to a scoring function.

    Attributes:
      name: what the registry and all metrics call it.
      description: a sentence or two for a reader of the metrics: what is compared with what, and what is asked.
      access: what the attacker holds: "samples" (the release and examples drawn from it), "model" (the networks that
        were trained privately beside it, too) or "many trainings" (releases of the same method from examples that it
        chose).
      paper: where the attack comes from.
      is_membership: whether it asks private examples against examples of the same source that were never trained on,
        which is what differential privacy bounds. If False, it asks private examples against uniform noise: whether the
        release shows what private examples look like at all, which no epsilon bounds and every useful release does.
      prepare_fn: (knowledge, rng) -> a function of candidates (images and labels) to float [n], or to float
        [n, columns] where attacks share their preparation; higher is likelier a member. Any randomness comes from
        `rng`, and a score depends on its own candidate alone. Attacks with the same `prepare_fn` are prepared and
        scored together.
      decision_threshold: a candidate with a higher score is called a member; None: the median of all candidates'
        scores, which an attacker who knows that half of them are members can compute.
      column: which of the scorer's columns is this attack's.
      networks: names of the networks that it needs.
      is_search: whether the scorer compares each candidate with many examples. It is then prepared once for all
        repetitions, can be pickled, holds NumPy arrays only, and may run anywhere.
    """

    name: str
    description: str
    access: Access
    paper: str
    is_membership: bool
    prepare_fn: PrepareFn
    decision_threshold: float | None = None
    column: int = 0
    networks: tuple[str, ...] = ()
    is_search: bool = False

    @property
    def facts(self) -> dict[str, Any]:
        """What a reader of its metrics has to know, as keyword arguments of `compare_scores`."""
        return {name: getattr(self, name) for name in ("description", "access", "paper", "is_membership")}

    def can_run(self, known: Knowledge) -> bool:
        """Whether the attacker holds the networks that the attack needs."""
        return set(self.networks) <= set(known.networks)

    def score(self, known: Knowledge, candidates: LabeledDataset, rng: np.random.Generator) -> npt.NDArray[np.float64]:
        """Prepares and scores candidates.

        Args:
          known: what the attacker holds.
          candidates: images and labels of the release's shape and classes.
          rng: all randomness; the same state gives the same scores.

        Returns:
          Finite float64 [n]; higher is likelier a member.

        Raises:
          ValueError: if the candidates are of another shape, a network is missing, or a score is missing or not finite.
        """
        check_candidates(known.release.spec, candidates)
        if not self.can_run(known):
            raise ValueError(
                f"attack {self.name!r} needs the networks {list(self.networks)}; `known` holds "
                f"{sorted(known.networks) or 'none'}. Train a method that has them, or leave this attack out."
            )
        tasks = chunked(self.prepare_fn(known, rng), candidates)
        return self.column_of(join_chunks(run_here(tasks), len(candidates)), len(candidates))

    def column_of(self, scores: npt.NDArray[np.floating], num_candidates: int) -> npt.NDArray[np.float64]:
        """This attack's column of what its scorer gave, checked.

        Raises:
          ValueError: if a score is missing or not finite.
        """
        columns = np.asarray(scores, np.float64)
        mine = columns[:, self.column] if columns.ndim == 2 and self.column < columns.shape[1] else columns
        if mine.shape != (num_candidates,) or not np.isfinite(mine).all():
            raise ValueError(
                f"attack {self.name!r} should give one finite score for each of {num_candidates} candidates; got "
                f"shape {list(mine.shape)}, {int(np.sum(~np.isfinite(mine)))} of them not finite. Correct its "
                "`prepare_fn`."
            )
        return mine


def check_candidates(spec: DataSpec, candidates: Dataset) -> None:
    """Refuses candidates that are not of the release's shape and classes.

    Raises:
      ValueError: says what was expected and what came.
    """
    expected = spec.image_shape, spec.num_classes
    got = candidates.spec.image_shape, candidates.spec.num_classes
    if got != expected:
        raise ValueError(f"`candidates` should have the release's image_shape and num_classes, {expected}; got {got}.")


def chunked(scorer: Scorer, candidates: LabeledDataset) -> list[Task]:
    """Tasks of at most `CHUNK` candidates each, in their order."""
    return [(scorer, part) for part in _chunks(candidates)]


def join_chunks(scores: Sequence[npt.NDArray[np.floating]], num_candidates: int) -> npt.NDArray[np.floating]:
    """The scores of all chunks; an empty array where there were no candidates."""
    return np.concatenate(scores) if num_candidates else np.zeros(0)


def run_here(tasks: Sequence[Task]) -> list[npt.NDArray[np.floating]]:
    """The scores of each task, one after another in this process: the `RunTasks` that needs nothing."""
    return [scorer(candidates) for scorer, candidates in tasks]


def _chunks(examples: LabeledDataset) -> Iterator[LabeledDataset]:
    """The examples in parts of `CHUNK`."""
    for start in range(0, len(examples), CHUNK):
        yield examples.take(np.arange(start, min(start + CHUNK, len(examples))))


ATTACKS: dict[str, Attack] = {}


def register(attack: Attack) -> Attack:
    """Adds an attack to `ATTACKS`.

    Raises:
      ValueError: if its name is taken.
    """
    if attack.name in ATTACKS:
        raise ValueError(f"`attack` should have a name of its own; {attack.name!r} is registered already.")
    ATTACKS[attack.name] = attack
    return attack


def get(name: str) -> Attack:
    """The attack of that name.

    Raises:
      ValueError: if there is none; the message lists what there is.
    """
    if name not in ATTACKS:
        raise ValueError(f"`name` should be one of {sorted(ATTACKS)}; got {name!r}.")
    return ATTACKS[name]
