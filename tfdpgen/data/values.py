"""Stored values -> bytes, by the declared range.

    to_bytes(np.array([0.0, 0.5, 1.0]), (0.0, 1.0), "scans.npz")      # 0, 128, 255

The range is declared, never measured: a minimum taken from private examples would leak. A value outside it is refused,
except for the noise of floating-point arithmetic, a millionth of the range's width, which is clipped.

**Whether a declared range is plausible is decided by the type of the array alone**, so that the answer says nothing of
the examples: uint8 cannot hold 0..65535, and floating-point images of 0..255 would lose nothing as uint8, whereas those
in 0..1, declared as 0..255 by mistake, would all come out black. The second is refused too, with a way out.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import numpy.typing as npt

from tfdpgen.data.dataset import DataError

_NOISE = 1.01e-6  # of the range's width; a little above a millionth, which is not a floating-point number
_INTEGER_RANGES = {(0.0, 255.0): "uint8", (0.0, 65535.0): "uint16"}


def check_range(dtype: np.dtype[Any], value_range: tuple[float, float], where: str | os.PathLike[str]) -> None:
    """Refuses a declared range that arrays of this type cannot hold, or that is another type's.

    Raises:
      DataError: if so; it depends on the type and the declaration alone.
    """
    low, high = value_range
    if dtype.kind == "f":
        if proper := _INTEGER_RANGES.get((low, high)):
            raise DataError(
                f"{where}: `value_range` should be that of {dtype} values, often 0,1; got {low:g},{high:g}, the range "
                f"of {proper}. Declare `--value_range=0,1` if that is what they are; if they do reach {high:g}, "
                f'save them as {proper} (`images.round().astype("{proper}")`), which loses nothing here.'
            )
        return
    least, most = (0, 1) if dtype.kind == "b" else (int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))
    if low < least or high > most:
        raise DataError(
            f"{where}: `value_range` should lie within {least},{most}, which {dtype} can hold; got {low:g},{high:g}. "
            "Declare the range of the values as they are stored (`--value_range`)."
        )


def to_bytes(
    values: npt.NDArray[Any], value_range: tuple[float, float], where: str | os.PathLike[str], first: int | None = 0
) -> npt.NDArray[np.uint8]:
    """Maps the declared range onto 0..255; a value outside is refused rather than clipped.

    Args:
      values: [n, ...] numbers of any type.
      value_range: (low, high).
      where: what an error calls the source.
      first: the number of the first example in an error; None where `where` names the one example.

    Returns:
      uint8 [n, ...].

    Raises:
      DataError: if a value is outside or not a number; the message gives the example's number.
    """
    low, high = value_range
    outside = ~((values >= low) & (values <= high))  # written so that NaN is outside
    if values.dtype.kind == "f" and outside.any():
        noise = _NOISE * (high - low)
        outside = ~((values >= low - noise) & (values <= high + noise))
    if outside.any():
        examples = np.flatnonzero(outside.reshape(len(outside), -1).any(axis=1))
        example = int(examples[0])
        number = "it holds" if first is None else f"example {first + example} holds"
        raise DataError(
            f"{where}: `images` should lie in the declared `value_range` {value_range}; {number} "
            f"{values[example][outside[example]].flat[0]}. Correct it, or declare the range that the format guarantees "
            "(`--value_range`)."
        )
    if values.dtype == np.uint8 and value_range == (0.0, 255.0):
        return values
    scaled = (np.clip(values, low, high).astype(np.float64) - low) * (255.0 / (high - low))
    return np.rint(scaled).astype(np.uint8)
