"""Importance weights: closed forms between Gaussians, stability, error bars over repetitions, noise; and flows."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from scifm import Batch, Flow, Solver, priors
from scifm.bits import Estimate
from scifm.energies import DoubleWell, Energy, HarmonicCluster
from scifm.metrics import Weights, entropy_floor, nats, path_length, reweight, weigh
from scifm.priors import MeanFreeGaussian
from scifm.trace import Exact, Hutchinson


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def gaussian(n=2000, wide=1.25, seed=0, points=3):
    """Samples of a mean-free Gaussian of width `wide`, with energy and log-density; the energy's law has width 1."""
    like = Batch(torch.zeros(n, points, 2, dtype=torch.float64))
    q = MeanFreeGaussian(wide)
    x = q.sample(like, seeded(seed))
    return x, HarmonicCluster().of(Batch(x)), q.log_prob(x, like)


LOG_Z = 2 * math.log(2 * math.pi)  # of three points in the plane on springs of strength 1


# -- closed forms ----------------------------------------------------------------------------------------------------


def test_equal_weights():
    weights = weigh(torch.zeros(50), torch.full((50,), -3.0), noise=None)
    assert weights.log_z() == Estimate(pytest.approx(3.0), pytest.approx(0, abs=1e-6))
    assert weights.ess == pytest.approx(50) and weights.efficiency == pytest.approx(1) and weights.variance == 0
    assert weights.largest == pytest.approx(0.02) and len(weights) == 50
    values = torch.arange(50.0)
    found = weights.mean(values)
    assert found.value == pytest.approx(24.5) and found.stderr == pytest.approx(
        float(values.std(correction=0)) / 50**0.5
    )


def test_the_efficiency_of_a_gaussian_proposal():
    """ESS/n → E[w]²/E[w²] = Π_D (2 − 1/σ²)^½ / σ for a proposal of width σ."""
    _, energy, log_prob = gaussian(200_000, wide := 1.25)
    weights = weigh(energy, log_prob, noise=None)
    assert weights.efficiency == pytest.approx((math.sqrt(2 - 1 / wide**2) / wide) ** 4, rel=0.02)
    # log w = −r²/2 (1 − 1/σ²) + constant, with r²/σ² chi-squared of 4
    assert weights.variance == pytest.approx(2 * 4 * ((wide**2 - 1) / 2) ** 2, rel=0.05)


def test_weights_do_not_care_for_large_numbers():
    _, energy, log_prob = gaussian(500)
    one, far = weigh(energy, log_prob, noise=None), weigh(energy + 5e4, log_prob - 2e4, noise=None)
    assert far.ess == pytest.approx(one.ess, rel=1e-6)
    assert far.log_z().value == pytest.approx(one.log_z().value - 3e4, abs=1e-6)
    assert far.log_z().stderr == pytest.approx(one.log_z().stderr, rel=1e-6)


def test_an_infinite_energy_has_no_weight():
    weights = weigh(torch.tensor([0.0, math.inf, 0.0]), torch.zeros(3), noise=None)
    assert weights.normalised.tolist() == [0.5, 0.0, 0.5] and weights.ess == pytest.approx(2)
    assert weights.log_z().value == pytest.approx(math.log(2 / 3))


def test_one_sample_has_a_value_and_no_error():
    weights = weigh(torch.ones(1), torch.zeros(1), noise=None)
    assert weights.log_z().value == -1 and math.isnan(weights.log_z().stderr) and weights.ess == 1
    assert math.isnan(weights.variance)


# -- error bars over repetitions -------------------------------------------------------------------------------------


def within(estimates, truth):
    """How many of the estimates lie within two of their standard errors, in per cent."""
    return 100 * sum(abs(e.value - truth) < 2 * e.stderr for e in estimates) / len(estimates)


def test_errors_cover_the_truth_as_often_as_they_say():
    """95 % of 200 runs within two standard errors, 91 to 99 by chance: constant, average and difference."""
    z, means, differences = [], [], []
    share = 1 - 2 * math.exp(-1)  # P(r² < 2) of chi-squared with 4 degrees: 1 − (1 + 1) e⁻¹
    for seed in range(200):
        x, energy, log_prob = gaussian(500, seed=seed)
        weights = weigh(energy, log_prob, noise=None)
        near = x.square().sum((1, 2)) < 2
        z.append(weights.log_z())
        means.append(weights.mean(energy))
        differences.append(weights.free_energy_difference(near, ~near))
    assert 90 <= within(z, LOG_Z) <= 99
    assert 90 <= within(means, 2.0) <= 99
    assert 90 <= within(differences, math.log(share / (1 - share))) <= 99  # F_b − F_a = log P_a / P_b


def test_the_bootstrap_agrees_with_the_delta_method():
    x, energy, log_prob = gaussian(2000)
    weights, near = weigh(energy, log_prob, noise=None), x.square().sum((1, 2)) < 2
    for kind, about in (("log_z", ()), ("mean", (energy,)), ("free_energy_difference", (near, ~near))):
        delta = getattr(weights, kind)(*about).stderr
        assert weights.bootstrap(kind, *about, draws=300, generator=seeded()) == pytest.approx(delta, rel=0.2)
    one, two = (weights.bootstrap(draws=20, generator=seeded(3)) for _ in range(2))
    assert one == two


def test_differences_of_states_that_overlap():
    _, energy, log_prob = gaussian(500)
    weights = weigh(energy, log_prob, noise=None)
    every = torch.ones(500, dtype=torch.bool)
    same = weights.free_energy_difference(every, every)
    assert same.value == pytest.approx(0, abs=1e-12) and same.stderr == pytest.approx(0, abs=1e-12)
    half = energy < energy.median()
    there, back = weights.free_energy_difference(half, every), weights.free_energy_difference(every, half)
    assert there.value == pytest.approx(-back.value) and there.stderr == pytest.approx(back.stderr)
    assert there.value < 0  # the larger set has the lower free energy


# -- noise -----------------------------------------------------------------------------------------------------------


def test_a_state_whose_samples_weigh_nothing_is_refused():
    weights = weigh(torch.tensor([0.0, math.inf, 0.1]), torch.zeros(3), noise=None)
    state = torch.tensor([False, True, False])
    with pytest.raises(ValueError, match="0 samples are in a and 2 in b, without those of weight zero"):
        weights.free_energy_difference(state, ~state)


def test_the_bootstrap_of_a_rare_state_leaves_out_draws_without_it():
    weights, rare = Weights(torch.zeros(60, dtype=torch.float64)), torch.arange(60) < 3
    error = weights.bootstrap("free_energy_difference", rare, ~rare, generator=seeded())
    assert 0.5 < error / weights.free_energy_difference(rare, ~rare).stderr < 1.5


def test_noise_is_refused_and_the_reason_is_true():
    """With noise of variance s² in log q, Z comes out too large by exp(s²/2); the correction takes it back."""
    _, energy, log_prob = gaussian(100_000)
    s2 = 0.5
    noisy = log_prob + s2**0.5 * torch.randn(len(log_prob), generator=seeded(5), dtype=torch.float64)
    noise = torch.full_like(noisy, s2)
    with pytest.raises(
        ValueError, match=r"random trace \(s² is 0.5 on average\).*exp\(s²/2\).*trace.Exact\(\).*allow_s"
    ):
        weigh(energy, noisy, noise=noise)
    allowed = weigh(energy, noisy, noise=noise, allow_stochastic=True)
    assert allowed.log_z().value == pytest.approx(LOG_Z + s2 / 2, abs=0.03)
    corrected = weigh(energy, noisy, noise=noise, allow_stochastic=True, correct=True)
    assert corrected.log_z().value == pytest.approx(LOG_Z, abs=0.03)
    assert "noisy (s² 0.5, corrected)" in str(corrected) and "noisy (s² 0.5)" in str(allowed)
    # the noise costs samples too, which no correction brings back
    assert corrected.efficiency == pytest.approx(
        weigh(energy, log_prob, noise=None).efficiency * math.exp(-s2), rel=0.1
    )


def test_noise_of_unknown_size_is_refused_and_cannot_be_corrected():
    energy, unknown = torch.zeros(4), torch.full((4,), math.nan)
    with pytest.raises(ValueError, match="one probe, s² unknown"):
        weigh(energy, energy, noise=unknown)
    assert weigh(energy, energy, noise=unknown, allow_stochastic=True).ess == pytest.approx(4)
    with pytest.raises(ValueError, match="at least two probes"):
        weigh(energy, energy, noise=unknown, allow_stochastic=True, correct=True)
    with pytest.raises(TypeError, match="noise"):
        weigh(energy, energy)  # it must be said


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: weigh(torch.zeros(3), torch.zeros(4), noise=None), r"shapes \(3,\) and \(4,\)"),
        (lambda: weigh(torch.zeros(0), torch.zeros(0), noise=None), "an energy and a log-density for each"),
        (lambda: weigh(torch.tensor([0.0, math.nan]), torch.zeros(2), noise=None), "1 of 2 weights are NaN"),
        (lambda: weigh(torch.zeros(2), torch.tensor([0.0, -math.inf]), noise=None), "log-density of −∞"),
        (lambda: weigh(torch.full((2,), math.inf), torch.zeros(2), noise=None), "no weight is finite"),
        (lambda: weigh(torch.zeros(2), torch.zeros(2), noise=torch.tensor([-1.0, 0])), "variance per sample"),
        (lambda: Weights(torch.zeros(3)).mean(torch.zeros(3, 1)), r"one value per sample, \(3,\), got \(3, 1\)"),
        (lambda: Weights(torch.zeros(3)).mean(torch.tensor([0, 0, math.inf])), "1 values are NaN or infinite"),
        (lambda: Weights(torch.zeros(3)).free_energy_difference(torch.zeros(3).bool(), torch.ones(3).bool()),
         "0 samples are in a and 3 in b"),
        (lambda: Weights(torch.zeros(3)).bootstrap("median"), "expected a statistic of log_z, mean"),
    ],
)  # fmt: skip
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# -- flows -----------------------------------------------------------------------------------------------------------


class Shrink(nn.Module):
    """dx/dt = −a x: a flow from N(0, σ²) to N(0, σ² e^(−2a)), linear, so that all is known."""

    def __init__(self, rate=0.4):
        super().__init__()
        self.rate = rate

    def forward(self, t, x, batch):
        return -self.rate * x


class Twist(nn.Module):
    """A field whose trace is noisy under random probes, and zero: dx/dt = x A with A off the diagonal."""

    def forward(self, t, x, batch):
        return x[:, [1, 2, 0]] * 0.7


def flow(velocity=None, std=1.0):
    return Flow(Shrink() if velocity is None else velocity, MeanFreeGaussian(std))


LIKE = Batch(torch.zeros(300, 3, 2, dtype=torch.float64))


def test_a_flow_onto_the_energy_has_equal_weights():
    energy = HarmonicCluster(math.exp(0.8))  # σ = e^−0.4
    found = reweight(flow(), energy, LIKE, seeded(), Solver(rtol=1e-8, atol=1e-8))
    assert found.weights.efficiency == pytest.approx(1, abs=1e-9)
    assert found.weights.log_z().value == pytest.approx(float(energy.log_z(LIKE)[0]), abs=1e-6)
    torch.testing.assert_close(found.energy, energy.of(found.samples))
    torch.testing.assert_close(found.log_prob, flow().log_prob(found.samples, Exact()), rtol=1e-4, atol=1e-4)
    assert found.nfe > 5 and "ESS 100.0 %" in str(found)


def test_twenty_runs_of_a_flow_beside_the_energy():
    """The issue's count: log Z of a harmonic cluster within two standard errors, 20 runs, at least 17 by chance."""
    energy = HarmonicCluster(1.7)
    runs = [reweight(flow(), energy, LIKE, seeded(seed)).weights.log_z() for seed in range(20)]
    assert within(runs, float(energy.log_z(LIKE)[0])) >= 85
    assert 0 < runs[0].stderr < 0.05


def test_the_result_does_not_depend_on_the_chunk():
    settings = {"allow_stochastic": True, "trace": Hutchinson(4)}
    for more in ({}, settings):
        one, many = (
            reweight(
                flow(), HarmonicCluster(), LIKE, seeded(), chunk=chunk, solver=Solver("rk4", steps=4), **more
            ).weights
            for chunk in (300, 37)
        )
        torch.testing.assert_close(one.log, many.log, rtol=0, atol=1e-9)
    other = reweight(flow(), HarmonicCluster(), LIKE, seeded(1), Solver("rk4", steps=4)).weights
    assert not torch.allclose(one.log, other.log)


def test_ragged_sets_of_one_size_weigh_the_same():
    rows = Batch(LIKE.x.reshape(-1, 2), torch.arange(300).repeat_interleave(3), 300)
    dense, ragged = (reweight(flow(), HarmonicCluster(), like, seeded(), chunk=64).weights for like in (LIKE, rows))
    torch.testing.assert_close(dense.log, ragged.log, rtol=0, atol=1e-9)


def test_a_random_trace_is_refused_before_any_work():
    class Never(nn.Module):
        def forward(self, t, x, batch):
            raise AssertionError("called")

    with pytest.raises(ValueError, match="reweight: log q comes from a random trace .Hutchinson draws probes."):
        reweight(flow(Never()), HarmonicCluster(), LIKE, trace=Hutchinson(2))


def test_a_random_trace_that_is_allowed_is_biased_and_corrected():
    """The Jacobian has the eigenvalue −0.35 four times, so log q has the noise of 0.35 (χ² − 1), K times averaged."""
    like, energy, probes = Batch(torch.zeros(4000, 3, 2, dtype=torch.float64)), HarmonicCluster(1.0), 4
    twist, solver = flow(Twist(), 1.6), Solver("rk4", steps=4)
    exact = reweight(twist, energy, like, seeded(), solver, chunk=4000).weights
    settings = {"allow_stochastic": True, "chunk": 4000}
    noisy = Hutchinson(probes, "gaussian")
    biased = reweight(twist, energy, like, seeded(), solver, noisy, **settings).weights
    assert biased.noise is not None and biased.corrected is False
    assert float(biased.noise.mean()) == pytest.approx(2 * 4 * 0.35**2 / probes, rel=0.1)
    excess = biased.log_z().value - exact.log_z().value
    expected = 4 * probes * (0.35 / probes - 0.5 * math.log(1 + 0.7 / probes))
    assert excess == pytest.approx(expected, rel=0.25) and expected > 0.1
    corrected = reweight(twist, energy, like, seeded(), solver, noisy, **settings, correct=True).weights
    assert abs(corrected.log_z().value - exact.log_z().value) < 0.35 * excess
    one = reweight(twist, energy, LIKE, seeded(), solver, Hutchinson(1), allow_stochastic=True).weights
    assert one.noise is not None and one.noise.isnan().all()


def test_another_space_is_refused():
    with pytest.raises(ValueError, match="density in 6 dimensions and the energy in 4.*MeanFreeGaussian"):
        reweight(Flow(Shrink(), priors.Gaussian()), HarmonicCluster(), LIKE)
    mixed = Batch(torch.zeros(5, 2), torch.tensor([0, 0, 0, 1, 1]), 2)
    with pytest.raises(ValueError, match="differ in size"):
        reweight(flow(), HarmonicCluster(), mixed)
    with pytest.raises(ValueError, match="at least one sample"):
        reweight(flow(), HarmonicCluster(), LIKE.select([]))

    class Field(Energy):
        def potential(self, x, mask=None):
            return 0.5 * x.square().sum((-2, -1))

    found = reweight(Flow(Shrink(), priors.Gaussian()), Field(), LIKE, seeded())
    assert abs(found.weights.log_z().value - 3 * math.log(2 * math.pi)) < 4 * found.weights.log_z().stderr


# -- lengths and likelihoods -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["plain", "prior"])
def test_lengths_of_a_flow_that_shrinks(metric):
    """x1 = x0 e^−a: straight and curve both (1 − e^−a) |x0|, and E|x0| = σ √2 Γ(5/2)/Γ(2) for D = 4."""
    from scifm import Objective

    like = Batch(torch.zeros(4000, 3, 2, dtype=torch.float64))
    shrinking = Flow(Shrink(), MeanFreeGaussian(1.5), objective=Objective(metric=metric))
    found = path_length(shrinking, like, seeded(), Solver(rtol=1e-7, atol=1e-7))
    expected = (1 - math.exp(-0.4)) * 1.5 * math.sqrt(2) * math.gamma(2.5) / math.gamma(2)
    for length in (found.straight, found.curve):
        assert abs(length.value - expected) < 5 * length.stderr and length.stderr < 0.02
    assert found.curve.value == pytest.approx(found.straight.value, rel=1e-5)  # here the curves are straight
    assert found.scale == pytest.approx(1.5, rel=0.03) and found.nfe > 5
    assert "from a prior of scale 1.5" in str(found) or "1.4" in str(found)


def test_a_curve_is_longer_than_its_chord():
    class Turn(nn.Module):
        def forward(self, t, x, batch):
            return math.pi * torch.stack([-x[..., 1], x[..., 0]], -1)  # half a turn

    found = path_length(flow(Turn()), LIKE, seeded())
    assert found.curve.value == pytest.approx(math.pi / 2 * found.straight.value, rel=1e-4)


def test_nats_carry_every_constant_and_say_so():
    prior = MeanFreeGaussian(1.0)
    x = LIKE.replace(prior.sample(LIKE, seeded()))
    still = Flow(Shrink(0.0), prior)
    bits = still.bits_per_dim(x, trace=Exact(), check=0)
    found = nats(bits, x, prior.dims(x), "Å")
    exact = -prior.log_prob(x.x, x)
    assert found.value == pytest.approx(float(exact.mean()), abs=1e-6)
    assert found.stderr == pytest.approx(float(exact.std()) / 300**0.5, rel=1e-6)
    assert found.dims == 4 and found.numbers == 6
    # bgflow's prior has no constant: what is left is |x|²/2, on average D/2
    assert found.without_constant(1.0) == pytest.approx(float(x.x.square().sum((1, 2)).mean() / 2), abs=1e-6)
    text = str(found)
    for part in ("4 dimensions", "subspace of 6", "Å", "every constant included", "300 samples"):
        assert part in text
    with pytest.raises(ValueError, match="score of continuous data"):
        nats(bits, x.select([0]), prior.dims(x))
    with pytest.raises(ValueError, match="std must be positive"):
        found.without_constant(0.0)


def test_published_conventions_of_dw4():
    from scifm.metrics import Nats

    assert Nats(7.19, 0.0, 1, 6, 8).without_constant(1.0) == pytest.approx(1.68, abs=0.005)
    assert Nats(16.99, 0.0, 1, 36, 39).without_constant(1.0) == pytest.approx(-16.09, abs=0.01)


def test_the_floor_is_the_entropy():
    """Of a Gaussian (D/2)(1 + log 2πσ²); and no model is below it: the NLL of the law itself is the floor."""
    energy, prior = HarmonicCluster(2.0), MeanFreeGaussian(0.5**0.5)
    like = Batch(torch.zeros(3000, 3, 2, dtype=torch.float64))
    x = like.replace(prior.sample(like, seeded()))
    floor = entropy_floor(energy, x, Estimate(float(energy.log_z(like)[0]), 0.03))
    assert abs(floor.value - 2 * (1 + math.log(math.pi))) < 4 * floor.stderr
    assert floor.value == pytest.approx(-float(prior.log_prob(x.x, x).mean()), abs=1e-9)
    assert floor.stderr == pytest.approx(math.hypot(0.03, (2 / 3000) ** 0.5), rel=0.05)


def test_dw4_weights_from_a_mixture_of_nothing_but_a_gaussian():
    """A poor proposal: the estimate is honest about being poor."""
    like = Batch(torch.zeros(20_000, 4, 2, dtype=torch.float64))
    q = MeanFreeGaussian(2.5)
    x = q.sample(like, seeded())
    weights = weigh(DoubleWell().of(like.replace(x)), q.log_prob(x, like), noise=None)
    z = weights.log_z()
    assert abs(z.value - 29.66) < 4 * z.stderr and weights.efficiency < 0.02 and weights.variance > 5


@pytest.mark.parametrize("statistic", ["log_z", "mean"])
def test_a_resample_of_weights_that_are_all_zero_says_nothing(statistic):
    energy = torch.full((12,), math.inf)
    energy[:3] = torch.tensor([0.0, 0.3, 0.7])
    weights = weigh(energy, torch.zeros(12), noise=None)
    about = [torch.arange(12.0)] if statistic == "mean" else []
    assert 0 < weights.bootstrap(statistic, *about, draws=500, generator=seeded()) < 2
