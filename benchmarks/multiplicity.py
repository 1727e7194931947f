"""What K views of each example cost beside one: augmentations in front of a critic, latent draws in a C-VAE.

    python benchmarks/multiplicity.py
    python benchmarks/multiplicity.py --views=8 --repeats=50

Views are averaged before the clip and cost no privacy. The steps are those of `dp_step.py`, whose losses become float
[256, K]: the critic sees K shifted copies of every image; the encoder sees every image once, the decoder K latents.
Each ratio stands on a line of its own. The images are uniform noise, so nothing here is about learning.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf

sys.path.insert(0, str(Path(__file__).parent))
import dp_step

from tfdpgen.privacy import DPKerasAdam

keras = tf.keras


def step_of(networks: Sequence[keras.Model], losses_fn: Callable[[], tf.Tensor]) -> Callable[[], object]:
    """A step of DPKerasAdam on losses float [256] or [256, K]."""
    optimizer = DPKerasAdam(1.0, 1.0, expected_batch_size=dp_step.BATCH, learning_rate=1e-4)
    variables = dp_step.variables_of(networks)

    @tf.function
    def step() -> None:
        with optimizer.gradient_tape(*networks) as tape:
            losses = losses_fn()
        optimizer.minimize(losses, variables, tape=tape)

    return step


def augmented(views: int) -> Callable[[], object]:
    """The conv critic on `views` randomly rolled copies of each image."""
    (network,), _ = dp_step.critic((28, 28, 1), (64, 128))
    images = tf.random.uniform([dp_step.BATCH, 28, 28, 1])

    def losses_fn() -> tf.Tensor:
        copies = [tf.roll(images, tf.random.uniform([2], -2, 3, tf.int32), axis=[1, 2]) for _ in range(views)]
        examples = tf.reshape(tf.stack(copies, axis=1), [-1, 28, 28, 1])
        return tf.reshape(tf.nn.softplus(-network(examples)), [-1, views])

    return step_of([network], losses_fn)


def redrawn(views: int) -> Callable[[], object]:
    """The MLP C-VAE with `views` latent draws for each image."""
    (encoder, decoder), _ = dp_step.mlp_vae()
    images, labels = tf.random.uniform([dp_step.BATCH, 784]), tf.one_hot(tf.range(dp_step.BATCH) % 10, 10)

    def losses_fn() -> tf.Tensor:
        mean, log_variance = tf.split(encoder([images, labels]), 2, axis=1)
        means, deviations = (tf.repeat(value, views, axis=0) for value in (mean, tf.exp(log_variance / 2)))
        latents = means + deviations * tf.random.normal(tf.shape(means))
        logits = decoder([latents, tf.repeat(labels, views, axis=0)])
        entropies = tf.nn.sigmoid_cross_entropy_with_logits(labels=tf.repeat(images, views, axis=0), logits=logits)
        divergences = (tf.exp(log_variance) + tf.square(mean) - 1.0 - log_variance) / 2
        by_view = tf.reshape(tf.reduce_sum(entropies, axis=1), [-1, views])
        return by_view + tf.reduce_sum(divergences, axis=1, keepdims=True)

    return step_of([encoder, decoder], losses_fn)


def main() -> None:
    """Prints the times of one view and of K, and their ratios."""
    parser = argparse.ArgumentParser(description="Times private steps on several views of each example.")
    parser.add_argument("--views", type=int, default=4, help="K (default: 4)")
    parser.add_argument("--repeats", type=int, default=20, help="paired runs of each step (default: 20)")
    flags = parser.parse_args()
    for title, make in (("augmentations, conv critic", augmented), ("latent draws, MLP C-VAE", redrawn)):
        one, several = dp_step.medians([make(1), make(flags.views)], flags.repeats)
        print(f"{title}: one view {1e3 * one:.1f} ms, {flags.views} views {1e3 * several:.1f} ms")
        print(f"{title}, {flags.views} views / 1: {several / one:.2f}", flush=True)


if __name__ == "__main__":
    main()
