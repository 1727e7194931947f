"""JAX on works (a) and (b) of `dp_step.py`: DP-SGD as one writes it there, vmap of the gradient, in one jitted step.

    python benchmarks/dp_step.py --works=ab          # starts this program in .venv-peers

The networks, the clip, the noise and Adam are plain JAX; weights and moments are donated, so that they are updated in
place. Noise comes from JAX's default generator, Threefry.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import protocol

BATCH = 256
MODE = "vmap+clip, jitted"

Weights = Any  # lists of (kernel, bias)
Example = Any
Loss = Callable[[Weights, Example, jax.Array], jax.Array]


def glorot(shapes: list[tuple[int, ...]]) -> Weights:
    """For each kernel's shape a kernel and a bias."""
    make = jax.nn.initializers.glorot_uniform()
    keys = jax.random.split(jax.random.key(0), len(shapes))
    return [(make(key, shape), jnp.zeros(shape[-1])) for key, shape in zip(keys, shapes, strict=True)]


def critic_loss(weights: Weights, image: Example, key: jax.Array) -> jax.Array:
    """The critic's loss of one image [28, 28, 1]."""
    del key
    hidden = image[None]
    for kernel, bias in weights[:-1]:
        hidden = jax.lax.conv_general_dilated(
            hidden, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        hidden = jax.nn.leaky_relu(hidden + bias, 0.2)
    kernel, bias = weights[-1]
    return jax.nn.softplus(-(hidden.reshape(-1) @ kernel + bias))[0]


def vae_loss(weights: Weights, example: Example, key: jax.Array) -> jax.Array:
    """-ELBO of one image [784] with its label [10]: 784+10 -> 400 -> 2x20; 20+10 -> 400 -> 784."""

    def mlp(inputs: jax.Array, layers: Weights) -> jax.Array:
        (kernel_0, bias_0), (kernel_1, bias_1) = layers
        return jax.nn.relu(inputs @ kernel_0 + bias_0) @ kernel_1 + bias_1

    image, label = example
    mean, log_variance = jnp.split(mlp(jnp.concatenate([image, label]), weights[:2]), 2)
    latents = mean + jnp.exp(log_variance / 2) * jax.random.normal(key, mean.shape)
    logits = mlp(jnp.concatenate([latents, label]), weights[2:])
    entropies = jnp.maximum(logits, 0) - logits * image + jnp.log1p(jnp.exp(-jnp.abs(logits)))
    return entropies.sum() + ((jnp.exp(log_variance) + mean**2 - 1 - log_variance) / 2).sum()


def make_work(work: str) -> tuple[Weights, Loss, Example]:
    """Weights, loss of one example, and one fixed batch."""
    if work == "a":
        weights = glorot([(4, 4, 1, 64), (4, 4, 64, 128), (7 * 7 * 128, 1)])
        return weights, critic_loss, jax.random.uniform(jax.random.key(1), (BATCH, 28, 28, 1))
    weights = glorot([(784 + 10, 400), (400, 40), (20 + 10, 400), (400, 784)])
    images = jax.random.uniform(jax.random.key(1), (BATCH, 784))
    return weights, vae_loss, (images, jax.nn.one_hot(jnp.arange(BATCH) % 10, 10))


def noised_gradients(
    loss: Loss, weights: Weights, batch: Example, key: jax.Array, l2_norm_clip: float, noise_multiplier: float
) -> Weights:
    """The mean of the clipped per-example gradients, with noise."""
    noise_key, key = jax.random.split(key)
    gradients = jax.vmap(jax.grad(loss), in_axes=(None, 0, 0))(weights, batch, jax.random.split(key, BATCH))
    leaves, structure = jax.tree.flatten(gradients)
    norms = jnp.sqrt(sum(jnp.sum(jnp.square(leaf.reshape(BATCH, -1)), axis=1) for leaf in leaves))
    factors = jnp.minimum(1.0, l2_norm_clip / norms)
    sums = [jnp.tensordot(factors, leaf, axes=1) for leaf in leaves]
    keys = jax.random.split(noise_key, len(sums))
    stddev = l2_norm_clip * noise_multiplier
    noised = [value + stddev * jax.random.normal(key, value.shape) for key, value in zip(keys, sums, strict=True)]
    return structure.unflatten([value / BATCH for value in noised])


def adam(weights: Weights, gradients: Weights, state: Any, learning_rate: float = 1e-4) -> tuple[Weights, Any]:
    """Kingma & Ba 2015, algorithm 1, with the bias corrections in the rate."""
    count, first, second = state
    count += 1
    first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, first, gradients)
    second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, second, gradients)
    rate = learning_rate * jnp.sqrt(1 - 0.999**count) / (1 - 0.9**count)
    return jax.tree.map(lambda w, m, v: w - rate * m / (jnp.sqrt(v) + 1e-7), weights, first, second), (
        count,
        first,
        second,
    )


def private_step(weights: Weights, loss: Loss, batch: Example) -> Callable[[], None]:
    """A step of DP-SGD with Adam."""
    moments = [jax.tree.map(jnp.zeros_like, weights) for _ in range(2)]
    state: Any = (weights, (jnp.zeros([]), *moments), jax.random.key(2))

    def update(state: Any, batch: Example) -> Any:
        weights, adam_state, key = state
        key, step_key = jax.random.split(key)
        gradients = noised_gradients(loss, weights, batch, step_key, l2_norm_clip=1.0, noise_multiplier=1.0)
        return *adam(weights, gradients, adam_state), key

    jitted = jax.jit(update, donate_argnums=0)

    def step() -> None:
        nonlocal state
        state = jax.block_until_ready(jitted(state, batch))

    return step


def prepare(work: str) -> tuple[int, Mapping[str, Callable[[], protocol.Step]]]:
    """The number of parameters, and what makes the step."""
    weights, loss, batch = make_work(work)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(weights))
    return parameters, {MODE: lambda: private_step(weights, loss, batch)}


if __name__ == "__main__":
    protocol.serve(prepare)
