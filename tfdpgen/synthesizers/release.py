"""Release: all that may leave the trust boundary.

    release = train("c_vae", dataset, PrivacyBudget(3.0, 1e-5), seed=0)
    images = release.sample(labels=[0, 1, 2], seed=0)          # uint8 [3, h, w, c]
    release.save("release"); Release.load("release")

It holds a generator, the event that made it, and the statement of what that promises. No critic, encoder, optimizer
state, loss curve or gradient norm is in it: whatever is computed from it alone is post-processing and costs nothing.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import dp_accounting
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfdpgen.data.dataset import DataSpec
from tfdpgen.privacy.accounting import PrivacyStatement, event_from_dict, event_to_dict

_GENERATOR, _FACTS = "generator.keras", "release.json"
_SAMPLING_BATCH = 1024


def draw_latents(num: int | tf.Tensor, latent_dim: int, seed: tf.Tensor) -> tf.Tensor:
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
      event: everything that touched the private rows.
      statement: what that promises.
      synthesizer: the name of the method.
    """

    generator: tf.keras.Model
    spec: DataSpec
    event: dp_accounting.DpEvent
    statement: PrivacyStatement
    synthesizer: str

    @property
    def latent_dim(self) -> int:
        """Number of latent variables of one image."""
        return self.generator.inputs[0].shape[1]

    @property
    def is_releasable(self) -> bool:
        """False where the noise was seeded: such a release protects nobody."""
        return self.statement.is_releasable

    def sample(
        self, labels: Sequence[int] | npt.NDArray[np.integer], seed: int | tuple[int, int]
    ) -> npt.NDArray[np.uint8]:
        """Draws one image for each label.

        Args:
          labels: [n] in [0, num_classes).
          seed: of the latents; not of any noise. A pair where several draws share one seed (seed, part).

        Returns:
          uint8 [n, h, w, c].

        Raises:
          ValueError: for labels out of range.
        """
        classes = np.asarray(labels, dtype=np.int64)
        if classes.ndim != 1 or np.any((classes < 0) | (classes >= self.spec.num_classes)):
            raise ValueError(f"`labels` should be a list of integers in [0, {self.spec.num_classes}); got {labels!r}.")
        key = tf.constant(seed if isinstance(seed, tuple) else (seed, 0), tf.int64)
        latents = draw_latents(len(classes), self.latent_dim, key)
        batches = [
            to_uint8(self.generator([latents[start : start + _SAMPLING_BATCH], part], training=False)).numpy()
            for start in range(0, len(classes), _SAMPLING_BATCH)
            for part in [tf.constant(classes[start : start + _SAMPLING_BATCH])]
        ]
        return np.concatenate(batches) if batches else np.zeros((0, *self.spec.image_shape), np.uint8)

    def save(self, directory: str | os.PathLike[str]) -> None:
        """Writes the generator and its account into `directory`, which is made."""
        folder = pathlib.Path(directory)
        folder.mkdir(parents=True, exist_ok=True)
        self.generator.save(folder / _GENERATOR)
        facts = {
            "synthesizer": self.synthesizer,
            "spec": self.spec.to_dict(),
            "event": event_to_dict(self.event),
            "statement": self.statement.to_dict(),
        }
        (folder / _FACTS).write_text(json.dumps(facts, indent=2) + "\n")

    @classmethod
    def load(cls, directory: str | os.PathLike[str]) -> Release:
        """The inverse of `save`.

        Raises:
          FileNotFoundError: if `directory` holds no release.
        """
        folder = pathlib.Path(directory)
        if not (folder / _FACTS).is_file() or not (folder / _GENERATOR).is_file():
            raise FileNotFoundError(f"`directory` should hold {_GENERATOR} and {_FACTS}; {str(folder)!r} does not.")
        facts = json.loads((folder / _FACTS).read_text())
        return cls(
            generator=tf.keras.models.load_model(folder / _GENERATOR, compile=False),
            spec=DataSpec.from_dict(facts["spec"]),
            event=event_from_dict(facts["event"]),
            statement=PrivacyStatement.from_dict(facts["statement"]),
            synthesizer=facts["synthesizer"],
        )
