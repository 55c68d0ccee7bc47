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


@pytest.mark.parametrize(("path", "says"), [(Late(), "not the time derivative"), (Swapped(), "away from x0")])
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
    best = min(float((x0[list(p)] - x1).square().sum()) for p in itertools.permutations(range(6)))
    assert abs(float((paired - x1).square().sum()) - best) < 1e-3 * best


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
