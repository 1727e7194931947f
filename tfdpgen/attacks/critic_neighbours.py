"""Neighbours: a critic scores the examples that it was trained on higher than their slightly changed copies.

Some examples look real to any critic. What a critic has learnt by heart shows in how far its score falls off around an
example: the score of a candidate, less the mean score of its neighbours. Mattern, Mireshghallah, Jin, Schoelkopf,
Sachan and Berg-Kirkpatrick 2023, "Membership inference attacks against language models via neighbourhood comparison",
arXiv 2305.18462, do so for sentences; Fu, Wang, Gao, Liu, Li and Jiang 2023, arXiv 2308.12143, for records of
generative models. It calibrates by difficulty (Watson, Guo, Cormode and Sablayrolles 2022, arXiv 2111.08440) without a
second model, which would have to be trained.

    get("critic_neighbours").score(known, candidates, rng)      # known.networks["critic"], as in `logan.py`

The neighbours of an image are its four copies that are moved by half a pixel, along either axis, by linear
interpolation: nearly the same image, which no data set would hold beside it. Nothing is random.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from tfdpgen.attacks.base import Attack, Knowledge, Scorer, register
from tfdpgen.attacks.critic import scores_that_count
from tfdpgen.data import LabeledDataset


@dataclasses.dataclass(frozen=True, eq=False)
class _AboveNeighbours:
    """Scorer: the critic's score of an image less the mean of those of its neighbours."""

    critic: Any

    def __call__(self, candidates: LabeledDataset) -> npt.NDArray[np.float64]:
        """Scores float64 [n]."""
        images = candidates.images.astype(np.float32) / np.float32(255)

        def mean_scores(images: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
            scores = scores_that_count(self.critic, images, candidates.labels, candidates.spec.num_classes)
            return np.mean(np.asarray(scores, np.float64), axis=1)

        return mean_scores(images) - np.mean([mean_scores(copies) for copies in neighbours(images)], axis=0)


def neighbours(images: npt.NDArray[np.float32]) -> Iterator[npt.NDArray[np.float32]]:
    """Images [n, h, w, c], moved by half a pixel down, up, right and left; what comes in repeats the edge."""
    height, width = images.shape[1:3]
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), "edge")
    for top, left in ((0, 1), (2, 1), (1, 0), (1, 2)):
        yield (images + padded[:, top : top + height, left : left + width]) / np.float32(2)


def prepare(known: Knowledge, rng: np.random.Generator) -> Scorer:
    """Takes the critic; nothing is random."""
    del rng
    return _AboveNeighbours(known.networks["critic"])


CRITIC_NEIGHBOURS = register(
    Attack(
        name="critic_neighbours",
        description=(
            "A candidate is the likelier a member the higher the privately trained critic scores it above copies of it "
            "that are moved by half a pixel."
        ),
        access="model",
        paper=(
            "Mattern et al. 2023, arXiv 2305.18462 (neighbourhood comparison), and Fu et al. 2023, arXiv 2308.12143, "
            "on the score of a critic"
        ),
        is_membership=True,
        prepare_fn=prepare,
        networks=("critic",),
    )
)
