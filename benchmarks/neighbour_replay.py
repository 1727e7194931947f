"""Neighbour replay: how far one example, or one user, moves what noise is added to, beside the declared sensitivity.

    python benchmarks/neighbour_replay.py                                   # every method, 1,000 neighbours a mechanism
    python benchmarks/neighbour_replay.py --methods=dp_gan,gs_wgan --neighbours=200 --steps=0,50

Every method is trained on the digits as `train` trains it, with the settings that it registers for them. Where a
session is about to add noise, the sum is computed again, without noise, for neighbours of the data: an example was
really removed or inserted (a whole user, where users are what the promise is for), at the front, in the middle, at the
end or anywhere. What is inserted is a held-out digit, a black, white, checkered, noisy or inverted image, or a copy,
also with another label. Whatever else is random is the same, and follows the example or the group that it belongs to.

- One-shot sums are computed by `session.sums_of` over the whole data.
- A step of DP-SGD is the trainer's own, on a sample of some 20 examples that the neighbour shares, or has one more or
  fewer of. Chunks hold 16, so that examples move from one to the next.
- Counts of votes are `Votes.counts` of the whole data, with the same draws of the teachers.
- Sums over groups are those of `ensemble.group_sums`, over four sampled groups, one of which the neighbour changes.
  Each shard's network has been through all the steps before, on the neighbour's examples.

`gaussian_mixture` also trains a labeller and counts labels, and `latent_gaussian` learns from dead leaves, since
strokes cannot be told on 8x8 pixels. What is printed is the change of the sum over the declared sensitivity, which has
to be 1 at most; how many neighbours moved it at all; and, of groups, how many moved the answer of another one, which
has to be none. A run takes some ten minutes on one core. It ends with exit code 1 if anything is above its bound. No
data are private here.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import dataclasses
import functools
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import numpy.typing as npt
import tensorflow as tf

if __package__ in (None, ""):  # run as a script: its packages lie beside this folder, not in it
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from tfdpgen.data import LabeledDataset, PublicImages, load_public_images, load_splits
from tfdpgen.data.synthetic_users import synthetic_users
from tfdpgen.methods import method_names, train
from tfdpgen.methods.training import num_units, planned
from tfdpgen.privacy import DPSGD, ExampleRandomness, NoiseSource, PrivacyBudget, Votes, isolation, trainer
from tfdpgen.privacy import ensemble as ensembles
from tfdpgen.privacy import session as sessions
from tfdpgen.privacy.budget import PrivacyUnit
from tfdpgen.privacy.mechanisms.base import GaussianSum, GroupSum

TOLERANCE = 1e-4  # of sums in 32 bits
_CHUNK = 16  # examples, of DP-SGD
_FROM_SAMPLE = 25  # neighbours that share a sample, of examples or of groups
_GROUPS = 4  # in a sample
_BUDGET = PrivacyBudget(10.0, 1e-5)
_USERS = "iid:4"  # digits of each, where there are to be users

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]


class Moved(NamedTuple):
    """What neighbours moved the sums of one mechanism by, at one state of the training.

    Attributes:
      mechanism: its name.
      state: the step before which it was, or "".
      changes: float64 [neighbours], each over the sensitivity.
      astray: how many of them moved the answer of a group that they have in common with the data.
    """

    mechanism: str
    state: str
    changes: npt.NDArray[np.float64]
    astray: int

    @property
    def is_within(self) -> bool:
        """Whether no neighbour moved more than is declared."""
        return bool(np.all(self.changes <= 1 + TOLERANCE)) and self.astray == 0


class Neighbours:
    """What is inserted or removed, and where.

    Args:
      dataset: the data.
      held_out: examples that are not in the data.
      seed: of all choices.
    """

    def __init__(self, dataset: LabeledDataset, held_out: LabeledDataset, seed: int = 0) -> None:
        self.dataset, self._held_out = dataset, held_out
        self.rng = np.random.default_rng(seed)
        self._made = 0
        self.transform: Any = None

    def place(self, size: int) -> int:
        """The front, the middle, the end and anywhere in turn, of 0 to `size`."""
        self._made += 1
        return (0, size // 2, size, int(self.rng.integers(size + 1)))[self._made % 4]

    def example(self, number: int) -> tuple[Images, int]:
        """An image [h, w, c] to be inserted, of a kind that `number` decides, and its label."""
        rng, shape, classes = self.rng, self.dataset.spec.image_shape, self.dataset.spec.num_classes
        height, width, _ = shape
        one, other = int(rng.integers(len(self.dataset))), int(rng.integers(len(self._held_out)))
        image, label = self.dataset.images[one], int(self.dataset.labels[one])
        checkered = (np.add.outer(np.arange(height), np.arange(width)) % 2 * 255).astype(np.uint8)
        return (
            (self._held_out.images[other], int(self._held_out.labels[other])),
            (np.zeros(shape, np.uint8), label),
            (np.full(shape, 255, np.uint8), label),
            (np.broadcast_to(checkered[..., None], shape), label),
            (rng.integers(256, size=shape, dtype=np.uint8), label),
            (image, label),
            (image, (label + 1 + int(rng.integers(classes - 1))) % classes),
            (255 - image, label),
        )[number % 8]

    def examples(self, number: int, count: int) -> tuple[Images, Labels]:
        """As many of that kind."""
        made = [self.example(number) for _ in range(count)]
        return np.stack([image for image, _ in made]), np.array([label for _, label in made], np.int64)

    def of_one_example(self, count: int) -> Iterator[LabeledDataset]:
        """Data sets with one example more or fewer."""
        for number in range(count):
            if number % 3 == 0:
                yield without(self.dataset, [min(self.place(len(self.dataset)), len(self.dataset) - 1)])
            else:
                yield with_examples(self.dataset, self.place(len(self.dataset)), *self.examples(number // 3, 1))

    def of_one_user(self, count: int) -> Iterator[LabeledDataset]:
        """Data sets with one user more or fewer, whose images are anywhere."""
        for number in range(count):
            changed, _ = self.user_in_or_out(number, None)
            yield changed

    def user_in_or_out(self, number: int, candidates: Sequence[int] | None) -> tuple[LabeledDataset, int]:
        """The data with a user more, or without one of the candidates; and that user's id."""
        users = np.unique(_ids(self.dataset))
        if number % 3 == 0:
            chosen = users if candidates is None else np.asarray(candidates)
            leaving = int(chosen[min(self.place(len(chosen)), len(chosen) - 1)])
            return without(self.dataset, np.flatnonzero(self.dataset.user_ids == leaving)), leaving
        place = self.place(len(users))  # among users, who are known by even ids: see `replay`
        joining = int(users[place]) - 1 if place < len(users) else int(users[-1]) + 1
        images, labels = self.examples(number // 3, (1, 4, 40)[number % 3])
        at = self.rng.integers(len(self.dataset) + 1, size=len(labels))
        return with_examples(self.dataset, at, images, labels, joining), joining


def without(dataset: LabeledDataset, places: Any) -> LabeledDataset:
    """The data without some examples."""
    return dataset.take(np.delete(np.arange(len(dataset)), places))


def with_examples(dataset: LabeledDataset, at: Any, images: Images, labels: Labels, user: int = -1) -> LabeledDataset:
    """The data with examples inserted before those at some places."""
    at = np.broadcast_to(at, [len(images)])
    user_ids = None if dataset.user_ids is None else np.insert(_ids(dataset), at, user)
    return LabeledDataset(
        np.insert(dataset.images, at, images, axis=0), np.insert(dataset.labels, at, labels), dataset.spec, user_ids
    )


def _ids(dataset: LabeledDataset) -> Labels:
    assert dataset.user_ids is not None
    return np.asarray(dataset.user_ids, np.int64)


def sensitivity(mechanism: Any) -> float:
    """What a mechanism declares that its unit of privacy moves a sum by, in L2."""
    if isinstance(mechanism, DPSGD):
        return mechanism.l2_norm_clip
    if hasattr(mechanism, "sensitivity"):
        return mechanism.sensitivity
    return mechanism.clip_norm if mechanism.unit is PrivacyUnit.USER else 2 * mechanism.clip_norm


class _Done(BaseException):
    """Ends a training of which nothing more is to be seen."""


def replay(
    method: Any,
    dataset: LabeledDataset,
    held_out: LabeledDataset,
    *,
    neighbours: int,
    steps: Sequence[int] = (0, 20),
    budget: PrivacyBudget = _BUDGET,
    seed: int = 0,
    **arguments: Any,
) -> list[Moved]:
    """Trains until everything that its plan noises was seen, and says what neighbours would have moved it by.

    Args:
      method: its name, or a method with its settings.
      dataset: the data.
      held_out: examples that are not in it.
      neighbours: of each mechanism; those with steps share them out.
      steps: before which mechanisms with steps are looked at.
      budget: of the training.
      seed: of neighbours.
      **arguments: of `train`.

    Raises:
      RuntimeError: if the plan has a mechanism that never came.
    """
    if dataset.user_ids is not None:  # even ones, so that others fit between
        even = 2 * np.unique(dataset.user_ids, return_inverse=True)[1].astype(np.int64)
        dataset = LabeledDataset(dataset.images, dataset.labels, dataset.spec, even)
    options = {key: arguments[key] for key in ("labeller_share", "label_distribution") if key in arguments}
    _, plan = planned(method, dataset.spec, num_units(method, dataset), budget, **options)
    source, moved, left = Neighbours(dataset, held_out, seed), [], set()
    for part in plan.mechanisms.values():
        left |= {(part.name, "")} if isinstance(part, GaussianSum) else {(part.name, str(step)) for step in steps}

    def note(*found: Moved) -> None:
        moved.extend(found)
        left.difference_update((one.mechanism, one.state) for one in found)
        if not left:
            raise _Done

    with contextlib.ExitStack() as stack:
        for target, name, wrapper in (
            (sessions, "sums_of", _watched_sums(source, neighbours, note)),
            (trainer.Trainer, "_steps", _with_public_state),
            (trainer.Trainer, "_step_fn", _watched_steps(source, neighbours // len(steps), steps, note)),
            (ensembles, "group_sums", _watched_groups(source, neighbours // len(steps), steps, note)),
            (sessions, "features_of", _with_transform(source)),
            (Votes, "counts", _watched_votes(source, neighbours // len(steps), steps, note)),
        ):
            stack.enter_context(_replaced(target, name, wrapper(getattr(target, name))))
        stack.enter_context(contextlib.suppress(_Done))
        train(method, dataset, budget, verbose=0, **arguments)
    if left:
        raise RuntimeError(f"The plan has mechanisms that were not seen: {sorted(left)}.")
    return moved


@contextlib.contextmanager
def _replaced(target: Any, name: str, value: Any) -> Iterator[None]:
    """An attribute of a module, a class or an object, for a while."""
    had, before = name in vars(target), vars(target).get(name)
    setattr(target, name, value)
    try:
        yield
    finally:
        setattr(target, name, before) if had else delattr(target, name)


# One-shot sums


def _watched_sums(source: Neighbours, count: int, note: Callable[..., None]) -> Callable[[Any], Any]:
    """`session.sums_of` that computes the sums of neighbours as well."""

    def wrapper(original: Any) -> Any:
        def sums_of(dataset: Any, asked: Mapping[str, Any], *, by_user: bool) -> Any:
            traced, source.dataset = {}, dataset.in_memory()

            def once(function: Any, *rest: Any) -> Any:  # the same function for all neighbours
                if id(function) not in traced:
                    traced[id(function)] = isolation.traced(function, *rest)
                return traced[id(function)]

            with _replaced(sessions, "traced", once):
                sums, changes = original(dataset, asked, by_user=by_user), {key: [] for key in asked}
                for neighbour in source.of_one_user(count) if by_user else source.of_one_example(count):
                    for key, others in original(neighbour, asked, by_user=by_user).items():
                        bound = sensitivity(asked[key][0])
                        changes[key].append(float(np.linalg.norm(others - sums[key])) / bound)
            note(*(Moved(asked[key][0].name, "", np.array(found), 0) for key, found in changes.items()))
            return sums

        return sums_of

    return wrapper


# Steps of DP-SGD


def _with_public_state(original: Any) -> Any:
    """`Trainer._steps` that remembers what a step may change beside the networks: generators of fakes, above all."""

    def steps(self: Any, dataset: Any, noise: Any, backup: Any, after_step: Any, state: Any, *rest: Any) -> Any:
        self._changed_by_steps = [variable for item in tf.nest.flatten(list(state.values())) for variable in _of(item)]
        return original(self, dataset, noise, backup, after_step, state, *rest)

    return steps


def _of(item: Any) -> Any:
    """The variables of a variable, a random generator, an optimizer or a network."""
    if isinstance(item, tf.Variable):
        return [item]
    if isinstance(item, tf.random.Generator):
        return [item.state]
    variables: Any = item.variables
    return variables() if callable(variables) else variables


class _OfExamples(ExampleRandomness):
    """What an example draws follows it from slot to slot: rows of tables, whatever the chunk.

    Attributes:
      numbers: int32 [b], of the examples of the chunk that is traced.
    """

    numbers: tf.Tensor

    def __init__(self, size: int) -> None:
        self._size, self._draws = size, 0

    def begin(self, numbers: tf.Tensor) -> None:
        """A chunk of these examples."""
        self.numbers, self._draws = numbers, 0

    def _rows(self, draw: Callable[..., tf.Tensor], shape: Sequence[int]) -> tf.Tensor:
        self._draws += 1
        with tf.init_scope():
            table = draw([self._size, *shape[1:]], [17, self._draws])
        return tf.gather(table, self.numbers)

    def normal(self, shape: Sequence[int]) -> tf.Tensor:
        return self._rows(tf.random.stateless_normal, shape)

    def uniform(self, shape: Sequence[int]) -> tf.Tensor:
        return self._rows(tf.random.stateless_uniform, shape)


def _watched_steps(
    source: Neighbours, count: int, steps: Sequence[int], note: Callable[..., None]
) -> Callable[[Any], Any]:
    """`Trainer._step_fn` whose step computes those of neighbours first, where it is one of `steps`."""

    def wrapper(original: Any) -> Any:
        def step_fn(self: Any, dataset: Any, randomness: Any) -> Any:
            real, number, replayed = original(self, dataset, randomness), 0, None
            source.dataset = dataset.in_memory()

            def step(indices: tf.Tensor, weights: tf.Tensor) -> None:
                nonlocal number, replayed
                if number in steps:
                    if replayed is None:
                        replayed = _ReplayedSteps(original, self, source, count)
                    note(Moved(self._mechanism.name, str(number), replayed.changes(count), 0))
                number += 1
                real(indices, weights)

            return step

        return step_fn

    return wrapper


class _ReplayedSteps:
    """The step of a trainer, which gives its clipped sum away and changes nothing."""

    def __init__(self, step_fn: Any, owner: Any, source: Neighbours, inserted: int) -> None:
        dataset = source.dataset
        self._owner, self._source, self._size = owner, source, len(dataset)
        images, labels = zip(*(source.example(number) for number in range(inserted)), strict=True)
        # All that a sample may hold: the data, and what neighbours have more.
        pool = with_examples(dataset, len(dataset), np.stack(images), np.array(labels, np.int64))
        randomness = _OfExamples(len(pool))
        self._sums = [tf.Variable(tf.zeros_like(variable), trainable=False) for variable in owner._variables]
        reader, accumulate = trainer._reader, trainer.accumulate

        def numbered_reader(*arguments: Any) -> Any:
            read_of = reader(*arguments)

            def read_of_numbered(indices: tf.Tensor) -> Any:
                read = read_of(indices)
                return lambda i: (*read(i), indices[tf.minimum(i, tf.shape(indices)[0] - 1)])

            return read_of_numbered

        def numbered_accumulate(read: Any, weights: Any, chunk_fn: Any, shapes: Any) -> Any:
            def numbered_chunk(*chunk: tf.Tensor) -> Any:
                *examples, numbers, chunk_weights = chunk
                randomness.begin(numbers)
                return chunk_fn(*examples, chunk_weights)

            return accumulate(read, weights, numbered_chunk, shapes)

        def kept(sums: Sequence[tf.Tensor], variables: Any) -> None:
            for place, value in zip(self._sums, sums, strict=True):
                place.assign(value)

        self._patches = [
            (trainer, "accumulate", numbered_accumulate),
            (owner._optimizer, "apply_clipped_sum", kept),
        ]
        with _replaced(DPSGD, "physical_batch_size", _CHUNK), _replaced(trainer, "_reader", numbered_reader):
            self._step = step_fn(owner, pool, randomness)

    def _sum(self, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """The clipped sum of a step on these examples."""
        indices = np.zeros(max(1, -(-len(numbers) // _CHUNK)) * _CHUNK, np.int32)
        indices[: len(numbers)] = numbers
        weights = (np.arange(len(indices)) < len(numbers)).astype(np.float32)
        changed = self._owner._changed_by_steps
        before = [variable.numpy() for variable in changed]
        with contextlib.ExitStack() as stack:
            for target, name, value in self._patches:
                stack.enter_context(_replaced(target, name, value))
            self._step(tf.constant(indices.reshape(-1, _CHUNK)), tf.constant(weights.reshape(-1, _CHUNK)))
        for variable, value in zip(changed, before, strict=True):
            variable.assign(value)
        return np.concatenate([np.ravel(value) for value in self._sums]).astype(np.float64)

    def changes(self, count: int) -> npt.NDArray[np.float64]:
        """What examples more or fewer move sums by, over the clip."""
        rng, found = self._source.rng, []
        for number in range(count):
            if number % _FROM_SAMPLE == 0:
                sample = rng.choice(self._size, min(self._size, int(rng.integers(15, 34))), replace=False)
                whole = self._sum(sample)
            if number % 3 == 0:
                neighbour = np.delete(sample, min(self._source.place(len(sample)), len(sample) - 1))
            else:
                neighbour = np.insert(sample, self._source.place(len(sample)), self._size + number)
            found.append(float(np.linalg.norm(self._sum(neighbour) - whole)))
        return np.array(found) / sensitivity(self._owner._mechanism)


# Sums over groups


class _OfGroups(NoiseSource):
    """What a group draws follows it, whatever its number and whoever is sampled before it."""

    def __init__(self) -> None:
        super().__init__()
        self.sampled = tf.Variable(tf.zeros([_GROUPS + 1], tf.int32))  # by which the groups of a sum are known
        self.position = tf.Variable(tf.constant(0))
        self.draws = tf.Variable(tf.constant(0))

    def examples(self) -> ExampleRandomness:
        source = self

        class OfGroup(ExampleRandomness):
            def __init__(self) -> None:
                pass

            def _seed(self) -> tf.Tensor:
                return tf.stack([source.sampled[source.position], source.draws.assign_add(1)])

            def normal(self, shape: Sequence[int]) -> tf.Tensor:
                return tf.random.stateless_normal(shape, self._seed())

            def uniform(self, shape: Sequence[int]) -> tf.Tensor:
                return tf.random.stateless_uniform(shape, self._seed())

        return OfGroup()

    def begin(self, groups: Sequence[int]) -> None:
        """A sum over these groups."""
        self.sampled.assign(np.resize(np.asarray(groups, np.int32), [_GROUPS + 1]))
        self.position.assign(0)
        self.draws.assign(0)


class _Variant(NamedTuple):
    """The data or a neighbour: examples, the group of each, numbers of sampled groups and what they are known by."""

    examples: LabeledDataset
    groups: Labels
    num_groups: int
    sampled: Labels
    names: Labels


def _watched_groups(
    source: Neighbours, count: int, steps: Sequence[int], note: Callable[..., None]
) -> Callable[[Any], Any]:
    """`ensemble.group_sums` that computes sums of neighbours as well, before it gives that of one of `steps`."""

    def wrapper(original: Any) -> Any:
        def group_sums(mechanism: Any, *arguments: Any) -> Any:
            *functions, dataset, groups, _ = arguments
            real, number, asked, replayed = original(mechanism, *arguments), 0, [], None
            source.dataset = dataset.in_memory()

            def sum_of(sampled: Any, public: Any) -> Any:
                nonlocal number, replayed
                asked.append([np.asarray(tensor) for tensor in public])
                if number in steps:
                    if replayed is None:
                        replayed = _ReplayedGroups(original, mechanism, functions, source, groups)
                    history = asked if mechanism.keeps_networks else asked[-1:]
                    note(Moved(mechanism.name, str(number), *replayed.changes(count, history)))
                number += 1
                return real(sampled, public)

            return sum_of

        return group_sums

    return wrapper


class _Recording:
    """TensorFlow, but that constants and variables are written down as they are made.

    Args:
      shapes: of constants, which are made as variables of these shapes, so that they can take other values.
    """

    def __init__(self, shapes: Sequence[tf.TensorShape] | None = None) -> None:
        self.constants: list[Any] = []
        self.variables: list[tf.Variable] = []
        self._shapes = shapes

    def __getattr__(self, name: str) -> Any:
        return getattr(tf, name)

    def constant(self, *arguments: Any) -> Any:
        value: Any = tf.constant(*arguments)
        if self._shapes is not None:
            value = tf.Variable(value, trainable=False, shape=self._shapes[len(self.constants)])
        self.constants.append(value)
        return value

    def Variable(self, *arguments: Any, **named: Any) -> tf.Variable:
        self.variables.append(tf.Variable(*arguments, **named))
        return self.variables[-1]


class _ReplayedGroups:
    """What `group_sums` gives for the data and for neighbours.

    A graph takes seconds to make. So one is made, whose constants are variables, and they take the values that
    `group_sums` gives its constants for each data set.
    """

    def __init__(
        self, group_sums: Any, mechanism: GroupSum, functions: Sequence[Any], source: Neighbours, groups: Labels
    ) -> None:
        self._group_sums, self._mechanism, self._functions = group_sums, mechanism, functions
        self._source, self._groups, self._traced = source, groups, {}
        self._noise, self._seen = _OfGroups(), tf.Variable(tf.zeros([_GROUPS + 1, mechanism.size]))
        in_and_out = _users_in_and_out if mechanism.unit is PrivacyUnit.USER else _examples_in_and_out
        self._in_and_out = functools.partial(in_and_out, source, groups, mechanism.num_groups)
        whole, _, more = self._in_and_out(2)  # the second neighbour has one more
        found = [self._made(variant, _Recording())[1] for variant in (whole, more)]
        shapes = [_common(one.shape, other.shape) for one, other in zip(*(one.constants for one in found), strict=True)]
        self._sum_of, self._held = self._made(whole, _Recording(shapes))
        self._starts = [variable.numpy() for variable in self._held.variables]

    def _made(self, variant: _Variant, recording: _Recording) -> tuple[Any, _Recording]:
        """A function of sums over groups of this data set, and what it was made of."""
        noise, seen = self._noise, self._seen

        def once(function: Any, *rest: Any) -> Any:  # the same function for all neighbours
            if id(function) not in self._traced:
                self._traced[id(function)] = isolation.traced(function, *rest)
            return self._traced[id(function)]

        class Seen(type(self._mechanism)):  # type: ignore[misc]  # a base that is known when it runs
            num_groups: Any = variant.num_groups

            def bounded(self, answer: tf.Tensor) -> tf.Tensor:
                value = super().bounded(answer)
                at = tf.reshape(noise.position.read_value(), [1])
                seen.scatter_update(tf.IndexedSlices(value[None], at))
                noise.position.assign_add(1)  # after it was read: a graph keeps the order of what changes a variable
                noise.draws.assign(0)
                return value

        fields: Any = dataclasses.fields(cast(Any, self._mechanism))
        watching: Any = cast(Any, Seen)(**{field.name: getattr(self._mechanism, field.name) for field in fields})
        with _replaced(ensembles, "tf", recording), _replaced(trainer, "traced", once):
            made = self._group_sums(watching, *self._functions, variant.examples, variant.groups, noise)
        return made, recording

    def _answers(self, variant: _Variant, history: Sequence[Sequence[Any]]) -> tuple[Any, dict[int, Any]]:
        """The last of some sums over the groups of a variant, and what it is the sum of, by the names of groups."""
        for place, value in zip(self._held.constants, self._made(variant, _Recording())[1].constants, strict=True):
            place.assign(value)
        for variable, start in zip(self._held.variables, self._starts, strict=True):
            variable.assign(start)
        total = None
        for public in history:
            self._noise.begin([int(name) for name in variant.names])
            total = self._sum_of(variant.sampled, public)
        return total, {int(name): self._seen[place].numpy() for place, name in enumerate(variant.names)}

    def changes(self, count: int, history: Sequence[Sequence[Any]]) -> tuple[npt.NDArray[np.float64], int]:
        """What neighbours move the last sum by, over the sensitivity; and how many move another group's answer."""
        found, astray, bound = [], 0, sensitivity(self._mechanism)
        while len(found) < count:
            whole, *neighbours = self._in_and_out(min(_FROM_SAMPLE, count - len(found)))
            total, answers = self._answers(whole, history)
            for neighbour in neighbours:
                other_total, others = self._answers(neighbour, history)
                found.append(float(np.linalg.norm(other_total - total)) / bound)
                common = answers.keys() & others.keys()
                moved = [name for name in common if np.abs(others[name] - answers[name]).max() > 1e-6 * bound]
                astray += len(moved) + len(answers.keys() ^ others.keys()) > 1
        return np.array(found), astray


def _common(one: tf.TensorShape, other: tf.TensorShape) -> tf.TensorShape:
    """The shape that both have, of unknown size where they differ."""
    return tf.TensorShape([size if size == also else None for size, also in zip(one, other, strict=True)])


def _examples_in_and_out(source: Neighbours, groups: Labels, num_groups: int, count: int) -> Iterator[_Variant]:
    """The data, then neighbours with an example more or fewer in a shard that is sampled."""
    rng, dataset = source.rng, source.dataset
    first = int(rng.integers(num_groups))
    sampled = np.unique([first, (first + 1) % num_groups, *rng.integers(num_groups, size=_GROUPS - 2)])
    yield _Variant(dataset, groups, num_groups, sampled, sampled)
    for number in range(count):
        members = np.flatnonzero(np.isin(groups, sampled))
        if number % 3 == 0 and len(members):
            leaving = members[min(source.place(len(members)), len(members) - 1)]
            changed, dealt = without(dataset, [leaving]), np.delete(groups, leaving)
        else:
            place = source.place(len(dataset))
            changed = with_examples(dataset, place, *source.examples(number // 3, 1))
            chosen = sampled[(number + number // 3) % len(sampled)]  # whatever their number, each in turn
            dealt = np.insert(groups, place, chosen)
        yield _Variant(changed, dealt, num_groups, sampled, sampled)


def _users_in_and_out(source: Neighbours, groups: Labels, num_groups: int, count: int) -> Iterator[_Variant]:
    """The data, then neighbours with a user more, who is sampled too, or fewer."""
    users = np.unique(_ids(source.dataset))
    sampled = np.sort(source.rng.choice(users, min(_GROUPS, len(users)), replace=False))
    yield _Variant(source.dataset, groups, num_groups, np.searchsorted(users, sampled), sampled)
    for number in range(count):
        changed, user = source.user_in_or_out(number, list(sampled))
        present, dealt = np.unique(_ids(changed), return_inverse=True)
        names = np.setxor1d(sampled, [user])
        yield _Variant(changed, dealt.astype(np.int64), len(present), np.searchsorted(present, names), names)


# Votes


def _with_transform(source: Neighbours) -> Callable[[Any], Any]:
    """`trainer.features_of` that remembers how features of neighbours are made."""

    def wrapper(original: Any) -> Any:
        def features_of(dataset: Any, transform: Any) -> Any:
            source.dataset, source.transform = dataset.in_memory(), transform
            return original(dataset, transform)

        return features_of

    return wrapper


def _watched_votes(
    source: Neighbours, count: int, steps: Sequence[int], note: Callable[..., None]
) -> Callable[[Any], Any]:
    """`Votes.counts` that counts those of neighbours as well, before it gives those of one of `steps`.

    What teachers draw is the same. An example more or fewer moves the votes of its class's queries alone.
    """
    number = 0

    def wrapper(original: Any) -> Any:
        def counts(self: Votes, features: Any, labels: Any, shards: Any, *asked: Any) -> Any:
            *public, rng = asked
            nonlocal number
            if number in steps:
                whole = original(self, features, labels, shards, *public, copy.deepcopy(rng))
                dataset, found, astray = source.dataset, [], 0
                everything, traced = np.arange(len(dataset)), {}

                def once(function: Any, *rest: Any) -> Any:  # the same function for all neighbours
                    if id(function) not in traced:
                        traced[id(function)] = isolation.traced(function, *rest)
                    return traced[id(function)]

                with _replaced(trainer, "traced", once):
                    for one in range(count):
                        if one % 3 == 0:
                            leaving = min(source.place(len(dataset)), len(dataset) - 1)
                            neighbour, label = without(dataset, [leaving]), int(dataset.labels[leaving])
                            dealt = shards[np.delete(everything, leaving)]
                        else:
                            at, (images, added) = source.place(len(dataset)), source.examples(one // 3, 1)
                            neighbour, label = with_examples(dataset, at, images, added), int(added[0])
                            dealt = np.insert(shards, at, source.rng.integers(self.num_teachers))
                        made, known = trainer.features_of(neighbour, source.transform)
                        others = original(self, made, known, dealt, *public, copy.deepcopy(rng))
                        found.append(float(np.linalg.norm(others - whole)) / sensitivity(self))
                        of_others = np.delete(np.reshape(others - whole, [self.num_classes, -1]), label, axis=0)
                        astray += bool(np.any(of_others))
                note(Moved(self.name, str(number), np.array(found), astray))
            number += 1
            return original(self, features, labels, shards, *public, rng)

        return counts

    return wrapper


# The command


def _public_images(method: str, dataset: LabeledDataset) -> PublicImages | None:
    """Those that suit images of 8x8 pixels, for a method that learns from some by default."""
    from tfdpgen.choices import PUBLIC_DATASETS

    return load_public_images("dead_leaves", dataset.spec.image_shape) if PUBLIC_DATASETS.get(method) else None


def main() -> int:
    """Prints a row for each mechanism and state."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--methods", default=",".join(method_names()))
    parser.add_argument("--neighbours", type=int, default=1000, help="of each mechanism")
    parser.add_argument("--steps", default="0,20", help="before which mechanisms with steps are looked at")
    parser.add_argument(
        "--labeller_share", type=float, default=0.2, help="of gaussian_mixture's budget; it counts labels too"
    )
    parser.add_argument("--seed", type=int, default=0)
    flags = parser.parse_args()
    splits = load_splits("digits")
    held_out, examples = splits.test.in_memory(), splits.train.in_memory()
    users = synthetic_users(_USERS, examples.labels)
    steps, is_within = [int(step) for step in flags.steps.split(",")], True
    print("| method | mechanism | before step | neighbours | moved | mean | 1% | median | 99% | largest | astray |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for method in flags.methods.split(","):
        dataset = LabeledDataset(examples.images, examples.labels, examples.spec, users)
        extra: dict[str, Any] = {"public_images": _public_images(method, dataset)}
        if method == "gaussian_mixture" and flags.labeller_share:
            extra |= {"labeller_share": flags.labeller_share, "label_distribution": "private"}
        started = time.monotonic()
        found = replay(method, dataset, held_out, neighbours=flags.neighbours, steps=steps, seed=flags.seed, **extra)
        for one in found:
            least_of, median, most_of, largest = np.quantile(one.changes, [0.01, 0.5, 0.99, 1.0])
            print(
                f"| `{method}` | {one.mechanism} | {one.state} | {len(one.changes):,} | "
                f"{np.count_nonzero(one.changes):,} | {one.changes.mean():.3f} | {least_of:.3f} | {median:.3f} | "
                f"{most_of:.3f} | {largest:.6f} | {one.astray} |" + ("" if one.is_within else " ABOVE"),
                flush=True,
            )
            is_within = is_within and one.is_within
        print(f"{method}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    return 0 if is_within else 1


if __name__ == "__main__":
    sys.exit(main())
