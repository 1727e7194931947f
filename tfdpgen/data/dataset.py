"""Labelled images, in memory or not, and the public facts about them.

`DataSpec` holds what may be known without paying for it: shape, value range and classes. They are declared by whoever
supplies the data, never read off the private examples, so nothing computed from a `DataSpec` costs privacy.

    spec = DataSpec(image_shape=(8, 8, 1), num_classes=10)
    dataset = LabeledDataset(images, labels, spec)      # uint8 [n, 8, 8, 1], int64 [n]; checked here
    dataset.take([0, 5, 7])

`Dataset` is what everything that touches private examples asks of them: their number, any of them by position, and all
of them block by block. `LabeledDataset` has them in memory, `tfdpgen.data.records.RecordDataset` reads them from disk.

    dataset.examples([0, 5, 7])                         # uint8 [3, 8, 8, 1], int64 [3]
    for images, labels in dataset.blocks():             # all examples, in order, a megabyte at a time
        ...

Where several examples are one user's, `user_ids` says which; methods that promise privacy to a user need it.
"""

from __future__ import annotations

import abc
import dataclasses
import math
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt

Positions = Sequence[int] | npt.NDArray[np.integer]
Examples = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]

_BLOCK_BYTES = 2**20


class DataError(ValueError):
    """Data that cannot be used as they are; the message names the file or argument and says what to do."""


@dataclasses.dataclass(frozen=True)
class DataSpec:
    """Public facts about a data set of labelled images.

    Attributes:
      image_shape: (height, width, channels); channels is 1 or 3.
      num_classes: labels are integers in [0, num_classes).
      value_range: (low, high) of the values as the source stores them. A `LabeledDataset` always holds uint8 in
        [0, 255]; the source maps this declared range onto it.
      class_names: one name a class, or empty. They are published with the synthetic examples, so they have to be
        declared: by the source (names of folders, TFDS features) or by the caller.

    Raises:
      DataError: if a fact is malformed; the message names the attribute, what was expected and what came.
    """

    image_shape: tuple[int, int, int]
    num_classes: int
    value_range: tuple[float, float] = (0.0, 255.0)
    class_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        shape = tuple(int(side) for side in self.image_shape)
        if len(shape) != 3 or min(shape) < 1 or shape[2] not in (1, 3):
            raise DataError(
                "`image_shape` should be (height, width, channels), each at least 1, with 1 or 3 channels; "
                f"got {self.image_shape!r}."
            )
        if self.num_classes < 2:
            raise DataError(f"`num_classes` should be at least 2; got {self.num_classes!r}.")
        low, high = (float(bound) for bound in self.value_range)
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise DataError(f"`value_range` should be finite (low, high) with low < high; got {self.value_range!r}.")
        names = tuple(str(name) for name in self.class_names)
        if names and len(names) != self.num_classes:
            raise DataError(
                f"`class_names` should hold one name for each of {self.num_classes} classes; got {len(names)}."
            )
        check_class_names(names)
        object.__setattr__(self, "image_shape", shape)
        object.__setattr__(self, "num_classes", int(self.num_classes))
        object.__setattr__(self, "value_range", (low, high))
        object.__setattr__(self, "class_names", names)

    def to_dict(self) -> dict[str, Any]:
        """The facts as JSON-ready values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> DataSpec:
        """The inverse of `to_dict`, also after a trip through JSON."""
        height, width, channels = facts["image_shape"]
        low, high = facts["value_range"]
        return cls((height, width, channels), facts["num_classes"], (low, high), tuple(facts["class_names"]))

    def name_of(self, label: int) -> str:
        """The name of a class, or its number where classes have no names."""
        return self.class_names[label] if self.class_names else str(label)


def check_class_names(names: Sequence[str], what: str = "`class_names`") -> None:
    """Refuses names that a list of names, one a line, would not give back as they are.

    Args:
      names: one a class.
      what: what an error calls them.

    Raises:
      DataError: if one is empty, begins or ends with white space, holds a control character or something that UTF-8
        cannot write, or is there twice.
    """
    for name in names:
        if (
            not name
            or name != name.strip()
            or any(unicodedata.category(sign) in ("Cc", "Cs", "Zl", "Zp") for sign in name)
        ):
            raise DataError(
                f"{what} should be words without white space at their ends, line breaks or control characters, since "
                f"they are published one a line; got {name!r}. Rename the class."
            )
    if len(set(names)) < len(names):
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        raise DataError(f"{what} should all differ; {twice!r} is there twice.")


class Dataset(abc.ABC):
    """Labelled images, wherever they are; one example is one image and its label.

    Every example that comes out agrees with the spec: images uint8 [h, w, c] in [0, 255], labels int64 in
    [0, spec.num_classes).

    Attributes:
      spec: the public facts.
      user_ids: int64 [n], which user each example is of, or None where that is not known.
    """

    spec: DataSpec
    user_ids: npt.NDArray[np.int64] | None = None

    @abc.abstractmethod
    def __len__(self) -> int: ...

    @abc.abstractmethod
    def examples(self, positions: Positions) -> Examples:
        """The images uint8 [k, h, w, c] and labels int64 [k] at k `positions`, in their order."""

    @abc.abstractmethod
    def take(self, positions: Positions) -> Self:
        """A data set of the examples at `positions`, in their order."""

    def blocks(self) -> Iterator[Examples]:
        """All examples in their order, a megabyte of them at a time."""
        size = max(1, _BLOCK_BYTES // math.prod(self.spec.image_shape))
        for start in range(0, len(self), size):
            yield self.examples(np.arange(start, min(start + size, len(self))))

    def in_memory(self, most: int | None = None) -> LabeledDataset:
        """The first `most` examples, or all of them, in memory."""
        size = len(self) if most is None else min(most, len(self))
        users = self.user_ids if self.user_ids is None else self.user_ids[:size]
        return LabeledDataset(*self.examples(np.arange(size)), self.spec, users)


@dataclasses.dataclass(frozen=True, eq=False)
class LabeledDataset(Dataset):
    """Labelled images in memory; one example is one image and its label.

    Attributes:
      images: uint8 [n, height, width, channels] in [0, 255].
      labels: int64 [n] in [0, spec.num_classes).
      spec: the public facts.
      user_ids: int64 [n], which user each example is of, or None where that is not known.

    Raises:
      DataError: on wrong dtypes or shapes, or on labels out of range.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    spec: DataSpec
    user_ids: npt.NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        if self.images.dtype != np.uint8 or self.images.shape[1:] != self.spec.image_shape:
            raise DataError(
                f"`images` should be uint8 of shape [n, {', '.join(map(str, self.spec.image_shape))}]; "
                f"got {self.images.dtype} of shape {list(self.images.shape)}."
            )
        for name in ("labels", "user_ids"):
            values = getattr(self, name)
            if values is not None and (values.dtype != np.int64 or values.shape != self.images.shape[:1]):
                raise DataError(
                    f"`{name}` should be int64 of shape [{len(self.images)}], one for each image; "
                    f"got {values.dtype} of shape {list(values.shape)}."
                )
        outside = np.flatnonzero((self.labels < 0) | (self.labels >= self.spec.num_classes))
        if outside.size:
            raise DataError(
                f"`labels` should lie in [0, {self.spec.num_classes}); example {outside[0]} has "
                f"{self.labels[outside[0]]} ({outside.size} of {len(self.labels)} labels are wrong). Declare the right "
                "number of classes."
            )

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        """The public facts; never an example, which a notebook or a log would keep."""
        users = "unknown" if self.user_ids is None else "known"
        return f"{type(self).__name__}({len(self):,} examples, {self.spec}, users {users})"

    def examples(self, positions: Positions) -> Examples:
        positions = np.asarray(positions, dtype=np.int64)
        return self.images[positions], self.labels[positions]

    def take(self, positions: Positions) -> Self:
        users = self.user_ids if self.user_ids is None else self.user_ids[np.asarray(positions, np.int64)]
        return type(self)(*self.examples(positions), self.spec, users)

    def in_memory(self, most: int | None = None) -> LabeledDataset:
        users = self.user_ids if self.user_ids is None else self.user_ids[:most]
        return self if most is None else LabeledDataset(self.images[:most], self.labels[:most], self.spec, users)
