"""A trial of a generator: which private rows does a classifier name rightly that has learnt from its images alone?

    is_right = rightly_named(generator, dataset, seed=0)         # bool [n], private
    counts = NoisyCounts(noise_multiplier=60.0, num_counts=2).release([is_right, is_right_by_another], noise)

What generated data are worth is what a classifier learns from them ("train on synthetic, test on real", Esteban et al.
2017). A generator that was released privately may be tried so on the rows themselves, as long as nothing but noisy
counts of the right answers comes out and these are paid for: one row changes each count by one. With tens of thousands
of rows such counts are exact to a fraction of a percent for little of the budget.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfdpgen.data.dataset import Dataset
from tfdpgen.networks.cnn import batches_of, build_cnn
from tfdpgen.synthesizers.release import draw_latents, to_uint8

_ROWS = 20_000  # generated
_EPOCHS = 5
_BATCH = 128
_DRAWN_AT_ONCE = 1000


def rightly_named(generator: tf.keras.Model, dataset: Dataset, seed: int) -> npt.NDArray[np.bool_]:
    """Teaches the CNN of `networks/cnn.py` with draws of a generator and asks it about every row.

    Unit of privacy: one row decides one element of the result, which is private: only counts of it with noise may come
    out. The generator has to be private already, so that no other row decides it.

    Args:
      generator: [latents float32 [n, latent_dim], labels int64 [n]] -> images float32 [n, h, w, c] in [0, 1].
      dataset: the private rows.
      seed: of draws, initial weights and order.

    Returns:
      bool [n], in the order of the rows.
    """
    classes, rng = dataset.spec.num_classes, np.random.default_rng(seed)
    labels = np.arange(_ROWS) % classes
    latents = draw_latents(_ROWS, generator.inputs[0].shape[1], tf.constant([seed, 0], tf.int64))
    parts = [slice(start, start + _DRAWN_AT_ONCE) for start in range(0, _ROWS, _DRAWN_AT_ONCE)]
    images = np.concatenate([to_uint8(generator([latents[part], labels[part]])).numpy() for part in parts])
    model: Any = build_cnn(dataset.spec.image_shape, classes, seed)
    order = np.concatenate([rng.permutation(_ROWS)[: _ROWS // _BATCH * _BATCH] for _ in range(_EPOCHS)])
    steps = len(order) // _BATCH
    rate = tf.keras.optimizers.schedules.CosineDecay(1e-3, steps)
    model.compile(optimizer=tf.keras.optimizers.Adam(rate), loss="sparse_categorical_crossentropy")
    model.fit(batches_of(order.reshape(steps, _BATCH), images, labels), verbose=0)
    answers = [
        model.predict(block, batch_size=1024, verbose=0).argmax(axis=1) == own for block, own in dataset.blocks()
    ]
    return np.concatenate(answers)
