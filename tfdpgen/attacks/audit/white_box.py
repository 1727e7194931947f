"""The white-box audit: the adversary of DP-SGD's own analysis, against the optimizer that trains.

    plan = canary_plan(PrivacyBudget(epsilon=4.0, delta=1e-5), canaries=50_000)
    audit_optimizer(plan, delta=1e-5).lower_bound                   # about 2.3 of the 4 that are claimed

That adversary sees every noised update and chooses the gradients of the examples that it asks about. Here each of m
canaries owns one coordinate of an embedding, and its gradient there is far larger than the clip, so that after the clip
it has the full norm: no gradient is seen better. Whether a canary is included decides an independent fair coin; the
example of an excluded one is blank, with a gradient of zero, so that the number of examples is the plan's whatever the
coins say.

What runs is what trains: the plan's Poisson batches, compiled steps over padded chunks, the optimizer's clipped sums,
noise and divisor. A mistake in any of these that costs much privacy shows as a bound above the claim: too little noise,
a clip that lets through, an example that joins too often. What other layers' clipping rules do is not seen in an
embedding.

Beside the bounds of one run, `lower_bound_independent` shows how near the account is to what happens. It takes each
canary for a run of its own, which is true if their coordinates get independent noise, and the trade-off for Gaussian.

No private example takes part, so nothing is spent. Nasr et al. 2021, "Adversary instantiation" (arXiv 2101.04535),
section 4.6 (Dirac canaries); Steinke, Nasr & Jagielski 2023 (arXiv 2305.08846), section 6.1; Nasr et al. 2023 (arXiv
2302.07956).
"""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfdpgen.attacks.audit.bounds import clopper_pearson_lower_bound, gaussian_one_run_lower_bound, one_run_lower_bound
from tfdpgen.attacks.audit.guessing import GuessNumbers, choose_guesses, count_right, guess, privacy_loss
from tfdpgen.attacks.audit.result import AuditResult
from tfdpgen.privacy import DPSGD, DPKerasAdam, DPKerasAdamW, DPKerasSGD, NoiseSource, PrivacyBudget
from tfdpgen.privacy.chunks import accumulate, private_step

OPTIMIZERS: dict[str, type] = {"sgd": DPKerasSGD, "adam": DPKerasAdam, "adamw": DPKerasAdamW}

_LOUDNESS = 10.0  # norm of a canary's gradient / l2_norm_clip, before the clip
_LEAST_NOISE = 1e-3


def canary_plan(
    budget: PrivacyBudget,
    canaries: int = 50_000,
    steps: int = 1,
    sampling_probability: float = 1.0,
    l2_norm_clip: float = 1.0,
) -> DPSGD:
    """A plan for examples that are all canaries, calibrated to claim the budget.

    Args:
      budget: of the claim.
      canaries: m.
      steps: of DP-SGD. With more of them noise is added more often, and the best guess is as good.
      sampling_probability: with which an example joins a step. At 1, the privacy loss is that of one Gaussian.
      l2_norm_clip: C.

    Raises:
      ValueError: for numbers out of range, or a delta that is not smaller than 1 / canaries.
    """
    if not 0 < sampling_probability <= 1:
        raise ValueError(f"`sampling_probability` should lie in (0, 1]; got {sampling_probability!r}.")
    if canaries < 1:
        raise ValueError(f"`canaries` should be at least 1; got {canaries}.")
    expected = max(1, round(canaries * sampling_probability))
    return DPSGD(canaries, expected, steps, l2_norm_clip, name="audit").calibrate(budget)


def audit_optimizer(
    plan: DPSGD,
    delta: float,
    *,
    optimizer_class: Any = DPKerasSGD,
    numbers: GuessNumbers | None = None,
    confidence: float = 0.95,
    noise: NoiseSource | None = None,
) -> AuditResult:
    """One training on canaries, all its updates seen, and what follows for epsilon.

    Args:
      plan: calibrated; each of its `num_examples` examples is a canary or, where the coin says so, blank.
      delta: of the claim.
      optimizer_class: `DPKerasSGD`, `DPKerasAdam` or `DPKerasAdamW`; or one derived from them, to be tested.
      numbers: of guesses, fixed beforehand; by default `choose_guesses`.
      confidence: of the bounds.
      noise: where coins, Poisson draws and noise come from; by default the operating system.

    Raises:
      ValueError: if the plan has no noise multiplier, or one of 0.
    """
    started = time.monotonic()
    claimed = plan.epsilon(delta)
    numbers = numbers or choose_guesses(plan, delta, confidence)
    noise = noise or NoiseSource()
    included = noise.numpy_generator().random(plan.num_examples) < 0.5
    scores = _privacy_losses(plan, included, optimizer_class, noise)
    right = count_right(guess(scores, numbers), included)
    return AuditResult(
        adversary="white_box",
        claimed_epsilon=claimed,
        delta=delta,
        lower_bound=one_run_lower_bound(plan.num_examples, numbers.total, right, delta, confidence),
        lower_bound_gaussian=gaussian_one_run_lower_bound(plan.num_examples, numbers.total, right, delta, confidence),
        confidence=confidence,
        canaries=plan.num_examples,
        guesses=numbers.total,
        right=right,
        facts={
            "lower_bound_independent": _independent_bound(scores, included, delta, confidence),
            "optimizer": {
                "name": optimizer_class.__name__,
                "steps": plan.steps,
                "sampling_probability": plan.sampling_probability,
                "noise_multiplier": plan.noise_multiplier,
                "l2_norm_clip": plan.l2_norm_clip,
                "clip_mode": plan.clip_mode,
            },
        },
        seconds=round(time.monotonic() - started, 3),
    )


def _independent_bound(
    scores: npt.NDArray[np.float64], included: npt.NDArray[np.bool_], delta: float, confidence: float
) -> float:
    """The bound if canaries are independent and Gaussian: those of a privacy loss above 0 are called included."""
    called = scores > 0
    return clopper_pearson_lower_bound(
        int(np.sum(called & included)),
        int(np.sum(included)),
        int(np.sum(called & ~included)),
        int(np.sum(~included)),
        delta,
        confidence,
        gaussian=True,
    )


def _privacy_losses(
    plan: DPSGD, included: npt.NDArray[np.bool_], optimizer_class: Any, noise: NoiseSource
) -> npt.NDArray[np.float64]:
    """Each canary's privacy loss, float64 [m], summed over the updates that the adversary sees."""
    size = plan.num_examples
    network = tf.keras.Sequential(
        [
            tf.keras.Input([1], dtype=tf.int32),
            tf.keras.layers.Embedding(size, 1, embeddings_initializer="zeros"),
            tf.keras.layers.Flatten(),
        ]
    )
    variables = network.trainable_variables
    adam = {} if issubclass(optimizer_class, DPKerasSGD) else {"beta_1": 0.0}  # whose first moment is the gradient
    optimizer: Any = plan.optimizer(noise, optimizer_class, learning_rate=1.0, **adam)
    slopes = tf.constant(np.where(included, _LOUDNESS * plan.l2_norm_clip, 0.0), tf.float32)

    @private_step(plan)
    def step(indices: tf.Tensor, weights: tf.Tensor) -> None:
        def read_fn(i: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            canaries = indices[tf.minimum(i, tf.shape(indices)[0] - 1)]
            return canaries[:, tf.newaxis], tf.gather(slopes, canaries)

        def chunk_fn(canaries: tf.Tensor, slope: tf.Tensor, weight: tf.Tensor) -> list[tf.Tensor]:
            with optimizer.gradient_tape(network) as tape:
                losses = network(canaries, training=True)[:, 0] * slope * weight
            return optimizer.clipped_gradient_sum(losses, variables, tape)

        optimizer.apply_clipped_sum(accumulate(read_fn, weights, chunk_fn, variables), variables)

    (table,) = variables
    q = plan.sampling_probability
    losses = np.zeros(size)
    for batch in plan.batches(noise):
        before = table.numpy()
        step(tf.constant(batch.indices), tf.constant(batch.weights))
        gradient = optimizer.get_slot(table, "m").numpy() if adam else before - table.numpy()
        observed = gradient[:, 0].astype(np.float64) * plan.expected_batch_size / plan.l2_norm_clip
        losses += privacy_loss(observed, _seen_noise(observed, q), q)
    return losses


def _seen_noise(observed: npt.NDArray[np.float64], sampling_probability: float) -> float:
    """The noise multiplier that a step shows, whatever is claimed: a step without noise then tells all."""
    joined = sampling_probability / 2
    return math.sqrt(max(float(np.var(observed)) - joined * (1 - joined), _LEAST_NOISE**2))
