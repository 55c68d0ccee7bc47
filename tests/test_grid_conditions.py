"""What networks on grids are told besides x: every number is looked at, where it belongs, and misfits are refused."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from scifm import Batch, Flow, Solver, priors
from scifm.networks import FNO, DiT, GridConditions, UNet, coordinates

DOUBLE = torch.float64
GRID = (5, 8)
T = torch.tensor([0.2, 0.7], dtype=DOUBLE)
STATIC = torch.randn(2, *GRID, generator=torch.Generator().manual_seed(3))
NETWORKS = {
    "unet": lambda c: UNet(1, (8, 8), padding=("replicate", "circular"), stem=2, conditions=c),
    "fno": lambda c: FNO(1, 8, 3, 2, conditions=c),
    "dit": lambda c: DiT(1, 2, 16, 1, 2, conditions=c),
}
every = pytest.mark.parametrize("make", list(NETWORKS.values()), ids=list(NETWORKS))


def batch(**change: Tensor) -> Batch:
    g = torch.Generator().manual_seed(0)
    context = {
        "previous": torch.randn(2, 2, *GRID, generator=g, dtype=DOUBLE),
        "seen": torch.rand(2, 1, *GRID, generator=g) < 0.5,
        "label": torch.tensor([1, 0]),
        "heat": torch.randn(2, 2, generator=g),
        "time": torch.tensor([0.0, 20000.25], dtype=DOUBLE),
    }
    return Batch(torch.randn(2, 1, *GRID, generator=g, dtype=DOUBLE), context={**context, **change})


def all_of_it() -> GridConditions:
    return GridConditions({"previous": 2, "seen": 1}, {"label": 3, "heat": 2}, True, STATIC, 8)


def wake(network: nn.Module) -> nn.Module:
    torch.manual_seed(1)
    for p in network.parameters():
        nn.init.normal_(p, std=0.3)
    return network.double()


def test_numbers_of_a_sample_are_time_labels_and_season():
    conditions, data = all_of_it(), batch()
    found = conditions(T, data)
    assert found.dtype == DOUBLE and found.shape == (2, conditions.numbers) == (2, 8 + 3 + 2 + 4)
    torch.testing.assert_close(found[:, :8], conditions.waves(T))
    assert found[:, 8:11].tolist() == [[0, 1, 0], [1, 0, 0]]
    torch.testing.assert_close(found[:, 11:13], data.context["heat"].double())
    year = 2 * math.pi * 20000.25 / 365.2425
    season = [[0, 0, 1, 1], [math.sin(year), 1, math.cos(year), 0]]  # midnight of 1 January; six in the morning
    torch.testing.assert_close(found[:, 13:], torch.tensor(season, dtype=DOUBLE), rtol=0, atol=1e-9)


@pytest.mark.parametrize("year", [360, 365.0])
def test_a_calendar_of_equal_years_has_its_own_length(year):
    days = torch.tensor([0.0, 7 * year + year / 4], dtype=DOUBLE)
    found = GridConditions(calendar=year, time_width=8)(T, batch(time=days))[:, 8:]
    torch.testing.assert_close(found[:, 0], torch.tensor([0.0, 1.0], dtype=DOUBLE), rtol=0, atol=1e-9)
    assert GridConditions(calendar=True).year == 365.2425


def test_season_is_read_before_it_is_rounded():
    """In float32 there are minutes between two days of this century; in a float32 network the phase is still right."""
    days = torch.tensor([20000.0, 20000.001], dtype=DOUBLE)
    single = Batch(torch.zeros(2, 1, 2, 2), context={"time": days})
    found = GridConditions(calendar=True, time_width=8)(T.float(), single)[:, 8:]
    assert found.dtype == torch.float32 and 0.006 < found[1, 1] - found[0, 1] < 0.0064


def test_fields_go_beside_x_in_their_order_and_places_last():
    data = batch()
    found = torch.cat(all_of_it().double().beside(data.x, data), 1)
    assert found.dtype == DOUBLE and all_of_it().channels == found.shape[1] == 5
    wanted = [data.context["previous"], data.context["seen"].double(), STATIC.double().expand(2, -1, -1, -1)]
    assert torch.equal(found, torch.cat(wanted, 1))


@every
def test_without_conditions_checkpoints_keep_their_names(make):
    names = set(make(None).state_dict())
    assert "embed.1.weight" in names and not any("conditions" in name for name in names)
    assert make(None).embed[1].weight.shape == (64, 64)
    assert names == set(make(GridConditions()).state_dict())


@every
def test_places_are_kept_with_the_weights(make):
    net = wake(make(all_of_it()))
    other = make(GridConditions({"previous": 2, "seen": 1}, {"label": 3, "heat": 2}, True, 0 * STATIC, 8)).double()
    other.load_state_dict(net.state_dict())
    data = batch()
    assert torch.equal(net(T, data.x, data), other(T, data.x, data))
    assert not any(p is net.conditions.static for p in net.parameters())


@every
@pytest.mark.parametrize("name", ["previous", "seen", "label", "heat", "time"])
def test_each_condition_is_felt_by_its_own_sample(make, name):
    net, data = wake(make(all_of_it())), batch()
    value = data.context[name].clone()
    value[1] = ~value[1] if value.dtype == torch.bool else value[1] + 1.3 if value.is_floating_point() else 2
    change = (net(T, data.x, batch(**{name: value})) - net(T, data.x, data)).abs().flatten(1).amax(1)
    assert change[0] == 0 and change[1] > 1e-4


@every
def test_places_are_felt_by_all_samples(make):
    net, data = wake(make(all_of_it())), batch()
    before = net(T, data.x, data)
    net.conditions.static[0, 2, 3] += 1
    assert ((net(T, data.x, data) - before).abs().flatten(1).amax(1) > 1e-4).all()


@every
def test_derivatives_of_both_modes_pass_conditions(make):
    net, data = wake(make(all_of_it())), batch()
    g = torch.Generator().manual_seed(4)
    tangent, probe = (torch.randn(data.x.shape, generator=g, dtype=DOUBLE) for _ in range(2))
    _, forward = torch.func.jvp(lambda x: net(T, x, data), (data.x,), (tangent,))
    reverse = torch.func.vjp(lambda x: net(T, x, data), data.x)[1](probe)[0]
    torch.testing.assert_close((forward * probe).sum(), (reverse * tangent).sum(), rtol=1e-10, atol=1e-10)
    step = 1e-6 * tangent
    near = (net(T, data.x + step, data) - net(T, data.x - step, data)) / 2e-6
    torch.testing.assert_close(forward, near, rtol=1e-5, atol=1e-6)


def test_labels_weigh_as_much_as_time():
    torch.manual_seed(0)
    labels = GridConditions(context={"label": 30}).embedding()[1].weight[:, 64:]
    assert 0.9 < float(labels.detach().std()) < 1.1


def test_a_flow_carries_them_through_training_and_sampling():
    data, flow = batch(), Flow(wake(NETWORKS["fno"](all_of_it())), priors.Gaussian())
    loss = flow.loss(data, generator=torch.Generator().manual_seed(0))
    loss.sum().backward()
    assert all(p.grad is not None for p in flow.velocity.parameters())
    solver = Solver("euler", steps=2)
    drawn = flow.sample(data, generator=torch.Generator().manual_seed(0), solver=solver)
    other = flow.sample(batch(label=torch.tensor([1, 2])), generator=torch.Generator().manual_seed(0), solver=solver)
    change = (drawn.x - other.x).abs().flatten(1).amax(1)
    assert change[0] == 0 < change[1]


def test_coordinates_are_sines_and_cosines_of_degrees():
    lat, lon = torch.tensor([90.0, 0.0, -30.0]), torch.tensor([-90.0, 0.0, 60.0, 180.0])
    found = coordinates(lat, lon)
    assert found.shape == (4, 3, 4)
    root = math.sqrt(3) / 2
    torch.testing.assert_close(found[0, :, 1], torch.tensor([1, 0, -0.5]))
    torch.testing.assert_close(found[1, :, 2], torch.tensor([0, 1, root]), rtol=0, atol=1e-6)
    torch.testing.assert_close(found[2, 1], torch.tensor([-1, 0, root, 0]), rtol=0, atol=1e-6)
    torch.testing.assert_close(found[3, 1], torch.tensor([0, 1, 0.5, -1]), rtol=0, atol=1e-6)
    assert torch.equal(coordinates(lat, lon, circular=True), found[:2])
    curved = coordinates(lat[:, None].expand(3, 4), lon.expand(3, 4))
    assert torch.equal(curved, found)


BEFORE = torch.zeros(2, 2, 5, 9, dtype=DOUBLE)
REFUSED = [
    ({"fields": {"past": 2}}, {}, r"field context\['past'\] of shape \(2, 2, 5, 8\).*'previous': \(2, 2, 5, 8\)"),
    ({"fields": {"previous": 1}}, {}, r"of shape \(2, 1, 5, 8\), on the grid of x"),
    ({"fields": {"previous": 2}}, {"previous": BEFORE}, "Regrid it first"),
    ({"fields": {"previous": 1}}, {"previous": BEFORE[:, 0, :, :8]}, r"needs unsqueeze\(1\)"),
    ({"context": {"past": 2}}, {}, r"GridConditions: made for context\['past'\], which the batch does not carry"),
    ({"context": {"label": 1}}, {}, r"GridConditions: context\['label'\] must hold classes 0 to 0, got 0 to 1"),
    ({"context": {"heat": 3}}, {}, r"must hold 3 numbers each, got 2"),
    ({"calendar": True}, {"time": torch.zeros(2, 1)}, r"calendar needs context\[\"time\"\].*got \(2, 1\)"),
    ({"static": torch.zeros(1, 5, 9)}, {}, r"static is on the grid \(5, 9\), but x on \(5, 8\)"),
]


@every
@pytest.mark.parametrize(("asked", "change", "says"), REFUSED)
def test_batches_that_do_not_fit_are_refused(make, asked, change, says):
    net, data = make(GridConditions(**asked)).double(), batch(**change)
    with pytest.raises(ValueError, match=says):
        net(T, data.x, data)


def test_dates_that_are_missing_are_asked_for():
    data = Batch(batch().x)
    with pytest.raises(ValueError, match="got none. Make the network without calendar="):
        GridConditions(calendar=True)(T, data)
    with pytest.raises(ValueError, match="the batch has no context"):
        GridConditions({"previous": 1}).beside(data.x, data)


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"fields": {"a": 0}}, "fields must name whole numbers"),
        ({"context": {"a": 2.5}}, "context must name whole numbers"),
        ({"context": {"a": True}}, "context must name whole numbers"),
        ({"calendar": -1.0}, "calendar must be True, False or days of a year"),
        ({"calendar": math.inf}, "calendar must be"),
        ({"static": torch.full((1, 2, 2), math.nan)}, "static must be finite .* Fill what is missing"),
        ({"static": torch.zeros(1, 2, 2, dtype=torch.long)}, "static must be finite floating-point"),
        ({"static": torch.zeros(3)}, "static must be finite"),
        ({"time_width": 5}, "width must be even"),
    ],
)
def test_bad_constructor_arguments_are_named(asked, says):
    with pytest.raises(ValueError, match=says):
        GridConditions(**asked)


def test_coordinates_of_other_shapes_are_refused():
    with pytest.raises(ValueError, match="must be"):
        coordinates(torch.zeros(2, 2, 2), torch.zeros(2))
