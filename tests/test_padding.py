"""What lies beyond the edge: across a pole, smooth fields and winds of the sphere go on as they are."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from scifm.batch import Batch
from scifm.networks import FNO, DiT, Pole, UNet
from scifm.networks.padding import Conv, check_padding, coarser, cosines, extend, pad
from scifm.networks.pixels import fold
from scifm.testing import check_shift_equivariant

DOUBLE = torch.float64


def gaussian(n: int) -> Tensor:
    return torch.from_numpy(np.degrees(np.arcsin(np.polynomial.legendre.leggauss(n)[0])))


def rows(n: int, on_poles: bool) -> Tensor:
    edge = 90.0 if on_poles else 90.0 - 90.0 / n
    return torch.linspace(edge, -edge, n, dtype=DOUBLE)  # north to south, as in most files


LATITUDES = {
    "half a cell off": (rows(6, False), False),
    "half a cell off, upwards": (rows(5, False).flip(0), False),
    "Gaussian": (gaussian(8), False),
    "on the poles": (rows(7, True), True),
    "on the poles, upwards": (rows(4, True).flip(0), True),
    "two rows": (rows(2, True), True),
}
every = pytest.mark.parametrize(("latitude", "on_poles"), list(LATITUDES.values()), ids=list(LATITUDES))
LONGITUDE = torch.arange(8, dtype=DOUBLE) * 45 - 170


def sphere(latitude: Tensor, longitude: Tensor) -> Tensor:
    """x, y, z of the place and the wind of a solid body that rotates about a tilted axis, u, v: (1, 5, H, W).

    The formulas are analytic in latitude, so beyond 90° they say what a smooth continuation is.
    """
    lat, lon = torch.meshgrid(torch.deg2rad(latitude), torch.deg2rad(longitude), indexing="ij")
    place = torch.stack([lat.cos() * lon.cos(), lat.cos() * lon.sin(), lat.sin()])
    east = torch.stack([-lon.sin(), lon.cos(), 0 * lon])
    north = torch.stack([-lat.sin() * lon.cos(), -lat.sin() * lon.sin(), lat.cos()])
    axis = torch.tensor([0.3, -1.0, 0.5], dtype=DOUBLE)[:, None, None].expand_as(place)
    wind = torch.linalg.cross(axis, place, dim=0)
    return torch.cat([place, (wind * east).sum(0)[None], (wind * north).sum(0)[None]])[None]


def circle(latitude: Tensor, on_poles: bool) -> Tensor:
    """Latitudes all around the meridian and the one opposite, in degrees."""
    other = 180 - latitude.flip(0)
    return torch.cat([latitude, other[1:-1] if on_poles else other])


@every
def test_fields_and_winds_go_on_across_the_pole(latitude, on_poles):
    field, around = sphere(latitude, LONGITUDE), circle(latitude, on_poles)
    padding = (Pole(on_poles, vectors=(3, 4)), "circular")
    for before, after in ((1, 1), (0, 3), (2, 0), (len(around) + 2, 2 * len(around))):
        i = torch.arange(-before, len(latitude) + after) % len(around)
        wanted = sphere(around[i], LONGITUDE)
        torch.testing.assert_close(extend(field, 0, before, after, padding), wanted, rtol=0, atol=1e-12)


@every
def test_forgotten_signs_tear_the_wind_at_the_pole(latitude, on_poles):
    field, around = sphere(latitude, LONGITUDE), circle(latitude, on_poles)
    if len(around) == len(latitude):  # the poles alone: nothing lies beyond
        return
    torn = extend(field, 0, 1, 0, (Pole(on_poles), "circular")) - sphere(around[[-1, *range(len(latitude))]], LONGITUDE)
    assert torn[:, :3].abs().max() < 1e-12 < 0.1 < torn[:, 3:].abs().max()


@every
def test_hidden_features_take_every_other_channel_for_a_vector(latitude, on_poles):
    x, y, z, u, v = sphere(latitude, LONGITUDE).unbind(1)
    hidden = torch.stack([x, u, y, v, z], 1)
    around, n = circle(latitude, on_poles), len(latitude)
    around = around[[-1, *range(n), n % len(around)]]
    wider = torch.cat([LONGITUDE[:1] - 45, LONGITUDE, LONGITUDE[-1:] + 45])
    x, y, z, u, v = sphere(around, wider).unbind(1)
    got = pad(hidden, (Pole(on_poles, vectors=(0,)), "circular"))
    torch.testing.assert_close(got, torch.stack([x, u, y, v, z], 1), rtol=0, atol=1e-12)
    got = pad(sphere(latitude, LONGITUDE)[:, :3], (Pole(on_poles), "circular"))  # no vectors named: all are scalars
    torch.testing.assert_close(got, sphere(around, wider)[:, :3], rtol=0, atol=1e-12)


def test_latitude_may_be_any_axis():
    field = sphere(rows(6, False), LONGITUDE)
    upright = pad(field.mT, ("circular", Pole()))
    torch.testing.assert_close(upright.mT, pad(field, (Pole(), "circular")), rtol=0, atol=0)
    deep = pad(field[:, :, None].expand(-1, -1, 3, -1, -1), ("replicate", Pole(), "circular"))
    torch.testing.assert_close(deep[:, :, 0], pad(field, (Pole(), "circular")), rtol=0, atol=0)


def test_an_odd_number_of_hidden_longitudes_takes_the_mean_of_the_two_opposite():
    h = torch.tensor([[10.0, 20.0, 40.0]])[None, None]
    assert pad(h, (Pole(), "circular"))[0, 0, 0].tolist() == [15, 30, 25, 15, 30]


@pytest.mark.parametrize("stem", [1, 2])
@every
def test_the_entrance_of_the_unet_reads_the_continued_field(latitude, on_poles, stem):
    """Its first convolution answers as on a grid that truly goes on, at every row, those of a grown axis included."""
    n, multiple = len(latitude), 2 * stem
    net = UNet(5, (8, 8), padding=(Pole(on_poles, vectors=(3, 4)), "circular"), stem=stem, position=0).double()
    around = circle(latitude, on_poles)
    i = torch.arange(-stem, n + -n % multiple + stem) % len(around)
    wider = torch.cat([LONGITUDE[-stem:], LONGITUDE, LONGITUDE[:stem]])
    wanted = net.enter.conv(fold(sphere(around[i], wider), stem))
    torch.testing.assert_close(net._enter(sphere(latitude, LONGITUDE)), wanted, rtol=0, atol=1e-12)


def test_cosines_go_on_evenly_beyond_the_poles():
    field = sphere(rows(6, False), LONGITUDE)
    (inside,) = cosines(field, (Pole(), "circular"), 3)
    (beyond,) = cosines(extend(field, 0, 2, 2, (Pole(), "circular")), (Pole(), "circular"), 3, beyond=2)
    torch.testing.assert_close(beyond[:, :, 2:-2], inside)
    torch.testing.assert_close(beyond[:, :, :2], inside[:, :, :2].flip(2))
    torch.testing.assert_close(beyond[:, :, -2:], inside[:, :, -2:].flip(2))


def wake(network: nn.Module) -> nn.Module:
    torch.manual_seed(1)
    for p in network.parameters():
        nn.init.normal_(p, std=0.5 / math.sqrt(max(1, p[0].numel())) if p.ndim > 1 else 0.3)
    return network.double()


@pytest.mark.parametrize("pole", [Pole(vectors=(1,)), Pole(rows=True)])
@pytest.mark.parametrize("longitudes", [8, 12])  # 12 are 3 at the coarsest level, where none is opposite to another
def test_poles_keep_shifts_along_longitude(pole, longitudes):
    g = torch.Generator().manual_seed(0)
    batch = Batch(torch.randn(2, 2, 7, longitudes, generator=g, dtype=DOUBLE))
    net = wake(UNet(2, (4, 4, 4), padding=(pole, "circular")))
    check_shift_equivariant(net, batch, axes=[1], step=net.multiple)
    check_shift_equivariant(wake(FNO(2, 4, 3, 2, padding=(pole, "circular"))), batch, axes=[1])


def test_a_network_sees_across_the_pole():
    """A change at one side of it is felt at the other; behind a wall it is not."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(1, 1, 16, 16, generator=g, dtype=DOUBLE)
    other, t = x.clone(), torch.zeros(1, dtype=DOUBLE)
    other[0, 0, 0, 2] += 1
    felt = {}
    for rule in ("pole", "replicate"):
        net = wake(UNet(1, (8,), padding=(rule, "circular")))
        net.norm = nn.Identity()  # it sees the whole field
        for level in net.down:
            level.blocks[0].norm1 = level.blocks[0].norm2 = nn.Identity()
        felt[rule] = (net(t, other, Batch(other)) - net(t, x, Batch(x)))[0, 0, 0].abs()
    assert felt["pole"][10] > 1e-4 and felt["replicate"][10] == 0 and felt["replicate"][2] > 1e-4


def test_coarser_grids_have_no_rows_on_poles():
    assert coarser((Pole(True, (1,)), "circular")) == (Pole(False, (1,)), "circular")
    assert check_padding("who", "circular", 1) == ("circular", "circular")
    assert check_padding("who", ("pole", "circular"), 1) == (Pole(), "circular")


@pytest.mark.parametrize("make", [UNet, FNO, DiT])
@pytest.mark.parametrize(
    ("padding", "says"),
    [
        ("pole", "needs one circular axis beside it"),
        (("pole", "replicate"), "needs one circular axis beside it"),
        (("pole", "circular", "circular"), "needs one circular axis beside it"),
        (("pole", "pole", "circular"), "needs one circular axis beside it"),
        (Pole(), "needs one circular axis beside it"),
        ((Pole(vectors=(2,)), "circular"), r"channels from 0 to 1, .* got \(2,\)"),
        ((Pole(vectors=(-1,)), "circular"), "channels from 0 to 1"),
        ((Pole(vectors=(True,)), "circular"), "channels from 0 to 1"),
        (("polar", "circular"), "one of replicate, reflect, circular, pole"),
        ((None, "circular"), "one of replicate, reflect, circular, pole"),
    ],
)
def test_rules_that_make_no_sphere_are_refused(make, padding, says):
    with pytest.raises(ValueError, match=f"{make.__name__}: .*{says}"):
        make(2, padding=padding)


@pytest.mark.parametrize("make", [UNet, FNO, DiT])
@pytest.mark.parametrize(("rule", "grid"), [("pole", (4, 5)), (Pole(rows=True), (1, 4)), ("pole", (4, 1))])
def test_grids_without_opposite_meridians_are_refused(make, rule, grid):
    batch = Batch(torch.zeros(1, 1, *grid))
    with pytest.raises(ValueError, match=f"{make.__name__}: beyond a pole comes the opposite meridian"):
        make(1, padding=(rule, "circular"))(torch.zeros(1), batch.x, batch)


def test_depthwise_convolution_keeps_channels_apart():
    conv, x = Conv(3, 3, ("reflect", "circular"), groups=3), torch.randn(1, 3, 4, 5)
    one = x.clone()
    one[:, 1] = 0
    assert (conv(x) - conv(one))[:, [0, 2]].abs().max() == 0
