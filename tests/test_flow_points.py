"""A flow between Gaussians of centred points, whose velocity is known, against the density of where it ends."""

import pytest
import torch
from torch import nn

from scifm import Flow, Objective, networks, priors
from scifm.batch import Batch
from scifm.data.transforms import Affine
from scifm.priors import FullPoints, GlobularChain, HarmonicChain, HarmonicGraph, MeanFreeGaussian
from scifm.solve import Solver
from scifm.trace import Exact

DOUBLE = torch.float64
COUNTS = [4, 1, 2, 0, 6, 4]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def layout(counts=COUNTS, d=2):
    """Sets of several sizes with the bonds of a ring or a pair; `who` tells the velocity which of them are left."""
    index = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    starts = [sum(counts[:b]) for b in range(len(counts))]
    bonds = [(s + i, s + (i + 1) % n) for s, n in zip(starts, counts, strict=True) if n > 1 for i in range(n)]
    who = {"who": torch.arange(len(counts))}
    return Batch(torch.zeros(len(index), d, dtype=DOUBLE), index, len(counts), who, edge_index=torch.tensor(bonds).T)


def covariances(prior, like):
    """(n, n) of each sample, by colouring unit vectors."""
    found = []
    for b, n in enumerate(like.counts.tolist()):
        many = like.select([b] * max(n, 1))
        unit = torch.zeros(n, n, like.event[-1], dtype=DOUBLE)
        unit[:, :, 0] = torch.eye(n, dtype=DOUBLE)
        rows = unit.reshape(-1, like.event[-1]) if n else many.x
        A = prior.colour(rows, many).reshape(unit.shape)[:, :, 0]
        found.append(A.T @ A)
    return found


class Between(nn.Module):
    """E[x1 − x0 | x_t] for independent centred Gaussians: (t C1 − (1 − t) C0) (t² C1 + (1 − t)² C0)⁻¹ x."""

    def __init__(self, start, end):
        super().__init__()
        self.start, self.end = start, end

    def forward(self, t, x, batch):
        moved, first = [], 0
        for b, n in enumerate(batch.counts.tolist()):
            own = int(batch.context["who"][b])
            C0, C1, s = self.start[own], self.end[own], t[b]
            both = s**2 * C1 + (1 - s) ** 2 * C0 + torch.ones(n, n, dtype=DOUBLE)  # which moves the centre only
            moved.append((s * C1 - (1 - s) * C0) @ torch.linalg.solve(both, x[first : first + n]))
            first += n
        return torch.cat(moved)


def four():
    root = torch.randn(4, 4, generator=generator(), dtype=DOUBLE)
    return FullPoints(4, root @ root.T)


PAIRS = {
    "white to wider white": (MeanFreeGaussian(1.0), MeanFreeGaussian(2.5), COUNTS),
    "chain to globule": (HarmonicChain(1.2), GlobularChain(1.5, 0.6, 0.3), COUNTS),
    "globule to graph": (GlobularChain(1.0, 0.5, 0.3), HarmonicGraph(0.7), COUNTS),
    "chain to any covariance": (HarmonicChain(0.5), four(), [4, 4]),
}


@pytest.mark.parametrize("metric", ["plain", "prior"])
@pytest.mark.parametrize("name", PAIRS)
def test_the_flow_between_two_gaussians_has_the_density_of_the_second(name, metric):
    prior, target, counts = PAIRS[name]
    like = layout(counts)
    start, end = covariances(prior, like), covariances(target, like)
    if metric == "prior":  # the same process in coordinates that whiten the start
        white = [torch.eye(n, dtype=DOUBLE) - 1 / max(n, 1) for n in counts]
        ends = []
        for b, n in enumerate(counts):
            many = like.select([b] * max(n, 1))
            unit = torch.zeros(n, n, 2, dtype=DOUBLE)
            unit[:, :, 0] = white[b]
            W = prior.whiten(unit.reshape(-1, 2) if n else many.x, many).reshape(unit.shape)[:, :, 0].T
            ends.append(W @ end[b] @ W.T)
        start, end = white, ends
    flow = Flow(Between(start, end), prior, objective=Objective(metric=metric))
    x = target.sample(like, generator())
    solver = Solver(rtol=1e-9, atol=1e-9)
    got = flow.log_prob(like.replace(x), Exact(), solver)
    assert torch.allclose(got, target.log_prob(x, like), rtol=1e-6, atol=1e-6)
    assert (got - prior.log_prob(x, like)).abs().max() > 0.1  # and the flow has something to do

    drawn, log_prob, _ = flow.sample_and_log_prob(like, generator(), solver, Exact())
    assert torch.allclose(drawn.x, target.project(drawn.x, like), atol=1e-8)
    assert torch.allclose(log_prob, target.log_prob(target.project(drawn.x, like), like), rtol=1e-6, atol=1e-6)


def test_each_sample_of_a_ragged_batch_scores_as_it_does_alone():
    prior, target, counts = PAIRS["chain to globule"]
    like = layout(counts)
    flow = Flow(Between(covariances(prior, like), covariances(target, like)), prior)
    data = like.replace(target.sample(like, generator()))
    solver = Solver(rtol=1e-8, atol=1e-8)
    together = flow.log_prob(data, Exact(), solver)
    for b in range(len(counts)):
        alone = flow.log_prob(data.select([b]), Exact(), solver)
        assert torch.allclose(alone, together[b : b + 1], rtol=1e-8, atol=1e-8)


def test_sets_beside_the_subspace_are_refused():
    like = layout()
    flow = Flow(Between([], []), HarmonicChain())
    with pytest.raises(ValueError, match="HarmonicChain lives on a subspace, and sample 0"):
        flow.log_prob(like.replace(torch.ones_like(like.x)), Exact())


@pytest.mark.parametrize("scale", [0.5, [0.5, 2.0, 3.0]])
def test_a_change_of_units_counts_the_dimensions_of_the_subspace(scale):
    x = torch.randn(6, 5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    batch, scale = Batch(x - x.mean(1, keepdim=True)), torch.tensor(scale, dtype=torch.float64)
    for sets in (batch, batch.points):
        velocity = networks.EGNN(3, 8).double()  # untrained: at rest
        flow = Flow(velocity, priors.MeanFreeGaussian(), transform=Affine(scale=scale))
        centred = torch.eye(5).double() - 0.2
        basis = torch.linalg.eigh(centred)[1][:, 1:]  # of the four directions that are left
        c = torch.einsum("bnd,nk->bkd", batch.x, basis)
        wanted = torch.distributions.Normal(torch.zeros(3).double(), 1 / scale.expand(3)).log_prob(c).sum((1, 2))
        assert torch.allclose(flow.log_prob(sets), wanted, rtol=0, atol=1e-10)
        drawn, log_prob, _ = flow.sample_and_log_prob(sets, torch.Generator().manual_seed(1))
        assert torch.allclose(flow.log_prob(drawn), log_prob, rtol=0, atol=1e-8)


def test_a_change_of_units_counts_the_values_of_a_mask():
    mask = torch.tensor([True, False, True])
    scale, x = torch.tensor([2.0, 5.0, 0.5]).double(), torch.tensor([[0.3, 0.0, -1.0]]).double()
    flow = Flow(networks.MLP(3).double(), priors.Masked(mask), transform=Affine(scale=scale))
    wanted = torch.distributions.Normal(0.0, 1 / scale[mask]).log_prob(x[:, mask]).sum(1)
    assert torch.allclose(flow.log_prob(Batch(x)), wanted, rtol=0, atol=1e-10)


def test_a_change_of_units_that_leads_out_of_the_subspace_is_refused():
    x = torch.randn(4, 5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    scale = torch.linspace(1, 2, 5, dtype=torch.float64)[:, None]
    model = x - x.mean(1, keepdim=True)
    flow = Flow(networks.EGNN(3, 8).double(), priors.MeanFreeGaussian(), transform=Affine(scale=scale))
    with pytest.raises(ValueError, match="Affine leads out of the subspace on which MeanFreeGaussian lives"):
        flow.log_prob(Batch(model / scale))
