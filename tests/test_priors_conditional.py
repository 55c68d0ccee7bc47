"""Mean and scale from the conditions: against dense normals, sample by sample, with the term that is forgotten."""

import math

import pytest
import torch
from torch import distributions as laws
from torch import nn

from scifm.batch import Batch
from scifm.flow import Flow
from scifm.networks import MLP
from scifm.priors import (
    Conditional,
    Empirical,
    FullGaussian,
    Gaussian,
    Masked,
    MeanFreeGaussian,
    Mixture,
    Prior,
    SpectralGaussian,
    spectra,
)
from scifm.testing import check_prior

DOUBLE = torch.float64
ROOT = torch.tensor([[1.0, 0, 0, 0], [0.5, 2, 0, 0], [0, -1, 0.5, 0], [1, 0, 0, 1]], dtype=DOUBLE)
COVARIANCE = ROOT @ ROOT.T


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed), dtype=DOUBLE)


def batch(n=4, **context):
    """Four samples of four numbers unless told otherwise: B equals D."""
    given = {"previous": noise(n, 4, seed=2), "spread": noise(n, 4, seed=3).exp(), "sigma": noise(n, seed=4).exp()}
    return Batch(noise(n, 4), context={**given, **context})


def halved(b):
    return 0.5 * b.context["previous"]


SCALES = {
    "none": (None, lambda b: torch.ones_like(b.x)),
    "per value": ("spread", lambda b: b.context["spread"]),
    "per sample": ("sigma", lambda b: b.context["sigma"][:, None].expand(b.x.shape)),
    "function": (
        lambda b: b.context["sigma"][:, None] * 2,
        lambda b: 2 * b.context["sigma"][:, None].expand(b.x.shape),
    ),
}
MEANS = {"none": (None, torch.zeros_like), "persistence": ("previous", None), "function": (halved, None)}


@pytest.mark.parametrize("n", [1, 4, 7])
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("mean", MEANS)
def test_each_sample_has_its_own_dense_normal(n, scale, mean):
    if mean == scale == "none":
        return
    like = batch(n)
    s = SCALES[scale][1](like)
    m = {"none": torch.zeros_like(like.x), "persistence": like.context["previous"], "function": halved(like)}[mean]
    prior = Conditional(
        FullGaussian((4,), 0.5, COVARIANCE), MEANS[mean][0], SCALES[scale][0], names=("previous", "sigma")
    )
    dense = laws.MultivariateNormal(m + 0.5 * s, s[:, :, None] * COVARIANCE * s[:, None, :])
    assert torch.allclose(prior.log_prob(like.x, like), dense.log_prob(like.x), rtol=1e-10, atol=1e-10)
    assert torch.allclose(prior.score(like.x, like), Prior.score(prior, like.x, like), rtol=1e-9, atol=1e-9)
    z = prior.whiten(like.x, like)
    assert torch.allclose(prior.colour(z, like), like.x, rtol=1e-10, atol=1e-10)
    single = like.to(torch.float32)
    assert torch.allclose(prior.log_prob(single.x, single).double(), dense.log_prob(like.x), rtol=1e-5, atol=2e-5)


def test_the_scale_counts_in_the_density():
    """The classic bug: a scale in the draw, and no Σ log s in the density."""
    like = batch(1)
    narrow, wide = (Conditional(scale="sigma"), like.replace(torch.zeros_like(like.x)))
    value = narrow.log_prob(wide.x, like)
    twice = Batch(like.x, context={**like.context, "sigma": 2 * like.context["sigma"]})
    assert torch.allclose(narrow.log_prob(wide.x, twice), value - 4 * math.log(2))


def test_draws_have_the_moments_of_their_own_condition():
    one = batch(2)
    like = one.select(torch.arange(2).repeat(20000))
    draw = Conditional(mean="previous", scale="spread").sample(like, generator())
    for b in range(2):
        own = draw[b::2]
        s = one.context["spread"][b]
        assert ((own.mean(0) - one.context["previous"][b]).abs() < 5 * s / math.sqrt(20000)).all()
        assert ((own.std(0) / s - 1).abs() < 0.03).all()


class Climatology:
    """A yearly cycle of mean and scale, per grid point, from the day of the year."""

    def __init__(self, grid):
        self.amplitude = torch.linspace(1, 3, math.prod(grid), dtype=DOUBLE).reshape(1, *grid)

    def phase(self, b):
        return (2 * math.pi * b.context["day"].to(b.x) / 365.25).reshape(-1, 1, 1, 1)

    def mean(self, b):
        return 10 + self.amplitude.to(b.x) * self.phase(b).cos()

    def scale(self, b):
        return 2 + self.phase(b).sin()


def test_a_climatology_turns_seasons_into_anomalies():
    grid = (3, 4)
    year = Climatology(grid)
    day = torch.arange(0, 730, 2)
    like = Batch(torch.zeros(len(day), 1, *grid, dtype=DOUBLE), context={"day": day})
    truth = Conditional(SpectralGaussian((1, *grid), spectrum=spectra.Matern(2.0)), year.mean, year.scale, ["day"])
    data = like.replace(truth.sample(like, generator()))
    fitted = Conditional(SpectralGaussian((1, *grid), spectrum=spectra.Matern(5.0)), year.mean, year.scale, ["day"])
    assert fitted.fit(data) is fitted
    plain = SpectralGaussian((1, *grid)).fit(data)
    test = like.replace(truth.sample(like, generator(1)))
    own, best, steady = (float(p.log_prob(test.x, test).mean()) for p in (fitted, truth, plain))
    assert best - 1 < own < best + 0.1 and own > steady + 1
    assert fitted.whiten(test.x, test).square().mean() < 1.2
    check_prior(truth, like.select([0, 45]), samples=512)


def test_fitting_fits_the_residuals():
    like = batch(500)
    data = like.replace(like.context["previous"] + like.context["spread"] * (3 + 2 * noise(500, 4)))
    prior = Conditional(Gaussian(), "previous", "spread").fit(data)
    assert abs(float(prior.base.mean) - 3) < 0.2 and abs(float(prior.base.std) - 2) < 0.1


class Forecast(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 8), nn.SiLU(), nn.Dropout(0.5), nn.Linear(8, 4))

    def forward(self, b):
        return b.context["previous"] + self.net(b.context["previous"])


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_a_network_may_be_the_mean_and_is_frozen(dtype):
    torch.manual_seed(0)
    network = Forecast()
    prior, like = Conditional(mean=network, scale="sigma", names=["previous"]), batch().to(dtype)
    prior.train()  # as the trainer does: dropout must stay off
    value = prior.log_prob(like.x, like)
    assert torch.equal(prior.log_prob(like.x, like), value) and value.dtype == dtype
    mean = network.eval()(like.to(torch.float32)).to(dtype)
    wanted = laws.Normal(mean, like.context["sigma"][:, None]).log_prob(like.x).sum(1)
    assert torch.allclose(value, wanted, rtol=1e-5, atol=1e-5)
    assert not any(p.requires_grad for p in prior.parameters()) and all(p.requires_grad for p in network.parameters())
    names = list(prior.state_dict())
    assert any("mean.module.net.0.weight" in n for n in names)  # a checkpoint holds the network
    with torch.no_grad():
        network.net[0].weight.zero_()
    assert torch.equal(prior.log_prob(like.x, like), value)  # a copy


def test_functions_cannot_look_at_the_values_that_flow():
    like = batch()
    prior = Conditional(mean=lambda b: b.x + 1, names=["previous"])
    assert torch.allclose(prior.log_prob(like.x, like), Gaussian(1.0).log_prob(like.x, like))


def test_rows_and_sets_may_have_conditions():
    index = torch.tensor([0, 0, 0, 2])
    nodes = {"rest": noise(4, 2, seed=5), "mass": noise(4, seed=6).exp()}
    context = {"sigma": torch.tensor([2.0, 5.0, 0.5], dtype=DOUBLE), "shift": noise(3, 2, seed=7)}
    like = Batch(noise(4, 2), index, 3, context, nodes)
    for mean, scale, m, s in (
        ("rest", "mass", nodes["rest"], nodes["mass"][:, None]),
        ("shift", "sigma", context["shift"][index], context["sigma"][index][:, None]),
    ):
        prior = Conditional(mean=mean, scale=scale)
        wanted = like.total(laws.Normal(m, s).log_prob(like.x))
        assert torch.allclose(prior.log_prob(like.x, like), wanted, rtol=1e-10)
        assert prior.conditional == (mean, scale)
    swap = Batch(noise(2, 2), torch.tensor([0, 0]), 2, {"shift": torch.tensor([[0.0, 0], [9, 9]], dtype=DOUBLE)})
    # two rows, two samples, both rows of the first: the shifts are the first's
    assert torch.allclose(
        Conditional(mean="shift").log_prob(swap.x, swap), Gaussian().log_prob(swap.x, swap), rtol=1e-12
    )


def test_a_number_per_sample_on_centred_sets():
    index = torch.tensor([0, 0, 0, 1, 1, 2])
    sigma = torch.tensor([0.5, 2.0, 3.0], dtype=DOUBLE)
    like = Batch(torch.zeros(6, 2, dtype=DOUBLE), index, 3, {"sigma": sigma})
    prior = Conditional(MeanFreeGaussian(), scale="sigma")
    x = prior.sample(like, generator())
    for b in range(3):
        one = like.replace(x).select([b])
        assert torch.allclose(prior.log_prob(x, like)[b], MeanFreeGaussian(float(sigma[b])).log_prob(one.x, one)[0])


def test_the_mean_is_projected_and_scales_that_leave_the_subspace_are_refused():
    like = Batch(torch.zeros(2, 3, 2, dtype=DOUBLE), context={"s": noise(2, 3, 2).exp(), "m": noise(2, 3, 2) + 7})
    moved = Conditional(MeanFreeGaussian(), mean="m")
    assert moved.sample(like, generator()).mean(1).abs().max() < 1e-12
    slightly = Batch(like.x, context={"s": 1 + 1e-3 * noise(2, 3, 2)})
    for scaled in (like, slightly):
        with pytest.raises(ValueError, match="leads out of the subspace on which MeanFreeGaussian"):
            Conditional(MeanFreeGaussian(), scale="s").sample(scaled, generator())


def test_a_number_per_sample_is_recognised_in_large_sets_in_single_precision():
    like = Batch(torch.zeros(2, 20000, 3), context={"sigma": torch.tensor([0.3, 7.1])})
    prior = Conditional(MeanFreeGaussian(), scale="sigma")
    x = prior.sample(like, generator())
    for b, sigma in enumerate((0.3, 7.1)):
        one = like.replace(x).select([b])
        wanted = MeanFreeGaussian(sigma).log_prob(one.x, one)
        assert torch.allclose(prior.log_prob(x, like)[b], wanted[0], rtol=1e-5)


def test_climatology_of_the_sea():
    """NaN on land in the mean, a spread per value: the density counts the sea only."""
    mask = torch.tensor([True, True, False, True])
    mean, spread = noise(3, 4, seed=1), noise(3, 4, seed=2).exp()
    mean[:, 2] = math.nan
    like = Batch(torch.zeros(3, 4, dtype=DOUBLE), context={"mean": mean, "spread": spread})
    prior = Conditional(Masked(mask), "mean", "spread")
    x = prior.sample(like, generator())
    wanted = laws.Normal(mean[:, mask], spread[:, mask]).log_prob(x[:, mask]).sum(1)
    assert torch.allclose(prior.log_prob(x, like), wanted) and (x[:, 2] == 0).all()
    check_prior(prior, like, samples=512)


def test_what_the_base_is_the_whole_is():
    assert Conditional(mean="a").metric == "prior" and Conditional(mean="a").gaussian
    mixed = Conditional(Mixture([Gaussian(), Gaussian(1.0)]), "a")
    assert mixed.metric == "plain" and not mixed.whitens and not mixed.gaussian
    assert not Conditional(Empirical(Batch(torch.zeros(2, 2))), "a").has_density
    nested = Conditional(Conditional(mean="a"), scale="b")
    assert nested.conditional == ("b", "a") and nested.whitens


def test_nested_conditions_compose():
    like = batch()
    prior = Conditional(Conditional(mean="previous"), scale="sigma")
    s = like.context["sigma"][:, None]
    wanted = laws.Normal(s * like.context["previous"], s).log_prob(like.x).sum(1)
    assert torch.allclose(prior.log_prob(like.x, like), wanted, rtol=1e-10)


def test_an_untrained_flow_has_the_likelihood_of_its_conditional_prior():
    torch.manual_seed(0)
    like = batch().to(torch.float32)
    prior = Conditional(mean="previous", scale="spread")
    flow = Flow(MLP(4), prior)
    assert torch.allclose(flow.log_prob(like).float(), prior.log_prob(like.x, like), atol=1e-4)


def bad(**context):
    return batch(**context)


def with_bad(value, b):
    s = noise(4, seed=4).exp()
    s[b] = value
    return bad(sigma=s)


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: Conditional(), ValueError, "give mean=, scale= or both"),
        (lambda: Conditional(mean=3.0), TypeError, "fixed mean and std belong to Gaussian"),
        (lambda: Conditional(mean=halved), ValueError, "mean is a function, so say in names="),
        (lambda: Conditional(scale=nn.Linear(1, 1)), ValueError, "scale is a function"),
        (lambda: Conditional(mean="season").sample(batch()), ValueError, r"lacks \['season'\].*context holds"),
        (lambda: Conditional(scale="sigma").sample(with_bad(0.0, 2)), ValueError, "scale must be positive.*sample 2"),
        (lambda: Conditional(scale="sigma").sample(with_bad(-1.0, 1)), ValueError, "scale must be positive.*sample 1"),
        (lambda: Conditional(scale="sigma").sample(with_bad(math.nan, 3)), ValueError, "must be positive.*sample 3"),
        (lambda: Conditional(scale="sigma").sample(with_bad(math.inf, 0)), ValueError, "must be positive.*sample 0"),
        (
            lambda: Conditional(mean="previous").sample(bad(previous=torch.full((4, 4), math.nan))),
            ValueError,
            "mean must be finite; it is not for sample 0",
        ),
        # A vector over the event, where the batch is as long as the event: not a number per sample, not a row.
        (
            lambda: Conditional(mean=lambda b: torch.zeros(4), names=["sigma"]).sample(batch()),
            ValueError,
            r"mean must be \(4, 4\).*got \(4,\); a number per sample is \(4, 1\)",
        ),
        (
            lambda: Conditional(mean=lambda b: torch.zeros(1, 4), names=["sigma"]).sample(batch()),
            ValueError,
            r"got \(1, 4\)",
        ),
        (lambda: Conditional(mean="wide").sample(bad(wide=torch.zeros(4, 3))), ValueError, r"got \(4, 3\)"),
        (lambda: Conditional(mean="deep").sample(bad(deep=torch.zeros(4, 4, 1))), ValueError, r"got \(4, 4, 1\)"),
    ],
)
def test_bad_conditions_are_refused(call, error, says):
    with pytest.raises(error, match=says):
        call()
