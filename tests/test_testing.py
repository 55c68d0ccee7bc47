"""The public checks: the project's networks pass, wrong ones are caught and named. Priors, paths and couplings are in
their own test files."""

import pytest
import torch
from torch import nn

from scifm import Batch, networks
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
