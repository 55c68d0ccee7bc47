"""Figures and page: the spectrum is right, every kind of data gets its pictures, the page holds the numbers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from scifm import Batch
from scifm.report import figures, page, radial_spectrum
from scifm.run import Run, write_json

PNG = b"\x89PNG"


@pytest.fixture
def run(tmp_path: Path) -> Run:
    record = {"format": 1, "recipe": "toy", "flags": {"kind": "a|b"}, "seed": 3, "versions": {"torch": "2"}}
    write_json(tmp_path / "run.json", record)
    return Run.open(tmp_path)


def with_numbers(run: Run) -> None:
    rows = [{"step": s, "train/loss": 1 / s, "valid/loss": 2 / s, "valid/bits_per_dim": 3.0} for s in (1, 2, 3)]
    rows.append({"step": 4, "train/loss": float("nan")})
    (run.folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    beside = {"prior": {"value": 2.5, "stderr": 0.1}, "white": {"value": -4.0, "stderr": float("nan")}}
    write_json(
        run.folder / "score.json",
        {"value": 1.5, "stderr": 0.25, "baselines": beside, "line": "NLL 1.500 ± 0.250 bits/dim | prior 2.5"},
    )


def test_the_spectrum_of_white_noise_is_flat() -> None:
    fields = np.random.default_rng(0).standard_normal((400, 12, 20)) * 3
    k, power = radial_spectrum(fields)
    assert np.all(np.diff(k) > 0) and k[0] > 0
    assert power == pytest.approx(9.0, rel=0.1)


@pytest.mark.parametrize("axis", [0, 1])
def test_a_wave_has_its_power_at_its_wavenumber(axis: int) -> None:
    n, cycles = 32, 5
    wave = np.cos(2 * np.pi * cycles * (np.arange(n) + 0.5) / n)  # a DCT mode
    field = np.broadcast_to(wave[:, None] if axis == 0 else wave, (n, n)) + 100.0  # the mean does not count
    k, power = radial_spectrum(field[None])
    peak = int(power.argmax())
    assert k[peak] == pytest.approx(cycles / n, abs=0.5 / n)
    assert np.delete(power, peak).max() < 1e-12 * power[peak]


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        ((1, 8, 9), {"samples.png", "spectrum.png"}),
        ((2, 8, 9), {"samples.png", "spectrum.png"}),
        ((2,), {"samples.png"}),
        ((7,), {"samples.png"}),
        ((1, 2, 2), {"samples.png"}),
    ],
)
@pytest.mark.parametrize("count", [1, 20])
def test_every_kind_of_data_gets_its_pictures(run: Run, event, expected: set[str], count: int) -> None:
    with_numbers(run)
    generator = torch.Generator().manual_seed(0)
    data = Batch(torch.randn(count, *event, generator=generator))
    made = figures(run, data, torch.randn(count, *event, generator=generator).numpy(), unit="K")
    assert {p.name for p in made} == expected | {"loss.png", "bits_per_dim.png"}
    assert all(p.read_bytes().startswith(PNG) for p in made)


def test_ragged_sets_get_pictures(run: Run) -> None:
    index = torch.tensor([0, 0, 0, 1, 1])
    data = Batch(torch.arange(15.0).reshape(5, 3), index=index, size=2)
    assert [p.name for p in figures(run, data, data.x.numpy())] == ["samples.png"]


def test_constant_data_and_an_empty_run_do_no_harm(run: Run) -> None:
    assert figures(run, None, None) == []
    data = Batch(torch.ones(3, 7))
    assert [p.name for p in figures(run, data, data.x.numpy())] == ["samples.png"]
    text = page(run, []).read_text()
    assert text.startswith("# toy") and "bits/dim" not in text


def test_the_page_holds_score_baselines_settings_and_figures(run: Run) -> None:
    with_numbers(run)
    text = page(run, figures(run, None, None)).read_text()
    assert "**NLL 1.500 ± 0.250 bits/dim**" in text
    assert "| flow | 1.500 | 0.250 |" in text and "| prior | 2.500 | 0.100 |" in text
    assert "![loss](figures/loss.png)" in text and "| seed | 3 |" in text and "torch 2" in text
    assert r"| `kind` | a\|b |" in text  # a table's own sign is escaped
