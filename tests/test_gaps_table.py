"""The table of gaps and unusual days measures what it says: a flow that is a Gaussian is as good as that Gaussian."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from scifm import Batch, Flow, networks, priors
from scifm.data.transforms import Affine
from scifm.priors import spectra

ROOT = Path(__file__).resolve().parent.parent
SHAPE = (1, 5, 6)


@pytest.fixture
def table(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("gaps")


class Nothing(torch.nn.Module):
    symmetries = frozenset()

    def forward(self, t, x, batch):
        return torch.zeros_like(x)


@pytest.fixture
def recipe():
    """Smooth Gaussian maps in kelvin to 0.01, and the flow that is their law: its prior, with nothing learnt."""
    g = torch.Generator().manual_seed(0)
    kernel = torch.tensor([0.25, 0.5, 0.25], dtype=torch.float64)
    x = torch.randn(2100, *SHAPE, generator=g, dtype=torch.float64)
    for k in ([1, 1, 3, 1], [1, 1, 1, 3]):
        x = torch.nn.functional.conv2d(x, kernel.reshape(k), padding="same")
    batch = Batch(((280 + 8 * x) / 0.01).round() * 0.01)
    train, test = batch.select(range(2000)), batch.select(range(2000, 2100))
    transform = Affine(shift=-280.0, scale=0.25)
    modes = priors.SpectralGaussian(SHAPE, periodic=(False, False), spectrum=spectra.PerMode())
    prior = priors.FullGaussian(SHAPE, target=modes).fit(transform(train))
    flow = Flow(networks.GaussianSkip(Nothing()), prior, transform=transform)
    return SimpleNamespace(flow=flow.eval(), data=SimpleNamespace(train=train, test=test, delta=0.01))


def test_conditioned_is_the_law_by_precisions(table):
    g = torch.Generator().manual_seed(0)
    root = torch.randn(7, 7, generator=g, dtype=torch.float64)
    mean, covariance, y = torch.randn(7, generator=g).double(), root @ root.T, torch.randn(7, generator=g).double()
    known, noise = torch.tensor([1, 0, 0, 1, 1, 0, 1]).bool(), torch.rand(7, generator=g).double() + 0.1
    found, deviation = table.conditioned((mean, covariance), y, known, noise)
    precision = covariance.inverse() + (known / noise.square()).diag()
    best = torch.linalg.solve(precision, covariance.inverse() @ mean + known * y / noise.square())
    assert torch.allclose(found, best) and torch.allclose(deviation, precision.inverse().diagonal().sqrt())


@pytest.mark.parametrize("removed", [0.9, 0.5])
def test_members_of_a_gaussian_flow_are_the_gaussian_s(table, recipe, removed):
    members, days = 60, recipe.data.test.select(range(0, 100, 8))
    found = table.filled(recipe, days, removed, members)
    assert found["climatology"] > found["gaussian"]
    extra = (1 + 1 / members) ** 0.5  # of the mean of so many draws
    assert found["members"] == pytest.approx(extra * found["gaussian"], rel=0.06)
    assert found["spread_skill"] == pytest.approx(1, abs=0.12)
    assert found["inside"] == pytest.approx(90, abs=5) and found["gaussian_inside"] == pytest.approx(90, abs=5)
    assert 0.9 < found["missed"] < 1.3, "they scatter about what is known by its noise, and the solver adds a little"


def test_changes_are_what_they_say_on_the_lattice_of_the_data(table, recipe):
    days = recipe.data.test.select(range(9))
    x = {change: table.changed(recipe, days, change).x for change in table.CHANGES}
    assert torch.equal(x["none"], days.x) and len(x) == 5
    assert torch.allclose(x["warm"], days.x + 5) and torch.allclose(x["doubled"] - 280, 2 * (days.x - 280))
    assert float((x["noisy"] - days.x).std()) == pytest.approx(0.5, rel=0.15)
    rough = {name: float((v[..., 1:] - v[..., :-1]).square().mean()) for name, v in x.items()}
    assert rough["smooth"] < 0.5 * rough["none"] < 0.5 * rough["noisy"]
    for value in x.values():
        assert torch.allclose(value / 0.01, (value / 0.01).round(), atol=1e-6)


def test_days_that_were_changed_are_unusual_and_smooth_ones_above_all(table, recipe):
    days, others = recipe.data.test.select(range(0, 100, 10)), recipe.data.test.select(range(1, 100, 2))
    found = table.scored(recipe, days, others)
    assert 0.15 < found["none"]["median"] < 0.85
    assert found["doubled"]["median"] < 0.05 and found["smooth"]["median"] > 0.9 and found["smooth"]["above"] >= 3
    for figures in found.values():
        assert figures["log_prob"] == pytest.approx(figures["prior"], abs=0.05), "the flow is its prior"


def test_the_section_has_each_figure_with_its_spread(table, monkeypatch, tmp_path):
    gap = dict.fromkeys(
        ["climatology", "gaussian", "members", "spread_skill", "inside", "gaussian_inside", "missed"], 1.0
    )
    row = dict.fromkeys(["log_prob", "prior", "median", "least", "most", "above"], 0.5)

    def measure(folder, days, members):
        gaps = {str(share): gap | {"members": 1.0 + int(folder.name)} for share in table.REMOVED}
        return gaps | {"unusual": dict.fromkeys(table.CHANGES, row)}

    monkeypatch.setattr(table, "measure", measure)
    monkeypatch.setattr(table.fields_flow, "train", lambda name, seed, steps, root: root / str(seed))
    text = table.measured(2, None, 8, 16, tmp_path)
    assert "| 90 % | 1.00 ± 0.00 | 1.000 ± 0.000 | 1.500 ± 0.707 |" in text and "Beside 32 other" in text
    assert "| as they are | 0 ± 0 | 0.50 (0.50 .. 0.50) |" in text
