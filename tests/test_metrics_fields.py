"""Distances of sets of fields: closed forms, transport by POT, floors that are floors, and what a plain norm misses."""

import math

import numpy as np
import pytest
import torch

from scifm.batch import Batch
from scifm.metrics import (
    energy_distance,
    field_distances,
    leading_components,
    patches_of,
    sliced_wasserstein,
    wasserstein,
)
from scifm.priors import SpectralGaussian, spectra

DOUBLE = torch.float64


def normal(*shape, seed=0, dtype=DOUBLE):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def smooth(count, seed=0, grid=(16, 20)):
    prior = SpectralGaussian((1, *grid), False, spectra.Matern(length=8.0))
    return prior.sample(Batch(torch.zeros(count, 1, *grid, dtype=DOUBLE)), torch.Generator().manual_seed(seed))


# -- distances of points ---------------------------------------------------------------------------------------------


def test_the_energy_distance_is_its_definition(monkeypatch):
    x, y = normal(7, 3), normal(5, 3, seed=1) + 1
    d = [np.linalg.norm(a[:, None] - b[None], axis=-1).mean() for a, b in ((x, y), (x, x), (y, y))]
    assert energy_distance(x, y) == pytest.approx(2 * d[0] - d[1] - d[2])
    monkeypatch.setattr("scifm.metrics.fields.ROWS", 2)
    assert energy_distance(x, y) == pytest.approx(2 * d[0] - d[1] - d[2])
    assert energy_distance(x, x) == pytest.approx(0, abs=1e-12)


def test_in_one_dimension_it_is_twice_cramer_s():
    x, y = normal(30, 1), 2 * normal(40, 1, seed=1)
    r = torch.linspace(-8, 8, 40001, dtype=DOUBLE)
    gap = (x <= r).double().mean(0) - (y <= r).double().mean(0)
    assert energy_distance(x, y) == pytest.approx(float(2 * gap.square().sum() * 16 / 40000), rel=1e-3)


@pytest.mark.parametrize(("n", "m"), [(9, 9), (9, 6), (1, 5), (8, 3)])
def test_sliced_transport_is_exact_on_a_line(n, m):
    x, y = normal(n, 1), normal(m, 1, seed=1) * 3
    assert sliced_wasserstein(x, y, 3) == pytest.approx(wasserstein(x, y), rel=1e-9)


def test_sliced_transport_in_space():
    x = normal(12, 4)
    shift = torch.tensor([3.0, 0.0, 4.0, 0.0], dtype=DOUBLE)
    found = sliced_wasserstein(x, x + shift, 20000, torch.Generator().manual_seed(0))
    assert found == pytest.approx(5 / math.sqrt(4), rel=0.02)  # E (u·s)² = |s|²/d
    g = [torch.Generator().manual_seed(3) for _ in "ab"]
    assert sliced_wasserstein(x, 2 * x, 9, g[0]) == sliced_wasserstein(x, 2 * x, 9, g[1]) <= wasserstein(x, 2 * x)


# -- components and patches -------------------------------------------------------------------------------------------


def test_components_are_orthonormal_and_their_scores_have_unit_variance():
    x = smooth(40) + 280
    found = leading_components(x, 6)
    torch.testing.assert_close(found.vectors.T @ found.vectors, torch.eye(6, dtype=DOUBLE))
    score = found(x)
    torch.testing.assert_close(score.T @ score / 39, torch.eye(6, dtype=DOUBLE), atol=1e-9, rtol=0)
    values = torch.linalg.eigvalsh(torch.cov(x.flatten(1).T)).flip(0)
    torch.testing.assert_close(found.std.square(), values[:6])
    assert leading_components(x[:4], 9).std.shape == (3,)  # 4 fields have 3


@pytest.mark.parametrize("grid", [(9,), (6, 9), (3, 5, 4)])
def test_patches_are_parts_of_their_field(grid):
    x = torch.arange(2 * 3 * math.prod(grid)).reshape(2, 3, *grid)
    found = patches_of(x, 4, 50, torch.Generator().manual_seed(0))
    sides = [min(4, n) for n in grid]
    assert found.shape == (2, 50, 3, *sides)
    step = [math.prod(grid[a + 1 :]) for a in range(len(grid))]
    inside = sum(
        torch.arange(n).reshape(-1, *[1] * (len(grid) - a - 1)) * s
        for a, (n, s) in enumerate(zip(sides, step, strict=True))
    )
    first = found.flatten(3)[..., :1].reshape(2, 50, 3, *[1] * len(grid))
    assert torch.equal(found, first + inside)  # neighbours stay neighbours
    assert torch.equal(found[:, :, 1] - found[:, :, 0], torch.full_like(found[:, :, 0], math.prod(grid)))
    assert (found[0] < 3 * math.prod(grid)).all() and (found[1] >= 3 * math.prod(grid)).all()
    assert (
        len(found[0, :, 0].flatten(1)[:, 0].unique()) == math.prod(n - s + 1 for n, s in zip(grid, sides, strict=True))
        or len(grid) > 1
    )


# -- fields ---------------------------------------------------------------------------------------------------------


def test_of_one_law_distances_are_near_their_floors():
    train, pairs = smooth(150, 99, (8, 10)), []
    for seed in range(12):
        x, y = smooth(30, 2 * seed, (8, 10)), smooth(45, 2 * seed + 1, (8, 10))
        found = field_distances(x, y, 6, 4, train, torch.Generator().manual_seed(seed), halves=6)
        pairs.append([(d.value, d.floor) for d in found.values()])
    value, floor = torch.tensor(pairs).mean(0).unbind(-1)
    assert ((value / floor - 1).abs() < 0.25).all(), value / floor
    assert "data against data" in str(next(iter(found.values())))


def test_it_sees_what_a_norm_on_whole_fields_does_not():
    """White noise of the right variance: hardly farther from held-out fields than training fields are."""
    train, test, noise = smooth(48, 1), smooth(48, 2), normal(48, 1, 16, 20, seed=3)
    plain = [energy_distance(v.flatten(1), test.flatten(1)) for v in (train, noise)]
    assert plain[1] < 4 * plain[0]
    found = field_distances(noise, test, side=4, reference=train, generator=torch.Generator().manual_seed(0))
    assert list(found) == ["energy, components", "sliced W2, components", "energy, patches", "sliced W2, patches"]
    assert found["energy, components"].value > 4 * found["energy, components"].floor
    assert found["energy, patches"].value > 100 * found["energy, patches"].floor


def test_same_generator_same_numbers_and_float32_agrees():
    a, b = smooth(20, 1, (6, 7)), smooth(20, 2, (6, 7))

    def run(dtype):
        return field_distances(a.to(dtype), b.to(dtype), 4, 3, generator=torch.Generator().manual_seed(0), halves=3)

    assert run(DOUBLE) == run(DOUBLE)
    for one, other in zip(run(DOUBLE).values(), run(torch.float32).values(), strict=True):
        assert one.value == pytest.approx(other.value, rel=1e-2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: energy_distance(torch.zeros(3), torch.zeros(3)), r"points \(n, d\)"),
        (lambda: sliced_wasserstein(torch.zeros(3, 2), torch.zeros(3, 1)), "points"),
        (lambda: energy_distance(torch.full((2, 2), math.nan), torch.zeros(2, 2)), "finite points"),
        (lambda: leading_components(torch.ones(5, 3)), "all fields are alike"),
        (lambda: leading_components(torch.ones(1, 3)), "at least 2"),
        (lambda: patches_of(torch.zeros(3, 4)), r"\(B, C, \*grid\)"),
        (lambda: field_distances(torch.zeros(9, 1, 4), torch.zeros(3, 1, 4)), "at least 4 of data"),
        (lambda: field_distances(torch.zeros(9, 1, 4), torch.zeros(9, 1, 5)), "one shape"),
        (lambda: field_distances(torch.full((9, 1, 4), math.nan), torch.zeros(9, 1, 4)), "finite fields"),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
