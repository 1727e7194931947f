"""What the synthetic examples are worth, on MNIST or any TFDS data set: p1 to p4 and a Frechet distance, over seeds.

    python benchmarks/utility.py --data_dir=DIR --method=gaussian_mixture --epsilon=1 --seeds=0,1,2
    python benchmarks/utility.py --dataset=digits --epsilon=3 --labeller_share=0.3
    python benchmarks/utility.py --data_dir=DIR --method=latent_gaussian --validation       # to choose by
    python benchmarks/utility.py --best_preset

All by the CNN of `tfdpgen.evaluation`, which is trained on real training examples, once in a process (the judge), and
on plain synthetic examples, for each run; its epoch is chosen on examples that are split off its training examples.

| | tested on real test examples | tested on synthetic examples that are held out |
|---|---|---|
| trained on real examples | p1 | p3: the share that is named as it is labelled |
| trained on synthetic examples | p2; p2_balanced, the mean over classes | p4 |

`p2_augmented` is p2 of the augmented examples and their soft labels, where there is a labeller. `fid_cnn` and
`fid_scattering` are Frechet distances of up to 10,000 plain examples to real test examples, in the judge's features and
in fixed wavelets (`tfdpgen.evaluation.features`): they compare methods on one data set, and neither is an Inception
distance.

A row is printed for each run, then mean and spread; each run is appended to `--results` as JSON with commit, seed,
statement and seconds. With `--validation` the last tenth of the training examples takes the place of the test
examples, and is not trained on: hyperparameters are chosen there.

The trainings are DP-correct; the metrics are computed on private examples without noise and are internal.
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

from tfdpgen.choices import check_is_another
from tfdpgen.data import LabeledDataset, load_splits, public_images
from tfdpgen.data.synthetic_users import synthetic_users
from tfdpgen.evaluation import (
    Classifier,
    balanced_accuracy,
    cnn_space,
    fit_classifier,
    frechet_distance,
    scattering_space,
)
from tfdpgen.machine import PeakMemory
from tfdpgen.methods import method_names, train
from tfdpgen.privacy import PrivacyBudget
from tfdpgen.release import Release

BEST_METHOD = "gaussian_mixture"  # no other is better on all measures; docs/results.md has the table
METRICS = ("p1", "p2", "p3", "p4", "p2_balanced", "p2_augmented", "p2_augmented_balanced", "fid_cnn", "fid_scattering")
TIMES = ("seconds_train", "cpu_seconds_train", "peak_gib_train", "seconds_draw", "seconds_judge")
HELD_OUT = 1 / 6  # plain examples that are tested on, for each one that is trained on
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


def held_out(release: Release, num: int, seed: int) -> LabeledDataset:
    """Plain examples beyond the `num` that are trained on."""
    labels, parts = np.arange(num, num + max(1, round(HELD_OUT * num))) % release.spec.num_classes, []
    for start in range(0, len(labels), EXAMPLES_AT_A_TIME):
        parts.append(release.sample(labels[start : start + EXAMPLES_AT_A_TIME], (seed, num + start)))
    return LabeledDataset(np.concatenate(parts), labels, release.spec)


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


def measure(flags: argparse.Namespace, seed: int) -> dict[str, Any]:
    """One run, from the private examples to the metrics."""
    source = flags.dataset, flags.data_dir, flags.validation
    examples, test = real_examples(*source)
    check_is_another(flags.public_dataset, flags.dataset)
    if flags.users:
        users = synthetic_users(flags.users, examples.labels)
        examples = LabeledDataset(examples.images, examples.labels, examples.spec, users)
    judge(*source)  # now, so that it counts in no run's seconds
    started, used = time.monotonic(), cpu_seconds()
    budget = PrivacyBudget(flags.epsilon, flags.delta)
    with PeakMemory() as memory:
        release = train(
            flags.method,
            examples,
            budget,
            seed=seed,
            labeller_share=flags.labeller_share,
            public_images=public_images.asked_for(flags.public_dataset, examples.spec.image_shape, flags.data_dir),
            verbose=flags.verbose,
        )
    trained, used = time.monotonic(), cpu_seconds() - used
    images, labels, soft_labels, is_augmented = training_set(release, flags.num_synthetic, seed)
    further = held_out(release, flags.num_synthetic, seed)
    drawn = time.monotonic()
    plain = LabeledDataset(images[~is_augmented], labels[~is_augmented], release.spec)
    result = metrics_of(judge(*source), plain, further, test, seed)
    if is_augmented.any():
        augmented = LabeledDataset(images[is_augmented], labels[is_augmented], release.spec)
        result |= of_augmented(augmented, soft_labels[is_augmented], test, seed)
    if flags.samples:
        draw_samples(flags.samples, plain.images, plain.labels)
    return {
        "dataset": flags.dataset,
        "split": "validation" if flags.validation else "test",
        "method": flags.method,
        "budget": {"epsilon": flags.epsilon, "delta": flags.delta},
        "labeller_share": flags.labeller_share,
        "public_dataset": flags.public_dataset,
        "users": flags.users,
        "seed": seed,
        **result,
        "seconds_train": round(trained - started, 1),
        "cpu_seconds_train": round(used, 1),
        "peak_gib_train": round(memory.bytes / 2**30, 2),
        "seconds_draw": round(drawn - trained, 1),
        "seconds_judge": round(time.monotonic() - drawn, 1),
        "num_synthetic": flags.num_synthetic,
        "commit": commit(),
        "statement": release.statement.to_dict(),
    }


def metrics_of(
    judged_by: Classifier, plain: LabeledDataset, further: LabeledDataset, test: LabeledDataset, seed: int
) -> dict[str, Any]:
    """p1 to p4, the balanced p2, and the distances.

    Args:
      judged_by: the CNN of real examples.
      plain: synthetic examples to train on; their labels cycle.
      further: synthetic examples to test on.
      test: real examples to test on.
      seed: of the CNN.
    """
    learnt = fit_classifier("cnn", plain, trained_on="generated", seed=seed)
    compared = min(len(plain), len(test), MOST_EXAMPLES_OF_FID)
    distances = {
        f"fid_{space.name}": frechet_distance(*(space.features(each.images[:compared]) for each in (test, plain)))
        for space in (cnn_space(judged_by), scattering_space())
    }
    return {
        "p1": float(judged_by.right(test).mean()),
        "p2": float(learnt.right(test).mean()),
        "p3": float(judged_by.right(further).mean()),
        "p4": float(learnt.right(further).mean()),
        "p2_balanced": balanced_accuracy(learnt.right(test), test.labels),
        **{name: round(distance, 4) for name, distance in distances.items()},
    }


def of_augmented(
    augmented: LabeledDataset, soft_labels: np.ndarray, test: LabeledDataset, seed: int
) -> dict[str, float]:
    """p2 of the CNN that has learnt from augmented examples alone."""
    right = fit_classifier("cnn", augmented, trained_on="generated", soft_labels=soft_labels, seed=seed).right(test)
    return {"p2_augmented": float(right.mean()), "p2_augmented_balanced": balanced_accuracy(right, test.labels)}


def draw_samples(path: str, images: np.ndarray, labels: np.ndarray, num: int = 14) -> None:
    """Writes the first plain examples of each class, a line a class, with gaps, small ones enlarged, as one picture."""
    times = max(1, 24 // images.shape[1])
    larger = images.repeat(times, axis=1).repeat(times, axis=2)
    framed = np.pad(larger, ((0, 0), (0, 4), (0, 4), (0, 0)), constant_values=128)
    picture = np.concatenate(
        [np.concatenate(list(framed[labels == label][:num]), axis=1) for label in np.unique(labels)]
    )
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
    parser = argparse.ArgumentParser(description="p1 to p4 of synthetic examples, and a distance.")
    parser.add_argument("--dataset", default="mnist", help="as in local_run.py (default: mnist)")
    parser.add_argument("--data_dir", default="", help="where TFDS keeps its data sets; empty: its default")
    parser.add_argument("--method", default=BEST_METHOD, choices=method_names())
    parser.add_argument("--labeller_share", type=float, default=0.0, help="of the budget; 0: nothing is augmented (0)")
    parser.add_argument("--public_dataset", default="", help="as in local_run.py (default: the method's)")
    parser.add_argument("--users", default="", help="as in local_run.py, of the training examples: iid:18 for example")
    parser.add_argument("--epsilon", type=float, default=1.0)
    parser.add_argument("--delta", type=float, default=1e-5)
    parser.add_argument("--num_synthetic", type=int, default=60_000, help="plain examples, and augmented ones (60000)")
    parser.add_argument("--seeds", default="0", help="one run for each, as in 0,1,2 (default: 0)")
    parser.add_argument("--validation", action="store_true", help="measure on training examples that are held out")
    parser.add_argument("--results", default="", help="file to append a line of JSON to for each run")
    parser.add_argument("--samples", default="", help="PNG to draw the first plain examples of each class into")
    parser.add_argument("--verbose", type=int, default=0, help="1 shows the progress of trainings")
    parser.add_argument("--best_preset", action="store_true", help="print the name of the best method and exit")
    flags = parser.parse_args()
    if flags.best_preset:
        print(BEST_METHOD)
        return
    runs = []
    for seed in (int(seed) for seed in flags.seeds.split(",")):
        runs.append(measure(flags, seed))
        shown = (f"{name} {runs[-1][name]:.5g}" for name in METRICS + TIMES if name in runs[-1])
        print(f"seed {seed}  " + "  ".join(shown), flush=True)
        if flags.results:
            with open(flags.results, "a", encoding="utf-8") as file:
                file.write(json.dumps(runs[-1]) + "\n")
    for name in METRICS:
        values = [run[name] for run in runs if name in run]
        if values:
            print(f"{name}: mean {statistics.mean(values):.4f}, from {min(values):.4f} to {max(values):.4f}")


if __name__ == "__main__":
    main()
