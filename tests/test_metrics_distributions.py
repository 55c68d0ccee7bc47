"""Distances of distributions against other implementations and brute force; pair functions against closed forms."""

from __future__ import annotations

import importlib
import itertools
import math

import pytest
import torch

from scifm import Batch
from scifm.geometry import Box, radius_graph, random_rotation
from scifm.metrics import (
    bond_angles,
    bootstrap,
    compare,
    compare_structures,
    jensen_shannon,
    kolmogorov_smirnov,
    of_bonds,
    of_chains,
    pair_density,
    pair_distances,
    radial_distribution,
    wasserstein,
    wasserstein_line,
)

DTYPE = torch.float64
TURN = 2 * math.pi


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DTYPE)


def uniform(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=DTYPE)


# -- numbers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("m", "n"), [(1, 1), (5, 5), (30, 47), (1, 9)])
def test_on_the_line_they_are_those_of_scipy_and_of_transport(m, n):
    from scipy import stats

    x, y = normal(m), 1.5 * normal(n, seed=1) + 0.3
    assert wasserstein_line(x, y) == pytest.approx(stats.wasserstein_distance(x, y))
    assert wasserstein_line(x, y) == pytest.approx(wasserstein(x[:, None], y[:, None], 1))
    assert kolmogorov_smirnov(x, y) == pytest.approx(stats.ks_2samp(x, y).statistic)
    assert wasserstein_line(x.float(), y.float()) == pytest.approx(wasserstein_line(x, y), rel=1e-5)


def test_ties_weigh_what_they_are():
    x, y = torch.tensor([0.0, 0, 0, 1]), torch.tensor([0.0, 1])
    assert wasserstein_line(x, y) == pytest.approx(0.25) and kolmogorov_smirnov(x, y) == pytest.approx(0.25)
    assert wasserstein_line(x, x.flip(0)) == 0.0 and kolmogorov_smirnov(x, x) == 0.0


def test_on_the_circle_it_is_the_best_pairing_and_does_not_know_the_origin():
    for seed in range(8):
        x, y = TURN * uniform(6, seed=seed), TURN * uniform(6, seed=seed + 50) ** 2
        apart = (x[:, None] - y).abs()
        cost = torch.minimum(apart, TURN - apart)
        best = min(float(cost[range(6), list(p)].mean()) for p in itertools.permutations(range(6)))
        assert wasserstein_line(x, y, TURN) == pytest.approx(best)
        assert wasserstein_line(x + 2, y + 2, TURN) == pytest.approx(best)
        assert wasserstein_line(x - TURN, y + 5 * TURN, TURN) == pytest.approx(best)
        kuiper = kolmogorov_smirnov(x, y, TURN)
        assert kolmogorov_smirnov(x + 3, y + 3, TURN) == pytest.approx(kuiper)
        assert kuiper >= kolmogorov_smirnov(x, y) - 1e-12


def test_opposite_points_of_a_circle_are_half_a_turn_apart():
    assert wasserstein_line(torch.tensor([0.1]), torch.tensor([0.1 + math.pi]), TURN) == pytest.approx(math.pi)
    assert wasserstein_line(torch.tensor([-3.1]), torch.tensor([3.1]), TURN) == pytest.approx(TURN - 6.2, rel=1e-5)
    ring = TURN * torch.arange(50) / 50  # turned by half a step
    assert wasserstein_line(ring, ring + TURN / 100, TURN) == pytest.approx(TURN / 100, rel=1e-4)


def test_jensen_shannon_is_zero_for_equal_and_log_two_for_disjoint_ones():
    bins = torch.linspace(0, 1, 5)
    assert jensen_shannon(uniform(9), uniform(9), bins) == 0.0
    assert jensen_shannon(torch.full((3,), 0.1), torch.full((5,), 0.9), bins) == pytest.approx(math.log(2))
    assert jensen_shannon(torch.full((3,), -5.0), torch.full((5,), 7.0), bins) == pytest.approx(math.log(2))
    x, y = torch.tensor([0.1, 0.1, 0.4, 0.9]), torch.tensor([0.1, 0.4, 0.4, 0.4])
    p, q = torch.tensor([0.5, 0.25, 0.25]), torch.tensor([0.25, 0.75, 0.0])
    m = (p + q) / 2
    wanted = (p * (p / m).log()).sum() / 2 + (q[:2] * (q[:2] / m[:2]).log()).sum() / 2
    assert jensen_shannon(x, y, bins) == pytest.approx(float(wanted), rel=1e-6)
    with pytest.raises(ValueError, match="increasing edges"):
        jensen_shannon(x, y, bins.flip(0))


@pytest.mark.parametrize(
    ("x", "y", "period", "message"),
    [
        (torch.zeros(0), torch.zeros(3), None, "two sets of finite numbers, got 0 and 3"),
        (torch.zeros(3), torch.tensor([math.nan, 1.0]), None, "0 and 1 are NaN"),
        (torch.zeros(3), torch.zeros(3), -1.0, "period must be positive"),
    ],
)
def test_what_is_no_pair_of_sets(x, y, period, message):
    for f in (wasserstein_line, kolmogorov_smirnov):
        with pytest.raises(ValueError, match=message):
            f(x, y, period)


def test_a_comparison_knows_what_chance_does():
    """Of the same law W1 is near its floor, of a shifted one it is the shift; the error is that of repetitions."""
    g = torch.Generator().manual_seed(0)

    def draw(count):  # numbers of one sample share a part
        return list(torch.randn(count, 1, generator=g, dtype=DTYPE) + torch.randn(count, 5, generator=g, dtype=DTYPE))

    same = [compare(draw(60), draw(90), generator=g, draws=20) for _ in range(40)]
    ratio = torch.tensor([c.wasserstein / c.floor for c in same])
    assert 0.7 < float(ratio.median()) < 1.4
    far = [compare([v + 3 for v in draw(60)], draw(90), generator=g, draws=20) for _ in range(40)]
    values = torch.tensor([c.wasserstein for c in far])
    assert float(values.mean()) == pytest.approx(3, abs=0.1)
    assert 0.7 < float(torch.tensor([c.stderr for c in far]).mean() / values.std()) < 1.4
    assert far[0].mean == pytest.approx(far[0].data_mean + 3, abs=0.6) and "same law" in str(far[0])
    again = [
        compare(*(list(normal(9, 4, seed=s)) for s in (1, 2)), generator=torch.Generator().manual_seed(5)) for _ in "ab"
    ]
    assert again[0] == again[1]


def test_single_samples_have_no_error():
    found = compare([normal(50)], [normal(60, seed=1)])
    assert math.isnan(found.stderr) and math.isnan(found.floor) and found.wasserstein > 0
    assert math.isnan(bootstrap(lambda v: 1.0, [1]))
    circle = compare(list(normal(9, 4) * 0.1 + 3.1), list(normal(9, 4, seed=1) * 0.1 - 3.1), period=TURN)
    assert circle.wasserstein < 0.2 and circle.std == pytest.approx(0.1, abs=0.05)


# -- pairs --------------------------------------------------------------------------------------------------------


def test_pair_distances_are_each_pair_once():
    x = normal(5, 3)
    batch = Batch(torch.cat([x, x[:3], x[:1]]), torch.tensor([0] * 5 + [2] * 3 + [3]), 5)
    found = pair_distances(batch)
    assert len(found) == 10 + 3
    wanted = torch.cat([torch.pdist(x), torch.pdist(x[:3])])
    torch.testing.assert_close(found.sort().values, wanted.sort().values)
    moved = batch.replace(batch.x @ random_rotation(1, 3, torch.Generator().manual_seed(0), DTYPE)[0].T - 4)
    torch.testing.assert_close(pair_distances(moved), found)
    assert pair_distances(Batch(torch.zeros(2, 1, 3))).shape == (0,)
    assert pair_distances(Batch(torch.zeros(0, 4, 3))).shape == (0,)


def test_the_density_of_gaussian_pairs_is_maxwell_s():
    batch = Batch(normal(1500, 6, 3))
    edges = torch.linspace(0, 8, 41, dtype=DTYPE)
    found = pair_density(batch, edges)
    s2 = 2.0  # variance of a difference, per coordinate
    wanted = math.sqrt(2 / math.pi) * found.r**2 * torch.exp(-found.r.square() / (2 * s2)) / s2**1.5
    assert float((found.value * edges.diff()).sum()) == pytest.approx(1, abs=1e-3)
    off = ((found.value - wanted) / found.stderr.clamp(min=1e-9))[(found.r > 0.3) & (found.r < 6)]
    assert 0.6 < float(off.square().mean().sqrt()) < 1.5  # the error is the spread
    assert torch.equal(found.r, (edges[1:] + edges[:-1]) / 2)


@pytest.mark.parametrize("d", [1, 2, 3])
def test_uniform_points_in_a_box_have_no_structure(d):
    lengths = torch.tensor([4.0, 5.0, 6.0], dtype=DTYPE)[:d]
    cell = torch.diag(lengths)
    if d > 1:
        cell[1, 0] = 1.3
    box = Box(cell)
    batch = Batch(uniform(400, 12, d) @ cell * 3)  # unwrapped
    edges = torch.linspace(0.2, float(box.inradius), 9, dtype=DTYPE)
    found = radial_distribution(batch, edges, box)
    assert float((found.value - 1).abs().max()) < 5 * float(found.stderr.max()) < 0.8
    assert 0.5 < float(((found.value - 1) / found.stderr).square().mean().sqrt()) < 1.8
    each = Box(torch.stack([cell] * 400))
    torch.testing.assert_close(radial_distribution(batch, edges, each).value, found.value)
    with pytest.raises(ValueError, match="shells would leave the box"):
        radial_distribution(batch, 3 * edges, box)


def test_samples_weigh_alike_whatever_their_size_and_chunks_do_not_matter(monkeypatch):
    module = importlib.import_module("scifm.metrics.pair_distances")  # the name is the function's, too
    index = torch.arange(4).repeat_interleave(torch.tensor([2, 9, 1, 2]))
    batch, edges = Batch(normal(14, 2), index, 4), torch.linspace(0, 9, 4)
    found = pair_density(batch, edges)
    alone = [pair_density(batch.select([b]), edges).value for b in (0, 1, 3)]
    torch.testing.assert_close(found.value, torch.stack(alone).mean(0))
    monkeypatch.setattr(module, "PAIRS", 1)
    torch.testing.assert_close(pair_density(batch, edges).value, found.value)
    assert pair_density(batch.select([0]), edges).stderr.isnan().all()


# -- tables -------------------------------------------------------------------------------------------------------


def water(count, seed=0):
    """Bent triples with both directions of two bonds."""
    x = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [-0.25, 0.968, 0.0]], dtype=DTYPE)
    sets = (x + 0.01 * normal(count, 3, 3, seed=seed)).reshape(-1, 3)
    index = torch.arange(count).repeat_interleave(3)
    return Batch(sets, index, count, edge_index=radius_graph(Batch(sets, index, count), 1.2))


def test_bonds_and_angles_are_counted_once():
    found = of_bonds(water(20))
    assert [len(v) for v in found["bond length"]] == [2] * 20 and [len(v) for v in found["bond angle"]] == [1] * 20
    assert float(torch.cat(found["bond angle"]).mean()) == pytest.approx(104.5, abs=1.0)
    star = torch.tensor([[0, 0, 0, 1, 2, 3], [1, 2, 3, 0, 0, 0]])
    assert set(map(tuple, bond_angles(star).T.tolist())) == {(1, 0, 2), (1, 0, 3), (2, 0, 3)}
    assert bond_angles(torch.zeros(2, 0, dtype=torch.long)).shape == (3, 0)
    with pytest.raises(ValueError, match="edge_index"):
        of_bonds(Batch(normal(2, 3, 3)))


def test_a_table_finds_what_differs():
    data, samples = water(40), water(50, seed=1)
    g = torch.Generator().manual_seed(0)
    same = compare_structures(samples, data, g)
    assert list(same) == ["radius of gyration", "bond length", "bond angle"]
    assert all(row.wasserstein < 3 * row.floor for row in same.values())
    longer = compare_structures(samples.replace(1.1 * samples.x), data, g)
    assert longer["bond length"].wasserstein == pytest.approx(0.1, abs=0.02)
    assert longer["bond length"].wasserstein > 5 * longer["bond length"].floor
    assert longer["bond angle"].wasserstein == pytest.approx(same["bond angle"].wasserstein)


def test_a_table_of_chains_sees_the_mirror_image():
    chains = Batch(normal(60, 12, 3).cumsum(1) + torch.linspace(0, 3, 12, dtype=DTYPE)[:, None].cos())
    turn = torch.arange(12, dtype=DTYPE)
    spiral = torch.stack([2.3 * (1.745 * turn).cos(), 2.3 * (1.745 * turn).sin(), 1.5 * turn], -1)
    chains = chains.replace(0.1 * chains.x + spiral)
    mirrored = chains.replace(chains.x * torch.tensor([1.0, 1.0, -1.0], dtype=DTYPE))
    assert list(compare_structures(chains, chains)) == ["radius of gyration"]
    table = compare_structures(mirrored, chains, torch.Generator().manual_seed(0), chain=True)
    assert table["neighbour distance"].wasserstein == pytest.approx(0.0, abs=1e-12)
    assert table["handedness"].wasserstein > 10 * table["handedness"].floor
    assert table["chain torsion"].wasserstein > 30
    plane = of_chains(Batch(normal(3, 5, 2)))
    assert list(plane) == ["neighbour distance", "chain angle"]
