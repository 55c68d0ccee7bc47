"""Velocity, x1, noise and score against closed forms: Gaussian to Gaussian, white, coloured and mean-free priors.

With x0 ~ N(m0, C0) and x1 ~ N(m1, C1) independent, x_t ~ N(m_t, C_t) with m_t = α m1 + σ m0, C_t = α² C1 + σ² C0, and

    E[x1 | x_t] = m1 + α C1 C_t⁻¹ (x_t − m_t),   E[x0 | x_t] = m0 + σ C0 C_t⁻¹ (x_t − m_t),
    ∇ log p_t = −C_t⁻¹ (x_t − m_t).
"""

import pytest
import torch
from test_paths import AFFINE

from scifm import Batch, Prior
from scifm.conversions import Gauge, check_convertible
from scifm.paths import Bridge
from scifm.priors import FullGaussian, Gaussian, SpectralGaussian, spectra

KINDS = ("velocity", "x1", "noise", "score")


def covariance(size, seed):
    root = torch.randn(size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return root @ root.T / size + 0.3 * torch.eye(size, dtype=torch.float64)


def closed_forms(path, t, x, m0, C0, m1, C1):
    """Every kind, (B, D), at times t (B,)."""
    alpha, sigma, alpha_dot, sigma_dot = (c[:, None] for c in path.coefficients(t))
    C_t = alpha[..., None] ** 2 * C1 + sigma[..., None] ** 2 * C0
    solved = torch.linalg.solve(C_t, (x - alpha * m1 - sigma * m0)[..., None])[..., 0]
    x1, x0 = m1 + alpha * (solved @ C1), m0 + sigma * (solved @ C0)
    return {"velocity": alpha_dot * x1 + sigma_dot * x0, "x1": x1, "noise": x0, "score": -solved}


def setting(size, colour):
    g = torch.Generator().manual_seed(size)
    m1, C1 = torch.randn(size, generator=g, dtype=torch.float64), covariance(size, 2)
    if colour == "white":
        m0, C0 = torch.zeros(size, dtype=torch.float64), torch.eye(size, dtype=torch.float64)
        return Gaussian(), m0, C0, m1, C1
    m0, C0 = torch.randn(size, generator=g, dtype=torch.float64), covariance(size, 1)
    return FullGaussian((size,), m0, C0), m0, C0, m1, C1


@pytest.mark.parametrize("name", AFFINE)
@pytest.mark.parametrize("size", [2, 20])
@pytest.mark.parametrize("colour", ["white", "coloured"])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_every_kind_converts_to_every_other(name, size, colour, dtype, bound):
    """t is (B,), and B equals D on purpose: another library broadcast it over the wrong axis (error 11.96)."""
    path, (prior, *moments) = AFFINE[name], setting(size, colour)
    g = torch.Generator().manual_seed(1)
    t = torch.linspace(0.15, 0.85, size, dtype=torch.float64)
    x = 2 * torch.randn(size, size, generator=g, dtype=torch.float64)
    exact = closed_forms(path, t, x, *moments)
    like = Batch(x.to(dtype))
    gauge = Gauge(path, t.to(dtype), like.x, like, prior)
    # What is divided by, near an end (0.15³ for a cubic path), and what is subtracted (σ x0, up to 8 for VE): rounding
    # grows by so much, whatever the formula.
    bound *= max(1.0, float(gauge.sigma.max())) / min(
        1.0, float(torch.stack([gauge.alpha, gauge.sigma, gauge.delta]).min())
    )
    for kind in KINDS:
        velocity = gauge.to_velocity(kind, exact[kind].to(dtype))
        for other in KINDS:
            value = gauge.from_velocity(other, velocity).double()
            error = ((value - exact[other]).abs() / (1 + exact[other].abs())).max()
            assert error < bound, f"{kind} -> {other}: {float(error):.2g}"


@pytest.mark.parametrize("name", AFFINE)
def test_a_score_that_takes_the_prior_for_white_is_wrong(name):
    """The formula of other libraries, −x̂0/σ, against the true score for a prior of standard deviation 3."""
    t = torch.full((4,), 0.5, dtype=torch.float64)
    x = torch.randn(4, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    one, zero = torch.eye(2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    exact = closed_forms(AFFINE[name], t, x, zero, 9 * one, zero, one)
    like = Batch(x)
    right = Gauge(AFFINE[name], t, x, like, Gaussian(std=3.0)).from_velocity("score", exact["velocity"])
    wrong = Gauge(AFFINE[name], t, x, like, None).from_velocity("score", exact["velocity"])
    assert torch.allclose(right, exact["score"], atol=1e-9)
    assert torch.allclose(wrong, 9 * exact["score"], atol=1e-8)


def test_a_field_prior_converts_without_its_covariance_matrix():
    shape = (1, 4, 5)
    prior = SpectralGaussian(shape, (False, True), spectra.Matern(length=3.0), mean=2.0)
    like = Batch(torch.zeros(6, *shape, dtype=torch.float64))
    g = torch.Generator().manual_seed(0)
    x0, x1 = prior.sample(like, g), torch.randn(like.x.shape, generator=g, dtype=torch.float64)
    t = torch.linspace(0.1, 0.9, 6, dtype=torch.float64)
    x_t, u_t = AFFINE["linear"](x0, x1, t, like)
    gauge = Gauge(AFFINE["linear"], t, x_t, like, prior)
    score = gauge.from_velocity("score", u_t)
    assert torch.allclose(score, prior.score(x0, like) / like.spread(1 - t))
    assert torch.allclose(gauge.to_velocity("score", score), u_t, atol=1e-10)


class Centred(Prior):
    """White noise of scale 2 on sets whose rows sum to zero: (n − 1) d degrees of freedom, any n."""

    gaussian = True

    def project(self, x, like):
        mean = torch.stack([like.total(x[:, k]) for k in range(x.shape[1])], 1) / like.counts[:, None]
        return x - mean[like.spread(torch.arange(len(like), device=x.device)).flatten()]

    def sample(self, like, generator=None):
        return 2 * self.project(like.randn(generator), like)

    def log_prob(self, x, like):
        return -0.125 * like.total(x.square()) - self.dims(like) * 1.6120857137646180

    def dims(self, like):
        return (like.counts - 1) * like.event[0]

    def whiten(self, x, like):
        return self.project(x, like) / 2

    def colour(self, z, like):
        return 2 * self.project(z, like)


def test_a_prior_on_a_subspace_converts_within_it():
    index = torch.tensor([0, 0, 0, 1, 1, 1, 1, 1])
    like = Batch(torch.zeros(8, 2, dtype=torch.float64), index, 2)
    prior, g = Centred(), torch.Generator().manual_seed(0)
    x0, x1 = prior.sample(like, g), prior.project(like.randn(g), like)
    t = torch.tensor([0.3, 0.8], dtype=torch.float64)
    x_t, u_t = AFFINE["linear"](x0, x1, t, like)
    gauge = Gauge(AFFINE["linear"], t, x_t, like, prior)
    score = gauge.from_velocity("score", u_t)
    assert torch.allclose(score, -0.25 * x0 / like.spread(1 - t), atol=1e-12)
    assert torch.allclose(gauge.to_velocity("score", score), u_t, atol=1e-12)
    assert float(like.total(score.sum(1, keepdim=True)).abs().max()) < 1e-12, "the score stays centred"


@pytest.mark.parametrize("name", AFFINE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("end", [0.0, 1.0])
def test_conversions_are_finite_at_both_ends(name, dtype, end):
    """Another library: NaN for VP at one end, and the solver then died with "underflow in dt"."""
    like = Batch(torch.randn(3, 2, generator=torch.Generator().manual_seed(0)).to(dtype))
    gauge = Gauge(AFFINE[name], torch.full((3,), end, dtype=dtype), like.x, like, Gaussian(std=2.0))
    for kind in KINDS:
        assert gauge.to_velocity(kind, torch.ones_like(like.x)).isfinite().all()
        assert gauge.from_velocity(kind, torch.ones_like(like.x)).isfinite().all()


@pytest.mark.parametrize("name", AFFINE)
def test_at_its_ends_a_path_shows_what_it_is_made_of(name):
    """x_0 is σ_0 x0 and x_1 is α_1 x1, up to the little that diffusions leave of the other."""
    like = Batch(torch.randn(3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    x0 = torch.randn(3, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for end, kind, wanted in ((0.0, "noise", x0), (1.0, "x1", like.x)):
        t = torch.full((3,), end, dtype=torch.float64)
        x_t, u_t = AFFINE[name](x0, like.x, t, like)
        value = Gauge(AFFINE[name], t, x_t, like).from_velocity(kind, u_t)
        assert torch.allclose(value, wanted, atol=1e-6)


def test_what_cannot_be_converted_is_refused():
    class Cauchy(Prior):
        def sample(self, like, generator=None):
            return like.randn(generator) / like.randn(generator)

        def log_prob(self, x, like):
            return -like.total((1 + x.square()).log() + 1.1447298858494002)

    check_convertible("velocity", Bridge(), Cauchy())
    for kind in ("x1", "noise", "score"):
        with pytest.raises(ValueError, match="noise of its own"):
            check_convertible(kind, Bridge(), None)
    check_convertible("noise", AFFINE["VP"], Cauchy())
    with pytest.raises(ValueError, match="not Gaussian"):
        check_convertible("score", AFFINE["VP"], Cauchy())
