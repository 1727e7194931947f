"""The classifier attack: does the release teach a classifier what private examples look like?

The attacker draws images from the release (label True) and uniform noise (label False), trains a small CNN to tell
them apart, and asks it about candidates. No private example is used for training. Two questions are put to it:

- `classifier_noise`: private examples against fresh noise. P is its accuracy and (P - 0.5) / 0.5 the privacy loss of
  this attack. A release that looks at all like the data scores high, however private it is: telling digits from noise
  needs knowledge of the population, not of any example. It measures resemblance, and no epsilon bounds it.
- `classifier_holdout`: private examples against examples of the same source that were never trained on. That is the
  membership question (Shokri et al. 2017, arXiv 1610.05820, section II), which differential privacy bounds. This
  attacker is a weak one, since nothing in its training rewards telling members from other real examples: a low score
  shows that this attack fails, not that all do.

An attacker who cannot tell generated images from noise on images kept aside for that has learnt nothing, and says so:
all scores are then 0, even odds. Otherwise the arbitrary side on which an untrained classifier happens to put all real
images would count as success or failure.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfdpgen.attacks.base import Attack, Knowledge, Scorer, register
from tfdpgen.data import LabeledDataset

keras = tf.keras

NUM_GENERATED = 2_000  # and as many noise images
_KEPT_ASIDE = 0.2
_EPOCHS = 4
_BATCH_SIZE = 64


def prepare(known: Knowledge, rng: np.random.Generator) -> Scorer:
    """Trains the attacker's classifier.

    Args:
      known: its release is drawn from with uniformly distributed labels.
      rng: for the draws, initialisation and order of training. No global seed is read or set.

    Returns:
      A function of candidates to the log odds float64 [n] that they are no noise. Log odds rather than probabilities,
      which would round to 1 and tie; a probability above 0.5 is log odds above 0. All 0 if the attacker has learnt
      nothing.
    """
    release = known.release
    spec = release.spec
    labels = rng.integers(spec.num_classes, size=NUM_GENERATED)
    generated = release.sample(labels, seed=int(rng.integers(2**31)))
    noise = rng.integers(256, size=generated.shape, dtype=np.uint8)
    images = np.concatenate([generated, noise])
    is_generated = np.repeat([1.0, 0.0], NUM_GENERATED)
    order = rng.permutation(len(images))
    aside, train = np.split(order, [int(_KEPT_ASIDE * len(order))])

    model = _build_classifier(spec.image_shape, rng)
    model.compile(keras.optimizers.Adam(1e-3), keras.losses.BinaryCrossentropy(from_logits=True))
    # One long epoch whose order is drawn here: Keras's own shuffling would depend on TensorFlow's global seed.
    order = np.concatenate([rng.permutation(train) for _ in range(_EPOCHS)])
    model.fit(images[order], is_generated[order], batch_size=_BATCH_SIZE, shuffle=False, verbose=0)

    right = np.mean((_log_odds(model, images[aside]) > 0) == (is_generated[aside] > 0))
    if right < 0.5 + 3 * math.sqrt(0.25 / len(aside)):  # within three standard deviations of guessing
        return lambda candidates: np.zeros(len(candidates))
    return _LogOdds(model)


@dataclasses.dataclass(frozen=True, eq=False)
class _LogOdds:
    """Scorer: the classifier's log odds."""

    model: keras.Model

    def __call__(self, candidates: LabeledDataset) -> npt.NDArray[np.float64]:
        """Scores float64 [n]."""
        return _log_odds(self.model, candidates.images)


def _build_classifier(image_shape: tuple[int, int, int], rng: np.random.Generator) -> keras.Model:
    """uint8 images -> log odds: two strided convolutions and a dense layer."""

    def init() -> keras.initializers.Initializer:
        return keras.initializers.HeUniform(seed=int(rng.integers(2**31)))

    inputs = keras.Input(image_shape, dtype="uint8", name="images")
    x = keras.layers.Rescaling(1 / 255)(inputs)
    for filters in (16, 32):
        x = keras.layers.Conv2D(filters, 3, 2, padding="same", activation="relu", kernel_initializer=init())(x)
    x = keras.layers.Flatten()(x)
    x = keras.layers.Dense(32, activation="relu", kernel_initializer=init())(x)
    return keras.Model(inputs, keras.layers.Dense(1, kernel_initializer=init())(x), name="attack_classifier")


def _log_odds(model: keras.Model, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """The model's outputs, flat; called in parts, since `predict` would be compiled anew for each model."""
    parts = [model(images[start : start + 1024], training=False) for start in range(0, len(images), 1024)]
    return np.concatenate(parts)[:, 0].astype(np.float64)


CLASSIFIER_NOISE = register(
    Attack(
        name="classifier_noise",
        description=(
            "A classifier trained on generated images against uniform noise is asked about private examples and "
            "fresh noise. It measures how far the release resembles the private examples; differential privacy does "
            "not bound it."
        ),
        access="samples",
        paper="The researchers' own attack: generated images against uniform noise",
        is_membership=False,
        prepare_fn=prepare,
        decision_threshold=0.0,
    )
)

CLASSIFIER_HOLDOUT = register(
    Attack(
        name="classifier_holdout",
        description=(
            "The same classifier is asked about private examples and examples of the same source that were never "
            "trained on: the membership question, which differential privacy bounds."
        ),
        access="samples",
        paper="The researchers' own attack, asked the question of Shokri et al. 2017, arXiv 1610.05820",
        is_membership=True,
        prepare_fn=prepare,
        decision_threshold=0.0,
    )
)
