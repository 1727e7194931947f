"""Font images: single characters in the fonts of this machine, a public prior for writing.

    fonts = read_fonts(font_files())
    images = random_font_images(np.random.default_rng(0), 1000, (28, 28), list(fonts.values()))  # uint8 [n, 28, 28, 1]

An image shows one Latin letter or digit, light on dark, in a random font, scaled, turned and sheared a little. Which
character it is, is not kept. What there is depends on the fonts that are installed, and so does what a generator learns
from it: the privacy statement says how many there were.

Writing by way of fonts as public images: Lin et al. 2024/2025, "Differentially private synthetic data via foundation
model APIs" and "... via simulators" (arXiv 2305.15560, 2502.05505).
"""

from __future__ import annotations

import hashlib
import os
import string
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont

from tfdpgen.data.dataset import DataError

_CHARACTERS = string.digits + string.ascii_letters
_MISSING = "\U0010fffd"  # no font has it: what is drawn for it stands for a character that a font has not
_HEIGHT = 64  # pixels that characters are drawn at, before they are scaled
_FILL = 0.7  # of the frame's side by the larger side of a character, on average
_SUFFIXES = {".ttf", ".otf", ".ttc"}
_FOLDERS = {
    "linux": ("/usr/share/fonts", "/usr/local/share/fonts", "~/.local/share/fonts", "~/.fonts"),
    "darwin": ("/System/Library/Fonts", "/Library/Fonts", "~/Library/Fonts"),
    "win32": ("C:/Windows/Fonts", "~/AppData/Local/Microsoft/Windows/Fonts"),
}


def font_files(folder: str | os.PathLike[str] = "") -> list[Path]:
    """The font files in a folder and below it, sorted; without one, those that are installed on this machine."""
    folders = [folder] if folder else _FOLDERS.get(sys.platform, _FOLDERS["linux"])
    found = {
        file.resolve()
        for each in folders
        for file in Path(os.path.expanduser(each)).rglob("*")
        if file.suffix.lower() in _SUFFIXES and file.is_file()
    }
    return sorted(found)


def read_fonts(files: Sequence[Path]) -> dict[str, list[PIL.Image.Image]]:
    """The characters of fonts, each cut out, by a digest of the file; fonts without Latin letters are passed over.

    Raises:
      DataError: if no font has a Latin letter.
    """
    found = {
        hashlib.sha256(file.read_bytes()).hexdigest(): drawn
        for file in files
        if (drawn := _characters(file)) is not None
    }
    if not found:
        raise DataError(
            f"Public images of fonts need at least one font file with Latin letters; got {len(files)} files, none of "
            "which has any. Install some, such as Debian's packages fonts-dejavu and fonts-liberation, or name a "
            "folder of .ttf or .otf files: fonts:FOLDER."
        )
    return dict(sorted(found.items()))


def random_font_images(
    rng: np.random.Generator, num: int, shape: tuple[int, int], fonts: Sequence[Sequence[PIL.Image.Image]]
) -> npt.NDArray[np.uint8]:
    """`num` random characters.

    Args:
      rng: of everything that is random.
      num: of images.
      shape: height and width in pixels.
      fonts: the characters of each.

    Returns:
      uint8 [num, h, w, 1], characters light on a dark ground.
    """
    images = np.zeros((num, *shape), np.uint8)
    for i in range(num):
        characters = fonts[int(rng.integers(len(fonts)))]
        images[i] = _framed(characters[int(rng.integers(len(characters)))], shape, rng)
    return images[..., None]


def _characters(file: Path) -> list[PIL.Image.Image] | None:
    """All characters that a font has, each cut out; None where it cannot be read or has no Latin letters."""
    try:
        font = PIL.ImageFont.truetype(file, _HEIGHT)
        missing, *drawn = (_drawn(font, character) for character in (_MISSING, *_CHARACTERS))
    except OSError:
        return None
    found = [image.crop(box) for image in drawn if (box := image.getbbox()) and image.tobytes() != missing.tobytes()]
    return found if len(found) > len(_CHARACTERS) // 2 else None


def _drawn(font: PIL.ImageFont.FreeTypeFont, character: str) -> PIL.Image.Image:
    """A character in the middle of a ground that is large enough for it."""
    image = PIL.Image.new("L", (3 * _HEIGHT, 3 * _HEIGHT))
    PIL.ImageDraw.Draw(image).text((1.5 * _HEIGHT, 1.5 * _HEIGHT), character, 255, font, anchor="mm")
    return image


def _framed(character: PIL.Image.Image, shape: tuple[int, int], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """A character, scaled, turned, sheared and moved into a frame, in its middle on average."""
    height, width = shape
    scale = _FILL * min(shape) / max(character.size) * np.exp(rng.normal(0, 0.1))
    angle, shear = rng.normal(0, 0.1), rng.normal(0, 0.15)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    back = np.linalg.inv(scale * turn @ np.array([[1, shear], [0, 1]]))  # from the frame to the character
    middle = np.array([width, height]) / 2 + rng.normal(0, 0.03 * min(shape), 2)
    offset = np.array(character.size) / 2 - back @ middle
    # Pillow takes one pixel of the character for each of the frame: shrunk to about the size of the frame before,
    # thin strokes stay.
    reduced = max(1, int(1 / scale))
    smaller = character.reduce(reduced)
    values = np.concatenate([back / reduced, offset[:, None] / reduced], axis=1).ravel().tolist()
    image = smaller.transform((width, height), PIL.Image.Transform.AFFINE, values, PIL.Image.Resampling.BILINEAR)
    return np.asarray(image, np.uint8)
