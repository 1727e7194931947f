"""What every method keeps: exactly its plan runs, once, and one example moves what is noised by the sensitivity."""

from __future__ import annotations

import ast
import dataclasses
import json
import math
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from sklearn.datasets import load_digits

from tfdpgen.choices import PUBLIC_DATASETS, check_public_images
from tfdpgen.data import DataError, DataSpec, LabeledDataset, PublicImages, RecordDataset, Splits, load_public_images
from tfdpgen.methods import gaussian_mixture, latent_gaussian, method_class, method_names, train
from tfdpgen.methods.c_vae import CVAE
from tfdpgen.methods.dp_diffusion import DPDiffusion
from tfdpgen.methods.dp_gan import DPGAN
from tfdpgen.methods.fedavg_gan import FedAvgGAN
from tfdpgen.methods.gaussian_mixture import GaussianMixture
from tfdpgen.methods.gs_wgan import GSWGAN
from tfdpgen.methods.latent_gaussian import LatentGaussian
from tfdpgen.methods.pate_gan import PATEGAN
from tfdpgen.methods.training import fit, planned
from tfdpgen.privacy import (
    DPSGD,
    BudgetExceededError,
    ExampleRandomness,
    Ledger,
    NoiseSource,
    PoissonBatch,
    PrivacyBudget,
    PrivacyStatement,
    Votes,
    epsilon_of,
)
from tfdpgen.privacy import ensemble as ensembles
from tfdpgen.privacy import session as sessions
from tfdpgen.privacy.mechanisms.base import GaussianSum, GroupSum
from tfdpgen.privacy.optimizer import _PrivateUpdate
from tfdpgen.privacy.session import PrivateSession
from tfdpgen.release import Release

_MIXTURE = GaussianMixture(6, components=2)
_SMALL: dict[str, Any] = {
    "gaussian_mixture": _MIXTURE,
    "c_vae": CVAE(_MIXTURE, latent_dim=3, hidden_units=(16,), expected_batch_size=10, steps=3),
    "c_vae, plain": CVAE(None, latent_dim=3, hidden_units=(16,), expected_batch_size=10, steps=3),
    "dp_gan": DPGAN(4, generator_filters=8, critic_filters=4, expected_batch_size=10, steps=4, public_steps=2),
    "dp_diffusion": DPDiffusion(
        _MIXTURE, filters=2, expected_batch_size=10, steps=3, views=2, sampling_steps=2, public_steps=0
    ),
    "fedavg_gan": FedAvgGAN(
        4, generator_filters=8, num_coefficients=10, hidden_units=6, expected_users=10, rounds=4, generator_steps=1
    ),
    "gs_wgan": GSWGAN(
        4,
        generator_filters=8,
        num_coefficients=10,
        hidden_units=6,
        num_critics=8,
        expected_critics=3,
        steps=4,
        num_fakes=8,
    ),
    "latent_gaussian": LatentGaussian(3, filters=2, public_steps=3),
    "pate_gan": PATEGAN(8, latent_dim=4, hidden_units=8, num_coefficients=10, rounds=4, queries=3, steps=2),
}
_COMPONENTS = ", components"  # of a name: with several covariances for each class
_LABELLER = ", labeller"
_COUNTED = ", counted"
_VARIANTS = [
    *_SMALL,
    "gaussian_mixture" + _COMPONENTS,
    "c_vae" + _COMPONENTS,
    "gaussian_mixture" + _LABELLER,
    "gaussian_mixture" + _COUNTED,
]
_BUDGET = PrivacyBudget(3.0, 1e-4)
_CHUNK = 16

every_method = pytest.mark.parametrize("name", [name for name in _SMALL if "," not in name])
every_method_but_the_slow = (
    pytest.mark.parametrize(  # tests of half a minute, of what sessions and `train` do for every method alike
        "name",
        [
            pytest.param(name, marks=[pytest.mark.slow] if name == "dp_diffusion" else [])
            for name in _SMALL
            if "," not in name
        ],
    )
)
_ON_DISK = [
    pytest.param(name, marks=[pytest.mark.slow] if name == "dp_diffusion" else [])
    for name in _SMALL
    if "," not in name and name != "fedavg_gan"  # records do not say whose they are
]
every_variant = pytest.mark.parametrize("name", _VARIANTS)


@pytest.fixture(scope="module")
def digits() -> LabeledDataset:
    data = load_digits()
    images = (data.images[:80, ..., None] * 15.9375).round().astype(np.uint8)
    return LabeledDataset(images, data.target[:80].astype(np.int64), DataSpec((8, 8, 1), 10), np.arange(80))


@pytest.fixture(autouse=True)
def small_images_suit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few strokes, on 8x8 pixels, where they cannot be told; what is private about a method does not depend on that."""
    monkeypatch.setattr("tfdpgen.data.public_images.check_public_images", lambda *_: None)
    monkeypatch.setattr("tfdpgen.data.public_images._MOST_IMAGES", 100)


@pytest.fixture
def many_covariances(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if there were so many examples that noise allows several covariances for each class."""
    if _COMPONENTS in request.node.callspec.params.get("name", ""):
        monkeypatch.setattr(gaussian_mixture, "MOST_NOISE", 1e9)
        monkeypatch.setattr(gaussian_mixture, "MOST_NOISE_OF_COMPONENTS", 1e9)


def _settings(name: str) -> Any:
    return _SMALL[name.removesuffix(_COMPONENTS).removesuffix(_LABELLER).removesuffix(_COUNTED)]


def _options(name: str) -> dict[str, Any]:
    """What of a training is no setting of its method."""
    return {
        "labeller_share": 0.3 if name.endswith(_LABELLER) else 0.0,
        "label_distribution": "private" if name.endswith(_COUNTED) else "balanced",
    }


def _public_images(name: str) -> PublicImages | None:
    """What a GAN learns from first; others have their default or none."""
    return load_public_images("dead_leaves", (8, 8, 1)) if name == "dp_gan" else None


def _train(name: str, dataset: LabeledDataset, **arguments: Any) -> Release:
    arguments = {"public_images": _public_images(name), **_options(name), **arguments}
    return train(_settings(name), dataset, _BUDGET, verbose=0, **arguments)


_releases: dict[str, Release] = {}


@pytest.fixture(params=[pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in _VARIANTS])
def release(request: pytest.FixtureRequest, digits: LabeledDataset) -> Release:
    """Trained once for all tests of a variant, which one worker runs."""
    name = request.param
    if name not in _releases:
        with pytest.MonkeyPatch.context() as patch:
            if _COMPONENTS in name:
                patch.setattr(gaussian_mixture, "MOST_NOISE", 1e9)
                patch.setattr(gaussian_mixture, "MOST_NOISE_OF_COMPONENTS", 1e9)
            _releases[name] = _train(name, digits)
    return _releases[name]


def test_this_suite_knows_every_method() -> None:
    assert set(method_names()) == {settings.name for settings in _SMALL.values()}
    known = {name: getattr(method_class(name), "public_dataset", None) for name in method_names()}
    assert {name: default for name, default in known.items() if default is not None} == PUBLIC_DATASETS


@every_method
def test_a_method_has_at_most_ten_settings(name: str) -> None:
    assert len(dataclasses.fields(method_class(name))) <= 10


def test_the_statement_is_about_what_ran_and_within_the_budget(release: Release) -> None:
    statement = release.statement
    assert 0.98 * _BUDGET.epsilon < statement.epsilon <= _BUDGET.epsilon
    assert statement.epsilon == pytest.approx(epsilon_of(release.event, _BUDGET.delta), rel=1e-9)
    assert statement.num_examples == 80
    has_public_images = release.method in PUBLIC_DATASETS
    assert len(statement.priors) == len(method_class(release.method).priors) + has_public_images
    for part in statement.mechanisms:
        assert 0 < part["share"] <= 1
        assert part["name"] in statement.text
    assert release.is_releasable
    assert statement.noise_source == "operating system"


def test_samples_are_images_and_a_function_of_labels_and_seed(release: Release) -> None:
    labels = np.arange(20) % 10
    images = release.sample(labels, seed=1)
    assert images.shape == (20, 8, 8, 1)
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(images, release.sample(labels, seed=1))
    # Of so few examples a covariance may have no eigenvalue above its noise; then a class is one image.
    is_one = np.array_equal(images[:10], images[10:])
    assert is_one or np.any(images != release.sample(labels, seed=2))
    assert is_one or np.any(images != release.sample(labels, seed=(1, 1)))
    assert release.sample([], seed=0).shape == (0, 8, 8, 1)
    for label in range(10):  # one example alone is a batch like any other
        assert release.sample([label], seed=1).shape == (1, 8, 8, 1)
    with pytest.raises(ValueError, match="`labels`"):
        release.sample([10], seed=0)


def test_a_release_survives_the_disk_and_holds_nothing_else(release: Release, tmp_path: pathlib.Path) -> None:
    release.save(tmp_path / "release")
    loaded = Release.load(tmp_path / "release")
    for one, other in zip(loaded.training_set([1, 2, 3], 5), release.training_set([1, 2, 3], 5), strict=True):
        np.testing.assert_array_equal(one, other)
    assert (loaded.event, loaded.statement, loaded.spec) == (release.event, release.statement, release.spec)
    labeller = {"labeller.npz"} if release.labeller is not None else set()
    assert {path.name for path in (tmp_path / "release").iterdir()} == {"generator.keras", "release.json"} | labeller
    assert release.generator.optimizer is None
    facts = json.loads((tmp_path / "release" / "release.json").read_text())
    assert set(facts) == {"method", "spec", "event", "statement", "augmentation", "label_distribution"}
    assert set(facts.pop("statement")) == {field.name for field in dataclasses.fields(PrivacyStatement)} | {"statement"}
    names = " ".join(layer.name for layer in release.generator.layers) + json.dumps(facts)
    for secret in ("critic", "encoder", "log_variance", "scores", "Adam"):
        assert secret not in names


@every_variant
@pytest.mark.usefixtures("many_covariances")
def test_every_mechanism_of_the_plan_runs_once(
    name: str, digits: LabeledDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, steps = [], []
    begin, batches = PrivateSession._begin, DPSGD.batches

    def noting(self: PrivateSession, *keys: str) -> None:
        begun.extend(keys)
        begin(self, *keys)

    def counting(self: DPSGD, *arguments: Any, **named: Any) -> Iterator[PoissonBatch]:
        for batch in batches(self, *arguments, **named):
            steps.append(self.steps)
            yield batch

    def sampling(self: GroupSum, *arguments: Any) -> Iterator[Any]:
        for sampled in samples(self, *arguments):
            steps.append(self.steps)
            yield sampled

    samples = GroupSum.samples
    monkeypatch.setattr(PrivateSession, "_begin", noting)
    monkeypatch.setattr(DPSGD, "batches", counting)
    monkeypatch.setattr(GroupSum, "samples", sampling)
    _, plan = planned(_settings(name), digits.spec, 80, _BUDGET, **_options(name))
    _train(name, digits)
    assert sorted(begun) == sorted(plan.mechanisms)
    assert len(steps) == sum(part.steps for part in plan.mechanisms.values() if isinstance(part, (DPSGD, GroupSum)))


def _neighbours(dataset: LabeledDataset) -> Iterator[tuple[LabeledDataset, int]]:
    """Data sets with an example really removed or replaced, at the front, in the middle and at the end."""
    everything = np.arange(len(dataset))
    for place in (0, len(dataset) // 2, len(dataset) - 1):
        yield dataset.take(np.delete(everything, place)), 1
        replaced = everything.copy()
        replaced[place] = (place + 7) % len(dataset)
        yield dataset.take(replaced), 2
    for place in (0, len(dataset) // 2, len(dataset)):
        yield dataset.take(np.insert(everything, place, 13)), 1


@every_variant
@pytest.mark.usefixtures("many_covariances")
def test_one_example_moves_every_sum_by_at_most_its_sensitivity(
    name: str, digits: LabeledDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sums as the method asks for them, with what it has learnt before; insertions, removals and replacements."""
    moved: dict[str, list[float]] = {}
    original = sessions.sums_of

    def watched(dataset: Any, asked: Any, *, by_user: bool) -> Any:
        sums = original(dataset, asked, by_user=by_user)
        for neighbour, factor in _neighbours(digits):
            others = original(neighbour, asked, by_user=by_user)
            for key, (mechanism, _) in asked.items():
                distance = float(np.linalg.norm(sums[key] - others[key]))
                moved.setdefault(key, []).append(distance / (factor * mechanism.sensitivity))
        return sums

    monkeypatch.setattr(sessions, "sums_of", watched)
    _, plan = planned(_settings(name), digits.spec, 80, _BUDGET, **_options(name))
    _train(name, digits)
    assert set(moved) == {key for key, part in plan.mechanisms.items() if isinstance(part, GaussianSum)}
    for key, distances in moved.items():
        assert max(distances) <= 1 + 1e-6, key
        assert max(distances) > 0.1, key


def test_one_example_moves_one_vote_of_each_query_about_its_class(
    digits: LabeledDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the method asks its teachers in every round, with an example really inserted or removed."""
    moved: list[float] = []
    original = Votes.counts

    def watched(
        self: Votes, features: Any, labels: Any, shards: Any, directions: Any, thresholds: Any, rng: Any
    ) -> Any:
        def counts(chosen: Any) -> Any:
            known = (features[chosen], labels[chosen], shards[chosen], directions, thresholds)
            return original(self, *known, np.random.default_rng(3))

        everything = np.arange(len(labels))
        before = counts(everything)
        for place in (0, 40, 80):
            orders = [np.insert(everything, place, 13)]
            if place < 80:
                orders.append(np.delete(everything, place))
            moved.extend(float(np.linalg.norm(counts(order) - before)) for order in orders)
        return original(self, features, labels, shards, directions, thresholds, rng)

    monkeypatch.setattr(Votes, "counts", watched)
    _train("pate_gan", digits)
    assert len(moved) == 4 * 5
    bound = math.sqrt(2 * _SMALL["pate_gan"].queries)
    assert max(moved) <= bound * (1 + 1e-9)
    assert max(moved) > 0.3 * bound


@dataclasses.dataclass
class _Few:
    """A batch of which only some examples are there; what an example draws is its own."""

    images: tf.Tensor
    labels: tf.Tensor
    features: tf.Tensor | None
    numbers: list[int]

    def normal(self, shape: Any = ()) -> tf.Tensor:
        return tf.stack([tf.random.stateless_normal(shape, [17, number]) for number in self.numbers])

    def uniform(self, shape: Any = ()) -> tf.Tensor:
        return tf.stack([tf.random.stateless_uniform(shape, [17, number]) for number in self.numbers])


@every_variant
@pytest.mark.usefixtures("many_covariances")
def test_losses_and_features_are_of_each_example_alone(
    name: str, digits: LabeledDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Held against those of the example without others, in place of the session's own check."""
    together, looked_at = list(range(5)), []

    def compare(function: Any, what: str) -> tf.Tensor:
        values = function(together)
        alone = tf.concat([function([number]) for number in together], axis=0)
        precision = 1e-2 if values.dtype == tf.float16 else 1e-4
        np.testing.assert_allclose(alone, values, rtol=precision, atol=precision, err_msg=what)
        looked_at.append(what)
        return values

    def examples(numbers: list[int]) -> tuple[tf.Tensor, tf.Tensor]:
        return tf.constant(digits.images[numbers], tf.float32) / 255, tf.constant(digits.labels[numbers])

    def check_transform(transform: Any, spec: DataSpec) -> tf.TensorSpec:
        features = compare(lambda numbers: transform(*examples(numbers)), "transform")
        return tf.TensorSpec([None, features.shape[1]], features.dtype)

    def check_loss(loss_fn: Any, spec: DataSpec, features_spec: Any = None) -> None:
        features = None
        if features_spec is not None:
            rng = np.random.default_rng(0)
            features = tf.constant(rng.normal(size=(5, features_spec.shape[1])), features_spec.dtype)

        def losses(numbers: list[int]) -> tf.Tensor:
            return loss_fn(
                _Few(*examples(numbers), None if features is None else tf.gather(features, numbers), numbers)
            )

        rng, starts = np.random.default_rng(0), [network.get_weights() for network in trained]
        for network, start in zip(trained, starts, strict=True):  # some losses are the same for all at the start
            network.set_weights([value + rng.normal(scale=0.1, size=value.shape) for value in start])
        compare(losses, "loss")
        for network, start in zip(trained, starts, strict=True):
            network.set_weights(start)

    def trainer(self: PrivateSession, key: str, networks: Any, *arguments: Any, **named: Any) -> Any:
        trained[:] = networks
        return make_trainer(self, key, networks, *arguments, **named)

    trained: list[tf.keras.Model] = []
    make_trainer = PrivateSession.trainer
    monkeypatch.setattr(PrivateSession, "trainer", trainer)
    monkeypatch.setattr(sessions, "check_transform", check_transform)
    monkeypatch.setattr(sessions, "check_loss", check_loss)
    _, plan = planned(_settings(name), digits.spec, 80, _BUDGET, **_options(name))
    _train(name, digits)
    assert looked_at.count("loss") == sum(isinstance(part, DPSGD) for part in plan.mechanisms.values())
    assert looked_at.count("transform") >= sum(isinstance(part, GaussianSum) for part in plan.mechanisms.values())


@every_variant
@pytest.mark.usefixtures("many_covariances")
def test_with_the_outputs_of_its_mechanisms_given_the_examples_change_nothing(
    name: str, digits: LabeledDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other images with other labels, as many of them: what is left would be peeks that nobody paid for.

    Networks of groups are trained on the examples all the same, so that those that a method kept would be others.
    """

    def noised_gradients(self: Any, sums: Any, divisor: Any = None) -> list[tf.Tensor]:
        return [tf.fill(tf.shape(value), tf.constant(0.1, value.dtype)) for value in sums]

    def sums_of(dataset: Any, asked: Any, *, by_user: bool) -> dict[str, np.ndarray]:
        return {key: np.random.default_rng(5).normal(size=part.size) for key, (part, _) in asked.items()}

    def group_sums(mechanism: Any, *arguments: Any) -> Any:
        real = original(mechanism, *arguments)

        def given(sampled: Any, public: Any) -> np.ndarray:
            assert np.isfinite(real(np.arange(mechanism.num_groups), public)).all()
            return np.random.default_rng(5).normal(size=mechanism.size)

        return given

    original = ensembles.group_sums
    monkeypatch.setattr(_PrivateUpdate, "noised_gradients", noised_gradients)
    monkeypatch.setattr(sessions, "sums_of", sums_of)
    monkeypatch.setattr(ensembles, "group_sums", group_sums)
    monkeypatch.setattr(Votes, "counts", lambda self, *_: np.random.default_rng(5).normal(size=self.size))
    others = LabeledDataset(digits.images // 3, digits.labels // 4, digits.spec, digits.user_ids)
    labels = np.arange(30) % 10
    left: list[list[np.ndarray]] = []
    for examples in (digits, others):
        networks: dict[str, Any] = {}
        tf.keras.utils.set_random_seed(0)  # of weights that nothing reads, such as means of which a class has one
        release = _train(name, examples, seed=3, insecure_reproducible=True, networks=networks)
        of_auditors = [weight for network in networks.values() for weight in network.get_weights()]
        left.append([*release.training_set(labels, 0), *of_auditors])
    for one, other in zip(*left, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


class _KnownExamples(ExampleRandomness):
    """What an example draws follows it wherever it is inserted: slot i of the k-th chunk belongs to `slots[k][i]`.

    A loss draws `draws` times for each chunk.
    """

    def __init__(self, slots: np.ndarray, draws: int) -> None:
        self._slots, self._draws = list(slots), draws
        self._calls = 0

    def normal(self, shape: Any) -> tf.Tensor:
        chunk, draw = divmod(self._calls, self._draws)
        slots = self._slots[chunk % len(self._slots)]
        self._calls += 1
        assert shape[0] == len(slots)
        return tf.stack([tf.random.stateless_normal(shape[1:], [17 + draw, int(example)]) for example in slots])

    def uniform(self, shape: Any) -> tf.Tensor:
        return (1 + tf.math.erf(self.normal(shape) / math.sqrt(2))) / 2


class _KnownNoise(NoiseSource):
    def __init__(self, slots: np.ndarray, draws: int) -> None:
        super().__init__()
        self._slots, self._draws = slots, draws

    def examples(self) -> ExampleRandomness:
        return _KnownExamples(self._slots, self._draws)


def _first_sums(
    name: str, dataset: LabeledDataset, examples: list[int], monkeypatch: pytest.MonkeyPatch
) -> dict[str, list[np.ndarray]]:
    """What is noised in the first step of each DP-SGD of a method, on a sample of all of `examples`.

    The one-shot mechanisms give what no example has shaped; what belongs to an example follows it.
    """
    chunks = -(-len(examples) // _CHUNK)
    places = np.zeros(chunks * _CHUNK, np.int32)
    places[: len(examples)] = np.arange(len(examples))
    weights = (np.arange(len(places)) < len(examples)).astype(np.float32)
    shape = [chunks, _CHUNK]
    applied: dict[str, list[np.ndarray]] = {}
    make = DPSGD.optimizer

    def optimizer(self: DPSGD, *arguments: Any, **named: Any) -> Any:
        made = make(self, *arguments, **named)
        original = made.apply_clipped_sum

        def apply_clipped_sum(sums: Any, variables: Any) -> Any:
            applied.setdefault(self.name, [value.numpy() for value in sums])
            return original(sums, variables)

        made.apply_clipped_sum = apply_clipped_sum
        return made

    def fixed(dataset: Any, asked: Any, *, by_user: bool) -> Any:
        return {key: np.random.default_rng(5).normal(size=part.size) for key, (part, _) in asked.items()}

    class Still(_KnownNoise):
        def numpy_generator(self) -> Any:
            return np.random.default_rng(6)  # the same for both

    chosen, plan = planned(_settings(name), dataset.spec, len(dataset), _BUDGET, **_options(name))
    plan = dataclasses.replace(
        plan,
        num_examples=len(examples),
        mechanisms={
            key: dataclasses.replace(part, num_examples=len(examples), expected_batch_size=10, steps=1)
            if isinstance(part, DPSGD)
            else part
            for key, part in plan.mechanisms.items()
        },
    )
    with monkeypatch.context() as patch:
        patch.setattr(DPSGD, "optimizer", optimizer)
        patch.setattr(DPSGD, "physical_batch_size", _CHUNK)
        patch.setattr(
            DPSGD,
            "batches",
            lambda *_, **__: iter([PoissonBatch(places.reshape(shape), weights.reshape(shape))]),
        )
        patch.setattr(sessions, "sums_of", fixed)
        cost = PrivacyBudget(plan.epsilon(1e-4) * 1.01, 1e-4)
        session = PrivateSession(
            dataset.take(examples),
            plan,
            cost,
            noise=Still(np.asarray(examples)[places].reshape(shape), 2 if chosen.name == "dp_diffusion" else 1),
            public_images=_public_images(name),
        )
        fit(chosen, session, seed=0, verbose=0)
    return applied


_TRAINED = [
    "c_vae",
    "c_vae, plain",
    "dp_gan",
    "dp_diffusion",
    "c_vae" + _COMPONENTS,
    "gaussian_mixture" + _LABELLER,
]


@pytest.mark.parametrize("name", _TRAINED)
@pytest.mark.usefixtures("eager_functions", "many_covariances")
def test_one_example_moves_a_step_by_at_most_its_clip(
    name: str, digits: LabeledDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole step, fakes, KL and latents with it; two full chunks of examples become three, or stay two."""
    common = list(range(2 * _CHUNK))
    before = _first_sums(name, digits, common, monkeypatch)
    assert before
    _, plan = planned(_settings(name), digits.spec, 80, _BUDGET, **_options(name))
    clips = {part.name: part.l2_norm_clip for part in plan.mechanisms.values() if isinstance(part, DPSGD)}
    most = 0.0
    for place in (0, 9, 32):
        for clip_factor, changed in (
            (1, [*common[:place], 70, *common[place:]]),
            (2, [*common[:place], 70, *common[place + 1 :]]),
        ):
            after = _first_sums(name, digits, changed, monkeypatch)
            for part, sums in after.items():
                moved = np.sqrt(sum(np.square(a - b).sum() for a, b in zip(before[part], sums, strict=True)))
                assert moved <= clip_factor * clips[part] * (1 + 1e-3), (place, part)
                most = max(most, moved / clips[part])
    assert most > 0.3


@pytest.mark.parametrize("name", _TRAINED)
def test_empty_samples_are_steps_like_any_other(
    name: str, digits: LabeledDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = []

    def empty(self: DPSGD, *_: Any, **__: Any) -> Iterator[PoissonBatch]:
        for _step in range(self.steps):
            steps.append(self.name)
            yield PoissonBatch(np.zeros((1, 4), np.int32), np.zeros((1, 4), np.float32))

    monkeypatch.setattr(DPSGD, "batches", empty)
    monkeypatch.setattr(DPSGD, "physical_batch_size", 4)
    images = _train(name, digits).sample(np.arange(10), 0)
    assert steps
    assert images.shape == (10, 8, 8, 1)


@every_variant
def test_the_budget_is_reserved_before_the_first_access_and_stays_reserved(
    name: str, digits: LabeledDataset, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, seen = Ledger(tmp_path / "ledger.sqlite"), []
    identifier = ledger.identity(digits)

    def reader(dataset: Any, *_: Any) -> Any:
        seen.append(ledger.spent(identifier, _BUDGET.delta))
        raise RuntimeError("crashed on purpose")

    monkeypatch.setattr("tfdpgen.privacy.trainer.example_reader", reader)
    monkeypatch.setattr("tfdpgen.privacy.ensemble.features_of", reader)

    class Crashing(LabeledDataset):
        def blocks(self) -> Any:
            seen.append(ledger.spent(identifier, _BUDGET.delta))
            if len(seen) > 1:  # the digest that names the examples is the first pass
                raise RuntimeError("crashed on purpose")
            return super().blocks()

    with pytest.raises(RuntimeError, match="on purpose"):
        _train(name, Crashing(digits.images, digits.labels, digits.spec, digits.user_ids), ledger=ledger)
    assert seen[0] == 0
    most = 2 * _BUDGET.epsilon if name == "fedavg_gan" else _BUDGET.epsilon  # of an example, which changes its user
    assert 0.98 * _BUDGET.epsilon < seen[1] <= most
    assert len(ledger.reservations(identifier)) == 1
    with pytest.raises(BudgetExceededError):
        _train(name, digits, ledger=ledger, limit=_BUDGET)


@every_method
def test_bad_requests_are_refused_before_any_budget_is_spent(
    name: str, digits: LabeledDataset, tmp_path: pathlib.Path
) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    with pytest.raises(ValueError, match="`delta`"):
        train(_settings(name), digits, PrivacyBudget(3.0, 0.1), ledger=ledger, verbose=0)
    with pytest.raises(ValueError, match=", ".join(method_names())):
        train("no_such_method", digits, _BUDGET, ledger=ledger, verbose=0)
    with pytest.raises(ValueError, match="`ledger`"):
        train(_settings(name), digits, _BUDGET, limit=_BUDGET, verbose=0)
    with pytest.raises(ValueError, match="`labeller_share`"):
        train(_settings(name), digits, _BUDGET, labeller_share=1.0, ledger=ledger, verbose=0)
    assert len(ledger.reservations(digits)) == 0


@pytest.mark.parametrize(
    "name",
    [  # what sums over users are noised by is what those over shards are
        pytest.param(name, marks=[pytest.mark.slow] if name in ("dp_diffusion", "fedavg_gan") else [])
        for name in _SMALL
        if "," not in name
    ],
)
def test_the_seed_does_not_reach_the_noise_unless_asked_for(name: str, digits: LabeledDataset) -> None:
    labels = np.arange(50) % 10
    first, second = (_train(name, digits, seed=4).sample(labels, 0) for _ in range(2))
    assert np.any(first != second)
    releases = [_train(name, digits, seed=4, insecure_reproducible=True) for _ in range(2)]
    np.testing.assert_array_equal(*(release.sample(labels, 0) for release in releases))
    assert not releases[0].is_releasable
    assert releases[0].statement.text.startswith("NOT FOR RELEASE")


@pytest.mark.parametrize("name", _ON_DISK)
def test_examples_on_disk_make_the_same_release_and_one_entry_in_the_ledger(
    name: str, digits: LabeledDataset, tmp_path: pathlib.Path
) -> None:
    ledger, labels = Ledger(tmp_path / "ledger.sqlite"), np.arange(50) % 10
    Splits(RecordDataset(_records(digits), digits.spec), digits, digits).save(tmp_path)
    on_disk: Any = Splits.load(tmp_path).train
    assert isinstance(on_disk, RecordDataset)
    samples = [
        _train(name, examples, seed=4, insecure_reproducible=True, ledger=ledger).sample(labels, 0)
        for examples in (digits, on_disk)
    ]
    np.testing.assert_array_equal(*samples)
    assert len(ledger.reservations(digits)) == 2


@pytest.mark.parametrize("name", _ON_DISK)
def test_a_bad_example_on_disk_is_refused_before_any_budget_is_spent(
    name: str, digits: LabeledDataset, tmp_path: pathlib.Path
) -> None:
    ledger, records = Ledger(tmp_path / "ledger.sqlite"), _records(digits)
    records[70]["label"] = 10
    with pytest.raises(DataError, match="70 has 10"):
        _train(name, RecordDataset(records, digits.spec), ledger=ledger)  # type: ignore[arg-type]
    assert len(ledger.reservations(digits)) == 0


def _records(dataset: LabeledDataset) -> list[dict[str, Any]]:
    return [{"image": image, "label": label} for image, label in zip(dataset.images, dataset.labels, strict=True)]


@pytest.mark.parametrize("name", ["c_vae", "c_vae, plain"])
@pytest.mark.usefixtures("eager_functions")
def test_latents_of_examples_follow_no_public_seed(
    name: str, digits: LabeledDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two trainings with the same seed on the same sample encode its examples with other latents."""
    with monkeypatch.context() as patch:
        patch.setattr(_KnownNoise, "examples", lambda self: NoiseSource().examples())
        one, other = (_first_sums(name, digits, list(range(32)), monkeypatch) for _ in range(2))
    for part, sums in one.items():
        assert np.sqrt(sum(np.square(a - b).sum() for a, b in zip(sums, other[part], strict=True))) > 0.01


@pytest.mark.parametrize("shape", [pytest.param((28, 28, 1), marks=pytest.mark.slow), (32, 32, 3), (9, 15, 1)])
@every_method_but_the_slow
def test_there_are_settings_for_every_shape(name: str, shape: tuple[int, int, int]) -> None:
    spec = DataSpec(shape, 7)
    settings = method_class(name).for_data(spec, 5_000)
    plan = settings.plan(spec, 5_000, _BUDGET)
    assert plan.num_examples == 5_000
    assert not plan.is_calibrated
    short = {
        "steps": 1,
        "public_steps": 1,
        "expected_batch_size": 8,
        "rounds": 1,
        "num_critics": 5,
        "expected_critics": 2,
        "sampling_steps": 1,
        "filters": 2,
    }
    fields = {field.name for field in dataclasses.fields(settings)}
    settings = dataclasses.replace(settings, **{key: value for key, value in short.items() if key in fields})
    images = np.random.default_rng(0).integers(256, size=(70, *shape), dtype=np.uint8)
    examples = LabeledDataset(images, np.arange(70) % 7, spec, np.arange(70))
    public = load_public_images("dead_leaves", shape) if name in PUBLIC_DATASETS else None
    release = train(settings, examples, _BUDGET, verbose=0, public_images=public)
    assert release.sample([0, 6], 0).shape == (2, *shape)


def test_strokes_are_refused_where_they_cannot_be_told() -> None:
    for shape, match in (((32, 32, 3), "one channel"), ((8, 8, 1), "at least 16 pixels a side")):
        for source in ("strokes", "fonts", "fonts:folder"):
            with pytest.raises(ValueError, match=match):
                check_public_images(source, shape)
        check_public_images("dead_leaves", shape)


def test_the_autoencoder_learns_from_public_images_alone(digits: LabeledDataset) -> None:
    """What it has learnt is a function of the seed, whatever the private examples are."""
    weights = []
    for chosen in (np.arange(40), np.arange(40, 80)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(latent_gaussian, "set_weights", lambda networks, vector: weights.append(vector))
            _train("latent_gaussian", digits.take(chosen), seed=3)
    np.testing.assert_allclose(*weights, atol=1e-5)


@pytest.mark.parametrize(
    "path", sorted(pathlib.Path(gaussian_mixture.__file__).parent.glob("*.py")), ids=lambda p: p.name
)
def test_methods_have_no_way_to_the_examples(path: pathlib.Path) -> None:
    """They import no private name, no data set, no noise and no ledger; `training.py` alone opens sessions."""
    openers = {"training.py", "rehearsal.py", "preflight.py", "__init__.py"}
    allowed = {"DataSpec"} if path.name not in openers else None
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tfdpgen"):
            names = {alias.name for alias in node.names}
            assert not [name for name in names if name.startswith("_")], node.module
            if allowed is None:
                continue
            if node.module.startswith("tfdpgen.data"):
                assert names <= allowed
            forbidden = {"noise", "ledger", "backup", "sampling", "optimizer", "chunks", "clipping"}
            assert not forbidden & set(node.module.split("."))
        if allowed is not None and isinstance(node, ast.Attribute):
            assert not (node.attr.startswith("_") and isinstance(node.value, ast.Name) and node.value.id == "session")
