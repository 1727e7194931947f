"""Downstream classifiers: what a receiver of the data would train, one registry for all kinds.

    classifier = fit_classifier("random_forest", synthetic, trained_on="generated", seed=0)
    classifier.predict(images)              # int64 [n]
    classifier.right(private_test)          # bool [n]: which examples it names rightly

| name | what it is |
|---|---|
| cnn | the CNN of `utility.train_classifier`, on all examples |
| logistic_regression | multinomial, penalty chosen from three |
| mlp | one hidden layer of 128, stopped early |
| random_forest | 60 trees, each of half the examples; size of leaves chosen from two |
| gradient_boosting | histogram gradient boosting (Ke et al. 2017, "LightGBM"), stopped early |

All but the CNN are scikit-learn's, learn from pixels as they are (sides longer than 32 are averaged down), and see
`MOST_EXAMPLES` examples at most, drawn at random, which keeps the whole set within minutes. Whatever is chosen,
penalty, size of leaves or number of epochs, is chosen on a tenth of the examples that the classifier is given: one that
learns from generated examples is chosen by generated examples alone.

A classifier remembers whether it learnt from private examples (`trained_on`): such a one was trained without
differential privacy, and neither it nor its accuracy may leave.

Some examples cannot be learnt from: a single class, or a class with too few examples to set one aside by which to stop.
`fit_classifier` raises a `CannotFitError` then; `try_classifier` returns a `NotFitted` with the reason, which
`compare_classifiers` reports in place of accuracies.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from threadpoolctl import threadpool_limits

from tfdpgen.choices import CLASSIFIERS, check_classifiers
from tfdpgen.data import LabeledDataset
from tfdpgen.evaluation.cnn import train_classifier

TrainedOn = Literal["private", "generated"]

MOST_EXAMPLES = 10_000  # that a scikit-learn classifier sees of a data set
_VALIDATION = 0.1
_LEAST_EXAMPLES = 20  # that a scikit-learn classifier can choose its settings by
_LONGEST_SIDE = 32
_BATCH = 1024
_INTERRUPTED = "Training interrupted by user"  # how scikit-learn's MLP warns of a Ctrl-C, which it does not pass on
_MLP_BATCH, _MLP_PATIENCE = 64, 150  # examples; steps without a better score


class CannotFitError(ValueError):
    """A classifier cannot learn from these examples; the message says why."""


@dataclasses.dataclass(frozen=True)
class NotFitted:
    """A classifier that could not be trained, in the place of one that was.

    Attributes:
      name: of its kind.
      trained_on: the kind of examples that it was given.
      reason: why it could not learn from them, as a sentence.
    """

    name: str
    trained_on: TrainedOn
    reason: str


@dataclasses.dataclass(frozen=True, eq=False)
class Classifier:
    """A trained classifier and what it may be used for.

    Attributes:
      name: of its kind.
      trained_on: "private" if it has seen private examples, without differential privacy; then nothing of it may leave.
      num_examples: examples that it was given, those included that only chose its settings.
      predict: uint8 images [n, h, w, c] -> classes int64 [n].
      model: the Keras model of a CNN, None for others.
    """

    name: str
    trained_on: TrainedOn
    num_examples: int
    predict: Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.int64]]
    model: Any = None

    def right(self, dataset: LabeledDataset) -> npt.NDArray[np.bool_]:
        """Which examples it names rightly, bool [n].

        Raises:
          ValueError: if there are no examples.
        """
        if not len(dataset):
            raise ValueError("`dataset` should have examples to test on; it is empty.")
        return self.predict(dataset.images) == dataset.labels


_STOPPED_EARLY: Any = {"early_stopping": True, "validation_fraction": _VALIDATION, "n_iter_no_change": 5}
_SETTINGS: Mapping[str, Sequence[Callable[[int, int], Any]]] = {
    "logistic_regression": tuple(
        lambda seed, _, penalty=penalty: LogisticRegression(C=penalty, max_iter=100, random_state=seed)
        for penalty in (0.01, 0.1, 1.0)
    ),
    "mlp": (
        # Few examples make short epochs: patience is counted in steps.
        lambda seed, num_examples: MLPClassifier(
            (128,),
            random_state=seed,
            **_STOPPED_EARLY
            | {
                "batch_size": min(_MLP_BATCH, num_examples // 2),
                "n_iter_no_change": max(5, _MLP_PATIENCE * _MLP_BATCH // num_examples),
            },
        ),
    ),
    "random_forest": tuple(
        lambda seed, _, leaf=leaf: RandomForestClassifier(
            60, min_samples_leaf=leaf, max_samples=0.5, n_jobs=-1, random_state=seed
        )
        for leaf in (1, 4)
    ),
    "gradient_boosting": (
        lambda seed, _: HistGradientBoostingClassifier(
            learning_rate=0.3, max_iter=40, max_leaf_nodes=8, max_bins=32, random_state=seed, **_STOPPED_EARLY
        ),
    ),
}
assert ("cnn", *_SETTINGS) == CLASSIFIERS


def fit_classifier(
    name: str,
    dataset: LabeledDataset,
    *,
    trained_on: TrainedOn,
    soft_labels: npt.NDArray[np.float32] | None = None,
    seed: int,
    verbose: int = 0,
) -> Classifier:
    """Trains one classifier; the result is a function of the arguments (on one machine).

    Args:
      name: one of `CLASSIFIERS`.
      dataset: its examples; at least two classes among them.
      trained_on: whether `dataset` is private or generated. Nothing can tell it from the examples.
      soft_labels: float32 [n, num_classes], for the CNN alone; see `train_classifier`.
      seed: of everything that is drawn.
      verbose: Keras's verbosity, of the CNN.

    Raises:
      CannotFitError: if the classifier cannot learn from these examples: there are too few of them, or of one class.
      ValueError: for an unknown name or kind of examples, or soft labels that the classifier cannot learn.
    """
    check_classifiers([name])
    if trained_on not in ("private", "generated"):
        raise ValueError(f"`trained_on` should be 'private' or 'generated'; got {trained_on!r}.")
    if name == "cnn":
        if len(dataset) < 2:
            raise CannotFitError(
                f"The cnn needs at least an example to train on and one to validate; got {len(dataset)}."
            )
        model = train_classifier(dataset, soft_labels=soft_labels, seed=seed, verbose=verbose)

        def named(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
            return model.predict(images, batch_size=_BATCH, verbose=0).argmax(axis=-1)

        return Classifier(name, trained_on, len(dataset), named, model)
    if soft_labels is not None:
        raise ValueError(f"`soft_labels` can be learnt by the cnn alone; got them for {name}.")
    drawn = np.random.default_rng(seed).permutation(len(dataset))[:MOST_EXAMPLES]
    examples = dataset.take(drawn)
    classes = len(np.unique(examples.labels))
    if classes < 2 or len(examples) < _LEAST_EXAMPLES:
        raise CannotFitError(
            f"{name} needs at least {_LEAST_EXAMPLES} examples, of two classes or more; got {len(examples)} of "
            f"{classes}."
        )
    try:
        estimator = _best(_SETTINGS[name], _pixels(examples.images), examples.labels, seed)
    except ValueError as error:  # scikit-learn's own refusal, as of a class too small to be stratified
        if "least populated class" in str(error):
            raise CannotFitError(
                f"{name} sets a tenth of its examples aside to know when to stop, and needs two examples or more of "
                f"each class for that; classes with a single one: {_alone(examples.labels)} of {classes}."
            ) from error
        reason = " ".join(str(error).split())
        raise CannotFitError(
            f"{name} cannot learn from {len(examples)} examples of {classes} classes: {reason}"
        ) from error
    return Classifier(
        name, trained_on, len(examples), lambda images: estimator.predict(_pixels(images)).astype(np.int64)
    )


def _alone(labels: npt.NDArray[np.int64]) -> int:
    """How many classes have one example."""
    return int(np.count_nonzero(np.unique(labels, return_counts=True)[1] == 1))


def try_classifier(name: str, dataset: LabeledDataset, **arguments: Any) -> Classifier | NotFitted:
    """`fit_classifier` with the same arguments, which gives a `NotFitted` where the examples cannot be learnt from.

    Raises:
      ValueError: as `fit_classifier`, but for `CannotFitError`.
    """
    try:
        return fit_classifier(name, dataset, **arguments)
    except CannotFitError as error:
        return NotFitted(name, arguments["trained_on"], str(error))


def _best(
    settings: Sequence[Callable[[int, int], Any]],
    pixels: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int64],
    seed: int,
) -> Any:
    """The estimator that does best on a tenth of the examples, which it has not learnt from; a single one learns from
    all.

    Those that stop early set a tenth aside themselves.

    Raises:
      KeyboardInterrupt: also where scikit-learn's MLP would only warn of it, and keep what it has learnt so far.
    """
    if len(settings) == 1:
        chosen, held_out = np.arange(len(labels)), np.arange(0)
    else:
        order = np.random.default_rng(seed).permutation(len(labels))
        held_out, chosen = np.split(order, [math.ceil(_VALIDATION * len(labels))])
    fitted, scores = [], []
    for make in settings:
        # One thread: on a busy machine the threads of a fit this small wait for each other a hundred times longer.
        with threadpool_limits(1), warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # more iterations are not worth their time here
            warnings.filterwarnings("error", _INTERRUPTED, UserWarning)
            try:
                estimator = make(seed % 2**32, len(chosen)).fit(pixels[chosen], labels[chosen])
            except UserWarning as warning:
                if not str(warning).startswith(_INTERRUPTED):  # somebody else has made an error of it
                    raise
                raise KeyboardInterrupt from warning
        fitted.append(estimator)
        scores.append(estimator.score(pixels[held_out], labels[held_out]) if held_out.size else 0.0)
    return fitted[int(np.argmax(scores))]


def _pixels(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Images as vectors of pixels in [0, 1], float32 [n, d]; sides longer than 32 pixels are averaged down to 32."""
    sides = [min(side, _LONGEST_SIDE) for side in images.shape[1:3]]
    if tuple(sides) != images.shape[1:3]:
        parts = [
            np.asarray(tf.image.resize(images[start : start + _BATCH], sides, method="area"))
            for start in range(0, len(images), _BATCH)
        ]
        images = np.concatenate(parts)
    return (images.reshape(len(images), -1) / 255).astype(np.float32)
