"""The whole line on real data, wherever it can run: each test is one user's story."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds

from components import ArtifactError, PrivateExamples, Publication
from components.ingest import ingest
from components.publish import publish
from components.train import train
from pipelines import lineage_command
from pipelines.config import default_ledger
from pipelines.kubeflow_runner import kubeflow_pipeline
from pipelines.local_run import describe
from pipelines.synthesis import SYNTHESIS
from tfdpgen.data import Splits
from tfdpgen.privacy import Ledger

ROOT = Path(__file__).resolve().parents[2]
SMALL: dict[str, Any] = {
    "num_synthetic": 120,
    "attack_repetitions": 2,
    "attack_candidates": 20,
    "classifier_seeds": 1,
    "audit_canaries": 500,
    "audit_adversary": "white_box",
}


def _start(*flags: str) -> subprocess.Popen[str]:
    """The local run on little data, as a user starts it from somewhere else."""
    settings = [f"--{name}={value}" for name, value in SMALL.items()]
    return subprocess.Popen(
        [sys.executable, str(ROOT / "pipelines" / "local_run.py"), *settings, *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd="/",
    )


def _check_published(folder: Path, *, method: str, release: bool) -> dict[str, Any]:
    """Holds that everything promised is in the folder and can be used by others; returns the summary."""
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["dataset"] == "digits"
    assert (summary["method"], summary["release"]) == (method, release)
    assert summary["num_examples"] == summary["privacy"]["num_examples"] == 1077
    assert 2.9 < summary["privacy"]["epsilon"] <= 3.0
    accuracies = {"p1", "p2", "p3", "p4", "accuracy_loss"}
    assert set(summary["utility"]["intervals"]) == accuracies
    assert accuracies | {"label_agreement", "classifiers"} < set(summary["utility"])
    assert set(summary["utility"]["classifiers"]) == {
        "logistic_regression",
        "mlp",
        "random_forest",
        "gradient_boosting",
    }
    assert set(summary["fidelity"]) == {"scattering", "cnn"}
    assert ("published_metrics" in summary) is release
    assert {"utility", "fidelity", "attacks"} <= set(summary["internal"])
    assert summary["attacks"]
    for metrics in summary["attacks"].values():
        for name in ("accuracy", "privacy_loss", "auc"):
            low, high = metrics[f"{name}_interval"]
            assert low <= metrics[name] <= high
    assert summary["audit"]["lower_bound"] < summary["audit"]["claimed_epsilon"] <= 3
    assert "audit" in summary["internal"]
    assert list(summary["seconds"]) == ["ingest", "train", "generate", "attack", "evaluate", "audit", "publish"]
    assert summary["versions"]["tensorflow"].startswith("2.21")

    public = folder / ("public" if release else "not_for_release")
    assert {path.name for path in public.iterdir()} == {
        "privacy.json",
        "report_public.html",
        "serving_model",
        "synthetic",
    }
    builder = tfds.builder_from_directory(public / "synthetic")
    stored = list(tfds.as_numpy(builder.as_dataset(split="train", shuffle_files=False)))
    assert builder.info.description.startswith("NOT FOR RELEASE") is not release
    assert (public / "synthetic" / "NOT_FOR_RELEASE.txt").exists() is not release
    with np.load(public / "synthetic" / "synthetic.npz") as arrays:
        np.testing.assert_array_equal(np.stack([example["image"] for example in stored]), arrays["images"])
        np.testing.assert_array_equal(arrays["labels"], np.arange(SMALL["num_synthetic"]) % 10)

    for report in (folder / "report.html", public / "report_public.html"):
        assert ("NOT FOR RELEASE" in report.read_text()) is not release
        assert summary["privacy"]["unit"] in report.read_text()
    privacy = json.loads((public / "privacy.json").read_text())
    assert privacy["privacy"] == summary["privacy"]
    assert not {"utility", "fidelity", "attacks", "seconds", "dataset", *summary["internal"]} & set(privacy)
    for name in ("report.html", "summary.json", ".tfdpgen.json"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
    assert stat.S_IMODE((folder / "internal").stat().st_mode) == 0o700
    return summary


def test_a_killed_training_leaves_nothing_finished_and_the_next_run_goes_on_with_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "output"
    flags = f"--output_dir={output}", "--method=c_vae", "--publish_metrics_epsilon=1"
    process = _start(*flags)
    assert process.stdout
    for line in process.stdout:
        if re.search(r"/\d+ \[", line):  # the progress bar of training
            break
    process.kill()
    process.communicate()
    assert not (output / "internal" / "train" / "release").exists()
    assert not list((output / "internal" / "train").rglob("artifact.json"))
    assert {path.name for path in output.iterdir()} == {"internal"}

    process = _start(*flags, "--", "--direct_num_workers=1")
    said, errors = process.communicate()
    assert (process.returncode, errors) == (0, "")
    assert "[8/8] publish done in" in said
    assert re.search(r"Going on at step|All \d+ steps were executed", said)
    assert f"Results: {output}" in said
    assert "Privacy: epsilon 2.9" in said or "Privacy: epsilon 3.0" in said
    summary = _check_published(output, method="c_vae", release=True)
    assert {path.name for path in output.iterdir()} == {
        ".tfdpgen.json",
        "internal",
        "public",
        "report.html",
        "summary.json",
    }

    splits = Splits.load(output / "internal" / "ingest" / "examples")
    examples = splits.train
    ledger = Ledger(default_ledger(), create=False)
    (reserved,) = ledger.reservations(examples)  # both runs are one training
    assert summary["ledger"]["reservation"] == reserved.name
    assert [account["runs"] for account in summary["ledger"]["accounts"]] == [1]
    assert "ledger" in summary["internal"]
    assert "All runs together" in (output / "report.html").read_text()
    assert 2.9 < ledger.spent(examples, 1e-5) <= 3.0
    assert 0.99 < ledger.spent(splits.test, 1e-5) <= 1.0  # for the published accuracies
    assert not (output / "internal" / "backup").exists()

    capsys.readouterr()
    assert lineage_command.main([str(output / "public" / "serving_model" / "1")]) == 0
    traced = capsys.readouterr().out
    assert traced.startswith("public/serving_model/1 of a Publication")
    assert f"reserved in the ledger as {reserved.name}" in traced
    assert "of digits: 1077 training examples" in traced
    assert "plan: " in traced
    assert traced.index("release: TrainedRelease") < traced.index("attacks: AttackMetrics")
    for folder in (output, output / "public"):
        assert lineage_command.main([str(folder)]) == 0
        assert capsys.readouterr().out.startswith("Publication ")
    _check_served_without_us(output / "public" / "serving_model" / "1")
    _check_publishing_again(output)


def _check_served_without_us(model: Path) -> None:
    """The model works in a process that cannot import this package."""
    code = f"""
import sys
sys.modules["tfdpgen"] = None
import tensorflow as tf
sample = tf.saved_model.load({str(model)!r}).signatures["sample"]
images = sample(labels=tf.constant([3, 1], tf.int64), seed=tf.constant(0, tf.int64))
(images,) = images.values()
print(images.shape, images.dtype.name)
"""
    environment = {**os.environ, "PYTHONPATH": ""}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/", env=environment)
    assert done.stdout == "(2, 8, 8, 1) uint8\n", done.stderr


def _check_publishing_again(output: Path) -> None:
    """A second publication is the next version, and metrics of other data are refused."""
    internal = output / "internal"
    inputs = {
        name: internal / node / name
        for node, name in (
            ("train", "release"),
            ("generate", "synthetic"),
            ("attack", "attacks"),
            ("evaluate", "utility"),
            ("audit", "audited"),
        )
    }
    publish.execute(inputs, {"publication": internal / "again"}, {"destination": str(output)})
    assert sorted(path.name for path in (output / "public" / "serving_model").iterdir()) == ["1", "2"]
    assert Publication.open(internal / "again").made_of("release")["component"] == "train"

    header = json.loads((inputs["attacks"] / "artifact.json").read_text())
    header["inputs"]["examples"]["id"] = PrivateExamples(Path("other")).id
    (inputs["attacks"] / "artifact.json").write_text(json.dumps(header))
    with pytest.raises(ArtifactError, match="attacks was made of another `examples` than the rest"):
        publish.execute(inputs, {"publication": internal / "mixed"}, {"destination": str(output)})
    assert not (internal / "mixed").exists()
    assert sorted(path.name for path in (output / "public" / "serving_model").iterdir()) == ["1", "2"]


def test_a_delta_that_is_too_large_for_the_data_is_refused_before_anything_is_spent(tmp_path: Path) -> None:
    ingest.execute({}, {"examples": tmp_path / "examples"})
    with pytest.raises(ValueError, match="`delta` should be smaller than 1 / num_examples"):
        train.execute(
            {"examples": tmp_path / "examples"},
            {name: tmp_path / name for name in ("release", "networks")},
            {"delta": 0.001, "ledger": str(tmp_path / "ledger.sqlite")},
        )
    assert {path.name for path in tmp_path.iterdir()} == {"examples"}


@pytest.mark.slow
def test_kfp_local_runs_kubeflow_s_pipeline_in_reproducible_mode(tmp_path: Path, kfp_local: None) -> None:
    pipeline: Any = kubeflow_pipeline(SYNTHESIS, image="python:3.11")
    pipeline(method="gaussian_mixture", insecure_reproducible=True, output_dir=str(tmp_path / "output"), **SMALL)
    summary = _check_published(tmp_path / "output", method="gaussian_mixture", release=False)
    assert "NOT FOR RELEASE" in describe(summary, tmp_path)
    (publication,) = (tmp_path / "root").glob("*/publish/publication")
    assert Publication.open(publication).path.joinpath("summary.json").is_file()
