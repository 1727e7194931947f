"""Nearest examples among millions: exact Euclidean distances in chunks, in bounded memory.

    distances, positions = nearest(queries, examples)       # [n, d] against [m, d]
    NearestOfLabel(synthetic)(candidates)               # float64 [n]; only examples of the candidate's label count

One matrix product a block finds the nearest example (|q - r|^2 = |q|^2 - 2 q.r + |r|^2 in 32 bits, which may confuse
examples whose distances agree to 7 digits); the distance to the example found is then computed anew, without that
cancellation, so that a copy is at distance 0. This is as fast as faiss's exact index and about twice as fast as
scikit-learn, which computes in 64 bits: `benchmarks/neighbours.py`. Memory is that of a block, however many examples
there are.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import numpy.typing as npt

from tfdpgen.data import LabeledDataset

_QUERIES, _EXAMPLES = 2048, 8192  # of a block: 64 MB of products


def flat(images: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """Images [n, ...] as [n, d], without copying them."""
    return images.reshape(len(images), math.prod(images.shape[1:]))


def nearest(
    queries: npt.NDArray[np.generic], examples: npt.NDArray[np.generic]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """The nearest of `examples` to each query.

    Args:
      queries: [n, d]; uint8 counts as value / 255.
      examples: [m, d] of the same type, m at least 1.

    Returns:
      Euclidean distances float64 [n] and positions in `examples` int64 [n].

    Raises:
      ValueError: if there are no examples or the shapes do not fit.
    """
    if examples.ndim != 2 or queries.ndim != 2 or not len(examples) or examples.shape[1] != queries.shape[1]:
        raise ValueError(
            f"`examples` should have shape [m, d] with m at least 1, and `queries` [n, d]; got {list(examples.shape)} "
            f"and {list(queries.shape)}."
        )
    distances, positions = np.zeros(len(queries)), np.zeros(len(queries), np.int64)
    for start in range(0, len(queries), _QUERIES):
        part = _scaled(queries[start : start + _QUERIES])
        best = np.full(len(part), np.inf, np.float32)
        found = positions[start : start + len(part)]
        for first in range(0, len(examples), _EXAMPLES):
            block = _scaled(examples[first : first + _EXAMPLES])
            products = part @ block.T
            products *= -2
            products += np.einsum("ij,ij->i", block, block)
            nearest_here = products.argmin(axis=1)
            values = products[np.arange(len(part)), nearest_here]
            closer = values < best
            best[closer], found[closer] = values[closer], first + nearest_here[closer]
        differences = part.astype(np.float64) - _scaled(examples[found])
        distances[start : start + len(part)] = np.sqrt(np.einsum("ij,ij->i", differences, differences))
    return distances, positions


def count_within(
    queries: npt.NDArray[np.generic], examples: npt.NDArray[np.generic], radius: float
) -> npt.NDArray[np.int64]:
    """How many of `examples` [m, d] lie within `radius` of each query [n, d]: int64 [n].

    Distances are computed in 32 bits around the examples' mean; an example at the very radius may fall on either side.
    """
    counts = np.zeros(len(queries), np.int64)
    if not len(examples):
        return counts
    centre = _scaled(examples[:_EXAMPLES]).mean(axis=0)
    for start in range(0, len(queries), _QUERIES):
        part = _scaled(queries[start : start + _QUERIES]) - centre
        limits = radius**2 - np.einsum("ij,ij->i", part, part)
        for first in range(0, len(examples), _EXAMPLES):
            block = _scaled(examples[first : first + _EXAMPLES]) - centre
            products = part @ block.T
            products *= -2
            products += np.einsum("ij,ij->i", block, block)
            counts[start : start + len(part)] += np.count_nonzero(products <= limits[:, None], axis=1)
    return counts


@dataclasses.dataclass(frozen=True, eq=False)
class NearestOfLabel:
    """Scorer: Euclidean distance, of pixels in [0, 1], to the nearest of `examples` that has the candidate's label.

    A label that no example has is compared with all examples.
    """

    examples: LabeledDataset

    def __call__(self, candidates: LabeledDataset) -> npt.NDArray[np.float64]:
        """Distances float64 [n]."""
        distances = np.zeros(len(candidates))
        for label in np.unique(candidates.labels):
            asked = candidates.labels == label
            own = self.examples.labels == label
            examples = self.examples.images[own] if own.any() else self.examples.images
            distances[asked], _ = nearest(flat(candidates.images[asked]), flat(examples))
        return distances


@dataclasses.dataclass(frozen=True, eq=False)
class Nearest:
    """Scorer: Euclidean distance, of pixels in [0, 1], to the nearest of images uint8 [m, h, w, c] of any label."""

    images: npt.NDArray[np.uint8]

    def __call__(self, candidates: LabeledDataset) -> npt.NDArray[np.float64]:
        """Distances float64 [n]."""
        return nearest(flat(candidates.images), flat(self.images))[0]


@dataclasses.dataclass(frozen=True, eq=False)
class NearestPosition:
    """Scorer: which of images uint8 [m, h, w, c] of any label is the nearest, by pixels in [0, 1]."""

    images: npt.NDArray[np.uint8]

    def __call__(self, candidates: LabeledDataset) -> npt.NDArray[np.float64]:
        """Positions float64 [n]."""
        return nearest(flat(candidates.images), flat(self.images))[1].astype(np.float64)


def _scaled(values: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
    """Bytes as numbers in [0, 1], anything else as it is; in 32 bits."""
    scaled = values.astype(np.float32)
    if values.dtype == np.uint8:
        scaled /= 255
    return scaled
