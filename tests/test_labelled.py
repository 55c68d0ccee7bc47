"""Labelled samples of masked fields with several channels: the file's own form, a density of the ocean only."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import xarray as xr
from test_grids import air

from scifm import Batch, Flow, Recipe, Solver, networks, priors, verbs
from scifm.data import Data, grids
from scifm.data.channels import PerChannel
from scifm.data.transforms import Affine, Climatology, Standardise
from scifm.trace import Hutchinson


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def sea():
    """Two channels of other units with land, in a file that packs one of them."""
    source = air(n=12).assign_attrs(Conventions="COARDS", history="made by hand")
    source.air[:, 1, 3:] = np.nan
    source["psl"] = (("lon", "time", "lat"), np.random.default_rng(1).normal(1e5, 500, (5, 12, 3)), {"units": "Pa"})
    batch, spec = grids.from_xarray(source, ["air", "psl"])
    batch = batch.replace(batch.x.float())
    mask = torch.from_numpy(spec.mask)
    scale = PerChannel([Standardise(), Standardise()], mask).fit(batch)
    prior = priors.Masked(mask).fit(scale(batch))
    flow = Flow(networks.UNet(2, (8,)), prior, transform=scale)
    export = lambda b: grids.to_xarray(b, spec)  # noqa: E731
    parts = [batch.select(r) for r in (range(6), range(6, 8), range(8, 12))]
    return Recipe(flow, Data("sea", *parts, export=export)), spec, mask


def test_a_density_counts_the_ocean_only(sea):
    """An untrained flow is its prior; its density in the user's units is a normal one of the values in the mask."""
    recipe, _, mask = sea
    flow, test = recipe.flow, recipe.data.test
    assert flow.prior.dims(test).tolist() == [28.0] * 4 and int(mask.sum()) == 28
    scales = [t.std for t in flow.transform.transforms]
    means = [t.mean for t in flow.transform.transforms]
    law = torch.zeros(4, dtype=torch.float64)
    for c in range(2):
        x = test.x[:, c][:, mask[c]].double()
        s = flow.prior.std.flatten()[0] * scales[c]
        law += torch.distributions.Normal(means[c], s).log_prob(x).sum(1)
    found = flow.log_prob(test, Hutchinson(1), Solver("rk4", steps=4), gen())
    torch.testing.assert_close(found, law, rtol=1e-5, atol=1e-4)
    wild = test.replace(torch.where(mask, test.x, 77.0))  # what lies on land plays no part
    torch.testing.assert_close(flow.log_prob(wild, Hutchinson(1), Solver("rk4", steps=4), gen()), found)


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_samples_come_in_the_form_of_the_file(sea, tmp_path, suffix):
    if suffix == ".zarr":
        pytest.importorskip("zarr")
    recipe, spec, _ = sea

    def chunks():
        return verbs.chunks(recipe, 5, solver=Solver("rk4", steps=3), trace=Hutchinson(2), chunk=2)

    about = {"seed": 0, "run": "r", "solver": "rk4 3 steps", "tolerances": "", "trace": "hutchinson"}
    path = verbs.write_chunks(chunks, recipe.data, tmp_path / f"s{suffix}", about)
    found = grids.open_file(path)
    assert found.air.dims == ("realization", "lat", "lon") and found.psl.dims == ("lon", "realization", "lat")
    assert found.air.attrs["units"] == "K" and found.psl.attrs["units"] == "Pa" and found.psl.dtype == "f8"
    assert found.realization.attrs["standard_name"] == "realization" and found.attrs["Conventions"] == "CF-1.11"
    first, second = found.attrs["history"].splitlines()
    assert "run r, seed 0, solver rk4 3 steps, NFE 12 per sample" in first and second == "made by hand"
    assert np.isnan(found.air.values[:, 1, 3:]).all() and np.isfinite(found.psl.values).all()
    np.testing.assert_array_equal(found.time.values[:4], air(n=12).time.values[8:])
    attrs = found.log_prob.attrs
    assert attrs["units"] == "1" and attrs["long_name"].endswith("in nats") and attrs["degrees_of_freedom"] == 28
    assert attrs["bits_per_dim"] == pytest.approx(-float(found.log_prob.mean()) / 28 / math.log(2))
    again, _ = grids.from_xarray(found, ["air", "psl"], "realization")
    direct = recipe.flow.log_prob(again.replace(again.x.float()), Hutchinson(1), Solver("rk4", steps=3), gen())
    np.testing.assert_allclose(direct, found.log_prob.values, rtol=1e-4)
    with pytest.raises(FileExistsError, match="--overwrite"):
        verbs.write_chunks(chunks, recipe.data, path, about)
    verbs.write_chunks(chunks, recipe.data, path, {**about, "seed": 1}, overwrite=True)
    assert grids.open_file(path).attrs["scifm_seed"] == 1 and [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_store_never_replaces_another_folder(sea, tmp_path):
    folder = tmp_path / "mine.zarr"
    folder.mkdir()
    (folder / "notes.txt").write_text("keep me")
    with pytest.raises(ValueError, match="cannot be written: it is a folder"):
        verbs.output(folder, sea[0].data, overwrite=True)
    assert (folder / "notes.txt").exists()


# -- transforms per channel --------------------------------------------------------------------------------------


def test_channels_have_transforms_of_their_own():
    mask = torch.rand(3, 4, 5, generator=gen()) > 0.3
    each = [Affine(2.0, -3.0), Standardise("point"), Climatology(1, (0,), "point", year=360.0)]
    t = PerChannel(each, mask)
    x = torch.randn(40, 3, 4, 5, generator=gen(1), dtype=torch.float64) * 5 + 100
    data = Batch(torch.where(mask, x, 0), context={"time": torch.arange(40.0, dtype=torch.float64) * 10})
    t.fit(data)
    y = t(data)
    assert (y.x[:, ~mask] == 0).all()
    torch.testing.assert_close(t.inverse(y).x, data.x)
    inside = data.replace(data.x[:, 1].flatten(1)[:, mask[1].flatten()])
    torch.testing.assert_close(y.x[:, 1][:, mask[1]], Standardise("point").fit(inside)(inside).x)
    jacobian = torch.autograd.functional.jacobian(lambda v: t(data.select([3]).replace(v)).x, data.select([3]).x)
    size = mask.flatten()
    whole = jacobian.reshape(60, 60)[size][:, size]
    torch.testing.assert_close(t.log_det(data.select([3]))[0], torch.linalg.slogdet(whole)[1])
    fresh = PerChannel([Affine(2.0, -3.0), Standardise("point"), Climatology(1, (0,), "point", year=360.0)], mask)
    fresh.load_state_dict(t.state_dict())
    assert torch.equal(fresh(data).x, y.x)
    assert torch.allclose(t(data.select([7])).x, y.x[7:8])  # whoever else is in the batch


@pytest.mark.parametrize(
    ("act", "says"),
    [
        (lambda: PerChannel([Affine()], torch.ones(2, 3, 3, dtype=torch.bool)), "a row per transform, 1"),
        (lambda: PerChannel([Affine()], torch.ones(1, 3, 3)), "mask must be bool"),
        (lambda: PerChannel([]), "expected a Transform per channel"),
        (lambda: PerChannel([Affine()])(Batch(torch.zeros(2, 3, 4, 4))), "made for samples of 1 channels"),
    ],
)
def test_what_does_not_fit_is_refused(act, says):
    with pytest.raises((ValueError, TypeError), match=says):
        act()


def test_a_dataarray_that_an_export_gives_is_labelled_too(sea):
    from scifm import labelled

    data = sea[0].data
    one = Data(
        "one", data.train, data.valid, data.test, export=lambda b: xr.DataArray(b.x[:, 0].numpy(), dims=("n", "y", "x"))
    )
    found = labelled.dataset([verbs.Drawn(data.test, torch.zeros(4))], one, {})
    assert found.log_prob.dims == ("n",) and "samples" in found
