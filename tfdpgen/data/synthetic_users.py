"""Users for data that know none: partitions for experiments with methods that make their promise to users.

    user_ids = synthetic_users("iid:20", labels)          # int64 [n]; 20 examples a user, dealt out at random
    user_ids = synthetic_users("by_class:20", labels)     # 20 examples of one class, but for those at the seams

These are the two ends between which real users lie. `iid` follows from the number of examples alone. `by_class` sorts
by label first, so that who is whose depends on the labels: a promise to such a user is one about the data set as it was
dealt. Neither says anything of persons. Give real data a column that says whose an example is.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tfdpgen.data.dataset import DataError

KINDS = ("iid", "by_class")


def parse_users(users: str) -> tuple[str, int]:
    """Kind and examples per user of "iid:20".

    Raises:
      DataError: if it is nothing of the kind.
    """
    kind, _, size = users.partition(":")
    if kind not in KINDS or not size.isdecimal() or int(size) < 1:
        raise DataError(
            f"`users` should be empty, or {' or '.join(f'{kind}:NUMBER' for kind in KINDS)} with the number of "
            f"examples of each user, as in iid:20; got {users!r}."
        )
    return kind, int(size)


def synthetic_users(users: str, labels: npt.NDArray[np.int64], seed: int = 0) -> npt.NDArray[np.int64]:
    """Which user each example is of, int64 [n]; all have as many examples but perhaps one, which has fewer.

    Args:
      users: "iid:NUMBER" or "by_class:NUMBER".
      labels: int64 [n]; of "iid" their number alone counts.
      seed: of the public permutation.

    Raises:
      DataError: as `parse_users`.
    """
    kind, size = parse_users(users)
    order = np.random.default_rng(seed).permutation(len(labels))
    if kind == "by_class":
        order = order[np.argsort(labels[order], kind="stable")]
    ids = np.empty(len(labels), np.int64)
    ids[order] = np.arange(len(labels)) // size
    return ids
