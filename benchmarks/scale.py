"""Time and memory of methods by image size and number of classes: does anything fail late, or not fit?

    python benchmarks/scale.py                                        # every side and number of classes
    python benchmarks/scale.py --methods=gaussian_mixture --sides=64 --classes=10,1000 --num_examples=20000

Each line is a process of its own on colour images of low-frequency noise, `--per_class` of each class or
`--num_examples` in all if that is more. Of `gaussian_mixture` the whole training is run. Methods with steps are
rehearsed (`tfdpgen/methods/rehearsal.py`): trained for a few steps on noise, and the seconds extrapolated, while peak
memory is that of these steps, which further steps do not change; `latent_gaussian` learns from dead leaves. Then 1,000
images are sampled. Peak memory is that of the process, TensorFlow and the images included. Nothing here is about
quality.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

SAMPLED = 1000
WHOLE = ("gaussian_mixture",)
PUBLIC = ("latent_gaussian",)  # learn from images that they have to be given, here dead leaves


def measure(method: str, side: int, classes: int, num_examples: int, epsilon: float) -> str:
    """One line of the table, in this process."""
    import numpy as np
    from scipy import ndimage

    from tfdpgen.data import DataSpec, LabeledDataset, load_public_images
    from tfdpgen.methods import train
    from tfdpgen.methods.rehearsal import rehearse
    from tfdpgen.privacy import PrivacyBudget

    spec = DataSpec((side, side, 3), classes)
    budget = PrivacyBudget(epsilon, min(1e-5, 0.1 / num_examples))
    if method in WHOLE:
        rng = np.random.default_rng(0)
        images = np.empty((num_examples, side, side, 3), np.uint8)
        for start in range(0, num_examples, 1000):
            coarse = rng.uniform(0, 255, (min(1000, num_examples - start), 5, 5, 3))
            images[start : start + 1000] = ndimage.zoom(coarse, (1, side / 5, side / 5, 1), order=1)
        dataset = LabeledDataset(images, np.arange(num_examples) % classes, spec)
        started = time.monotonic()
        release = train(method, dataset, budget, verbose=0)
        trained = time.monotonic()
        release.sample(release.labels(SAMPLED), 0)
        seconds, sampling, how = trained - started, time.monotonic() - trained, "run"
    else:
        public = load_public_images("dead_leaves", spec.image_shape) if method in PUBLIC else None
        cost = rehearse(method, spec, num_examples, budget, public_images=public)
        seconds, sampling, how = cost.seconds, SAMPLED * cost.seconds_per_sample, "rehearsed"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    how = f"{seconds:,.0f} ({how})"
    return f"| `{method}` | {side} | {classes:,} | {num_examples:,} | {how} | {sampling:.1f} | {peak:.1f} |"


def main() -> None:
    """Prints the table, a line as soon as it is measured."""
    parser = argparse.ArgumentParser(description="Time and memory by image size and number of classes.")
    parser.add_argument("--methods", default="gaussian_mixture,c_vae,dp_gan,dp_diffusion,latent_gaussian")
    parser.add_argument("--sides", default="28,64,128", help="in pixels (default: 28,64,128)")
    parser.add_argument("--classes", default="10,100,1000")
    parser.add_argument("--per_class", type=int, default=10, help="examples of each class, at least (default: 10)")
    parser.add_argument("--num_examples", type=int, default=5000, help="in all, at least (default: 5000)")
    parser.add_argument("--epsilon", type=float, default=10.0)
    parser.add_argument("--one", action="store_true", help="measure the first of each in this process")
    flags = parser.parse_args()
    methods = flags.methods.split(",")
    sides, numbers = ([int(value) for value in text.split(",")] for text in (flags.sides, flags.classes))
    if flags.one:
        classes = numbers[0]
        examples = max(flags.num_examples, flags.per_class * classes)
        print(measure(methods[0], sides[0], classes, examples, flags.epsilon))
        return
    print("| method | side | classes | examples | seconds to train | seconds to sample 1,000 | peak GiB |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for method in methods:
        for side in sides:
            for classes in numbers:
                own = [f"--methods={method}", f"--sides={side}", f"--classes={classes}"]
                rest = [f"--{name}={getattr(flags, name)}" for name in ("per_class", "num_examples", "epsilon")]
                done = subprocess.run([sys.executable, __file__, "--one", *own, *rest], capture_output=True, text=True)
                last = (done.stderr.strip().splitlines() or ["no message"])[-1]
                failed = f"| `{method}` | {side} | {classes:,} | | failed: {last} | | |\n"
                print(done.stdout if not done.returncode else failed, end="", flush=True)


if __name__ == "__main__":
    main()
