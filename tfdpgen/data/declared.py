"""What whoever supplies the data declares about them: public facts, never read off the examples.

    declared = Declared(image_shape=(28, 28, 1), classes=("cat", "dog"), resize="crop")     # checked here
    declared.fact("image_shape", None, "photos/")                                           # (28, 28, 1)

A source may declare facts too (an array's header, a TFDS builder's features, the names of folders). `fact` takes the
one that is given, and refuses where neither is or both disagree.
"""

from __future__ import annotations

import dataclasses
import os
from typing import Any

from tfdpgen.data.dataset import DataError, DataSpec, check_class_names

RESIZE = ("error", "crop", "pad", "stretch")
BYTE_RANGE = (0.0, 255.0)
_HOW = {  # to declare a fact
    "image_shape": "`--image_shape`, as height,width,channels: 28,28,1 (`image_shape=` in Python)",
    "num_classes": "`--num_classes` (`num_classes=` in Python), or the names of the classes by `--classes=cat,dog`",
    "value_range": "`--value_range`, as lowest,highest: 0,1 (`value_range=` in Python)",
}


@dataclasses.dataclass(frozen=True)
class Declared:
    """Facts about a source, each None or empty where it is left to the source.

    Attributes:
      image_shape: (height, width, channels) that the model sees.
      num_classes: labels are 0 to num_classes - 1.
      value_range: (low, high) of the values as the source stores them, mapped onto 0..255.
      classes: the names of the classes in the order of their labels.
      resize: what happens to images of other sides. "error": they are refused. "crop": scaled until they cover the
        shape, and cut around their middle. "pad": scaled until they fit into it, on `background`. "stretch": scaled to
        it, whatever becomes of their proportions.
      background: what shows through transparent pixels and beside padded images: one grey level or three colours,
        each in 0..255.

    Raises:
      DataError: if a fact is malformed or two disagree; the message names it, what was expected and what came.
    """

    image_shape: tuple[int, ...] | None = None
    num_classes: int | None = None
    value_range: tuple[float, ...] | None = None
    classes: tuple[str, ...] = ()
    resize: str = "error"
    background: tuple[int, ...] = (255,)

    def __post_init__(self) -> None:
        check_class_names(self.classes, "`classes`")
        if len(self.classes) == 1:
            raise DataError(f"`classes` should name at least 2, with commas between; got {self.classes[0]!r} alone.")
        if self.classes and self.num_classes not in (None, len(self.classes)):
            raise DataError(
                f"`num_classes` should be {len(self.classes)}, as many as `classes` names, or be left out; "
                f"got {self.num_classes}."
            )
        for name, length in (("image_shape", 3), ("value_range", 2)):
            values = getattr(self, name)
            if values is not None and len(values) != length:
                raise DataError(f"`{name}` should be {length} numbers; got {values!r}.")
        shape: Any = self.image_shape or (1, 1, 1)
        value_range: Any = self.value_range or BYTE_RANGE
        num_classes = len(self.classes) if self.classes else 2 if self.num_classes is None else self.num_classes
        DataSpec(shape, num_classes, value_range)
        if self.resize not in RESIZE:
            raise DataError(f"`resize` should be one of {', '.join(RESIZE)}; got {self.resize!r}.")
        if len(self.background) not in (1, 3) or not all(0 <= level <= 255 for level in self.background):
            raise DataError(
                f"`background` should be one grey level or three colours, each in 0..255; got {self.background!r}."
            )

    def fact(self, argument: str, of_source: Any, where: str | os.PathLike[str]) -> Any:
        """The fact that the source or the caller declares.

        Args:
          argument: the name of the fact, an attribute of this class.
          of_source: what the source declares, or None.
          where: what an error calls the source.

        Raises:
          DataError: if neither declares it, or both do and disagree.
        """
        given = getattr(self, argument)
        if argument == "num_classes" and self.classes:
            given = len(self.classes)
        if of_source is None and given is None:
            raise DataError(
                f"{where} does not declare `{argument}`, and reading it off private examples would leak. "
                f"Give {_HOW[argument]}."
            )
        if of_source is not None and given is not None and of_source != given:
            raise DataError(
                f"`{argument}` should be {of_source!r}, as {where} declares, or be left out; got {given!r}."
            )
        return given if of_source is None else of_source

    def shape(self, of_source: tuple[int, ...] | None, where: str | os.PathLike[str]) -> Any:
        """The shape that the model sees, (height, width, channels).

        Args:
          of_source: the shape of the source's images, or None where they vary.
          where: what an error calls the source.

        Raises:
          DataError: if neither declares it, or the sides differ and `resize` is "error".
        """
        if of_source is None or self.image_shape is None:
            return of_source or self.fact("image_shape", None, where)
        if self.image_shape[:2] != of_source[:2] and self.resize == "error":
            raise DataError(
                f"`image_shape` should be {of_source!r}, as {where} declares, or its images be resized by "
                f"`--resize=crop`, pad or stretch; got {self.image_shape!r}."
            )
        return self.image_shape

    def class_names(self, of_source: tuple[str, ...], where: str | os.PathLike[str]) -> tuple[str, ...]:
        """The names of the classes; `fact` for a source that may name them, with () for none.

        Raises:
          DataError: if both name them and disagree.
        """
        if of_source and self.classes and of_source != self.classes:
            raise DataError(
                f"`classes` should be {','.join(of_source)}, as {where} declares, or be left out; "
                f"got {','.join(self.classes)}."
            )
        return self.classes or of_source
