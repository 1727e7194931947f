"""The CNN that judges generated images: small, the same for every data set, chosen by its own examples alone.

    model = train_classifier(synthetic, seed=0)
    accuracy(model, private_test)

It was fixed before any private test example was looked at: its architecture, epochs and learning rate follow from the
image shape and the number of examples, and its best epoch is chosen on examples split off the training data that it is
given. A classifier trained on generated data is thus chosen by generated data alone.
"""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfdpgen.data import LabeledDataset
from tfdpgen.networks.cnn import batches_of, build_cnn

keras = tf.keras


def train_classifier(
    dataset: LabeledDataset,
    *,
    soft_labels: npt.NDArray[np.float32] | None = None,
    validation: float = 0.1,
    seed: int,
    verbose: int = 0,
) -> keras.Model:
    """Trains the CNN that all metrics here come from.

    Small data need many passes and large data few: about 1,500 steps of Adam (learning rate 1e-3, cosine decay to 0),
    but at least 6 epochs, or 12 with soft labels, which are harder to learn by heart, and at most 30; batches of 32
    examples below 10,000 examples and of 128 from there on. Training stops when a quarter of these epochs has not
    lowered the validation loss, and keeps the weights of the best epoch.

    The result is a function of the arguments (on one machine): no global seed is read or set.

    Args:
      dataset: at least 2 examples.
      soft_labels: float32 [n, num_classes], a probability of each class in each example, to be learnt in place of the
        labels (Hinton et al. 2015, "Distilling the knowledge in a neural network").
      validation: in (0, 1), the share of `dataset` that only chooses the best epoch; at least one example.
      seed: for initialisation, validation examples, order and dropout.
      verbose: Keras's verbosity.

    Returns:
      A model from uint8 images [n, h, w, c] to class probabilities [n, num_classes].

    Raises:
      ValueError: if `validation` lies outside (0, 1), there are too few examples, or `soft_labels` have another shape.
    """
    if not 0 < validation < 1:
        raise ValueError(f"`validation` should lie strictly between 0 and 1; got {validation!r}.")
    targets = dataset.labels if soft_labels is None else np.asarray(soft_labels, np.float32)
    if soft_labels is not None and targets.shape != (len(dataset), dataset.spec.num_classes):
        raise ValueError(
            f"`soft_labels` should be of shape [{len(dataset)}, {dataset.spec.num_classes}], a probability of each "
            f"class in each example; got {list(targets.shape)}."
        )
    num_validation = math.ceil(validation * len(dataset))
    num_train = len(dataset) - num_validation
    if num_train < 1:
        raise ValueError(
            f"`dataset` should have at least an example to train on and one to validate; got {len(dataset)}."
        )
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(dataset))
    chosen, held_out = order[num_validation:], order[:num_validation]

    batch_size = min(num_train, 32 if num_train < 10_000 else 128)
    steps = num_train // batch_size
    epochs = int(np.clip(math.ceil(1_500 / steps), 6 if soft_labels is None else 12, 30))
    # Every batch of the whole training.
    order = np.concatenate([rng.permutation(num_train)[: steps * batch_size] for _ in range(epochs)])
    batches = batches_of(order.reshape(epochs * steps, batch_size), dataset.images[chosen], targets[chosen])

    model = build_cnn(dataset.spec.image_shape, dataset.spec.num_classes, seed)
    model.compile(
        optimizer=keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(1e-3, epochs * steps)),
        loss="categorical_crossentropy" if targets.ndim == 2 else "sparse_categorical_crossentropy",
    )
    stopping: Any = keras.callbacks.EarlyStopping(
        monitor="val_loss", patience=math.ceil(epochs / 4), restore_best_weights=True
    )
    model.fit(
        batches,
        epochs=epochs,
        steps_per_epoch=steps,
        validation_data=(dataset.images[held_out], targets[held_out]),
        validation_batch_size=1024,
        callbacks=[stopping],
        verbose=cast(Any, verbose),  # Keras's annotation names strings alone
    )
    model.set_weights(stopping.best_weights)  # Keras 2 restores them only if it has stopped early.
    return model


def accuracy(model: keras.Model, dataset: LabeledDataset) -> float:
    """The share of examples in [0, 1] whose most probable class is their label.

    Raises:
      ValueError: if there are no examples.
    """
    if not len(dataset):
        raise ValueError("`dataset` should have examples to test on; it is empty.")
    probabilities = model.predict(dataset.images, batch_size=1024, verbose=0)
    return float(np.mean(probabilities.argmax(axis=-1) == dataset.labels))
