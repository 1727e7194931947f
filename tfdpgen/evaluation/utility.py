"""Utility: what a classifier that has only seen generated images knows about real ones.

    matrix = utility_matrix(private_train, private_test, synthetic_train, synthetic_test, seed=0)
    matrix.p2, matrix.accuracy_loss, matrix.intervals["p2"]
    utility_matrix(..., classifier="random_forest", seed=0)

|                 | tested on private | tested on generated |
|-----------------|-------------------|---------------------|
| trained private | p1                | p3                  |
| trained generated | p2              | p4                  |

p2 ("train on synthetic, test on real", Esteban et al. 2017, arXiv 1706.02633, section 4.2) is what a receiver of the
data gets, and p1 - p2 what privacy has cost. p3 on plain generated rows is also called label agreement: the share of
them that a classifier of real rows names as they are labelled.

All four figures are internal: no noise is added to them, and p1 and p3 come from a classifier that was trained on
private rows without differential privacy. Neither the figures nor that classifier may be published; `published` says
what may be.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from tfdpgen.data import LabeledDataset
from tfdpgen.evaluation.classifiers import Classifier, fit_classifier
from tfdpgen.evaluation.intervals import Interval, accuracy_interval, difference_interval


@dataclasses.dataclass(frozen=True)
class UtilityMatrix:
    """Accuracies in [0, 1] of the two classifiers on the two test sets; internal, see above.

    Attributes:
      p1: trained on private rows, tested on private rows.
      p2: trained on generated rows, tested on private rows.
      p3: trained on private rows, tested on generated rows: label agreement.
      p4: trained on generated rows, tested on generated rows.
      intervals: 95 % intervals of p1 to p4 (exact binomial) and of accuracy_loss (paired bootstrap), by name.
      num_rows: rows that each of the two classifiers was given: (private, generated).
    """

    p1: float
    p2: float
    p3: float
    p4: float
    intervals: Mapping[str, Interval]
    num_rows: tuple[int, int]

    @property
    def accuracy_loss(self) -> float:
        """p1 - p2: the accuracy that is lost by training on generated instead of private rows."""
        return self.p1 - self.p2

    def to_dict(self) -> dict[str, Any]:
        """p1, p2, p3, p4, accuracy_loss, intervals and num_rows as JSON-ready values."""
        values = dataclasses.asdict(self)
        intervals = {name: list(interval) for name, interval in self.intervals.items()}
        accuracies = {name: values[name] for name in ("p1", "p2", "p3", "p4")}
        return {
            **accuracies,
            "accuracy_loss": self.accuracy_loss,
            "intervals": intervals,
            "num_rows": list(self.num_rows),
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
      private_train: the rows that the generator was trained on.
      private_test: real rows that neither generator nor classifier has seen.
      synthetic_train: generated rows; as many as private_train for a fair p1 - p2.
      synthetic_test: further generated rows.
      classifier: one of `CLASSIFIERS`.
      seed: for initialisation, order and dropout of both classifiers.
      verbose: Keras's verbosity: 0 silent, 1 progress bar, 2 a line an epoch.

    Raises:
      ValueError: if image shape or number of classes differ, a test set is empty, or the classifier is unknown.
    """
    for name, dataset in (("synthetic_train", synthetic_train), ("synthetic_test", synthetic_test)):
        facts = dataset.spec.image_shape, dataset.spec.num_classes
        expected = private_train.spec.image_shape, private_train.spec.num_classes
        if facts != expected:
            raise ValueError(
                f"`{name}` should have the image_shape and num_classes of `private_train`, {expected}; got {facts}."
            )
    return compare_classifiers(
        fit_classifier(classifier, private_train, trained_on="private", seed=seed, verbose=verbose),
        fit_classifier(classifier, synthetic_train, trained_on="generated", seed=seed, verbose=verbose),
        private_test,
        synthetic_test,
    )


def compare_classifiers(
    private: Classifier, generated: Classifier, private_test: LabeledDataset, synthetic_test: LabeledDataset
) -> UtilityMatrix:
    """The matrix of two classifiers that are trained already.

    Args:
      private: trained on private rows.
      generated: trained on generated rows.
      private_test: real rows that neither generator nor classifier has seen.
      synthetic_test: generated rows that the second has not seen.

    Raises:
      ValueError: if the two are not trained on what their names say, or a test set is empty.
    """
    if (private.trained_on, generated.trained_on) != ("private", "generated"):
        raise ValueError(
            "`private` and `generated` should be trained on what their names say; "
            f"got classifiers that were trained on {private.trained_on} and {generated.trained_on} rows."
        )
    right: dict[str, npt.NDArray[np.bool_]] = {
        "p1": private.right(private_test),
        "p2": generated.right(private_test),
        "p3": private.right(synthetic_test),
        "p4": generated.right(synthetic_test),
    }
    intervals = {name: accuracy_interval(int(rows.sum()), len(rows)) for name, rows in right.items()}
    intervals["accuracy_loss"] = difference_interval(right["p1"], right["p2"])
    accuracies = {name: float(rows.mean()) for name, rows in right.items()}
    return UtilityMatrix(**accuracies, intervals=intervals, num_rows=(private.num_rows, generated.num_rows))
