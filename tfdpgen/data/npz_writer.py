"""Arrays of an .npz that need not fit in memory, written a block at a time; npz.py reads them so.

    with NpzWriter("synthetic.npz") as npz:
        with npz.member("images", (num_examples, 28, 28, 1), np.uint8) as images:
            for block in blocks:
                images.append(block)                    # [k, 28, 28, 1]

An .npz is a zip archive of .npy files (NEP 1), and both formats can be streamed. What is written here is read by
`numpy.load` like any other.
"""

from __future__ import annotations

import contextlib
import os
import zipfile
from collections.abc import Iterator
from types import TracebackType
from typing import IO, Self

import numpy as np
import numpy.lib.format as npy
import numpy.typing as npt


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
