"""GeneratorTraining: the public half of a GAN, which learns from whatever its critics let it know.

    training = GeneratorTraining(generator, num_classes, num_fakes=128, learning_rate=1e-3, decay=0.99, seed=0)
    images, labels = training.fakes()
    training.step(lambda images, labels: tf.reduce_mean(losses(critic(images), labels, 1.0)))
    generator = training.finished()                    # with the moving average of the weights

Latents and labels are drawn from a public seed, labels uniformly: a GAN whose fakes followed the private labels would
tell them. What a step learns from is post-processing of noised outputs, so that nothing here knows of privacy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import tensorflow as tf

BETAS: dict[str, Any] = {"beta_1": 0.5, "beta_2": 0.9}  # of Adam, as usual for GANs
_NORMALISING_BATCHES = 100  # of fakes, whose statistics the released generator is normalised by


class GeneratorTraining:
    """A generator, its Adam and the moving average of its weights; see the top of this file.

    Args:
      generator: [latents float32 [n, latent_dim], labels int64 [n]] -> images float32 [n, h, w, c]; trained in place.
      num_classes: of labels.
      num_fakes: in a batch.
      learning_rate: of Adam.
      decay: of the moving average, in each step.
      seed: of latents and labels; public.
    """

    def __init__(
        self,
        generator: tf.keras.Model,
        num_classes: int,
        *,
        num_fakes: int,
        learning_rate: float,
        decay: float,
        seed: int,
    ) -> None:
        self.generator, self.num_classes, self.num_fakes = generator, num_classes, num_fakes
        self._rng = tf.random.Generator.from_seed(seed)
        self._optimizer: Any = tf.keras.optimizers.legacy.Adam(learning_rate, **BETAS)
        self._average = tf.train.ExponentialMovingAverage(
            decay, num_updates=self._optimizer.iterations
        )  # less at first
        self._variables = generator.trainable_variables
        self._optimizer._create_all_weights(self._variables)  # which Keras leaves to the first step
        self._average.apply(self._variables)

    @property
    def state(self) -> Mapping[str, Any]:
        """Everything that a step changes, as TensorFlow trackables, for a backup."""
        return {
            "generator": self.generator,
            "optimizer_of_generator": self._optimizer,
            "averages": [self._average.average(variable) for variable in self._variables],
            "rng": self._rng,
        }

    def restart_average(self) -> None:
        """Has the moving average start from the present weights, which something else has set."""
        for variable in self._variables:
            cast(Any, self._average.average(variable)).assign(variable)

    def draw(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Latents float32 [num_fakes, latent_dim] and uniform labels int64 [num_fakes]."""
        labels = self._rng.uniform([self.num_fakes], 0, self.num_classes, tf.int64)
        return self._rng.normal([self.num_fakes, self.generator.input_shape[0][1]]), labels

    def fakes(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Images float32 [num_fakes, h, w, c], of a generator in training, and their labels."""
        latents, labels = self.draw()
        return self.generator([latents, labels], training=True), labels

    def step(
        self,
        loss_fn: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
        drawn: tuple[tf.Tensor, tf.Tensor] | None = None,
    ) -> None:
        """One step on the loss of a batch: images, labels -> float32 [].

        Args:
          loss_fn: of images and labels.
          drawn: latents and labels; by default new ones.
        """
        latents, labels = self.draw() if drawn is None else drawn
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(self._variables)
            loss = loss_fn(self.generator([latents, labels], training=True), labels)
        self._optimizer.apply_gradients(zip(tape.gradient(loss, self._variables), self._variables, strict=True))
        self._average.apply(self._variables)

    def finished(self) -> tf.keras.Model:
        """The generator with its average weights; the statistics that it normalises by are theirs."""
        for variable in self._variables:
            variable.assign(self._average.average(variable))
        for _ in range(_NORMALISING_BATCHES):
            self.fakes()
        return self.generator
