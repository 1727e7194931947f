"""Task: what a server tells sites to train, as JSON, from which both build the same network, loss and mechanism.

    task = Task("fedavg_gan", {"rounds": 300}, spec, num_users=3000)
    Task.from_json(task.to_json()).mechanism            # at a site: FederatedAverage(...), with the same clip norm

No code and no pickled object travels: a site builds what it runs from its own copy of the method.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping
from typing import Any, Self

from tfdpgen.data.dataset import DataSpec
from tfdpgen.methods.method import method_class
from tfdpgen.privacy.ensemble import LocalWork
from tfdpgen.privacy.mechanisms.federated_average import FederatedAverage


@dataclasses.dataclass(frozen=True)
class Task:
    """A method with its settings, and the public facts of the data.

    Attributes:
      method: its name.
      settings: of the method, all of them.
      spec: of all sites' examples.
      num_users: of all sites together.

    Raises:
      ValueError: for a method that there is not, or that cannot be trained at sites, or for settings that it refuses.
    """

    method: str
    settings: Mapping[str, Any]
    spec: DataSpec
    num_users: int

    def __post_init__(self) -> None:
        cls = method_class(self.method)
        if not (hasattr(cls, "local_work") and hasattr(cls, "mechanism")):
            raise ValueError(f"`method` should be one that can be trained at sites, as fedavg_gan; got {self.method}.")
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := set(self.settings) - known:
            raise ValueError(f"`settings` should be of {', '.join(sorted(known))}; got {sorted(unknown)[0]}.")
        _ = self.chosen

    @classmethod
    def of(cls, method: Any, spec: DataSpec, num_users: int) -> Self:
        """The task of training a method with its settings."""
        return cls(method.name, dataclasses.asdict(method), spec, num_users)

    def to_json(self) -> str:
        """The task as one line, always the same of the same task."""
        facts = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        facts |= {"settings": dict(self.settings), "spec": self.spec.to_dict()}
        return json.dumps(facts, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The inverse of `to_json`.

        Raises:
          ValueError: as the class, or if it is no such text.
        """
        try:
            facts = json.loads(text)
            spec = DataSpec.from_dict(facts["spec"])
            return cls(facts["method"], facts["settings"], spec, facts["num_users"])
        except (KeyError, TypeError) as error:
            raise ValueError(f"a task should be what `Task.to_json` writes; {error!r}") from error

    @functools.cached_property
    def chosen(self) -> Any:
        """The method with its settings."""
        return method_class(self.method)(**self.settings)

    @functools.cached_property
    def mechanism(self) -> FederatedAverage:
        """What bounds a user's update, not calibrated: noise is the server's."""
        return self.chosen.mechanism(self.spec, self.num_users)

    def work(self) -> LocalWork:
        """What a sampled user does; its network is new, and gets the server's weights in each round."""
        return self.chosen.local_work(self.spec)
