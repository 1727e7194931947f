"""An .npz whose headers are read and checked before memory is asked for, and whose arrays come block by block.

    with NpzFile("scans.npz") as archive:
        images = archive.member("images")               # its header: shape, dtype
        for block in archive.blocks(images):
            ...
        archive.read(archive.member("labels"), 0, 1000)     # the first thousand; without numbers, all

`numpy.load` believes what a header says and asks for that much memory; here a header has to agree with the size that
the zip file gives, and that has to be what a file of this size can hold: an array that unpacks to a hundred times its
size, and to more than a gigabyte, is refused as a decompression bomb. Nothing is unpickled.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Self

import numpy as np
import numpy.typing as npt

from tfdpgen.data.dataset import DataError
from tfdpgen.data.memory import available_memory, in_words

_BLOCK_BYTES = 2**20
_BOMB_RATIO, _BOMB_BYTES = 100, 10**9
_DAMAGE = (OSError, EOFError, ValueError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error)


@dataclasses.dataclass(frozen=True)
class Member:
    """The header of an array.

    Attributes:
      name: without .npy.
      shape: of the array.
      dtype: of its values.
      is_fortran: whether the first axis changes fastest.
      packed: bytes in the file.
      unpacked: bytes of the array and its header.
      header: bytes of the header.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    is_fortran: bool
    packed: int
    unpacked: int
    header: int


class NpzFile(contextlib.AbstractContextManager):
    """An open .npz.

    Args:
      path: of the file.

    Attributes:
      path: of the file.
      names: of its arrays.

    Raises:
      DataError: if it is missing, damaged or no .npz.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():
            raise DataError(f"{path}: there is no such file; give the path of an .npz with `images` and `labels`.")
        try:
            self._zip = zipfile.ZipFile(path)
        except _DAMAGE as error:
            raise self._damaged(error) from error
        self._infos = {info.filename: info for info in self._zip.infolist() if info.filename.endswith(".npy")}
        self.names = [filename.removesuffix(".npy") for filename in self._infos]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    def read(self, member: Member, start: int = 0, stop: int | None = None) -> npt.NDArray[Any]:
        """An array, or start to stop of its first axis, both cut off at its end; no more is held in memory.

        Raises:
          DataError: if it is damaged, or its header is not to be believed.
        """
        if not member.shape:
            (value,) = self.blocks(member)
            return value
        stop = member.shape[0] if stop is None else min(stop, member.shape[0])
        place, parts = 0, [np.zeros((0, *member.shape[1:]), member.dtype)]
        for block in self.blocks(member):
            parts.append(block[max(start - place, 0) : max(stop - place, 0)])
            place += len(block)
            if place >= stop and stop < member.shape[0]:  # otherwise to the end, where the checksum is compared
                break
        return np.concatenate(parts[1:]) if len(parts) > 2 else parts[-1]

    def blocks(self, member: Member) -> Iterator[npt.NDArray[Any]]:
        """An array, a megabyte of its first axis at a time.

        Raises:
          DataError: if it is damaged, or its header is not to be believed.
        """
        self.check(member)
        try:
            with self._zip.open(self._infos[f"{member.name}.npy"]) as file:
                file.read(member.header)
                yield from _blocks(file, member)
                if file.read(1):  # reading to the end also compares the checksum
                    raise ValueError("it goes on behind its end")
        except _DAMAGE as error:
            if isinstance(error, DataError):
                raise
            raise self._damaged(error) from error

    def member(self, name: str) -> Member:
        """What one of `names` says that it is.

        Raises:
          DataError: if its header is damaged.
        """
        info = self._infos[f"{name}.npy"]
        try:
            with self._zip.open(info) as file:
                version = np.lib.format.read_magic(file)
                read = {
                    (1, 0): np.lib.format.read_array_header_1_0,
                    (2, 0): np.lib.format.read_array_header_2_0,
                }.get(version)
                if read is None:
                    raise ValueError(f"its format is {version}, of which no plain array is")
                shape, is_fortran, dtype = read(file)
                header = file.tell()
            if info.compress_size > self.path.stat().st_size:
                raise ValueError(f"`{name}` claims to be larger than the file")
        except Exception as error:  # Whatever a parser of headers raises on made-up ones.
            raise self._damaged(error) from error
        return Member(name, tuple(shape), dtype, bool(is_fortran), info.compress_size, info.file_size, header)

    def check(self, member: Member) -> None:
        """Refuses an array that is not what its header says, or a decompression bomb, before anything is read.

        Raises:
          DataError: if so.
        """
        where = f"{self.path}: `{member.name}`"
        if member.dtype.hasobject:
            raise DataError(
                f"{where} should be a plain array; it holds Python objects, and Python objects are refused, since "
                "reading "
                'them runs code. Save words as text (`labels.astype(str)`) and images of one size as "uint8".'
            )
        size = math.prod(member.shape) * member.dtype.itemsize
        held = member.unpacked - member.header
        if min(member.shape, default=0) < 0 or size != held:
            raise DataError(
                f"{where} should hold what its header declares, {member.dtype} of shape {list(member.shape)}, which is "
                f"{in_words(size)}; the file holds {in_words(held)}. The file is damaged or made up: save it anew."
            )
        if size > _BOMB_BYTES and size > _BOMB_RATIO * member.packed:
            raise DataError(
                f"{where} unpacks from {in_words(member.packed)} to {in_words(size)}, {size // max(member.packed, 1)} "
                f"times as much, as decompression bombs do; expected at most {_BOMB_RATIO} times. If it is meant, "
                "save it by `np.savez`, which does not compress."
            )
        if member.is_fortran and size > available_memory():
            raise DataError(
                f"{where} is in Fortran's order, which has to be in memory at once; it is {in_words(size)}. Save it by "
                "`np.ascontiguousarray`."
            )

    def _damaged(self, error: Exception) -> DataError:
        """The refusal of a file that cannot be read."""
        return DataError(
            f"{self.path} should be an undamaged .npz of plain numeric arrays, as `np.savez` writes it (Python objects "
            f"are refused); reading it failed: {error or type(error).__name__}."
        )


def _blocks(file: IO[bytes], member: Member) -> Iterator[npt.NDArray[Any]]:
    """The values behind a header."""
    shape = member.shape
    if member.is_fortran or not shape or math.prod(shape) == 0:
        content = file.read(math.prod(shape) * member.dtype.itemsize)
        yield np.frombuffer(_whole(content, member), member.dtype).reshape(
            shape, order="F" if member.is_fortran else "C"
        )
        return
    one = math.prod(shape[1:]) * member.dtype.itemsize
    step = max(1, _BLOCK_BYTES // max(1, one))
    for start in range(0, shape[0], step):
        count = min(step, shape[0] - start)
        content = file.read(count * one)
        if len(content) != count * one:
            raise EOFError("it ends too early")
        yield np.frombuffer(content, member.dtype).reshape(count, *shape[1:])


def _whole(content: bytes, member: Member) -> bytes:
    """The content, if all of it is there."""
    if len(content) != math.prod(member.shape) * member.dtype.itemsize:
        raise EOFError("it ends too early")
    return content
