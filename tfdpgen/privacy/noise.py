"""Where privacy's randomness comes from: the operating system.

Both the Poisson draws and the Gaussian noise hide an example only as long as nobody can predict them. A `NoiseSource`
is therefore keyed by `os.urandom`; no global seed (`tf.random.set_seed`, `np.random.seed`) reaches it, and it has no
seed that could end up in a configuration. TensorFlow's own `Generator.from_non_deterministic_state` is not used: it
expands 32 bits of entropy, few enough to be searched.

    noise = NoiseSource()                          # keyed by the operating system
    noise.gaussian().draw([[784, 400], [400]], stddev=0.5)
    noise.examples().normal([256, 8])              # latents of 256 examples: part of the secret, like the noise
    NoiseSource.insecure(seed=7)                   # tests, and runs that are marked as not for release

Every step of DP-SGD draws one Gaussian for each weight, which in a small network takes longer than its matrix products
if drawn by TensorFlow's generators. `GaussianNoise` is Threefry-2x32 (Salmon et al. 2011, "Parallel random numbers: as
easy as 1, 2, 3") and the Box-Muller transform (1958), written in operations that XLA compiles to one vectorised loop.

The generators (Threefry, PCG64) are statistical, not cryptographic, and draw in floating point. The privacy statement
names both as assumptions.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfdpgen.privacy.accounting import OPERATING_SYSTEM

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))  # Salmon et al. 2011, table 2, for two words of 32 bits
_PARITY = 0x1BD11BDA


class NoiseSource:
    """Hands out independent random generators, each with a key of its own.

    Attributes:
      is_secure: whether the keys come from the operating system's entropy.
    """

    def __init__(self) -> None:
        self.is_secure = True
        self._draw_key: Callable[[int], bytes] = os.urandom

    @classmethod
    def insecure(cls, seed: int) -> NoiseSource:
        """A predictable source for tests and for runs that are not for release: it protects nobody."""
        source = cls()
        source.is_secure = False
        source._draw_key = np.random.default_rng(seed).bytes
        return source

    @property
    def description(self) -> str:
        """How a privacy statement calls this source."""
        return OPERATING_SYSTEM if self.is_secure else "seeded"

    def gaussian(self) -> GaussianNoise:
        """A Gaussian generator with a fresh 64-bit key."""
        return GaussianNoise(self._draw_key(8))

    def examples(self) -> ExampleRandomness:
        """A generator, with a fresh key, of what is drawn for each example of a private step."""
        return ExampleRandomness(self.gaussian())

    def numpy_generator(self) -> np.random.Generator:
        """A PCG64 generator seeded with 256 fresh bits."""
        entropy = int.from_bytes(self._draw_key(32), "little")
        # A seed sequence mixes what it is given into a pool, of 128 bits unless it is told otherwise.
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy, pool_size=8)))


class GaussianNoise:
    """Draws of normal noise, for use in graphs and outside; each draw is fresh.

    A normal comes from 32 random bits, so none is larger than 6.7 standard deviations (TensorFlow's own: 5.7).

    Args:
      key: 8 bytes; whoever knows them can take the noise off again.
    """

    def __init__(self, key: bytes) -> None:
        self._key = tf.constant(np.frombuffer(key, dtype=np.uint32))
        # Not a Trackable, so that no checkpoint can hold the key or repeat a draw.
        self._draws = tf.Variable(tf.zeros([], tf.int64), trainable=False)
        self._normals: Any = tf.function(_normals, jit_compile=True, autograph=False)

    def draw(self, shapes: Sequence[Any], stddev: float) -> list[tf.Tensor]:
        """Independent normals of mean 0.

        Args:
          shapes: static shapes.
          stddev: standard deviation of all of them.

        Returns:
          float32 tensors of the given shapes.

        Raises:
          ValueError: for shapes of 2^33 numbers or more in one draw, after which they would repeat.
        """
        shapes = [tf.TensorShape(shape) for shape in shapes]
        sizes = [shape.num_elements() for shape in shapes]
        blocks = (sum(sizes) + 1) // 2
        if blocks >= 2**32:
            raise ValueError(f"`shapes` should hold fewer than 2^33 numbers in one draw; got {sum(sizes)}.")
        draw = tf.cast(self._draws.assign_add(1), tf.uint32)
        pairs = self._normals(self._key, draw, blocks, float(stddev))
        normals = tf.reshape(tf.bitcast(pairs, tf.float32), [2 * blocks])
        if sum(sizes) % 2:
            sizes = [*sizes, 1]
        return [tf.reshape(part, shape) for part, shape in zip(tf.split(normals, sizes), shapes, strict=False)]

    def draw_uniform(self, shape: Any) -> tf.Tensor:
        """Independent uniforms in [0, 1), multiples of 2^-24; float32 of a static shape.

        Raises:
          ValueError: for a shape of 2^33 numbers or more.
        """
        shape = tf.TensorShape(shape)
        size = shape.num_elements()
        blocks = (size + 1) // 2
        if blocks >= 2**32:
            raise ValueError(f"`shape` should hold fewer than 2^33 numbers in one draw; got {size}.")
        draw = tf.cast(self._draws.assign_add(1), tf.uint32)
        positions = tf.bitcast(tf.range(blocks), tf.uint32)
        words = tf.concat(threefry(self._key[0], self._key[1], positions, tf.fill([blocks], draw)), axis=0)
        whole = tf.cast(tf.cast(tf.bitwise.right_shift(words[:size], _word(8)), tf.int32), tf.float32)
        return tf.reshape(whole * 2.0**-24, shape)


class ExampleRandomness:
    """What a private step draws for each of its examples: latents, noise levels, views, dropout masks.

    The sensitivity of a clipped sum is one clip only if one more example leaves what the others draw as it is. That
    holds for draws that are independent of each other and known to nobody: whatever belongs to the common examples can
    be thought of as drawn first. It does not hold for draws that a public seed and a place in the batch decide, where
    one more example gives all later ones another draw. So these are keyed like the noise and saved nowhere.

    Args:
      normals: a generator with a key of its own.
    """

    def __init__(self, normals: GaussianNoise) -> None:
        self._normals = normals

    def normal(self, shape: Sequence[int]) -> tf.Tensor:
        """Standard normals, float32 of a static shape whose first axis is that of the examples; fresh in each call."""
        (draws,) = self._normals.draw([shape], 1.0)
        return draws

    def uniform(self, shape: Sequence[int]) -> tf.Tensor:
        """Uniforms in [0, 1), float32 of a static shape whose first axis is that of the examples; always fresh."""
        return self._normals.draw_uniform(shape)


def _normals(key: tf.Tensor, draw: tf.Tensor, blocks: int, stddev: float) -> tf.Tensor:
    """Pairs of normals as complex64 [blocks]: a pair in one value lets XLA fuse all of this into a single loop."""
    positions = tf.bitcast(tf.range(blocks), tf.uint32)
    return tf.complex(*_box_muller(*threefry(key[0], key[1], positions, tf.fill([blocks], draw)), stddev))


def threefry(key_0: Any, key_1: Any, x0: Any, x1: Any) -> tuple[tf.Tensor, tf.Tensor]:
    """Threefry-2x32 with 20 rounds: two words of random bits for each pair of counters, all uint32."""
    keys = (key_0, key_1, tf.bitwise.bitwise_xor(tf.bitwise.bitwise_xor(key_0, key_1), _word(_PARITY)))
    x0, x1 = x0 + keys[0], x1 + keys[1]
    for group in range(5):
        for rotation in _ROTATIONS[group % 2]:
            x0 += x1
            x1 = tf.bitwise.bitwise_xor(x0, _rotated_left(x1, rotation))
        x0, x1 = x0 + keys[(group + 1) % 3], x1 + keys[(group + 2) % 3] + _word(group + 1)
    return x0, x1


def _box_muller(bits_0: tf.Tensor, bits_1: tf.Tensor, stddev: float) -> tuple[tf.Tensor, tf.Tensor]:
    """Two independent normals from two words of random bits.

    The angle is drawn within an eighth of the circle, where short Taylor series are exact to rounding; three more bits
    choose the eighth by swapping and negating sine and cosine.
    """
    uniform = tf.cast(tf.bitwise.right_shift(bits_0, _word(1)), tf.int32)  # of 31 bits, fine near 0: the tail
    # The square of a small `stddev` would not fit into 32 bits.
    radius = stddev * tf.sqrt(-2.0 * tf.math.log(tf.cast(uniform, tf.float32) * 2.0**-31 + 2.0**-32))
    signed = tf.bitcast(tf.bitwise.left_shift(bits_1, _word(3)), tf.int32)
    angle = tf.cast(signed, tf.float32) * (math.pi / 4 * 2.0**-31)
    square = angle * angle
    cosine = tf.math.polyval([(-1) ** i / math.factorial(2 * i) for i in reversed(range(6))], square)
    sine = angle * tf.math.polyval([(-1) ** i / math.factorial(2 * i + 1) for i in reversed(range(5))], square)
    swap, negate_0, negate_1 = (tf.bitwise.bitwise_and(bits_1, _word(1 << bit)) > 0 for bit in (29, 30, 31))
    first, second = tf.where(swap, sine, cosine), tf.where(swap, cosine, sine)
    return radius * tf.where(negate_0, -first, first), radius * tf.where(negate_1, -second, second)


def _rotated_left(x: tf.Tensor, by: int) -> tf.Tensor:
    """The bits of each word rotated."""
    return tf.bitwise.bitwise_or(tf.bitwise.left_shift(x, _word(by)), tf.bitwise.right_shift(x, _word(32 - by)))


def _word(value: int) -> tf.Tensor:
    """A constant word of 32 bits."""
    return tf.constant(value, tf.uint32)
