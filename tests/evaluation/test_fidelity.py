"""Fidelity: every measure agrees with its definition, written out naively, and with what published packages say."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from tests.evaluation.test_utility import stripes
from tfdpgen.data import DataSpec, LabeledDataset, load_splits
from tfdpgen.evaluation import (
    class_imbalance,
    cnn_space,
    density_coverage,
    diversity,
    fit_classifier,
    frechet_distance,
    inception_space,
    measure_fidelity,
    precision_recall,
    scattering_space,
    vendi_score,
)

GOLDEN = np.load(Path(__file__).resolve().parents[1] / "golden" / "fidelity.npz")
CASES = range(len(GOLDEN.files) // 3)


@pytest.mark.parametrize("case", CASES)
def test_measures_agree_with_published_packages(case: int) -> None:
    real, generated = GOLDEN[f"real_{case}"], GOLDEN[f"generated_{case}"]
    metrics = [
        frechet_distance(real, generated),
        *precision_recall(real, generated),
        *density_coverage(real, generated),
        vendi_score(generated),
    ]
    np.testing.assert_allclose(metrics, GOLDEN[f"figures_{case}"], rtol=1e-5, atol=1e-5)


def features(seed: int, num_examples: int, num_features: int, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(num_examples, num_features)) + shift


@given(st.integers(0, 100), st.integers(6, 14), st.integers(6, 14), st.integers(2, 5), st.floats(0, 2))
def test_measures_agree_with_their_definitions(seed: int, n: int, m: int, d: int, shift: float) -> None:
    real, generated = features(seed, n, d), features(seed + 1, m, d, shift)
    root = np.asarray(scipy.linalg.sqrtm(np.cov(real.T) @ np.cov(generated.T)))
    gap = real.mean(axis=0) - generated.mean(axis=0)
    fid = gap @ gap + np.trace(np.cov(real.T) + np.cov(generated.T) - 2 * root.real)
    assert frechet_distance(real, generated) == pytest.approx(max(fid, 0), abs=1e-6)

    def radius(examples: np.ndarray, place: int, k: int) -> float:
        return sorted(math.dist(examples[place], examples[other]) for other in range(len(examples)) if other != place)[
            k - 1
        ]

    def lies_in(point: np.ndarray, examples: np.ndarray, place: int, k: int) -> bool:
        return math.dist(point, examples[place]) <= radius(examples, place, k)

    precision = sum(any(lies_in(point, real, i, 3) for i in range(n)) for point in generated) / m
    recall = sum(any(lies_in(point, generated, j, 3) for j in range(m)) for point in real) / n
    assert precision_recall(real, generated) == pytest.approx((precision, recall))
    density = sum(lies_in(point, real, i, 5) for point in generated for i in range(n)) / (5 * m)
    coverage = sum(any(lies_in(point, real, i, 5) for point in generated) for i in range(n)) / n
    assert density_coverage(real, generated) == pytest.approx((density, coverage))

    unit = real / np.linalg.norm(real, axis=1, keepdims=True)
    shares = np.linalg.eigvalsh(unit @ unit.T / n)
    assert vendi_score(real) == pytest.approx(math.exp(-sum(s * math.log(s) for s in shares if s > 1e-12)))


def test_distances_taken_in_parts_are_those_taken_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    real, generated = features(0, 700, 4), features(1, 600, 4, 0.3)
    whole = precision_recall(real, generated), density_coverage(real, generated)
    monkeypatch.setattr("tfdpgen.evaluation.fidelity._MEMORY_MIB", 0.05)
    assert (precision_recall(real, generated), density_coverage(real, generated)) == whole


def test_known_values() -> None:
    examples = features(0, 50, 3)
    assert frechet_distance(examples, examples) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(examples, examples + 2) == pytest.approx(12)
    assert frechet_distance(examples, 3 * examples - 2 * examples.mean(axis=0)) == pytest.approx(
        4 * np.trace(np.cov(examples.T))
    )
    assert precision_recall(examples, examples) == (1, 1)
    assert precision_recall(examples, examples + 100) == (0, 0)
    assert density_coverage(examples, examples + 100) == (0, 0)
    assert density_coverage(examples, examples)[1] == 1
    assert vendi_score(np.ones((7, 3))) == pytest.approx(1)
    assert vendi_score(np.eye(7)) == pytest.approx(7)
    assert class_imbalance(np.array([0, 1]), np.array([0, 0, 1, 1]), 3) == 0
    assert class_imbalance(np.array([0, 0]), np.array([0, 1]), 2) == 0.5
    assert class_imbalance(np.array([0]), np.array([1]), 2) == 1
    spread = diversity(np.array([[0.0], [2.0], [4.0], [7.0]]), np.array([0, 0, 0, 1]), 3)
    np.testing.assert_array_equal(spread, [8 / 3, np.nan, np.nan])


def test_each_metric_moves_with_what_it_is_about() -> None:
    splits = load_splits("digits")
    test, holdout, train = splits.test.in_memory(), splits.holdout.in_memory(), splits.train.in_memory()
    noise = np.random.default_rng(0).normal(scale=60, size=train.images.shape)
    noisy = LabeledDataset(np.clip(train.images + noise, 0, 255).astype(np.uint8), train.labels, train.spec)
    alike = train.take(np.arange(400) % 20)
    ones = train.take(np.flatnonzero(train.labels == 1))
    found = {
        name: measure_fidelity(scattering_space(), test, holdout, examples, seed=0)["generated"]
        for name, examples in {"real": train, "noisy": noisy, "alike": alike, "ones": ones}.items()
    }
    assert found["real"]["fid"] < 0.2 * min(found[name]["fid"] for name in ("noisy", "alike", "ones"))
    assert found["noisy"]["precision"] < 0.5 < 0.85 < min(found[name]["precision"] for name in ("real", "ones"))
    assert found["real"]["recall"] > 0.85 > 0.5 > found["ones"]["recall"]
    assert found["noisy"]["density"] < 0.5 < found["real"]["density"] < 1.2
    assert found["alike"]["coverage"] < 0.5 < 0.85 < found["real"]["coverage"]
    assert found["alike"]["diversity"] < 0.7 < 0.9 < found["real"]["diversity"] < 1.1 < found["noisy"]["diversity"]
    assert found["real"]["class_imbalance"] < 0.2 < 0.8 < found["ones"]["class_imbalance"]


def test_generated_and_other_real_examples_are_measured_alike() -> None:
    reference, others = stripes(90, shift=0), stripes(60)
    metrics = measure_fidelity(scattering_space(), reference, others, others, seed=0)
    assert metrics["num_examples"] == 60
    assert set(metrics["generated"]) == set(metrics["real"])
    swapped = measure_fidelity(scattering_space(), reference, stripes(61), others, seed=0)
    assert swapped["generated"] == metrics["generated"]


def test_spaces_see_single_images_and_say_what_shaped_them() -> None:
    examples = stripes(700)  # more than one batch
    classifier = fit_classifier("cnn", stripes(90), trained_on="private", seed=0)
    for space, width in ((scattering_space(), 324), (cnn_space(classifier), 128)):
        points = space.features(examples.images)
        assert (points.shape, points.dtype) == ((700, width), np.float32)
        np.testing.assert_allclose(space.features(examples.images[650:653]), points[650:653], rtol=1e-4, atol=1e-5)
        with pytest.raises(ValueError, match="`images` should hold at least one image"):
            space.features(examples.images[:0])
    assert "private" in cnn_space(classifier).description
    # What the last layer makes of the features is what the classifier says.
    last = classifier.model.layers[-1]
    named = np.asarray(last(cnn_space(classifier).features(examples.images))).argmax(axis=1)
    np.testing.assert_array_equal(named, classifier.predict(examples.images))
    with pytest.raises(ValueError, match="`classifier` should be a cnn"):
        cnn_space(fit_classifier("mlp", stripes(90), trained_on="private", seed=0))


def test_scattering_of_images_with_colours() -> None:
    images = np.random.default_rng(0).integers(256, size=(4, 28, 20, 3), dtype=np.uint8)
    assert scattering_space().features(images).shape == (4, 3 * 324)


@pytest.mark.slow
def test_inception_features_are_those_of_the_network(tmp_path: Path) -> None:
    tf.keras.utils.set_random_seed(0)
    shape = (299, 299, 3)
    network = tf.keras.applications.InceptionV3(include_top=False, weights=None, input_shape=shape, pooling="avg")
    network.save_weights(tmp_path / "weights.h5")
    images = np.random.default_rng(0).integers(256, size=(3, 8, 8, 1), dtype=np.uint8)
    points = inception_space(tmp_path / "weights.h5").features(images)
    large = tf.image.resize(np.repeat(images, 3, axis=-1), (299, 299), method="bicubic", antialias=True)
    expected = network(np.clip(large, 0, 255) / 127.5 - 1, training=False)
    np.testing.assert_allclose(points, expected, rtol=1e-3, atol=1e-5)
    (tmp_path / "other.h5").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="`weights` should hold InceptionV3's"):
        inception_space(tmp_path / "other.h5")


def test_missing_inception_weights_are_asked_for_and_not_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for weights in (tmp_path / "none.h5", "keras"):
        with pytest.raises(FileNotFoundError, match=r"`weights` should be the file inception_v3.*; or leave out"):
            inception_space(weights)
    assert not list(tmp_path.iterdir())


def test_refusals() -> None:
    examples = features(0, 10, 3)
    for broken in (examples[:, :2], examples[:1], np.where(examples > 1, np.nan, examples), examples[0]):
        for measure in (frechet_distance, precision_recall):
            with pytest.raises(ValueError, match="`generated` should hold at least"):
                measure(examples, broken)
    with pytest.raises(ValueError, match="`real` should hold at least 6 examples"):
        density_coverage(examples[:5], examples)
    with pytest.raises(ValueError, match="`neighbours` should be at least 1; got 0"):
        density_coverage(examples, examples, 0)
    with pytest.raises(ValueError, match="`labels` and `others` should not be empty"):
        class_imbalance(np.array([], np.int64), np.array([1]), 2)
    few, coloured = stripes(5), stripes(30, (8, 8, 3))
    for places in itertools.permutations([stripes(30), stripes(30), few]):
        with pytest.raises(ValueError, match="should have at least 6 examples each"):
            measure_fidelity(scattering_space(), *places, seed=0)
    with pytest.raises(ValueError, match="`others` should have the image_shape of `reference`"):
        measure_fidelity(scattering_space(), stripes(30), coloured, stripes(30), seed=0)
    assert DataSpec((8, 8, 1), 3) == few.spec
