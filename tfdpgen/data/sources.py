"""Sources of private examples: every one ends as `Splits(train, holdout, test)`.

    load_splits("digits")                                           # scikit-learn's UCI digits, 8x8, embedded
    load_splits("mnist", data_dir="~/tensorflow_datasets")          # any TFDS image-classification name
    load_splits("mnist", on_disk=True)                              # as ArrayRecord files, read one by one
    load_splits("photos/", image_shape=(32, 32, 3), resize="crop")  # a folder with one sub-folder a class
    load_splits("labels.csv", image_shape=(32, 32, 3), classes=("cat", "dog"))  # a table of files and labels
    load_splits("scans.npz", num_classes=4, value_range=(0.0, 1.0))   # arrays of images and labels

There is one file for each kind: tfds_sets.py, folders.py, tables.py, arrays.py. docs/data.md lists what each accepts.

**Public facts are declared, never computed.** Shape, number and names of classes and value range come from the source's
declaration (a TFDS builder's features, an array's header, names of folders) or from the arguments. Examples are checked
against them and refused, not measured: a maximum or a set of labels taken from private examples would leak.

**Splits are a function of positions alone**: a fixed public permutation of 0..n-1, so no example's content decides
where any goes. Splits that the source gives are kept: `_split` says how. Where users are known, whole users are dealt
out, by the order in which they first appear, and no user is in two parts.

**Examples are in memory, except those of a TFDS data set in ArrayRecord files**, which stay on disk: their splits are
`RecordDataset`s, views by position of the files, and what grows with the data is an index of some tens of bytes each.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from tfdpgen.data import tables
from tfdpgen.data.arrays import read_npz
from tfdpgen.data.dataset import DataError, Dataset, DataSpec, LabeledDataset
from tfdpgen.data.declared import Declared
from tfdpgen.data.fitting import fit_array
from tfdpgen.data.folders import list_folder
from tfdpgen.data.reading import read_listing
from tfdpgen.data.splits import Splits
from tfdpgen.data.synthetic_users import parse_users, synthetic_users
from tfdpgen.data.tfds_sets import read_tfds
from tfdpgen.data.values import to_bytes

MIN_EXAMPLES_PER_SPLIT = 10
_Number = TypeVar("_Number", int, float)

_ACCEPTED = (
    "`dataset` should be 'digits', the name of a TFDS image-classification data set (such as 'mnist'), a folder with "
    "one sub-folder of images a class, a table of files and labels (.csv, .tsv, .parquet), or a file that ends in .npz"
)


def load_splits(
    dataset: str = "digits",
    *,
    data_dir: str | None = None,
    image_shape: Sequence[int] | None = None,
    num_classes: int | None = None,
    value_range: Sequence[float] | None = None,
    classes: Sequence[str] = (),
    resize: str = "error",
    background: int | Sequence[int] = 255,
    download: bool = True,
    on_disk: bool = False,
    cache_dir: str | os.PathLike[str] | None = None,
    user_column: str = "user",
    users: str = "",
    verbose: bool = True,
) -> Splits:
    """Loads a source and splits it, by position or as the source says.

    Args:
      dataset: "digits", a folder of images, a table of image files, an .npz, or a TFDS name. A path that exists comes
        before a TFDS name; only "digits" is always the embedded set: write "./digits" for a folder.
      data_dir: where TFDS data sets are kept; TFDS's default if None.
      image_shape: (height, width, channels) that the model sees. Needed where the source does not declare it (a folder,
        a table, a TFDS data set of varying sizes).
      num_classes: needed where neither the source nor `classes` declares it.
      value_range: (low, high) of the stored values, mapped onto 0..255; uint8 and images of 8 bits default to (0, 255).
      classes: the names of the classes in the order of their labels; needed where labels are words.
      resize: what happens to images of other sides: "error", "crop", "pad" or "stretch".
      background: one grey level or three colours in 0..255, which transparent pixels and padding show.
      download: whether TFDS may download what `data_dir` lacks.
      on_disk: prepare a TFDS data set as ArrayRecord files and leave its examples there. A data set that is prepared so
        already stays on disk in any case.
      cache_dir: folder that keeps decoded images, so that a second run is quick; it is internal, for its owner alone.
      user_column: of a table, that says whose an example is.
      users: "iid:20" or "by_class:20" makes up users of 20 examples for a source that knows none, for experiments
        (`synthetic_users.py`); empty: users are those of the source, if it knows any.
      verbose: whether to say, on standard error, what was passed over, and to show the progress of reading.

    Returns:
      Three disjoint data sets of uint8 images [n, h, w, c] and int64 labels [n] with the same spec.

    Raises:
      DataError: if the source is unknown, missing, damaged, contradicts the declared facts, or has too few examples.
    """
    if isinstance(classes, str):
        raise DataError(f"`classes` should be a sequence of names, one a class; got the text {classes!r}.")
    declared = Declared(
        None if image_shape is None else _numbers("image_shape", image_shape, int),
        num_classes,
        None if value_range is None else _numbers("value_range", value_range, float),
        tuple(str(name) for name in classes),
        resize,
        (background,) if isinstance(background, int) else _numbers("background", background, int),
    )
    if users:
        parse_users(users)
    parts = _read(dataset, declared, data_dir, download, on_disk, cache_dir, user_column, verbose)
    if users:
        parts = _with_users(parts, users, dataset)
    if verbose and any(part.user_ids is not None for part in parts.values()):
        print(
            f"{dataset}: users are known, and each is in one part alone. fedavg_gan makes its promise to them; any "
            "other method makes it to one example, and it is weaker for whoever has several.",
            file=sys.stderr,
        )
    splits = _split(parts, dataset)
    smallest = min(len(splits.train), len(splits.holdout), len(splits.test))
    if smallest < MIN_EXAMPLES_PER_SPLIT:
        raise DataError(
            f"`dataset` {dataset!r} should leave at least {MIN_EXAMPLES_PER_SPLIT} examples for each of train, holdout "
            f"and test; got {len(splits.train)}, {len(splits.holdout)} and {len(splits.test)}. Supply more: "
            f"{5 * MIN_EXAMPLES_PER_SPLIT} are enough without a test split of the source's own, and "
            f"{10 * MIN_EXAMPLES_PER_SPLIT} of 'train' with one."
        )
    return splits


def _with_users(parts: Mapping[str, Dataset], users: str, dataset: str) -> Mapping[str, Dataset]:
    """Parts whose examples are made-up users'.

    Raises:
      DataError: if the source knows users, or an example's is not to be set.
    """
    if any(part.user_ids is not None for part in parts.values()):
        raise DataError(
            f"`users` should be empty, since `dataset` {dataset!r} says whose its examples are; got {users!r}."
        )
    made, first = {}, 0
    for name, part in parts.items():
        if not isinstance(part, LabeledDataset):
            raise DataError(f"`users` needs examples in memory, and those of `dataset` {dataset!r} are on disk.")
        labels = np.concatenate([labels for _, labels in part.blocks()] or [np.zeros(0, np.int64)])
        made[name] = dataclasses.replace(part, user_ids=first + synthetic_users(users, labels))
        first += len(part)  # no user is in two parts
    return made


def _numbers(name: str, values: Sequence[float], kind: type[_Number]) -> tuple[_Number, ...]:
    """The values of an argument as numbers of one kind.

    Raises:
      DataError: if they are none, as text is.
    """
    try:
        if isinstance(values, str):
            raise TypeError
        return tuple(kind(value) for value in values)
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"`{name}` should be a sequence of numbers; got {values!r}.") from error


def partition(num_examples: int, *percentages: int) -> list[npt.NDArray[np.int64]]:
    """Disjoint sets of positions that together are 0..num_examples-1.

    Args:
      num_examples: how many examples (or users) there are; the only thing that the result depends on.
      *percentages: the shares of all parts but the first, each rounded up; the first part is what they leave.

    Returns:
      One array of positions for each part, in the order of a fixed public permutation.
    """
    # RandomState, not Generator: NumPy guarantees its stream never to change, and with it who is in which split.
    positions = np.random.RandomState(20240229).permutation(num_examples).astype(np.int64, copy=False)
    sizes = [-(-num_examples * percentage // 100) for percentage in percentages]
    first = max(num_examples - sum(sizes), 0)
    return np.split(positions, np.cumsum([first, *sizes[:-1]]))


def _read(
    dataset: str,
    declared: Declared,
    data_dir: str | None,
    download: bool,
    on_disk: bool,
    cache_dir: str | os.PathLike[str] | None,
    user_column: str,
    verbose: bool,
) -> Mapping[str, Dataset]:
    """The parts that a source gives: "all", or "train" and perhaps "val" and "test"."""

    def say(line: str) -> None:
        if verbose:
            print(line, file=sys.stderr)

    path = Path(os.path.expanduser(dataset))
    kind = path.suffix.lower()
    is_folder = os.path.isdir(path) and not (
        data_dir is not None and os.path.realpath(path) == os.path.realpath(Path(os.path.expanduser(data_dir), dataset))
    )
    if on_disk and (dataset == "digits" or is_folder or kind in (".npz", *tables.SUFFIXES)):
        raise DataError(
            f"`on_disk` needs a TFDS data set, which is prepared as ArrayRecord files; `dataset` {dataset!r} is read "
            "into memory. Write a TFDS builder for it, or leave `on_disk` out."
        )
    if dataset == "digits":
        if os.path.exists(path):
            say(f"`dataset` digits: the embedded data set; write ./digits for {path.absolute()}.")
        return {"all": _digits(declared)}
    if is_folder:
        if dataset == path.name:
            say(f"`dataset` {dataset}: reading {path.absolute()}; a path that exists comes before a TFDS name.")
        listing, passed_over = list_folder(path, declared)
        if passed_over:
            say(passed_over)
        return read_listing(listing, declared, cache_dir=cache_dir, verbose=verbose)
    if kind == ".npz":
        return read_npz(path, declared)
    if kind in tables.SUFFIXES:
        listing, unread = tables.read_table(path, declared, user_column)
        if unread:
            say(unread)
        return read_listing(listing, declared, cache_dir=cache_dir, verbose=verbose)
    if os.path.isfile(path):
        raise DataError(f"{_ACCEPTED}; got {dataset!r}, which is a file of another kind.")
    return read_tfds(dataset, declared, data_dir=data_dir, download=download, on_disk=on_disk, accepted=_ACCEPTED)


def _split(parts: Mapping[str, Dataset], dataset: str) -> Splits:
    """Train, holdout and test.

    - One part: 60 % train, 20 % holdout, 20 % test.
    - train, val and test: val becomes the holdout.
    - train and test: train becomes 90 % train and 10 % holdout.
    - train and val: as if val were test.

    Holdout and test are rounded up. Shares are of users where these are known.
    """
    if "all" in parts or set(parts) == {"train"}:
        (every,) = parts.values()
        return Splits(*(every.take(positions) for positions in _positions(every.user_ids, len(every), 20, 20)))
    if "train" not in parts:
        raise DataError(f"`dataset` {dataset!r} should have a split train; it has {', '.join(parts)}.")
    _refuse_shared_users(parts, dataset)
    train = parts["train"]
    if "val" in parts and "test" in parts:
        return Splits(train, parts["val"], parts["test"])
    kept, holdout = (train.take(positions) for positions in _positions(train.user_ids, len(train), 10))
    return Splits(kept, holdout, parts.get("test", parts.get("val")))  # pyright: ignore[reportArgumentType]  # one is there


def _positions(
    users: npt.NDArray[np.int64] | None, num_examples: int, *percentages: int
) -> list[npt.NDArray[np.int64]]:
    """`partition` of examples, or of users where these are known."""
    if users is None:
        return partition(num_examples, *percentages)
    _, first, numbers = np.unique(users, return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(first))[numbers]  # users by their first appearance
    part_of_user = np.empty(len(first), np.int64)
    parts = partition(len(first), *percentages)
    for i, chosen in enumerate(parts):
        part_of_user[chosen] = i
    order = partition(num_examples)[0]  # within a part the order is mixed too
    return [order[part_of_user[rank[order]] == i] for i in range(len(parts))]


def _refuse_shared_users(parts: Mapping[str, Dataset], dataset: str) -> None:
    """Refuses splits of which one user is in two."""
    seen: dict[int, str] = {}
    for name, part in parts.items():
        users = [] if part.user_ids is None else np.unique(part.user_ids).tolist()
        shared = [user for user in users if user in seen]
        if shared:
            raise DataError(
                f"`dataset` {dataset!r}: a user should be in one split; {len(shared)} of {name} are also in "
                f"{seen[shared[0]]}. Leave the column `split` out, so that the splits go by user, or correct it."
            )
        seen.update(dict.fromkeys(users, name))


def _digits(declared: Declared) -> LabeledDataset:
    """The UCI digits that scikit-learn carries: 1,797 images, 17 grey levels."""
    import sklearn.datasets  # here, since it takes a second that the other sources need not pay

    spec = DataSpec(
        image_shape=declared.shape((8, 8, 1), "digits"),
        num_classes=declared.fact("num_classes", 10, "digits"),
        value_range=declared.fact("value_range", (0.0, 16.0), "digits"),
        class_names=declared.class_names(tuple("0123456789"), "digits"),
    )
    digits: Any = sklearn.datasets.load_digits()
    images = to_bytes(digits.images[..., np.newaxis], spec.value_range, "digits")
    if spec.image_shape != images.shape[1:]:
        images = np.stack([fit_array(image, spec.image_shape, declared, "digits") for image in images])
    return LabeledDataset(images, digits.target.astype(np.int64), spec)
