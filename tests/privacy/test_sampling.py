"""Poisson draws: every example independently, with the plan's probability, none dropped."""

from __future__ import annotations

import time
import tracemalloc

import numpy as np
import pytest
import scipy.stats

from tfdpgen.privacy import DPSGD, NoiseSource
from tfdpgen.privacy.sampling import physical_batch_size, poisson_batches

_PLAN = DPSGD(num_examples=300, expected_batch_size=30, steps=4_000, l2_norm_clip=1.0, noise_multiplier=1.0)


def _membership(plan: DPSGD) -> np.ndarray:
    """bool [steps, num_examples]: which examples each batch holds."""
    drawn = np.zeros((plan.steps, plan.num_examples), bool)
    for step, batch in enumerate(plan.batches()):
        examples = batch.indices[batch.weights > 0]
        assert len(set(examples)) == len(examples)
        drawn[step, examples] = True
    return drawn


def test_inclusion_is_independent_with_the_plans_probability() -> None:
    drawn = _membership(_PLAN)
    counts, n, steps, q = drawn.sum(0), 300, 4_000, 0.1
    # Each example's count is Binomial(steps, q) and each batch's size Binomial(n, q): fixed sizes or epochs are
    # neither.
    chi_square = ((counts - steps * q) ** 2 / (steps * q * (1 - q))).sum()
    assert 1e-6 < scipy.stats.chi2(n).sf(chi_square) < 1 - 1e-6
    sizes = drawn.sum(1)
    chi_square = ((sizes - n * q) ** 2 / (n * q * (1 - q))).sum()
    assert 1e-6 < scipy.stats.chi2(steps).sf(chi_square) < 1 - 1e-6
    # Examples are uncorrelated within a batch, and an example with itself from one batch to the next.
    correlation = np.corrcoef(drawn.T.astype(float))
    assert np.abs(correlation[np.triu_indices(n, 1)]).mean() < 1.2 * np.sqrt(2 / np.pi / steps)
    lag = np.mean((drawn[1:] - q) * (drawn[:-1] - q)) / (q * (1 - q))
    assert abs(lag) < 5 / np.sqrt(drawn[1:].size)


def test_shuffled_batches_would_fail_these_tests() -> None:
    """The statistics above tell Poisson sampling from what is often run in its place."""
    rng = np.random.default_rng(0)
    drawn = np.zeros((4_000, 300), bool)
    for step in range(0, 4_000, 10):
        order = rng.permutation(300).reshape(10, 30)
        for i in range(10):
            drawn[step + i, order[i]] = True
    assert drawn.sum(1).std() == 0  # every size is 30, where Binomial sizes spread by 5.2
    assert drawn.sum(0).std() == 0


def test_sizes_are_binomial_and_every_position_and_pair_has_its_probability() -> None:
    """Exact distributions for few examples: every one of the 2^4 possible draws comes as often as it should."""
    rng, draws, q = np.random.default_rng(7), 40_000, 0.3
    seen = np.zeros(16)
    for batch in poisson_batches(4, q, draws, 8, rng):
        seen[sum(1 << example for example in batch.indices[batch.weights > 0])] += 1
    sizes = np.array([bin(examples).count("1") for examples in range(16)])
    expected = draws * q**sizes * (1 - q) ** (4 - sizes)
    assert scipy.stats.chisquare(seen, expected).pvalue > 1e-6
    # The same test refuses draws of one fixed size, and a probability that is off by 3 %.
    fixed = np.where(sizes == 1, draws / 4, 0.0)
    assert scipy.stats.chisquare(fixed, expected).pvalue < 1e-9
    p = 1.03 * q
    assert scipy.stats.chisquare(seen, draws * p**sizes * (1 - p) ** (4 - sizes)).pvalue < 1e-6


@pytest.mark.parametrize("q", [1.0, 0.9, 0.4, 0.2, 1e-3])
def test_first_and_last_example_are_drawn_like_any_other(q: float) -> None:
    n, draws = 50, 5_000
    counts = np.zeros(n)
    for batch in poisson_batches(n, q, draws, 64, np.random.default_rng(3)):
        counts[batch.indices[batch.weights > 0]] += 1
    for position in (0, 1, n - 2, n - 1):
        assert scipy.stats.binomtest(int(counts[position]), draws, q).pvalue > 1e-6


def test_a_draw_from_many_examples_takes_time_and_memory_for_the_drawn_ones_alone() -> None:
    n = 2**31 - 1
    tracemalloc.start()
    started = time.perf_counter()
    drawn = [
        batch.indices[batch.weights > 0]
        for batch in poisson_batches(n, 256 / n, 200, 320, NoiseSource().numpy_generator())
    ]
    seconds = time.perf_counter() - started
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * 2**20  # a number for each example would take 16 GB
    assert seconds < 20
    examples = np.concatenate(drawn)
    assert abs(len(examples) - 200 * 256) < 6 * np.sqrt(200 * 256)
    assert scipy.stats.kstest(examples / n, "uniform").pvalue > 1e-6
    assert all(np.all(np.diff(part) > 0) for part in drawn)


def test_more_examples_than_positions_are_refused_with_the_plan() -> None:
    DPSGD(2**31 - 1, 256, 1, 1.0)
    with pytest.raises(ValueError, match="`num_examples` should be at most 2147483647; got 2147483648"):
        DPSGD(2**31, 256, 1, 1.0)


def test_over_full_draws_take_more_chunks_and_drop_nothing() -> None:
    rng = np.random.default_rng(0)
    sizes = []
    for batch in poisson_batches(1_000, 0.5, 50, 64, rng):
        assert batch.indices.shape == batch.weights.shape
        assert batch.indices.shape[1] == 64
        examples = batch.indices[batch.weights > 0]
        assert len(set(examples)) == len(examples) == batch.weights.sum()
        sizes.append(len(examples))
    assert abs(np.mean(sizes) - 500) < 5 * np.sqrt(250 / 50)


def test_empty_draws_are_batches_of_padding() -> None:
    for batch in poisson_batches(5, 1e-9, 20, 8, np.random.default_rng(0)):
        assert batch.indices.shape == (1, 8)
        assert batch.weights.sum() == 0


def test_draws_differ_between_runs_unless_seeded() -> None:
    plan = DPSGD(300, 30, 3, 1.0, 1.0)
    np.random.seed(0)  # noqa: NPY002  # the legacy seed is what must not matter
    first = np.concatenate([batch.indices for batch in plan.batches()])
    np.random.seed(0)  # noqa: NPY002  # the legacy seed is what must not matter
    second = np.concatenate([batch.indices for batch in plan.batches()])
    assert not np.array_equal(first, second)
    seeded = [np.concatenate([b.indices for b in plan.batches(NoiseSource.insecure(1))]) for _ in range(2)]
    np.testing.assert_array_equal(*seeded)


def test_the_physical_shape_is_public_and_a_few_of_it_hold_nearly_every_draw() -> None:
    assert physical_batch_size(60_000, 256) == 320
    assert physical_batch_size(60_000, 512) == 304  # two of them are 608
    assert physical_batch_size(10_000_000, 16_384) == 320
    assert physical_batch_size(20, 20) == 20
    sizes = np.random.default_rng(0).binomial(60_000, 512 / 60_000, size=20_000)
    assert (sizes > 2 * 304).mean() < 1e-3
