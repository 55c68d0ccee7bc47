"""What is asked of an integration, and what it answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from types import FunctionType

import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.solve.spacing import Spacing, times_of
from scifm.tableaus import METHODS

__all__ = ["Field", "Solution", "Solver", "SolverError", "some"]

Field = Callable[[Tensor, Tensor, Batch, "Tensor | None"], "tuple[Tensor, Tensor | None]"]
"""`(t (B,), x (rows, *event), batch, probes) -> (v like x, divergence (B, K) or None)`.

The batch carries x and holds the samples that are still on their way, and the probes (K, rows, *event), or None, are
cut to them. Sample b's part may depend on sample b only.
"""


class SolverError(RuntimeError):
    """The integration could not be finished; the message says where it stopped and what usually cures it."""


@dataclass(frozen=True)
class Solver:
    """How to integrate.

    Args:
        method: adaptive or fixed: heun, bosh3, dopri5, tsit5, bosh5; fixed only: euler, midpoint, kutta3, rk4, and the
            multistep ab2, ab3, ab4.
        rtol, atol: tolerances per step on the root mean square over a sample's values, for adaptive steps.
            For the log-density they hold per dimension.
        steps: number of fixed steps from t0 to t1. None means adaptive, which needs a method with an error estimate.
        max_steps: adaptive steps, accepted and rejected, after which the solver gives up.
        spacing: where the fixed steps end: a map of [0, 1] onto itself from the prior to the data, in either direction
            of integration, such as `Warp(1.5)` or `cosine`, or the times themselves, from 0 to 1. None is even.

    Raises:
        ValueError: for an unknown method, or settings that do not fit each other.

    Example:
        >>> print(Solver())
        bosh5 rtol 1e-05
        >>> print(Solver("ab2", spacing=(0, 0.5, 0.8, 1)))
        ab2 3 steps at 0, 0.5, 0.8, 1
    """

    method: str = "bosh5"
    rtol: float = 1e-5
    atol: float = 1e-5
    steps: int | None = None
    max_steps: int = 1000
    spacing: Spacing | None = None

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"Solver: unknown method {self.method!r}; there are {', '.join(METHODS)}.")
        if isinstance(self.spacing, tuple) and self.steps is None:
            object.__setattr__(self, "steps", len(self.spacing) - 1)
        if self.steps is None and METHODS[self.method].error is None:
            raise ValueError(f"Solver: {self.method} has no error estimate; give steps=, or use bosh5 or dopri5.")
        if self.steps is not None and (not isinstance(self.steps, int) or self.steps < 1):
            raise ValueError(f"Solver: steps must be a whole number of at least 1, got {self.steps}.")
        if not (self.rtol > 0 and self.atol > 0 and self.max_steps > 0):
            raise ValueError(
                f"Solver: rtol, atol and max_steps must be positive, got {self.rtol}, {self.atol}, {self.max_steps}."
            )
        self._check_spacing()

    def _check_spacing(self) -> None:
        if self.spacing is None:
            return
        if self.steps is None:
            raise ValueError("Solver: spacing places fixed steps; give steps=, or leave it out for adaptive ones.")
        if not isinstance(self.spacing, tuple) and (isinstance(self.spacing, type) or not callable(self.spacing)):
            raise TypeError(
                f"Solver: spacing must be a map such as Warp(1.5) or a tuple of times, got {self.spacing!r}."
            )
        if len(times_of(self.spacing, self.steps)) != self.steps + 1:
            raise ValueError(
                f"Solver: spacing has {len(self.spacing)} times, which bound {len(self.spacing) - 1} steps, and "  # type: ignore[arg-type]
                f"steps={self.steps}; leave steps out."
            )

    def grid(self, t0: float, t1: float) -> list[float]:
        """The steps + 1 times from t0 to t1, of fixed steps; from t = 0's side spaced alike in both directions."""
        if self.steps is None:
            raise ValueError("Solver.grid: adaptive steps have no grid; give steps=.")
        low, high = min(t0, t1), max(t0, t1)
        rising = [low + (high - low) * u for u in times_of(self.spacing, self.steps)]
        rising[-1] = high
        return rising if t0 <= t1 else rising[::-1]

    def tighter(self, dtype: torch.dtype) -> tuple[Solver, float]:
        """To measure this solver's error: the same with a tenth of the tolerance or twice the steps, and the factor
        from the difference of both answers to this one's error (2^p/(2^p − 1) for halved steps at order p)."""
        if self.steps is not None:
            gain, spacing = 2.0 ** METHODS[self.method].order, self.spacing
            if isinstance(spacing, tuple):
                spacing = (*(t for a, b in pairwise(spacing) for t in (a, (a + b) / 2)), spacing[-1])
            return replace(self, steps=2 * self.steps, spacing=spacing), gain / (gain - 1)
        rtol = max(self.rtol / 10, 4 * torch.finfo(dtype).eps)
        return replace(self, rtol=rtol, atol=self.atol / 10, max_steps=4 * self.max_steps), 1.0

    def __str__(self) -> str:
        if self.steps is None:
            atol = f" atol {self.atol:g}" if self.atol != self.rtol else ""
            return f"{self.method} rtol {self.rtol:g}{atol}" + (
                f" at most {self.max_steps} steps" * (self.max_steps != 1000)
            )
        if self.spacing is None:
            return f"{self.method} {self.steps} steps"
        if isinstance(self.spacing, tuple):
            return f"{self.method} {self.steps} steps at " + ", ".join(f"{t:g}" for t in self.spacing)
        name = self.spacing.__name__ if isinstance(self.spacing, FunctionType) else str(self.spacing)
        return f"{self.method} {self.steps} steps spacing {name}"


@dataclass(frozen=True)
class Solution:
    """What an integration returns.

    Attributes:
        x: final state, shaped like the initial one.
        logdet: (B, K) integral of the divergence along the way, one per probe, float64; None if not asked for.
        nfe: (B,) velocity evaluations of each sample.
        accepted, rejected: (B,) steps of each sample.
        solver: the settings that were used.
        path: (T, rows, *event) states at the times asked for, or None.
        path_logdet: (T, B, K) log-determinants there, or None.
    """

    x: Tensor
    logdet: Tensor | None
    nfe: Tensor
    accepted: Tensor
    rejected: Tensor
    solver: Solver
    path: Tensor | None = None
    path_logdet: Tensor | None = None


def some(numbers: list[int]) -> str:
    """The first of them as text."""
    return ", ".join(map(str, numbers[:5])) + (f" and {len(numbers) - 5} more" if len(numbers) > 5 else "")
