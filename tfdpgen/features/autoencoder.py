"""The latent space of a convolutional autoencoder that was trained on public images.

    features = Autoencoder((28, 28, 1), latent_dim=32, filters=16, seed=0)
    features.train(public_images, steps=4000)         # uint8 [n, 28, 28, 1]
    features.transform(images)                        # float32 [n, 28, 28, 1] -> [n, 32]

A variational autoencoder (Kingma & Welling 2014) that knows no classes. Its likelihood is a Gaussian whose variance is
that of its errors, so that nothing has to weigh detail against latents (Rybkin, Daniilidis & Levine 2021, "Simple and
effective VAE training with calibrated decoders"). A small critic, which sees patches of images and is dropped after the
training, keeps what is decoded as sharp as the public images are, of images that are encoded and of latents that are
sampled (Larsen et al. 2016, "VAE/GAN"; Isola et al. 2017, "PatchGAN").

It never sees a private image: where it was trained on images that are like the private ones, few numbers say most of
these, and its decoder makes nothing that is unlike what it has seen.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

keras = tf.keras

_BATCH = 128
_RADIUS = 1.19  # norm of an image's latents / sqrt(latent_dim), that it has at most; public images have about 1
_LARGEST_SIDE, _SMALLEST_SIDE = 32, 8  # of feature maps, about: larger images are cut into patches first
_UNITS = 256  # of the dense layers between feature maps and latents
_CRITIC_WEIGHT = 20.0  # of the critic's loss, for one of the likelihood of all values of an image
_LEAST_VARIANCE = 1e-6  # of errors
_RATE, _CRITIC_RATE = 1e-3, 2e-4


class Autoencoder:
    """A variational autoencoder of images; see the top of this file.

    Args:
      image_shape: (h, w, c).
      latent_dim: d.
      filters: of the feature maps at the highest resolution; twice as many at each half of it.
      seed: of initial weights, of batches and of latents in its training.

    Attributes:
      encoder: images -> mean and log variance [n, d].
      decoder: [n, d] -> logits [n, h, w, c].
      size, radius: d, and the norm that an image's latents have at most.
    """

    def __init__(self, image_shape: tuple[int, int, int], latent_dim: int, filters: int, seed: int) -> None:
        self.size, self.radius, self._seed = latent_dim, _RADIUS * math.sqrt(latent_dim), seed
        self._image_shape, self._filters = image_shape, filters
        self._seeds = itertools.count(seed * 1_000_003 % 2**31)
        height, width, channels = image_shape
        patch = 2 ** max(0, round(math.log2(max(height, width) / _LARGEST_SIDE)))
        sides = [(-(-height // patch), -(-width // patch))]  # of the feature maps, from the highest resolution down
        while len(sides) < 2 or max(sides[-1]) > _SMALLEST_SIDE:
            sides.append((-(-sides[-1][0] // 2), -(-sides[-1][1] // 2)))
        sizes = [filters * 2**level for level in range(len(sides))]

        images = keras.Input(image_shape, name="images")
        hidden = images if patch == 1 else self._convolution(filters, patch, patch)(images)
        for size in sizes[:-1]:
            hidden = self._convolution(size, 4, 2)(hidden)
        hidden = self._dense(_UNITS)(keras.layers.Flatten()(hidden))
        log_variance = keras.layers.Dense(latent_dim, kernel_initializer="zeros", name="log_variance")(hidden)
        self.encoder = keras.Model(images, [self._dense(latent_dim, None)(hidden), log_variance], name="encoder")

        latents = keras.Input((latent_dim,), name="latents")
        hidden = self._dense(math.prod(sides[-1]) * sizes[-1])(self._dense(_UNITS)(latents))
        hidden = keras.layers.Reshape((*sides[-1], sizes[-1]))(hidden)
        for side, size in zip(reversed(sides[:-1]), reversed(sizes[:-1]), strict=True):
            hidden = _cropped(keras.layers.UpSampling2D(2)(hidden), side)
            hidden = self._convolution(size, 3)(hidden)
        if patch > 1:
            hidden = _cropped(keras.layers.UpSampling2D(patch, interpolation="bilinear")(hidden), (height, width))
        logits = self._convolution(channels, 3, activation=None)(hidden)
        self.decoder = keras.Model(latents, logits, name="public_decoder")

    def transform(self, images: Any) -> Any:
        """float32 [n, h, w, c] in [0, 1] -> the means of their latents, [n, d]."""
        return self.encoder(images)[0]

    def inverse_transform(self, values: Any) -> Any:
        """[n, d] -> images float32 [n, h, w, c] in [0, 1]; of Keras tensors it makes Keras layers."""
        return keras.layers.Activation("sigmoid")(self.decoder(values))

    def train(self, images: npt.NDArray[np.uint8], *, steps: int, verbose: int = 0) -> None:
        """Trains on public images, uint8 [n, h, w, c], by Adam; the learning rate falls to 0 (cosine).

        Args:
          images: public ones.
          steps: of 128 images.
          verbose: 1 shows a progress bar.
        """
        public, critic = tf.constant(images), self._critic()
        schedule = keras.optimizers.schedules.CosineDecay(_RATE, steps)
        optimizer: Any = keras.optimizers.legacy.Adam(schedule)
        optimizer_of_critic: Any = keras.optimizers.legacy.Adam(_CRITIC_RATE, beta_1=0.5)
        variables = self.encoder.trainable_variables + self.decoder.trainable_variables
        rng = tf.random.Generator.from_seed(self._seed)

        @tf.function
        def step() -> None:
            chosen = rng.uniform([_BATCH], 0, len(images), tf.int32)
            batch = tf.cast(tf.gather(public, chosen), tf.float32) / 255.0
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(variables)
                mean, log_variance = self.encoder(batch)
                log_variance = tf.clip_by_value(log_variance, -10.0, 10.0)
                logits = self.decoder(mean + tf.exp(log_variance / 2) * rng.normal(tf.shape(mean)))
                sampled = self.decoder(rng.normal(tf.shape(mean)))
                made = tf.sigmoid(tf.concat([logits, sampled], axis=0))
                variance = tf.reduce_mean(tf.square(made[:_BATCH] - batch)) + _LEAST_VARIANCE
                loss = math.prod(self._image_shape) / 2 * tf.math.log(variance)
                divergences = (tf.exp(log_variance) + tf.square(mean) - 1.0 - log_variance) / 2
                loss += tf.reduce_sum(divergences) / _BATCH
                loss += _CRITIC_WEIGHT * tf.reduce_mean(tf.nn.softplus(-critic(made)))
            optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
            with tf.GradientTape() as tape:
                scores = critic(tf.concat([batch, tf.stop_gradient(made)], axis=0))
                loss = tf.reduce_mean(tf.nn.softplus(-scores[:_BATCH])) + tf.reduce_mean(
                    tf.nn.softplus(scores[_BATCH:])
                )
            gradients = tape.gradient(loss, critic.trainable_variables)
            optimizer_of_critic.apply_gradients(zip(gradients, critic.trainable_variables, strict=True))

        bar = keras.utils.Progbar(steps, verbose=verbose, interval=1.0, unit_name="step on public images")
        for _ in range(steps):
            step()
            bar.add(1)

    def _critic(self) -> keras.Model:
        """Images [n, h, w, c] -> scores [n, h / 4, w / 4, 1], each of a patch of 26 pixels a side."""
        images = keras.Input(self._image_shape)
        hidden = images
        for size, kernel, stride in ((self._filters, 4, 2), (2 * self._filters, 4, 2), (2 * self._filters, 3, 1)):
            hidden = keras.layers.LeakyReLU(0.2)(self._convolution(size, kernel, stride, activation=None)(hidden))
        return keras.Model(images, self._convolution(1, 3, activation=None)(hidden), name="critic")

    def _convolution(self, size: int, kernel: int, stride: int = 1, activation: str | None = "relu") -> Any:
        initializer = keras.initializers.HeNormal(next(self._seeds))
        return keras.layers.Conv2D(size, kernel, stride, "same", activation=activation, kernel_initializer=initializer)

    def _dense(self, units: int, activation: str | None = "relu") -> Any:
        initializer = keras.initializers.HeNormal if activation else keras.initializers.GlorotUniform
        return keras.layers.Dense(units, activation, kernel_initializer=initializer(next(self._seeds)))


def _cropped(hidden: Any, side: tuple[int, int]) -> Any:
    """Feature maps without the last rows and columns, where they are more than these."""
    below, right = hidden.shape[1] - side[0], hidden.shape[2] - side[1]
    return keras.layers.Cropping2D(((0, below), (0, right)))(hidden) if below or right else hidden
