"""Peak memory as data, logical batches and synthetic data sets grow: none may show.

    python benchmarks/memory.py                          # all works; the records take about 10 minutes and 1.1 GB
    python benchmarks/memory.py --works=batch            # logical batches of 256 and 16,384 alone
    python benchmarks/memory.py --works=records --megabytes=50,1000 --folder=/scratch/records
    python benchmarks/memory.py --works=generate --examples=6000,1000000          # 6 minutes and 1.4 GB

Work "records": TFDS writes ArrayRecord files of 28x28x1 images, of 50 MB and of 1,000 MB, and the C-VAE is trained on
them for a few steps through `tfds.data_source`, with all that belongs to a training: every example is checked, digested
for the ledger, and summed for the class means.

Work "batch": private steps of the convolutional critic of `dp_step.py` (28x28x1) on 60,000 examples in memory, at both
logical batch sizes, in the physical chunks that the plan chooses.

Work "generate": the pipeline's step of that name writes synthetic data sets of 28x28x1 images, of either size, that
`gaussian_mixture` has learnt from noise.

Every number is the peak resident memory (`ru_maxrss`) of a process of its own, with the interpreter and TensorFlow,
which alone take several hundred megabytes. They flatter a ratio of totals, so the ratio of what is above them stands
beside it. ArrayRecord files are read, not mapped: the pages that the operating system caches of them count for no
process. What grows a little with them is their reader's index (25 to 40 bytes an example), and what the memory
allocator keeps for each of its threads, one for each file, until that is as much as it ever needs.

The examples are noise, so nothing here is about learning; the trainings are DP-correct.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

BYTES_OF_EXAMPLE = 918  # of 28x28 random pixels as PNG in a TFDS record
LOGICAL_BATCHES = (256, 16_384)
NUM_EXAMPLES = 60_000
STEPS = 4


def peak_mebibytes() -> float:
    """The largest resident set of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def make_builder(folder: str, num_examples: int) -> Any:
    """A TFDS data set of random images, and where it is kept."""
    import numpy as np
    import PIL.Image
    import tensorflow_datasets as tfds

    class RandomImages(tfds.core.GeneratorBasedBuilder):
        """Random images."""

        VERSION = tfds.core.Version("1.0.0")

        def _info(self) -> tfds.core.DatasetInfo:
            features = {
                "image": tfds.features.Image(shape=(28, 28, 1)),
                "label": tfds.features.ClassLabel(num_classes=10),
            }
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.FeaturesDict(features),
                supervised_keys=("image", "label"),
                disable_shuffling=True,
            )

        def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
            return {"train": self._generate_examples()}

        def _generate_examples(self) -> Iterator[tuple[int, Any]]:
            rng = np.random.default_rng(0)
            for i in range(num_examples):
                pixels = rng.integers(256, size=(28, 28), dtype=np.uint8)
                yield i, {"image": PIL.Image.fromarray(pixels), "label": i % 10}

    return RandomImages(data_dir=folder, file_format="array_record")


def write_records(folder: str, megabytes: int) -> dict[str, float]:
    """Prepares the data set, unless it is there already."""
    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()
    builder = make_builder(folder, int(megabytes * 1e6 / BYTES_OF_EXAMPLE))
    with contextlib.redirect_stdout(sys.stderr):
        builder.download_and_prepare()
    files = Path(builder.data_dir).glob("*.array_record*")
    return {"megabytes": sum(file.stat().st_size for file in files) / 1e6}


def train_on_records(folder: str, megabytes: int) -> dict[str, float]:
    """A short training on examples on disk."""
    import tensorflow as tf  # noqa: F401  # what is above it is of interest
    import tensorflow_datasets as tfds

    from tfdpgen.data import DataSpec, RecordDataset
    from tfdpgen.methods import CVAE, train
    from tfdpgen.privacy import Ledger, PrivacyBudget

    baseline = peak_mebibytes()
    make_builder(folder, 0)  # makes the name known
    source: Any = tfds.data_source("random_images", split="train", data_dir=folder)
    dataset = RecordDataset(source, DataSpec((28, 28, 1), 10))
    method = CVAE(warm_start=None, latent_dim=16, hidden_units=(400,), expected_batch_size=256, steps=STEPS)
    budget = PrivacyBudget(3.0, 1e-8)
    train(method, dataset, budget, ledger=Ledger(Path(folder) / "ledger.sqlite"), verbose=0)
    return {"baseline": baseline, "peak": peak_mebibytes(), "examples": len(dataset)}


def train_with_batch(folder: str, expected_batch_size: int) -> dict[str, float]:
    """A few private steps on examples in memory."""
    import dp_step
    import numpy as np
    import tensorflow as tf

    from tfdpgen.data import DataSpec, LabeledDataset
    from tfdpgen.privacy import DPSGD
    from tfdpgen.privacy.chunks import accumulate, example_reader, private_step, scaled

    baseline = peak_mebibytes()
    (network,), _ = dp_step.critic((28, 28, 1), (64, 128))
    images = np.random.default_rng(0).integers(256, size=(NUM_EXAMPLES, 28, 28, 1), dtype=np.uint8)
    dataset = LabeledDataset(images, np.zeros(NUM_EXAMPLES, np.int64), DataSpec((28, 28, 1), 10))
    plan = DPSGD(NUM_EXAMPLES, expected_batch_size, STEPS, l2_norm_clip=1.0, noise_multiplier=1.0)
    optimizer = plan.optimizer(learning_rate=1e-4)
    examples_of, variables = example_reader(dataset), network.trainable_variables

    @private_step(plan)
    def step(indices: tf.Tensor, weights: tf.Tensor) -> None:
        def chunk_fn(images: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor) -> list[tf.Tensor]:
            with optimizer.gradient_tape(network) as tape:
                losses = tf.nn.softplus(-network(scaled(images)))[:, 0] * weights
            return optimizer.clipped_gradient_sum(losses, variables, tape)

        optimizer.apply_clipped_sum(accumulate(examples_of(indices), weights, chunk_fn, variables), variables)

    started = time.perf_counter()
    for number, batch in enumerate(plan.batches()):
        if number == 1:  # the first compiles
            started = time.perf_counter()
        step(tf.constant(batch.indices), tf.constant(batch.weights))
    seconds = (time.perf_counter() - started) / (STEPS - 1)
    return {"baseline": baseline, "peak": peak_mebibytes(), "chunk": plan.physical_batch_size, "seconds": seconds}


def generate_examples(folder: str, num_synthetic: int) -> dict[str, float]:
    """A synthetic data set of that many examples."""
    import numpy as np

    from components.artifacts import TrainedRelease
    from components.generate import generate
    from tfdpgen.data import DataSpec, LabeledDataset
    from tfdpgen.methods import train
    from tfdpgen.privacy import PrivacyBudget

    baseline = peak_mebibytes()
    images = np.random.default_rng(0).integers(256, size=(1000, 28, 28, 1), dtype=np.uint8)
    dataset = LabeledDataset(images, np.arange(1000) % 10, DataSpec((28, 28, 1), 10))
    release, synthetic = TrainedRelease(Path(folder, "release"), "train"), Path(folder, "synthetic")
    train("gaussian_mixture", dataset, PrivacyBudget(3.0, 1e-5), verbose=0).save(release.path)
    release.seal()
    started = time.perf_counter()
    generate.execute({"release": release.path}, {"synthetic": synthetic}, {"num_synthetic": num_synthetic})
    return {"baseline": baseline, "peak": peak_mebibytes(), "seconds": time.perf_counter() - started}


WORKS = {
    "write": write_records,
    "records": train_on_records,
    "batch": train_with_batch,
    "generate": generate_examples,
}


def measure(work: str, folder: str, size: int) -> dict[str, float]:
    """Runs a work in a process of its own; its last line of output is what it measured."""
    command = [sys.executable, __file__, f"--process={work}", f"--folder={folder}", f"--size={size}"]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(output.splitlines()[-1])


def ratios(name: str, small: dict[str, float], large: dict[str, float]) -> list[str]:
    """The ratio of two peaks, and of what is above the import of TensorFlow in them."""
    above = (large["peak"] - large["baseline"]) / (small["peak"] - small["baseline"])
    return [
        f"peak memory, {name}: {large['peak'] / small['peak']:.2f}",
        f"peak memory above the import of TensorFlow, {name}: {above:.2f}",
    ]


def main() -> None:
    """Prints a table, and then each ratio on a line of its own."""
    parser = argparse.ArgumentParser(description="Measures peak memory.")
    parser.add_argument("--works", default="batch,records,generate", help="with commas between (default: all)")
    parser.add_argument("--megabytes", default="50,1000", help="sizes of the two sets of records (default: 50,1000)")
    parser.add_argument("--examples", default="6000,200000", help="synthetic examples (default: 6000,200000)")
    parser.add_argument("--folder", default="", help="where records are kept for another run; empty: they are not")
    parser.add_argument("--process", choices=sorted(WORKS), help=argparse.SUPPRESS)
    parser.add_argument("--size", type=int, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.process:
        print(json.dumps(WORKS[flags.process](flags.folder, flags.size)))
        return

    lines: list[str] = []
    print(f"{'work':<52}{'import MiB':>12}{'peak MiB':>12}")
    row = "{:<52}{baseline:>12.0f}{peak:>12.0f}"
    if "batch" in flags.works:
        measured = []
        for size in LOGICAL_BATCHES:
            measured.append(measure("batch", flags.folder, size))
            title = f"logical batch {size:,}, chunks of {measured[-1]['chunk']}, {measured[-1]['seconds']:.2f} s a step"
            print(row.format(title, **measured[-1]), flush=True)
        lines += ratios("logical {1} / logical {0}".format(*LOGICAL_BATCHES), *measured)
    if "records" in flags.works:
        sizes = [int(size) for size in flags.megabytes.split(",")]
        measured = []
        with contextlib.ExitStack() as stack:
            folder = flags.folder or stack.enter_context(tempfile.TemporaryDirectory())
            for size in sizes:
                written = measure("write", f"{folder}/{size}", size)
                measured.append(measure("records", f"{folder}/{size}", size))
                title = f"{written['megabytes']:,.0f} MB of records, {measured[-1]['examples']:,} examples"
                print(row.format(title, **measured[-1]), flush=True)
        lines += ratios("{1} MB / {0} MB of records".format(*sizes), *measured)
    if "generate" in flags.works:
        sizes = [int(size) for size in flags.examples.split(",")]
        measured = []
        for size in sizes:
            with tempfile.TemporaryDirectory(dir=flags.folder or None) as folder:
                measured.append(measure("generate", folder, size))
            print(
                row.format(f"{size:,} synthetic examples, {measured[-1]['seconds']:.0f} s", **measured[-1]), flush=True
            )
        lines += ratios("{1:,} / {0:,} synthetic examples".format(*sizes), *measured)
    print("\n" + "\n".join(lines))


if __name__ == "__main__":
    main()
