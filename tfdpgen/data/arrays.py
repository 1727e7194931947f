"""Arrays in an .npz, as people write them -> data sets in memory, one for each split.

    images, labels                                      # also image, label; X, y; data, target; arr_0, arr_1
    x_train, y_train, x_test, y_test                    # Keras; also x_val, y_val
    train_images, train_labels, val_images, ...         # MedMNIST

    read_npz("scans.npz", Declared(num_classes=4))      # {"all": LabeledDataset}
    read_npz("pneumoniamnist.npz", Declared(num_classes=2))     # {"train": ..., "val": ..., "test": ...}

Images are [n, h, w] or [n, h, w, c], or [n, c, h, w] where the declared `image_shape` is (h, w, c). Labels: see
labels.py. A scalar `num_classes` declares the number of classes, and `user_ids` [n] (`train_user_ids`, ...) says whose
each example is. Members that are none of these are not read, whatever they hold.

Everything is decided by the headers before memory is asked for, and then read in blocks of a megabyte, so that the
images are in memory as bytes alone, however wide they are in the file.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tfdpgen.data.dataset import DataError, DataSpec, LabeledDataset
from tfdpgen.data.declared import BYTE_RANGE, Declared
from tfdpgen.data.fitting import fit_array
from tfdpgen.data.labels import num_classes_of, to_labels
from tfdpgen.data.memory import check_fits
from tfdpgen.data.npz import NpzFile
from tfdpgen.data.values import check_range, to_bytes

_PAIRS = (
    ("images", "labels"),
    ("image", "label"),
    ("x", "y"),
    ("data", "target"),
    ("data", "labels"),
    ("arr_0", "arr_1"),
)
_SPLIT_NAMES = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}


def read_npz(path: str | os.PathLike[str], declared: Declared) -> dict[str, LabeledDataset]:
    """The data sets in an .npz, without unpickling anything.

    Args:
      path: of the file.
      declared: the facts that its headers do not declare, and how images come to have the declared shape.

    Returns:
      A data set for each of "train", "val" and "test" that the file has, or one under "all".

    Raises:
      DataError: if the file is missing, damaged, no .npz, or contradicts itself or what is declared.
    """
    where = Path(path)
    with NpzFile(where) as archive:
        parts = _layout(where, archive.names)
        declared_inside = _scalar(archive, "num_classes", where)
        if declared_inside is None:
            widths = {num_classes_of(archive.member(labels).shape) for _, labels in parts.values()}
            declared_inside = widths.pop() if len(widths) == 1 else None
        num_classes = declared.fact("num_classes", declared_inside, where)
        known = dataclasses.replace(declared, num_classes=num_classes)
        plans = {split: _Plan(archive, names[0], names[1], known) for split, names in parts.items()}
        shapes = {plan.image_shape for plan in plans.values()}
        if len(shapes) > 1:
            raise DataError(
                f"{where}: the images of all splits should have one shape; got "
                f"{' and '.join(map(str, sorted(shapes)))}. Declare `--image_shape` and `--resize=crop`, pad or "
                "stretch."
            )
        ranges = {plan.value_range for plan in plans.values()}
        if len(ranges) > 1:
            raise DataError(f"{where}: the splits hold values of several types. Declare `--value_range`.")
        spec = DataSpec(shapes.pop(), num_classes, ranges.pop(), declared.classes)
        size = sum(plan.num_examples for plan in plans.values()) * math.prod(spec.image_shape)
        check_fits(size, where, "a smaller `--image_shape` with `--resize=crop`, pad or stretch")
        datasets = {}
        for split, plan in plans.items():
            labels = plan.labels()
            users = _user_ids(archive, split, plan.num_examples, where)
            datasets[split] = LabeledDataset(plan.images(spec), labels, spec, users)
        return datasets


def _layout(where: Path, members: Sequence[str]) -> dict[str, tuple[str, str]]:
    """For each split the names of its images and labels."""
    names: dict[str, str] = {}
    for name in members:
        names.setdefault(name.lower(), name)
    split: dict[str, tuple[str, str]] = {}
    for part, words in _SPLIT_NAMES.items():
        for word in words:
            for images, labels in _PAIRS[:-1]:
                for form in ("{0}_{1}", "{1}_{0}"):
                    pair = form.format(images, word), form.format(labels, word)
                    if all(name in names for name in pair):
                        split.setdefault(part, (names[pair[0]], names[pair[1]]))
    whole = next(((names[a], names[b]) for a, b in _PAIRS if a in names and b in names), None)
    if split and whole:
        raise DataError(
            f"{where} should hold either splits or one set of examples; it holds {next(iter(split.values()))} and "
            f"{whole}. Save the one that is meant."
        )
    if whole:
        return {"all": whole}
    if "train" in split:
        return split
    lacks = [name for name in ("images", "labels") if name not in members]
    raise DataError(
        f"{where} should hold the arrays `images` and `labels` (or X and y, x_train, y_train, x_test and y_test, "
        f"train_images and train_labels, ...); it lacks {lacks} and holds {sorted(members)[:20]}."
    )


def _scalar(archive: NpzFile, name: str, where: Path) -> int | None:
    """A declaration inside the file."""
    if name not in archive.names:
        return None
    member = archive.member(name)
    if member.shape != () or member.dtype.kind not in "iu":
        raise DataError(f"{where}: `{name}` should be one integer; got {member.dtype} of shape {list(member.shape)}.")
    return int(archive.read(member))


def _user_ids(archive: NpzFile, split: str, num_examples: int, where: Path) -> npt.NDArray[np.int64] | None:
    """Whose each example of a split is, or None where the file does not say."""
    forms = ("user_ids",) if split == "all" else (f"{split}_user_ids", f"user_ids_{split}")
    name = next((form for form in forms if form in archive.names), None)
    if name is None:
        return None
    member = archive.member(name)
    if member.shape != (num_examples,) or member.dtype.kind not in "iu":
        raise DataError(
            f"{where}: `{name}` should be integers of shape [{num_examples}], one for each image; "
            f"got {member.dtype} of shape {list(member.shape)}."
        )
    return archive.read(member).astype(np.int64)


class _Plan:
    """How the images and labels of one split are read, decided by their headers."""

    def __init__(self, archive: NpzFile, images: str, labels: str, declared: Declared) -> None:
        self._archive, self._declared, self._where = archive, declared, archive.path
        self._in = (
            f"{archive.path}" if images == "images" else f"{archive.path} ({images})"
        )  # for errors about one example
        self._images, self._labels = archive.member(images), archive.member(labels)
        for member in (self._images, self._labels):
            archive.check(member)
        where, shape, dtype = self._where, self._images.shape, self._images.dtype
        stored: tuple[int, ...] = (*shape, 1) if len(shape) == 3 else shape
        wanted = declared.image_shape
        self._channels_first = (
            len(shape) == 4 and wanted is not None and shape[1:] != wanted and shape[1:] == (wanted[2], *wanted[:2])
        )
        if self._channels_first:
            stored = (shape[0], *shape[2:], shape[1])
        if len(stored) != 4 or stored[-1] not in (1, 3, 4) or 0 in stored[1:]:
            swapped = len(shape) == 4 and shape[1] in (1, 3) and 0 not in shape
            fix = (
                f" Declare channels that come first by `--image_shape={shape[2]},{shape[-1]},{shape[1]}`."
                if swapped
                else ""
            )
            raise DataError(
                f"{where}: `{images}` should have shape [n, h, w], [n, h, w, 1], [n, h, w, 3] or, with transparency, "
                f"[n, h, w, 4]; got {list(shape)}.{fix}"
            )
        if dtype.kind not in "buif":
            raise DataError(f"{where}: `{images}` should be numbers; got {dtype}.")
        self.num_examples = stored[0]
        if self._labels.shape[:1] != (self.num_examples,) or len(self._labels.shape) > 2:
            raise DataError(
                f"{where}: `{labels}` should be integers of shape [{self.num_examples}], one for each image; "
                f"got {self._labels.dtype} of shape {list(self._labels.shape)}."
            )
        own = (stored[1], stored[2], min(stored[-1], 3))
        self.image_shape: tuple[int, int, int] = declared.shape(own, where)
        # The range of the type is a default, not a declaration: uint8 arrays of 0..16 are common.
        of_type = {"uint8": BYTE_RANGE, "bool": (0.0, 1.0)}.get(str(dtype)) if declared.value_range is None else None
        self.value_range: tuple[float, float] = declared.fact("value_range", of_type, where)
        check_range(dtype, self.value_range, where)

    def labels(self) -> npt.NDArray[np.int64]:
        """Labels int64 [n]."""
        return to_labels(self._archive.read(self._labels), self._declared, self._in)

    def images(self, spec: DataSpec) -> npt.NDArray[np.uint8]:
        """Images uint8 [n, h, w, c]."""
        out = np.empty((self.num_examples, *spec.image_shape), np.uint8)
        start = 0
        for block in self._archive.blocks(self._images):
            if self._channels_first:
                block = np.moveaxis(block, 1, -1)
            elif block.ndim == 3:
                block = block[..., np.newaxis]
            pixels = to_bytes(block, self.value_range, self._in, start)
            if pixels.shape[1:] != spec.image_shape:
                fit = (fit_array(image, spec.image_shape, self._declared, self._in) for image in pixels)
                pixels = np.stack(list(fit))
            out[start : start + len(pixels)] = pixels
            start += len(pixels)
        return out
