"""Augmentation: moves what it shows as it says, keeps what it shows, and refuses bounds that make no sense."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from tfdpgen.data.stroke_images import random_stroke_images
from tfdpgen.release import Augmentation

_NOTHING = {"rotation": 0.0, "scale": 0.0, "shear": 0.0, "shift": 0.0, "elastic": 0.0, "stroke_width": 0.0}


def _strokes(num: int = 40) -> np.ndarray:
    return random_stroke_images(np.random.default_rng(0), num, (28, 28))


def test_with_all_bounds_at_zero_nothing_changes() -> None:
    images = np.random.default_rng(0).integers(256, size=(10, 9, 12, 3), dtype=np.uint8)
    np.testing.assert_array_equal(Augmentation(**_NOTHING)(images, np.random.default_rng(0)), images)


def test_each_change_does_what_its_name_says() -> None:
    image = np.zeros((200, 28, 28, 1), np.uint8)
    image[:, 8:20, 13:15] = 255  # an upright stroke

    def changed(**bounds: float) -> np.ndarray:
        result = Augmentation(**{**_NOTHING, **bounds})(image, np.random.default_rng(1))
        return result[..., 0].astype(float)

    areas = changed(stroke_width=1.0).sum(axis=(1, 2)) / 255
    assert areas.min() < 20 < 24 < 30 < areas.max()
    heights = (changed(rotation=40.0).max(axis=2) > 127).sum(axis=1)
    assert heights.min() < 11
    middles = np.array([ndimage.center_of_mass(one) for one in changed(shift=0.1)])
    assert np.std(middles[:, 0]) == pytest.approx(2.8, rel=0.2)
    assert np.std(middles[:, 1]) == pytest.approx(2.8, rel=0.2)
    still = np.array([ndimage.center_of_mass(one) for one in changed(scale=0.2, rotation=20.0)])
    np.testing.assert_allclose(still, 13.5, atol=0.6)  # about the middle of the image
    bent = changed(elastic=0.05)
    assert np.mean(np.abs(bent - image[..., 0])) > 1


def test_it_is_a_function_of_images_and_generator() -> None:
    images = _strokes()
    one, again, other = (Augmentation()(images, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert one.shape == images.shape
    assert one.dtype == np.uint8
    np.testing.assert_array_equal(one, again)
    assert np.any(one != other)
    assert len(Augmentation()(images[:0], np.random.default_rng(0))) == 0
    assert np.mean(np.abs(one.astype(float).mean(axis=(1, 2, 3)) - images.mean(axis=(1, 2, 3)))) < 15


@pytest.mark.parametrize(("name", "value"), [("rotation", -1.0), ("stroke_width", 1.5), ("temperature", 0.0)])
def test_bounds_out_of_range_are_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        Augmentation(**{name: value})
