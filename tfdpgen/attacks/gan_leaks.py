"""GAN-Leaks: an example that a generator comes close to was probably among its training examples.

Chen, Yu, Zhang and Fritz 2020, arXiv 1909.03935. `gan_leaks` is the full black-box attack: the attacker has synthetic
examples and takes the distance to the nearest one, of the candidate's label since the generators here are conditional.
`gan_leaks_calibrated` is its calibrated form, which subtracts the same distance for a reference: some examples are easy
to come near to for anyone who knows the population, and that is no sign of membership. The paper's reference is a
generator trained on other examples; here examples that the attacker holds stand for its draws.

    get("gan_leaks").score(known, candidates, rng)      # minus the distance
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from tfdpgen.attacks.base import Attack, Knowledge, Scorer, register
from tfdpgen.attacks.neighbours import NearestOfLabel
from tfdpgen.data import LabeledDataset


@dataclasses.dataclass(frozen=True, eq=False)
class _Distances:
    """Scorer: [minus the distance to the synthetic examples, the same plus the distance to the reference]."""

    synthetic: NearestOfLabel
    reference: NearestOfLabel

    def __call__(self, candidates: LabeledDataset) -> npt.NDArray[np.float64]:
        """Scores float64 [n, 2]."""
        to_synthetic = self.synthetic(candidates)
        return np.stack([-to_synthetic, self.reference(candidates) - to_synthetic], axis=1)


def prepare(known: Knowledge, rng: np.random.Generator) -> Scorer:
    """Keeps the two sets of examples; nothing is random."""
    del rng
    return _Distances(NearestOfLabel(known.synthetic), NearestOfLabel(known.reference))


PAPER = "Chen, Yu, Zhang & Fritz 2020, arXiv 1909.03935"

GAN_LEAKS = register(
    Attack(
        name="gan_leaks",
        description="A candidate is the likelier a member the nearer it is to a synthetic example of its label.",
        access="samples",
        paper=f"{PAPER} (full black box)",
        is_membership=True,
        prepare_fn=prepare,
        is_search=True,
    )
)

GAN_LEAKS_CALIBRATED = register(
    Attack(
        name="gan_leaks_calibrated",
        description=(
            "A candidate is the likelier a member the nearer it is to a synthetic example than to a real example that "
            "the attacker holds, of its label."
        ),
        access="samples",
        paper=f"{PAPER} (calibrated by a reference)",
        is_membership=True,
        prepare_fn=prepare,
        column=1,
        is_search=True,
    )
)
