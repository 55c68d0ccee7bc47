"""A flow is a velocity network, a prior, a coupling and a path.

    train    x0 ~ prior, (x0, x1) ~ coupling, t ~ times, x_t = path(x0, x1, t);  minimise ‖v(t, x_t) − u_t‖²
    sample   dx/dt = v(t, x) from x0 ~ prior at t = 0 to x1 at t = 1
    score    log p1(x1) = log p0(x0) − ∫₀¹ div v dt, along the same curve run backward

In the metric "prior" all of this happens in the prior's whitened coordinates z = C^-½ (x − m): the network sees z and
learns ż.  For a linear path it is the same process with another loss, in which small scales weigh as much as large
ones; for likelihoods this decides the matter.  The Jacobians of whitening and colouring cancel along a curve.  Pairs
are made before, in model units: the metric of the loss is not that of the coupling's cost.

References: Lipman et al. 2023; Albergo and Vanden-Eijnden 2023; Liu et al. 2023; Tong et al. 2024.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from scifm import quadrature
from scifm import trace as traces
from scifm.batch import Batch
from scifm.couplings import independent
from scifm.data.transforms import Identity, Transform
from scifm.likelihood import BitsPerDim, bits_per_dim
from scifm.paths import Linear, Path
from scifm.priors import Prior
from scifm.solve import Solution, Solver, integrate
from scifm.times import Times, uniform
from scifm.trace import Trace

__all__ = ["Flow"]


class Flow(nn.Module):
    """The composition that is trained, sampled and scored. Batches come and go in the user's units.

    Args:
        velocity: network with `forward(t (B,), x, batch) -> like x`.
        prior: base distribution, in model units.
        coupling: `(x0, batch, generator) -> x0`.
        path: interpolant.
        times: training times.
        transform: user's units -> model units, fitted.
        metric: "plain" or "prior" (whitened); None takes the prior's own choice.

    Example:
        >>> from scifm import Batch, networks, priors
        >>> flow = Flow(networks.MLP(2), priors.Gaussian())
        >>> flow.sample(Batch(torch.zeros(3, 2))).x.shape
        torch.Size([3, 2])
    """

    def __init__(
        self,
        velocity: nn.Module,
        prior: Prior,
        *,
        coupling: Callable[..., Tensor] = independent,
        path: Path = Linear(),
        times: Times = uniform,
        transform: Transform | None = None,
        metric: str | None = None,
    ):
        super().__init__()
        if not isinstance(prior, Prior):
            raise TypeError(
                f"Flow: prior must be a scifm.Prior, got {type(prior).__name__}; derive from Prior and define "
                "sample and log_prob."
            )
        if not isinstance(velocity, nn.Module):
            raise TypeError(f"Flow: velocity must be a network, an nn.Module instance, got {velocity!r}.")
        if not isinstance(path, Path):
            raise TypeError(f"Flow: path must be a Path instance, e.g. paths.Linear(), got {path!r}.")
        for name, part in (("coupling", coupling), ("times", times)):
            if isinstance(part, type) or not callable(part):
                raise TypeError(
                    f"Flow: {name} must be a callable, made if it is a class, e.g. OptimalTransport(); got {part!r}."
                )
        metric = prior.metric if metric is None else metric
        if metric not in ("plain", "prior"):
            raise ValueError(f'Flow: metric must be "plain" or "prior", got {metric!r}.')
        self.velocity, self.prior, self.metric = velocity, prior, metric
        self.coupling, self.path, self.times = coupling, path, times
        self.transform = Identity() if transform is None else transform

    # -- training --------------------------------------------------------------------------------------

    def loss(self, batch: Batch, generator: torch.Generator | None = None) -> Tensor:
        """Flow-matching loss of each sample, (B,): mean square of v − u over its values."""
        model = self.transform(batch)
        x0 = _alike("Prior.sample", self.prior.sample(model, generator), model.x)
        x0 = _alike("Coupling", self.coupling(x0, model, generator), model.x)
        t = self.times(len(model), generator).to(model.x)
        x_t, u_t = self.path(self._enter(x0, model), self._enter(model.x, model), t, model)
        residual = self._velocity(t, x_t, model) - u_t
        return model.total(residual.square()) / model.dims.clamp(min=1)

    # -- sampling --------------------------------------------------------------------------------------

    @torch.no_grad()
    def sample(
        self,
        like: Batch,
        generator: torch.Generator | None = None,
        solver: Solver = Solver(),
        x0: Tensor | None = None,
        statistics: bool = False,
    ) -> Any:
        """Draw samples with the layout and conditions of `like`, whose values are not looked at.

        Args:
            x0: draws of the prior in model units, shaped like `like.x`; drawn from `generator` if None.
            statistics: also return the Solution, with evaluations and steps per sample.

        Returns:
            Batch in the user's units, or (Batch, Solution).
        """
        if len(like) == 0:
            raise ValueError("Flow.sample: like is empty; give a batch with as many samples as you want.")
        x0 = _alike("Prior.sample", self.prior.sample(like, generator) if x0 is None else x0, like.x)
        solution = self.transport(self._enter(x0, like), 0.0, 1.0, like, solver)
        samples = self.transform.inverse(like.replace(self._leave(solution.x, like)))
        return (samples, solution) if statistics else samples

    @torch.no_grad()
    def encode(self, batch: Batch, solver: Solver = Solver()) -> Batch:
        """The x0, in model units, from which the flow would make these data."""
        model = self.transform(batch)
        solution = self.transport(self._enter(model.x, model), 1.0, 0.0, model, solver)
        return model.replace(self._leave(solution.x, model))

    # -- scoring ---------------------------------------------------------------------------------------

    def log_prob(
        self,
        batch: Batch,
        trace: Trace | None = None,
        solver: Solver = Solver(),
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Log-density of each sample in nats, in the user's units, (B,) float64.

        Args:
            trace: `trace.Exact()` or `trace.Hutchinson(K)`; None takes exact up to 64 numbers per sample.
            generator: draws the probes.
        """
        return self.density(batch, trace, solver, generator=generator)[0]

    @torch.no_grad()
    def density(
        self,
        batch: Batch,
        trace: Trace | None = None,
        solver: Solver = Solver(),
        probes: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Solution]:
        """`log_prob` (B,) together with the Solution, whose logdet (B, K) keeps each probe apart."""
        if solver.steps is not None and solver.steps < 2:
            raise ValueError(
                "Flow.log_prob: a single step gives no usable likelihood; take more steps, or an adaptive method."
            )
        model = self.transform(batch)
        if (self.prior.dims(model) != model.dims).any():
            raise NotImplementedError(
                f"Flow.log_prob: {type(self.prior).__name__} lives on a subspace, prior.dims(batch) is less than "
                "batch.dims; divergences on subspaces are not there yet, and full ones would be wrong."
            )
        trace = traces.default(model) if trace is None else trace
        probes = trace.draw(model, generator) if probes is None else probes
        solution = self.transport(self._enter(model.x, model), 1.0, 0.0, model, solver, trace, probes)
        assert solution.logdet is not None
        base = self.prior.log_prob(self._leave(solution.x, model), model).double()
        if base.shape != (len(model),):
            raise ValueError(
                f"Prior.log_prob: expected one number per sample, ({len(model)},), got {tuple(base.shape)}."
            )
        return base + solution.logdet.mean(1) + self.transform.log_det(batch).double(), solution

    def bits_per_dim(self, batch: Batch, **settings: Any) -> BitsPerDim:
        """Negative log-likelihood in bits per dimension with its errors; see `scifm.likelihood.bits_per_dim`."""
        return bits_per_dim(self, batch, **settings)

    # -- the one integration ---------------------------------------------------------------------------

    def transport(
        self,
        z: Tensor,
        t0: float,
        t1: float,
        like: Batch,
        solver: Solver,
        trace: Trace | None = None,
        probes: Tensor | None = None,
    ) -> Solution:
        """Carry z, in the flow's metric, from t0 to t1; with a trace, the log-determinant too."""

        def field(t: Tensor, x: Tensor, batch: Batch, probes: Tensor | None) -> tuple[Tensor, None]:
            return self._velocity(t, x, batch), None

        training = self.velocity.training
        self.velocity.eval()  # one network for the whole curve: no dropout, no running statistics
        try:
            with torch.no_grad():
                if trace is not None:
                    return quadrature.transport(self._velocity, trace, z, t0, t1, like, solver, probes)
                return integrate(field, z, t0, t1, like, solver)
        finally:
            self.velocity.train(training)

    def _velocity(self, t: Tensor, x: Tensor, batch: Batch) -> Tensor:
        weight = next(self.velocity.parameters(), x)
        if weight.dtype != x.dtype:
            raise TypeError(
                f"Flow: the data are {x.dtype} and the network is {weight.dtype}; convert one of them, "
                f"batch.to({weight.dtype}) or flow.velocity.to({x.dtype})."
            )
        return _alike("Velocity", self.velocity(t, x, batch.replace(x)), x)

    def _enter(self, x: Tensor, like: Batch) -> Tensor:
        return self.prior.whiten(x, like) if self.metric == "prior" else x

    def _leave(self, z: Tensor, like: Batch) -> Tensor:
        return self.prior.colour(z, like) if self.metric == "prior" else z


def _alike(who: str, value: Tensor, like: Tensor) -> Tensor:
    # A (B, 1) or, where B equals a dimension, a (B,) would broadcast and train without a word.
    if value.shape != like.shape or value.dtype != like.dtype:
        raise ValueError(
            f"{who}: expected {like.dtype} of shape {tuple(like.shape)}, got {value.dtype} {tuple(value.shape)}."
        )
    return value
