"""Stroke images: random pen strokes, a public prior for drawings and handwriting that no data has shaped.

    images = random_stroke_images(np.random.default_rng(0), 1000, (28, 28))          # uint8 [1000, 28, 28, 1]

An image shows one to three strokes. A stroke is a curve whose curvature changes linearly along it (a clothoid), with at
most one corner; later strokes start anywhere or on an earlier one. They are scaled and moved into the frame as a
whole and drawn light on dark with one pen. No private example is touched, no label is known, and nothing here was
fitted to any data set: whoever uses such images says so in the privacy statement, which they do not change.

Learning from procedurally drawn images: Lake et al. 2015, "Human-level concept learning through probabilistic program
induction", for strokes; Baradad et al. 2021, "Learning to see by looking at noise", for features.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import tensorflow as tf

_STROKES, _POINTS = 3, 32  # of an image at most; of a stroke
_CHUNK = 250  # images rendered at a time, for the sake of memory
_FILL = 0.68  # of the frame's side by the larger side of what is drawn, on average
_EDGE = 1.3  # pixels over which a stroke fades


def random_stroke_images(rng: np.random.Generator, num: int, shape: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """`num` random stroke images.

    Args:
      rng: of everything that is random.
      num: of images.
      shape: height and width in pixels.

    Returns:
      uint8 [num, h, w, 1], strokes light on a dark ground.
    """
    pens, is_drawn = _random_pens(rng, num)
    points = _framed(_curves(pens), is_drawn, rng)
    widths = rng.uniform(0.5, 2.0, num).astype(np.float32) * np.float32(min(shape)) / np.float32(28)
    return _rendered(points, is_drawn, widths, shape)


def _random_pens(rng: np.random.Generator, num: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Parameters of the strokes, float32 [num, strokes, 8], and which of them are drawn, bool [num, strokes].

    Of each stroke: start x, y in a frame of [-1, 1]; direction; length; turn by curvature at its start and at its end
    (radians over the whole stroke); where its corner is, in [0, 1], and the turn of the corner.
    """
    shape = (num, _STROKES)
    pens = np.zeros((*shape, 8), np.float32)
    pens[..., 0:2] = rng.uniform(-0.8, 0.8, (*shape, 2))
    pens[..., 2] = rng.uniform(-np.pi, np.pi, shape)
    pens[..., 3] = rng.uniform(0.4, 2.2, shape)
    pens[..., 0, 3] = rng.uniform(1.2, 5.0, num)
    curls = rng.choice([0.3, 2.0, 5.0], (*shape, 1), p=[0.35, 0.35, 0.3])  # straight, bent and curled ones
    pens[..., 4:6] = curls * rng.normal(size=(*shape, 2))
    pens[..., 6] = rng.uniform(0.1, 0.9, shape)
    turns = rng.choice([-1, 1], shape) * rng.uniform(0.8, 2.9, shape)
    pens[..., 7] = turns * (rng.random(shape) < 0.4)
    count = rng.choice(_STROKES, num, p=[0.45, 0.4, 0.15]) + 1
    for stroke in range(1, _STROKES):  # most of them start on an earlier one
        path = _curves(pens[:, :stroke]).reshape(num, stroke * _POINTS, 2)
        spots = path[np.arange(num), rng.integers(0, path.shape[1], num)]
        attached = rng.random(num) < 0.6
        pens[attached, stroke, :2] = spots[attached]
    return pens, np.arange(_STROKES)[None] < count[:, None]


def _curves(pens: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The points of every stroke, float32 [num, strokes, points, 2]."""
    along = np.linspace(0, 1, _POINTS, dtype=np.float32)
    direction, length, first, last, where, corner = (pens[..., i, None] for i in range(2, 8))
    angle = direction + first * along + (last - first) * along**2 / 2 + corner * (along > where)
    moves = length[..., None] / (_POINTS - 1) * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    return (pens[..., None, 0:2] + np.cumsum(moves, axis=-2) - moves[..., :1, :]).astype(np.float32, copy=False)


def _framed(
    points: npt.NDArray[np.float32], is_drawn: npt.NDArray[np.bool_], rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    """The strokes of each image, as a whole, scaled and moved into the frame [-1, 1], nearly to one size."""
    shown = is_drawn[..., None, None]
    low = np.where(shown, points, np.inf).min(axis=(1, 2))
    high = np.where(shown, points, -np.inf).max(axis=(1, 2))
    num = len(points)
    scale = 2 * _FILL * np.exp(rng.normal(0, 0.08, num)) / np.maximum(np.max(high - low, axis=-1), 0.3)
    shift = rng.normal(0, 0.05, (num, 2))
    centred = points - ((low + high) / 2)[:, None, None]
    return (centred * scale[:, None, None, None] + shift[:, None, None]).astype(np.float32)


def _rendered(
    points: npt.NDArray[np.float32],
    is_drawn: npt.NDArray[np.bool_],
    widths: npt.NDArray[np.float32],
    shape: tuple[int, int],
) -> npt.NDArray[np.uint8]:
    """uint8 [n, h, w, 1] of points [n, strokes, points, 2] in [-1, 1], with pens half as wide as `widths` pixels."""
    height, width = shape
    pixels = ((points + 1) / 2 * np.array([width, height], np.float32) - 0.5).reshape(
        len(points), _STROKES * _POINTS, 2
    )
    away = np.repeat(np.where(is_drawn, 0, 1e6), _POINTS, axis=-1).astype(np.float32)
    parts = []
    for start in range(0, len(points), _CHUNK):
        part = slice(start, start + _CHUNK)
        ink = _ink(tf.constant(pixels[part]), tf.constant(away[part]), tf.constant(widths[part]), height, width)
        parts.append(np.round(255 * ink))
    return np.concatenate([np.zeros((0, height, width)), *parts]).astype(np.uint8)[..., None]


@tf.function(reduce_retracing=True)
def _ink(points: tf.Tensor, away: tf.Tensor, widths: tf.Tensor, height: int, width: int) -> tf.Tensor:
    """How dark each pixel is, float32 [b, h, w] in [0, 1], by its distance to the nearest point [b, p, 2]."""
    grid = tf.stack(tf.meshgrid(tf.range(float(width)), tf.range(float(height))), axis=-1)
    grid = tf.reshape(grid, [-1, 2])
    squares = tf.reduce_sum(grid**2, axis=-1)[None, :, None] + (tf.reduce_sum(points**2, axis=-1) + away)[:, None, :]
    squares -= 2 * tf.einsum("gk,bpk->bgp", grid, points)
    distances = tf.sqrt(tf.maximum(tf.reduce_min(squares, axis=-1), 0.0))
    ink = tf.clip_by_value((widths[:, None] - distances) / _EDGE + 0.5, 0.0, 1.0)
    return tf.reshape(ink, [-1, height, width])
