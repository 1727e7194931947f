"""Memorisation: are synthetic rows nearer to the training rows than to other rows of the same source?

    found = memorisation(synthetic, splits.train, splits.holdout, seed=0)
    found.share_nearer_to_train                         # 0.5 where nothing was memorised

The nearest-record distances that are often shown as a proof of privacy (criticised by Ganev and De Cristofaro 2023,
arXiv 2312.05114, and Yao et al. 2025, arXiv 2505.01524). They prove nothing of the kind: rows can leak without a copy,
and a release may be near to the training rows because both are near to the population. What they do show is a generator
that copies. They are therefore kept apart from the attacks, and no cap stands beside them.

Train and holdout are reduced to equally many rows, since the nearest of more rows is nearer. Distances are Euclidean,
of pixels in [0, 1], whatever the label. All figures are internal: they are computed from private rows without noise.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from tfdpgen.attacks.base import RunTasks, chunked, join_chunks, run_here
from tfdpgen.attacks.neighbours import Nearest, flat
from tfdpgen.attacks.results import Interval, clopper_pearson
from tfdpgen.data import Dataset, LabeledDataset

_MOST_ROWS = 5_000  # of each kind that distances are computed between
_NEAR = 1.0  # per cent

DESCRIPTION = (
    "Distances from synthetic rows to the nearest of equally many training and held-out rows. A generator that copies "
    "shows here; one that leaks without copying does not. This is no measure of privacy."
)


@dataclasses.dataclass(frozen=True)
class Memorisation:
    """How near synthetic rows come to training rows and to others; internal.

    Attributes:
      share_nearer_to_train: share of synthetic rows whose nearest training row is nearer than the nearest held-out
        row; ties count half. 0.5 without memorisation.
      share_nearer_to_train_interval: Clopper and Pearson's, at 95 %; of the synthetic rows, given the others.
      median_distance_to_train, median_distance_to_holdout: of synthetic rows.
      median_distance_of_real: of held-out rows to their nearest training row.
      near_copy_distance: the distance within which 1 % of held-out rows have a training row.
      near_copies_of_train, near_copies_of_holdout: share of synthetic rows within that distance of one; 0.01 is what
        fresh real rows would have.
      exact_copies: synthetic rows, of all of them, that equal any training row, pixel by pixel.
      num_synthetic, num_reference: synthetic rows, and training and held-out rows each, that distances are between.
    """

    share_nearer_to_train: float
    share_nearer_to_train_interval: Interval
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
        """The figures as JSON-ready values, with a description."""
        figures = dataclasses.asdict(self)
        interval = list(self.share_nearer_to_train_interval)
        return {"description": DESCRIPTION, **figures, "share_nearer_to_train_interval": interval}


def memorisation(
    synthetic: LabeledDataset,
    members: Dataset,
    nonmembers: Dataset,
    *,
    seed: int,
    run_tasks: RunTasks = run_here,
) -> Memorisation:
    """Compares distances of synthetic rows to training rows with those to other rows.

    Args:
      synthetic: rows that were handed out.
      members: rows that the generator was trained on.
      nonmembers: rows of the same source that it was not trained on.
      seed: for which rows are compared where there are more than 5,000 of a kind.
      run_tasks: as in `run_attacks`.

    Raises:
      ValueError: if there are no rows of one kind.
    """
    if not (len(synthetic) and len(members) and len(nonmembers)):
        raise ValueError(
            "`synthetic`, `members` and `nonmembers` should have rows; "
            f"got {len(synthetic)}, {len(members)} and {len(nonmembers)}."
        )
    rng = np.random.default_rng(seed)
    size = min(len(members), len(nonmembers), _MOST_ROWS)
    train, holdout, drawn = (
        _some(rows, limit, rng) for rows, limit in ((members, size), (nonmembers, size), (synthetic, _MOST_ROWS))
    )
    to_train, to_holdout = Nearest(train.images), Nearest(holdout.images)
    searches = [chunked(to_train, drawn), chunked(to_holdout, drawn), chunked(to_train, holdout)]
    found = iter(run_tasks([task for search in searches for task in search]))
    from_train, from_holdout, real = (
        np.asarray(join_chunks([next(found) for _ in search], 1), np.float64) for search in searches
    )
    near = float(np.percentile(real, _NEAR))
    nearer = float(np.mean(np.heaviside(from_holdout - from_train, 0.5)))
    low, high = clopper_pearson(nearer * len(drawn), len(drawn), 0.025)
    return Memorisation(
        share_nearer_to_train=nearer,
        share_nearer_to_train_interval=(float(low), float(high)),
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


def _some(dataset: Dataset, size: int, rng: np.random.Generator) -> LabeledDataset:
    """At most `size` random rows."""
    positions = np.sort(rng.permutation(len(dataset))[:size])
    return LabeledDataset(*dataset.rows(positions), dataset.spec)


def _copies(synthetic: LabeledDataset, members: Dataset) -> int:
    """Synthetic rows that equal a member; members are read block by block."""
    of_synthetic: dict[bytes, int] = {}
    for row in _bytes(synthetic.images):
        of_synthetic[row] = of_synthetic.get(row, 0) + 1
    return sum(of_synthetic.pop(row, 0) for images, _ in members.blocks() for row in _bytes(images))


def _bytes(images: npt.NDArray[np.uint8]) -> list[bytes]:
    """Each image's bytes."""
    return [row.tobytes() for row in flat(images)]
