"""Private examples that stay on disk: every step that reads them, from a TFDS data set in ArrayRecord files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds

from components import PrivateExamples
from components.attack import attack
from components.evaluate import evaluate
from components.generate import generate
from components.ingest import ingest
from components.train import train
from tfdpgen.data import RecordDataset, Splits, dataset
from tfdpgen.release import Release


class StripedImages(tfds.core.GeneratorBasedBuilder):
    """Striped images of three classes."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        features = {"image": tfds.features.Image(shape=(8, 8, 1)), "label": tfds.features.ClassLabel(num_classes=3)}
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features), supervised_keys=("image", "label")
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        return {"train": self._generate_examples(400)}

    def _generate_examples(self, count: int) -> Iterator[tuple[int, Any]]:
        for i in range(count):
            image = np.full((8, 8, 1), i % 100, np.uint8)
            image[i % 3 :: 3] = 255
            yield i, {"image": image, "label": i % 3}


def test_every_step_reads_them_and_none_has_them_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parameters = {"dataset": "striped_images", "data_dir": str(tmp_path / "tfds"), "on_disk": True}
    ingest.execute({}, {"examples": tmp_path / "examples"}, parameters)
    assert {path.name for path in (tmp_path / "examples").iterdir()} == {
        "artifact.json", "spec.json", "train.array_record", "holdout.array_record", "test.array_record",
    }  # fmt: skip
    facts = PrivateExamples.open(tmp_path / "examples").facts
    assert facts["num_examples"] == {"train": 240, "holdout": 80, "test": 80}

    asked: list[int] = []
    read = RecordDataset.examples

    def watched(self: RecordDataset, positions: Any) -> Any:
        asked.append(len(positions))
        return read(self, positions)

    monkeypatch.setattr(RecordDataset, "examples", watched)
    monkeypatch.setattr(dataset, "_BLOCK_BYTES", 64 * 50)
    examples = tmp_path / "examples"
    parameters = {"epsilon": 5.0, "delta": 1e-4, "ledger": str(tmp_path / "ledger.sqlite")}
    outputs = {name: tmp_path / name for name in ("release", "networks")}
    train.execute({"examples": examples}, outputs, parameters)
    assert max(asked) <= 120  # a physical chunk; a block has 50 examples
    assert Release.load(tmp_path / "release").statement.num_examples == 240

    release = tmp_path / "release"
    generate.execute({"release": release}, {"synthetic": tmp_path / "synthetic"}, {"num_synthetic": 60})
    inputs = {"examples": examples, "synthetic": tmp_path / "synthetic", **outputs}
    parameters = {"repetitions": 1, "num_candidates": 20}
    attack.execute(inputs, {"attacks": tmp_path / "attacks"}, parameters)
    assert json.loads((tmp_path / "attacks" / "attacks.json").read_text())["attacks"]
    monkeypatch.setattr("components.evaluate.MOST_EXAMPLES", 70)
    asked.clear()
    inputs = {"examples": examples, "synthetic": tmp_path / "synthetic"}
    evaluate.execute(inputs, {"utility": tmp_path / "utility"}, {"classifier_seeds": 1})
    assert max(asked) == 70
    assert 0 <= json.loads((tmp_path / "utility" / "utility.json").read_text())["p1"] <= 1


def test_they_are_the_examples_that_would_be_in_memory(tmp_path: Path) -> None:
    for on_disk in (True, False):
        parameters = {"dataset": "striped_images", "data_dir": str(tmp_path / f"tfds_{on_disk}"), "on_disk": on_disk}
        ingest.execute({}, {"examples": tmp_path / str(on_disk)}, parameters)
    for part in ("train", "holdout", "test"):
        on_disk, in_memory = (getattr(Splits.load(tmp_path / name), part) for name in ("True", "False"))
        for value, expected in zip(
            on_disk.examples(range(len(on_disk))), in_memory.examples(range(len(on_disk))), strict=True
        ):
            np.testing.assert_array_equal(value, expected)
