"""Checks that a part keeps its contract: run on the project's own parts and on yours.

    from scifm.testing import check_prior
    check_prior(MyPrior(), Batch(torch.zeros(2, 3)))

Each check raises an AssertionError that says which law is broken, by how much, and where to look.  They are laws, not
snapshots: a density integrates to one, its score is its gradient, the same generator gives the same draw.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from scifm.batch import Batch
from scifm.paths import Path
from scifm.priors import Gaussian, Prior

__all__ = ["check_coupling", "check_path", "check_prior", "check_velocity"]

_LARGEST = 2048  # numbers of a sample up to which determinants are affordable


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
    dims, most = prior.dims(like), like.dims
    _say(
        dims.shape == (len(like),) and bool(((dims <= most) & (dims >= most.clamp(max=1)) & (dims % 1 == 0)).all()),
        "Prior.dims must be between 1 and the numbers that a sample holds (0 if it is empty), one whole number per "
        f"sample: the samples hold {most.tolist()[:8]}, dims are {dims.tolist()[:8]}.",
    )
    _independent(lambda part, y: prior.log_prob(y, part), like, x, "Prior.log_prob")
    _score(prior, x, like)
    _other_dtype(prior, like, seed)
    for b in _kinds(like):
        one = like.select([b])
        if _whitening(prior):
            _whitens(prior, like.replace(x).select([b]).x, one)
        _agrees(prior, one, samples, seed)


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
    _say(error < 1e-5, f"Prior.score is not the gradient of log_prob (relative error {error:.2g}).")


def _other_dtype(prior: Prior, like: Batch, seed: int) -> None:
    for dtype, tolerance in ((torch.float32, 1e-3), (torch.float64, 1e-9)):
        cast = like.to(dtype)
        x = prior.sample(cast, _generator(seed))
        _same_form("Prior.sample", x, cast.x)
        wide = prior.log_prob(x.double(), like.to(torch.float64))
        error = float(((prior.log_prob(x, cast).double() - wide).abs() / (1 + wide.abs())).max())
        _say(error < tolerance, f"Prior.log_prob in {dtype} is off by {error:.2g} (relative) from float64.")
        score, wide = prior.score(x, cast), prior.score(x.double(), like.to(torch.float64))
        _same_form("Prior.score", score, x)
        error = float((score.double() - wide).abs().max() / (1 + wide.abs().max()))
        _say(error < tolerance, f"Prior.score in {dtype} is off by {error:.2g} (relative) from float64.")


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

    size = int(like.dims[0])
    if int(prior.dims(like)[0]) < size or size > _LARGEST:
        return
    # log p(x) − log N(whiten x) is the log-determinant of whitening, whose columns are the images of unit vectors.
    many = like.select([0] * (size + 1))
    number = torch.arange(size + 1, device=x.device)
    unit = torch.cat([x.new_zeros(1, size), torch.eye(size, dtype=x.dtype, device=x.device)])
    images = many.stack(prior.whiten(many.place(many.x, number, unit), many), number)
    logdet = float(torch.linalg.slogdet(images[1:] - images[0])[1])
    gap = float(prior.log_prob(x, like)[0] - white.log_prob(z, like)[0])
    _say(
        abs(gap - logdet) < 1e-6 * (1 + abs(logdet)),
        f"the density does not integrate to one: log_prob is off by {gap - logdet:.4g} from the log-determinant of "
        "whiten.",
    )


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
def _agrees(prior: Prior, one: Batch, samples: int, seed: int) -> None:
    """Whether many draws for the one sample of `one` follow log_prob, and log_prob integrates to one.

    The first half of the draws gives a mean, a scale and the directions that look worst; the second half is tested.
    So no test is fitted to its own data, and six standard errors are six standard errors.
    """
    one = one.to(torch.float64)
    dims, half = int(prior.dims(one)[0]), max(256, min(samples, 4_000_000 // int(one.dims[0])))
    wide = one.select([0] * (2 * half))
    number = torch.arange(2 * half, device=one.x.device)
    x = prior.sample(wide, _generator(seed + 1))
    rows, score = wide.stack(x, number), wide.stack(prior.score(x, wide), number)
    different = len(rows.unique(dim=0))
    _say(
        different == len(rows),
        f"Prior.sample: of {len(rows)} draws for equal samples of one batch only {different} differ; "
        "draw noise for every sample.",
    )
    generator, rest = _generator(seed + 2), wide.select(number[half:])
    frame = _frame(rows[:half], dims, generator)

    def log_prob(points: Tensor) -> Tensor:
        return prior.log_prob(rest.place(rest.x, number[:half], points), rest)

    # Where a density jumps to zero Stein's identities have a boundary term, and only the bridges hold.
    if bool(log_prob(frame.mean + 3 * (rows[half:] - frame.mean)).isfinite().all()):
        _stein(rows, score, half, frame, dims, generator)
    judged = frame.whole and _integrates(log_prob, rows[:half], score[:half], rows[half:], frame, generator)
    if not judged and not (_whitening(prior) and dims == one.dims[0] <= _LARGEST):  # where `_whitens` has judged
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
        _say(
            abs(log_mass) < 6 * error + 1e-3,
            f"Prior: the density does not integrate to one, or samples do not follow log_prob: ∫p = {mass:.4g} ± "
            f"{mass * error:.2g}, expected 1. Check the constant of log_prob and the scale of sample.",
        )
    return judged


def _whitening(prior: Prior) -> bool:
    return prior.metric == "prior" or type(prior).whiten is not Prior.whiten


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
    _say(
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
    _say(
        bool((mean.abs() <= 6 * error + 1e-6).all()),
        f"Prior: samples do not follow log_prob: {says(float(mean[worst]), float(error[worst]))}.",
    )


def check_path(path: Path, like: Batch, seed: int = 0) -> None:
    """Whether a path starts at x0, ends at x1 up to σ_1 x0, is finite, and has the velocity of its points.

    Raises:
        AssertionError: naming the law that is broken.
    """
    if len(like) == 0:
        raise ValueError("check_path: like must hold at least one sample.")
    like = like.to(torch.float64)
    x0, x1 = like.randn(_generator(seed)), like.randn(_generator(seed + 1))

    def at(t: float) -> tuple[Tensor, Tensor]:
        return path(x0, x1, torch.full((len(like),), t, dtype=torch.float64, device=x0.device), like)

    for t, end in ((0.0, x0), (1.0, x1)):
        x, u = at(t)
        _same_form("Path: x_t", x, like.x)
        _same_form("Path: u_t", u, like.x)
        _say(bool(x.isfinite().all() and u.isfinite().all()), f"Path: x_t or u_t is not finite at t={t:g}.")
        sigma = float(path.coefficients(torch.tensor([t], dtype=torch.float64, device=x0.device))[1])
        target = end if t == 0 else x1 + sigma * x0
        gap = float((x - target).abs().max())
        _say(gap < 1e-6, f"Path: x_t at t={t:g} is {gap:.2g} away from {'x0' if t == 0 else 'x1 + σ x0'}.")
        _say(
            t == 0 or abs(sigma) < 1,
            f"Path: σ at t=1 is {sigma:g}, so the path ends in data blurred by {sigma:g} x0; expected 0, or little.",
        )
    for t in (0.0, 1e-3, 0.02, 0.1, 0.5, 0.9, 0.98, 1 - 1e-3, 1.0):
        before, after = max(t - 1e-5, 0.0), min(t + 1e-5, 1.0)
        slope = (at(after)[0] - at(before)[0]) / (after - before)
        error = float((slope - at(t)[1]).abs().max() / (1 + slope.abs().max()))
        _say(
            error < (1e-2 if t in (0, 1) else 1e-6),  # at the ends the slope is one-sided and rough
            f"Path: u_t is not the time derivative of x_t at t={t:g} (relative error {error:.2g}).",
        )
        narrow, half = torch.full((len(like),), t, device=x0.device), like.to(torch.float32)
        pair = path(x0.float(), x1.float(), narrow, half), path(x0, x1, narrow.double(), like)
        for name, small, wide in zip(("x_t", "u_t"), *pair, strict=True):
            _same_form(f"Path: {name}", small, half.x)
            gap = float((small - wide).abs().max() / (1 + wide.abs().max()))
            _say(gap < 1e-3, f"Path: {name} in torch.float32 at t={t:g} is off by {gap:.2g} (relative) from float64.")
    # One time per sample, also where the number of samples equals a dimension of the data.
    t = torch.linspace(0.1, 0.9, len(like), dtype=torch.float64, device=x0.device)
    together = path(x0, x1, t, like)
    for b in range(len(like)):
        rows = torch.tensor([b], device=x0.device)
        for whole, alone in zip(together, at(float(t[b])), strict=True):
            gap = float((like.stack(whole, rows) - like.stack(alone, rows)).abs().max()) if like.dims[b] else 0.0
            _say(gap < 1e-12, f"Path: sample {b} does not follow its own time t[{b}] (off by {gap:.2g}).")


def check_coupling(
    coupling: Callable[..., Tensor],
    batch: Batch,
    prior: Prior | None = None,
    seed: int = 0,
    ignore: Sequence[str] = (),
) -> None:
    """Whether a coupling only re-pairs: each draw used once, never across sizes or conditions, seeded, x1 untouched.

    Args:
        prior: makes the draws; white noise if None.
        ignore: names of context across which the coupling may pair.

    Raises:
        AssertionError: naming the law that is broken.
    """
    prior = Gaussian() if prior is None else prior
    x0, data = prior.sample(batch, _generator(seed)), batch.x.clone()
    before = x0.clone()
    paired = coupling(x0, batch, _generator(seed))
    _same_form("Coupling", paired, x0)
    _say(torch.equal(batch.x, data) and torch.equal(x0, before), "Coupling: changes its arguments in place.")
    state = torch.get_rng_state()
    again = coupling(x0, batch, _generator(seed))
    _say(
        torch.equal(paired, again),
        "Coupling: two calls with equal generators differ; draw from the generator only.",
    )
    _say(
        torch.equal(state, torch.get_rng_state()),
        "Coupling: draws from the global random state, not from generator.",
    )
    for group in batch.groups(ignore):
        if not batch.dims[group[0]]:
            continue  # empty samples have no draws
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
        ValueError: for a symmetry of another name.
    """
    if set(symmetries) - {"permutation"}:
        raise ValueError(f'check_velocity: symmetries may hold "permutation" only, got {list(symmetries)}.')
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
            _say(
                gap < _rounding(v) * scale,
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
    joined = None if part.edge_index is None else order.argsort()[part.edge_index]  # where these rows are now
    moved = Batch(part.x[order], part.index, 1, part.context, nodes, joined, part.edges)
    wanted = velocity(t[b : b + 1], part.x, part)[order]
    gap = float((velocity(t[b : b + 1], moved.x, moved) - wanted).abs().max() / (1 + wanted.abs().max()))
    _say(
        gap < _rounding(wanted),
        f"Velocity: reordering the rows does not reorder the answer (relative error {gap:.2g}).",
    )


def _rounding(x: Tensor) -> float:
    """A bound on relative errors of a network's answer in the dtype of x."""
    return 1e-10 if x.dtype == torch.float64 else 1e-4


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
