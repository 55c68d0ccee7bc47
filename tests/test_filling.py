"""Gaps filled: an untrained flow is its Gaussian prior, whose conditional law dense linear algebra knows."""

from __future__ import annotations

import math

import pytest
import torch

from scifm import Batch, Flow, Solver, couplings, networks, priors, trace
from scifm.data.channels import PerChannel
from scifm.data.transforms import Affine, BoxCox, Climatology, Log
from scifm.filling import LARGEST, fill, usual_noise
from scifm.parts import Parts
from scifm.priors import spectra

SHAPE = (1, 3, 4)
D = 12
CLOSE = Solver(rtol=1e-6, atol=1e-6)


class Nothing(torch.nn.Module):
    """An untrained network: zero."""

    symmetries = frozenset()

    def forward(self, t, x, batch):
        return torch.zeros_like(x)


def flow_of(dtype=torch.float64, kind="full"):
    """N(m, C) in model units, kelvin outside."""
    g = torch.Generator().manual_seed(0)
    mix = torch.randn(D, D, generator=g, dtype=dtype)
    data = Batch((torch.randn(600, D, generator=g, dtype=dtype) @ mix + 0.5).reshape(600, *SHAPE))
    if kind == "full":
        prior = priors.FullGaussian(SHAPE).fit(data)
    else:
        prior = priors.SpectralGaussian(SHAPE, (False, True), spectra.PerMode()).fit(data)
    return Flow(networks.GaussianSkip(Nothing()), prior, transform=Affine(shift=-280.0, scale=0.5))


def law_of(flow, dtype=torch.float64):
    """Mean (D,) and covariance (D, D) in kelvin."""
    one = Batch(torch.zeros(D, *SHAPE, dtype=dtype))
    m = flow.prior.colour(one.x[:1], one.select([0]))
    L = (flow.prior.colour(torch.eye(D, dtype=dtype).reshape(D, *SHAPE), one) - m).reshape(D, D).T
    return (m.flatten() / 0.5 + 280).double(), (L @ L.T / 0.25).double()


def conditional(m, C, where, values, noise):
    """Mean and covariance of N(m, C) given values at some places."""
    S = C[where][:, where] + noise.square().diag()
    K = torch.linalg.solve(S, C[where]).T
    return m + K @ (values - m[where]), C - K @ C[where]


def gappy(seed=1, shares=(0.5, 0.2, 0.9)):
    """Fields with gaps, what is there, and how far each value may be off."""
    g = torch.Generator().manual_seed(seed)
    x = 280 + 4 * torch.randn(len(shares), *SHAPE, generator=g, dtype=torch.float64)
    observed = torch.rand(x.shape, generator=g) < torch.tensor(shares)[:, None, None, None]
    noise = 0.05 + 0.5 * torch.rand(x.shape, generator=g, dtype=torch.float64)
    return Batch(torch.where(observed, x, math.nan)), observed, noise


def filled(flow, batch, observed, noise, members, **how):
    """All members at once, (B, members, ...)."""
    chunks = list(fill(flow, batch, observed, noise, members, **how))
    return {n: torch.cat([c[n] for c in chunks]).unflatten(0, (len(batch), members)) for n in chunks[0]}


# -- the law ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["full", "spectral"])
def test_members_have_the_exact_conditional_law(kind):
    flow, (batch, observed, noise), members = flow_of(kind=kind), gappy(), 500
    m, C = law_of(flow)
    x = filled(flow, batch, observed, noise, members, solver=CLOSE, chunk=members)["x"].flatten(2)
    for f in range(3):
        where = observed[f].flatten()
        mean, cov = conditional(m, C, where, batch.x[f].flatten()[where], noise[f].flatten()[where])
        white = torch.linalg.solve_triangular(torch.linalg.cholesky(cov), (x[f] - mean).T, upper=False)
        assert (white.mean(1).abs() < 4.5 / members**0.5).all()
        off = white @ white.T / members - torch.eye(D)
        assert (off.abs() < 4.5 * (torch.ones(D, D) + torch.eye(D)).sqrt() / members**0.5).all()


def test_weights_are_constant_for_gaussian_data():
    """log p(x) p(y | x) / q(x | y) is the evidence, log N(y; m, C + R), whatever the member."""
    flow, (batch, observed, noise) = flow_of(), gappy()
    m, C = law_of(flow)
    tight = Solver(rtol=1e-8, atol=1e-8)
    found = filled(flow, batch, observed, noise, 3, solver=tight, trace=trace.Exact())["log_weight"]
    for f in range(3):
        w = observed[f].flatten()
        law = torch.distributions.MultivariateNormal(m[w], C[w][:, w] + noise[f].flatten()[w].square().diag())
        evidence = law.log_prob(batch.x[f].flatten()[w])
        torch.testing.assert_close(found[f], evidence.expand(3), atol=1e-4, rtol=0)
    assert "log_weight" not in filled(flow, batch, observed, noise, 1)


def test_less_noise_holds_members_closer():
    flow, (batch, observed, _) = flow_of(), gappy()
    off = []
    for size in (1.0, 0.1, 0.01):
        noise = torch.full_like(batch.x, size)
        x = filled(flow, batch, observed, noise, 50, solver=CLOSE)["x"]
        off.append(float((x - batch.x[:, None]).transpose(0, 1)[:, observed].square().mean().sqrt()) / size)
    assert all(0.5 < o < 1.1 for o in off)  # in units of the noise


def test_what_is_not_observed_is_not_looked_at():
    flow, (batch, observed, noise) = flow_of(), gappy()
    other = batch.replace(torch.where(observed, batch.x, 1e6))
    blank = torch.where(observed, noise, math.nan)
    one, two = filled(flow, batch, observed, noise, 2), filled(flow, other, observed, blank, 2)
    assert torch.equal(one["x"], two["x"])


def test_where_nothing_is_observed_members_are_draws_of_the_flow():
    flow, (batch, observed, noise) = flow_of(), gappy()
    observed[1] = False
    found = filled(flow, batch, observed, noise, 400, trace=trace.Exact(), chunk=400, solver=Solver("rk4", steps=8))
    m, C = law_of(flow)
    z = (found["x"][1].flatten(1) - m) / C.diagonal().sqrt()
    assert (z.mean(0).abs() < 4.5 / 20).all() and ((z.var(0) - 1).abs() < 4.5 * (2 / 400) ** 0.5).all()
    assert (found["log_weight"][1] == 0).all() and (found["log_weight"][0] != 0).all()


def test_land_stays_empty_and_plays_no_part():
    mask = torch.ones(SHAPE, dtype=torch.bool)
    mask[0, 0, :2] = False
    flow = Flow(
        networks.GaussianSkip(Nothing()), priors.Masked(mask), transform=PerChannel([Affine(-280.0, 0.5)], mask)
    )
    batch, observed, noise = gappy()
    observed &= mask
    values = batch.replace(torch.where(observed, batch.x, math.nan).where(mask, 0.0))
    x = filled(flow, values, observed, noise, 400, chunk=400, solver=CLOSE)["x"]
    assert (x[:, :, ~mask] == 0).all()
    gain = 4 / (4 + noise.square())  # of independent values N(280, 2²)
    mean = torch.where(observed, 280 + gain * (values.x - 280), torch.tensor(280.0))
    sd = torch.where(observed, 4 * (1 - gain), torch.tensor(4.0)).sqrt()
    z = ((x - mean[:, None]) / sd[:, None])[:, :, mask]
    assert (z.mean(1).abs() < 4.5 / 20).all() and ((z.var(1) - 1).abs() < 4.5 * (2 / 400) ** 0.5).all()


def test_each_field_has_the_cycle_of_its_own_day():
    g = torch.Generator().manual_seed(0)
    time = torch.arange(1460, dtype=torch.float64) / 2
    x = 280 + 10 * torch.cos(2 * math.pi * time / 365.25)[:, None, None, None] + torch.randn(1460, *SHAPE, generator=g)
    train = Batch(x, context={"time": time})
    cycle = Climatology(1, hours=[0.0, 12.0], per="global").fit(train)
    prior = priors.SpectralGaussian(SHAPE, (False, True)).fit(cycle(train))
    flow = Flow(networks.GaussianSkip(Nothing()), prior, transform=cycle)
    two = train.select([0, 365])  # winter and summer
    observed = torch.zeros(2, *SHAPE, dtype=torch.bool)
    observed[:, 0, 0, 0] = True
    found = filled(flow, two, observed, torch.full_like(two.x, 0.1), 60, solver=CLOSE)["x"]
    assert abs(float(found[0].mean()) - 290) < 0.6 and abs(float(found[1].mean()) - 270) < 0.6
    assert ((found[:, :, 0, 0, 0] - two.x[:, None, 0, 0, 0]).abs() < 0.5).all()


# -- numbers and chunks ----------------------------------------------------------------------------------


def test_a_member_is_the_same_whatever_the_chunk_and_whatever_the_other_fields():
    flow, (batch, observed, noise) = flow_of(), gappy()
    how = {"seed": 3, "trace": trace.Exact(), "solver": Solver("rk4", steps=6)}
    whole = filled(flow, batch, observed, noise, 5, **how)
    for chunk in (1, 2):
        pieces = filled(flow, batch, observed, noise, 5, chunk=chunk, **how)
        torch.testing.assert_close(pieces["x"], whole["x"], atol=1e-9, rtol=0)
        torch.testing.assert_close(pieces["log_weight"], whole["log_weight"], atol=1e-7, rtol=0)
    first = filled(flow, batch.select([0]), observed[:1], noise[:1], 3, **how)["x"]
    torch.testing.assert_close(first[0], whole["x"][0, :3], atol=1e-9, rtol=0)
    other = filled(flow, batch, observed, noise, 1, **how | {"seed": 4})["x"]
    assert float((other - whole["x"][:, :1]).abs().max()) > 0.1


def test_fields_and_members_have_streams_of_their_own():
    flow, (batch, observed, noise) = flow_of(), gappy()
    same = filled(flow, batch.select([0, 0]), observed[[0, 0]], noise[[0, 0]], 3)["x"].flatten(0, 1).flatten(1)
    assert float(torch.cdist(same, same).fill_diagonal_(1e9).min()) > 0.1


def test_finished_chunks_are_read_and_progress_is_told(tmp_path):
    flow, (batch, observed, noise) = flow_of(torch.float32), gappy()
    batch, noise, told = batch.replace(batch.x.float()), noise.float(), []
    straight = filled(flow, batch, observed, noise, 5, chunk=2)
    with Parts.of(tmp_path / "f.nc", {}) as parts:
        made = fill(flow, batch, observed, noise, 5, chunk=2, keep=parts, progress=told.append)
        next(made), next(made)
        assert parts.done == 4 and told == [2]  # a chunk is told when the next is asked for
        names = sorted(p.name for p in parts.folder.glob("*.safetensors"))
        assert names == ["0000000000-0000000002.safetensors", "0000000002-0000000004.safetensors"]
        again = filled(flow, batch, observed, noise, 5, chunk=2, keep=parts, progress=told.append)
        assert parts.done == 15 and sum(told) == 2 + 15
        parts.remove()
    assert all(torch.equal(again[n], straight[n]) for n in straight)
    assert again["x"].dtype == torch.float32 and again["nfe"].shape == (3, 5)


# -- noise -----------------------------------------------------------------------------------------------


def test_usual_noise_is_rounding_or_a_hundredth_of_the_anomalies():
    g = torch.Generator().manual_seed(0)
    mask = torch.ones(2, 3, 4, dtype=torch.bool)
    mask[0, 0] = False
    scales = torch.tensor([3.0, 50.0])[:, None, None]
    train = Batch(torch.where(mask, 280 + scales * torch.randn(4000, 2, 3, 4, generator=g, dtype=torch.float64), 0.0))
    transform = PerChannel([Affine(-280.0, 1 / 3), Affine(-280.0, 1 / 50)], mask)
    flow = Flow(networks.GaussianSkip(Nothing()), priors.Masked(mask), transform=transform)
    like = train.select([0, 1])
    found = usual_noise(flow, like, train, [None, None])
    expected = torch.where(mask, 0.01 * scales, 0.0).double().expand_as(found)
    torch.testing.assert_close(found, expected, atol=0, rtol=0.02)
    some = usual_noise(flow, like, train, [0.1, None])
    assert ((some[:, 0] - 0.1 / math.sqrt(12)).abs() < 1e-12).all()
    assert torch.equal(some[:, 1], found[:, 1])


# -- what is refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change, says",
    [
        ({"observed": torch.ones(1, *SHAPE)}, "expected observed .bool. and noise of the shape of the fields"),
        ({"observed": torch.ones(3, 1, 3, 3, dtype=torch.bool)}, r"\(3, 1, 3, 4\), got torch.bool \(3, 1, 3, 3\)"),
        ({"noise": torch.zeros(3, *SHAPE)}, "noise must be positive where something is observed"),
        ({"noise": torch.full((3, *SHAPE), math.nan)}, "noise must be positive"),
    ],
)
def test_refuses_at_the_call(change, says):
    batch, observed, noise = gappy()
    arguments = {"observed": observed, "noise": noise} | change
    with pytest.raises(ValueError, match=f"fill: .*{says}"):
        fill(flow_of(), batch, members=2, **arguments)


def test_too_many_observations_are_refused():
    large = Batch(torch.zeros(1, 1, 91, 91))
    everything = torch.ones_like(large.x, dtype=torch.bool)
    flow = Flow(networks.GaussianSkip(Nothing()), priors.Gaussian())
    with pytest.raises(ValueError, match=f"8281 values .* more than {LARGEST} .* leave some out"):
        fill(flow, large, everything, torch.ones_like(large.x), 1)


@pytest.mark.parametrize("transform", [Log(), BoxCox(0.5, shift=1.0)])
def test_flows_of_powers_and_logarithms_are_refused_at_the_call(transform):
    batch, observed, noise = gappy()
    flow = Flow(networks.GaussianSkip(Nothing()), priors.Gaussian(), transform=transform)
    with pytest.raises(ValueError, match="fill: the transform of this flow is not affine .*--amounts"):
        fill(flow, batch, observed, noise, 2)


def test_flows_that_do_not_tell_are_refused_at_the_call():
    batch, observed, noise = gappy()
    paired = Flow(Nothing(), priors.Gaussian(), coupling=couplings.OptimalTransport())
    with pytest.raises(ValueError, match="independent"):
        fill(paired, batch, observed, noise, 2)
    drawn = Flow(Nothing(), priors.Empirical(Batch(torch.randn(9, *SHAPE))))
    with pytest.raises(ValueError, match="Gaussian prior that whitens"):
        fill(drawn, batch, observed, noise, 2)
