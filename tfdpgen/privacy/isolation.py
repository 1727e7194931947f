"""Checks, on public noise and before any budget is spent, that a function of a batch treats each example alone.

    check_transform(transform, spec)         # images, labels -> features, as a session runs it
    check_loss(loss_fn, spec)                # batch -> losses, as a trainer runs it

What a method hands to a session is traced: it sees symbolic tensors, so that no private value can be kept or printed by
Python code. In the graph that comes of it, operations with side effects (assignments, prints, Python functions, files)
and operations that draw random numbers are refused. What is left is run on images of noise: the output of an example
must not change when the others of its batch are exchanged or left out, or when it moves to another place; for a loss,
neither with the weights that there are nor with others. Some of these images are dark, black, white or alike, and
labels come up more than once, so that a largest pixel, a mean of a class or a distance to a neighbour is noticed.

This finds mistakes, not malice: a function may behave otherwise on other images, or in batches of another size. The
clip afterwards bounds what an example adds; only the sum's sensitivity rests on the examples being apart.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tensorflow.python.framework import op_def_registry  # no public way leads to an operation's definition

from tfdpgen.data.dataset import DataSpec

_SIZE = 12  # examples in a check
_HARMLESS = frozenset(
    {
        "ReadVariableOp",
        "ResourceGather",
        "VarHandleOp",
        "Placeholder",
        "PartitionedCall",
        "StatefulPartitionedCall",
        "If",
        "While",
        "Case",
    }
)  # operations that count as stateful and change nothing
# Stateless or not. What TensorFlow has beside these and has no state computes its outputs from its inputs.
_RANDOM = re.compile("Random|Rng|Multinomial|Shuffle|Stochastic|Truncated.*Normal|SampleDistorted|SobolSample")
_OUTSIDE = re.compile(
    "PyFunc|CustomCall|CustomAggregator|Dataset|File|Debug|Summary|Infeed|Outfeed|Send|Recv|HostCast|CopyHost|CopyFrom|"
    "AllReduce|ReduceScatter|XlaLaunch|RemoteCall|Print"
)  # which run what is not in the graph, or hand tensors to it


class Batch(Protocol):
    """What a loss function gets; its tensors are private and symbolic.

    Attributes:
      images: float32 [b, h, w, c] in [0, 1]; None where the trainer has a `transform`.
      labels: int64 [b].
      features: float [b, d], what the trainer's `transform` gives, in its dtype; of no width where it has none.
    """

    images: tf.Tensor
    labels: tf.Tensor
    features: tf.Tensor

    def normal(self, shape: Sequence[int] = ()) -> tf.Tensor:
        """Standard normals of each example: float32 [b, *shape]. Secret, like the noise."""
        ...

    def uniform(self, shape: Sequence[int] = ()) -> tf.Tensor:
        """Uniforms in [0, 1) of each example: float32 [b, *shape]. Secret, like the noise."""
        ...


Transform = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
LossFn = Callable[[Any], tf.Tensor]


def traced(function: Callable[..., tf.Tensor], signature: Sequence[tf.TensorSpec], what: str) -> Any:
    """The function as a graph, in which nothing is kept, printed or drawn at random.

    Args:
      function: of tensors.
      signature: of its arguments.
      what: what an error calls it, such as "`transform`".

    Raises:
      ValueError: names the operation that is refused.
    """
    made = tf.function(function, autograph=False).get_concrete_function(*signature)
    for operation in _operations(made.graph.as_graph_def()):
        if _RANDOM.search(operation):
            raise ValueError(
                f"{what} draws random numbers ({operation}) from a generator that a public seed reaches, by the place "
                "of an example in its batch: one more example then changes what the others draw. In a `loss_fn` use "
                "`batch.normal` or `batch.uniform`, which draw for each example and in secret; a `transform` cannot "
                "draw."
            )
        definition = op_def_registry.get(operation)
        is_stateful = operation not in _HARMLESS and (definition is None or definition.is_stateful)
        if is_stateful or _OUTSIDE.search(operation):
            raise ValueError(
                f"{what} should be a function of its arguments alone; it runs {operation}, which keeps or writes what "
                "it sees, or calls Python on private tensors. Leave it out."
            )
    return made


class PrivateComputationError(RuntimeError):
    """What a method gave has failed on private examples; what TensorFlow said of it may quote them, and is not told."""


def without_values(function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """Calls a function of private examples; of an error of TensorFlow's, whose text may quote them, leaves the type.

    Raises:
      PrivateComputationError: in the place of such an error, which nothing leads back to.
    """
    try:
        return function(*arguments, **named)
    except tf.errors.OpError as error:
        failed = type(error).__name__
    raise PrivateComputationError(
        f"TensorFlow gave up a computation on private examples ({failed}). Its message may quote them, and is left "
        "out. On public images of the same shape, such as random ones, the same training shows it."
    )


def _operations(graph: Any) -> Iterator[str]:
    """The types of all operations of a graph, those in its functions included."""
    for node in graph.node:
        yield node.op
    for function in graph.library.function:
        for node in function.node_def:
            yield node.op


class _PublicBatch:
    """A batch of noise whose examples keep what they drew, wherever in the batch they are.

    What an example draws goes into a graph as a constant; what a function draws itself would be an operation there.
    """

    def __init__(self, seeds: npt.NDArray[np.integer], features: tf.Tensor | None) -> None:
        self.images: Any = None
        self.labels: Any = None
        self.features: Any = features
        self._seeds, self._draws = seeds, 0

    def normal(self, shape: Sequence[int] = ()) -> tf.Tensor:
        return self._drawn(lambda rng: rng.normal(size=shape))

    def uniform(self, shape: Sequence[int] = ()) -> tf.Tensor:
        return self._drawn(lambda rng: rng.random(shape))

    def _drawn(self, draw: Callable[[np.random.Generator], Any]) -> tf.Tensor:
        self._draws += 1
        parts = [draw(np.random.default_rng([int(seed), self._draws])) for seed in self._seeds]
        return tf.constant(np.stack(parts), tf.float32)


def check_transform(transform: Transform, spec: DataSpec) -> tf.TensorSpec:
    """Refuses a transform that mixes examples, keeps what it sees, or draws random numbers.

    Returns:
      Shape [None, d] and dtype of the features.

    Raises:
      ValueError: what is wrong, a shape other than [n, d], or a dtype that is no float.
    """
    function = traced(transform, _signature(spec), "`transform`")
    shape, dtype = function.outputs[0].shape, function.outputs[0].dtype
    if shape.rank != 2 or shape[1] is None or not dtype.is_floating:
        raise ValueError(
            f"`transform` should give features [n, d], floats with a static d; got {dtype.name} of shape {shape}."
        )
    images, labels, _ = _noise(spec)
    _check_apart(lambda chosen: function(tf.gather(images, chosen), tf.gather(labels, chosen)), "`transform`")
    return tf.TensorSpec([None, int(shape[1])], dtype)


def check_loss(loss_fn: LossFn, spec: DataSpec, features_spec: tf.TensorSpec | None = None) -> None:
    """Refuses a loss that mixes examples, keeps what it sees, draws random numbers itself, or is no number an example.

    Args:
      loss_fn: batch -> losses [b], or [b, views].
      spec: public facts.
      features_spec: of what the trainer's `transform` gives, if there is one.

    Raises:
      ValueError: what is wrong.
    """
    images, labels, features = _noise(spec, features_spec)
    weights: dict[Any, tf.Variable] = {}
    is_traced: list[bool] = []

    def losses(chosen: tf.Tensor) -> tf.Tensor:
        numbers = np.array(chosen)

        def function(images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
            seen = _PublicBatch(numbers, tf.gather(features, chosen) if features is not None else None)
            seen.images, seen.labels = images if features is None else None, labels
            return tf.convert_to_tensor(loss_fn(seen))

        examples = (tf.gather(images, chosen), tf.gather(labels, chosen))
        if not is_traced:  # once: what is compared afterwards is computed without a graph, which is faster
            signature = [tf.TensorSpec(value.shape, value.dtype) for value in examples]
            made = traced(function, signature, "`loss_fn`")
            weights.update((variable.ref(), variable) for variable in made.variables)
            is_traced.append(True)
        result = function(*examples)
        if result.shape.rank not in (1, 2) or result.shape[0] != len(numbers):
            raise ValueError(
                f"`loss_fn` should give one loss an example, [b], or one a view of it, [b, views], for a batch of "
                f"{len(numbers)}; got shape {result.shape}. Do not average over the batch: the session adds up."
            )
        return result

    _check_apart(losses, "`loss_fn`")
    with _other_weights(weights):  # terms that are alike for all examples at the start need not be so later
        _check_apart(losses, "`loss_fn`")


def _signature(spec: DataSpec) -> list[tf.TensorSpec]:
    return [tf.TensorSpec([None, *spec.image_shape], tf.float32), tf.TensorSpec([None], tf.int64)]


def _noise(spec: DataSpec, features_spec: tf.TensorSpec | None = None) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor | None]:
    """Images of noise, labels, and features where there are any, for twice a batch; the second one is the brighter."""
    rng = np.random.default_rng(0)
    levels = np.concatenate([np.resize([0.5, 0.3, 0.05, 0.05, 0.0], _SIZE), np.resize([1.0, 0.6, 1.0, 0.0], _SIZE)])
    images = rng.random((2 * _SIZE, *spec.image_shape), np.float32)
    images *= levels[:, None, None, None].astype(np.float32)
    images[6] = images[0]
    images[_SIZE : _SIZE + 6 : 2] = 1.0  # white
    labels = np.concatenate([np.resize([0, 0, 1], _SIZE), np.resize([0, 1, 2, 0], _SIZE)]) % spec.num_classes
    if features_spec is None:
        return tf.constant(images), tf.constant(labels), None
    shape: Any = [2 * _SIZE, features_spec.shape[1]]
    features = tf.constant(levels[:, None] * rng.normal(size=shape), features_spec.dtype)
    return tf.constant(images), tf.constant(labels), features


@contextlib.contextmanager
def _other_weights(weights: Mapping[Any, tf.Variable]) -> Iterator[None]:
    """Moves weights away from where they start, at random, and puts them back."""
    rng = np.random.default_rng(1)
    kept = [(variable, variable.numpy()) for variable in weights.values() if variable.dtype.is_floating]
    try:
        for variable, value in kept:
            variable.assign(value + 0.1 * rng.normal(size=value.shape))
        yield
    finally:
        for variable, value in kept:
            variable.assign(value)


def _check_apart(function: Callable[[tf.Tensor], tf.Tensor], what: str) -> None:
    """Holds the outputs of examples (by number) against those of the same ones elsewhere, among others and alone."""
    first, rest = np.arange(_SIZE), np.arange(_SIZE, 2 * _SIZE)
    here = np.asarray(function(tf.constant(first))).astype(np.float32)
    if not here.size:  # features of no width, for a mechanism that needs labels alone
        return
    lengths = np.abs(np.where(np.isfinite(here), here, 0.0))
    tolerance = 1e-4 * np.maximum(lengths.max(axis=0), 0.01 * lengths.max())  # of each column; rounding is of all
    for others, kept in (
        (rest[: _SIZE // 2], first[: _SIZE // 2]),
        (rest[: _SIZE // 2], first[1::2]),
        (rest[:0], first[_SIZE // 2 :]),  # a batch of another size
        (rest[:0], first[:1]),
    ):
        there = np.asarray(function(tf.constant(np.concatenate([others, kept])))).astype(np.float32)[len(others) :]
        if not np.allclose(there, here[kept], rtol=1e-3, atol=tolerance + 1e-12, equal_nan=True):
            raise ValueError(
                f"{what} should treat each example alone; what it gives for an example changed when others of the "
                "batch were exchanged or left out. Average, normalise and compare within an example, never over the "
                "batch, and make nothing depend on its size."
            )
