"""The step between ingest and train says what it found, spends nothing, and ends what must not go on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from components import ComponentError, PreflightEstimate
from components.ingest import ingest
from components.preflight import preflight
from components.train import train
from tfdpgen.data import Splits
from tfdpgen.methods import preflight as library
from tfdpgen.privacy import Ledger, NoisyCounts


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ingest") / "examples"
    ingest.execute({}, {"examples": folder})
    return folder


def _preflight(examples: Path, checked: Path, **parameters: Any) -> None:
    preflight.execute({"examples": examples}, {"checked": checked}, {"method": "gaussian_mixture", **parameters})


def test_it_prints_and_keeps_what_it_found(examples: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _preflight(examples, tmp_path / "checked", num_synthetic=500)
    printed = capsys.readouterr().out
    for part in (
        "1,077 private training examples, 10 declared classes, images of 8 x 8 x 1",
        "Smallest class: 99 training examples [internal",
        "Training with gaussian_mixture on this machine: a few seconds",
        "Memory: about",
        "Synthetic examples: 500,",
        "balanced, about 50 of each declared class",
        "Signal to noise of a class at epsilon 3: 7.4",
    ):
        assert part in printed
    artifact = PreflightEstimate.open(tmp_path / "checked")
    assert artifact.internal
    assert (artifact.path / "preflight.txt").read_text() == printed
    assert json.loads((artifact.path / "preflight.json").read_text())["smallest_class"] == 99
    assert artifact.facts == {}
    assert {path.name for path in tmp_path.iterdir()} == {"checked"}


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"method": "latent_gaussian"}, "images of strokes need at least 16 pixels.*image_shape"),
        ({"public_dataset": "dead_leaves"}, "`public_images` should be None: gaussian_mixture learns from no public"),
        (
            {"method": "latent_gaussian", "public_dataset": "digits"},
            "`public_dataset` should be images that anybody may see",
        ),
        ({"delta": 0.001}, "`delta` should be smaller than 1 / num_examples"),
        ({"epsilon": -1.0}, "`epsilon` should be"),
    ],
)
def test_what_training_would_refuse_ends_here(
    examples: Path, tmp_path: Path, parameters: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        _preflight(examples, tmp_path / "checked", **parameters)
    assert not list(tmp_path.iterdir())


def test_private_examples_are_no_public_images_of_the_training_either(examples: Path, tmp_path: Path) -> None:
    outputs = {name: tmp_path / name for name in ("release", "networks")}
    parameters = {"method": "dp_gan", "public_dataset": "digits", "ledger": str(tmp_path / "ledger.sqlite")}
    with pytest.raises(ValueError, match="`public_dataset` should be images that anybody may see"):
        train.execute({"examples": examples}, outputs, parameters)
    assert not list(tmp_path.iterdir())


def test_what_would_not_fit_ends_here(
    examples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(library, "available_memory", lambda: 2**20)
    with pytest.raises(ComponentError, match=r"would need about .* of memory.*Nothing was reserved"):
        _preflight(examples, tmp_path / "checked")
    assert "Signal to noise" in capsys.readouterr().out  # all is said nevertheless
    assert not list(tmp_path.iterdir())


def test_a_dry_run_ends_before_the_training(examples: Path, tmp_path: Path) -> None:
    parameters = {"dry_run": True, "ledger": str(tmp_path / "ledger.sqlite"), "method": "gaussian_mixture"}
    outputs = {name: tmp_path / name for name in ("release", "networks")}
    with pytest.raises(ComponentError, match="`dry_run` was set: nothing was reserved"):
        train.execute({"examples": examples}, outputs, parameters)
    assert not list(tmp_path.iterdir())


def test_what_is_kept_or_goes_on_is_not_refused_for_want_of_budget(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ingest.execute({}, {"examples": tmp_path / "examples"})
    outputs = {name: tmp_path / name for name in ("release", "networks")}
    settings = {"ledger": str(tmp_path / "ledger.sqlite"), "total_epsilon": 3.5}
    train.execute({"examples": tmp_path / "examples"}, outputs, settings)
    capsys.readouterr()
    arguments = {"examples": tmp_path / "examples"}, {"checked": tmp_path / "checked"}
    preflight.execute(*arguments, settings)
    said = capsys.readouterr().out
    assert "Ledger: another one would be refused. This run asks for epsilon=3 at" in said
    (reserved,) = Ledger(tmp_path / "ledger.sqlite").reservations()
    assert f"the same was reserved before [{reserved.name[:8]}]; where its outcome is kept" in said
    with pytest.raises(ComponentError, match="asks for epsilon=2"):
        preflight.execute(*arguments, {**settings, "epsilon": 2.5})


def test_what_was_spent_is_said_and_nothing_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ingest.execute({}, {"examples": tmp_path / "examples"})
    path = tmp_path / "ledger.sqlite"
    arguments = {"examples": tmp_path / "examples"}, {"checked": tmp_path / "checked"}
    preflight.execute(*arguments, {"ledger": str(path)})
    assert not path.exists()
    said = capsys.readouterr().out
    assert f"these examples are new to {path}. The account 'digits' would be opened for 1,077 of them" in said
    ledger = Ledger(path, account="digits")
    train = Splits.load(tmp_path / "examples").train
    ledger.reserve(train, NoisyCounts().with_noise(8.0).event, delta=1e-5)
    before = path.read_bytes()
    preflight.execute(*arguments, {"ledger": str(path)})
    said = capsys.readouterr().out
    assert "this run fits. In the account 'digits' every example may cost epsilon 10 at delta 1e-05 in all runs" in said
    assert "it has come to 0.434 in 1 run, and with this one of 3 would come to 3.0" in said
    assert path.read_bytes() == before
    with pytest.raises(ComponentError, match=r"asks for epsilon=9\.9.*Nothing was reserved.* would fit"):
        preflight.execute(*arguments, {"ledger": str(path), "epsilon": 9.99})
    assert path.read_bytes() == before
    with pytest.raises(ComponentError, match=r"asks for epsilon=11 .*Nothing was reserved"):
        preflight.execute(*arguments, {"ledger": str(path), "publish_metrics_epsilon": 11.0})
    capsys.readouterr()
    preflight.execute(*arguments, {"ledger": str(path), "publish_metrics_epsilon": 2.0})
    said = capsys.readouterr().out
    assert "360 examples are new, and would be added to the account 'digits'" in said
    path.write_bytes(b"no ledger at all" * 100)
    with pytest.raises(ValueError, match="is no ledger"):
        preflight.execute(*arguments, {"ledger": str(path)})
