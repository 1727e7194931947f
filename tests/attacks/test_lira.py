"""LiRA: its scores by hand, shadows that are resumed and refused, and members that no single score gives away."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import scipy.stats

from tests.attacks.controls import Replay, noise_examples
from tfdpgen.attacks import ShadowConfig, lira_scores, run_shadow_attacks
from tfdpgen.data import LabeledDataset, load_splits
from tfdpgen.methods import train
from tfdpgen.privacy import PrivacyBudget

CONFIG = ShadowConfig(num_shadows=8, method="faint", num_synthetic=200, seed=0)


class Faint(Replay):
    """A "release" of examples under so much blur that an example's own distance tells little, and its change much."""

    def sample(self, labels: npt.ArrayLike, seed: int) -> npt.NDArray[np.uint8]:
        del labels, seed
        grey = self.dataset.images.astype(float)
        return np.resize((0.1 * grey + 0.9 * grey.mean()).astype(np.uint8), (200, *self.spec.image_shape))


@dataclasses.dataclass(frozen=True)
class TrainFaint:
    """Trains a release that shows its examples faintly, and counts how often it was called in a folder."""

    calls: str

    def __call__(self, examples: LabeledDataset, seed: int) -> tuple[Faint, dict]:
        (Path(self.calls) / str(seed)).touch()
        return Faint(examples), {}


class TrainGaussianMixture:
    """Trains the real method, without noise to speak of where epsilon is large."""

    def __init__(self, epsilon: float) -> None:
        self.budget = PrivacyBudget(epsilon, 1e-5)

    def __call__(self, examples: LabeledDataset, seed: int) -> tuple:
        return train("gaussian_mixture", examples, self.budget, seed=seed, verbose=0), {}


def test_scores_by_hand() -> None:
    rng = np.random.default_rng(0)
    is_in = np.stack([rng.permutation(np.arange(6) < 3) for _ in range(5)], axis=1)
    shadows, target = rng.normal(size=(6, 5)), rng.normal(size=5)
    inside = np.array([shadows[is_in[:, i], i] for i in range(5)])
    outside = np.array([shadows[~is_in[:, i], i] for i in range(5)])
    deviations = [np.sqrt(part.var(axis=1, ddof=1).mean()) for part in (inside, outside)]
    expected = scipy.stats.norm.logpdf(target, inside.mean(axis=1), deviations[0]) - scipy.stats.norm.logpdf(
        target, outside.mean(axis=1), deviations[1]
    )
    np.testing.assert_allclose(lira_scores(target, shadows, is_in, is_online=True), expected)
    offline = lira_scores(target, shadows, is_in, is_online=False)
    np.testing.assert_allclose(offline, (target - outside.mean(axis=1)) / deviations[1])


def test_many_shadows_have_a_variance_for_each_candidate() -> None:
    rng = np.random.default_rng(0)
    is_in = np.arange(400)[:, None] % 2 == np.zeros((1, 2))
    shadows = rng.normal(0, [1.0, 10.0], (400, 2))
    scores = lira_scores(np.array([5.0, 5.0]), shadows, is_in, is_online=False)
    np.testing.assert_allclose(scores, [5.0, 0.5], rtol=0.3)


def test_bad_shadows_are_refused() -> None:
    target, shadows = np.zeros(3), np.zeros((4, 3))
    with pytest.raises(ValueError, match="should have shape"):
        lira_scores(target, shadows[:, :2], np.zeros((4, 2), bool), is_online=True)
    with pytest.raises(ValueError, match="at least two"):
        lira_scores(target, shadows, np.ones((4, 3), bool), is_online=True)
    for settings in ({"num_shadows": 5}, {"num_shadows": 2}, {"processes": 0}, {"num_candidates": 0}, {"bases": ()}):
        with pytest.raises(ValueError, match=f"`{next(iter(settings))}` should"):
            dataclasses.replace(CONFIG, **settings)


def test_members_are_found_and_shadows_trained_once(tmp_path: Path) -> None:
    members, others = noise_examples(60, 0, side=6), noise_examples(100, 1, side=6)
    calls, folder = tmp_path / "calls", tmp_path / "shadows"
    calls.mkdir()

    def run(config: ShadowConfig = CONFIG) -> dict:
        return run_shadow_attacks(Faint(members), members, others, TrainFaint(str(calls)), config, folder)

    first = run()
    assert set(first) == {"lira_online_gan_leaks", "lira_offline_gan_leaks"}
    for result in first.values():
        assert result.auc > 0.95
        assert (result.access, result.is_membership, result.num_members) == ("many trainings", True, 50)
        assert "Carlini" in result.paper
    assert len(list(calls.iterdir())) == 8

    removed = folder / "shadow-00003.npz"
    removed.unlink()
    times = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    time.sleep(0.01)
    assert run() == first
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir() if path != removed} == times
    assert len(list(folder.iterdir())) == 8

    with pytest.raises(ValueError, match="`folder` should hold shadows of these examples and settings"):
        run(dataclasses.replace(CONFIG, method="another"))
    with pytest.raises(ValueError, match=r"`bases` .* all need networks"):
        run(dataclasses.replace(CONFIG, bases=("logan",)))


def test_members_of_another_release_are_not_found(tmp_path: Path) -> None:
    strangers, members, others = (noise_examples(size, seed, side=6) for seed, size in ((2, 60), (0, 60), (1, 100)))
    results = run_shadow_attacks(Faint(strangers), members, others, TrainFaint(str(tmp_path)), CONFIG, tmp_path / "s")
    for result in results.values():
        assert result.auc_interval[0] < 0.5 < result.auc_interval[1]


def test_processes_share_the_work(tmp_path: Path) -> None:
    members, others = noise_examples(40, 0, side=6), noise_examples(40, 1, side=6)
    arguments = Faint(members), members, others, TrainFaint(str(tmp_path))
    config = dataclasses.replace(CONFIG, num_shadows=4)
    alone = run_shadow_attacks(*arguments, config, tmp_path / "alone")
    together = run_shadow_attacks(*arguments, dataclasses.replace(config, processes=2), tmp_path / "together")
    assert together == alone


def test_the_real_method_hides_its_members_at_epsilon_1(tmp_path: Path) -> None:
    splits = load_splits("digits")
    train_fn = TrainGaussianMixture(1.0)
    release, networks = train_fn(splits.train, 0)
    config = ShadowConfig(num_shadows=4, method="gaussian_mixture", num_synthetic=1000)
    results = run_shadow_attacks(release, splits.train, splits.holdout, train_fn, config, tmp_path, networks=networks)
    for result in results.values():
        assert result.auc_interval[0] < 0.73  # the upper bound at epsilon 1
        assert result.num_members == 180
