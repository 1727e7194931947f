"""Utility: the matrix says what it says it does, and the classifier is good, fast and a function of its seed."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from sklearn.metrics import balanced_accuracy_score

from tfdpgen.data import DataSpec, LabeledDataset, load_splits
from tfdpgen.evaluation import (
    accuracy,
    balanced_accuracy,
    caution_of_use,
    cautions_about,
    train_classifier,
    utility_matrix,
)


def stripes(num_examples: int, image_shape: tuple[int, int, int] = (8, 8, 1), *, shift: int = 0) -> LabeledDataset:
    """Three classes that anybody can tell apart: a third of the height is bright. `shift` renames them."""
    rng = np.random.default_rng(num_examples)
    labels = np.arange(num_examples) % 3
    images = rng.integers(60, size=(num_examples, *image_shape), dtype=np.uint8)
    third = image_shape[0] // 3
    for example, label in enumerate(labels):
        images[example, label * third : (label + 1) * third] += 150
    return LabeledDataset(images, (labels + shift) % 3, DataSpec(image_shape, num_classes=3))


def meaningless(num_examples: int) -> LabeledDataset:
    """Noise with labels that have nothing to do with it: what can be known about an example is only known by heart."""
    images = np.random.default_rng(0).integers(256, size=(num_examples, 8, 8, 1), dtype=np.uint8)
    return LabeledDataset(images, np.arange(num_examples) % 3, DataSpec((8, 8, 1), num_classes=3))


def test_digits_classifier_is_good() -> None:
    splits = load_splits("digits")
    assert accuracy(train_classifier(splits.train, seed=0), splits.test) >= 0.97


def test_each_metric_trains_and_tests_where_it_says() -> None:
    # With renamed classes in one place each, a swap of any two metrics shows.
    matrix = utility_matrix(stripes(90), stripes(60), stripes(90, shift=1), stripes(60), seed=0)
    assert (matrix.p1, matrix.p2, matrix.p3, matrix.p4) == (1.0, 0.0, 1.0, 0.0)
    assert matrix.accuracy_loss == 1.0
    metrics = {"p1": 1.0, "p2": 0.0, "p3": 1.0, "p4": 0.0, "accuracy_loss": 1.0}
    assert matrix.to_dict().items() >= metrics.items()
    assert set(matrix.intervals) == set(metrics)


@pytest.mark.parametrize("image_shape", [(28, 28, 1), (32, 32, 3), (9, 20, 1)])
def test_classifier_adapts_to_the_image_shape(image_shape: tuple[int, int, int]) -> None:
    model = train_classifier(stripes(90, image_shape), seed=0)
    assert accuracy(model, stripes(60, image_shape)) == 1.0


def test_classifier_is_a_function_of_its_seed_and_of_no_global_one() -> None:
    dataset = meaningless(60)
    probabilities = []
    for seed, global_seed in ((0, 1), (0, 2), (1, 2)):
        tf.random.set_seed(global_seed)
        np.random.seed(global_seed)  # noqa: NPY002  # the legacy seed is what must not matter
        probabilities.append(train_classifier(dataset, seed=seed).predict(dataset.images, verbose=0))
    np.testing.assert_allclose(probabilities[0], probabilities[1], rtol=1e-4, atol=1e-6)
    assert np.abs(probabilities[0] - probabilities[2]).max() > 1e-2


def test_best_epoch_is_chosen_on_the_examples_set_aside() -> None:
    # Weights of the last epoch know the training examples by heart; those that are best on other examples cannot.
    dataset = meaningless(400)
    assert accuracy(train_classifier(dataset, validation=0.3, seed=0), dataset) < 0.65


def test_refusals() -> None:
    with pytest.raises(ValueError, match=r"`validation` should lie strictly between 0 and 1; got 0"):
        train_classifier(stripes(30), validation=0, seed=0)
    with pytest.raises(ValueError, match="`dataset` should have at least an example to train on"):
        train_classifier(stripes(1), seed=0)
    with pytest.raises(ValueError, match="`dataset` should have examples to test on"):
        accuracy(tf.keras.Sequential(), stripes(0))
    with pytest.raises(ValueError, match="`synthetic_test` should have the image_shape"):
        utility_matrix(stripes(30), stripes(30), stripes(30), stripes(30, (8, 8, 3)), seed=0)


@pytest.mark.parametrize("absent", [None, 0, 2, 4])
def test_balanced_accuracy_is_scikit_learn_s(absent: int | None) -> None:
    rng = np.random.default_rng(0)
    labels = rng.choice([label for label in range(5) if label != absent], 200)
    labels = np.concatenate([labels, np.full(300, 1)])
    answers = np.where(rng.random(500) < 0.5, labels, 1)
    assert balanced_accuracy(answers == labels, labels) == pytest.approx(balanced_accuracy_score(labels, answers))
    assert balanced_accuracy(np.zeros(500, bool) | (labels == 1), labels) == 1 / len(np.unique(labels))


def test_small_and_uneven_test_splits_are_cautioned_about() -> None:
    def test_split(*labels: int) -> LabeledDataset:
        spec = DataSpec((1, 1, 1), 3, class_names=("cat", "dog", "eel"))
        return LabeledDataset(np.zeros((len(labels), 1, 1, 1), np.uint8), np.array(labels, np.int64), spec)

    assert cautions_about(test_split(0, 0, 1, 1, 2, 2)) == []
    (few,) = cautions_about(test_split(0, 0, 1, 1, 2))
    assert "fewer than 2 examples of 1 of 3 classes (named eel)" in few
    few, uneven = cautions_about(test_split(*[0] * 300, 1))
    assert "2 of 3 classes (named dog, eel)" in few
    assert uneven.startswith("99.7% of the test split are of class cat")
    assert uneven.endswith("Read the balanced accuracy.")
    assert cautions_about(test_split(0, 0))[1].endswith("There is no other class to tell it from.")
    assert len(cautions_about(test_split(*[0] * 297, 1, 1, 1))) == 1  # 99 % is not over 99 %
    (none,) = cautions_about(test_split())
    assert "(named cat, dog, eel)" in none


@pytest.mark.parametrize(
    ("p2", "p3", "num_classes", "is_of_no_use"),
    [
        (0.22, 0.11, 10, True),
        (0.1, 0.39, 10, True),
        (0.3, 0.21, 10, False),
        (1.0, 0.1, 10, False),
        (0.6, 0.65, 2, True),
        (0.66, 0.66, 2, False),
        (None, 0.1, 10, False),
    ],
)
def test_images_that_are_hardly_better_than_noise_are_called_so(
    p2: float | None, p3: float | None, num_classes: int, is_of_no_use: bool
) -> None:
    said = caution_of_use(p2, p3, num_classes)
    assert bool(said) is is_of_no_use
    if said:
        assert said[0].startswith("These images are of no use.")
        assert f"guessing on {1 / num_classes:.2f}" in said[0]
