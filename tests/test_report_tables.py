"""Tables of samples beside data: the ones that fit, with the numbers that a law gives, and bounded work."""

from __future__ import annotations

import math

import pytest
import torch

from scifm import Batch, tables
from scifm.data import Data
from scifm.energies import HarmonicCluster
from scifm.metrics import neighbour_distances, pair_distances
from scifm.report import tables as made_tables
from scifm.tables import Table, fitting


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def ragged(counts, seed=0, **nodes):
    index = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    return Batch(normal(sum(counts), 3, seed=seed), index, len(counts), nodes=nodes)


def chains(counts, seed=0):
    return ragged(counts, seed, position=torch.cat([torch.arange(n) for n in counts]))


def methanes(number, scale=1.0):
    """CH4 with its bonds, all distances multiplied by a number."""
    corners = 0.63 * torch.tensor([[0.0, 0, 0], [1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
    one = torch.tensor([[0, 0, 0, 0, 1, 2, 3, 4], [1, 2, 3, 4, 0, 0, 0, 0]])
    index = torch.arange(number).repeat_interleave(5)
    bonds = torch.cat([one + 5 * k for k in range(number)], 1)
    kind = {"bond": torch.zeros(8 * number, dtype=torch.long)}
    z = {"z": torch.tensor([6, 1, 1, 1, 1]).repeat(number)}
    return Batch(scale * corners.repeat(number, 1), index, number, nodes=z, edge_index=bonds, edges=kind)


def whole(name, test, train=None, **more):
    return Data(name, test if train is None else train, test, test, **more)


def row(table: Table, name: str) -> dict[str, str]:
    cells = next(r for r in table.rows if r[0].split(" [")[0] == name)
    return dict(zip(table.header, cells, strict=True))


def number(cell: str) -> float:
    return float(cell.split()[0])


KINDS = {
    "particles": (Batch(normal(4, 5, 3)), {"energy": HarmonicCluster()}, ["energies"]),
    "chains": (chains([5, 7, 6]), {}, ["structures"]),
    "molecules": (methanes(3), {}, ["structures", "molecules"]),
    "elements alone": (ragged([3, 4], z=torch.ones(7, dtype=torch.long)), {}, ["molecules"]),
    "clouds": (Batch(normal(4, 9, 2)), {}, ["clouds"]),
    "ragged clouds": (ragged([9, 7, 5]), {}, ["clouds"]),
    "points of the plane": (Batch(normal(4, 2)), {}, []),
    "a field of three": (Batch(normal(4, 3)), {}, []),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_tables_that_fit(kind, capsys):
    test, more, wanted = KINDS[kind]
    data = whole(kind, test, unit="Å", **more)
    found = fitting(test, data)
    assert list(found) == [f"the table of {name}" for name in wanted]
    made = made_tables(data, test)
    assert len(made) == len(wanted) and capsys.readouterr().err == ""
    for table in made:
        assert all(len(r) == len(table.header) for r in table.rows) and table.rows
        text = str(table).splitlines()
        assert text[0] == table.caption and text[2].count("|") == text[3].count("|") == len(table.header) + 1


def test_a_grid_has_no_tables_of_points():
    grid = Batch(normal(4, 1, 8, 8))
    assert fitting(grid, whole("a grid", grid)) == {}  # its own are in test_report_fields.py


def test_samples_of_another_shape_have_no_table_and_no_samples_none():
    data = whole("clouds", Batch(normal(4, 9, 3)))
    assert fitting(Batch(normal(4, 9, 2)), data) == {} and made_tables(data, None) == []


def test_what_is_twice_as_large_is_as_far_off_as_it_is_large():
    """W1 of 2X and X is E[X] where X is positive: their quantiles are 2q and q."""
    data = Batch(normal(40, 6, 3))
    more = Data("x", data, data, data, energy=HarmonicCluster(), unit="Å")
    table = fitting(data.replace(2 * data.x), more)["the table of energies"]()
    pairs, energy = row(table, "pair distance"), row(table, "energy")
    assert number(pairs["W1"]) == pytest.approx(float(pair_distances(data).mean()), rel=5e-3)
    assert number(energy["W1"]) == pytest.approx(3 * float(HarmonicCluster().of(data).mean()), rel=5e-3)  # (4 − 1) U
    assert number(pairs["samples"]) == pytest.approx(2 * number(pairs["data"]), rel=2e-3)
    assert pairs["training data"] == "0" and number(pairs["W1"]) > 5 * number(pairs["same law"])
    assert [r[0] for r in table.rows] == ["energy [kT]", "pair distance [Å]", "radius of gyration [Å]"]


def test_chains_are_looked_at_along_themselves_and_backbones_by_their_alpha_carbons():
    data, train = chains([9, 12, 30, 8]), chains([9, 12, 30, 8], 1)
    table = tables.structures(data.replace(2 * data.x), data, train, "nm")
    near = row(table, "neighbour distance")
    assert number(near["W1"]) == pytest.approx(float(neighbour_distances(data).mean()), rel=5e-3)
    assert row(table, "chain angle")["KS"] == "0.000" and "chain torsion [°]" in [r[0] for r in table.rows]
    assert number(near["training data"]) > 0
    atoms = torch.arange(4).repeat(59)
    position = torch.cat([torch.arange(n) for n in (9, 12, 30, 8)]).repeat_interleave(4)
    backbone = ragged([36, 48, 120, 32], position=position, atom=atoms)
    alpha = backbone.x[atoms == 1]
    found = tables.structures(backbone, backbone, backbone)
    assert row(found, "neighbour distance") == row(tables.structures(*[data.replace(alpha)] * 3), "neighbour distance")


def test_methane_is_a_molecule_and_stretched_it_is_none():
    table = tables.molecules(methanes(4, 1.5), methanes(3), methanes(2))
    for name in ("atom stable", "molecule stable", "connected", "valid", "bonds recovered"):
        assert row(table, name) == {"share": name, "samples": "0.0 %", "data": "100.0 %", "training data": "100.0 %"}
    assert row(table, "unique")["samples"] == "–"  # none is valid
    assert row(table, "unique")["data"] == "33.3 %"


def test_copies_of_the_data_cover_them_and_are_found_out():
    """1-NNA of copies is 0, not ½: the nearest neighbour of each cloud is its twin."""
    data = Batch(normal(12, 20, 3))
    table = tables.clouds(data, data, Batch(5 + normal(12, 20, 3, seed=1)), "m")
    copies, far = (dict(zip(table.header, r, strict=True)) for r in table.rows)
    assert copies == {"clouds": "samples", "MMD [m²]": "0", "coverage": "100.0 %", "1-NNA": "0.0 %"}
    assert far["clouds"] == "training data" and far["1-NNA"] == "100.0 %" and number(far["MMD [m²]"]) > 10


def test_the_work_is_bounded_and_the_caption_says_so(monkeypatch):
    monkeypatch.setattr(tables, "POINTS", 60)
    monkeypatch.setattr(tables, "PAIRS", 25)
    monkeypatch.setattr(tables, "EACH", 8)
    monkeypatch.setattr(tables, "DISTANCES", 2 * 8 * 8 * 25)
    data = chains([20, 20, 20, 20])
    assert "Structures: 3 samples beside the 3 of the test split" in tables.structures(data, data, data).caption
    five = Batch(normal(9, 5, 3))  # ten pairs each
    assert "Structures: 2 samples" in tables.particles(five, five, five, HarmonicCluster()).caption
    many = ragged([12] * 30)
    seen = []
    monkeypatch.setattr(tables, "cloud_scores", lambda a, b, found=tables.cloud_scores: seen.append(a) or found(a, b))
    assert "5 samples beside the 5" in tables.clouds(many, many, many).caption
    assert all(len(a) == 5 and a.counts.tolist() == [8] * 5 for a in seen)


def test_the_samples_stand_beside_those_whose_sizes_they_have(monkeypatch):
    """Sample k has the size of test sample k. Broken: evenly spaced test samples, whose sizes are others."""
    test = ragged([3, 4, 5, 6, 7, 8, 9, 10])
    samples = test.select(range(4))
    held = []
    monkeypatch.setattr(tables, "cloud_scores", lambda a, b, found=tables.cloud_scores: held.append(b) or found(a, b))
    fitting(samples, whole("clouds", test))["the table of clouds"]()
    assert all(b.counts.tolist() == [3, 4, 5, 6] for b in held) and len(held) == 2


def test_where_all_are_alike_they_stand_beside_the_whole_split(monkeypatch):
    """Frames of a trajectory: the first would be a moment. Broken: the first."""
    test = Batch(normal(40, 9, 3) + torch.arange(40.0)[:, None, None])
    held = []
    monkeypatch.setattr(tables, "cloud_scores", lambda a, b, found=tables.cloud_scores: held.append(b) or found(a, b))
    fitting(test.select(range(4)), whole("clouds", test))["the table of clouds"]()
    assert all(torch.equal(b.x.reshape(4, 9, 3), test.x[[0, 13, 26, 39]]) for b in held) and len(held) == 2


def test_the_figures_hold_samples_against_those_whose_conditions_they_have(tmp_path, monkeypatch):
    """Twelve samples of class 0 beside clouds of both classes. Broken: data evenly spaced over the test split."""
    from scifm import Flow, Recipe, networks, priors, report
    from scifm.commands.report import draw_report
    from scifm.disk import write_json
    from scifm.run import Run
    from scifm.samples import write_samples

    label = torch.tensor([0] * 20 + [1] * 20)
    data = whole("clouds", Batch(normal(40, 5, 3), context={"label": label}))
    write_json(tmp_path / "run.json", {"format": 1, "recipe": "toy", "flags": {}, "seed": 3, "versions": {}})
    write_samples(data.test.select(range(12)), data, tmp_path / "samples", {"seed": 1})
    shown = []
    monkeypatch.setattr(report, "figures", lambda run, data, *others: shown.append(data) or [])
    draw_report(Run.open(tmp_path), Recipe(Flow(networks.MLP((5, 3)), priors.Gaussian()), data))
    assert shown[0].context["label"].tolist() == [0] * 12
    alike = whole("clouds", Batch(normal(400, 5, 3)))
    draw_report(Run.open(tmp_path), Recipe(Flow(networks.MLP((5, 3)), priors.Gaussian()), alike))
    assert len(shown[1]) == 64 and torch.equal(shown[1].x[-1], alike.test.x[-1])


def test_odd_samples_spoil_no_report(capsys):
    test = ragged([4, 5, 6])
    x = test.x.clone()
    x[0] = math.nan
    assert made_tables(whole("clouds", test), test.replace(x)) == []
    assert "leaves out the table of clouds (ValueError: chamfer: expected finite points" in capsys.readouterr().err
    data = chains([9, 12])
    x = data.x.clone()
    x[3] = math.nan
    (table,) = made_tables(whole("chains", data), data.replace(x))
    assert "nan" not in str(row(table, "neighbour distance")["W1"]) and capsys.readouterr().err == ""
