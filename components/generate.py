"""Generate: draws a labelled synthetic data set from a release, in shards on Beam.

    python -m components.generate --release=DIR --synthetic=DIR --num_synthetic=6000

The folder is a TFDS data set (`tfds.builder_from_directory(DIR)`, one split, `train`) with the same rows in
`synthetic.npz`. Plain rows come first, as many as were asked for; their labels cycle through the classes. Where the
release has a teacher, as many enriched rows follow, which `is_enriched` marks and whose `soft_label` is to be learnt
from. Rows are a function of the release, the seed and num_synthetic, and not of the Beam runner: each shard of rows has
its own seed.
"""

from __future__ import annotations

import contextlib
import functools
import io
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from components.artifacts import Input, Output, SyntheticExamples, TrainedRelease
from components.component import ComponentError, component

if TYPE_CHECKING:
    from tfdpgen.synthesizers import Release

ROWS_PER_SHARD = 1000


@component
def generate(
    release: Input[TrainedRelease],
    synthetic: Output[SyntheticExamples],
    *,
    num_synthetic: Annotated[int, "number of plain synthetic rows; enriched ones come on top"] = 6000,
    seed: Annotated[int, "seed of the rows"] = 0,
    beam_args: Annotated[str, "Beam runner and options, as --runner=FlinkRunner; empty: in this process"] = "",
) -> None:
    """Draws a labelled synthetic data set from a release."""
    import apache_beam as beam
    import tensorflow_datasets as tfds
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner

    from tfdpgen.synthesizers import Release

    if num_synthetic < 1:
        raise ComponentError(f"`num_synthetic` should be at least 1; got {num_synthetic}.")
    trained = Release.load(release.path)
    spec = trained.spec
    description = "Synthetic rows drawn from a generator that was trained under differential privacy."
    if not trained.is_releasable:
        description = "NOT FOR RELEASE: drawn from a generator whose privacy noise was seeded, which protects nobody."
        (synthetic.path / "NOT_FOR_RELEASE.txt").write_text(description + "\n")
    arguments = shlex.split(beam_args)
    named = any(argument.split("=")[0] == "--runner" for argument in arguments)
    shards = range(0, num_synthetic, ROWS_PER_SHARD)
    rows = (
        beam.Create(list(enumerate(shards)))
        | beam.Reshuffle()
        | beam.FlatMap(_Sample(str(release.path), num_synthetic, seed))
    )
    label = tfds.features.ClassLabel(
        names=spec.class_names or None, num_classes=None if spec.class_names else spec.num_classes
    )
    tfds.disable_progress_bar()
    scratch = synthetic.path / "scratch"  # TFDS adds folders for name and version, and one for downloads
    builder = tfds.dataset_builders.AdhocBuilder(
        name="synthetic",
        version="1.0.0",
        features=tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=spec.image_shape),
                "label": label,
                "soft_label": tfds.features.Tensor(shape=(spec.num_classes,), dtype=np.float32),
                "is_enriched": tfds.features.Scalar(dtype=np.bool_),
            }
        ),
        split_datasets={"train": rows},
        description=description,
        data_dir=scratch,
        disable_shuffling=True,  # keeps the order of rows
    )
    with contextlib.redirect_stdout(io.StringIO()):  # TFDS would speak of a download
        builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(
                beam_runner=None if named else FnApiRunner(), beam_options=PipelineOptions(arguments)
            )
        )
    for path in Path(builder.data_dir).iterdir():
        path.rename(synthetic.path / path.name)
    shutil.rmtree(scratch)

    stored: Any = tfds.builder_from_directory(synthetic.path).as_dataset(
        split="train", batch_size=-1, read_config=tfds.ReadConfig(interleave_cycle_length=1)
    )
    columns = {"images": "image", "labels": "label", "soft_labels": "soft_label", "is_enriched": "is_enriched"}
    arrays = {name: np.asarray(stored[column]) for name, column in columns.items()}
    np.savez_compressed(synthetic.path / "synthetic.npz", **arrays)
    synthetic.facts = {"num_synthetic": num_synthetic, "spec": spec.to_dict()}


class _Sample:
    """(shard, first row) -> the rows of that shard as (row, example). Each worker loads the release once."""

    def __init__(self, release: str, num_synthetic: int, seed: int) -> None:
        self._path, self._num_synthetic, self._seed = release, num_synthetic, seed

    @functools.cached_property
    def _release(self) -> Release:
        from tfdpgen.synthesizers import Release

        return Release.load(self._path)

    def __call__(self, element: tuple[int, int]) -> Iterator[tuple[int, dict[str, Any]]]:
        from PIL import Image

        shard, first = element
        rows = np.arange(first, min(first + ROWS_PER_SHARD, self._num_synthetic))
        drawn = self._release.synthesize(rows % self._release.spec.num_classes, seed=(self._seed, shard))
        places = np.concatenate([rows, rows + self._num_synthetic])  # of plain and of enriched rows
        for row, image, label, soft_label, is_enriched in zip(places, *drawn, strict=False):
            # Pillow encodes a small PNG 10 times faster than TFDS does.
            picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
            example = {"image": picture, "label": int(label), "soft_label": soft_label, "is_enriched": is_enriched}
            yield int(row), example


if __name__ == "__main__":
    generate.main()
