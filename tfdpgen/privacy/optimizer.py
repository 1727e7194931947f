"""DPKerasAdam, DPKerasSGD, DPKerasAdamW: tensorflow-privacy's optimizers, with the same update at plain speed.

    optimizer = DPKerasAdam(l2_norm_clip=1.0, noise_multiplier=1.1, expected_batch_size=256, learning_rate=1e-3)
    with optimizer.gradient_tape(network) as tape:
        losses = loss_fn(labels, network(images)) * weights       # rank 1; weight 0 where an example is padding
    optimizer.minimize(losses, network.trainable_variables, tape=tape)

What differs from the stock classes: the clipped sum comes from book-keeping instead of jacobians; the noise comes from
a `NoiseSource` instead of TensorFlow's global generators; and the divisor can be the expected batch size, which is
public, where the stock classes divide by the realised one. Abadi et al. 2016, algorithm 1; Kingma & Ba 2015; Loshchilov
& Hutter 2019 for AdamW.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import tensorflow as tf

from tfdpgen.installation import tensorflow_privacy
from tfdpgen.privacy.clipping import (
    ClipMode,
    JacobianTape,
    PerExampleTape,
    check_clip_mode,
    clipped_gradient_sum,
    jacobian_clipped_gradient_sum,
)
from tfdpgen.privacy.noise import NoiseSource

_GAUSSIAN_QUERY = tensorflow_privacy("privacy.dp_query.gaussian_query")
_DP_OPTIMIZER_KERAS = tensorflow_privacy("privacy.optimizers.dp_optimizer_keras")


class _GaussianSumQuery(_GAUSSIAN_QUERY.GaussianSumQuery):
    """tensorflow-privacy's query, with noise that no global seed can reach."""

    def __init__(self, l2_norm_clip: float, stddev: float, noise: NoiseSource) -> None:
        super().__init__(l2_norm_clip, stddev)
        self._noise = noise.gaussian()

    def get_noised_result(self, sample_state: Any, global_state: Any) -> tuple[Any, Any, None]:
        """The clipped sum plus Gaussian noise of the declared standard deviation. Accounting is the plan's."""
        sums = tf.nest.flatten(sample_state)
        noise = self._noise.draw([value.shape for value in sums], self._stddev)
        noised = [value + tf.cast(part, value.dtype) for value, part in zip(sums, noise, strict=True)]
        return tf.nest.pack_sequence_as(sample_state, noised), global_state, None


class _PrivateUpdate:
    """What the optimizers share: Keras's update on clipped and noised gradient sums, in front of the stock class.

    Unit of privacy: one example of the losses. Sensitivity of what is noised: `l2_norm_clip`. A batch that is all
    padding still takes a step, of noise alone.

    Args:
      l2_norm_clip: bound on the L2 norm of one example's gradient; greater than 0. Infinity only without noise.
      noise_multiplier: standard deviation of the noise / l2_norm_clip; at least 0.
      num_microbatches: only None: one example, one clip.
      gradient_accumulation_steps: as in the stock class; noise is added at each of them.
      expected_batch_size: the divisor of the noised sum. None divides by the number of losses as the stock class does,
        which is right only for batches of one fixed size.
      clipping: "book_keeping", or "jacobian" for layers without a rule: exact and slow.
      clip_mode: "flat", "per_layer" or "automatic"; see `tfdpgen.privacy.clipping.factors`.
      noise: where noise comes from; by default the operating system.
      **kwargs: the arguments of Keras's legacy optimizer of that name.

    Attributes:
      non_finite_examples: int64, how many examples were left out since their gradient was not finite. It is a private
        number and stays inside the trust boundary.

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
        clip_mode: ClipMode = "flat",
        noise: NoiseSource | None = None,
        **kwargs: Any,
    ) -> None:
        if not l2_norm_clip > 0 or (math.isinf(l2_norm_clip) and (noise_multiplier != 0 or clip_mode != "flat")):
            raise ValueError(f"`l2_norm_clip` should be finite and greater than 0; got {l2_norm_clip!r}.")
        if not (noise_multiplier >= 0 and math.isfinite(noise_multiplier)):
            raise ValueError(f"`noise_multiplier` should be finite and at least 0; got {noise_multiplier!r}.")
        if num_microbatches is not None:
            raise ValueError(
                "`num_microbatches` should be None: averaging examples before the clip lets one example move the sum "
                f"by up to twice the clip, which nobody accounts; got {num_microbatches!r}."
            )
        if expected_batch_size is not None and expected_batch_size < 1:
            raise ValueError(f"`expected_batch_size` should be at least 1; got {expected_batch_size!r}.")
        if clipping not in ("book_keeping", "jacobian"):
            raise ValueError(f'`clipping` should be "book_keeping" or "jacobian"; got {clipping!r}.')
        check_clip_mode(clip_mode)
        stddev = l2_norm_clip * noise_multiplier if noise_multiplier else 0.0
        stock: Any = super()
        stock.__init__(
            _GaussianSumQuery(l2_norm_clip, stddev, noise or NoiseSource()), None, gradient_accumulation_steps, **kwargs
        )
        self._l2_norm_clip = float(l2_norm_clip)
        self._expected_batch_size = expected_batch_size
        self._clipping = clipping
        self._clip_mode: ClipMode = clip_mode
        self.non_finite_examples = tf.Variable(tf.zeros([], tf.int64), trainable=False)

    def gradient_tape(self, *networks: tf.keras.Model) -> PerExampleTape | JacobianTape:
        """The tape to compute the losses of the networks under.

        Raises:
          ValueError: if a network holds a layer that mixes examples or has no clipping rule, or if products are rounded
            to 10 bits (TF32, TensorFlow's default on recent GPUs), so that norms may come out too small.
        """
        if tf.config.list_physical_devices("GPU") and tf.config.experimental.tensor_float_32_execution_enabled():
            raise ValueError(
                "TF32 is enabled, in which norms may come out too small by more than is allowed for. Call "
                "tf.config.experimental.enable_tensor_float_32_execution(False) first."
            )
        return PerExampleTape(*networks) if self._clipping == "book_keeping" else JacobianTape(*networks)

    def clipped_gradient_sum(
        self, losses: tf.Tensor, variables: Sequence[tf.Variable], tape: tf.GradientTape
    ) -> list[tf.Tensor]:
        """The clipped sum of one physical chunk, without noise: private until `apply_clipped_sum` has noised it.

        Args:
          losses: float [b], one loss for each example, 0 for padding; or float [b, views], which are averaged before
            the clip.
          variables: trainable weights of the tape's networks.
          tape: from `gradient_tape`, used once.
        """
        if isinstance(tape, PerExampleTape):
            result = clipped_gradient_sum(tape, losses, variables, self._l2_norm_clip, self._clip_mode)
        elif isinstance(tape, JacobianTape):
            result = jacobian_clipped_gradient_sum(tape, losses, variables, self._l2_norm_clip, self._clip_mode)
        else:
            raise ValueError(
                f"`tape` should come from `optimizer.gradient_tape(network)`; got {type(tape).__name__}, which knows "
                "nothing of examples."
            )
        self.non_finite_examples.assign_add(tf.math.count_nonzero(~tf.math.is_finite(result.norms)))
        return result.sums

    def noised_gradients(self, sums: Sequence[tf.Tensor], divisor: tf.Tensor | float | None = None) -> list[tf.Tensor]:
        """Adds the noise of one logical step to a clipped sum and divides by the expected batch size."""
        if divisor is None and self._expected_batch_size is None:
            raise ValueError(
                "`expected_batch_size` should be given to apply a sum whose number of examples is private."
            )
        query: _GaussianSumQuery = self._dp_sum_query  # pyright: ignore[reportAttributeAccessIssue]
        noised, _, _ = query.get_noised_result(list(sums), None)
        scale: Any = self._expected_batch_size if divisor is None else divisor
        return [value / tf.cast(scale, value.dtype) for value in noised]

    def apply_clipped_sum(self, sums: Sequence[tf.Tensor], variables: Sequence[tf.Variable]) -> tf.Operation:
        """One logical step: noise once, divide by the expected batch size, Adam's update.

        Args:
          sums: clipped sums, added up over the chunks of one batch.
          variables: in the order of `sums`.
        """
        self._was_dp_gradients_called = True
        stock: Any = self
        return stock.apply_gradients(zip(self.noised_gradients(sums), variables, strict=True))

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
        divisor = tf.shape(loss)[0] if self._expected_batch_size is None else None
        return list(zip(self.noised_gradients(sums, divisor), variables, strict=True))

    def get_gradients(self, loss: Any, params: Any) -> Any:
        """Refused: the graph-mode path of the stock class would go round this class's clipping and noise."""
        raise NotImplementedError("Use `minimize` with a tape from `gradient_tape`, or `apply_clipped_sum`.")


_Adam: Any = tf.keras.optimizers.legacy.Adam


class _DecoupledAdam(_Adam):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019, algorithm 2).

    Args:
      weight_decay: each step takes `learning_rate * weight_decay` of every weight off it.
      **kwargs: the arguments of `tf.keras.optimizers.legacy.Adam`.
    """

    def __init__(self, weight_decay: float = 0.004, **kwargs: Any) -> None:
        if not weight_decay >= 0:
            raise ValueError(f"`weight_decay` should be at least 0; got {weight_decay!r}.")
        super().__init__(**kwargs)
        self._weight_decay = weight_decay

    def _resource_apply_dense(self, grad: tf.Tensor, var: tf.Variable, apply_state: Any = None) -> Any:
        rate = self._decayed_lr(var.dtype.base_dtype)
        with tf.control_dependencies([var.assign_sub(rate * self._weight_decay * var)]):
            return super()._resource_apply_dense(grad, var, apply_state)


_ARGUMENTS = (_PrivateUpdate.__doc__ or "").partition("\n")[2]

# tensorflow-privacy's own optimizers are factories around classes of this kind, which are what can be subclassed.
_stock = _DP_OPTIMIZER_KERAS.make_keras_generic_optimizer_class
_StockAdam: Any = _stock(tf.keras.optimizers.legacy.Adam)
_StockSGD: Any = _stock(tf.keras.optimizers.legacy.SGD)
_StockAdamW: Any = _stock(_DecoupledAdam)


class DPKerasAdam(_PrivateUpdate, _StockAdam):
    """Adam on clipped and noised gradient sums; a drop-in for `DPKerasAdamOptimizer` with `gradient_tape`."""

    __doc__ = f"""{__doc__}{_ARGUMENTS}"""


class DPKerasSGD(_PrivateUpdate, _StockSGD):
    """SGD on clipped and noised gradient sums; a drop-in for `DPKerasSGDOptimizer` with `gradient_tape`."""

    __doc__ = f"""{__doc__}{_ARGUMENTS}"""


class DPKerasAdamW(_PrivateUpdate, _StockAdamW):
    """AdamW on clipped and noised gradient sums: Adam with decoupled `weight_decay`, which sees no example."""

    __doc__ = f"""{__doc__}{_ARGUMENTS}"""
