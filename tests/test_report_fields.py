"""Figures and tables of fields in a report: what is drawn is what was measured, and beside the right fields."""

from __future__ import annotations

import math

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from scifm import Batch
from scifm.data import Data
from scifm.data.grids import from_xarray, to_xarray
from scifm.metrics import area_mean, area_weights, cell_areas, crps, spread_skill
from scifm.report import Labels, beside, is_field, members_of, read_labels, tables
from scifm.report.field_tables import distances, ensembles, values
from scifm.report.fields import draw_ensembles, draw_fields, few


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def drawn(data, samples, labels):
    """Figures by name, made and not saved."""
    made = {}
    draw_fields(lambda name, figure, *values: made.update({name: figure(*values)}), Batch(data), samples, labels)
    return made


# -- figures ---------------------------------------------------------------------------------------------------------


def test_the_spectrum_that_is_drawn_is_that_of_cosines_without_mean_and_corners():
    n, cycles = 32, 5
    wave = torch.cos(2 * torch.pi * cycles * (torch.arange(n, dtype=torch.float64) + 0.5) / n)  # a DCT mode
    real = wave.expand(3, 1, n, n) + 100.0  # the mean does not count
    found = drawn(real, 3 * normal(400, 1, n, n), Labels.plain((1, n, n), "K"))
    data, samples = found["spectrum.png"].axes[0].lines
    k, power = data.get_data()
    assert k.min() > 0 and k.max() <= 0.5 and np.all(np.diff(k) > 0)
    assert k[power.argmax()] == pytest.approx(cycles / n, abs=0.5 / n)
    assert np.delete(power, power.argmax()).max() < 1e-12 * power.max()
    assert samples.get_data()[1] == pytest.approx(9.0, rel=0.1)


@pytest.mark.parametrize(
    ("event", "names"),
    [
        ((1, 7, 12), {"samples.png", "spectrum.png", "zonal_spectrum.png", "degree_spectrum.png"}),
        (
            (2, 7, 12),
            {f"{n}-{c}.png" for n in ("samples", "spectrum", "zonal_spectrum", "degree_spectrum") for c in "ab"},
        ),
    ],
)
def test_a_globe_has_spectra_of_circles_and_degrees(event, names):
    latitude = torch.linspace(-90 + 90 / 7, 90 - 90 / 7, 7, dtype=torch.float64)
    labels = Labels(
        ("",) if event[0] == 1 else ("a", "b"), ("K",) * event[0], (False, True), latitude, torch.arange(0, 360, 30.0)
    )
    assert labels.circles and labels.globe
    found = drawn(normal(5, *event), normal(3, *event, seed=1), labels)
    assert set(found) == names
    belt = Labels(labels.names, labels.units, (False, True), latitude[2:5], labels.longitude)
    assert belt.circles and not belt.globe


def test_of_conditioned_fields_a_sample_stands_below_the_field_whose_conditions_it_has():
    x = torch.arange(6.0)[:, None, None, None].expand(6, 1, 5, 6)
    data, samples = Batch(x, context={"time": torch.arange(6.0)}), x + 100
    made = {}
    labels = Labels(("",), ("K",), (False, False), in_order=True)
    draw_fields(lambda name, figure, *v: made.update({name: figure(*v)}), data, samples, labels)
    maps = [np.asarray(c.get_array()) for ax in made["samples.png"].axes for c in [*ax.collections, *ax.images]]
    shown = [float(m.mean()) for m in maps if m.size == 30]
    assert len(shown) == 8 and np.allclose(np.array(shown[4:]) - np.array(shown[:4]), 100)


def test_ensembles_are_drawn_from_their_members():
    made = {}
    labels = Labels.plain((2, 4, 5), "K")
    draw_ensembles(lambda n, f, *v: made.update({n: f(*v)}), normal(4, 9, 2, 4, 5), normal(9, 2, 4, 5, seed=1), labels)
    assert set(made) == {"rank_histogram.png", "spread_skill-0.png", "spread_skill-1.png"}


def test_a_figure_looks_at_so_many_values_evenly_spaced():
    x = torch.arange(10.0)[:, None, None].expand(10, 1, 4)
    assert few(x, 100) is x
    assert few(x, 12)[:, 0, 0].tolist() == [0.0, 4.0, 9.0] and len(few(x, 1)) == 2


# -- beside what -----------------------------------------------------------------------------------------------------


def test_conditions_decide_what_samples_are_held_against():
    test = Batch(normal(5, 1, 4, 4), context={"time": torch.arange(5.0)})
    samples = Batch(normal(13, 1, 4, 4, seed=1))
    ordered, others = (Labels(("",), ("",), (False, False), in_order=yes) for yes in (True, False))
    assert torch.equal(beside(Batch(samples.x[:3]), test, ordered).x, test.x[:3])
    assert len(beside(samples, test, others)) == 5
    members, observed = members_of(samples, test, ordered)
    assert members.shape == (2, 5, 1, 4, 4) and torch.equal(observed, test.x)
    assert torch.equal(members[1, 2], samples.x[7])  # sample 5 + 2 has the conditions of test field 2
    assert members_of(samples, test, others) is None
    assert members_of(Batch(samples.x[:9]), test, ordered) is None  # one each, and a few more
    assert members_of(samples, Batch(test.x), ordered) is None  # nothing conditions them


@pytest.mark.parametrize(("event", "is_one"), [((1, 4), True), ((2, 4, 9), True), ((1, 3, 9), False), ((7,), False)])
def test_a_field_has_four_points_a_side(event, is_one):
    assert is_field(Batch(normal(2, *event))) is is_one


def test_labels_are_those_of_the_file(tmp_path):
    xr = pytest.importorskip("xarray")
    x = normal(6, 5, 8).numpy()
    x[:, 0, :3] = np.nan
    coords = {"lat": ("lat", np.linspace(-80, 80, 5), {"units": "degrees_north"})}
    coords |= {"lon": ("lon", np.arange(0, 360, 45.0), {"units": "degrees_east"})}
    file = xr.Dataset({"sst": (("time", "lat", "lon"), x, {"units": "K"})}, coords)
    batch, spec = from_xarray(file, "sst", "time")
    data = Data("sst", batch, batch, batch, export=lambda b: to_xarray(b, spec))
    labels = read_labels(None, data)
    assert labels.periodic == (False, True) and labels.units == ("K",) and labels.circles
    assert torch.equal(labels.latitude, torch.linspace(-80, 80, 5, dtype=torch.float64))
    assert torch.equal(labels.mask[0], torch.from_numpy(np.isfinite(x[0])))
    assert labels.weights_of(0)[0, :3].sum() == 0 and labels.weights_of(0)[2, 0] > labels.weights_of(0)[0, 5] > 0
    assert labels.channel(batch.x, 0)[:, 0, :3].isnan().all()
    gaps = labels.filled(batch.x, 0)
    assert (gaps[:, 0, :3] == 0).all() and gaps.mean(0).abs().max() < 1e-5  # what differs from the mean map
    for suffix, conditions, ordered in ((".nc", "test", True), (".nc", "train", False)):
        made = to_xarray(batch, spec).assign_attrs(scifm_conditions=conditions)
        made.to_netcdf(path := tmp_path / f"{conditions}{suffix}")
        assert read_labels(path, data).in_order is ordered


# -- tables ----------------------------------------------------------------------------------------------------------


def test_fields_of_twice_the_size_have_twice_the_spread_and_a_spectrum_off_by_log_4():
    data, train = normal(40, 1, 8, 8), normal(80, 1, 8, 8, seed=1)
    table = values(2 * data, data, train, Labels.plain((1, 8, 8), "K"))
    rows = {row[0]: [float(v) for v in row[1:]] for row in table.rows}
    own, twice = (rows[f"[K], {name}"] for name in ("test data", "samples"))
    assert twice[:5] == pytest.approx([2 * v for v in own[:5]], rel=2e-3)
    assert own[1] == pytest.approx(float(data.double().std(correction=0)), rel=1e-3)
    assert twice[5:] == pytest.approx([math.log10(4)] * 2, abs=1e-3)
    assert 0 < own[5] < 0.1 and rows["[K], training data"][5] < 0.15  # the floor, and another draw of the law


def test_moments_weigh_by_area_and_leave_the_land_out():
    x = torch.zeros(3, 1, 4, 6) + torch.tensor([1.0, 2.0, 3.0, 50.0])[:, None]
    mask = torch.ones(1, 4, 6, dtype=torch.bool)
    mask[:, 3] = False
    latitude = torch.tensor([0.0, 30.0, 60.0, 90.0])
    areas = area_weights(cell_areas(latitude, torch.arange(0, 360, 60.0)))
    labels = Labels(("",), ("",), (False, True), latitude, torch.arange(0, 360, 60.0), mask=mask, weights=areas)
    mean = float(values(x, x, x, labels).rows[0][1])
    w = areas[:3, :1].expand(3, 1)[:, 0]
    assert mean == pytest.approx(float((w * torch.tensor([1.0, 2.0, 3.0])).sum() / w.sum()), rel=1e-3)


def test_other_laws_are_further_away_than_their_floor_and_the_same_law_is_not():
    data, train, labels = normal(60, 1, 8, 8), normal(120, 1, 8, 8, seed=1), Labels.plain((1, 8, 8))
    far, near = (
        distances(x, data, train, labels) for x in (1.5 * normal(60, 1, 8, 8, seed=2), normal(60, 1, 8, 8, seed=3))
    )
    for other, same in zip(far.rows, near.rows, strict=True):
        assert float(other[1]) > 1.2 * float(same[1]) and float(same[1]) < 3 * float(same[2])


def test_the_table_of_ensembles_holds_what_the_metrics_say():
    members, observed = normal(5, 7, 2, 4, 6), normal(7, 2, 4, 6, seed=1)
    table = ensembles(members, observed, Labels.plain((2, 4, 6), "K"))
    for c, row in enumerate(table.rows):
        found = spread_skill(members[:, :, c], observed[:, c])
        score = area_mean(crps(members[:, :, c], observed[:, c], fair=True).double(), None).mean()
        assert [float(v) for v in row[1:]] == pytest.approx(
            [float(score), found.rmse, found.spread, found.ratio], rel=1e-3
        )
    assert "5 members for each of 7 test fields" in table.caption


@pytest.mark.parametrize("event", [(1, 8, 8), (3, 5, 9), (1, 11), (1, 4, 4, 5)])
def test_a_report_of_fields_has_tables_for_every_shape(event, capsys):
    data = Data("fields", Batch(normal(30, *event)), Batch(normal(9, *event)), Batch(normal(9, *event)), unit="K")
    found = tables(data, Batch(normal(4, *event, seed=5)))
    assert len(found) == 2 and capsys.readouterr().err == ""
    assert "Fields: 4 samples" in str(found[0]) and "Distances" in str(found[1])
    given = [Batch(b.x, context={"time": torch.arange(float(len(b)))}) for b in (data.train, data.valid, data.test)]
    told = Labels.plain(event, "K", in_order=True)
    found = tables(Data("fields", *given), Batch(normal(18, *event, seed=5)), told)
    assert len(found) == 3 and "2 members" in str(found[2])
