"""A network that may tell left from right learns a set of one hand; one that may not has both hands, provably.

Chains of four points at the corners of a tetrahedron, taken in turn, with some noise: all of them right-handed.  An
O(3)-equivariant velocity from a prior that is even in a mirror has p(x) = p(mirror x), whatever it was trained on; so
half of its samples are left-handed, and each right-handed one costs log 2 more.
"""

from __future__ import annotations

import math
from functools import cache

import pytest
import torch
from torch import Tensor, nn

from scifm import Batch, Flow, Solver, couplings, networks, priors
from scifm.networks import EGNN, PaiNN, Residues, TensorProduct
from scifm.testing import check_equivariant
from scifm.trace import Exact

CORNERS = torch.tensor([[1.0, 1, 1], [-1, 1, -1], [1, -1, -1], [-1, -1, 1]])
SOLVER = Solver("rk4", steps=8)


def chains(number: int, generator: torch.Generator, noise: float = 0.25) -> Batch:
    x = CORNERS + noise * torch.randn(number, 4, 3, generator=generator)
    return layout(number).replace((x - x.mean(1, keepdim=True)).reshape(-1, 3))


@cache
def layout(number: int) -> Batch:
    nodes = {"z": torch.arange(4).repeat(number)}
    return Batch(torch.zeros(4 * number, 3), torch.arange(number).repeat_interleave(4), number, nodes=nodes)


def exact(batch: Batch) -> Batch:
    """In double precision, centred anew."""
    batch = batch.to(torch.float64)
    return batch.replace(priors.MeanFreeGaussian().project(batch.x, batch))


def right(batch: Batch) -> Tensor:
    """Whether each chain turns to the right: the sign of a triple product."""
    first, second, third, fourth = batch.x.reshape(-1, 4, 3).unbind(1)
    return torch.linalg.det(torch.stack([second - first, third - second, fourth - third], 1)) > 0


def trained(chiral: bool) -> Flow:
    torch.manual_seed(0)
    velocity = Residues(16, layers=2, window=3, chiral=chiral)
    flow = Flow(velocity, priors.MeanFreeGaussian(), coupling=couplings.Aligned(permutation=False))
    optimiser, g, steps = torch.optim.Adam(flow.parameters()), torch.Generator().manual_seed(0), 200
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = 1e-2 * (1 - step / steps)
        optimiser.zero_grad()
        flow.loss(chains(64, g), g).mean().backward()
        optimiser.step()
    return flow.requires_grad_(False)


@pytest.fixture(scope="module")
def flows() -> dict[bool, Flow]:
    return {chiral: trained(chiral) for chiral in (True, False)}


def generated(flow: Flow, number: int = 400) -> Batch:
    g = torch.Generator().manual_seed(1)
    return flow.sample(layout(number), generator=g, solver=SOLVER)


def test_all_chains_of_the_data_are_right_handed_and_the_prior_has_both_hands():
    data = chains(1000, torch.Generator().manual_seed(0))
    assert right(data).all() and not right(data.replace(-data.x)).any()
    noise = priors.MeanFreeGaussian().sample(data, torch.Generator().manual_seed(0))
    assert abs(float(right(data.replace(noise)).float().mean()) - 0.5) < 0.05


def test_a_chiral_network_generates_the_hand_of_its_data(flows):
    assert right(generated(flows[True])).float().mean() > 0.95


def test_a_network_of_both_hands_generates_both_equally_often(flows):
    share = float(right(generated(flows[False])).float().mean())
    assert abs(share - 0.5) < 4 * 0.5 / math.sqrt(400)


def test_a_network_of_both_hands_gives_mirror_images_one_density_and_a_chiral_one_does_not(flows):
    data = exact(chains(12, torch.Generator().manual_seed(2)))
    mirror = data.replace(data.x * torch.tensor([1.0, 1, -1]))
    gap = {}
    with torch.no_grad():
        for chiral, flow in flows.items():
            flow = flow.double()
            one, other = flow.log_prob(Batch.join([data, mirror]), Exact(), SOLVER).chunk(2)
            gap[chiral] = one - other, one
            flow.float()
    assert gap[False][0].abs().max() < 1e-9
    assert gap[True][0].mean() > 2  # a few nats: the left hand is rare, not impossible
    advantage = float((gap[True][1] - gap[False][1]).mean())
    assert advantage > 0.5 * math.log(2), f"log p of the data gains {advantage:.2f} nats, log 2 is there to be had"


UNTRAINED = {
    "egnn": lambda: EGNN(3, 16, 2, nodes={"z": 4}),
    "painn": lambda: PaiNN(16, 2, nodes={"z": 4}),
    "tensor product": lambda: TensorProduct((8, 4), 2, nodes={"z": 4}),
    "residues": lambda: Residues(16, 2, window=2, chiral=False, nodes={"z": 4}),
}


@pytest.mark.parametrize("make", UNTRAINED.values(), ids=UNTRAINED)
def test_it_is_so_for_any_weights(make):
    """Not a matter of training: random weights in every layer."""
    torch.manual_seed(0)
    flow = Flow(make(), priors.MeanFreeGaussian()).double()
    for p in flow.parameters():
        torch.nn.init.normal_(p, std=0.2)
    data = exact(chains(2, torch.Generator().manual_seed(2)))
    turned = data.replace(data.x @ torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))[0])
    every = Batch.join([data, data.replace(-data.x), turned])
    with torch.no_grad():
        one, mirrored, turned = flow.log_prob(every, Exact(), Solver("rk4", steps=2)).chunk(3)
        prior = flow.prior.log_prob(data.x, data)
    assert (one - prior).abs().max() > 1e-3  # the flow does something
    torch.testing.assert_close(mirrored, one, rtol=0, atol=1e-9)
    torch.testing.assert_close(turned, one, rtol=0, atol=1e-9)


def test_networks_say_whether_they_can_tell_left_from_right():
    for make in (PaiNN, lambda chiral: TensorProduct((4, 4), 2, chiral=chiral), Residues):
        assert "reflection" not in make(chiral=True).symmetries
        assert "reflection" in make(chiral=False).symmetries
    assert "reflection" in networks.EGNN.symmetries


@pytest.mark.parametrize("make", [TensorProduct, PaiNN, Residues])
def test_the_least_network_that_is_called_chiral_is(make):
    """One vector per point has no cross product, and one layer of tensor products has no vectors before."""
    small, tiny = ({"widths": (4, 2), "layers": 2}, {"widths": (4, 2), "layers": 1})
    if make is not TensorProduct:
        small, tiny = ({"width": 2, "layers": 1}, {"width": 1, "layers": 3})
    with pytest.raises(ValueError, match="left from right"):
        make(**tiny, chiral=True)
    make(**tiny, chiral=False)
    torch.manual_seed(0)
    network = make(**small, chiral=True)
    for parameter in network.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(3, 7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    check_equivariant(network.double(), Batch(x), lacks=["reflection"])
