"""Squared norms of products A_i^T G_i without forming them: by Gram matrices, and by cells where A_i holds patches.

||A_i^T G_i||_F^2 = <A_i A_i^T, G_i G_i^T> (Bu et al. 2022, section 3), which costs less where there are few positions.
In a convolution the rows of A_i are patches of one image, and the entry (t, s) of A_i A_i^T is a sum of products of
pixels at the same offset from t and from s. Where the kernel is a multiple of the stride, offsets fall into whole cells
of stride x stride pixels: from the products of all pairs of cells every entry follows by adding shifted copies. That
takes about (kernel / stride)^2 times fewer operations than products of patches, and the patches are never made.

A sum of products of large entries can cancel to a small norm, and then its rounding error is that of the large entries.
A norm that came out too small would let a row through unclipped, so the error's size is added: what is returned may be
too large by a relative 1e-5 or less where little cancels, and is not too small.
"""

from __future__ import annotations

from typing import cast

import tensorflow as tf

_ROUNDING = 1e-7  # of float32 products, relative to the entries that they are summed from


def squared_norms_from_grams(gram_a: tf.Tensor, gram_g: tf.Tensor) -> tf.Tensor:
    """<A_i A_i^T, G_i G_i^T> float [b], not less than it is, from both Gram matrices float [b, n, T, T], summed over n.

    The allowance for rounding is `_ROUNDING` times (sum_t |a_t| |g_t|)^2, the largest value that the norms of the rows
    of A_i and G_i permit.
    """
    squares = tf.reduce_sum(gram_a * gram_g, axis=[2, 3])
    lengths = tf.sqrt(tf.nn.relu(tf.linalg.diag_part(gram_a)) * tf.nn.relu(tf.linalg.diag_part(gram_g)))
    largest = tf.square(tf.reduce_sum(lengths, axis=2))
    squares = tf.where(squares < 0, tf.zeros_like(squares), squares)  # `where` and not `relu`, which may lose a nan
    return tf.reduce_sum(squares + _ROUNDING * largest, axis=1)


def cells_are_cheaper(
    patched: tf.Tensor, other: tf.Tensor, kernel: tuple[int, int], strides: tuple[int, int], views: int = 1
) -> bool:
    """Whether `squared_norms_by_cells` can be used, and costs less than forming the products of patches and g."""
    rows, columns = (cast(int, side) for side in other.shape[1:3])
    k, c = cast(int, patched.shape[3]), cast(int, other.shape[3])
    if kernel[0] % strides[0] or kernel[1] % strides[1]:
        return False
    reach = kernel[0] // strides[0], kernel[1] // strides[1]
    cells = views * (rows - 1 + reach[0]) * (columns - 1 + reach[1])
    positions, cell = views * rows * columns, strides[0] * strides[1] * k
    by_cells = cells**2 * cell + positions**2 * (c + reach[0] * reach[1])
    return by_cells < positions * kernel[0] * kernel[1] * k * c


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
    rows, columns = (cast(int, side) for side in other.shape[1:3])
    reach = kernel[0] // strides[0], kernel[1] // strides[1]
    gram = _gram_of_patches(patched, (rows, columns), reach, strides, kernel, padding, views)
    others = tf.reshape(other, [-1, 1, views * rows * columns, other.shape[3]])
    return squared_norms_from_grams(gram, tf.matmul(others, others, transpose_b=True))


def _gram_of_patches(
    images: tf.Tensor,
    out: tuple[int, int],
    reach: tuple[int, int],
    strides: tuple[int, int],
    kernel: tuple[int, int],
    padding: str,
    views: int,
) -> tf.Tensor:
    """A_i A_i^T float [b, 1, T, T] over all pairs of patches of each example, T = views * rows * columns."""
    paddings = [[0, 0]]
    for axis in (0, 1):
        covered = (out[axis] - 1) * strides[axis] + kernel[axis]
        missing = covered - cast(int, images.shape[1 + axis])
        before = missing // 2 if padding == "same" and missing > 0 else 0
        paddings.append([before, max(missing - before, 0)])
        if missing < 0:  # the last pixels are in no patch
            images = images[:, :covered] if axis == 0 else images[:, :, :covered]
    padded = tf.pad(images, [*paddings, [0, 0]])
    (rows, columns), depth = (out[0] - 1 + reach[0], out[1] - 1 + reach[1]), cast(int, images.shape[3])
    split = tf.reshape(padded, [-1, rows, strides[0], columns, strides[1], depth])
    cell = strides[0] * strides[1] * depth
    cells = tf.reshape(tf.transpose(split, [0, 1, 3, 2, 4, 5]), [-1, views * rows * columns, cell])
    products = tf.matmul(cells, cells, transpose_b=True)
    if views == 1:
        products = tf.reshape(products, [-1, rows, columns, rows, columns])
        shifted = [
            products[:, i : i + out[0], j : j + out[1], i : i + out[0], j : j + out[1]]
            for i in range(reach[0])
            for j in range(reach[1])
        ]
    else:
        products = tf.reshape(products, [-1, views, rows, columns, views, rows, columns])
        shifted = [
            products[:, :, i : i + out[0], j : j + out[1], :, i : i + out[0], j : j + out[1]]
            for i in range(reach[0])
            for j in range(reach[1])
        ]
    positions = views * out[0] * out[1]
    return tf.reshape(tf.add_n(shifted), [-1, 1, positions, positions])
