"""The scripts that make the tables of particles and proteins: conventions, verdicts, and runs that were kept before."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from scifm import Batch

ROOT = Path(__file__).resolve().parent.parent
OLD = {  # what the first version of the script kept
    "nll": 7.25, "nll_stderr": 0.06, "nll_all": 7.26, "nll_all_stderr": 0.01, "energy_all": -22.45,
    "ess": 0.82, "log_weight_std": 0.5, "log_z": 29.66, "length": 1.64, "pairs": 7.06,
    "nfe": 287.4, "base": 2.1, "samples": 8, "tested": 4,
}  # fmt: skip


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    yield
    for name in ("particles", "protein_flow", "harness"):
        sys.modules.pop(name, None)


def finished(folder: Path, **files: dict) -> Path:
    """A run as far as the tables look at it, ten minutes long."""
    folder.mkdir(parents=True)
    (folder / "run.json").write_text('{"status": "finished", "started": "2026-01-01T00:00:00+00:00"}')
    (folder / "metrics.jsonl").write_text('{"step": 10, "valid/bits_per_dim": 2.0}\n')
    import os

    os.utime(folder / "metrics.jsonl", (1767225600 + 600,) * 2)
    for name, value in files.items():
        (folder / f"{name.replace('_', '-')}.json").write_text(json.dumps(value))
    return folder


@pytest.mark.parametrize("system", ["dw4", "lj13"])
def test_published_numbers_are_printed_in_our_convention(system):
    """With the constant of the prior none is below the entropy of the law, but for the error of either."""
    import particles

    lines = particles.published(system).splitlines()
    found = [float(line.split("|")[2]) for line in lines if "FM |" in line]
    assert len(found) == 2 and all({"dw4": 7.2, "lj13": 16.8}[system] - 0.1 < value for value in found)
    assert min(found) == {"dw4": 7.19, "lj13": 16.99}[system]


def test_lj55_is_a_recipe_with_a_row_and_no_floor(monkeypatch, tmp_path):
    import particles

    told = {}
    monkeypatch.setattr("harness.train", lambda folder, words: told.setdefault(folder.name, words) and folder)
    words = f"lj55 --times late --steps 9 --set batch-size=4 --root {tmp_path}".split()
    particles.train(particles.parser().parse_args(words), "ot", 2)
    words = told["lj55-ot-late-2-9-batch-size=4"]
    assert words[:3] == ["lj13", "--system", "lj55"] and "59.6" in particles.published("lj55")
    assert {"--batch-size=4", "--steps=9"} <= set(words)


def table(words: str, root: Path) -> str:
    import particles

    return particles.measured(particles.parser().parse_args([*words.split(), "--root", str(root)]))


def test_figures_of_the_first_version_are_read_and_new_ones_stand_beside_them(tmp_path):
    for seed in range(2):
        finished(
            tmp_path / f"dw4-ot-uniform-{seed}", particles_8_4=OLD, lengths_8={"curve": 2.5 + seed, "straight": 1.5}
        )
    text = table("dw4 --couplings ot --times uniform --seeds 2 --samples 8 --tested 4", tmp_path)
    row = next(line for line in text.splitlines() if line.startswith("| ot |"))
    assert row.split(" | ")[1:5] == ["2", "7.260 ± 0.000", "0.010", "82 ± 0"] and "| 3.00 ± 0.71 |" in row
    assert row.endswith("| 2.10 | 10 |"), "minutes from the start of the run to the last line of its course"
    assert "ot, seed 1: 10: 8.32" in text  # 2 bits per dimension, 6 dimensions


def test_a_table_from_a_run(tmp_path, scifm_data, capfd):
    import particles

    scifm_data("dw4")
    words = "dw4 --couplings equivariant --seeds 1 --steps 2 --samples 6 --tested 3"
    text = table(words, tmp_path)
    assert "| equivariant | 1 |" in text and "Floor 7.21 nats" in text
    found = particles.parser().parse_args(words.split())
    figures = particles.measure(tmp_path / "dw4-equivariant-uniform-0-2", found)
    assert 0 < figures["ess"] <= 1 and figures["curve"] >= figures["straight"] * (1 - 1e-3)
    assert OLD.keys() - {"length"} <= figures.keys(), "what is kept can be read by the same lines"
    capfd.readouterr()
    assert table(words, tmp_path) == text and "scifm train" not in capfd.readouterr().err
    row = next(line for line in table(words + " --probes 500", tmp_path).splitlines() if line.startswith("| equi"))
    nll, _, ess, log_z = row.split(" | ")[2:6]
    assert float(nll) == pytest.approx(figures["nll_all"], abs=0.1), (
        "the mean of an estimated trace is that of the exact"
    )
    assert ess == log_z == "—", "and its weights would be wrong"


def chains(copies: int) -> Batch:
    """60 straight chains of 12 points; each sequence, and the width of its steps, is shared by `copies` of them."""
    generator = torch.Generator().manual_seed(0)
    width = (3.8 + 0.1 * torch.randn(60 // copies, generator=generator)).repeat_interleave(copies)
    kinds = torch.randint(20, (60 // copies, 12), generator=generator).repeat_interleave(copies, 0)
    position = torch.arange(12).repeat(60)
    counts = torch.tensor([12, 11, 10]).repeat(20)
    keep = position < counts.repeat_interleave(12)
    x = width.repeat_interleave(12)[:, None] * position[:, None] * torch.tensor([[1.0, 0.0, 0.0]])
    x = x + 0.01 * torch.randn(720, 3, generator=generator)
    index = torch.arange(60).repeat_interleave(12)
    nodes = {"residue": kinds.reshape(-1)[keep], "position": position[keep]}
    return Batch(x[keep], index[keep], 60, nodes=nodes)


def test_the_spread_of_the_data_is_that_of_families():
    """The mean step has an error of 0.1/√60 if all chains differ, and √6 times that if six at a time are alike."""
    import protein_flow

    alone, alike = (protein_flow.spread(chains(copies))["neighbours, Å"] for copies in (1, 6))
    assert alone == pytest.approx(0.1 / 60**0.5, rel=0.3) and alike == pytest.approx(0.1 / 10**0.5, rel=0.4)


def test_the_verdict_counts_seeds_within_two_standard_deviations(tmp_path):
    import protein_flow

    for seed, size in enumerate((19.0, 20.9, 22.1)):
        figures = {
            "flow": 2.5, "stderr": 0.1, "prior": 3.02, "samples": {"size": size}, "data": {"size": 20.0},
            "compared": {"size": "W1"},
        }  # fmt: skip
        noisy = {"samples": {"size": size - 1}, "compared": {"size": "W1"}}
        kept = {"protein_flow_9": figures, "protein_spread_9": {"size": 0.5}, "protein_sde_9_150_4": noisy}
        finished(tmp_path / f"springs-late-{seed}", **kept)
    text = protein_flow.measured(["springs"], "late", 3, None, 9, tmp_path)
    assert "| springs: size | 20.00 ± 0.50 | 19.00, 20.90, 22.10 | 2 of 3 | 18.00, 19.90, 21.10 | 1 of 3 |" in text
    assert "| springs | 3.020 | 2.500 ± 0.000 | 0.100 | 10 |" in text
