"""LOGAN: a critic scores the examples that it was trained on higher than others.

Hayes, Melis, Danezis and De Cristofaro 2019, arXiv 1705.07663, white-box attack: rank candidates by the
trained discriminator. The critic of a DP-GAN is trained by DP-SGD, so that even who holds it can learn no more than
epsilon allows; that makes it the strongest honest test of that training. It is no part of a release.

    get("logan").score(known, candidates, rng)          # known.networks["critic"]: images -> scores [n, num_classes]

A critic that looks at parts of an image and at no label gives one score a part, [n, parts]; their mean counts.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from tfdpgen.attacks.base import Attack, Knowledge, Scorer, register
from tfdpgen.attacks.critic import scores_that_count
from tfdpgen.data import LabeledDataset


@dataclasses.dataclass(frozen=True, eq=False)
class _Critic:
    """Scorer: the critic's score of an image as an image of its label, or of its parts where it knows no labels."""

    critic: Any

    def __call__(self, candidates: LabeledDataset) -> npt.NDArray[np.float64]:
        """Scores float64 [n]."""
        images = candidates.images.astype(np.float32) / 255
        scores = scores_that_count(self.critic, images, candidates.labels, candidates.spec.num_classes)
        return np.mean(np.asarray(scores, np.float64), axis=1)


def prepare(known: Knowledge, rng: np.random.Generator) -> Scorer:
    """Takes the critic; nothing is random."""
    del rng
    return _Critic(known.networks["critic"])


LOGAN = register(
    Attack(
        name="logan",
        description="A candidate is the likelier a member the higher the privately trained critic scores it.",
        access="model",
        paper="Hayes, Melis, Danezis & De Cristofaro 2019, arXiv 1705.07663 (white box)",
        is_membership=True,
        prepare_fn=prepare,
        networks=("critic",),
    )
)
