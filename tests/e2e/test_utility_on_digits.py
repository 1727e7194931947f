"""What the default run is worth: the metrics that the README promises, on real data and over seeds."""

from __future__ import annotations

import numpy as np
import pytest

from tfdpgen.data import LabeledDataset, load_splits
from tfdpgen.evaluation import utility_matrix
from tfdpgen.methods import train
from tfdpgen.privacy import PrivacyBudget


@pytest.mark.slow
@pytest.mark.parametrize(("method", "least"), [("c_vae", 0.86), ("dp_gan", 0.84), ("gaussian_mixture", 0.88)])
def test_it_is_useful_at_epsilon_3(method: str, least: float) -> None:
    splits = load_splits("digits")
    labels = np.arange(6_000) % 10
    matrices = []
    for seed in range(3):
        release = train(method, splits.train, PrivacyBudget(3.0, 1e-5), seed=seed, verbose=0)
        examples = LabeledDataset(release.sample(labels, seed), labels, splits.spec)
        parts = examples.take(range(5_000)), examples.take(range(5_000, 6_000))
        matrices.append(utility_matrix(splits.train, splits.test, *parts, seed=seed))
    assert min(matrix.p1 for matrix in matrices) >= 0.95
    assert np.mean([matrix.p2 for matrix in matrices]) >= least
