"""What a private step costs: DPKerasAdam beside Keras Adam, beside the stock optimizer, and beside Opacus and JAX.

    python benchmarks/dp_step.py                    # all works; the stock optimizer on (a), peers on (a) and (b)
    python benchmarks/dp_step.py --works=b --repeats=50
    python benchmarks/dp_step.py --no_stock --no_peers
    python benchmarks/dp_step.py --works=ab --profile --no_stock --no_peers

One step is: forward, losses, gradients, update; batch 256, float32. The two are run in turns in one process, and the
ratio is that of the medians. Both do the same work: plain Adam averages the gradients that DPKerasAdam clips one by
one and noises. The networks, the data (uniform noise) and the batch are the same, so nothing here is about learning,
and the steps are DP-correct apart from that: what would be private examples is noise.

Peers (`benchmarks/peers`) do the same work in processes of their own with as many threads, clip, noise and Adam
included. They and the private step run in turns, each after calls of its own that are not timed, so that nobody pays
for what another left in the caches. `make peers` makes their environment; what is set here for memory and threads
(MALLOC_MMAP_THRESHOLD_, OMP_WAIT_POLICY) they inherit.

`--profile` leaves out the private step's parts from the last to the first; each part's time is the difference of two
medians of runs in turns. A part that shares work with the next (products formed for the norm and kept for the sum)
carries it.

The floor is the time that the step's matrix products and convolutions, and no privacy at all, would take at the rate
that this machine reaches on a large matrix product.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf
from peers import protocol

from tfdpgen.installation import tensorflow_privacy
from tfdpgen.privacy import DPKerasAdam
from tfdpgen.privacy.clipping import ClippedSum, clipped_gradient_sum

keras = tf.keras
layers = tf.keras.layers
DPKerasAdamOptimizer = tensorflow_privacy("privacy.optimizers.dp_optimizer_keras").DPKerasAdamOptimizer
BATCH = 256
PEERS = {"Opacus": "opacus_peer.py", "jax": "jax_peer.py"}
PEER_WORKS = "ab"
PEERS_PYTHON = Path(__file__).resolve().parent.parent / ".venv-peers" / "bin" / "python"

Losses = Callable[[], tf.Tensor]
Work = tuple[Sequence[keras.Model], Losses]


def critic(image_shape: tuple[int, int, int], filters: Sequence[int]) -> Work:
    """A convolutional critic: strided 4x4 convolutions with leaky rectifiers, one output."""
    parts: list[Any] = [keras.Input(image_shape)]
    for width in filters:
        parts += [layers.Conv2D(width, 4, strides=2, padding="same"), layers.LeakyReLU(0.2)]
    network = keras.Sequential([*parts, layers.Flatten(), layers.Dense(1)])
    images = tf.random.uniform([BATCH, *image_shape])
    return [network], lambda: tf.nn.softplus(-network(images))[:, 0]


def vae(encoder: keras.Model, decoder: keras.Model, images: tf.Tensor) -> Work:
    """-ELBO of a C-VAE whose encoder gives means and log variances in one vector."""
    labels = tf.one_hot(tf.range(BATCH) % 10, 10)

    def losses() -> tf.Tensor:
        mean, log_variance = tf.split(encoder([images, labels]), 2, axis=1)
        latents = mean + tf.exp(log_variance / 2) * tf.random.normal(tf.shape(mean))
        logits = decoder([latents, labels])
        entropies = tf.nn.sigmoid_cross_entropy_with_logits(labels=images, logits=logits)
        divergences = (tf.exp(log_variance) + tf.square(mean) - 1.0 - log_variance) / 2
        return tf.reduce_sum(tf.reshape(entropies, [BATCH, -1]), axis=1) + tf.reduce_sum(divergences, axis=1)

    return [encoder, decoder], losses


def mlp_vae() -> Work:
    """784+10 -> 400 -> 2x20; 20+10 -> 400 -> 784."""
    images, labels = keras.Input((784,)), keras.Input((10,))
    hidden = layers.Dense(400, "relu")(layers.Concatenate()([images, labels]))
    encoder = keras.Model([images, labels], layers.Dense(40)(hidden))
    latents, labels = keras.Input((20,)), keras.Input((10,))
    hidden = layers.Dense(400, "relu")(layers.Concatenate()([latents, labels]))
    return vae(encoder, keras.Model([latents, labels], layers.Dense(784)(hidden)), tf.random.uniform([BATCH, 784]))


def conv_vae() -> Work:
    """28x28: convolutions 32, 64 -> 2x20; 20+10 -> 7x7x64 -> transposed convolutions 32, 1."""
    images, labels = keras.Input((28, 28, 1)), keras.Input((10,))
    hidden = layers.Conv2D(32, 4, strides=2, padding="same", activation="relu")(images)
    hidden = layers.Conv2D(64, 4, strides=2, padding="same", activation="relu")(hidden)
    encoder = keras.Model([images, labels], layers.Dense(40)(layers.Concatenate()([layers.Flatten()(hidden), labels])))
    latents, labels = keras.Input((20,)), keras.Input((10,))
    hidden = layers.Dense(7 * 7 * 64, "relu")(layers.Concatenate()([latents, labels]))
    hidden = layers.Reshape((7, 7, 64))(hidden)
    hidden = layers.Conv2DTranspose(32, 4, strides=2, padding="same", activation="relu")(hidden)
    logits = layers.Conv2DTranspose(1, 4, strides=2, padding="same")(hidden)
    return vae(encoder, keras.Model([latents, labels], logits), tf.random.uniform([BATCH, 28, 28, 1]))


WORKS: dict[str, tuple[str, Callable[[], Work]]] = {
    "a": ("conv critic, 28x28x1", lambda: critic((28, 28, 1), (64, 128))),
    "b": ("MLP C-VAE, 784", mlp_vae),
    "c": ("conv C-VAE, 28x28x1", conv_vae),
    "d": ("critic of four convolutions, 32x32x3", lambda: critic((32, 32, 3), (64, 128, 256, 256))),
}


def variables_of(networks: Sequence[keras.Model]) -> list[tf.Variable]:
    """The trainable weights of all networks."""
    return [variable for network in networks for variable in network.trainable_variables]


def plain_step(networks: Sequence[keras.Model], losses: Losses) -> Callable[[], object]:
    """A step of Keras Adam on the mean loss."""
    optimizer: Any = tf.keras.optimizers.legacy.Adam(1e-4)
    variables = variables_of(networks)

    @tf.function
    def step() -> None:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(losses())
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))

    return step


def private_step(networks: Sequence[keras.Model], losses: Losses) -> Callable[[], object]:
    """A step of DPKerasAdam, by book-keeping."""
    optimizer = DPKerasAdam(1.0, 1.0, expected_batch_size=BATCH, learning_rate=1e-4)
    variables = variables_of(networks)

    @tf.function
    def step() -> None:
        with optimizer.gradient_tape(*networks) as tape:
            vector = losses()
        optimizer.minimize(vector, variables, tape=tape)

    return step


def stock_step(networks: Sequence[keras.Model], losses: Losses) -> Callable[[], object]:
    """A step of tensorflow-privacy's own optimizer, by jacobians."""
    optimizer = DPKerasAdamOptimizer(1.0, 1.0, learning_rate=1e-4)
    variables = variables_of(networks)

    @tf.function
    def step() -> None:
        with tf.GradientTape() as tape:
            vector = losses()
        optimizer.minimize(vector, variables, tape=tape)

    return step


def partial_steps(networks: Sequence[keras.Model], losses: Losses) -> dict[str, Callable[[], object]]:
    """The private step as far as each of its parts, which are named; what a graph does not return, it leaves out."""
    optimizer = DPKerasAdam(1.0, 1.0, expected_batch_size=BATCH, learning_rate=1e-4)
    variables = variables_of(networks)

    def backward() -> list[tf.Tensor]:
        with optimizer.gradient_tape(*networks) as tape:
            vector = losses()
        return tape.gradient(vector, [z for calls in tape.records.values() for _, z in calls])

    def clipped_sum() -> ClippedSum:
        with optimizer.gradient_tape(*networks) as tape:
            vector = losses()
        return clipped_gradient_sum(tape, vector, variables, l2_norm_clip=1.0)

    steps = {
        "forward": losses,
        "backward, for a and g of each layer": backward,
        "norms": lambda: clipped_sum().norms,
        "factors, guard, weighted sums": lambda: clipped_sum().sums,
        "noise": lambda: optimizer.noised_gradients(clipped_sum().sums),
    }
    functions: dict[str, Callable[[], object]] = {part: tf.function(step) for part, step in steps.items()}
    return {**functions, "Adam": private_step(networks, losses)}


def print_profile(title: str, networks: Sequence[keras.Model], losses: Losses, repeats: int) -> None:
    """A table of milliseconds for each part of the private step."""
    steps = partial_steps(networks, losses)
    print(f"\n{title}: parts of the private step{'':<10}ms")
    before = 0.0
    for part, seconds in zip(steps, medians(list(steps.values()), repeats), strict=True):
        print(f"    {part:<40}{1e3 * (seconds - before):>8.1f}")
        before = seconds
    print(f"    {'all':<40}{1e3 * before:>8.1f}\n", flush=True)


def peer_ratios(
    letter: str, networks: Sequence[keras.Model], losses: Losses, peers: Sequence[protocol.Peer], repeats: int
) -> list[str]:
    """Times each peer's modes and the private step in turns; prints the medians and returns the ratios' lines."""
    parameters = sum(variable.shape.num_elements() for variable in variables_of(networks))
    own = private_step(networks, losses)
    own()
    runs = [(peer, mode) for peer in peers for mode in peer.prepare(letter, parameters)]
    rounds = [
        (protocol.seconds_of(own), *(peer.seconds_of(letter, mode) for peer, mode in runs)) for _ in range(repeats)
    ]
    private, *others = (statistics.median(times) for times in zip(*rounds, strict=True))
    lines: list[str] = []
    print(f"    {'private, beside peers':<36}{'':>10}{1e3 * private:>12.1f}")
    for (peer, mode), seconds in zip(runs, others, strict=True):
        print(f"    {f'{peer.title} {mode}':<36}{'':>10}{1e3 * seconds:>12.1f}", flush=True)
        lines.append(f"({letter}) {peer.title} {mode} / private: {seconds / private:.2f}")
    for peer in peers:
        of_peer = [seconds for (other, _), seconds in zip(runs, others, strict=True) if other is peer]
        if len(of_peer) > 1:
            lines.append(f"({letter}) {peer.title}, fastest mode / private: {min(of_peer) / private:.2f}")
    return lines


def seconds_of(step: Callable[[], object]) -> float:
    """Wall-clock seconds of one call."""
    started = time.perf_counter()
    step()
    return time.perf_counter() - started


def medians(steps: Sequence[Callable[[], object]], repeats: int) -> list[float]:
    """Median seconds of each step, run in turns after two calls that compile and warm."""
    for step in steps:
        step()
        step()
    return [
        statistics.median(times)
        for times in zip(*([seconds_of(step) for step in steps] for _ in range(repeats)), strict=True)
    ]


def matmul_rate(size: int = 2048) -> float:
    """Floating-point operations a second of a large float32 matrix product, the best of several."""
    a = tf.random.uniform([size, size])
    product = tf.function(lambda: tf.reduce_sum(tf.matmul(a, a)))
    product()
    return 2 * size**3 / min(seconds_of(product) for _ in range(5))


def operations_of(layer: layers.Layer) -> int:
    """Floating-point operations of a layer's matrix products or convolutions in one forward pass of the batch."""
    any_layer: Any = layer
    if isinstance(layer, layers.Conv2DTranspose):
        positions = any_layer.input_shape[1] * any_layer.input_shape[2]
    elif isinstance(layer, layers.Conv2D):
        positions = any_layer.output_shape[1] * any_layer.output_shape[2]
    elif isinstance(layer, layers.Dense):
        positions = 1
    else:
        return 0
    return 2 * BATCH * any_layer.kernel.shape.num_elements() * positions


def least_operations(networks: Sequence[keras.Model]) -> int:
    """Floating-point operations of a step without any privacy.

    Forward pass, gradients by weights and gradients by inputs cost each layer the same; the first layer of the first
    network is fed by data, of which no gradient is needed.
    """
    operations = [operations_of(layer) for network in networks for layer in network.layers]
    return 3 * sum(operations) - next(count for count in operations if count)


def main() -> None:
    """Prints a table, and then each ratio on a line of its own."""
    parser = argparse.ArgumentParser(description="Times private steps against plain ones and peers.")
    parser.add_argument("--works", default="abcd", help="which works, as letters (default: abcd)")
    parser.add_argument("--repeats", type=int, default=30, help="paired runs of each step (default: 30)")
    parser.add_argument("--no_stock", action="store_true", help="leave out the stock optimizer, which is slow")
    parser.add_argument("--no_peers", action="store_true", help="leave out Opacus and JAX")
    parser.add_argument("--profile", action="store_true", help="print where the private step's time goes")
    flags = parser.parse_args()
    with_peers = not flags.no_peers and PEERS_PYTHON.exists()
    if not with_peers and not flags.no_peers:
        print("Opacus and JAX are left out, since there is no .venv-peers: `make peers` makes it.\n")

    rate = matmul_rate()
    print(f"matrix products on this machine: {rate / 1e9:.0f} GFLOP/s\n")
    print(f"{'work':<40}{'plain ms':>10}{'private ms':>12}{'floor ms':>10}")
    ratios: list[str] = []
    with contextlib.ExitStack() as stack:
        peers: list[protocol.Peer] = []
        for letter in flags.works:
            title, make = WORKS[letter]
            networks, losses = make()
            plain, private = medians([plain_step(networks, losses), private_step(networks, losses)], flags.repeats)
            floor = least_operations(networks) / rate
            print(f"({letter}) {title:<36}{1e3 * plain:>10.1f}{1e3 * private:>12.1f}{1e3 * floor:>10.1f}", flush=True)
            ratios.append(f"({letter}) private / plain: {private / plain:.2f}")
            ratios.append(f"({letter}) private / floor: {private / floor:.2f}")
            if letter == "a" and not flags.no_stock:
                stock = stock_step(networks, losses)
                stock()
                ratios.append(f"(a) stock DPKerasAdamOptimizer / private: {seconds_of(stock) / private:.0f}")
            if letter in PEER_WORKS and with_peers:
                if not peers:
                    folder = Path(protocol.__file__).parent
                    for name, program in PEERS.items():
                        peers.append(stack.enter_context(protocol.Peer(name, PEERS_PYTHON, folder / program)))
                ratios += peer_ratios(letter, networks, losses, peers, flags.repeats)
            if flags.profile:
                print_profile(f"({letter}) {title}", networks, losses, flags.repeats)
    print("\n" + "\n".join(ratios))


if __name__ == "__main__":
    main()
