"""Generator and critic of a conditional GAN (Mirza & Osindero 2014) in the manner of DCGAN (Radford et al. 2016).

    generator = build_generator((28, 28, 1), num_classes=10, latent_dim=64, filters=64, seed=0)
    critic = build_critic((28, 28, 1), num_classes=10, filters=32, seed=0)
    images = generator([latents, labels], training=True)
    scores = critic(images)                                # [n, num_classes]: how real, as an image of each class

The critic has one output a class and the label picks one of them, which makes it conditional without an input of its
own. It holds no normalisation: what mixes the examples of a batch cannot be clipped example by example. The generator
never sees a private row and may use batch normalisation.
"""

from __future__ import annotations

import tensorflow as tf

from tfdpgen.networks.layers import Seeded, one_hot

keras = tf.keras


def build_generator(
    image_shape: tuple[int, int, int], num_classes: int, latent_dim: int, filters: int, seed: int
) -> keras.Model:
    """[latents float32 [n, latent_dim], labels int64 [n]] -> images float32 [n, h, w, c] in [0, 1].

    Doubles a small map once or twice, as often as both sides halve, up to the image's size.
    """
    seeded = Seeded(seed)
    height, width, channels = image_shape
    doublings = _halvings(height, width)
    top = filters * 2**doublings // 2
    latents = keras.Input((latent_dim,), name="latents")
    labels = keras.Input((), dtype=tf.int64, name="labels")
    hidden = keras.layers.Concatenate()([latents, one_hot(labels, num_classes)])
    small = (height // 2**doublings, width // 2**doublings, top)
    hidden = keras.layers.Dense(small[0] * small[1] * top, use_bias=False, kernel_initializer=seeded.glorot())(hidden)
    hidden = keras.layers.ReLU()(keras.layers.BatchNormalization(momentum=0.9)(hidden))
    hidden = keras.layers.Reshape(small)(hidden)
    for doubling in reversed(range(doublings)):
        hidden = keras.layers.Conv2DTranspose(
            max(filters * 2**doubling // 2, 8),
            5 if height > 16 else 3,
            strides=2,
            padding="same",
            use_bias=False,
            kernel_initializer=seeded.glorot(),
        )(hidden)
        hidden = keras.layers.ReLU()(keras.layers.BatchNormalization(momentum=0.9)(hidden))
    kernel = 5 if height > 16 else 3
    hidden = keras.layers.Conv2D(channels, kernel, padding="same", kernel_initializer=seeded.glorot())(hidden)
    images = keras.layers.Activation("sigmoid", dtype="float32", name="images")(hidden)
    return keras.Model([latents, labels], images, name="generator")


def build_critic(image_shape: tuple[int, int, int], num_classes: int, filters: int, seed: int) -> keras.Model:
    """Images float32 [n, h, w, c] in [0, 1] -> scores float32 [n, num_classes], each example on its own."""
    seeded = Seeded(seed)
    kernel = 5 if image_shape[0] > 16 else 3
    images = keras.Input(image_shape, name="images")
    hidden = keras.layers.Rescaling(2.0, offset=-1.0, name="centre")(images)
    for width in (filters, 2 * filters):
        hidden = keras.layers.Conv2D(width, kernel, strides=2, padding="same", kernel_initializer=seeded.he())(hidden)
        hidden = keras.layers.LeakyReLU(0.2)(hidden)
    scores = keras.layers.Dense(num_classes, kernel_initializer=seeded.glorot(), name="scores")(
        keras.layers.Flatten()(hidden)
    )
    return keras.Model(images, scores, name="critic")


def _halvings(height: int, width: int) -> int:
    """How often both sides halve, at most twice."""
    return 2 if height % 4 == 0 and width % 4 == 0 else 1 if height % 2 == 0 and width % 2 == 0 else 0
