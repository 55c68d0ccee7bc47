"""Distances and energies against closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from scifm import Batch, Flow, Objective, Solver, networks, paths, priors
from scifm.data.transforms import Standardise
from scifm.metrics import normalised_path_energy, path_energy, wasserstein


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# -- Wasserstein -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("event", [(1,), (2,), (3, 4)])
def test_a_shifted_set_is_as_far_as_the_shift(event, power):
    x = normal(60, *event)
    shift = normal(*event, seed=1)
    assert wasserstein(x, x + shift, power) == pytest.approx(float(shift.norm()), rel=1e-9)
    assert wasserstein(x, x, power) == pytest.approx(0.0, abs=1e-6)


def test_the_order_of_the_points_does_not_matter():
    x, y = normal(50, 2), 1 + normal(50, 2, seed=1)
    far = wasserstein(x, y)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(2))
    assert wasserstein(x[order], y) == pytest.approx(far, rel=1e-12)
    assert wasserstein(y, x) == pytest.approx(far, rel=1e-9)


@pytest.mark.parametrize("power", [1, 2])
def test_in_one_dimension_it_is_the_sorted_pairing(power):
    x, y = normal(40, 1), 2 * normal(40, 1, seed=1) + 1
    known = (x.sort(0).values - y.sort(0).values).abs().pow(power).mean() ** (1 / power)
    assert wasserstein(x, y, power) == pytest.approx(float(known), rel=1e-9)


def test_it_is_the_best_assignment_of_all():
    from itertools import permutations

    x, y = normal(6, 2), normal(6, 2, seed=3)
    cost = torch.cdist(x, y).square()
    best = min(float(cost[range(6), list(p)].mean()) for p in permutations(range(6)))
    assert wasserstein(x, y) ** 2 == pytest.approx(best, rel=1e-9)


def test_sets_of_different_sizes_share_their_weight():
    x = torch.tensor([[0.0], [3.0]])
    y = torch.tensor([[0.0], [3.0], [3.0], [0.0], [3.0], [0.0]])
    assert wasserstein(x, y) == pytest.approx(0.0, abs=1e-7)
    # a third of the weight has to travel from 0 to 3, and a sixth of it is where it should be
    assert wasserstein(x, torch.tensor([[0.0], [3.0], [3.0]]), 1) == pytest.approx(3 * (1 / 2 - 1 / 3), rel=1e-9)


def test_gaussians_are_as_far_as_bures_says():
    a, b = torch.diag(torch.tensor([1.0, 2.0])).double(), torch.tensor([[2.0, 0.5], [0.5, 0.5]]).double()
    mean = torch.tensor([1.0, -1.0], dtype=torch.float64)
    x, y = normal(2000, 2) @ torch.linalg.cholesky(a).T, mean + normal(2000, 2, seed=1) @ torch.linalg.cholesky(b).T
    values, vectors = torch.linalg.eigh(a)
    root = vectors * values.sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(root @ b @ root).sqrt().sum()
    known = mean.square().sum() + a.trace() + b.trace() - 2 * cross
    # W² of samples has a standard error of some 3 % here, and is biased upward by less
    assert wasserstein(x, y) ** 2 == pytest.approx(float(known), rel=0.1)


def test_far_from_the_origin_small_distances_survive():
    x = normal(30, 2)
    assert wasserstein(1e6 + x, 1e6 + x + 1e-3) == pytest.approx(1e-3 * math.sqrt(2), rel=1e-4)
    assert wasserstein(x.float(), x.float() + 1) == pytest.approx(math.sqrt(2), rel=1e-6)


@pytest.mark.parametrize(
    ("x", "y", "power", "message"),
    [
        (torch.zeros(3, 2), torch.zeros(3, 3), 2, "two sets of points"),
        (torch.zeros(3), torch.zeros(3), 2, r"are \(n, 1\)"),
        (torch.zeros(0, 2), torch.zeros(3, 2), 2, "two sets of points"),
        (torch.zeros(3, 2), torch.full((3, 2), math.nan), 2, "NaN or infinity"),
        (torch.zeros(3, 2), torch.zeros(3, 2), 3, "power must be 1 or 2"),
    ],
)
def test_what_is_no_pair_of_sets(x, y, power, message):
    with pytest.raises(ValueError, match=message):
        wasserstein(x, y, power)


# -- energy ------------------------------------------------------------------------------------------------


class Field(nn.Module):
    """A velocity given as a function."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, t, x, batch):
        return self.function(t, x, batch)


def constant(value):
    return Field(lambda t, x, batch: torch.full_like(x, value))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("solver", [Solver(), Solver("euler", steps=3)])
def test_a_constant_velocity_has_its_square(dtype, solver):
    like = Batch(torch.zeros(4, 3, 2, dtype=dtype))
    energy = path_energy(Flow(constant(0.5), priors.Gaussian()), like, solver=solver)
    assert energy.shape == (4,) and energy.dtype == torch.float64
    torch.testing.assert_close(energy, torch.full((4,), 6 * 0.25, dtype=torch.float64), rtol=1e-6, atol=0)


def test_exponential_growth_has_the_energy_of_its_integral():
    flow = Flow(Field(lambda t, x, batch: x), priors.Gaussian())
    x0 = normal(5, 2)
    energy = path_energy(flow, Batch(x0), solver=Solver(rtol=1e-9, atol=1e-9), x0=x0)
    torch.testing.assert_close(energy, x0.square().sum(1) * (math.exp(2) - 1) / 2, rtol=1e-7, atol=0)


def test_the_energy_is_seeded_and_that_of_each_sample_alone():
    flow = Flow(Field(lambda t, x, batch: x.sin()), priors.Gaussian())
    like = Batch(torch.zeros(6, 2, dtype=torch.float64))
    energy = path_energy(flow, like, torch.Generator().manual_seed(3))
    assert torch.equal(energy, path_energy(flow, like, torch.Generator().manual_seed(3)))
    x0 = priors.Gaussian().sample(like, torch.Generator().manual_seed(3))
    for b in range(6):
        torch.testing.assert_close(path_energy(flow, like.select([b]), x0=x0[[b]])[0], energy[b], rtol=1e-9, atol=0)


def test_ragged_samples_sum_over_their_own_rows():
    index = torch.tensor([0, 1, 1, 1])
    like = Batch(torch.zeros(4, 2), index=index, size=3)
    energy = path_energy(Flow(constant(2.0), priors.Gaussian()), like)
    torch.testing.assert_close(energy, torch.tensor([8.0, 24.0, 0.0], dtype=torch.float64), rtol=1e-6, atol=0)


def test_in_the_metric_of_the_prior_it_counts_model_units():
    std = torch.tensor([0.5, 4.0])
    prior = priors.Gaussian(mean=3.0, std=std)
    like = Batch(torch.zeros(2, 2))
    whitened = Flow(constant(1.0), prior, objective=Objective(metric="prior"))
    energy = path_energy(whitened, like)
    torch.testing.assert_close(energy, torch.full((2,), 0.25 + 16.0, dtype=torch.float64), rtol=1e-5, atol=0)


def test_the_transform_of_the_user_does_not_count():
    data = Batch(100 * torch.randn(50, 2, generator=torch.Generator().manual_seed(0)))
    flow = Flow(constant(1.0), priors.Gaussian(), transform=Standardise().fit(data))
    torch.testing.assert_close(
        path_energy(flow, data)[:3], torch.full((3,), 2.0, dtype=torch.float64), rtol=1e-5, atol=0
    )


def test_a_path_that_starts_wide_starts_wide_here():
    # exploding paths start from σ_0 x0: for v = x the energy grows with σ_0²
    field = Field(lambda t, x, batch: x)
    x0 = normal(4, 2)
    flow = Flow(field, priors.Gaussian(), path=paths.VarianceExploding(sigma_max=10.0))
    energy = path_energy(flow, Batch(x0), x0=x0, solver=Solver(rtol=1e-8, atol=1e-8))
    torch.testing.assert_close(energy, 100 * x0.square().sum(1) * (math.exp(2) - 1) / 2, rtol=1e-6, atol=0)


def test_energy_is_at_least_the_squared_distance_it_covers():
    torch.manual_seed(0)
    velocity = networks.MLP(2, hidden=(16, 16)).double()
    nn.init.normal_(velocity.head.weight)
    x0 = normal(300, 2)
    flow = Flow(velocity, priors.Gaussian())
    ends = flow.sample(Batch(x0), x0=x0).x
    energy = path_energy(flow, Batch(x0), x0=x0)
    moved = (ends - x0).square().sum(1)
    assert (energy >= moved * (1 - 1e-4)).all()
    assert float(energy.mean()) >= wasserstein(x0, ends) ** 2 * (1 - 1e-4)


def test_bad_starts_are_refused():
    flow = Flow(constant(1.0), priors.Gaussian())
    with pytest.raises(ValueError, match="is empty"):
        path_energy(flow, Batch(torch.zeros(0, 2)))
    with pytest.raises(ValueError, match="expected torch.float32 of shape"):
        path_energy(flow, Batch(torch.zeros(2, 2)), x0=torch.zeros(2, 1))


def test_normalised_energy_is_relative_to_the_distance_and_has_no_sign():
    assert normalised_path_energy(3.0, 2.0) == pytest.approx(0.5)
    assert normalised_path_energy(1.0, 2.0) == pytest.approx(0.5)
    for energy, squared in ((1.0, 0.0), (1.0, -1.0), (math.nan, 1.0), (1.0, math.inf)):
        with pytest.raises(ValueError, match="positive, finite squared distance"):
            normalised_path_energy(energy, squared)
