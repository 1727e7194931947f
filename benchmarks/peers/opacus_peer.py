"""Opacus on works (a) and (b) of `dp_step.py`, in each of its modes that clip example by example.

    python benchmarks/dp_step.py --works=ab          # starts this program in .venv-peers

- hooks: per-example gradients by Opacus's own rules for layers.
- functorch: the same by vmap of each layer's gradient.
- ew: the same by PyTorch's expanded weights.
- ghost: norms without per-example gradients where the layer allows it (Linear, not Conv2d), and a second backward pass.

What is left to the caller is set in Opacus's favour: Adam is PyTorch's fused one.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping
from functools import partial

import protocol
import torch
from opacus.grad_sample.utils import prepare_module
from opacus.optimizers import get_optimizer_class
from opacus.utils.fast_gradient_clipping_utils import DPTensorFastGradientClipping
from torch import nn
from torch.nn import functional

BATCH = 256
MODES = ("hooks", "functorch", "ew", "ghost")

Losses = Callable[[nn.Module], torch.Tensor]


def critic() -> nn.Module:
    """Padding 1 on both sides is TensorFlow's "same" for 4x4 kernels of stride 2 on an even size."""
    return nn.Sequential(
        nn.Conv2d(1, 64, 4, stride=2, padding=1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(64, 128, 4, stride=2, padding=1),
        nn.LeakyReLU(0.2),
        nn.Flatten(),
        nn.Linear(7 * 7 * 128, 1),
    )


def critic_losses(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """The critic's loss of each image."""
    return functional.softplus(-network(images))[:, 0]


class MLPVAE(nn.Module):
    """784+10 -> 400 -> 2x20; 20+10 -> 400 -> 784."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(784 + 10, 400), nn.ReLU(), nn.Linear(400, 40))
        self.decoder = nn.Sequential(nn.Linear(20 + 10, 400), nn.ReLU(), nn.Linear(400, 784))

    def forward(self, images: torch.Tensor, labels: torch.Tensor, normals: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Logits, means and log variances."""
        mean, log_variance = self.encoder(torch.cat([images, labels], dim=1)).chunk(2, dim=1)
        latents = mean + torch.exp(log_variance / 2) * normals
        return self.decoder(torch.cat([latents, labels], dim=1)), mean, log_variance


def vae_losses(network: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """-ELBO of each image."""
    logits, mean, log_variance = network(images, labels, torch.randn(BATCH, 20))
    entropies = functional.binary_cross_entropy_with_logits(logits, images, reduction="none")
    divergences = (torch.exp(log_variance) + torch.square(mean) - 1 - log_variance) / 2
    return entropies.sum(dim=1) + divergences.sum(dim=1)


def make_work(work: str) -> tuple[Callable[[], nn.Module], Losses]:
    """What makes the network of a work, and its losses on one fixed batch."""
    if work == "a":
        return critic, partial(critic_losses, images=torch.rand(BATCH, 1, 28, 28))
    labels = functional.one_hot(torch.arange(BATCH) % 10, 10).float()
    return MLPVAE, partial(vae_losses, images=torch.rand(BATCH, 784), labels=labels)


def private_step(
    network: nn.Module, losses_fn: Losses, mode: str, l2_norm_clip: float = 1.0, noise_multiplier: float = 1.0
) -> Callable[[], None]:
    """A step of DP-SGD with Adam, as Opacus's `PrivacyEngine.make_private` would wire it."""
    clip = {"max_grad_norm": l2_norm_clip} if mode == "ghost" else {}
    module = prepare_module(network, mode, loss_reduction="mean", **clip)
    optimizer = get_optimizer_class(clipping="flat", distributed=False, grad_sample_mode=mode)(
        torch.optim.Adam(module.parameters(), lr=1e-4, fused=True),
        noise_multiplier=noise_multiplier,
        max_grad_norm=l2_norm_clip,
        expected_batch_size=BATCH,
    )

    def step() -> None:
        losses = losses_fn(module)
        if mode == "ghost":
            DPTensorFastGradientClipping(module, optimizer, losses).backward()
        else:
            losses.mean().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def prepare(work: str) -> tuple[int, Mapping[str, Callable[[], protocol.Step]]]:
    """The number of parameters, and what makes each mode's step."""
    make_network, losses_fn = make_work(work)
    parameters = sum(parameter.numel() for parameter in make_network().parameters())
    return parameters, {mode: lambda mode=mode: private_step(make_network(), losses_fn, mode) for mode in MODES}


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    protocol.serve(prepare)
