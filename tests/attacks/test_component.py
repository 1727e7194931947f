"""The component: what it writes, that Beam changes nothing, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components import ArtifactError, PrivateNetworks
from components.attack import _OnBeam, attack
from components.generate import generate
from components.ingest import ingest
from components.train import train
from tests.attacks.controls import noise_examples
from tfdpgen.attacks import run_here
from tfdpgen.attacks.base import chunked
from tfdpgen.attacks.neighbours import Nearest

PARAMETERS: dict[str, Any] = {"repetitions": 1, "num_candidates": 60}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pipeline")
    paths = {name: folder / name for name in ("examples", "release", "networks", "synthetic")}
    ingest.execute({}, {"examples": paths["examples"]})
    trained = {name: paths[name] for name in ("release", "networks")}
    train.execute({"examples": paths["examples"]}, trained, {"method": "gaussian_mixture"})
    generate.execute({"release": paths["release"]}, {"synthetic": paths["synthetic"]}, {"num_synthetic": 500})
    return paths


def test_what_it_writes(inputs: dict[str, Path], tmp_path: Path) -> None:
    shadows = {"shadow_models": 4, "shadow_processes": 1, "shadow_folder": str(tmp_path / "shadows")}
    attack.execute(inputs, {"attacks": tmp_path / "attacks"}, PARAMETERS | shadows)
    assert {path.name for path in (tmp_path / "attacks").iterdir()} == {"attacks.json", "artifact.json"}
    metrics = json.loads((tmp_path / "attacks" / "attacks.json").read_text())
    assert set(metrics) == {"attacks", "strongest", "upper_bounds", "memorisation"}
    assert {name for name, result in metrics["attacks"].items() if result["access"] == "many trainings"} == {
        "lira_online_gan_leaks", "lira_offline_gan_leaks",
    }  # fmt: skip
    assert {"gan_leaks", "classifier_noise", "domias"} < set(metrics["attacks"])
    assert not {"logan", "vae_elbo"} & set(metrics["attacks"])  # this method has no networks
    members = [result for result in metrics["attacks"].values() if result["is_membership"]]
    assert metrics["strongest"]["looked_at"] == len(members)
    assert metrics["strongest"]["privacy_loss"] == max(result["privacy_loss"] for result in members)
    assert metrics["upper_bounds"]["exchange"]["auc"] > metrics["upper_bounds"]["add_or_remove"]["auc"] > 0.5
    assert metrics["memorisation"]["num_reference"] == 360
    assert len(list((tmp_path / "shadows").iterdir())) == 4


def test_beam_s_runner_changes_nothing(tmp_path: Path) -> None:
    examples, candidates = noise_examples(300, 0), noise_examples(2500, 1)
    tasks = [
        task
        for scorer in (Nearest(examples.images), Nearest(examples.images[:50]))
        for task in chunked(scorer, candidates)
    ]
    here = run_here(tasks)
    assert len(here) == 6
    for flags in ([], ["--direct_num_workers=2", "--direct_running_mode=multi_threading"]):
        on_beam = _OnBeam(flags, tmp_path / "scratch")(tasks)
        for ours, theirs in zip(here, on_beam, strict=True):
            np.testing.assert_array_equal(ours, theirs)
        assert not (tmp_path / "scratch").exists()


def test_networks_of_another_training_are_refused(inputs: dict[str, Path], tmp_path: Path) -> None:
    other = PrivateNetworks(tmp_path / "networks", "train", facts={"training": "another"})
    other.path.mkdir()
    other.seal()
    with pytest.raises(ArtifactError, match="come from different trainings"):
        attack.execute(inputs | {"networks": other.path}, {"attacks": tmp_path / "attacks"}, PARAMETERS)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"shadow_models": 3}, "`num_shadows` should be even and at least 4; got 3"),
        ({"shadow_folder": "x"}, "`shadow_folder` should be empty without `shadow_models`"),
    ],
)
def test_bad_parameters_are_refused(
    inputs: dict[str, Path], tmp_path: Path, parameters: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        attack.execute(inputs, {"attacks": tmp_path / "attacks"}, PARAMETERS | parameters)
