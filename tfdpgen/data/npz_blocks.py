"""Arrays of an .npz that need not fit in memory: written and read a block at a time.

    with NpzWriter("synthetic.npz") as npz:
        with npz.member("images", (num_examples, 28, 28, 1), np.uint8) as images:
            for block in blocks:
                images.append(block)                    # [k, 28, 28, 1]
    read_rows("synthetic.npz", "images", 0, 1000)       # the first thousand; the rest is not read

An .npz is a zip archive of .npy files (NEP 1), and both formats can be streamed. What is written here is read by
`numpy.load` like any other.
"""

from __future__ import annotations

import contextlib
import math
import os
import zipfile
from collections.abc import Iterator
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
import numpy.lib.format as npy
import numpy.typing as npt

_READ_BYTES = 2**20


class Member:
    """One array while it is written, made by `NpzWriter.member`."""

    def __init__(self, name: str, file: IO[bytes], shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
        self._name, self._file, self._shape, self._dtype = name, file, shape, np.dtype(dtype)
        self.written = 0
        header = {"descr": npy.dtype_to_descr(self._dtype), "fortran_order": False, "shape": shape}
        npy.write_array_header_1_0(file, header)

    def append(self, block: npt.NDArray[np.generic]) -> None:
        """Writes the next rows.

        Raises:
          ValueError: if they have another dtype or shape than was declared, or there are more than were declared.
        """
        if block.dtype != self._dtype or block.shape[1:] != self._shape[1:]:
            raise ValueError(
                f"`block` of {self._name} should be {self._dtype} of shape {['k', *self._shape[1:]]}; "
                f"got {block.dtype} of shape {list(block.shape)}."
            )
        if self.written + len(block) > self._shape[0]:
            raise ValueError(f"{self._name} should have {self._shape[0]} rows; got {self.written + len(block)}.")
        self._file.write(np.ascontiguousarray(block).data)
        self.written += len(block)


class NpzWriter:
    """An .npz that is written one array after the other, compressed.

    Args:
      path: the file; it is replaced.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._archive = zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, allowZip64=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._archive.close()

    @contextlib.contextmanager
    def member(self, name: str, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Iterator[Member]:
        """An array of this name to append to; no other can be written before the block ends.

        Raises:
          ValueError: at the end of the block, if fewer rows were written than declared.
        """
        with self._archive.open(f"{name}.npy", "w", force_zip64=True) as file:
            member = Member(name, file, shape, dtype)
            yield member
        if member.written != shape[0]:
            raise ValueError(f"{name} should have {shape[0]} rows; got {member.written}.")

    def write(self, name: str, array: npt.NDArray[np.generic]) -> None:
        """Writes a whole array."""
        with self.member(name, array.shape, array.dtype) as member:
            member.append(array)


def num_rows(path: str | os.PathLike[str], name: str) -> int:
    """The length of an array's first axis."""
    with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as file:
        return _header(file)[0][0]


def read_rows(path: str | os.PathLike[str], name: str, start: int = 0, stop: int | None = None) -> npt.NDArray[Any]:
    """Rows start to stop of an array, both cut off at its end; what lies before them is read past and not kept.

    Raises:
      KeyError: if the archive has no such array.
      ValueError: if the file is damaged, or the array holds Python objects.
    """
    with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as file:
        shape, dtype = _header(file)
        stop = shape[0] if stop is None else min(stop, shape[0])
        start = min(start, stop)
        size = math.prod(shape[1:]) * dtype.itemsize
        _pass_over(file, start * size)
        rows = bytearray((stop - start) * size)
        place, target = 0, memoryview(rows)
        while place < len(rows):
            part = file.read(min(_READ_BYTES, len(rows) - place))
            if not part:
                raise ValueError(f"{name} of {path} should hold {shape[0]} rows; it ends before row {stop}.")
            target[place : place + len(part)] = part
            place += len(part)
        return np.frombuffer(rows, dtype).reshape(stop - start, *shape[1:])


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and dtype of the .npy that starts here."""
    read = npy.read_array_header_1_0 if npy.read_magic(file) == (1, 0) else npy.read_array_header_2_0
    shape, is_fortran, dtype = read(file)
    if dtype.hasobject or is_fortran or not shape:
        raise ValueError(f"expected rows of plain values in C order; got {dtype} of shape {list(shape)}.")
    return shape, dtype


def _pass_over(file: IO[bytes], count: int) -> None:
    """Reads `count` bytes and forgets them."""
    while count > 0 and (part := file.read(min(_READ_BYTES, count))):
        count -= len(part)
