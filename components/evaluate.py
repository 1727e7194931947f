"""Evaluate: how useful the synthetic examples are in place of the private ones, and how close to them.

    python -m components.evaluate --examples=DIR --synthetic=DIR --utility=DIR
    python -m components.evaluate --examples=DIR --synthetic=DIR --utility=DIR --publish_metrics_epsilon=0.5

The metrics are computed on private examples: they are internal, and no part of what the privacy budget covers. The
exception is published_metrics.json, which is written where a budget for it is given: accuracies with noise, which the
test examples pay for. They are computed last, so that nothing that fails before costs anything. At most 100,000
examples are used of each split and of the synthetic ones, so that none of them need fit in memory.

What cannot be measured, as by a classifier that needs more examples of a class than there are, is null in
utility.json, with the reason in `not_measured`, and everything else is measured all the same.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from components.artifacts import Input, Output, PrivateExamples, SyntheticExamples, UtilityMetrics
from components.component import ComponentError, beside, component, run_note
from components.outside import tree

if TYPE_CHECKING:
    from tfdpgen.data import LabeledDataset
    from tfdpgen.evaluation import FeatureSpace

MOST_EXAMPLES = 100_000
TEST_SHARE = 6  # one synthetic example in so many is tested on, as in MNIST with its 60,000 + 10,000 examples nearly


@beside(reads=lambda *, inception_weights, **_: tree(Path(inception_weights)) if inception_weights else None)
@component
def evaluate(
    examples: Input[PrivateExamples],
    synthetic: Input[SyntheticExamples],
    utility: Output[UtilityMetrics],
    *,
    classifiers: Annotated[
        str,
        "classifiers beside the CNN, with commas between, of logistic_regression, mlp, random_forest and "
        "gradient_boosting; all: all of them; empty: none",
    ] = "all",
    inception_weights: Annotated[
        str, "file with Keras's InceptionV3 weights, or keras for those that Keras has downloaded; empty: no such FID"
    ] = "",
    publish_metrics_epsilon: Annotated[
        float, "epsilon that the test examples pay for published accuracies; 0: none"
    ] = 0.0,
    publish_metrics: Annotated[str, "metrics to publish with noise, with commas between, as in p2,p2_mlp"] = "p2",
    delta: Annotated[float, "delta of the published accuracies"] = 1e-5,
    ledger: Annotated[str, "file or database address that keeps what was spent on whose examples; empty: none"] = "",
    total_epsilon: Annotated[
        float, "what every example may cost in all runs together, where the ledger does not know them yet"
    ] = 10.0,
    classifier_seeds: Annotated[int, "how often the CNN is trained, each time with another seed"] = 3,
    seed: Annotated[int, "seed of the classifiers"] = 0,
) -> None:
    """Trains classifiers on private and on synthetic examples, tests each on both, and measures fidelity.

    The accuracies are those of the first seed; `over_seeds` has mean and range of all. With augmented examples,
    `p2_augmented` is the accuracy on private examples of a CNN that learnt their soft labels.
    """
    from tfdpgen.data import Splits
    from tfdpgen.evaluation import (
        CLASSIFIERS,
        Classifier,
        NotFitted,
        accuracy_interval,
        balanced_accuracy,
        caution_of_use,
        cautions_about,
        check_classifiers,
        check_publishable,
        cnn_space,
        compare_classifiers,
        inception_space,
        over_seeds,
        publish_accuracies,
        publishable_metrics,
        scattering_space,
        try_classifier,
    )
    from tfdpgen.privacy import Ledger, PrivacyBudget

    chosen = [name for name in CLASSIFIERS if name != "cnn"] if classifiers == "all" else split(classifiers)
    names = ["cnn", *(name for name in chosen if name != "cnn")]
    check_classifiers(names)
    if classifier_seeds < 1:
        raise ComponentError(f"`classifier_seeds` should be at least 1; got {classifier_seeds}.")
    budget = PrivacyBudget(publish_metrics_epsilon, delta) if publish_metrics_epsilon else None
    published = split(publish_metrics)
    if budget is not None:
        check_publishable(published)
        if (synthetic.path / "NOT_FOR_RELEASE.txt").exists():
            raise ComponentError(
                "`publish_metrics_epsilon` should be 0 where the release may not leave: an accuracy of examples that "
                "are not private themselves is not made so by noise for the test examples; got "
                f"{publish_metrics_epsilon}."
            )
    inception = inception_space(inception_weights) if inception_weights else None

    splits = Splits.load(examples.path)
    plain, augmented = synthetic.load(MOST_EXAMPLES), synthetic.load_augmented(MOST_EXAMPLES)
    num_train = len(plain) - len(plain) // TEST_SHARE  # both have the same shares of classes: `Release.labels`
    learnt, tested = plain.take(np.arange(num_train)), plain.take(np.arange(num_train, len(plain)))
    test = splits.test.in_memory(MOST_EXAMPLES)

    if budget is not None:
        budget.check_num_examples(max(len(test), 1))
        check_publishable(published, publishable_metrics(names, augmented is not None))

    generated = {name: try_classifier(name, learnt, trained_on="generated", seed=seed) for name in names}
    by_metric = {"p2": generated["cnn"], **{f"p2_{name}": each for name, each in generated.items() if name != "cnn"}}
    private_train = splits.train.in_memory(MOST_EXAMPLES)
    matrices, private_cnn = {}, None
    for name in names:
        private = try_classifier(name, private_train, trained_on="private", seed=seed)
        if name == "cnn":
            private_cnn = private
        matrices[name] = compare_classifiers(private, generated[name], test, tested).to_dict()
    metrics = matrices.pop("cnn")
    metrics["label_agreement"] = metrics["p3"]
    runs = [metrics]
    for other in range(seed + 1, seed + classifier_seeds):
        private = try_classifier("cnn", private_train, trained_on="private", seed=other)
        synthetic_one = try_classifier("cnn", learnt, trained_on="generated", seed=other)
        runs.append(compare_classifiers(private, synthetic_one, test, tested).to_dict())
    metrics["over_seeds"] = over_seeds(runs)
    if augmented is not None:
        pupil = try_classifier("cnn", augmented[0], trained_on="generated", soft_labels=augmented[1], seed=seed)
        by_metric["p2_augmented"] = pupil
        metrics |= dict.fromkeys(["p2_augmented"])
        if isinstance(pupil, NotFitted) or not len(test):
            reason = pupil.reason if isinstance(pupil, NotFitted) else "There are no test examples."
            metrics["not_measured"]["p2_augmented"] = reason
        else:
            right = pupil.right(test)
            metrics["p2_augmented"] = float(right.mean())
            metrics["balanced"]["p2_augmented"] = balanced_accuracy(right, test.labels)
            metrics["intervals"]["p2_augmented"] = list(accuracy_interval(int(right.sum()), len(right)))
    metrics["cautions"] = caution_of_use(metrics["p2"], metrics["p3"], test.spec.num_classes) + cautions_about(test)
    _write(utility, "utility", metrics | {"classifiers": matrices})

    spaces = [scattering_space(), *([inception] if inception else [])]
    if isinstance(private_cnn, Classifier):
        spaces.insert(1, cnn_space(private_cnn))
    others = splits.holdout.in_memory(MOST_EXAMPLES)
    _write(utility, "fidelity", {space.name: _fidelity(space, test, others, plain, seed) for space in spaces})

    # Last of all what has to be paid for: what fails from here on, or a metric that could not be had, costs nothing.
    fitted = {name: each for name in published if isinstance(each := by_metric.get(name), Classifier)}
    if budget is not None and (unfitted := [name for name in published if name not in fitted]):
        print(f"evaluate: not published, as no classifier could be trained for it: {', '.join(unfitted)}")
    if budget is not None and fitted:
        account = str(examples.facts.get("source") or examples.facts.get("dataset") or "")
        note = run_note(utility.run, utility.path.parent)
        book = Ledger(ledger, account=account, total_epsilon=total_epsilon, say=print, note=note) if ledger else None
        accuracies = publish_accuracies(fitted, test, budget, ledger=book)
        _write(utility, "published_metrics", accuracies.to_dict())


def _fidelity(
    space: FeatureSpace, test: LabeledDataset, others: LabeledDataset, generated: LabeledDataset, seed: int
) -> dict[str, Any]:
    """The measures in one space, or why there are none."""
    from tfdpgen.evaluation import TooFewExamplesError, measure_fidelity

    try:
        return measure_fidelity(space, test, others, generated, seed=seed)
    except TooFewExamplesError as error:
        return {"description": space.description, "not_measured": str(error)}


def split(text: str) -> list[str]:
    """The names in `text`, which are separated by commas."""
    return [name for part in text.split(",") if (name := part.strip())]


def _write(utility: UtilityMetrics, name: str, metrics: dict[str, Any]) -> None:
    """One file of metrics in the artifact."""
    (utility.path / f"{name}.json").write_text(json.dumps(metrics, indent=2) + "\n")


if __name__ == "__main__":
    evaluate.main()
