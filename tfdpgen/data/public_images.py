"""Public images: what a method may learn from for nothing, before it asks for anything private.

    public = load_public_images("dead_leaves", (32, 32, 3))         # procedural: made without any data
    public = load_public_images("photos/", (32, 32, 3))             # a folder, or whatever else `load_splits` takes
    train("latent_gaussian", private, budget, public_images=public)
    public.images()                                                 # uint8 [n, 32, 32, 3]

| source | what it makes |
|---|---|
| strokes | random pen strokes, grey (`stroke_images.py`) |
| fonts, fonts:FOLDER | letters and digits in the fonts of this machine, or of a folder, grey (`font_images.py`) |
| dead_leaves | shapes that hide each other, with the statistics of photographs (`dead_leaves.py`) |
| anything else | what `load_splits` takes without further declarations, or a folder of images without sub-folders |

No label is used. That they are public is the caller's word: an image that is private, or that was made of private ones,
must not be among them. Their origin is part of the privacy statement, which is otherwise the same: they touch no
private example.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tfdpgen.choices import check_public_images
from tfdpgen.data.dataset import DataError
from tfdpgen.data.dead_leaves import random_dead_leaves
from tfdpgen.data.declared import Declared
from tfdpgen.data.folders import list_images
from tfdpgen.data.font_images import font_files, random_font_images, read_fonts
from tfdpgen.data.listing import Listing
from tfdpgen.data.reading import read_listing
from tfdpgen.data.sources import load_splits, partition

_MOST_IMAGES, _MOST_BYTES = 60_000, 2**28  # 60,000 of 28x28 pixels, 5,461 of 128x128 in colour
_SEED = 0  # of procedural images, which are the same ones each time


@dataclasses.dataclass(frozen=True, eq=False)
class PublicImages:
    """Images that anybody may see.

    Attributes:
      source: what they are and where they come from, as a privacy statement says it.
      image_shape: (h, w, c).
      make: gives them, uint8 [n, h, w, c]; called once, when they are needed.
    """

    source: str
    image_shape: tuple[int, int, int]
    make: Callable[[], npt.NDArray[np.uint8]]

    def images(self) -> npt.NDArray[np.uint8]:
        """uint8 [n, h, w, c].

        Raises:
          ValueError: if `make` gives something else.
        """
        return self._made

    @functools.cached_property
    def _made(self) -> npt.NDArray[np.uint8]:
        images = self.make()
        if images.dtype != np.uint8 or images.shape[1:] != self.image_shape or not len(images):
            raise ValueError(
                f"`make` of PublicImages should give uint8 images [n, {', '.join(map(str, self.image_shape))}]; got "
                f"{images.dtype} of shape {images.shape}."
            )
        return images


def load_public_images(
    source: str, image_shape: tuple[int, int, int], *, data_dir: str | None = None, verbose: bool = False
) -> PublicImages:
    """Public images in the shape that a method needs.

    Args:
      source: see the top of this file.
      image_shape: (h, w, c) of the private images; others are cropped and scaled to it.
      data_dir: where TFDS keeps its data sets; its default if None.
      verbose: as in `load_splits`.

    Returns:
      60,000 images at most, and 256 MiB. Procedural ones are made when they are asked for.

    Raises:
      DataError: if the source cannot be read.
      ValueError: for strokes or fonts in colour or on fewer than 16 pixels.
    """
    check_public_images(source, image_shape)
    sides = image_shape[0], image_shape[1]
    most = min(_MOST_IMAGES, _MOST_BYTES // math.prod(image_shape))
    rng = functools.partial(np.random.default_rng, _SEED)
    if source == "strokes":
        from tfdpgen.data.stroke_images import random_stroke_images  # here, since TensorFlow takes seconds

        return PublicImages(
            f"{most:,} random pen strokes, light on dark, drawn without any data",
            image_shape,
            lambda: random_stroke_images(rng(), most, sides),
        )
    if source == "dead_leaves":
        return PublicImages(
            f"{most:,} images of random shapes that hide each other, made without any data",
            image_shape,
            lambda: random_dead_leaves(rng(), most, image_shape),
        )
    if source == "fonts" or source.startswith("fonts:"):
        fonts = read_fonts(font_files(source.removeprefix("fonts").removeprefix(":")))
        return PublicImages(
            f"{most:,} letters and digits, light on dark, in {len(fonts)} fonts (SHA-256 {_digest(*fonts)})",
            image_shape,
            lambda: random_font_images(rng(), most, sides, list(fonts.values())),
        )
    images = _of_data_set(source, image_shape, data_dir, verbose)
    chosen = images[np.sort(partition(len(images))[0][:most])]
    path = os.path.expanduser(source)
    name = os.path.basename(os.path.abspath(path)) if os.path.exists(path) else source
    text = f"{len(chosen):,} images of {name} (SHA-256 {_digest(chosen.tobytes())})"
    return PublicImages(text, image_shape, lambda: chosen)


def asked_for(source: str, image_shape: tuple[int, int, int], data_dir: str) -> PublicImages | None:
    """`load_public_images` of flags: None, which is the method's default, where no source is named."""
    return load_public_images(source, image_shape, data_dir=data_dir or None) if source else None


def _digest(*parts: str | bytes) -> str:
    """The first digits of a SHA-256."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode() if isinstance(part, str) else part)
    return digest.hexdigest()[:16]


def _of_data_set(
    source: str, image_shape: tuple[int, int, int], data_dir: str | None, verbose: bool
) -> npt.NDArray[np.uint8]:
    """All images of a data set, whatever its labels are."""
    folder = Path(os.path.expanduser(source))
    if folder.is_dir() and (files := list_images(folder)):
        declared = Declared(image_shape=image_shape, resize="crop")
        listing = Listing(folder, files, np.zeros(len(files), np.int64), 2, ())
        return read_listing(listing, declared, verbose=verbose)["all"].images
    try:
        splits = load_splits(source, data_dir=data_dir, image_shape=image_shape, resize="crop", verbose=verbose)
    except DataError as error:
        raise DataError(
            f"`public_dataset`: {error} What declares the private images does not declare the public ones: an .npz "
            "needs `num_classes` in it, and of a table its files are best copied into a folder without sub-folders, "
            "since labels are not used."
        ) from error
    return np.concatenate([part.in_memory().images for part in (splits.train, splits.holdout, splits.test)])
