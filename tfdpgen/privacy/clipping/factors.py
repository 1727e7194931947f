"""By how much each example's gradient is scaled down, given its norms: the clip itself.

- "flat": min(1, C / ||g_i||) (Abadi et al. 2016, algorithm 1).
- "per_layer": each of L layers is clipped on its own to C / sqrt(L), so that all together stay within C (McMahan et al.
  2018, "Learning differentially private recurrent language models", section 3.2).
- "automatic": C / (||g_i|| + 0.01), which is what "flat" becomes, up to a factor, as C goes to 0 (Bu et al. 2023,
  "Automatic clipping", AUTO-S). C then only scales the gradient, and nobody has to tune it.

Each of them bounds the L2 norm of what one example adds to the sum by C.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

import tensorflow as tf

ClipMode = Literal["flat", "per_layer", "automatic"]

_STABILITY = 0.01  # gamma of Bu et al. 2023


def check_clip_mode(clip_mode: str) -> None:
    """Raises a ValueError for a mode that does not exist."""
    if clip_mode not in get_args(ClipMode):
        raise ValueError(f"`clip_mode` should be one of {', '.join(get_args(ClipMode))}; got {clip_mode!r}.")


def clip_factors(
    squared_norms: Sequence[tf.Tensor], l2_norm_clip: float | tf.Tensor, clip_mode: ClipMode
) -> tuple[list[tf.Tensor], tf.Tensor]:
    """The factor of each example in each layer; all are 0 for an example whose gradient is not finite.

    Args:
      squared_norms: for each layer, float [b].
      l2_norm_clip: C.
      clip_mode: see the top of this file.

    Returns:
      (for each layer its factors float [b], norms float [b] over all layers before clipping).
    """
    norms = tf.sqrt(tf.add_n(list(squared_norms)))
    if clip_mode == "per_layer":
        bound = l2_norm_clip / math.sqrt(len(squared_norms))
        factors = [_at_most(bound, tf.sqrt(squares)) for squares in squared_norms]
    elif clip_mode == "automatic":
        factors = [l2_norm_clip / (norms + _STABILITY)]
    else:
        factors = [_at_most(l2_norm_clip, norms)]
    finite = tf.math.is_finite(norms)
    factors = [tf.where(finite, factor, tf.zeros_like(factor)) for factor in factors]
    return factors if clip_mode == "per_layer" else factors * len(squared_norms), norms


def _at_most(bound: float | tf.Tensor, norms: tf.Tensor) -> tf.Tensor:
    """min(1, bound / norms), also for norms of 0 and an infinite bound."""
    return tf.where(norms <= bound, tf.ones_like(norms), bound / norms)
