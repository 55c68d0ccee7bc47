"""The public check of shifts: right velocities pass, each fault is named, and the project's claims hold."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from scifm.batch import Batch
from scifm.networks import FNO, DiT, GridConditions, UNet
from scifm.testing import check_shift_equivariant, check_velocity


def fields(*shape: int, dtype: torch.dtype = torch.float64, **context: Tensor) -> Batch:
    return Batch(torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(0)), context=context)


def wake(network: nn.Module) -> nn.Module:
    """Heads start at zero, where every law holds."""
    torch.manual_seed(1)
    for p in network.parameters():
        nn.init.normal_(p, std=0.3)
    return network


class Advection(nn.Module):
    """v = −c ∂x/∂λ, and one fault."""

    def __init__(self, fault: str | None = None):
        super().__init__()
        self.fault = fault

    def forward(self, t: Tensor, x: Tensor, batch: Batch) -> Tensor:
        v = x.roll(1, 3) - x.roll(-1, 3)
        if self.fault == "place":
            v = v + 1e-6 * torch.arange(x.shape[3])
        if self.fault == "wall":
            v = torch.cat([v[..., :-1], 1.000001 * v[..., -1:]], 3)
        if self.fault == "pairs":
            v = v + 1e-6 * x.unflatten(3, (-1, 2)).mean(4).repeat_interleave(2, 3)
        if self.fault == "zero":
            v = 0 * v
        if self.fault == "constant":
            v = v.sum(3, keepdim=True) + x.square().mean(3, keepdim=True).expand_as(x)
        return v * batch.context.get("speed", torch.ones(()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_right_velocity_passes(dtype):
    batch = fields(2, 1, 3, 6, dtype=dtype)
    check_shift_equivariant(Advection(), batch, axes=[1])
    check_shift_equivariant(Advection(), batch, axes=[0, -1])


def test_fields_in_the_context_are_shifted_too():
    speed = torch.rand(2, 1, 3, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    batch = fields(2, 1, 3, 6, speed=speed, label=torch.tensor([0, 1]), other=torch.ones(2, 6))
    check_shift_equivariant(Advection(), batch, axes=[0, 1])
    batch = fields(2, 1, 3, 6, upright=speed.mT)  # not on the grid of x, so it stays where it is
    with pytest.raises(AssertionError, match="by 1 along axis 1"):
        check_shift_equivariant(lambda t, x, batch: x * batch.context["upright"].mT, batch, [1])


@pytest.mark.parametrize("fault", ["place", "wall"])
def test_what_depends_on_the_place_is_caught(fault):
    with pytest.raises(AssertionError, match="shifting a field by 1 along axis 1 does not just shift the answer"):
        check_shift_equivariant(Advection(fault), fields(2, 1, 3, 6), axes=[1])
    check_shift_equivariant(Advection(fault), fields(2, 1, 3, 6), axes=[0])


def test_only_shifts_by_the_step_are_asked_for():
    check_shift_equivariant(Advection("pairs"), fields(2, 1, 3, 6), axes=[1], step=2)
    with pytest.raises(AssertionError, match="by 1 along axis 1"):
        check_shift_equivariant(Advection("pairs"), fields(2, 1, 3, 6), axes=[1])


@pytest.mark.parametrize(("fault", "says"), [("zero", "zero everywhere"), ("constant", "the same all along axis 1")])
def test_what_proves_nothing_is_said(fault, says):
    with pytest.raises(AssertionError, match=says):
        check_shift_equivariant(Advection(fault), fields(2, 1, 3, 6), axes=[1])


@pytest.mark.parametrize(("axes", "step"), [([2], 1), ([-3], 1), ([1], 6), ([0], 0)])
def test_axes_without_shifts_are_refused(axes, step):
    with pytest.raises(ValueError, match=r"expected axes of the grid \(3, 6\) that are longer than step="):
        check_shift_equivariant(Advection(), fields(2, 1, 3, 6), axes, step)


def test_the_checked_batch_is_left_as_it_was():
    batch = fields(2, 1, 3, 6)
    before = batch.x.clone()
    check_shift_equivariant(Advection(), batch, [1])
    assert torch.equal(batch.x, before)


# -- the project's own claims --------------------------------------------------------------------------


def told(*grid: int) -> tuple[Batch, GridConditions]:
    """Fields with a field beside them, a label and a date, on a place that differs along the first axis only."""
    g = torch.Generator().manual_seed(2)
    context = {
        "previous": torch.randn(2, 2, *grid, generator=g, dtype=torch.float64),
        "label": torch.tensor([0, 2]),
        "time": torch.tensor([100.0, 7000.25], dtype=torch.float64),
    }
    static = torch.randn(1, grid[0], 1, generator=g, dtype=torch.float64).expand(1, *grid)
    return fields(2, 1, *grid, **context), GridConditions({"previous": 2}, {"label": 3}, True, static, 8)


@pytest.mark.parametrize("longitudes", [9, 12])
def test_fno_commutes_with_every_shift_of_longitude(longitudes):
    batch, conditions = told(5, longitudes)
    net = wake(FNO(1, 8, 4, 2, conditions=conditions)).double()
    check_shift_equivariant(net, batch, axes=[1])
    check_velocity(net, batch)
    with pytest.raises(AssertionError, match="by 1 along axis 0"):
        check_shift_equivariant(net, batch, axes=[0])


@pytest.mark.parametrize("stem", [1, 2])
def test_unet_commutes_with_shifts_by_its_multiple_and_no_others(stem):
    net = UNet(1, (8, 8), padding=("replicate", "circular"), stem=stem, conditions=told(7, 12)[1])
    net, batch = wake(net).double(), told(7, 12)[0]
    check_shift_equivariant(net, batch, axes=[1], step=net.multiple)
    check_velocity(net, batch)
    with pytest.raises(AssertionError, match="by 1 along axis 1"):
        check_shift_equivariant(net, batch, axes=[1])


def test_unet_without_levels_commutes_with_every_shift():
    net = wake(UNet(1, (8,), padding=("replicate", "circular"))).double()
    check_shift_equivariant(net, fields(2, 1, 5, 7), axes=[1])


def test_unet_does_not_where_the_axis_is_no_multiple():
    net = wake(UNet(1, (8, 8), padding=("replicate", "circular"))).double()
    with pytest.raises(AssertionError, match="by 2 along axis 1"):
        check_shift_equivariant(net, fields(2, 1, 4, 7), axes=[1], step=2)


def test_dit_knows_its_places():
    batch, conditions = told(5, 12)
    net = wake(DiT(1, 4, 16, 1, 2, conditions=conditions)).double()
    check_velocity(net, batch)
    with pytest.raises(AssertionError, match="by 4 along axis 1"):
        check_shift_equivariant(net, batch, axes=[1], step=4)


@pytest.mark.parametrize("make", [lambda c: FNO(1, 8, 4, 1, conditions=c), lambda c: UNet(1, (8,), conditions=c)])
def test_places_that_differ_along_the_axis_break_shifts(make):
    batch = fields(2, 1, 5, 6)
    static = torch.randn(1, 5, 6, generator=torch.Generator().manual_seed(0))
    net = wake(make(GridConditions(static=static))).double()
    with pytest.raises(AssertionError, match="by 1 along axis 1"):
        check_shift_equivariant(net, batch, axes=[1])
