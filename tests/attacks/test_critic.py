"""Attacks on a critic: scores by hand, and members that the critic's own score does not give away."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from tests.attacks.controls import Noise, noise_examples
from tfdpgen.attacks import Knowledge, get, run_attacks
from tfdpgen.attacks.critic_neighbours import neighbours
from tfdpgen.data import LabeledDataset

keras = tf.keras

EXAMPLES = noise_examples(30, seed=0, side=6)


def score(name: str, critic: Any, examples: LabeledDataset = EXAMPLES) -> npt.NDArray[np.float64]:
    known = Knowledge(Noise(examples.spec), examples, examples, {"critic": critic})
    return get(name).score(known, examples, np.random.default_rng(0))


class Dense(keras.layers.Dense):
    """Computes what its parent does, but has no clipping rule."""


def built(outputs: int, bias: float = 0.0, dense: type = keras.layers.Dense) -> keras.Model:
    """A critic with a hidden layer."""
    images = keras.Input(EXAMPLES.spec.image_shape)
    init = [keras.initializers.GlorotUniform(seed) for seed in range(2)]
    hidden = dense(8, "tanh", kernel_initializer=init[0])(keras.layers.Flatten()(images))
    last = dense(outputs, kernel_initializer=init[1], bias_initializer=keras.initializers.Constant(bias))
    return keras.Model(images, last(hidden))


def by_hand(critic: keras.Model, knows_labels: bool) -> list[float]:
    """-log of the norm of each example's gradient, one example after another."""
    scores = []
    for image, label in zip(EXAMPLES.images, EXAMPLES.labels, strict=True):
        with tf.GradientTape() as tape:
            outputs = critic(image[None].astype(np.float32) / 255)[0]
            loss = tf.reduce_mean(tf.nn.softplus(-(outputs[label : label + 1] if knows_labels else outputs)))
        gradients = tape.gradient(loss, critic.trainable_variables)
        scores.append(-np.log(float(tf.linalg.global_norm([tf.convert_to_tensor(part) for part in gradients]))))
    return scores


@pytest.mark.parametrize(("outputs", "knows_labels"), [(2, True), (1, False), (3, False)])
def test_the_gradient_s_norm_by_hand(outputs: int, knows_labels: bool) -> None:
    critic = built(outputs)
    expected = by_hand(critic, knows_labels)
    np.testing.assert_allclose(score("critic_gradient", critic), expected, rtol=1e-4)
    np.testing.assert_allclose(score("critic_gradient", built(outputs, dense=Dense)), expected, rtol=1e-4)


def test_a_gradient_that_vanishes_in_32_bits_still_counts() -> None:
    # -log |d softplus(-s)| = softplus(s) - log |ds|, and the gradient of s does not depend on the last bias.
    small, large = built(1), built(1, bias=300.0)
    scores = small(EXAMPLES.images.astype(np.float32) / 255).numpy()[:, 0].astype(float)
    expected = score("critic_gradient", small) - np.logaddexp(0, scores) + scores + 300
    np.testing.assert_allclose(score("critic_gradient", large), expected, rtol=1e-4)


def test_examples_that_a_critic_has_learnt_give_it_little_to_learn() -> None:
    # One hidden unit fires for each remembered example and for no other.
    members, others = noise_examples(40, 1, side=8), noise_examples(200, 2, side=8)
    centred = members.images.reshape(40, -1) / 255 - 0.5
    images = keras.Input(members.spec.image_shape)
    hidden = keras.layers.Dense(40, "relu")(keras.layers.Flatten()(keras.layers.Rescaling(1.0, -0.5)(images)))
    last = keras.layers.Dense(3)
    critic = keras.Model(images, last(hidden))
    critic.layers[-2].set_weights([4 * centred.T, np.full(40, -12.0)])
    last.set_weights([np.ones((40, 3)), np.zeros(3)])
    arguments = {"networks": {"critic": critic}, "repetitions": 1, "seed": 0, "names": ["critic_gradient"]}
    assert run_attacks(Noise(members.spec), members, others, **arguments)["critic_gradient"].auc > 0.95
    strangers = run_attacks(Noise(members.spec), noise_examples(40, 3, side=8), others, **arguments)["critic_gradient"]
    assert strangers.auc_interval[0] < 0.5 < strangers.auc_interval[1]


def test_neighbours_are_moved_by_half_a_pixel() -> None:
    image = np.zeros((1, 3, 4, 1), np.float32)
    image[0, 1, 3] = 1.0
    moved = [copies[0, :, :, 0] for copies in neighbours(image)]
    assert [[tuple(place) for place in np.argwhere(copy)] for copy in moved] == [
        [(1, 3), (2, 3)], [(0, 3), (1, 3)], [(1, 3)], [(1, 2), (1, 3)],
    ]  # fmt: skip
    assert [copy[1, 3] for copy in moved] == [0.5, 0.5, 0.5, 1.0]


class Remembers:
    """A critic that prefers bright images by far, and peaks a little at the examples that it remembers."""

    def __init__(self, examples: LabeledDataset, parts: int) -> None:
        self.examples, self.parts = examples.images.reshape(len(examples), -1) / 255, parts

    def __call__(self, images: npt.NDArray[np.float32], training: bool) -> tf.Tensor:
        assert not training
        flat = images.reshape(len(images), 1, -1)
        peaks = np.exp(-10 * np.sum((flat - self.examples) ** 2, axis=2)).sum(axis=1)
        scores = 100 * flat.mean(axis=(1, 2)) + peaks
        return tf.constant(np.repeat(scores[:, None], self.parts, axis=1), tf.float32)


@pytest.mark.parametrize("parts", [2, 3])  # of two labels, or of three parts
def test_neighbours_give_away_what_a_score_does_not(parts: int) -> None:
    def examples(num_examples: int, seed: int) -> LabeledDataset:
        """Noise of any brightness, without an edge, so that a moved image is as bright."""
        noise = noise_examples(num_examples, seed, side=8)
        images = noise.images * np.random.default_rng(seed).uniform(0.3, 1, (num_examples, 1, 1, 1))
        images[:, [0, -1]] = images[:, :, [0, -1]] = 0
        return LabeledDataset(images.astype(np.uint8), noise.labels, noise.spec)

    members, others = examples(100, 0), examples(300, 1)
    networks = {"critic": Remembers(members, parts)}
    arguments = {"networks": networks, "repetitions": 1, "seed": 0, "names": ["logan", "critic_neighbours"]}
    results = run_attacks(Noise(members.spec), members, others, **arguments)
    assert results["critic_neighbours"].auc > 0.95
    assert results["logan"].auc_interval[0] < 0.5
    strangers = run_attacks(Noise(members.spec), examples(100, 2), others, **arguments)["critic_neighbours"]
    assert strangers.auc_interval[0] < 0.5 < strangers.auc_interval[1]
