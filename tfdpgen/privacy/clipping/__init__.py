"""Clipped per-example gradient sums: the only way in which private examples reach a network's weights."""

from tfdpgen.privacy.clipping import (
    conv1d,
    conv2d,
    conv2d_transpose,
    conv3d,
    dense,
    depthwise_conv2d,
    einsum_dense,
    embedding,
    group_normalization,
    layer_normalization,
    multi_head_attention,
    prelu,
    separable_conv2d,
)
from tfdpgen.privacy.clipping.bookkeeping import ClippedSum, PerExampleTape, clipped_gradient_sum
from tfdpgen.privacy.clipping.check import check_network
from tfdpgen.privacy.clipping.factors import ClipMode, check_clip_mode
from tfdpgen.privacy.clipping.gradients import Explicit, PerExampleGradient, Product, Rearranged
from tfdpgen.privacy.clipping.jacobian import JacobianTape, jacobian_clipped_gradient_sum, per_example_gradients
from tfdpgen.privacy.clipping.registry import (
    LayerRule,
    register,
    register_activation,
    register_composite,
    register_per_example,
)

__all__ = [
    "ClipMode",
    "ClippedSum",
    "Explicit",
    "JacobianTape",
    "LayerRule",
    "PerExampleGradient",
    "PerExampleTape",
    "Product",
    "Rearranged",
    "check_clip_mode",
    "check_network",
    "clipped_gradient_sum",
    "conv1d",
    "conv2d",
    "conv2d_transpose",
    "conv3d",
    "dense",
    "depthwise_conv2d",
    "einsum_dense",
    "embedding",
    "group_normalization",
    "jacobian_clipped_gradient_sum",
    "layer_normalization",
    "multi_head_attention",
    "per_example_gradients",
    "prelu",
    "register",
    "register_activation",
    "register_composite",
    "register_per_example",
    "separable_conv2d",
]
