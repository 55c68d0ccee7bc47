"""Torch distributions and zuko flows as priors: the same density, our randomness."""

import copy
import math

import pytest
import torch
from torch import distributions as laws
from torch import nn

from scifm.batch import Batch
from scifm.priors import FromTorch, FromZuko, Gaussian
from scifm.priors.lent import lent, local

DOUBLE = torch.float64


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed), dtype=DOUBLE)


def copula():
    return laws.TransformedDistribution(
        laws.Independent(laws.Normal(torch.zeros(3), torch.tensor([1.0, 2.0, 0.5])), 1),
        [laws.AffineTransform(torch.ones(3), torch.tensor([0.2, 0.3, 0.1])), laws.TanhTransform()],
    )


DISTRIBUTIONS = {
    "normal": lambda: laws.Normal(torch.tensor([0.0, 1.0, 2.0]), 2.0),
    "two axes": lambda: laws.Laplace(torch.zeros(2, 3), torch.ones(3)),
    "event and batch": lambda: laws.MultivariateNormal(torch.zeros(2, 3), torch.eye(3)),
    "low rank": lambda: laws.LowRankMultivariateNormal(torch.zeros(3), torch.ones(3, 1), torch.ones(3)),
    "student": lambda: laws.StudentT(torch.tensor([3.0, 5.0, 9.0])),
    "gamma": lambda: laws.Gamma(torch.tensor([2.0, 3.0, 4.0]), 1.0, validate_args=True),
    "uniform": lambda: laws.Uniform(-torch.ones(3), torch.tensor([1.0, 2.0, 3.0])),
    "exponential": lambda: laws.Exponential(torch.tensor([1.0, 2.0, 3.0])),
    "log normal": lambda: laws.LogNormal(torch.zeros(3), torch.ones(3)),
    "beta": lambda: laws.Beta(torch.tensor([2.0, 3.0, 2.0]), 2.0),
    "transformed": copula,
    "mixture": lambda: laws.MixtureSameFamily(
        laws.Categorical(logits=torch.tensor([0.0, 1.0])),
        laws.Independent(laws.Normal(torch.tensor([[0.0, 0, 0], [3.0, 1, 2]]), torch.ones(2, 3)), 1),
    ),
    "von Mises": lambda: laws.VonMises(torch.zeros(3), torch.ones(3)),
}
EVERY = pytest.mark.parametrize("make", DISTRIBUTIONS.values(), ids=DISTRIBUTIONS)


def summed(d, x):
    return d.log_prob(x).reshape(len(x), -1).sum(1)


@EVERY
@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (DOUBLE, 1e-6)])
def test_the_density_is_the_distributions(make, n, dtype, tolerance):
    d, prior = make(), FromTorch(make())
    torch.manual_seed(0)
    x = d.sample((n,))
    like = Batch(x.to(dtype))
    got = prior.log_prob(like.x, like)
    assert got.shape == (n,) and got.dtype == dtype
    assert torch.allclose(got.float(), summed(d, x), rtol=tolerance, atol=1e-5)  # theirs is in single precision


def test_double_precision_is_double():
    mean, root = noise(4), torch.linalg.cholesky(noise(4, 9) @ noise(4, 9).T)
    d = laws.MultivariateNormal(mean, scale_tril=root)
    like = Batch(noise(5, 4, seed=2))
    assert torch.allclose(FromTorch(d).log_prob(like.x, like), d.log_prob(like.x), rtol=1e-12)
    single = FromTorch(laws.Normal(torch.tensor([0.5]), torch.tensor([2.0])))
    x = Batch(torch.tensor([[1.0 + 1e-12]], dtype=DOUBLE))
    assert torch.allclose(single.log_prob(x.x, x), Gaussian(0.5, 2.0).log_prob(x.x, x), rtol=1e-14)


@EVERY
def test_draws_are_the_distributions_own_and_the_global_state_is_as_before(make):
    d, prior = make(), FromTorch(make())
    like = Batch(torch.zeros(4, *prior.event))
    torch.manual_seed(5)
    wanted = d.sample((4,))
    before = torch.get_rng_state()
    g = generator(5)
    assert torch.allclose(prior.sample(like, g), wanted, rtol=1e-5, atol=1e-6)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(prior.sample(like, g), wanted)  # the generator has moved on


def test_lending_is_as_if_the_generator_had_drawn():
    g, h, before = generator(1), generator(1), torch.get_rng_state()
    with lent(g):
        first = torch.randn(5)
    assert torch.equal(first, torch.randn(5, generator=h)) and torch.equal(g.get_state(), h.get_state())
    assert torch.equal(torch.get_rng_state(), before)


def test_lending_restores_after_an_error():
    before = torch.get_rng_state()
    with pytest.raises(KeyError), lent(generator()):
        torch.randn(3)
        raise KeyError
    assert torch.equal(torch.get_rng_state(), before)


def test_the_global_generator_itself_and_none_move_on():
    for g in (torch.default_generator, None):
        before = torch.get_rng_state()
        with lent(g):
            torch.randn(3)
        assert not torch.equal(torch.get_rng_state(), before)


def test_a_generator_on_another_device_seeds_one_there():
    g = generator()
    assert local(g, torch.device("cpu")) is g and local(None, torch.device("cpu")) is None
    with pytest.raises(ValueError, match="cannot lend"), lent(_Elsewhere()):
        pass


class _Elsewhere:
    device = torch.device("meta")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_draws_on_cuda_leave_both_states_and_equal_those_of_the_cpu():
    prior, like = FromTorch(laws.Normal(torch.zeros(3), 1.0)).cuda(), Batch(torch.zeros(4, 3))
    states = torch.get_rng_state(), torch.cuda.get_rng_state()
    on_cpu, on_cuda = prior.sample(like, generator()), prior.sample(like.to("cuda"), generator())
    assert torch.equal(on_cpu, on_cuda.cpu())
    own = prior.sample(like.to("cuda"), torch.Generator("cuda").manual_seed(0))
    assert own.is_cuda and prior.log_prob(own, like.to("cuda")).is_cuda
    assert torch.equal(states[0], torch.get_rng_state()) and torch.equal(states[1], torch.cuda.get_rng_state())


@pytest.mark.parametrize("make", [DISTRIBUTIONS[n] for n in ("gamma", "uniform", "exponential", "log normal")])
def test_outside_the_support_the_density_is_zero(make):
    prior = FromTorch(make())
    inside = prior.point.float()
    like = Batch(torch.stack([inside, torch.cat([inside[:2], torch.full((1,), -9.0)]), inside]))
    log_prob, score = prior.log_prob(like.x, like), prior.score(like.x, like)
    assert log_prob[1] == -math.inf and log_prob[[0, 2]].isfinite().all() and log_prob[0] == log_prob[2]
    assert score.isfinite().all()


def test_a_nan_is_not_outside_it_is_unknown():
    prior, like = FromTorch(laws.Normal(torch.zeros(2), 1.0)), Batch(torch.tensor([[0.0, math.nan], [0.0, 1.0]]))
    log_prob = prior.log_prob(like.x, like)
    assert log_prob[0].isnan() and log_prob[1].isfinite()


def test_points_of_a_set_are_independent():
    prior = FromTorch(laws.MultivariateNormal(torch.zeros(2), torch.tensor([[2.0, 1.0], [1.0, 2.0]])))
    like = Batch(noise(5, 2), torch.tensor([0, 0, 0, 2, 2]), 4)
    each = laws.MultivariateNormal(torch.zeros(2), torch.tensor([[2.0, 1.0], [1.0, 2.0]])).log_prob(like.x.float())
    wanted = torch.tensor([each[:3].sum(), 0, each[3:].sum(), 0])
    assert torch.allclose(prior.log_prob(like.x, like).float(), wanted, atol=1e-5)
    assert prior.sample(like, generator()).shape == (5, 2)


def test_parameters_are_saved_and_do_not_learn_and_the_original_is_left_alone():
    scale = torch.tensor([1.0, 2.0], requires_grad=True)
    d = laws.Normal(torch.zeros(2), scale * 1)  # not a leaf, which a plain deep copy refuses
    prior, fresh = FromTorch(d), FromTorch(laws.Normal(torch.ones(2), torch.ones(2)))
    fresh.load_state_dict(prior.state_dict())
    like = Batch(noise(3, 2))
    assert torch.equal(fresh.log_prob(like.x, like), prior.log_prob(like.x, like))
    assert not prior.log_prob(like.x, like).requires_grad and d.scale.requires_grad
    twin = copy.deepcopy(prior)
    assert torch.equal(twin.sample(like, generator()), prior.sample(like, generator()))


class NoDensity(laws.Distribution):
    arg_constraints = {}
    support = laws.constraints.real

    def __init__(self):
        super().__init__(torch.Size([2]), validate_args=False)

    def sample(self, sample_shape=torch.Size()):
        return torch.zeros(*sample_shape, 2)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: FromTorch(laws.Poisson(torch.ones(3))), "Poisson is discrete"),
        (lambda: FromTorch(laws.Categorical(torch.ones(2, 3))), "Categorical is discrete"),
        (lambda: FromTorch(laws.Normal(0.0, 1.0)), r"single numbers; say of how many, with .expand"),
        (lambda: FromTorch(NoDensity()), "NoDensity cannot be a prior"),
        (lambda: FromTorch(laws.Normal(torch.zeros(3), 1.0)).sample(Batch(torch.zeros(3, 2))), r"of shape \(3,\)"),
        (
            lambda: FromTorch(laws.Normal(torch.zeros(3), 1.0)).log_prob(torch.zeros(3, 1), Batch(torch.zeros(3, 1))),
            r"rows of shape \(1,\)",
        ),
        (lambda: FromTorch(laws.Normal(torch.zeros(3), 1.0)).fit(Batch(torch.zeros(3, 3))), "nothing to fit"),
    ],
)
def test_what_cannot_be_a_prior_is_refused(call, says):
    with pytest.raises((ValueError, NotImplementedError), match=says):
        call()


@pytest.mark.parametrize("thing", [laws.Normal, nn.Linear(2, 2), 3.0])
def test_what_is_no_distribution_is_refused(thing):
    with pytest.raises(TypeError, match="expected a torch.distributions.Distribution"):
        FromTorch(thing)


# -- zuko --------------------------------------------------------------------------------------------------


@pytest.fixture
def zuko():
    return pytest.importorskip("zuko", reason="zuko is not installed (extra bench)")


def nsf(zuko, features=2, context=0, dtype=DOUBLE):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return zuko.flows.NSF(features, context, transforms=2, hidden_features=(8,)).to(dtype)


@pytest.mark.parametrize("kind", ["NSF", "MAF", "GMM"])
def test_a_zuko_flow_keeps_its_density_and_draws_from_our_generator(zuko, kind):
    torch.manual_seed(0)
    flow = (zuko.mixtures if kind == "GMM" else zuko.flows).__dict__[kind](2).double()
    prior, like = FromZuko(flow), Batch(noise(4, 2))
    assert torch.equal(prior.log_prob(like.x, like), flow().log_prob(like.x))
    before = torch.get_rng_state()
    draw = prior.sample(like, generator(3))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(3)
    assert torch.equal(draw, flow().sample((4,)))


def test_single_precision_flows_serve_double_data(zuko):
    prior, like = FromZuko(nsf(zuko, dtype=torch.float32)), Batch(noise(4, 2))
    assert prior.sample(like, generator()).dtype == DOUBLE and prior.log_prob(like.x, like).dtype == DOUBLE
    score = prior.score(like.x, like)
    assert score.dtype == DOUBLE and score.abs().max() > 0


def test_fields_are_flattened(zuko):
    flow = nsf(zuko, 6)
    prior, like = FromZuko(flow), Batch(noise(4, 2, 3))
    assert torch.allclose(prior.log_prob(like.x, like), flow().log_prob(like.x.flatten(1)))
    assert prior.sample(like, generator()).shape == (4, 2, 3)


@pytest.mark.parametrize("shape", [(2,), (2, 1), (2, 3)])
def test_a_conditional_flow_reads_its_condition(zuko, shape):
    """Two samples of two numbers: B equals D, and the conditions differ."""
    c = noise(*shape, seed=4)
    flow = nsf(zuko, 2, max(1, c[0].numel()))
    prior, like = FromZuko(flow, "c"), Batch(noise(2, 2), context={"c": c})
    assert torch.equal(prior.log_prob(like.x, like), flow(c.reshape(2, -1)).log_prob(like.x))
    assert prior.conditional == ("c",) and prior.sample(like, generator()).shape == (2, 2)
    with pytest.raises(ValueError, match=r"condition 'c' is not in the context \[\]"):
        prior.sample(Batch(noise(2, 2)))


def test_the_flow_is_a_frozen_copy(zuko):
    flow = nsf(zuko)
    prior, like = FromZuko(flow), Batch(noise(3, 2))
    before = prior.log_prob(like.x, like)
    assert all(p.requires_grad for p in flow.parameters()) and not any(p.requires_grad for p in prior.parameters())
    with torch.no_grad():
        for p in flow.parameters():
            p.add_(0.1)
    prior.train()
    assert torch.equal(prior.log_prob(like.x, like), before) and not prior.flow.module.training
    assert flow.training


def test_flows_that_do_not_fit_are_refused(zuko):
    with pytest.raises(ValueError, match="a conditional flow needs context="):
        FromZuko(nsf(zuko, 2, 3))
    with pytest.raises(ValueError, match="gives no distribution"):
        FromZuko(nn.Linear(2, 2))
    with pytest.raises(TypeError, match="expected a zuko flow"):
        FromZuko(laws.Normal(0.0, 1.0))
    prior = FromZuko(nsf(zuko))
    with pytest.raises(ValueError, match="over 2 features"):
        prior.sample(Batch(torch.zeros(2, 3)))
    with pytest.raises(ValueError, match="ragged"):
        prior.sample(Batch(torch.zeros(2, 2), torch.tensor([0, 0]), 1))
