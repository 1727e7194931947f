"""Random strokes: a function of the generator alone, of any size, light on dark, and diverse."""

from __future__ import annotations

import numpy as np
import pytest

from tfdpgen.data.stroke_images import random_stroke_images


@pytest.mark.parametrize("shape", [(28, 28), (8, 8), (40, 20)])
def test_drawings_are_light_on_dark_and_all_different(shape: tuple[int, int]) -> None:
    images = random_stroke_images(np.random.default_rng(0), 300, shape)
    assert images.shape == (300, *shape, 1)
    assert images.dtype == np.uint8
    assert 5 < images.mean() < 90
    assert np.mean(images.max(axis=(1, 2, 3)) > 100) > 0.9
    border = np.concatenate([images[:, 0].ravel(), images[:, -1].ravel()])
    assert border.mean() < images.mean()  # in the middle of the frame
    assert len({image.tobytes() for image in images}) > 290


def test_drawings_are_a_function_of_the_generator() -> None:
    one, again, other = (random_stroke_images(np.random.default_rng(seed), 20, (16, 16)) for seed in (3, 3, 4))
    np.testing.assert_array_equal(one, again)
    assert np.any(one != other)
    assert random_stroke_images(np.random.default_rng(0), 0, (8, 8)).shape == (0, 8, 8, 1)
