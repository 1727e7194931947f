"""Class means: the declared sensitivity bounds every row, the noise has the declared scale, the means are right."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from tfdpgen.data import DataSpec, LabeledDataset, RecordDataset
from tfdpgen.data import dataset as dataset_module
from tfdpgen.privacy import ClassMeans, NoiseSource

_SPEC = DataSpec((4, 4, 1), 3)


def _dataset(images: np.ndarray, labels: list[int]) -> LabeledDataset:
    return LabeledDataset(images.astype(np.uint8), np.array(labels, np.int64), _SPEC)


class _Recorder(NoiseSource):
    """A source whose noise is zero, and that remembers the scale and what the noise was to be added to."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = 0.0

    def numpy_generator(self) -> np.random.Generator:
        recorder = self

        class Generator:
            def normal(self, scale: float, size: tuple[int, ...]) -> np.ndarray:
                recorder.scale = scale
                return np.zeros(size)

        return Generator()


def test_without_noise_the_means_are_the_means() -> None:
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (30, 4, 4, 1)), [0, 1] * 15
    means = ClassMeans(2.0).release(_dataset(images, labels), _Recorder())
    np.testing.assert_allclose(means[0], images[::2].mean(0) / 255, atol=1e-6)
    np.testing.assert_allclose(means[1], images[1::2].mean(0) / 255, atol=1e-6)
    np.testing.assert_allclose(means[2], 0.5)  # a class without rows


@given(value=st.integers(0, 255), label=st.integers(0, 2))
def test_no_row_moves_the_noised_vector_by_more_than_the_sensitivity(value: int, label: int) -> None:
    """The largest rows are constant black or white; the count's weight is R / 2 as documented."""
    radius = math.sqrt(16) / 2
    row = np.full(16, value / 255 - 0.5)
    recorder = _Recorder()
    ClassMeans(1.0).release(_dataset(np.full((1, 4, 4, 1), value), [label]), recorder)
    assert math.sqrt((row**2).sum() + (radius / 2) ** 2) <= recorder.scale + 1e-9
    assert recorder.scale == pytest.approx(math.sqrt(radius**2 + (radius / 2) ** 2))


def test_the_noise_has_the_declared_scale() -> None:
    # Many rows of mid-grey: the means then move by noise / count, without clipping at 0 and 1.
    spec, rows = DataSpec((40, 40, 1), 2), 4_000
    images = np.full((rows, 40, 40, 1), 128, np.uint8)
    labels = np.arange(rows) % 2
    means = ClassMeans(3.0).release(LabeledDataset(images, labels, spec), NoiseSource())
    scale = 3.0 * math.sqrt(1600) / 2 * math.sqrt(1.25) / (rows / 2)
    noise = (means - 128 / 255).ravel()
    assert scipy.stats.kstest(noise / scale, "norm").pvalue > 1e-6
    for wrong in (2 / 3, 3 / 2):
        assert scipy.stats.kstest(noise / (wrong * scale), "norm").pvalue < 1e-9


def test_sums_are_divided_by_the_noised_count() -> None:
    """How many rows a class has is private too: noise on the count alone moves the means."""

    class OnTheCount(_Recorder):
        def numpy_generator(self) -> np.random.Generator:
            class Generator:
                def normal(self, scale: float, size: tuple[int, ...]) -> np.ndarray:
                    noise = np.zeros(size)
                    noise[:, -1] = 10.0 * math.sqrt(16) / 4  # ten rows, each of which counts as R / 2
                    return noise

            return Generator()

    white = _dataset(np.full((30, 4, 4, 1), 255), [0, 1, 2] * 10)
    np.testing.assert_allclose(ClassMeans(2.0).release(white, OnTheCount()), 0.5 + 0.5 * 10 / 20, atol=1e-6)


def test_blocks_and_rows_on_disk_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not a bit: the sums are whole numbers whatever the blocks."""
    rng = np.random.default_rng(0)
    dataset = _dataset(rng.integers(0, 256, (100, 4, 4, 1)), list(rng.integers(0, 3, 100)))
    rows = [{"image": image, "label": label} for image, label in zip(dataset.images, dataset.labels, strict=True)]
    expected = ClassMeans(1.0).release(dataset, NoiseSource.insecure(1))
    monkeypatch.setattr(dataset_module, "_BLOCK_BYTES", 7 * 16)
    for same in (dataset, RecordDataset(rows, _SPEC)):
        np.testing.assert_array_equal(ClassMeans(1.0).release(same, NoiseSource.insecure(1)), expected)


def test_an_empty_data_set_is_released_as_noise() -> None:
    means = ClassMeans(1.0).release(_dataset(np.zeros((0, 4, 4, 1)), []), NoiseSource())
    assert means.shape == (3, 4, 4, 1)
    assert np.all((means >= 0) & (means <= 1))


@pytest.mark.parametrize("noise_multiplier", [0.0, -1.0, float("nan"), float("inf")])
def test_a_noise_multiplier_out_of_range_is_refused(noise_multiplier: float) -> None:
    with pytest.raises(ValueError, match="`noise_multiplier`"):
        ClassMeans(noise_multiplier)
