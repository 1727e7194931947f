"""Trainer: runs the steps of one DP-SGD mechanism, each on one Poisson sample, and once.

    trainer = session.trainer("dp_sgd", [network], loss_fn, learning_rate=1e-3)
    trainer.run(after_step=generator_step, state={"generator": generator})

A step samples every example with the mechanism's probability, computes the losses of those that were sampled, clips
each example's gradient, adds up, adds noise once, divides by the expected batch size and lets the optimizer take its
step. A sample of any size is exact: it is padded with examples of weight 0 to whole chunks of one physical shape,
nothing that was sampled is dropped, and an empty sample is a step of noise. `docs/dp_sgd.md` says why
the clipped sums are exact.

Source: Abadi et al. 2016, algorithm 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfdpgen.data.dataset import Dataset, DataSpec
from tfdpgen.privacy.backup import StepBackup
from tfdpgen.privacy.chunks import ReadFn, accumulate, example_reader, private_step, scaled
from tfdpgen.privacy.isolation import LossFn, Transform, traced, without_values
from tfdpgen.privacy.mechanisms.dp_sgd import DPSGD
from tfdpgen.privacy.noise import ExampleRandomness, NoiseSource


class _Batch:
    """What a loss function gets of one chunk; see `isolation.Batch`."""

    def __init__(
        self, images: tf.Tensor | None, labels: tf.Tensor, features: tf.Tensor, size: int, randomness: ExampleRandomness
    ) -> None:
        self.images, self.labels, self.features = images, labels, features
        self._size, self._randomness = size, randomness

    def normal(self, shape: Sequence[int] = ()) -> tf.Tensor:
        return self._randomness.normal([self._size, *shape])

    def uniform(self, shape: Sequence[int] = ()) -> tf.Tensor:
        return self._randomness.uniform([self._size, *shape])


class Trainer:
    """The steps of one DP-SGD mechanism; made by `PrivateSession.trainer`, which checks what it is given.

    Args:
      mechanism: calibrated.
      networks: what is trained.
      loss_fn: batch -> losses, one an example.
      examples: gives the private examples, after the plan was reserved; called once.
      noise: where noise, samples and the randomness of examples come from.
      backup: (total steps, state) -> what keeps the steps; None where nothing is kept.
      spec: public facts.
      learning_rate, optimizer_class, transform, public_loss_fn, optimizer_arguments: see `PrivateSession.trainer`.
    """

    def __init__(
        self,
        mechanism: DPSGD,
        networks: Sequence[tf.keras.Model],
        loss_fn: LossFn,
        examples: Callable[[], Dataset],
        noise: NoiseSource,
        *,
        backup: Callable[[int, Mapping[str, Any]], StepBackup] | None,
        spec: DataSpec,
        learning_rate: float | Callable[[int], float],
        optimizer_class: type[Any],
        transform: Transform | None,
        public_loss_fn: Callable[[], tf.Tensor] | None,
        optimizer_arguments: Mapping[str, Any],
    ) -> None:
        self._mechanism, self._networks, self._spec = mechanism, list(networks), spec
        self._variables = [variable for network in networks for variable in network.trainable_variables]
        self._loss_fn, self._public_loss_fn = loss_fn, public_loss_fn
        self._transform = transform
        self._learning_rate = learning_rate if callable(learning_rate) else lambda step: learning_rate
        self._optimizer = mechanism.optimizer(
            noise, optimizer_class, learning_rate=self._learning_rate(0), **optimizer_arguments
        )
        # A closure and no attribute: what leads to the examples is the session's.
        self._run = lambda *arguments: self._steps(examples(), noise, backup, *arguments)

    def run(
        self,
        *,
        after_step: Callable[[int], object] | None = None,
        state: Mapping[str, Any] | None = None,
        verbose: int = 1,
    ) -> None:
        """Runs all steps, once, and shows a progress bar without private metrics.

        With a backup that keeps progress, it goes on behind the steps that were claimed before, and repeats none.

        Args:
          after_step: called with the number of each step after it; touches no private example.
          state: what `after_step` changes, as TensorFlow trackables whose variables are made; kept in a backup.
          verbose: 1 shows the bar.

        Raises:
          PlanError: if the mechanism was carried out before.
          BudgetExceededError: if the limit would be exceeded; nothing was spent then.
        """
        self._run(after_step, dict(state or {}), verbose)

    def _steps(
        self,
        dataset: Dataset,
        noise: NoiseSource,
        backup: Callable[[int, Mapping[str, Any]], StepBackup] | None,
        after_step: Callable[[int], object] | None,
        state: Mapping[str, Any],
        verbose: int,
    ) -> None:
        mechanism, optimizer = self._mechanism, self._optimizer
        tf.config.experimental.enable_tensor_float_32_execution(False)  # norms of 10 bits may be too small
        optimizer._create_all_weights(self._variables)  # which Keras leaves to the first step, and a backup restores
        kept = None
        if backup is not None:
            own = {f"network_{number}": network for number, network in enumerate(self._networks)}
            kept = backup(mechanism.steps, {**own, "optimizer": optimizer, **state})
        first = kept.first if kept is not None else 0
        step_fn = without_values(self._step_fn, dataset, noise.examples())
        bar = tf.keras.utils.Progbar(mechanism.steps, verbose=verbose, interval=1.0, unit_name="step")
        if first:
            if verbose:
                print(_going_on(first, mechanism.steps))
            bar.update(first)
        for number, batch in enumerate(mechanism.batches(noise, first, num_present=len(dataset)), first):
            optimizer.learning_rate = self._learning_rate(number)
            without_values(step_fn, tf.constant(batch.indices), tf.constant(batch.weights))
            del batch  # a report of an error in `after_step`, with all variables on the way, does not show it
            if after_step is not None:
                after_step(number)
            if kept is not None:
                kept.after_step(number + 1)
            bar.add(1)

    def _step_fn(self, dataset: Dataset, randomness: ExampleRandomness) -> Callable[[tf.Tensor, tf.Tensor], object]:
        """One private step, compiled: indices int32 and weights float32, both [chunks, physical_batch_size]."""
        mechanism, optimizer, variables = self._mechanism, self._optimizer, self._variables
        read = _reader(dataset, self._transform)
        size = mechanism.physical_batch_size

        def chunk_sums(
            images: tf.Tensor, labels: tf.Tensor, features: tf.Tensor, weights: tf.Tensor
        ) -> list[tf.Tensor]:
            seen = scaled(images) if self._transform is None else None
            batch = _Batch(seen, labels, features, size, randomness)
            with optimizer.gradient_tape(*self._networks) as tape:
                losses = self._loss_fn(batch)
                losses *= weights if losses.shape.rank == 1 else weights[:, None]
            return optimizer.clipped_gradient_sum(losses, variables, tape)

        @private_step(mechanism)
        def step(indices: tf.Tensor, weights: tf.Tensor) -> None:
            sums = accumulate(read(indices), weights, chunk_sums, variables)
            if self._public_loss_fn is not None:
                with optimizer.gradient_tape(*self._networks) as tape:
                    losses = self._public_loss_fn()
                weight = mechanism.expected_batch_size / tf.cast(tf.shape(losses)[0], tf.float32)
                public = optimizer.clipped_gradient_sum(losses, variables, tape)
                sums = [private + weight * part for private, part in zip(sums, public, strict=True)]
            optimizer.apply_clipped_sum(sums, variables)

        return step


def _reader(dataset: Dataset, transform: Transform | None) -> Callable[[tf.Tensor], ReadFn]:
    """Indices [chunks, b] -> a function from i to images, labels and features of the examples of chunk i."""
    examples_of = example_reader(dataset)
    if transform is None:

        def without(indices: tf.Tensor) -> ReadFn:
            read = examples_of(indices)
            return lambda i: (*read(i), tf.zeros([indices.shape[1], 0]))

        return without
    features, labels = (tf.constant(array) for array in features_of(dataset, transform))

    def of_features(indices: tf.Tensor) -> ReadFn:
        def read(i: tf.Tensor) -> tuple[tf.Tensor, ...]:
            chosen = indices[tf.minimum(i, tf.shape(indices)[0] - 1)]
            images = tf.zeros([indices.shape[1], *dataset.spec.image_shape], tf.uint8)
            return images, tf.gather(labels, chosen), tf.gather(features, chosen)

        return read

    return of_features


def features_of(dataset: Dataset, transform: Transform) -> tuple[np.ndarray, np.ndarray]:
    """What the transform gives for all examples, [n, d] in its dtype, block by block, and their labels: private.

    Of a data set without examples, which a shard may be, one example of zeros: padding has to be something.
    """
    signature = [tf.TensorSpec([None, *dataset.spec.image_shape], tf.float32), tf.TensorSpec([None], tf.int64)]
    function = traced(transform, signature, "`transform`")
    output, done = function.outputs[0], 0
    size = max(1, len(dataset))
    features = np.zeros((size, int(output.shape[1])), output.dtype.as_numpy_dtype)
    all_labels = np.zeros(size, np.int64)
    for images, labels in dataset.blocks():
        some = function(tf.constant(images.astype(np.float32) / np.float32(255)), tf.constant(labels))
        features[done : done + len(images)] = np.asarray(some)
        all_labels[done : done + len(images)] = labels
        done += len(images)
    return features, all_labels


def _going_on(first: int, steps: int) -> str:
    """What a training that goes on says of steps that came before."""
    if first >= steps:
        return f"All {steps} steps were executed, or given up, before."
    return f"Going on at step {first + 1} of {steps}; those before it were executed, or given up."
