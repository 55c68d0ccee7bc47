"""Bits per dimension against what they must be: known discrete laws, closed forms, honest errors."""

import math

import pytest
import torch
from torch import nn

from scifm import Batch, Flow, Solver
from scifm.baselines import baselines
from scifm.data import transforms
from scifm.likelihood import bits_per_dim, dequantise
from scifm.priors import Gaussian, Prior, SpectralGaussian, spectra
from scifm.trace import Exact, Hutchinson


class Still(nn.Module):
    """A velocity that moves nothing: the flow is its prior."""

    def forward(self, t, x, batch):
        return torch.zeros_like(x)


class Pushed(Prior):
    """Uniform on [low, high) in the user's units, seen through a transform: the density of T(U)."""

    def __init__(self, transform, low=-0.5, high=255.5):
        super().__init__()
        self.transform, self.low, self.high = transform, low, high

    def sample(self, like, generator=None):
        uniform = torch.rand(like.x.shape, generator=generator, dtype=like.x.dtype)
        return self.transform(like.replace(self.low + (self.high - self.low) * uniform)).x

    def log_prob(self, x, like):
        user = self.transform.inverse(like.replace(x))
        inside = (user.x >= self.low - 1e-6) & (user.x <= self.high + 1e-6)
        assert inside.all()
        with torch.enable_grad():  # not by log_det, whose faults would cancel
            u = user.x.detach().requires_grad_()
            (slope,) = torch.autograd.grad(self.transform(user.replace(u)).x.sum(), u)
        return -math.log(self.high - self.low) * like.dims - like.total(slope.abs().log())


def levels(layout, dtype=torch.float64):
    g = torch.Generator().manual_seed(0)
    if layout == "ragged":
        index = torch.tensor([0, 0, 0, 1, 2, 2])
        return Batch(torch.randint(0, 256, (6, 2), generator=g).to(dtype), index, 3)
    return Batch(torch.randint(0, 256, (6, 2, 3, 4), generator=g).to(dtype))


TRANSFORMS = {
    "identity": lambda b: transforms.Identity(),
    "affine": lambda b: transforms.Affine(shift=-127.5, scale=1 / 128),
    "standardise global": lambda b: transforms.Standardise(per="global").fit(b),
    "standardise per channel": lambda b: transforms.Standardise(per="channel").fit(b),
    "logit": lambda b: transforms.Logit(-0.5, 255.5),
    "chain": lambda b: transforms.Chain(transforms.Affine(shift=1.0, scale=1.0), transforms.Log()),
}


@pytest.mark.parametrize("layout", ["dense", "ragged"])
@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize("draws", [1, 3])
def test_uniform_on_256_levels_scores_eight_bits_through_every_transform(layout, name, draws):
    batch = levels(layout)
    transform = TRANSFORMS[name](batch)
    flow = Flow(Still(), Pushed(transform), transform=transform)
    result = bits_per_dim(flow, batch, delta=1.0, draws=draws, solver=Solver("rk4", steps=2), trace=Exact())
    assert abs(result.value - 8) < 1e-9
    assert result.stderr < 1e-9 and result.solver_error < 1e-12
    again = baselines(flow, batch, batch, delta=1.0)["prior"]
    assert abs(again.value - 8) < 1e-9


def test_per_point_standardisation_counts_too():
    batch = levels("dense")
    transform = transforms.Standardise(per="point").fit(batch)
    flow = Flow(Still(), Pushed(transform), transform=transform)
    result = bits_per_dim(flow, batch, delta=1.0, solver=Solver("rk4", steps=2), trace=Exact())
    assert abs(result.value - 8) < 1e-9


@pytest.mark.parametrize("unit", [1.0, 100.0, 0.01])
def test_units_change_continuous_bits_by_their_logarithm_and_binned_bits_not_at_all(unit):
    flow = Flow(Still(), Gaussian(std=unit))
    batch = Batch(unit * torch.randn(50, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    solver = Solver("rk4", steps=2)
    g = torch.Generator().manual_seed(1)
    continuous = bits_per_dim(flow, batch, solver=solver, generator=g).value
    entropy = 0.5 * math.log2(2 * math.pi * math.e)
    assert abs(continuous - (entropy + math.log2(unit))) < 0.15
    binned = bits_per_dim(flow, batch, delta=unit / 50, solver=solver, generator=torch.Generator().manual_seed(1))
    assert abs(binned.value - (continuous - math.log2(unit) + math.log2(50))) < 1e-2


class Net(nn.Module):
    def __init__(self, size):
        super().__init__()
        torch.manual_seed(1)
        self.layers = nn.Sequential(nn.Linear(size + 1, 16), nn.Tanh(), nn.Linear(16, size)).double()

    def forward(self, t, x, batch):
        return self.layers(torch.cat([x, t[:, None]], 1))


def data(n=20, size=5):
    return Batch(
        torch.randn(n, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64).round(decimals=1)
    )


@pytest.mark.parametrize("trace", [Exact(), Hutchinson(2)])
def test_the_value_does_not_depend_on_the_chunks(trace):
    flow = Flow(Net(5), Gaussian())
    results = [
        bits_per_dim(flow, data(), delta=0.1, trace=trace, chunk=c, generator=torch.Generator().manual_seed(0))
        for c in (1, 7, 100)
    ]
    for other in results[1:]:
        assert torch.allclose(torch.tensor(results[0].per_sample), torch.tensor(other.per_sample), atol=1e-9)
        assert results[0].nfe == other.nfe


def test_more_draws_tighten_the_bound():
    flow = Flow(Net(5), Gaussian(std=0.2))
    batch = data(200)

    def score(k):
        g = torch.Generator().manual_seed(0)
        return bits_per_dim(flow, batch, delta=0.5, draws=k, trace=Exact(), solver=Solver("rk4", steps=8), generator=g)

    one, ten = score(1), score(10)
    assert ten.value < one.value - 0.01
    assert ten.draws == 10 and ten.delta == 0.5


def test_the_standard_error_covers_the_truth():
    """Of 40 small data sets, the exact entropy of the law that made them lies within two standard errors of most."""
    flow = Flow(Still(), Gaussian(std=3.0))
    truth = 0.5 * math.log2(2 * math.pi * math.e * 9)
    g = torch.Generator().manual_seed(0)
    inside = 0
    for _ in range(40):
        batch = Batch(3 * torch.randn(25, 4, generator=g, dtype=torch.float64))
        result = bits_per_dim(flow, batch, solver=Solver("rk4", steps=2), trace=Exact(), check=0)
        inside += abs(result.value - truth) < 2 * result.stderr
    assert 33 <= inside <= 40


def test_the_probes_error_is_the_spread_over_probes():
    class Shear(nn.Module):
        """Divergence zero, but a full off-diagonal Jacobian: all the noise is the probes'."""

        def forward(self, t, x, batch):
            return x.roll(1, -1) + 2 * x.roll(2, -1)

    flow = Flow(Shear(), Gaussian())
    batch = data(30, 5)
    solver = Solver("rk4", steps=8)
    exact = bits_per_dim(flow, batch, trace=Exact(), solver=solver)
    noisy = [
        bits_per_dim(
            flow, batch, trace=Hutchinson(4), solver=solver, check=0, generator=torch.Generator().manual_seed(s)
        )
        for s in range(30)
    ]
    values = torch.tensor([r.value for r in noisy])
    claimed = torch.tensor([r.probe_stderr for r in noisy]).mean()
    assert exact.probe_stderr is None
    assert 0.7 < float(values.std() / claimed) < 1.4
    assert abs(float(values.mean()) - exact.value) < 4 * float(values.std()) / 30**0.5


def test_the_solvers_error_is_measured_and_shrinks():
    flow = Flow(Net(5), Gaussian())
    loose, tight = (bits_per_dim(flow, data(), trace=Exact(), solver=Solver(rtol=r, atol=r)) for r in (1e-2, 1e-6))
    assert loose.solver_error > 10 * tight.solver_error
    assert abs(loose.value - tight.value) < 10 * loose.solver_error
    assert loose.checked == 4 and tight.nfe > loose.nfe


@pytest.mark.parametrize(("method", "steps"), [("euler", 20), ("midpoint", 10), ("rk4", 4)])
def test_the_error_of_fixed_steps_is_the_error(method, steps):
    """Twice the steps are not the truth: the difference is scaled by 2^p/(2^p − 1)."""
    flow = Flow(Net(5), Gaussian())
    batch = data(8)
    result = bits_per_dim(flow, batch, trace=Exact(), solver=Solver(method, steps=steps), check=8)
    truth = bits_per_dim(flow, batch, trace=Exact(), solver=Solver(rtol=1e-10, atol=1e-10), check=0)
    true = sum(abs(a - b) for a, b in zip(result.per_sample, truth.per_sample, strict=True)) / 8
    assert 0.8 < result.solver_error / true < 1.25


def test_a_score_is_not_lost_when_the_tighter_solve_is_impossible():
    flow = Flow(Net(5).float(), Gaussian())
    result = bits_per_dim(flow, Batch(data().x.float()), trace=Exact(), solver=Solver(rtol=2e-6, atol=2e-6))
    assert math.isfinite(result.value) and result.solver_error is not None
    tight = Solver(rtol=1e-5, atol=1e-5, max_steps=12)
    stuck = bits_per_dim(flow, Batch(data().x.float()), trace=Exact(), solver=tight)
    assert math.isfinite(stuck.value)


def test_a_periodic_prior_is_compared_with_periodic_gaussians():
    truth = SpectralGaussian((1, 8, 10), True, spectra.Matern(4.0, nugget=0.01))
    like = Batch(torch.zeros(400, 1, 8, 10, dtype=torch.float64))
    train, test = (like.replace(truth.sample(like, torch.Generator().manual_seed(s))) for s in (0, 1))
    ladder = baselines(Flow(Still(), truth), train, test, largest=10)
    best = next(v for k, v in ladder.items() if k.startswith("best"))
    assert abs(best.value - ladder["prior"].value) < 0.03


def test_a_single_sample_has_no_standard_error_and_says_so():
    result = bits_per_dim(Flow(Net(5), Gaussian()), data(1), trace=Exact())
    assert "± ?" in str(result) and result.to_dict()["stderr"] is None


def test_dequantised_values_stay_in_their_bins_and_round_back():
    batch = levels("dense")
    noisy = dequantise(batch, 1.0, torch.Generator().manual_seed(0))
    assert torch.equal(noisy.x.round(), batch.x) and not torch.equal(noisy.x, batch.x)
    assert dequantise(batch, None) is batch
    assert abs(float((noisy.x - batch.x).mean())) < 0.1


def test_the_ladder_finds_the_gaussian_that_made_the_data():
    truth = SpectralGaussian((1, 6, 7), False, spectra.Matern(4.0, nugget=0.05))
    like = Batch(torch.zeros(3000, 1, 6, 7, dtype=torch.float64))
    train = like.replace(5 + 2 * truth.sample(like, torch.Generator().manual_seed(0)))
    test = train.replace(5 + 2 * truth.sample(like, torch.Generator().manual_seed(1)))
    transform = transforms.Standardise(per="global").fit(train)
    flow = Flow(Still(), Gaussian(), transform=transform)
    ladder = baselines(flow, train, test)
    names = list(ladder)
    assert names[:2] == ["prior", "white"] and names[2].startswith("best Gaussian")
    own = truth.log_prob((test.x - 5) / 2, test).mean() - 42 * math.log(2)
    entropy = float(-own / (42 * math.log(2)))
    assert abs(ladder[names[2]].value - entropy) < 0.05
    assert ladder["white"].value > ladder[names[2]].value + 0.2
    assert all(e.stderr > 0 for e in ladder.values())


def test_ragged_ladder_has_what_is_defined_there():
    index = torch.repeat_interleave(torch.arange(30), 3)
    batch = Batch(torch.randn(90, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 5.0]), index, 30)
    ladder = baselines(Flow(Still(), Gaussian()), batch, batch)
    assert list(ladder) == ["prior", "white", "best Gaussian (per channel)"]
    assert ladder["best Gaussian (per channel)"].value < ladder["white"].value


def test_the_result_prints_as_one_line_with_everything():
    flow = Flow(Net(5), Gaussian())
    ladder = baselines(flow, data(), data(), delta=0.1)
    result = flow.bits_per_dim(data(), delta=0.1, trace=Hutchinson(2), baselines=ladder)
    line = str(result)
    assert "\n" not in line
    for word in (
        "±",
        "bits/dim",
        "20 samples",
        "2 probe(s)",
        "δ 0.1",
        "bosh5",
        "nfe",
        "prior",
        "white",
        "best Gaussian",
    ):
        assert word in line, word
    assert set(result.to_dict()) >= {"value", "stderr", "solver_error", "delta", "baselines", "nfe"}


def test_noisy_probes_with_many_draws_are_warned_about():
    with pytest.warns(UserWarning, match="biases the likelihood upward"):
        bits_per_dim(Flow(Net(5), Gaussian()), data(), delta=0.1, draws=2, trace=Hutchinson(1))


@pytest.mark.parametrize(
    ("batch", "settings", "says"),
    [
        (Batch(torch.zeros(0, 3)), {}, "at least one sample"),
        (Batch(torch.full((2, 3), torch.nan)), {}, "sample 0 holds NaN"),
        (Batch(torch.zeros(2, 3, dtype=torch.long)), {}, "delta=1 for integers"),
        (data(), {"delta": 0.0}, "delta must be positive"),
        (data(), {"draws": 0}, "at least 1"),
        (data(), {"chunk": 0}, "at least 1"),
    ],
)
def test_bad_input(batch, settings, says):
    with pytest.raises(ValueError, match=says):
        bits_per_dim(Flow(Net(5), Gaussian()), batch, **settings)


def test_a_misspelt_setting_is_not_swallowed():
    with pytest.raises(TypeError, match="dleta"):
        Flow(Net(5), Gaussian()).bits_per_dim(data(), dleta=0.1)
