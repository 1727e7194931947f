"""TFDS data sets: image classification by name, in memory or, as ArrayRecord files, on disk.

    read_tfds("mnist", Declared(), data_dir="~/tensorflow_datasets")    # {"train": ..., "test": ...}

Shape, number and names of classes are declared by the builder. A "train" split is needed; "test" is taken where there
is one, and other splits are not read.
"""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np

from tfdpgen.data.dataset import DataError, Dataset, DataSpec, LabeledDataset
from tfdpgen.data.declared import BYTE_RANGE, Declared
from tfdpgen.data.fitting import fit_array
from tfdpgen.data.memory import check_fits
from tfdpgen.data.records import RecordDataset


def read_tfds(
    name: str, declared: Declared, *, data_dir: str | None, download: bool, on_disk: bool, accepted: str
) -> dict[str, Dataset]:
    """The splits of a TFDS data set.

    Args:
      name: as TFDS knows it.
      declared: `image_shape` for a data set of varying sizes, and how its images come to have it.
      data_dir: where TFDS data sets are kept; TFDS's default if None.
      download: whether TFDS may download what `data_dir` lacks.
      on_disk: whether to prepare it as ArrayRecord files.
      accepted: the sentence that says what `dataset` may be, for a name that TFDS does not know.

    Returns:
      The data set's "train" and "test", or all of it under "all" where it has no "test".

    Raises:
      DataError: if the data set is unknown, cannot be prepared, is none of images and classes, or contradicts itself.
    """
    import tensorflow_datasets as tfds

    if data_dir is not None:
        data_dir = os.path.expanduser(data_dir)
    try:
        builder: Any = tfds.builder(name, data_dir=data_dir)
    except ValueError as error:  # DatasetNotFoundError is one; its text lists a thousand names.
        raise DataError(f"{accepted}; got {name!r}, which is none of them, and nothing is there.") from error

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
    num_classes: int = declared.fact("num_classes", label.num_classes, name)
    own_names = tuple(label.names) if label.num_classes else ()
    if declared.classes and own_names == tuple(map(str, range(num_classes))):
        own_names = ()  # numbers are what TFDS calls classes without names
    spec = DataSpec(
        image_shape=declared.shape(None if None in shape else shape, name),
        num_classes=num_classes,
        value_range=declared.fact("value_range", BYTE_RANGE, name),
        class_names=declared.class_names(own_names, name),
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
    names = {"train": "train", "test": "test"} if "test" in builder.info.splits else {"all": "train"}
    if builder.info.file_format is tfds.core.FileFormat.ARRAY_RECORD:
        return {part: _records(builder, split, spec) for part, split in names.items()}
    if on_disk:
        raise DataError(
            f"`dataset` {name!r} should be prepared as ArrayRecord files for `on_disk`; {builder.data_dir} holds it as "
            f"{builder.info.file_format.value}. Give another `data_dir`, where it can be prepared anew."
        )
    num_examples = sum(builder.info.splits[split].num_examples for split in names.values())
    check_fits(num_examples * math.prod(spec.image_shape), name, "`--on_disk`")
    return {part: _in_memory(builder, split, spec, declared) for part, split in names.items()}


def _records(builder: Any, split: str, spec: DataSpec) -> RecordDataset:
    """One split of a TFDS data set in ArrayRecord files, in its order on disk, where it stays."""
    image_key, label_key = builder.info.supervised_keys
    where = f"split {split!r} of TFDS data set {builder.info.full_name!r}"
    return RecordDataset(
        builder.as_data_source(split=split), spec, image_key=image_key, label_key=label_key, where=where
    )


def _in_memory(builder: Any, split: str, spec: DataSpec, declared: Declared) -> LabeledDataset:
    """One split of a TFDS data set, in its order on disk."""
    import tensorflow_datasets as tfds

    where = f"split {split!r} of TFDS data set {builder.info.full_name!r}"
    varies = None in builder.info.features[builder.info.supervised_keys[0]].shape
    read = builder.as_dataset(
        split=split,
        as_supervised=True,
        batch_size=1 if varies else 4096,
        read_config=tfds.ReadConfig(try_autocache=False, interleave_cycle_length=1),
    )
    images, labels = [], []
    for image_batch, label_batch in tfds.as_numpy(read):
        if image_batch.shape[1:] != spec.image_shape:
            if declared.resize == "error" and image_batch.shape[1:3] != spec.image_shape[:2]:
                raise DataError(
                    f"{where}: images should be {spec.image_shape}, as `image_shape` declares; example {len(images)} "
                    f"is {image_batch.shape[1:]}. Have them resized by `--resize=crop`, pad or stretch, or declare "
                    "another `--image_shape`."
                )
            image_batch = np.stack([fit_array(image, spec.image_shape, declared, where) for image in image_batch])
        images.append(image_batch)
        labels.append(label_batch)
    if not images:
        raise DataError(f"{where} should hold examples; it is empty.")
    try:
        return LabeledDataset(np.concatenate(images), np.concatenate(labels).astype(np.int64), spec)
    except ValueError as error:
        raise DataError(f"{where}: {error}") from error
