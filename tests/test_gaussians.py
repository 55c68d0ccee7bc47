"""Gaussians beside a flow live where its prior does: no rival is likelier than the law that made the data."""

from __future__ import annotations

import math

import pytest
import torch

from scifm import Batch, Flow, priors
from scifm.baselines import baselines
from scifm.gaussians import candidates, centres, white
from scifm.priors import variances

D = torch.float64


class Still(torch.nn.Module):
    def forward(self, t: torch.Tensor, x: torch.Tensor, batch: Batch) -> torch.Tensor:
        return torch.zeros_like(x)


class Anchored(priors.Prior):
    """Sets whose first point is at the origin: as many dimensions as centred sets, and another space."""

    def sample(self, like: Batch, generator: torch.Generator | None = None) -> torch.Tensor:
        return self.project(like.randn(generator), like)

    def log_prob(self, x: torch.Tensor, like: Batch) -> torch.Tensor:
        return -0.5 * like.total(x.square()) - 0.5 * math.log(2 * math.pi) * self.dims(like)

    def dims(self, like: Batch) -> torch.Tensor:
        return like.dims - like.event[-1]

    def project(self, x: torch.Tensor, like: Batch) -> torch.Tensor:
        return torch.cat([torch.zeros_like(x[:, :1]), x[:, 1:]], 1)


def rings(sizes: list[int], label: bool = False) -> Batch:
    """Rings of bonds of the given sizes, points numbered so that neighbours in the ring are not neighbours in order."""
    ends, start = [], 0
    for n in sizes:
        order = start + (torch.arange(n) * (3 if n % 3 else 5)) % n
        ends.append(torch.stack([torch.cat([order, order.roll(1)]), torch.cat([order.roll(1), order])]))
        start += n
    index = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    nodes = {"position": torch.cat([torch.arange(n) for n in sizes])} if label else {}
    return Batch(torch.zeros(start, 3, dtype=D), index, len(sizes), nodes=nodes, edge_index=torch.cat(ends, 1))


def drawn(prior: priors.Prior, like: Batch, seed: int) -> Batch:
    return like.replace(prior.sample(like, torch.Generator().manual_seed(seed)))


def ladder(truth: priors.Prior, own: priors.Prior, like: Batch) -> tuple[dict[str, float], float]:
    """Bits per dimension of the rivals, and of the truth."""
    train, test = drawn(truth, like, 0), drawn(truth, like, 1)
    found = {k: v.value for k, v in baselines(Flow(Still(), own), train, test).items()}
    entropy = float((-truth.log_prob(test.x, test) / truth.dims(test)).mean()) / math.log(2)
    return found, entropy


def test_ragged_sets_are_compared_on_the_space_of_centred_ones() -> None:
    like = rings([5, 7, 8, 11, 4] * 80)
    truth = priors.SpectralGraph(variances.PowerLaw(0.5, 2.0))
    found, entropy = ladder(truth, priors.MeanFreeGaussian(), like)
    assert list(found) == ["prior", "white", "best Gaussian (bonds)"]
    assert abs(found["best Gaussian (bonds)"] - entropy) < 0.05 and found["white"] > entropy + 0.5
    train, test = drawn(truth, like, 0), drawn(truth, like, 1)
    noise = priors.MeanFreeGaussian().fit(train)  # σ from the (n − 1) d numbers of each set, and a density of as many
    bits = float((-noise.log_prob(test.x, test) / noise.dims(test)).mean()) / math.log(2)
    assert found["white"] == pytest.approx(bits, abs=1e-12)


@pytest.mark.parametrize("dense", [True, False])
def test_sets_of_one_size_have_a_full_covariance_and_no_direction_is_free(dense: bool) -> None:
    g = torch.Generator().manual_seed(0)
    root = torch.randn(6, 6, generator=g, dtype=D)
    truth = priors.FullPoints(6, root @ root.mT / 6 + 0.1 * torch.eye(6, dtype=D))
    like = Batch(torch.zeros(400, 6, 3, dtype=D))
    found, entropy = ladder(truth, priors.MeanFreeGaussian(), like if dense else like.points)
    # as (6, 3) numbers of all space the centre would be a direction of no variance, likelier than any truth
    assert abs(found["best Gaussian (full covariance)"] - entropy) < 0.03
    assert all(value > entropy - 0.01 for value in found.values())


def test_chains_are_known_by_their_names() -> None:
    like = rings([12, 30, 20] * 60, label=True)
    like = Batch(like.x, like.index, len(like), nodes=like.nodes)
    found, entropy = ladder(priors.SpectralChain(variances.PowerLaw(2.0, 1.3)), priors.MeanFreeGaussian(), like)
    assert abs(found["best Gaussian (chain)"] - entropy) < 0.02


def test_masks_and_unknown_spaces() -> None:
    mask = torch.tensor([[True, False, True], [False, True, True]])
    like = Batch(torch.zeros(500, 2, 3, dtype=D))
    truth = priors.Masked(mask, torch.tensor([[1.0, 1, 3], [1, 9, 0.1]]))
    found, entropy = ladder(truth, priors.Masked(mask), like)
    assert abs(found["best Gaussian (per value)"] - entropy) < 0.02 and found["white"] > entropy + 0.5
    assert list(ladder(Anchored(), Anchored(), like)[0]) == ["prior"]


def test_which_priors_centre() -> None:
    like = Batch(torch.randn(4, 5, 3, dtype=D))
    chain, anchored = priors.HarmonicChain(), Anchored()
    assert centres(chain, like) and centres(priors.MeanFreeGaussian(), like.points)
    assert not centres(anchored, like) and torch.equal(anchored.dims(like), chain.dims(like))
    assert not centres(priors.Gaussian(), like) and not centres(priors.Gaussian(), Batch(torch.zeros(4, 5, dtype=D)))
    assert white(anchored, like) is None and candidates(anchored, like, 100) == {}
    backbone = Batch(torch.zeros(8, 3, 3, dtype=D), torch.tensor([0] * 5 + [1] * 3), 2)
    backbone = drawn(priors.MeanFreeGaussian(), backbone, 0)
    assert isinstance(white(priors.MeanFreeGaussian(), backbone), priors.MeanFreeGaussian)
