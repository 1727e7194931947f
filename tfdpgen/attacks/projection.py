"""A few directions in which images differ most: what distances and densities are measured in.

    projection = Projection.fit(reference.images, num_components=40)
    projection(candidates.images)                       # float32 [n, k]

Principal components by scikit-learn's exact solvers, so that nothing is random. What they are fitted to belongs to the
attacker.
"""

from __future__ import annotations

import dataclasses
from typing import Self

import numpy as np
import numpy.typing as npt
from sklearn.decomposition import PCA

from tfdpgen.attacks.neighbours import flat

_MOST_EXAMPLES = 10_000  # that the components are fitted to


@dataclasses.dataclass(frozen=True, eq=False)
class Projection:
    """A linear map of images, as float in [0, 1], to coordinates.

    Attributes:
      mean: float32 [d].
      components: float32 [d, k].
    """

    mean: npt.NDArray[np.float32]
    components: npt.NDArray[np.float32]

    @classmethod
    def fit(cls, images: npt.NDArray[np.uint8], num_components: int, *, is_whitened: bool = False) -> Self:
        """The components of images uint8 [n, h, w, c]; fewer than asked for where examples or pixels do not suffice.

        With `is_whitened` the images have variance 1 along each of them.
        """
        points = flat(images[:_MOST_EXAMPLES]).astype(np.float64) / 255
        solver = "full" if points.shape[0] < points.shape[1] else "covariance_eigh"  # the faster of the exact ones
        pca = PCA(min(num_components, *points.shape), svd_solver=solver).fit(points)
        scales = np.sqrt(np.maximum(np.asarray(pca.explained_variance_), 1e-12)) if is_whitened else 1.0
        components = (np.asarray(pca.components_).T / scales).astype(np.float32)
        return cls(np.asarray(pca.mean_, np.float32), components)

    def __call__(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Coordinates float32 [n, k] of images uint8 [n, h, w, c], block by block."""
        blocks = [
            (flat(images[start : start + 8192]).astype(np.float32) / np.float32(255) - self.mean) @ self.components
            for start in range(0, len(images), 8192)
        ]
        return np.concatenate([np.zeros((0, self.components.shape[1]), np.float32), *blocks]).astype(
            np.float32, copy=False
        )
