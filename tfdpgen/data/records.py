"""Labelled images on disk: examples are read when they are asked for, so that data need not fit in memory.

    builder = tfds.builder("mnist", file_format="array_record")
    builder.download_and_prepare()
    dataset = RecordDataset(builder.as_data_source(split="train"), DataSpec((28, 28, 1), 10))  # checks each example
    train("gaussian_mixture", dataset, PrivacyBudget(epsilon=3.0, delta=1e-5))

A source is anything that gives an example for a position: what `tfds.data_source` returns for ArrayRecord files
(https://www.tensorflow.org/datasets/data_source), or any sequence of `{"image": ..., "label": ...}`.

**Memory.** A data set holds no example between two reads, and a read holds the examples that were asked for. A view of
chosen positions (`take`) holds those: 4 bytes an example. ArrayRecord files are read and not mapped, so that the
operating system may keep their pages, but they are no part of the process. Their reader holds where each record lies,
measured as 25 to 40 bytes an example: that, whatever the size of the images, is what still grows with the data.

`write_examples` copies a data set into one ArrayRecord file that `read_examples` opens: a record is the label, 8 bytes,
little-endian, and the pixels. It is read several times faster than a PNG in a TFDS record.
"""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from tfdpgen.data.dataset import DataError, Dataset, DataSpec, Examples, Positions

_LABEL = np.dtype("<i8")


class RandomAccess(Protocol):
    """Examples by position. A `__getitems__` that takes a list of positions is used where there is one."""

    def __len__(self) -> int: ...

    def __getitem__(self, position: Any, /) -> Mapping[str, Any]: ...


class RecordDataset(Dataset):
    """Labelled images that are read from a random-access source when they are asked for.

    All examples are read once here, block by block, and compared with the spec, so that an example that contradicts the
    public facts is refused before any privacy budget is spent. What is read later is compared again.

    Args:
      source: examples as mappings of an image, uint8 [h, w, c] in [0, 255], and a label, an integer. Its examples must
        not change as long as they are used.
      spec: the public facts.
      image_key: of the image in an example.
      label_key: of the label in an example.
      where: what error messages call the source.
      user_ids: int64 [n], which user each of the source's examples is of; kept in memory.

    Raises:
      DataError: if an example cannot be read or contradicts the spec; the message gives its position in the source.
    """

    def __init__(
        self,
        source: RandomAccess,
        spec: DataSpec,
        *,
        image_key: str = "image",
        label_key: str = "label",
        where: str | os.PathLike[str] = "`source`",
        user_ids: npt.NDArray[np.int64] | None = None,
    ) -> None:
        if user_ids is not None and (user_ids.dtype != np.int64 or user_ids.shape != (len(source),)):
            raise DataError(
                f"{os.fspath(where)}: `user_ids` should be int64 of shape [{len(source)}], one for each example; "
                f"got {user_ids.dtype} of shape {list(user_ids.shape)}."
            )
        self.spec = spec
        self.user_ids = user_ids
        self._source = source
        self._keys = (image_key, label_key)
        self._where = os.fspath(where)
        self._positions: npt.NDArray[np.integer] | None = None  # in the source; None for all of them
        for _ in self.blocks():
            pass

    def __len__(self) -> int:
        return len(self._source) if self._positions is None else len(self._positions)

    def take(self, positions: Positions) -> Self:
        view = copy.copy(self)
        view._positions = self._in_source(positions).astype(np.int32 if len(self._source) < 2**31 else np.int64)
        if self.user_ids is not None:
            view.user_ids = self.user_ids[np.asarray(positions, np.int64)]
        return view

    def examples(self, positions: Positions) -> Examples:
        chosen = self._in_source(positions).tolist()
        images = np.empty((len(chosen), *self.spec.image_shape), np.uint8)
        labels = np.empty(len(chosen), np.int64)
        for i, example in enumerate(self._read(chosen)):
            image, label = (self._value(example, key, chosen[i]) for key in self._keys)
            if image.dtype != np.uint8 or image.shape != self.spec.image_shape:
                raise DataError(
                    f"{self._where}: images should be uint8 of shape {self.spec.image_shape}, as `image_shape` "
                    f"declares; example {chosen[i]} is {image.dtype} of shape {image.shape}. Images are not resized: "
                    "prepare them beforehand, or declare another shape."
                )
            if label.dtype.kind not in "iu" or label.shape != () or not 0 <= label < self.spec.num_classes:
                raise DataError(
                    f"{self._where}: labels should be integers in [0, {self.spec.num_classes}); example {chosen[i]} "
                    f"has {example[self._keys[1]]!r}. Declare the right number of classes, or correct the example."
                )
            images[i], labels[i] = image, label
        return images, labels

    def _in_source(self, positions: Positions) -> npt.NDArray[np.integer]:
        """Positions in the source of examples of this view."""
        chosen = np.asarray(positions, np.int64)
        outside = chosen[(chosen < 0) | (chosen >= len(self))]
        if outside.size:
            raise IndexError(f"`positions` should lie in [0, {len(self)}); got {outside[0]}.")
        return chosen if self._positions is None else self._positions[chosen]

    def _read(self, positions: list[int]) -> Sequence[Mapping[str, Any]]:
        """The examples at positions of the source, as it gives them."""
        batched: Any = getattr(self._source, "__getitems__", None)
        try:
            if batched is None:
                return [self._source[position] for position in positions]
            return batched(positions) if positions else []
        except Exception as error:  # Whatever a disk, a decoder or the source's own code raises.
            raise DataError(
                f"{self._where}: examples cannot be read, and files may be damaged: {error}. Prepare the data anew."
            ) from error

    def _value(self, example: Mapping[str, Any], key: str, position: int) -> npt.NDArray[Any]:
        """One value of an example."""
        try:
            return np.asarray(example[key])
        except (KeyError, TypeError, IndexError) as error:
            raise DataError(
                f"{self._where}: each example should be a mapping with {self._keys[0]!r} and {self._keys[1]!r}; "
                f"example {position} lacks {key!r}."
            ) from error


def write_examples(dataset: Dataset, path: str | os.PathLike[str]) -> None:
    """Copies a data set, block by block, into an ArrayRecord file for `read_examples`."""
    from array_record.python import array_record_module  # pyright: ignore[reportAttributeAccessIssue]  # compiled

    writer = array_record_module.ArrayRecordWriter(
        os.fspath(path), "group_size:1"
    )  # one example a chunk: random access
    try:
        for images, labels in dataset.blocks():
            for image, label in zip(images, labels.astype(_LABEL), strict=True):
                writer.write(label.tobytes() + image.tobytes())
    finally:
        writer.close()


def read_examples(
    path: str | os.PathLike[str], spec: DataSpec, user_ids: npt.NDArray[np.int64] | None = None
) -> RecordDataset:
    """Opens what `write_examples` wrote, which keeps no `user_ids`, and checks it.

    Raises:
      DataError: if the file is missing or damaged, or an example contradicts the spec; the message names the file.
    """
    return RecordDataset(_StoredExamples(path, spec), spec, where=path, user_ids=user_ids)


class _StoredExamples:
    """The examples of a file that `write_examples` wrote."""

    def __init__(self, path: str | os.PathLike[str], spec: DataSpec) -> None:
        from array_record.python import array_record_data_source

        self._shape = spec.image_shape
        self._size = _LABEL.itemsize + math.prod(spec.image_shape)
        try:
            self._records = array_record_data_source.ArrayRecordDataSource(os.fspath(path))
        except (RuntimeError, ValueError, OSError) as error:
            raise DataError(f"{path} should be an undamaged ArrayRecord file; opening it failed: {error}.") from error

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, position: int) -> Mapping[str, Any]:
        return self.__getitems__([position])[0]

    def __getitems__(self, positions: list[int]) -> list[Mapping[str, Any]]:
        return [self._example(record) for record in self._records.__getitems__(positions)]

    def _example(self, record: bytes) -> Mapping[str, Any]:
        """The label and the pixels of a record."""
        if len(record) != self._size:
            raise ValueError(f"records should have {self._size} bytes for images of {self._shape}; got {len(record)}")
        pixels = np.frombuffer(record, np.uint8, offset=_LABEL.itemsize).reshape(self._shape)
        return {"image": pixels, "label": np.frombuffer(record, _LABEL, count=1)[0]}
