"""Releases and networks whose answer is known: what attacks have to find, and what they must not find."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfdpgen.data import DataSpec, LabeledDataset

keras = tf.keras


class Replay:
    """A "release" that hands out the examples it was trained on, by class."""

    def __init__(self, dataset: LabeledDataset) -> None:
        self.dataset, self.spec = dataset, dataset.spec

    def sample(self, labels: npt.ArrayLike, seed: int) -> npt.NDArray[np.uint8]:
        rng = np.random.default_rng(seed)
        examples = [np.flatnonzero(self.dataset.labels == label) for label in range(self.spec.num_classes)]
        return self.dataset.images[[rng.choice(examples[label]) for label in np.asarray(labels)]]


class Noise:
    """A "release" that knows nothing."""

    def __init__(self, spec: DataSpec) -> None:
        self.spec = spec

    def sample(self, labels: npt.ArrayLike, seed: int) -> npt.NDArray[np.uint8]:
        shape = len(np.asarray(labels)), *self.spec.image_shape
        return np.random.default_rng(seed).integers(256, size=shape, dtype=np.uint8)


def noise_examples(num_examples: int, seed: int, side: int = 4) -> LabeledDataset:
    """Examples that have nothing in common."""
    rng = np.random.default_rng(seed)
    spec = DataSpec((side, side, 1), num_classes=2)
    images = rng.integers(256, size=(num_examples, side, side, 1), dtype=np.uint8)
    return LabeledDataset(images, np.arange(num_examples) % 2, spec)


def overfitted_autoencoder(examples: LabeledDataset, steps: int = 1000) -> dict[str, keras.Model]:
    """Encoder and decoder that know `examples` by heart, trained without privacy."""
    shape, classes, latent_dim = examples.spec.image_shape, examples.spec.num_classes, 8
    images, labels = keras.Input(shape), keras.Input((), dtype="int64")
    hidden = keras.layers.Flatten()(images)
    hidden = keras.layers.Concatenate()([hidden, keras.layers.Embedding(classes, 8)(labels)])
    hidden = keras.layers.Dense(128, "relu", kernel_initializer=keras.initializers.GlorotUniform(1))(hidden)
    mean = keras.layers.Dense(latent_dim, kernel_initializer=keras.initializers.GlorotUniform(2))(hidden)
    log_variance = keras.layers.Dense(latent_dim, "linear", kernel_initializer="zeros")(hidden)
    encoder = keras.Model([images, labels], [mean, log_variance])
    latents = keras.Input((latent_dim,))
    hidden = keras.layers.Concatenate()([latents, keras.layers.Embedding(classes, 8)(labels)])
    hidden = keras.layers.Dense(256, "relu", kernel_initializer=keras.initializers.GlorotUniform(3))(hidden)
    pixels = keras.layers.Dense(int(np.prod(shape)), kernel_initializer=keras.initializers.GlorotUniform(4))(hidden)
    decoder = keras.Model([latents, labels], keras.layers.Reshape(shape)(keras.layers.Activation("sigmoid")(pixels)))
    truth, classes_of = tf.constant(examples.images / 255.0, tf.float32), tf.constant(examples.labels)
    variables = encoder.trainable_variables + decoder.trainable_variables
    optimizer = keras.optimizers.legacy.Adam(5e-3)
    rng = tf.random.Generator.from_seed(0)

    @tf.function
    def train() -> None:
        for _ in tf.range(steps):
            with tf.GradientTape() as tape:
                mean, log_variance = encoder([truth, classes_of])
                decoded = decoder([mean + tf.exp(log_variance / 2) * rng.normal(tf.shape(mean)), classes_of])
                entropy = keras.losses.binary_crossentropy(truth, decoded)
                divergence = tf.reduce_sum(tf.exp(log_variance) + mean**2 - 1 - log_variance, axis=1) / 2
                loss = tf.reduce_mean(tf.reduce_sum(entropy, axis=[1, 2]) + divergence)
            optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))

    train()
    return {"encoder": encoder, "decoder": decoder}


def overfitted_critic(
    examples: LabeledDataset, fakes: LabeledDataset, steps: int = 300, *, parts: int = 0
) -> dict[str, keras.Model]:
    """A critic that knows `examples` by heart from what a good generator draws, trained without privacy.

    It has a score for each label or, without regard to labels, as many as there are `parts`, whose mean counts.
    """
    outputs = parts or examples.spec.num_classes
    init = iter(keras.initializers.GlorotUniform(seed) for seed in range(3))
    images = keras.Input(examples.spec.image_shape)
    hidden = keras.layers.Dense(256, "relu", kernel_initializer=next(init))(keras.layers.Flatten()(images))
    critic = keras.Model(images, keras.layers.Dense(outputs, kernel_initializer=next(init))(hidden))
    both = tf.constant(np.concatenate([examples.images, fakes.images]) / 255.0, tf.float32)
    labels = tf.one_hot(np.concatenate([examples.labels, fakes.labels]), examples.spec.num_classes)
    weights = tf.fill([len(examples) + len(fakes), parts], 1 / parts) if parts else labels
    signs = tf.constant(np.repeat([-1.0, 1.0], [len(examples), len(fakes)]), tf.float32)
    optimizer = keras.optimizers.legacy.Adam(3e-3)

    @tf.function
    def train() -> None:
        for _ in tf.range(steps):
            with tf.GradientTape() as tape:
                scores = tf.reduce_sum(critic(both) * weights, axis=1)
                loss = tf.reduce_mean(tf.nn.softplus(signs * scores))
            gradients = tape.gradient(loss, critic.trainable_variables)
            optimizer.apply_gradients(zip(gradients, critic.trainable_variables, strict=True))

    train()
    return {"critic": critic}
