"""The benchmarks of trained flows of fields: what they compare is what they say, on runs of two steps."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest
import torch

from scifm import Batch
from scifm.cli import main

ROOT = Path(__file__).resolve().parent.parent
TINY = ["--steps", "2", "--batch-size", "2", "--width", "4", "--test-samples", "2", "--track", "none", "--threads", "1"]


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    yield
    for name in ("forecast", "fields_flow", "ladder", "harness"):
        sys.modules.pop(name, None)


def test_analogues_are_of_the_same_hour_and_season():
    import forecast

    known = torch.arange(0, 730, 0.25, dtype=torch.float64) + 16000
    times = torch.tensor([16365.5, 16001.0], dtype=torch.float64)
    found = known[forecast.analogues(times, known, 40, torch.Generator().manual_seed(0))]
    assert found.shape == (40, 2)
    away = found - times
    assert ((away % 1).minimum(1 - away % 1) < 1e-9).all()
    season = (away + forecast.YEAR / 2) % forecast.YEAR - forecast.YEAR / 2
    assert (season.abs() <= 15).all() and season.abs().max() > 10
    assert (away.abs() > 300).any()  # other years, too


def test_members_of_the_law_are_calibrated_and_score_best():
    import forecast

    g = torch.Generator().manual_seed(0)
    centre = torch.randn(60, 1, 25, 53, generator=g)
    cases = Batch(
        centre + torch.randn(centre.shape, generator=g), context={"time": torch.arange(60, dtype=torch.float64) * 7}
    )
    members = centre + torch.randn(8, *centre.shape, generator=g)
    found = {
        name: forecast.scores(x, cases, g)
        for name, x in {"law": members, "narrow": centre + 0.5 * (members - centre), "none": members - centre}.items()
    }
    law = found["law"]
    assert law["ratio"] == pytest.approx(1, abs=0.02) and law["outside"] == pytest.approx(1, abs=0.05)
    assert law["crps"] == pytest.approx(1 / math.sqrt(math.pi), rel=0.02)  # of N(0, 1) against its own draws
    assert all(found[name]["crps"] > 1.02 * law["crps"] for name in ("narrow", "none"))
    assert found["narrow"]["ratio"] < 0.6 and found["narrow"]["outside"] > 1.5 and law["stderr"] < 0.02


def test_forecasts_of_a_run(scifm_data, tmp_path):
    scifm_data("ncep_air_temperature")
    import forecast

    assert main(["train", "forecast", *TINY, "--out", str(tmp_path / "0")]) == 0
    found = forecast.measure(tmp_path / "0", 3, 4)
    assert list(found) == ["climatology", "persistence", "its Gaussian", "flow"]
    assert found["persistence"]["rmse"] < found["climatology"]["rmse"]
    assert found["flow"]["crps"] == pytest.approx(found["its Gaussian"]["crps"], rel=0.1)  # nothing was learnt
    assert forecast.measure(tmp_path / "0", 3, 4) == found  # kept


def test_a_flow_beside_the_ladder(scifm_data, tmp_path, monkeypatch):
    scifm_data("ncep_air_temperature")
    import fields_flow
    import ladder

    monkeypatch.setattr(ladder, "NCEP", [r for r in ladder.NCEP if r.name in ("white", "DCT, per mode")])
    folder = tmp_path / "ncep_air-0-2"
    assert main(["train", "ncep_air", *TINY, "--out", str(folder)]) == 0
    found = fields_flow.measure(folder, "ncep_air", 3)
    assert found["fields"] == 3 and list(found["ladder"]) == ["white", "DCT, per mode"]
    # nothing was learnt: the flow is its prior, the second rung but for a mean and some shrinkage
    assert found["bits"] == pytest.approx(found["ladder"]["DCT, per mode"], abs=0.1)
    assert found["spectrum"] == pytest.approx(found["prior spectrum"], abs=0.1)
    text = fields_flow.measured("ncep_air", 1, 2, 3, tmp_path)
    assert "| flow, seed 0 |" in text and "3 test fields" in text and "| white |" in text
