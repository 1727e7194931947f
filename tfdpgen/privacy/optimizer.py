"""DPKerasAdam: tensorflow-privacy's DPKerasAdamOptimizer, with the same update at the speed of plain Adam.

    optimizer = DPKerasAdam(l2_norm_clip=1.0, noise_multiplier=1.1, expected_batch_size=256, learning_rate=1e-3)
    with optimizer.gradient_tape(network) as tape:
        losses = loss_fn(labels, network(images)) * weights       # rank 1; weight 0 where a row is padding
    optimizer.minimize(losses, network.trainable_variables, tape=tape)

What differs from the stock class: the clipped sum comes from book-keeping instead of jacobians; the noise comes from a
`NoiseSource` instead of TensorFlow's global generators; and the divisor can be the expected batch size, which is
public, where the stock class divides by the realised one. Abadi et al. 2016, algorithm 1; Kingma & Ba 2015.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import tensorflow as tf
from tensorflow_privacy.privacy.dp_query import gaussian_query
from tensorflow_privacy.privacy.optimizers import dp_optimizer_keras

from tfdpgen.privacy.clipping import (
    PerExampleTape,
    check_network,
    clipped_gradient_sum,
    jacobian_clipped_gradient_sum,
)
from tfdpgen.privacy.noise import NoiseSource

# `DPKerasAdamOptimizer` is a factory around a class of this kind; the class is what can be subclassed.
_StockDPKerasAdam: type = dp_optimizer_keras.make_keras_generic_optimizer_class(tf.keras.optimizers.legacy.Adam)


class _GaussianSumQuery(gaussian_query.GaussianSumQuery):
    """tensorflow-privacy's query, with noise that no global seed can reach."""

    def __init__(self, l2_norm_clip: float, stddev: float, noise: NoiseSource) -> None:
        super().__init__(l2_norm_clip, stddev)
        self._generator = noise.tensorflow_generator()

    def get_noised_result(self, sample_state: Any, global_state: Any) -> tuple[Any, Any, None]:
        """The clipped sum plus Gaussian noise of the declared standard deviation. Accounting is the plan's."""
        noised = tf.nest.map_structure(
            lambda value: value + self._generator.normal(tf.shape(value), 0.0, global_state.stddev, value.dtype),
            sample_state,
        )
        return noised, global_state, None


class DPKerasAdam(_StockDPKerasAdam):
    """Adam on clipped and noised gradient sums; a drop-in for `DPKerasAdamOptimizer` with `gradient_tape`.

    Unit of privacy: one row of the loss vector. Sensitivity of what is noised: `l2_norm_clip`. A batch that is all
    padding still takes a step, of noise alone.

    Args:
      l2_norm_clip: bound on the L2 norm of one example's gradient; greater than 0. Infinity only without noise.
      noise_multiplier: standard deviation of the noise / l2_norm_clip; at least 0.
      num_microbatches: only None: one example, one clip.
      gradient_accumulation_steps: as in the stock class; noise is added at each of them.
      expected_batch_size: the divisor of the noised sum. None divides by the length of the loss vector as the stock
        class does, which is right only for batches of one fixed size.
      clipping: "book_keeping", or "jacobian" for layers without a rule: exact and slow.
      noise: where noise comes from; by default the operating system.
      **kwargs: the arguments of `tf.keras.optimizers.legacy.Adam`.

    Raises:
      ValueError: for arguments out of range.
    """

    def __init__(
        self,
        l2_norm_clip: float,
        noise_multiplier: float,
        num_microbatches: int | None = None,
        gradient_accumulation_steps: int = 1,
        *,
        expected_batch_size: int | None = None,
        clipping: Literal["book_keeping", "jacobian"] = "book_keeping",
        noise: NoiseSource | None = None,
        **kwargs: Any,
    ) -> None:
        if not l2_norm_clip > 0 or (math.isinf(l2_norm_clip) and noise_multiplier != 0):
            raise ValueError(f"`l2_norm_clip` should be finite and greater than 0; got {l2_norm_clip!r}.")
        if not (noise_multiplier >= 0 and math.isfinite(noise_multiplier)):
            raise ValueError(f"`noise_multiplier` should be finite and at least 0; got {noise_multiplier!r}.")
        if num_microbatches is not None:
            raise ValueError(
                "`num_microbatches` should be None: averaging examples before the clip lets one row move the sum by "
                f"up to twice the clip, which nobody accounts; got {num_microbatches!r}."
            )
        if expected_batch_size is not None and expected_batch_size < 1:
            raise ValueError(f"`expected_batch_size` should be at least 1; got {expected_batch_size!r}.")
        if clipping not in ("book_keeping", "jacobian"):
            raise ValueError(f'`clipping` should be "book_keeping" or "jacobian"; got {clipping!r}.')
        stddev = l2_norm_clip * noise_multiplier if noise_multiplier else 0.0
        query = _GaussianSumQuery(l2_norm_clip, stddev, noise or NoiseSource())
        super().__init__(query, None, gradient_accumulation_steps, **kwargs)
        self._l2_norm_clip = float(l2_norm_clip)
        self._expected_batch_size = expected_batch_size
        self._clipping = clipping

    def gradient_tape(self, *networks: tf.keras.Model) -> tf.GradientTape:
        """The tape to compute the losses of the networks under.

        Raises:
          ValueError: if a network holds a layer that mixes examples or has no clipping rule.
        """
        if self._clipping == "book_keeping":
            return PerExampleTape(*networks)
        for network in networks:
            check_network(network, needs_rules=False)
        return tf.GradientTape()

    def clipped_gradient_sum(
        self, losses: tf.Tensor, variables: Sequence[tf.Variable], tape: tf.GradientTape
    ) -> list[tf.Tensor]:
        """The clipped sum of one physical chunk, without noise: private until `apply_clipped_sum` has noised it.

        Args:
          losses: float [b], one loss for each example; 0 for padding.
          variables: trainable weights of the tape's network.
          tape: from `gradient_tape`, used once.
        """
        if self._clipping == "jacobian":
            return jacobian_clipped_gradient_sum(tape, losses, variables, self._l2_norm_clip)
        if not isinstance(tape, PerExampleTape):
            raise ValueError(
                f"`tape` should come from `optimizer.gradient_tape(network)`; got {type(tape).__name__}. "
                'An ordinary tape works with clipping="jacobian", which is slow.'
            )
        return clipped_gradient_sum(tape, losses, variables, self._l2_norm_clip)

    def noised_gradients(self, sums: Sequence[tf.Tensor], divisor: tf.Tensor | float | None = None) -> list[tf.Tensor]:
        """Adds the noise of one logical step to a clipped sum and divides by the expected batch size."""
        if divisor is None and self._expected_batch_size is None:
            raise ValueError("`expected_batch_size` should be given to apply a sum whose number of rows is private.")
        noised, self._global_state, _ = self._dp_sum_query.get_noised_result(list(sums), self._global_state)
        scale: Any = self._expected_batch_size if divisor is None else divisor
        return [value / tf.cast(scale, value.dtype) for value in noised]

    def apply_clipped_sum(self, sums: Sequence[tf.Tensor], variables: Sequence[tf.Variable]) -> tf.Operation:
        """One logical step: noise once, divide by the expected batch size, Adam's update.

        Args:
          sums: clipped sums, added up over the chunks of one batch.
          variables: in the order of `sums`.
        """
        self._was_dp_gradients_called = True
        return self.apply_gradients(zip(self.noised_gradients(sums), variables, strict=True))

    def _compute_gradients(
        self, loss: Any, var_list: Any, grad_loss: Any = None, tape: tf.GradientTape | None = None
    ) -> list[tuple[tf.Tensor, tf.Variable]]:
        """What `minimize` calls: clipped, noised and divided gradients."""
        if callable(loss) or tape is None:
            raise ValueError(
                "`loss` should be a vector of losses computed under a `tape` from `optimizer.gradient_tape(network)`; "
                "a callable loss does not say which network's examples are to be clipped."
            )
        self._was_dp_gradients_called = True
        variables = tf.nest.flatten(var_list() if callable(var_list) else var_list)
        sums = self.clipped_gradient_sum(loss, variables, tape)
        divisor = tf.size(loss) if self._expected_batch_size is None else None
        return list(zip(self.noised_gradients(sums, divisor), variables, strict=True))

    def get_gradients(self, loss: Any, params: Any) -> Any:
        """Refused: the graph-mode path of the stock class would go round this class's clipping and noise."""
        raise NotImplementedError("Use `minimize` with a tape from `gradient_tape`, or `apply_clipped_sum`.")
