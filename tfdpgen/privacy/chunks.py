"""How a private step takes in a logical batch of any size: chunk by chunk, in one loop of one graph.

    examples_of = example_reader(dataset)                # any `Dataset`, in memory or on disk

    @private_step(plan)                                  # traced once, for draws of any number of chunks
    def step(indices, weights):                          # int32, float32 [chunks, physical_batch_size]
        def chunk_fn(images, labels, weights):           # uint8 [b, h, w, c], int64 [b], float32 [b]
            ...
            return optimizer.clipped_gradient_sum(losses * weights, variables, tape)

        sums = accumulate(examples_of(indices), weights, chunk_fn, variables)
        optimizer.apply_clipped_sum(sums, variables)     # noise, once for all chunks

Memory is that of one chunk's activations, whatever the size of the logical batch or of the data. Examples in memory are
gathered in the graph, on whatever device it runs on. Examples on disk are read by the host, each chunk while the one
before it is computed, so that at most two chunks of examples are there at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from tfdpgen.data.dataset import Dataset, Examples, LabeledDataset
from tfdpgen.privacy import DPSGD

ReadFn = Callable[[tf.Tensor], tuple[tf.Tensor, ...]]
ChunkFn = Callable[..., Sequence[tf.Tensor]]


def private_step(plan: DPSGD) -> Callable[[Callable[[tf.Tensor, tf.Tensor], None]], Callable]:
    """Decorator: compiles a step for the plan's batches, once for any number of chunks."""
    shape = [None, plan.physical_batch_size]
    signature = [tf.TensorSpec(shape, tf.int32), tf.TensorSpec(shape, tf.float32)]
    return tf.function(input_signature=signature, autograph=False)


def example_reader(dataset: Dataset) -> Callable[[tf.Tensor], ReadFn]:
    """A function for use in graphs: indices int32 [chunks, b] -> a function from i to the examples of chunk i.

    The examples are images uint8 [b, h, w, c] and labels int64 [b]. With i = chunks there are none to be read, and what
    comes is of the same shapes and means nothing.
    """
    return _gather(dataset) if isinstance(dataset, LabeledDataset) else _read_on_host(dataset)


def _gather(dataset: LabeledDataset) -> Callable[[tf.Tensor], ReadFn]:
    """Examples from tensors of all images and labels."""
    # TensorFlow gathers no bytes on a GPU, and would copy all of them to the CPU for it: hence words of 8 bytes.
    pixels = math.prod(dataset.spec.image_shape)
    size = max(1, len(dataset))  # a shard may be empty, and padding has to be something
    padded, labels = np.zeros((size, -(-pixels // 8) * 8), np.uint8), np.zeros(size, np.int64)
    padded[: len(dataset), :pixels], labels[: len(dataset)] = dataset.images.reshape(-1, pixels), dataset.labels
    words, labels = tf.constant(padded.view(np.int64)), tf.constant(labels)
    width = padded.shape[1]
    del padded

    def examples_of(indices: tf.Tensor) -> ReadFn:
        def read_fn(i: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            chosen = indices[tf.minimum(i, tf.shape(indices)[0] - 1)]
            padded_images = tf.reshape(tf.bitcast(tf.gather(words, chosen), tf.uint8), [-1, width])
            return tf.reshape(padded_images[:, :pixels], [-1, *dataset.spec.image_shape]), tf.gather(labels, chosen)

        return read_fn

    return examples_of


def _read_on_host(dataset: Dataset) -> Callable[[tf.Tensor], ReadFn]:
    """Examples from a data set that is not in memory."""

    def read(indices: np.ndarray, i: np.ndarray) -> Examples:
        if i == len(indices):
            size = indices.shape[1]
            return np.zeros((size, *dataset.spec.image_shape), np.uint8), np.zeros(size, np.int64)
        positions, places = np.unique(indices[i], return_inverse=True)  # padding is one example, many times
        images, labels = dataset.examples(positions)
        return images[places], labels[places]

    def examples_of(indices: tf.Tensor) -> ReadFn:
        def read_fn(i: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            # Stateless, or TensorFlow would let it wait for the chunk that is being computed.
            images, labels = tf.numpy_function(read, [indices, i], [tf.uint8, tf.int64], stateful=False)
            images.set_shape([indices.shape[1], *dataset.spec.image_shape])
            labels.set_shape([indices.shape[1]])
            return images, labels

        return read_fn

    return examples_of


def accumulate(read_fn: ReadFn, weights: tf.Tensor, chunk_fn: ChunkFn, shapes: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Adds up `chunk_fn(*examples, weights)`, a list of tensors, over the chunks of one draw.

    Args:
      read_fn: chunk number -> its examples: images uint8 [b, h, w, c] and labels int64 [b] where it comes from
        `example_reader`. It is called for a chunk while the one before is computed, and once more after the last.
      weights: float32 [chunks, b] with chunks >= 1; 0 where an example is padding.
      chunk_fn: examples and weights float32 [b] of a chunk -> tensors shaped like `shapes`.
      shapes: tensors or variables of the results' shapes and dtypes.
    """

    def body(i: tf.Tensor, examples: tuple[tf.Tensor, ...], sums: list[tf.Tensor]) -> tuple:
        following = read_fn(i + 1)
        parts = chunk_fn(*examples, weights[i])
        return i + 1, following, [total + part for total, part in zip(sums, parts, strict=True)]

    start = (tf.constant(0), read_fn(tf.constant(0)), [tf.zeros_like(shape) for shape in shapes])
    chunks = tf.shape(weights)[0]
    *_, sums = tf.while_loop(lambda i, *_: i < chunks, body, start, parallel_iterations=1)
    return sums


def scaled(images: tf.Tensor) -> tf.Tensor:
    """uint8 images as float32 in [0, 1]."""
    return tf.cast(images, tf.float32) / np.float32(255)
