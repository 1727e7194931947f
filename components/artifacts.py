"""What goes from one step to the next: typed folders that are finished or not there.

An artifact is a folder with a payload and `artifact.json`, its header: type, id, the component, version and run that
made it, how long that took, the artifacts and parameters it was made of, digests of all that and of its content, and
facts that are public. The header is written last, into a folder that gets its final name only afterwards, so that
whatever can be opened is finished. **A header is internal, whatever the payload is**: who guesses the private examples
finds their digest in it. What may leave has none (`publish.py`).

    release = TrainedRelease.open("internal/train/release")   # ArtifactError if missing, unfinished or of another type
    release.path, release.seconds, release.facts, release.made_of("examples")

Components name artifacts in their signatures: `Input[T]` is read, `Output[T]` is written (see `component.py`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

import numpy as np

import tfdpgen
from tfdpgen.data import DataSpec, LabeledDataset
from tfdpgen.data.npz import NpzFile

HEADER = "artifact.json"
ArtifactT = TypeVar("ArtifactT", bound="Artifact")

_NOT_IN_HEADER = ("path", "lasting")
_TFDS_BYTES = 300  # of an example beside image and soft label: the PNG's frame, names of features, checksums


class ArtifactError(ValueError):
    """A folder is not the artifact that was asked for."""


@dataclasses.dataclass(eq=False)
class Artifact:
    """A folder made by one component.

    Attributes:
      path: the folder.
      component: the name of the component that made it.
      seconds: how long that component ran.
      id: unique to this execution of the component.
      facts: what downstream components may know without opening the payload. Nothing computed from private examples.
      inputs: the headers of the artifacts that this one was made of, by input name.
      parameters: the values that the component was given, defaults included.
      version: of tfdpgen.
      run: of the pipeline, whose name no other run has; empty where the component ran by itself.
      digest: of the content: every file but the header, by name.
      fingerprint: of everything that the content depends on; see `Component.fingerprint`.
      lasting: while it is written, what ends when all outputs of the component have their final names; not in headers.
    """

    internal: ClassVar[bool] = False  # true where the payload holds or was computed from private examples without noise

    path: Path
    component: str = ""
    seconds: float = 0.0
    id: str = dataclasses.field(default_factory=lambda: uuid.uuid4().hex)
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)
    inputs: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    parameters: dict[str, Any] = dataclasses.field(default_factory=dict)
    version: str = tfdpgen.__version__
    run: str = ""
    digest: str = ""
    fingerprint: str = ""
    lasting: contextlib.ExitStack = dataclasses.field(default_factory=contextlib.ExitStack, repr=False)

    @classmethod
    def open(cls: type[ArtifactT], path: str | Path) -> ArtifactT:
        """Opens a finished artifact of this type.

        Raises:
          ArtifactError: if the folder is missing, has no readable header, or holds another type.
        """
        path = Path(path)
        if not path.is_dir():
            raise ArtifactError(f"expected a folder with a {cls.__name__}; {path} does not exist.")
        try:
            header = json.loads((path / HEADER).read_text())
            found = header["type"]
        except FileNotFoundError:
            raise ArtifactError(f"{path} holds no finished {cls.__name__}: it has no {HEADER}.") from None
        except (ValueError, TypeError, KeyError) as error:
            raise ArtifactError(f"{path / HEADER} is not the header of an artifact ({error!r}).") from None
        if found != cls.__name__:
            raise ArtifactError(f"expected a {cls.__name__}; {path} holds a {found}.")
        names = [field.name for field in dataclasses.fields(cls) if field.name not in _NOT_IN_HEADER]
        if missing := [name for name in names if name not in header]:
            raise ArtifactError(f"{path / HEADER} lacks {missing}: another version of tfdpgen wrote it; make it anew.")
        return cls(path, **{name: header[name] for name in names})

    @property
    def header(self) -> dict[str, Any]:
        """All but the path and the payload, as JSON-ready values."""
        names = [field.name for field in dataclasses.fields(self) if field.name not in _NOT_IN_HEADER]
        return {"type": type(self).__name__, "internal": self.internal, **{name: getattr(self, name) for name in names}}

    def made_of(self, name: str) -> dict[str, Any]:
        """The header of the input called `name` that this artifact was made of.

        Raises:
          ArtifactError: if it was made of no such input.
        """
        if name not in self.inputs:
            raise ArtifactError(f"{self.path} was made of {sorted(self.inputs) or 'nothing'}; expected `{name}` in it.")
        return self.inputs[name]

    def parts(self) -> dict[str, Path]:
        """What of it is put elsewhere, by name."""
        return {}

    def content_digest(self) -> str:
        """The digest of the content as it is now."""
        return digest_of(self.path)

    def seal(self) -> None:
        """Writes the header: the artifact is complete."""
        self.digest = self.content_digest()
        (self.path / HEADER).write_text(json.dumps(self.header, indent=2) + "\n")


class PrivateExamples(Artifact):
    """The private examples: train, holdout and test split."""

    internal = True


class PreflightEstimate(Artifact):
    """What a run was expected to cost and to be worth, with the size of the smallest class."""

    internal = True


class TrainedRelease(Artifact):
    """What training releases: a generator and its privacy statement."""


class PrivateNetworks(Artifact):
    """What else was trained privately, such as critic or encoder: for attacks with model access, never released."""

    internal = True

    def save(self, networks: Mapping[str, Any]) -> None:
        """Writes Keras models by name."""
        for name, network in networks.items():
            network.save(self.path / f"{name}.keras")

    def load(self) -> dict[str, Any]:
        """The Keras models by name; none where the method has none."""
        from tfdpgen.release import load_network

        return {path.stem: load_network(path) for path in sorted(self.path.glob("*.keras"))}


class SyntheticExamples(Artifact):
    """A labelled synthetic data set, as TFDS data set and as synthetic.npz."""

    def load(self, most: int | None = None) -> LabeledDataset:
        """The plain examples in their order, or the first `most` of them; no others are in memory."""
        end = self._num_plain
        return self._examples(0, end if most is None else min(most, end))[0]

    def load_augmented(self, most: int | None = None) -> tuple[LabeledDataset, np.ndarray] | None:
        """Augmented examples and their soft labels float32 [n, num_classes], if there are any; the first `most`."""
        start = self._num_plain
        with NpzFile(self._npz) as archive:
            (end,) = archive.member("labels").shape
        examples, soft_labels = self._examples(start, end if most is None else min(start + most, end))
        return (examples, soft_labels) if len(examples) else None

    @staticmethod
    def expected_bytes(num_synthetic: int, spec: DataSpec, *, has_augmented: bool) -> int:
        """The most that the data set takes on disk: both forms, as if nothing in them could be compressed.

        A run keeps it three times: as generate's artifact, in publish's, and in `output_dir`.
        """
        image, soft_label = math.prod(spec.image_shape), 4 * spec.num_classes
        in_npz = image + soft_label + 8 + 1  # a label, and whether it is augmented
        in_tfds = image + soft_label + _TFDS_BYTES
        return num_synthetic * (2 if has_augmented else 1) * (in_npz + in_tfds)

    @property
    def _npz(self) -> Path:
        return self.path / "synthetic.npz"

    @property
    def _num_plain(self) -> int:
        """How many plain examples there are; they come before all augmented ones."""
        with NpzFile(self._npz) as archive:
            return int(np.count_nonzero(~archive.read(archive.member("is_augmented"))))

    def _examples(self, start: int, stop: int) -> tuple[LabeledDataset, np.ndarray]:
        """The examples at these positions, and their soft labels."""
        with NpzFile(self._npz) as archive:
            images, labels, soft_labels = (
                archive.read(archive.member(name), start, stop) for name in ("images", "labels", "soft_labels")
            )
        return LabeledDataset(images, labels, DataSpec.from_dict(self.facts["spec"])), soft_labels


class AttackMetrics(Artifact):
    """How well attacks tell private examples from others."""

    internal = True


class AuditMetrics(Artifact):
    """What an audit with canaries says of epsilon; empty where none was asked for."""

    internal = True


class UtilityMetrics(Artifact):
    """The accuracies p1 to p4 of classifiers trained and tested on private and synthetic examples."""

    internal = True


class Publication(Artifact):
    """The results: summary.json and report.html, which hold internal metrics, and a folder of what holds none."""

    internal = True

    def parts(self) -> dict[str, Path]:
        found = [path for path in self.path.iterdir() if path.is_file() and path.name != HEADER]
        found += [path for path in self.path.glob("*/*") if path.name != "serving_model"]
        found += self.path.glob("*/serving_model/*")
        return {path.relative_to(self.path).as_posix(): path for path in sorted(found)}


def digest_of(path: Path) -> str:
    """A digest of a file, or of all files in a folder by their names; a header at its top is none of it."""
    if not path.is_dir():
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    digest = hashlib.sha256()
    for file in sorted(file for file in path.rglob("*") if file.is_file()):
        name = file.relative_to(path).as_posix()
        if name != HEADER:
            digest.update(f"{digest_of(file)} {name}\n".encode())
    return digest.hexdigest()


READ, WRITTEN = object(), object()  # marks in signatures
Input = Annotated[ArtifactT, READ]
Output = Annotated[ArtifactT, WRITTEN]
