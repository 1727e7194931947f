"""A training is paid for once: what fails after it is run again from there, and small data lose nothing but metrics."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines import SynthesisConfig
from pipelines.config import default_ledger
from pipelines.local_run import flags_parser, run
from tfdpgen.data import Splits
from tfdpgen.privacy import Ledger

FLAGS = (
    "--dataset=pets.npz --num_classes=2 --image_shape=12,16,1 --value_range=0,255 --method=gaussian_mixture "
    "--num_synthetic=60 --delta=1e-3 --attack_repetitions=2 --classifiers=mlp,random_forest --classifier_seeds=1 "
    "--output_dir=out"
)


def _parsed(*flags: str) -> SynthesisConfig:
    return flags_parser(SynthesisConfig, "")(["local_run.py", *flags])


def _pets(labels: list[int]) -> None:
    """Noise that is lighter in the second class."""
    images = np.random.default_rng(0).integers(128, size=(len(labels), 12, 16), dtype=np.uint8)
    np.savez("pets.npz", images=images + np.uint8(100) * np.array(labels, np.uint8)[:, None, None], labels=labels)


def test_what_fails_after_the_training_goes_on_without_a_second_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["pipelines/local_run.py"])
    _pets([0] * 60 + [1])
    internal = tmp_path / "out" / "internal"
    internal.mkdir(parents=True)
    (internal / "README").write_text("This folder is internal.")
    (internal / "attack").write_text("a file where the step needs a folder")
    with pytest.raises(SystemExit) as end:
        run(_parsed(*shlex.split(FLAGS)))
    lines = str(end.value).splitlines()
    assert lines[0].startswith("attack failed")
    assert lines[-2] == "The training is kept and paid for. To go on from there, without training again:"
    release = (internal / "train" / "release" / "artifact.json").read_text()
    ledger, examples = Ledger(default_ledger(), create=False), Splits.load(internal / "ingest" / "examples").train
    assert len(ledger.reservations(examples)) == 1

    # Other settings would put another claim on what was bought.
    going_on = [flag for flag in shlex.split(lines[-1])[2:] if not flag.startswith("--epsilon")]
    with pytest.raises(SystemExit) as end:
        run(_parsed(*going_on, "--epsilon=1", "--start_at=attack"))
    assert end.value.code == 2
    assert "made with epsilon=3.0, and 1.0 is asked for" in capsys.readouterr().err

    (internal / "attack").unlink()
    run(_parsed(*going_on))
    assert (internal / "train" / "release" / "artifact.json").read_text() == release
    assert len(ledger.reservations(examples)) == 1

    said = capsys.readouterr().out
    summary: dict[str, Any] = json.loads((tmp_path / "out" / "summary.json").read_text())
    _check_small_data(summary, examples.in_memory().labels.sum(), said)
    with np.load(tmp_path / "out" / "public" / "synthetic" / "synthetic.npz") as arrays:
        assert np.bincount(arrays["labels"]).tolist() == [30, 30]
        assert arrays["class_names"].tolist() == ["0", "1"]

    # The same again, in seconds and for nothing.
    before = (tmp_path / "out" / "summary.json").read_text()
    run(_parsed(*going_on))
    assert (tmp_path / "out" / "summary.json").read_text() == before
    assert len(ledger.reservations(examples)) == 1
    assert capsys.readouterr().out.count("nothing has changed") == 8

    # Results that were taken away are put there again.
    (tmp_path / "out" / "report.html").unlink()
    run(_parsed(*going_on))
    assert (tmp_path / "out" / "report.html").exists()
    assert capsys.readouterr().out.count("nothing has changed") == 7

    # With other data: said, and the earlier training stays where the new one fails.
    _pets([0] * 60 + [2])
    with pytest.raises(SystemExit, match="ingest failed"):
        run(_parsed(*shlex.split(FLAGS)))
    said = capsys.readouterr().out
    assert "holds a training that is paid for. This run trains anew, since the data, or the version" in said
    assert (internal / "train" / "release" / "artifact.json").read_text() == release


def _check_small_data(summary: dict[str, Any], dogs_in_training: int, said: str) -> None:
    """With one dog at most, or none, in the training split the MLP has no p1, and everything else is there."""
    assert dogs_in_training <= 1
    mlp, forest = (summary["utility"]["classifiers"][name] for name in ("mlp", "random_forest"))
    assert mlp["p1"] is mlp["balanced"]["p1"] is None
    assert "mlp " in mlp["not_measured"]["p1"]
    assert mlp["p2"] is not None
    assert forest["p2"] is not None
    assert summary["utility"]["p1"] is not None
    assert summary["attacks"]
    assert "Not measured, wholly or in part: mlp" in said
    assert "balanced accuracy" in said
    assert any(
        "fewer than 2 examples of 1 of 2 classes (named 1)" in caution for caution in summary["utility"]["cautions"]
    )
    assert "Caution: The test split holds fewer than 2 examples" in said


def test_neighbouring_data_leave_the_same_names_and_texts_where_all_may_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the same secrets: only weights, and what is sampled from them, may differ by one example."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["pipelines/local_run.py"])
    flags = f"{FLAGS} --insecure_reproducible --attack_candidates=20 --classifiers="
    kept: list[dict[str, bytes]] = []
    for changed in (False, True):
        _pets([0] * 40 + [1] * 30)
        if changed:
            with np.load("pets.npz") as arrays:
                images, labels = arrays["images"].copy(), arrays["labels"].copy()
            place = next(place for place in range(70) if place in _training_places(tmp_path / "out"))
            images[place], labels[place] = 255 - images[place], 1 - labels[place]
            np.savez("pets.npz", images=images, labels=labels)
        run(_parsed(*shlex.split(flags)))
        public = tmp_path / "out" / "not_for_release"
        kept.append(
            {path.relative_to(public).as_posix(): path.read_bytes() for path in public.rglob("*") if path.is_file()}
        )
        (tmp_path / "out" / "not_for_release").rename(tmp_path / f"kept{len(kept)}")
    capsys.readouterr()
    one, other = kept
    assert one.keys() == other.keys()
    differ = {name for name in one if one[name] != other[name]}
    assert any("variables" in name for name in differ)  # the example was seen
    of_samples = re.compile(
        r"synthetic/(synthetic\.npz|.*\.tfrecord-.*|dataset_info\.json)"  # the last has their number of bytes
        r"|serving_model/1/(variables/.*|fingerprint\.pb|saved_model\.pb)"
        r"|report_public\.html"
    )
    assert [name for name in differ if not of_samples.fullmatch(name)] == []
    texts = [re.sub(r'src="data:[^"]*"', "", each["report_public.html"].decode()) for each in kept]
    assert texts[0] == texts[1]
    infos = [json.loads(each["synthetic/dataset_info.json"]) for each in kept]
    for info in infos:
        for split in info["splits"]:
            split.pop("numBytes", None)
    assert infos[0] == infos[1]


def _training_places(output: Path) -> set[int]:
    """Which of the images in pets.npz the earlier run has trained on."""
    train = Splits.load(output / "internal" / "ingest" / "examples").train.in_memory()
    with np.load("pets.npz") as arrays:
        images = [image.reshape(train.spec.image_shape).tobytes() for image in arrays["images"]]
    known = {image.tobytes() for image in train.images}
    return {place for place, image in enumerate(images) if image in known}
