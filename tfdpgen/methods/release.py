"""Release: all that may leave the trust boundary.

    release = train("c_vae", dataset, PrivacyBudget(3.0, 1e-5), seed=0)
    images = release.sample(labels=[0, 1, 2], seed=0)          # uint8 [3, h, w, c]
    release.save("release"); Release.load("release")

It holds a generator, the event that made it, and the statement of what that promises; and a teacher, where one was
trained by DP-SGD on a share of the same budget, with what it needs to label rows. No critic, encoder, optimizer
state, loss curve or gradient norm is in it: whatever is computed from it alone is post-processing and costs nothing.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import dp_accounting
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfdpgen.data.dataset import DataSpec
from tfdpgen.features.stroke_images import random_stroke_images
from tfdpgen.methods.enrichment import Enrichment
from tfdpgen.methods.teacher import Teacher
from tfdpgen.privacy.accounting import PrivacyStatement, event_from_dict, event_to_dict

_GENERATOR, _TEACHER, _FACTS = "generator.keras", "teacher.npz", "release.json"
_SAMPLING_BATCH = 1024
_MOST_DRAWS = 6  # of one plain row, until the teacher recognises it


class SyntheticRows(NamedTuple):
    """Rows to hand out.

    Attributes:
      images: uint8 [n, h, w, c].
      labels: int64 [n].
      soft_labels: float32 [n, num_classes], the teacher's probabilities; certainty of the label for plain rows.
      is_enriched: bool [n].
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    soft_labels: npt.NDArray[np.float32]
    is_enriched: npt.NDArray[np.bool_]


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
      method: the name of the method.
      teacher: a private classifier that was trained on a share of the same budget, if there is one.
      enrichment: how rows are enriched that the teacher labels.
    """

    generator: tf.keras.Model
    spec: DataSpec
    event: dp_accounting.DpEvent
    statement: PrivacyStatement
    method: str
    teacher: Teacher | None = None
    enrichment: Enrichment = dataclasses.field(default_factory=Enrichment)

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

    def synthesize(self, labels: Sequence[int] | npt.NDArray[np.integer], seed: int | tuple[int, int]) -> SyntheticRows:
        """Draws what is handed out: a plain row for each label and, where there is a teacher, an enriched one too.

        Without a teacher the plain rows are those of `sample`. With one, an image that it does not recognise as its
        label is drawn again, a few times at most. Enriched rows are draws that were not selected, transformed, and
        drawings and plain rows if the enrichment asks for them, with the teacher's probabilities as soft labels and the
        most probable class as label.

        Args:
          labels: [n] in [0, num_classes), of the plain rows.
          seed: as in `sample`.

        Returns:
          The n plain rows, then the n enriched ones if there are any.
        """
        classes = np.asarray(labels, dtype=np.int64)
        images = self.sample(classes, seed)
        certain = np.eye(self.spec.num_classes, dtype=np.float32)[classes]
        if self.teacher is None or not len(classes):
            return SyntheticRows(images, classes, certain, np.zeros(len(classes), np.bool_))
        pair = seed if isinstance(seed, tuple) else (seed, 0)
        drawn = images.copy()
        for attempt in range(1, _MOST_DRAWS):
            denied = np.flatnonzero(self.teacher.probabilities(images).argmax(axis=1) != classes)
            if not denied.size:
                break
            images[denied] = self.sample(classes[denied], _derived(pair, attempt))
        rng = np.random.default_rng([abs(part) for part in (*pair, _MOST_DRAWS)])
        plain, drawings = (round(part * len(classes)) for part in (self.enrichment.plain, self.enrichment.drawings))
        height, width, channels = self.spec.image_shape
        strokes = np.repeat(random_stroke_images(rng, drawings, (height, width)), channels, axis=-1)
        changed = self.enrichment(drawn[: len(classes) - plain - drawings], rng)
        changed = rng.permutation(np.concatenate([changed, strokes, images[len(classes) - plain :]]))
        soft = self.teacher.probabilities(changed, self.enrichment.temperature)
        return SyntheticRows(
            np.concatenate([images, changed]),
            np.concatenate([classes, soft.argmax(axis=1).astype(np.int64)]),
            np.concatenate([certain, soft]),
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
            "enrichment": self.enrichment.to_dict(),
        }
        if self.teacher is not None:
            self.teacher.save(folder / _TEACHER)
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
            method=facts["method"],
            teacher=Teacher.load(folder / _TEACHER) if (folder / _TEACHER).is_file() else None,
            enrichment=Enrichment(**facts["enrichment"]),
        )


def _derived(seed: tuple[int, int], number: int) -> tuple[int, int]:
    """Another pair for `sample`, which no other pair and number give except by rare chance."""
    words = np.random.SeedSequence([abs(part) for part in seed] + [number]).generate_state(2)
    return int(words[0]), int(words[1])
