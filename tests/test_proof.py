"""The numbers by which a flow is known again: small channels count as much as large ones, and masked places do not."""

import math

import numpy as np
import pytest
import torch
import xarray as xr

from scifm import Flow, Recipe, networks, priors, proof
from scifm.data import grids
from scifm.data.channels import PerChannel
from scifm.data.transforms import Affine


def recipe(tmp_path, humidity=1.0, height=1.0):
    """Heights of 5e4 and humidities of 5e-3, whose scales are plain numbers; a corner is missing."""
    if not (tmp_path / "two.nc").exists():
        g = np.random.default_rng(0)
        z, q = 5e4 + 300 * g.normal(size=(20, 6, 5)), 5e-3 + 1e-3 * g.normal(size=(20, 6, 5))
        z[:, :2, :2] = np.nan
        xr.Dataset({n: (("time", "y", "x"), v) for n, v in (("z", z), ("q", q))}).to_netcdf(tmp_path / "two.nc")
    data, spec = grids.read(tmp_path / "two.nc", ("z", "q"))
    each = [Affine(shift=-5e4, scale=height / 300), Affine(shift=-5e-3, scale=humidity / 1e-3)]
    mask = torch.from_numpy(spec.mask)
    velocity = networks.UNet(2, (4,)).to(data.train.x.dtype)
    return Recipe(Flow(velocity, priors.Masked(mask), transform=PerChannel(each, mask)), data, steps=1)


def test_the_numbers_say_what_they_are(tmp_path):
    z, q, density = proof.proof(recipe(tmp_path))
    assert len(z) == len(q) == 2 + proof.VALUES and len(density) == 1
    assert abs(z[0] - 5e4) < 300 and 100 < z[1] < 600 and 1e-4 < q[1] < 3e-3
    assert min(z[2:]) > 4e4, "no place of the mask"
    units = 0.5 * (math.log(1000) - math.log(300))  # per dimension, half of which are heights
    assert density[0] == pytest.approx(-0.5 * math.log(2 * math.pi) - 0.5 + units, abs=0.5)


def test_a_flow_agrees_with_itself_and_with_no_other(tmp_path):
    kept = proof.proof(recipe(tmp_path))
    assert proof.agrees(recipe(tmp_path), kept)
    for other in ({"humidity": 1.01}, {"height": 1.01}, {"humidity": 0.01}):
        assert not proof.agrees(recipe(tmp_path, **other), kept), other


def test_rounding_is_forgiven_and_nothing_else(tmp_path):
    made = recipe(tmp_path)
    kept = proof.proof(made)
    assert proof.agrees(made, [[v * (1 + 1e-7) for v in numbers] for numbers in kept])
    assert not proof.agrees(made, kept[:-1]) and not proof.agrees(made, [kept[0], kept[1], [kept[2][0] + 0.002]])
    assert not proof.agrees(made, [kept[0], [math.nan, *kept[1][1:]], kept[2]])
    assert not proof.agrees(made, [v for numbers in kept for v in numbers])  # as an earlier version wrote them
