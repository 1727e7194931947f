"""The server's part of a round without noise: whose users are where, who is asked, and what their answers add up to.

    seats = seats_of(answers, num_users=90)             # sites by name, from what they say of themselves
    asked = dealt(sampled, seats)                       # {"clinic": [0, 4], "lab": []}: users by site
    users = opened(sealed(asked["clinic"], 30))         # what a message holds, and what a site reads of it
    total = total_of(asked, replies, mechanism)         # LostRoundError where anything is missing or wrong

A round is used whole or not at all. A part of it is never applied, asked for again, or given other noise: the mechanism
is accounted for a Poisson sample of all users, and a round whose outcome could be chosen would be another mechanism.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from tfdpgen.privacy.mechanisms.federated_average import FederatedAverage

_RANDOM_BYTES = 16  # behind what is secret in a message
_ROUNDING = 1e-5  # relative, of norms of sums of float32 vectors


class FederationError(ValueError):
    """Sites are not as they were declared; the message says what is wrong."""


class LostRoundError(RuntimeError):
    """A round cannot be used.

    Attributes:
      sites: by name, what was wrong with those that failed it.
      wrong: names of those that sent something which no site sends that does as it should.
    """

    def __init__(self, sites: Mapping[str, str], wrong: frozenset[str] = frozenset()) -> None:
        super().__init__("; ".join(f"{name}: {reason}" for name, reason in sites.items()))
        self.sites, self.wrong = dict(sites), wrong


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a site says of itself when it is called.

    Attributes:
      site: its name.
      num_users: whose examples it has.
      num_weights, clip_norm: of the mechanism as the site builds it from the task.
      version: of tfdpgen.
    """

    site: str
    num_users: int
    num_weights: int
    clip_norm: float
    version: str


@dataclasses.dataclass(frozen=True)
class Seat:
    """A site of a federation.

    Attributes:
      name: by which a site that was started again is known.
      node: where it is reached.
      first: the number of its first user among all.
      num_users: whose examples it has.
    """

    name: str
    node: int
    first: int
    num_users: int


def seats_of(
    answers: Mapping[int, Answer], num_users: int, mechanism: FederatedAverage, version: str
) -> dict[str, Seat]:
    """The sites by name, their users numbered one after another in the order of names.

    Args:
      answers: by node.
      num_users: that were declared.
      mechanism: of the server, which every site's has to agree with.
      version: of the server's tfdpgen.

    Raises:
      FederationError: if two sites have one name, a site would do something else, or there are more or fewer users.
    """
    seats: dict[str, Seat] = {}
    first = 0
    for node, answer in sorted(answers.items(), key=lambda item: item[1].site):
        if answer.site in seats:
            raise FederationError(f"two sites are called {answer.site!r}: give each a name of its own.")
        if type(answer.num_users) is not int or answer.num_users < 1:
            raise FederationError(f"site {answer.site!r} should have at least one user; it has {answer.num_users!r}.")
        check_agrees(answer, mechanism, version)
        seats[answer.site] = Seat(answer.site, node, first, answer.num_users)
        first += answer.num_users
    if first != num_users:
        found = ", ".join(f"{seat.name}: {seat.num_users}" for seat in seats.values())
        raise FederationError(
            f"`num_users` should be {first}, as many as the sites have together ({found}); got {num_users}. It decides "
            "how likely a user is to be sampled."
        )
    return seats


def check_agrees(answer: Answer, mechanism: FederatedAverage, version: str) -> None:
    """Refuses a site whose updates would have another bound or another length.

    Raises:
      FederationError: naming the site.
    """
    theirs, ours = (answer.num_weights, answer.clip_norm), (mechanism.num_weights, mechanism.clip_norm)
    if theirs != ours or answer.version != version:
        raise FederationError(
            f"site {answer.site!r} runs tfdpgen {answer.version}, where an update has {theirs[0]} numbers and a norm "
            f"of at most {theirs[1]:g}; here it is {version}, with {ours[0]} and {ours[1]:g}. Install the same version."
        )


def dealt(sampled: npt.NDArray[np.int64], seats: Mapping[str, Seat]) -> dict[str, npt.NDArray[np.int64]]:
    """The sampled users of each site, by their numbers there; every site is asked, those without any for nothing.

    Whoever watches the network then learns nothing of the sample from who is asked.
    """
    return {
        name: sampled[(sampled >= seat.first) & (sampled < seat.first + seat.num_users)] - seat.first
        for name, seat in seats.items()
    }


def sealed(users: npt.NDArray[np.int64], num_users: int) -> npt.NDArray[np.uint8]:
    """What a message says of a site's sampled users: a byte for each of all its users, then random bytes.

    It is as long whoever is sampled. The random bytes are against guesses: a SuperLink stores arrays by their digests,
    and gives an array to every node that names its digest.
    """
    is_sampled = np.zeros(num_users, np.uint8)
    is_sampled[users] = 1
    return np.concatenate([is_sampled, np.frombuffer(os.urandom(_RANDOM_BYTES), np.uint8)])


def opened(message: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """The users of a `sealed` message."""
    return np.flatnonzero(message[:-_RANDOM_BYTES])


def sealed_sum(total: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """What a site sends: a sum, then random numbers, so that nobody can guess that it is one of zeros."""
    return np.concatenate([total, np.frombuffer(os.urandom(_RANDOM_BYTES), np.uint32).astype(np.float64)])


def opened_sum(message: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The sum of a `sealed_sum`; of anything else something that `total_of` refuses."""
    return message[: -(_RANDOM_BYTES // 4)] if message.ndim else message


def total_of(
    asked: Mapping[str, npt.NDArray[np.int64]],
    replies: Mapping[str, npt.NDArray[np.float64] | str],
    mechanism: FederatedAverage,
) -> npt.NDArray[np.float64]:
    """The sum over all sites that were asked, float64 [num_weights]: private, without noise.

    Unit of privacy: one user, who moves it by at most `mechanism.clip_norm` at a site that clips. What a server can
    tell without seeing single updates it checks: k users' updates together are no longer than k clip norms.

    Args:
      asked: by site, the users that were asked for.
      replies: by site, what it sent, or a sentence that says why it sent nothing.
      mechanism: what the sum is of.

    Raises:
      LostRoundError: unless every site has sent a sum of the right form, finite, and not longer than that.
    """
    failed: dict[str, str] = {}
    wrong: set[str] = set()
    total = np.zeros(mechanism.size)
    for name, users in asked.items():
        reply = replies.get(name, "no reply")
        if isinstance(reply, str):
            failed[name] = reply
            continue
        most = len(users) * mechanism.clip_norm
        if reply.shape != (mechanism.size,) or reply.dtype != np.float64:
            failed[name] = f"sent {reply.dtype} {list(reply.shape)} in place of float64 [{mechanism.size}]"
        elif not np.isfinite(reply).all():
            failed[name] = "sent numbers that are not finite"
        elif np.linalg.norm(reply) > most * (1 + _ROUNDING):
            failed[name] = (
                "sent a sum longer than its users' clipped updates can make it"  # how many they are is secret
            )
        else:
            total += reply
            continue
        wrong.add(name)
    if failed:
        raise LostRoundError(failed, frozenset(wrong))
    return total
