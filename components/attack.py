"""Attack: asks attackers to tell private examples from others.

    python -m components.attack --examples=DIR --release=DIR --networks=DIR --synthetic=DIR --attacks=DIR
    python -m components.attack ... --shadow_models=64 --shadow_processes=4 --shadow_folder=DIR

Attackers hold the release and the synthetic examples; some also hold the networks that were trained privately beside
the generator, and with `shadow_models` some train the method themselves, many times. attacks.json holds each attack's
metrics ("attacks"), the strongest one with an interval that allows for having looked at all ("strongest"), what epsilon
and delta allow at most ("upper_bounds"), and how near synthetic examples come to training examples ("memorisation",
which is no measure of privacy). Searches among many examples run on Beam, chunk by chunk, with the same result on any
runner. Attackers use at most the first 100,000 synthetic examples, so that the others need not fit in memory.

The metrics are computed on private examples: they are internal, and no part of what the privacy budget covers.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import pickle
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from components.artifacts import (
    ArtifactError,
    AttackMetrics,
    Input,
    Output,
    PrivateExamples,
    PrivateNetworks,
    SyntheticExamples,
    TrainedRelease,
)
from components.component import ComponentError, component

if TYPE_CHECKING:
    from tfdpgen.attacks import Scorer, Task
    from tfdpgen.data import LabeledDataset
    from tfdpgen.release import Release

MOST_SYNTHETIC = 100_000


@component
def attack(
    examples: Input[PrivateExamples],
    release: Input[TrainedRelease],
    networks: Input[PrivateNetworks],
    synthetic: Input[SyntheticExamples],
    attacks: Output[AttackMetrics],
    *,
    repetitions: Annotated[int, "how often each attack is repeated; intervals narrow with it"] = 5,
    num_candidates: Annotated[int, "examples of each kind that an attack is asked about"] = 1000,
    shadow_models: Annotated[
        int, "trainings of the attacker's own, for LiRA; even and at least 4, and hundreds for its full power; 0: none"
    ] = 0,
    shadow_processes: Annotated[int, "how many of them run at a time"] = 2,
    shadow_folder: Annotated[
        str, "folder that keeps the shadows' scores, so that a run that was stopped goes on; internal; empty: none"
    ] = "",
    labeller_share: Annotated[float, "of the attacked training, which its shadows repeat"] = 0.0,
    label_distribution: Annotated[str, "of the attacked training, which its shadows repeat"] = "balanced",
    public_dataset: Annotated[str, "public images that the training learns from; empty: the method's default"] = "",
    data_dir: Annotated[str, "where TFDS keeps public data sets; empty: TFDS's default"] = "",
    seed: Annotated[int, "seed of the attacks"] = 0,
    beam_args: Annotated[str, "Beam runner and options, as --runner=FlinkRunner; empty: in this process"] = "",
) -> None:
    """Measures how well attacks tell private examples from noise and from examples that were never trained on."""
    from tfdpgen.attacks import (
        ShadowConfig,
        measure_memorisation,
        run_attacks,
        run_shadow_attacks,
        strongest_attack,
        upper_bounds_of,
    )
    from tfdpgen.data import Splits
    from tfdpgen.release import Release

    if shadow_models:
        ShadowConfig(shadow_models, "", num_candidates, processes=shadow_processes)
    elif shadow_folder:
        raise ComponentError("`shadow_folder` should be empty without `shadow_models`; got both 0 and a folder.")
    if networks.facts.get("training") != release.facts.get("training"):
        raise ArtifactError(f"{networks.path} and {release.path} come from different trainings; make them anew.")
    splits, trained, handed_out, models = (
        Splits.load(examples.path),
        Release.load(release.path),
        synthetic.load(MOST_SYNTHETIC),
        networks.load(),
    )
    on_beam = _OnBeam(shlex.split(beam_args), attacks.path / "scratch")
    results = run_attacks(
        trained,
        splits.train,
        splits.holdout,
        synthetic=handed_out,
        networks=models,
        repetitions=repetitions,
        num_candidates=num_candidates,
        seed=seed,
        run_tasks=on_beam,
        verbose=1,
    )
    statement = trained.statement
    if shadow_models:
        method = " ".join(
            (
                f"{trained.method} epsilon={statement.epsilon!r} delta={statement.delta!r}",
                f"labeller_share={labeller_share!r} label_distribution={label_distribution!r}",
                f"priors={statement.priors!r}",  # with them public images, by their content
            )
        )
        results |= run_shadow_attacks(
            trained,
            splits.train,
            splits.holdout,
            _TrainShadow(
                trained.method,
                statement.epsilon,
                statement.delta,
                labeller_share,
                label_distribution,
                public_dataset,
                data_dir,
            ),
            ShadowConfig(shadow_models, method, num_candidates, processes=shadow_processes, seed=seed),
            shadow_folder or attacks.path / "shadows",
            networks=models,
            verbose=1,
        )
    strongest = strongest_attack(results)
    copies = measure_memorisation(handed_out, splits.train, splits.holdout, seed=seed, run_tasks=on_beam)
    metrics = {
        "attacks": {name: result.to_dict() for name, result in results.items()},
        "strongest": strongest.to_dict() if strongest else None,
        "upper_bounds": upper_bounds_of(statement.epsilon, statement.delta, statement.epsilon_replace_one),
        "memorisation": copies.to_dict(),
    }
    (attacks.path / "attacks.json").write_text(json.dumps(metrics, indent=2) + "\n")


@dataclasses.dataclass(frozen=True)
class _TrainShadow:
    """Trains the attacked method on examples that the attacker chose, at the same cost to them."""

    method: str
    epsilon: float
    delta: float
    labeller_share: float
    label_distribution: str
    public_dataset: str
    data_dir: str

    def __call__(self, examples: LabeledDataset, seed: int) -> tuple[Release, dict[str, Any]]:
        from tfdpgen.data import public_images
        from tfdpgen.methods import train
        from tfdpgen.privacy import PrivacyBudget

        public = public_images.asked_for(self.public_dataset, examples.spec.image_shape, self.data_dir)
        budget = PrivacyBudget(self.epsilon, self.delta)
        networks: dict[str, Any] = {}
        release = train(
            self.method,
            examples,
            budget,
            seed=seed,
            labeller_share=self.labeller_share,
            label_distribution=self.label_distribution,
            public_images=public,
            verbose=0,
            networks=networks,
        )
        return release, networks


@dataclasses.dataclass(frozen=True)
class _OnBeam:
    """Runs tasks on Beam, by way of files in a folder that the workers share; nothing is left in it.

    Attributes:
      arguments: Beam's; without a runner among them it is FnApiRunner, in this process.
      folder: made for the tasks, whose examples are private, and removed afterwards.
    """

    arguments: list[str]
    folder: Path

    def __call__(self, tasks: Sequence[Task]) -> list[np.ndarray]:
        """The scores of each task."""
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions
        from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner

        self.folder.mkdir()
        try:
            scorers: dict[int, int] = {}
            elements = []
            for number, (scorer, candidates) in enumerate(tasks):
                if id(scorer) not in scorers:
                    scorers[id(scorer)] = len(scorers)
                    _scorer_path(self.folder, scorers[id(scorer)]).write_bytes(pickle.dumps(scorer))
                _candidates_path(self.folder, number).write_bytes(pickle.dumps(candidates))
                elements.append((number, scorers[id(scorer)]))
            named = any(argument.split("=")[0] == "--runner" for argument in self.arguments)
            with beam.Pipeline(runner=None if named else FnApiRunner(), options=PipelineOptions(self.arguments)) as run:
                _ = run | beam.Create(elements) | beam.Reshuffle() | beam.Map(_Score(str(self.folder)))
            return [np.load(_scores_path(self.folder, number)) for number in range(len(tasks))]
        finally:
            shutil.rmtree(self.folder)


class _Score:
    """(task, scorer) -> the task's scores, in a file. Each worker loads a scorer once."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    @functools.cached_property
    def _scorers(self) -> dict[int, Scorer]:
        return {}

    def __call__(self, element: tuple[int, int]) -> None:
        number, scorer = element
        folder = Path(self._folder)
        if scorer not in self._scorers:
            self._scorers[scorer] = pickle.loads(_scorer_path(folder, scorer).read_bytes())
        candidates: Any = pickle.loads(_candidates_path(folder, number).read_bytes())
        path = _scores_path(folder, number)
        part = path.with_suffix(".part.npy")
        np.save(part, self._scorers[scorer](candidates))
        part.replace(path)  # a runner may try a task twice


def _scorer_path(folder: Path, number: int) -> Path:
    """Where a scorer is handed over."""
    return folder / f"scorer-{number}.pickle"


def _candidates_path(folder: Path, number: int) -> Path:
    """Where a task's candidates are handed over."""
    return folder / f"candidates-{number}.pickle"


def _scores_path(folder: Path, number: int) -> Path:
    """Where a task's scores come back."""
    return folder / f"scores-{number}.npy"


if __name__ == "__main__":
    attack.main()
