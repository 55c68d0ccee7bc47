"""The contract of a prior."""

from __future__ import annotations

import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.priors import Gaussian, Prior
from scifm.testing.density import LARGEST, agrees, whitening
from scifm.testing.laws import fresh, independent, same_form, say, seeded

__all__ = ["check_prior"]


def check_prior(prior: Prior, like: Batch, samples: int = 4096, seed: int = 0) -> None:
    """Whether sample, log_prob, score, dims and whiten of a prior agree.

    Args:
        prior: to be checked, fitted.
        like: a batch whose layout, dtype and conditions the prior is made for. Give it samples of several sizes or
            conditions if there are: up to four that differ are looked at one by one.
        samples: twice as many draws of each of these are made; fewer in many dimensions.

    Raises:
        AssertionError: naming the law that is broken.
        ValueError: for a batch without any values.

    Warns:
        UserWarning: where the constant of the density cannot be judged: far from a Gaussian in many dimensions.
    """
    if not bool((like.dims > 0).any()):
        raise ValueError("check_prior: like must hold at least one sample that has values.")
    _conditions(prior, like)
    if not bool((prior.dims(like) > 0).any()):
        raise ValueError("check_prior: like must hold at least one sample in which the prior has a degree of freedom.")
    x = prior.sample(like, fresh(seed))
    same_form("Prior.sample", x, like.x)
    seeded("Prior.sample", lambda g: prior.sample(like, g), seed)
    log_prob = prior.log_prob(x, like)
    say(
        log_prob.shape == (len(like),),
        f"Prior.log_prob must return one number per sample, ({len(like)},), "
        f"got {tuple(log_prob.shape)}: sum over the event with like.total.",
    )
    say(bool(log_prob.isfinite().all()), "Prior.log_prob is not finite at the prior's own samples.")
    say(log_prob.dtype == x.dtype, f"Prior.log_prob returns {log_prob.dtype} for {x.dtype} samples.")
    dims, most = prior.dims(like), like.dims
    say(
        dims.shape == (len(like),) and bool(((dims <= most) & (dims >= 0) & (dims % 1 == 0)).all()),
        "Prior.dims must be between 0 and the numbers that a sample holds, one whole number per sample: the samples "
        f"hold {most.tolist()[:8]}, dims are {dims.tolist()[:8]}.",
    )
    independent(lambda part, y: prior.log_prob(y, part), like, x, "Prior.log_prob")
    _score(prior, x, like)
    _other_dtype(prior, like, seed)
    _projects(prior, like, seed)
    if prior.gaussian:
        _affine(prior, like, seed)
    for b in _kinds(prior, like):
        one = like.select([b])
        if whitening(prior):
            _whitens(prior, like.replace(x).select([b]).x, one)
        agrees(prior, one, samples, seed)


def _kinds(prior: Prior, like: Batch, most: int = 4) -> list[int]:
    """A sample of each size and condition that can vary; of many, the smallest, the largest and some between."""
    dims = prior.dims(like)
    first = sorted((int(g[0]) for g in like.groups() if dims[g[0]] > 0), key=lambda b: float(like.dims[b]))
    if len(first) <= most:
        return first
    return [first[round(i * (len(first) - 1) / (most - 1))] for i in range(most)]


def _conditions(prior: Prior, like: Batch) -> None:
    missing = [n for n in prior.conditional if n not in like.context and n not in like.nodes]
    say(
        not missing,
        f"Prior.conditional names {missing}, which the batch lacks; name what the law depends on, and check it with a "
        "batch that has it.",
    )


def _projects(prior: Prior, like: Batch, seed: int) -> None:
    """An orthogonal projection of rank `dims`, onto a space that holds samples and scores."""
    wide = like.to(torch.float64)
    x, a, b = prior.sample(wide, fresh(seed)), wide.randn(fresh(seed + 1)), wide.randn(fresh(seed + 2))
    whole = bool((prior.dims(wide) == wide.dims).all())
    for what, y in (("samples", x), ("scores", prior.score(x, wide)), ("projected points", prior.project(a, wide))):
        off = prior.project(y, wide)
        same_form("Prior.project", off, y)
        error = float((off - y).abs().max() / (1 + y.abs().max()))
        say(error < 1e-9, f"Prior.project moves {what} (by {error:.2g}), which lie in its space already.")
    pa, pb = prior.project(a, wide), prior.project(b, wide)
    gap = wide.total(pa * b) - wide.total(a * pb)
    error = float((gap.abs() / (1 + wide.dims)).max())
    say(error < 1e-9, f"Prior.project is no orthogonal projection: ⟨Pa, b⟩ and ⟨a, Pb⟩ differ by {error:.2g}.")
    if whole:
        say(torch.equal(pa, a), "Prior.project changes x, although dims says that the density lives everywhere.")
    elif int(wide.dims.max()) <= LARGEST:  # the rank is the trace, over one unit vector of each sample at a time
        rank = sum(wide.total(e * prior.project(e, wide)) for (e,) in wide.slots())
        say(
            bool(torch.isclose(torch.as_tensor(rank), prior.dims(wide), atol=1e-6).all()),
            f"Prior.project has rank {torch.as_tensor(rank).tolist()[:8]}, Prior.dims says "
            f"{prior.dims(wide).tolist()[:8]}; where dims is less than a sample holds, project is needed.",
        )


def _affine(prior: Prior, like: Batch, seed: int) -> None:
    wide = like.to(torch.float64)
    a, b = prior.sample(wide, fresh(seed)), prior.sample(wide, fresh(seed + 1))
    middle = prior.score(0.25 * a + 0.75 * b, wide)
    wanted = 0.25 * prior.score(a, wide) + 0.75 * prior.score(b, wide)
    error = float((middle - wanted).abs().max() / (1 + wanted.abs().max()))
    say(error < 1e-6, f"Prior.gaussian is set, but the score is not affine (relative error {error:.2g}).")


def _score(prior: Prior, x: Tensor, like: Batch) -> None:
    with torch.enable_grad():
        wide = like.to(torch.float64)
        y = prior.project(x.detach().double(), wide).requires_grad_()
        slope = torch.autograd.grad(prior.log_prob(y, wide).sum(), y)[0]
    given = prior.score(y.detach(), wide)
    error = float((given - slope).abs().max() / (1 + slope.abs().max()))
    say(error < 1e-5, f"Prior.score is not the gradient of log_prob (relative error {error:.2g}).")


def _other_dtype(prior: Prior, like: Batch, seed: int) -> None:
    for dtype, tolerance in ((torch.float32, 1e-3), (torch.float64, 1e-9)):
        cast = like.to(dtype)
        x = prior.sample(cast, fresh(seed))
        same_form("Prior.sample", x, cast.x)
        wide = prior.log_prob(x.double(), like.to(torch.float64))
        error = float(((prior.log_prob(x, cast).double() - wide).abs() / (1 + wide.abs())).max())
        say(error < tolerance, f"Prior.log_prob in {dtype} is off by {error:.2g} (relative) from float64.")
        score, wide = prior.score(x, cast), prior.score(x.double(), like.to(torch.float64))
        same_form("Prior.score", score, x)
        error = float((score.double() - wide).abs().max() / (1 + wide.abs().max()))
        say(error < tolerance, f"Prior.score in {dtype} is off by {error:.2g} (relative) from float64.")


def _whitens(prior: Prior, x: Tensor, like: Batch) -> None:
    like = like.to(torch.float64)
    x = x.double()
    z = prior.whiten(x, like)
    error = float((prior.colour(z, like) - x).abs().max() / (1 + x.abs().max()))
    say(error < 1e-6, f"Prior.colour does not undo whiten (relative error {error:.2g}).")
    white = Gaussian().to(x.device)
    # An affine map changes all log-densities by the same constant, its log-determinant.
    twice = prior.colour(2 * z, like)
    change = prior.log_prob(x, like) - prior.log_prob(twice, like)
    wanted = white.log_prob(z, like) - white.log_prob(2 * z, like)
    error = float(((change - wanted).abs() / (1 + wanted.abs())).max())
    say(
        error < 1e-6,
        f"whitened samples are not standard normal under the prior's density (error {error:.2g}): "
        "log_prob and whiten disagree.",
    )

    size = int(like.dims[0])
    if int(prior.dims(like)[0]) < size or size > LARGEST:
        return
    # log p(x) − log N(whiten x) is the log-determinant of whitening, whose columns are the images of unit vectors.
    many = like.select([0] * (size + 1))
    number = torch.arange(size + 1, device=x.device)
    unit = torch.cat([x.new_zeros(1, size), torch.eye(size, dtype=x.dtype, device=x.device)])
    images = many.stack(prior.whiten(many.place(many.x, number, unit), many), number)
    logdet = float(torch.linalg.slogdet(images[1:] - images[0])[1])
    gap = float(prior.log_prob(x, like)[0] - white.log_prob(z, like)[0])
    say(
        abs(gap - logdet) < 1e-6 * (1 + abs(logdet)),
        f"the density does not integrate to one: log_prob is off by {gap - logdet:.4g} from the log-determinant of "
        "whiten.",
    )
