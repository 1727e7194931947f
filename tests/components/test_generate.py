"""Generation from a real, untrained release: what is written is readable, and a function of the seed alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dp_accounting
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from components import ComponentError, SyntheticExamples, TrainedRelease
from components import generate as module
from components.generate import generate
from tfdpgen.data import DataSpec, npz
from tfdpgen.data.npz import NpzFile
from tfdpgen.data.npz_writer import Member
from tfdpgen.privacy import PrivacyStatement
from tfdpgen.release import Release


def _save_release(path: Path, spec: DataSpec) -> TrainedRelease:
    """An artifact with an untrained generator."""
    tf.keras.utils.set_random_seed(0)
    latents, labels = tf.keras.Input([4]), tf.keras.Input([], dtype="int64")
    classes = tf.keras.layers.Embedding(spec.num_classes, 8)(labels)
    hidden = tf.keras.layers.Concatenate()([latents, classes])
    pixels = tf.keras.layers.Dense(int(np.prod(spec.image_shape)), "sigmoid")(hidden)
    statement = PrivacyStatement(
        epsilon=1.0,
        delta=1e-5,
        accountant="pld",
        epsilon_rdp=1.0,
        epsilon_replace_one=2.0,
        epsilon_compute_dp_sgd_privacy=1.0,
        noise_multiplier=1.0,
        sampling="poisson",
        num_examples=100,
        expected_batch_size=10,
        steps=1,
        l2_norm_clip=1.0,
        neighboring_relation="add-or-remove-one",
        unit="example",
        assumptions=(),
        priors=(),
        mechanisms=(),
        compute_dp_sgd_privacy_statement="",
        noise_source="operating system",
    )
    images = tf.keras.layers.Reshape(spec.image_shape)(pixels)
    generator = tf.keras.Model([latents, labels], images)
    Release(generator, spec, dp_accounting.GaussianDpEvent(1.0), statement, "untrained").save(path)
    artifact = TrainedRelease(path, "train")
    artifact.seal()
    return artifact


@pytest.fixture(scope="module", params=[(8, 8, 1), (4, 6, 3)], ids=str)
def release(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TrainedRelease:
    names = ("a", "b", "c") if request.param[-1] == 3 else ()
    return _save_release(tmp_path_factory.mktemp("release"), DataSpec(request.param, 3, class_names=names))


def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 10 examples, and two of them in a file."""
    monkeypatch.setattr(module, "EXAMPLES_PER_BLOCK", 10)
    monkeypatch.setattr(module, "BYTES_PER_FILE", 2 * 10 * 72)


def _generate(release: TrainedRelease, path: Path, **parameters: object) -> SyntheticExamples:
    generate.execute({"release": release.path}, {"synthetic": path}, parameters)
    return SyntheticExamples.open(path)


def test_tfds_and_npz_hold_the_release_s_rows_in_order(
    release: TrainedRelease, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _small_blocks(monkeypatch)
    artifact = _generate(release, tmp_path / "a", num_synthetic=25, seed=7)

    examples, trained = artifact.load(), Release.load(release.path)
    assert examples.spec == trained.spec
    assert len(examples) == 25
    np.testing.assert_array_equal(examples.labels, np.arange(25) % 3)
    for shard, part in enumerate(np.split(np.arange(25), [10, 20])):
        np.testing.assert_array_equal(examples.images[part], trained.sample(examples.labels[part], seed=(7, shard)))

    builder = tfds.builder_from_directory(artifact.path)
    assert builder.info.splits["train"].num_examples == 25
    features: Any = builder.info.features
    label = features["label"]
    assert label.num_classes == 3
    if trained.spec.class_names:
        assert tuple(label.names) == trained.spec.class_names
    stored = list(tfds.as_numpy(builder.as_dataset(split="train", shuffle_files=False)))
    np.testing.assert_array_equal(np.stack([example["image"] for example in stored]), examples.images)
    np.testing.assert_array_equal([example["label"] for example in stored], examples.labels)
    first, *_ = tfds.as_numpy(builder.as_dataset(split="train", as_supervised=True))
    np.testing.assert_array_equal(first[0], examples.images[0])
    assert {path.name for path in artifact.path.iterdir()} - {"label.labels.txt"} == {
        "artifact.json",
        "dataset_info.json",
        "features.json",
        *(f"synthetic-train.tfrecord-0000{number}-of-00002" for number in (0, 1)),
        "synthetic.npz",
    }


def test_classes_are_named_in_both_forms_and_balanced(release: TrainedRelease, tmp_path: Path) -> None:
    artifact = _generate(release, tmp_path / "a", num_synthetic=6)
    spec = Release.load(release.path).spec
    names = [spec.name_of(label) for label in range(3)]
    with np.load(artifact.path / "synthetic.npz") as arrays:
        assert arrays["class_names"].tolist() == names
        assert arrays["class_names"][arrays["labels"]].tolist() == [*names, *names]
    features: Any = tfds.builder_from_directory(artifact.path).info.features
    assert [features["label"].int2str(label) for label in range(3)] == names


def test_some_of_the_examples_can_be_read_alone(
    release: TrainedRelease, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = _generate(release, tmp_path / "a", num_synthetic=25)
    asked: list[tuple[str, int, int | None]] = []
    read = NpzFile.read

    def noted(self: NpzFile, member: npz.Member, start: int = 0, stop: int | None = None) -> np.ndarray:
        asked.append((member.name, start, stop))
        return read(self, member, start, stop)

    monkeypatch.setattr(NpzFile, "read", noted)
    some = artifact.load(7)
    np.testing.assert_array_equal(some.images, artifact.load().images[:7])
    assert ("images", 0, 7) in asked
    assert artifact.load_augmented() is None


def test_no_more_than_a_block_is_held_at_a_time(
    release: TrainedRelease, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _small_blocks(monkeypatch)
    sizes: list[int] = []
    training_set, append = Release.training_set, Member.append

    def watched_training_set(self: Release, labels: Any, seed: Any) -> Any:
        sizes.append(len(labels))
        return training_set(self, labels, seed)

    def watched_append(self: Member, block: Any) -> None:
        sizes.append(0 if block.dtype.kind == "U" else len(block))  # names of classes are no examples
        append(self, block)

    monkeypatch.setattr(Release, "training_set", watched_training_set)
    monkeypatch.setattr(Member, "append", watched_append)
    artifact = _generate(release, tmp_path / "a", num_synthetic=95)
    assert max(sizes) == module.EXAMPLES_PER_BLOCK == 10
    assert len(list(artifact.path.glob("*.tfrecord-*-of-00005"))) == 5
    assert len(artifact.load()) == 95


def test_no_more_is_expected_than_is_declared(release: TrainedRelease, tmp_path: Path) -> None:
    artifact = _generate(release, tmp_path / "a", num_synthetic=400)
    size = sum(path.stat().st_size for path in artifact.path.iterdir())
    expected = SyntheticExamples.expected_bytes(400, Release.load(release.path).spec, has_augmented=False)
    assert size - 5000 < expected < 12 * size  # a few kB describe the data set, however large it is


def test_examples_depend_on_the_seed_and_not_on_the_runner(
    release: TrainedRelease, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _small_blocks(monkeypatch)
    one = _generate(release, tmp_path / "a", num_synthetic=25, seed=1).load().images
    threads = "--direct_num_workers=2 --direct_running_mode=multi_threading"
    np.testing.assert_array_equal(
        _generate(release, tmp_path / "a", num_synthetic=25, seed=1, beam_args=threads).load().images, one
    )
    assert (_generate(release, tmp_path / "a", num_synthetic=25, seed=2).load().images != one).any()


def test_no_examples_are_refused(release: TrainedRelease, tmp_path: Path) -> None:
    with pytest.raises(ComponentError, match="`num_synthetic` should be at least 1; got 0"):
        _generate(release, tmp_path / "a", num_synthetic=0)
    assert not (tmp_path / "a").exists()
