"""Laws whose breaking no other test notices: each was found by changing a line of scifm and seeing all tests pass."""

import copy
import json
import math

import pytest
import torch
from torch import nn

from scifm import Batch, Flow, Recipe, Solver, couplings, networks, priors
from scifm.data import Data
from scifm.likelihood import bits_per_dim
from scifm.solve import integrate
from scifm.trace import Exact, Hutchinson
from scifm.train import train


class Still(nn.Module):
    def forward(self, t, x, batch):
        return torch.zeros_like(x)


def test_the_standard_error_is_neither_too_small_nor_too_large():
    """Over 40 data sets the error of the mean, in its own standard errors, has spread one."""
    flow = Flow(Still(), priors.Gaussian(std=3.0))
    truth = 0.5 * math.log2(2 * math.pi * math.e * 9)
    g = torch.Generator().manual_seed(0)
    z = []
    for _ in range(40):
        batch = Batch(3 * torch.randn(25, 4, generator=g, dtype=torch.float64))
        result = bits_per_dim(flow, batch, solver=Solver("rk4", steps=2), trace=Exact(), check=0)
        z.append((result.value - truth) / result.stderr)
    assert 0.8 < float(torch.tensor(z).std()) < 1.25
    assert 33 <= sum(abs(v) < 2 for v in z) <= 39


class OwnProbes(Hutchinson):
    """Probes from a source of their own, so that the noise of dequantisation stays what it is."""

    def draw(self, like, generator=None):
        return super().draw(like, self.__dict__["source"])


@pytest.mark.parametrize("draws", [1, 4])
def test_the_probes_error_holds_for_several_draws_too(draws):
    class Shear(nn.Module):
        def forward(self, t, x, batch):
            return 0.2 * (x.roll(1, -1) + 2 * x.roll(2, -1))

    flow = Flow(Shear(), priors.Gaussian())
    batch = Batch(torch.randn(10, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    values, claimed = [], []
    for seed in range(30):
        trace = OwnProbes(6)
        trace.__dict__["source"] = torch.Generator().manual_seed(seed)
        g = torch.Generator().manual_seed(0)
        settings = {"delta": 0.1, "draws": draws, "solver": Solver("rk4", steps=2), "check": 0}
        result = bits_per_dim(flow, batch, trace=trace, generator=g, **settings)
        values.append(result.value)
        claimed.append(result.probe_stderr)
    assert 0.7 < float(torch.tensor(values).std()) / (sum(claimed) / 30) < 1.4


class Drops(nn.Module):
    """Half of a hidden layer is left out at each call, while training."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.time = networks.SinusoidalTime(8)
        self.body = nn.Sequential(nn.Linear(10, 16), nn.SiLU(), nn.Dropout(0.5), nn.Linear(16, 2))

    def forward(self, t, x, batch):
        return self.body(torch.cat([x, self.time(t.to(x))], 1))


def recipe(steps=20):
    g = torch.Generator().manual_seed(0)
    data = Data("points", *(Batch(3 + 0.5 * torch.randn(n, 2, generator=g)) for n in (100, 30, 30)))
    numbers = {"batch_size": 16, "log_every": 5, "valid_every": 20, "checkpoint_every": 10, "warmup": 5}
    return Recipe(Flow(Drops(), priors.Gaussian()), data, steps=steps, valid_samples=30, **numbers)


class Dies:
    def log(self, metrics, step):
        if step >= 15:
            raise InterruptedError


def test_dropout_is_resumed_to_the_byte(tmp_path):
    train(recipe(), tmp_path / "whole", progress=False)
    with pytest.raises(InterruptedError):
        train(recipe(), tmp_path / "part", progress=False, tracker=Dies())
    torch.manual_seed(123)  # a new process knows nothing of the old one's state
    train(recipe(), tmp_path / "part", progress=False, resume=True)
    last = [sorted((tmp_path / name / "checkpoints").glob("step-*"))[-1] for name in ("whole", "part")]
    assert (last[0] / "state.safetensors").read_bytes() == (last[1] / "state.safetensors").read_bytes()


def test_averaged_weights_are_validated_and_returned_without_dropout(tmp_path):
    r = recipe()
    ema = train(r, tmp_path, progress=False)
    assert not any(m.training for m in ema.modules()) and r.flow.training
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    noted = [row["valid/loss"] for row in rows if "valid/loss" in row][-1]
    still = copy.deepcopy(ema).eval()
    with torch.no_grad():
        again = float(still.loss(r.data.valid, torch.Generator().manual_seed(0)).mean())
    assert abs(noted - again) < 1e-5 * abs(again)


def test_optimal_transport_is_exact_far_from_the_origin():
    """Kelvin or pascals in float32: uncentred products would round away every difference."""
    from scipy.optimize import linear_sum_assignment

    g = torch.Generator().manual_seed(0)
    x0, x1 = (1e5 + torch.randn(24, 3, generator=g) for _ in range(2))
    paired = couplings.OptimalTransport()(x0, Batch(x1)).double()
    cost = (x1.double()[:, None] - x0.double()[None]).square().sum(2)
    best = float(cost[linear_sum_assignment(cost.numpy())].sum())
    assert abs(float((paired - x1).square().sum()) / best - 1) < 1e-3


@pytest.mark.parametrize("copies", [1, 60])
def test_steps_do_not_depend_on_how_often_a_value_is_repeated(copies):
    """Tolerances hold per dimension, for the log-density too: D equal values take the steps of one."""

    def field(t, x, *_):
        return torch.zeros_like(x), (x.shape[1] * 30 * torch.cos(30 * t.double()))[:, None]

    x = torch.ones(1, copies, dtype=torch.float64)
    one = integrate(field, x[:, :1], 0, 1, Batch(x[:, :1]), Solver(rtol=1e-9, atol=1e-5))
    many = integrate(field, x, 0, 1, Batch(x), Solver(rtol=1e-9, atol=1e-5))
    assert int(many.accepted) == int(one.accepted) > 5 and int(many.rejected) == int(one.rejected)


def test_a_step_does_not_grow_right_after_a_refused_one():
    """Hairer, Nørsett and Wanner 1993, II.4: or the step jumps back onto what it was refused for."""
    times = []

    def field(t, x, *_):
        times.append(float(t))
        return torch.where(t[:, None] < 0.5137, 1.0, 5.0) * torch.ones_like(x), None

    x = torch.zeros(1, 1, dtype=torch.float64)
    solution = integrate(field, x, 0, 1, Batch(x), Solver("dopri5", rtol=1e-6, atol=1e-6))
    stages = torch.tensor(times[1:], dtype=torch.float64).reshape(-1, 6)  # of dopri5, at c = 1/5 ... 1
    length = (stages[:, -1] - stages[:, 0]) / (1 - 1 / 5)
    start = stages[:, -1] - length
    refused = torch.zeros(len(start), dtype=torch.bool)
    refused[:-1] = (start[1:] - start[:-1]).abs() < 1e-9
    assert int(refused.sum()) == int(solution.rejected) > 2
    after = [i for i in range(1, len(start) - 1) if refused[i - 1] and not refused[i]]
    assert all(length[i + 1] <= length[i] * (1 + 1e-9) for i in after)


def test_a_spectrum_that_no_real_field_can_have_is_symmetrised():
    def lopsided(k, power):
        return torch.linspace(1.0, 2.0, k.numel(), dtype=torch.float64).reshape(k.shape)

    prior = priors.SpectralGaussian((1, 6, 6), True, lopsided)
    z = Batch(torch.randn(3, 1, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    assert torch.allclose(prior.whiten(prior.colour(z.x, z), z), z.x, atol=1e-12)
