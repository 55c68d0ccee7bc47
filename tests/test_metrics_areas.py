"""Areas of grid cells: the sphere is 4π whatever its grid, poles count a little, and order does not matter."""

import math

import numpy as np
import pytest
import torch

from scifm.data.grids import from_xarray
from scifm.metrics import area_mean, area_weights, cell_areas, latitude_weights

DOUBLE = torch.float64


def gaussian(n):
    x, w = np.polynomial.legendre.leggauss(n)
    return torch.from_numpy(np.rad2deg(np.arcsin(x))), torch.from_numpy(w)


GLOBES = {
    "poles": torch.linspace(90, -90, 61, dtype=DOUBLE),
    "without poles": torch.linspace(-88.75, 88.75, 72, dtype=DOUBLE),
    "gaussian": gaussian(64)[0],
    "uneven": torch.tensor([-85.0, -60.0, -10.0, 0.0, 15.0, 50.0, 80.0], dtype=DOUBLE),
}


@pytest.mark.parametrize("name", GLOBES)
@pytest.mark.parametrize(("start", "end", "step"), [(0, 360, 7.5), (-180, 180, 40.0), (359, -1, -1.0)])
def test_a_globe_has_the_area_of_a_sphere(name, start, end, step):
    areas = cell_areas(GLOBES[name], torch.arange(start, end, step))
    assert areas.dtype == DOUBLE and (areas > 0).all()
    assert float(areas.sum()) == pytest.approx(4 * math.pi, rel=1e-12)


@pytest.mark.parametrize("name", GLOBES)
def test_order_does_not_matter(name):
    latitude = GLOBES[name]
    order = torch.randperm(len(latitude), generator=torch.Generator().manual_seed(0))
    weights = latitude_weights(latitude)
    assert float(weights.mean()) == pytest.approx(1, abs=1e-12)
    torch.testing.assert_close(latitude_weights(latitude[order]), weights[order], rtol=1e-12, atol=0)
    torch.testing.assert_close(latitude_weights(-latitude), weights, rtol=1e-12, atol=0)


def test_a_cell_is_a_spherical_zone():
    """Archimedes: the part of a sphere between two parallels is as large as that of its cylinder."""
    weights = latitude_weights(torch.tensor([-90.0, -30.0, 30.0, 90.0]))
    zones = torch.tensor(
        [1 - math.sin(math.pi / 3), math.sin(math.pi / 3), math.sin(math.pi / 3), 1 - math.sin(math.pi / 3)]
    )
    torch.testing.assert_close(weights, (zones / zones.mean()).double(), rtol=1e-6, atol=0)
    assert float(weights.min()) > 0 and math.cos(math.pi / 2) < 1e-15  # what cos φ would say of a pole


def test_gaussian_grids_are_near_their_quadrature():
    latitude, quadrature = gaussian(64)
    weights = latitude_weights(latitude)
    assert float((weights / (quadrature / quadrature.mean()) - 1).abs()[1:-1].max()) < 2e-3


def test_a_regional_grid_ends_half_a_step_beyond_its_points():
    areas = cell_areas(torch.arange(75, 14, -2.5), torch.arange(200, 330.1, 2.5))
    band = math.sin(math.radians(76.25)) - math.sin(math.radians(13.75))
    assert float(areas.sum()) == pytest.approx(band * math.radians(132.5), rel=1e-12)
    across = cell_areas(torch.tensor([0.0, 1.0]), torch.tensor([178.0, 179.0, -180.0, -179.0]))  # over the date line
    assert float((across.std(1) / across.mean(1)).max()) < 1e-12
    assert float(cell_areas(torch.tensor([5.0]), torch.tensor([5.0])).sum()) == pytest.approx(2 * math.pi)


def test_the_door_holds_the_same():
    """What `GridSpec.area` holds of a file without areas of its own."""
    xr = pytest.importorskip("xarray")
    for latitude, longitude in (
        (GLOBES["poles"], torch.arange(0.0, 360, 3)),
        (GLOBES["gaussian"].flip(0), torch.arange(-180.0, 180, 2.8125)),
        (torch.arange(75.0, 14, -2.5), torch.arange(200.0, 330.1, 2.5)),
        (torch.arange(75.0, 14, -2.5), torch.linspace(0, 360, 37)),  # both ends: each cell of its own width
    ):
        coords = {"time": [0, 1], "lat": latitude.numpy(), "lon": longitude.numpy()}
        field = xr.DataArray(np.zeros((2, len(latitude), len(longitude)), "f4"), coords, ("time", "lat", "lon"), "t")
        area = torch.from_numpy(from_xarray(field)[1].area)
        torch.testing.assert_close(area, cell_areas(latitude, longitude), rtol=1e-9, atol=0)
        # by hand, between edges half-way to the neighbours
        phi, lam = latitude.double(), longitude.double()
        inner = ((phi[1:] + phi[:-1]) / 2).deg2rad().sin().diff().abs()
        torch.testing.assert_close(area[1:-1, 3], inner * (lam[1] - lam[0]).deg2rad(), rtol=1e-9, atol=0)


def test_uneven_longitudes_share_the_circle():
    widths = cell_areas(torch.tensor([0.0]), torch.tensor([0.0, 90.0, 100.0, 270.0]))[0].rad2deg()
    torch.testing.assert_close(widths, torch.tensor([90.0, 50.0, 90.0, 130.0], dtype=DOUBLE))


def test_given_areas_and_masks():
    areas = torch.rand(5, 7, generator=torch.Generator().manual_seed(0)) + 0.1
    mask = torch.rand(5, 7, generator=torch.Generator().manual_seed(1)) > 0.4
    areas[0, 0], mask[0, 0] = math.nan, True
    weights = area_weights(areas, mask)
    keep = mask & areas.isfinite()
    assert float(weights[keep].mean()) == pytest.approx(1, abs=1e-12) and (weights[~keep] == 0).all()
    values = torch.where(keep, torch.arange(35.0).reshape(5, 7), math.nan)
    wanted = np.average(np.arange(35.0).reshape(5, 7)[keep], weights=areas[keep])
    assert float(area_mean(values, weights)) == pytest.approx(float(wanted), rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_mean_is_over_the_dims_of_the_weights(dtype):
    values = torch.randn(3, 2, 4, 5, generator=torch.Generator().manual_seed(0), dtype=dtype)
    weights = latitude_weights(torch.tensor([60.0, 20.0, -20.0, -60.0]))[:, None]
    found = area_mean(values, weights)
    assert found.shape == (3, 2) and found.dtype == dtype
    wanted = (values.double() * weights).mean((-1, -2))  # the weights have mean 1
    torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(area_mean(values[1, 1], weights), found[1, 1])
    torch.testing.assert_close(area_mean(values), values.mean())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: latitude_weights(torch.tensor([0.0, 91.0])), r"\[-90, 90\], got 0 to 91"),
        (lambda: latitude_weights(torch.tensor([0.0, 0.0])), "each once"),
        (lambda: latitude_weights(torch.zeros(2, 2)), "curvilinear"),
        (lambda: latitude_weights(torch.tensor([])), "each once"),
        (lambda: latitude_weights(torch.tensor([math.nan, 1.0])), "finite"),
        (lambda: cell_areas(torch.tensor([0.0]), torch.tensor([0.0, 20.0, 10.0])), "order of the circle"),
        (lambda: cell_areas(torch.tensor([0.0]), torch.arange(0.0, 720.0, 50.0)), "once around"),
        (lambda: area_weights(torch.tensor([1.0, -1.0])), "not negative"),
        (lambda: area_weights(torch.ones(3), torch.zeros(3)), "0 above 0"),
        (lambda: area_mean(torch.ones(3, 4), torch.ones(3)), "fit the last dims"),
        (lambda: area_mean(torch.ones(3), torch.zeros(3)), "not all 0"),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
