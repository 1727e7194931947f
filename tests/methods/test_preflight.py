"""The preflight measures on noise, says what is public and what is not, and refuses what would not fit."""

from __future__ import annotations

import dataclasses
import json
import re
import time
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import pytest
import tensorflow as tf

from components import SyntheticExamples
from tfdpgen.data import Dataset, DataSpec, LabeledDataset, Splits
from tfdpgen.methods import Synthesizer, base, preflight
from tfdpgen.methods.preflight import Facts
from tfdpgen.methods.rehearsal import rehearse
from tfdpgen.privacy import DPSGD, ClassMeans, Mechanism, NoiseSource, PrivacyBudget

_BUDGET = PrivacyBudget(3.0, 1e-6)
_SPEC = DataSpec((4, 4, 1), 8)


@dataclasses.dataclass(frozen=True)
class _Preset:
    warm_up: int = 5


class _Slow(Synthesizer):
    """Takes a known time for each example and each step, and notes what it was given."""

    method = "slow"
    per_example, per_step = 3e-5, 6e-3  # seconds
    seen: ClassVar[list[Dataset]] = []
    steps: ClassVar[int] = 0

    def __init__(self, spec: DataSpec, num_examples: int, seed: int, preset: _Preset | None = None) -> None:
        super().__init__(spec, num_examples, seed, preset or _Preset())

    def plan(self) -> DPSGD:
        return DPSGD(self.num_examples, min(64, self.num_examples), 500, 1.0, noise_multiplier=2.0)

    def alongside(self, budget: PrivacyBudget) -> Sequence[Mechanism]:
        return (ClassMeans(20.0),)

    def prepare(self, dataset: Dataset, mechanisms: Sequence[Mechanism], noise: NoiseSource, verbose: int) -> None:
        type(self).seen.append(dataset)
        time.sleep(np.random.default_rng().uniform(0, 0.1))  # what does not grow with the examples, and varies
        for _, labels in dataset.blocks():
            time.sleep(len(labels) * self.per_example)

    def learn(
        self, dataset: Dataset, plan: Any, noise: NoiseSource, verbose: int, backup: Any = None
    ) -> tf.keras.Model:
        type(self).seen.append(dataset)
        assert self.preset.warm_up == 0
        backup.start(plan)
        for step in range(plan.steps):
            time.sleep(self.per_step * (10 if step < 2 else 1))  # the first ones compile
            type(self).steps += 1
            backup.after_step(step + 1)
        latents, labels = tf.keras.Input((2,)), tf.keras.Input((), dtype=tf.int64)
        images = tf.keras.layers.Reshape((4, 4, 1))(tf.keras.layers.Dense(16)(latents))
        return tf.keras.Model([latents, labels], images)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> type[_Slow]:
    """The slow method under its name; calibration, which takes long, is another test's."""
    monkeypatch.setitem(base._REGISTRY, "slow", _Slow)
    monkeypatch.setattr(DPSGD, "calibrate", lambda plan, *_: plan)
    monkeypatch.setattr(preflight, "signal_of", lambda *_: 5.0)
    _Slow.seen.clear()
    _Slow.steps = 0
    return _Slow


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


def test_a_rehearsal_extrapolates_from_few_examples_and_steps(slow: type[_Slow]) -> None:
    cost = rehearse("slow", _SPEC, 100_000, PrivacyBudget(3.0, 1e-7))
    # Three seconds each: either one alone would be half.
    assert cost.seconds == pytest.approx(100_000 * slow.per_example + 500 * slow.per_step, rel=0.4)
    assert slow.steps < 50
    assert max(len(dataset) for dataset in slow.seen) < 10_000


def test_a_rehearsal_is_held_on_noise(slow: type[_Slow]) -> None:
    check(_facts(), "slow", PrivacyBudget(3.0, 1e-2), num_synthetic=100)  # _Closed would raise
    assert slow.seen
    for dataset in slow.seen:
        assert isinstance(dataset, LabeledDataset)
        assert np.unique(dataset.images).size > 30  # the private ones are of one gray


@pytest.mark.parametrize(
    ("name", "spec", "budget", "message"),
    [
        ("stroke_vae", DataSpec((8, 8, 1), 2), _BUDGET, "`method` stroke_vae .*at least 16 pixels.*image_shape"),
        ("stroke_vae", DataSpec((32, 32, 3), 2), _BUDGET, "`method` stroke_vae .*one channel.*image_shape"),
        ("c_vea", DataSpec((8, 8, 1), 2), _BUDGET, "`method` should be one of"),
        (
            "class_gaussian",
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
        figures = check(_facts(labels), "slow", PrivacyBudget(3.0, 1e-2), num_synthetic=800, available=2**40)
        same = dataclasses.replace(figures, cost=cost, memory_needed=0, memory_there=0, seconds_of_synthesis=1.0)
        texts.append(same.text)
    assert texts[0] == texts[1]
    assert "balanced, about 100 of each declared class" in texts[0]
    assert "Which classes have examples is private" in texts[0]


def test_the_count_of_the_smallest_class_is_internal_and_decides_nothing(slow: type[_Slow]) -> None:
    facts = [_facts(labels) for labels in ([*range(8)], [0] * 8)]
    assert [part.smallest_class for part in facts] == [1, 0]
    figures = [check(part, "slow", PrivacyBudget(3.0, 1e-2), num_synthetic=9, available=2**40) for part in facts]
    lines = [[line for line in part.text.splitlines() if "Smallest class" in line] for part in figures]
    assert [len(part) for part in lines] == [1, 1]
    assert all("[internal" in line for (line,) in lines)
    stored = json.loads(json.dumps(figures[0].to_dict()))
    assert stored["smallest_class"] == 1
    assert stored["internal"] == ["smallest_class"]
    assert "smallest_class" not in stored["facts"]
    for name in ("signal", "advice", "bytes_on_disk"):
        assert getattr(figures[0], name) == getattr(figures[1], name)


def test_where_it_is_hopeless_the_text_says_what_would_not_be(
    slow: type[_Slow], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    facts = Facts(DataSpec((8, 8, 1), 10), 1077, 0, False, 99)
    text = check(facts, "class_gaussian", PrivacyBudget(0.1, 1e-5), num_synthetic=100).text
    assert "HOPELESS: below 0.4" in text
    assert "at most 1 MiB" in text
    for way in ("--epsilon=0.1", "classes of the same examples", "images of"):
        assert way in text
    good = check(facts, "class_gaussian", PrivacyBudget(3.0, 1e-5), num_synthetic=100)
    assert "HOPELESS" not in good.text
    assert good.advice is None
