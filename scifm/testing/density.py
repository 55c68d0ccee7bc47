"""Whether samples follow a density, in any number of dimensions, and whether it integrates to one.

Samples against score: Stein's identity E[f(x) · ∇log p(x)] = −E[div f(x)] for several f sees a wrong mean, scale,
covariance, tail and radius.  The constant: bridges between the samples and Gaussians of known constant.
References: Stein 1972; Bennett 1976; Meng and Wong 1996.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.priors import Prior
from scifm.testing.laws import fresh, say

__all__ = ["LARGEST", "agrees", "whitening"]

LARGEST = 2048  # numbers of a sample up to which determinants are affordable


@dataclass(frozen=True)
class _Frame:
    """Coordinates z of draws in which they are about white: x = mean + out z, and scores ∂/∂z = outᵀ ∂/∂x."""

    mean: Tensor  # (D,)
    into: Tensor  # (D, k)
    out: Tensor  # (D, k), with intoᵀ out = 1
    whole: bool  # k is the number of degrees of freedom: nothing is left out

    def z(self, rows: Tensor) -> Tensor:
        return (rows - self.mean) @ self.into

    def x(self, z: Tensor) -> Tensor:
        return self.mean + z @ self.out.T


@torch.no_grad()
def agrees(prior: Prior, one: Batch, samples: int, seed: int) -> None:
    """Whether many draws for the one sample of `one` follow log_prob, and log_prob integrates to one.

    The first half of the draws gives a mean, a scale and the directions that look worst; the second half is tested.
    So no test is fitted to its own data, and six standard errors are six standard errors.
    """
    one = one.to(torch.float64)
    dims, half = int(prior.dims(one)[0]), max(256, min(samples, 4_000_000 // int(one.dims[0])))
    wide = one.select([0] * (2 * half))
    number = torch.arange(2 * half, device=one.x.device)
    x = prior.sample(wide, fresh(seed + 1))
    rows, score = wide.stack(x, number), wide.stack(prior.score(x, wide), number)
    different = len(rows.unique(dim=0))
    say(
        different == len(rows),
        f"Prior.sample: of {len(rows)} draws for equal samples of one batch only {different} differ; "
        "draw noise for every sample.",
    )
    generator, rest = fresh(seed + 2), wide.select(number[half:])
    frame = _frame(rows[:half], dims, generator)

    def log_prob(points: Tensor) -> Tensor:
        return prior.log_prob(rest.place(rest.x, number[:half], points), rest)

    # Where a density jumps to zero Stein's identities have a boundary term, and only the bridges hold.
    if bool(log_prob(frame.mean + 3 * (rows[half:] - frame.mean)).isfinite().all()):
        _stein(rows, score, half, frame, dims, generator)
    judged = frame.whole and _integrates(log_prob, rows[:half], score[:half], rows[half:], frame, generator)
    if not judged and not (whitening(prior) and dims == one.dims[0] <= LARGEST):  # where `_whitens` has judged
        warnings.warn(
            f"check_prior: a density of {dims} dimensions, too many or too far from a Gaussian to judge its constant; "
            "check that in fewer dimensions.",
            stacklevel=4,  # no_grad has a frame of its own
        )


def _integrates(
    log_prob: Callable[[Tensor], Tensor],
    first: Tensor,
    score: Tensor,
    own: Tensor,
    frame: _Frame,
    generator: torch.Generator,
) -> bool:
    """Compares ∫p with 1 over bridges to Gaussians made from the draws `first`; False where none is near p."""
    z, judged = frame.z(own), False
    volume = frame.out.norm(dim=0).log().sum()  # of x per z; the columns are orthogonal
    density = log_prob(own) + volume
    for mean, root in _gaussians(frame.z(first), score @ frame.out):
        unit = torch.randn(z.shape, generator=generator, dtype=z.dtype).to(z)
        drawn = mean + unit @ root.T
        solved = torch.linalg.solve_triangular(root, (z - mean).T, upper=False).T
        constant = root.diagonal().log().sum() + 0.5 * z.shape[1] * math.log(2 * math.pi)
        inside = density + 0.5 * solved.square().sum(1) + constant
        outside = log_prob(frame.x(drawn)) + volume + 0.5 * unit.square().sum(1) + constant
        log_mass, error = _bridge(inside, outside)
        if not error < 0.1:
            continue  # p and this Gaussian hardly overlap
        judged, mass = True, math.exp(max(min(log_mass, 700.0), -700.0))
        say(
            abs(log_mass) < 6 * error + 1e-3,
            f"Prior: the density does not integrate to one, or samples do not follow log_prob: ∫p = {mass:.4g} ± "
            f"{mass * error:.2g}, expected 1. Check the constant of log_prob and the scale of sample.",
        )
    return judged


def whitening(prior: Prior) -> bool:
    return prior.metric == "prior" or prior.whitens


def _frame(rows: Tensor, dims: int, generator: torch.Generator) -> _Frame:
    """From draws (n, D): all their degrees of freedom, whitened, or 32 directions where the draws are too few."""
    mean, size = rows.mean(0), rows.shape[1]
    flat = rows - mean
    if 4 * dims > len(rows):
        noise = torch.randn(max(flat.shape), min(dims, 32), generator=generator, dtype=flat.dtype).to(flat)
        way = torch.linalg.qr(noise[:size] if dims == size else flat.T @ noise[: len(flat)])[0]
        std = (flat @ way).std(0)
        return _Frame(mean, way / std, way * std, False)
    # Singular values of the draws, not eigenvalues of their covariance, which would lose half the digits.
    values, modes = torch.linalg.svd(torch.linalg.qr(flat)[1], full_matrices=False)[1:]
    rank = int((values > 1e-10 * math.sqrt(len(rows)) * rows.abs().max()).sum())
    say(
        rank == dims,
        f"Prior.dims says {dims}, but the samples vary along {rank} of {size} directions; dims is the dimension of "
        "the space on which the density lives.",
    )
    modes, std = modes[:dims].T, values[:dims] / math.sqrt(len(rows))
    return _Frame(mean, modes / std, modes * std, True)


def _stein(rows: Tensor, score: Tensor, half: int, frame: _Frame, dims: int, generator: torch.Generator) -> None:
    """E[∇·f + f·∇log p] = 0 for every smooth f, tested with f linear, bounded along a direction, and radial."""
    inner = ((rows[half:] - frame.mean) * score[half:]).sum(1)
    _zero(
        inner + dims,
        lambda mean, error: (
            f"E[x·score] = {mean - dims:.4g} ± {error:.2g}, expected {-dims:g}: sample and log_prob disagree in scale"
        ),
    )
    z, s = frame.z(rows), score @ frame.out
    if frame.whole:
        way = _directions(z[:half], s[:half], generator)
        z, s = z @ way, s @ way
    a, b = z[half:], s[half:]
    k, one = a.shape[1], torch.eye(a.shape[1], dtype=a.dtype, device=a.device)
    r = a.square().sum(1) / k
    near = 1 / (1 + r)
    tanh = a.tanh()

    def differs(what: str, law: str) -> Callable[[float, float], str]:
        return lambda mean, error: f"{law} is off by {mean:.3g} ± {error:.2g} along some direction: wrong {what}"

    _zero(b, differs("mean of the samples", "E[score] = 0"))
    _zero(a[:, :, None] * b[:, None, :] + one, differs("covariance of the samples", "E[x scoreᵀ] = -1"))
    shape = "shape of the law (tails, mixtures)"
    _zero(1 - tanh.square() + tanh * b, differs(shape, "E[sech² x + tanh x · score] = 0"))
    _zero(near * (k + (a * b).sum(1)) - 2 * r * near.square(), differs(shape, "E[∇·f + f·score] = 0, f radial,"))


def _directions(z: Tensor, s: Tensor, generator: torch.Generator) -> Tensor:
    """Orthonormal (dims, at most 32): where these whitened draws fit their scores worst, the others random."""
    dims = z.shape[1]
    noise = torch.randn(dims, min(dims, 32), generator=generator, dtype=z.dtype).to(z)
    if dims > 32:
        gap = z.T @ s / len(z)
        values, modes = torch.linalg.eigh(gap + gap.T)
        worst = modes[:, (values + 2).abs().topk(15).indices]
        noise = torch.cat([s.mean(0)[:, None], worst, noise[:, :16]], 1)
    return torch.linalg.qr(noise)[0]


def _gaussians(z: Tensor, s: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Mean and triangular root of Gaussians near p, from draws z (n, dims) and their scores.

    The scores of a Gaussian are linear in z, so regression finds it exactly, however many its dimensions. The others
    have the moments of the draws, a little narrowed and widened.
    """
    dims = z.shape[1]
    one, some = torch.eye(dims, dtype=z.dtype, device=z.device), []
    columns = torch.cat([z, torch.ones_like(z[:, :1])], 1)
    line = torch.linalg.solve(columns.T @ columns, columns.T @ s)
    precision = -0.5 * (line[:dims] + line[:dims].T)
    values, modes = torch.linalg.eigh(precision)
    if bool((values > 1e-3).all()):
        some.append((torch.linalg.solve(precision, line[dims]), torch.linalg.cholesky((modes / values) @ modes.T)))
    change = min(0.3, 1.2 / math.sqrt(dims))
    return [*some, *((torch.zeros_like(z[0]), (1 + c) * one) for c in (0.0, change, -change))]


def _bridge(inside: Tensor, outside: Tensor) -> tuple[float, float]:
    """log ∫p and its standard error, from log p/q at draws of p (inside) and of the normalised q (outside).

    Bennett's ratio: the c for which E_q[p/(p + cq)] = E_p[q/(p + cq)] c; bounded weights, so that neither tails nor
    holes of p upset it. The error is infinite where p and q do not overlap.

    Reference: Bennett 1976 (free-energy differences); Meng and Wong 1996 (bridge sampling).
    """
    known = torch.cat([inside, outside[outside.isfinite()]])
    low, high = float(known.min()) - 1, float(known.max()) + 1
    for _ in range(60):
        c = 0.5 * (low + high)
        more = bool((outside - c).sigmoid().mean() > (c - inside).sigmoid().mean())
        low, high = (c, high) if more else (low, c)
    ends = (outside - c).sigmoid(), (c - inside).sigmoid()
    error = math.sqrt(sum(float(e.var() / e.mean().square().clamp(min=1e-300)) / len(e) for e in ends))
    return c, error


def _zero(values: Tensor, says: Callable[[float, float], str]) -> None:
    """Whether all means over the draws (n, ...) vanish within six standard errors."""
    mean, error = values.mean(0).flatten(), (values.std(0) / math.sqrt(len(values))).flatten()
    worst = int((mean.abs() / (error + 1e-9)).argmax())
    say(
        bool((mean.abs() <= 6 * error + 1e-6).all()),
        f"Prior: samples do not follow log_prob: {says(float(mean[worst]), float(error[worst]))}.",
    )
