"""Site: where some users' examples are. It answers a round with one vector, the sum of its users' clipped updates.

    site = Site(read_site("clinic.npz", task.spec))
    site.total(task, sampled=[0, 4], weights=weights, public=[fakes, labels])       # float64 [num_weights]

Each sampled user trains a copy of the server's network on own examples alone, and what its weights have changed by is
clipped as a whole, to a norm of C; the site adds these up. So **one user** moves what a site sends by at most C,
however many users and images the site has; the clip is neither the site's nor an image's. There is no noise in it: the
server adds noise, once, to the sum over all sites.

Draws of batches and of the loss come from this machine's operating system and are known to nobody else.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfdpgen.data.arrays import read_npz
from tfdpgen.data.dataset import DataError, Dataset, DataSpec
from tfdpgen.data.declared import Declared
from tfdpgen.federation.task import Task
from tfdpgen.privacy.ensemble import group_sums
from tfdpgen.privacy.noise import NoiseSource


def read_site(path: str | os.PathLike[str], spec: DataSpec) -> Dataset:
    """The examples of a site: an .npz with images, labels and user_ids.

    Args:
      path: of the file.
      spec: the public facts, which all sites share.

    Raises:
      DataError: if the file is missing, damaged, contradicts the facts or has splits, or does not say whose its
        examples are.
    """
    facts = Declared(spec.image_shape, spec.num_classes, spec.value_range, spec.class_names)
    parts = read_npz(path, facts)
    if "all" not in parts:
        raise DataError(f"{path} should hold images, labels and user_ids without splits; it has {', '.join(parts)}.")
    if parts["all"].user_ids is None:
        raise DataError(f"{path} should say whose its examples are, in an array user_ids with a number for each image.")
    return parts["all"]


class Site:
    """Users' examples, and what is done with them; see the top of this file.

    Args:
      dataset: with `user_ids`; users are numbered from 0 in the order of their ids.
      noise: where random draws come from.

    Raises:
      DataError: if it is not known whose the examples are.
    """

    def __init__(self, dataset: Dataset, noise: Callable[[], NoiseSource] = NoiseSource) -> None:
        if dataset.user_ids is None:
            raise DataError("`dataset` should say whose its examples are.")
        self._dataset, self._noise = dataset, noise
        users, groups = np.unique(dataset.user_ids, return_inverse=True)
        self.num_users, self._groups = len(users), groups.astype(np.int64)
        self._made: dict[str, Any] = {}

    def total(
        self,
        task: Task,
        sampled: npt.ArrayLike,
        weights: Sequence[npt.NDArray[Any]],
        public: Sequence[npt.NDArray[Any]],
    ) -> npt.NDArray[np.float64]:
        """The sum of the sampled users' clipped updates, float64 [num_weights]: private, without noise.

        Unit of privacy: one user of this site, who moves it by at most the clip norm of the task's mechanism.

        Args:
          task: what is trained.
          sampled: int64 [k], users of this site, each at most once.
          weights: of the network that users start from.
          public: what they are given to train with.

        Raises:
          ValueError: for users that there are not, or twice, weights of other shapes, or public arrays of others.
        """
        chosen = np.asarray(sampled, np.int64)
        if chosen.ndim != 1 or len(np.unique(chosen)) < chosen.size:
            raise ValueError("`sampled` should name each user once.")
        if chosen.size and not 0 <= chosen.min() <= chosen.max() < self.num_users:
            raise ValueError(f"`sampled` should be users from 0 to {self.num_users - 1}.")
        if not chosen.size:
            return np.zeros(task.mechanism.size)
        network, specs, sum_of = self._work(task)
        network.set_weights(list(weights))
        tensors = [_checked(array, spec) for array, spec in zip(public, specs, strict=True)]
        return sum_of(chosen, tensors)

    def _work(self, task: Task) -> tuple[tf.keras.Model, Sequence[tf.TensorSpec], Any]:
        """The network of a task, what is public in a round, and the function that adds up; made once."""
        key = task.to_json()
        if key not in self._made:
            work = task.work()
            here = dataclasses.replace(task.mechanism, num_users=self.num_users, expected_users=1)
            sum_of = group_sums(
                here,
                work.network,
                work.loss_fn,
                lambda *_: tf.zeros([0]),
                work.public,
                work.learning,
                work.transform,
                self._dataset,
                self._groups,
                self._noise(),
            )
            self._made = {key: (work.network, work.public, sum_of)}
        return self._made[key]


def _checked(array: npt.NDArray[Any], spec: Any) -> tf.Tensor:
    """A public array as a tensor.

    Raises:
      ValueError: if it has another shape.
    """
    if tuple(array.shape) != tuple(spec.shape):
        raise ValueError(f"`public` should have the shapes of the task, {spec.shape}; got {array.shape}.")
    return tf.constant(array, spec.dtype)
