"""Random probes until they are good enough, degrees of freedom on subspaces, and known pitfalls of likelihoods."""

import math
import warnings
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from scifm import Batch, Flow, Solver
from scifm.data import transforms
from scifm.likelihood import bits_per_dim
from scifm.noise import Noise
from scifm.priors import Gaussian
from scifm.solve import Solution
from scifm.trace import Colours, Exact, Hutchinson, HutchPlusPlus

FIXED = Solver("rk4", steps=4)


class Shear(nn.Module):
    """Divergence zero, but a full off-diagonal Jacobian: all the noise is the probes'."""

    def forward(self, t, x, batch):
        return x.roll(1, -1) + 2 * x.roll(2, -1)


def data(n=30, event=(5,)):
    return Batch(torch.randn(n, *event, generator=torch.Generator().manual_seed(0), dtype=torch.float64))


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def score(precision=None, trace=Hutchinson(2), **settings):
    settings = {"solver": FIXED, "check": 0, "generator": rng(), **settings}
    return bits_per_dim(Flow(Shear(), Gaussian()), data(), trace=trace, precision=precision, **settings)


# -- precision -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("trace", [Hutchinson(2), Hutchinson(1), Hutchinson(3, "gaussian"), HutchPlusPlus(4)], ids=str)
def test_probes_are_added_until_the_precision_is_reached(trace):
    rough = score(trace=Hutchinson(2)).probe_stderr
    goal = rough / 3
    result = score(goal, trace, most=1000)
    drawn = len(trace.draw(data()))
    assert result.probe_stderr <= goal and result.probes % drawn == 0 and result.probes > 2 * drawn
    assert f"{result.probes} probe(s)" in str(result) and result.to_dict()["probes"] == result.probes
    # one turn less was not enough
    with pytest.warns(UserWarning, match="precision="):
        before = score(goal, trace, most=result.probes - drawn)
    assert before.probe_stderr is None or before.probe_stderr > goal


def test_the_error_of_pooled_probes_is_the_spread_of_the_value():
    exact, one = score(trace=Exact()), score(trace=Hutchinson(2)).probe_stderr
    assert 0.1 < one < 0.25  # so that several turns are needed
    results = [score(0.08, generator=rng(s), most=1000) for s in range(25)]
    away = torch.tensor([r.value - exact.value for r in results])
    claimed = torch.tensor([r.probe_stderr for r in results])
    assert (claimed <= 0.08).all() and abs(float(away.mean())) < 4 * float(away.std()) / 5
    assert 0.7 < float(away.std() / claimed.mean()) < 1.4


@pytest.mark.parametrize("probes", [1, 2])
def test_probes_of_one_sample_that_agree_by_chance_are_not_believed(probes):
    """v·Jv takes few values where J is small: two Rademacher probes are often equal, and their spread zero."""
    flow, one, pairs = Flow(Shear(), Gaussian()), data(1), 0
    for seed in range(20 if probes == 2 else 4):
        settings = {"solver": FIXED, "check": 0, "generator": rng(seed), "trace": Hutchinson(probes)}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # ten are the most
            found = bits_per_dim(flow, one, precision=1e-6, most=10, **settings)
        assert found.probes >= 9
        pairs += probes == 2 and bits_per_dim(flow, one, **settings).probe_stderr < 1e-6
        loose = bits_per_dim(flow, one, precision=10.0, **settings)  # any spread will do
        assert loose.probes == (9 if probes == 1 else 10)
    assert pairs > 0 or probes == 1  # it does happen
    assert score(10.0).probes == 2  # thirty samples have thirty differences


def test_it_stops_at_the_limit_with_a_warning_that_says_what_to_do():
    with pytest.warns(UserWarning, match=r"after 6 probes per sample, precision=1e-06.*raise most=7.*Colours"):
        result = score(1e-6, most=7)
    assert result.probes == 6 and result.probe_stderr > 1e-6


def test_an_exact_trace_needs_no_second_turn():
    seen = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = score(1e-9, Exact(), progress=seen.append)
    assert sum(seen) == 30 and result.probes == 0 and result.probe_stderr is None and "exact trace" in str(result)


def test_every_turn_shows_progress_and_is_counted():
    seen = []
    with pytest.warns(UserWarning):
        result = score(1e-9, most=6, chunk=20, progress=seen.append)
    assert seen == [20, 10] * 3
    assert result.nfe == 3 * score().nfe


def test_the_first_turn_is_what_it_was_and_later_ones_keep_the_dequantised_data():
    one = score(delta=0.1)
    with pytest.warns(UserWarning):
        again = score(1e-9, delta=0.1, most=3)  # a second turn would be four probes
    assert one.per_sample == again.per_sample
    noise = Noise(7, 0.5, 2, Hutchinson(2))
    first, later, twice = (noise(data(), range(3, 9), turn) for turn in (0, 1, 1))
    for a, b in zip(first[0], later[0], strict=True):
        assert torch.equal(a.x, b.x)
    for a, b, c in zip(first[1], later[1], twice[1], strict=True):
        assert not torch.equal(a, b) and torch.equal(b, c)
    alone = noise(data(), range(5, 6), 1)
    assert torch.equal(alone[1][1], later[1][1][:, 2:3])  # a seed per sample, in later turns too


def test_turns_do_not_depend_on_the_chunks():
    values = []
    for chunk in (4, 100):
        with pytest.warns(UserWarning):
            values.append(torch.tensor(score(1e-9, most=8, chunk=chunk).per_sample))
    assert torch.allclose(*values, atol=1e-12)


@pytest.mark.parametrize("bad", [{"precision": 0.0}, {"precision": math.nan}, {"precision": 0.1, "most": 0}])
def test_bad_settings(bad):
    with pytest.raises(ValueError, match="precision must be"):
        score(**bad)


# -- degrees of freedom --------------------------------------------------------------------------------


@dataclass
class Masked:
    """A flow, by the methods that a score uses: standard normal on the first `free` of five values."""

    free: int

    @property
    def prior(self):
        return self

    def dims(self, like):
        return torch.full((len(like),), float(self.free), dtype=like.x.dtype)

    def density(self, batch, trace, solver, probes):
        x = batch.x[:, : self.free].double()
        log_prob = -0.5 * (x.square() + math.log(2 * math.pi)).sum(1)
        nothing = torch.zeros(len(x), 1, dtype=torch.float64)
        count = torch.zeros(len(x), dtype=torch.long)
        return log_prob, Solution(batch.x, nothing, count, count, count, solver)


@pytest.mark.parametrize("free", [1, 3, 5])
def test_bits_are_divided_by_the_degrees_of_freedom_and_bins_have_as_many_sides(free):
    batch = data(4000)
    entropy = 0.5 * math.log2(2 * math.pi * math.e)
    result = bits_per_dim(Masked(free), batch, trace=Exact(), check=0)
    assert result.dims == free and abs(result.value - entropy) < 4 * result.stderr
    binned = bits_per_dim(Masked(free), batch, trace=Exact(), check=0, delta=0.05)
    assert abs(binned.value - (entropy - math.log2(0.05))) < 4 * binned.stderr


def test_a_sample_without_freedom_is_refused():
    with pytest.raises(ValueError, match="at least one value"):
        bits_per_dim(Masked(0), data(), trace=Exact())


# -- pitfalls of others (bayesflow 772, flow_matching 49, cBottle, ott, ffjord) -------------------------


def test_probes_are_averaged_and_not_summed():
    """Eight probes must not give eight times the divergence."""
    flow = Flow(Grow(), Gaussian())
    values = [bits_per_dim(flow, data(), trace=t, check=0).value for t in (Exact(), Hutchinson(1), Hutchinson(8))]
    assert max(values) - min(values) < 1e-9


class Grow(nn.Module):
    def forward(self, t, x, batch):
        return 0.7 * x


def test_probes_are_drawn_once_per_solve_and_sample():
    drawn = []

    class Once(Hutchinson):
        def draw(self, like, generator=None):
            drawn.append(len(like))
            return super().draw(like, generator)

    bits_per_dim(Flow(Shear(), Gaussian()), data(6), trace=Once(2), check=0, chunk=4)
    assert drawn == [1] * 6


@pytest.mark.parametrize("trace", [Exact(), Hutchinson(2), HutchPlusPlus(4), Colours(0, signs=2)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_both_dtypes_are_scored_on_events_of_any_rank(trace, dtype):
    """float32 probes with float64 data raise, and events of rank above one index out of range, in a peer."""
    batch = data(4, (2, 3, 5)).to(dtype)
    result = bits_per_dim(Flow(Grow(), Gaussian()), batch, trace=trace)
    closed = Gaussian(std=math.exp(0.7)).log_prob(batch.x.double(), batch.to(torch.float64))
    error = 0.0 if result.probe_stderr is None else 5 * result.probe_stderr  # Hutch++ is not exact for diagonals
    assert abs(result.value + float(closed.mean()) / (30 * math.log(2))) < 1e-4 + error


def test_bits_are_bits_and_not_nats():
    batch = data(50)
    flow = Flow(Shear(), Gaussian())
    nats = -float(flow.log_prob(batch, Exact()).mean()) / 5
    assert abs(bits_per_dim(flow, batch, trace=Exact()).value * math.log(2) - nats) < 1e-12


def test_the_normalisers_volume_counts():
    """Scaled by 1/50 and back, the density per unit is the same law's."""
    batch = data(50)
    plain = bits_per_dim(Flow(Grow(), Gaussian()), batch, trace=Exact())
    wide = batch.replace(50 * batch.x)
    scaled = bits_per_dim(
        Flow(Grow(), Gaussian(), transform=transforms.Affine(shift=0.0, scale=0.02)), wide, trace=Exact()
    )
    assert abs(scaled.value - plain.value - math.log2(50)) < 1e-9
