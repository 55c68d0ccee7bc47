"""Recipes of fields given other fields: what they expect is right, and they train, draw and score."""

import runpy

import pytest
import torch
import xarray as xr

from scifm import Batch, Solver, trace
from scifm.data.transforms import Climatology
from scifm.priors.spectral import Basis
from scifm.recipe import load_recipe
from scifm.train import train
from scifm.verbs import score

NEEDS = {
    "forecast": "ncep_air_temperature",
    "downscaling": "ncep_air_temperature",
    "darcy": "pde_neuralop_small",
    "burgers": "pde_neuralop_small",
    "global_temperature": "csm_trefht_t42_global",
}
QUICK = {"width": 4, "steps": 2, "batch_size": 2, "test_samples": 2}


@pytest.mark.parametrize("name", NEEDS)
def test_trains_draws_and_scores(name, scifm_data, tmp_path):
    scifm_data(NEEDS[name])
    made = load_recipe(name).build(QUICK)
    flow = train(made, tmp_path, progress=False)
    like = made.data.test.select([0, 0, 1])
    drawn = flow.sample(like, torch.Generator().manual_seed(0), Solver("rk4", steps=2))
    assert drawn.x.shape == like.x.shape and drawn.x.isfinite().all()
    back = made.data.export(drawn)
    assert isinstance(back, xr.Dataset)
    found = score(made, samples=2, trace=trace.Hutchinson(1), solver=Solver("rk4", steps=4))
    assert abs(found.value) < 100


@pytest.mark.parametrize("name", ["ncep_air", "global_temperature"])
def test_before_any_training_the_flow_is_its_prior(name, scifm_data):
    """The Gaussian part of the velocity is given, and from end to end it changes nothing."""
    scifm_data("ncep_air_temperature" if name == "ncep_air" else NEEDS[name])
    made = load_recipe(name).build({"width": 4})
    like = made.data.test.select([0, 7])
    drawn = made.flow.prior.sample(like, torch.Generator().manual_seed(0))
    fields = made.flow.transform.inverse(like.replace(drawn))
    found = made.flow.log_prob(fields, trace.Hutchinson(1), Solver("rk4", steps=8), torch.Generator().manual_seed(1))
    wanted = made.flow.prior.log_prob(drawn, like) + made.flow.transform.log_det(fields)
    torch.testing.assert_close(found, wanted.to(found), rtol=1e-3, atol=1.0)  # of thousands of nats
    again = made.flow.sample(like, x0=drawn, solver=Solver("rk4", steps=8))
    torch.testing.assert_close(again.x, fields.x, rtol=1e-4, atol=2e-3)


@pytest.mark.parametrize(("coupling", "told"), [("independent", True), ("ot", False)])
def test_pairs_that_disregard_the_season_are_for_networks_that_do(coupling, told, scifm_data):
    scifm_data("ncep_air_temperature")
    made = load_recipe("ncep_air").build({"width": 4, "coupling": coupling})
    assert bool(made.flow.velocity.velocity.conditions.year) is told


@pytest.mark.parametrize("name", ["forecast", "downscaling"])
def test_the_network_sees_what_is_given(name, scifm_data, tmp_path):
    """After a step of training, another condition gives another velocity."""
    scifm_data(NEEDS[name])
    made = load_recipe(name).build(QUICK | {"width": 8})
    flow = train(made, tmp_path, progress=False)
    batch = made.data.test.select([0])
    given = "expected" if name == "forecast" else "coarse"
    other = Batch(batch.x, context={**batch.context, given: batch.context[given] + 1})
    t = torch.tensor([0.5])
    assert not torch.equal(flow.velocity(t, batch.x - 280, batch), flow.velocity(t, batch.x - 280, other))


def test_forecast_expects_what_is_left_of_the_map_a_day_before(scifm_data):
    scifm_data("ncep_air_temperature")
    module = load_recipe("forecast")
    made = module.build(QUICK)
    source = load_recipe("ncep_air").build({}).data
    anomaly = Climatology(harmonics=3, per="global").fit(source.train)
    day = made.data.test.context["time"][5]
    before = source.test.select(source.test.context["time"] == day - 1)
    now = made.data.test.select([5])
    basis = Basis((25, 53), (False, False))
    ratio = basis.forward(now.context["expected"].double()) / basis.forward(anomaly(before).x.double())
    assert len(before) == 1 and (ratio > -1e-3).all() and (ratio < 1 + 1e-3).all()
    assert 0.5 < float(ratio[..., :3, :3].median()) < 1 and float(ratio[..., -10:, -10:].median()) < 0.5
    train_pairs = made.data.train
    error = (anomaly(train_pairs).x - train_pairs.context["expected"]).square().mean()
    assert float(error) < 0.8 * float(anomaly(train_pairs).x.square().mean())


def test_prior_of_a_forecast_is_centred_on_what_is_expected(scifm_data):
    scifm_data("ncep_air_temperature")
    made = load_recipe("forecast").build(QUICK)
    like = made.data.test.select([3] * 400)
    draws = made.flow.prior.sample(like, torch.Generator().manual_seed(0))
    spread = draws.std() / 400**0.5
    assert ((draws.mean(0) - like.context["expected"][0]).abs() < 6 * spread).all()


def test_damping_is_a_regression():
    module = runpy.run_path(str(load_recipe("forecast").path))
    g = torch.Generator().manual_seed(0)
    modes = torch.randn(5000, 1, 2, 2, generator=g)
    share = torch.tensor([[0.9, 0.5], [0.1, 0.0]])
    basis = Basis((2, 2), (False, False))
    before, now = (basis.inverse(a) for a in (modes, share * modes + 0.1 * torch.randn(modes.shape, generator=g)))
    left = module["damping"](now, before)
    torch.testing.assert_close(left[0], share.double(), atol=0.01, rtol=0)
    expected = module["expecting"](Batch(now, context={"previous": before}), left).context["expected"]
    torch.testing.assert_close(basis.forward(expected), (left * modes).float(), atol=1e-5, rtol=1e-5)


def test_downscaling_expects_the_averages(scifm_data):
    module = runpy.run_path(str(load_recipe("downscaling").path))
    x = torch.randn(3, 1, 25, 53, generator=torch.Generator().manual_seed(0))
    coarse = module["averages"](x, 5)
    assert coarse.shape == (3, 1, 5, 11)
    torch.testing.assert_close(coarse[:, :, 0, 0], x[:, :, :5, :5].mean((2, 3)))
    torch.testing.assert_close(coarse[:, :, 4, 10], x[:, :, 20:, 50:].mean((2, 3)))  # three columns only
    flat = module["coarsened"](Batch(x), torch.full_like(x, 2.5), 5).context["coarse"]
    torch.testing.assert_close(flat, torch.full_like(x, 2.5))
    for cell in (1, 26):
        with pytest.raises(ValueError, match="a cell of 2 to 25 points"):
            module["coarsened"](Batch(x), x, cell)
