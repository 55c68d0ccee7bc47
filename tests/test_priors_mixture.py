"""Mixtures against torch's own, in the tails, on sets, on subspaces."""

import math

import pytest
import torch
from torch import distributions as laws

from scifm import Flow
from scifm.batch import Batch
from scifm.couplings import Aligned
from scifm.networks import EGNN
from scifm.priors import (
    Conditional,
    Empirical,
    FullGaussian,
    Gaussian,
    HarmonicChain,
    HarmonicGraph,
    Masked,
    MeanFreeGaussian,
    Mixture,
    Prior,
)  # fmt: skip

DOUBLE = torch.float64
MEANS = torch.tensor([[0.0, 0.0, 0.0], [3.0, -1.0, 2.0]], dtype=DOUBLE)
ROOT = torch.tensor([[1.0, 0, 0], [0.5, 2, 0], [0, -1, 0.5]], dtype=DOUBLE)
COVARIANCES = torch.stack([torch.eye(3, dtype=DOUBLE), ROOT @ ROOT.T])


def pair(weights=(0.3, 0.7)):
    ours = Mixture([FullGaussian((3,), m, c) for m, c in zip(MEANS, COVARIANCES, strict=True)], weights)
    theirs = laws.MixtureSameFamily(
        laws.Categorical(torch.tensor(weights, dtype=DOUBLE)), laws.MultivariateNormal(MEANS, COVARIANCES)
    )
    return ours, theirs


@pytest.mark.parametrize("n", [1, 3, 5])  # 3: as many samples as values
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (DOUBLE, 1e-10)])
def test_density_and_score_are_torchs(n, dtype, tolerance):
    ours, theirs = pair()
    x = 3 * torch.randn(n, 3, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
    like = Batch(x.to(dtype))
    wide = like.x.double().requires_grad_()
    wanted = theirs.log_prob(wide)
    slope = torch.autograd.grad(wanted.sum(), wide)[0]
    assert torch.allclose(ours.log_prob(like.x, like).double(), wanted, rtol=tolerance, atol=tolerance)
    assert torch.allclose(ours.score(like.x, like).double(), slope, rtol=tolerance, atol=10 * tolerance)
    assert torch.allclose(ours.score(like.x, like), Prior.score(ours, like.x, like), rtol=1e-4, atol=1e-4)


def test_weights_are_shares():
    a, _ = pair((0.3, 0.7))
    b, _ = pair((3.0, 7.0))
    x = Batch(torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=DOUBLE))
    assert torch.allclose(a.log_prob(x.x, x), b.log_prob(x.x, x), rtol=1e-12)
    far = Mixture([Gaussian(-50.0), Gaussian(50.0), Gaussian(0.0)], [1, 5, 2])
    like = Batch(torch.zeros(20000, 1))
    draw = far.sample(like, torch.Generator().manual_seed(0))
    for centre, share in ((-50, 0.125), (50, 0.625), (0, 0.25)):
        assert abs(float(((draw - centre).abs() < 10).double().mean()) - share) < 6 * math.sqrt(share / 20000)
    equal = Mixture([Gaussian(-50.0), Gaussian(50.0)])
    assert torch.equal(equal.weights, torch.tensor([0.5, 0.5], dtype=DOUBLE))


def test_nothing_underflows_far_from_all_components():
    prior = Mixture([Gaussian(-1.0), Gaussian(1.0)])
    x = Batch(torch.tensor([[1e4], [-1e4]]))
    log_prob, score = prior.log_prob(x.x, x), prior.score(x.x, x)
    assert torch.allclose(log_prob, torch.tensor(-0.5 * 9999.0**2 - math.log(2) - 0.919), rtol=1e-6)
    assert torch.allclose(score, torch.tensor([[-9999.0], [9999.0]]))


def test_a_component_without_share_does_not_spoil_the_score():
    class Spike(Gaussian):
        def score(self, x, like):
            return torch.full_like(x, math.inf)

    prior = Mixture([Spike(-1e3, 0.1), Gaussian(1.0)])
    x = Batch(torch.zeros(1, 2, dtype=DOUBLE))
    assert torch.allclose(prior.score(x.x, x), torch.ones_like(x.x))


def test_a_set_belongs_to_one_component_as_a_whole():
    index = torch.tensor([0, 0, 0, 1, 3])  # sample 2 is empty
    like = Batch(torch.zeros(5, 2, dtype=DOUBLE), index, 4)
    prior = Mixture([Gaussian(-50.0), Gaussian(50.0)], [1, 2])
    sides = set()
    for seed in range(20):
        x = prior.sample(like, torch.Generator().manual_seed(seed))
        signs = x.sign()
        assert (signs[:3] == signs[0, 0]).all() and (x.abs() > 30).all()
        sides.add((float(signs[0, 0]), float(signs[3, 0])))
    assert len(sides) == 4  # samples choose independently
    x = like.randn(torch.Generator().manual_seed(0))
    parts = torch.stack([Gaussian(m).log_prob(x, like) for m in (-50.0, 50.0)])
    wanted = (parts + torch.tensor([1 / 3, 2 / 3], dtype=DOUBLE).log()[:, None]).logsumexp(0)
    assert torch.allclose(prior.log_prob(x, like), wanted)
    assert abs(float(prior.log_prob(x, like)[2])) < 1e-12  # nothing is certain


def test_mixture_on_a_subspace():
    like = Batch(torch.zeros(2, 4, 3, dtype=DOUBLE))
    prior = Mixture([MeanFreeGaussian(1.0), MeanFreeGaussian(3.0)])
    x = prior.sample(like, torch.Generator().manual_seed(0))
    assert torch.allclose(x.mean(1), torch.zeros(2, 3, dtype=DOUBLE), atol=1e-12)
    assert torch.equal(prior.dims(like), torch.full((2,), 9.0, dtype=DOUBLE))
    assert torch.allclose(prior.project(x + 5, like), x)
    assert prior.symmetries == {"permutation", "automorphism", "rotation", "reflection"}


@pytest.mark.parametrize(
    ("components", "event"),
    [
        ([MeanFreeGaussian(), Gaussian()], (4, 3)),
        ([Masked(torch.tensor([True, False])), Masked(torch.tensor([False, True]))], (2,)),  # of equal dimension
        ([Masked(torch.tensor([True, False])), Masked(torch.tensor([True, True]))], (2,)),
    ],
)
def test_components_on_different_subspaces_are_refused(components, event):
    prior, like = Mixture(components), Batch(torch.zeros(2, *event))
    for call in (prior.sample, lambda b: prior.log_prob(b.x, b), lambda b: prior.score(b.x, b), prior.dims):
        with pytest.raises(ValueError, match="different subspaces"):
            call(like)


def test_what_holds_for_all_components_holds_for_the_mixture():
    data = Batch(torch.zeros(3, 2))
    assert Mixture([Gaussian(), MeanFreeGaussian()]).symmetries == {"permutation", "automorphism"}
    assert not Mixture([Gaussian(), Gaussian(torch.zeros(2))]).symmetries
    assert not Mixture([Gaussian(), Empirical(data)]).has_density
    assert Mixture([Gaussian(), Gaussian()]).has_density and not Mixture([Gaussian()]).gaussian
    named = Mixture([Conditional(mean="a"), Conditional(mean="b", scale="a")])
    assert named.conditional == ("a", "b")


def test_who_exchanges_any_points_exchanges_alike_ones_too():
    """Springs on bonds allow automorphisms, white noise any permutation: both allow automorphisms."""
    bonds, white, chain = HarmonicGraph(), MeanFreeGaussian(), HarmonicChain()
    assert "permutation" not in bonds.symmetries and "automorphism" in bonds.symmetries  # or this tests nothing
    for pair in ([bonds, white], [white, bonds]):
        assert Mixture(pair).symmetries == {"automorphism", "rotation", "reflection"}
        Flow(EGNN(3, 8), Mixture(pair), coupling=Aligned())
    assert Mixture([chain, white]).symmetries == {"rotation", "reflection"}
    with pytest.raises(ValueError, match="uses automorphism, under which Mixture is not invariant"):
        Flow(EGNN(3, 8), Mixture([chain, white]), coupling=Aligned())


def test_data_beside_noise_can_be_drawn_but_not_scored():
    prior = Mixture([Gaussian(), Empirical(Batch(torch.full((3, 2), 9.0)))])
    like = Batch(torch.zeros(200, 2))
    draw = prior.sample(like, torch.Generator().manual_seed(0))
    assert 60 < int((draw == 9).all(1).sum()) < 140
    with pytest.raises(NotImplementedError, match="no density"):
        prior.log_prob(draw, like)


def test_one_component_is_that_component():
    prior, like = Mixture([Gaussian(1.0, 2.0)], [0.1]), Batch(torch.ones(2, 3))
    assert torch.allclose(prior.log_prob(like.x, like), Gaussian(1.0, 2.0).log_prob(like.x, like))


@pytest.mark.parametrize("weights", [[1.0], [1.0, 0.0], [1.0, -1.0], [1.0, math.nan], [[0.5, 0.5]]])
def test_bad_weights_are_refused(weights):
    with pytest.raises(ValueError, match="one positive weight for each of 2"):
        Mixture([Gaussian(), Gaussian()], weights)


def test_bad_components_are_refused():
    with pytest.raises(ValueError, match="at least one"):
        Mixture([])
    with pytest.raises(TypeError, match="must be priors, got Normal; see priors.FromTorch"):
        Mixture([laws.Normal(0.0, 1.0)])
