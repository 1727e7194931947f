"""Sources of private records: every one ends as `Splits(train, holdout, test)`.

    load_splits("digits")                                           # scikit-learn's UCI digits, 8x8, embedded
    load_splits("mnist", data_dir="~/tensorflow_datasets")          # any TFDS image-classification name
    load_splits("mnist", on_disk=True)                              # as ArrayRecord files, read row by row
    load_splits("photos/", image_shape=(32, 32, 3))                 # a folder with one sub-folder a class
    load_splits("scans.npz", num_classes=4, value_range=(0.0, 1.0))   # arrays `images` and `labels`

**Public facts are declared, never computed.** Shape, number of classes and value range come from the source's
declaration (a TFDS builder's features, an array's header, names of folders) or from the arguments. Rows are checked
against them and refused, not measured: a maximum or a set of labels taken from private rows would leak.

**Splits are a function of row positions alone**: a fixed public permutation of 0..n-1, so no row's content decides
where any row goes. A TFDS source with an official "test" split keeps it, and its "train" split becomes 90 % train and
10 % holdout; any other source becomes 60 % train, 20 % holdout, 20 % test. Holdout and test are rounded up.

**Rows are in memory, except those of a TFDS data set in ArrayRecord files**, which stay on disk: their splits are
`RecordDataset`s, views by position of the files, and what grows with the data is an index of some tens of bytes a row.
"""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import PIL.Image

from tfdpgen.data.dataset import DataError, Dataset, DataSpec, LabeledDataset, read_npz
from tfdpgen.data.records import RecordDataset
from tfdpgen.data.splits import Splits

MIN_ROWS_PER_SPLIT = 10

_ACCEPTED = (
    "`dataset` should be 'digits', the name of a TFDS image-classification data set (such as 'mnist'), a folder with "
    "one sub-folder of images a class, or a file that ends in .npz"
)
_IMAGE_SUFFIXES = (".jpeg", ".jpg", ".png")
_IMAGE_MODES = {1: "L", 3: "RGB"}
_BYTE_RANGE = (0.0, 255.0)

_Fact = TypeVar("_Fact")


def load_splits(
    dataset: str = "digits",
    *,
    data_dir: str | None = None,
    image_shape: Sequence[int] | None = None,
    num_classes: int | None = None,
    value_range: Sequence[float] | None = None,
    download: bool = True,
    on_disk: bool = False,
) -> Splits:
    """Loads a source and splits it by row position.

    Args:
      dataset: "digits", a TFDS name, a folder of images, or an .npz. A bare word that TFDS knows is a TFDS name even
        where a folder of that name exists: write "./name" for the folder.
      data_dir: where TFDS data sets are kept; TFDS's default if None.
      image_shape: (height, width, channels). Needed where the source does not declare it (a folder, a TFDS data set
        of varying sizes). Images of another size are refused, not resized.
      num_classes: needed for an .npz without a scalar `num_classes` inside.
      value_range: (low, high) of the stored values of an .npz, mapped onto 0..255; uint8 arrays default to (0, 255).
      download: whether TFDS may download what `data_dir` lacks.
      on_disk: prepare a TFDS data set as ArrayRecord files and leave its rows there. A data set that is prepared so
        already stays on disk in any case.

    Returns:
      Three disjoint data sets of uint8 images [n, h, w, c] and int64 labels [n] with the same spec.

    Raises:
      DataError: if the source is unknown, missing, damaged, contradicts the declared facts, or has too few rows.
    """
    flags: dict[str, Any] = {
        "image_shape": None if image_shape is None else tuple(int(side) for side in image_shape),
        "num_classes": num_classes,
        "value_range": None if value_range is None else tuple(float(bound) for bound in value_range),
    }
    path = Path(dataset).expanduser()
    parts: Sequence[Dataset]
    if dataset == "digits":
        parts = [_digits(**flags)]
    elif path.suffix.lower() == ".npz":
        parts = [_npz(path, **flags)]
    elif path.is_dir() and (len(path.parts) > 1 or dataset != path.name):
        parts = [_image_folder(path, **flags)]
    else:
        parts = _tfds(dataset, path, data_dir, download, on_disk, **flags)
    if on_disk and isinstance(parts[0], LabeledDataset):
        raise DataError(
            f"`on_disk` needs a TFDS data set, which is prepared as ArrayRecord files; `dataset` {dataset!r} is read "
            "into memory. Write a TFDS builder for it, or leave `on_disk` out."
        )

    rows = parts[0]
    if len(parts) == 1:
        train, holdout, test = (rows.take(part) for part in partition(len(rows), 20, 20))
    else:
        train, holdout = (rows.take(part) for part in partition(len(rows), 10))
        test = parts[1]
    smallest = min(len(train), len(holdout), len(test))
    if smallest < MIN_ROWS_PER_SPLIT:
        raise DataError(
            f"`dataset` {dataset!r} should leave at least {MIN_ROWS_PER_SPLIT} rows for each of train, holdout and "
            f"test; got {len(train)}, {len(holdout)} and {len(test)}. Supply more rows: {5 * MIN_ROWS_PER_SPLIT} are "
            f"enough without a test split of the source's own, and {10 * MIN_ROWS_PER_SPLIT} of 'train' with one."
        )
    return Splits(train, holdout, test)


def partition(num_rows: int, *percentages: int) -> list[npt.NDArray[np.int64]]:
    """Disjoint sets of row positions that together are 0..num_rows-1.

    Args:
      num_rows: how many rows there are; the only thing that the result depends on.
      *percentages: the shares of all parts but the first, each rounded up; the first part is what they leave.

    Returns:
      One array of positions for each part, in the order of a fixed public permutation.
    """
    # RandomState, not Generator: NumPy guarantees its stream never to change, and with it who is in which split.
    positions = np.random.RandomState(20240229).permutation(num_rows).astype(np.int64, copy=False)
    sizes = [-(-num_rows * percentage // 100) for percentage in percentages]
    first = max(num_rows - sum(sizes), 0)
    return np.split(positions, np.cumsum([first, *sizes[:-1]]))


def _digits(
    image_shape: tuple[int, ...] | None, num_classes: int | None, value_range: tuple[float, ...] | None
) -> LabeledDataset:
    """The UCI digits that scikit-learn carries: 1,797 images, 17 grey levels."""
    import sklearn.datasets  # here, since it takes a second that the other sources need not pay

    spec = DataSpec(
        image_shape=_declared("image_shape", (8, 8, 1), image_shape, "digits"),
        num_classes=_declared("num_classes", 10, num_classes, "digits"),
        value_range=_declared("value_range", (0.0, 16.0), value_range, "digits"),
        class_names=tuple("0123456789"),
    )
    digits: Any = sklearn.datasets.load_digits()
    return LabeledDataset(
        _to_bytes(digits.images[..., np.newaxis], spec.value_range, "digits"), digits.target.astype(np.int64), spec
    )


def _npz(
    path: Path,
    image_shape: tuple[int, ...] | None,
    num_classes: int | None,
    value_range: tuple[float, ...] | None,
) -> LabeledDataset:
    """An .npz with `images` [n, h, w] or [n, h, w, c], `labels` [n] and perhaps a scalar `num_classes`."""
    arrays = read_npz(path)
    images, labels, inside = arrays["images"], arrays["labels"], arrays.get("num_classes")
    if images.ndim == 3:
        images = images[..., np.newaxis]
    if images.ndim != 4 or images.shape[3] not in _IMAGE_MODES or 0 in images.shape[1:]:
        raise DataError(
            f"{path}: `images` should have shape [n, h, w], [n, h, w, 1] or [n, h, w, 3]; "
            f"got {list(arrays['images'].shape)}."
        )
    if images.dtype.kind not in "buif":
        raise DataError(f"{path}: `images` should be numbers; got {images.dtype}.")
    if labels.dtype.kind not in "iu" or labels.shape != images.shape[:1]:
        raise DataError(
            f"{path}: `labels` should be integers of shape [{len(images)}], one for each image; "
            f"got {labels.dtype} of shape {list(labels.shape)}."
        )
    if inside is not None and (inside.shape != () or inside.dtype.kind not in "iu"):
        raise DataError(
            f"{path}: `num_classes` should be one integer; got {inside.dtype} of shape {list(inside.shape)}."
        )
    of_type = _BYTE_RANGE if images.dtype == np.uint8 else None
    spec = DataSpec(
        image_shape=_declared("image_shape", images.shape[1:], image_shape, path),
        num_classes=_declared("num_classes", None if inside is None else int(inside), num_classes, path),
        # The range of the type is a default, not a declaration: uint8 arrays of 0..16 are common.
        value_range=_declared("value_range", None if value_range else of_type, value_range, path),
    )
    pixels = _to_bytes(images, spec.value_range, path)
    try:
        return LabeledDataset(pixels, labels.astype(np.int64), spec)
    except ValueError as error:
        raise DataError(f"{path}: {error}") from error


def _image_folder(
    path: Path,
    image_shape: tuple[int, ...] | None,
    num_classes: int | None,
    value_range: tuple[float, ...] | None,
) -> LabeledDataset:
    """A folder with one sub-folder of .png or .jpg images a class, read through `tfds.ImageFolder`."""
    classes = {entry.name: entry for entry in sorted(path.iterdir()) if entry.is_dir() and entry.name[0] != "."}
    if len(classes) < 2:
        raise DataError(
            f"{path} should hold one sub-folder of images for each class, at least 2; got {len(classes)}. "
            "The names of the sub-folders become the names of the classes."
        )
    for folder in classes.values():
        files = [entry for entry in sorted(folder.iterdir()) if entry.name[0] != "."]
        if not files:
            raise DataError(f"{folder} should hold the images of its class; it is empty. Fill it or remove it.")
        for file in files:
            if file.suffix.lower() not in _IMAGE_SUFFIXES or not file.is_file():
                raise DataError(
                    f"{file} should be an image file ({', '.join(_IMAGE_SUFFIXES)}); convert or remove it. A folder of "
                    "images holds one sub-folder a class and nothing deeper."
                )
    spec = DataSpec(
        image_shape=_declared("image_shape", None, image_shape, path),
        num_classes=_declared("num_classes", len(classes), num_classes, path),
        value_range=_declared("value_range", _BYTE_RANGE, value_range, path),
        class_names=tuple(classes),
    )
    import tensorflow_datasets as tfds

    with tempfile.TemporaryDirectory() as root:
        # ImageFolder expects root/split/class/image: links supply the level that is missing, without hidden folders.
        (Path(root) / "all").mkdir()
        for name, folder in classes.items():
            (Path(root) / "all" / name).symlink_to(folder.resolve(), target_is_directory=True)
        # Not decoded by TensorFlow, which converts channels and depths without a word.
        rows: Any = tfds.ImageFolder(root).as_dataset(split="all", decoders={"image": tfds.decode.SkipDecoding()})
        images, labels = [], []
        for row in tfds.as_numpy(rows):
            *_, label, name = Path(row["image/filename"].decode()).parts
            images.append(_decode(row["image"], spec.image_shape, path / label / name))
            labels.append(row["label"])
    return LabeledDataset(np.stack(images), np.asarray(labels, np.int64), spec)


def _decode(content: bytes, image_shape: tuple[int, int, int], path: Path) -> npt.NDArray[np.uint8]:
    """The pixels of an image file, which has to be of the declared size and number of channels."""
    height, width, channels = image_shape
    try:
        with PIL.Image.open(io.BytesIO(content)) as image:
            if image.size != (width, height) or image.mode != _IMAGE_MODES[channels]:
                raise DataError(
                    f"{path} should be {height}x{width} (height x width) in mode {_IMAGE_MODES[channels]!r}, as "
                    f"`image_shape` {image_shape} declares; got {image.size[1]}x{image.size[0]} in mode "
                    f"{image.mode!r}. Convert it beforehand or declare another shape."
                )
            return np.asarray(image, np.uint8).reshape(image_shape)
    except DataError:
        raise
    except Exception as error:  # Pillow's codecs raise what they like on damaged bytes.
        raise DataError(
            f"{path} cannot be read as an image and may be damaged: {error}. Replace or remove it."
        ) from error


def _tfds(
    name: str,
    path: Path,
    data_dir: str | None,
    download: bool,
    on_disk: bool,
    image_shape: tuple[int, ...] | None,
    num_classes: int | None,
    value_range: tuple[float, ...] | None,
) -> Sequence[Dataset]:
    """[all rows], or [rows of "train", rows of "test"] of a TFDS data set that has both."""
    import tensorflow_datasets as tfds

    if data_dir is not None:
        data_dir = os.path.expanduser(data_dir)
    try:
        builder: Any = tfds.builder(name, data_dir=data_dir)
    except ValueError as error:  # DatasetNotFoundError is one; its text lists a thousand names.
        if path.is_dir():
            return [_image_folder(path, image_shape, num_classes, value_range)]
        raise DataError(f"{_ACCEPTED}; got {name!r}, which is none of them, and no folder is there.") from error

    keys = builder.info.supervised_keys or ()
    features = [builder.info.features[key] for key in keys] if all(isinstance(key, str) for key in keys) else []
    match features:
        case [tfds.features.Image() as image, tfds.features.ClassLabel() as label] if image.np_dtype == np.uint8:
            pass
        case _:
            raise DataError(
                f"`dataset` {name!r} should be a TFDS image-classification data set (supervised: a uint8 image and a "
                f"class label); its supervised features are {features}."
            )
    shape: Any = image.shape
    spec = DataSpec(
        image_shape=_declared("image_shape", None if None in shape else shape, image_shape, name),
        num_classes=_declared("num_classes", label.num_classes, num_classes, name),
        value_range=_declared("value_range", _BYTE_RANGE, value_range, name),
        class_names=tuple(label.names) if label.num_classes else (),
    )
    try:
        if on_disk and not builder.is_prepared():
            builder = tfds.builder(name, data_dir=data_dir, file_format=tfds.core.FileFormat.ARRAY_RECORD)
        if download:
            builder.download_and_prepare()
        elif not builder.is_prepared():
            raise FileNotFoundError("it is not there, and `download` is False")
    except Exception as error:  # Whatever a network, a disk or a builder's own script raises.
        raise DataError(
            f"the TFDS data set {name!r} could not be found or prepared in {builder.data_dir}: {error}. Give the "
            "folder where it is prepared as `data_dir`, or allow a download on a machine with a network."
        ) from error
    if "train" not in builder.info.splits:
        raise DataError(f"`dataset` {name!r} should have a 'train' split; it has {sorted(builder.info.splits)}.")
    names = [split for split in ("train", "test") if split in builder.info.splits]
    if builder.info.file_format is tfds.core.FileFormat.ARRAY_RECORD:
        return [_tfds_records(builder, split, spec) for split in names]
    if on_disk:
        raise DataError(
            f"`dataset` {name!r} should be prepared as ArrayRecord files for `on_disk`; {builder.data_dir} holds it as "
            f"{builder.info.file_format.value}. Give another `data_dir`, where it can be prepared anew."
        )
    return [_tfds_rows(builder, split, spec) for split in names]


def _tfds_records(builder: Any, split: str, spec: DataSpec) -> RecordDataset:
    """One split of a TFDS data set in ArrayRecord files, in its order on disk, where it stays."""
    image_key, label_key = builder.info.supervised_keys
    where = f"split {split!r} of TFDS data set {builder.info.full_name!r}"
    return RecordDataset(
        builder.as_data_source(split=split), spec, image_key=image_key, label_key=label_key, where=where
    )


def _tfds_rows(builder: Any, split: str, spec: DataSpec) -> LabeledDataset:
    """One split of a TFDS data set, in its order on disk."""
    import tensorflow_datasets as tfds

    where = f"split {split!r} of TFDS data set {builder.info.full_name!r}"
    varies = None in builder.info.features[builder.info.supervised_keys[0]].shape
    rows = builder.as_dataset(
        split=split,
        as_supervised=True,
        batch_size=1 if varies else 4096,
        read_config=tfds.ReadConfig(try_autocache=False, interleave_cycle_length=1),
    )
    images, labels = [], []
    for image_batch, label_batch in tfds.as_numpy(rows):
        if image_batch.shape[1:] != spec.image_shape:
            raise DataError(
                f"{where}: images should be {spec.image_shape}, as `image_shape` declares; row {len(images)} is "
                f"{image_batch.shape[1:]}. Images are not resized: prepare them beforehand as an .npz or a folder."
            )
        images.append(image_batch)
        labels.append(label_batch)
    if not images:
        raise DataError(f"{where} should hold rows; it is empty.")
    try:
        return LabeledDataset(np.concatenate(images), np.concatenate(labels).astype(np.int64), spec)
    except ValueError as error:
        raise DataError(f"{where}: {error}") from error


def _declared(argument: str, declared: _Fact | None, flag: _Fact | None, where: str | Path) -> Any:
    """The public fact that the source or the caller declares; refused if neither does or both disagree."""
    if declared is None and flag is None:
        raise DataError(
            f"{where} does not declare `{argument}`, and reading it off private rows would leak. Give `{argument}`."
        )
    if declared is not None and flag is not None and declared != flag:
        raise DataError(f"`{argument}` should be {declared!r}, as {where} declares, or be left out; got {flag!r}.")
    return flag if declared is None else declared


def _to_bytes(images: npt.NDArray[Any], value_range: tuple[float, float], where: str | Path) -> npt.NDArray[np.uint8]:
    """Maps the declared range onto 0..255; a value outside is refused rather than clipped."""
    low, high = value_range
    outside = ~((images >= low) & (images <= high))  # written so that NaN is outside
    if outside.any():
        row = int(np.argwhere(outside)[0][0])
        raise DataError(
            f"{where}: `images` should lie in the declared `value_range` {value_range}; row {row} holds "
            f"{images[row][outside[row]][0]}. Correct the row, or declare the range that the format guarantees."
        )
    if images.dtype == np.uint8 and value_range == _BYTE_RANGE:
        return images
    return np.rint((images.astype(np.float64) - low) * (255.0 / (high - low))).astype(np.uint8)
