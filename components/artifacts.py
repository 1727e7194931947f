"""What goes from one step to the next: typed folders that are finished or not there.

An artifact is a folder with a payload and `artifact.json`, its header: type, id, the component that made it, how long
that took, the artifacts it was made of, and facts that are public. The header is written last, into a folder that gets
its final name only afterwards, so that whatever can be opened is finished.

    release = TrainedRelease.open("internal/train/release")   # ArtifactError if missing, unfinished or of another type
    release.path, release.seconds, release.facts, release.made_of("examples")

Components name artifacts in their signatures: `Input[T]` is read, `Output[T]` is written (see `component.py`).
"""

from __future__ import annotations

import dataclasses
import json
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeVar

import numpy as np

if TYPE_CHECKING:
    from tfdpgen.data import LabeledDataset

HEADER = "artifact.json"
ArtifactT = TypeVar("ArtifactT", bound="Artifact")


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
      facts: what downstream components may know without opening the payload. Nothing computed from private rows.
      inputs: the headers of the artifacts that this one was made of, by input name.
    """

    internal: ClassVar[bool] = False  # true where the payload holds or was computed from private rows

    path: Path
    component: str = ""
    seconds: float = 0.0
    id: str = dataclasses.field(default_factory=lambda: uuid.uuid4().hex)
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)
    inputs: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)

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
        return cls(
            path, **{field.name: header[field.name] for field in dataclasses.fields(cls) if field.name != "path"}
        )

    @property
    def header(self) -> dict[str, Any]:
        """All but the path and the payload, as JSON-ready values."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "path"}
        return {"type": type(self).__name__, "internal": self.internal, **fields}

    def made_of(self, name: str) -> dict[str, Any]:
        """The header of the input called `name` that this artifact was made of.

        Raises:
          ArtifactError: if it was made of no such input.
        """
        if name not in self.inputs:
            raise ArtifactError(f"{self.path} was made of {sorted(self.inputs) or 'nothing'}; expected `{name}` in it.")
        return self.inputs[name]

    def seal(self) -> None:
        """Writes the header: the artifact is complete."""
        (self.path / HEADER).write_text(json.dumps(self.header, indent=2) + "\n")


class PrivateExamples(Artifact):
    """The private rows: train, holdout and test split."""

    internal = True


class PreflightFigures(Artifact):
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
        import tensorflow as tf

        paths = sorted(self.path.glob("*.keras"))
        return {path.stem: tf.keras.models.load_model(path, compile=False) for path in paths}


class SyntheticExamples(Artifact):
    """A labelled synthetic data set, as TFDS data set and as synthetic.npz."""

    def load(self) -> LabeledDataset:
        """The plain rows, in their order."""
        return self._rows(is_enriched=False)[0]

    def load_enriched(self) -> tuple[LabeledDataset, np.ndarray] | None:
        """The enriched rows and their soft labels float32 [n, num_classes], if there are any."""
        rows, soft_labels = self._rows(is_enriched=True)
        return (rows, soft_labels) if len(rows) else None

    def _rows(self, *, is_enriched: bool) -> tuple[LabeledDataset, np.ndarray]:
        """One of the two kinds of rows."""
        from tfdpgen.data import DataSpec, LabeledDataset

        with np.load(self.path / "synthetic.npz") as arrays:
            chosen = arrays["is_enriched"] == is_enriched
            images, labels, soft_labels = (arrays[name][chosen] for name in ("images", "labels", "soft_labels"))
        return LabeledDataset(images, labels, DataSpec.from_dict(self.facts["spec"])), soft_labels


class AttackFigures(Artifact):
    """How well attacks tell private rows from others."""

    internal = True


class AuditFigures(Artifact):
    """What an audit with canaries says of epsilon; empty where none was asked for."""

    internal = True


class UtilityFigures(Artifact):
    """The accuracies p1 to p4 of classifiers trained and tested on private and synthetic rows."""

    internal = True


class Publication(Artifact):
    """The results: summary.json and report.html, which hold internal figures, synthetic/ and serving_model/."""

    internal = True


READ, WRITTEN = object(), object()  # marks in signatures
Input = Annotated[ArtifactT, READ]
Output = Annotated[ArtifactT, WRITTEN]
