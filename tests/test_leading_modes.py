"""Leading modes of numbered points: what moves, under which symmetries, and that no curve runs away."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from scifm import Batch, Flow, Objective, Solver, couplings, networks, priors
from scifm.testing import check_equivariant, check_velocity
from scifm.trace import Exact


def fold(samples: int = 60, points: int = 9, noise: float = 0.1, seed: int = 0) -> Batch:
    """One chiral set of points, turned at random and shaken."""
    g = torch.Generator().manual_seed(seed)
    shape = torch.randn(points, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    shape = torch.linalg.svd(shape - shape.mean(0), full_matrices=False)[0] * 3
    turns = torch.linalg.qr(torch.randn(samples, 3, 3, generator=g, dtype=torch.float64))[0]
    turns = turns * torch.linalg.det(turns)[:, None, None]  # det +1
    x = shape @ turns + noise * torch.randn(samples, points, 3, generator=g, dtype=torch.float64)
    return Batch(x - x.mean(1, keepdim=True))


def made(modes: int = 4, chiral: bool = True, random: bool = True) -> tuple[networks.LeadingModes, priors.FullPoints]:
    prior = priors.FullPoints(9).fit(fold())
    network = networks.LeadingModes(prior, modes, 16, chiral).double()
    torch.manual_seed(0)
    for p in network.parameters() if random else ():
        nn.init.normal_(p, std=0.3)
    return network, prior


@pytest.mark.parametrize("chiral", [True, False])
@pytest.mark.parametrize("ragged", [True, False])
def test_the_contract_of_a_velocity(chiral: bool, ragged: bool) -> None:
    network, _ = made(chiral=chiral)
    batch = fold(5).points if ragged else fold(5)
    check_velocity(network, batch)
    check_equivariant(network, batch, lacks=("reflection", "permutation") if chiral else ("permutation",))


def test_only_the_modes_of_the_largest_variance_move() -> None:
    network, prior = made(modes=4)
    batch = fold(7)
    v = network(torch.rand(7), batch.x, batch)
    basis = prior.vectors  # columns by increasing variance, the centre first
    c = torch.einsum("nk,bnd->bkd", basis, v)
    assert c[:, :-4].abs().max() < 1e-12 and (c[:, -4:].abs().amax((0, 2)) > 1e-3).all()
    other = batch.x + torch.einsum("nk,bkd->bnd", basis[:, 1:5], torch.randn(7, 4, 3, dtype=torch.float64))
    assert torch.allclose(network(torch.full((7,), 0.3), batch.x, batch), network(torch.full((7,), 0.3), other, batch))


def test_an_untrained_flow_is_its_prior_and_none_runs_away() -> None:
    network, prior = made(random=False)
    assert not network(torch.rand(3), fold(3).x, fold(3)).any()
    wild, prior = made()
    nn.init.normal_(wild.head.weight, std=0.2)
    flow = Flow(wild, prior, objective=Objective(metric="prior"))
    found = flow.sample(fold(4), torch.Generator().manual_seed(0), Solver("rk4", steps=200))
    assert found.x.isfinite().all()


def test_it_learns_that_a_fold_is_rigid_and_of_one_hand() -> None:
    train, test = fold(400), fold(64, seed=1)
    prior = priors.FullPoints(9).fit(train)
    torch.manual_seed(0)
    network = networks.GaussianSkip(networks.LeadingModes(prior, 3, 32).double())
    coupling = couplings.Aligned(permutation=False)
    flow = Flow(network, prior, coupling=coupling, objective=Objective(metric="prior"))
    optimiser, g = torch.optim.Adam(network.parameters(), 2e-2), torch.Generator().manual_seed(0)
    for _ in range(150):
        optimiser.zero_grad()
        flow.loss(train.select(torch.randint(400, (64,), generator=g)), g).mean().backward()
        optimiser.step()
    gain = flow.log_prob(test, Exact(), Solver("rk4", steps=30)) - prior.log_prob(test.x, test)
    assert gain.mean() > 8  # nats; six numbers less that are free
    drawn = flow.sample(fold(100), g, Solver("rk4", steps=30)).x
    hand = torch.linalg.det(torch.einsum("nk,bnd->bkd", prior.vectors[:, -3:], drawn))
    truth = torch.linalg.det(torch.einsum("nk,bnd->bkd", prior.vectors[:, -3:], test.x))
    assert (truth.sign() == truth[0].sign()).all() and (hand.sign() == truth[0].sign()).double().mean() > 0.9


def test_edges_of_what_is_possible() -> None:
    network, prior = made()
    one = fold(1)
    assert network(torch.rand(1), one.x, one).shape == one.x.shape
    none = one.select([])
    assert network(torch.rand(0), none.x, none).shape == (0, 9, 3)
    for modes in (2, 9):
        with pytest.raises(ValueError, match="modes must be at least 3, .* and fewer than the prior's 9 points"):
            networks.LeadingModes(prior, modes)
    with pytest.raises(TypeError, match="expected a FullPoints prior"):
        networks.LeadingModes(priors.MeanFreeGaussian(), 3)  # type: ignore[arg-type]
    flat = Batch(torch.zeros(2, 9, 2, dtype=torch.float64))
    with pytest.raises(ValueError, match="made for points of 3 coordinates"):
        network(torch.rand(2), flat.x, flat)
