"""The noise: the generator's published test vectors, and normals in distribution out to the tails."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from tfdpgen.privacy import NoiseSource
from tfdpgen.privacy.noise import GaussianNoise, threefry


@pytest.mark.parametrize(
    ("key", "counter", "bits"),
    [
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
        ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
    ],
)
def test_threefry_gives_the_bits_that_its_authors_publish(key: tuple, counter: tuple, bits: tuple) -> None:
    """The known answers of the Random123 distribution for threefry2x32 with 20 rounds."""
    words = [tf.constant(word, tf.uint32) for word in (*key, *counter)]
    assert tuple(int(word) for word in threefry(*words)) == bits


def _draws(size: int, stddev: float = 1.0, key: bytes = b"8 bytes!") -> np.ndarray:
    return GaussianNoise(key).draw([[size]], stddev)[0].numpy().astype(np.float64)


def test_normals_are_normal_out_to_the_tails() -> None:
    count = 4_000_000
    values = _draws(count)
    assert scipy.stats.kstest(values, "norm").pvalue > 1e-6
    for bound in (1.0, 2.0, 3.0, 4.0, 4.5):
        expected = count * 2 * scipy.stats.norm.sf(bound)
        assert abs(np.sum(np.abs(values) > bound) - expected) < 5 * np.sqrt(expected)
    for moment, expected in ((1, 0.0), (2, 1.0), (3, 0.0), (4, 3.0)):
        deviation = np.sqrt(scipy.stats.norm.moment(2 * moment) / count)
        assert abs(np.mean(values**moment) - expected) < 5 * deviation


def test_the_two_normals_of_a_pair_are_independent() -> None:
    pairs = _draws(1_000_000).reshape(-1, 2)
    assert abs(np.corrcoef(pairs.T)[0, 1]) < 5e-3
    assert abs(np.corrcoef(np.square(pairs).T)[0, 1]) < 5e-3
    angles = np.arctan2(pairs[:, 1], pairs[:, 0])
    assert scipy.stats.kstest(angles, "uniform", args=(-np.pi, 2 * np.pi)).pvalue > 1e-6
    assert scipy.stats.kstest(np.square(pairs).sum(1), "chi2", args=(2,)).pvalue > 1e-6


@pytest.mark.parametrize("stddev", [1e-25, 0.01, 3.0])
def test_the_scale_is_the_declared_one(stddev: float) -> None:
    values = _draws(200_000, stddev)
    assert scipy.stats.kstest(values / stddev, "norm").pvalue > 1e-6
    for wrong in (2 / 3, 3 / 2):
        assert scipy.stats.kstest(values / (stddev * wrong), "norm").pvalue < 1e-9


@pytest.mark.parametrize("shapes", [[[]], [[3]], [[2, 2], [], [5]], [[0], [7]], [[1], [1], [1]]])
def test_draws_have_the_shapes_that_were_asked_for_and_no_number_twice(shapes: list) -> None:
    noise = GaussianNoise(b"8 bytes!")
    for _ in range(2):
        draw = noise.draw(shapes, 1.0)
        assert [value.shape.as_list() for value in draw] == shapes
    first, second = (np.concatenate([v.numpy().ravel() for v in noise.draw(shapes, 1.0)]) for _ in range(2))
    values = np.concatenate([first, second])
    assert len(np.unique(values)) == len(values)


def test_every_key_and_every_draw_gives_other_noise_in_a_graph_too() -> None:
    one, other = NoiseSource().gaussian(), NoiseSource().gaussian()
    draws = [tf.function(lambda noise=noise: noise.draw([[1000]], 1.0)[0]) for noise in (one, other)]
    values = [draw().numpy() for draw in draws for _ in range(3)]
    for i, a in enumerate(values):
        for b in values[:i]:
            assert abs(np.corrcoef(a, b)[0, 1]) < 0.2
            assert not np.any(a == b)


def test_no_checkpoint_can_hold_the_key_or_the_count_of_draws() -> None:
    assert not isinstance(NoiseSource().gaussian(), tf.Module)
    assert not hasattr(NoiseSource().gaussian(), "_trackable_children")
