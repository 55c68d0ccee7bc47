"""Transport for large clouds: a dense super-set of each cloud is paired once, and cut into the samples to train on.

Exact assignment of n points takes about n³, at every step and for each cloud: too much for thousands of points.  But
where a cloud can be drawn as densely as one likes, a scanned surface say, its transport map can be found beforehand
(Hui et al. 2025).  M points are paired with M draws of the prior; n of the pairs, chosen at random, are a training
sample with its x0.  All M/n disjoint such samples, *views*, are made at once: they take no more room than the dense
clouds, and go to training as any pairs do, in a file and with the coupling `Paired`.

**x0 keeps its law.**  The M draws are independent of the cloud, each is used once, and which of them make a view is
chosen at random, so a view's x0 is a random part of M exchangeable points: n points of white noise if these were M, and
if they were centred, centred ones once their own centre is taken out.  (A view must be a part of the cloud at random,
too.  Had the same n points of a cloud each drawn one of several partners at will, their x0 would be spread more evenly
than independent draws are.)  Each view always has the same x0, as in reflow; `Hybrid` around `Paired` mixes in new
draws at every step, as Hui et al. do.

The map is found in O(M log M + M·block²): both clouds are halved at the median along the axis along which the data are
widest, and again, down to blocks that are assigned exactly.  Pairs near a cut are not the best yet; so the data are cut
another way, at random, and partners assigned anew within each block, a few times.  No pass makes the pairs worse.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.couplings.assignment import assign, finite
from scifm.couplings.pairing import products
from scifm.geometry import random_rotation
from scifm.priors.base import Prior

__all__ = ["superset", "transport_map"]


@torch.no_grad()
def superset(
    dense: Batch,
    prior: Prior,
    points: int,
    generator: torch.Generator | None = None,
    *,
    block: int = 512,
    passes: int = 4,
) -> tuple[Tensor, Batch]:
    """Views of dense clouds and the x0 that belong to them.

    Args:
        dense: clouds of at least `points` points each, in model units; ragged rows (d,), context but no nodes or edges,
            since x0 would follow another law given what tells points apart.
        prior: of the flow: white noise on points, such as Gaussian and MeanFreeGaussian. Where it is centred, so are
            the views.
        points: n of a view. What is left of a cloud that is not a multiple of it, is left out.
        generator: makes the draws, views and cuts.
        block: points that are assigned exactly at a time.
        passes: of assignment within other blocks.

    Returns:
        x0 (rows, d), and the views as a ragged batch: what `write_pairs` takes. In memory, x0 goes to `nodes["x0"]`.

    Raises:
        ValueError: for other priors or batches, clouds that are too small, or numbers below 1 (passes below 0).

    Example:
        >>> from scifm import priors
        >>> g = torch.Generator().manual_seed(0)
        >>> clouds = Batch(torch.rand(200, 3, generator=g), torch.arange(2).repeat_interleave(100), 2)
        >>> x0, views = superset(clouds, priors.Gaussian(), 25, g)
        >>> x0.shape, views.counts.tolist()
        (torch.Size([200, 3]), [25, 25, 25, 25, 25, 25, 25, 25])
    """
    _check(dense, prior, points)
    if block < 1 or passes < 0:
        raise ValueError(f"superset: expected block >= 1 and passes >= 0, got {block}, {passes}.")
    draws = prior.sample(dense, generator)
    rows, partners = [], []
    starts = dense.counts.cumsum(0) - dense.counts
    for start, x, y in zip(starts, dense.replace(draws).split(), dense.split(), strict=True):
        order = transport_map(x, y, block, passes, generator)
        chosen = _shuffled(len(y), generator, y.device)[: len(y) // points * points]
        rows.append(start + chosen)
        partners.append(start + order[chosen])
    row, each = torch.cat(rows), dense.counts // points
    origin = torch.repeat_interleave(torch.arange(len(dense), device=row.device), each)
    views = Batch(
        dense.x[row],
        torch.arange(len(origin), device=row.device).repeat_interleave(points),
        len(origin),
        {name: value[origin.to(value.device)] for name, value in dense.context.items()},
    )
    return prior.project(draws[torch.cat(partners)], views), views.replace(prior.project(views.x, views))


@torch.no_grad()
def transport_map(
    x: Tensor, y: Tensor, block: int = 512, passes: int = 4, generator: torch.Generator | None = None
) -> Tensor:
    """(M,) long: x[result[i]] goes with y[i], each once, at nearly the least Σ |x − y|²; exact if M <= block.

    Args:
        x, y: (M, d) clouds.

    Example:
        >>> transport_map(torch.tensor([[0.0], [9.0]]), torch.tensor([[8.0], [1.0]]))
        tensor([1, 0])
    """
    if x.shape != y.shape or x.ndim != 2 or not finite(x) or not finite(y):
        raise ValueError(
            f"transport_map: expected finite clouds (M, d) of equal size, got {tuple(x.shape)}, {tuple(y.shape)}."
        )
    order = torch.zeros(len(y), dtype=torch.long, device=y.device)
    for a, b in _halves(x, y, block):
        order[b] = a[assign(products(y[b], x[a]))]
    for _ in range(passes if len(y) > block else 0):
        turned = y @ random_rotation(1, y.shape[1], generator, y.dtype)[0].to(y.device)
        size = max(2, int(block * (0.6 + 0.4 * float(torch.rand((), generator=generator)))))
        for part, _ in _halves(turned, turned, size):
            order[part] = order[part][assign(products(y[part], x[order[part]]))]
    return order


def _halves(x: Tensor, y: Tensor, block: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Row numbers of x and of y in blocks of equal size, cut at medians along the axis along which y is widest."""
    every = torch.arange(len(y), device=y.device)
    waiting = [(every, every)]
    while waiting:
        a, b = waiting.pop()
        if len(b) <= max(1, block):
            yield a, b
            continue
        axis = int(y[b].var(0).argmax())
        a, b = a[x[a, axis].argsort(stable=True)], b[y[b, axis].argsort(stable=True)]
        middle = len(b) // 2
        waiting += [(a[:middle], b[:middle]), (a[middle:], b[middle:])]


def _shuffled(n: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
    home = None if generator is None else generator.device
    return torch.randperm(n, generator=generator, device=home).to(device)


def _check(dense: Batch, prior: Prior, points: int) -> None:
    if not prior.gaussian or "permutation" not in prior.symmetries:
        raise ValueError(
            f"superset: expected white noise on points, such as Gaussian or MeanFreeGaussian, got "
            f"{type(prior).__name__}: a part of its draw does not follow its law."
        )
    if dense.dense or len(dense.event) != 1 or dense.nodes or dense.edges or dense.edge_index is not None:
        raise ValueError(
            "superset: expected a ragged batch of clouds, rows (d,), without nodes and edges; Batch.points makes one "
            "of dense events (n, d)."
        )
    if not len(dense) or not 1 <= points <= int(dense.counts.min()):
        raise ValueError(
            f"superset: expected clouds of at least points={points} (>= 1) points each, got "
            f"{int(dense.counts.min()) if len(dense) else 'no clouds'}."
        )
    _check_width(dense.select([int(dense.counts.argmax())]), prior, points)


def _check_width(whole: Batch, prior: Prior, points: int) -> None:
    """Refuse white noise that is wider for more points: a part of a draw is too wide for its number."""
    x, noise = torch.zeros_like(whole.x), whole.randn(torch.Generator().manual_seed(0))[:points]
    x[:points] = noise - noise.mean(0)
    part = Batch(x[:points], torch.zeros(points, dtype=torch.long, device=x.device), 1, whole.context)
    if not torch.allclose(prior.score(x, whole)[:points], prior.score(part.x, part), rtol=1e-3, atol=1e-6):
        raise ValueError(
            f"superset: the width of {type(prior).__name__} depends on the number of points, so {points} points of a "
            f"draw of {len(x)} do not follow its law. Take one of fixed width, such as MeanFreeGaussian."
        )
