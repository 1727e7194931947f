"""Downstream classifiers: each learns, is chosen by its own examples, and remembers what it has seen."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier

from tests.evaluation.test_utility import meaningless, stripes
from tfdpgen.data import DataSpec, LabeledDataset, load_splits
from tfdpgen.evaluation import (
    CLASSIFIERS,
    CannotFitError,
    Classifier,
    NotFitted,
    check_classifiers,
    compare_classifiers,
    fit_classifier,
    try_classifier,
    utility_matrix,
)
from tfdpgen.evaluation import classifiers as module

OTHERS = CLASSIFIERS[1:]


@pytest.mark.parametrize("name", OTHERS)
def test_digits_are_learnt(name: str) -> None:
    splits = load_splits("digits")
    classifier = fit_classifier(name, splits.train.in_memory(), trained_on="private", seed=0)
    assert classifier.right(splits.test.in_memory()).mean() >= 0.9
    assert (classifier.name, classifier.trained_on, classifier.num_examples) == (name, "private", 1077)


@pytest.mark.parametrize("name", OTHERS)  # for the CNN: test_utility.py
def test_a_classifier_is_a_function_of_its_seed(name: str) -> None:
    dataset, images = meaningless(200), meaningless(60).images[::-1]
    first, again = (fit_classifier(name, dataset, trained_on="private", seed=1).predict(images) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert (first.dtype, first.shape) == (np.int64, (60,))


def test_a_matrix_can_be_had_of_each_kind_and_its_intervals_hold_its_metrics() -> None:
    matrix = utility_matrix(
        stripes(90), stripes(60), stripes(90, shift=1), stripes(60), classifier="random_forest", seed=0
    )
    assert (matrix.p1, matrix.p2, matrix.p3, matrix.p4) == (1.0, 0.0, 1.0, 0.0)
    values = matrix.to_dict()
    for name in ("p1", "p2", "p3", "p4", "accuracy_loss"):
        low, high = values["intervals"][name]
        assert low <= values[name] <= high
    assert values["intervals"]["p1"] == pytest.approx([0.025 ** (1 / 60), 1])  # Clopper-Pearson, all of 60 right
    assert values["num_examples"] == [90, 90]


def _uneven(*counts: int) -> LabeledDataset:
    """Stripes of which each class has so many examples."""
    examples = stripes(3 * max(counts))
    return examples.take(
        np.concatenate([np.flatnonzero(examples.labels == label)[:n] for label, n in enumerate(counts)])
    )


def test_what_cannot_be_learnt_from_is_not_measured() -> None:
    private = try_classifier("mlp", _uneven(60, 0, 0), trained_on="private", seed=0)
    assert isinstance(private, NotFitted)
    generated = fit_classifier("mlp", stripes(60), trained_on="generated", seed=0)
    matrix = compare_classifiers(private, generated, stripes(30), stripes(30)).to_dict()
    assert matrix["p1"] is matrix["p3"] is matrix["accuracy_loss"] is matrix["balanced"]["p1"] is None
    assert matrix["intervals"]["p1"] is matrix["intervals"]["accuracy_loss"] is None
    assert matrix["not_measured"] == dict.fromkeys(("p1", "p3", "accuracy_loss"), private.reason)
    assert matrix["num_examples"] == [None, 60]
    assert matrix["p2"] == matrix["balanced"]["p2"] == 1

    matrix = compare_classifiers(_of_private_stripes(), generated, stripes(0), stripes(30)).to_dict()
    assert matrix["p1"] is matrix["p2"] is None
    assert matrix["not_measured"]["accuracy_loss"] == "There are no test examples."
    assert matrix["p3"] == 1


def test_a_hundred_classes_of_four_examples_stop_gradient_boosting_alone() -> None:
    labels = np.repeat(np.arange(100), 4)
    images = np.random.default_rng(0).integers(256, size=(400, 4, 4, 1), dtype=np.uint8)
    examples = LabeledDataset(images, labels, DataSpec((4, 4, 1), 100))
    fitted = {name: try_classifier(name, examples, trained_on="private", seed=0) for name in OTHERS}
    assert [name for name, each in fitted.items() if isinstance(each, NotFitted)] == ["gradient_boosting"]


def _of_private_stripes() -> Classifier:
    """A classifier of private stripes."""
    return fit_classifier("random_forest", stripes(60), trained_on="private", seed=0)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_class_missing_from_the_training_split_is_never_answered(name: str) -> None:
    classifier = fit_classifier(name, _uneven(60, 0, 60), trained_on="private", seed=0)
    answers = classifier.predict(stripes(60).images)
    assert set(answers[stripes(60).labels != 1]) <= {0, 2}
    right = classifier.right(stripes(60))
    assert right[stripes(60).labels != 1].mean() >= 0.95
    assert not right[stripes(60).labels == 1].any()


def test_which_classifiers_small_classes_stop() -> None:
    stopped = {
        counts: [
            name
            for name in OTHERS
            if isinstance(try_classifier(name, _uneven(*counts), trained_on="private", seed=0), NotFitted)
        ]
        for counts in ((60, 1, 0), (60, 60, 1), (60, 0, 0), (60, 60, 60))
    }
    assert stopped == {
        (60, 1, 0): ["mlp", "gradient_boosting"],
        (60, 60, 1): ["gradient_boosting"],
        (60, 0, 0): list(OTHERS),
        (60, 60, 60): [],
    }


@pytest.mark.parametrize("name", ["mlp", "gradient_boosting"])
def test_the_reason_is_a_sentence_of_ours_where_a_class_is_too_small(name: str) -> None:
    fitted = try_classifier(name, _uneven(60, 1, 0), trained_on="private", seed=0)
    assert isinstance(fitted, NotFitted)
    assert "needs two examples or more of each class" in fitted.reason
    assert fitted.reason.endswith("classes with a single one: 1 of 2.")


def test_an_mlp_that_is_interrupted_is_not_taken_for_a_trained_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(MLPClassifier, "_backprop", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fit_classifier("mlp", stripes(60), trained_on="generated", seed=0)


def test_classifiers_of_other_examples_are_not_compared() -> None:
    one, other = (fit_classifier("mlp", stripes(30), trained_on=kind, seed=0) for kind in ("private", "generated"))
    with pytest.raises(ValueError, match="were trained on generated and private examples"):
        compare_classifiers(other, one, stripes(30), stripes(30))


def test_settings_are_chosen_on_examples_that_were_not_learnt_from(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []

    class Watched(LogisticRegression):
        def fit(self, X, y):
            self.learnt = {example.tobytes() for example in X}
            return super().fit(X, y)

        def score(self, X, y):
            seen.append((len(X), len(self.learnt & {example.tobytes() for example in X})))
            return -self.C  # the strongest penalty is to win

    settings = tuple(lambda seed, examples, penalty=penalty: Watched(C=penalty) for penalty in (1.0, 0.5, 2.0))
    chosen = module._best(
        settings, meaningless(100).images.reshape(100, -1) / np.float32(255), meaningless(100).labels, 0
    )
    assert chosen.C == 0.5
    assert seen == [(10, 0)] * 3


@pytest.mark.parametrize("name", OTHERS)
def test_few_examples_are_enough_for_simple_classes(name: str) -> None:
    classifier = fit_classifier(name, stripes(100), trained_on="generated", seed=0)
    assert classifier.right(stripes(60)).mean() >= 0.95


def test_no_more_examples_are_seen_than_stated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_EXAMPLES", 120)
    examples = stripes(300)
    by_class = examples.take(np.argsort(examples.labels, kind="stable"))  # the first 120 examples would lack a class
    classifier = fit_classifier("random_forest", by_class, trained_on="private", seed=0)
    assert classifier.num_examples == 120
    assert classifier.right(stripes(60)).all()


def test_large_images_are_averaged_down() -> None:
    images = np.zeros((3, 64, 40, 1), np.uint8)
    images[:, :2, :, :] = 100
    pixels = module._pixels(images)
    assert pixels.shape == (3, 32 * 32)
    np.testing.assert_allclose(pixels[:, :32], 100 / 255, rtol=1e-5)
    assert not pixels[:, 32:].any()


def test_refusals() -> None:
    with pytest.raises(ValueError, match=r"`classifiers` should be some of cnn.*got \['svm'\]"):
        check_classifiers(["cnn", "svm"])
    with pytest.raises(ValueError, match="each once"):
        check_classifiers(["mlp", "mlp"])
    with pytest.raises(ValueError, match="`trained_on` should be"):
        fit_classifier("mlp", stripes(30), trained_on="public", seed=0)
    with pytest.raises(ValueError, match="`soft_labels` can be learnt by the cnn alone"):
        fit_classifier("mlp", stripes(30), trained_on="private", soft_labels=np.zeros((30, 3), np.float32), seed=0)
    single = LabeledDataset(stripes(30).images, np.zeros(30, np.int64), DataSpec((8, 8, 1), 3))
    for examples in (stripes(10), single):
        with pytest.raises(CannotFitError, match="random_forest needs at least 20 examples, of two classes or more"):
            fit_classifier("random_forest", examples, trained_on="private", seed=0)
    with pytest.raises(ValueError, match="`dataset` should have examples to test on"):
        fit_classifier("mlp", stripes(30), trained_on="private", seed=0).right(stripes(0))
