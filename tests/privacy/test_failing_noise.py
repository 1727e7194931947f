"""Where noise cannot be had, nothing comes out: no code path ends with less noise than the plan's."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tfdpgen.data import DataSpec, LabeledDataset
from tfdpgen.privacy import (
    ClassMeans,
    DPKerasSGD,
    GroupStatistics,
    NoiseSource,
    NoisyCounts,
    PrivacyBudget,
    PrivacyPlan,
    PrivateSession,
)
from tfdpgen.privacy.noise import GaussianNoise


class _NoNoiseError(Exception):
    """What a broken source of noise raises."""


def _fail(*_: Any, **__: Any) -> Any:
    raise _NoNoiseError


class _Broken(NoiseSource):
    """A source whose generators exist and cannot draw."""

    def numpy_generator(self) -> Any:
        return type("Generator", (), {"normal": _fail, "standard_normal": _fail})()


def _raises_no_noise(run: Any) -> bool:
    """Whether the failure came through, and nothing was made of it on the way."""
    try:
        run()
    except _NoNoiseError:
        return True
    return False


def test_a_step_without_noise_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    variable = tf.Variable([1.0, 2.0])
    optimizer = DPKerasSGD(1.0, 1.0, expected_batch_size=1, learning_rate=1.0)
    monkeypatch.setattr(GaussianNoise, "draw", _fail)
    assert _raises_no_noise(lambda: optimizer.apply_clipped_sum([tf.constant([0.3, 0.4])], [variable]))
    np.testing.assert_array_equal(variable, [1.0, 2.0])


def test_a_count_without_noise_is_not_released() -> None:
    counts = NoisyCounts().with_noise(1.0)
    assert _raises_no_noise(lambda: counts.release(np.ones((1, 3), bool), _Broken()))


@pytest.mark.parametrize("mechanism", [ClassMeans(3, 4, 1.0), GroupStatistics(3, 3), NoisyCounts(4)])
def test_a_statistic_without_noise_is_not_released(mechanism: Any) -> None:
    examples = LabeledDataset(np.zeros((3, 2, 2, 1), np.uint8), np.arange(3), DataSpec((2, 2, 1), 3))
    plan = PrivacyPlan({"sums": mechanism.with_noise(1.0)}, 3, accountant="rdp")
    session = PrivateSession(examples, plan, PrivacyBudget(100.0, 1e-2), noise=_Broken())
    assert _raises_no_noise(lambda: session.run("sums", lambda images, labels: tf.reshape(images, [-1, 4])))


def test_without_the_operating_systems_entropy_there_is_no_generator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "urandom", _fail)
    for generator in (lambda: NoiseSource().gaussian(), lambda: NoiseSource().numpy_generator()):
        assert _raises_no_noise(generator)
