"""Utility: what a classifier that has only seen generated images knows about real ones.

    matrix = utility_matrix(private_train, private_test, synthetic_train, synthetic_test, seed=0)
    matrix.p2, matrix.accuracy_loss, matrix.intervals["p2"]
    utility_matrix(..., classifier="random_forest", seed=0)

|                 | tested on private | tested on generated |
|-----------------|-------------------|---------------------|
| trained private | p1                | p3                  |
| trained generated | p2              | p4                  |

p2 ("train on synthetic, test on real", Esteban et al. 2017, arXiv 1706.02633, section 4.2) is what a receiver of the
data gets, and p1 - p2 what privacy has cost. p3 on plain generated examples is also called label agreement: the share
of them that a classifier of real examples names as they are labelled.

Balanced accuracy, the mean of the accuracies on each class, stands beside each of them (`balanced`): where nearly all
examples are of one class, a classifier that always answers that class has a high accuracy and knows nothing. Classes
without an example in the test set are left out of the mean, as in scikit-learn's `balanced_accuracy_score`.
`cautions_about` says where a test set is too small or too uneven for its accuracies to say much.

Where a classifier could not be trained, or a test set is empty, the metrics are None and `not_measured` says why.

All metrics are internal: no noise is added to them, and p1 and p3 come from a classifier that was trained on
private examples without differential privacy. Neither the metrics nor that classifier may be published; `published`
says what may be.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tfdpgen.data import LabeledDataset
from tfdpgen.evaluation.classifiers import Classifier, NotFitted, try_classifier
from tfdpgen.evaluation.intervals import Interval, accuracy_interval, difference_interval

ACCURACIES = ("p1", "p2", "p3", "p4")

_LEAST_OF_A_CLASS = 2  # test examples below which a class's accuracy is a single answer, or none
_LARGEST_SHARE = 0.99  # of the test examples, that one class may have without a caution
_MOST_NAMED = 5  # classes in a sentence
_NEAR_CHANCE = 0.15  # above what guessing gives: where the mean of p2 and p3 is below, images are of no use


@dataclasses.dataclass(frozen=True)
class UtilityMatrix:
    """Accuracies in [0, 1] of the two classifiers on the two test sets; internal, see above.

    Attributes:
      p1: trained on private examples, tested on private examples; None where that could not be measured.
      p2: trained on generated examples, tested on private examples; or None.
      p3: trained on private examples, tested on generated examples: label agreement; or None.
      p4: trained on generated examples, tested on generated examples; or None.
      balanced: the balanced accuracies in [0, 1] of p1 to p4, by name; or None.
      intervals: 95 % intervals of p1 to p4 (exact binomial) and of accuracy_loss (paired bootstrap), by name; None
        for what was not measured.
      num_examples: examples that each of the two classifiers was given: (private, generated); None for one that was not
        trained.
      not_measured: why, for each metric that is None, by name.
    """

    p1: float | None
    p2: float | None
    p3: float | None
    p4: float | None
    balanced: Mapping[str, float | None]
    intervals: Mapping[str, Interval | None]
    num_examples: tuple[int | None, int | None]
    not_measured: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def accuracy_loss(self) -> float | None:
        """p1 - p2: the accuracy lost by training on generated instead of private examples; None without either."""
        return None if self.p1 is None or self.p2 is None else self.p1 - self.p2

    def to_dict(self) -> dict[str, Any]:
        """p1 to p4, accuracy_loss, balanced, intervals, num_examples and not_measured as JSON-ready values."""
        intervals = {name: list(interval) if interval else None for name, interval in self.intervals.items()}
        return {
            **{name: getattr(self, name) for name in ACCURACIES},
            "accuracy_loss": self.accuracy_loss,
            "balanced": dict(self.balanced),
            "intervals": intervals,
            "num_examples": list(self.num_examples),
            "not_measured": dict(self.not_measured),
        }


def utility_matrix(
    private_train: LabeledDataset,
    private_test: LabeledDataset,
    synthetic_train: LabeledDataset,
    synthetic_test: LabeledDataset,
    *,
    classifier: str = "cnn",
    seed: int,
    verbose: int = 0,
) -> UtilityMatrix:
    """Trains one classifier on each training set and tests both on both test sets.

    Args:
      private_train: the examples that the generator was trained on.
      private_test: real examples that neither generator nor classifier has seen.
      synthetic_train: generated examples; as many as private_train for a fair p1 - p2.
      synthetic_test: further generated examples.
      classifier: one of `CLASSIFIERS`.
      seed: for initialisation, order and dropout of both classifiers.
      verbose: Keras's verbosity: 0 silent, 1 progress bar, 2 a line an epoch.

    Raises:
      ValueError: if image shape or number of classes differ, or the classifier is unknown.
    """
    for name, dataset in (("synthetic_train", synthetic_train), ("synthetic_test", synthetic_test)):
        facts = dataset.spec.image_shape, dataset.spec.num_classes
        expected = private_train.spec.image_shape, private_train.spec.num_classes
        if facts != expected:
            raise ValueError(
                f"`{name}` should have the image_shape and num_classes of `private_train`, {expected}; got {facts}."
            )
    return compare_classifiers(
        try_classifier(classifier, private_train, trained_on="private", seed=seed, verbose=verbose),
        try_classifier(classifier, synthetic_train, trained_on="generated", seed=seed, verbose=verbose),
        private_test,
        synthetic_test,
    )


def compare_classifiers(
    private: Classifier | NotFitted,
    generated: Classifier | NotFitted,
    private_test: LabeledDataset,
    synthetic_test: LabeledDataset,
) -> UtilityMatrix:
    """The matrix of two classifiers that are trained already, or of what could not be trained.

    Args:
      private: trained on private examples.
      generated: trained on generated examples.
      private_test: real examples that neither generator nor classifier has seen.
      synthetic_test: generated examples that the second has not seen.

    Raises:
      ValueError: if the two are not trained on what their names say.
    """
    if (private.trained_on, generated.trained_on) != ("private", "generated"):
        raise ValueError(
            "`private` and `generated` should be trained on what their names say; "
            f"got classifiers that were trained on {private.trained_on} and {generated.trained_on} examples."
        )
    right: dict[str, npt.NDArray[np.bool_]] = {}
    balanced: dict[str, float | None] = dict.fromkeys(ACCURACIES)
    reasons: dict[str, str] = {}
    for name, classifier, tested in (
        ("p1", private, private_test),
        ("p2", generated, private_test),
        ("p3", private, synthetic_test),
        ("p4", generated, synthetic_test),
    ):
        if isinstance(classifier, NotFitted):
            reasons[name] = classifier.reason
        elif not len(tested):
            reasons[name] = "There are no test examples."
        else:
            right[name] = classifier.right(tested)
            balanced[name] = balanced_accuracy(right[name], tested.labels)
    accuracies = {name: float(right[name].mean()) if name in right else None for name in ACCURACIES}
    intervals = {
        name: accuracy_interval(int(right[name].sum()), len(right[name])) if name in right else None
        for name in ACCURACIES
    }
    both = "p1" in right and "p2" in right
    intervals["accuracy_loss"] = difference_interval(right["p1"], right["p2"]) if both else None
    if not both:
        reasons["accuracy_loss"] = reasons.get("p1") or reasons["p2"]
    given = [None if isinstance(each, NotFitted) else each.num_examples for each in (private, generated)]
    return UtilityMatrix(
        **accuracies, balanced=balanced, intervals=intervals, num_examples=(given[0], given[1]), not_measured=reasons
    )


def over_seeds(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean, least and greatest of p1 to p4 over classifiers that differ in their seed.

    That is chance in the training of classifiers; another training of the generator differs by more.

    Args:
      runs: at least one `UtilityMatrix.to_dict()`.

    Returns:
      {num_seeds, p1: {mean, least, greatest}, ..., p4}, JSON-ready; None for what some run has not measured.
    """
    found: dict[str, Any] = {"num_seeds": len(runs)}
    for name in ACCURACIES:
        values = [run[name] for run in runs]
        is_whole = all(value is not None for value in values)
        found[name] = (
            {"mean": float(np.mean(values)), "least": min(values), "greatest": max(values)} if is_whole else None
        )
    return found


def balanced_accuracy(right: npt.NDArray[np.bool_], labels: npt.NDArray[np.int64]) -> float:
    """The mean over classes of the share of a class's examples that were answered right, in [0, 1].

    Classes without an example are left out, as in scikit-learn's `balanced_accuracy_score`.

    Args:
      right: bool [n], whether each example was answered right.
      labels: int64 [n], their classes; n >= 1.
    """
    counts = np.bincount(labels)
    present = counts > 0
    return float(np.mean(np.bincount(labels, weights=right)[present] / counts[present]))


def caution_of_use(p2: float | None, p3: float | None, num_classes: int) -> list[str]:
    """A sentence that says so where synthetic images are hardly better than noise; else none.

    Args:
      p2: accuracy on real images of a classifier of synthetic ones.
      p3: that of a classifier of real images on synthetic ones.
      num_classes: guessing is right one time in so many.
    """
    if p2 is None or p3 is None or (p2 + p3) / 2 >= 1 / num_classes + _NEAR_CHANCE:
        return []
    return [
        f"These images are of no use. A classifier that learns from them is right on {p2:.2f} of real images (p2), one "
        f"of real images on {p3:.2f} of these (p3), and guessing on {1 / num_classes:.2f}. Take another method, a "
        "larger epsilon, or more data."
    ]


def cautions_about(test: LabeledDataset) -> list[str]:
    """What makes accuracies on a test set say little, as sentences; none for one that is large and even enough.

    It is computed from private examples without noise: internal, as the accuracies are.
    """
    spec, size = test.spec, len(test)
    counts = np.bincount(test.labels, minlength=spec.num_classes)
    few = [spec.name_of(int(label)) for label in np.flatnonzero(counts < _LEAST_OF_A_CLASS)]
    cautions: list[str] = []
    if few:
        named = ", ".join(few[:_MOST_NAMED]) + (f" and {len(few) - _MOST_NAMED} more" if len(few) > _MOST_NAMED else "")
        cautions.append(
            f"The test split holds fewer than {_LEAST_OF_A_CLASS} examples of {len(few)} of {spec.num_classes} classes "
            f"(named {named}): the accuracies say next to nothing about them."
        )
    largest = int(counts.argmax())
    if counts[largest] > _LARGEST_SHARE * size:
        cautions.append(
            f"{counts[largest] / size:.1%} of the test split are of class {spec.name_of(largest)}: always to answer "
            "that class has this accuracy. "
            + ("Read the balanced accuracy." if counts[largest] < size else "There is no other class to tell it from.")
        )
    return cautions
