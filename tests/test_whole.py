"""What a score says of whole samples: nats beside the floor of a known law, and what sizes cost."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from scifm import Batch, Flow, networks, priors
from scifm.bits import Estimate
from scifm.cli import main
from scifm.data import Data
from scifm.energies import DoubleWell, Energy, HarmonicCluster, LennardJones
from scifm.trace import Exact
from scifm.whole import Whole, whole

LAW = HarmonicCluster(spring=4.0)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def ragged(counts):
    return Batch(
        torch.zeros(sum(counts), 3), torch.arange(len(counts)).repeat_interleave(torch.tensor(counts)), len(counts)
    )


def scored(like, energy=None, prior=None, train=None, delta=None, **more):
    """Samples of a mean-free Gaussian scored by an untrained flow, which is its prior."""
    law = priors.MeanFreeGaussian(0.5)
    data = like.replace(law.sample(like, seeded()))
    prior = law if prior is None else prior
    flow = Flow(networks.MLP(like.event) if like.dense else networks.PointNet(3, hidden=(4,)), prior)
    bits = flow.bits_per_dim(data, trace=Exact(), check=0, delta=delta)
    return whole(prior, Data("x", data if train is None else train, data, data, energy=energy, **more), data, bits)


def test_a_flow_that_is_the_law_is_at_its_floor():
    """−log q = U + log Z for each sample where q = exp(−U)/Z, so both means agree, with their noise."""
    found = scored(Batch(torch.zeros(50, 4, 2)), LAW, unit="Å")
    assert found.floor.value == pytest.approx(found.nats.value, abs=1e-5)
    assert found.floor.stderr == pytest.approx(found.nats.stderr, abs=1e-5)
    assert found.log_z == Estimate(pytest.approx(3 * math.log(2 * math.pi / 4)), 0.0)
    nats, floor = found.lines()
    assert "every constant included" in nats and "6 dimensions (a subspace of 8), coordinates in Å" in nats
    assert floor == f"floor {found.floor} nats per sample: mean U/T of these samples + log Z, {found.log_z}"
    told = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert told["nats"]["dims"] == 6 and told["floor"]["value"] == found.floor.value and told["given"] == []
    assert set(told) == {"nats", "floor", "log_z", "given"}


def test_no_floor_where_the_density_is_on_another_space_or_log_z_is_unknown():
    like = Batch(torch.zeros(8, 4, 2))
    free = scored(like, LAW, priors.Gaussian(0.5))
    assert free.nats.dims == 8 and free.floor is None and len(free.lines()) == 1
    assert scored(like, DoubleWell(d0=3.0)).floor is None and scored(like, DoubleWell()).floor is not None
    assert scored(like) == Whole() and Whole().lines() == []


def test_bins_have_no_nats():
    like = Batch(torch.zeros(4, 5))
    data = Data("x", like, like, like, delta=1.0, energy=LAW)
    bits = Flow(networks.MLP(5), priors.Gaussian()).bits_per_dim(like, delta=1.0, trace=Exact(), check=0)
    assert whole(priors.Gaussian(), data, like, bits) == Whole()


def test_sizes_that_differ_are_given_and_cost_the_entropy_of_their_law():
    sets = ragged([3] * 40 + [60] * 40)
    found = scored(sets)
    assert found.given == ("sizes",) and found.nats is None
    assert found.sizes.value == pytest.approx(math.log(2), abs=0.05)  # two sizes, equally often; the kernel spreads
    (line,) = found.lines()
    assert line == f"given the sizes: the number of points has no part in the likelihood; sizes: {found.sizes} " + (
        "nats per sample, not included"
    )
    assert json.loads(json.dumps(found.to_dict()))["given"] == ["sizes"] and " | " not in line
    same = scored(ragged([4, 4, 4]))
    assert same == Whole()


def test_one_size_scored_of_data_of_several_has_the_share_of_that_size(monkeypatch):
    train = ragged([3] * 30 + [50] * 10)
    found = scored(ragged([3, 3]), train=train)
    assert found.sizes.value == pytest.approx(-math.log(0.75), abs=0.05)
    monkeypatch.setattr("scifm.whole.LARGEST", 49)  # the law's matrix would be too large
    none = scored(ragged([3, 3]), train=train)
    assert none.given == ("sizes",) and none.sizes is None
    assert none.lines() == ["given the sizes: the number of points has no part in the likelihood"]


def test_energies_of_several_sizes_have_nats_and_no_floor():
    found = scored(ragged([3, 5, 4]), LAW)
    assert found.nats.dims == 9 and found.floor is None and found.sizes is not None and len(found.lines()) == 2


def test_known_constants_are_those_of_the_energy_they_were_found_for():
    assert DoubleWell().known_log_z(4, 2) == Estimate(29.66, 0.01)
    assert DoubleWell().known_log_z(5, 2) is None and DoubleWell(temperature=2.0).known_log_z(4, 2) is None
    assert LennardJones(each_pair=2).known_log_z(13, 3) == Estimate(59.89, 0.03)
    assert LennardJones(each_pair=1).known_log_z(13, 3) is None is LennardJones(each_pair=2).known_log_z(55, 3)
    energy = HarmonicCluster(spring=2.0, temperature=0.5)
    assert energy.known_log_z(7, 3).value == pytest.approx(float(energy.log_z(Batch(torch.zeros(1, 7, 3)))), rel=1e-6)

    class Odd(Energy):
        def potential(self, x, mask=None):
            return x.sum((-1, -2))

    assert Odd().known_log_z(2, 2) is None


RECIPE = """
import torch
from scifm import Batch, Flow, Recipe, networks, priors
from scifm.data import Data
from scifm.energies import HarmonicCluster

def recipe(*, sizes: bool = False):
    def split(seed):
        like = Batch(torch.zeros(12, 4, 2))
        if sizes:
            counts = torch.tensor([3, 5] * 6)
            like = Batch(torch.zeros(48, 2), torch.arange(12).repeat_interleave(counts), 12)
        return like.replace(priors.MeanFreeGaussian().sample(like, torch.Generator().manual_seed(seed)))
    flow = Flow(networks.EGNN(2, 4, 1), priors.MeanFreeGaussian())
    return Recipe(flow, Data("springs", *map(split, range(3)), energy=HarmonicCluster()), steps=2, test_samples=5)
"""


@pytest.mark.parametrize("sizes", [False, True])
def test_training_and_scoring_say_it_and_the_report_repeats_it(tmp_path: Path, monkeypatch, capsys, sizes) -> None:
    monkeypatch.chdir(tmp_path)
    Path("springs.py").write_text(RECIPE)
    flag = ["--sizes"] if sizes else []
    assert main(["train", "springs.py", *flag, "--track", "none", "--out", "run", "--threads", "1"]) == 0
    printed = capsys.readouterr().out
    score, page = json.loads(Path("run/score.json").read_text()), Path("run/report.md").read_text()
    last = "  given the sizes: " if sizes else "  floor "
    assert sum(row.startswith(last) for row in printed.splitlines()) == 1
    assert "every constant included (5 samples)" in printed and "every constant included (5 samples)." in page
    assert ("floor" in score) != ("sizes" in score) == sizes and score["nats"]["samples"] == 5
    told = score["line"].split(" | ")[-1]
    assert f"\n{told}.\n" in page and told.startswith(last.strip())
    assert not any(f"\n{name} " in page for name in score["baselines"])  # they are in their table
    assert "## Samples beside data" in page and "| energy [kT] |" in page
    assert main(["score", "run", "-o", "again.json", "--threads", "1", "--seed", str(_seed())]) == 0
    out, again = capsys.readouterr().out, json.loads(Path("again.json").read_text())
    assert out == again["line"].replace(" | ", "\n  ") + "\n" and again["nats"] == score["nats"]


def _seed() -> int:
    return json.loads(Path("run/run.json").read_text())["seed"]
