"""Who examples are, for a ledger: a keyed digest of each image, in no order.

    identity = Identity.of(dataset, key)             # key: the ledger's own secret
    len(identity), identity.users

An account has to follow an example into another file, another order, a part of the data, other labels and another
declaration of classes. So what is digested is one image, its shape and its bytes (uint8), and nothing else: not its
label, place, class names or file. Who labels the same images anew gets no new budget for them. Without the key nobody
who sees digests can find out whether an image is among them.

**What this does not see**: an image that is stored with other pixels. A copy that was compressed again, resized,
cropped, turned to grey, or read with another `value_range`, is another example. Owners can say that data sets belong
together (`Ledger.join`).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from tfdpgen.data.dataset import Dataset

BYTES = 8  # of a digest: among ten million examples two share one with a probability of 3e-6, and then an account
KEY_BYTES = 32


@dataclasses.dataclass(frozen=True)
class Identity:
    """Examples by their digests, and whose they are.

    Attributes:
      digests: uint64 [n], sorted, without repetition; where users are known, an image of two of them is there twice.
      users: int64 [n], of what user each is; None where that is not known.
      copies: int64 [n], how often that image of that user is there.
    """

    digests: npt.NDArray[np.uint64]
    users: npt.NDArray[np.int64] | None
    copies: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return int(self.copies.sum())

    @property
    def most_copies_of_a_user(self) -> int:
        """How often one image of one user is there, of the one that is there most often; all copies are, if unknown."""
        return int(self.copies.max()) if len(self.copies) else 0

    @property
    def most_copies(self) -> int:
        """How often the image is there that is there most often."""
        starts = np.unique(self.digests, return_index=True)[1]
        return int(np.add.reduceat(self.copies, starts).max()) if len(starts) else 0

    def most_of_a_user(self, among: npt.NDArray[np.bool_] | None = None) -> int:
        """How many images the user has who has most, of all or of some; 0 where users are not known."""
        if self.users is None or not len(self.users):
            return 0
        users, copies = (self.users, self.copies) if among is None else (self.users[among], self.copies[among])
        return int(np.bincount(np.unique(users, return_inverse=True)[1], copies).max()) if len(users) else 0

    @classmethod
    def of(cls, dataset: Dataset, key: bytes) -> Identity:
        """Reads all images once, block by block; of a million it keeps 16 MB, or 48 where users are known.

        Args:
          dataset: the examples.
          key: the ledger's.
        """
        digests = np.empty(len(dataset), np.uint64)
        empty = hashlib.blake2b(json.dumps(list(dataset.spec.image_shape)).encode(), key=key, digest_size=BYTES)
        place = 0
        for images, _ in dataset.blocks():
            for image in np.ascontiguousarray(images):
                digest = empty.copy()
                digest.update(image)
                digests[place] = int.from_bytes(digest.digest(), "big")
                place += 1
        return cls._of(digests, dataset.user_ids)

    @classmethod
    def named(cls, name: str, key: bytes) -> Identity:
        """What is elsewhere, and known by a name alone."""
        digest = hashlib.blake2b(b"named\0" + name.encode(), key=key, digest_size=BYTES).digest()
        return cls._of(np.array([int.from_bytes(digest, "big")], np.uint64), None)

    @classmethod
    def together(cls, parts: Sequence[Identity]) -> Identity:
        """All examples of several data sets, whose users are numbered alike."""
        if len(parts) == 1:
            return parts[0]
        digests, copies = (np.concatenate([getattr(part, name) for part in parts]) for name in ("digests", "copies"))
        users = [part.users for part in parts]
        known = None if any(one is None for one in users) else np.concatenate(cast(Any, users))
        return cls._of(digests, known, copies)

    @classmethod
    def _of(
        cls,
        digests: npt.NDArray[np.uint64],
        users: npt.NDArray[np.int64] | None,
        copies: npt.NDArray[np.int64] | None = None,
    ) -> Identity:
        order = np.argsort(digests, kind="stable") if users is None else np.lexsort((users, digests))
        copies = np.ones(len(digests), np.int64) if copies is None else copies[order]
        digests = digests[order]
        whose = None if users is None else np.asarray(users, np.int64)[order]
        is_first = np.ones(len(digests), bool)
        is_first[1:] = np.diff(digests) != 0
        if whose is not None:
            is_first[1:] |= np.diff(whose) != 0
        starts = np.flatnonzero(is_first)
        together = np.add.reduceat(copies, starts) if len(starts) else copies
        return cls(digests[is_first], None if whose is None else whose[is_first], together)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes it to a new .npz for its owner alone; it is as private as the ledger."""
        arrays = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            np.savez(file, **{name: array for name, array in arrays.items() if array is not None})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Identity:
        """Reads what `save` has written.

        Raises:
          ValueError: if the file is none of its.
        """
        try:
            with np.load(Path(path), allow_pickle=False) as arrays:
                return cls(arrays["digests"], arrays.get("users"), arrays["copies"])
        except (KeyError, OSError, TypeError, ValueError) as error:
            raise ValueError(f"{path} should be an identity of examples; reading it failed: {error}.") from None


def set_digest(digests: npt.NDArray[np.uint64]) -> str:
    """A digest of examples together, whatever their order, by which a history knows them again."""
    return hashlib.sha256(np.unique(digests).astype(">u8").tobytes()).hexdigest()
