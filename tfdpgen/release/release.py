"""Release: all that may leave the trust boundary.

    release = train("gaussian_mixture", dataset, PrivacyBudget(3.0, 1e-5), seed=0)
    images = release.sample(labels=[0, 1, 2], seed=0)          # uint8 [3, h, w, c]
    examples = release.training_set(labels=[0, 1, 2], seed=0)  # these, and augmented ones where they were asked for
    release.save("release"); Release.load("release")

It holds a generator, the event that made it, and the statement of what that promises; and a labeller, where one was
trained by DP-SGD on a share of the same budget. No critic, encoder, optimizer state, loss curve or gradient norm is in
it: whatever is computed from it alone is post-processing and costs nothing.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import dp_accounting
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfdpgen.data.dataset import DataSpec
from tfdpgen.privacy.accounting import PrivacyStatement, event_from_dict, event_to_dict
from tfdpgen.release.archive import load_network
from tfdpgen.release.augmentation import Augmentation
from tfdpgen.release.labeller import Labeller

_GENERATOR, _LABELLER, _FACTS = "generator.keras", "labeller.npz", "release.json"
_SAMPLING_BATCH = 1024
_GOLDEN = (math.sqrt(5) - 1) / 2


class TrainingSet(NamedTuple):
    """Examples to learn from.

    Attributes:
      images: uint8 [n, h, w, c].
      labels: int64 [n].
      soft_labels: float32 [n, num_classes], the labeller's probabilities; one-hot labels for plain examples.
      is_augmented: bool [n].
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    soft_labels: npt.NDArray[np.float32]
    is_augmented: npt.NDArray[np.bool_]


def sample_latents(num: int | tf.Tensor, latent_dim: int, seed: tf.Tensor) -> tf.Tensor:
    """Standard normal latents float32 [num, latent_dim], a function of `seed` (int64 [2]) and nothing else."""
    shape: Any = [num, latent_dim]
    return tf.random.stateless_normal(shape, seed=seed, alg="philox")


def to_uint8(images: tf.Tensor) -> tf.Tensor:
    """Images float in [0, 1] as uint8 in [0, 255], rounded."""
    return tf.cast(tf.round(tf.clip_by_value(images, 0.0, 1.0) * 255.0), tf.uint8)


@dataclasses.dataclass(frozen=True, eq=False)
class Release:
    """A private generator with its account.

    Attributes:
      generator: Keras model [latents float32 [n, latent_dim], labels int64 [n]] -> images float32 [n, h, w, c] in
        [0, 1], from stock layers only.
      spec: public facts of the data.
      event: everything that touched the private examples.
      statement: what that promises.
      method: the name of the method.
      labeller: a private classifier that was trained on a share of the same budget, if there is one.
      augmentation: of other samples that come beside those that were asked for; None for none of them.
      label_distribution: shares of the classes [num_classes], from noisy counts that were paid for; None where nothing
        is known of them, and `labels` gives all classes equally often.
    """

    generator: tf.keras.Model
    spec: DataSpec
    event: dp_accounting.DpEvent
    statement: PrivacyStatement
    method: str
    labeller: Labeller | None = None
    augmentation: Augmentation | None = None
    label_distribution: tuple[float, ...] | None = None

    @property
    def latent_dim(self) -> int:
        """Number of latent variables of one image."""
        return self.generator.inputs[0].shape[1]

    @property
    def is_releasable(self) -> bool:
        """False where the noise was seeded: such a release protects nobody."""
        return self.statement.is_releasable

    def labels(self, num: int, start: int = 0) -> npt.NDArray[np.int64]:
        """Labels to sample images of: int64 [num], the same ones each time.

        They cycle through the classes, or follow `label_distribution` where there is one; a part of them has nearly the
        same shares as the whole.

        Args:
          num: how many.
          start: how many come before them, where the whole is made in parts.
        """
        places = np.arange(start, start + num)
        if self.label_distribution is None:
            return places % self.spec.num_classes
        # Multiples of the golden section lie evenly on the unit interval, however many there are (Weyl 1916).
        spread = (places + 0.5) * _GOLDEN % 1.0
        found = np.searchsorted(np.cumsum(self.label_distribution), spread, side="right")
        return np.minimum(found, np.flatnonzero(self.label_distribution)[-1]).astype(np.int64)

    def sample(
        self,
        labels: Sequence[int] | npt.NDArray[np.integer],
        seed: int | tuple[int, int],
        temperature: float = 1.0,
    ) -> npt.NDArray[np.uint8]:
        """Samples one image for each label.

        Args:
          labels: [n] in [0, num_classes).
          seed: of the latents; not of any noise. A pair (seed, part) where several parts share one seed.
          temperature: standard deviation of the latents; images are less diverse below 1, and less typical above.

        Returns:
          uint8 [n, h, w, c].

        Raises:
          ValueError: for labels or a temperature out of range.
        """
        if not (temperature > 0 and math.isfinite(temperature)):
            raise ValueError(f"`temperature` should be finite and greater than 0; got {temperature!r}.")
        classes = np.asarray(labels, dtype=np.int64)
        if classes.ndim != 1 or np.any((classes < 0) | (classes >= self.spec.num_classes)):
            raise ValueError(f"`labels` should be a list of integers in [0, {self.spec.num_classes}); got {labels!r}.")
        key = tf.constant(seed if isinstance(seed, tuple) else (seed, 0), tf.int64)
        latents = temperature * sample_latents(len(classes), self.latent_dim, key)
        batches = [
            to_uint8(self.generator([latents[start : start + _SAMPLING_BATCH], part], training=False)).numpy()
            for start in range(0, len(classes), _SAMPLING_BATCH)
            for part in [tf.constant(classes[start : start + _SAMPLING_BATCH])]
        ]
        return np.concatenate(batches) if batches else np.zeros((0, *self.spec.image_shape), np.uint8)

    def training_set(self, labels: Sequence[int] | npt.NDArray[np.integer], seed: int | tuple[int, int]) -> TrainingSet:
        """Samples a labelled data set to learn from.

        It starts with the images of `sample` and their labels. With an augmentation, as many other samples follow,
        augmented: with a labeller's probabilities as soft labels and its most probable class as label where there is
        one, and else with the labels that they were sampled for.

        Args:
          labels: [n] in [0, num_classes).
          seed: as in `sample`.

        Returns:
          The n plain examples, then the n augmented ones if there are any.

        Raises:
          ValueError: for labels out of range.
        """
        classes = np.asarray(labels, dtype=np.int64)
        images = self.sample(classes, seed)
        certain = np.eye(self.spec.num_classes, dtype=np.float32)[classes]
        if self.augmentation is None:
            return TrainingSet(images, classes, certain, np.zeros(len(classes), np.bool_))
        other, changes = _derived(seed)
        augmented = self.augmentation(self.sample(classes, other), changes)
        soft_labels = certain
        if self.labeller is not None:
            soft_labels = self.labeller.probabilities(augmented, self.augmentation.temperature)
        return TrainingSet(
            np.concatenate([images, augmented]),
            np.concatenate([classes, soft_labels.argmax(axis=1)]),
            np.concatenate([certain, soft_labels]),
            np.repeat([False, True], len(classes)),
        )

    def save(self, directory: str | os.PathLike[str]) -> None:
        """Writes the generator and its account into `directory`, which is made."""
        folder = pathlib.Path(directory)
        folder.mkdir(parents=True, exist_ok=True)
        self.generator.save(folder / _GENERATOR)
        facts = {
            "method": self.method,
            "spec": self.spec.to_dict(),
            "event": event_to_dict(self.event),
            "statement": self.statement.to_dict(),
            "augmentation": self.augmentation.to_dict() if self.augmentation else None,
            "label_distribution": self.label_distribution,
        }
        if self.labeller is not None:
            self.labeller.save(folder / _LABELLER)
        (folder / _FACTS).write_text(json.dumps(facts, indent=2) + "\n")

    @classmethod
    def load(cls, directory: str | os.PathLike[str]) -> Release:
        """The inverse of `save`.

        Raises:
          FileNotFoundError: if `directory` holds no release.
          UntrustedArchiveError: if the generator's file holds more than a network; nothing of it was loaded then.
        """
        folder = pathlib.Path(directory)
        if not (folder / _FACTS).is_file() or not (folder / _GENERATOR).is_file():
            raise FileNotFoundError(f"`directory` should hold {_GENERATOR} and {_FACTS}; {str(folder)!r} does not.")
        facts = json.loads((folder / _FACTS).read_text())
        return cls(
            generator=load_network(folder / _GENERATOR),
            spec=DataSpec.from_dict(facts["spec"]),
            event=event_from_dict(facts["event"]),
            statement=PrivacyStatement.from_dict(facts["statement"]),
            method=facts["method"],
            labeller=Labeller.load(folder / _LABELLER) if (folder / _LABELLER).is_file() else None,
            augmentation=Augmentation(**facts["augmentation"]) if facts["augmentation"] else None,
            label_distribution=tuple(shares) if (shares := facts["label_distribution"]) else None,
        )


def _derived(seed: int | tuple[int, int]) -> tuple[tuple[int, int], np.random.Generator]:
    """Another seed for `sample`, which no other seed gives except by rare chance, and a generator; a function of it."""
    words = seed if isinstance(seed, tuple) else (seed, 0)
    latents, changes = np.random.SeedSequence([abs(word) for word in words]).spawn(2)
    first, second = latents.generate_state(2)
    return (int(first), int(second)), np.random.default_rng(changes)
