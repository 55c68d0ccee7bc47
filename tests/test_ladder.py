"""The ladder of Gaussians on real fields has the numbers that the reference recorded."""

import math
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
CHEAP = ["white", "FFT, isotropic", "FFT, bare power law", "DCT, Matérn, least squares of log S", "DCT, per mode"]
CHEAP += ["DCT, Matérn and nugget, Whittle", "map × DCT, isotropic", "8 EOFs and DCT"]


@pytest.fixture
def ladder(monkeypatch, scifm_data):
    scifm_data("ncep_air_temperature")
    scifm_data("csm_trefht_t42_global")
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import ladder

    return ladder


def test_regional_likelihoods_and_costs_are_those_of_the_reference(ladder):
    train, test = ladder.ncep()
    assert (len(train), len(test)) == (2200, 504)
    assert float(train.x.square().mean()) == pytest.approx(14.21, abs=0.01)
    rungs = [r for r in ladder.NCEP if r.name in CHEAP]
    assert len(rungs) == len(CHEAP)
    paired = {}
    for rung in rungs:
        base = ladder.fitted(rung, train)
        assert not ladder.far(base.bits(test), rung.bits, 0.02), rung.name
        if rung.name in ("white", "DCT, per mode", "8 EOFs and DCT"):
            alone, paired[rung.name] = ladder.transport(base, train, batches=2)
            cut = 100 * float(1 - paired[rung.name].mean() / alone.mean())
            assert cut == pytest.approx(rung.costs[2], abs=2), rung.name  # with two batches of the eight
    assert paired["8 EOFs and DCT"].max() < paired["DCT, per mode"].min() < paired["white"].min()


def test_global_likelihoods_are_those_of_the_reference(ladder):
    train, test, latitudes = ladder.members()
    assert (len(train), len(test), len(latitudes)) == (660, 220, 64)
    for rung in ladder.globe(latitudes):
        if "EOFs" not in rung.name and "map" not in rung.name:
            assert ladder.fitted(rung, train).bits(test) == pytest.approx(rung.bits, abs=0.02), rung.name


def test_bures_distance_in_closed_form(ladder):
    """Commuting covariances: the mean of (√c − √d)²; and none from a law to itself."""
    c, d = torch.tensor([1.0, 4.0, 9.0]), torch.tensor([4.0, 4.0, 0.25])
    q = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0)))[0]
    wanted = float((c.sqrt() - d.sqrt()).square().mean())
    assert ladder.bures(q * c @ q.T, q * d @ q.T) == pytest.approx(wanted, rel=1e-4)
    assert ladder.bures(q * c @ q.T, q * c @ q.T) == pytest.approx(0, abs=1e-5)


def test_deviations_are_named(ladder):
    assert ladder.far(0.73, 0.706, 0.02) and not ladder.far(0.72, 0.706, 0.02)
    assert not ladder.far(1.02e6, 1e6, 0.02) and ladder.far(2e6, 1e6, 0.02) and not ladder.far(1.0, math.nan, 0.02)
