"""Paths, times and couplings: their laws, through the public checks and by hand."""

import itertools

import pytest
import torch

from scifm import couplings, paths, times
from scifm.batch import Batch
from scifm.priors import Gaussian
from scifm.testing import check_coupling, check_path

INDEX = torch.tensor([0, 0, 1, 1, 2, 2, 2, 3, 3])
RAGGED = Batch(torch.randn(9, 3, generator=torch.Generator().manual_seed(0)), INDEX, 4)
DENSE = Batch(torch.randn(3, 3, generator=torch.Generator().manual_seed(0)))  # B == D on purpose


@pytest.mark.parametrize("path", [paths.Linear(), paths.Linear(0.1)])
@pytest.mark.parametrize("like", [RAGGED, DENSE, Batch(torch.zeros(1, 2, 3, 3))])
def test_linear_path_passes_the_public_check(path, like):
    check_path(path, like)


class Late(paths.Path):
    """Wrong: the velocity forgets the inner derivative."""

    def coefficients(self, t):
        return t**2, 1 - t**2, t, -t


class Swapped(paths.Path):
    """Wrong: time runs from data to prior."""

    def coefficients(self, t):
        return 1 - t, t, -torch.ones_like(t), torch.ones_like(t)


@pytest.mark.parametrize(("path", "says"), [(Late(), "not the time derivative"), (Swapped(), "multiple of x0")])
def test_wrong_paths_are_caught(path, says):
    with pytest.raises(AssertionError, match=says):
        check_path(path, DENSE)


def test_what_is_left_of_the_prior_at_the_end_is_the_priors_own_draw():
    x0 = 100 + torch.zeros(3, 3)
    x_1, _ = paths.Linear(0.01)(x0, torch.zeros(3, 3), torch.ones(3), DENSE)
    assert torch.allclose(x_1, torch.ones(3, 3))


@pytest.mark.parametrize("sigma", [-0.1, 1.0])
def test_sigma_min_out_of_range(sigma):
    with pytest.raises(ValueError, match="sigma_min"):
        paths.Linear(sigma)


SAMPLERS = {"uniform": times.uniform, "stratified": times.stratified, "logit-normal": times.logit_normal(0.5, 0.8)}


@pytest.mark.parametrize("name", SAMPLERS)
def test_times_are_seeded_within_the_interval_and_leave_the_global_state(name):
    state = torch.get_rng_state()
    t, again, other = (SAMPLERS[name](1000, torch.Generator().manual_seed(s)) for s in (0, 0, 1))
    assert torch.equal(t, again) and not torch.equal(t, other)
    assert t.shape == (1000,) and (t >= 0).all() and (t <= 1).all()
    assert torch.equal(state, torch.get_rng_state())


def test_stratified_has_one_time_per_interval_and_independent_order():
    t = times.stratified(100, torch.Generator().manual_seed(0))
    assert torch.equal((t * 100).long().sort().values, torch.arange(100))
    assert not torch.equal(t, t.sort().values)


def test_uniform_and_logit_normal_have_their_moments():
    g = torch.Generator().manual_seed(0)
    t = times.uniform(100_000, g)
    assert abs(float(t.mean()) - 0.5) < 0.005 and abs(float(t.var()) - 1 / 12) < 0.002
    logits = torch.logit(times.logit_normal(0.5, 0.8)(100_000, g))
    assert abs(float(logits.mean()) - 0.5) < 0.01 and abs(float(logits.std()) - 0.8) < 0.01
    with pytest.raises(ValueError, match="std"):
        times.logit_normal(0, 0)


LABELLED = Batch(torch.randn(12, 2, generator=torch.Generator().manual_seed(1)), context={"y": torch.arange(12) % 3})


@pytest.mark.parametrize("batch", [RAGGED, DENSE, LABELLED, Batch(torch.randn(5, 1, 4, 4)), Batch(torch.zeros(1, 2))])
@pytest.mark.parametrize("coupling", [couplings.independent, couplings.OptimalTransport()])
def test_couplings_pass_the_public_check(coupling, batch):
    check_coupling(coupling, batch)


def test_optimal_transport_is_the_best_of_all_permutations():
    g = torch.Generator().manual_seed(3)
    x0, x1 = torch.randn(6, 4, generator=g) + 50, torch.randn(6, 4, generator=g)  # far apart: centring matters
    paired = couplings.OptimalTransport()(x0, Batch(x1))
    gap = lambda y: float((y.double() - x1).square().sum())  # noqa: E731
    assert abs(gap(paired) - min(gap(x0[list(p)]) for p in itertools.permutations(range(6)))) < 1e-6


def test_grids_keep_their_shape_and_gain():
    g = torch.Generator().manual_seed(4)
    batch = Batch(torch.randn(32, 3, 2, 2, generator=g))
    x0 = torch.randn(32, 3, 2, 2, generator=g)
    paired = couplings.OptimalTransport()(x0, batch)
    assert paired.shape == x0.shape
    assert (paired - batch.x).square().sum() < 0.9 * (x0 - batch.x).square().sum()


def test_conditions_are_never_crossed_even_where_it_would_pay():
    x1 = torch.tensor([[0.0], [10.0], [0.0], [10.0]])
    x0 = torch.tensor([[10.0], [0.0], [10.0], [0.0]])
    free = couplings.OptimalTransport()(x0, Batch(x1))
    assert torch.equal(free, x1)
    bound = couplings.OptimalTransport()(x0, Batch(x1, context={"y": torch.tensor([0, 1, 0, 1])}))
    assert torch.equal(bound, x0)


def test_a_coupling_that_samples_with_replacement_is_caught():
    def careless(x0, batch, generator=None):
        return x0[torch.randint(len(x0), (len(x0),), generator=generator)]

    def crosses(x0, batch, generator=None):
        return x0.flip(0)

    with pytest.raises(AssertionError, match="exactly once"):
        check_coupling(careless, Batch(torch.randn(12, 2)))
    with pytest.raises(AssertionError, match="share size and conditions"):
        check_coupling(crosses, LABELLED)


def test_nothing_to_pair_is_said():
    batch = Batch(torch.randn(4, 2), context={"forecast": torch.randn(4, 3)})
    with pytest.warns(UserWarning, match="nothing to pair"):
        couplings.OptimalTransport()(torch.randn(4, 2), batch)


def test_context_that_the_velocity_does_not_see_can_be_ignored():
    x1, x0 = torch.tensor([[0.0], [10.0]]), torch.tensor([[10.0], [0.0]])
    batch = Batch(x1, context={"time": torch.tensor([1.0, 2.0]), "label": torch.tensor([0, 0])})
    assert torch.equal(couplings.OptimalTransport(ignore=("time",))(x0, batch), x1)
    other = Batch(x1, context={"time": torch.tensor([1.0, 2.0]), "label": torch.tensor([0, 1])})
    with pytest.warns(UserWarning, match="time, label"):
        assert torch.equal(couplings.OptimalTransport(ignore=("time",))(x0, other), x0)


def test_bad_input():
    with pytest.raises(ValueError, match="shaped like the data"):
        couplings.OptimalTransport()(torch.zeros(3, 2), Batch(torch.zeros(3, 3)))
    with pytest.raises(ValueError, match="not finite"):
        couplings.OptimalTransport()(torch.full((3, 3), torch.nan), DENSE)


def test_a_data_prior_is_used_as_it_is():
    prior = Gaussian(mean=100.0, std=1e-3)
    x0 = prior.sample(DENSE, torch.Generator().manual_seed(0))
    x_t, u_t = paths.Linear()(x0, DENSE.x, torch.zeros(3), DENSE)
    assert torch.equal(x_t, x0) and torch.equal(u_t, DENSE.x - x0)


class Wrong(paths.Path):
    """Straight lines with one thing wrong."""

    def __init__(self, fault=None):
        self.fault = fault

    def coefficients(self, t):
        a, s, da, ds = paths.Linear().coefficients(t)
        fault = self.fault
        if fault == "near the start":
            da = torch.where(t < 0.01, 2.0, da)
        if fault == "near the end":
            da = torch.where(t > 0.99, 2.0, da)
        if fault == "at the start only":
            da = torch.where(t == 0, 2.0, da)
        if fault == "jumps after the start":
            a = torch.where((t > 0) & (t < 0.05), 7.0, a)
        if fault == "infinite at the end":
            da = torch.where(t == 1, torch.inf, da)
        if fault == "keeps the prior":
            s, ds = torch.ones_like(t), torch.zeros_like(t)
        if fault == "always double":
            a = a.double()
        if fault == "single precision" and t.dtype == torch.float32:
            ds = 3 * ds
        return a, s, da, ds

    def __call__(self, x0, x1, t, like, generator=None):
        if self.fault == "one time for all":
            t = t[:1].expand_as(t)
        x, u = super().__call__(x0, x1, t, like)
        if self.fault == "falls short":
            x, u = 0.9 * x, 0.9 * u
        if self.fault == "shape of the point":
            return x.flatten(), u
        return (x, u.float()) if self.fault == "dtype of the velocity" else (x, u)


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("near the start", "not the time derivative of x_t at t=0"),
        ("near the end", "not the time derivative of x_t at t=0.999"),
        ("at the start only", "not the time derivative of x_t at t=0 "),
        ("jumps after the start", "not the time derivative"),
        ("infinite at the end", "not finite at t=1"),
        ("falls short", "away from α x1"),
        ("keeps the prior", "multiple of x1"),
        ("single precision", "u_t in torch.float32"),
        ("always double", "x_t: expected shape.*float32"),
        ("one time for all", "own time"),
        ("shape of the point", "x_t: expected shape"),
        ("dtype of the velocity", "u_t: expected shape"),
    ],
)
def test_each_law_of_a_path_has_a_path_that_breaks_it(fault, says):
    with pytest.raises(AssertionError, match=says):
        check_path(Wrong(fault), DENSE)
    check_path(Wrong(), DENSE)


def test_a_path_needs_a_sample_to_be_checked():
    with pytest.raises(ValueError, match="at least one sample"):
        check_path(paths.Linear(), Batch(torch.zeros(0, 3)))


def unseeded(x0, batch, generator=None):
    state = torch.get_rng_state()
    unseeded.calls += 1
    order = torch.randperm(len(x0), generator=torch.Generator().manual_seed(unseeded.calls))
    torch.set_rng_state(state)
    return x0[order]


unseeded.calls = 0


def changes_the_data(x0, batch, generator=None):
    batch.x.add_(1)
    return x0


def changes_the_draws(x0, batch, generator=None):
    return x0.copy_(x0.flip(0).clone())


def uses_the_global_state(x0, batch, generator=None):
    torch.rand(())
    return x0


def in_double(x0, batch, generator=None):
    return x0.double()


@pytest.mark.parametrize(
    ("coupling", "says"),
    [
        (unseeded, "two calls with equal generators differ"),
        (changes_the_data, "in place"),
        (changes_the_draws, "in place"),
        (uses_the_global_state, "global random state"),
        (in_double, "expected shape, dtype"),
    ],
)
def test_each_law_of_a_coupling_has_a_coupling_that_breaks_it(coupling, says):
    with pytest.raises(AssertionError, match=says):
        check_coupling(coupling, Batch(torch.randn(6, 2, generator=torch.Generator().manual_seed(0))))


def test_the_check_knows_ignored_context_and_empty_samples():
    timed = Batch(torch.randn(6, 2), context={"time": torch.arange(6.0)})
    check_coupling(couplings.OptimalTransport(ignore=("time",)), timed, ignore=("time",))
    with pytest.raises(AssertionError, match="exactly once"):
        check_coupling(couplings.OptimalTransport(ignore=("time",)), timed)
    check_coupling(couplings.OptimalTransport(), Batch(torch.randn(3, 2), torch.tensor([0, 3, 3]), 5))
