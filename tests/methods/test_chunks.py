"""Chunks: one trace and one noise for a draw of any size, the same sums in any chunks, from memory and from disk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
from tensorflow.python.framework import kernels

from tfdpgen.data import DataSpec, LabeledDataset, RecordDataset
from tfdpgen.data.dataset import Dataset
from tfdpgen.privacy import DPSGD, PoissonBatch
from tfdpgen.privacy.chunks import accumulate, example_reader, private_step, scaled
from tfdpgen.privacy.optimizer import DPKerasSGD

SPEC = DataSpec((6, 6, 1), 3)
NUM_EXAMPLES = 200


class Source:
    """Examples in a list that keeps what is asked for."""

    def __init__(self, dataset: LabeledDataset) -> None:
        self.dataset = dataset
        self.asked: list[list[int]] = []

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, position: int) -> Any:
        return {"image": self.dataset.images[position], "label": self.dataset.labels[position]}

    def __getitems__(self, positions: list[int]) -> list[Any]:
        self.asked.append(positions)
        return [self[position] for position in positions]


@pytest.fixture(scope="module")
def examples() -> LabeledDataset:
    rng = np.random.default_rng(0)
    return LabeledDataset(
        rng.integers(256, size=(NUM_EXAMPLES, 6, 6, 1), dtype=np.uint8), np.arange(NUM_EXAMPLES) % 3, SPEC
    )


@pytest.fixture
def on_disk(examples: LabeledDataset) -> RecordDataset:
    dataset = RecordDataset(Source(examples), SPEC)
    dataset._source.asked.clear()
    return dataset


@pytest.fixture(params=["memory", "disk"])
def dataset(request: pytest.FixtureRequest, examples: LabeledDataset, on_disk: RecordDataset) -> Dataset:
    return examples if request.param == "memory" else on_disk


def batch_of(drawn: list[int], chunk: int) -> PoissonBatch:
    """A draw of given examples, padded as a plan pads it."""
    chunks = max(1, -(-len(drawn) // chunk))
    indices, weights = np.zeros(chunks * chunk, np.int32), np.zeros(chunks * chunk, np.float32)
    indices[: len(drawn)], weights[: len(drawn)] = drawn, 1
    return PoissonBatch(indices.reshape(chunks, chunk), weights.reshape(chunks, chunk))


class Trainer:
    """A small convolutional network, its step for draws in chunks of any number, and what the step added up."""

    def __init__(self, dataset: Dataset, chunk: int, noise_multiplier: float = 0.0) -> None:
        tf.keras.utils.set_random_seed(5)
        layers = tf.keras.layers
        self.network = tf.keras.Sequential(
            [
                layers.Input((6, 6, 1)),
                layers.Conv2D(4, 3, strides=2),
                layers.LeakyReLU(),
                layers.Flatten(),
                layers.Dense(3),
            ]
        )
        self.variables = self.network.trainable_variables
        self.optimizer = DPKerasSGD(0.5, noise_multiplier, expected_batch_size=16, learning_rate=1.0)
        self.sums = [tf.Variable(tf.zeros_like(variable)) for variable in self.variables]
        self.steps_traced = 0
        self.step: Any = self._step(dataset, chunk)

    def _step(self, dataset: Dataset, chunk: int) -> Callable:
        class Plan(DPSGD):
            physical_batch_size = chunk

        examples_of = example_reader(dataset)

        @private_step(Plan(NUM_EXAMPLES, 16, 1, 0.5))
        def step(indices: tf.Tensor, weights: tf.Tensor) -> None:
            self.steps_traced += 1

            def chunk_fn(images: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor) -> list[tf.Tensor]:
                with self.optimizer.gradient_tape(self.network) as tape:
                    logits = self.network(scaled(images))
                    losses = tf.keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True) * weights
                return self.optimizer.clipped_gradient_sum(losses, self.variables, tape)

            sums = accumulate(examples_of(indices), weights, chunk_fn, self.variables)
            for kept, value in zip(self.sums, sums, strict=True):
                kept.assign(value)
            self.optimizer.apply_clipped_sum(sums, self.variables)

        return step

    def run(self, batch: PoissonBatch) -> list[np.ndarray]:
        """The clipped sums of one step."""
        self.step(tf.constant(batch.indices), tf.constant(batch.weights))
        return [value.numpy() for value in self.sums]


def test_a_chunk_holds_the_examples_at_its_indices(dataset: Dataset, examples: LabeledDataset) -> None:
    indices = np.array([[5, 190, 7, 0, 0], [8, 3, 199, 0, 0]], np.int32)
    read_fn = example_reader(dataset)(tf.constant(indices))
    in_graph = tf.function(read_fn, input_signature=[tf.TensorSpec([], tf.int32)])
    for read in (read_fn, in_graph):
        for i in range(2):
            images, labels = read(tf.constant(i))
            np.testing.assert_array_equal(images, examples.images[indices[i]])
            np.testing.assert_array_equal(labels, examples.labels[indices[i]])
            assert (images.dtype, labels.dtype) == (tf.uint8, tf.int64)
        images, labels = read(tf.constant(2))
        assert images.shape == (5, 6, 6, 1)
        assert labels.shape == (5,)


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 3, 1), (2, 4, 1), (5, 3, 3)])
def test_images_of_any_number_of_bytes_are_gathered(shape: tuple[int, int, int]) -> None:
    images = np.random.default_rng(0).integers(256, size=(9, *shape), dtype=np.uint8)
    dataset = LabeledDataset(images, np.arange(9) % 3, DataSpec(shape, 3))
    gathered, labels = example_reader(dataset)(tf.constant([[8, 0, 3]]))(tf.constant(0))
    np.testing.assert_array_equal(gathered, images[[8, 0, 3]])
    np.testing.assert_array_equal(labels, [2, 0, 0])


@pytest.mark.skipif(not tf.sysconfig.get_build_info()["is_cuda_build"], reason="this TensorFlow knows no GPU")
def test_examples_in_memory_are_read_by_operations_that_a_gpu_has(examples: LabeledDataset) -> None:
    examples_of = example_reader(examples)
    function = tf.function(lambda indices, i: examples_of(indices)(i))
    signature = tf.TensorSpec([None, 4], tf.int32), tf.TensorSpec([], tf.int32)
    operations = function.get_concrete_function(*signature).graph.get_operations()
    assert {"GatherV2", "Bitcast"} <= {operation.type for operation in operations}
    for operation in operations:
        if operation.type in ("Placeholder", "Const", "Identity", "NoOp"):
            continue
        assert _has_gpu_kernel(operation), f"{operation.type} of {[tensor.dtype for tensor in operation.inputs]}"
    uint8_gather = tf.function(lambda images, i: tf.gather(images, i)).get_concrete_function(
        tf.TensorSpec([9, 4], tf.uint8), tf.TensorSpec([2], tf.int32)
    )
    assert not all(_has_gpu_kernel(o) for o in uint8_gather.graph.get_operations() if o.type == "GatherV2")


def _has_gpu_kernel(operation: tf.Operation) -> bool:
    def fits(kernel: Any) -> bool:
        return kernel.device_type == "GPU" and all(
            operation.get_attr(limit.name).as_datatype_enum in limit.allowed_values.list.type
            for limit in kernel.constraint
        )

    return any(fits(kernel) for kernel in kernels.get_registered_kernels_for_op(operation.type).kernel)


def test_a_step_is_traced_once_for_draws_of_any_number_of_chunks(dataset: Dataset) -> None:
    trainer = Trainer(dataset, chunk=8)
    trainer.run(batch_of([1, 2, 3], 8))
    traced = trainer.steps_traced
    assert traced <= 2  # TensorFlow traces a first call once more, where it makes the optimizer's variables
    for size in (5, 0, 8, 9, 24, 200, 17, 100, 1):
        trainer.run(batch_of(list(range(size)), 8))
    assert trainer.steps_traced == traced
    assert trainer.step.experimental_get_tracing_count() == traced


@pytest.mark.parametrize("chunk", [1, 7, 16, 50])
def test_chunks_add_up_to_the_logical_batch(dataset: Dataset, examples: LabeledDataset, chunk: int) -> None:
    drawn = list(np.random.default_rng(1).choice(NUM_EXAMPLES, 50, replace=False))
    whole = Trainer(examples, chunk=50).run(batch_of(drawn, 50))
    parts = Trainer(dataset, chunk=chunk).run(batch_of(drawn, chunk))
    # Every example weighs: without one of them the sums differ by far more than by rounding.
    without = Trainer(examples, chunk=50).run(batch_of(drawn[1:], 50))
    for expected, value, other in zip(whole, parts, without, strict=True):
        np.testing.assert_allclose(value, expected, rtol=0, atol=1e-5 * max(1.0, np.abs(expected).max()))
        assert np.abs(other - expected).max() > 1e-3


@pytest.mark.parametrize("chunks", [1, 16])
def test_noise_is_added_once_for_all_chunks(dataset: Dataset, chunks: int) -> None:
    """Draws of padding alone move the weights by noise alone: clip * noise multiplier / expected batch size."""
    trainer = Trainer(dataset, chunk=2, noise_multiplier=3.0)
    empty = PoissonBatch(np.zeros((chunks, 2), np.int32), np.zeros((chunks, 2), np.float32))
    moves = []
    for _ in range(20):
        before = [variable.numpy() for variable in trainer.variables]
        assert all(not np.any(value) for value in trainer.run(empty))
        after = [variable.numpy() for variable in trainer.variables]
        moves += [(a - b).ravel() for a, b in zip(after, before, strict=True)]
    noise, scale = np.concatenate(moves), 0.5 * 3.0 / 16
    assert scipy.stats.kstest(noise / scale, "norm").pvalue > 1e-6
    for wrong in (2 / 3, 3 / 2, 4.0):  # 4: what a noise for each of 16 chunks would add up to
        assert scipy.stats.kstest(noise / (wrong * scale), "norm").pvalue < 1e-9


def test_examples_on_disk_are_read_once_and_a_chunk_at_a_time(on_disk: RecordDataset) -> None:
    drawn = list(range(10, 45))
    Trainer(on_disk, chunk=8).run(batch_of(drawn, 8))
    asked = [examples for examples in on_disk._source.asked if examples]
    assert [len(examples) for examples in asked] == [8, 8, 8, 8, 4]  # the last: three examples and what pads them, once
    assert asked[-1] == [0, 42, 43, 44]
    assert sorted(example for examples in asked for example in examples if example) == drawn


def test_an_example_that_cannot_be_read_stops_the_step(on_disk: RecordDataset, examples: LabeledDataset) -> None:
    trainer = Trainer(on_disk, chunk=8)

    def fail(positions: list[int]) -> Any:
        raise OSError("the disk is gone")

    on_disk._source.__getitems__ = fail
    before = [variable.numpy() for variable in trainer.variables]
    with pytest.raises(tf.errors.OpError, match="the disk is gone"):
        trainer.run(batch_of([1, 2, 3], 8))
    for variable, value in zip(trainer.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)
