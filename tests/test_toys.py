"""The toys against what is known of their laws in closed form."""

from __future__ import annotations

import math

import pytest
import torch

from scifm.data import toys

LAWS = ["moons", "eight_gaussians", "rings", "checkerboard"]
MAKE = {name: getattr(toys, name) for name in LAWS}


@pytest.mark.parametrize("name", LAWS)
def test_seeds_fix_the_points_and_nothing_else_does(name):
    state = torch.random.get_rng_state()
    data = MAKE[name](n=200, seed=3)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(99)
    again, other = MAKE[name](n=200, seed=3), MAKE[name](n=200, seed=4)
    for split in ("train", "valid", "test"):
        assert torch.equal(getattr(data, split).x, getattr(again, split).x)
        assert not torch.equal(getattr(data, split).x, getattr(other, split).x)
    torch.random.set_rng_state(state)


@pytest.mark.parametrize("name", LAWS)
def test_splits_are_points_in_the_plane_that_share_nothing(name):
    data = MAKE[name](n=500)
    assert data.name == name and data.delta is None and str(len(data.train)) in data.summary
    assert [len(b) for b in (data.train, data.valid, data.test)] == [500, 50, 50]
    points = torch.cat([data.train.x, data.valid.x, data.test.x])
    assert points.shape == (600, 2) and points.dtype == torch.float32
    assert len(points.unique(dim=0)) == 600


@pytest.mark.parametrize("name", LAWS)
def test_draw_continues_the_same_law(name):
    fresh = toys.draw(name, 20_000, torch.Generator().manual_seed(1))
    known = MAKE[name](n=20_000).train.x
    # standard errors of means and covariances of values of size 1 to 2 are about 0.01
    torch.testing.assert_close(fresh.mean(0), known.mean(0), atol=0.07, rtol=0)
    torch.testing.assert_close(fresh.T.cov(), known.T.cov(), atol=0.1, rtol=0)


def test_checkerboard_fills_half_of_the_board_evenly():
    x = toys.checkerboard(n=80_000).train.x
    assert (x >= -2).all() and (x <= 2).all()
    cell = ((x + 2).floor().clamp(max=3)).long()
    count = torch.zeros(4, 4).index_put_((cell[:, 0], cell[:, 1]), torch.ones(len(x)), accumulate=True)
    black = (torch.arange(4)[:, None] + torch.arange(4)) % 2 == 0
    assert (count[~black] == 0).all()
    # each black square holds 10 000 ± 94; area 8 with density 1/8 gives an entropy of log2 8 = 3 bits
    assert ((count[black] - 10_000).abs() < 5 * 94).all()


def test_eight_gaussians_lie_on_a_circle_with_the_given_spread():
    x = toys.eight_gaussians(n=40_000, radius=3.0, std=0.2).train.x
    angle = torch.atan2(x[:, 1], x[:, 0])
    nearest = (angle / (math.pi / 4)).round() * (math.pi / 4)
    offset = x - 3 * torch.stack([nearest.cos(), nearest.sin()], 1)
    assert abs(float(offset.std()) - 0.2) < 0.005
    assert (torch.bincount(((nearest / (math.pi / 4)).round().long()) % 8, minlength=8) > 4600).all()


def test_rings_have_equal_density_along_their_length():
    x = toys.rings(n=60_000, radii=(1.0, 2.0), noise=0.01).train.x
    r = x.norm(dim=1)
    outer = float((r > 1.5).float().mean())
    assert abs(outer - 2 / 3) < 0.01
    assert (torch.minimum((r - 1).abs(), (r - 2).abs()) < 0.06).all()


def test_moons_are_two_half_circles():
    x = toys.moons(n=20_000, noise=0.0).train.x
    upper = (x.norm(dim=1) - 1).abs()
    lower = ((x - torch.tensor([1.0, 0.5])).norm(dim=1) - 1).abs()
    assert (torch.minimum(upper, lower) < 1e-5).all()
    assert abs(float((upper < lower).float().mean()) - 0.5) < 0.02


@pytest.mark.parametrize("name", LAWS)
def test_too_few_points_to_split(name):
    with pytest.raises(ValueError, match="at least 10 points to split, got 5"):
        MAKE[name](n=5)


def test_an_unknown_toy_is_named():
    with pytest.raises(ValueError, match="no toy 'spiral'; there are moons"):
        toys.draw("spiral", 10, torch.Generator())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: toys.moons(noise=-0.1), "noise"),
        (lambda: toys.eight_gaussians(std=-1.0), "std"),
        (lambda: toys.rings(noise=math.nan), "noise"),
        (lambda: toys.rings(radii=()), "radii"),
        (lambda: toys.rings(radii=(1.0, -1.0)), "radii"),
    ],
)
def test_shapes_that_make_no_sense(make, message):
    with pytest.raises(ValueError, match=message):
        make()
