"""The classifier attack has teeth: it finds what a release shows, and finds nothing where nothing is shown."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tfdpgen.attacks import privacy_loss_cap, run_attacks
from tfdpgen.data import LabeledDataset, load_splits


class Replay:
    """A "release" that hands out its training rows by class."""

    def __init__(self, dataset: LabeledDataset) -> None:
        self.dataset, self.spec = dataset, dataset.spec

    def sample(self, labels: npt.ArrayLike, seed: int) -> npt.NDArray[np.uint8]:
        rng = np.random.default_rng(seed)
        members = [np.flatnonzero(self.dataset.labels == label) for label in range(self.spec.num_classes)]
        return self.dataset.images[[rng.choice(members[label]) for label in np.asarray(labels)]]


class Noise(Replay):
    """A "release" that knows nothing."""

    def sample(self, labels: npt.ArrayLike, seed: int) -> npt.NDArray[np.uint8]:
        shape = len(np.asarray(labels)), *self.spec.image_shape
        return np.random.default_rng(seed).integers(256, size=shape, dtype=np.uint8)


def test_replayed_rows_are_told_from_noise() -> None:
    splits = load_splits("digits")
    results = run_attacks(Replay(splits.train), splits.train, splits.holdout, repetitions=2, seed=0)
    noise, holdout = results["classifier_noise"], results["classifier_holdout"]
    assert noise.accuracy >= 0.99
    assert noise.auc >= 0.99
    assert noise.privacy_loss > privacy_loss_cap(3.0, 1e-5)  # what no cap on membership forbids
    assert not noise.is_membership
    # The same attacker does not know members from other digits.
    assert holdout.is_membership
    assert holdout.auc_interval[0] < 0.5 < holdout.auc_interval[1]


def test_pure_noise_teaches_nothing() -> None:
    splits = load_splits("digits")
    results = run_attacks(Noise(splits.train), splits.train, splits.holdout, repetitions=3, seed=0)
    for result in results.values():
        assert abs(result.privacy_loss) <= 0.02
        assert abs(result.auc - 0.5) <= 0.02
