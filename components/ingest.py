"""Ingest: reads a source of labelled images once, checks all of it, and splits it.

    python -m components.ingest --examples=output/internal/ingest/examples --dataset=digits
    python -m components.ingest --examples=... --dataset=photos/ --image_shape=64,64,3 --resize=crop

Whatever is wrong with the data is said here, before any privacy budget is spent. docs/data.md says what is accepted.

Examples are read into memory, except those of a TFDS data set in ArrayRecord files (--on_disk prepares it so): these
are copied from file to file, a megabyte at a time, and no later step has all of them in memory.
"""

from __future__ import annotations

import csv
import dataclasses
import os
from typing import TYPE_CHECKING, Annotated, TypeVar

from components.artifacts import Output, PrivateExamples
from components.component import ComponentError, beside, component
from components.outside import files_of

if TYPE_CHECKING:
    from tfdpgen.data import Declared

_Number = TypeVar("_Number", int, float)
_EXAMPLES = {"image_shape": "28,28,1", "value_range": "0,255", "background": "255 or 255,255,255"}


@beside(
    reads=lambda *, dataset, data_dir, user_column, **_: files_of(dataset, data_dir=data_dir, user_column=user_column)
)
@component
def ingest(
    examples: Output[PrivateExamples],
    *,
    dataset: Annotated[
        str,
        "digits, a folder of images with a sub-folder a class, a table (.csv, .parquet) of files and labels, an .npz, "
        "or "
        "the name of a TFDS data set",
    ] = "digits",
    data_dir: Annotated[str, "where TFDS keeps its data sets; empty: TFDS's default"] = "",
    image_shape: Annotated[
        str, "height,width,channels of the images that the model sees; empty: as the source declares"
    ] = "",
    num_classes: Annotated[int, "number of classes; 0: as the source or `classes` declares"] = 0,
    value_range: Annotated[str, "lowest,highest value that a pixel can have; empty: as the source declares"] = "",
    classes: Annotated[str, "names of the classes in the order of their labels, with commas between"] = "",
    resize: Annotated[str, "what happens to images of other sides: error, crop, pad or stretch"] = "error",
    background: Annotated[str, "grey level, or red,green,blue, behind transparent pixels and padded images"] = "255",
    on_disk: Annotated[
        bool, "prepare a TFDS data set as ArrayRecord files, and never have all examples in memory"
    ] = False,
    cache: Annotated[str, "folder that keeps decoded image files, so that reading them again is quick; internal"] = "",
    user_column: Annotated[str, "column of a table that says whose an example is"] = "user",
    users: Annotated[
        str, "iid:20 or by_class:20 makes up users of 20 examples, for experiments; empty: those of the source"
    ] = "",
) -> None:
    """Reads labelled images, checks them, and splits them into train, holdout and test."""
    from tfdpgen.data import load_splits

    facts = declared(image_shape, num_classes, value_range, classes, resize, background)
    splits = load_splits(
        dataset,
        data_dir=data_dir or None,
        **dataclasses.asdict(facts),
        on_disk=on_disk,
        cache_dir=cache or None,
        user_column=user_column,
        users=users,
    )
    splits.save(examples.path)
    examples.facts = {
        "dataset": dataset,
        "source": os.path.abspath(path) if os.path.exists(path := os.path.expanduser(dataset)) else dataset,
        "num_examples": {"train": len(splits.train), "holdout": len(splits.holdout), "test": len(splits.test)},
    }


def declared(
    image_shape: str = "",
    num_classes: int = 0,
    value_range: str = "",
    classes: str = "",
    resize: str = "error",
    background: str = "255",
) -> Declared:
    """The declared facts of the flags of these names, checked.

    Raises:
      ValueError: if one is malformed.
    """
    from tfdpgen.data import Declared

    try:  # a line of a CSV, so that a name in quotes may hold a comma
        names = next(csv.reader([classes], skipinitialspace=True, strict=True)) if classes else []
    except csv.Error as error:
        raise ComponentError(f"`classes` should be names with commas between; got {classes!r} ({error}).") from error
    return Declared(
        image_shape=numbers("image_shape", image_shape, int, 3) or None,
        num_classes=num_classes or None,
        value_range=numbers("value_range", value_range, float, 2) or None,
        classes=tuple(name.strip() for name in names),
        resize=resize,
        background=numbers("background", background, int, 3 if "," in background else 1),
    )


def numbers(name: str, text: str, kind: type[_Number], count: int) -> tuple[_Number, ...]:
    """The numbers in `text`, which are separated by commas; an empty text gives an empty tuple.

    Raises:
      ComponentError: if there are not `count` of them.
    """
    try:
        values = tuple(kind(part) for part in text.split(",")) if text else ()
    except ValueError:
        values = ()
    if text and len(values) != count:
        numbers_of_kind = f"{count} numbers ({kind.__name__}) with commas between, as in {_EXAMPLES[name]}"
        raise ComponentError(f"`{name}` should be {numbers_of_kind}; got {text!r}.")
    return values


if __name__ == "__main__":
    ingest.main()
