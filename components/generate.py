"""Generate: draws a labelled synthetic data set from a release, file by file on Beam.

    python -m components.generate --release=DIR --synthetic=DIR --num_synthetic=6000

The folder is a TFDS data set (`tfds.builder_from_directory(DIR)`, one split, `train`) with the same examples in
`synthetic.npz`, which also names the classes (`class_names[labels]`). Plain examples come first, as many as were asked
for; their labels cycle through the classes, so that classes are balanced whatever their private frequencies are, unless
the release holds private label counts, whose shares they have then. Where
the release has an augmentation, as many augmented examples follow, which `is_augmented` marks and whose `soft_label` is
to be learnt from.

Examples are a function of the release, the seed and num_synthetic, and not of the Beam runner: each thousand has its
own seed. Never more than a thousand are held at a time: each task writes one file of the TFDS data set, and the .npz is
written from these files block by block.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import math
import shlex
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from components.artifacts import Input, Output, SyntheticExamples, TrainedRelease
from components.component import ComponentError, component
from tfdpgen.data.npz_writer import NpzWriter

if TYPE_CHECKING:
    from tfdpgen.data import DataSpec
    from tfdpgen.release import Release

EXAMPLES_PER_BLOCK = 1000  # that share a seed, and are held at a time
BYTES_PER_FILE = 2**27  # of images, before they are compressed
_NAME = "synthetic"


@component
def generate(
    release: Input[TrainedRelease],
    synthetic: Output[SyntheticExamples],
    *,
    num_synthetic: Annotated[int, "number of synthetic examples; augmented ones come on top"] = 6000,
    seed: Annotated[int, "seed of the examples"] = 0,
    beam_args: Annotated[str, "Beam runner and options, as --runner=FlinkRunner; empty: in this process"] = "",
) -> None:
    """Draws a labelled synthetic data set from a release."""
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner

    from tfdpgen.release import Release

    if num_synthetic < 1:
        raise ComponentError(f"`num_synthetic` should be at least 1; got {num_synthetic}.")
    trained = Release.load(release.path)
    spec = trained.spec
    description = "Synthetic examples sampled from a generator that was trained under differential privacy."
    if not trained.is_releasable:
        description = "NOT FOR RELEASE: drawn from a generator whose privacy noise was seeded, which protects nobody."
        (synthetic.path / "NOT_FOR_RELEASE.txt").write_text(description + "\n")

    files = _files(num_synthetic, spec, has_augmented=trained.augmentation is not None)
    tasks = [file for file in files if not file.is_augmented]  # each also writes the augmented examples beside its own
    arguments = shlex.split(beam_args)
    named = any(argument.split("=")[0] == "--runner" for argument in arguments)
    with beam.Pipeline(runner=None if named else FnApiRunner(), options=PipelineOptions(arguments)) as pipeline:
        _ = (
            pipeline
            | beam.Create(tasks)
            | beam.Reshuffle()
            | beam.Map(_WriteFile(str(release.path), str(synthetic.path), num_synthetic, files, seed))
        )
    _describe(synthetic.path, spec, files, description)
    _write_npz(synthetic.path, spec, sum(file.size for file in files))
    synthetic.facts = {"num_synthetic": num_synthetic, "spec": spec.to_dict()}


@dataclasses.dataclass(frozen=True)
class _File:
    """A file of the TFDS data set.

    Attributes:
      name: the one that TFDS gives it.
      start, stop: its examples, counted among those of its kind.
      is_augmented: its kind.
    """

    name: str
    start: int
    stop: int
    is_augmented: bool

    @property
    def size(self) -> int:
        """How many examples it holds."""
        return self.stop - self.start


def _files(num_synthetic: int, spec: DataSpec, *, has_augmented: bool) -> list[_File]:
    """All files in the order of their examples: those of plain ones, then as many of augmented ones."""
    blocks = max(1, BYTES_PER_FILE // (EXAMPLES_PER_BLOCK * math.prod(spec.image_shape)))
    step = blocks * EXAMPLES_PER_BLOCK
    parts = [
        (start, min(start + step, num_synthetic), kind)
        for kind in ((False, True) if has_augmented else (False,))
        for start in range(0, num_synthetic, step)
    ]
    names = [f"{_NAME}-train.tfrecord-{number:05}-of-{len(parts):05}" for number in range(len(parts))]
    return [_File(name, *part) for name, part in zip(names, parts, strict=True)]


def _features(spec: DataSpec) -> Any:
    """What an example of the TFDS data set holds."""
    import tensorflow_datasets as tfds

    names = spec.class_names or None
    return tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=spec.image_shape),
            "label": tfds.features.ClassLabel(names=names, num_classes=None if names else spec.num_classes),
            "soft_label": tfds.features.Tensor(shape=(spec.num_classes,), dtype=np.float32),
            "is_augmented": tfds.features.Scalar(dtype=np.bool_),
        }
    )


class _WriteFile:
    """Writes a file of plain examples and, where there are any, that of the augmented ones beside them.

    Each worker loads the release once.
    """

    def __init__(self, release: str, folder: str, num_synthetic: int, files: Sequence[_File], seed: int) -> None:
        self._path, self._folder, self._num_synthetic, self._seed = release, folder, num_synthetic, seed
        self._augmented = {file.start: file for file in files if file.is_augmented}

    @functools.cached_property
    def _release(self) -> Release:
        from tfdpgen.release import Release

        return Release.load(self._path)

    def __call__(self, file: _File) -> None:
        import tensorflow as tf

        features = _features(self._release.spec)
        targets = [
            Path(self._folder, each.name) for each in (file, self._augmented.get(file.start)) if each is not None
        ]
        with tempfile.TemporaryDirectory(prefix=".part-", dir=self._folder) as scratch:
            parts = [Path(scratch, target.name) for target in targets]
            writers = [tf.io.TFRecordWriter(str(part)) for part in parts]
            for start in range(file.start, file.stop, EXAMPLES_PER_BLOCK):
                size = min(EXAMPLES_PER_BLOCK, file.stop - start)
                for number, example in enumerate(self._examples(start, size)):
                    writers[number // size].write(features.serialize_example(example))
            for writer, part, target in zip(writers, parts, targets, strict=True):
                writer.close()
                part.replace(target)  # a runner may try a task twice

    def _examples(self, start: int, size: int) -> Iterator[dict[str, Any]]:
        """The plain examples of a block and then its augmented ones, encoded."""
        from PIL import Image

        drawn = self._release.training_set(
            self._release.labels(size, start), seed=(self._seed, start // EXAMPLES_PER_BLOCK)
        )
        for image, label, soft_label, is_augmented in zip(*drawn, strict=True):
            picture = io.BytesIO()
            # Pillow encodes a small PNG 10 times faster than TFDS does.
            Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(picture, "PNG")
            yield {
                "image": picture.getvalue(),
                "label": int(label),
                "soft_label": soft_label,
                "is_augmented": bool(is_augmented),
            }


def _describe(folder: Path, spec: DataSpec, files: Sequence[_File], description: str) -> None:
    """Writes what TFDS has to know about the files."""
    import tensorflow_datasets as tfds

    split = tfds.core.SplitInfo(
        name="train",
        shard_lengths=[file.size for file in files],
        num_bytes=sum((folder / file.name).stat().st_size for file in files),
    )
    tfds.folder_dataset.write_metadata(
        data_dir=folder,
        features=_features(spec),
        split_infos=[split],
        check_data=False,
        description=description,
        supervised_keys=("image", "label"),
        disable_shuffling=True,  # the files are in order, and are to be read so
    )


def _write_npz(folder: Path, spec: DataSpec, num_examples: int) -> None:
    """Writes the examples of the TFDS data set to synthetic.npz, a block at a time.

    An archive takes one array after the other. Images go straight into it; the rest, which is small, waits in files.
    """
    import tensorflow_datasets as tfds

    builder: Any = tfds.builder_from_directory(folder)
    stored = builder.as_dataset(
        split="train", batch_size=EXAMPLES_PER_BLOCK, read_config=tfds.ReadConfig(try_autocache=False)
    )
    others = {
        "labels": ("label", np.int64, ()),
        "soft_labels": ("soft_label", np.float32, (spec.num_classes,)),
        "is_augmented": ("is_augmented", np.bool_, ()),
    }
    with NpzWriter(folder / "synthetic.npz") as npz, tempfile.TemporaryDirectory(dir=folder) as scratch:
        with contextlib.ExitStack() as stack:
            waiting = {name: stack.enter_context(open(Path(scratch, name), "wb")) for name in others}
            images = stack.enter_context(npz.member("images", (num_examples, *spec.image_shape), np.uint8))
            for batch in tfds.as_numpy(stored):
                images.append(batch["image"])
                for name, (column, dtype, _) in others.items():
                    waiting[name].write(np.ascontiguousarray(batch[column], dtype).data)
        for name, (_, dtype, shape) in others.items():
            block = EXAMPLES_PER_BLOCK * math.prod(shape) * np.dtype(dtype).itemsize
            with npz.member(name, (num_examples, *shape), dtype) as member, open(Path(scratch, name), "rb") as file:
                while part := file.read(block):
                    member.append(np.frombuffer(part, dtype).reshape(-1, *shape))
        npz.write("class_names", np.array([spec.name_of(label) for label in range(spec.num_classes)]))


if __name__ == "__main__":
    generate.main()
