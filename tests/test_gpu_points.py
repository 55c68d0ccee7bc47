"""The ragged side on a GPU: layouts, networks, priors, couplings and likelihoods give what they give on the CPU.

Noise comes from a generator on the CPU, so that both see the same numbers; float64, so that nothing but the device
differs.  Where there is no GPU the whole file is skipped.
"""

import pytest
import torch
from torch import nn

from scifm import Flow, networks
from scifm.batch import Batch
from scifm.blocks import blocks
from scifm.couplings import Aligned, EquivariantTransport
from scifm.energies import LennardJones
from scifm.geometry import Box, kabsch, nearest_graph, radius_graph
from scifm.priors import HarmonicChain, HarmonicGraph, MeanFreeGaussian
from scifm.solve import Solver
from scifm.trace import Exact

DEVICE = "cuda"
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device to compare with the CPU")

COUNTS = [5, 1, 7, 0, 5, 5, 8, 7]
CLOSE = {"rtol": 1e-5, "atol": 1e-5, "check_device": False}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def sets():
    """Sets of several sizes with species, a ring of bonds in each, and a number per set."""
    index = torch.repeat_interleave(torch.arange(len(COUNTS)), torch.tensor(COUNTS))
    starts = [sum(COUNTS[:b]) for b in range(len(COUNTS))]
    bonds = [(s + i, s + (i + 1) % n) for s, n in zip(starts, COUNTS, strict=True) if n > 2 for i in range(n)]
    both = torch.tensor(bonds + [(j, i) for i, j in bonds]).T
    batch = Batch(
        torch.randn(len(index), 3, generator=generator(), dtype=torch.float64),
        index,
        len(COUNTS),
        {"energy": torch.linspace(0, 1, len(COUNTS), dtype=torch.float64)[:, None]},
        nodes={"z": torch.arange(len(index)) % 2},
        edge_index=both,
        edges={"bond": torch.arange(both.shape[1]) % 3},
    )
    return batch.replace(MeanFreeGaussian().project(batch.x, batch))


def network(**names):
    torch.manual_seed(0)
    velocity = networks.EGNN(3, 16, layers=2, **names).double()
    for p in velocity.parameters():
        nn.init.normal_(p, std=0.1)
    return velocity


def on_both(run):
    """`run(device)` on the CPU and on the GPU; what the GPU gave must lie there, and be the same."""
    here, there = run("cpu"), run(DEVICE)
    for a, b in zip(here, there, strict=True):
        assert b.device.type == torch.device(DEVICE).type
        if a.is_floating_point():
            torch.testing.assert_close(b, a, **CLOSE)
        else:
            assert torch.equal(a, b.cpu())


def test_layouts():
    def run(device):
        batch = sets().to(device)
        dense = Batch(batch.x[:12].reshape(3, 4, 3)).points
        padded = [v for block in blocks(batch) for v in (block.pad(batch.x), block.mask, block.samples)]
        back = blocks(batch).rows([block.pad(batch.x) for block in blocks(batch)])
        total = batch.total(batch.x)
        return [*padded, back, total, batch.spread(total), batch.select([2, 0]).x, batch.counts, dense.x, dense.counts]

    on_both(run)


@pytest.mark.parametrize("names", [{}, {"nodes": {"z": 2}, "context": {"energy": 1}, "edges": {"bond": 3}}])
def test_a_network_and_its_gradient(names):
    def run(device):
        velocity, batch = network(**names).to(device), sets().to(device)
        t = torch.linspace(0.1, 0.9, len(batch), dtype=torch.float64, device=device)
        v = velocity(t, batch.x, batch)
        v.square().sum().backward()
        return [v.detach(), *(p.grad for p in velocity.parameters() if p.grad is not None)]

    on_both(run)


@pytest.mark.parametrize("make", [MeanFreeGaussian, HarmonicChain, HarmonicGraph])
def test_priors(make):
    def run(device):
        batch = sets().to(device)
        batch = batch.select([0, 1, 2, 4, 6])
        prior = make(1.3).to(device)
        x = prior.sample(batch, generator())
        found = [x, prior.log_prob(x, batch), prior.score(x, batch), prior.whiten(x, batch)]
        return [*found, prior.project(x + 1, batch), prior.dims(batch)]

    on_both(run)


@pytest.mark.parametrize("coupling", [Aligned(), EquivariantTransport(), EquivariantTransport("pairs")])
def test_couplings(coupling):
    def run(device):
        batch = sets().to(device)
        return [coupling(MeanFreeGaussian().sample(batch, generator(1)), batch, generator(2))]

    on_both(run)


def test_neighbours_superposition_and_energies():
    def run(device):
        batch = sets().to(device)
        box = Box(torch.full((3,), 4.0, dtype=torch.float64, device=device))
        y = torch.randn(batch.x.shape, generator=generator(3), dtype=torch.float64).to(device)
        turn = kabsch(batch.x[:5], y[:5])
        energy = LennardJones(each_pair=2).of(batch.replace(3 * batch.x))
        edges = [radius_graph(batch, 1.5), radius_graph(batch, 1.5, box), nearest_graph(batch, 3)]
        return [*(pairs[:, (pairs[0] * len(y) + pairs[1]).argsort()] for pairs in edges), turn, energy]

    on_both(run)


def test_training_sampling_and_the_exact_likelihood():
    def run(device):
        velocity, batch = network(nodes={"z": 2}).to(device), sets().to(device)
        flow = Flow(velocity, MeanFreeGaussian().to(device), coupling=EquivariantTransport())
        solver = Solver("rk4", steps=8)
        drawn, log_prob, _ = flow.sample_and_log_prob(batch, generator(), solver, Exact())
        scored = flow.log_prob(batch, Exact(), solver)
        adaptive = flow.log_prob(batch, Exact(), Solver(rtol=1e-4, atol=1e-4))
        loss = flow.loss(batch, generator=generator())
        return [drawn.x, log_prob, scored, adaptive, loss.detach()]

    on_both(run)
