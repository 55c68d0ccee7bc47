"""The base distributions on real proteins have the bits per dimension that were recorded for them."""

from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
RECORDED = {
    "isotropic, σ fitted": 5.38,
    "isotropic, σ ~ n^ν fitted": 5.35,
    "harmonic chain, a = 3/3.8²": 3.154,
    "globular chain, link 3.8, Rg = 2.2 n^0.4": 3.155,
    "harmonic chain fitted": 3.154,
    "springs to 2 neighbours": 3.086,
    "**spectral power law**": 3.079,
    "spectral cubic in log λ × n": 3.058,
    "springs to 4 neighbours in a trap": 3.021,
}


@pytest.fixture
def bench(monkeypatch, scifm_data):
    scifm_data("proteins_bm5")
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import protein_priors

    return protein_priors


def test_the_recorded_table_comes_out(bench):
    data = bench.segments()
    assert len(data) == 823
    train, test = bench.split(data, 0)
    assert (len(train), len(test)) == (658, 165)
    rows = {name: (make, fitted) for name, _, make, fitted in bench.SEGMENTS}
    for name, wanted in RECORDED.items():
        make, fitted = rows[name]
        prior = make()
        got, _ = bench.bits(prior.fit(train) if fitted else prior, test)
        assert got == pytest.approx(wanted, abs=0.005), name


def test_an_ensemble_is_told_from_any_chain_by_its_fold(bench, scifm_data):
    scifm_data("protein_ensembles")
    train, test = bench.split(bench.ensemble(), 0)
    found = {name: bench.bits(make().fit(train), test)[0] for name, _, make, _ in bench.ENSEMBLE if "chain" in name}
    full = bench.bits(bench.FullPoints(76).fit(train), test)[0]
    assert full < 1.1 < min(found.values()) < max(found.values()) < 3.2
