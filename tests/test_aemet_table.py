"""The table of curves measures what it says: moments as scipy has them, and the reference's lines in closed form."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def table(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("aemet")


def test_errors_are_of_moments_as_scipy_has_them(table):
    from scipy import stats

    def numbers(x):
        y = x - x.mean(1, keepdims=True)
        lags = [[(c[: 7 - k] * c[k:]).sum() / (c * c).sum() for k in range(7)] for c in y]
        return [x.mean(0), x.var(0, ddof=1), stats.skew(x), stats.kurtosis(x), np.mean(lags, 0)]

    g = np.random.default_rng(0)
    x, real = g.gamma(2.0, size=(40, 7)), g.normal(size=(30, 7)) + np.arange(7)
    expected = [((a - b) ** 2).mean() for a, b in zip(numbers(x), numbers(real), strict=True)]
    np.testing.assert_allclose(table.errors(x, real), expected, rtol=1e-10)


def test_the_closed_form_lines_are_those_of_the_reference(table, scifm_data):
    scifm_data("ffm_functional_1d")
    data = table.load_dataset("aemet")
    whole = data.aemet(held=False).train
    x = data.rescaled(whole)(whole).x[:, 0].double().numpy()
    seeds = table.SEEDS

    def line(draw):
        return np.array([table.errors(draw(np.random.default_rng(s)), x) for s in seeds]).mean(0)

    # mean and spread over ten seeds, of which the mean of ten others is within two
    base = [1.17e00, 1.56e-01, 2.33e-01, 2.97e-01, 1.49e-01], [5e-3, 5e-4, 5e-3, 2e-2, 7e-4]
    periodic = [1.01e-03, 3.02e-02, 2.48e-01, 3.09e-01, 2.21e-05], [1e-3, 3e-3, 4e-2, 8e-2, 1e-5]
    full = [3.90e-04, 5.43e-04, 2.33e-01, 3.38e-01, 3.39e-06], [4e-4, 6e-4, 6e-2, 1e-1, 2e-6]
    for draw, (mean, spread) in ((table.matern(365), base), (table.spectral(x), periodic), (table.full(x), full)):
        assert (abs(line(draw) - mean) < 2 * np.array(spread)).all()
    np.testing.assert_allclose(line(table.bootstrap(x)), [7.19e-4, 1.23e-3, 1.58e-2, 5.24e-2, 1.10e-6], rtol=0.01)
