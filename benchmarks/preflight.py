"""What the preflight says beside what comes of it: its ratio against p2, its seconds against the training's.

    python benchmarks/preflight.py signal --dataset=digits --epsilons=0.03,0.1,0.2,0.3,0.5,1,3
    python benchmarks/preflight.py signal --dataset=mnist --data_dir=DIR --num_examples=2000 --epsilons=0.05,0.1,0.2,0.5
    python benchmarks/preflight.py seconds --dataset=mnist --data_dir=DIR --methods=gaussian_mixture,c_vae
    python benchmarks/preflight.py seconds --methods=gaussian_mixture,c_vae --labeller_share=0.3

`signal` shows where p2, the accuracy on private test examples of a CNN that has learnt from 3,000 synthetic ones,
leaves chance; `tfdpgen.methods.signal.HOPELESS` was chosen by it. Run `seconds` on an otherwise idle
machine. The tables of docs/preflight.md come from here. p2 is internal: it is measured without noise.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from tfdpgen.data import Dataset, DataSpec, LabeledDataset, load_splits
from tfdpgen.evaluation import accuracy, train_classifier
from tfdpgen.methods import train
from tfdpgen.methods.rehearsal import rehearse
from tfdpgen.methods.signal import signal_of
from tfdpgen.privacy import PrivacyBudget

_SYNTHETIC = 3000


def first_classes(dataset: Dataset, classes: int, most: int | None = None) -> LabeledDataset:
    """The examples of the first classes, at most so many."""
    examples = dataset.in_memory()
    chosen = np.flatnonzero(examples.labels < classes)[:most]
    spec = DataSpec(examples.spec.image_shape, classes)
    return LabeledDataset(examples.images[chosen], examples.labels[chosen], spec)


def p2(method: str, examples: LabeledDataset, test: LabeledDataset, budget: PrivacyBudget, seed: int) -> float:
    """Accuracy on the test examples of a CNN that has seen synthetic examples alone."""
    release = train(method, examples, budget, seed=seed, verbose=0)
    drawn = release.training_set(np.arange(_SYNTHETIC) % release.spec.num_classes, (seed, 0))
    plain = LabeledDataset(drawn.images[~drawn.is_augmented], drawn.labels[~drawn.is_augmented], release.spec)
    return accuracy(train_classifier(plain, seed=seed), test)


def signal(flags: argparse.Namespace) -> None:
    """A row for each method and epsilon."""
    splits = load_splits(flags.dataset, data_dir=flags.data_dir or None)
    examples = first_classes(splits.train, flags.num_classes, flags.num_examples or None)
    test = first_classes(splits.test, flags.num_classes)
    print("| method | examples | classes | epsilon | ratio | p2 (from, to) | chance |\n|---|---|---|---|---|---|---|")
    for method in flags.methods.split(","):
        for epsilon in map(float, flags.epsilons.split(",")):
            budget = PrivacyBudget(epsilon, flags.delta)
            ratio = signal_of(examples.spec, len(examples), budget)
            found = [p2(method, examples, test, budget, seed) for seed in range(flags.seeds)]
            print(
                f"| `{method}` | {len(examples):,} | {flags.num_classes} | {epsilon:g} | {ratio:.2f} | "
                f"{statistics.mean(found):.3f} ({min(found):.3f}, {max(found):.3f}) | {1 / flags.num_classes:.2f} |",
                flush=True,
            )


def seconds(flags: argparse.Namespace) -> None:
    """A row for each method."""
    splits = load_splits(flags.dataset, data_dir=flags.data_dir or None)
    examples = splits.train.in_memory()
    print("| data | method | rehearsal, s | predicted, s | training, s |\n|---|---|---|---|---|")
    for method in flags.methods.split(","):
        for epsilon in map(float, flags.epsilons.split(",")):
            budget, started = PrivacyBudget(epsilon, flags.delta), time.perf_counter()
            cost = rehearse(method, examples.spec, len(examples), budget, flags.labeller_share)
            rehearsed = time.perf_counter()
            train(method, examples, budget, labeller_share=flags.labeller_share, verbose=0)
            print(
                f"| {flags.dataset} | `{method}` | {rehearsed - started:.1f} | {cost.seconds:.1f} | "
                f"{time.perf_counter() - rehearsed:.1f} |",
                flush=True,
            )


def main() -> None:
    """Prints a table in Markdown."""
    parser = argparse.ArgumentParser(description="What the preflight says beside what comes of it.")
    parser.add_argument("table", choices=("signal", "seconds"))
    parser.add_argument("--dataset", default="digits", help="as in local_run.py (default: digits)")
    parser.add_argument("--data_dir", default="", help="where TFDS keeps its data sets; empty: its default")
    parser.add_argument("--methods", default="gaussian_mixture,c_vae", help="(default: %(default)s)")
    parser.add_argument("--epsilons", default="3", help="one row for each (default: 3)")
    parser.add_argument("--delta", type=float, default=1e-5)
    parser.add_argument("--labeller_share", type=float, default=0.0, help="of the trainings timed (default: 0)")
    parser.add_argument("--num_classes", type=int, default=10, help="the first ones (default: 10)")
    parser.add_argument("--num_examples", type=int, default=0, help="at most; 0: all")
    parser.add_argument("--seeds", type=int, default=2, help="runs of each (default: 2)")
    flags = parser.parse_args()
    {"signal": signal, "seconds": seconds}[flags.table](flags)


if __name__ == "__main__":
    main()
