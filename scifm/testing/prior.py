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
        dims.shape == (len(like),) and bool(((dims <= most) & (dims >= most.clamp(max=1)) & (dims % 1 == 0)).all()),
        "Prior.dims must be between 1 and the numbers that a sample holds (0 if it is empty), one whole number per "
        f"sample: the samples hold {most.tolist()[:8]}, dims are {dims.tolist()[:8]}.",
    )
    independent(lambda part, y: prior.log_prob(y, part), like, x, "Prior.log_prob")
    _score(prior, x, like)
    _other_dtype(prior, like, seed)
    for b in _kinds(like):
        one = like.select([b])
        if whitening(prior):
            _whitens(prior, like.replace(x).select([b]).x, one)
        agrees(prior, one, samples, seed)


def _kinds(like: Batch, most: int = 4) -> list[int]:
    """A sample of each size and condition that has values; of many, the smallest, the largest and some between."""
    first = sorted((int(g[0]) for g in like.groups() if like.dims[g[0]] > 0), key=lambda b: float(like.dims[b]))
    if len(first) <= most:
        return first
    return [first[round(i * (len(first) - 1) / (most - 1))] for i in range(most)]


def _score(prior: Prior, x: Tensor, like: Batch) -> None:
    with torch.enable_grad():
        y = x.detach().double().requires_grad_()
        wide = like.to(torch.float64)
        slope = torch.autograd.grad(prior.log_prob(y, wide).sum(), y)[0]
    given = prior.score(x.detach().double(), wide)
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
