"""Pictures of fields and scores: what is drawn is what was given; coasts come from a file here, or not at all."""

import math
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch

from scifm import figure, pictures
from scifm.bits import Estimate
from scifm.metrics import RankHistogram, SpreadSkill, radial_spectrum, zonal_spectrum
from scifm.pictures.coasts import FILE


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def drawn(made, folder):
    path = figure.save(made, folder / "x.png")
    assert path.read_bytes().startswith(b"\x89PNG")
    return made.axes


@pytest.fixture
def no_cartopy(monkeypatch):
    for name in ("cartopy", "cartopy.io", "cartopy.io.shapereader"):
        monkeypatch.setitem(sys.modules, name, None)  # imports fail


@pytest.fixture
def fake_cartopy(monkeypatch, tmp_path):
    """A cartopy that reads two lines from a file that must exist, and would not survive a download."""
    coast = types.SimpleNamespace(geom_type="LineString", coords=[(-10.0, 0.0), (20.0, 30.0)])
    island = types.SimpleNamespace(geom_type="LineString", coords=[(5.0, 5.0, 0.0), (6.0, 6.0, 0.0), (5.0, 5.0, 0.0)])

    class Reader:
        def __init__(self, path):
            assert Path(path).is_file()

        def geometries(self):
            return iter([coast, types.SimpleNamespace(geom_type="MultiLineString", geoms=[island])])

    def natural_earth(*args, **kwargs):
        raise AssertionError("cartopy was asked to fetch a file")

    package, io = types.ModuleType("cartopy"), types.ModuleType("cartopy.io")
    reader = types.ModuleType("cartopy.io.shapereader")
    package.config = {
        "pre_existing_data_dir": "",
        "data_dir": tmp_path / "user",
        "repo_data_dir": str(tmp_path / "repo"),
    }
    reader.Reader, reader.natural_earth = Reader, natural_earth
    package.io, io.shapereader = io, reader
    for name, module in (("cartopy", package), ("cartopy.io", io), ("cartopy.io.shapereader", reader)):
        monkeypatch.setitem(sys.modules, name, module)
    return tmp_path / "user" / FILE


# -- maps -----------------------------------------------------------------------------------------------------------


def test_maps_without_cartopy(no_cartopy, tmp_path):
    assert pictures.coastlines() == []
    x = normal(7, 5, 8)
    axes = drawn(pictures.panels(x, x[:3] + 1, torch.linspace(80, -80, 5), torch.arange(0.0, 360, 45), "K"), tmp_path)
    assert len(axes) == 7 and not axes[0].lines  # two rows of three, and the bar
    low, high = axes[0].get_ylim()
    assert low < -80 and high > 80  # north is up, though the file starts there
    first = axes[0].collections[0]
    assert np.array_equal(first.get_array().reshape(5, 8), x[0].numpy())
    assert first.get_clim() == axes[5].collections[0].get_clim()  # one scale
    assert axes[-1].get_ylabel() == "K" and axes[3].get_ylabel() == "samples"


def test_coasts_are_read_and_never_fetched(fake_cartopy, tmp_path):
    assert pictures.coastlines() == []  # cartopy is here, its file is not
    fake_cartopy.parent.mkdir(parents=True)
    fake_cartopy.write_bytes(b"")
    assert [line.shape for line in pictures.coastlines()] == [(2, 2), (3, 2)]
    x = normal(2, 5, 8)
    east = torch.tensor([350.0, 355.0, 0.0, 5.0, 10.0, 15.0, 20.0, 25.0])
    axes = drawn(pictures.panels(x, x, torch.linspace(-10, 40, 5), east), tmp_path)
    left, right = axes[0].get_xlim()
    assert 340 < left < 350 < 385 < right < 390  # goes on through 360
    inside = [line for line in axes[0].lines if ((line.get_xdata() > left) & (line.get_xdata() < right)).any()]
    assert len(inside) == 2 and len(axes[0].lines) == 6
    bare = drawn(pictures.panels(x, x), tmp_path)
    assert not bare[0].lines and bare[0].get_ylim()[0] > bare[0].get_ylim()[1]  # the first row on top


def test_masks_single_fields_and_stray_samples(no_cartopy, tmp_path):
    x = normal(1, 4, 6)
    x[0, :2] = math.nan
    wild = x.clone()
    wild[0, 3, 3] = 1e9
    axes = drawn(pictures.panels(x, wild), tmp_path)
    assert len(axes) == 3
    drawn(pictures.panels(torch.full((2, 3, 3), math.nan), torch.full((2, 3, 3), math.nan)), tmp_path)
    many = pictures.panels(normal(400, 4, 6).clamp(-9, 9), torch.cat([normal(9, 4, 6) * 1e-3]), columns=6)
    assert many.axes[0].collections[0].get_clim()[1] < 9


# -- scores ---------------------------------------------------------------------------------------------------------


def test_spectra_are_beside_those_of_data(tmp_path):
    x = normal(9, 1, 8, 10)
    data, ten = radial_spectrum(x), radial_spectrum(10 * x)
    top, low = drawn(pictures.spectra(data, {"one": data, "ten": ten}, "K"), tmp_path)
    assert top.get_ylabel() == "power per mode [K²]" and top.get_xscale() == top.get_yscale() == "log"
    assert [t.get_text() for t in top.get_legend().texts][2] == "ten (mean |log10 ratio| 2.000)"
    np.testing.assert_allclose(top.lines[0].get_ydata(), data.power[1:].numpy())
    np.testing.assert_allclose(low.lines[1].get_ydata(), 100)
    zonal = zonal_spectrum(x, torch.linspace(-70, 70, 8), [(-90, 0), (0, 90)])
    with pytest.raises(ValueError, match="bands one by one"):
        pictures.spectra(zonal, zonal)
    sphere = pictures.spectra(data, ten, "m/s", "degree").axes
    assert sphere[1].get_xlabel() == "degree l" and "[(m/s)²]" in sphere[0].get_ylabel()


def test_ranks_are_drawn_to_one(tmp_path):
    shares = torch.tensor([0.4, 0.1, 0.1, 0.4], dtype=torch.float64)
    (ax,) = drawn(pictures.rank_histogram(RankHistogram(shares, 100.0, 0.0)), tmp_path)
    np.testing.assert_allclose(ax.patches[0].get_data().values, 4 * shares.numpy())
    assert ax.get_legend() is None
    both = {"flow": RankHistogram(shares, 9.0, 0.0), "climatology": RankHistogram(shares.roll(1), 9.0, 0.0)}
    (ax,) = drawn(pictures.rank_histogram(both), tmp_path)
    assert [t.get_text() for t in ax.get_legend().texts] == list(both) and len(ax.patches) == 2


def test_spread_is_against_error(tmp_path):
    found = {"1 d": SpreadSkill(1.0, 2.0, 1.9, 0.53, 8), "5 d": SpreadSkill(3.0, 3.0, 2.8, 1.06, 8)}
    (ax,) = drawn(pictures.spread_skill(found, "K"), tmp_path)
    np.testing.assert_allclose(ax.lines[0].get_xdata(), [2, 3])
    np.testing.assert_allclose(ax.lines[0].get_ydata(), np.array([1, 3]) * math.sqrt(9 / 8))
    assert [t.get_text() for t in ax.texts] == ["1 d: 0.53", "5 d: 1.06"] and ax.get_ylabel() == "spread [K]"
    with pytest.raises(ValueError, match="at least one"):
        pictures.spread_skill({})


def test_the_ladder_has_the_best_on_top(tmp_path):
    scores = {"white": Estimate(2.1, 0.01), "flow": Estimate(-1.38, 0.03), "broken": Estimate(math.nan, 0.0)}
    scores["best Gaussian"] = Estimate(-1.2, math.nan)
    (ax,) = drawn(pictures.ladder(scores), tmp_path)
    assert [t.get_text() for t in ax.get_yticklabels()] == ["flow", "best Gaussian", "white"]
    assert [p.get_width() for p in ax.patches] == [-1.38, -1.2, 2.1] and ax.yaxis_inverted()
    assert ax.patches[0].get_facecolor() != ax.patches[1].get_facecolor()
    with pytest.raises(ValueError, match="finite scores"):
        pictures.ladder({})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: pictures.panels(x[:, None], x), "pick a channel"),
        (lambda x: pictures.panels(x, x[:0]), "one shape"),
        (lambda x: pictures.panels(x, x, torch.zeros(4)), "latitude .* and longitude"),
        (lambda x: pictures.panels(x, x, torch.zeros(6), torch.zeros(4)), "of the grid"),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(normal(2, 4, 6))
