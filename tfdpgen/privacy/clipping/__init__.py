"""Clipped per-example gradient sums: the only way in which private rows reach a network's weights."""

from tfdpgen.privacy.clipping import conv2d, conv2d_transpose, dense
from tfdpgen.privacy.clipping.bookkeeping import ClippedSum, PerExampleTape, clipped_gradient_sum
from tfdpgen.privacy.clipping.factors import ClipMode, check_clip_mode
from tfdpgen.privacy.clipping.gradients import Explicit, PerExampleGradient, Product
from tfdpgen.privacy.clipping.jacobian import JacobianTape, jacobian_clipped_gradient_sum, per_example_gradients
from tfdpgen.privacy.clipping.registry import LayerRule, check_network, register, register_per_example

__all__ = [
    "ClipMode",
    "ClippedSum",
    "Explicit",
    "JacobianTape",
    "LayerRule",
    "PerExampleGradient",
    "PerExampleTape",
    "Product",
    "check_clip_mode",
    "check_network",
    "clipped_gradient_sum",
    "conv2d",
    "conv2d_transpose",
    "dense",
    "jacobian_clipped_gradient_sum",
    "per_example_gradients",
    "register",
    "register_per_example",
]
