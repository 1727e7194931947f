"""An image of any mode and size -> the declared shape.

    fitted(PIL.Image.open("cat.png"), (28, 28, 1), Declared(resize="crop"), "cat.png")     # uint8 [28, 28, 1]

In this order: EXIF orientation, transparency on the declared background, depth to 8 bits by the declared range, colour
or grey as the shape has channels, and sides by the declared `resize`.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image
import PIL.ImageOps

from tfdpgen.data.dataset import DataError
from tfdpgen.data.declared import BYTE_RANGE, Declared
from tfdpgen.data.values import check_range, to_bytes

_RESAMPLING = PIL.Image.Resampling.BICUBIC  # which averages over all pixels that it replaces
_ORIENTATION = 0x0112  # the EXIF tag
_DEEP = ("I", "F")  # and I;16 in its byte orders: more than 8 bits a value


def fitted(
    image: PIL.Image.Image,
    image_shape: tuple[int, int, int],
    declared: Declared,
    where: str | os.PathLike[str],
) -> npt.NDArray[np.uint8]:
    """The pixels of an image in the declared shape.

    Args:
      image: of any of Pillow's modes; of several frames, the one that is current.
      image_shape: (height, width, channels) of the result.
      declared: `value_range` for images of more than 8 bits, `background` and `resize`.
      where: what an error calls the image.

    Returns:
      uint8 [height, width, channels].

    Raises:
      DataError: if the sides are others and `resize` is "error", or the values contradict `value_range`.
    """
    height, width, channels = image_shape
    if declared.resize == "error" and image.size not in ((width, height), (height, width)):
        raise _other_sides(image, image_shape, where)  # told by the header, before anything is decoded
    if image.size != (width, height):
        image.draft(None, (2 * max(width, height), 2 * max(width, height)))  # a JPEG is decoded no larger than needed
    if _orientation(image) != 1:
        image = PIL.ImageOps.exif_transpose(image)
    if declared.resize == "error" and image.size != (width, height):
        raise _other_sides(image, image_shape, where)
    image = _in_colour(_eight_bits(image, declared, where), channels, declared.background)
    if image.size != (width, height):
        image = _resized(image, (width, height), declared)
    return np.asarray(image, np.uint8).reshape(image_shape)


def fit_array(
    pixels: npt.NDArray[np.uint8],
    image_shape: tuple[int, int, int],
    declared: Declared,
    where: str | os.PathLike[str],
) -> npt.NDArray[np.uint8]:
    """`fitted` for pixels uint8 [h, w, c] of 1, 3 or 4 channels."""
    if pixels.shape == image_shape:
        return pixels
    image = PIL.Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    return fitted(image, image_shape, declared, where)


def _orientation(image: PIL.Image.Image) -> int:
    """The EXIF orientation; 1, upright, where there is none or it is damaged, which viewers forgive."""
    try:
        return image.getexif().get(_ORIENTATION, 1)
    except Exception:  # A parser of metadata that anybody may have written.
        return 1


def _other_sides(image: PIL.Image.Image, image_shape: tuple[int, int, int], where: str | os.PathLike[str]) -> DataError:
    """The refusal of an image of other sides."""
    return DataError(
        f"{where} should be {image_shape[0]}x{image_shape[1]} (height x width), as `image_shape` {image_shape} "
        f"declares; got {image.height}x{image.width}. Have it resized by `--resize=crop`, pad or stretch, or declare "
        "another `--image_shape`."
    )


def _eight_bits(image: PIL.Image.Image, declared: Declared, where: str | os.PathLike[str]) -> PIL.Image.Image:
    """The image with values in 0..255.

    Images of 8 bits a value are so already, unless a narrower range is declared (masks of 0..15, say), which then is
    theirs. All others hold what their format lets them, and need a declared range.
    """
    if image.mode in _DEEP or image.mode.startswith("I;16"):
        if declared.value_range is None:
            raise DataError(
                f"{where} holds values of more than 8 bits (Pillow's mode {image.mode!r}), whose range has to be "
                "declared: `--value_range=0,65535` if they fill 16 bits, 0,4095 if 12."
            )
        values = np.asarray(image)
        low, high = declared.value_range
        if values.dtype.kind == "f":
            check_range(values.dtype, (low, high), where)
        return PIL.Image.fromarray(to_bytes(values[np.newaxis], (low, high), where, first=None)[0])
    if declared.value_range not in (None, BYTE_RANGE) and image.mode in ("L", "RGB"):
        low, high = declared.value_range  # pyright: ignore[reportGeneralTypeIssues]  # not None
        if low >= 0 and high <= 255:
            values = np.asarray(image)
            return PIL.Image.fromarray(to_bytes(values[np.newaxis], (low, high), where, first=None)[0])
    return image


def _in_colour(image: PIL.Image.Image, channels: int, background: tuple[int, ...]) -> PIL.Image.Image:
    """The image in mode L or RGB, with nothing transparent."""
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        behind = PIL.Image.new("RGBA", image.size, (*_rgb(background), 255))
        image = PIL.Image.alpha_composite(behind, image).convert("RGB")
    if image.mode not in ("1", "L", "RGB"):
        image = image.convert("RGB")
    return image.convert("L" if channels == 1 else "RGB")


def _resized(image: PIL.Image.Image, sides: tuple[int, int], declared: Declared) -> PIL.Image.Image:
    """The image with other sides, by the declared way."""
    if declared.resize == "stretch":
        return image.resize(sides, _RESAMPLING)
    if declared.resize == "crop":
        return PIL.ImageOps.fit(image, sides, _RESAMPLING)
    colour: Any = _rgb(declared.background)
    if image.mode == "L":
        colour = PIL.Image.new("RGB", (1, 1), colour).convert("L").getpixel((0, 0))
    return PIL.ImageOps.pad(image, sides, _RESAMPLING, color=colour)


def _rgb(background: tuple[int, ...]) -> tuple[int, ...]:
    """Three channels of one or three."""
    return background * 3 if len(background) == 1 else background
