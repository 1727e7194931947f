"""What Gaussians and Poisson-sampled Gaussians cost where one example is replaced by another.

The pair of distributions that bounds a step is, in units of the clip, with noise sigma and sampling probability q,

    P = (1 - q) N(0, sigma^2) + q N(1, sigma^2)    against    Q = (1 - q) N(0, sigma^2) + q N(-1, sigma^2)

**Why it is a bound.** Let D and D' differ in one example. H_g(A, B) is the largest A(S) - g B(S) of all sets S.

1. Given what was released before, and which of the common examples were drawn, a step's output is N(m, sigma^2 I) if
   the example was not drawn, N(m + x, sigma^2 I) if it was drawn from D, N(m + x', sigma^2 I) if from D', where |x|,
   |x'| <= 1 and so |x - x'| <= 2. The draws of the common examples, and latents, fakes and augmentations, have the
   same distribution under D and D', whatever the example is; H is jointly convex, so averaging over them cannot
   increase it.
2. Let g >= 1. For a set S of probability p under N(m + x), the expression to maximise is
   q p - (g - 1) (1 - q) N(m)(S) - g q N(m + x')(S), in which both last terms count against S. By the lemma of Neyman
   and Pearson, a set of probability p under one Gaussian has at least probability F(F^-1(p) - d / sigma) under another
   at distance d, F being the normal distribution. That falls with d, and the two distances are at most 1 and 2.
3. The half-lines {y > t} attain both at once for N(1), N(0), N(-1), whose means lie on one line in this order, so that
   one family of sets is worst for both terms. So H_g is at most H_g(P, Q).
4. For g < 1, H_g(A, B) = 1 - g + g H_{1/g}(B, A). The relation is symmetric, and y -> -y exchanges P and Q, so the
   bound of 3 carries over. P, Q thus dominate for all g >= 0, which is what adaptive composition needs (Zhu, Dong &
   Wang 2022, "Optimal accounting of differential privacy via characteristic function").

It is also attained, by examples whose clipped gradients always point in opposite directions and against common examples
of which nothing is hidden (m known in each step, zero for example), so it cannot be improved.
x' = 0 covers adding and removing, which therefore never cost more; q = 1 gives the plain Gaussian of sensitivity 2.

Lebeda et al. 2024, "Avoiding pitfalls for privacy accounting of subsampled mechanisms under composition", warn that
composing the worst pair of data sets of a mechanism with itself is not a bound in general. It is one here because of
what step 2 uses and other mechanisms lack: one family of sets, the half-lines, is worst for both Gaussians at once, and
at every g.

dp-accounting composes the privacy loss distributions of this pair. It has no Renyi divergences of it (and those of a
Gaussian under replace-one take the sensitivity for 1), so these are here.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from dp_accounting import rdp
from dp_accounting.rdp import rdp_privacy_accountant
from scipy import special

from tfdpgen.privacy.accounting.events import Part

_Floats = npt.NDArray[np.float64]

_TAIL = 9.75  # standard deviations, outside which lies a probability of e^-50
_MOST_POINTS = 300_000


def epsilon_by_rdp(parts: Mapping[Part, int], delta: float) -> float:
    """Epsilon by the Renyi divergences of the pairs, which add up and bound every pair of neighbours'.

    A pair that dominates in all H_g dominates in every divergence that is an average of them, of which Renyi's is a
    monotone function. The step from divergences to epsilon is dp-accounting's.

    Args:
      parts: how often each occurs; probabilities and noise multipliers greater than 0.
      delta: in (0, 1).
    """
    orders = rdp_privacy_accountant.DEFAULT_RDP_ORDERS
    total = np.zeros(len(orders))
    for part, count in parts.items():
        total += count * _renyi_divergences(tuple(orders), *part[:2])
    epsilon, _ = rdp.compute_epsilon(orders, total.tolist(), delta)
    return float(epsilon)


def largest_loss(sampling_probability: float, noise_multiplier: float) -> float:
    """The privacy loss that P exceeds with probability e^-50 or less."""
    tail = np.array(1 + _TAIL * noise_multiplier)
    return float(np.subtract(*_log_ratios(tail, sampling_probability, noise_multiplier)))


@functools.lru_cache(maxsize=64)
def _renyi_divergences(orders: tuple[float, ...], sampling_probability: float, noise_multiplier: float) -> _Floats:
    """Renyi divergences of P from Q at `orders`, by the trapezoidal rule.

    The integrand P^a Q^(1 - a) falls off like a Gaussian outside [0, 2 a - 1] and is analytic within pi sigma^2 of the
    real line, where the rule's error is far below rounding. Where it would take too many points, the divergence without
    sampling stands for it, which by joint convexity is larger.
    """
    spacing = min(0.25, noise_multiplier / 20)  # in standard deviations
    result = []
    for order in orders:
        points = math.ceil((24 + (2 * order - 1) / noise_multiplier) / spacing)
        if sampling_probability == 1 or points > _MOST_POINTS:
            result.append(2 * order / noise_multiplier**2)
            continue
        deviations = -12 + spacing * np.arange(points, dtype=np.float64)
        log_p, log_q = _log_ratios(noise_multiplier * deviations, sampling_probability, noise_multiplier)
        log_measure = math.log(spacing / math.sqrt(2 * math.pi)) - 0.5 * deviations**2
        result.append(_log_moment(order, log_p + log_measure, log_q + log_measure) / (order - 1))
    return np.array(result)


def _log_moment(order: float, log_p: _Floats, log_q: _Floats) -> float:
    """The logarithm of the sum of P^order Q^(1 - order), right also where it is below the rounding errors of 1.

    Since P and Q sum to 1, it is log(1 + sum of Q (r^order - 1 - order (r - 1))) with r = P / Q, whose terms are not
    negative.
    """
    integrand = order * log_p + (1 - order) * log_q
    log_moment: Any = special.logsumexp(integrand)
    if log_moment > 0.1:
        return float(log_moment)
    p, q = np.exp(log_p), np.exp(log_q)
    log_r = np.clip(log_p - log_q, -0.5 / order, 0.5 / order)  # where it is larger, nothing cancels
    small = q * (np.expm1(order * log_r) - order * np.expm1(log_r))
    excess = np.where(np.abs(log_p - log_q) * order < 0.5, small, np.exp(integrand) - q - order * (p - q))
    return math.log1p(float(np.sum(excess)))


def _log_ratios(outputs: _Floats, sampling_probability: float, noise_multiplier: float) -> tuple[_Floats, _Floats]:
    """Logarithms of P's and Q's densities at `outputs`, each over that of N(0, sigma^2)."""
    with np.errstate(divide="ignore"):
        log_out = np.log1p(-sampling_probability)
    log_in = math.log(sampling_probability) - 0.5 * noise_multiplier**-2
    shift = outputs * noise_multiplier**-2
    return np.logaddexp(log_out, log_in + shift), np.logaddexp(log_out, log_in - shift)
