"""Priors against dense multivariate normals, and the public check against wrong priors."""

import math
import warnings

import pytest
import torch

from scifm.batch import Batch
from scifm.priors import FullGaussian, Gaussian, Prior, SpectralGaussian, spectra
from scifm.priors.spectral import Basis, dct_matrix
from scifm.testing import check_prior

GRIDS = [(4, 5), (5, 4), (3, 4)]
FLAGS = [(False, False), (True, True), (False, True), (True, False)]
SPECTRA = [
    spectra.White(),
    spectra.Matern(length=2.0),
    spectra.Isotropic(4),
    spectra.PerMode(),
    spectra.PowerLaw(2.0, 0.1),
]


def fields(grid, channels=1, n=60, seed=0):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, channels, *grid, generator=g, dtype=torch.float64)
    return Batch(x + 0.7 * x.roll(1, -1) + 0.5 * x.roll(2, -2) + 3)


def covariance(prior, event):
    """Of x = colour(ε), column by column."""
    size = math.prod(event)
    unit = Batch(torch.eye(size, dtype=torch.float64).reshape(size, *event))
    zero = prior.colour(torch.zeros_like(unit.x), unit)
    root = (prior.colour(unit.x, unit) - zero).reshape(size, size)
    return root.T @ root


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("periodic", FLAGS)
@pytest.mark.parametrize("spectrum", SPECTRA, ids=lambda s: type(s).__name__)
def test_spectral_gaussian_is_the_dense_normal(grid, periodic, spectrum):
    data = fields(grid)
    prior = SpectralGaussian((1, *grid), periodic, spectrum).fit(data)
    dense = torch.distributions.MultivariateNormal(prior.mean.flatten(), covariance(prior, (1, *grid)))
    assert torch.allclose(prior.log_prob(data.x, data), dense.log_prob(data.x.flatten(1)), atol=1e-10)
    assert torch.allclose(prior.whiten(prior.colour(data.x, data), data), data.x, atol=1e-10)
    assert torch.allclose(prior.score(data.x, data), Prior.score(prior, data.x, data), atol=1e-10)
    white = prior.whiten(data.x, data)
    assert torch.allclose(prior.colour(white, data), data.x, atol=1e-10)


@pytest.mark.parametrize("grid", [(7,), (8,), (3, 4, 5)])
@pytest.mark.parametrize("periodic", [True, False])
def test_any_number_of_axes(grid, periodic):
    data = Batch(torch.randn(30, 2, *grid, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    prior = SpectralGaussian((2, *grid), periodic, spectra.Matern(length=2.0)).fit(data)
    dense = torch.distributions.MultivariateNormal(prior.mean.flatten(), covariance(prior, (2, *grid)))
    assert torch.allclose(prior.log_prob(data.x, data), dense.log_prob(data.x.flatten(1)), atol=1e-9)


@pytest.mark.parametrize("periodic", FLAGS)
@pytest.mark.parametrize("grid", GRIDS)
def test_basis_is_orthonormal_and_inverts(grid, periodic):
    basis = Basis(grid, periodic)
    x = torch.randn(3, 2, *grid, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    c = basis.forward(x)
    assert c.shape[2:] == basis.shape
    assert torch.allclose(basis.inverse(c), x)
    assert torch.allclose((basis.weight * c.abs().square()).sum((2, 3)), x.square().sum((2, 3)))
    assert math.isclose(float(basis.weight.sum()), math.prod(grid))
    assert torch.allclose(basis.power(x).sum((2, 3)), x.square().sum((2, 3)))


def test_dct_matrix_is_orthonormal():
    for n in (1, 2, 7, 32):
        assert torch.allclose(dct_matrix(n) @ dct_matrix(n).T, torch.eye(n, dtype=torch.float64), atol=1e-14)


@pytest.mark.parametrize(
    "make",
    [lambda v: spectra.White(v), lambda v: spectra.Matern(3.0, 1.5, v, 0.01), lambda v: spectra.PowerLaw(3.0, 0.01, v)],
)
@pytest.mark.parametrize("periodic", [True, False])
def test_the_mean_of_a_spectrum_is_the_variance_of_a_value(make, periodic):
    prior = SpectralGaussian((1, 9, 8), periodic, make(2.5))
    variance = covariance(prior, (1, 9, 8)).diagonal()
    assert abs(float(variance.mean()) - 2.5) < 1e-9
    if periodic:  # stationary: the same everywhere
        assert torch.allclose(variance, variance.mean().expand_as(variance))


@pytest.mark.parametrize("spectrum", SPECTRA, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("periodic", FLAGS)
def test_a_fit_keeps_the_total_variance(spectrum, periodic):
    data = fields((8, 9), n=400)
    prior = SpectralGaussian((1, 8, 9), periodic, spectrum).fit(data)
    total = (data.x - data.x.mean(0)).square().mean(0).sum()
    tolerance = 0.1 if isinstance(spectrum, (spectra.Matern, spectra.PowerLaw)) else 1e-9
    assert abs(float(covariance(prior, (1, 8, 9)).trace() / total) - 1) < tolerance


def test_whittle_finds_the_matern_that_made_the_data():
    truth = SpectralGaussian((1, 32, 32), True, spectra.Matern(length=6.0, nu=1.0, variance=2.0, nugget=0.02))
    like = Batch(torch.zeros(200, 1, 32, 32, dtype=torch.float64))
    data = like.replace(truth.sample(like, torch.Generator().manual_seed(0)))
    fitted = SpectralGaussian((1, 32, 32), True, spectra.Matern(length=20.0, nu=2.0)).fit(data)
    assert (fitted.variance / truth.variance).log().abs().mean() < 0.05


def test_per_mode_symmetrises_what_a_real_field_cannot_tell_apart():
    data = fields((6, 6), n=50)
    prior = SpectralGaussian((1, 6, 6), True, spectra.PerMode(shrink=1e-6)).fit(data)
    draw = prior.sample(Batch(torch.zeros(20000, 1, 6, 6, dtype=torch.float64)), torch.Generator().manual_seed(1))
    empirical = (draw - prior.mean).flatten(1).T.cov()
    assert (empirical - covariance(prior, (1, 6, 6))).abs().max() < 0.25


def test_a_bare_power_law_is_refused_or_warned_about():
    with pytest.raises(ValueError, match="10\\^6 bits per dimension"):
        SpectralGaussian((1, 8, 8), True, spectra.PowerLaw(5.0, nugget=0.0))
    with pytest.warns(UserWarning, match="nugget of 1e-3"):
        SpectralGaussian((1, 8, 8), True, spectra.PowerLaw(5.0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        SpectralGaussian((1, 8, 8), True, spectra.PowerLaw(5.0, nugget=1e-3))


def test_full_gaussian_fits_and_agrees_with_torch():
    g = torch.Generator().manual_seed(0)
    root = torch.randn(6, 6, generator=g, dtype=torch.float64)
    truth = FullGaussian((2, 3), mean=1.0, covariance=root @ root.T + torch.eye(6, dtype=torch.float64))
    like = Batch(torch.zeros(5000, 2, 3, dtype=torch.float64))
    data = like.replace(truth.sample(like, g))
    dense = torch.distributions.MultivariateNormal(truth.mean.flatten(), covariance(truth, (2, 3)))
    assert torch.allclose(truth.log_prob(data.x, data), dense.log_prob(data.x.flatten(1)), atol=1e-10)
    assert torch.allclose(covariance(truth, (2, 3)), root @ root.T + torch.eye(6, dtype=torch.float64), atol=1e-10)
    fitted = FullGaussian((2, 3), shrink=(0.001, 0.5)).fit(data)
    assert fitted.chosen == 0.001
    gap = (truth.log_prob(data.x, data) - fitted.log_prob(data.x, data)).mean()
    assert abs(float(gap)) < 0.02


def test_shrinkage_saves_a_full_covariance_with_few_samples():
    truth = SpectralGaussian((1, 6, 7), False, spectra.Matern(length=4.0, nugget=0.01))
    like = Batch(torch.zeros(30, 1, 6, 7, dtype=torch.float64))  # fewer samples than dimensions
    data = like.replace(truth.sample(like, torch.Generator().manual_seed(0)))
    test = like.replace(truth.sample(like, torch.Generator().manual_seed(1)))
    full = FullGaussian((1, 6, 7), target=SpectralGaussian((1, 6, 7), False)).fit(data)
    assert full.log_prob(test.x, test).mean() > Gaussian(per="value").fit(data).log_prob(test.x, test).mean()


@pytest.mark.parametrize("per", ["all", "channel", "value"])
def test_gaussian_fit_is_the_maximum_of_the_likelihood(per):
    data = fields((3, 4), channels=2)
    prior = Gaussian(per=per).fit(data)
    best = prior.log_prob(data.x, data).mean()
    for scale in (0.95, 1.05):
        assert Gaussian(prior.mean, prior.std * scale).log_prob(data.x, data).mean() < best
        assert Gaussian(prior.mean + 0.1 * (scale - 1), prior.std).log_prob(data.x, data).mean() < best


def ragged():
    index = torch.tensor([0, 0, 0, 1, 1])
    return Batch(torch.zeros(5, 2, dtype=torch.float64), index, 2)


@pytest.mark.parametrize(
    ("prior", "like"),
    [
        (Gaussian(), Batch(torch.zeros(3, 3))),
        (Gaussian(1.0, 2.0), ragged()),
        (Gaussian(torch.tensor([1.0, -2.0]), torch.tensor([0.5, 3.0])), ragged()),
        (Gaussian(torch.zeros(1, 2, 2), torch.rand(1, 2, 2) + 0.5), Batch(torch.zeros(1, 1, 2, 2))),
        (SpectralGaussian((1, 3, 4), (False, True), spectra.Matern(2.0)), Batch(torch.zeros(2, 1, 3, 4))),
        (SpectralGaussian((2, 8, 9), False, spectra.Matern(3.0), mean=2.0), Batch(torch.zeros(3, 2, 8, 9))),
        (FullGaussian((3,), 1.0, torch.tensor([[2.0, 1, 0], [1, 2, 0.5], [0, 0.5, 1]])), Batch(torch.zeros(3, 3))),
    ],
    ids=["gaussian", "ragged", "per channel", "per value", "spectral", "spectral large", "full"],
)
def test_own_priors_pass_the_public_check(prior, like):
    check_prior(prior, like)


class Wrong(Prior):
    """A Gaussian of scale 2 with one thing wrong."""

    def __init__(self, fault):
        super().__init__()
        self.fault = fault

    def sample(self, like, generator=None):
        if self.fault == "ignores the generator":
            return 2 * like.randn()
        if self.fault == "one draw for all generators":
            return 2 * like.randn(torch.Generator().manual_seed(0))
        if self.fault == "wrong dtype":
            return 2 * like.to(torch.float64).randn(generator)
        return (2.5 if self.fault == "wrong scale" else 2) * like.randn(generator)

    def log_prob(self, x, like):
        log_prob = Gaussian(std=2.0).log_prob(x, like)
        if self.fault == "off by a constant":
            return log_prob + 0.5
        if self.fault == "batch mates":
            return log_prob - log_prob.mean() + like.dims * -2.0
        if self.fault == "not summed":
            return -x.square()
        return log_prob

    def score(self, x, like):
        return (-x if self.fault == "wrong score" else -x / 4).clone()

    def dims(self, like):
        return like.dims + (1 if self.fault == "too many dims" else 0)


FAULTS = {
    "ignores the generator": "equal generators give different draws",
    "one draw for all generators": "different generators give the same draw",
    "wrong dtype": "expected shape, dtype and device",
    "wrong scale": "samples do not follow log_prob|does not integrate to one",
    "off by a constant": "does not integrate to one",
    "batch mates": "depends on its batch mates",
    "not summed": "one number per sample",
    "wrong score": "not the gradient",
    "too many dims": "Prior.dims must be between",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_prior_is_caught_and_the_fault_is_named(fault):
    with pytest.raises(AssertionError, match=FAULTS[fault]):
        check_prior(Wrong(fault), Batch(torch.zeros(3, 2)))


def test_the_right_one_is_not():
    check_prior(Wrong(None), Batch(torch.zeros(3, 2)))
    check_prior(Wrong(None), ragged())


def test_wrong_scale_is_caught_in_many_dimensions_too():
    with pytest.raises(AssertionError, match="disagree in scale"):
        check_prior(Wrong("wrong scale"), Batch(torch.zeros(3, 50)))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: Gaussian(std=0.0), "std positive"),
        (lambda: Gaussian(mean=math.nan), "mean must be finite"),
        (lambda: Gaussian(per="pixel"), 'per must be "all"'),
        (lambda: Gaussian(per="value").fit(Batch(torch.zeros(4, 2))), "never vary"),
        (lambda: SpectralGaussian((8,)), r"\(channels, \*grid\)"),
        (lambda: SpectralGaussian((1, 8, 8), (True,)), "one periodic flag per axis"),
        (lambda: SpectralGaussian((1, 8, 8)).sample(Batch(torch.zeros(1, 1, 8, 8))), "call .fit"),
        (
            lambda: SpectralGaussian((1, 4, 4), spectrum=spectra.White()).sample(Batch(torch.zeros(1, 1, 4, 5))),
            "made for",
        ),
        (lambda: SpectralGaussian((1, 4, 4)).fit(Batch(torch.full((3, 1, 4, 4), torch.nan))), "finite fields"),
        (lambda: SpectralGaussian((1, 4, 4)).fit(Batch(torch.zeros(3, 1, 4, 4))), "no variance"),
        (lambda: SpectralGaussian((1, 2), spectrum=spectra.White()).sample(ragged()), "ragged"),
        (lambda: spectra.Matern(length=-1.0)(torch.ones(2, 2)), "length must be positive"),
        (lambda: spectra.PerMode(0.0)(torch.ones(2, 2), torch.ones(2, 2)), "shrink"),
        (lambda: FullGaussian((2,), covariance=torch.eye(3)), r"must be \(2, 2\)"),
        (lambda: FullGaussian((2,), covariance=-torch.eye(2)), "positive definite"),
        (lambda: FullGaussian((2,)).sample(Batch(torch.zeros(1, 2))), "call .fit"),
    ],
)
def test_bad_priors_are_refused_with_the_reason(call, says):
    with pytest.raises(ValueError, match=says):
        call()


class Off(Prior):
    """White noise, with one thing wrong that is harder to see; the density is right unless the fault says so."""

    def __init__(self, fault=None):
        super().__init__()
        self.fault = fault

    def sample(self, like, generator=None):
        z, fault = like.randn(generator), self.fault
        if isinstance(fault, float):
            return fault * z
        if fault == "covariance":  # the total variance is right
            return z * torch.linspace(0.4, 1.6, like.event[-1]).to(z).sqrt()
        if fault == "correlated":
            return 0.8 * z + 0.6 * z.roll(1, -1)
        if fault == "mixture":  # mean and covariance are right
            wide = like.randn(generator)[:, :1] > 0
            return z * torch.where(wide, 1.75**0.5, 0.5)
        if fault == "sphere":  # nearly white along any one direction
            return z * (z.shape[1] / z.square().sum(1, keepdim=True)).sqrt()
        if fault == "pairs":
            return torch.repeat_interleave(z[: (len(z) + 1) // 2], 2, 0)[: len(z)].contiguous()
        if fault == "subspace":
            return z - z.mean(-1, keepdim=True)
        if fault == "global state":
            torch.rand(())
        if fault == "sample is always double":
            return z.double()
        return z

    def log_prob(self, x, like):
        log_prob, fault = Gaussian(mean=3.0 if self.fault == "mean" else 0.0).log_prob(x, like), self.fault
        if fault == "constant":
            return log_prob + 0.2
        if fault == "constant of larger sets":
            return log_prob + (like.counts > 2)
        if fault == "constant of a condition":
            return log_prob + 0.3 * (like.context["label"] == 7)
        if fault == "infinite":
            return log_prob / 0
        if fault == "density is double":
            return log_prob.double()
        if fault == "density in single" and x.dtype == torch.float32:
            return log_prob * 1.01
        return log_prob

    def score(self, x, like):
        if self.fault == "score in single" and x.dtype == torch.float32:
            return -7 * x
        if self.fault == "score is double":
            return -x.double()
        return (3.0 if self.fault == "mean" else 0.0) - x


SUBTLE = {
    1.1: "do not follow log_prob",
    2.0: "disagree in scale",
    3.0: "disagree in scale",
    10.0: "disagree in scale",
    "covariance": "wrong covariance",
    "correlated": "wrong covariance",
    "mean": "wrong mean",
    "mixture": "sech.*wrong shape",
    "constant": "does not integrate to one.*= 1.221",
    "pairs": "only 4096 differ",
    "subspace": "Prior.dims says",
    "global state": "global random state",
}


@pytest.mark.parametrize("size", [3, 20, 60])
@pytest.mark.parametrize("fault", SUBTLE)
def test_subtle_faults_are_caught_in_few_dimensions_and_in_many(fault, size):
    with pytest.raises(AssertionError, match=SUBTLE[fault]):
        check_prior(Off(fault), Batch(torch.zeros(2, size)))


def test_a_wrong_law_of_the_radius_is_caught():
    with pytest.raises(AssertionError, match="f radial.*wrong shape"):
        check_prior(Off("sphere"), Batch(torch.zeros(2, 20)))


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("infinite", "not finite at the prior's own samples"),
        ("density is double", "returns torch.float64 for torch.float32"),
        ("density in single", "log_prob in torch.float32 is off"),
        ("score in single", "score in torch.float32 is off"),
        ("score is double", "Prior.score: expected shape, dtype"),
    ],
)
def test_faults_of_precision_are_caught(fault, says):
    with pytest.raises(AssertionError, match=says):
        check_prior(Off(fault), Batch(torch.zeros(2, 3)))


def test_samples_of_a_fixed_dtype_are_caught():
    with pytest.raises(AssertionError, match="Prior.sample: expected shape, dtype"):
        check_prior(Off("sample is always double"), Batch(torch.zeros(2, 3, dtype=torch.float64)))


def test_every_size_and_condition_is_looked_at():
    index = torch.tensor([0, 0, 1, 1, 1, 1])
    with pytest.raises(AssertionError, match="does not integrate to one"):
        check_prior(Off("constant of larger sets"), Batch(torch.zeros(6, 2), index, 2))
    label = torch.tensor([1, 1, 1, 7])
    with pytest.raises(AssertionError, match="does not integrate to one"):
        check_prior(Off("constant of a condition"), Batch(torch.zeros(4, 2), context={"label": label}))


def test_a_batch_may_hold_empty_samples_but_not_only_them():
    check_prior(Gaussian(2.0), Batch(torch.zeros(3, 2), torch.tensor([0, 0, 2]), 4))
    for nothing in (Batch(torch.zeros(0, 2)), Batch(torch.zeros(0, 2), torch.zeros(0, dtype=torch.long), 2)):
        with pytest.raises(ValueError, match="at least one sample that has values"):
            check_prior(Gaussian(), nothing)


class Whitening(Off):
    """Scale 2, and says so in whiten and colour."""

    metric = "prior"

    def sample(self, like, generator=None):
        return 2 * like.randn(generator)

    def log_prob(self, x, like):
        return Gaussian(std=2.0).log_prob(x, like) + 1e-3 * (self.fault == "constant")

    def score(self, x, like):
        return -x / 4

    def whiten(self, x, like):
        return x / (2.1 if self.fault == "whiten and colour" else 2)

    def colour(self, z, like):
        return z * (2.1 if self.fault in ("colour", "whiten and colour") else 2)


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("colour", "colour does not undo whiten"),
        ("whiten and colour", "log_prob and whiten disagree"),
        ("constant", "off by 0.001 from the log-determinant"),
    ],
)
@pytest.mark.parametrize("size", [3, 30])
def test_whitening_that_does_not_fit_is_caught(fault, says, size):
    with pytest.raises(AssertionError, match=says):
        check_prior(Whitening(fault), Batch(torch.zeros(2, size)))
    check_prior(Whitening(), Batch(torch.zeros(2, size)))


class Exponential(Prior):
    """Independent and double-sided, or one-sided, with a jump at zero, where Stein's identity does not hold."""

    def __init__(self, sides):
        super().__init__()
        self.sides = sides

    def sample(self, like, generator=None):
        a, b, c, d = (like.randn(generator) for _ in range(4))
        return a * b - c * d if self.sides == 2 else 0.5 * (a.square() + b.square())

    def log_prob(self, x, like):
        if self.sides == 2:
            return -like.total(x.abs() + math.log(2))
        return torch.where(like.total((x < 0).to(x)) > 0, -math.inf, -like.total(x))


class Centred(Prior):
    """White noise without its mean over each sample's values: one degree of freedom less."""

    def sample(self, like, generator=None):
        return self._centre(like.randn(generator), like)

    def log_prob(self, x, like):
        x = self._centre(x, like)
        return -0.5 * like.total(x.square()) - 0.5 * math.log(2 * math.pi) * self.dims(like)

    def dims(self, like):
        return (like.dims - 1).clamp(min=0)

    def project(self, x, like):
        return self._centre(x, like)

    def _centre(self, x, like):
        return x - like.spread(like.total(x) / like.dims.clamp(min=1))


@pytest.mark.filterwarnings("ignore:check_prior")
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("prior", [Exponential(1), Exponential(2), Centred(), Off()])
@pytest.mark.parametrize("like", [Batch(torch.zeros(2, 4)), Batch(torch.zeros(1, 24)), ragged()])
def test_right_priors_that_are_no_white_noise_are_not_flagged(prior, like, seed):
    check_prior(prior, like, seed=seed)


def test_a_constant_that_cannot_be_judged_is_said():
    check_prior(Off(), Batch(torch.zeros(1, 60)), samples=256)
    with pytest.warns(UserWarning, match="too many or too far from a Gaussian to judge its constant"):
        check_prior(Off(), Batch(torch.zeros(1, 80)), samples=256)
