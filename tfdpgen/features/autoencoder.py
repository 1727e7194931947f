"""The latent space of an autoencoder that was trained on public images.

    features = Autoencoder((28, 28, 1), latent_dim=32, hidden_units=(512, 256), seed=0)
    features.train(random_stroke_images(rng, 60_000, (28, 28)), steps=8000)
    features.transform(images)                        # float32 [n, 28, 28, 1] -> [n, 32]

A variational autoencoder (Kingma & Welling 2014) that knows no classes. It never sees a private image: where it was
trained on images that are like the private ones, few numbers say most of these, and its decoder makes nothing that is
unlike what it has seen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

keras = tf.keras

_BATCH = 256
_RADIUS = 1.19  # norm of an image's latents / sqrt(latent_dim), that it has at most; public images have about 1


class Autoencoder:
    """A variational autoencoder of images; see the top of this file.

    Args:
      image_shape: (h, w, c).
      latent_dim: d.
      hidden_units: of the encoder's dense layers and, in reverse, the decoder's.
      seed: of initial weights, of batches and of latents in its training.

    Attributes:
      encoder: images -> mean and log variance [n, d].
      decoder: [n, d] -> logits [n, h, w, c].
      size, radius: d, and the norm that an image's latents have at most.
    """

    def __init__(
        self, image_shape: tuple[int, int, int], latent_dim: int, hidden_units: Sequence[int], seed: int
    ) -> None:
        self.size, self.radius, self._seed = latent_dim, _RADIUS * math.sqrt(latent_dim), seed
        seeds = iter(np.random.SeedSequence(seed).generate_state(2 * len(hidden_units) + 3) >> 1)

        def dense(units: int, activation: str | None = None, name: str | None = None) -> keras.layers.Layer:
            initializer = keras.initializers.HeNormal if activation else keras.initializers.GlorotUniform
            return keras.layers.Dense(units, activation, kernel_initializer=initializer(int(next(seeds))), name=name)

        images = keras.Input(image_shape, name="images")
        hidden = keras.layers.Flatten()(images)
        for units in hidden_units:
            hidden = dense(units, "relu")(hidden)
        log_variance = keras.layers.Dense(latent_dim, kernel_initializer="zeros", name="log_variance")(hidden)
        self.encoder = keras.Model(images, [dense(latent_dim, name="mean")(hidden), log_variance], name="encoder")
        latents = keras.Input((latent_dim,), name="latents")
        hidden = latents
        for units in reversed(hidden_units):
            hidden = dense(units, "relu")(hidden)
        logits = keras.layers.Reshape(image_shape)(dense(math.prod(image_shape))(hidden))
        self.decoder = keras.Model(latents, logits, name="public_decoder")

    def transform(self, images: Any) -> Any:
        """float32 [n, h, w, c] in [0, 1] -> the means of their latents, [n, d]."""
        return self.encoder(images)[0]

    def inverse_transform(self, values: Any) -> Any:
        """[n, d] -> images float32 [n, h, w, c] in [0, 1]; of Keras tensors it makes Keras layers."""
        return keras.layers.Activation("sigmoid")(self.decoder(values))

    def train(
        self,
        images: npt.NDArray[np.uint8],
        *,
        steps: int,
        learning_rate: float = 1.5e-3,
        kl_weight: float = 0.5,
        verbose: int = 0,
    ) -> None:
        """Trains on public images, uint8 [n, h, w, c], by Adam; the learning rate falls to 0 (cosine).

        Args:
          images: public ones.
          steps: of 256 images.
          learning_rate: at its start.
          kl_weight: of the divergence from N(0, I) (beta; Higgins et al. 2017).
          verbose: 1 shows a progress bar.
        """
        public = tf.constant(images)
        optimizer: Any = keras.optimizers.legacy.Adam(keras.optimizers.schedules.CosineDecay(learning_rate, steps))
        variables = self.encoder.trainable_variables + self.decoder.trainable_variables
        rng = tf.random.Generator.from_seed(self._seed)

        @tf.function
        def step() -> None:
            chosen = rng.uniform([_BATCH], 0, len(images), tf.int32)
            batch = tf.cast(tf.gather(public, chosen), tf.float32) / 255.0
            with tf.GradientTape() as tape:
                mean, log_variance = self.encoder(batch)
                log_variance = tf.clip_by_value(log_variance, -10.0, 10.0)
                logits = self.decoder(mean + tf.exp(log_variance / 2) * rng.normal(tf.shape(mean)))
                entropies = tf.nn.sigmoid_cross_entropy_with_logits(labels=batch, logits=logits)
                divergences = (tf.exp(log_variance) + tf.square(mean) - 1.0 - log_variance) / 2
                loss = (tf.reduce_sum(entropies) + kl_weight * tf.reduce_sum(divergences)) / _BATCH
            optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))

        bar = keras.utils.Progbar(steps, verbose=verbose, interval=1.0, unit_name="step on public images")
        for _ in range(steps):
            step()
            bar.add(1)
