"""The scripts that make the two-dimensional tables run from end to end, shortened; and say what they should."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    yield
    for name in ("toy_table", "toy_conditions", "path_table", "harness"):
        sys.modules.pop(name, None)


def test_the_published_tables_and_ours_side_by_side(tmp_path, capsys):
    import toy_table

    settings = toy_table.Settings(steps=3, points=40, train=100)
    text = toy_table.measure(True, tmp_path, settings=settings, pairs=["N→moons", "8gauss→moons"])
    assert "| OT-CFM | 0.130 ± 0.016 |" in text  # published, in the column of its pair
    assert "two sets of data" in text and "1 Euler step, published" in text
    runs = len(list(tmp_path.glob("*.json")))
    first = capsys.readouterr().err
    assert runs >= 15 and "N-moons-OT-CFM-0" in first
    # kept runs are read and not made again
    assert toy_table.measure(True, tmp_path, settings=settings, pairs=["N→moons", "8gauss→moons"]) == text
    assert capsys.readouterr().err == "" and len(list(tmp_path.glob("*.json"))) == runs


def test_a_run_is_a_function_of_its_seed(tmp_path):
    import toy_table

    settings = toy_table.Settings(steps=3, points=40, train=100)
    pair = toy_table.PAIRS["8gauss→moons"]
    first, again, other = (toy_table.run(pair, "I-CFM", seed, settings) for seed in (0, 0, 1))
    assert first["w2"] == again["w2"] != other["w2"] and first["energy"] == again["energy"]


def test_pairs_are_scaled_together_and_measured_in_the_units_of_the_law():
    import torch
    import toy_table

    pair = toy_table.PAIRS["8gauss→moons"]
    source, target = pair.draws(20_000, torch.Generator().manual_seed(0))
    assert float(target.std()) == pytest.approx(1.0, abs=0.02)
    assert float(source.square().sum(1).mean()) == pytest.approx((144 + 2 * 2.25) / 49, rel=0.02)
    settings = toy_table.Settings(points=100)
    assert toy_table.floor(pair, 0, settings)["w2"] > 1  # of moons of std 7, not 1


def test_path_against_path(tmp_path, capfd):
    import path_table

    arms = ["linear, OT pairs"]
    text = path_table.measure(["moons"], arms, seeds=1, steps=2, root=tmp_path, points=60)
    assert text.startswith("### Paths on moons") and "| linear, OT pairs |" in text and "normalised path energy" in text
    assert "scifm train plane --path linear --coupling ot --seed 0" in capfd.readouterr().err
    assert path_table.measure(["moons"], arms, seeds=1, steps=2, root=tmp_path, points=60) == text
    assert "scifm train" not in capfd.readouterr().err


def test_sampled_fields_beside_data():
    import path_table
    import torch

    from scifm import Batch

    data = Batch(torch.randn(64, 1, 16, 16, generator=torch.Generator().manual_seed(0)))
    same = path_table.fields_beside(data, data)
    assert same == {"spectrum_mean": 0.0, "spectrum_max": 0.0, "variance": 1.0}
    loud = path_table.fields_beside(data.replace(2 * data.x), data)
    assert loud["variance"] == pytest.approx(4.0)
    assert loud["spectrum_mean"] == pytest.approx(loud["spectrum_max"]) == pytest.approx(0.602, abs=1e-3)  # log10 4


@pytest.mark.parametrize("name", ["plane", "quickstart"])
def test_each_arm_is_what_it_says(name):
    import path_table

    from scifm import couplings, paths
    from scifm.recipe import load_recipe

    known = {"linear": paths.Linear, "vp": paths.VariancePreserving, "trigonometric": paths.Trigonometric}
    for flags in path_table.ARMS.values():
        flow = load_recipe(name).function()(**flags).flow
        assert type(flow.path) is known[flags["path"]]
        assert (flow.coupling is couplings.independent) == (flags["coupling"] == "independent")
