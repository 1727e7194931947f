"""The three disjoint parts of a source: train, holdout and test; and how they are kept in a folder.

    splits = Splits(train, holdout, test)
    splits.save("examples/")                            # train.npz, holdout.npz, test.npz, spec.json
    Splits.load("examples/").train

**What a promise to the training examples means for the source.** `load_splits` deals a source that brings no splits by
a fixed public permutation of its positions, which depends on their number alone (`sources.partition`; of users, in the
order of their first examples, where these are known):

- Replacing an example in its place, the number and order of the others being as they were, replaces one example of one
  part. If that part is not train, nothing that is released of train changes. So the epsilon under replace-one holds for
  the source as a whole too.
- Adding an example to the source, or removing one, changes the permutation: others go to other parts as well, and many
  training examples are exchanged. No epsilon that is stated, add-or-remove or replace-one, covers that; both hold for
  the training examples as they were dealt.
- Where the source brings train, val and test, nothing is dealt: adding or removing a training example changes train by
  that example, and the epsilon under add-or-remove holds for the source as well. A holdout that is cut from train is
  dealt like everything else.

A part that is not in memory is copied to train.array_record in place of train.npz, a megabyte at a time, and is
read from there afterwards: neither saving nor loading it takes memory for its images. Its `user_ids`, where there are
any, lie beside it in train.users.npy; in an .npz they are an array of their own.
"""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from tfdpgen.data.dataset import DataError, Dataset, DataSpec, LabeledDataset
from tfdpgen.data.npz import NpzFile
from tfdpgen.data.records import read_examples, write_examples


@dataclasses.dataclass(frozen=True, eq=False)
class Splits:
    """The disjoint parts of one source, with the same public facts.

    Attributes:
      train: the private examples, which privacy is promised to.
      holdout: examples from the same source that no release has seen: the non-members that attacks are tested on.
      test: examples that measure utility.

    Raises:
      ValueError: if the parts disagree about the public facts.
    """

    train: Dataset
    holdout: Dataset
    test: Dataset

    def __post_init__(self) -> None:
        for name in ("holdout", "test"):
            spec = getattr(self, name).spec
            if spec != self.spec:
                raise ValueError(f"`{name}` should have the same spec as `train`, {self.spec}; got {spec}.")

    @property
    def spec(self) -> DataSpec:
        """The public facts that all parts share."""
        return self.train.spec

    def save(self, directory: str | os.PathLike[str]) -> None:
        """Writes train, holdout, test and spec.json into `directory`, which is made if it is missing.

        A split in memory becomes an .npz; any other is copied block by block into an .array_record.
        """
        folder = Path(directory)
        folder.mkdir(parents=True, exist_ok=True)
        for field in dataclasses.fields(self):
            part: Dataset = getattr(self, field.name)
            in_memory, on_disk = (folder / f"{field.name}{suffix}" for suffix in (".npz", ".array_record"))
            if isinstance(part, LabeledDataset):
                arrays: dict[str, Any] = {"images": part.images, "labels": part.labels}
                if part.user_ids is not None:
                    arrays["user_ids"] = part.user_ids
                np.savez(in_memory, **arrays)
                on_disk.unlink(missing_ok=True)
                _users(folder, field.name).unlink(missing_ok=True)
            else:
                unfinished = on_disk.with_suffix(".unfinished")
                write_examples(part, unfinished)  # which may be a view of the file that it replaces
                unfinished.replace(on_disk)
                in_memory.unlink(missing_ok=True)
                _users(folder, field.name).unlink(missing_ok=True)
                if part.user_ids is not None:
                    np.save(_users(folder, field.name), part.user_ids)
        (folder / "spec.json").write_text(json.dumps(self.spec.to_dict(), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, directory: str | os.PathLike[str]) -> Splits:
        """The inverse of `save`: what was in memory is, and what was not stays on disk.

        Raises:
          DataError: if a file is missing or damaged; the message names it.
        """
        folder = Path(directory)
        facts = folder / "spec.json"
        try:
            spec = DataSpec.from_dict(json.loads(facts.read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{facts} should be the spec.json that `Splits.save` writes; {error!r}.") from error
        parts: dict[str, Dataset] = {}
        for field in dataclasses.fields(cls):
            on_disk = folder / f"{field.name}.array_record"
            in_memory = folder / f"{field.name}.npz"
            parts[field.name] = (
                _load_records(folder, field.name, spec) if on_disk.exists() else _load_npz(in_memory, spec)
            )
        return cls(**parts)


def _users(folder: Path, name: str) -> Path:
    """Where the users of a split on disk are."""
    return folder / f"{name}.users.npy"


def _load_records(folder: Path, name: str, spec: DataSpec) -> Dataset:
    """A split that was not in memory."""
    path, users = _users(folder, name), None
    if path.exists():
        try:
            users = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise DataError(f"{path} should be the array that `Splits.save` writes; {error}.") from error
    return read_examples(folder / f"{name}.array_record", spec, users)


def _load_npz(path: Path, spec: DataSpec) -> LabeledDataset:
    """A split that was in memory."""
    with NpzFile(path) as archive:
        if missing := [name for name in ("images", "labels") if name not in archive.names]:
            raise DataError(f"{path} should hold what `Splits.save` writes; it lacks {missing}.")
        images, labels, users = (
            archive.read(archive.member(name)) if name in archive.names else None
            for name in ("images", "labels", "user_ids")
        )
    try:
        return LabeledDataset(images, labels, spec, users)  # pyright: ignore[reportArgumentType]  # neither is None
    except ValueError as error:
        raise DataError(f"{path}: {error}") from error
