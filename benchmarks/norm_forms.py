"""Which way to a layer's norms is faster, and whether the library chooses it: Gram matrices, or forming the products.

    python benchmarks/norm_forms.py
    python benchmarks/norm_forms.py --batch=64 --repeats=50

For products A_i^T G_i with A_i [T, k] and G_i [T, c], both ways are timed over a range of T, k and c. The last line is
what choosing by the library's cost model costs beside choosing right each time; its constant
(`tfdpgen.privacy.clipping.gradients`) is the one for which that ratio is least, which `--fit` looks for.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import time
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf

from tfdpgen.privacy.clipping import gradients
from tfdpgen.privacy.clipping.gram import squared_norms_from_grams

POSITIONS, WIDTHS = (4, 16, 49, 196), (16, 64, 256, 1024)


@tf.function
def by_grams(a: tf.Tensor, g: tf.Tensor) -> tf.Tensor:
    """Norms from both Gram matrices."""
    return squared_norms_from_grams(tf.matmul(a, a, transpose_b=True), tf.matmul(g, g, transpose_b=True))


@tf.function
def formed(a: tf.Tensor, g: tf.Tensor) -> tf.Tensor:
    """Norms from the products."""
    return tf.reduce_sum(tf.square(tf.matmul(a, g, transpose_a=True)), axis=[1, 2, 3])


def milliseconds(step: Callable[[], object], repeats: int) -> float:
    """Median wall-clock time of one call."""
    times = []
    for _ in range(repeats + 2):
        started = time.perf_counter()
        step()
        times.append(time.perf_counter() - started)
    return 1e3 * statistics.median(times[2:])


def main() -> None:
    """Prints a table and how much time the choices lose."""
    parser = argparse.ArgumentParser(description="Times the two ways to norms of per-example gradients.")
    parser.add_argument("--batch", type=int, default=64, help="examples (default: 64)")
    parser.add_argument("--repeats", type=int, default=15, help="runs of each (default: 15)")
    parser.add_argument("--fit", action="store_true", help="also print the loss for other constants of the model")
    flags = parser.parse_args()

    print(f"{'T':>5}{'k':>6}{'c':>6}{'Gram ms':>10}{'formed ms':>11}  chosen")
    measured = []
    for positions, k, c in itertools.product(POSITIONS, WIDTHS, WIDTHS):
        if k > c or flags.batch * k * c > 2**25:
            continue
        a, g = (tf.random.uniform([flags.batch, 1, positions, width]) for width in (k, c))
        times = [milliseconds(lambda way=way, a=a, g=g: way(a, g), flags.repeats) for way in (by_grams, formed)]
        measured.append(((positions, k, c), times))
        chosen = "Gram" if gradients.gram_is_cheaper(positions, k, c) else "formed"
        right = chosen == ("Gram" if times[0] < times[1] else "formed")
        print(f"{positions:>5}{k:>6}{c:>6}{times[0]:>10.2f}{times[1]:>11.2f}  {chosen}{'' if right else ' (slower)'}")

    def loss() -> float:
        chosen = [times[0 if gradients.gram_is_cheaper(*sizes) else 1] for sizes, times in measured]
        return sum(time / min(times) for time, (_, times) in zip(chosen, measured, strict=True)) / len(measured)

    if flags.fit:
        kept = gradients._MEMORY
        for gradients._MEMORY in (0.0, 2.0, 5.0, 10.0, 20.0, 40.0, 80.0):
            print(f"a number of memory at {gradients._MEMORY:g} operations: time chosen / best: {loss():.3f}")
        gradients._MEMORY = kept
    print(f"time chosen / best, mean over the table: {loss():.3f}")


if __name__ == "__main__":
    main()
