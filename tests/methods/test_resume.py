"""A training that was killed goes on: no mechanism, step or noise twice, one reservation, one release."""

from __future__ import annotations

import dataclasses
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tests.methods import killable
from tests.methods.killable import BUDGET, EVERY, LABELLER, VARIANTS
from tfdpgen.methods import train
from tfdpgen.methods.training import num_units, planned
from tfdpgen.privacy import DPSGD, Backup, BackupError, Ledger, NoiseSource, PoissonBatch, epsilon_of
from tfdpgen.privacy import ensemble as ensembles
from tfdpgen.privacy.accounting import ReplaceOneDpEvent
from tfdpgen.privacy.budget import PrivacyUnit
from tfdpgen.privacy.mechanisms.base import GroupSum
from tfdpgen.privacy.noise import ExampleRandomness, GaussianNoise
from tfdpgen.release import Release

_STEPS = 10  # of everything here that has steps
_ENSEMBLES = ["fedavg_gan", "gs_wgan", "pate_gan"]
_TRAINED = ["c_vae", "dp_gan", "dp_diffusion", "gaussian_mixture" + LABELLER, *_ENSEMBLES]
_MOMENTS = {  # at which a training is killed, one after the other; each attempt gets further than the one before
    "gaussian_mixture": ["made training", "making begun-class", "output class"],
    "gaussian_mixture" + LABELLER: ["output covariances", "making begun-labeller", "step*2"],
    "c_vae": ["made output-class", "made step", "step*3"],
    "dp_gan": ["making begun-dp_sgd", "step*2", "made step-dp_sgd-0000000010"],
    "dp_diffusion": ["output class", "step*2", "made step"],
    "latent_gaussian": ["making output-autoencoder", "made output-autoencoder", "made output-class"],
    "gs_wgan": ["made output-sanitised", "step*"],
    "fedavg_gan": ["step*", "making step-rounds-0000000008"],
    "pate_gan": ["made output-votes", "step*"],
}

_SLOW = ("dp_diffusion", "gaussian_mixture")  # what the latter has, it has with a labeller too
every_variant = pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] if name in _SLOW else []) for name in sorted(VARIANTS)],
)
every_training = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name == "dp_diffusion" else []) for name in _TRAINED]
)


class _Cut(BaseException):
    """An interruption."""


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    killable.make_small(monkeypatch.setattr)


def _train(name: str, folder: Path, *, cut_before: str | None = None, **changed: Any) -> Release:
    """A training that is cut off before the first thing that starts so; see `killable`."""

    def note(line: str) -> None:
        if cut_before is not None and line.startswith(cut_before):
            raise _Cut

    arguments = {**killable.arguments(name), "ledger": Ledger(folder / "ledger.sqlite"), **changed}
    with pytest.MonkeyPatch.context() as patch, Backup(folder / "backup", every=EVERY) as backup:
        killable.watch(note, patch.setattr)
        return train(**arguments, backup=backup)


def _kill(folder: Path, name: str, moments: list[str]) -> int:
    """Runs one process for each moment, which kills itself, and one more; returns its exit code."""
    command = [sys.executable, "-m", killable.__name__, str(folder), name, *moments]
    return subprocess.run(command, cwd=Path(__file__).resolve().parents[2], timeout=600).returncode


def _check_log(folder: Path, name: str, kills: int) -> Counter[str]:
    """Holds what the log of a training that was killed has to show; returns how often what kinds of lines are in it."""
    lines = (folder / "log").read_text().splitlines()
    counts = Counter(line for line in lines if line.startswith(("key", "step", "made begun", "made output")))
    assert max(counts.values()) == 1  # no key, step or mechanism twice, over all attempts
    outputs = {line for line in lines if line.startswith("output")}
    assert len({line.rpartition(" ")[0] for line in outputs}) == len(outputs)  # each mechanism said one thing
    kinds = Counter(line.partition(" ")[0] for line in lines)
    assert kinds["killed"] == kills
    steps = [int(line.rpartition(" ")[2]) for line in lines if line.startswith("step")]
    assert steps == sorted(steps)
    release = Release.load(folder / "release")
    assert release.is_releasable
    arguments = killable.arguments(name)
    dataset, share = arguments["dataset"], arguments["labeller_share"]
    _, plan = planned(VARIANTS[name], dataset.spec, num_units(VARIANTS[name], dataset), BUDGET, share)
    statement = plan.statement(BUDGET.delta, release.statement.noise_source, release.statement.priors)
    assert release.statement.text == statement.text  # that of a training in one go
    assert (release.labeller is not None) == name.endswith(LABELLER)
    ledger = Ledger(folder / "ledger.sqlite")
    assert len(ledger.reservations(dataset)) == 1
    reserved = ReplaceOneDpEvent(release.event) if plan.unit is PrivacyUnit.USER else release.event
    assert ledger.spent(dataset, BUDGET.delta) == pytest.approx(epsilon_of(reserved, BUDGET.delta))
    assert not (folder / "backup").exists()
    return kinds


@every_variant
def test_killed_at_any_moment_it_goes_on_each_time(name: str, tmp_path: Path) -> None:
    # A "*" alone: before one of the first steps, at random.
    moments = [f"{moment}{random.randint(1, 3)}" if moment.endswith("*") else moment for moment in _MOMENTS[name]]
    assert _kill(tmp_path, name, moments) == 0, moments
    kinds = _check_log(tmp_path, name, len(_MOMENTS[name]))
    if name in _TRAINED:
        assert _STEPS - 2 * EVERY <= kinds["step"] < _STEPS
    assert kinds["public"] == (2 if name == "latent_gaussian" else 0)  # once killed before it was kept


def test_killed_between_mark_and_output_it_is_refused_for_good(tmp_path: Path) -> None:
    assert _kill(tmp_path, "gaussian_mixture", ["made begun-covariances"]) == 1
    for _ in range(2):
        with pytest.raises(BackupError, match=r"'covariances'.*nobody has reserved"):
            _train("gaussian_mixture", tmp_path)
    assert "output covariances" not in (tmp_path / "log").read_text()
    assert len(Ledger(tmp_path / "ledger.sqlite").reservations(killable.digits())) == 1


@pytest.mark.slow
@every_variant
def test_killed_twenty_times_at_random_moments(name: str, tmp_path: Path) -> None:
    rng = random.Random(1)
    assert _kill(tmp_path, name, [f"wait*{rng.uniform(0.5, 12)}" for _ in range(20)]) in (0, 1)
    if not (tmp_path / "release").exists() and _kill(tmp_path, name, []) == 1:
        marks = {path.name.partition("-")[2] for path in (tmp_path / "backup").glob("begun-*")}
        assert any(not list((tmp_path / "backup").glob(f"*p*-{mark}*")) for mark in marks)  # output or step
        return
    _check_log(tmp_path, name, (tmp_path / "log").read_text().count("killed"))


@every_training
def test_all_that_a_training_changes_is_restored(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without noise and with given samples, steps 0-3 and, resumed, 8-9 are what these six are in one go."""

    class Still:
        def normal(self, scale: float, size: Any) -> Any:
            return np.random.default_rng(3).normal(scale=scale, size=size)

        def integers(self, most: int, size: int) -> Any:
            return np.random.default_rng(3).integers(most, size=size)

        def random(self, size: Any) -> Any:
            return np.random.default_rng(3).random(size)

    def given_sums(mechanism: GroupSum, *_: Any) -> Any:
        """Sums that follow from what is asked: of a training that goes on, the networks would learn anew."""
        return lambda sampled, public: np.resize(np.ravel(public[0]).astype(np.float64), mechanism.size) / 10

    def given_samples(self: GroupSum, rng: Any, first_step: int = 0) -> Iterator[Any]:
        for batch in given(self, None, first_step):  # type: ignore[arg-type]  # `given` uses no field of it
            yield batch.indices[0]

    def given(self: DPSGD, noise: Any = None, first_step: int = 0, **_: Any) -> Iterator[PoissonBatch]:
        for step in steps[steps.index(first_step) :]:
            if step == cut_before:
                raise _Cut
            yield PoissonBatch((np.arange(10, dtype=np.int32)[None] * 8 + step) % 80, np.ones((1, 10), np.float32))

    def silent(self: GaussianNoise, shapes: Any, stddev: float) -> list[tf.Tensor]:
        return [tf.zeros(shape) for shape in shapes]

    def numbered(values: Any, first: int | None = None) -> Iterator[tuple[int, Any]]:
        return enumerate(values) if first is None else zip(steps[steps.index(first) :], values, strict=False)

    monkeypatch.setattr(GaussianNoise, "draw", silent)
    monkeypatch.setattr(ExampleRandomness, "uniform", lambda self, shape: tf.fill(shape, 0.5))
    monkeypatch.setattr(NoiseSource, "numpy_generator", lambda self: Still())
    monkeypatch.setattr(DPSGD, "physical_batch_size", 10)
    monkeypatch.setattr(DPSGD, "batches", given)
    monkeypatch.setattr(GroupSum, "samples", given_samples)
    monkeypatch.setattr(ensembles, "group_sums", given_sums)
    for module in ("trainer", "ensemble"):
        monkeypatch.setattr(f"tfdpgen.privacy.{module}.enumerate", numbered, raising=False)
    steps = [0, 1, 2, 3, 8, 9]
    cut_before = None
    at_once = _train(name, tmp_path / "at_once")
    cut_before = 8
    with pytest.raises(_Cut):
        _train(name, tmp_path / "cut")
    cut_before = None
    resumed = _train(name, tmp_path / "cut")
    for one, other in zip(_weights(at_once), _weights(resumed), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def _weights(release: Release) -> list[Any]:
    labeller = release.labeller
    return [*release.generator.get_weights(), *([labeller.kernel, labeller.bias] if labeller else [])]


@every_variant
def test_another_plan_or_other_examples_are_refused_before_anything_is_spent(name: str, tmp_path: Path) -> None:
    with pytest.raises(_Cut):
        _train(name, tmp_path, cut_before="making begun")
    before = sorted(path.name for path in (tmp_path / "backup").iterdir())
    examples, method = killable.digits(), VARIANTS[name]
    others = examples.take(np.arange(79, -1, -1))
    scale = "learning_rate" if hasattr(method, "learning_rate") else "latent_scale"
    for changed, named in (
        ({"method": dataclasses.replace(method, **{scale: 0.7})}, "settings"),
        ({"budget": dataclasses.replace(BUDGET, epsilon=2.0)}, "plan"),
        ({"dataset": others}, "examples"),
        ({"seed": 1}, "seed"),
    ):
        with pytest.raises(BackupError, match=f"another training: {named}(, users)? differ"):
            _train(name, tmp_path, **changed)
    ledger = Ledger(tmp_path / "ledger.sqlite")
    assert len(ledger.reservations()) == len(ledger.reservations(examples)) == 1
    assert sorted(path.name for path in (tmp_path / "backup").iterdir()) == before


def test_a_training_that_has_paid_and_done_nothing_does_not_pay_again(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(_Cut):
            _train("gaussian_mixture", tmp_path, cut_before="making begun")
    _train("gaussian_mixture", tmp_path, limit=BUDGET)
    assert len(Ledger(tmp_path / "ledger.sqlite").reservations(killable.digits())) == 1


def test_a_ledger_that_does_not_know_the_training_reserves_its_whole_cost(tmp_path: Path) -> None:
    with pytest.raises(_Cut):
        _train("gaussian_mixture", tmp_path, cut_before="making begun-covariances")
    other = Ledger(tmp_path / "other.sqlite")
    for _ in range(2):
        with pytest.raises(_Cut):
            _train("gaussian_mixture", tmp_path, cut_before="making begun-covariances", ledger=other)
    release = _train("gaussian_mixture", tmp_path, ledger=other)
    assert len(other.reservations(killable.digits())) == 1
    assert other.spent(killable.digits(), BUDGET.delta) == pytest.approx(release.statement.epsilon)


@every_training
def test_a_checkpoint_holds_no_key_no_noise_and_no_private_count(name: str, tmp_path: Path) -> None:
    key = {"fedavg_gan": "rounds", "gs_wgan": "sanitised_gradients", "pate_gan": "votes"}.get(name, "dp_sgd")
    key = "labeller" if name.endswith(LABELLER) else key
    with pytest.raises(_Cut):
        _train(name, tmp_path, cut_before=f"making step-{key}-0000000008")
    (checkpoint,) = (tmp_path / "backup").glob("step-*")
    names = [name for name, _ in tf.train.list_variables(str(checkpoint / "state"))]
    assert any("optimizer" in name for name in names)
    for secret in ("noise", "key", "draw", "non_finite", "query"):
        assert not [name for name in names if secret in name.lower()]
    # Of an ensemble what the method itself changes, and no network of a group: those of shards learn anew.
    if name in _ENSEMBLES:
        of_generator = {"generator", "optimizer_of_generator", "averages", "rng"}
        of_server = {"fedavg_gan": {"critic", "momentum"}, "pate_gan": {"student"}}.get(name, set())
        found = {variable.partition("/")[0] for variable in names} - {"_CHECKPOINTABLE_OBJECT_GRAPH"}
        assert found == of_generator | of_server


def test_seeded_noise_cannot_be_resumed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="seeded noise"):
        _train("c_vae", tmp_path, insecure_reproducible=True)
    assert len(Ledger(tmp_path / "ledger.sqlite").reservations(killable.digits())) == 0
