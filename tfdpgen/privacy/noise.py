"""Where privacy's randomness comes from: the operating system.

Both the Poisson draws and the Gaussian noise hide a row only as long as nobody can predict them. A `NoiseSource` is
therefore keyed by `os.urandom`; no global seed (`tf.random.set_seed`, `np.random.seed`) reaches it, and it has no seed
that could end up in a configuration. TensorFlow's own `Generator.from_non_deterministic_state` is not used: it expands
32 bits of entropy, few enough to be searched.

    noise = NoiseSource()                   # keyed by the operating system
    noise.tensorflow_generator().normal([3])
    NoiseSource.insecure(seed=7)            # tests, and runs that are marked as not for release

The generators behind it (Philox, PCG64) are statistical, not cryptographic, and draw in floating point. The privacy
statement names both as assumptions.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from tfdpgen.privacy.accounting import OPERATING_SYSTEM


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

    def tensorflow_generator(self) -> tf.random.Generator:
        """A Philox generator with a fresh 64-bit key and a fresh 128-bit counter."""
        state: Any = np.frombuffer(self._draw_key(24), dtype=np.int64)
        return tf.random.Generator.from_state(state, alg="philox")

    def numpy_generator(self) -> np.random.Generator:
        """A PCG64 generator seeded with 256 fresh bits."""
        return np.random.default_rng(np.frombuffer(self._draw_key(32), dtype=np.uint32))
