"""The preflight measures on noise, says what is public and what is not, and refuses what would not fit."""

from __future__ import annotations

import dataclasses
import json
import re
import time
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import numpy as np
import pytest
import tensorflow as tf

from components import SyntheticExamples
from tfdpgen.data import Dataset, DataSpec, LabeledDataset, Splits, load_splits
from tfdpgen.methods import CVAE, Fitted, method, preflight, train
from tfdpgen.methods.preflight import Facts
from tfdpgen.methods.rehearsal import rehearse
from tfdpgen.privacy import DPSGD, PrivacyBudget, PrivacyPlan, PrivateSession
from tfdpgen.privacy.mechanisms.gaussian_statistics import ClassMeans

_BUDGET = PrivacyBudget(3.0, 1e-6)
_SPEC = DataSpec((4, 4, 1), 8)


class _SlowMeans(ClassMeans):
    """Takes a known time for each example."""

    per_example = 1e-4  # seconds

    def sum_of(self, features: Any, labels: Any, *users: Any) -> Any:
        time.sleep(len(labels) * self.per_example)
        return super().sum_of(features, labels, *users)


@dataclasses.dataclass(frozen=True)
class _Slow:
    """Takes a known time for each example and each step, for public steps, and notes what it was given."""

    steps: int = 3
    public_steps: int = 0
    name: ClassVar[str] = "slow"
    priors: ClassVar[tuple[str, ...]] = ()
    per_step: ClassVar[float] = 0.05  # seconds
    per_public_step: ClassVar[float] = 2e-3
    steps_done: ClassVar[list[int]] = []

    @classmethod
    def for_data(cls, spec: DataSpec, num_examples: int) -> Self:
        return cls()

    def plan(self, spec: DataSpec, num_examples: int, budget: PrivacyBudget) -> PrivacyPlan:
        training = DPSGD(num_examples, min(64, num_examples), self.steps)
        return PrivacyPlan({"class_means": _SlowMeans(8, 16, 4.0), "dp_sgd": training}, num_examples, {"dp_sgd": 0.5})

    def fit(self, session: PrivateSession, *, seed: int, verbose: int) -> Fitted:
        latents, labels = tf.keras.Input((2,)), tf.keras.Input((), dtype=tf.int64)
        images = tf.keras.layers.Reshape((4, 4, 1))(tf.keras.layers.Dense(16)(latents))
        network = tf.keras.Sequential([tf.keras.Input([4, 4, 1]), tf.keras.layers.Flatten(), tf.keras.layers.Dense(1)])

        def losses(batch: Any) -> tf.Tensor:
            return network(batch.images)[:, 0]

        def public() -> np.ndarray:
            time.sleep(self.public_steps * self.per_public_step)
            return np.zeros(1)

        def after_step(step: int) -> None:
            self.steps_done.append(step)
            time.sleep(self.per_step * (5 if step < 2 else 1))  # the first ones compile

        trainer = session.trainer("dp_sgd", [network], losses, learning_rate=0.1)
        session.public("weights", public)
        time.sleep(np.random.default_rng().uniform(0, 0.1))  # what does not grow with the examples, and varies
        session.run("class_means", lambda images, labels: tf.reshape(images, [-1, 16]))
        trainer.run(after_step=after_step, verbose=verbose)
        return Fitted(tf.keras.Model([latents, labels], images))


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> type[_Slow]:
    """The slow method under its name; calibration, which takes long, is another test's."""
    monkeypatch.setitem(method._REGISTRY, "slow", _Slow)
    monkeypatch.setattr(PrivacyPlan, "calibrate", lambda plan, *_: _with_noise(plan))
    monkeypatch.setattr(preflight, "signal_of", lambda *_: 5.0)
    _Slow.steps_done.clear()
    return _Slow


def _with_noise(plan: PrivacyPlan) -> PrivacyPlan:
    mechanisms = {key: part.with_noise(2.0) for key, part in plan.mechanisms.items()}
    return dataclasses.replace(plan, mechanisms=mechanisms, accountant="rdp")


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[Dataset]:
    """What sessions are opened on."""
    found: list[Dataset] = []
    original = PrivateSession.__init__

    def opened(self: PrivateSession, dataset: Dataset, *arguments: Any, **named: Any) -> None:
        found.append(dataset)
        original(self, dataset, *arguments, **named)

    monkeypatch.setattr(PrivateSession, "__init__", opened)
    return found


class _Closed(Dataset):
    """Examples that can be read until they are closed."""

    def __init__(self, labels: Sequence[int], spec: DataSpec = _SPEC) -> None:
        self.spec, self._labels, self.is_closed = spec, np.asarray(labels, np.int64), False

    def __len__(self) -> int:
        return len(self._labels)

    def examples(self, positions: Any) -> Any:
        assert not self.is_closed, "the preflight has looked at private examples"
        return np.full((len(positions), *self.spec.image_shape), 77, np.uint8), self._labels[positions]

    def take(self, positions: Any) -> Any:
        raise NotImplementedError


def check(*arguments: Any, **named: Any) -> preflight.Preflight:
    """`preflight.check` with the size of the artifact that the pipeline writes."""
    return preflight.check(*arguments, expected_bytes=SyntheticExamples.expected_bytes, **named)


def _facts(labels: Sequence[int] = (0, 0, 7)) -> Facts:
    part = _Closed(labels)
    facts = Facts.of(Splits(part, part, part))
    part.is_closed = True
    return facts


@pytest.mark.parametrize(
    ("settings", "num_examples", "expected"),
    [
        ({}, 200_000, 200_000 * _SlowMeans.per_example),
        ({"steps": 500}, 200, 500 * _Slow.per_step),
        ({"public_steps": 10_000}, 200, 10_000 * _Slow.per_public_step),
    ],
    ids=["examples", "steps", "public steps"],
)
def test_a_rehearsal_extrapolates_from_little(
    settings: dict[str, int], num_examples: int, expected: float, slow: type[_Slow], read: list[Dataset]
) -> None:
    short = rehearse("slow", _SPEC, 200, PrivacyBudget(3.0, 1e-7))
    cost = rehearse(slow(**settings), _SPEC, num_examples, PrivacyBudget(3.0, 1e-7))
    assert cost.seconds - short.seconds == pytest.approx(expected, rel=0.3)  # 20 to 25 s
    assert len(slow.steps_done) < 100
    assert max(len(dataset) for dataset in read) < 10_000


def test_a_rehearsal_is_held_on_noise(slow: type[_Slow], read: list[Dataset]) -> None:
    check(_facts(), "slow", PrivacyBudget(3.0, 1e-2), num_synthetic=100)  # _Closed would raise
    assert read
    for dataset in read:
        assert isinstance(dataset, LabeledDataset)
        assert np.unique(dataset.images).size > 30  # the private ones are of one gray


def test_what_digits_take_is_about_what_was_said() -> None:
    """Within a factor of 3, since other work comes and goes; docs/preflight.md has what an idle machine gives."""
    examples, budget, labeller_share = load_splits("digits").train.in_memory(), PrivacyBudget(3.0, 1e-5), 0.3
    settings = dataclasses.replace(CVAE.for_data(examples.spec, len(examples)), steps=400)
    cost = rehearse(settings, examples.spec, len(examples), budget, labeller_share)
    assert cost.has_labeller
    started = time.perf_counter()
    train(settings, examples, budget, labeller_share=labeller_share, verbose=0)
    assert 1 / 3 < cost.seconds / (time.perf_counter() - started) < 3


@pytest.mark.parametrize(
    ("name", "spec", "budget", "message"),
    [
        (
            "latent_gaussian",
            DataSpec((8, 8, 1), 2),
            _BUDGET,
            "images of strokes need at least 16 pixels.*image_shape",
        ),
        ("latent_gaussian", DataSpec((32, 32, 3), 2), _BUDGET, "images of strokes have one channel.*image_shape"),
        ("c_vea", DataSpec((8, 8, 1), 2), _BUDGET, "`method` should be one of"),
        (
            "gaussian_mixture",
            DataSpec((8, 8, 1), 2),
            PrivacyBudget(1.0, 0.1),
            "`delta` should be smaller than 1 / num_ex",
        ),
    ],
)
def test_what_training_would_refuse_is_refused(name: str, spec: DataSpec, budget: PrivacyBudget, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rehearse(name, spec, 1000, budget)


def test_a_run_that_would_not_fit_is_refused_with_a_way_out(slow: type[_Slow]) -> None:
    budget = PrivacyBudget(3.0, 1e-2)
    facts = _facts()
    fits = check(facts, "slow", budget, num_synthetic=100, available=2**40)
    assert fits.refusal == ""
    assert fits.memory_needed < fits.memory_there
    refused = check(facts, "slow", budget, num_synthetic=100, available=0)
    for part in ("GiB", "Nothing was reserved", "`image_shape`"):
        assert part in refused.refusal

    large = dataclasses.replace(facts, bytes_in_memory=2**42, is_in_memory=True)
    refused = check(large, "slow", budget, num_synthetic=100, available=2**40)
    assert re.search(r"would need about 4\d\d\d\.\d GiB", refused.refusal)  # and what this process holds already
    assert "on_disk" in refused.refusal


def test_data_on_disk_need_no_memory_and_data_in_memory_do(slow: type[_Slow]) -> None:
    labels = np.arange(30) % 8
    loaded = LabeledDataset(np.zeros((30, 4, 4, 1), np.uint8), labels, _SPEC)
    assert Facts.of(Splits(loaded, loaded, loaded)).bytes_in_memory == 3 * 30 * 16
    facts = _facts()
    assert (facts.bytes_in_memory, facts.is_in_memory) == (0, False)


def test_size_and_time_of_synthetic_examples_are_said(slow: type[_Slow]) -> None:
    few, many = (check(_facts(), "slow", PrivacyBudget(3.0, 1e-2), num_synthetic=n) for n in (1000, 10_000_000))
    assert many.bytes_on_disk == 10_000 * few.bytes_on_disk
    assert many.bytes_on_disk > 10_000_000 * (16 + 4 * 8) * 2
    assert many.seconds_of_synthesis > 500
    assert f"10,000,000, about {many.seconds_of_synthesis / 60:.0f} minutes" in many.text
    assert f"at most {many.bytes_on_disk / 2**30:.1f} GiB on disk" in many.text
    assert "WHERE ONLY" not in dataclasses.replace(many, disk_there=many.bytes_on_disk).text
    assert "WHERE ONLY 2.0 GiB ARE FREE" in dataclasses.replace(many, disk_there=2**31).text


def test_no_class_without_examples_is_named(slow: type[_Slow]) -> None:
    cost = rehearse("slow", _SPEC, 1000, _BUDGET)
    texts = []
    for labels in ([0, 0, 7], [0, 3, 3]):
        estimates = check(_facts(labels), "slow", PrivacyBudget(3.0, 1e-2), num_synthetic=800, available=2**40)
        same = dataclasses.replace(estimates, cost=cost, memory_needed=0, memory_there=0, seconds_of_synthesis=1.0)
        texts.append(same.text)
    assert texts[0] == texts[1]
    assert "balanced, about 100 of each declared class" in texts[0]
    assert "Which classes have examples is private" in texts[0]
    private = dataclasses.replace(estimates, label_distribution="private")
    assert "by noisy counts of the private ones" in private.text
    assert "balanced" not in private.text


def test_the_count_of_the_smallest_class_is_internal_and_decides_nothing(slow: type[_Slow]) -> None:
    facts = [_facts(labels) for labels in ([*range(8)], [0] * 8)]
    assert [part.smallest_class for part in facts] == [1, 0]
    estimates = [check(part, "slow", PrivacyBudget(3.0, 1e-2), num_synthetic=9, available=2**40) for part in facts]
    lines = [[line for line in part.text.splitlines() if "Smallest class" in line] for part in estimates]
    assert [len(part) for part in lines] == [1, 1]
    assert all("[internal" in line for (line,) in lines)
    stored = json.loads(json.dumps(estimates[0].to_dict()))
    assert stored["smallest_class"] == 1
    assert stored["internal"] == ["smallest_class"]
    assert "smallest_class" not in stored["facts"]
    for name in ("signal", "advice", "bytes_on_disk"):
        assert getattr(estimates[0], name) == getattr(estimates[1], name)


def test_where_it_is_hopeless_the_text_says_what_would_not_be(
    slow: type[_Slow], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    facts = Facts(DataSpec((8, 8, 1), 10), 1077, 0, False, 99)
    text = check(facts, "gaussian_mixture", PrivacyBudget(0.1, 1e-5), num_synthetic=100).text
    assert "HOPELESS: below 0.6" in text
    assert "at most 1 MiB" in text
    for way in ("--epsilon=0.1", "classes of the same examples", "images of"):
        assert way in text
    good = check(facts, "gaussian_mixture", PrivacyBudget(3.0, 1e-5), num_synthetic=100)
    assert "HOPELESS" not in good.text
    assert good.advice is None
