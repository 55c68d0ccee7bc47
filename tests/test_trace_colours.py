"""Colour probing: the colouring itself, exactness where the reach is known, refusal where it is not."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from scifm import networks
from scifm.batch import Batch
from scifm.trace import Colours, Exact, Hutchinson
from scifm.trace.colours import axis_colours

CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("periodic", [False, True])
@pytest.mark.parametrize("radius", range(5))
def test_equal_colours_are_far_apart_and_no_colour_is_wasted(radius, periodic):
    for n in range(1, 30):
        colours = axis_colours(n, radius, periodic)
        place = torch.arange(n)
        apart = (place[:, None] - place).abs()
        apart = torch.minimum(apart, n - apart) if periodic else apart
        same = (colours[:, None] == colours) & ~torch.eye(n, dtype=torch.bool)
        assert (apart[same] > radius).all()
        # around the seam at most so many points fit into one class; without one, neighbours must differ anyway
        fewest = math.ceil(n / max(1, n // (radius + 1))) if periodic else min(n, radius + 1)
        assert int(colours.max()) + 1 == fewest


class Convs(nn.Module):
    """Three convolutions of edge 3 with a time-dependent nonlinearity between: reach 3 on each axis."""

    def __init__(self, channels, axes, periodic, dtype=torch.float64):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(CONV[axes](a, b, 3) for a, b in ((channels, 6), (6, 6), (6, channels)))
        self.modes = ["circular" if p else "constant" for p in periodic]
        self.to(dtype)

    def forward(self, t, x, batch):
        h = x
        for k, layer in enumerate(self.layers):
            for axis, mode in enumerate(self.modes):
                edges = [0] * (2 * len(self.modes))
                edges[2 * (len(self.modes) - 1 - axis)] = edges[2 * (len(self.modes) - 1 - axis) + 1] = 1
                h = F.pad(h, edges, mode) if mode == "constant" else wrap(h, axis + 2)
            h = layer(h)
            if k < 2:
                h = torch.tanh(h + batch.spread(t))
        return h


def wrap(h, axis):
    n = h.shape[axis]
    return torch.cat([h.narrow(axis, n - 1, 1), h, h.narrow(axis, 0, 1)], axis)


GRIDS = [
    ((2, 9), (False,)),
    ((1, 9), (True,)),
    ((2, 8), (True,)),
    ((1, 11), (True,)),
    ((1, 3), (True,)),
    ((1, 5, 9), (False, True)),
    ((2, 6, 7), (True, False)),
    ((1, 10, 9), (True, True)),
    ((1, 2, 9), (False, False)),
    ((1, 5, 3, 9), (True, False, True)),
]


@pytest.mark.parametrize(("event", "periodic"), GRIDS, ids=str)
def test_equals_the_exact_trace(event, periodic):
    velocity = Convs(event[0], len(event) - 1, periodic)
    x = torch.randn(3, *event, generator=rng(), dtype=torch.float64)
    batch, t = Batch(x), torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    with torch.no_grad():
        wanted = Exact()(velocity, t, x, batch)[1]
        trace = Colours(3, periodic)
        assert trace.draw(batch, rng()) is None
        assert torch.allclose(trace(velocity, t, x, batch, None)[1], wanted, rtol=1e-11, atol=1e-11)
        trace.verify(velocity, t, x, batch)
        signed = Colours(3, periodic, signs=2)
        found = signed(velocity, t, x, batch, signed.draw(batch, rng()))[1]
        assert torch.allclose(found, wanted.expand(-1, 2), rtol=1e-11, atol=1e-11)


def test_as_many_products_as_colours():
    calls = []

    class Counted(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            calls.append(1)
            return grad

    x = torch.randn(1, 1, 32, 64, generator=rng())
    with torch.no_grad():
        Colours(3)(lambda t, x, b: Counted.apply(x), torch.zeros(1), x, Batch(x), None)
    assert len(calls) == 16 + 1  # and the check


@pytest.mark.parametrize(
    ("event", "closed", "trace"),
    [
        ((1, 12), (False,), Colours(2)),
        ((2, 12), (False,), Colours(1)),
        ((1, 12, 12), (False, False), Colours((3, 2))),
        ((1, 9), (True,), Colours(3)),
        ((1, 9, 10), (True, True), Colours(3, (True, False))),
    ],
    ids=str,
)
def test_a_radius_that_is_too_small_is_refused_and_not_biased(event, closed, trace):
    velocity = Convs(event[0], len(event) - 1, closed)
    x = torch.randn(2, *event, generator=rng(), dtype=torch.float64)
    batch, t = Batch(x), torch.tensor([0.3, 0.6], dtype=torch.float64)
    with pytest.raises(ValueError, match=r"reaches further than radius=.*signs=K"):
        trace.verify(velocity, t, x, batch)
    caught = 0
    for moment in torch.linspace(0, 1, 12, dtype=torch.float64):  # a solve: a colour is looked at in each evaluation
        try:
            trace(velocity, moment.expand(2), x, batch, None)
        except ValueError:
            caught += 1
    assert caught >= 1
    # with signs it is unbiased whatever the radius
    signed = Colours(trace.radius, trace.periodic, signs=1)
    many = batch.select([0] * 800)
    with torch.no_grad():
        found = signed(velocity, t[:1].expand(800), many.x, many, signed.draw(many, rng(1)))[1][:, 0]
        wanted = Exact()(velocity, t, x, batch)[1][0]
    assert float(found.std()) > 0
    assert abs(float(found.mean() - wanted)) < 5 * float(found.std()) / 800**0.5


def test_a_group_norm_is_refused_without_signs_and_better_than_plain_probes_with_them():
    torch.manual_seed(0)
    network = networks.UNet(1, widths=(8,), padding=("circular", "circular")).double()
    nn.init.normal_(network.head.conv.weight, std=0.3)
    x = torch.randn(1, 1, 12, 12, generator=rng(), dtype=torch.float64)
    batch, t = Batch(x), torch.full((1,), 0.4, dtype=torch.float64)
    with pytest.raises(ValueError, match="group norm"):
        Colours(4, True).verify(network, t, x, batch)
    many = batch.select([0] * 100)
    with torch.no_grad():
        wanted = Exact()(network, t, x, batch)[1]
        errors = []
        for trace in (Colours(3, True, signs=1), Hutchinson(16)):
            found = trace(network, t.expand(100), many.x, many, trace.draw(many, rng()))[1].mean(1)
            assert abs(float(found.mean() - wanted)) < 5 * float(found.std()) / 10
            errors.append(float((found - wanted).square().mean().sqrt()))
    assert errors[0] < 0.8 * errors[1]


def test_bad_input_is_refused_before_the_work():
    points = Batch(torch.zeros(4, 3), torch.tensor([0, 0, 1, 1]), 2)
    with pytest.raises(ValueError, match="ragged"):
        Colours(1).draw(points)
    field = Batch(torch.zeros(2, 1, 4, 4))
    for trace, says in ((Colours((1, 1, 1)), "radius has 3 entries for 2"), (Colours(1, (True,)), "periodic has 1")):
        with pytest.raises(ValueError, match=says):
            trace.draw(field)
