"""Pictures of sets of points: every kind of set gets those that fit it, with units, and odd samples spoil none."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from scifm import Batch, pictures
from scifm.data import Data
from scifm.disk import write_json
from scifm.energies import LennardJones
from scifm.figure import DATA, FLOW
from scifm.geometry import radius_graph
from scifm.report import figures, read_batch
from scifm.run import Run
from scifm.samples import write_samples

PNG = b"\x89PNG"
PLAIN = {"samples.png", "pair_distances.png", "gyration.png"}


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def sets(counts, d=3, seed=0, **nodes):
    index = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    return Batch(normal(sum(counts), d, seed=seed), index, len(counts), nodes=nodes)


def chains(counts, seed=0):
    position = torch.cat([torch.arange(n) for n in counts])
    return sets(counts, 3, seed, position=position)


def backbones(counts, seed=0):
    position = torch.cat([torch.arange(n).repeat_interleave(4) for n in counts])
    return sets([4 * n for n in counts], 3, seed, position=position, atom=torch.arange(4).repeat(sum(counts)))


def molecules(counts, seed=0):
    batch = sets(counts, 3, seed)
    return Batch(batch.x, batch.index, batch.size, edge_index=radius_graph(batch, 1.5))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    write_json(tmp_path / "run.json", {"format": 1, "recipe": "toy", "flags": {}, "seed": 3, "versions": {}})
    return Run.open(tmp_path)


KINDS = {
    "dense plane": (Batch(normal(3, 4, 2)), Batch(normal(2, 4, 2, seed=1)), PLAIN),
    "dense space": (Batch(normal(3, 5, 3)), Batch(normal(2, 5, 3, seed=1)), PLAIN),
    "one point each": (Batch(normal(2, 1, 3)), Batch(normal(2, 1, 3, seed=1)), {"samples.png"}),
    "ragged plane": (sets([4, 5, 6, 9], 2), sets([4, 5, 0, 9, 1], 2, 1), PLAIN),
    "two sizes": (sets([4, 5]), sets([5, 4], seed=1), PLAIN),
    "one sample": (sets([6]), sets([6], seed=1), PLAIN),
    "chains": (chains([9, 12, 30]), chains([9, 12, 30], 1), PLAIN | {"chain.png"}),
    "backbones": (backbones([9, 12]), backbones([9], 1), PLAIN | {"chain.png", "ramachandran.png"}),
    "molecules": (molecules([7, 12]), molecules([7, 9], 1), PLAIN | {"bonds.png"}),
    "large clouds": (sets([3500, 3000]), sets([3500, 3000], seed=1), PLAIN),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_set_gets_its_pictures(run: Run, kind: str, monkeypatch, capsys) -> None:
    monkeypatch.setattr(pictures.points, "PAIRS", 300_000)
    data, samples, wanted = KINDS[kind]
    made = figures(run, data, samples, "Å")
    assert {p.name for p in made} == wanted
    assert all(p.read_bytes().startswith(PNG) for p in made)
    said = capsys.readouterr().err
    assert (said == "") == (kind != "one point each")  # there is no pair, and it says so


def test_a_known_energy_is_drawn_and_arrays_of_dense_sets_do(run: Run) -> None:
    x = 0.9 * normal(2, 13, 3)
    made = figures(run, Batch(x), (2 * x).numpy(), "", LennardJones(each_pair=2))
    assert {p.name for p in made} == PLAIN | {"energies.png"}


def test_rows_without_their_sizes_are_only_counted(run: Run) -> None:
    data = sets([4, 5], 3)
    assert [p.name for p in figures(run, data, data.x.numpy())] == ["samples.png"]


def test_samples_that_went_astray_spoil_no_picture(run: Run, capsys) -> None:
    data = chains([9, 12])
    x = data.x.clone()
    x[3] = 1e12
    x[15:] = math.nan
    made = figures(run, data, data.replace(x), "Å")
    assert {p.name for p in made} == PLAIN | {"chain.png"} and capsys.readouterr().err == ""
    made = figures(run, Batch(torch.ones(3, 4, 3)), Batch(torch.ones(3, 4, 3)), "Å")  # all in one place
    assert "samples.png" in {p.name for p in made}


def test_axes_have_units_and_colours_mean_what_they_mean_elsewhere() -> None:
    data, samples = chains([9, 12, 30]), chains([9, 12, 30], 1)
    (ax,) = pictures.pair_functions(data, samples, "Å").axes
    assert ax.get_xlabel() == "pair distance [Å]" and ax.get_ylabel() == "density [1/Å]"
    assert [line.get_color() for line in ax.lines] == [DATA, FLOW]
    (ax,) = pictures.gyration(data, samples, "Å").axes
    assert ax.get_ylabel() == "radius of gyration [Å]" and "n^(" in ax.get_legend().get_texts()[0].get_text()
    assert pictures.chain(data, samples, "Å").axes[0].get_xlabel() == "distance of neighbours [Å]"
    assert pictures.chain(data, samples, "Å").axes[1].get_ylabel() == "torsion [°]"
    (ax,) = pictures.energies(torch.randn(9), torch.randn(9), torch.zeros(9), "kT").axes
    assert ax.get_xlabel() == "energy [kT]" and len(ax.get_legend().get_texts()) == 3
    (ax,) = pictures.pair_functions(data, samples).axes
    assert ax.get_xlabel() == "pair distance"
    clouds = pictures.clouds(data, samples, "Å").axes
    assert len(clouds) == 6 and all(a.name == "3d" for a in clouds) and clouds[0].get_title("left") == "data [Å]"
    assert {a.name for a in pictures.clouds(Batch(normal(2, 5, 2)), Batch(normal(2, 5, 2))).axes} == {"rectilinear"}


def test_chains_and_bonds_are_lines() -> None:
    data = chains([9])
    first = pictures.clouds(data, data).axes[0]
    assert len(first.lines) == 1 and len(first.lines[0].get_data_3d()[0]) == 3 * 8  # two ends and a break each
    bare = pictures.clouds(sets([9]), sets([9])).axes[0]
    assert len(bare.lines) == 0
    bonds = molecules([9])
    count = int((bonds.edge_index[0] < bonds.edge_index[1]).sum())
    assert len(pictures.clouds(bonds, bonds).axes[0].lines[0].get_data_3d()[0]) == 3 * count


def test_reweighted_energies_are_those_of_the_weights() -> None:
    energy = torch.linspace(-1, 1, 400)
    weights = torch.where(energy > 0, 0.0, -100.0)
    (ax,) = pictures.energies(energy, energy, weights).axes
    edges, shares = ax.patches[2].get_xy()[:, 0], ax.patches[2].get_xy()[:, 1]
    assert shares[edges < -0.1].max() < 1e-9 and shares[edges > 0.1].max() > 0.01


def test_axes_of_less_than_a_decade_have_numbers() -> None:
    """Chains of 202 to 245 residues had one number on each axis: nothing can be read off that."""
    ax = pictures.gyration(chains([202, 214, 245]), chains([202, 214, 245], 1), "Å").axes[0]
    for axis, (low, high) in ((ax.xaxis, ax.get_xlim()), (ax.yaxis, ax.get_ylim())):
        ticks = [float(label.get_text()) for label in axis.get_ticklabels()]
        assert 3 <= sum(low <= t <= high for t in ticks) == len(ticks) <= 8
    for low in torch.logspace(0, 1, 50).tolist():
        for factor in (1.01, 1.2, 1.5, 3.0, 10.0, 100.0):
            assert 3 <= len(pictures.points._ticks(low, factor * low)) <= 8, (low, factor)


def test_what_a_picture_leaves_out_is_said() -> None:
    """Energies of an untrained LJ13 are 1e8 kT: their picture was empty, and did not say why."""
    data = torch.linspace(-1, 1, 400)
    samples = torch.cat([torch.zeros(2), torch.full((5,), 1e8), torch.tensor([math.inf])])
    (ax,) = pictures.energies(data, samples, torch.tensor([0.0] * 2 + [-100.0] * 6), "kT").axes
    told = [text.get_text() for text in ax.get_legend().get_texts()]
    assert told == ["data", "samples (75 % outside)", "samples, reweighted"]
    assert ax.patches[1].get_xy()[:, 1].max() == pytest.approx(2 / 8)
    (ax,) = pictures.energies(torch.ones(3), torch.tensor([1.0, 5.0]), None, "kT").axes  # one value, no range of data
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["data", "samples"]
    sharp = chains([30])
    sharp = sharp.replace(sharp.x * torch.tensor([1.0, 0.0, 0.0]))  # on a line, half of its angles are 0°
    told = [ax.get_title() for ax in pictures.chain(chains([30]), sharp).axes[1:3]]
    assert all("% outside)" in name for name in told)


@pytest.mark.parametrize("kind", ["dense space", "ragged plane", "molecules", "backbones"])
def test_samples_come_back_from_their_file_with_all_that_belongs_to_them(tmp_path: Path, kind: str) -> None:
    data, samples, _ = KINDS[kind]
    path = write_samples(samples, Data("toy", data, data, data), tmp_path / "samples", {"seed": 1})
    again = read_batch(path, data)
    assert torch.equal(again.x, samples.x) and torch.equal(again.counts, samples.counts)
    assert again.dense == samples.dense and set(again.nodes) == set(samples.nodes)
    for name in again.nodes:
        assert torch.equal(again.nodes[name], samples.nodes[name])
    if kind == "molecules":
        assert torch.equal(again.edge_index, samples.edge_index)


def test_ragged_samples_in_another_form_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not tell which rows make a set"):
        read_batch(tmp_path / "samples.nc", sets([3]))


RECIPE = """
import torch
from scifm import Batch, Flow, Recipe, networks, priors
from scifm.data import Data

def recipe():
    def split(seed):
        counts = torch.tensor([4, 6, 5, 9, 7, 8])
        g = torch.Generator().manual_seed(seed)
        index = torch.arange(6).repeat_interleave(counts)
        return Batch(torch.randn(39, 3, generator=g), index, 6, nodes={"position": torch.arange(39)})
    flow = Flow(networks.PointNet(3, hidden=(8,)), priors.Gaussian())
    return Recipe(flow, Data("chains", *map(split, range(3)), unit="nm"), steps=2, test_samples=4)
"""


def test_a_run_of_point_data_reports_them_and_logs_what_it_drew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from scifm.cli import main
    from scifm.track import Nothing

    logged: list[str] = []
    monkeypatch.setattr(Nothing, "artifact", lambda self, path: logged.append(path.name))
    monkeypatch.chdir(tmp_path)
    Path("chains.py").write_text(RECIPE)
    assert main(["train", "chains.py", "--track", "none", "--out", "run"]) == 0
    wanted = PLAIN | {"chain.png"}
    assert wanted <= {p.name for p in Path("run/figures").iterdir()}
    page = Path("run/report.md").read_text()
    assert all(f"figures/{name}" in page for name in wanted)
    assert wanted <= set(logged)
