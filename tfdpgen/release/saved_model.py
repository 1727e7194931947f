"""SavedModel: the generator of a release in a form that any TensorFlow loads without tfdpgen.

    export_saved_model(release, "serving_model/1")

    model = tf.saved_model.load("serving_model/1")              # a process that has nothing but TensorFlow
    model.signatures["sample"](labels=tf.constant([3, 3], tf.int64), seed=tf.constant(0, tf.int64))["images"]

Signatures; both answer `images`, uint8 [n, height, width, channels], and refuse labels outside [0, num_classes):

- `serving_default`: labels int64 [n], latents float32 [n, latent_dim]. The same input gives the same images.
- `sample`: labels int64 [n], seed int64 []. Samples the latents that `Release.sample(labels, seed)` samples.

Inside are two graphs and the generator's variables, nothing else: no optimizer, critic, encoder or Keras object. The
privacy statement lies beside them, in `assets.extra`.
"""

from __future__ import annotations

import os
import pathlib
import tempfile
from collections.abc import Callable, Sequence

import tensorflow as tf

from tfdpgen.release.release import Release, sample_latents, to_uint8


def export_saved_model(release: Release, directory: str | os.PathLike[str]) -> None:
    """Writes the generator of `release` as a SavedModel; `directory` appears when it is complete.

    Beside the model, `assets.extra/privacy_statement.txt` says what is promised. Where the noise was seeded the file is
    called `NOT_FOR_RELEASE.txt`.

    Args:
      release: whose generator is written.
      directory: new or empty; TensorFlow Serving expects its name to be a version number.

    Raises:
      FileExistsError: if something is there already.
    """
    directory = pathlib.Path(directory)
    if directory.exists() and not (directory.is_dir() and not any(directory.iterdir())):
        raise FileExistsError(
            f"`directory` should be new or empty, since a model that is being served must not change under its "
            f"server; {str(directory)!r} holds something. Export to the next version number."
        )
    module, signatures = _module(release)
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{directory.name}.", dir=directory.parent) as staging:
        staged = pathlib.Path(staging, "model")
        tf.saved_model.save(module, str(staged), signatures=signatures)
        extra = staged / "assets.extra"
        extra.mkdir()
        statement = "privacy_statement.txt" if release.is_releasable else "NOT_FOR_RELEASE.txt"
        (extra / statement).write_text(release.statement.text + "\n", encoding="utf-8")
        staged.rename(directory)


class _Variables(tf.Module):
    """The generator's variables without its layers, whose configuration would be written with the model."""

    def __init__(self, variables: Sequence[tf.Variable]) -> None:
        super().__init__(name="generator")
        self.generator_variables = list(variables)


def _module(release: Release) -> tuple[tf.Module, dict[str, Callable[..., dict[str, tf.Tensor]]]]:
    """The generator's variables, and the functions on them; these reach the Keras model through their closure."""
    generator, num_classes, latent_dim = release.generator, release.spec.num_classes, release.latent_dim
    labels_spec = tf.TensorSpec([None], tf.int64, name="labels")

    def generate(labels: tf.Tensor, latents: tf.Tensor) -> dict[str, tf.Tensor]:
        refusal = f"`labels` should lie in [0, {num_classes})"
        checks = [
            tf.debugging.assert_non_negative(labels, message=refusal),
            tf.debugging.assert_less(labels, tf.constant(num_classes, tf.int64), message=refusal),
        ]
        with tf.control_dependencies(checks):  # before any check that a layer makes in words of its own
            labels = tf.identity(labels)
        return {"images": to_uint8(generator([latents, labels], training=False))}

    @tf.function(input_signature=[labels_spec, tf.TensorSpec([None, latent_dim], tf.float32, name="latents")])
    def serving_default(labels: tf.Tensor, latents: tf.Tensor) -> dict[str, tf.Tensor]:
        tf.debugging.assert_equal(
            tf.shape(labels)[0], tf.shape(latents)[0], message="`labels` and `latents` should have the same length"
        )
        return generate(labels, latents)

    @tf.function(input_signature=[labels_spec, tf.TensorSpec([], tf.int64, name="seed")])
    def sample(labels: tf.Tensor, seed: tf.Tensor) -> dict[str, tf.Tensor]:
        return generate(labels, sample_latents(tf.shape(labels)[0], latent_dim, tf.stack([seed, 0])))

    return _Variables(generator.variables), {"serving_default": serving_default, "sample": sample}
