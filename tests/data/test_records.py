"""Examples on disk: the same as in memory, read only when asked for, and refused where they contradict the public
facts."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from tfdpgen.data import DataError, Dataset, DataSpec, LabeledDataset, RecordDataset, Splits, load_splits
from tfdpgen.data import dataset as dataset_module
from tfdpgen.privacy import ClassMeans, dataset_id
from tfdpgen.privacy.session import sums_of

SPEC = DataSpec((4, 5, 1), 3)


class Source:
    """Examples in a list that counts how many are asked for at a time."""

    def __init__(self, num_examples: int = 60) -> None:
        rng = np.random.default_rng(0)
        self.examples: list[Any] = [
            {"image": rng.integers(256, size=(4, 5, 1), dtype=np.uint8), "label": i % 3} for i in range(num_examples)
        ]
        self.asked: list[int] = []

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, position: int) -> Any:
        return self.examples[position]

    def __getitems__(self, positions: list[int]) -> list[Any]:
        self.asked.append(len(positions))
        return [self.examples[position] for position in positions]

    def in_memory(self) -> LabeledDataset:
        images = np.stack([example["image"] for example in self.examples])
        return LabeledDataset(images, np.array([example["label"] for example in self.examples], np.int64), SPEC)


def assert_same(dataset: Dataset, other: Dataset) -> None:
    assert dataset.spec == other.spec
    for part, expected in zip(dataset.examples(range(len(dataset))), other.examples(range(len(other))), strict=True):
        assert part.dtype == expected.dtype
        np.testing.assert_array_equal(part, expected)


def test_examples_are_the_same_as_in_memory() -> None:
    source = Source()
    dataset, expected = RecordDataset(source, SPEC), source.in_memory()
    assert len(dataset) == 60
    assert_same(dataset, expected)
    for positions in ([5], [59, 0, 5, 5], np.array([3, 2], np.int32), []):
        assert_same(dataset.take(positions), expected.take(positions))
        for part, other in zip(dataset.examples(positions), expected.examples(positions), strict=True):
            np.testing.assert_array_equal(part, other)
    assert_same(dataset.take([9, 8, 7, 6]).take([3, 1]), expected.take([6, 8]))
    assert_same(dataset.in_memory(), expected)
    assert_same(dataset.in_memory(7), expected.in_memory(7))
    assert_same(dataset.in_memory(700), expected)


def test_a_list_of_examples_is_a_source() -> None:
    source = Source()
    assert_same(RecordDataset(source.examples, SPEC), source.in_memory())
    renamed = [{"x": example["image"], "y": example["label"]} for example in source.examples]
    assert_same(RecordDataset(renamed, SPEC, image_key="x", label_key="y"), source.in_memory())


@pytest.mark.parametrize("positions", [[-1], [60], [0, 1, 99]])
def test_positions_outside_are_refused(positions: list[int]) -> None:
    with pytest.raises(IndexError, match=r"`positions` should lie in \[0, 60\)"):
        RecordDataset(Source(), SPEC).examples(positions)
    with pytest.raises(IndexError, match=r"`positions` should lie in \[0, 60\)"):
        RecordDataset(Source(), SPEC).take(positions)


def test_no_pass_over_all_examples_asks_for_many_at_a_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(dataset_module, "_BLOCK_BYTES", 7 * 20)
    source = Source()
    dataset = RecordDataset(source, SPEC)
    assert [len(labels) for _, labels in dataset.blocks()] == [7] * 8 + [4]
    dataset_id(dataset)
    Splits(dataset, dataset.take([1, 0]), dataset.take([])).save(tmp_path)
    assert max(source.asked) == 7
    monkeypatch.setattr(dataset_module, "_BLOCK_BYTES", 1)
    assert [len(labels) for _, labels in dataset.blocks()] == [1] * 60


def test_passes_over_all_examples_take_memory_for_a_block_of_them() -> None:
    class Drawn(Source):
        """10,000 examples of 12 KB, which exist when they are asked for."""

        def __len__(self) -> int:
            return 10_000

        def __getitems__(self, positions: list[int]) -> list[Any]:
            return [{"image": np.full((64, 64, 3), position % 256, np.uint8), "label": 0} for position in positions]

    def mean_colours(images: Any, labels: Any) -> Any:
        return tf.reduce_mean(images, axis=[1, 2])

    tracemalloc.start()
    dataset = RecordDataset(Drawn(), DataSpec((64, 64, 3), 2))
    dataset_id(dataset)
    sums_of(dataset, {"means": (ClassMeans(2, 3, 1.0), mean_colours)}, by_user=False)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 25e6  # of 123 MB


@pytest.mark.parametrize(
    ("example", "message"),
    [
        (
            {"image": np.zeros((4, 5, 3), np.uint8), "label": 0},
            r"uint8 of shape \(4, 5, 1\).*example 41 is uint8 of shape",
        ),
        ({"image": np.zeros((5, 4, 1), np.uint8), "label": 0}, r"example 41 is uint8 of shape \(5, 4, 1\)"),
        ({"image": np.zeros((4, 5, 1), np.float32), "label": 0}, "example 41 is float32"),
        ({"image": np.zeros((4, 5, 1), np.uint8), "label": 3}, r"integers in \[0, 3\); example 41 has 3"),
        ({"image": np.zeros((4, 5, 1), np.uint8), "label": -1}, r"integers in \[0, 3\); example 41 has -1"),
        ({"image": np.zeros((4, 5, 1), np.uint8), "label": 0.0}, r"integers in \[0, 3\); example 41 has 0.0"),
        ({"image": np.zeros((4, 5, 1), np.uint8), "label": [0]}, r"integers in \[0, 3\); example 41 has \[0\]"),
        ({"image": np.zeros((4, 5, 1), np.uint8)}, "example 41 lacks 'label'"),
        ((np.zeros((4, 5, 1), np.uint8), 0), "example 41 lacks 'image'"),
    ],
)
def test_an_example_that_contradicts_the_public_facts_is_refused_before_anything_is_made_of_it(
    example: Any, message: str
) -> None:
    source = Source()
    source.examples[41] = example
    with pytest.raises(DataError, match=message):
        RecordDataset(source, SPEC)


def test_an_example_that_changes_after_the_check_is_refused_when_it_is_read() -> None:
    source = Source()
    dataset = RecordDataset(source, SPEC).take([41, 2])
    source.examples[41] = {"image": np.zeros((4, 5, 1), np.uint8), "label": 3}
    dataset.examples([1])
    with pytest.raises(DataError, match="example 41 has 3"):
        dataset.examples([0])


def test_what_a_source_raises_names_the_source() -> None:
    class Broken(Source):
        def __getitems__(self, positions: list[int]) -> Any:
            raise RuntimeError("the disk is gone")

    with pytest.raises(DataError, match=r"^photos: examples cannot be read, .* the disk is gone"):
        RecordDataset(Broken(), SPEC, where="photos")


@pytest.fixture
def splits() -> Splits:
    dataset = RecordDataset(Source(), SPEC)
    return Splits(dataset.take(range(40)), dataset.take([50, 49]), dataset.take([]))


def test_splits_on_disk_are_saved_and_loaded_as_such(splits: Splits, tmp_path: Path) -> None:
    splits.save(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "train.array_record", "holdout.array_record", "test.array_record", "spec.json",
    }  # fmt: skip
    loaded = Splits.load(tmp_path)
    for name in ("train", "holdout", "test"):
        assert isinstance(getattr(loaded, name), RecordDataset)
        assert_same(getattr(loaded, name), getattr(splits, name))
    # What is saved over its own file is still itself; and what is saved over the other kind leaves nothing of it.
    Splits(loaded.train.take([3, 1]), loaded.holdout, loaded.test).save(tmp_path)
    assert_same(Splits.load(tmp_path).train, splits.train.take([3, 1]))
    Splits(splits.train.in_memory(), splits.holdout, splits.test).save(tmp_path)
    assert_same(Splits.load(tmp_path).train, splits.train)
    assert isinstance(Splits.load(tmp_path).train, LabeledDataset)
    splits.save(tmp_path)
    assert not list(tmp_path.glob("*.npz"))


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "missing"])
def test_a_damaged_file_of_examples_is_named(splits: Splits, tmp_path: Path, damage: str) -> None:
    splits.save(tmp_path)
    path = tmp_path / "train.array_record"
    content = bytearray(path.read_bytes())
    if damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        place = content.index(splits.train.examples([3])[0].tobytes()[:4])
        content[place] ^= 0xFF
        path.write_bytes(content)
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        path.unlink()
    with pytest.raises(DataError, match=r"train\.(array_record|npz)"):
        Splits.load(tmp_path)


def test_examples_of_another_shape_than_the_spec_says_are_refused(splits: Splits, tmp_path: Path) -> None:
    splits.save(tmp_path)
    facts = (tmp_path / "spec.json").read_text()
    (tmp_path / "spec.json").write_text(facts.replace("5,", "6,"))
    with pytest.raises(
        DataError, match=r"train\.array_record: .*should have 32 bytes for images of \(4, 6, 1\); got 28"
    ):
        Splits.load(tmp_path)


class TinyRecords(tfds.core.GeneratorBasedBuilder):
    """A TFDS data set, prepared in either format."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [  # noqa: RUF012  # TFDS reads this name, as a list
        tfds.core.BuilderConfig(name=name) for name in ("split", "whole", "varying")
    ]

    def _info(self) -> tfds.core.DatasetInfo:
        shape = (None, None, 1) if self.builder_config.name == "varying" else (4, 5, 1)
        image = tfds.features.Image(shape=shape, dtype=np.uint8)
        features = {"picture": image, "kind": tfds.features.ClassLabel(num_classes=6)}
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features), supervised_keys=("picture", "kind")
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        parts = {"train": 100, "test": 20} if self.builder_config.name == "split" else {"train": 100}
        return {name: self._generate_examples(count) for name, count in parts.items()}

    def _generate_examples(self, count: int) -> Iterator[tuple[int, Any]]:
        rng = np.random.default_rng(count)
        for i in range(count):
            height = 3 if self.builder_config.name == "varying" and i == 50 else 4
            yield i, {"picture": rng.integers(256, size=(height, 5, 1), dtype=np.uint8), "kind": i % 6}


@pytest.mark.parametrize("config", ["split", "whole"])
def test_a_tfds_data_set_on_disk_has_the_splits_that_it_has_in_memory(config: str, tmp_path: Path) -> None:
    name = f"tiny_records/{config}"
    in_memory = load_splits(name, data_dir=str(tmp_path / "memory"))
    on_disk = load_splits(name, data_dir=str(tmp_path / "disk"), on_disk=True)
    files = [path.name for path in (tmp_path / "disk" / "tiny_records").rglob("*-of-*")]
    assert files
    assert all("array_record" in file for file in files)
    for part in ("train", "holdout", "test"):
        assert isinstance(getattr(on_disk, part), RecordDataset)
        assert isinstance(getattr(in_memory, part), LabeledDataset)
        assert_same(getattr(on_disk, part), getattr(in_memory, part))
        assert dataset_id(getattr(on_disk, part)) == dataset_id(getattr(in_memory, part))
    # Prepared so, it stays on disk without being asked.
    again = load_splits(name, data_dir=str(tmp_path / "disk"), download=False)
    assert isinstance(again.train, RecordDataset)


def test_what_cannot_stay_on_disk_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="`on_disk` needs a TFDS data set"):
        load_splits("digits", on_disk=True)
    load_splits("tiny_records/whole", data_dir=str(tmp_path))
    with pytest.raises(DataError, match=r"holds it as tfrecord\. Give another `data_dir`"):
        load_splits("tiny_records/whole", data_dir=str(tmp_path), on_disk=True)


def test_a_tfds_example_of_another_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"split 'train' of TFDS data set 'tiny_records/varying.*example \d+ is uint8 of shape"
    ):
        load_splits("tiny_records/varying", data_dir=str(tmp_path), image_shape=(4, 5, 1), on_disk=True)
