"""The toys against what is known of their laws in closed form."""

from __future__ import annotations

import math

import pytest
import torch

from scifm.data import toys

LAWS = ["moons", "eight_gaussians", "rings", "checkerboard", "scurve"]
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
    with pytest.raises(ValueError, match="no toy 'spiral'; there are moons, .*tong:moons"):
        toys.draw("spiral", 10, torch.Generator())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: toys.moons(noise=-0.1), "noise"),
        (lambda: toys.eight_gaussians(std=-1.0), "std"),
        (lambda: toys.rings(noise=math.nan), "noise"),
        (lambda: toys.rings(radii=()), "radii"),
        (lambda: toys.rings(radii=(1.0, -1.0)), "radii"),
        (lambda: toys.scurve(noise=-0.1), "scurve: noise"),
        (lambda: toys.scurve(scale=math.inf), "scurve: scale"),
        (lambda: toys.Moons(smear=-0.1), "smear"),
        (lambda: toys.Moons(scale=math.nan), "scale"),
    ],
)
def test_shapes_that_make_no_sense(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# -- laws as records, and the published ones ---------------------------------------------------------------

MANY = 40_000


def points(law, seed=0, n=MANY):
    return law(n, torch.Generator().manual_seed(seed)).double()


@pytest.mark.parametrize("law", [*toys.PUBLISHED.values(), toys.SCurve()], ids=[*toys.PUBLISHED, "scurve"])
def test_laws_are_seeded_and_draw_what_they_are_asked_for(law):
    state = torch.random.get_rng_state()
    x = law(7, torch.Generator().manual_seed(5))
    assert x.shape == (7, 2) and x.dtype == torch.float32 and x.isfinite().all()
    assert torch.equal(x, law(7, torch.Generator().manual_seed(5)))
    assert not torch.equal(x, law(7, torch.Generator().manual_seed(6)))
    assert law(0, torch.Generator()).shape == (0, 2)
    assert torch.equal(torch.random.get_rng_state(), state)
    with pytest.raises(AttributeError):
        law.noise = 3.0


def test_every_published_law_is_drawn_by_its_name():
    for name, law in toys.PUBLISHED.items():
        drawn = toys.draw(name, 50, torch.Generator().manual_seed(2))
        assert torch.equal(drawn, law(50, torch.Generator().manual_seed(2)))
    with pytest.raises(TypeError):
        toys.PUBLISHED["mine"] = toys.Moons()


@pytest.mark.parametrize(
    ("name", "radius", "std"),
    [
        ("tong:eight_gaussians", 5.0, 1.0),
        ("tong:eight_gaussians_large", 12.0, 1.5),
        ("torchcfm:eight_gaussians", 5.0, math.sqrt(math.sqrt(0.1))),
    ],
)
def test_eight_clouds_have_the_moments_of_their_radius_and_width(name, radius, std):
    x = points(toys.PUBLISHED[name])
    each = radius**2 / 2 + std**2  # E x² of either coordinate: a circle's half, and the cloud's own
    assert (x.mean(0).abs() < 5 * math.sqrt(each / MANY)).all()
    torch.testing.assert_close(x.T.cov(), each * torch.eye(2, dtype=torch.float64), atol=0.03 * each, rtol=0)
    # eightfold symmetry: turned by 45 degrees the same law, here in the fourth moments
    turn = torch.tensor([[1.0, -1.0], [1.0, 1.0]], dtype=torch.float64) / math.sqrt(2)
    torch.testing.assert_close((x @ turn.T).pow(4).mean(0), x.pow(4).mean(0), rtol=0.04, atol=0)


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_moons_have_the_moments_of_half_circles(noise):
    x = points(toys.Moons(noise=noise))
    mean = torch.tensor([0.5, 0.25], dtype=torch.float64)
    square = torch.tensor([1.0, 0.625 - 1 / math.pi], dtype=torch.float64) + noise**2
    torch.testing.assert_close(x.mean(0), mean, atol=0.02, rtol=0)
    torch.testing.assert_close(x.square().mean(0), square, atol=0.03, rtol=0)


def test_moons_are_point_symmetric():
    x = points(toys.Moons())
    turned = torch.tensor([1.0, 0.5], dtype=torch.float64) - x  # half a turn about (½, ¼) swaps the moons
    torch.testing.assert_close(turned.mean(0), x.mean(0), atol=0.02, rtol=0)
    torch.testing.assert_close(turned.pow(3).mean(0), x.pow(3).mean(0), atol=0.06, rtol=0)


def test_scale_and_shift_are_applied_last():
    plain, moved = toys.Moons(noise=0.3), toys.Moons(noise=0.3, scale=3.0, shift=(-1.0, 2.0))
    torch.testing.assert_close(points(moved, n=100), 3 * points(plain, n=100) + torch.tensor([-1.0, 2.0]).double())
    torch.testing.assert_close(points(toys.SCurve(scale=1.5), n=100), 1.5 * points(toys.SCurve(), n=100))


def test_labels_tell_the_moons_apart():
    law = toys.Moons(noise=0.0)
    x, moon = law.labelled(2000, torch.Generator().manual_seed(0))
    assert torch.equal(x, law(2000, torch.Generator().manual_seed(0)))  # labels change no draw
    assert moon.dtype == torch.long and set(moon.tolist()) == {0, 1}
    centre = torch.tensor([[0.0, 0.0], [1.0, 0.5]])[moon]
    assert (((x - centre).norm(dim=1) - 1).abs() < 1e-5).all()
    assert (torch.where(moon == 0, x[:, 1], 0.5 - x[:, 1]) >= -1e-6).all()


def test_smear_moves_along_the_diagonal_only():
    law = toys.Moons(noise=0.0, smear=0.2)
    x, moon = law.labelled(5000, torch.Generator().manual_seed(0))
    still, same = toys.Moons(noise=0.0).labelled(5000, torch.Generator().manual_seed(0))
    assert torch.equal(moon, same)
    step = (x - still).double()
    torch.testing.assert_close(step[:, 0], step[:, 1], atol=1e-6, rtol=0)
    assert 0 <= float(step.min()) + 1e-6 and float(step.max()) < 0.2 + 1e-6
    assert abs(float(step[:, 0].mean()) - 0.1) < 5 * 0.2 / math.sqrt(12 * 5000)


def test_large_moons_have_mean_zero_and_std_seven_over_all_numbers():
    x = points(toys.PUBLISHED["tong:moons_large"])
    assert abs(float(x.mean())) < 0.15 and abs(float(x.std()) - 7) < 0.05


def test_an_s_is_two_arcs_that_meet_at_the_origin():
    x = points(toys.SCurve(noise=0.0))
    up = torch.tensor([0.0, 1.0], dtype=torch.float64)
    upper, lower = ((x - up).norm(dim=1) - 1).abs(), ((x + up).norm(dim=1) - 1).abs()
    assert (torch.minimum(upper, lower) < 1e-5).all()
    assert abs(float((upper < lower).double().mean()) - 0.5) < 0.02
    torch.testing.assert_close(x.mean(0), torch.zeros(2, dtype=torch.float64), atol=0.03, rtol=0)  # point symmetric
    # three quarters of a turn, a uniform: E sin² = ½ (1 − sin(3π)/3π) = ½, E (cos a − 1)² = 3/2 + 4/(3π)
    square = torch.tensor([0.5, 1.5 + 4 / (3 * math.pi)], dtype=torch.float64)
    torch.testing.assert_close(x.square().mean(0), square, atol=0.04, rtol=0)
    # an S, not a Z and no pair of rings: the quarters right of the upper stem and left of the lower one are missing
    assert not ((x[:, 0] > 1e-6) & (x[:, 1] > 0) & (x[:, 1] < 1 - 1e-6)).any()
    assert not ((x[:, 0] < -1e-6) & (x[:, 1] < 0) & (x[:, 1] > -1 + 1e-6)).any()
    ends = torch.tensor([[1.0, 1.0], [0.0, 2.0], [-1.0, -1.0], [0.0, 0.0]], dtype=torch.float64)
    assert (torch.cdist(ends, x).min(1).values < 0.01).all()
