"""Laws that other libraries broke and that no other file tests; the table is in test_pitfalls.py.

"Broken:" says what was changed once to see the test fail.
"""

from __future__ import annotations

import math
import random
from argparse import Namespace
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from test_grids import air
from test_likelihood import Pushed, Still
from test_priors import covariance
from torch import nn

from scifm import Batch, Flow, Objective, Solver, Stochastic, couplings, paths, priors, times
from scifm.commands.words import WrongUse, solver_of
from scifm.data.grids import from_xarray
from scifm.data.transforms import Climatology, Identity, Standardise
from scifm.likelihood import bits_per_dim
from scifm.solve import SolverError
from scifm.trace import Exact, Hutchinson, HutchPlusPlus

MIX = torch.randn(3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
RK = Solver("rk4", steps=10)


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=gen(seed), dtype=torch.float64)


class Mix(nn.Module):
    """Mixes the last axis, and all numbers of a sample."""

    def forward(self, t, x, batch):
        return batch.spread(0.5 + 0.5 * t) * (torch.tanh(x @ MIX) + batch.spread((batch.total(x) / 5).sin()))


FLOW = Flow(Mix(), priors.Gaussian(std=1.3))
DATA = Batch(noise(3, 3))


def pyg():
    data = pytest.importorskip("torch_geometric.data")
    return Batch.from_pyg(data.Batch.from_data_list([data.Data(pos=noise(n, 3, seed=n)) for n in (1, 4, 2)]))


@pytest.mark.parametrize("make", [lambda: Batch(noise(3, 2, 2, 3)), lambda: Batch(noise(3, 3, 3)), pyg])
def test_the_density_is_that_of_the_map_on_every_layout(make):
    """Against slogdet of the map's own Jacobian. Broken: Exact without the last coordinate."""
    batch = make()
    values, solution = FLOW.density(batch, Hutchinson(60), RK, generator=gen())
    exact, error = FLOW.log_prob(batch, Exact(), RK), solution.logdet.std(1) / 60**0.5
    for b in range(len(batch)):
        part = batch.select([b])
        encode = lambda x, like=part: FLOW.transport(x, 1.0, 0.0, like, RK).x  # noqa: E731
        size, jacobian = part.x.numel(), torch.autograd.functional.jacobian(encode, part.x)
        wanted = FLOW.prior.log_prob(encode(part.x), part)[0] + torch.linalg.slogdet(jacobian.reshape(size, size))[1]
        assert abs(float(exact[b] - wanted)) < 1e-4 and abs(float(values[b] - wanted)) < 5 * float(error[b])


def test_a_likelihood_without_settings_is_accurate():
    """dx/dt = 4x in closed form. Broken: the default Solver("euler", steps=2)."""
    grow = Flow(Grow(), priors.Gaussian())
    closed = priors.Gaussian(std=math.exp(4.0)).log_prob(DATA.x, DATA)
    assert torch.allclose(grow.log_prob(DATA), closed, atol=1e-3)
    assert abs(grow.bits_per_dim(DATA).value + float(closed.mean()) / (3 * math.log(2))) < 1e-3


class Grow(nn.Module):
    def forward(self, t, x, batch):
        return 4 * x


class Waves(Mix):
    def forward(self, t, x, batch):
        return super().forward(t, x, batch) * (1 + batch.spread((30 * t).sin()))


def test_the_tolerance_holds_for_log_densities():
    """Per dimension, on waves in time. Broken: along.LOBATTO with half the weight at either end and none between."""
    flow = Flow(Waves(), priors.Gaussian())
    exact = flow.log_prob(DATA, solver=Solver("rk4", steps=200))  # at its stages, which share no fault with it
    for tolerance in (1e-3, 1e-4, 1e-5):
        found = flow.log_prob(DATA, solver=Solver(rtol=tolerance, atol=tolerance))
        assert ((found - exact) / 3).abs().max() < 2 * tolerance


class Chebyshev(nn.Module):
    """dx/dt = T_32(2t − 1) x, which is one at all nodes of Clenshaw and Curtis's rules for 8 and for 16 intervals."""

    def forward(self, t, x, batch):
        return batch.spread(torch.cos(32 * torch.arccos((2 * t - 1).clamp(-1, 1)))) * x


def test_sums_that_agree_by_chance_are_not_believed():
    """The integral is 1/(1 − 32²). Broken: the log-determinant summed until two such rules agree, as it once was."""
    closed = priors.Gaussian(std=math.exp(1 / (1 - 32**2))).log_prob(DATA.x, DATA)
    assert (Flow(Chebyshev(), priors.Gaussian()).log_prob(DATA) - closed).abs().max() < 1e-3


@pytest.mark.parametrize(("method", "calls"), [("euler", 16), ("heun", 32)])
def test_stochastic_steps_are_counted(method, calls):
    """Broken: diffuse with range(steps - 1)."""
    seen, flow = [], Flow(Mix(), priors.Gaussian())
    flow.velocity.register_forward_hook(lambda *_: seen.append(1))
    flow.sample(DATA, gen(), Stochastic(method, steps=16))
    assert len(seen) == calls


def test_each_solve_has_probes_of_its_own():
    """The same at each evaluation of a solve, others in the next. Broken: Hutchinson.draw with a seed of its
    own; `both` of Flow.transport that draws."""
    seen = []

    class Watched(Hutchinson):
        def __call__(self, velocity, t, x, batch, probes):
            seen.append(probes)
            return super().__call__(velocity, t, x, batch, probes)

    g = gen()
    one, two = (FLOW.log_prob(DATA, Watched(1), RK, g) for _ in range(2))
    half = len(seen) // 2
    assert not torch.allclose(one, two) and not torch.equal(seen[0], seen[half])
    assert all(torch.equal(p, seen[0]) for p in seen[:half]) and all(torch.equal(p, seen[half]) for p in seen[half:])


@pytest.mark.parametrize("bins", [255, 256])
def test_bins_are_those_of_the_data(bins):
    """Bytes over 255 have bins of 1/255: with 1/256 a uniform law has not 8 bits. Broken: mixture with δ = 1/255."""
    batch = Batch(torch.arange(256, dtype=torch.float64)[:, None] / 255)
    flow = Flow(Still(), Pushed(Identity(), -0.5 / 255, 255.5 / 255))
    score = bits_per_dim(flow, batch, delta=1 / bins, solver=Solver("rk4", steps=2), check=0)
    assert abs(score.value - (8 + math.log2(bins / 255))) < 1e-9


def test_an_exact_divergence_is_one_call_and_no_graph():
    """Broken: Linearisation._pull that calls the velocity again; Linearisation.v without detach."""
    calls, weight = [], torch.ones(64, dtype=torch.float64, requires_grad=True)

    def velocity(t, x, batch):
        calls.append(t)
        return (weight * x).tanh() * x.sum(1, keepdim=True)

    batch = Batch(noise(4, 64))
    with torch.no_grad():
        v, divergence = Exact()(velocity, torch.zeros(4), batch.x, batch)
    wanted = (1 - batch.x.tanh() ** 2).sum(1) * batch.x.sum(1) + batch.x.tanh().sum(1)
    assert len(calls) == 1 and torch.allclose(divergence[:, 0], wanted)
    assert not v.requires_grad and not divergence.requires_grad


COUNT = [
    (Solver(rtol=1e-3, atol=1e-3), {"method": "dopri5", "rtol": 1e-1, "atol": 1e-1, "steps": 5, "max_steps": 1}),
    (Solver("heun", steps=3), {"method": "kutta3", "steps": 2, "spacing": (0.0, 0.5, 0.7, 1.0)}),
    (Stochastic(steps=5), {"method": "euler", "steps": 6, "strength": 0.5}),
    (
        Objective(),
        {"predict": "x1", "metric": "prior", "times": times.stratified, "weight": lambda t: 1 + t, "thickening": 0.1},
    ),
    (paths.Linear(), {"sigma_min": 0.1}),
    (paths.VariancePreserving(), {"beta_min": 0.2, "beta_max": 18.0, "least": 1e-3}),
    (paths.VarianceExploding(), {"sigma_min": 0.01, "sigma_max": 30.0}),
]


@pytest.mark.parametrize(("part", "changes"), COUNT, ids=lambda p: type(p).__name__)
def test_every_setting_counts(part, changes):
    """Broken: diffuse with strength = 1; Linear.coefficients with lost = 1."""

    def outcome(part):
        try:
            if isinstance(part, Solver | Stochastic):
                return FLOW.sample(DATA, gen(), part).x
            flow = Flow(
                Mix(), priors.Gaussian(std=1.3), **{"objective" if isinstance(part, Objective) else "path": part}
            )
            return flow.loss(DATA, gen())
        except SolverError:
            return torch.zeros(1)

    assert all(not torch.equal(outcome(part), outcome(replace(part, **{k: v}))) for k, v in changes.items())


def test_every_setting_is_among_them():
    for kind in (Solver, Stochastic, Objective, paths.Linear, paths.VariancePreserving, paths.VarianceExploding):
        assert {f.name for f in fields(kind)} == {k for part, c in COUNT if type(part) is kind for k in c}


@pytest.mark.parametrize("flag", ["rtol", "atol"])
def test_flags_that_would_have_no_effect_are_refused(flag):
    """Tolerances of fixed steps. Broken: words.solver_of without its refusal, as it was."""
    words = {"method": None, "steps": 5, "rtol": None, "atol": None}
    assert solver_of(Namespace(**words)).steps == 5
    with pytest.raises(WrongUse, match="--steps are fixed"):
        solver_of(Namespace(**words | {flag: 1e-9}))


@pytest.mark.parametrize("solver", [Solver("ab3", steps=6), Solver(), Stochastic(steps=5)], ids=str)
def test_nothing_remembers_the_call_before(solver):
    """Broken: `past` of solve.fixed kept between calls."""
    first = FLOW.sample(DATA, gen(), solver).x
    FLOW.sample(DATA, gen(1), solver)  # another x0 of the same shape
    assert torch.equal(FLOW.sample(DATA, gen(), solver).x, first)


def everything(batch, x0):
    """All that a flow does, with a generator."""
    coupling = couplings.Sinkhorn(0.5)
    flow = Flow(Mix(), priors.Gaussian(), coupling=coupling, transform=Standardise(per="channel").fit(batch))
    flow.loss(batch, gen(), x0)
    flow.loss(batch, gen())
    flow.sample(batch, x0=x0)
    FLOW.sample(batch, gen(), Stochastic(steps=3))
    for trace in (Exact(), Hutchinson(2), HutchPlusPlus(3)):
        flow.bits_per_dim(batch, trace=trace, delta=0.1, generator=gen())
        flow.sample_and_log_prob(batch, gen(), trace=trace)
    flow.encode(batch)


def test_the_users_process_stays_as_it_is():
    """Broken: torch.set_num_threads(2) in Flow.density; probes without their generator."""

    def state():
        modes = torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled()
        return *modes, torch.get_rng_state().tolist(), random.getstate(), str(np.random.get_state())

    before = state()
    everything(DATA, noise(3, 3))
    assert state() == before


def test_every_sample_has_its_own_part_in_the_loss():
    """Broken: Path.__call__ with x1[:1] for all."""
    slope = torch.autograd.functional.jacobian(lambda x: FLOW.loss(Batch(x), gen()), DATA.x).norm(dim=2)
    assert (slope.diagonal() > 1e-3).all() and (slope - slope.diagonal().diag() == 0).all()


def test_dates_of_another_calendar_are_never_ours():
    """30 February has no day since 1970: no dates at all, and who needs them says so. Broken: numbers for dates."""
    days = np.array([type("Day360", (), {"month": 2, "day": 30})() for _ in range(6)], dtype=object)
    batch, _ = from_xarray(air().assign_coords(time=days))
    assert "time" not in batch.context
    with pytest.raises(ValueError, match=r'needs context\["time"\]'):
        Climatology().fit(batch)


def test_arguments_are_left_as_they_are():
    """Broken: Standardise with sub_; Flow._begin that adds a draw to x0."""
    batch, x0 = Batch(DATA.x.clone(), context={"c": torch.ones(3)}), noise(3, 3, seed=5)
    everything(batch, x0)
    assert torch.equal(batch.x, DATA.x) and torch.equal(x0, noise(3, 3, seed=5))
    assert (batch.context["c"] == 1).all()
    drawn = FLOW.prior.sample(DATA, gen())
    assert torch.equal(FLOW.sample(DATA, gen()).x, FLOW.sample(DATA, x0=drawn).x), "noise is added once"


FIELDS = Batch(noise(60, 1, 4, 5) + 0.8 * noise(60, 1, 4, 5).roll(1, -1))
INFORMED = [priors.SpectralGaussian((1, 4, 5)), priors.EOFGaussian((1, 4, 5), 3), priors.FullGaussian((1, 4, 5))]


@pytest.mark.parametrize("prior", INFORMED, ids=lambda p: type(p).__name__)
def test_informed_priors_weigh_modes_by_their_own_variance(prior):
    """Unless told otherwise the loss is ‖C^-½ (residual)‖². Broken: metric = "plain" in EOFGaussian."""
    prior = prior.fit(FIELDS)
    x0 = prior.sample(FIELDS, gen())
    gap = (FIELDS.x - x0).flatten(1)
    wanted = (gap * torch.linalg.solve(covariance(prior, (1, 4, 5)), gap.T).T).mean(1)
    assert torch.allclose(Flow(Still(), prior).loss(FIELDS, gen(), x0), wanted)
