"""Runs a plan: exactly its steps, each on one Poisson draw, and once.

make_slots(optimizer, variables)
run_plan(plan, noise, step, state={"network": network, "optimizer": optimizer}, backup=backup, verbose=1)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from tfdpgen.privacy import DPSGD, Backup, NoiseSource


def run_plan(
    plan: DPSGD,
    noise: NoiseSource,
    step_fn: Callable[[tf.Tensor, tf.Tensor], object],
    *,
    after_step_fn: Callable[[int], object] = lambda step: None,
    state: Mapping[str, Any],
    backup: Backup | None,
    verbose: int,
) -> None:
    """Runs exactly the plan's steps, each on one Poisson draw, and shows a progress bar.

    With a backup that keeps progress, it goes on behind the steps that were claimed before, and executes no step twice.

    Args:
      plan: calibrated.
      noise: of the draws.
      step_fn: called with indices int32 and weights float32, both [chunks, physical_batch_size].
      after_step_fn: called with the number of each step after it; touches no private row.
      state: all that the steps change, as TensorFlow trackables whose variables are made.
      backup: where the state is kept.
      verbose: 1 shows the bar. It counts steps and shows nothing of the rows.
    """
    first = backup.start(plan, **state) if backup is not None else 0
    bar = tf.keras.utils.Progbar(plan.steps, verbose=verbose, interval=1.0, unit_name="step")
    if first:
        if verbose:
            print(f"Going on at step {first + 1} of {plan.steps}; those before it were executed, or given up.")
        bar.update(first)
    for number, batch in enumerate(plan.batches(noise, first), first):
        step_fn(tf.constant(batch.indices), tf.constant(batch.weights))
        after_step_fn(number)
        if backup is not None:
            backup.after_step(number + 1)
        bar.add(1)


def make_slots(optimizer: Any, variables: Sequence[tf.Variable]) -> None:
    """Makes the optimizer's variables now, which Keras leaves to its first step, so that they can be restored."""
    optimizer._create_all_weights(variables)
