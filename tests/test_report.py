"""Figures and page: the spectrum is right, every kind of data gets its pictures, the page holds the numbers."""

from __future__ import annotations

import json
import math
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from scifm import Batch
from scifm.bits import Estimate
from scifm.cli import main
from scifm.disk import write_json
from scifm.report import figures, page, read_samples
from scifm.run import Run

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


def test_the_bars_are_the_ladder_of_pictures(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from scifm import pictures

    drawn: list[dict[str, Estimate]] = []
    monkeypatch.setattr(pictures, "ladder", lambda scores, found=pictures.ladder: drawn.append(scores) or found(scores))
    with_numbers(run)
    assert {p.name for p in figures(run, None, None)} == {"loss.png", "bits_per_dim.png"}
    (scores,) = drawn
    assert list(scores) == ["flow", "prior", "white"] and scores["flow"] == Estimate(1.5, 0.25)
    assert scores["white"].value == -4 and math.isnan(scores["white"].stderr)


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        ((1, 8, 9), {"samples.png", "spectrum.png"}),
        ((2, 8, 9), {"samples-0.png", "samples-1.png", "spectrum-0.png", "spectrum-1.png"}),
        ((1, 11), {"samples.png", "spectrum.png"}),
        ((1, 5, 4, 6), {"samples.png", "spectrum.png"}),
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


def test_the_page_says_the_unit_of_a_density_and_of_bins_none(run: Run) -> None:
    with_numbers(run)
    score = json.loads((run.folder / "score.json").read_text())
    for more, told in (({"unit": "Å"}, True), ({"unit": "K", "delta": 0.1}, False), ({}, False)):
        write_json(run.folder / "score.json", {**score, **more})
        assert ("Densities are per Å" in page(Run.open(run.folder), []).read_text()) == told


def test_the_recipes_own_name_is_the_title(run: Run) -> None:
    run.record["numbers"] = {"name": "Ice on lakes", "steps": 3}
    assert page(run, []).read_text().startswith("# Ice on lakes\n")
    run.record["numbers"]["name"] = ""
    assert page(run, []).read_text().startswith("# toy\n")


@pytest.mark.parametrize(
    "dims",
    [
        ("realization", "y", "x"),
        ("member", "y", "x"),
        ("draw", "y", "x"),
        ("y", "x", "draw"),
        ("y", "number", "x"),
        ("draw", "time", "y", "x"),  # time is not always what counts the samples
        ("realization", "time", "y", "x"),
    ],
)
def test_samples_are_found_whatever_an_export_calls_them(tmp_path: Path, dims: tuple[str, ...]) -> None:
    import xarray as xr

    sizes = {"y": 4, "x": 5, "time": 2}
    shape = [sizes.get(d, 7) for d in dims]
    array = xr.DataArray(np.arange(np.prod(shape), dtype="f4").reshape(shape), dims=dims, name="h")
    array.to_dataset().to_netcdf(tmp_path / "samples.nc", engine="h5netcdf")
    count = next(d for d in dims if d not in sizes)
    wanted = array.transpose(count, ...).values.reshape(7, -1, 4, 5)
    assert np.array_equal(read_samples(tmp_path / "samples.nc", wanted.shape[1:]), wanted)


def test_a_figure_that_cannot_be_drawn_is_left_out_with_its_reason(run: Run, capsys) -> None:
    with_numbers(run)
    write_json(run.folder / "score.json", {"line": "no value"})
    data = Batch(torch.randn(5, 2))
    made = figures(run, data, np.ones((3, 7)))  # of another shape than the data
    assert [p.name for p in made] == ["loss.png", "samples.png"]
    said = capsys.readouterr().err
    assert said == "warning: the report leaves out bits_per_dim.png (KeyError: 'value').\n"


TWO_VARIABLES = """
import torch, xarray as xr
from scifm import Batch, Flow, Recipe, networks, priors
from scifm.data import Data

def export(batch):
    names = ("u", "v")
    return xr.Dataset({n: (("draw", f"y_{n}", "x"), batch.x[:, i].numpy()) for i, n in enumerate(names)})

def recipe():
    data = [Batch(torch.randn(8, 2, 5, 4, generator=torch.Generator().manual_seed(i))) for i in range(3)]
    flow = Flow(networks.MLP((2, 5, 4), hidden=(8,)), priors.Gaussian())
    return Recipe(flow, Data("wind", *data, export=export), steps=2, test_samples=3, name="Wind")
"""


def test_an_export_of_its_own_form_fails_no_run_and_the_page_s_commands_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("wind.py").write_text(TWO_VARIABLES)
    assert main(["train", "wind.py", "--track", "none", "--out", "a run"]) == 0
    assert "leaves out figures of samples.nc (ValueError" in capsys.readouterr().err
    run = Run.open("a run")
    text = (run.folder / "report.md").read_text()
    assert run.status == "finished" and text.startswith("# Wind\n") and "figures/loss.png" in text
    commands = text.split("```sh\n")[1].split("```")[0].splitlines()
    assert [shlex.split(c)[:3] for c in commands] == [["scifm", "sample", "a run"], ["scifm", "score", "a run"]]
    for line in commands:
        assert main(shlex.split(line)[1:]) == 0, line
    assert Path("more.nc").exists() and Path("again.json").exists()
    capsys.readouterr()
    assert main(["list", "runs", "--runs", "."]) == 0
    assert "  Wind  " in capsys.readouterr().out


def test_the_error_of_one_sample_is_unknown_and_no_failure(run: Run) -> None:
    with_numbers(run)
    beside = {"prior": {"value": 2.5, "stderr": None}}
    write_json(run.folder / "score.json", {"value": 1.5, "stderr": None, "baselines": beside, "line": "NLL 1.500 ± ?"})
    assert "| flow | 1.500 | ? |" in page(run, []).read_text()
    data, samples = Batch(torch.randn(4, 2)), Batch(torch.randn(4, 2))
    assert any(f.name == "bits_per_dim.png" for f in figures(run, data, samples))
