"""Poisson batches: every example joins every batch independently, with one probability.

This is the sampling that the Poisson epsilon is about; shuffled batches of fixed size are something else and cost
more. The size of a batch varies and is private, so every batch is padded to whole chunks of one fixed physical shape,
and nothing downstream may divide by the realised size. An empty batch is normal, and an over-full one takes another
chunk: no example that was drawn is ever dropped.

A draw takes time and memory for the examples that it holds, not for all that there are: the gaps between the drawn
examples of independent draws with one probability are independent and geometric, so the gaps are drawn (Vitter 1984,
"Faster methods for random sampling", calls these skips).

    for batch in poisson_batches(num_examples, sampling_probability, steps, chunk, rng):
        batch.indices    # int32 [chunks, chunk], 0 where padded
        batch.weights    # float32, the same shape: 1 for a drawn example, 0 for padding

Source: Abadi et al. 2016, "Deep learning with differential privacy", section 3.1 (lots); Chua et al. 2024, "How
private are DP-SGD implementations?", on what shuffling costs instead.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

MOST_EXAMPLES = 2**31 - 1  # positions are int32
MOST_IN_CHUNK = 320  # larger chunks take more memory and, on two cores, no less time an example


class PoissonBatch(NamedTuple):
    """One draw, in chunks of fixed physical shape; both arrays are [chunks, chunk] with chunks >= 1."""

    indices: npt.NDArray[np.int32]
    weights: npt.NDArray[np.float32]


def physical_batch_size(num_examples: int, expected_batch_size: int, most: int = MOST_IN_CHUNK) -> int:
    """A public physical shape, of which as few as possible hold nearly every draw: to four standard deviations.

    Args:
      num_examples: examples to draw from.
      expected_batch_size: examples drawn on average.
      most: bound on the shape, for the sake of memory; a multiple of 8.
    """
    deviation = math.sqrt(expected_batch_size * (1 - expected_batch_size / num_examples))
    room = expected_batch_size + 4 * deviation
    return min(num_examples, 8 * math.ceil(room / math.ceil(room / most) / 8))


def poisson_batches(
    num_examples: int, sampling_probability: float, steps: int, chunk: int, rng: np.random.Generator
) -> Iterator[PoissonBatch]:
    """Draws `steps` batches, each example independently with `sampling_probability`.

    Args:
      num_examples: examples to draw from; at most `MOST_EXAMPLES`.
      sampling_probability: in (0, 1].
      steps: number of batches.
      chunk: physical shape of a chunk.
      rng: keyed by the operating system, unless nothing is to be released.

    Yields:
      `PoissonBatch`es. Which examples a batch holds, and how many, is private.
    """
    for _ in range(steps):
        drawn = _draw(num_examples, sampling_probability, rng)
        chunks = max(1, math.ceil(len(drawn) / chunk))
        indices = np.zeros(chunks * chunk, np.int32)
        weights = np.zeros(chunks * chunk, np.float32)
        indices[: len(drawn)] = drawn
        weights[: len(drawn)] = 1.0
        yield PoissonBatch(indices.reshape(chunks, chunk), weights.reshape(chunks, chunk))


def _draw(num_examples: int, sampling_probability: float, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Ascending positions of the examples of one draw."""
    mean = num_examples * sampling_probability
    enough = int(mean + 6 * math.sqrt(mean)) + 8  # nearly always; what is missing is drawn next
    parts = [np.array([-1])]
    while parts[-1][-1] < num_examples:
        # NumPy gives a gap of 0 once in 2^53 times, and huge ones that would overflow a sum.
        gaps = np.clip(rng.geometric(sampling_probability, enough), 1, num_examples + 1)
        parts.append(parts[-1][-1] + np.cumsum(gaps))
    drawn = np.concatenate(parts)
    return drawn[1 : np.searchsorted(drawn, num_examples)]
