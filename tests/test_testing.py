"""The public checks: the project's networks pass, wrong ones are caught and named. Priors, paths and couplings are in
their own test files."""

import pytest
import torch
from torch import nn

from scifm import Batch, Flow, Objective, couplings, networks, priors
from scifm.testing import check_velocity

G = torch.Generator().manual_seed(0)
SETS = Batch(torch.randn(7, 3, generator=G), torch.tensor([0, 0, 0, 1, 3, 3, 3]), 4)
GRIDS = Batch(torch.randn(3, 2, 9, 7, generator=G))
POINTS = Batch(torch.randn(3, 3, generator=G))


def trained(network):
    """Heads start at zero, where every law holds; random weights put it to the test."""
    torch.manual_seed(0)
    for p in network.parameters():
        nn.init.normal_(p, std=0.3)
    return network


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("make", "batch", "symmetries"),
    [
        (lambda: networks.MLP(3, hidden=(16,)), POINTS, ()),
        (lambda: networks.UNet(2, widths=(8, 8)), GRIDS, ()),
        (lambda: networks.UNet(2, widths=(8, 8), stem=2, padding=("reflect", "circular")), GRIDS, ()),
        (lambda: networks.PointNet(3), SETS, ("permutation",)),
    ],
    ids=["mlp", "unet", "unet stem", "pointnet"],
)
def test_own_networks_pass(make, batch, symmetries, dtype):
    check_velocity(trained(make().to(dtype)), batch.to(dtype), symmetries)


class Wrong(nn.Module):
    def __init__(self, fault):
        super().__init__()
        self.fault, self.calls = fault, 0

    def forward(self, t, x, batch):
        self.calls += 1
        if self.fault == "batch mean":
            return x - x.mean(0)
        if self.fault == "other dtype":
            return x.double()
        if self.fault == "flattened":
            return x.flatten(1)
        if self.fault == "random":
            return x * torch.rand(())
        if self.fault == "infinite":
            return x / 0
        if self.fault == "order":
            return x * torch.arange(len(x))[:, None]
        return x


FAULTS = {
    "batch mean": "depends on its batch mates",
    "other dtype": "expected shape, dtype and device",
    "flattened": "expected shape, dtype and device",
    "random": "two equal calls differ",
    "infinite": "not finite",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_wrong_networks_are_caught(fault):
    with pytest.raises(AssertionError, match=FAULTS[fault]):
        check_velocity(Wrong(fault), GRIDS)
    check_velocity(Wrong(None), GRIDS)


def test_a_network_that_numbers_the_rows_is_caught():
    one = SETS.select([0])
    with pytest.raises(AssertionError, match="reordering the rows"):
        check_velocity(Wrong("order"), one, ("permutation",))


def test_dropout_is_caught():
    with pytest.raises(AssertionError, match=r"dropout.*eval"):
        check_velocity(_Dropout(), GRIDS)
    check_velocity(_Dropout().eval(), GRIDS)


class _Dropout(nn.Module):
    def __init__(self):
        super().__init__()
        self.drop = nn.Dropout(0.5)

    def forward(self, t, x, batch):
        return self.drop(x)


class Messages(nn.Module):
    """Sums over edges, weighted: right, or with the weights by row number instead of by edge."""

    def __init__(self, fault=None, size=1.0):
        super().__init__()
        self.fault, self.size = fault, size

    def forward(self, t, x, batch):
        i, j = batch.edge_index
        weight = batch.edges["weight"] if self.fault is None else i.to(x)
        mass = batch.nodes["mass"][:, None]
        return self.size * (x * mass).index_add(0, i, (x[j] - x[i]) * weight[:, None])


EDGES = torch.tensor([[0, 1, 2, 3, 4, 5, 5], [1, 2, 0, 4, 5, 3, 6]])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [1.0, 1e6])
def test_reordering_takes_edges_along_and_judges_relative_errors(size, dtype):
    g = torch.Generator().manual_seed(1)
    nodes, edges = {"mass": torch.rand(7, generator=g)}, {"weight": torch.rand(7, generator=g)}
    graphs = Batch(torch.randn(7, 3, generator=g), torch.tensor([0, 0, 0, 1, 1, 1, 1]), 2, {}, nodes, EDGES, edges)
    check_velocity(Messages(size=size), graphs.to(dtype), ("permutation",))
    with pytest.raises(AssertionError, match="reordering the rows"):
        check_velocity(Messages("numbers the rows", size), graphs.to(dtype).select([1]), ("permutation",))


def test_a_small_fault_in_double_precision_is_caught_too():
    class Slightly(nn.Module):
        def forward(self, t, x, batch):
            return x + 1e-7 * torch.arange(len(x))[:, None]

    one = SETS.select([3]).to(torch.float64)
    with pytest.raises(AssertionError, match="reordering the rows"):
        check_velocity(Slightly(), one, ("permutation",))


def test_an_unknown_symmetry_is_refused():
    with pytest.raises(ValueError, match=r"expected symmetries among translation, .*, got rotations"):
        check_velocity(networks.PointNet(3), SETS, ("rotations",))


def methane() -> Batch:
    ends = torch.tensor([[0, 0, 0, 0, 1, 2, 3, 4], [1, 2, 3, 4, 0, 0, 0, 0]])
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    z = {"z": torch.tensor([6, 1, 1, 1, 1])}
    one = Batch(x - x.mean(0), torch.zeros(5, dtype=torch.long), 1, nodes=z, edge_index=ends)
    return Batch.join([one, one.replace(2 * one.x)])


def test_twins_exchange_and_others_need_not():
    class Numbered(nn.Module):
        """Tells atoms by their number, the first of a molecule from the others, or all from each other."""

        def __init__(self, most):
            super().__init__()
            self.most = most

        def forward(self, t, x, batch):
            return x * (torch.arange(len(x)) % 5).clamp(max=self.most)[:, None]

    check_velocity(Numbered(1), methane(), ("automorphism",))
    with pytest.raises(AssertionError, match="exchanging twins, points of equal nodes and bonds, does not exchange"):
        check_velocity(Numbered(4), methane(), ("automorphism",))
    check_velocity(trained(networks.PointNet(3).double()), methane(), ("permutation", "automorphism"))


def test_in_the_metric_of_a_graph_a_network_keeps_the_symmetries_of_both():
    prior, batch = priors.SpectralGraph(), methane()
    network = networks.GaussianSkip(networks.Unwhitened(trained(networks.PaiNN(8, 2, nodes={"z": 7}).double()), prior))
    assert network.symmetries == {"rotation", "reflection", "automorphism"}
    check_velocity(network, batch)
    check_velocity(network, batch, network.symmetries)
    Flow(network, prior, coupling=couplings.Aligned(), objective=Objective(metric="prior"))
    chain = networks.Unwhitened(network.velocity.velocity, priors.SpectralChain())
    with pytest.raises(ValueError, match="uses automorphism, under which SpectralChain is not invariant"):
        Flow(chain, priors.SpectralChain(), coupling=couplings.Aligned())
