"""What holds for every prior, by one list: add a line to ALL_PRIORS for a new one."""

import copy
import math
from dataclasses import dataclass

import pytest
import torch
from torch import distributions as laws

from scifm.batch import Batch
from scifm.priors import (
    AR1,
    Ball,
    Conditional,
    EOFGaussian,
    FromTorch,
    FromZuko,
    FullGaussian,
    FullPoints,
    Gaussian,
    GlobularChain,
    HarmonicChain,
    HarmonicGraph,
    Masked,
    MeanFreeGaussian,
    Mixture,
    Prior,
    RowGaussian,
    Shell,
    SpectralChain,
    SpectralGaussian,
    SpectralGraph,
    SphericalGaussian,
    ZonalGaussian,
    spectra,
    variances,
)
from scifm.testing import check_prior
from scifm.testing.density import whitening

DOUBLE = torch.float64
GRID = (2, 3, 4)
MASK = torch.tensor([[True, True, False], [True, False, False]])
TOL = 1e-9  # relative, double precision


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def fields(n=40):
    x = noise(n, *GRID)
    return Batch(x + 0.7 * x.roll(1, -1) + 2 * noise(n, 1, 1, 1, seed=1) + 3)


def coasts(n=40, *, channels=None):
    x = torch.where(MASK, noise(n, 2, 3) + noise(n, 1, 1, seed=1) + 3, 0.0)
    return Batch(x if channels is None else x[:, None].repeat(1, channels, 1, 1))


def dense(*event, n=3, **context):
    return Batch(torch.zeros(n, *event, dtype=DOUBLE), context=context)


def ragged(width=2, **context):
    """Samples of 3, 0, 1 and 2 rows."""
    index = torch.tensor([0, 0, 0, 2, 3, 3])
    return Batch(torch.zeros(6, width, dtype=DOUBLE), index, 4, context)


def bonded(width=3):
    """Rings of 3 and 4 points, a pair and a single one, with bonds in one direction or both."""
    index = torch.tensor([0, 0, 0, 1, 1, 1, 1, 2, 3, 3])
    edge_index = torch.tensor([[0, 1, 2, 3, 4, 5, 6, 3, 8, 9], [1, 2, 0, 4, 5, 6, 3, 5, 9, 8]])
    stiff = {"k": torch.tensor([1.0, 2, 3, 1, 1, 0.5, 1, 2, 4, 4], dtype=DOUBLE)}
    return Batch(torch.zeros(10, width, dtype=DOUBLE), index, 4, edge_index=edge_index, edges=stiff)


def pieces():
    """Chains with gaps and several pieces."""
    index = torch.tensor([0, 0, 0, 2, 3, 3, 3, 3])
    chain, position = torch.tensor([0, 0, 1, 0, 0, 0, 0, 0]), torch.tensor([4, 6, 1, 9, 1, 2, 3, 4])
    return Batch(torch.zeros(8, 3, dtype=DOUBLE), index, 4, nodes={"chain": chain, "position": position})


def chains(n=5, number=60):
    """Data of one molecule, dense."""
    x = noise(number, n, 3).cumsum(1)
    return Batch(x - x.mean(1, keepdim=True))


def rings(number=30):
    """Data of one molecule with bonds, ragged, and a batch of it."""
    edge_index = torch.tensor([[0, 1, 2, 3, 3], [1, 2, 3, 0, 4]])
    one = Batch(torch.zeros(5, 3, dtype=DOUBLE), torch.zeros(5, dtype=torch.long), 1, edge_index=edge_index)
    data = Batch.join([one] * number)
    return data.replace(HarmonicGraph(2.0).sample(data, torch.Generator().manual_seed(0)))


def nsf(context=0):
    zuko = pytest.importorskip("zuko", reason="zuko is not installed (extra bench)")
    with torch.random.fork_rng(devices=[]):  # modules are initialised from the global state
        torch.manual_seed(0)
        return zuko.flows.NSF(2, context, transforms=2, hidden_features=(8,)).double()


def forecast(batch):
    return 0.5 * batch.context["previous"] + 1


def steady():
    """Conditions of a dense batch of three: an earlier state, a spread per value, one per sample, and a label."""
    return {
        "previous": noise(3, 4, seed=2),
        "spread": noise(3, 4, seed=3).exp(),
        "sigma": torch.tensor([0.5, 1.0, 3.0], dtype=DOUBLE),
    }


@dataclass(frozen=True)
class Case:
    make: object  # -> prior; called anew for a fresh one
    like: Batch
    data: Batch | None = None  # to fit


SPD4 = torch.tensor([[2.0, 1, 0, 0], [1, 3, 0.5, 0.2], [0, 0.5, 1, 0], [0, 0.2, 0, 0.5]])
SPD = torch.tensor([[2.0, 1, 0], [1, 2, 0.5], [0, 0.5, 1]])
ALL_PRIORS = {
    "gaussian": Case(lambda: Gaussian(1.0, 2.0), ragged()),
    "gaussian per value": Case(lambda: Gaussian(per="value"), dense(*GRID), fields()),
    "full": Case(lambda: FullGaussian((3,), 1.0, SPD), dense(3)),
    "full fitted": Case(lambda: FullGaussian(GRID, target=SpectralGaussian(GRID)), dense(*GRID), fields()),
    "spectral": Case(lambda: SpectralGaussian(GRID, (False, True)), dense(*GRID), fields()),
    "full on a mask": Case(lambda: FullGaussian((2, 3), mask=MASK), dense(2, 3), coasts()),
    "rows": Case(lambda: RowGaussian(GRID, periodic=(False, True)), dense(*GRID), fields()),
    "rows on a mask": Case(lambda: RowGaussian((1, 2, 3), MASK[None], order=1), dense(1, 2, 3), coasts(channels=1)),
    "zonal": Case(lambda: ZonalGaussian(GRID, 0.1), dense(*GRID), fields()),
    "zonal odd": Case(lambda: ZonalGaussian((3, 5), 0.1), dense(3, 5), Batch(noise(40, 3, 5).cumsum(1))),
    "spherical": Case(lambda: SphericalGaussian(GRID, (-90.0, 0, 90)), dense(*GRID), fields()),
    "spherical given": Case(
        lambda: SphericalGaussian((1, 2, 5), (-35.3, 35.3), spectrum=torch.tensor([1.0, 0.5]), nugget=0.1),
        dense(1, 2, 5),
    ),
    "autoregression": Case(lambda: AR1(SpectralGaussian((1, 3, 4)), 2), dense(*GRID), fields()),
    "autoregression per channel": Case(
        lambda: AR1(Conditional(FullGaussian((2,), 1.0, SPD[:2, :2]), scale="sigma"), 2, torch.tensor([0.9, -0.5])),
        dense(4, **steady()),
    ),
    "eof": Case(lambda: EOFGaussian(GRID, 3), dense(*GRID), fields()),
    "eof periodic": Case(lambda: EOFGaussian(GRID, 5, True, spectra.PerMode()), dense(*GRID), fields()),
    "mixture": Case(lambda: Mixture([Gaussian(-2.0), Gaussian(1.0, 0.5)], [1.0, 3.0]), dense(2, n=2)),
    "mixture ragged": Case(lambda: Mixture([Gaussian(std=0.8), Gaussian(1.0)]), ragged()),
    "mixture mean-free": Case(lambda: Mixture([MeanFreeGaussian(1.0), MeanFreeGaussian(2.0)]), ragged()),
    "normal": Case(lambda: FromTorch(laws.Normal(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 2.0]))), dense(2)),
    "independent normal ragged": Case(
        lambda: FromTorch(laws.Independent(laws.Normal(torch.zeros(2), torch.ones(2)), 1)), ragged()
    ),
    "laplace": Case(lambda: FromTorch(laws.Laplace(0.0, 1.0).expand((2, 2))), dense(2, 2)),
    "student": Case(lambda: FromTorch(laws.StudentT(5.0).expand((3,))), dense(3)),
    "multivariate": Case(lambda: FromTorch(laws.MultivariateNormal(torch.ones(3), SPD)), dense(3)),
    "mixture same family": Case(
        lambda: FromTorch(
            laws.MixtureSameFamily(
                laws.Categorical(torch.tensor([0.3, 0.7])),
                laws.MultivariateNormal(torch.tensor([[0.0, 0.0], [2.0, 1.0]]), torch.eye(2)),
            )
        ),
        dense(2),
    ),
    "transformed": Case(
        lambda: FromTorch(
            laws.TransformedDistribution(
                laws.Normal(torch.zeros(2), torch.ones(2)),
                [laws.SigmoidTransform().inv.inv, laws.AffineTransform(1, 2)],
            )
        ),
        dense(2),
    ),
    "zuko": Case(lambda: FromZuko(nsf()), dense(2)),
    "zuko conditional": Case(
        lambda: FromZuko(nsf(1), context="sigma"), dense(2, sigma=torch.tensor([0.5, 1.0, 3.0], dtype=DOUBLE))
    ),
    "persistence": Case(lambda: Conditional(mean="previous"), dense(4, **steady())),
    "spread": Case(
        lambda: Conditional(FullGaussian((4,)), "previous", "spread"),
        dense(4, **steady()),
        Batch(noise(50, 4), context={k: v.repeat(20, *[1] * (v.ndim - 1))[:50] for k, v in steady().items()}),
    ),
    "forecast": Case(lambda: Conditional(None, forecast, "sigma", ["previous"]), dense(4, **steady())),
    "scale ragged": Case(
        lambda: Conditional(scale="sigma"), ragged(sigma=torch.tensor([0.5, 1.0, 2.0, 3.0], dtype=DOUBLE))
    ),
    "scale mean-free": Case(
        lambda: Conditional(MeanFreeGaussian(), scale="sigma"),
        ragged(sigma=torch.tensor([0.5, 1.0, 2.0, 3.0], dtype=DOUBLE)),
    ),
    "conditional mixture": Case(
        lambda: Conditional(Mixture([Gaussian(), Gaussian(1.0)]), "previous"), dense(4, **steady())
    ),
    "mean-free": Case(lambda: MeanFreeGaussian(2.0), ragged(3)),
    "mean-free dense": Case(lambda: MeanFreeGaussian(0.5), dense(4, 2, n=2)),
    "harmonic chain": Case(lambda: HarmonicChain(0.7), ragged(3)),
    "harmonic chain dense": Case(lambda: HarmonicChain(), dense(5, 3), chains()),
    "harmonic chain of pieces": Case(lambda: HarmonicChain(1.3, "chain", "position", 0.2), pieces()),
    "spectral chain": Case(lambda: SpectralChain(variances.PowerLaw(2.0, 1.3)), ragged(3)),
    "spectral chain fitted": Case(lambda: SpectralChain(variances.Springs(2, None)), ragged(3), chains(9)),
    "spectral chain of pieces": Case(
        lambda: SpectralChain(variances.Springs(2, 0.3, (0.3, 1.0, 0.4)), "chain", "position"), pieces()
    ),
    "growing sets": Case(lambda: SpectralChain(variances.Isotropic(0.7, 0.4)), ragged(3)),
    "harmonic graph": Case(lambda: HarmonicGraph(2.0, "k"), bonded()),
    "harmonic graph weak": Case(lambda: HarmonicGraph(2.0, weak=0.1), bonded()),
    "spectral graph": Case(lambda: SpectralGraph(variances.PowerLaw(1.0, 2.0)), bonded()),
    "spectral graph per mode": Case(lambda: SpectralGraph(variances.PerMode(5)), rings(3), rings()),
    "full points": Case(lambda: FullPoints(4, SPD4), dense(4, 2)),
    "full points fitted": Case(lambda: FullPoints(5, target=SpectralGraph()), rings(3), rings()),
    "globular chain": Case(lambda: GlobularChain(1.0, 0.6, 0.3), ragged(3)),
    "globular chain dense": Case(lambda: GlobularChain(), dense(6, 2)),
    "globular chain fitted": Case(lambda: GlobularChain(exponent=0.3), ragged(3), chains(9)),
    "ball": Case(lambda: Ball(2.0), ragged(3)),
    "ball dense": Case(lambda: Ball(0.5, 4.0), dense(3, 2), chains(3)),
    "ball with a sharp rim": Case(lambda: Ball(2.0, math.inf), ragged(3)),
    "ball that is a Gaussian": Case(lambda: Ball(2.0, 2.0), ragged(2)),
    "shell": Case(lambda: Shell(2.0, 0.2), ragged(3)),
    "shell fitted": Case(lambda: Shell(), dense(3, 2), chains(3)),
    "masked": Case(lambda: Masked(MASK, torch.tensor([[1.0, 2, 0], [0.5, 0, 0]])), dense(2, 3)),
}
CASES = pytest.mark.parametrize("name", ALL_PRIORS)


def made(name):
    case = ALL_PRIORS[name]
    prior = case.make()
    return (prior if case.data is None else prior.fit(case.data)), case.like


def draws(prior, like, seed=0):
    return prior.sample(like, torch.Generator().manual_seed(seed))


@CASES
def test_the_public_check_passes(name):
    prior, like = made(name)
    check_prior(prior, like, samples=1024)


@CASES
def test_single_precision(name):
    prior, like = made(name)
    x = draws(prior, like)
    wide, like = prior.log_prob(x, like), like.to(torch.float32)
    narrow = prior.log_prob(prior.project(x.float(), like), like)
    assert narrow.dtype == torch.float32
    assert torch.allclose(narrow.double(), wide, rtol=1e-5, atol=1e-5 * float(like.dims.max()))
    if whitening(prior):
        x = x.float()
        assert torch.allclose(prior.colour(prior.whiten(x, like), like), x, rtol=1e-5, atol=1e-5)


@CASES
def test_colour_undoes_whiten(name):
    prior, like = made(name)
    x = draws(prior, like)
    if not whitening(prior):
        with pytest.raises(NotImplementedError, match="does not whiten"):
            prior.whiten(x, like)
        return
    z = prior.whiten(x, like)
    assert torch.allclose(prior.colour(z, like), x, rtol=1e-10, atol=1e-10)
    assert torch.allclose(prior.project(z, like), z, rtol=1e-10, atol=1e-10)  # white on the subspace
    gap = prior.log_prob(x, like) + 0.5 * like.total(z.square())
    zero = prior.log_prob(prior.colour(torch.zeros_like(z), like), like)
    assert torch.allclose(gap, zero, rtol=1e-9, atol=1e-9)


@CASES
def test_no_sample_sees_another_alone_or_in_any_order(name):
    prior, like = made(name)
    x = draws(prior, like)
    log_prob, score = prior.log_prob(x, like), prior.score(x, like)
    order = torch.arange(len(like)).flip(0)
    flipped = like.replace(x).select(order)
    assert torch.allclose(prior.log_prob(flipped.x, flipped), log_prob[order], rtol=TOL, atol=TOL)
    for b in range(len(like)):
        one = like.replace(x).select([b])
        assert torch.allclose(prior.log_prob(one.x, one), log_prob[b : b + 1], rtol=TOL, atol=TOL)
        own = like.replace(score).select([b]).x
        assert torch.allclose(prior.score(one.x, one), own, rtol=TOL, atol=TOL)
        assert draws(prior, one).shape == one.x.shape
        assert torch.equal(prior.dims(one), prior.dims(like)[b : b + 1])


@CASES
def test_no_sample_sees_another_where_samples_are_as_many_as_values(name):
    """B equal to the last axis of the event, where a forgotten axis would broadcast."""
    prior, like = made(name)
    many = like.select([b % len(like) for b in range(like.event[-1])])
    x = draws(prior, many)
    together = prior.log_prob(x, many)
    alone = [many.replace(x).select([b]) for b in range(len(many))]
    assert torch.allclose(together, torch.cat([prior.log_prob(a.x, a) for a in alone]), rtol=TOL, atol=TOL)
    if whitening(prior):
        z = torch.cat([prior.whiten(a.x, a) for a in alone])
        assert torch.allclose(prior.whiten(x, many), z, rtol=TOL, atol=TOL)


@CASES
def test_values_of_like_are_not_looked_at(name):
    prior, like = made(name)
    x = draws(prior, like)
    other = like.replace(torch.full_like(like.x, 7.0))
    assert torch.equal(draws(prior, other), x)
    assert torch.equal(prior.log_prob(x, other), prior.log_prob(x, like))


@CASES
def test_draws_come_from_the_generator_alone(name):
    prior, like = made(name)
    before = torch.get_rng_state()
    generator = torch.Generator().manual_seed(3)
    first, second = prior.sample(like, generator), prior.sample(like, generator)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(first, second)  # the generator moves on
    generator.manual_seed(3)
    assert torch.equal(prior.sample(like, generator), first) and torch.equal(prior.sample(like, generator), second)
    assert prior.sample(like).shape == like.x.shape  # and without one, from the global state


@CASES
def test_a_checkpoint_loads_into_a_fresh_one(name):
    prior, like = made(name)
    x = draws(prior, like)
    fresh, twin = ALL_PRIORS[name].make(), copy.deepcopy(prior)
    fresh.load_state_dict(prior.state_dict())
    for other in (fresh, twin):
        assert torch.equal(other.log_prob(x, like), prior.log_prob(x, like))
        assert torch.equal(draws(other, like), x)
        assert other.symmetries == prior.symmetries and other.conditional == prior.conditional
    assert not any(p.requires_grad for p in prior.parameters())


@CASES
def test_a_gaussian_says_so_and_nothing_else_does(name):
    prior, like = made(name)
    a, b = draws(prior, like), draws(prior, like, 1)
    middle = prior.score(0.5 * (a + b), like) - 0.5 * (prior.score(a, like) + prior.score(b, like))
    affine = bool(middle.abs().max() < 1e-9)
    known = isinstance(prior, FromTorch)  # which does not look whether what it wraps is Gaussian
    flat = not prior.score(a, like).any()
    assert prior.gaussian == affine or ((known or flat) and not prior.gaussian)


@CASES
def test_symmetries_hold(name):
    prior, like = made(name)
    x = draws(prior, like)
    assert prior.symmetries <= {"permutation", "automorphism", "rotation", "reflection"}
    if not prior.symmetries or like.dense:
        return
    log_prob = prior.log_prob(x, like)
    if "permutation" in prior.symmetries:
        assert torch.allclose(prior.log_prob(x[[1, 2, 0, 3, 5, 4]], like), log_prob)
    for kind, sign in (("rotation", 1.0), ("reflection", -1.0)):
        q = torch.linalg.qr(noise(x.shape[-1], x.shape[-1]))[0]
        q[:, 0] *= sign * torch.linalg.det(q)
        if kind in prior.symmetries:
            assert torch.allclose(prior.log_prob(x @ q, like), log_prob)


def test_every_prior_of_the_package_is_in_the_list():
    from scifm import priors

    kinds = {type(case.make()).__name__ for case in ALL_PRIORS.values()}
    abstract, others = {"Prior", "SpectralPoints"}, {"Composition", "Sizes", "best", "spectra", "variances"}
    concrete = {*priors.__all__} - abstract - others
    assert concrete - kinds == {"Empirical"}  # which has no density; see test_priors_empirical
    assert all(issubclass(getattr(priors, n), Prior) for n in concrete)
