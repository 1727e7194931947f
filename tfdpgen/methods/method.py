"""What a method is: settings, a plan of what it asks of the private examples, and what it makes of the answers.

    @register
    @dataclasses.dataclass(frozen=True)
    class MyMethod:
        name: ClassVar[str] = "my_method"
        ...                                           # settings, at most ten
        @classmethod
        def for_data(cls, spec, num_examples): ...
        def plan(self, spec, num_examples, budget): ...
        def fit(self, session, *, seed, verbose): ...

A method never holds the data: `fit` gets a `PrivateSession`, asks it for the mechanisms of the plan and gets noisy
outputs. docs/new_method.md builds one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, Self, TypeVar

import tensorflow as tf

from tfdpgen.data.dataset import DataSpec
from tfdpgen.privacy.budget import PrivacyBudget
from tfdpgen.privacy.plan import PrivacyPlan
from tfdpgen.privacy.session import PrivateSession


@dataclasses.dataclass(frozen=True, eq=False)
class Fitted:
    """What a method has learnt; a function of what the session gave, and so as private.

    Attributes:
      generator: [latents float32 [n, latent_dim], labels int64 [n]] -> images float32 [n, h, w, c] in [0, 1], a model
        of stock Keras layers. Latents are standard normal.
      networks: what else was trained and may be shown to auditors, by name; never part of a Release. Names and
        signatures that attacks know: "critic", images float32 [n, h, w, c] in [0, 1] -> scores [n, num_classes], one
        for each label, or [n, parts] where the critic sees no label; "encoder", [images, labels int64 [n]] -> mean, log
        variance float32 [n, latent_dim]; "decoder", [latents float32 [n, latent_dim], labels] -> images.
    """

    generator: tf.keras.Model
    networks: Mapping[str, tf.keras.Model] = dataclasses.field(default_factory=dict)


class Method(Protocol):
    """A frozen dataclass of settings; see the top of this file.

    Attributes:
      name: by which it is asked for.
      priors: public assumptions about the data, which the statement declares.
      unit: whose privacy it promises; a method that lacks it promises an example's.
      public_dataset: the public images that it learns from unless others are given (`load_public_images`); empty where
        it needs none; a method that cannot use any lacks it, or has None.
    """

    name: ClassVar[str]
    priors: ClassVar[tuple[str, ...]]

    @classmethod
    def for_data(cls, spec: DataSpec, num_examples: int) -> Self:
        """The settings for images of this shape and this many examples, or users where `unit` says so.

        Raises:
          ValueError: for data that do not suit the method.
        """
        ...

    def plan(self, spec: DataSpec, num_examples: int, budget: PrivacyBudget) -> PrivacyPlan:
        """What it will ask of the private examples, from public facts alone; calibrated by the caller."""
        ...

    def fit(self, session: PrivateSession, *, seed: int, verbose: int) -> Fitted:
        """Carries out the plan.

        Args:
          session: of a plan that holds the mechanisms of `plan`, and perhaps others.
          seed: of initial weights and whatever else is public; never of noise, samples or latents of private examples.
          verbose: 1 shows progress, without private metrics.
        """
        ...


_REGISTRY: dict[str, type[Any]] = {}
_Class = TypeVar("_Class", bound=type)


def register(cls: _Class) -> _Class:
    """Class decorator: makes a method known under its `name`."""
    _REGISTRY[cls.name] = cls
    return cls


def method_names() -> tuple[str, ...]:
    """The names of the registered methods."""
    return tuple(sorted(_REGISTRY))


def method_class(name: str) -> type[Any]:
    """The method of that name.

    Raises:
      ValueError: if there is none.
    """
    if name not in _REGISTRY:
        raise ValueError(f"`method` should be one of {', '.join(method_names())}; got {name!r}.")
    return _REGISTRY[name]
