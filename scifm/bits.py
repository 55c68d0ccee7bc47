"""The result of a score: bits per dimension with everything that qualifies the number, in one line of text."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["BitsPerDim", "Estimate", "known", "plain"]


@dataclass(frozen=True)
class Estimate:
    """A mean over samples, or a number that follows from one, and its standard error."""

    value: float
    stderr: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ± {known(self.stderr)}"


@dataclass(frozen=True)
class BitsPerDim:
    """Negative log-likelihood of a set of samples; `str` gives it in one line.

    Attributes:
        value: mean over samples of −log₂ p / D in the user's units (per bin where delta is given).
        stderr: standard error of that mean from the spread of the samples. Probes and dequantisation noise are
            independent between samples, so it contains both.  It takes the samples as independent.
        probe_stderr: the part of stderr that comes from the random probes; None for the exact trace or one probe.
        solver_error: mean absolute change on `checked` samples when solved again at a tighter tolerance, or with twice
            the fixed steps and scaled to the error of these; None where the tighter solve failed.
        per_sample: value of each sample.
        nfe: mean number of velocity evaluations per sample and draw.
        dims: mean number of degrees of freedom of a sample, by which bits are divided.
        baselines: closed-form Gaussians on the same data, by name.
        probes: random probes per sample and draw, of all turns; 0 where the trace is exact.
    """

    value: float
    stderr: float
    probe_stderr: float | None
    solver_error: float | None
    checked: int
    samples: int
    dims: float
    delta: float | None
    draws: int
    trace: str
    solver: str
    nfe: float
    per_sample: tuple[float, ...] = field(repr=False)
    baselines: Mapping[str, Estimate] = field(default_factory=dict)
    probes: int = 0

    def __str__(self) -> str:
        parts = [f"{self.samples} samples", self.trace]
        if self.probe_stderr is not None:
            parts[-1] += f" ± {self.probe_stderr:.1g}"
        parts.append("continuous" if self.delta is None else f"δ {self.delta:g}, {self.draws} draw(s)")
        solver = self.solver
        if self.solver_error is not None:
            solver += f" ± {self.solver_error:.1g}"
        parts += [solver, f"nfe {self.nfe:.0f}"]
        beside = "".join(f" | {name} {estimate}" for name, estimate in self.baselines.items())
        return f"NLL {self.value:.3f} ± {known(self.stderr)} bits/dim ({', '.join(parts)}){beside}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {k: plain(v) for k, v in asdict(self).items()}


def plain(value: Any) -> Any:
    """NaN, an unknown error, as None at any depth: JSON knows no NaN."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value


def known(error: float | None) -> str:
    """A standard error in words; "?" where there is none, as of a single sample."""
    return "?" if error is None or math.isnan(error) else f"{error:.3f}"
