"""DOMIAS: where synthetic examples are denser than the population is, a generator has overfitted.

Van Breugel, Sun, Qian and van der Schaar 2023, "Membership inference attacks against synthetic data through overfitting
detection", arXiv 2302.12580: the score is p_G(x) / p_R(x), the density of synthetic examples over that of reference
examples. The paper estimates densities by a normalising flow (BNAF) or by Gaussian kernels, with scipy's default
bandwidth (Scott's rule). Here they are Gaussian kernels, of the first 8 principal components: kernels fail in many
dimensions.

    get("domias").score(known, candidates, rng)         # log p_G - log p_R
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt
from scipy.stats import gaussian_kde

from tfdpgen.attacks.base import Attack, Knowledge, Scorer, register
from tfdpgen.attacks.projection import Projection
from tfdpgen.data import LabeledDataset

_COMPONENTS = 8
_MOST_EXAMPLES = 20_000  # of either density; more change it little


@dataclasses.dataclass(frozen=True, eq=False)
class _DensityRatio:
    """Scorer: log density of synthetic examples minus that of reference examples."""

    projection: Projection
    synthetic: npt.NDArray[np.float32]
    reference: npt.NDArray[np.float32]

    def __call__(self, candidates: LabeledDataset) -> npt.NDArray[np.float64]:
        """Scores float64 [n]."""
        points = self.projection(candidates.images).T
        return _log_density(self.synthetic, points) - _log_density(self.reference, points)


def prepare(known: Knowledge, rng: np.random.Generator) -> Scorer:
    """Fits the components to as many synthetic as reference examples."""
    synthetic, reference = (
        examples.images[rng.permutation(len(examples))[:_MOST_EXAMPLES]]
        for examples in (known.synthetic, known.reference)
    )
    smaller = min(len(synthetic), len(reference), 5_000)
    projection = Projection.fit(
        np.concatenate([synthetic[:smaller], reference[:smaller]]), _COMPONENTS, is_whitened=True
    )
    return _DensityRatio(projection, projection(synthetic), projection(reference))


def _log_density(examples: npt.NDArray[np.float32], points: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Log density float64 [n] at points [k, n] by Gaussian kernels on examples [m, k].

    Examples that lie in fewer than k dimensions, or are too few, are spread by a thousandth first.
    """
    spread = examples.astype(np.float64).T
    if examples.shape[0] <= examples.shape[1] or np.linalg.matrix_rank(np.cov(spread)) < examples.shape[1]:
        jitter = np.random.default_rng(0).normal(
            0, 1e-3, (examples.shape[1], max(len(examples), 4 * examples.shape[1]))
        )
        spread = np.resize(spread.T, jitter.T.shape).T + jitter
    return gaussian_kde(spread).logpdf(points.astype(np.float64))


DOMIAS = register(
    Attack(
        name="domias",
        description=(
            "A candidate is the likelier a member the denser synthetic examples lie around it, compared with the "
            "attacker's own examples."
        ),
        access="samples",
        paper="van Breugel, Sun, Qian & van der Schaar 2023, arXiv 2302.12580 (Gaussian kernels)",
        is_membership=True,
        prepare_fn=prepare,
        is_search=True,
    )
)
