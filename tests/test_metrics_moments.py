"""Moments of fields: SciPy's, a direct sum for the autocorrelation, and the bootstrap of FFM's protocol on AEMET."""

import math

import numpy as np
import pytest
import torch

from scifm.metrics import moment_errors, moments, quantile_maps

DOUBLE = torch.float64


def normal(*shape, seed=0, dtype=DOUBLE):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_they_are_scipy_s():
    stats = pytest.importorskip("scipy.stats")
    x = 280 + normal(30, 2, 4, 5).exp()
    found = moments(x)
    np.testing.assert_allclose(found.mean.numpy(), x.numpy().mean(0))
    np.testing.assert_allclose(found.variance.numpy(), x.numpy().var(0, ddof=1))
    np.testing.assert_allclose(found.skewness.numpy(), stats.skew(x.numpy(), 0), rtol=1e-9)
    np.testing.assert_allclose(found.kurtosis.numpy(), stats.kurtosis(x.numpy(), 0), rtol=1e-9)
    single = moments(x.float())
    assert single.mean.dtype == DOUBLE
    torch.testing.assert_close(single.kurtosis, found.kurtosis, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(("axis", "n"), [(-1, 7), (-2, 4)])
def test_the_autocorrelation_is_its_sum(axis, n):
    x = normal(6, 2, 4, 7) + 3
    y = x.movedim(axis, -1).reshape(-1, n)
    y = (y - y.mean(1, keepdim=True)).numpy()
    wanted = [np.mean([(r[: n - j] * r[j:]).sum() / (r * r).sum() for r in y]) for j in range(n)]
    np.testing.assert_allclose(moments(x, axis).autocorrelation.numpy(), wanted, atol=1e-12)


def test_what_does_not_vary_has_no_shape():
    x = normal(9, 1, 6)
    x[:, 0, 2] = 0.1
    found = moments(x)
    assert found.skewness.isnan().nonzero().tolist() == found.kurtosis.isnan().nonzero().tolist() == [[0, 2]]
    assert found.variance[0, 2] == pytest.approx(0) and all(map(math.isfinite, vars(moment_errors(x + 1, x)).values()))
    flat = torch.cat([normal(5, 1, 6), torch.full((2, 1, 6), 0.1, dtype=DOUBLE)])
    torch.testing.assert_close(moments(flat).autocorrelation, moments(flat[:5]).autocorrelation)


def test_the_bootstrap_of_aemet_has_the_recorded_errors(scifm_data):
    """500 of the 73 curves with replacement, seeds 2⁰ ... 2⁹, in [−3, 3]: the sampling floor of FFM's protocol."""
    x = np.loadtxt(scifm_data("ffm_functional_1d") / "aemet.csv", delimiter=",", skiprows=1, usecols=range(1, 366))
    x = torch.from_numpy(6 * (x - x.min()) / (x.max() - x.min()) - 3)[:, None]
    rows = []
    for power in range(10):
        drawn = np.random.default_rng(2**power).integers(0, len(x), 500)
        rows.append(list(vars(moment_errors(x[torch.from_numpy(drawn)], x)).values()))
    np.testing.assert_allclose(np.mean(rows, 0), [7.19e-4, 1.23e-3, 1.58e-2, 5.24e-2, 1.10e-6], rtol=5e-3)


def test_errors_are_those_of_a_shift_and_a_scale():
    x = normal(40, 1, 9)
    assert str(moment_errors(x, x)).startswith("mean 0.00e+00, variance 0.00e+00")
    found = moment_errors(2 * x + 1, x)
    wanted = ((x.mean(0) + 1).square().mean(), (3 * x.var(0)).square().mean())
    assert (found.mean, found.variance) == pytest.approx(tuple(map(float, wanted)))
    assert max(found.skewness, found.kurtosis, found.autocorrelation) < 1e-20


@pytest.mark.parametrize("count", [1, 2, 13])
def test_quantiles_are_numpy_s(count):
    x, levels = normal(count, 2, 3, dtype=torch.float32), [0.0, 0.05, 0.5, 0.95, 1.0]
    np.testing.assert_allclose(quantile_maps(x, levels).numpy(), np.quantile(x.numpy(), levels, 0), atol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: moments(torch.zeros(1, 3)), "at least 2 finite fields"),
        (lambda: moments(torch.full((3, 3), math.nan)), "finite"),
        (lambda: moments(torch.zeros(3, 4), axis=1), "given from the end as -1, got 1"),
        (lambda: moments(torch.zeros(3, 4), axis=-2), "axis must be"),
        (lambda: moment_errors(torch.zeros(3, 4), torch.zeros(3, 5)), "one shape"),
        (lambda: quantile_maps(torch.zeros(3, 4), [1.2]), r"levels in \[0, 1\]"),
        (lambda: quantile_maps(torch.zeros(3)), r"\(B, \*event\)"),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
