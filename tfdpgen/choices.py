"""What can be chosen by name or number, and which choices are refused: known without TensorFlow, in milliseconds.

    check_budget(epsilon=3.0, delta=1e-5)
    check_classifiers(["mlp", "svm"])                   # ValueError: `classifiers` should be some of cnn, ...

Whoever parses settings can refuse bad ones at once; the rooms that carry them out use the same checks.
"""

from __future__ import annotations

import difflib
import math
import numbers
import os
import re
from collections.abc import Sequence

METHODS = (
    "c_vae",
    "dp_diffusion",
    "dp_gan",
    "fedavg_gan",
    "gaussian_mixture",
    "gs_wgan",
    "latent_gaussian",
    "pate_gan",
)
USER_LEVEL = ("fedavg_gan",)  # methods that make their promise to users
PUBLIC_DATASETS = {"dp_gan": "", "latent_gaussian": "strokes"}  # methods that learn from public images; defaults
CLASSIFIERS = ("cnn", "logistic_regression", "mlp", "random_forest", "gradient_boosting")
LABEL_DISTRIBUTIONS = ("balanced", "private")
DIGITS_SHAPE = (8, 8, 1)  # of the embedded data set's images
GREY_SOURCES = ("strokes", "fonts")  # of public images: procedural ones of one channel
LEAST_SIDE_OF_GREY = 16  # of images, in pixels: at 8, p2 was less than half of that without strokes

_UNBOUNDED = (
    "its classifier was trained on private examples without differential privacy, and no bound is known on what one of "
    "them may change in it"
)
_TABLES = (".csv", ".tsv", ".parquet")
_DEPTH = 2  # of folders in a folder of images: splits, classes
UNPUBLISHABLE = {  # kinds of metrics, and why no noise on a count of test examples makes them publishable
    "p1": _UNBOUNDED,
    "p3": _UNBOUNDED,
    "accuracy_loss": "it is p1 - p2, and p1's classifier was trained on private examples without differential privacy",
    "p4": "it touches no private example, so that noise would only spoil it: it costs nothing as it stands",
}


def check_budget(epsilon: float, delta: float) -> None:
    """Raises a ValueError unless epsilon is finite and greater than 0, and delta in (0, 1)."""
    for name, value in (("epsilon", epsilon), ("delta", delta)):
        if not isinstance(value, numbers.Real):
            raise ValueError(f"`{name}` should be a number; got {value!r}.")
    if not (math.isfinite(epsilon) and epsilon > 0):
        raise ValueError(f"`epsilon` should be a finite number greater than 0; got {epsilon!r}.")
    if not 0 < delta < 1:
        raise ValueError(f"`delta` should lie strictly between 0 and 1; got {delta!r}.")


def check_delta(delta: float, count: int, unit: str = "example") -> None:
    """Refuses a delta that would permit publishing some example, or all examples of a user, outright.

    Args:
      delta: of a budget.
      count: how many examples or users the promise is made to.
      unit: "example" or "user".

    Raises:
      ValueError: if delta is not smaller than 1 / count.
    """
    if delta >= 1 / count:
        outright = "an example" if unit == "example" else "all examples of a user"
        raise ValueError(
            f"`delta` should be smaller than 1 / num_{unit}s = {1 / count:.3g}, since a larger one permits "
            f"a mechanism that publishes {outright} outright; got {delta:g} for {count} {unit}s. "
            f"Try {10 ** math.floor(math.log10(0.1 / count)):g}."
        )


def check_method(name: str) -> None:
    """Raises a ValueError unless it is one of `METHODS`."""
    if name not in METHODS:
        close = difflib.get_close_matches(name, METHODS, 1)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise ValueError(f"`method` should be one of {', '.join(METHODS)}; got {name!r}.{hint}")


def check_knows_users(method: str, dataset: str, users: str) -> None:
    """Refuses a method that makes its promise to users, for a source that can know none.

    Raises:
      ValueError: if `users` makes none up either.
    """
    if method in USER_LEVEL and not users and not dataset.lower().endswith((*_TABLES, ".npz")):
        raise ValueError(
            f"`users` should be given with `method` {method}, which makes its promise to users: {dataset!r} does not "
            "say whose its examples are. Take a table with a column of users, an .npz with user_ids, or, for "
            "experiments, --users=iid:20."
        )


def check_public_images(source: str, image_shape: tuple[int, int, int]) -> None:
    """Raises a ValueError for a source of public images that cannot make images of this shape."""
    kind = source.partition(":")[0]
    if kind not in GREY_SOURCES:
        return
    others = "Take public images that are like the private ones, as --public_dataset=FOLDER"
    if min(image_shape[:2]) < LEAST_SIDE_OF_GREY:
        raise ValueError(
            f"Public images of {kind} need at least {LEAST_SIDE_OF_GREY} pixels a side, on which they can be told; got "
            f"image_shape {image_shape}. {others}, or another method, as --method=gaussian_mixture."
        )
    if image_shape[2] != 1:
        raise ValueError(
            f"Public images of {kind} have one channel; got image_shape {image_shape}. {others} or "
            "--public_dataset=dead_leaves, or convert the private images to grey beforehand."
        )


def public_source(method: str, public_dataset: str) -> str:
    """The public images that a method learns from: what was asked for, or its own default; empty: none.

    Raises:
      ValueError: if it learns from none.
    """
    default = PUBLIC_DATASETS.get(method)
    if public_dataset and default is None:
        raise ValueError(
            f"`public_dataset` should be empty with `method` {method}, which learns from no public images; got "
            f"{public_dataset!r}. Methods that do: {', '.join(PUBLIC_DATASETS)}."
        )
    return public_dataset or default or ""


def check_is_another(public_dataset: str, dataset: str) -> None:
    """Refuses public images that are the private ones: by the name of a TFDS data set, or by their files.

    Folders count with what links in them lead to, and a table with the folder that it lies in. Copies elsewhere are not
    seen.

    Raises:
      ValueError: if they are.
    """
    if not public_dataset or not dataset or public_dataset.partition(":")[0] in (*GREY_SOURCES, "dead_leaves"):
        return
    paths = [os.path.expanduser(name) for name in (public_dataset, dataset)]
    if "digits" in (public_dataset, dataset):  # only ever the embedded data set
        is_same = public_dataset == dataset
    elif all(os.path.exists(path) for path in paths):
        public, private = (_places(path) for path in paths)
        is_same = any(os.path.commonpath([one, other]) in (one, other) for one in public for other in private)
    else:
        is_same = _tfds_name(public_dataset) == _tfds_name(dataset)
    if is_same:
        raise ValueError(
            f"`public_dataset` should be images that anybody may see; got {public_dataset!r}, where the private "
            f"`dataset` is {dataset!r}. What is learnt from public images is released without noise."
        )


def _places(path: str) -> set[str]:
    """Where the images of a folder or a table lie, links resolved; the path itself of any other file."""
    if os.path.splitext(path)[1].lower() in _TABLES:
        path = os.path.dirname(os.path.abspath(path))
    found, folders = {os.path.realpath(path)}, [path] if os.path.isdir(path) else []
    for _ in range(_DEPTH):
        folders = [entry.path for folder in folders for entry in os.scandir(folder) if entry.is_dir()]
        found.update(os.path.realpath(folder) for folder in folders)
    return found


def _tfds_name(name: str) -> str:
    """The data set's part of a TFDS name, in snake case as TFDS has it: FashionMNIST/3bit:1.0 -> fashion_mnist."""
    if not re.match("[A-Za-z]", name) or name.startswith("huggingface:"):
        return name  # a path, or a collection with names of its own
    head = re.split("[/:]", name)[0]
    words = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", head)
    return re.sub("([a-z0-9])([A-Z])", r"\1_\2", words).lower()


def check_labeller_share(labeller_share: float) -> None:
    """Raises a ValueError unless the share lies in [0, 1)."""
    if not 0 <= labeller_share < 1:
        raise ValueError(f"`labeller_share` should lie in [0, 1); got {labeller_share!r}.")


def check_label_distribution(label_distribution: str) -> None:
    """Raises a ValueError unless it is one of `LABEL_DISTRIBUTIONS`."""
    if label_distribution not in LABEL_DISTRIBUTIONS:
        raise ValueError(
            f"`label_distribution` should be one of {', '.join(LABEL_DISTRIBUTIONS)}; got {label_distribution!r}."
        )


def check_classifiers(names: Sequence[str]) -> None:
    """Raises a ValueError where a name is not one of `CLASSIFIERS`, or is there twice."""
    if (unknown := [name for name in names if name not in CLASSIFIERS]) or len(set(names)) < len(names):
        raise ValueError(
            f"`classifiers` should be some of {', '.join(CLASSIFIERS)}, each once; got {unknown or list(names)}."
        )


def publishable_metrics(classifiers: Sequence[str], has_augmented: bool) -> list[str]:
    """The metrics that may be published where these classifiers judge, with augmented examples or without."""
    return [
        "p2",
        *(f"p2_{name}" for name in classifiers if name != "cnn"),
        *(["p2_augmented"] if has_augmented else []),
    ]


def check_publishable(names: Sequence[str], measured: Sequence[str] | None = None) -> None:
    """Refuses metrics that cannot be published by noise on a count of test examples.

    Args:
      names: of metrics.
      measured: those that there will be, as `publishable_metrics` says; None: not checked.

    Raises:
      ValueError: with the reason, for p1, p3, p4 and accuracy_loss, also of a named classifier (`p1_mlp`); for names
        that are there twice or not measured, and for none.
    """
    if not names or len(set(names)) < len(names):
        raise ValueError(f"`metrics` should name metrics to publish, each once; got {list(names)}.")
    for name in names:
        kind = next((kind for kind in UNPUBLISHABLE if name == kind or name.startswith(f"{kind}_")), None)
        if kind is not None:
            raise ValueError(
                f"`metrics` cannot hold {name}: {UNPUBLISHABLE[kind]}. Metrics of kind p2 can be published."
            )
    if measured is not None and (unknown := [name for name in names if name not in measured]):
        raise ValueError(
            f"`publish_metrics` should name some of {', '.join(measured)}, which this run measures; got "
            f"{', '.join(unknown)}."
        )


def check_shadows(num_shadows: int, processes: int, names: tuple[str, str] = ("num_shadows", "processes")) -> None:
    """Raises a ValueError unless there are at least 4 shadow trainings, an even number, and a process to run them.

    Args:
      num_shadows: trainings.
      processes: that run at a time.
      names: what the caller's settings are called.
    """
    if num_shadows < 4 or num_shadows % 2:
        raise ValueError(f"`{names[0]}` should be even and at least 4; got {num_shadows}.")
    if processes < 1:
        raise ValueError(f"`{names[1]}` should be at least 1; got {processes}.")
