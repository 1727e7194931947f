"""The exported generator, as a process that has TensorFlow and nothing of ours sees it."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from tfdpgen.data import DataSpec
from tfdpgen.networks.mixture import build_mixture
from tfdpgen.privacy import DPSGD, NoiseSource
from tfdpgen.release import Release, export_saved_model

LATENT_DIM = 4
LABELS = [3, 0, 9, 3, 1, 7]
SEED = 12345678901  # more than 32 bits

# Run by an interpreter in which neither tfdpgen nor Keras can be imported.
STRANGER = """
import json, sys
sys.modules["tfdpgen"] = sys.modules["keras"] = None
import numpy as np
import tensorflow as tf

inputs = np.load(sys.argv[1])
labels, latents, seed = (tf.constant(inputs[name]) for name in ("labels", "latents", "seed"))
arrays, facts = {}, {}
for path in sys.argv[3:]:
    model = tf.saved_model.load(path)
    serve, sample = model.signatures["serving_default"], model.signatures["sample"]
    name = path.rsplit("/", 1)[1]
    refusals = []
    for call in (
        lambda: serve(labels=labels + 1, latents=latents),
        lambda: sample(labels=labels - 1, seed=seed),
        lambda: serve(labels=labels[1:], latents=latents),
    ):
        try:
            call()
            refusals.append("accepted")
        except tf.errors.InvalidArgumentError as error:
            refusals.append(error.message)
    facts[name] = {
        "signatures": {
            key: {
                "inputs": {k: [v.dtype.name, v.shape.as_list()] for k, v in f.structured_input_signature[1].items()},
                "outputs": {k: [v.dtype.name, v.shape.as_list()] for k, v in f.structured_outputs.items()},
            }
            for key, f in model.signatures.items()
        },
        "variables": sorted([n, s] for n, s in tf.train.list_variables(path + "/variables/variables")),
        "refusals": refusals,
    }
    arrays[name + "/served"] = serve(labels=labels, latents=latents)["images"].numpy()
    arrays[name + "/served_again"] = serve(labels=labels, latents=latents)["images"].numpy()
    arrays[name + "/sampled"] = sample(labels=labels, seed=seed)["images"].numpy()
    arrays[name + "/sampled_again"] = sample(labels=labels, seed=seed)["images"].numpy()
    arrays[name + "/other_seed"] = sample(labels=labels, seed=seed + 1)["images"].numpy()
    arrays[name + "/nothing"] = sample(labels=labels[:0], seed=seed)["images"].numpy()
np.savez(sys.argv[2], **arrays)
print(json.dumps(facts))
"""


def _dense_generator() -> tf.keras.Model:
    """Mixtures of two Gaussians of pixels."""
    mixture = build_mixture(np.full((10, 2), 0.5), np.zeros((20, 64)), np.zeros((20, 64, LATENT_DIM - 1)))
    images = tf.keras.layers.Activation("sigmoid")(tf.keras.layers.Reshape((8, 8, 1))(mixture.output))
    return tf.keras.Model(mixture.inputs, images)


def _convolutional_generator() -> tf.keras.Model:
    """What a generator can hold besides dense layers: embedding, batch norm with moving averages, dropout."""
    layers = tf.keras.layers
    latents, labels = tf.keras.Input((LATENT_DIM,)), tf.keras.Input((), dtype=tf.int64)
    hidden = layers.Dense(2 * 2 * 8)(layers.Concatenate()([latents, layers.Embedding(10, 3)(labels)]))
    hidden = layers.Dropout(0.5)(layers.BatchNormalization()(layers.Reshape((2, 2, 8))(hidden)))
    images = layers.Conv2DTranspose(3, 4, 4, padding="same", activation="sigmoid")(hidden)
    return tf.keras.Model([latents, labels], images)


def _release(generator: tf.keras.Model, image_shape: tuple[int, int, int], noise: NoiseSource) -> Release:
    rng = np.random.default_rng(0)
    generator.set_weights([weight + rng.uniform(0.1, 1.0, weight.shape) for weight in generator.get_weights()])
    plan = DPSGD(num_examples=100, expected_batch_size=10, steps=5, l2_norm_clip=1.0, noise_multiplier=2.0)
    spec = DataSpec(image_shape, num_classes=10)
    return Release(generator, spec, plan.event, plan.statement(1e-3, noise=noise), "test")


@dataclasses.dataclass(frozen=True)
class Stranger:
    """What the bare process loaded and saw."""

    release: Release
    directory: pathlib.Path
    latents: np.ndarray
    images: dict[str, np.ndarray]
    facts: dict


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Stranger]:
    """Both releases, exported and loaded by one bare process."""
    folder = tmp_path_factory.mktemp("serving")
    releases = {
        "mixture": _release(_dense_generator(), (8, 8, 1), NoiseSource()),
        "convolutional": _release(_convolutional_generator(), (8, 8, 3), NoiseSource.insecure(seed=0)),
    }
    (folder / "1" / "convolutional").mkdir(parents=True)  # an empty folder is as good as none
    for name, release in releases.items():
        export_saved_model(release, folder / "1" / name)
    latents = np.random.default_rng(1).standard_normal((len(LABELS), LATENT_DIM)).astype(np.float32)
    np.savez(folder / "inputs.npz", labels=np.array(LABELS, np.int64), latents=latents, seed=np.int64(SEED))
    paths = [folder / "inputs.npz", folder / "outputs.npz", *(folder / "1" / name for name in releases)]
    run = subprocess.run(
        [sys.executable, "-I", "-c", STRANGER, *map(str, paths)], cwd="/", capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr[-3000:]
    outputs, facts = np.load(folder / "outputs.npz"), json.loads(run.stdout)
    return {
        name: Stranger(
            release,
            folder / "1" / name,
            latents,
            {key.split("/")[1]: outputs[key] for key in outputs.files if key.startswith(name + "/")},
            facts[name],
        )
        for name, release in releases.items()
    }


@pytest.fixture(params=["mixture", "convolutional"])
def stranger(request: pytest.FixtureRequest, strangers: dict[str, Stranger]) -> Stranger:
    return strangers[request.param]


def test_signatures(stranger: Stranger):
    output = {"images": ["uint8", [None, *stranger.release.spec.image_shape]]}
    labels = ["int64", [None]]
    assert stranger.facts["signatures"] == {
        "serving_default": {
            "inputs": {"labels": labels, "latents": ["float32", [None, LATENT_DIM]]},
            "outputs": output,
        },
        "sample": {"inputs": {"labels": labels, "seed": ["int64", []]}, "outputs": output},
    }


def test_sample_draws_what_the_release_draws(stranger: Stranger):
    images = stranger.images
    assert images["sampled"].dtype == np.uint8
    assert np.ptp(images["sampled"]) > 0, "a constant image would agree with anything"
    np.testing.assert_array_equal(images["sampled"], stranger.release.sample(LABELS, SEED))
    np.testing.assert_array_equal(images["sampled"], images["sampled_again"])
    assert not np.array_equal(images["sampled"], images["other_seed"])
    assert images["nothing"].shape == (0, *stranger.release.spec.image_shape)


def test_serving_default_is_the_generator_in_inference_mode(stranger: Stranger):
    inputs = [tf.constant(stranger.latents), tf.constant(LABELS, tf.int64)]
    expected = np.rint(stranger.release.generator(inputs, training=False).numpy() * 255).astype(np.uint8)
    np.testing.assert_array_equal(stranger.images["served"], expected)
    np.testing.assert_array_equal(stranger.images["served"], stranger.images["served_again"])
    assert not np.array_equal(stranger.images["served"], stranger.images["sampled"])


def test_refusals_name_the_allowed_range(stranger: Stranger):
    too_high, too_low, unequal = stranger.facts["refusals"]
    assert "`labels` should lie in [0, 10)" in too_high
    assert "`labels` should lie in [0, 10)" in too_low
    assert "`labels` and `latents` should have the same length" in unequal


def test_holds_the_generators_variables_and_nothing_else(stranger: Stranger):
    bookkeeping = "_CHECKPOINTABLE_OBJECT_GRAPH"
    stored = [shape for name, shape in stranger.facts["variables"] if name != bookkeeping]
    assert sorted(stored) == sorted(variable.shape.as_list() for variable in stranger.release.generator.variables)
    files = {str(path.relative_to(stranger.directory)) for path in stranger.directory.rglob("*") if path.is_file()}
    statement = "privacy_statement.txt" if stranger.release.is_releasable else "NOT_FOR_RELEASE.txt"
    assert files == {
        "saved_model.pb",
        "fingerprint.pb",
        "variables/variables.index",
        "variables/variables.data-00000-of-00001",
        f"assets.extra/{statement}",
    }
    graph = (stranger.directory / "saved_model.pb").read_bytes().lower()
    assert b"labels" in graph
    for word in (b"adam", b"encoder", b"critic", b"optimizer", b"_tf_keras", b"tfdpgen", b"/tests/"):
        assert word not in graph, word


def test_the_statement_lies_beside_the_model(strangers: dict[str, Stranger]):
    private, seeded = strangers["mixture"], strangers["convolutional"]
    text = (private.directory / "assets.extra" / "privacy_statement.txt").read_text()
    assert text.strip() == private.release.statement.text
    assert (seeded.directory / "assets.extra" / "NOT_FOR_RELEASE.txt").read_text().startswith("NOT FOR RELEASE")


def test_a_model_that_is_there_is_not_replaced(strangers: dict[str, Stranger]):
    stranger = strangers["mixture"]
    before = (stranger.directory / "saved_model.pb").read_bytes()
    with pytest.raises(FileExistsError, match="next version"):
        export_saved_model(stranger.release, stranger.directory)
    assert (stranger.directory / "saved_model.pb").read_bytes() == before


def test_a_failed_export_leaves_nothing(
    strangers: dict[str, Stranger], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
):
    save = tf.saved_model.save

    def save_and_fail(*args: object, **kwargs: object) -> None:
        save(*args, **kwargs)
        raise OSError("disk full")

    monkeypatch.setattr(tf.saved_model, "save", save_and_fail)
    with pytest.raises(OSError, match="disk full"):
        export_saved_model(strangers["mixture"].release, tmp_path / "1")
    assert list(tmp_path.iterdir()) == []
