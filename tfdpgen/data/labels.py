"""Labels as people store them -> int64 [n] in 0..k-1, by the declared classes alone.

    to_labels(np.array([[1], [0]]), Declared(num_classes=2), "scans.npz")           # 1, 0
    to_labels(np.array([[0., 1.], [1., 0.]]), Declared(num_classes=2), "scans.npz") # one-hot: 1, 0
    to_labels(np.array(["dog", "cat"]), Declared(classes=("cat", "dog")), "...")    # words: 1, 0
    to_labels(np.array([1, 2, 2]), Declared(classes=("1", "2")), "...")             # the names are numbers: 0, 1, 1

No set of labels is ever collected: a label is looked up among the declared classes, and refused if it is not there.
"""

from __future__ import annotations

import os
import re
from typing import Any

import numpy as np
import numpy.typing as npt

from tfdpgen.data.dataset import DataError
from tfdpgen.data.declared import Declared

_NUMBER = re.compile(r"[+-]?\d+")


def num_classes_of(shape: tuple[int, ...]) -> int | None:
    """What the shape of an array of labels declares: one-hot labels [n, k] are of k classes."""
    return shape[1] if len(shape) == 2 and shape[1] > 1 else None


def to_labels(
    values: npt.NDArray[Any], declared: Declared, where: str | os.PathLike[str], first: int = 0
) -> npt.NDArray[np.int64]:
    """Labels from 0 to k-1, where k is the declared number of classes.

    Args:
      values: [n] or [n, 1] integers, whole floats, bools or words; or [n, k] one-hot.
      declared: `num_classes` or `classes`.
      where: what an error calls the source.
      first: the number of the first example in an error.

    Returns:
      int64 [n].

    Raises:
      DataError: if a label is none of the declared classes, naming the first such example and how many there are.
    """
    num_classes: int = declared.fact("num_classes", None, where)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim == 2 and values.shape[1] == num_classes and values.dtype.kind in "buif":
        return _one_hot(values, where, first)
    if values.ndim != 1 or values.dtype.kind not in "buifUS":
        raise DataError(
            f"{where}: `labels` should be integers, words with `--classes`, or one-hot of shape [n, {num_classes}]; "
            f"got {values.dtype} of shape {list(values.shape)}."
        )
    if values.dtype.kind in "US":
        return _words(values, declared, where, first)
    wrong = values != np.rint(values) if values.dtype.kind == "f" else np.zeros(len(values), bool)
    _refuse(wrong, values, where, first, "be integers, or floats that are whole")
    names = declared.classes
    if names and all(_NUMBER.fullmatch(name) for name in names):
        return _looked_up(values, {int(name): i for i, name in enumerate(names)}, declared, where, first)
    expected = f"lie in [0, {num_classes})"
    fix = (
        "Labels start at 0: name the classes in their order where the file counts otherwise (`--classes=1,2,3`), or "
        "declare the right `--num_classes`."
    )
    _refuse((values < 0) | (values >= num_classes), values, where, first, expected, fix)
    return values.astype(np.int64)


def _one_hot(values: npt.NDArray[Any], where: str | os.PathLike[str], first: int) -> npt.NDArray[np.int64]:
    """The place of the 1 in each row of [n, k]."""
    wrong = ((values != 0) & (values != 1)).any(axis=1) | ((values != 0).sum(axis=1) != 1)
    _refuse(wrong, values, where, first, "hold one 1 and otherwise 0, being one-hot")
    return values.argmax(axis=1).astype(np.int64)


def _words(
    values: npt.NDArray[Any], declared: Declared, where: str | os.PathLike[str], first: int
) -> npt.NDArray[np.int64]:
    """Labels that are text: names of classes, or integers written out."""
    if values.dtype.kind == "S":
        values = np.char.decode(values, "utf-8", "replace")
    if declared.classes:
        by_name = {name: i for i, name in enumerate(declared.classes)}
        return _looked_up(values, by_name, declared, where, first)
    wrong = np.array([not _NUMBER.fullmatch(str(word)) for word in values], bool)
    fix = "The order of words is yours to declare: `--classes=cat,dog`."
    _refuse(wrong, values, where, first, "be integers where no `--classes` are declared", fix)
    return to_labels(np.array([int(word) for word in values.tolist()], np.int64), declared, where, first)


def _looked_up(
    values: npt.NDArray[Any], index: dict[Any, int], declared: Declared, where: str | os.PathLike[str], first: int
) -> npt.NDArray[np.int64]:
    """The place of each value in the declared classes."""
    labels = np.array([index.get(value, -1) for value in values.tolist()], np.int64)
    listed = ",".join(declared.classes[:10]) + (",..." if len(declared.classes) > 10 else "")
    fix = "Declare every class by `--classes`, or correct the example."
    _refuse(labels < 0, values, where, first, f"be of the declared `classes` {listed}", fix)
    return labels


def _refuse(
    wrong: npt.NDArray[np.bool_],
    values: npt.NDArray[Any],
    where: str | os.PathLike[str],
    first: int,
    expected: str,
    fix: str = "Correct the example.",
) -> None:
    """Raises a `DataError` if any label is wrong."""
    places = np.flatnonzero(wrong)
    if places.size:
        raise DataError(
            f"{where}: `labels` should {expected}; example {first + places[0]} has {values[places[0]].tolist()!r} "
            f"({places.size} of {len(wrong)} labels are wrong). {fix}"
        )
