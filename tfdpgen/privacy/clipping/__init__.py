"""Clipped per-example gradient sums: the only way in which private rows reach a network's weights."""

from tfdpgen.privacy.clipping import conv2d, conv2d_transpose, dense
from tfdpgen.privacy.clipping.bookkeeping import PerExampleTape, clipped_gradient_sum, per_example_norms
from tfdpgen.privacy.clipping.jacobian import jacobian_clipped_gradient_sum, per_example_gradients
from tfdpgen.privacy.clipping.registry import LayerRule, check_network, register

__all__ = [
    "LayerRule",
    "PerExampleTape",
    "check_network",
    "clipped_gradient_sum",
    "conv2d",
    "conv2d_transpose",
    "dense",
    "jacobian_clipped_gradient_sum",
    "per_example_gradients",
    "per_example_norms",
    "register",
]
