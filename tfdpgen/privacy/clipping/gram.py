"""Squared norms of products A_i^T G_i without forming them: by Gram matrices, and by cells where A_i holds patches.

||A_i^T G_i||_F^2 = <A_i A_i^T, G_i G_i^T> (Bu et al. 2022, section 3), which costs less where there are few positions.
In a convolution the rows of A_i are patches of one image, and the entry (t, s) of A_i A_i^T is a sum of products of
pixels at the same offset from t and from s. Where the kernel is a multiple of the stride, offsets fall into whole cells
of stride x stride pixels: from the products of all pairs of cells every entry follows by adding shifted copies. That
takes about (kernel / stride)^2 times fewer operations than products of patches, and the patches are never made.

A sum of products of large entries can cancel to a small norm, and then its rounding error is that of the large entries.
A norm that came out too small would let an example through unclipped, so the error's size is added: what is returned
may be too large by a relative 1e-5 or less where little cancels, and is not too small.
"""

from __future__ import annotations

import math
from typing import Any, cast

import tensorflow as tf

from tfdpgen.privacy.clipping.pixels import gather_pixels, window_index

_ROUNDING = 1e-7  # of float32 products, relative to the entries that they are summed from


def squared_norms_from_grams(gram_a: tf.Tensor, gram_g: tf.Tensor) -> tf.Tensor:
    """<A_i A_i^T, G_i G_i^T> float [b], not less than it is, from both Gram matrices float [b, n, T, T], summed over n.

    The allowance for rounding is `_ROUNDING` times (sum_t |a_t| |g_t|)^2, the largest value that the norms of the rows
    of A_i and G_i permit.
    """
    squares = tf.reduce_sum(gram_a * gram_g, axis=[2, 3])
    squares = _not_too_small(squares, tf.linalg.diag_part(gram_a), tf.linalg.diag_part(gram_g))
    return tf.reduce_sum(squares, axis=1)


def _not_too_small(squares: tf.Tensor, lengths_a: tf.Tensor, lengths_g: tf.Tensor) -> tf.Tensor:
    """`squares` [...] with the allowance for rounding, from |a_t|^2 and |g_t|^2, both float [..., T]."""
    largest = tf.square(tf.reduce_sum(tf.sqrt(tf.nn.relu(lengths_a) * tf.nn.relu(lengths_g)), axis=-1))
    squares = tf.where(squares < 0, tf.zeros_like(squares), squares)  # `where` and not `relu`, which may lose a nan
    return squares + _ROUNDING * largest


def cells_cost(
    patched: tf.Tensor, other: tf.Tensor, kernel: tuple[int, int], strides: tuple[int, int], views: int = 1
) -> float:
    """Operations for each example in `squared_norms_by_cells`; infinitely many where it cannot be used."""
    rows, columns = (cast(int, side) for side in other.shape[1:3])
    k, c = cast(int, patched.shape[3]), cast(int, other.shape[3])
    if kernel[0] % strides[0] or kernel[1] % strides[1]:
        return math.inf
    reach = kernel[0] // strides[0], kernel[1] // strides[1]
    cells = views * (rows - 1 + reach[0]) * (columns - 1 + reach[1])
    positions, cell = views * rows * columns, strides[0] * strides[1] * k
    return cells**2 * cell + positions**2 * (c + reach[0] * reach[1])


def squared_norms_by_cells(
    patched: tf.Tensor,
    other: tf.Tensor,
    kernel: tuple[int, int],
    strides: tuple[int, int],
    padding: str,
    views: int = 1,
) -> tf.Tensor:
    """||sum_t patch_t(patched_i) other_it^T||_F^2 for each example i, without making patches.

    Args:
      patched: float [b * views, height, width, k], of which patches would be taken.
      other: float [b * views, rows, columns, c], one vector for each patch.
      kernel: height and width of a patch, multiples of the strides.
      strides: between patches.
      padding: "same" or "valid".
      views: consecutive rows that make one example, whose products are added up.

    Returns:
      float [b].
    """
    out = cast(int, other.shape[1]), cast(int, other.shape[2])
    reach = kernel[0] // strides[0], kernel[1] // strides[1]
    grid = out[0] - 1 + reach[0], out[1] - 1 + reach[1]
    sizes = cast(int, patched.shape[1]), cast(int, patched.shape[2])
    missing = [(out[i] - 1) * strides[i] + kernel[i] - sizes[i] for i in (0, 1)]
    before = [max(pixels, 0) // 2 if padding == "same" else 0 for pixels in missing]
    cells = gather_pixels(patched, window_index(sizes, grid, strides, strides, before))
    rows = tf.reshape(cells, [-1, views * grid[0] * grid[1], strides[0] * strides[1] * cast(int, patched.shape[3])])
    others = tf.reshape(other, [-1, views * out[0] * out[1], other.shape[3]])
    products: Any = _squared_norms_from_products
    return products(
        tf.matmul(rows, rows, transpose_b=True), tf.matmul(others, others, transpose_b=True), grid, out, views
    )


# One loop over the products, where operations one by one pass over memory many times.
@tf.function(jit_compile=True, autograph=False)
def _squared_norms_from_products(
    products: tf.Tensor, gram_g: tf.Tensor, grid: tuple[int, int], out: tuple[int, int], views: int
) -> tf.Tensor:
    """<A_i A_i^T, G_i G_i^T> float [b], not less than it is, where A_i A_i^T is a sum of shifted products of cells.

    Args:
      products: of all pairs of cells, float [b, views * grid, views * grid].
      gram_g: G_i G_i^T float [b, views * out, views * out].
      grid: rows and columns of cells.
      out: rows and columns of patches.
      views: of each example.
    """
    shifts = [(i, j) for i in range(grid[0] - out[0] + 1) for j in range(grid[1] - out[1] + 1)]
    pairs = tf.reshape(products, [-1, views, *grid, views, *grid])
    shifted = [pairs[:, :, i : i + out[0], j : j + out[1], :, i : i + out[0], j : j + out[1]] for i, j in shifts]
    squares = tf.reduce_sum(
        sum(shifted[1:], start=shifted[0]) * tf.reshape(gram_g, tf.shape(shifted[0])), [1, 2, 3, 4, 5, 6]
    )
    of_cells = tf.reshape(tf.linalg.diag_part(products), [-1, views, *grid])
    of_patches = [of_cells[:, :, i : i + out[0], j : j + out[1]] for i, j in shifts]
    lengths_a = tf.reshape(sum(of_patches[1:], start=of_patches[0]), [-1, views * out[0] * out[1]])
    return _not_too_small(squares, lengths_a, tf.linalg.diag_part(gram_g))
