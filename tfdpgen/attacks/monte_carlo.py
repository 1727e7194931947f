"""Monte Carlo: how many synthetic examples fall close to a candidate?

Hilprecht, Haerterich and Bernau 2019, "Monte Carlo and reconstruction membership inference attacks against generative
models": generators that overfit put more of their draws around training examples than elsewhere. Distances are
taken after a principal component analysis to 40 components, as in the paper, and a draw is close if it lies within a
radius epsilon. The paper's median heuristic takes for it the median, over the candidates, of the distance to the
nearest draw. Here it is the median over the attacker's reference examples, which lie as candidates lie, so that no
score depends on who else is asked about. Only draws of the candidate's label count.

    get("monte_carlo").score(known, candidates, rng)    # the share of draws within the radius
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from tfdpgen.attacks.base import Attack, Knowledge, Scorer, register
from tfdpgen.attacks.neighbours import count_within, nearest
from tfdpgen.attacks.projection import Projection
from tfdpgen.data import LabeledDataset

_COMPONENTS = 40


@dataclasses.dataclass(frozen=True, eq=False)
class _Share:
    """Scorer: the share of the draws of a candidate's label that lie within the radius."""

    projection: Projection
    draws: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    radius: float

    def __call__(self, candidates: LabeledDataset) -> npt.NDArray[np.float64]:
        """Scores float64 [n]."""
        points, shares = self.projection(candidates.images), np.zeros(len(candidates))
        for label in np.unique(candidates.labels):
            asked, own = candidates.labels == label, self.labels == label
            shares[asked] = count_within(points[asked], self.draws[own], self.radius) / max(1, np.sum(own))
        return shares


def prepare(known: Knowledge, rng: np.random.Generator) -> Scorer:
    """Fits the components and the radius to the reference; nothing is random."""
    del rng
    projection = Projection.fit(known.reference.images, _COMPONENTS)
    draws, points = projection(known.synthetic.images), projection(known.reference.images)
    distances = [
        nearest(points[known.reference.labels == label], draws[known.synthetic.labels == label])[0]
        for label in np.intersect1d(known.reference.labels, known.synthetic.labels)
    ]
    radius = float(np.median(np.concatenate(distances))) if distances else 0.0
    return _Share(projection, draws, known.synthetic.labels, radius)


MONTE_CARLO = register(
    Attack(
        name="monte_carlo",
        description=(
            "A candidate is the likelier a member the more synthetic examples of its label fall close to it, in the 40 "
            "directions in which the attacker's own examples differ most."
        ),
        access="samples",
        paper="Hilprecht, Haerterich & Bernau 2019 (Monte Carlo, PCA, median heuristic)",
        is_membership=True,
        prepare_fn=prepare,
        is_search=True,
    )
)
