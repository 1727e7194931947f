"""What the synthetic examples are worth: p2 of the plain and of the augmented examples, on MNIST or any TFDS data set.

    python benchmarks/utility.py --data_dir=DIR --method=latent_gaussian --epsilon=1 --seeds=0,1,2
    python benchmarks/utility.py --method=gaussian_mixture --dataset=digits --epsilon=3
    python benchmarks/utility.py --data_dir=DIR --method=latent_gaussian --validation       # to choose by
    python benchmarks/utility.py --best_preset

p2 is the accuracy on real test examples of the CNN of `tfdpgen.evaluation`, trained on synthetic examples only, its
epoch chosen on synthetic examples that are held out. `fid` is the Frechet distance of up to 10,000 plain examples to
real test examples, and `label_agreement` the share of plain examples that are named as they are labelled, both by the
same CNN trained on the real training examples (once for all seeds; `--no_fidelity` leaves both out). Such a distance
compares methods that one and the same CNN judges; it is no Inception distance.

A row of the table is printed for each run, then mean and spread; each run is appended to `--results` as JSON with
commit, seed, statement and seconds. With `--validation` the last tenth of the training examples takes the place of the
test examples, and is not trained on: hyperparameters are chosen there.

The trainings are DP-correct; the figures are computed on private examples without noise and are internal.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import resource
import statistics
import subprocess
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from PIL import Image

from tfdpgen.data import LabeledDataset, load_splits
from tfdpgen.evaluation import (
    Classifier,
    accuracy,
    cnn_space,
    fit_classifier,
    frechet_distance,
    train_classifier,
)
from tfdpgen.methods import method_names, train
from tfdpgen.privacy import PrivacyBudget
from tfdpgen.release import Release

BEST_PRESET = "latent_gaussian"  # of those measured on MNIST and Fashion-MNIST; docs/results.md has the table
EXAMPLES_AT_A_TIME = 1000
MOST_EXAMPLES_OF_FID = 10_000


def training_set(release: Release, num: int, seed: int) -> tuple[np.ndarray, ...]:
    """`num` plain examples and, with a labeller, as many augmented ones: images, labels, soft labels, is_augmented."""
    parts = [
        release.training_set(
            np.arange(start, min(start + EXAMPLES_AT_A_TIME, num)) % release.spec.num_classes, (seed, start)
        )
        for start in range(0, num, EXAMPLES_AT_A_TIME)
    ]
    return tuple(np.concatenate(columns) for columns in zip(*parts, strict=True))


@functools.cache
def real_examples(dataset: str, data_dir: str, validation: bool) -> tuple[LabeledDataset, LabeledDataset]:
    """Examples to train on and examples to test on."""
    splits = load_splits(dataset, **({"data_dir": data_dir} if data_dir else {}))
    examples, test = splits.train.in_memory(), splits.test.in_memory()
    if validation:
        kept = len(examples) - len(examples) // 10
        examples, test = examples.take(np.arange(kept)), examples.take(np.arange(kept, len(examples)))
    return examples, test


@functools.cache
def judge(dataset: str, data_dir: str, validation: bool) -> Classifier:
    """The CNN that knows the real training examples, one for all runs of this process."""
    examples, _ = real_examples(dataset, data_dir, validation)
    return fit_classifier("cnn", examples, trained_on="private", seed=0)


def fidelity(judged_by: Classifier, images: np.ndarray, labels: np.ndarray, test: LabeledDataset) -> dict[str, float]:
    """How far plain examples lie from real ones, and whether they look like their labels. Their labels cycle."""
    features, num_examples = cnn_space(judged_by).features, min(len(images), len(test), MOST_EXAMPLES_OF_FID)
    return {
        "fid": round(frechet_distance(features(test.images[:num_examples]), features(images[:num_examples])), 4),
        "label_agreement": float(np.mean(judged_by.predict(images) == labels)),
    }


def measure(flags: argparse.Namespace, seed: int) -> dict[str, Any]:
    """One run, from the private examples to p2."""
    source = flags.dataset, flags.data_dir, flags.validation
    examples, test = real_examples(*source)
    if flags.fidelity:
        judge(*source)  # now, so that it counts in no run's seconds
    started, used = time.monotonic(), cpu_seconds()
    budget = PrivacyBudget(flags.epsilon, flags.delta)
    release = train(flags.method, examples, budget, seed=seed, verbose=flags.verbose)
    trained = time.monotonic()
    images, labels, soft_labels, is_augmented = training_set(release, flags.num_synthetic, seed)
    drawn = time.monotonic()
    result: dict[str, Any] = {"p2": p2(release, images, labels, None, ~is_augmented, test, seed)}
    if is_augmented.any():
        result["p2_augmented"] = p2(release, images, labels, soft_labels, is_augmented, test, seed)
    if flags.fidelity:
        result |= fidelity(judge(*source), images[~is_augmented], labels[~is_augmented], test)
    if flags.samples:
        draw_samples(flags.samples, images[~is_augmented], labels[~is_augmented])
    return {
        "dataset": flags.dataset,
        "split": "validation" if flags.validation else "test",
        "method": flags.method,
        "budget": {"epsilon": flags.epsilon, "delta": flags.delta},
        "seed": seed,
        **result,
        "seconds_train": round(trained - started, 1),
        "seconds_draw": round(drawn - trained, 1),
        "seconds_judge": round(time.monotonic() - drawn, 1),
        "cpu_seconds": round(cpu_seconds() - used, 1),
        "num_synthetic": flags.num_synthetic,
        "commit": commit(),
        "statement": release.statement.to_dict(),
    }


def p2(
    release: Release,
    images: np.ndarray,
    labels: np.ndarray,
    soft_labels: np.ndarray | None,
    chosen: np.ndarray,
    test: LabeledDataset,
    seed: int,
) -> float:
    """Accuracy on test examples of the CNN that was trained on the chosen examples."""
    examples = LabeledDataset(images[chosen], labels[chosen], release.spec)
    soft = None if soft_labels is None else soft_labels[chosen]
    return accuracy(train_classifier(examples, soft_labels=soft, seed=seed), test)


def draw_samples(path: str, images: np.ndarray, labels: np.ndarray, num: int = 14) -> None:
    """Writes the first plain examples of each class, a line a class, as one picture."""
    lines = [np.concatenate(list(images[labels == label][:num]), axis=1) for label in np.unique(labels)]
    picture = np.concatenate(lines)
    Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture).save(path)


def cpu_seconds() -> float:
    """What this process has used so far, of all its threads."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def commit() -> str:
    """The commit that was measured, or "unknown" outside a checkout."""
    asked = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, cwd=Path(__file__).parent
    )
    return asked.stdout.strip() or "unknown"


def main() -> None:
    """Prints a row for each run and then mean and spread."""
    parser = argparse.ArgumentParser(description="p2 of plain and augmented synthetic examples.")
    parser.add_argument("--dataset", default="mnist", help="as in local_run.py (default: mnist)")
    parser.add_argument("--data_dir", default="", help="where TFDS keeps its data sets; empty: its default")
    parser.add_argument("--method", default=BEST_PRESET, choices=method_names())
    parser.add_argument("--epsilon", type=float, default=1.0)
    parser.add_argument("--delta", type=float, default=1e-5)
    parser.add_argument("--num_synthetic", type=int, default=60_000, help="plain examples, and augmented ones (60000)")
    parser.add_argument("--seeds", default="0", help="one run for each, as in 0,1,2 (default: 0)")
    parser.add_argument("--validation", action="store_true", help="measure on training examples that are held out")
    parser.add_argument("--no_fidelity", dest="fidelity", action="store_false", help="leave out fid, label_agreement")
    parser.add_argument("--results", default="", help="file to append a line of JSON to for each run")
    parser.add_argument("--samples", default="", help="PNG to draw the first plain examples of each class into")
    parser.add_argument("--verbose", type=int, default=0, help="1 shows the progress of trainings")
    parser.add_argument("--best_preset", action="store_true", help="print the name of the best method and exit")
    flags = parser.parse_args()
    if flags.best_preset:
        print(BEST_PRESET)
        return
    runs = []
    for seed in (int(seed) for seed in flags.seeds.split(",")):
        runs.append(measure(flags, seed))
        times = ("seconds_train", "seconds_draw", "seconds_judge", "cpu_seconds")
        shown = ("seed", "p2", "p2_augmented", "fid", "label_agreement", *times)
        print("  ".join(f"{name} {runs[-1][name]}" for name in shown if name in runs[-1]), flush=True)
        if flags.results:
            with open(flags.results, "a", encoding="utf-8") as file:
                file.write(json.dumps(runs[-1]) + "\n")
    for name in ("p2", "p2_augmented", "fid", "label_agreement"):
        values = [run[name] for run in runs if name in run]
        if values:
            print(f"{name}: mean {statistics.mean(values):.4f}, from {min(values):.4f} to {max(values):.4f}")


if __name__ == "__main__":
    main()
