"""Sources: every kind is read, its public facts are declared and never computed, and bad data are refused by name."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import tensorflow_datasets as tfds

from tfdpgen.data import DataError, load_splits


def rows_of(splits: Any) -> tuple[np.ndarray, np.ndarray]:
    parts = (splits.train, splits.holdout, splits.test)
    return np.concatenate([p.images for p in parts]), np.concatenate([p.labels for p in parts])


def test_digits() -> None:
    splits = load_splits("digits")
    assert (len(splits.train), len(splits.holdout), len(splits.test)) == (1_077, 360, 360)
    assert splits.spec.image_shape == (8, 8, 1)
    assert splits.spec.num_classes == 10
    assert splits.spec.value_range == (0.0, 16.0)
    images, labels = rows_of(splits)
    assert set(np.unique(images)) == {round(level * 255 / 16) for level in range(17)}
    assert np.bincount(labels).min() > 170


def _saved(folder: Path, name: str, **arrays: np.ndarray) -> Any:
    np.savez(folder / f"{name}.npz", **arrays)
    return load_splits(folder / f"{name}.npz", num_classes=4, verbose=False)


def _in_both(first: Any, second: Any, part: str) -> int:
    """How many examples of a part the other one has too; all differ."""
    images = [{image.tobytes() for image in getattr(splits, part).images} for splits in (first, second)]
    return len(images[0] & images[1])


def test_replacing_an_example_of_the_source_changes_one_example_of_one_split(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images, labels = rng.integers(256, size=(60, 4, 4, 1), dtype=np.uint8), np.arange(60) % 4
    whole = _saved(tmp_path, "whole", images=images, labels=labels)
    changed_parts = set()
    for position in range(60):
        other, relabelled = images.copy(), labels.copy()
        other[position], relabelled[position] = 255 - other[position], (labels[position] + 1) % 4
        replaced = _saved(tmp_path, "replaced", images=other, labels=relabelled)
        changed = {
            part: np.flatnonzero((getattr(whole, part).images != getattr(replaced, part).images).any(axis=(1, 2, 3)))
            for part in ("train", "holdout", "test")
        }
        (part,) = (part for part, places in changed.items() if len(places))
        (place,) = changed[part]
        differs = getattr(whole, part).labels != getattr(replaced, part).labels
        np.testing.assert_array_equal(np.flatnonzero(differs), [place])
        changed_parts.add(part)
    assert changed_parts == {"train", "holdout", "test"}


def test_an_example_more_in_the_source_deals_others_anew_unless_it_brings_its_splits(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images, labels = rng.integers(256, size=(101, 4, 4, 1), dtype=np.uint8), np.arange(101) % 4
    whole = _saved(tmp_path, "whole", images=images[:100], labels=labels[:100])
    more = _saved(tmp_path, "more", images=images, labels=labels)
    assert _in_both(whole, more, "train") < len(whole.train) - 5  # neighbours would share all, or all but one

    rest = {"x_val": images[60:80], "y_val": labels[60:80], "x_test": images[80:100], "y_test": labels[80:100]}
    own = _saved(tmp_path, "own", x_train=images[:60], y_train=labels[:60], **rest)
    own_more = _saved(
        tmp_path,
        "own_more",
        x_train=np.concatenate([images[:60], images[100:]]),
        y_train=np.concatenate([labels[:60], labels[100:]]),
        **rest,
    )
    assert (len(own_more.train), _in_both(own, own_more, "train")) == (61, 60)
    assert (_in_both(own, own_more, "holdout"), _in_both(own, own_more, "test")) == (20, 20)


def test_digits_refuse_contradicting_facts() -> None:
    with pytest.raises(DataError, match=r"`num_classes` should be 10.*got 9"):
        load_splits("digits", num_classes=9)


@pytest.mark.parametrize("name", ["image_shape", "value_range", "background"])
@pytest.mark.parametrize("value", ["8,8,1", ["a", "b"], 1.5])
def test_arguments_of_numbers_refuse_what_are_none(name: str, value: Any) -> None:
    with pytest.raises(DataError, match=f"`{name}` should be a sequence of numbers; got "):
        load_splits("digits", **{name: value})


def test_a_data_set_shows_no_example_when_it_is_printed() -> None:
    splits = load_splits("digits")
    assert repr(splits.train).startswith(
        "LabeledDataset(1,077 examples, DataSpec(image_shape=(8, 8, 1), num_classes=10"
    )
    assert "array" not in repr(splits)


def test_mnist(mnist_dir: Path) -> None:
    splits = load_splits("mnist", data_dir=str(mnist_dir), download=False)
    assert (len(splits.train), len(splits.holdout), len(splits.test)) == (54_000, 6_000, 10_000)
    assert splits.spec.image_shape == (28, 28, 1)
    assert splits.spec.num_classes == 10
    assert splits.train.images.max() == 255


class Npz:
    """Writes an .npz of 60 valid examples, changed as a test asks."""

    def __init__(self, path: Path) -> None:
        self.path = path
        rng = np.random.default_rng(0)
        self.arrays = {"images": rng.integers(256, size=(60, 4, 5), dtype=np.uint8), "labels": np.arange(60) % 3}

    def load(self, changes: dict[str, Any] | None = None, **flags: Any) -> Any:
        arrays = {name: array for name, array in (self.arrays | (changes or {})).items() if array is not None}
        np.savez(self.path, **arrays)
        return load_splits(str(self.path), **flags)


@pytest.fixture
def npz(tmp_path: Path) -> Npz:
    return Npz(tmp_path / "examples.npz")


def test_npz_is_read_and_split_by_position(npz: Npz) -> None:
    splits = npz.load(num_classes=3)
    assert (len(splits.train), len(splits.holdout), len(splits.test)) == (36, 12, 12)
    assert splits.spec.image_shape == (4, 5, 1)
    images, _ = rows_of(splits)
    assert sorted(map(bytes, images)) == sorted(map(bytes, npz.arrays["images"]))
    # The same positions go to the same parts whatever the examples hold.
    inverted = npz.load({"images": 255 - npz.arrays["images"]}, num_classes=3)
    np.testing.assert_array_equal(inverted.test.images, 255 - splits.test.images)


def test_npz_floats_are_mapped_from_the_declared_range(npz: Npz) -> None:
    images = np.full((60, 2, 2, 3), 0.5, np.float32)  # never near the ends: the range is not theirs
    splits = npz.load({"images": images}, num_classes=3, value_range=(0.0, 2.0))
    assert splits.spec.image_shape == (2, 2, 3)
    assert set(splits.train.images.ravel()) == {64}


def test_npz_may_declare_its_classes_inside(npz: Npz) -> None:
    # 7 classes are declared and 3 occur: the number is not read off the examples.
    assert npz.load({"num_classes": np.int64(7)}).spec.num_classes == 7


@pytest.mark.parametrize(
    ("changes", "flags", "message"),
    [
        ({}, {}, "does not declare `num_classes`"),
        ({"num_classes": np.int64(3)}, {"num_classes": 4}, "`num_classes` should be 3"),
        ({"num_classes": np.arange(3)}, {}, "`num_classes` should be one integer"),
        ({}, {"num_classes": 3, "image_shape": (5, 4, 1)}, "`image_shape` should be"),
        ({"images": np.zeros((60, 4, 5), np.float32)}, {"num_classes": 3}, "does not declare `value_range`"),
        (
            {"images": np.full((60, 4, 5), np.nan)},
            {"num_classes": 3, "value_range": (0, 1)},
            r"declared `value_range` .*example 0 holds nan",
        ),
        ({}, {"num_classes": 3, "value_range": (0, 16)}, r"declared `value_range` \(0.0, 16.0\); example 0 holds"),
        ({"images": np.zeros((60, 4), np.uint8)}, {"num_classes": 3}, r"`images` should have shape .* got \[60, 4\]"),
        ({"images": np.zeros((60, 4, 5, 2), np.uint8)}, {"num_classes": 3}, "`images` should have shape"),
        ({"images": np.zeros((60, 4, 5), "U1")}, {"num_classes": 3}, "`images` should be numbers"),
        ({"labels": np.arange(59)}, {"num_classes": 3}, r"`labels` should be integers of shape \[60\]"),
        ({"labels": np.arange(60) / 2}, {"num_classes": 3}, "`labels` should be integers"),
        ({"labels": np.full(60, 3)}, {"num_classes": 3}, r"`labels` should lie in \[0, 3\)"),
        ({"labels": np.full(60, -1)}, {"num_classes": 3}, r"`labels` should lie in \[0, 3\)"),
        ({"labels": None}, {"num_classes": 3}, r"lacks \['labels'\]"),
        ({"images": None}, {"num_classes": 3}, r"lacks \['images'\]"),
        ({"labels": np.array([{}] * 60)}, {"num_classes": 3}, "Python objects are refused"),
        (
            {"images": np.zeros((40, 4, 5), np.uint8), "labels": np.zeros(40, int)},
            {"num_classes": 3},
            "at least 10 examples .* 50 are enough",
        ),
    ],
)
def test_npz_refusals(npz: Npz, changes: dict[str, Any], flags: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        npz.load(changes, **flags)
    assert "examples.npz" in str(caught.value) or "`" in str(caught.value)


@pytest.mark.parametrize("keep", [0, 10, 700, -30])
def test_npz_truncated(npz: Npz, keep: int) -> None:
    npz.load(num_classes=3)
    npz.path.write_bytes(npz.path.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"examples\.npz should be an undamaged"):
        load_splits(str(npz.path), num_classes=3)


def test_npz_with_flipped_bytes(npz: Npz) -> None:
    npz.load(num_classes=3)
    content = bytearray(npz.path.read_bytes())
    content[600] ^= 0xFF  # inside the pixels: only the checksum tells
    npz.path.write_bytes(content)
    with pytest.raises(DataError, match=r"examples\.npz should be an undamaged"):
        load_splits(str(npz.path), num_classes=3)


def test_npz_that_is_something_else(tmp_path: Path) -> None:
    path = tmp_path / "examples.npz"
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(DataError, match=r"examples\.npz"):
        load_splits(str(path), num_classes=3)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images", "not an array")
        archive.writestr("labels", "not an array")
    with pytest.raises(DataError, match=r"examples\.npz .* lacks"):
        load_splits(str(path), num_classes=3)


def test_npz_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.npz: there is no such file"):
        load_splits(str(tmp_path / "none.npz"), num_classes=3)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """30 images of 4x6 pixels for each of 2 classes; each image is flat, in a value that tells class and file."""
    for label, name in enumerate(("cats", "dogs")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(30):
            image = PIL.Image.new("L", (6, 4), color=100 * label + i)
            image.save(tmp_path / "photos" / name / f"{i}.png")
    return tmp_path / "photos"


def load_photos(path: Path, **flags: Any) -> Any:
    flags.setdefault("image_shape", (4, 6, 1))
    return load_splits(str(path), **flags)


def test_image_folder(photos: Path) -> None:
    (photos / ".thumbnails").mkdir()
    (photos / "cats" / ".DS_Store").write_text("hidden files are not data")
    splits = load_photos(photos)
    assert (len(splits.train), len(splits.holdout), len(splits.test)) == (36, 12, 12)
    assert splits.spec.class_names == ("cats", "dogs")
    images, labels = rows_of(splits)
    assert sorted(images[:, 0, 0, 0]) == [*range(30), *range(100, 130)]
    np.testing.assert_array_equal(labels, images[:, 0, 0, 0] >= 100)
    np.testing.assert_array_equal(load_photos(photos).test.images, splits.test.images)


def test_image_folder_given_by_a_bare_name(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(photos.parent)
    assert load_splits("photos", image_shape=(4, 6, 1)).spec.num_classes == 2


def test_image_folder_in_colour(photos: Path) -> None:
    for file in photos.glob("*/*.png"):
        PIL.Image.open(file).convert("RGB").save(file)
    assert load_photos(photos, image_shape=(4, 6, 3)).train.images.shape == (36, 4, 6, 3)


def test_image_folder_needs_a_shape(photos: Path) -> None:
    with pytest.raises(DataError, match="does not declare `image_shape`"):
        load_splits(str(photos))


def test_image_folder_refuses_other_sizes_by_name_and_names_the_flag(photos: Path) -> None:
    PIL.Image.new("L", (6, 5)).save(photos / "dogs" / "odd.png")
    with pytest.raises(DataError, match=r"photos/dogs/odd\.png should be 4x6 .* got 5x6\. .*--resize=crop"):
        load_photos(photos)


@pytest.mark.parametrize("keep", [0, 20, 60])
def test_image_folder_names_the_damaged_image(photos: Path, keep: int) -> None:
    rng = np.random.default_rng(0)
    PIL.Image.fromarray(rng.integers(256, size=(4, 6), dtype=np.uint8)).save(photos / "cats" / "odd.png")
    content = (photos / "cats" / "odd.png").read_bytes()
    (photos / "cats" / "odd.png").write_bytes(content[:keep])
    with pytest.raises(DataError, match=r"photos/cats/odd\.png cannot be read"):
        load_photos(photos)


def test_image_folder_refuses_what_it_would_not_read(photos: Path) -> None:
    (photos / "dogs" / "odd.webp").write_bytes(b"")
    with pytest.raises(DataError, match=r"photos/dogs/odd\.webp cannot be read as an image: Pillow knows no format"):
        load_photos(photos)
    (photos / "dogs" / "odd.webp").unlink()
    (photos / "dogs" / "puppies").mkdir()
    with pytest.raises(DataError, match="photos/dogs/puppies should be an image; it is a folder"):
        load_photos(photos)


def test_image_folder_refuses_an_empty_class(photos: Path) -> None:
    (photos / "eels").mkdir()
    with pytest.raises(DataError, match="photos/eels should hold the images of its class; it is empty"):
        load_photos(photos)


def test_image_folder_without_sub_folders(photos: Path) -> None:
    with pytest.raises(DataError, match="one sub-folder of images for each class, at least 2; got 0"):
        load_photos(photos / "cats")


class TinyPhotos(tfds.core.GeneratorBasedBuilder):
    """A TFDS data set whose configurations are what a source can meet."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [  # noqa: RUF012  # TFDS reads this name, as a list
        tfds.core.BuilderConfig(name=name) for name in ("split", "whole", "varying", "floats", "unlabelled")
    ]

    def _info(self) -> tfds.core.DatasetInfo:
        kind = self.builder_config.name
        shape = (None, None, 1) if kind == "varying" else (4, 5, 1)
        image = tfds.features.Image(shape=shape, dtype=np.float32 if kind == "floats" else np.uint8)
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict({"image": image, "label": tfds.features.ClassLabel(num_classes=6)}),
            supervised_keys=None if kind == "unlabelled" else ("image", "label"),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        kind = self.builder_config.name
        return {
            "train": self._generate_examples(100),
            **({"test": self._generate_examples(20)} if kind == "split" else {}),
        }

    def _generate_examples(self, count: int) -> Iterator[tuple[int, Any]]:
        kind = self.builder_config.name
        for i in range(count):
            height = 5 if kind == "varying" and i == 50 else 4
            image = np.full((height, 5, 1), i, np.float32 if kind == "floats" else np.uint8)
            yield i, {"image": image, "label": i % 3}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("tfds"))


def test_tfds_with_a_test_split_of_its_own(data_dir: str) -> None:
    with pytest.raises(DataError, match=r"could not be found or prepared in .*`download` is False"):
        load_splits("tiny_photos/split", data_dir=data_dir, download=False)
    splits = load_splits("tiny_photos/split", data_dir=data_dir)
    assert (len(splits.train), len(splits.holdout), len(splits.test)) == (90, 10, 20)
    assert splits.spec.num_classes == 6  # declared by the builder; 3 occur
    again = load_splits("tiny_photos/split", data_dir=data_dir, download=False)
    np.testing.assert_array_equal(again.holdout.images, splits.holdout.images)
    seen = np.concatenate([splits.train.images, splits.holdout.images])[:, 0, 0, 0]
    assert sorted(seen) == list(range(100))


def test_tfds_without_a_test_split(data_dir: str) -> None:
    splits = load_splits("tiny_photos/whole", data_dir=data_dir)
    assert (len(splits.train), len(splits.holdout), len(splits.test)) == (60, 20, 20)


def test_tfds_of_varying_sizes(data_dir: str) -> None:
    with pytest.raises(DataError, match="does not declare `image_shape`"):
        load_splits("tiny_photos/varying", data_dir=data_dir)
    with pytest.raises(DataError, match=r"example \d+ is \(5, 5, 1\)\. .*--resize"):
        load_splits("tiny_photos/varying", data_dir=data_dir, image_shape=(4, 5, 1))


@pytest.mark.parametrize("name", ["tiny_photos/floats", "tiny_photos/unlabelled", "iris"])
def test_tfds_that_is_no_image_classification(data_dir: str, name: str) -> None:
    with pytest.raises(DataError, match="should be a TFDS image-classification data set"):
        load_splits(name, data_dir=data_dir)


@pytest.mark.parametrize(
    "name", ["no_such_data", "no such data!", "./nowhere", "/nowhere/at/all", "x" * 5000, "a\0b", "~nobody_here/x"]
)
def test_unknown_source_lists_what_is_accepted(name: str, data_dir: str) -> None:
    with pytest.raises(DataError, match=r"'digits', the name of a TFDS .* folder .*\.npz; got"):
        load_splits(name, data_dir=data_dir)


def test_images_of_a_data_set_come_in_the_shape_that_the_model_sees(data_dir: str) -> None:
    assert load_splits("digits", image_shape=(16, 12, 3), resize="pad").train.images.shape == (1_077, 16, 12, 3)
    with pytest.raises(DataError, match=r"`image_shape` should be \(8, 8, 1\), as digits declares, .*--resize=crop"):
        load_splits("digits", image_shape=(16, 16, 1))
    for name in ("tiny_photos/split", "tiny_photos/varying"):
        splits = load_splits(name, data_dir=data_dir, image_shape=(6, 6, 3), resize="stretch")
        assert sorted(splits.train.images[:, 3, 3, 1])[:3] == sorted(splits.train.images[:, 0, 0, 0])[:3]
    assert load_splits("tiny_photos/split", data_dir=data_dir, image_shape=(4, 5, 3)).spec.image_shape == (4, 5, 3)
    with pytest.raises(DataError, match=r"should be \(4, 5, 1\), as tiny_photos/split declares, .*--resize=crop"):
        load_splits("tiny_photos/split", data_dir=data_dir, image_shape=(6, 6, 1))


def test_classes_that_a_data_set_only_numbers_may_be_named(data_dir: str) -> None:
    names = tuple("abcdef")
    assert load_splits("tiny_photos/whole", data_dir=data_dir, classes=names).spec.class_names == names
    with pytest.raises(DataError, match="`classes` should be 0,1,2,3,4,5,6,7,8,9, as digits declares"):
        load_splits("digits", classes=tuple("abcdefghij"))


def test_a_tfds_data_set_that_lies_in_the_working_folder_is_one(data_dir: str, monkeypatch: pytest.MonkeyPatch) -> None:
    load_splits("tiny_photos/whole", data_dir=data_dir)
    monkeypatch.chdir(data_dir)
    assert len(load_splits("tiny_photos/whole", data_dir=".", download=False).train) == 60
