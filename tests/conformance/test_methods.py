"""What every method keeps: exactly the plan runs, one row moves a step by one clip, only a Release comes out."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from sklearn.datasets import load_digits

from tfdpgen.data import DataError, DataSpec, LabeledDataset, RecordDataset, Splits
from tfdpgen.methods import (
    CVAE,
    DPGAN,
    ClassGaussian,
    ClassGaussianPreset,
    CVAEPreset,
    DPGANPreset,
    LabellerPreset,
    StrokeVAE,
    StrokeVAEPreset,
    Synthesizer,
    method_names,
    moments,
    train,
)
from tfdpgen.methods.stroke_vae import StrokeFeatures
from tfdpgen.privacy import (
    DPSGD,
    BudgetExceededError,
    ClassCentres,
    ClassMeans,
    ClassMoments,
    DPKerasAdam,
    ExampleRandomness,
    Ledger,
    NoiseSource,
    NoisyCounts,
    PoissonBatch,
    PrivacyBudget,
    PrivacyStatement,
    dataset_id,
    epsilon_of,
)
from tfdpgen.release import Release

_PRESETS: dict[str, Any] = {
    "c_vae": CVAEPreset(latent_dim=3, hidden_units=(16,), expected_batch_size=10, steps=3),
    "dp_gan": DPGANPreset(
        sketches=CVAEPreset(latent_dim=6, hidden_units=(8,), expected_batch_size=10, steps=1, num_waves=6),
        generator_filters=8,
        critic_filters=4,
        expected_batch_size=10,
        steps=4,
        warm_up=1,
        fakes=8,
        critic_rate=0.05,
        generator_rate=0.05,
        ema=0.5,
    ),
    "class_gaussian": ClassGaussianPreset(num_waves=6, radius=0.33),
    "stroke_vae": StrokeVAEPreset(
        latent_dim=3,
        hidden_units=(16,),
        waves=CVAEPreset(
            latent_dim=6, hidden_units=(8,), expected_batch_size=1, steps=1, num_waves=6, moments_share=0.5
        ),
        drawings=100,
        pretraining_steps=3,
        labeller=LabellerPreset(expected_batch_size=10, steps=4),
    ),
}
_CLASSES: dict[str, type[Synthesizer]] = {
    "c_vae": CVAE,
    "class_gaussian": ClassGaussian,
    "dp_gan": DPGAN,
    "stroke_vae": StrokeVAE,
}
_BUDGET = PrivacyBudget(3.0, 1e-4)
_TRAINED = ("c_vae", "dp_gan")  # by DP-SGD of their networks; the others release statistics
_WITH_LABELLER = " with a labeller"

every_method = pytest.mark.parametrize("name", method_names())
every_trained_one = pytest.mark.parametrize("name", _TRAINED)


@pytest.fixture(scope="module")
def digits() -> LabeledDataset:
    data = load_digits()
    images = (data.images[:80, ..., None] * 15.9375).round().astype(np.uint8)
    return LabeledDataset(images, data.target[:80].astype(np.int64), DataSpec((8, 8, 1), 10))


def _train(name: str, dataset: LabeledDataset, **arguments: Any) -> Release:
    return train(name, dataset, _BUDGET, **{"preset": _PRESETS[name], "verbose": 0, **arguments})


@pytest.fixture(scope="module", params=[*method_names(), "stroke_vae" + _WITH_LABELLER])
def release(request: pytest.FixtureRequest, digits: LabeledDataset) -> Release:
    with pytest.MonkeyPatch.context() as patch:
        if request.param.endswith(_WITH_LABELLER):
            patch.setattr(moments, "_ROWS_IN_CLASS", 0)  # as if rows outweighed the noise
        release = _train(request.param.removesuffix(_WITH_LABELLER), digits)
    assert _is_taught(release) is request.param.endswith(_WITH_LABELLER)
    return release


def _is_taught(release: Release) -> bool:
    """Whether the statement lists a labeller."""
    return any("labeller" in part["name"] for part in release.statement.mechanisms)


def test_this_suite_knows_every_method() -> None:
    assert set(method_names()) == set(_PRESETS) == set(_CLASSES)


def test_the_statement_is_about_what_ran_and_within_the_budget(release: Release) -> None:
    statement = release.statement
    assert 0.99 * _BUDGET.epsilon < statement.epsilon <= _BUDGET.epsilon
    assert statement.epsilon == pytest.approx(epsilon_of(release.event, _BUDGET.delta), rel=1e-9)
    preset = _PRESETS[release.method]
    steps = preset.steps if release.method in _TRAINED else 4 if _is_taught(release) else None
    batch = 10 if steps else None
    assert (statement.num_examples, statement.expected_batch_size, statement.steps) == (80, batch, steps)
    assert statement.priors == _CLASSES[release.method].priors
    for part in statement.mechanisms:
        assert 0 < part["share"] <= 1
        assert part["name"] in statement.text
    assert release.is_releasable
    assert statement.noise_source == "operating system"


@pytest.mark.parametrize(
    "name",
    [
        *method_names(),
        "c_vae with a choice of poses",
        "dp_gan with a choice of poses",
        "stroke_vae with a choice of poses",
        "c_vae with components",
        "dp_gan with components",
        "c_vae with a choice of components",
        "dp_gan with a choice of components",
        "stroke_vae with a choice of components",
        "stroke_vae with strokes that suit",
        "stroke_vae with a labeller",
    ],
)
def test_every_statistic_runs_once_and_as_it_is_accounted(
    name: str, digits: LabeledDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, _, variant = name.partition(" with ")
    preset = _PRESETS[name]
    if name == "stroke_vae":
        monkeypatch.setattr(StrokeFeatures, "rebuilds", lambda *_: tf.fill([80], variant == "strokes that suit"))
    two = {"components": 2}
    changed = {"a choice of poses": {"has_poses": None}, "components": two, "a choice of components": two}.get(variant)
    if changed:
        part = {"dp_gan": "sketches", "stroke_vae": "waves"}.get(name)
        of_part = {part: dataclasses.replace(getattr(preset, part), **changed)} if part else changed
        preset = dataclasses.replace(preset, **of_part)
    if variant == "a choice of poses":
        monkeypatch.setattr(moments, "_ROWS_TO_ASK", 0)
        monkeypatch.setattr(moments, "_ROWS_TO_COUNT", 0)
    if variant == "a choice of components":
        monkeypatch.setattr(moments, "_FEW_ROWS", 0)
        monkeypatch.setattr(moments, "ROWS_IN_COMPONENT", 1e9)
    if variant in ("components", "a choice of components", "a labeller"):
        monkeypatch.setattr(moments, "_ROWS_IN_CLASS", 0)
    if variant == "components":
        monkeypatch.setattr(moments, "ROWS_IN_COMPONENT", 1e-9)
    ran = []

    def noting(original: Any) -> Any:
        def release(self: Any, *arguments: Any) -> Any:
            ran.append((self.name, str(self.event)))
            return original(self, *arguments)

        return release

    for mechanism in (ClassCentres, ClassMeans, ClassMoments, NoisyCounts):
        monkeypatch.setattr(mechanism, "release", noting(mechanism.release))
    statement = _train(name, digits, preset=preset).statement
    accounted = [(part["name"], part["event"]) for part in statement.mechanisms if "Poisson" not in part["event"]]
    assert ran == accounted
    expected = {"class_gaussian": 1, "stroke_vae": 3}.get(name, 2)
    assert len(ran) == expected + {"a choice of poses": 2, "components": 1, "a choice of components": 2}.get(variant, 0)


def test_samples_are_images_and_a_function_of_labels_and_seed(release: Release) -> None:
    labels = np.arange(20) % 10
    images = release.sample(labels, seed=1)
    assert images.shape == (20, 8, 8, 1)
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(images, release.sample(labels, seed=1))
    assert np.any(images != release.sample(labels, seed=2))
    assert np.any(images != release.sample(labels, seed=(1, 1)))
    assert release.sample([], seed=0).shape == (0, 8, 8, 1)
    for label in range(10):  # one row alone is a batch like any other
        assert release.sample([label], seed=1).shape == (1, 8, 8, 1)
    with pytest.raises(ValueError, match="`labels`"):
        release.sample([10], seed=0)


def test_what_is_handed_out_is_plain_rows_and_where_there_is_a_labeller_augmented_ones(release: Release) -> None:
    labels = np.arange(20) % 10
    rows = release.training_set(labels, (1, 2))
    assert (release.labeller is not None) == _is_taught(release)
    count = 40 if release.labeller is not None else 20
    assert rows.images.shape == (count, 8, 8, 1)
    assert (rows.images.dtype, rows.labels.dtype, rows.soft_labels.dtype) == (np.uint8, np.int64, np.float32)
    np.testing.assert_array_equal(rows.labels[:20], labels)
    np.testing.assert_array_equal(rows.soft_labels.argmax(axis=1), rows.labels)
    np.testing.assert_allclose(rows.soft_labels.sum(axis=1), 1.0, rtol=1e-5)
    np.testing.assert_array_equal(rows.is_augmented, np.arange(count) >= 20)
    for one, again in zip(rows, release.training_set(labels, (1, 2)), strict=True):
        np.testing.assert_array_equal(one, again)
    if release.labeller is None:
        np.testing.assert_array_equal(rows.images, release.sample(labels, (1, 2)))
    else:
        said = release.labeller.probabilities(rows.images[20:], release.augmentation.temperature)
        np.testing.assert_allclose(rows.soft_labels[20:], said, atol=1e-5)
    assert len(release.training_set([], 0).images) == 0


def test_a_release_survives_the_disk(release: Release, tmp_path: pathlib.Path) -> None:
    release.save(tmp_path / "release")
    loaded = Release.load(tmp_path / "release")
    for one, other in zip(loaded.training_set([1, 2, 3], 5), release.training_set([1, 2, 3], 5), strict=True):
        np.testing.assert_array_equal(one, other)
    assert loaded.augmentation == release.augmentation
    assert (loaded.event, loaded.statement, loaded.spec) == (release.event, release.statement, release.spec)
    with pytest.raises(FileNotFoundError, match=r"release\.json"):
        Release.load(tmp_path / "nothing")


def test_nothing_but_the_generator_comes_out(release: Release, tmp_path: pathlib.Path) -> None:
    release.save(tmp_path)
    labeller = {"labeller.npz"} if _is_taught(release) else set()
    assert {path.name for path in tmp_path.iterdir()} == {"generator.keras", "release.json"} | labeller
    assert release.generator.optimizer is None
    facts = json.loads((tmp_path / "release.json").read_text())
    assert set(facts.pop("statement")) == {field.name for field in dataclasses.fields(PrivacyStatement)} | {"statement"}
    names = " ".join(layer.name for layer in release.generator.layers) + json.dumps(facts)
    for secret in ("critic", "encoder", "log_variance", "scores", "Adam"):
        assert secret not in names
    assert {field.name for field in dataclasses.fields(release)} == {
        "generator", "spec", "event", "statement", "method", "labeller", "augmentation",
    }  # fmt: skip


@every_method
def test_the_budget_is_reserved_before_the_rows_are_touched_and_stays_reserved(
    name: str, digits: LabeledDataset, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, seen = Ledger(tmp_path / "ledger.sqlite"), []

    def crash(self: Synthesizer, dataset: LabeledDataset, *rest: Any) -> None:
        seen.append(ledger.spent(dataset_id(dataset), _BUDGET.delta))
        raise RuntimeError("crashed on purpose")

    monkeypatch.setattr(_CLASSES[name], "prepare", crash)
    with pytest.raises(RuntimeError, match="on purpose"):
        _train(name, digits, ledger=ledger)
    assert seen
    assert 0.99 * _BUDGET.epsilon < seen[0] <= _BUDGET.epsilon
    assert ledger.reservations(dataset_id(digits)) == 1
    with pytest.raises(BudgetExceededError):
        _train(name, digits, ledger=ledger, limit=_BUDGET)
    assert len(seen) == 1  # the refused run never touched a row


@every_method
def test_bad_requests_are_refused_before_any_budget_is_spent(
    name: str, digits: LabeledDataset, tmp_path: pathlib.Path
) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    with pytest.raises(ValueError, match="`delta`"):
        train(name, digits, PrivacyBudget(3.0, 0.1), ledger=ledger, verbose=0)
    with pytest.raises(ValueError, match=", ".join(method_names())):
        train("no_such_method", digits, _BUDGET, ledger=ledger, verbose=0)
    with pytest.raises(ValueError, match="`ledger`"):
        train(name, digits, _BUDGET, limit=_BUDGET, verbose=0)
    assert ledger.reservations(dataset_id(digits)) == 0


@every_method
def test_the_seed_does_not_reach_the_noise_unless_asked_for(name: str, digits: LabeledDataset) -> None:
    labels = np.arange(50) % 10
    first, second = (_train(name, digits, seed=4).sample(labels, 0) for _ in range(2))
    assert np.any(first != second)
    releases = [_train(name, digits, seed=4, insecure_reproducible=True) for _ in range(2)]
    np.testing.assert_array_equal(*(release.sample(labels, 0) for release in releases))
    assert not releases[0].is_releasable
    assert releases[0].statement.text.startswith("NOT FOR RELEASE")


@every_method
def test_rows_on_disk_make_the_same_release_and_one_entry_in_the_ledger(
    name: str, digits: LabeledDataset, tmp_path: pathlib.Path
) -> None:
    ledger, labels = Ledger(tmp_path / "ledger.sqlite"), np.arange(50) % 10
    Splits(RecordDataset(_rows(digits), digits.spec), digits, digits).save(tmp_path)
    on_disk = Splits.load(tmp_path).train
    assert isinstance(on_disk, RecordDataset)
    samples = [
        _train(name, rows, seed=4, insecure_reproducible=True, ledger=ledger).sample(labels, 0)
        for rows in (digits, on_disk)
    ]
    np.testing.assert_array_equal(*samples)
    assert ledger.reservations(dataset_id(digits)) == 2


@every_method
def test_a_bad_row_on_disk_is_refused_before_any_budget_is_spent(
    name: str, digits: LabeledDataset, tmp_path: pathlib.Path
) -> None:
    ledger, rows = Ledger(tmp_path / "ledger.sqlite"), _rows(digits)
    rows[70]["label"] = 10
    with pytest.raises(DataError, match="row 70 has 10"):
        _train(name, RecordDataset(rows, digits.spec), ledger=ledger)
    assert ledger.reservations(dataset_id(digits)) == 0


def _rows(dataset: LabeledDataset) -> list[dict[str, Any]]:
    return [{"image": image, "label": label} for image, label in zip(dataset.images, dataset.labels, strict=True)]


@dataclasses.dataclass(frozen=True)
class _WatchedPlan(DPSGD):
    """A plan that keeps the optimizers it made, runs given batches, and lets a test choose the physical shape."""

    given: tuple[PoissonBatch, ...] = ()
    chunk: int = 0
    made: list[DPKerasAdam] = dataclasses.field(default_factory=list)
    applied: list[list[np.ndarray]] = dataclasses.field(default_factory=list)

    @property
    def physical_batch_size(self) -> int:
        return self.chunk or super().physical_batch_size

    def batches(self, noise: NoiseSource | None = None, first_step: int = 0) -> Iterator[PoissonBatch]:
        return iter(self.given) if self.given else super().batches(noise, first_step)

    def optimizer(self, noise: NoiseSource | None = None, **kwargs: Any) -> DPKerasAdam:
        optimizer = super().optimizer(noise, **kwargs)
        original = optimizer.apply_clipped_sum

        def apply_clipped_sum(sums: Any, variables: Any) -> Any:
            if tf.executing_eagerly():
                self.applied.append([value.numpy() for value in sums])
            return original(sums, variables)

        optimizer.apply_clipped_sum = apply_clipped_sum
        self.made.append(optimizer)
        return optimizer


def _watched(name: str, **facts: Any) -> _WatchedPlan:
    preset = _PRESETS[name]
    return _WatchedPlan(
        80, preset.expected_batch_size, **{"steps": 3, "l2_norm_clip": 0.25, "noise_multiplier": 1.0, **facts}
    )


@every_trained_one
def test_exactly_the_plans_steps_run_with_the_plans_optimizer(name: str, digits: LabeledDataset) -> None:
    plan = _watched(name, steps=7)
    _CLASSES[name](digits.spec, len(digits), 0, _PRESETS[name]).learn(digits, plan, NoiseSource(), 0)
    assert len(plan.made) == 1
    assert int(plan.made[0].iterations) == 7


@pytest.fixture
def eager_functions() -> Iterator[None]:
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


class KnownExamples(ExampleRandomness):
    """Draws that follow their example wherever it is inserted: row i of the k-th call belongs to `slots[k][i]`."""

    def __init__(self, slots: np.ndarray) -> None:
        self._slots = iter(slots)

    def normal(self, shape: Any) -> tf.Tensor:
        slots = next(self._slots)
        assert shape[0] == len(slots)
        return tf.stack([tf.random.stateless_normal(shape[1:], [17, int(example)]) for example in slots])


class KnownNoise(NoiseSource):
    def __init__(self, slots: np.ndarray) -> None:
        super().__init__()
        self._slots = slots

    def examples(self) -> ExampleRandomness:
        return KnownExamples(self._slots)


_CHUNK = 16


def _sums_of_first_step(name: str, dataset: LabeledDataset, examples: list[int]) -> list[np.ndarray]:
    """What is noised in a step on all of `examples`, numbers of rows of the digits: a data set of its own.

    The draws that belong to an example are fixed; those of padding are those of the example in slot 0.
    """
    chunks = -(-len(examples) // _CHUNK)
    indices = np.zeros(chunks * _CHUNK, np.int32)
    indices[: len(examples)] = np.arange(len(examples))
    weights = (np.arange(len(indices)) < len(examples)).astype(np.float32)
    shape = [chunks, _CHUNK]
    plan = _watched(name, steps=1, given=(PoissonBatch(indices.reshape(shape), weights.reshape(shape)),), chunk=_CHUNK)
    noise = KnownNoise(np.asarray(examples)[indices].reshape(shape))
    model = _CLASSES[name](dataset.spec, len(dataset), 0, _PRESETS[name])
    model.learn(dataset.take(examples), plan, noise, 0)
    return plan.applied[0]


def _moved(one: list[np.ndarray], other: list[np.ndarray]) -> float:
    return np.sqrt(sum(np.square(a - b).sum() for a, b in zip(one, other, strict=True)))


@every_trained_one
@pytest.mark.parametrize("place", [0, 9, 32], ids=["front", "middle", "end"])
def test_one_inserted_example_moves_what_is_noised_by_at_most_the_clip(
    name: str, place: int, digits: LabeledDataset, eager_functions: None
) -> None:
    """The whole step, with its fakes, its KL and its latents; two full chunks of examples become three."""
    common = list(range(2 * _CHUNK))
    inserted = [*common[:place], 70, *common[place:]]
    moved = _moved(*(_sums_of_first_step(name, digits, examples) for examples in (common, inserted)))
    assert 0.1 < moved <= 0.25 * (1 + 1e-4)


@every_trained_one
@pytest.mark.parametrize("place", [0, 9, 31], ids=["front", "middle", "end"])
def test_one_replaced_example_moves_what_is_noised_by_at_most_two_clips(
    name: str, place: int, digits: LabeledDataset, eager_functions: None
) -> None:
    common = list(range(2 * _CHUNK))
    replaced = [*common[:place], 70, *common[place + 1 :]]
    moved = _moved(*(_sums_of_first_step(name, digits, examples) for examples in (common, replaced)))
    assert 0.05 < moved <= 2 * 0.25 * (1 + 1e-4)


@every_trained_one
def test_a_row_that_is_padding_leaves_no_trace(name: str, digits: LabeledDataset, eager_functions: None) -> None:
    sums = []
    for padding in (9, 20):  # an example of weight 0 beside the three, in the slots of padding
        indices = np.full((1, 4), 3, np.int32)
        indices[0, :3] = range(3)
        batch = PoissonBatch(indices, np.array([[1, 1, 1, 0]], np.float32))
        plan = _watched(name, steps=1, given=(batch,), chunk=4)
        model = _CLASSES[name](digits.spec, len(digits), 0, _PRESETS[name])
        model.learn(digits.take([0, 1, 2, padding]), plan, KnownNoise(np.array([[0, 1, 2, padding]])), 0)
        sums.append(plan.applied[0])
    for a, b in zip(*sums, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.usefixtures("eager_functions")
def test_latents_of_examples_follow_no_public_seed(digits: LabeledDataset) -> None:
    """Two trainings with the same seed on the same batch encode its examples with other latents."""
    batch = PoissonBatch(np.arange(8, dtype=np.int32)[None], np.ones((1, 8), np.float32))
    sums = []
    for _ in range(2):
        plan = _watched("c_vae", steps=1, given=(batch,), chunk=8)
        CVAE(digits.spec, len(digits), 0, _PRESETS["c_vae"]).learn(digits, plan, NoiseSource(), 0)
        sums.append(plan.applied[0])
    assert _moved(*sums) > 0.05


@every_trained_one
def test_an_empty_batch_is_a_step_like_any_other(name: str, digits: LabeledDataset) -> None:
    empty = PoissonBatch(np.zeros((1, 4), np.int32), np.zeros((1, 4), np.float32))
    plan = _watched(name, steps=2, given=(empty, empty), chunk=4)
    generator = _CLASSES[name](digits.spec, len(digits), 0, _PRESETS[name]).learn(digits, plan, NoiseSource(), 0)
    assert int(plan.made[0].iterations) == 2
    assert all(np.all(np.isfinite(weight)) for weight in generator.get_weights())


def test_fakes_weigh_as_many_rows_as_the_plan_expects(
    digits: LabeledDataset, eager_functions: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    sums = []
    original = DPKerasAdam.clipped_gradient_sum

    def clipped_gradient_sum(self: DPKerasAdam, losses: tf.Tensor, *rest: Any) -> Any:
        sums.append((int(tf.math.count_nonzero(losses)), original(self, losses, *rest)))
        return sums[-1][1]

    monkeypatch.setattr(DPKerasAdam, "clipped_gradient_sum", clipped_gradient_sum)
    empty = PoissonBatch(np.zeros((1, 4), np.int32), np.zeros((1, 4), np.float32))
    plan = _watched("dp_gan", steps=1, given=(empty,), chunk=4)
    DPGAN(digits.spec, len(digits), 0, _PRESETS["dp_gan"]).learn(digits, plan, NoiseSource(), 0)
    (fakes, fake_sums), (real_rows, _) = sums
    assert (fakes, real_rows) == (8, 0)
    for applied, fake_sum in zip(plan.applied[0], fake_sums, strict=True):
        np.testing.assert_allclose(applied, 10 / 8 * fake_sum.numpy(), rtol=1e-5, atol=1e-7)


def test_chunks_change_nothing_but_memory(digits: LabeledDataset) -> None:
    """The same draws in one chunk and in many give the same critic, with one noise for each logical step."""
    sums = []
    for chunk in (80, 4):
        tf.config.run_functions_eagerly(True)
        try:
            plan = _watched("dp_gan", steps=3, chunk=chunk)
            model = DPGAN(digits.spec, len(digits), 0, _PRESETS["dp_gan"])
            model.learn(digits, plan, NoiseSource.insecure(3), 0)
        finally:
            tf.config.run_functions_eagerly(False)
        assert int(plan.made[0].iterations) == 3
        sums.append((plan.applied[-1], [weight.copy() for weight in model.critic.get_weights()]))
    for one, many in zip(sums[0], sums[1], strict=True):
        for a, b in zip(one, many, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("shape", [(28, 28, 1), (32, 32, 3), (9, 15, 1)])
@every_trained_one
def test_there_is_a_preset_for_every_shape(name: str, shape: tuple[int, int, int]) -> None:
    model = _CLASSES[name](DataSpec(shape, 7), 5_000, 0)
    plan = model.plan()
    assert plan.num_examples == 5_000
    assert plan.noise_multiplier is None
    dataset = LabeledDataset(np.zeros((5_000, *shape), np.uint8), np.zeros(5_000, np.int64), DataSpec(shape, 7))
    short = _WatchedPlan(5_000, 4, 1, 1.0, 1.0)
    if shape != (32, 32, 3):  # one step of the large networks is a benchmark's matter
        generator = model.learn(dataset, short, NoiseSource(), 0)
        assert generator([tf.zeros([2, generator.inputs[0].shape[1]]), tf.constant([0, 6], tf.int64)]).shape == (
            2,
            *shape,
        )


@pytest.mark.parametrize("shape", [(28, 28, 1), (32, 32, 3), (9, 15, 1)])
def test_one_shot_methods_have_a_preset_for_every_shape(shape: tuple[int, int, int]) -> None:
    spec = DataSpec(shape, 7)
    rng = np.random.default_rng(0)
    dataset = LabeledDataset(rng.integers(256, size=(70, *shape), dtype=np.uint8), np.arange(70) % 7, spec)
    release = train("class_gaussian", dataset, _BUDGET, verbose=0)
    assert release.sample([0, 6], 0).shape == (2, *shape)
    if shape[2] == 3 or min(shape[:2]) < 16:
        with pytest.raises(ValueError, match="one channel" if shape[2] == 3 else "at least 16 pixels a side"):
            StrokeVAE(spec, 70, 0)
    else:
        assert StrokeVAE(spec, 70, 0).plan() is None


def test_stroke_vae_learns_its_networks_without_a_private_row(digits: LabeledDataset) -> None:
    """Before any mechanism runs, the networks are a function of public facts and the seed."""
    networks = []
    for _ in range(2):
        model = StrokeVAE(digits.spec, len(digits), 3, _PRESETS["stroke_vae"])
        model.prepare(digits, (), NoiseSource(), 0)
        networks.append(model.decoder.get_weights())
    for one, other in zip(*networks, strict=True):
        np.testing.assert_array_equal(one, other)
