"""Memorisation: are synthetic examples nearer to the training examples than to other examples of the same source?

    found = measure_memorisation(synthetic, splits.train, splits.holdout, seed=0)
    found.share_nearer_to_train                         # 0.5 where nothing was memorised

The nearest-record distances that are often shown as a proof of privacy (criticised by Ganev and De Cristofaro 2023,
arXiv 2312.05114, and Yao et al. 2025, arXiv 2505.01524). They prove nothing of the kind: examples can leak without a
copy, and a release may be near to the training examples because both are near to the population. What they do show is a
generator that copies. They are therefore kept apart from the attacks, and no upper bound stands beside them.

Train and holdout are reduced to equally many examples, since the nearest of more examples is nearer. Distances are
Euclidean, of pixels in [0, 1], whatever the label. All metrics are internal: they are computed from private examples
without noise.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from tfdpgen.attacks.base import RunTasks, chunked, join_chunks, run_here
from tfdpgen.attacks.neighbours import Nearest, NearestPosition, flat
from tfdpgen.attacks.results import Interval
from tfdpgen.data import Dataset, LabeledDataset

_MOST_EXAMPLES = 5_000  # of each kind that distances are computed between
_NEAR = 1.0  # per cent

DESCRIPTION = (
    "Distances from synthetic examples to the nearest of equally many training and held-out examples. A generator that "
    "copies shows here; one that leaks without copying does not. This is no measure of privacy."
)


@dataclasses.dataclass(frozen=True)
class Memorisation:
    """How near synthetic examples come to training examples and to others; internal.

    Attributes:
      share_nearer_to_train: share of synthetic examples whose nearest training example is nearer than the nearest
        held-out example; ties count half. 0.5 without memorisation.
      share_without_memorisation: where 95 % of these shares would lie if training and held-out examples were exchanged
        at random: a share within shows no memorisation. Wide where few examples are the nearest of many.
      median_distance_to_train, median_distance_to_holdout: of synthetic examples.
      median_distance_of_real: of held-out examples to their nearest training example.
      near_copy_distance: the distance within which 1 % of held-out examples have a training example.
      near_copies_of_train, near_copies_of_holdout: share of synthetic examples within that distance of one; 0.01 is
        what fresh real examples would have.
      exact_copies: synthetic examples, of all of them, that equal any training example, pixel by pixel.
      num_synthetic, num_reference: synthetic examples, and training and held-out examples each, that distances are
        between.
    """

    share_nearer_to_train: float
    share_without_memorisation: Interval
    median_distance_to_train: float
    median_distance_to_holdout: float
    median_distance_of_real: float
    near_copy_distance: float
    near_copies_of_train: float
    near_copies_of_holdout: float
    exact_copies: int
    num_synthetic: int
    num_reference: int

    def to_dict(self) -> dict[str, Any]:
        """The metrics as JSON-ready values, with a description."""
        metrics = dataclasses.asdict(self)
        return {
            "description": DESCRIPTION,
            **metrics,
            "share_without_memorisation": list(self.share_without_memorisation),
        }


def measure_memorisation(
    synthetic: LabeledDataset,
    members: Dataset,
    nonmembers: Dataset,
    *,
    seed: int,
    run_tasks: RunTasks = run_here,
) -> Memorisation:
    """Compares distances of synthetic examples to training examples with those to other examples.

    Args:
      synthetic: examples that were handed out.
      members: examples that the generator was trained on.
      nonmembers: examples of the same source that it was not trained on.
      seed: for which examples are compared where there are more than 5,000 of a kind.
      run_tasks: as in `run_attacks`.

    Raises:
      ValueError: if there are no examples of one kind.
    """
    if not (len(synthetic) and len(members) and len(nonmembers)):
        raise ValueError(
            "`synthetic`, `members` and `nonmembers` should have examples; "
            f"got {len(synthetic)}, {len(members)} and {len(nonmembers)}."
        )
    rng = np.random.default_rng(seed)
    size = min(len(members), len(nonmembers), _MOST_EXAMPLES)
    train, holdout, drawn = (
        _some(examples, limit, rng)
        for examples, limit in ((members, size), (nonmembers, size), (synthetic, _MOST_EXAMPLES))
    )
    to_train, to_holdout = Nearest(train.images), Nearest(holdout.images)
    of_both = NearestPosition(np.concatenate([train.images, holdout.images]))
    searches = [
        chunked(to_train, drawn),
        chunked(to_holdout, drawn),
        chunked(to_train, holdout),
        chunked(of_both, drawn),
    ]
    found = iter(run_tasks([task for search in searches for task in search]))
    from_train, from_holdout, real, owners = (
        np.asarray(join_chunks([next(found) for _ in search], 1), np.float64) for search in searches
    )
    near = float(np.percentile(real, _NEAR))
    nearer = float(np.mean(np.heaviside(from_holdout - from_train, 0.5)))
    return Memorisation(
        share_nearer_to_train=nearer,
        share_without_memorisation=_by_chance(owners.astype(np.int64), 2 * size),
        median_distance_to_train=float(np.median(from_train)),
        median_distance_to_holdout=float(np.median(from_holdout)),
        median_distance_of_real=float(np.median(real)),
        near_copy_distance=near,
        near_copies_of_train=float(np.mean(from_train <= near)),
        near_copies_of_holdout=float(np.mean(from_holdout <= near)),
        exact_copies=_copies(synthetic, members),
        num_synthetic=len(drawn),
        num_reference=size,
    )


def _by_chance(owners: npt.NDArray[np.int64], num_references: int) -> Interval:
    """Where 95 % of the shares lie whose owners are in a random half of the references.

    Of references that own c_r of n examples, a random half owns a share of mean 1/2 and of the variance of a sum drawn
    without replacement.
    """
    counts = np.bincount(owners, minlength=num_references)
    spread = np.square(counts - counts.mean()).sum() / (4 * (num_references - 1) * len(owners) ** 2) * num_references
    margin = 1.96 * float(np.sqrt(spread))
    return max(0.0, 0.5 - margin), min(1.0, 0.5 + margin)


def _some(dataset: Dataset, size: int, rng: np.random.Generator) -> LabeledDataset:
    """At most `size` random examples."""
    positions = np.sort(rng.permutation(len(dataset))[:size])
    return LabeledDataset(*dataset.examples(positions), dataset.spec)


def _copies(synthetic: LabeledDataset, members: Dataset) -> int:
    """Synthetic examples that equal a member; members are read block by block."""
    of_synthetic: dict[bytes, int] = {}
    for example in _bytes(synthetic.images):
        of_synthetic[example] = of_synthetic.get(example, 0) + 1
    return sum(of_synthetic.pop(example, 0) for images, _ in members.blocks() for example in _bytes(images))


def _bytes(images: npt.NDArray[np.uint8]) -> list[bytes]:
    """Each image's bytes."""
    return [example.tobytes() for example in flat(images)]
