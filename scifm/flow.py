"""A flow is a velocity network, a prior, a coupling and a path.

    train    x0 ~ prior, (x0, x1) ~ coupling, t ~ times, x_t = path(x0, x1, t);  minimise ‖v(t, x_t) − u_t‖²
    sample   dx/dt = v(t, x) from σ_0 x0, x0 ~ prior, at t = 0 to α_1 x1 at t = 1 (σ_0 and α_1 are 1 for most paths)
    score    log p1(x1) = log p0(x0) − D log σ_0 + D log α_1 − ∫₀¹ div v dt, along the same curve run backward

In the metric "prior" all of this happens in the prior's whitened coordinates z = C^-½ (x − m): the network sees z and
learns ż.  For a linear path it is the same process with another loss, in which small scales weigh as much as large
ones; for likelihoods this decides the matter.  The Jacobians of whitening and colouring cancel along a curve.  Pairs
are made before, in model units: the metric of the loss is not that of the coupling's cost.

A prior may live on a subspace (centred sets, masked fields).  Then the velocity is projected on both sides, P v(P x),
its divergence is tr(P J P), and D is the dimension of the subspace.

References: Lipman et al. 2023; Albergo and Vanden-Eijnden 2023; Liu et al. 2023; Tong et al. 2024.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from scifm import trace as traces
from scifm.batch import Batch
from scifm.conversions import Gauge, away_from_the_ends, check_convertible
from scifm.couplings import independent
from scifm.couplings.legal import check_legal
from scifm.data.transforms import Identity, Transform
from scifm.likelihood import BitsPerDim, bits_per_dim
from scifm.objective import PREDICTIONS, Objective
from scifm.paths import Linear, Path
from scifm.priors import Prior
from scifm.sde import Stochastic, diffuse
from scifm.solve import Solution, Solver, integrate
from scifm.support import check_density, log_det, on_subspace
from scifm.trace import Trace

__all__ = ["Flow"]


class Flow(nn.Module):
    """The composition that is trained, sampled and scored. Batches come and go in the user's units.

    Args:
        velocity: network with `forward(t (B,), x, batch) -> like x`. What its output means is up to `objective`.
        prior: base distribution, in model units.
        coupling: `(x0, batch, generator) -> x0`.
        path: interpolant.
        objective: what the network predicts, in which metric, at which times and with which weight.
        transform: user's units -> model units, fitted.

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
        objective: Objective = Objective(),
        transform: Transform | None = None,
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
        if not isinstance(objective, Objective):
            raise TypeError(f"Flow: objective must be an Objective(...), got {objective!r}.")
        if isinstance(coupling, type) or not callable(coupling):
            raise TypeError(
                f"Flow: coupling must be a callable, made if it is a class, e.g. OptimalTransport(); got {coupling!r}."
            )
        self.metric = prior.metric if objective.metric is None else objective.metric
        self.velocity, self.prior, self.coupling, self.path, self.objective = velocity, prior, coupling, path, objective
        self.transform = Identity() if transform is None else transform
        check_convertible(objective.predict, path, self._law)
        if self.metric == "prior" and not prior.whitens:
            raise ValueError(
                f"Flow: {type(prior).__name__} does not whiten, so it has no metric of its own: use "
                'Objective(metric="plain").'
            )
        check_legal(coupling, prior, velocity)
        self._start, self._end = path.ends

    # -- training --------------------------------------------------------------------------------------

    def pair(self, batch: Batch, generator: torch.Generator | None = None) -> Tensor:
        """Draws of the prior paired with the samples of `batch`, both in model units: x0, shaped like `batch.x`."""
        x0 = _alike("Prior.sample", self.prior.sample(batch, generator), batch.x)
        return _alike("Coupling", self.coupling(x0, batch, generator), batch.x)

    def loss(self, batch: Batch, generator: torch.Generator | None = None, x0: Tensor | None = None) -> Tensor:
        """Regression loss of each sample, (B,): mean square of prediction − target over its degrees of freedom.

        Args:
            x0: the draws that belong to the samples, in model units, as `pair` makes them; made here if None.
        """
        model, objective = self.transform(batch), self.objective
        x0 = self.pair(model, generator) if x0 is None else _alike("Flow.loss: x0", x0, model.x)
        x1 = on_subspace(self.prior, model.x, model)
        if objective.thickening:
            x1 = x1 + objective.thickening * self.prior.project(model.randn(generator), model)
        t = objective.times(len(model), generator).to(model.x)
        z0, z1 = self._enter(x0, model), self._enter(x1, model)
        x_t, u_t = self.path(z0, z1, t, model, generator)
        if self.path.noise(t) is not None:  # white in all directions, and the prior may live in fewer
            x_t, u_t = self.prior.project(x_t, model), self.prior.project(u_t, model)
        output = self._network(t, x_t, model)
        if objective.predict == "velocity":
            residual = output - u_t
        else:
            residual = self._gauge(t, x_t, model).residual(objective.predict, output, z0, z1, u_t)
        loss = model.total(residual.square()) / self.prior.dims(model).clamp(min=1)
        for weight in (self.path.weight(t), None if objective.weight is None else objective.weight(t)):
            loss = loss if weight is None else loss * _weights(weight, t)
        return loss

    # -- sampling --------------------------------------------------------------------------------------

    @torch.no_grad()
    def sample(
        self,
        like: Batch,
        generator: torch.Generator | None = None,
        solver: Solver | Stochastic = Solver(),
        x0: Tensor | None = None,
        statistics: bool = False,
        noise: Callable[[], Tensor] | None = None,
    ) -> Any:
        """Draw samples with the layout and conditions of `like`, whose values are not looked at.

        Args:
            solver: how to integrate; a `Stochastic` samples the stochastic equation with the same marginals.
            x0: draws of the prior in model units, shaped like `like.x`; drawn from `generator` if None.
            statistics: also return the Solution, with evaluations and steps per sample. Not for stochastic ones.
            noise: gives fresh draws of the prior at each call, as x0 is one, for a stochastic solver; drawn from
                `generator` if None.

        Returns:
            Batch in the user's units, or (Batch, Solution).
        """
        z = self._begin(like, generator, x0)
        if isinstance(solver, Stochastic):
            if statistics:
                raise ValueError("Flow.sample: a stochastic equation has no Solution; leave statistics out.")
            noise = partial(self.prior.sample, like, generator) if noise is None else noise
            return self._finish(self._diffuse(z, like, solver, noise), like)
        solution = self.transport(z, 0.0, 1.0, like, solver)
        samples = self._finish(solution.x, like)
        return (samples, solution) if statistics else samples

    @torch.no_grad()
    def sample_and_log_prob(
        self,
        like: Batch,
        generator: torch.Generator | None = None,
        solver: Solver = Solver(),
        trace: Trace | None = None,
        x0: Tensor | None = None,
        probes: Tensor | None = None,
    ) -> tuple[Batch, Tensor, Solution]:
        """Samples with their log-density, along one and the same curve.

        Args:
            like, generator, solver, x0: as for `sample`.
            trace, probes: as for `density`.

        Returns:
            samples in the user's units; their log-density in nats, in the user's units, (B,) float64; the Solution.
        """
        z = self._begin(like, generator, x0)
        check_density(self.prior, like)
        trace = traces.default(like) if trace is None else trace
        probes = trace.draw(like, generator) if probes is None else probes
        solution = self.transport(z, 0.0, 1.0, like, solver, trace, probes)
        assert solution.logdet is not None
        samples = self._finish(solution.x, like)
        log_prob = self._base(z, like) - solution.logdet.mean(1) + log_det(self.transform, samples, self.prior)
        return samples, log_prob, solution

    @torch.no_grad()
    def encode(self, batch: Batch, solver: Solver = Solver()) -> Batch:
        """The x0, in model units, from which the flow would make these data."""
        model = self.transform(batch)
        solution = self.transport(self._end * self._enter(model.x, model), 1.0, 0.0, model, solver)
        return model.replace(self._leave(solution.x / self._start, model))

    # -- scoring ---------------------------------------------------------------------------------------

    def log_prob(
        self,
        batch: Batch,
        trace: Trace | None = None,
        solver: Solver = Solver(),
        generator: torch.Generator | None = None,
        differentiable: bool = False,
    ) -> Tensor:
        """Log-density of each sample in nats, in the user's units, (B,) float64.

        Args:
            trace: `trace.Exact()`, `trace.Hutchinson(K)` or another; None takes exact up to 64 numbers per sample.
            generator: draws the probes.
            differentiable: keep the graph, for gradients with respect to the data and the network's weights. Memory
                grows with the number of evaluations.
        """
        return self.density(batch, trace, solver, generator=generator, differentiable=differentiable)[0]

    def density(
        self,
        batch: Batch,
        trace: Trace | None = None,
        solver: Solver = Solver(),
        probes: Tensor | None = None,
        generator: torch.Generator | None = None,
        differentiable: bool = False,
    ) -> tuple[Tensor, Solution]:
        """`log_prob` (B,) together with the Solution, whose logdet (B, K) keeps each probe apart."""
        if isinstance(trace, type | str):
            raise TypeError(f"Flow: trace must be an estimator that is made, such as trace.Exact(), got {trace!r}.")
        with torch.set_grad_enabled(differentiable):
            model = self.transform(batch)
            check_density(self.prior, model)
            trace = traces.default(model) if trace is None else trace
            probes = trace.draw(model, generator) if probes is None else probes
            z = self._end * self._enter(on_subspace(self.prior, model.x, model), model)
            solution = self.transport(z, 1.0, 0.0, model, solver, trace, probes)
            assert solution.logdet is not None
            base = self._base(solution.x, model) + solution.logdet.mean(1)
            return base + log_det(self.transform, batch, self.prior), solution

    def bits_per_dim(self, batch: Batch, **settings: Any) -> BitsPerDim:
        """Negative log-likelihood in bits per dimension with its errors; see `scifm.likelihood.bits_per_dim`."""
        return bits_per_dim(self, batch, **settings)

    def estimate(self, kind: str, t: Tensor, batch: Batch) -> Tensor:
        """What the network says at x_t, whatever it was trained to predict.

        Args:
            kind: "velocity", "x1", "noise" (the mean of x0 given x_t) or "score" (∇ log p_t).
            t: (B,) times.
            batch: x_t in model units; in the prior's metric that is z_t = α z1 + σ z0, coloured.

        Returns:
            in model units, shaped like `batch.x`.

        Raises:
            ValueError: where the conversion does not exist; for a score with pairs that are not independent, since then
                x0 given x1 does not have the prior's law.
        """
        if kind not in PREDICTIONS:
            raise ValueError(f"Flow.estimate: kind must be one of {', '.join(PREDICTIONS)}, got {kind!r}.")
        if kind == "score":
            self._needs_independence("a score")
        check_convertible(kind, self.path, self._law)
        if not isinstance(t, Tensor) or t.shape != (len(batch),):
            raise ValueError(f"Flow.estimate: t must hold one time per sample, shape ({len(batch)},), got {t!r}.")
        t = t.to(batch.x)
        z = self._enter(batch.x, batch)
        value = self._gauge(t, z, batch).from_velocity(kind, self._velocity(t, z, batch))
        if self.metric == "plain":
            return value
        if kind == "score":  # gradients go back through the whitening: z = W (x − m), so ∇_x = Wᵀ ∇_z
            return torch.func.vjp(lambda x: self.prior.whiten(x, batch), batch.x)[1](value)[0]
        left = self._leave(value, batch)
        return left - self._leave(torch.zeros_like(value), batch) if kind == "velocity" else left

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
        velocity: Callable[[Tensor, Tensor, Batch], Tensor] | None = None,
    ) -> Solution:
        """Carry z, in the flow's metric, from t0 to t1 by its own or another velocity; with a trace, log-det too."""
        v = self._velocity if velocity is None else velocity

        def plain(t: Tensor, x: Tensor, batch: Batch, probes: Tensor | None) -> tuple[Tensor, None]:
            return v(t, x, batch), None

        def both(t: Tensor, x: Tensor, batch: Batch, probes: Tensor | None) -> tuple[Tensor, Tensor]:
            assert trace is not None
            return trace(v, t, x, batch, probes)

        if not isinstance(solver, Solver):
            raise TypeError(f"Flow: this needs an ordinary equation, a Solver(...), got {solver!r}.")
        if trace is not None and solver.steps == 1:
            raise ValueError(
                "Flow.log_prob: a single step gives no usable likelihood; take more steps, or an adaptive method."
            )
        training = self.velocity.training
        self.velocity.eval()  # one network for the whole curve: no dropout, no running statistics
        try:
            dims = self.prior.dims(like)
            if trace is None:
                return integrate(plain, z, t0, t1, like, solver, dims=dims)
            if solver.steps is not None:
                return integrate(both, z, t0, t1, like, solver, probes)
            return integrate(plain, z, t0, t1, like, solver, probes, divergence=lambda *at: both(*at)[1], dims=dims)
        finally:
            self.velocity.train(training)

    def _diffuse(self, z: Tensor, like: Batch, solver: Stochastic, noise: Callable[[], Tensor]) -> Tensor:
        self._needs_independence("a stochastic equation")
        check_convertible("score", self.path, self._law)

        def draw() -> Tensor:
            return self._enter(_alike("Prior.sample", noise(), like.x), like)

        mean = self._enter(self.prior.colour(torch.zeros_like(z), like), like)
        training = self.velocity.training
        self.velocity.eval()
        try:
            return diffuse(self._velocity, z, like, self.path, solver, draw, mean)
        finally:
            self.velocity.train(training)

    def _needs_independence(self, what: str) -> None:
        if self.coupling is not independent:
            raise ValueError(
                f"Flow: {what} needs pairs that are drawn independently, since only then does x0 given x1 have the "
                "prior's law and its score; train with coupling=couplings.independent, or use the ordinary equation."
            )

    @property
    def _law(self) -> Prior | None:
        """Law of the base in the flow's metric; None for a standard normal."""
        return None if self.metric == "prior" else self.prior

    def _gauge(self, t: Tensor, x: Tensor, batch: Batch) -> Gauge:
        return Gauge(self.path, t, x, batch, self._law)

    def _begin(self, like: Batch, generator: torch.Generator | None, x0: Tensor | None) -> Tensor:
        """Where a curve starts, in the flow's metric: σ_0 x0."""
        if len(like) == 0:
            raise ValueError("Flow.sample: like is empty; give a batch with as many samples as you want.")
        x0 = _alike("Prior.sample", self.prior.sample(like, generator) if x0 is None else x0, like.x)
        return self._start * self._enter(x0, like)

    def _finish(self, z: Tensor, like: Batch) -> Batch:
        """Samples in the user's units, from where a curve ended."""
        return self.transform.inverse(like.replace(self._leave(z / self._end, like)))

    def _base(self, z: Tensor, like: Batch) -> Tensor:
        """Log-density of the start z of a curve, in model units and with what the ends of the path scale, (B,)."""
        base = self.prior.log_prob(self._leave(z / self._start, like), like).double()
        if base.shape != (len(like),):
            raise ValueError(
                f"Prior.log_prob: expected one number per sample, ({len(like)},), got {tuple(base.shape)}."
            )
        return base + self.prior.dims(like).double() * (math.log(self._end) - math.log(self._start))

    def _velocity(self, t: Tensor, x: Tensor, batch: Batch) -> Tensor:
        x = self.prior.project(x, batch)
        if self.objective.predict == "velocity":
            return self._network(t, x, batch)
        t = away_from_the_ends(t)
        return self._gauge(t, x, batch).to_velocity(self.objective.predict, self._network(t, x, batch))

    def _network(self, t: Tensor, x: Tensor, batch: Batch) -> Tensor:
        try:
            output = _alike("Velocity", self.velocity(t, x, batch.replace(x)), x)
        except (RuntimeError, ValueError) as error:
            weight = next(self.velocity.parameters(), x)  # asked only now: it takes as long as a small layer
            if weight.dtype == x.dtype:
                raise
            raise TypeError(
                f"Flow: the data are {x.dtype} and the network is {weight.dtype}; convert one of them, "
                f"batch.to({weight.dtype}) or flow.velocity.to({x.dtype})."
            ) from error
        return self.prior.project(output, batch)

    def _enter(self, x: Tensor, like: Batch) -> Tensor:
        return self.prior.whiten(x, like) if self.metric == "prior" else x

    def _leave(self, z: Tensor, like: Batch) -> Tensor:
        return self.prior.colour(z, like) if self.metric == "prior" else z


def _weights(weight: Tensor, t: Tensor) -> Tensor:
    if weight.shape != t.shape:
        raise ValueError(f"Flow: a weight must be one number per sample, {tuple(t.shape)}, got {tuple(weight.shape)}.")
    return weight.to(t)


def _alike(who: str, value: Tensor, like: Tensor) -> Tensor:
    # A (B, 1) or, where B equals a dimension, a (B,) would broadcast and train without a word.
    if value.shape != like.shape or value.dtype != like.dtype:
        raise ValueError(
            f"{who}: expected {like.dtype} of shape {tuple(like.shape)}, got {value.dtype} {tuple(value.shape)}."
        )
    return value
