"""A small federation: digits' worth of random images of a few users, at three sites."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfdpgen.data import DataSpec, LabeledDataset
from tfdpgen.federation.rounds import Answer, Seat, dealt, seats_of, total_of
from tfdpgen.federation.site import Site
from tfdpgen.federation.task import Task
from tfdpgen.methods.fedavg_gan import FedAvgGAN
from tfdpgen.privacy import NoiseSource, PrivacyBudget
from tfdpgen.privacy.remote import RemoteUsers

SPEC = DataSpec((8, 8, 1), 2)
USERS, SITES = 12, 3
METHOD = FedAvgGAN(
    4,
    generator_filters=8,
    num_coefficients=6,
    hidden_units=4,
    expected_users=4,
    rounds=5,
    learning_rate=0.02,  # with which updates are longer than the clip norm
)
TASK = Task.of(METHOD, SPEC, USERS)
CLIP = TASK.mechanism.clip_norm
BUDGET = PrivacyBudget(4.0, 1e-4)


class Still(NoiseSource):
    """Gives every user the same draws, whoever came before, so that sums of several places can be compared."""

    def examples(self) -> Any:
        class Same:
            def uniform(self, shape: Any) -> tf.Tensor:
                return tf.random.stateless_uniform(shape, [1, 2])

            def normal(self, shape: Any) -> tf.Tensor:
                return tf.random.stateless_normal(shape, [1, 2])

        return Same()


def dataset(users: int = USERS, images_per_user: int = 3) -> LabeledDataset:
    """Users of as many images, one after another."""
    rng, count = np.random.default_rng(0), images_per_user * users
    images = rng.integers(256, size=(count, 8, 8, 1), dtype=np.uint8)
    return LabeledDataset(images, np.arange(count) % 2, SPEC, np.repeat(np.arange(users), images_per_user))


def sites_of(data: LabeledDataset, noise: Any = Still, num_sites: int = SITES) -> list[Site]:
    """Users dealt to sites."""
    owner = np.asarray(data.user_ids)
    parts = np.array_split(np.unique(owner), num_sites)
    return [Site(data.take(np.flatnonzero(np.isin(owner, part))), noise) for part in parts]


def answer(name: str, users: int) -> Answer:
    """What a site says of itself that has this version."""
    return Answer(name, users, TASK.mechanism.num_weights, CLIP, "1")


def seats(sites: Sequence[Site], task: Task = TASK) -> dict[str, Seat]:
    """The server's view of sites."""
    answers = {number: answer(f"site-{number}", site.num_users) for number, site in enumerate(sites)}
    return seats_of(answers, task.num_users, task.mechanism, "1")


def started() -> list[npt.NDArray[Any]]:
    """Weights that a server could send."""
    tf.keras.utils.set_random_seed(1)
    return TASK.work().network.get_weights()


def fakes() -> list[npt.NDArray[Any]]:
    """What a server could send with them."""
    rng = np.random.default_rng(1)
    features, labels = TASK.work().public
    return [rng.normal(size=features.shape).astype(np.float32), rng.integers(2, size=labels.shape)]


def total(sites: Sequence[Site], sampled: Any, task: Task = TASK, weights: Any = None) -> npt.NDArray[np.float64]:
    """A round without noise, by the plain functions that Flower carries messages between."""
    at, weights = seats(sites, task), started() if weights is None else weights
    asked = dealt(np.asarray(sampled, np.int64), at)
    replies: dict[str, Any] = {
        name: sites[at[name].node].total(task, users, weights, fakes()) for name, users in asked.items()
    }
    return total_of(asked, replies, task.mechanism)


class Sites(RemoteUsers):
    """Sites of this process; some rounds lose one of them."""

    def __init__(self, sites: Sequence[Site], spec: DataSpec, num_users: int, lost: Sequence[int] = ()) -> None:
        self.spec, self.num_users = spec, num_users
        self._sites, self._lost, self.sums_seen, self.asked = sites, lost, [], []

    def announce(self, method: Any) -> None:
        self.task = Task.of(method, self.spec, self.num_users)

    @property
    def account(self) -> str:
        return "these sites"

    def sums(self, mechanism: Any, network: Any) -> Any:
        at, rounds = seats(self._sites, self.task), itertools.count()

        def sum_of(sampled: Any, public: Any) -> Any:
            self.asked.append(sampled)
            asked = dealt(sampled, at)
            arrays = [np.asarray(value) for value in public]
            found = total_of(
                asked,
                {
                    name: self._sites[at[name].node].total(self.task, users, network.get_weights(), arrays)
                    for name, users in asked.items()
                },
                mechanism,
            )
            self.sums_seen.append(found)
            return None if next(rounds) in self._lost else found

        return sum_of


def site_of_node(context: Any, spec: DataSpec) -> tuple[str, Site]:
    """The site of a simulated SuperNode, in a process of Ray's."""
    number = int(context.node_config["partition-id"])
    return f"site-{number}", sites_of(dataset())[number]
