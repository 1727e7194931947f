"""Dead leaves: random shapes that hide each other, a public prior for photographs that no data has shaped.

    images = random_dead_leaves(np.random.default_rng(0), 1000, (32, 32, 3))         # uint8 [1000, 32, 32, 3]

Discs, ellipses and boxes of random size, place, colour and shading lie on each other like leaves on the ground, with
as many small ones as make the image look alike at every scale: edges and colours are distributed much as in photographs
of the world, which show things before other things. No image was looked at, and nothing here was fitted to any.

Sources: Lee, Mumford & Huang 2001, "Occlusion models for natural images"; Baradad et al. 2021, "Learning to see by
looking at noise".
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_LEAVES = 60  # on an image; what they leave shows the ground
_SMALLEST, _LARGEST = 0.07, 0.6  # radius of a leaf, in units of the shorter side
_SOFTEST = 1.0  # pixels over which an edge fades, at most
_BRIGHTNESS, _TINT = 0.2, 0.06  # standard deviations, within an image and of images
_CHUNK_PIXELS = 2**19  # rendered at a time, for the sake of memory

Array = npt.NDArray[np.float32]


def random_dead_leaves(rng: np.random.Generator, num: int, shape: tuple[int, int, int]) -> npt.NDArray[np.uint8]:
    """`num` random images of dead leaves.

    Args:
      rng: of everything that is random.
      num: of images.
      shape: height, width and channels, of which there are one or three.

    Returns:
      uint8 [num, h, w, c].
    """
    chunk = max(1, _CHUNK_PIXELS // (shape[0] * shape[1]))
    parts = [_images(rng, min(chunk, num - start), shape) for start in range(0, num, chunk)]
    return np.concatenate([np.zeros((0, *shape), np.uint8), *parts])


def _images(rng: np.random.Generator, num: int, shape: tuple[int, int, int]) -> npt.NDArray[np.uint8]:
    height, width, channels = shape
    side = min(height, width)
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32) + np.float32(0.5)
    mean = 0.5 + _colours(rng, num, channels)
    images = np.zeros((num, height, width, channels), np.float32)
    seen = np.ones((num, height, width), np.float32)  # how much of a pixel the leaves so far do not hide
    soft = rng.uniform(0.5, _SOFTEST, (num, 1, 1)).astype(np.float32)
    for _ in range(_LEAVES):  # the nearest one first
        # The density of radii falls as their third power, which is what makes images alike at every scale.
        low, high = _SMALLEST**-2, _LARGEST**-2
        radius = side * (low + (high - low) * rng.random((num, 1, 1), np.float32)) ** -0.5
        angle = rng.uniform(0, np.pi, (num, 1, 1)).astype(np.float32)
        y = rows - height * rng.random((num, 1, 1), np.float32)
        x = columns - width * rng.random((num, 1, 1), np.float32)
        along = (np.cos(angle) * x + np.sin(angle) * y) / radius
        across = (np.cos(angle) * y - np.sin(angle) * x) / radius * rng.uniform(1, 2, (num, 1, 1)).astype(np.float32)
        is_box = rng.random((num, 1, 1)) < 0.4
        distance = np.where(is_box, np.maximum(np.abs(along), np.abs(across)), np.sqrt(along**2 + across**2))
        hides = np.clip((1 - distance) * radius / soft + 0.5, 0, 1) * seen
        shading = rng.normal(0, 0.1, (num, 1, 1)).astype(np.float32) * along
        colour = (mean + _colours(rng, num, channels))[:, None, None, :]
        images += hides[..., None] * (colour + shading[..., None])
        seen -= hides
    images += seen[..., None] * (mean + _colours(rng, num, channels))[:, None, None, :]
    return np.rint(255 * np.clip(images, 0, 1)).astype(np.uint8)


def _colours(rng: np.random.Generator, num: int, channels: int) -> Array:
    """What colours differ by, [num, channels]: mostly in brightness, as those of the world do."""
    brightness = rng.normal(0, _BRIGHTNESS, (num, 1))
    return (brightness + (rng.normal(0, _TINT, (num, channels)) if channels > 1 else 0)).astype(np.float32)
