"""Fidelity: how far generated images lie from real ones, each measure a plain function of features [n, d].

    features = scattering_space().features
    frechet_distance(features(real), features(generated))      # FID: 0 is best
    precision_recall(features(real), features(generated))      # like real ones? all that real ones are?
    density_coverage(features(real), features(generated))      # the same, not fooled by outliers
    measure_fidelity(scattering_space(), private_test, private_holdout, synthetic, seed=0)

A metric by itself says little, since all of them depend on the features and on how many examples there were. So
`measure_fidelity` takes equally many examples of everything and reports, beside the generated examples, what other real
examples get. All metrics are computed on private examples without noise and are internal.

Sources: Frechet inception distance, Heusel et al. 2017 (arXiv 1706.08500), section 2.3; precision and recall,
Kynkaanniemi et al. 2019 (arXiv 1904.06991), equation 1; density and coverage, Naeem et al. 2020 (arXiv 2002.09797),
equations 3 and 6; Vendi score, Friedman & Dieng 2022 (arXiv 2210.02410), definition 3.1.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial.distance import pdist
from sklearn.metrics import pairwise_distances_chunked
from sklearn.neighbors import NearestNeighbors

from tfdpgen.data import LabeledDataset
from tfdpgen.evaluation.features import FeatureSpace

Features = npt.NDArray[np.floating]

_MEMORY_MIB = 64  # of distances at a time
_MOST_OF_A_CLASS = 500  # examples whose distances to each other are averaged


class TooFewExamplesError(ValueError):
    """There are too few examples to measure anything by their neighbours."""


def frechet_distance(real: Features, generated: Features) -> float:
    """The Frechet distance of the two Gaussians that have the features' means and covariances; FID for Inception's.

    ||m - m'||^2 + tr(C + C' - 2 (C C')^(1/2)), with the unbiased covariances. It is biased upwards, the more the fewer
    examples there are: compare metrics of equally many examples only.

    Args:
      real: [n, d], n >= 2.
      generated: [m, d], m >= 2.

    Returns:
      At least 0, in squared units of the features.

    Raises:
      ValueError: if the shapes do not fit, there are too few examples, or a feature is not finite.
    """
    real, generated = _checked(real, generated, least=2)
    difference = real.mean(axis=0) - generated.mean(axis=0)
    covariance, other = (np.atleast_2d(np.cov(examples, rowvar=False)) for examples in (real, generated))
    # tr (C C')^(1/2) is the sum of roots of the eigenvalues of C^(1/2) C' C^(1/2), which is symmetric.
    values, vectors = np.linalg.eigh(covariance)
    root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    shared = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ other @ root), 0.0)).sum()
    return float(max(difference @ difference + np.trace(covariance) + np.trace(other) - 2 * shared, 0.0))


def precision_recall(real: Features, generated: Features, neighbours: int = 3) -> tuple[float, float]:
    """Improved precision and recall, by balls that reach to the k-th nearest example of the same kind.

    Args:
      real: [n, d], n > k.
      generated: [m, d], m > k.
      neighbours: k.

    Returns:
      (share of generated examples within a ball around a real one, share of real examples within a ball around a
      generated one).

    Raises:
      ValueError: if the shapes do not fit, there are too few examples, or a feature is not finite.
    """
    real, generated = _checked(real, generated, least=neighbours + 1)
    around_real, around_generated = _radii(real, neighbours), _radii(generated, neighbours)
    is_like_real = np.zeros(len(generated), bool)
    reached = []
    for block, distances in _distances(real, generated):
        is_like_real |= (distances <= around_real[block, None]).any(axis=0)
        reached.append((distances <= around_generated).any(axis=1))
    return float(is_like_real.mean()), float(np.concatenate(reached).mean())


def density_coverage(real: Features, generated: Features, neighbours: int = 5) -> tuple[float, float]:
    """Density and coverage, by balls around real examples alone, since generated examples may have outliers.

    Args:
      real: [n, d], n > k.
      generated: [m, d].
      neighbours: k.

    Returns:
      (balls that a generated example lies in, over k, on average: about 1 for examples like the real ones, and more
      where they crowd; share of real examples whose ball holds a generated one).

    Raises:
      ValueError: if the shapes do not fit, there are too few examples, or a feature is not finite.
    """
    real, generated = _checked(real, generated, least=neighbours + 1)
    radii = _radii(real, neighbours)
    inside, covered = 0, 0
    for block, distances in _distances(real, generated):
        is_inside = distances <= radii[block, None]
        inside += int(is_inside.sum())
        covered += int(is_inside.any(axis=1).sum())
    return inside / (neighbours * len(generated)), covered / len(real)


def vendi_score(features: Features) -> float:
    """How many different examples there are, in effect: e to the entropy of the eigenvalues of their cosine
    similarities.

    Args:
      features: [n, d]; an example whose features are all 0 is like no other.

    Returns:
      From 1, where all examples point the same way, to min(n, d).

    Raises:
      ValueError: if there are no examples, or a feature is not finite.
    """
    features, _ = _checked(features, features, least=1)
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    directions = features / np.where(norms > 0, norms, 1.0)
    directions = (
        directions if len(directions) <= directions.shape[1] else directions.T
    )  # the same eigenvalues but zeros
    values = np.linalg.eigvalsh(directions @ directions.T / len(features))
    values = values[values > 1e-12]
    return float(np.exp(-(values * np.log(values)).sum()))


def class_imbalance(labels: npt.NDArray[np.int64], others: npt.NDArray[np.int64], num_classes: int) -> float:
    """The total variation distance of two label distributions: 0 where each class has equal shares in both, at most 1.

    Raises:
      ValueError: if either has no labels.
    """
    if not len(labels) or not len(others):
        raise ValueError(f"`labels` and `others` should not be empty; got {len(labels)} and {len(others)} labels.")
    shares, other = (np.bincount(each, minlength=num_classes) / len(each) for each in (labels, others))
    return float(np.abs(shares - other).sum() / 2)


def diversity(features: Features, labels: npt.NDArray[np.int64], num_classes: int) -> npt.NDArray[np.float64]:
    """How different the examples of one class are: their mean distance to each other, for each class.

    Args:
      features: [n, d].
      labels: [n].
      num_classes: number of classes.

    Returns:
      [num_classes], in units of the features, from the first 500 examples of each class; NaN below two examples.
    """
    distances = np.full(num_classes, np.nan)
    for label in range(num_classes):
        examples = np.asarray(features[labels == label][:_MOST_OF_A_CLASS], np.float64)
        if len(examples) > 1:
            distances[label] = pdist(examples).mean()
    return distances


def measure_fidelity(
    space: FeatureSpace,
    reference: LabeledDataset,
    others: LabeledDataset,
    generated: LabeledDataset,
    *,
    seed: int,
) -> dict[str, Any]:
    """All measures in one feature space, of generated examples and, as the level to reach, of other real examples.

    Args:
      space: where images are compared.
      reference: real examples that neither the generator nor the space has seen.
      others: further such examples, from which `real` is measured.
      generated: generated examples.
      seed: of the choice of examples, equally many of each of the three.

    Returns:
      {description, num_examples, generated: {fid, precision, recall, density, coverage, diversity, vendi_score,
      class_imbalance}, real: {the same}}, JSON-ready. `diversity` is a class's divided by that of the reference's
      class, averaged over classes: below 1 where images of a class are more alike than real ones.

    Raises:
      TooFewExamplesError: if a data set has fewer than 6 examples.
      ValueError: if the image shapes differ.
    """
    for name, examples in (("others", others), ("generated", generated)):
        if examples.spec.image_shape != reference.spec.image_shape:
            raise ValueError(
                f"`{name}` should have the image_shape of `reference`, {reference.spec.image_shape}; "
                f"got {examples.spec.image_shape}."
            )
    num_examples = min(len(reference), len(others), len(generated), space.most_examples)
    if num_examples < 6:
        raise TooFewExamplesError(
            f"`reference`, `others` and `generated` should have at least 6 examples each; got {len(reference)}, "
            f"{len(others)} and {len(generated)}."
        )
    rng = np.random.default_rng(seed)
    drawn = [
        examples.take(rng.permutation(len(examples))[:num_examples]) for examples in (reference, others, generated)
    ]
    points = [space.features(examples.images) for examples in drawn]
    classes = reference.spec.num_classes
    level = diversity(points[0], drawn[0].labels, classes)

    def measured(place: int) -> dict[str, float]:
        precision, recall = precision_recall(points[0], points[place])
        density, coverage = density_coverage(points[0], points[place])
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios = diversity(points[place], drawn[place].labels, classes) / level
        ratios = ratios[np.isfinite(ratios)]
        return {
            "fid": frechet_distance(points[0], points[place]),
            "precision": precision,
            "recall": recall,
            "density": density,
            "coverage": coverage,
            "diversity": float(ratios.mean()) if ratios.size else 0.0,
            "vendi_score": vendi_score(points[place]),
            "class_imbalance": class_imbalance(drawn[0].labels, drawn[place].labels, classes),
        }

    return {
        "description": space.description,
        "num_examples": num_examples,
        "generated": measured(2),
        "real": measured(1),
    }


def _checked(real: Features, generated: Features, least: int) -> tuple[Features, Features]:
    """Both as float64."""
    first, second = np.asarray(real, np.float64), np.asarray(generated, np.float64)
    for name, examples in (("real", first), ("generated", second)):
        fits = examples.ndim == 2 and examples.shape[1:] == first.shape[1:] and len(examples) >= least
        if not fits or not np.isfinite(examples).all():
            raise ValueError(
                f"`{name}` should hold at least {least} examples of finite features, [n, d] with one d for both; got "
                f"shape {list(examples.shape)} beside {list(first.shape)}{'' if fits else ', which does not fit'}."
            )
    return first, second


def _radii(features: Features, neighbours: int) -> npt.NDArray[np.float64]:
    """Each example's distance to its k-th nearest other example."""
    if neighbours < 1:
        raise ValueError(f"`neighbours` should be at least 1; got {neighbours!r}.")
    # Without examples to ask about, an example does not count as its own neighbour.
    return NearestNeighbors(n_neighbors=neighbours, algorithm="brute").fit(features).kneighbors()[0][:, -1]


def _distances(real: Features, generated: Features) -> Iterator[tuple[slice, npt.NDArray[np.float64]]]:
    """All distances, some real examples at a time."""
    start = 0
    for part in pairwise_distances_chunked(real, generated, working_memory=_MEMORY_MIB):
        yield slice(start, start + len(part)), part
        start += len(part)
