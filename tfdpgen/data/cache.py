"""Decoded images of the last source that was read, so that a second run need not decode them again.

    cache = ImageCache("internal/cache")
    key = cache.key(files, (28, 28, 1), declared)
    images = cache.load(key, (60_000, 28, 28, 1))       # None: decode, and then cache.save(key, images)

A key is a digest of each file's path, size and times of change, and of all that is declared about how it is read, so
that whatever changes an image changes the key.

**The cache holds private images.** Its folder can be entered by its owner alone, and it keeps one source's images:
those of the one before are removed. What has its final name is finished: it is written under another and renamed once
the disk has it, and its digest is compared when it is read.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import PIL

from tfdpgen.data.dataset import DataError
from tfdpgen.data.declared import Declared
from tfdpgen.files import fsync

_OWN_NAME = re.compile(r"[0-9a-f]{64}\.images|\..+\.images\.part")  # of finished files, and of leftovers
_FORMAT = 1  # of the files, and of how images are decoded: a change of either makes older ones stale


class ImageCache:
    """A folder of decoded images.

    Args:
      folder: made if missing, for its owner alone.

    Raises:
      DataError: if it cannot be made or is no folder.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._folder = Path(folder).expanduser()
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._folder.chmod(0o700)
        except OSError as error:
            raise DataError(
                f"`cache` should be a folder that this user owns and may write to; got {self._folder} ({error})."
            ) from error

    def key(self, files: Sequence[str], image_shape: tuple[int, ...], declared: Declared) -> str:
        """What the images of these files are kept under."""
        digest = hashlib.sha256()
        facts = (_FORMAT, PIL.__version__, image_shape, declared.value_range, declared.resize, declared.background)
        digest.update(repr(facts).encode())
        for file in files:
            try:
                status = os.stat(file)
                facts = (status.st_size, status.st_mtime_ns, status.st_ctime_ns)
            except (OSError, ValueError):
                facts = None  # reading it will say why
            digest.update(f"{os.path.abspath(file)!r} {facts}\n".encode())
        return digest.hexdigest()

    def load(self, key: str, shape: tuple[int, ...]) -> npt.NDArray[np.uint8] | None:
        """The images that were saved under the key, or None where there are none of that shape."""
        try:
            with self._path(key).open("rb") as file:
                expected = file.read(32)
                images = np.lib.format.read_array(file, allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        if images.dtype != np.uint8 or images.shape != shape or _digest(images) != expected:
            return None
        return images

    def save(self, key: str, images: npt.NDArray[np.uint8]) -> None:
        """Keeps the images in place of all that was kept. A full disk is no error: then nothing is kept."""
        for earlier in self._folder.iterdir():
            if _OWN_NAME.fullmatch(earlier.name):  # the folder may be one that holds the user's files too
                earlier.unlink(missing_ok=True)
        part: str | None = None
        try:
            descriptor, part = tempfile.mkstemp(
                prefix=".", suffix=".images.part", dir=self._folder
            )  # for the owner alone
            with os.fdopen(descriptor, "wb") as file:
                file.write(_digest(images))
                np.lib.format.write_array(file, images, allow_pickle=False)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, self._path(key))
            fsync(self._folder)
        except OSError:
            if part is not None:
                Path(part).unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.images"


def _digest(images: npt.NDArray[np.uint8]) -> bytes:
    """32 bytes that tell a damaged copy."""
    return hashlib.sha256(np.ascontiguousarray(images).data).digest()
