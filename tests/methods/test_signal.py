"""The ratio is what the real mechanism leaves, and the advice is what would do."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest
import tensorflow as tf

from tfdpgen.data import DataSpec, LabeledDataset
from tfdpgen.methods.signal import HOPELESS, advise, class_signal, num_features, signal_of
from tfdpgen.privacy import NoiseSource, PrivacyBudget, PrivacyPlan, PrivateSession
from tfdpgen.privacy.mechanisms.gaussian_statistics import ClassMeans

_DIGITS, _MNIST, _COLOUR = (DataSpec(shape, 10) for shape in ((8, 8, 1), (28, 28, 1), (32, 32, 3)))


def _budget(epsilon: float) -> PrivacyBudget:
    return PrivacyBudget(epsilon, 1e-5)


@pytest.mark.parametrize(("in_class", "side", "noise_multiplier"), [(300, 20, 0.7), (40, 14, 5.0), (1000, 7, 2.0)])
def test_the_ratio_is_what_the_mechanism_leaves(in_class: int, side: int, noise_multiplier: float) -> None:
    """Measured: examples as long as the clip, all in one direction, and the norm of what is added to their sum."""
    classes, num_features = 8, side**2
    images = np.full((in_class * classes, side, side, 1), 255, np.uint8)
    examples = LabeledDataset(images, np.arange(len(images)) % classes, DataSpec((side, side, 1), classes))
    means = ClassMeans(classes, num_features, radius=2.0)
    plan = PrivacyPlan({"class_means": means.with_noise(noise_multiplier)}, len(images), accountant="rdp")
    session = PrivateSession(examples, plan, PrivacyBudget(1e6, 1e-6), noise=NoiseSource.insecure(0))
    released = session.run("class_means", lambda images, labels: tf.reshape(images, [-1, num_features]))
    sums = released.means / 2.0 * np.maximum(released.counts, 1.0)[:, None]
    noise = math.sqrt(np.mean(np.sum(np.square(sums - in_class / side), axis=1)))
    ratio = class_signal(len(images), classes, num_features, noise_multiplier)
    assert ratio == pytest.approx(in_class / noise, rel=0.15)  # standard error: at most 4 %


def test_few_frequencies_count_of_each_channel() -> None:
    assert [num_features(spec) for spec in (_DIGITS, _MNIST, _COLOUR)] == [49, 49, 3 * 49]
    assert num_features(DataSpec((4, 6, 3), 2)) == 4 * 6 * 3


def test_it_grows_with_epsilon_and_examples_and_falls_with_classes() -> None:
    epsilons = [signal_of(_DIGITS, 1000, _budget(epsilon)) for epsilon in (0.03, 0.1, 0.3, 1, 3, 10)]
    assert all(one < other for one, other in itertools.pairwise(epsilons))
    assert signal_of(_DIGITS, 2000, _budget(1)) == pytest.approx(2 * signal_of(_DIGITS, 1000, _budget(1)))
    fewer = dataclasses.replace(_DIGITS, num_classes=5)
    assert signal_of(fewer, 1000, _budget(1)) == pytest.approx(2 * signal_of(_DIGITS, 1000, _budget(1)))


@pytest.mark.parametrize(("spec", "num_examples"), [(_DIGITS, 1077), (_MNIST, 1000), (_COLOUR, 3000)])
def test_advice_is_just_enough(spec: DataSpec, num_examples: int) -> None:
    budget = _budget(0.08)
    assert signal_of(spec, num_examples, budget) < HOPELESS
    advice = advise(spec, num_examples, budget)

    assert advice.epsilon is not None
    assert signal_of(spec, num_examples, _budget(advice.epsilon)) == pytest.approx(HOPELESS, rel=1e-2)

    assert advice.num_classes is not None
    of_classes = [
        signal_of(dataclasses.replace(spec, num_classes=advice.num_classes + more), num_examples, budget)
        for more in (0, 1)
    ]
    assert of_classes[0] >= HOPELESS * 0.999 > of_classes[1]

    if advice.image_shape is not None:
        smaller = dataclasses.replace(spec, image_shape=advice.image_shape)
        assert signal_of(smaller, num_examples, budget) >= HOPELESS * 0.999
        assert math.prod(advice.image_shape) < math.prod(spec.image_shape)


def test_advice_names_no_class_count_or_shape_that_would_not_do() -> None:
    advice = advise(DataSpec((28, 28, 1), 3), 50, _budget(0.01))
    assert advice.num_classes is None
    assert advice.image_shape is None
    assert advice.epsilon is not None


def test_colour_can_be_given_up_for_it() -> None:
    budget = _budget(0.1)
    ratio = signal_of(_COLOUR, 1000, budget)
    num_examples = round(1000 * 1.05 * HOPELESS / (ratio * math.sqrt(3)))  # enough in grey, too few in colour
    advice = advise(_COLOUR, num_examples, budget)
    assert advice.image_shape is not None
    assert num_features(dataclasses.replace(_COLOUR, image_shape=advice.image_shape)) <= 90
