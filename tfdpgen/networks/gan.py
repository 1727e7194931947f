"""Refiner and critic of a GAN on images: convolutions in the manner of DCGAN (Radford et al. 2016).

    refiner = build_refiner((28, 28, 1), filters=16, seed=0)
    critic = build_critic((28, 28, 1), filters=32, seed=0)
    images = refiner(sketches)                             # rough images in, better ones out
    scores = critic(images)                                # [n, patches]: how real each part of an image is

Neither knows classes: a refiner that knew them would learn to mark its images with what pleases the critic of their
class, and a classifier would learn the marks. The critic judges patches (Isola et al. 2017, section 3.2.2), which takes
few weights. It holds no normalisation: what mixes the examples of a batch cannot be clipped example by example.
"""

from __future__ import annotations

import tensorflow as tf

from tfdpgen.networks.layers import Seeded

keras = tf.keras

_CONTRAST = 8.0  # logits of a sketch's white less those of its black


def build_refiner(image_shape: tuple[int, int, int], filters: int, seed: int) -> keras.Model:
    """Sketches float32 [n, h, w, c] in [0, 1] -> images float32 [n, h, w, c] in [0, 1].

    A small U-Net (Ronneberger et al. 2015), which enlarges by repeating pixels before it convolves them, so that no
    grid shows (Odena et al. 2016). It adds to the sketch, between logits, and adds nothing before it is trained, when
    images are sketches with more contrast.
    """
    seeded = Seeded(seed)
    height, width, channels = image_shape
    halvings = _halvings(height, width)
    kernel = _kernel(height)

    def convolved(hidden: tf.Tensor, size: int, kernel: int, strides: int = 1) -> tf.Tensor:
        layer = keras.layers.Conv2D(size, kernel, strides, padding="same", kernel_initializer=seeded.he())
        return keras.layers.LeakyReLU(0.2)(layer(hidden))

    sketches = keras.Input(image_shape, name="sketches")
    hidden = convolved(sketches, filters, kernel)
    levels = [hidden]
    for halving in range(halvings):
        hidden = convolved(hidden, filters * 2 ** (halving + 1), 4, strides=2)
        levels.append(hidden)
    hidden = convolved(hidden, filters * 2**halvings, 3)
    for halving in reversed(range(halvings)):
        hidden = keras.layers.UpSampling2D()(convolved(hidden, filters * 2**halving, 3))
        hidden = convolved(keras.layers.Concatenate()([hidden, levels[halving]]), filters * 2**halving, 3)
    hidden = keras.layers.Concatenate()([hidden, sketches])
    change = keras.layers.Conv2D(channels, kernel, padding="same", kernel_initializer="zeros")(hidden)
    logits = keras.layers.Add()([keras.layers.Rescaling(_CONTRAST, offset=-_CONTRAST / 2)(sketches), change])
    images = keras.layers.Activation("sigmoid", dtype="float32", name="images")(logits)
    return keras.Model(sketches, images, name="refiner")


def build_critic(image_shape: tuple[int, int, int], filters: int, seed: int) -> keras.Model:
    """Images float32 [n, h, w, c] in [0, 1] -> scores float32 [n, patches], each example on its own."""
    seeded = Seeded(seed)
    images = keras.Input(image_shape, name="images")
    hidden = keras.layers.Rescaling(2.0, offset=-1.0, name="centre")(images)
    for width in (filters, 2 * filters):
        layer = keras.layers.Conv2D(width, _kernel(image_shape[0]), 2, padding="same", kernel_initializer=seeded.he())
        hidden = keras.layers.LeakyReLU(0.2)(layer(hidden))
    scores = keras.layers.Conv2D(1, 3, padding="same", kernel_initializer=seeded.glorot(), name="scores")(hidden)
    return keras.Model(images, keras.layers.Flatten()(scores), name="critic")


def _kernel(height: int) -> int:
    """Side of the kernels."""
    return 5 if height > 16 else 3


def _halvings(height: int, width: int) -> int:
    """How often both sides halve, at most twice."""
    return 2 if height % 4 == 0 and width % 4 == 0 else 1 if height % 2 == 0 and width % 2 == 0 else 0
