"""Priors on subspaces, centred sets and masked grids, against dense normals in coordinates of the subspace."""

import math

import pytest
import torch
from torch import distributions as laws

from scifm.batch import Batch
from scifm.priors import Gaussian, Masked, MeanFreeGaussian, Prior
from scifm.testing import check_prior

DOUBLE = torch.float64


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed), dtype=DOUBLE)


def sets(counts, d=3):
    index = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    return Batch(torch.zeros(len(index), d, dtype=DOUBLE), index, len(counts))


def frame(n, d):
    """An orthonormal basis of centred sets, (n d, (n - 1) d)."""
    centring = torch.eye(n, dtype=DOUBLE) - 1 / n
    vectors = torch.linalg.eigh(centring)[1][:, 1:]
    return torch.einsum("nk,de->ndke", vectors, torch.eye(d, dtype=DOUBLE)).reshape(n * d, -1)


# -- centred sets ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("std", [1.0, 0.3])
@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (DOUBLE, 1e-10)])
def test_centred_sets_have_the_dense_normal_of_their_subspace(std, d, dtype, tolerance):
    like, prior = sets([4, 2, 7, 2], d), MeanFreeGaussian(std)
    x = prior.sample(like, generator())
    got = prior.log_prob(prior.project(x.to(dtype), like.to(dtype)), like.to(dtype))
    assert got.dtype == dtype
    for b, one in enumerate(like.replace(x).split()):
        basis = frame(len(one), d)
        coordinates = one.flatten() @ basis
        dense = laws.MultivariateNormal(torch.zeros_like(coordinates), std**2 * torch.eye(len(coordinates)).to(DOUBLE))
        assert torch.allclose(basis @ coordinates, one.flatten(), atol=1e-12)
        assert torch.allclose(got[b].double(), dense.log_prob(coordinates), rtol=tolerance, atol=10 * tolerance)
    assert prior.dims(like).tolist() == [3 * d, d, 6 * d, d]


def test_dense_and_ragged_sets_agree():
    x = noise(5, 4, 2)
    dense, prior = Batch(x), MeanFreeGaussian(1.7)
    ragged = sets([4] * 5, 2).replace(x.reshape(20, 2))
    centred = prior.project(x, dense)
    assert torch.allclose(centred.mean(1), torch.zeros(5, 2, dtype=DOUBLE), atol=1e-14)
    assert torch.allclose(prior.project(ragged.x, ragged), centred.reshape(20, 2))
    assert torch.allclose(prior.log_prob(centred, dense), prior.log_prob(centred.reshape(20, 2), ragged))
    assert torch.equal(prior.sample(dense, generator()).reshape(20, 2), prior.sample(ragged, generator()))


def test_sets_of_one_point_and_of_none_have_no_freedom():
    like, prior = sets([1, 3, 0, 1, 0]), MeanFreeGaussian(2.0)
    x = prior.sample(like, generator())
    assert torch.equal(x[[0, 4]], torch.zeros(2, 3, dtype=DOUBLE))
    assert prior.dims(like).tolist() == [0, 6, 0, 0, 0]
    log_prob = prior.log_prob(x, like)
    assert log_prob[[0, 2, 3, 4]].tolist() == [0, 0, 0, 0] and log_prob[1] != 0
    check_prior(prior, like, samples=512)
    nothing = sets([0, 0])
    assert prior.log_prob(nothing.x, nothing).tolist() == [0, 0] and prior.sample(nothing).shape == (0, 3)
    with pytest.raises(ValueError, match="degree of freedom"):
        check_prior(prior, sets([1, 1]))


def test_the_constant_counts_n_minus_one_points():
    like = sets([3])
    at_zero = MeanFreeGaussian(2.0).log_prob(like.x, like)
    assert torch.allclose(at_zero, torch.tensor([-3 * math.log(2 * math.pi * 4)], dtype=DOUBLE))


def test_it_is_the_law_of_white_noise_without_its_centre():
    like = sets([3, 5])
    prior, white = MeanFreeGaussian(1.5), Gaussian(std=1.5)
    x = prior.sample(like, generator())
    assert torch.allclose(x, prior.project(white.sample(like, generator()), like))
    # white noise = centred sets times the centre √n x̄, an independent normal of d numbers
    free = noise(8, 3)
    centre = torch.stack([free[:3].mean(0), free[3:].mean(0)])
    part = prior.log_prob(prior.project(free, like), like)
    root = torch.tensor([3.0, 5.0], dtype=DOUBLE).sqrt()[:, None]
    whole = part + laws.Normal(0.0, 1.5).log_prob(root * centre).sum(1)
    assert torch.allclose(white.log_prob(free, like), whole)


def test_rotations_reflections_and_renumbering_change_nothing():
    like, prior = sets([4, 3]), MeanFreeGaussian(1.2)
    assert prior.symmetries == {"permutation", "rotation", "reflection"}
    x = prior.sample(like, generator())
    q = torch.linalg.qr(noise(3, 3))[0]
    order = torch.tensor([2, 0, 3, 1, 6, 5, 4])
    for same in (x @ q, -x, x[order]):
        assert torch.allclose(prior.log_prob(same, like), prior.log_prob(x, like))
        assert torch.allclose(prior.score(same, like).norm(), prior.score(x, like).norm())


def test_score_and_whitening_stay_on_the_subspace():
    like, prior = sets([4, 1, 2]), MeanFreeGaussian(0.7)
    x = prior.sample(like, generator())
    assert torch.allclose(prior.score(x, like), -x / 0.49) and torch.allclose(prior.whiten(x, like), x / 0.7)
    assert torch.allclose(prior.score(x, like), prior.project(Prior.score(prior, x, like), like))
    drifted = x + 1.0  # a solver's rounding, greatly exaggerated: colour puts it back
    assert torch.allclose(prior.colour(drifted / 0.7, like), x)


def test_sets_off_the_centre_are_refused_by_name():
    like, prior = sets([4, 3]), MeanFreeGaussian()
    x = prior.sample(like, generator())
    moved = x.clone()
    moved[4:] += 0.01
    for call in (prior.log_prob, prior.whiten, lambda y, b: prior.fit(b.replace(y))):
        with pytest.raises(ValueError, match=r"centre at the origin; sample 1 is off .*prior.project"):
            call(moved, like)
    prior.log_prob(prior.project(moved, like), like)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_sets_that_were_centred_in_single_precision_are_good_enough(scale):
    like, prior = sets([200, 5]), MeanFreeGaussian(scale)
    single = like.to(torch.float32)
    x = prior.sample(single, generator())
    wide = prior.log_prob(x.double(), like)
    exact = prior.log_prob(prior.project(x.double(), like), like)
    assert torch.allclose(wide, exact, rtol=1e-10, atol=1e-8)
    with pytest.raises(ValueError, match="centre"):
        prior.log_prob(x.double() + 1e-4 * scale, like)


def test_fitting_finds_the_most_likely_scale():
    like, truth = sets([2, 5, 9, 1] * 50), MeanFreeGaussian(3.0)
    data = like.replace(truth.sample(like, generator()))
    prior = MeanFreeGaussian().fit(data)
    assert abs(float(prior.std) - 3) < 0.1
    best = prior.log_prob(data.x, data).sum()
    for change in (0.98, 1.02):
        assert MeanFreeGaussian(float(prior.std) * change).log_prob(data.x, data).sum() < best


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: MeanFreeGaussian(0.0), "one positive number"),
        (lambda: MeanFreeGaussian(torch.ones(3)), "one positive number"),
        (lambda: MeanFreeGaussian(math.inf), "one positive number"),
        (lambda: MeanFreeGaussian().sample(Batch(torch.zeros(3, 3))), r"n numbers are a set of n points as \(n, 1\)"),
        (lambda: MeanFreeGaussian().sample(Batch(torch.zeros(3), torch.tensor([0, 0, 0]), 1)), "coordinate axis"),
        (lambda: MeanFreeGaussian().fit(sets([1, 1])), "at least two points that differ"),
        (lambda: MeanFreeGaussian().fit(sets([3])), "at least two points that differ"),
        (lambda: MeanFreeGaussian().log_prob(torch.full((3, 3), math.nan), sets([3])), "centre"),
    ],
)
def test_bad_sets_are_refused(call, says):
    with pytest.raises(ValueError, match=says):
        call()


# -- masked grids ----------------------------------------------------------------------------------------------

MASK = torch.tensor([[True, True, False], [True, False, True]])
STD = torch.tensor([[1.0, 2.0, math.nan], [0.5, 0.0, 3.0]])


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (DOUBLE, 1e-10)])
def test_a_masked_field_has_the_dense_normal_of_its_values(n, dtype, tolerance):
    like, prior = Batch(torch.zeros(n, 2, 3, dtype=dtype)), Masked(MASK, STD)
    x = prior.sample(like, generator())
    assert (x[:, ~MASK] == 0).all() and prior.dims(like).tolist() == [4] * n
    dense = laws.MultivariateNormal(torch.zeros(4, dtype=DOUBLE), STD[MASK].double().square().diag())
    wanted = dense.log_prob(x[:, MASK].double())
    assert torch.allclose(prior.log_prob(x, like).double(), wanted, rtol=tolerance, atol=tolerance)
    assert torch.allclose(prior.score(x, like), Prior.score(prior, x, like), rtol=1e-5)
    assert torch.allclose(prior.colour(prior.whiten(x, like), like), x, rtol=1e-6)


def test_land_changes_nothing():
    wide = torch.zeros(5, 6, dtype=torch.bool)
    wide[:2, :3] = MASK
    x, like = noise(2, 2, 3) * MASK, Batch(torch.zeros(2, 2, 3, dtype=DOUBLE))
    padded = torch.zeros(2, 5, 6, dtype=DOUBLE)
    padded[:, :2, :3] = x
    value = Masked(wide, 2.0).log_prob(padded, Batch(padded))
    assert torch.allclose(value, Masked(MASK, 2.0).log_prob(x, like))


def test_what_is_on_land_is_refused_and_projected_away():
    prior = Masked(MASK)
    x = noise(2, 2, 3) * MASK
    for value in (0.5, math.nan):
        bad = torch.where(MASK, x, value)
        bad[0] = x[0]
        like = Batch(bad)
        for call in (prior.log_prob, prior.whiten):
            with pytest.raises(ValueError, match="outside the mask must be zero; sample 1 is off"):
                call(bad, like)
        assert torch.equal(prior.project(bad, like), x)


def test_a_mask_of_everything_is_white_noise():
    like, prior = Batch(noise(3, 2, 2)), Masked(torch.ones(2, 2, dtype=torch.bool), 1.3)
    assert torch.allclose(prior.log_prob(like.x, like), Gaussian(std=1.3).log_prob(like.x, like))
    check_prior(prior, like, samples=512)


@pytest.mark.parametrize("per", ["all", "value"])
def test_fitting_a_mask_finds_the_most_likely_scale_and_ignores_land(per):
    x = 2 * noise(400, 2, 3) * torch.tensor([1.0, 2.0, 3.0])
    data = Batch(torch.where(MASK, x, math.nan))
    prior = Masked(MASK, per=per).fit(data)
    assert len(prior.std[MASK].unique()) == (1 if per == "all" else 4)
    clean = data.replace(prior.project(data.x, data))
    best = prior.log_prob(clean.x, clean).mean()
    for change in (0.98, 1.02):
        assert Masked(MASK, prior.std * change).log_prob(clean.x, clean).mean() < best


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: Masked(torch.ones(2, 3)), "mask must be bool"),
        (lambda: Masked(torch.zeros(2, 3, dtype=torch.bool)), "at least one True"),
        (lambda: Masked(MASK, 0.0), "std must be positive"),
        (lambda: Masked(MASK, torch.full((2, 3), math.nan)), "std must be positive and finite inside"),
        (lambda: Masked(MASK, per="channel"), 'per must be "all" or "value"'),
        (lambda: Masked(MASK).sample(Batch(torch.zeros(2, 3, 2))), r"shape \(2, 3\), got \(3, 2\)"),
        (lambda: Masked(MASK, per="value").fit(Batch(torch.zeros(3, 2, 3))), "never vary"),
        (lambda: Masked(MASK).fit(Batch(torch.full((3, 2, 3), math.nan))), "finite data inside the mask"),
        (lambda: Masked(MASK[0]).sample(Batch(torch.zeros(2, 3), torch.tensor([0, 0]), 1)), "ragged"),
    ],
)
def test_bad_masks_are_refused(call, says):
    with pytest.raises(ValueError, match=says):
        call()


# -- the public check sees what is wrong with a subspace -------------------------------------------------------


class Wrong(MeanFreeGaussian):
    def __init__(self, fault):
        super().__init__(1.5)
        self.fault = fault
        self.gaussian = fault != "is no Gaussian"
        self.conditional = ("season",) if fault == "reads what is not there" else ()

    def sample(self, like, generator=None):
        x = super().sample(like, generator)
        return x + 0.3 * like.randn(generator) if self.fault == "sample leaves" else x

    def log_prob(self, x, like):
        z = super().project(x, like) / self.std.to(x)
        dims = like.dims if self.fault == "constant of all dimensions" else self.dims(like)
        return -0.5 * like.total(z.square()) - (self.std.log() + 0.5 * math.log(2 * math.pi)).to(x) * dims

    def dims(self, like):
        dims = super().dims(like)
        return torch.where(dims > 0, dims - 1, dims) if self.fault == "too few dims" else dims

    def project(self, x, like):
        projected = super().project(x, like)
        if self.fault == "no projection":
            return x
        if self.fault == "not orthogonal":  # the first point goes wherever the others want it
            first = like.index.diff(prepend=torch.tensor([-1])) > 0
            total = torch.zeros_like(x[: len(like)]).index_add(0, like.index, torch.where(first[:, None], 0, x))
            return torch.where(first[:, None], -total[like.index], x)
        return 0.9 * projected if self.fault == "shrinks" else projected

    def whiten(self, x, like):
        return super().project(x, like) / self.std.to(x)

    def score(self, x, like):
        return -super().project(x, like) / self.std.square().to(x)

    def colour(self, z, like):
        return super().project(z, like) * self.std.to(z)


FAULTS = {
    "no projection": "has rank .*dims says",
    "not orthogonal": "no orthogonal projection",
    "shrinks": "moves samples",
    "sample leaves": "moves samples|does not follow|not the gradient",
    "too few dims": "has rank|Prior.dims says",
    "constant of all dimensions": "does not integrate to one",
    "reads what is not there": r"conditional names \['season'\], which the batch lacks",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_subspace_is_caught(fault):
    with pytest.raises(AssertionError, match=FAULTS[fault]):
        check_prior(Wrong(fault), sets([3, 2, 0, 1], 2), samples=512)


def test_a_right_one_is_not():
    check_prior(Wrong(None), sets([3, 2, 0, 1], 2), samples=512)


def test_a_gaussian_that_is_none_is_caught():
    class Says(Gaussian):
        def log_prob(self, x, like):
            return -like.total(x.abs() + math.log(2))

        def sample(self, like, generator=None):
            a, b, c, d = (like.randn(generator) for _ in range(4))
            return a * b - c * d

        def score(self, x, like):
            return -x.sign()

        whiten = Prior.whiten

    with pytest.raises(AssertionError, match="gaussian is set, but the score is not affine"):
        check_prior(Says(), Batch(torch.zeros(2, 3)), samples=512)
