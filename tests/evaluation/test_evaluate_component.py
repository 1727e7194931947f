"""The evaluate step: what it writes, and that publishing is refused or paid for before private examples are asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.artifacts import PrivateExamples, SyntheticExamples
from components.component import ComponentError
from components.evaluate import evaluate
from tests.evaluation.test_utility import stripes
from tfdpgen.data import LabeledDataset, Splits
from tfdpgen.evaluation import Classifier, NotFitted, try_classifier
from tfdpgen.privacy import Ledger

TEST = stripes(60)
SETTINGS: dict[str, Any] = {"classifiers": "random_forest", "delta": 1e-3, "classifier_seeds": 1}


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Path]:
    """Private stripes, and generated ones whose last sixth has other labels, with an augmented example for each."""
    examples = PrivateExamples(tmp_path / "examples", "ingest")
    Splits(stripes(90), stripes(45), TEST).save(examples.path)
    examples.seal()
    synthetic = SyntheticExamples(tmp_path / "synthetic", "generate", facts={"spec": TEST.spec.to_dict()})
    synthetic.path.mkdir()
    data = stripes(120)
    labels = np.where(np.arange(120) < 100, data.labels, (data.labels + 1) % 3)
    soft = np.eye(3, dtype=np.float32)[np.concatenate([labels, data.labels])]
    np.savez(
        synthetic.path / "synthetic.npz",
        images=np.concatenate([data.images, data.images]),
        labels=np.concatenate([labels, data.labels]),
        soft_labels=soft,
        is_augmented=np.repeat([False, True], 120),
    )
    synthetic.seal()
    return {"examples": examples.path, "synthetic": synthetic.path}


def run(inputs: dict[str, Path], **parameters: Any) -> dict[str, Any]:
    """The step's metrics by file."""
    output = inputs["examples"].parent / "utility"
    evaluate.execute(inputs, {"utility": output}, SETTINGS | parameters)
    return {path.stem: json.loads(path.read_text()) for path in output.glob("*.json")}


def test_metrics_are_of_the_examples_that_they_name(inputs: dict[str, Path], tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.sqlite"
    metrics = run(
        inputs, publish_metrics_epsilon=2.0, publish_metrics="p2, p2_augmented,p2_random_forest", ledger=str(ledger)
    )
    assert set(metrics) == {"artifact", "utility", "fidelity", "published_metrics"}
    for matrix in (metrics["utility"], metrics["utility"]["classifiers"]["random_forest"]):
        # The last sixth of the plain examples, which is tested on, is the one that is labelled otherwise.
        assert (matrix["p1"], matrix["p2"], matrix["p3"], matrix["p4"]) == (1, 1, 0, 0)
    assert metrics["utility"]["label_agreement"] == 0
    assert metrics["utility"]["p2_augmented"] == 1
    assert metrics["utility"]["intervals"]["p2_augmented"][1] == 1
    assert set(metrics["fidelity"]) == {"scattering", "cnn"}
    assert {space["num_examples"] for space in metrics["fidelity"].values()} == {45}  # as many as there are held out

    published = metrics["published_metrics"]
    assert set(published["metrics"]) == {"p2", "p2_augmented", "p2_random_forest"}
    assert published["num_examples"] == 60
    assert published["epsilon"] <= 2.0
    data = LabeledDataset(TEST.images, TEST.labels, TEST.spec)
    assert Ledger(ledger).spent(data, 1e-3) == published["epsilon"]


def test_accuracies_come_with_their_range_over_seeds(inputs: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[tuple[str, int]] = []

    def unlucky(name: str, dataset: Any, *, trained_on: Any, seed: int, **rest: Any) -> Any:
        """One of the seeds learns from labels that are not those."""
        if name == "cnn" and "soft_labels" not in rest:
            trained.append((trained_on, seed))
        if name == "cnn" and seed == 5 and trained_on == "generated":
            dataset = LabeledDataset(dataset.images, (dataset.labels + 1) % 3, dataset.spec)
        return try_classifier(name, dataset, trained_on=trained_on, seed=seed, **rest)

    monkeypatch.setattr("tfdpgen.evaluation.try_classifier", unlucky)
    metrics = run(inputs, classifier_seeds=2, seed=4)["utility"]
    assert sorted(trained) == sorted((kind, seed) for kind in ("private", "generated") for seed in (4, 5))
    assert (metrics["p2"], metrics["over_seeds"]["num_seeds"]) == (1, 2)
    assert metrics["over_seeds"]["p2"] == {"mean": pytest.approx(1 / 2), "least": 0, "greatest": 1}
    assert metrics["over_seeds"]["p1"] == {"mean": 1, "least": 1, "greatest": 1}


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"classifier_seeds": 0}, "`classifier_seeds` should be at least 1; got 0"),
        ({"publish_metrics": "p1,p2"}, "cannot hold p1: its classifier was trained on private examples"),
        ({"publish_metrics": "p2_mlp"}, r"`publish_metrics` should name some of p2, p2_random_forest.*got p2_mlp"),
        ({"publish_metrics": ""}, "`metrics` should name metrics to publish"),
        ({"publish_metrics_epsilon": -1.0}, "`epsilon` should be a finite number greater than 0"),
        ({"delta": 0.5}, "`delta` should be smaller than 1 / num_examples"),
        ({"classifiers": "svm"}, "`classifiers` should be some of"),
        ({"inception_weights": "none.h5"}, "`weights` should be the file inception_v3"),
    ],
)
def test_refusals_come_before_anything_is_spent(
    inputs: dict[str, Path], tmp_path: Path, parameters: dict[str, Any], message: str
) -> None:
    ledger = tmp_path / "ledger.sqlite"
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        run(inputs, **{"publish_metrics_epsilon": 2.0, "ledger": str(ledger), **parameters})
    assert not ledger.exists() or not Ledger(ledger).reservations(TEST)


def test_accuracies_of_a_seeded_release_are_not_published(inputs: dict[str, Path]) -> None:
    (inputs["synthetic"] / "NOT_FOR_RELEASE.txt").write_text("seeded")
    with pytest.raises(ComponentError, match="`publish_metrics_epsilon` should be 0 where the release may not leave"):
        run(inputs, publish_metrics_epsilon=2.0)


def test_a_class_of_one_example_leaves_everything_else_measured(inputs: dict[str, Path]) -> None:
    data = stripes(90)
    order = np.concatenate([np.flatnonzero(data.labels == 0), np.flatnonzero(data.labels == 1)[:1]])
    two = data.take(order)
    Splits(two, stripes(3), stripes(60)).save(inputs["examples"])
    metrics = run(inputs, classifiers="random_forest,gradient_boosting")
    utility = metrics["utility"]
    assert utility["p1"] is not None
    assert utility["classifiers"]["random_forest"]["not_measured"] == {}
    boosting = utility["classifiers"]["gradient_boosting"]
    assert boosting["p1"] is None
    assert "classes with a single one: 1 of 2" in boosting["not_measured"]["p1"]
    assert boosting["p2"] == 1
    for space in metrics["fidelity"].values():
        assert "at least 6 examples each; got 60, 3 and 120" in space["not_measured"]
    assert utility["cautions"] == []


def test_what_fails_before_the_publication_costs_nothing(
    inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(name: str, *arguments: Any, trained_on: str, **keywords: Any) -> Classifier | NotFitted:
        if trained_on == "private":
            raise RuntimeError("no classifier of private examples")
        return try_classifier(name, *arguments, trained_on="generated", **keywords)

    monkeypatch.setattr("tfdpgen.evaluation.try_classifier", fail)
    ledger = tmp_path / "ledger.sqlite"
    with pytest.raises(RuntimeError, match="no classifier of private examples"):
        run(inputs, classifiers="", publish_metrics_epsilon=2.0, ledger=str(ledger))
    assert not ledger.exists()
