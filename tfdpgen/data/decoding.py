"""One image file -> pixels uint8 of the declared shape, by Pillow or, for DICOM, by pydicom.

    decode("photos/cat.jpg", (28, 28, 3), Declared(resize="crop"))      # uint8 [28, 28, 3]

Formats are told by what a file holds, not by its name, so that any suffix and none will do. Pillow reads PNG, JPEG, GIF
(its first frame), BMP, TIFF, WebP, PGM and some forty more; EPS is left out, since it is a program that Ghostscript
runs.

**DICOM** needs the extra `dicom`. Stored values become those of the modality (Hounsfield units in CT) by the file's own
slope and intercept, and `value_range` is the window: what lies outside it is shown as its ends. MONOCHROME1 is
inverted, and of several frames the first is read.

An image's size is read off its header, and refused if it is a decompression bomb, before memory is asked for.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import PIL.Image

from tfdpgen.data.dataset import DataError
from tfdpgen.data.declared import Declared
from tfdpgen.data.fitting import fitted

_MOST_PIXELS = 178_956_970  # at which Pillow itself refuses: 512 MiB in colour
_REMEDY = "Replace it, convert it to PNG or JPEG, or remove it."
_DICOM_SUFFIXES = (".dcm", ".dicom")


def decode(
    path: str | os.PathLike[str], image_shape: tuple[int, int, int], declared: Declared
) -> npt.NDArray[np.uint8]:
    """The pixels of an image file.

    Args:
      path: of the file.
      image_shape: (height, width, channels) of the result.
      declared: what is done about other sides, transparency and depth.

    Returns:
      uint8 [height, width, channels].

    Raises:
      DataError: if the file cannot be read as an image or contradicts what is declared; the message names it.
    """
    path = Path(path)
    if not path.is_file():  # nor a pipe, which would be waited for
        raise DataError(f"{path} cannot be read as an image: there is no such file. Correct its name, or remove it.")
    try:
        with path.open("rb") as file:
            is_dicom = file.read(132)[128:] == b"DICM" or path.suffix.lower() in _DICOM_SUFFIXES
            file.seek(0)
            if is_dicom:
                return fitted(_dicom(file, path, declared), image_shape, declared, path)
            with PIL.Image.open(file, formats=_formats()) as image:
                _check_size(image.width, image.height, path)
                return fitted(image, image_shape, declared, path)
    except DataError:
        raise
    except PIL.UnidentifiedImageError as error:
        raise DataError(f"{path} cannot be read as an image: Pillow knows no format like it. {_REMEDY}") from error
    except PIL.Image.DecompressionBombError as error:
        raise DataError(f"{path} {_too_large('more')}") from error
    except Exception as error:  # Codecs raise what they like on damaged bytes.
        raise DataError(
            f"{path} cannot be read as an image and may be damaged: {error or type(error).__name__}. {_REMEDY}"
        ) from error


_FORMATS: list[str] = []


def _formats() -> list[str]:
    """What Pillow may take a file for."""
    if not _FORMATS:
        PIL.Image.init()
        _FORMATS.extend(name for name in PIL.Image.ID if name != "EPS")
    return _FORMATS


def _check_size(width: int, height: int, path: Path) -> None:
    """Refuses a decompression bomb by its header."""
    if width * height > _MOST_PIXELS:
        raise DataError(f"{path} {_too_large(f'{height}x{width}')}")


def _too_large(got: str) -> str:
    """What is wrong with a decompression bomb."""
    return (
        f"should have at most {_MOST_PIXELS:,} pixels; its header declares {got}, as decompression bombs do. Scale it "
        "down beforehand, or remove it."
    )


def _dicom(file: IO[bytes], path: Path, declared: Declared) -> PIL.Image.Image:
    """The first frame of a DICOM file, in 8 bits, by the declared window."""
    try:
        import pydicom
        import pydicom.pixels
    except ImportError as error:
        raise DataError(f"{path} is a DICOM file, which needs pydicom: pip install 'tfdpgen[dicom]'.") from error
    pixels: Any = pydicom.pixels
    dataset: Any = pydicom.dcmread(file, force=path.suffix.lower() in _DICOM_SUFFIXES)
    if "PixelData" not in dataset:
        raise DataError(f"{path} should be a DICOM file with an image; it has no pixel data. Remove it.")
    _check_size(int(dataset.Columns), int(dataset.Rows), path)
    values: Any = (
        pixels.pixel_array(dataset, index=0) if int(dataset.get("NumberOfFrames") or 1) > 1 else dataset.pixel_array
    )
    if values.ndim == 3:  # in colour, which pydicom has made RGB
        if values.dtype != np.uint8:
            raise DataError(f"{path} should have 8 bits a colour; got {values.dtype}. Convert it to PNG.")
        return PIL.Image.fromarray(values)
    if declared.value_range is None:
        raise DataError(
            f"{path} is a DICOM file, and the window that is shown of its values is not declared. Declare it: "
            "`--value_range=-1000,400` shows Hounsfield units from air to tissue."
        )
    low, high = declared.value_range
    values = np.clip(np.asarray(pixels.apply_modality_lut(values, dataset), np.float64), low, high)
    shown = np.rint((values - low) * (255.0 / (high - low))).astype(np.uint8)
    return PIL.Image.fromarray(255 - shown if dataset.get("PhotometricInterpretation") == "MONOCHROME1" else shown)
