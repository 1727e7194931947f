"""What a method hands to a session is refused where it mixes examples, keeps what it sees, or draws by itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tfdpgen.data import DataSpec
from tfdpgen.privacy.isolation import check_loss, check_transform

_SPEC = DataSpec((2, 2, 1), 3)
_MEMORY = tf.Variable(tf.zeros([4]), trainable=False)


def _pixels(images: tf.Tensor) -> tf.Tensor:
    return tf.reshape(images, [-1, 4])


def _kept(values: tf.Tensor) -> tf.Tensor:
    _MEMORY.assign(tf.reduce_max(values, axis=0))
    return values


def _printed(values: tf.Tensor) -> tf.Tensor:
    tf.print(values)
    return values


def _by_the_place(values: tf.Tensor) -> tf.Tensor:
    return values * tf.range(1.0, tf.cast(tf.shape(values)[0], tf.float32) + 1.0)[:, None]


_APART, _DRAWS, _ALONE = "each example alone", "draws random numbers", "its arguments alone"
_REFUSED: dict[str, tuple[Any, str]] = {
    "centred": (lambda values: values - tf.reduce_mean(values, axis=0), _APART),
    "scaled by the largest": (lambda values: values / tf.reduce_max(values), _APART),
    "scaled to the range": (
        lambda values: (values - tf.reduce_min(values)) / (tf.reduce_max(values) - tf.reduce_min(values)),
        _APART,
    ),
    "scaled by the deviation": (lambda values: values / tf.math.reduce_std(values), _APART),
    "clipped as a whole": (lambda values: tf.clip_by_norm(values, 0.1 * values.shape[1] ** 0.5), _APART),
    "weighted by their neighbours": (
        lambda values: (
            values
            * tf.reduce_sum(
                tf.exp(-tf.reduce_sum(tf.square(values[:, None] - values[None]), axis=2, keepdims=True) / 2), axis=1
            )
        ),
        _APART,
    ),
    "centred beside a large column": (
        lambda values: tf.concat([1e4 * values[:, :1], (values - tf.reduce_mean(values, axis=0))[:, 1:]], axis=1),
        _APART,
    ),
    "added up": (lambda values: tf.cumsum(values, axis=0), _APART),
    "multiplied by the place": (_by_the_place, _APART),
    "divided by how many there are": (lambda values: values / tf.cast(tf.shape(values)[0], tf.float32), _APART),
    "noise": (lambda values: values + tf.random.normal(tf.shape(values)), _DRAWS),
    "seeded noise": (lambda values: values + tf.random.stateless_normal(tf.shape(values), [1, 2]), _DRAWS),
    "seeded uniforms": (lambda values: values * tf.random.stateless_uniform(tf.shape(values), [1, 2]), _DRAWS),
    "seeded categories": (
        lambda values: (
            values
            * tf.cast(
                tf.transpose(tf.random.stateless_categorical([[0.0, 0.0]], tf.shape(values)[0], [1, 2])), tf.float32
            )
        ),
        _DRAWS,
    ),
    "shuffled": (lambda values: tf.random.experimental.stateless_shuffle(values, [1, 2]), _DRAWS),
    "dropout": (lambda values: tf.nn.dropout(values, 0.5), _DRAWS),
    "kept": (_kept, _ALONE),
    "printed": (_printed, _ALONE),
    "given to Python": (
        lambda values: tf.ensure_shape(tf.py_function(lambda x: x, [values], tf.float32), values.shape),
        _ALONE,
    ),
    "given to NumPy": (
        lambda values: tf.ensure_shape(
            tf.numpy_function(lambda x: x, [values], tf.float32, stateful=False), values.shape
        ),
        _ALONE,
    ),
}
every_refusal = pytest.mark.parametrize("name", list(_REFUSED))


@every_refusal
def test_transforms_that_mix_keep_or_draw_are_refused(name: str) -> None:
    change, match = _REFUSED[name]
    with pytest.raises(ValueError, match=rf"`transform`.*{match}"):
        check_transform(lambda images, labels: change(_pixels(images)), _SPEC)


@every_refusal
def test_losses_that_mix_keep_or_draw_are_refused(name: str) -> None:
    change, match = _REFUSED[name]
    with pytest.raises(ValueError, match=rf"`loss_fn`.*{match}"):
        check_loss(lambda batch: tf.reduce_sum(change(_pixels(batch.images)), axis=1), _SPEC)


@pytest.mark.parametrize("shape", [(28, 28, 1), (64, 64, 3)])
@pytest.mark.parametrize("name", [name for name, (_, match) in _REFUSED.items() if match == _APART])
def test_mixing_is_seen_on_larger_images_of_many_classes(name: str, shape: tuple[int, int, int]) -> None:
    change, size = _REFUSED[name][0], int(np.prod(shape))
    with pytest.raises(ValueError, match=_APART):
        check_transform(lambda images, labels: change(tf.reshape(images, [-1, size])), DataSpec(shape, 10))


def _centred_on_classes(values: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    return values - tf.gather(tf.math.unsorted_segment_mean(values, labels, 10), labels)


def _shared_by_class(values: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    return (
        values / tf.gather(tf.math.bincount(tf.cast(labels, tf.int32), minlength=10, dtype=tf.float32), labels)[:, None]
    )


def _attracted_by_class(values: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    return values + tf.cast(labels[:, None] == labels[None], tf.float32) @ values


@pytest.mark.parametrize("change", [_centred_on_classes, _shared_by_class, _attracted_by_class])
@pytest.mark.parametrize("num_classes", [2, 10])
def test_mixing_within_a_class_is_refused(change: Any, num_classes: int) -> None:
    spec = DataSpec((28, 28, 1), num_classes)
    with pytest.raises(ValueError, match=_APART):
        check_transform(lambda images, labels: change(tf.reshape(images, [-1, 784]), labels), spec)
    with pytest.raises(ValueError, match=_APART):
        check_loss(
            lambda batch: tf.reduce_mean(change(tf.reshape(batch.images, [-1, 784]), batch.labels), axis=1), spec
        )


def test_what_treats_each_example_alone_passes() -> None:
    spec = check_transform(lambda images, labels: tf.math.l2_normalize(_pixels(images), axis=1), _SPEC)
    assert spec.shape == [None, 4]

    def loss(batch: Any) -> tf.Tensor:
        kept = tf.cast(batch.uniform([4]) < 0.5, tf.float32)
        return tf.reduce_sum(tf.square(kept * _pixels(batch.images) - batch.normal([4])), axis=1)

    check_loss(loss, _SPEC)


@pytest.mark.parametrize("shape", [[], [1], [6, 2, 2], [5]])
def test_a_loss_is_one_number_an_example_or_a_view(shape: list[int]) -> None:
    with pytest.raises(ValueError, match="one loss an example"):
        check_loss(lambda batch: tf.constant(np.zeros(shape), tf.float32), _SPEC)


def test_a_term_that_is_alike_for_all_at_the_start_is_looked_at_with_other_weights_too() -> None:
    """A divergence that is averaged over the batch, of an encoder whose log variances start with zeros."""
    encoder = tf.keras.layers.Dense(3, kernel_initializer="zeros")
    encoder.build((None, 4))
    start = [value.copy() for value in encoder.get_weights()]

    def loss(batch: Any, of_batch: bool = True) -> tf.Tensor:
        pixels = _pixels(batch.images)
        divergences = tf.reduce_sum(tf.square(encoder(pixels)), axis=1)
        return tf.reduce_sum(pixels, axis=1) + (tf.reduce_mean(divergences) if of_batch else divergences)

    with pytest.raises(ValueError, match=_APART):
        check_loss(loss, _SPEC)
    for before, after in zip(start, encoder.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)
    check_loss(lambda batch: loss(batch, of_batch=False), _SPEC)
