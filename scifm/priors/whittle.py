"""The most likely spectrum with few numbers: Whittle's likelihood, minimised by Newton's method.

For independent Gaussian coefficients with variances S_k and powers P_k,

    minimise  f(θ) = mean of log S_k + P_k / S_k.

Where log S is linear in θ, or 1/S is, f is convex, and Newton steps with halving lead to its one minimum in a dozen
iterations. Reference: Whittle 1953.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["most_likely"]


def most_likely(who: str, log: Callable[[Tensor], Tensor], start: Tensor, power: Tensor, first: float = 0.0) -> Tensor:
    """Minimise f over θ.

    Args:
        who: whom to name in an error.
        log: θ (k,) -> log S (M,).
        start: θ to begin with, at which S is positive.
        power: P (M,).
        first: where it is not zero, θ[0] scales S as exp(θ[0] / first), and is first set to the best scale.

    Raises:
        ValueError: where the data do not determine θ.
    """
    theta = start.to(power)

    def loss(theta: Tensor) -> Tensor:
        log_s = log(theta)
        return (log_s + power * (-log_s).exp()).mean()

    if first:
        theta = theta + first * (power * (-log(theta)).exp()).mean().log() * (torch.arange(len(theta)) == 0).to(theta)
    for _ in range(200):
        slope, curve = torch.func.grad(loss)(theta), torch.func.hessian(loss)(theta)
        if not curve.isfinite().all() or float(torch.linalg.cond(curve)) > 1e13:
            break
        step = -torch.linalg.solve(curve, slope)
        gain, length, here = float(-slope @ step), 1.0, float(loss(theta))
        if gain < 1e-14:
            return theta + step
        # Beyond where S is positive the loss is NaN, which is not less than anything.
        while not float(loss(theta + length * step)) <= here - 1e-4 * length * gain and length > 1e-12:
            length /= 2
        theta = theta + length * step
    raise ValueError(
        f"{who}: these data do not determine the {len(start)} numbers of the law; it takes sets with several modes "
        "and, where it depends on n, of several sizes. A law with fewer numbers cures this."
    )
