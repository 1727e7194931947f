"""The black-box audit: canaries among the private examples, guessed from released samples alone.

    def train_fn(examples):
        return train("gaussian_mixture", examples, budget, verbose=0)

    audit_release(train_fn, examples, budget, canaries=1_000, seed=0).lower_bound

A canary is an image of coarse black and white blocks, drawn at random, with a random label: far from every example and
from every other canary, so that a generator that learns anything of single examples learns it from these. A fair coin
decides for each canary whether it joins the examples that are trained on. The adversary holds the finished release and
all canaries, draws samples of each label, and scores a canary by how much nearer its own label's samples come to it
than those of other labels do, which takes off what makes some images easy to come near. It works for any method, and
is weak: a method with a good account gives a bound near 0. What it finds are leaks for which no knowledge of the
method is needed: examples handed out again, statistics without noise.

The training is a training of its own, on the private examples and the canaries. No budget pays for it, because nothing
of it may leave: the model is dropped and the metrics are internal. Whoever shows them to others releases something
about the private examples that no ledger knows.

Canaries are added to the examples or not, so that the number of examples, which the promise takes as public, varies
with the coins; the adversary makes no use of it. Steinke, Nasr & Jagielski 2023 (arXiv 2305.08846), sections 4 and 6.2;
Chen et al. 2020, "GAN-Leaks" (arXiv 1909.03935), section 4.2, for distances to samples.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import sklearn.metrics

from tfdpgen.attacks.audit.bounds import gaussian_one_run_lower_bound, one_run_lower_bound
from tfdpgen.attacks.audit.guessing import GuessNumbers, count_right, guess
from tfdpgen.attacks.audit.result import AuditResult
from tfdpgen.attacks.base import ReleaseLike
from tfdpgen.data import DataSpec, LabeledDataset
from tfdpgen.privacy import NoiseSource, PrivacyBudget

TrainFn = Callable[[LabeledDataset], ReleaseLike]

_CELLS = 8  # blocks of a canary's height and width
_SAMPLES = 20_000  # drawn of all labels together, at most
_GUESSED = 0.2  # of the canaries: 200 guesses that are all right refute an epsilon of 4


def random_canaries(
    spec: DataSpec, canaries: int, rng: np.random.Generator
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Images of random black and white blocks with random labels; they know nothing of any example.

    Args:
      spec: public facts of the data.
      canaries: m.
      rng: of the draws.

    Returns:
      (uint8 [m, h, w, c], int64 [m]).
    """
    height, width, channels = spec.image_shape
    size = (canaries, min(_CELLS, height), min(_CELLS, width), channels)
    blocks = rng.choice(np.array([0, 255], np.uint8), size)
    rows, columns = (np.arange(n) * min(_CELLS, n) // n for n in (height, width))
    return blocks[:, rows][:, :, columns], rng.integers(spec.num_classes, size=canaries)


def nearness_scores(
    release: ReleaseLike, images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64], rng: np.random.Generator
) -> npt.NDArray[np.float64]:
    """How much nearer the nearest sample of its own label comes to a canary than those of other labels on average.

    Args:
      release: what is attacked.
      images: canaries, uint8 [m, h, w, c].
      labels: int64 [m].
      rng: of the samples' seeds.

    Returns:
      Finite float64 [m], in root mean squares of pixels; higher is likelier included.
    """
    spec = release.spec
    count = _SAMPLES // spec.num_classes or 1
    canaries = images.reshape(len(images), -1) / np.float32(255)
    nearest = np.empty((spec.num_classes, len(images)))
    for label in range(spec.num_classes):
        samples = release.sample(np.full(count, label), seed=int(rng.integers(2**31)))
        samples = samples.reshape(count, -1) / np.float32(255)
        nearest[label] = sklearn.metrics.pairwise_distances_argmin_min(canaries, samples)[1]
    own = nearest[labels, np.arange(len(images))]
    others = (nearest.sum(axis=0) - own) / (spec.num_classes - 1)
    return (others - own) / np.sqrt(canaries.shape[1])


def audit_release(
    train_fn: TrainFn,
    examples: LabeledDataset,
    budget: PrivacyBudget,
    *,
    canaries: int = 1_000,
    method: str = "",
    confidence: float = 0.95,
    numbers: GuessNumbers | None = None,
    seed: int = 0,
    noise: NoiseSource | None = None,
) -> AuditResult:
    """One training of a method on the examples and the included canaries, and what follows for epsilon.

    Args:
      train_fn: examples -> release. It trains anew; what it returns is dropped, and may not be released.
      examples: the private examples, in memory.
      budget: what a release of `train_fn` claims.
      canaries: m.
      method: what the metrics call the method.
      confidence: of the bounds.
      numbers: of guesses, fixed beforehand; by default the surest tenth on either side.
      seed: of canaries and samples, not of coins.
      noise: where the coins come from; by default the operating system.

    Raises:
      ValueError: for fewer than 2 canaries, or a delta that is not smaller than 1 / number of examples with canaries.
    """
    if canaries < 2:
        raise ValueError(f"`canaries` should be at least 2; got {canaries}.")
    budget.check_num_examples(len(examples) + canaries)
    started = time.monotonic()
    rng = np.random.default_rng(seed)
    tenth = max(1, round(canaries * _GUESSED / 2))
    numbers = numbers or GuessNumbers(tenth, tenth)
    images, labels = random_canaries(examples.spec, canaries, rng)
    included = (noise or NoiseSource()).numpy_generator().random(canaries) < 0.5
    joined = LabeledDataset(
        np.concatenate([examples.images, images[included]]),
        np.concatenate([examples.labels, labels[included]]),
        examples.spec,
    )
    release = train_fn(joined)
    del joined
    right = count_right(guess(nearness_scores(release, images, labels, rng), numbers), included)
    return AuditResult(
        adversary="black_box",
        claimed_epsilon=budget.epsilon,
        delta=budget.delta,
        lower_bound=one_run_lower_bound(canaries, numbers.total, right, budget.delta, confidence),
        lower_bound_gaussian=gaussian_one_run_lower_bound(canaries, numbers.total, right, budget.delta, confidence),
        confidence=confidence,
        canaries=canaries,
        guesses=numbers.total,
        right=right,
        facts={"method": method},
        seconds=round(time.monotonic() - started, 3),
    )
