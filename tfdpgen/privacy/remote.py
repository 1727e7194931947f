"""Users whose examples are elsewhere: what a session is given in place of a data set, to run a federation.

    session = PrivateSession(users, plan.calibrate(budget), budget)       # users: a RemoteUsers
    session.federation("rounds", critic, loss_fn, ...)                    # the same mechanism, sums from elsewhere

What is public about the users is known here: how many there are, and the facts of their images. What a round's sampled
users add up to is asked for and comes without noise, so that whoever runs the session is trusted with it; noise is
added here, once, by the code that does so for a data set. `tfdpgen.federation` asks sites over Flower.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tfdpgen.data.dataset import DataSpec
from tfdpgen.privacy.accounts.identity import Identity

if TYPE_CHECKING:
    import tensorflow as tf

    from tfdpgen.privacy.mechanisms.federated_average import FederatedAverage

SumOf = Callable[[npt.NDArray[np.int64], Sequence[Any]], npt.NDArray[np.float64] | None]

ASSUMPTION = (
    "Users train where their images are, each at one site alone; who is at two sites is two users. Sites do as the "
    "protocol says. Whoever runs the server is trusted: it samples users, sees each site's sum before noise is added, "
    "and says nothing of either. Which sites answer, and when, depends neither on anybody's images nor on who was "
    "sampled. A round in which a site was lost is accounted like any other, and nothing of it was used."
)


class RemoteUsers(abc.ABC):
    """Users who train where their examples are.

    Attributes:
      spec: the public facts of all examples.
      num_users: public; numbered from 0.
    """

    spec: DataSpec
    num_users: int

    @abc.abstractmethod
    def announce(self, method: Any) -> None:
        """Says which method, with its settings, is going to be trained; called once, before anything is spent.

        Raises:
          ValueError: if it cannot be trained with these users.
        """

    @property
    @abc.abstractmethod
    def account(self) -> Identity | str:
        """Whom a ledger charges: their examples, where whoever runs the session knows who these are, or a name."""

    @abc.abstractmethod
    def sums(self, mechanism: FederatedAverage, network: tf.keras.Model) -> SumOf:
        """What asks the sampled users, who start from `network` as it is at the call.

        Returns:
          A function (users that were sampled, public tensors) -> sum of their bounded updates, float64 [size], or None
          where any of those who were asked was lost meanwhile: whatever others have sent is dropped then.
        """
