"""A list of image files -> data sets in memory, one for each split; read by several threads, and once.

    read_listing(listing, declared, cache_dir="internal/cache", verbose=True)       # {"all": LabeledDataset}

Files are decoded by as many threads as there are processors, since Pillow's and zlib's work runs beside Python's. Small
files are mostly Python's work, at which threads get in each other's way, so that one reads them alone in half the time.
(Processes need either a fork, which TensorFlow and Beam do not survive, or a program that may be imported anew;
benchmarks/ingest.py compares them.) All bad files are found in one go: the first ten are named, and their number.
"""

from __future__ import annotations

import concurrent.futures
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tqdm

from tfdpgen.data.cache import ImageCache
from tfdpgen.data.dataset import DataError, DataSpec, LabeledDataset
from tfdpgen.data.declared import BYTE_RANGE, Declared
from tfdpgen.data.decoding import decode
from tfdpgen.data.listing import Listing, refuse_all
from tfdpgen.data.memory import check_fits

_CHUNK = 64  # files that a thread takes at a time
_SMALL = 2**15  # bytes of a file, below which threads get in each other's way
_ASKED = 100  # files whose size is looked at


def read_listing(
    listing: Listing, declared: Declared, *, cache_dir: str | os.PathLike[str] | None = None, verbose: bool = False
) -> dict[str, LabeledDataset]:
    """Reads the files of a list.

    Args:
      listing: of the files.
      declared: `image_shape`, and how images come to have it.
      cache_dir: folder that keeps the pixels, so that the same files need not be decoded again; internal. None: none.
      verbose: whether a progress bar is shown, on standard error.

    Returns:
      A data set for each of "train", "val" and "test" that the list has, or one under "all".

    Raises:
      DataError: if files cannot be read or contradict what is declared; the message names up to ten of them.
    """
    spec = DataSpec(
        image_shape=declared.fact("image_shape", None, listing.where),
        num_classes=listing.num_classes,
        value_range=declared.value_range or BYTE_RANGE,  # pyright: ignore[reportArgumentType]  # two of them
        class_names=listing.class_names,
    )
    check_fits(
        len(listing.files) * math.prod(spec.image_shape),
        listing.where,
        "a smaller `--image_shape` with `--resize=crop`, pad or stretch",
    )
    if cache_dir is None:
        images = _read(listing, spec.image_shape, declared, verbose)
    else:
        cache = ImageCache(cache_dir)
        key = cache.key(listing.files, spec.image_shape, declared)
        images = cache.load(key, (len(listing.files), *spec.image_shape))
        if images is None:
            images = _read(listing, spec.image_shape, declared, verbose)
            cache.save(key, images)
    every = LabeledDataset(images, listing.labels, spec, listing.users)
    if listing.splits is None:
        return {"all": every}
    splits = np.array(listing.splits)
    return {str(name): every.take(np.flatnonzero(splits == name)) for name in np.unique(splits)}


def _read(
    listing: Listing, image_shape: tuple[int, int, int], declared: Declared, verbose: bool
) -> npt.NDArray[np.uint8]:
    """The pixels of all files, uint8 [n, h, w, c]."""
    files = listing.files
    images = np.empty((len(files), *image_shape), np.uint8)

    def read_chunk(start: int) -> tuple[int, list[str]]:
        """How many files were tried, and what is wrong with them."""
        problems = []
        chosen = range(start, min(start + _CHUNK, len(files)))
        for i in chosen:
            try:
                images[i] = decode(files[i], image_shape, declared)
            except DataError as error:
                problems.append(str(error))
        return len(chosen), problems

    problems: list[str] = []
    with (
        concurrent.futures.ThreadPoolExecutor(_threads(files)) as pool,
        progress(len(files), f"Reading {Path(listing.where).name}", verbose) as bar,
    ):
        for count, found in pool.map(read_chunk, range(0, len(files), _CHUNK)):
            problems += found
            bar.update(count)
    refuse_all(listing.where, problems, len(files), "files")
    return images


def progress(total: int, text: str, verbose: bool) -> Any:
    """A progress bar on standard error that comes after a second; lines now and then where that is no terminal."""
    interval = 0.2 if sys.stderr.isatty() else 15.0
    return tqdm.tqdm(total=total, desc=text, unit=" files", delay=1.0, mininterval=interval, disable=not verbose)


def _threads(files: Sequence[str]) -> int:
    """One where files are small; otherwise as many as there are processors for this process."""
    asked = files[:: max(1, len(files) // _ASKED)]
    sizes = [os.path.getsize(file) for file in asked if os.path.isfile(file)]  # what is missing is refused later
    if sum(sizes) < _SMALL * len(sizes):
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
