"""Ingest: reads a source of labelled images once, checks all of it, and splits it.

    python -m components.ingest --examples=output/internal/ingest/examples --dataset=digits

Whatever is wrong with the data is said here, before any privacy budget is spent.

Rows are read into memory, except those of a TFDS data set in ArrayRecord files (--on_disk prepares it so): these are
copied from file to file, a megabyte at a time, and no later step has all of them in memory.
"""

from __future__ import annotations

from typing import Annotated, TypeVar

from components.artifacts import Output, PrivateExamples
from components.component import ComponentError, component

_Number = TypeVar("_Number", int, float)


@component
def ingest(
    examples: Output[PrivateExamples],
    *,
    dataset: Annotated[
        str, "digits, the name of a TFDS data set, a folder of images with a sub-folder a class, or an .npz file"
    ] = "digits",
    data_dir: Annotated[str, "where TFDS keeps its data sets; empty: TFDS's default"] = "",
    image_shape: Annotated[str, "height,width,channels of the images; empty: as the source declares"] = "",
    num_classes: Annotated[int, "number of classes; 0: as the source declares"] = 0,
    value_range: Annotated[str, "lowest,highest value that a pixel can have; empty: as the source declares"] = "",
    on_disk: Annotated[bool, "prepare a TFDS data set as ArrayRecord files, and never have all rows in memory"] = False,
) -> None:
    """Reads labelled images, checks them, and splits them into train, holdout and test rows."""
    from tfdpgen.data import load_splits

    shape = numbers("image_shape", image_shape, int, 3)
    bounds = numbers("value_range", value_range, float, 2)
    splits = load_splits(
        dataset,
        data_dir=data_dir or None,
        image_shape=shape or None,
        num_classes=num_classes or None,
        value_range=bounds or None,
        on_disk=on_disk,
    )
    splits.save(examples.path)
    examples.facts = {
        "dataset": dataset,
        "num_examples": {"train": len(splits.train), "holdout": len(splits.holdout), "test": len(splits.test)},
    }


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
        raise ComponentError(f"`{name}` should be {count} numbers ({kind.__name__}) with commas between; got {text!r}.")
    return values


if __name__ == "__main__":
    ingest.main()
