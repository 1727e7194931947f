"""How long reading image files takes: by one thread, several, several processes, and from the cache.

    python benchmarks/ingest.py --files=20000,60000         # small PNGs of 28x28
    python benchmarks/ingest.py --files=400 --side=2000     # JPEGs of 2000x2000, cropped to 64x64

Each line is one way: seconds, and files a second. `threads` is what tfdpgen does, with as many as there are processors.
Processes are started by `spawn`, since neither TensorFlow nor Beam survives a fork; their start is part of their time.
Files are in the operating system's cache for all ways alike.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image

from tfdpgen.data import Declared, load_splits, reading
from tfdpgen.data.decoding import decode

_CLASSES = ("cat", "dog")


def write_files(folder: Path, count: int, side: int) -> None:
    """`count` images of noise that is smooth where images are large, in two folders of classes."""
    rng = np.random.default_rng(0)
    for name in _CLASSES:
        (folder / name).mkdir()
    for i in range(count):
        image = PIL.Image.fromarray(rng.integers(256, size=(28, 28), dtype=np.uint8))
        path = folder / _CLASSES[i % 2] / f"{i:06}"
        if side == 28:
            image.save(path.with_suffix(".png"))
        else:
            image.convert("RGB").resize((side, side)).save(path.with_suffix(".jpg"), quality=90)


def _decode_all(task: tuple[list[str], Declared]) -> np.ndarray:
    """What a process does."""
    files, declared = task
    shape = declared.image_shape
    assert shape is not None
    return np.stack([decode(file, (shape[0], shape[1], shape[2]), declared) for file in files])


def by_processes(folder: Path, declared: Declared, processes: int) -> None:
    """Reads the files by processes, chunk by chunk."""
    files = sorted(str(path) for path in folder.glob("*/*"))
    size = max(1, min(256, math.ceil(len(files) / processes)))
    tasks = [(files[start : start + size], declared) for start in range(0, len(files), size)]
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        np.concatenate(list(pool.imap(_decode_all, tasks)))


def seconds(way: Callable[[], object]) -> float:
    """How long it takes, once."""
    start = time.perf_counter()
    way()
    return time.perf_counter() - start


def compare(folder: Path, declared: Declared, count: int, processors: int) -> None:
    """Prints a line for each way to read the folder."""
    cache, chosen = folder.parent / "cache", reading._threads

    def load(threads: int | None, cache_dir: Path | None = None) -> None:
        reading._threads = chosen if threads is None else lambda files: threads
        load_splits(str(folder), cache_dir=cache_dir, verbose=False, **dataclasses.asdict(declared))

    load(1)  # so that the operating system has the files
    ways: dict[str, Callable[[], object]] = {
        "1 thread": lambda: load(1),
        f"{processors} threads": lambda: load(processors),
        f"{processors} processes": lambda: by_processes(folder, declared, processors),
        "as it is, filling cache": lambda: load(None, cache),
        "as it is, from the cache": lambda: load(None, cache),
    }
    for name, way in ways.items():
        taken = seconds(way)
        print(f"{count:>8,} {name:<24} {taken:>8.2f} {count / taken:>9,.0f}", flush=True)
    reading._threads = chosen


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--files", default="20000,60000", help="how many, with commas between")
    parser.add_argument(
        "--side", type=int, default=28, help="of an image; 28 is read as it is, others are cropped to 64"
    )
    parser.add_argument("--folder", help="where the files are written; default: a temporary folder")
    flags = parser.parse_args()
    declared = Declared((28, 28, 1)) if flags.side == 28 else Declared((64, 64, 3), resize="crop")
    processors = len(os.sched_getaffinity(0))
    print(f"{'files':>8} {'way':<24} {'seconds':>8} {'files/s':>9}  (load {os.getloadavg()[0]:.1f}, {processors} CPUs)")
    for count in map(int, flags.files.split(",")):
        with tempfile.TemporaryDirectory(dir=flags.folder) as root:
            folder = Path(root) / "photos"
            folder.mkdir()
            write_files(folder, count, flags.side)
            compare(folder, declared, count, processors)


if __name__ == "__main__":
    main()
