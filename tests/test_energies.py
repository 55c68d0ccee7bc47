"""Energies: closed forms, gradients against differences, symmetries, padding, units; and what is refused."""

from __future__ import annotations

import math

import pytest
import torch

from scifm import Batch
from scifm.energies import Bridge, DoubleWell, Energy, HarmonicCluster, LennardJones, PairEnergy
from scifm.energies.lennard_jones import CLOSEST
from scifm.energies.pairs import centred, squared_distances

DW, LJ = DoubleWell(), LennardJones(each_pair=2)
ALL = {
    "dw": DW,
    "dw-all": DoubleWell(a=0.3, b=-1.0, c=0.2, d0=1.5, temperature=2.0),
    "lj": LJ,
    "lj-once": LennardJones(each_pair=1, epsilon=0.7, r_min=1.3, spring=0.4, temperature=1.7),
    "harmonic": HarmonicCluster(1.5, temperature=0.6),
    "bridge": Bridge(LJ, 0.3, std=0.8),
    "hot": Bridge(DW, 0.3),
}


def sets(*shape, seed=0, dtype=torch.float64, spread=1.5):
    x = spread * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    return x - x.mean(-2, keepdim=True)


def ragged(counts, width=3, seed=0):
    g = torch.Generator().manual_seed(seed)
    parts = [torch.randn(n, width, generator=g, dtype=torch.float64) for n in counts]
    index = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    return Batch(torch.cat([p - p.mean(0) if len(p) else p for p in parts]), index, len(counts))


class Spring(Energy):
    """One that only defines `potential`, and changes under translations."""

    def potential(self, x, mask=None):
        return 0.5 * x.square().sum((-2, -1))


# -- values ----------------------------------------------------------------------------------------------------------


def by_hand(name, x):
    """Sums over pairs with plain loops and distances."""
    n, total = len(x), 0.0
    for i in range(n):
        for j in range(i + 1, n):
            d = float((x[i] - x[j]).norm())
            total += 0.9 * (d - 4) ** 4 - 4 * (d - 4) ** 2 if name == "dw" else 2 * (d**-12 - 2 * d**-6)
    return total + (0.5 * float((x - x.mean(0)).square().sum()) if name == "lj" else 0.0)


@pytest.mark.parametrize("name", ["dw", "lj"])
def test_the_published_energies_are_sums_over_pairs(name):
    for n, d in ((4, 2), (13, 3), (2, 1), (1, 3)):
        x = sets(n, d, seed=n)
        assert float(ALL[name](x)) == pytest.approx(by_hand(name, x), rel=1e-10)


def test_the_pair_factor_has_no_default_and_doubles_the_pairs_only():
    with pytest.raises(TypeError, match="each_pair"):
        LennardJones()
    x, springs = sets(5, 13, 3), HarmonicCluster()
    once, twice = LennardJones(each_pair=1)(x), LJ(x)
    torch.testing.assert_close(twice - springs(x), 2 * (once - springs(x)))


def test_springs_to_the_centre_are_springs_between_all_pairs():
    x = sets(7, 5, 3)
    pairs = squared_distances(x).sum((1, 2)) / 2
    torch.testing.assert_close(HarmonicCluster(1.5)(x), 1.5 / (2 * 5) * pairs)


def test_temperature_divides():
    x = sets(3, 4, 2)
    torch.testing.assert_close(DoubleWell(temperature=4.0)(x), DW(x) / 4)
    torch.testing.assert_close(DoubleWell(temperature=4.0).gradient(x), DW.gradient(x) / 4)
    torch.testing.assert_close(Bridge(DW, 0.25)(x), DW(x) / 4)  # β is an inverse temperature
    torch.testing.assert_close(Bridge(DW, 0.0, std=2.0)(x), x.square().sum((1, 2)) / 8)
    torch.testing.assert_close(Bridge(DW, 1.0, std=2.0)(x), DW(x))


# -- gradients -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_gradients_are_the_derivatives(name):
    energy, x = ALL[name], sets(6, 5, 3, spread=1.0).requires_grad_()
    mask = torch.ones(6, 5, dtype=torch.bool)
    mask[1:, 4] = mask[3:, 3] = False
    y = torch.where(mask[..., None], x, 0)
    for points, there in ((x, None), (y, mask)):
        (automatic,) = torch.autograd.grad(energy(points, there).sum(), x)
        torch.testing.assert_close(energy.gradient(points, there), automatic, rtol=1e-9, atol=1e-9)


def test_slopes_by_differences():
    s, h = torch.linspace(0.5, 40, 50, dtype=torch.float64), 1e-6
    for energy in (DW, LJ, ALL["dw-all"], ALL["lj-once"]):
        assert isinstance(energy, PairEnergy)
        numeric = (energy.pair(s + h) - energy.pair(s - h)) / (2 * h)
        torch.testing.assert_close(energy.slope(s), numeric, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("r_min", [1.0, 2.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_gradient_of_lennard_jones_is_the_derivative_down_to_no_distance(dtype, r_min):
    """Across r_m/100, where the power law ends and a line begins."""
    energy = LennardJones(each_pair=2, r_min=r_min)
    ratio = torch.tensor([0.0, 1e-3, 9.999e-3, 1e-2, 1.0001e-2, 2e-2, 0.1, 0.9, 1.0, 3.0], dtype=dtype)
    s = (ratio * r_min).square().requires_grad_()
    value = energy.pair(s)
    (automatic,) = torch.autograd.grad(value.sum(), s)
    tolerance = {"rtol": 1e-5 if dtype == torch.float32 else 1e-12, "atol": 1e-5 if dtype == torch.float32 else 1e-12}
    torch.testing.assert_close(energy.slope(s.detach()), automatic, **tolerance)
    assert (value[1:8] < value[:7]).all() and value.isfinite().all()  # it rises all the way in
    x = torch.zeros(len(s), 2, 3, dtype=dtype)
    x[:, 0, 0], x[:, 1, 0] = ratio * r_min / 2, -ratio * r_min / 2
    x.requires_grad_()
    (automatic,) = torch.autograd.grad(energy(x).sum(), x)
    torch.testing.assert_close(energy.gradient(x), automatic, **tolerance)


def test_a_line_of_lennard_jones_begins_without_a_step_and_without_a_kink():
    s = torch.tensor([1 - 1e-7, 1 + 1e-7], dtype=torch.float64) * CLOSEST
    energy = LennardJones(each_pair=1)
    below, above = energy.pair(s).tolist()
    assert below > above and below == pytest.approx(above, rel=2e-6)
    assert energy.slope(s)[0].item() == pytest.approx(energy.slope(s)[1].item(), rel=2e-6)
    a, b = energy.pair(torch.tensor([0.0, CLOSEST / 2], dtype=torch.float64)).tolist()
    assert (a - b) / (CLOSEST / 2) == pytest.approx(-float(energy.slope(s)[0]), rel=1e-12)
    assert energy.pair(torch.tensor([math.inf])).item() == 0


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_points_on_top_of_each_other_have_finite_energy_and_gradient(name, dtype):
    x = torch.zeros(2, 4, 3, dtype=dtype)
    x[1, 0, 0], x[1, 1, 0] = 1e-3, -1e-3
    x.requires_grad_()
    value = ALL[name](x)
    (automatic,) = torch.autograd.grad(value.sum(), x)
    for found in (value, automatic, ALL[name].gradient(x)):
        assert found.isfinite().all()
    if name.startswith("lj"):
        assert float(value.detach().min()) > 1e20


def test_an_energy_of_your_own_needs_a_potential_only():
    x = sets(3, 4, 2)
    torch.testing.assert_close(Spring().gradient(x), x)
    assert Spring().dims(Batch(x)).tolist() == [8.0] * 3  # translations change it: nothing is lost to the centre
    with torch.inference_mode(), pytest.raises(RuntimeError, match="use torch.no_grad"):
        Spring().gradient(x)


# -- symmetries, layouts, precision ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_symmetries(name):
    energy, x = ALL[name], sets(4, 6, 3)
    turn = torch.linalg.qr(sets(3, 3, seed=1))[0]
    for moved in (x @ turn, x @ -turn, x[:, torch.randperm(6, generator=torch.Generator().manual_seed(0))]):
        torch.testing.assert_close(energy(moved), energy(x))
    if name != "bridge":  # its Gaussian is one of centred sets
        torch.testing.assert_close(energy(x + 3.0), energy(x))
        torch.testing.assert_close(energy.gradient(x + 3.0), energy.gradient(x))
    torch.testing.assert_close(energy.gradient(x @ turn), energy.gradient(x) @ turn)
    assert energy.symmetries == {"translation", "rotation", "reflection", "permutation"}


@pytest.mark.parametrize("name", ALL)
def test_ragged_is_each_sample_alone(name):
    batch = ragged([3, 1, 0, 13, 2, 3])
    each = [float(ALL[name](x)) if len(x) else 0.0 for x in batch.split()]
    torch.testing.assert_close(ALL[name].of(batch), torch.tensor(each, dtype=torch.float64))
    assert ALL[name].dims(batch).tolist() == [6.0, 0.0, 0.0, 36.0, 3.0, 6.0]


def test_dense_ragged_padded_and_chunks_agree(monkeypatch):
    from scifm.energies import base

    x = sets(7, 4, 2)
    rows = Batch(x.reshape(-1, 2), torch.arange(7).repeat_interleave(4), 7)
    padded = torch.cat([x, torch.zeros(7, 3, 2, dtype=x.dtype)], 1)
    mask = torch.arange(7).expand(7, 7) < 4
    assert torch.equal(DW.of(Batch(x)), DW.of(rows))
    torch.testing.assert_close(DW(padded, mask), DW(x))
    monkeypatch.setattr(base, "PAIRS", 40)
    torch.testing.assert_close(DW.of(Batch(x)), DW(x))
    assert DW(x[None, :, None]).shape == (1, 7, 1)
    assert DW.of(Batch(x[:0])).shape == (0,)


def test_far_from_the_origin_nothing_cancels():
    x = sets(5, 13, 3, dtype=torch.float32)
    far = (x.double() + 1000).float().double()  # what float32 keeps of it
    torch.testing.assert_close(LJ.gradient(far.float()).double(), LJ.gradient(far), rtol=1e-3, atol=0.05)
    assert float(centred(far, None).mean(1).abs().max()) < 1e-10


def test_of_is_differentiable():
    x = sets(3, 4, 2).requires_grad_()
    (gradient,) = torch.autograd.grad(DW.of(Batch(x)).sum(), x)
    torch.testing.assert_close(gradient, DW.gradient(x))


# -- the constant that is known --------------------------------------------------------------------------------------


def test_the_harmonic_cluster_is_a_mean_free_gaussian():
    from scifm.priors import MeanFreeGaussian

    energy, batch = HarmonicCluster(1.5, temperature=0.6), ragged([3, 1, 5, 2])
    log_prob = MeanFreeGaussian(energy.std).log_prob(batch.x, batch)
    torch.testing.assert_close(-energy.of(batch) - energy.log_z(batch), log_prob, rtol=1e-10, atol=1e-10)


def test_log_z_of_two_points_by_quadrature():
    """On the line two centred points are (a, −a), at the place √2 a of the subspace."""
    s = torch.linspace(-40, 40, 200_001, dtype=torch.float64)
    x = torch.stack([s, -s], 1)[..., None] / math.sqrt(2)
    z = float(torch.exp(-HarmonicCluster(0.3)(x)).sum() * (s[1] - s[0]))
    assert math.log(z) == pytest.approx(float(HarmonicCluster(0.3).log_z(Batch(x[:1]))[0]), abs=1e-10)


# -- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LennardJones(each_pair=0), "each_pair must be 2 .published"),
        (lambda: LennardJones(each_pair=2, temperature=0.0), "LennardJones: temperature must be positive"),
        (lambda: DoubleWell(c=-1.0), "DoubleWell: c must be positive and finite, got -1.0"),
        (lambda: HarmonicCluster(math.inf), "HarmonicCluster: spring must be positive and finite"),
        (lambda: Bridge(DW, 0.5, std=-1.0), "Bridge: std must be positive"),
        (lambda: DW(torch.zeros(8)), r"expected floating-point sets of points \(..., n, d\).*reshape"),
        (lambda: DW(torch.zeros(1, 4, 2, dtype=torch.int64)), "floating-point"),
        (lambda: DW(torch.zeros(1, 4, 2), torch.ones(1, 4)), "mask must be bool"),
        (lambda: DW.gradient(torch.zeros(1, 4, 2), torch.ones(1, 3, dtype=torch.bool)), "mask must be bool"),
        (lambda: DW.of(Batch(torch.zeros(2, 1, 4, 2))), "expected samples of n points"),
    ],
)
def test_refusals(make, message):
    with pytest.raises(ValueError, match=message):
        make()
