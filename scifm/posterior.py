"""What a flow says given observations that it was not trained with: gaps filled, stations assimilated.

A linear instrument y = H x + ε, ε ~ N(0, R), changes the velocity at x_t by what y says of x1 beyond x_t.  For an
affine path x_t = α x1 + σ x0 with independent pairs and a Gaussian prior N(m, C),

    v(x_t | y) = v(x_t) + (Δ / σ) Σ Hᵀ (H Σ Hᵀ + R)⁻¹ (y − H x̂1),     Δ = α̇ σ − α σ̇,     Σ = Cov(x1 | x_t),

since C ∇ log p(y | x_t) = C (∂x̂1/∂x_t)ᵀ Hᵀ (…)⁻¹ (…) and Cov(x1 | x_t) = (σ²/α) (∂x̂1/∂x_t) C: the derivative of the
network is never needed, where Σ is known.  x̂1 is read off the velocity.  Σ we take from Gaussian data of the prior's
shape, Cov(x1) = s² C,

    Σ = r² C,     r² = s² σ² / (α² s² + σ²),

which an informed prior, fitted to the data, makes a good guess: for Gaussian data all of this is exact.  For other data
it is not; but the curve is still one of an ordinary equation, whose samples have a density q(x | y).  So with a trace
each sample comes with the weight

    log w = log p(x) + log N(y; H x, R) − log q(x | y),

whose mean of w is p(y), the evidence: for Gaussian data log w is the same for all samples, and how far it is not says
how far the guess is off.  `Weights` of w correct it where there are few enough dimensions.

References: Song et al. 2023 (pseudo-inverse guidance, with r² for white noise); Pokle et al. 2024 (for flows);
Rozet and Louppe 2023 (for data assimilation).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.flow import Flow
from scifm.solve import Solution, Solver
from scifm.support import log_det
from scifm.trace import Trace

__all__ = ["Conditioned", "affine", "check_conditioning", "posterior"]

Observe = Callable[[Tensor], Tensor]
ROW = "posterior.row"


@dataclass(frozen=True, eq=False)
class Conditioned:
    """Samples given observations.

    Attributes:
        samples: in the user's units.
        log_weight: (B,) float64, log p(x) p(y | x) − log q(x | y) in nats; None without a trace.
        log_prob: (B,) float64, log q(x | y) in the user's units; None without a trace.
        solution: of the curve that made them.
    """

    samples: Batch
    log_weight: Tensor | None
    log_prob: Tensor | None
    solution: Solution


@torch.no_grad()
def posterior(
    flow: Flow,
    like: Batch,
    observe: Observe,
    values: Tensor,
    noise: float | Tensor,
    *,
    generator: torch.Generator | None = None,
    solver: Solver = Solver(),
    trace: Trace | None = None,
    spread: float = 1.0,
    x0: Tensor | None = None,
) -> Conditioned:
    """Draw samples given linear observations of them.

    Args:
        flow: trained without them, with independent pairs and a Gaussian prior that whitens.
        like: layout and conditions of the samples, whose values are not looked at; dense.
        observe: H, x (B, *event) in the user's units -> (B, m): affine, each sample by itself, such as
            `lambda x: x[:, :, mask]` or an average over areas.
        values: y, (m,) or one row per sample, (B, m), in the units of what is observed.
        noise: standard deviation of the observations, a number or (m,), positive: what is rounded to steps δ is off by
            at least δ/√12.
        trace: also find the density of the samples and their weights, at the price of two likelihoods.
        spread: s, of the data in units of the prior's.
        x0: draws of the prior in model units; drawn from `generator` if None.

    Raises:
        ValueError: where the flow does not tell, the observations are not affine or do not fit, or something is not
            finite.

    Example:
        >>> from scifm import networks, priors
        >>> velocity = networks.GaussianSkip(networks.MLP(3))  # untrained: data are like the prior
        >>> flow, like = Flow(velocity, priors.Gaussian()), Batch(torch.zeros(2000, 3))
        >>> found = posterior(flow, like, lambda x: x[:, :1], torch.tensor([2.0]), noise=1.0)
        >>> round(float(found.samples.x[:, 0].mean()), 1)  # half way between prior and observation
        1.0
    """
    check_conditioning(flow, like, spread)
    seen = _Seen(flow, like, observe, values, noise)
    z = flow._begin(like, generator, x0)
    # samples leave a solver when they have arrived: each carries the number of its observations
    along = Batch(like.x, context={**like.context, ROW: torch.arange(len(like), device=like.x.device)})

    def velocity(t: Tensor, x: Tensor, batch: Batch) -> Tensor:
        v, gauge = flow._velocity(t, x, batch), flow._gauge(t, x, batch)
        share = spread**2 * gauge.sigma / (gauge.alpha.square() * spread**2 + gauge.sigma.square())  # r² / σ
        return v + gauge.delta * share * seen.pull(gauge.from_velocity("x1", v), share * gauge.sigma, batch)

    if trace is None:
        solution = flow.transport(z, 0.0, 1.0, along, solver, velocity=velocity)
        return Conditioned(flow._finish(solution.x, like), None, None, solution)
    probes = trace.draw(like, generator)
    solution = flow.transport(z, 0.0, 1.0, along, solver, trace, probes, velocity=velocity)
    assert solution.logdet is not None
    samples = flow._finish(solution.x, like)
    log_prob = flow._base(z, like) - solution.logdet.mean(1) + log_det(flow.transform, samples, flow.prior)
    own = flow.log_prob(samples, trace, solver, generator)
    return Conditioned(samples, own + seen.log_likelihood(samples.x) - log_prob, log_prob, solution)


class _Seen:
    """The observations in the flow's metric, in units of their noise: ỹ = (y − b)/ρ, Ã = A/ρ, (m, D) or (B, m, D).

    Costs m pull-backs and products m² D and m³ once, and m D + m² per sample and evaluation; memory 2 m D.
    """

    def __init__(self, flow: Flow, like: Batch, observe: Observe, values: Tensor, noise: float | Tensor):
        self.observe, count = observe, len(like)
        alike = all(bool((v == v[:1]).all()) for v in like.context.values())
        like = like.select([0]) if alike else like  # members of one field: their m x m systems are the same
        blank = like.replace(torch.zeros_like(like.x))

        def through(x: Tensor) -> Tensor:
            return observe(flow.transform.inverse(blank.replace(x)).x)

        nothing = torch.zeros_like(like.x)
        b, pull = torch.func.vjp(lambda z: through(flow.prior.colour(z, blank)), nothing)[:2]
        if b.ndim != 2 or len(b) != len(like):
            raise ValueError(
                f"posterior: observe must give a row per sample, (B, m) for B = {len(like)}, got {tuple(b.shape)}; for "
                "a mask use lambda x: x[:, mask]."
            )
        m = b.shape[1]
        self.values = torch.as_tensor(values).to(b)
        self.noise = torch.as_tensor(noise).to(b)
        for what, value, shapes in (
            ("values", self.values, ((m,), (count, m))),
            ("noise", self.noise, ((), (m,))),
        ):
            if tuple(value.shape) not in shapes:
                raise ValueError(f"posterior: {what} must have shape {shapes[-1]} or {shapes[0]}, got {value.shape}.")
            if not value.isfinite().all():
                raise ValueError(f"posterior: {what} hold NaN or infinity; leave out what was not observed.")
        if not (self.noise > 0).all():
            raise ValueError(
                "posterior: noise must be positive; what has no other error is rounded to steps δ, and off by δ/√12."
            )
        if not affine(lambda z: through(flow.prior.colour(z, blank)), nothing):
            raise ValueError(
                "posterior: what is observed must be affine in model units, and is not; neither is it with a transform "
                "such as Log or BoxCox, unless the instrument sees the transformed values."
            )
        ones = torch.eye(m, dtype=b.dtype, device=b.device) / self.noise
        white = torch.stack([pull(row.expand_as(b))[0] for row in ones], 1)  # (B, m, *event), A by whitened values
        lam, self.u = torch.linalg.eigh(white.flatten(2).double() @ white.flatten(2).double().mT)
        self.lam = lam.clamp(min=0)
        # Σ Hᵀ in the flow's metric: white there, or coloured by the prior
        if flow.metric == "prior":
            self.gain, self.b, self.a = white, b, white
        else:
            zero = flow.prior.colour(nothing, blank)
            self.gain = torch.stack([flow.prior.colour(row, blank) - zero for row in white.unbind(1)], 1)
            self.b, back = torch.func.vjp(through, nothing)[:2]
            self.a = torch.stack([back(row.expand_as(b))[0] for row in ones], 1)
        # what little noise multiplies needs all digits: λ reaches (spread / noise)² m
        self.gain, self.a = self.gain.flatten(2).double(), self.a.flatten(2).double()
        self.target = ((self.values - self.b) / self.noise).double().expand(count, m)
        alike = all(bool((v == v[:1]).all()) for v in (self.gain, self.a))
        if alike:  # as a rule: then the products are those of matrices
            self.gain, self.a, self.lam, self.u = self.gain[0], self.a[0], self.lam[0], self.u[0]

    def pull(self, x1: Tensor, r2: Tensor, batch: Batch) -> Tensor:
        """C Aᵀ (r² A C Aᵀ + 1)⁻¹ (ỹ − Ã x̂1), shaped like x1."""
        rows = batch.context[ROW]
        gain, a, lam, u = self.gain, self.a, self.lam, self.u
        if lam.ndim == 2:
            gain, a, lam, u = gain[rows], a[rows], lam[rows], u[rows]
        x, r2 = x1.flatten(1).double(), r2.reshape(len(batch), -1)[:, :1].double()
        if lam.ndim == 1:  # rows of samples times one matrix
            inner = (self.target[rows] - x @ a.mT) @ u / (1 + r2 * lam)
            return (inner @ u.mT @ gain).reshape(x1.shape).to(x1)
        inner = (u.mT @ (self.target[rows] - (a @ x[..., None])[..., 0])[..., None])[..., 0] / (1 + r2 * lam)
        return (gain.mT @ (u @ inner[..., None]))[..., 0].reshape(x1.shape).to(x1)

    def log_likelihood(self, x: Tensor) -> Tensor:
        """log N(y; H x, R), (B,) float64."""
        z = ((self.values - self.observe(x)) / self.noise).double()
        scale = self.noise.double().log().expand(z.shape[1]).sum()
        return -0.5 * z.square().sum(1) - scale - 0.5 * z.shape[1] * math.log(2 * math.pi)


def affine(through: Observe, zero: Tensor) -> bool:
    """Whether f(a) + f(b) = f(a + b) + f(0), at two points of the size of one, from zeros shaped like them."""
    g = torch.Generator().manual_seed(0)
    first, second = (torch.randn(zero.shape, generator=g).to(zero) for _ in range(2))
    with warnings.catch_warnings():  # a BoxCox warns of what lies beyond its bound; here it is only asked
        warnings.simplefilter("ignore")
        b, one, two, both = through(zero), through(first), through(second), through(first + second)
    size = (one - b).abs().amax() + (two - b).abs().amax() + b.abs().amax()
    tolerance = 1e-3 if b.dtype == torch.float32 else 1e-8
    return torch.allclose(one + two - b, both, rtol=0, atol=float(tolerance * size))


def check_conditioning(flow: Flow, like: Batch, spread: float = 1.0) -> None:
    """Refuse, before the work, what `posterior` cannot do with a flow.

    Raises:
        ValueError: for pairs that are not independent, a prior that is not Gaussian or does not whiten, a path with
            noise of its own, and sets of several sizes.
    """
    flow._needs_independence("conditioning on observations")
    prior = flow.prior
    if not (prior.gaussian and prior.whitens):
        raise ValueError(
            f"posterior: needs a Gaussian prior that whitens, whose covariance says how far x1 is known; "
            f"{type(prior).__name__} is none. Train with SpectralGaussian or FullGaussian."
        )
    if flow.path.noise(torch.full((1,), 0.5)) is not None:
        raise ValueError(f"posterior: {type(flow.path).__name__} has noise of its own; use an affine path.")
    if not like.dense:
        raise ValueError("posterior: expected samples of one shape, got sets of several sizes.")
    if not 0 < spread < math.inf:
        raise ValueError(f"posterior: spread must be positive and finite, got {spread}.")
