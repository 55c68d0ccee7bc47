"""Checks that a part keeps its contract: run on the project's own parts and on yours.

    from scifm.testing import check_prior
    check_prior(MyPrior(), Batch(torch.zeros(2, 3)))

Each check raises an AssertionError that says which law is broken, by how much, and where to look.  They are laws, not
snapshots: a density integrates to one, its score is its gradient, the same generator gives the same draw.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from scifm.batch import Batch
from scifm.paths import Path
from scifm.priors import Gaussian, Prior

__all__ = ["check_coupling", "check_path", "check_prior", "check_velocity"]


def check_prior(prior: Prior, like: Batch, samples: int = 4096, seed: int = 0) -> None:
    """Whether sample, log_prob, score, dims and whiten of a prior agree.

    Args:
        prior: to be checked, fitted.
        like: a batch whose layout, dtype and conditions the prior is made for; two samples or more tell more.
        samples: draws for the normalisation, of the first sample of `like`. Few dimensions make it sharp.

    Raises:
        AssertionError: naming the law that is broken.
    """
    if len(like) == 0:
        raise ValueError("check_prior: like must hold at least one sample.")
    x = prior.sample(like, _generator(seed))
    _same_form("Prior.sample", x, like.x)
    _seeded("Prior.sample", lambda g: prior.sample(like, g), seed)
    log_prob = prior.log_prob(x, like)
    _say(
        log_prob.shape == (len(like),),
        f"Prior.log_prob must return one number per sample, ({len(like)},), "
        f"got {tuple(log_prob.shape)}: sum over the event with like.total.",
    )
    _say(bool(log_prob.isfinite().all()), "Prior.log_prob is not finite at the prior's own samples.")
    _say(log_prob.dtype == x.dtype, f"Prior.log_prob returns {log_prob.dtype} for {x.dtype} samples.")
    dims = prior.dims(like)
    _say(
        dims.shape == (len(like),) and bool((dims <= like.dims).all() & (dims > 0).all()),
        f"Prior.dims must be between 1 and the numbers of each sample {like.dims.tolist()}, got {dims.tolist()}.",
    )
    _independent(lambda part, y: prior.log_prob(y, part), like, x, "Prior.log_prob")
    _score(prior, x, like)
    _other_dtype(prior, like, seed)
    if prior.metric == "prior" or type(prior).whiten is not Prior.whiten:
        _whitens(prior, x, like)
    _normalised(prior, like.select([0]), samples, seed)


def _score(prior: Prior, x: Tensor, like: Batch) -> None:
    with torch.enable_grad():
        y = x.detach().double().requires_grad_()
        wide = like.to(torch.float64)
        slope = torch.autograd.grad(prior.log_prob(y, wide).sum(), y)[0]
    given = prior.score(x.detach().double(), wide)
    error = float((given - slope).abs().max() / (1 + slope.abs().max()))
    _say(error < 1e-5, f"Prior.score is not the gradient of log_prob (relative error {error:.2g}).")


def _other_dtype(prior: Prior, like: Batch, seed: int) -> None:
    for dtype, tolerance in ((torch.float32, 1e-3), (torch.float64, 1e-9)):
        cast = like.to(dtype)
        x = prior.sample(cast, _generator(seed))
        _same_form("Prior.sample", x, cast.x)
        wide = prior.log_prob(x.double(), like.to(torch.float64))
        error = float(((prior.log_prob(x, cast).double() - wide).abs() / (1 + wide.abs())).max())
        _say(error < tolerance, f"Prior.log_prob in {dtype} is off by {error:.2g} (relative) from float64.")


def _whitens(prior: Prior, x: Tensor, like: Batch) -> None:
    like = like.to(torch.float64)
    x = x.double()
    z = prior.whiten(x, like)
    error = float((prior.colour(z, like) - x).abs().max() / (1 + x.abs().max()))
    _say(error < 1e-6, f"Prior.colour does not undo whiten (relative error {error:.2g}).")
    white = Gaussian().to(x.device)
    # An affine map changes all log-densities by the same constant, its log-determinant.
    twice = prior.colour(2 * z, like)
    change = prior.log_prob(x, like) - prior.log_prob(twice, like)
    wanted = white.log_prob(z, like) - white.log_prob(2 * z, like)
    error = float(((change - wanted).abs() / (1 + wanted.abs())).max())
    _say(
        error < 1e-6,
        f"whitened samples are not standard normal under the prior's density (error {error:.2g}): "
        "log_prob and whiten disagree.",
    )


def _normalised(prior: Prior, like: Batch, samples: int, seed: int) -> None:
    """∫ p = 1 and samples ~ p, by importance sampling in both directions with a Gaussian of the samples' moments.

    With q a wider Gaussian, E_q[p/q] = 1 tests the normalisation. With p's own samples, E_p[q'/p] = 1 for a narrower
    q' tests that the samples come from the density.
    """
    wide = Batch.join([like.to(torch.float64)] * samples)
    generator = _generator(seed + 1)
    x = prior.sample(wide, generator)
    rows = wide.stack(x, torch.arange(samples, device=x.device))
    mean, flat = rows.mean(0), rows - rows.mean(0)
    dims = int(prior.dims(like)[0])
    if dims > 16:
        _moments(prior, x, wide)
        return
    covariance = flat.T @ flat / samples
    values, modes = torch.linalg.eigh(covariance)
    values, modes = (
        values[-dims:].clamp(min=1e-12),
        modes[:, -dims:],
    )  # the subspace on which the density lives
    z = (rows - mean) @ modes / values.sqrt()
    for inflate, own in ((1.3, False), (0.7, True)):
        if own:
            points, unit = x, z / inflate
        else:
            unit = torch.randn(z.shape, generator=generator, dtype=z.dtype).to(z)
            moved = mean + (unit * inflate * values.sqrt()) @ modes.T
            points = wide.place(x, torch.arange(samples, device=x.device), moved)
        log_q = -0.5 * (unit.square() + math.log(2 * math.pi)).sum(1) - (values.sqrt() * inflate).log().sum()
        log_ratio = prior.log_prob(points, wide) - log_q
        ratio = (-log_ratio if own else log_ratio).exp()
        mean_ratio, error = float(ratio.mean()), float(ratio.std() / math.sqrt(samples))
        law = "samples do not follow log_prob: E_p[q/p]" if own else "the density does not integrate to one: E_q[p/q]"
        _say(
            abs(mean_ratio - 1) < 5 * error + 0.02,
            f"Prior: {law} = {mean_ratio:.3f} ± {error:.3f}, expected 1. "
            "Check the constant of log_prob and the scale of sample.",
        )


def _moments(prior: Prior, x: Tensor, wide: Batch) -> None:
    """In many dimensions importance weights degenerate; Stein's identity E_p[xᵀ∇log p] = −dims still holds."""
    score = prior.score(x, wide)
    inner = wide.total(x * score)
    mean, error = float(inner.mean()), float(inner.std() / math.sqrt(len(inner)))
    dims = float(prior.dims(wide).double().mean())
    _say(
        abs(mean + dims) < 5 * error + 1e-6 * dims,
        f"Prior: E[x·score] = {mean:.3f} ± {error:.3f}, expected {-dims:g}: sample and log_prob disagree in scale.",
    )
    if prior.metric == "prior" or type(prior).whiten is not Prior.whiten:
        # Only here can a wrong constant be seen: log p(x) − log N(whiten x) must be the log-determinant of whitening.
        one = wide.select([0])
        point = x[: one.x.shape[0]].detach()
        jacobian = torch.autograd.functional.jacobian(lambda y: prior.whiten(y, one), point)
        size = point.numel()
        logdet = float(torch.linalg.slogdet(jacobian.reshape(size, size))[1])  # type: ignore[union-attr]
        gap = float(prior.log_prob(point, one)[0] - Gaussian().log_prob(prior.whiten(point, one), one)[0])
        _say(
            abs(gap - logdet) < 1e-6 * (1 + abs(logdet)),
            f"the density does not integrate to one: log_prob is off by "
            f"{gap - logdet:.4g} from the log-determinant of whiten.",
        )


def check_path(path: Path, like: Batch, seed: int = 0) -> None:
    """Whether a path starts at x0, ends at x1 up to σ_1 x0, is finite, and has the velocity of its points.

    Raises:
        AssertionError: naming the law that is broken.
    """
    like = like.to(torch.float64)
    x0, x1 = like.randn(_generator(seed)), like.randn(_generator(seed + 1))

    def at(t: float) -> tuple[Tensor, Tensor]:
        return path(x0, x1, torch.full((len(like),), t, dtype=torch.float64), like)

    for t, end in ((0.0, x0), (1.0, x1)):
        x, u = at(t)
        _same_form("Path: x_t", x, like.x)
        _same_form("Path: u_t", u, like.x)
        _say(bool(x.isfinite().all() and u.isfinite().all()), f"Path: x_t or u_t is not finite at t={t:g}.")
        sigma = float(path.coefficients(torch.tensor([t], dtype=torch.float64))[1])
        target = end if t == 0 else x1 + sigma * x0
        gap = float((x - target).abs().max())
        _say(gap < 1e-6, f"Path: x_t at t={t:g} is {gap:.2g} away from {'x0' if t == 0 else 'x1 + σ x0'}.")
    for t in (0.1, 0.5, 0.9):
        slope = (at(t + 1e-5)[0] - at(t - 1e-5)[0]) / 2e-5
        error = float((slope - at(t)[1]).abs().max() / (1 + slope.abs().max()))
        _say(
            error < 1e-6,
            f"Path: u_t is not the time derivative of x_t at t={t:g} (relative error {error:.2g}).",
        )
    # One time per sample, also where the number of samples equals a dimension of the data.
    t = torch.linspace(0.1, 0.9, len(like), dtype=torch.float64)
    together = path(x0, x1, t, like)
    for b in range(len(like)):
        rows = torch.tensor([b])
        for whole, alone in zip(together, at(float(t[b])), strict=True):
            gap = float((like.stack(whole, rows) - like.stack(alone, rows)).abs().max()) if like.dims[b] else 0.0
            _say(gap < 1e-12, f"Path: sample {b} does not follow its own time t[{b}] (off by {gap:.2g}).")


def check_coupling(coupling: Callable[..., Tensor], batch: Batch, prior: Prior | None = None, seed: int = 0) -> None:
    """Whether a coupling only re-pairs: each draw used once, never across sizes or conditions, seeded, x1 untouched.

    Raises:
        AssertionError: naming the law that is broken.
    """
    prior = Gaussian() if prior is None else prior
    x0, data = prior.sample(batch, _generator(seed)), batch.x.clone()
    before = x0.clone()
    paired = coupling(x0, batch, _generator(seed))
    _same_form("Coupling", paired, x0)
    _say(torch.equal(batch.x, data) and torch.equal(x0, before), "Coupling: changes its arguments in place.")
    again = coupling(x0, batch, _generator(seed))
    _say(
        torch.equal(paired, again),
        "Coupling: two calls with equal generators differ; draw from the generator only.",
    )
    for group in batch.groups():
        new, old = batch.stack(paired, group), batch.stack(x0, group)
        same = (new[:, None] == old[None]).all(-1)
        _say(
            bool((same.sum(0) == 1).all() and (same.sum(1) == 1).all()),
            "Coupling: a group of samples that share "
            f"size and conditions ({group.tolist()[:8]}) does not get back each of its own draws exactly once.",
        )


def check_velocity(velocity: nn.Module, batch: Batch, symmetries: Sequence[str] = (), seed: int = 0) -> None:
    """Whether a velocity network has the right form, treats samples alone, and is deterministic.

    Args:
        symmetries: "permutation" also checks that reordering a ragged sample's rows reorders the answer.

    Raises:
        AssertionError: naming the law that is broken.
    """
    t = torch.rand(len(batch), generator=_generator(seed), dtype=batch.x.dtype).to(batch.x.device)
    with torch.no_grad():
        v = velocity(t, batch.x, batch)
        _same_form("Velocity", v, batch.x)
        _say(bool(v.isfinite().all()), "Velocity: not finite for finite data.")
        _say(
            torch.equal(v, velocity(t, batch.x, batch)),
            "Velocity: two equal calls differ; is dropout on? call .eval().",
        )

        for b in range(len(batch)):
            rows = torch.tensor([b], device=batch.x.device)
            part = batch.select([b])
            if not part.dims[0]:
                continue
            single = velocity(t[b : b + 1], part.x, part)
            gap = float((part.stack(single, rows * 0) - batch.stack(v, rows)).abs().max())
            scale = 1 + float(v.abs().max())
            bound = 1e-4 if batch.x.dtype == torch.float32 else 1e-10
            _say(
                gap < bound * scale,
                f"Velocity: sample {b} depends on its batch mates (off by {gap:.2g}); no batch "
                "statistics, and no reduction over the batch axis.",
            )
        if "permutation" in symmetries:
            _permutes(velocity, batch, t, seed)


def _permutes(velocity: nn.Module, batch: Batch, t: Tensor, seed: int) -> None:
    b = int(batch.counts.argmax())
    part = batch.select([b])
    order = torch.randperm(part.x.shape[0], generator=_generator(seed)).to(part.x.device)
    nodes = {k: v[order] for k, v in part.nodes.items()}
    moved = Batch(part.x[order], part.index, 1, part.context, nodes)
    gap = float((velocity(t[b : b + 1], moved.x, moved) - velocity(t[b : b + 1], part.x, part)[order]).abs().max())
    _say(gap < 1e-4, f"Velocity: reordering the rows does not reorder the answer (off by {gap:.2g}).")


def _independent(function: Callable[[Batch, Tensor], Tensor], like: Batch, x: Tensor, who: str) -> None:
    together = function(like, x)
    for b in range(len(like)):
        part = like.replace(x).select([b])
        gap = float((function(part, part.x)[0] - together[b]).abs())
        bound = (1e-4 if x.dtype == torch.float32 else 1e-9) * (1 + float(together[b].abs()))
        _say(gap < bound, f"{who}: sample {b} depends on its batch mates (off by {gap:.2g}).")


def _seeded(who: str, draw: Callable[[torch.Generator], Tensor], seed: int) -> None:
    state = torch.get_rng_state()
    first, again, other = draw(_generator(seed)), draw(_generator(seed)), draw(_generator(seed + 1))
    _say(
        torch.equal(first, again),
        f"{who}: equal generators give different draws; take all randomness from generator.",
    )
    _say(
        not torch.equal(first, other),
        f"{who}: different generators give the same draw; is the generator ignored?",
    )
    _say(
        torch.equal(state, torch.get_rng_state()),
        f"{who}: draws from the global random state, not from generator.",
    )


def _same_form(who: str, x: Tensor, like: Tensor) -> None:
    got, wanted = (x.shape, x.dtype, x.device), (like.shape, like.dtype, like.device)
    _say(got == wanted, f"{who}: expected shape, dtype and device {wanted}, got {got}.")


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _say(condition: bool, message: str) -> None:
    if not condition:
        raise AssertionError(message)
