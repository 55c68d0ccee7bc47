"""Chains, graphs and full covariances of points against dense normals on the subspace of centred sets."""

import math

import pytest
import torch
from torch import distributions as laws

from scifm.batch import Batch
from scifm.priors import (
    FullPoints,
    GlobularChain,
    HarmonicChain,
    HarmonicGraph,
    MeanFreeGaussian,
    Prior,
    SpectralChain,
    SpectralGraph,
    variances,
)

DOUBLE = torch.float64
SIZES = [7, 1, 2, 0, 8, 3, 7, 40, 1]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed), dtype=DOUBLE)


def sets(counts=SIZES, d=3, **more):
    index = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    return Batch(torch.zeros(len(index), d, dtype=DOUBLE), index, len(counts), **more)


def molecules(counts=SIZES, d=3, seed=0):
    """Random connected graphs, their bonds in one direction, and a stiffness of each."""
    one, ends, before = generator(seed), [], 0
    for n in counts:
        for i in range(1, n):  # a tree, and a ring now and then
            ends.append((before + int(torch.randint(i, (), generator=one)), before + i))
        if n > 4:
            ends.append((before, before + n - 1))
        before += n
    bonds = torch.tensor(sorted(set(ends))).T
    stiff = 0.5 + torch.rand(bonds.shape[1], generator=one, dtype=DOUBLE)
    return sets(counts, d, edge_index=bonds, edges={"k": stiff})


def laplacian(n, bonds, weights):
    L = torch.zeros(n, n, dtype=DOUBLE)
    for (i, j), w in zip(bonds, weights, strict=True):
        L[i, i] += w
        L[j, j] += w
        L[i, j] -= w
        L[j, i] -= w
    return L


def path(n, links=None):
    return laplacian(n, [(i, i + 1) for i in range(n - 1)], [1.0] * (n - 1) if links is None else links)


def function_of(L, f):
    """f(L) on all modes but the centre."""
    lam, u = torch.linalg.eigh(L)
    return u[:, 1:] @ torch.diag(f(lam[1:])) @ u[:, 1:].T


def dense_log_prob(x, covariance):
    """log N of a centred set x (n, d) with covariance (n, n) per coordinate, in coordinates of the subspace."""
    n = len(x)
    if n < 2:
        return torch.zeros((), dtype=DOUBLE)
    frame = torch.linalg.eigh(torch.eye(n, dtype=DOUBLE) - 1 / n)[1][:, 1:]
    law = laws.MultivariateNormal(torch.zeros(n - 1, dtype=DOUBLE), frame.T @ covariance @ frame)
    return law.log_prob((frame.T @ x).T).sum()


def autoregressive(n, d, link, radius, exponent):
    """Covariance of a globular chain as its definition has it; None where even an ideal chain is too small."""

    def centred(B):
        C = 1.0 * B ** (torch.arange(n)[:, None] - torch.arange(n)).abs().to(DOUBLE) / (1 - B * B)
        P = torch.eye(n, dtype=DOUBLE) - 1 / n
        return P @ C @ P * link**2 * (1 + B) / (2 * d)

    low, high, wanted = 0.0, 1 - 1e-6, (radius * n**exponent) ** 2
    if n < 2 or centred(high).diagonal().sum() * d / n < wanted:
        return None
    for _ in range(60):
        B = 0.5 * (low + high)
        low, high = (B, high) if centred(B).diagonal().sum() * d / n < wanted else (low, B)
    return centred(0.5 * (low + high))


CHAINS = {
    "harmonic": (HarmonicChain(0.7), lambda n: function_of(path(n), lambda lam: 1 / (0.7 * lam))),
    "power law": (
        SpectralChain(variances.PowerLaw(2.0, 1.3)),
        lambda n: function_of(path(n), lambda lam: 2 * lam**-1.3),
    ),
    "stiff": (
        SpectralChain(variances.Springs(2, None, (0.5, 0.8))),
        lambda n: torch.linalg.pinv(0.5 * path(n) + 0.8 * path(n) @ path(n), hermitian=True),
    ),
    "springs in a trap": (
        SpectralChain(variances.Springs(3, 0.3, (0.7, 0.5, 0.2, -0.02))),
        lambda n: function_of(
            path(n), lambda lam: 1 / (0.7 * max(n, 1) ** -1.2 + lam * (0.5 + lam * (0.2 - 0.02 * lam)))
        ),
    ),
    "isotropic": (
        SpectralChain(variances.Isotropic(1.5, 0.3)),
        lambda n: 2.25 * n**0.6 * (torch.eye(n, dtype=DOUBLE) - 1 / max(n, 1)),
    ),
    "globular": (GlobularChain(2.0, 0.9, 0.35), lambda n: autoregressive(n, 3, 2.0, 0.9, 0.35)),
}


def check_against_dense(prior, like, covariances, tolerance=1e-10):
    """Density, sampling and whitening of each sample of a ragged batch; and the batch against its samples alone."""
    x = prior.sample(like, generator())
    log_prob, z = prior.log_prob(x, like), prior.whiten(x, like)
    for b, C in enumerate(covariances):
        one = like.replace(x).select([b])
        alone = prior.log_prob(one.x, one)
        assert torch.allclose(log_prob[b], alone[0], rtol=1e-12, atol=1e-12)
        assert torch.allclose(prior.whiten(one.x, one), like.replace(z).select([b]).x, atol=1e-10)
        wanted = dense_log_prob(one.x, C)
        assert abs(float(log_prob[b] - wanted)) < tolerance * (1 + abs(float(wanted))), (b, log_prob[b], wanted)
        n = len(one.x)
        if n < 2:
            continue
        # Coloured and whitened unit vectors of the first coordinate are the columns of both matrices.
        many, unit = one.select([0] * n), torch.zeros(n, n, like.event[-1], dtype=DOUBLE)
        unit[:, :, 0] = torch.eye(n, dtype=DOUBLE)
        rows = unit.reshape(many.x.shape)
        A = prior.colour(rows, many).reshape(unit.shape)[:, :, 0].T
        W = prior.whiten(prior.project(rows, many), many).reshape(unit.shape)[:, :, 0].T
        P = torch.eye(n, dtype=DOUBLE) - 1 / n
        scale = float(C.diagonal().max())
        assert torch.allclose(A @ A.T / scale, C / scale, atol=tolerance)  # samples have this covariance
        assert torch.allclose(W @ C @ W.T, P, atol=1e2 * tolerance)  # and become white noise on the subspace
        assert torch.allclose(W @ A, P, atol=1e2 * tolerance)
    assert torch.equal(prior.dims(like), (like.counts - 1).clamp(min=0).to(DOUBLE) * like.event[-1])


@pytest.mark.parametrize("name", CHAINS)
def test_chains_are_the_dense_normal_of_their_subspace_at_every_size(name):
    prior, covariance = CHAINS[name]
    found = [covariance(n) for n in SIZES]
    found = [
        function_of(path(n), lambda lam: 4 / (3 * lam)) if C is None else C for n, C in zip(SIZES, found, strict=True)
    ]
    check_against_dense(prior, sets(), found)


@pytest.mark.parametrize("d", [1, 2])
def test_chains_in_other_dimensions(d):
    like = sets([3, 4], d)
    check_against_dense(HarmonicChain(0.7), like, [function_of(path(n), lambda lam: 1 / (0.7 * lam)) for n in (3, 4)])
    found = [autoregressive(n, d, 1.0, 0.5, 0.2) for n in (3, 4)]
    check_against_dense(GlobularChain(1.0, 0.5, 0.2), like, found)


def test_dense_and_ragged_sets_agree():
    x = noise(5, 6, 3)
    dense, ragged = Batch(x - x.mean(1, keepdim=True)), sets([6] * 5)
    rows = dense.x.reshape(30, 3)
    for prior, _ in CHAINS.values():
        assert torch.allclose(prior.log_prob(dense.x, dense), prior.log_prob(rows, ragged))
        for verb in (prior.score, prior.whiten, prior.colour, prior.project):
            assert verb(dense.x, dense).shape == x.shape
            assert torch.allclose(verb(dense.x, dense).reshape(30, 3), verb(rows, ragged))
        assert torch.allclose(prior.sample(dense, generator()).reshape(30, 3), prior.sample(ragged, generator()))


def test_a_chain_whose_modes_are_alike_is_white_noise_and_invariant_under_renumbering():
    like, chain = sets(), SpectralChain(variances.Isotropic(1.7))
    x = chain.sample(like, generator())
    assert torch.allclose(chain.log_prob(x, like), MeanFreeGaussian(1.7).log_prob(x, like))
    assert chain.symmetries == MeanFreeGaussian().symmetries
    for prior in (SpectralChain(), HarmonicChain(), GlobularChain(), HarmonicGraph(), SpectralGraph()):
        assert {"rotation", "reflection"} <= prior.symmetries and "permutation" not in prior.symmetries


def test_chains_are_invariant_under_rotations_and_reflections_and_not_under_renumbering():
    like, q = sets([6, 5]), torch.linalg.qr(noise(3, 3))[0]
    order = torch.tensor([1, 0, 2, 3, 4, 5, 6, 8, 7, 9, 10])
    for name, (prior, _) in CHAINS.items():
        x = prior.sample(like, generator())
        value = prior.log_prob(x, like)
        assert {"rotation", "reflection"} <= prior.symmetries
        for turned in (x @ q, x @ q @ torch.diag(torch.tensor([1.0, 1, -1], dtype=DOUBLE))):
            assert torch.allclose(prior.log_prob(turned, like), value)
        if name != "isotropic":
            assert "permutation" not in prior.symmetries
            assert (prior.log_prob(x[order], like) - value).abs().min() > 1e-3


def test_the_radius_of_gyration_is_the_ideal_chains():
    n, a, d = 50, 0.3, 3
    like = Batch(torch.zeros(4000, n, d, dtype=DOUBLE))
    x = HarmonicChain(a).sample(like, generator())
    assert x.square().sum(2).mean() == pytest.approx(d * (n * n - 1) / (6 * n * a), rel=0.03)
    assert x.diff(dim=1).square().sum(2).mean() == pytest.approx(d / a, rel=0.01)


# -- globules ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("link", "radius", "exponent"), [(3.8, 2.2, 0.4), (1.0, 0.4, 1 / 3), (2.0, 1.0, 0.5)])
def test_globules_have_the_size_that_was_asked_for(link, radius, exponent):
    for n in (30, 200):
        like = Batch(torch.zeros(800, n, 3, dtype=DOUBLE))
        x = GlobularChain(link, radius, exponent).sample(like, generator())
        size = min(radius * n**exponent, link * math.sqrt((n * n - 1) / (6 * n)))  # no larger than an ideal chain
        assert x.square().sum(2).mean().sqrt() == pytest.approx(size, rel=0.04)
        assert x.diff(dim=1).square().sum(2).mean().sqrt() == pytest.approx(link, rel=0.01)


def test_a_globule_in_the_plane_does_not_remember_one_in_space():
    prior, space = GlobularChain(), Batch(torch.zeros(2, 10, 3))
    plane = space.replace(torch.zeros(2, 10, 2))
    prior.log_prob(space.x, space)
    assert torch.equal(prior.log_prob(plane.x, plane), prior.log_prob(plane.x, Batch(plane.x)))


def test_a_globule_too_large_for_its_chain_is_the_ideal_chain():
    like = sets()
    x = HarmonicChain(3 / 4.0).sample(like, generator())
    globule = GlobularChain(2.0, 50.0, 0.5)
    assert torch.allclose(globule.log_prob(x, like), HarmonicChain(3 / 4.0).log_prob(x, like), rtol=1e-10)
    assert torch.allclose(globule.score(x, like), HarmonicChain(3 / 4.0).score(x, like), rtol=1e-8, atol=1e-10)
    assert globule.sample(like.to(torch.float32), generator()).isfinite().all()


def test_the_score_of_a_globule_is_the_gradient_of_its_density():
    like, prior = sets(), CHAINS["globular"][0]
    x = prior.sample(like, generator())
    assert torch.allclose(prior.score(x, like), prior.project(Prior.score(prior, x, like), like), atol=1e-12)


def test_long_globules_in_single_precision():
    like = sets([2000, 700], 3)
    prior = GlobularChain()
    x = prior.sample(like, generator())
    narrow = prior.log_prob(x.float(), like.to(torch.float32)).double()
    assert torch.allclose(narrow, prior.log_prob(x, like), rtol=1e-4)


# -- graphs --------------------------------------------------------------------------------------------------------


def own_laplacians(like, weights=None):
    found, first = [], 0
    for n in like.counts.tolist():
        own = [k for k, i in enumerate(like.edge_index[0].tolist()) if first <= i < first + n]
        bonds = (like.edge_index[:, own] - first).T.tolist()
        found.append(laplacian(n, bonds, [1.0 if weights is None else float(weights[k]) for k in own]))
        first += n
    return found


@pytest.mark.parametrize("law", ["harmonic", "stiffness", "power law"])
def test_graphs_are_the_dense_normal_of_their_subspace_at_every_size(law):
    like = molecules()
    L = own_laplacians(like, like.edges["k"] if law == "stiffness" else None)
    if law == "power law":
        check_against_dense(
            SpectralGraph(variances.PowerLaw(0.5, 2.1)), like, [function_of(v, lambda lam: 0.5 * lam**-2.1) for v in L]
        )
    else:
        prior = HarmonicGraph(1.4, "k" if law == "stiffness" else None)
        check_against_dense(prior, like, [function_of(v, lambda lam: 1 / (1.4 * lam)) for v in L])


def test_a_bond_counts_once_in_whatever_directions_it_is_given():
    like = molecules([5, 4])
    both = torch.cat([like.edge_index, like.edge_index.flip(0), like.edge_index[:, :2]], 1)
    twice = Batch(like.x, like.index, like.size, edge_index=both)
    x = HarmonicGraph().sample(like, generator())
    assert torch.allclose(HarmonicGraph().log_prob(x, like), HarmonicGraph().log_prob(x, twice))


def test_a_chain_is_the_graph_of_its_links():
    counts = [5, 3]
    like = sets(counts, edge_index=torch.tensor([[0, 1, 2, 3, 5, 6], [1, 2, 3, 4, 6, 7]]))
    for chain, graph in (
        (HarmonicChain(0.8), HarmonicGraph(0.8)),
        (SpectralChain(variances.PowerLaw(1.0, 1.4)), SpectralGraph(variances.PowerLaw(1.0, 1.4))),
    ):
        x = chain.sample(like, generator())
        assert torch.allclose(chain.log_prob(x, like), graph.log_prob(x, like), rtol=1e-10)
        assert torch.allclose(chain.whiten(x, like), graph.whiten(x, like), atol=1e-10)


def test_renumbering_a_molecule_with_its_bonds_changes_nothing():
    like, order = molecules([9]), torch.randperm(9, generator=generator())
    place = order.argsort()
    other = Batch(like.x, like.index, 1, edge_index=place[like.edge_index])
    for prior in (HarmonicGraph(), SpectralGraph(variances.PowerLaw(1.0, 2.5))):
        x = prior.sample(like, generator())
        assert torch.allclose(prior.log_prob(x[order], other), prior.log_prob(x, like), rtol=1e-10)


def test_a_graph_of_pieces_is_refused_or_held_by_something_weak():
    like = sets([3, 5], edge_index=torch.tensor([[0, 1, 3, 5, 6], [1, 2, 4, 6, 7]]))
    with pytest.raises(ValueError, match=r"sample 1 falls into 2 pieces .* weak="):
        HarmonicGraph().log_prob(like.x, like)
    weak = []
    for L in own_laplacians(like):
        one = torch.eye(len(L), dtype=DOUBLE)
        weak.append((one - 1 / len(L)) @ torch.linalg.inv(L + 0.3 * one) @ (one - 1 / len(L)))
    check_against_dense(HarmonicGraph(1.0, weak=0.3), like, weak)


# -- chains of several pieces, with gaps --------------------------------------------------------------------------


def broken():
    chain = torch.tensor([0, 0, 0, 1, 1, 5, 5, 5, 5, 0, 0])
    position = torch.tensor([1, 2, 6, 3, 4, 10, 11, 13, 14, 1, 2])
    return sets([5, 4, 2], nodes={"chain": chain, "position": position})


def test_gaps_are_springs_in_series_and_pieces_are_weakly_bound():
    like = broken()
    links = [[1, 1 / 4, 0.05, 1], [1, 1 / 2, 1], [1]]
    found = [function_of(path(len(w) + 1, w), lambda lam: 1 / (0.7 * lam)) for w in links]
    check_against_dense(HarmonicChain(0.7, "chain", "position", 0.05), like, found)
    found = [function_of(path(len(w) + 1, w), lambda lam: 2 * lam**-1.3) for w in links]
    check_against_dense(SpectralChain(variances.PowerLaw(2.0, 1.3), "chain", "position", 0.05), like, found)


def test_a_gap_has_the_marginal_law_of_the_whole_chain():
    whole, kept = HarmonicChain(1.1), torch.tensor([0, 1, 2, 6, 7])
    eye = torch.eye(8, dtype=DOUBLE)[:, :, None]
    A = whole.colour(eye, Batch(eye))[:, :, 0]
    P = torch.eye(5, dtype=DOUBLE) - 1 / 5
    like = sets([5], nodes={"position": kept})
    check_against_dense(HarmonicChain(1.1, position="position"), like, [P @ (A @ A.T)[kept][:, kept] @ P])


def test_a_chain_says_on_which_names_it_depends():
    assert HarmonicChain().conditional == () and HarmonicChain(chain="chain").conditional == ("chain",)
    assert SpectralChain(chain="c", position="p").conditional == ("c", "p")


def test_chains_in_one_piece_have_the_law_of_unnamed_ones():
    counts = [5, 4]
    nodes = {"chain": torch.tensor([3] * 5 + [1] * 4), "position": torch.tensor([4, 5, 6, 7, 8, 1, 2, 3, 4])}
    like, named = sets(counts, nodes=nodes), HarmonicChain(0.5, "chain", "position")
    x = named.sample(like, generator())
    assert torch.equal(named.log_prob(x, like), HarmonicChain(0.5).log_prob(x, like))
    long = Batch.join([broken(), sets([5, 4], nodes=nodes)])  # beside a broken one they are diagonalised
    x = named.sample(long, generator())
    wanted = HarmonicChain(0.5).log_prob(x, long)
    assert torch.allclose(named.log_prob(x, long)[2:], wanted[2:], rtol=1e-10)
    assert (named.log_prob(x, long) - wanted)[:2].abs().min() > 0.1


# -- full covariance -------------------------------------------------------------------------------------------------


def test_a_full_covariance_is_the_dense_normal_of_its_subspace():
    root = noise(6, 6)
    P, K = torch.eye(6, dtype=DOUBLE) - 1 / 6, root @ root.T
    check_against_dense(FullPoints(6, K), sets([6, 6]), [P @ K @ P] * 2)


def test_a_nearly_flat_direction_does_not_mix_with_the_centre():
    root = noise(6, 6)
    flat = torch.tensor([1.0, -1, 1, -1, 1, -1], dtype=DOUBLE) / math.sqrt(6)
    P = torch.eye(6, dtype=DOUBLE) - torch.outer(flat, flat)
    prior = FullPoints(6, P @ root @ root.T @ P + 1e-10 * torch.eye(6, dtype=DOUBLE))
    like = sets([6, 6])
    z = like.randn(generator())
    x = prior.colour(z, like)
    assert torch.allclose(prior.project(x, like), x, atol=1e-14)
    assert torch.allclose(prior.whiten(x, like), prior.project(z, like), atol=1e-7)


def test_a_full_covariance_is_fitted_to_conformations_however_they_are_turned():
    root = noise(6, 6)
    truth, q = FullPoints(6, root @ root.T), torch.linalg.qr(noise(400, 3, 3, seed=1))[0]
    like = Batch(torch.zeros(400, 6, 3, dtype=DOUBLE))
    x = truth.sample(like, generator())
    fitted = FullPoints(6).fit(Batch(x))
    turned = FullPoints(6).fit(Batch(x @ q))
    test = Batch(truth.sample(like, generator(1)))
    best = truth.log_prob(test.x, test).mean()
    assert best - 0.2 < fitted.log_prob(test.x, test).mean() < best
    assert torch.allclose(fitted.log_prob(test.x, test), turned.log_prob(test.x, test))
    assert fitted.chosen is not None and fitted.chosen <= 0.01


def test_few_conformations_are_shrunk_to_the_chain_they_are():
    chain = HarmonicChain(0.4)
    data, test = (Batch(chain.sample(Batch(torch.zeros(n, 30, 3, dtype=DOUBLE)), generator(n))) for n in (8, 200))
    plain, shrunk = FullPoints(30).fit(data), FullPoints(30, target=SpectralChain()).fit(data)
    best = chain.log_prob(test.x, test).mean()
    assert shrunk.chosen == 1.0  # what is left of the target
    assert best - 2 < shrunk.log_prob(test.x, test).mean() < best
    assert plain.log_prob(test.x, test).mean() < best - 10


# -- fits --------------------------------------------------------------------------------------------------------------


FITS = {
    "harmonic": (lambda: HarmonicChain(0.7), HarmonicChain),
    "power law": (lambda: SpectralChain(variances.PowerLaw(2.0, 1.3)), SpectralChain),
    "stiff": (
        lambda: SpectralChain(variances.Springs(2, None, (0.5, 0.3))),
        lambda: SpectralChain(variances.Springs(2, None)),
    ),
    "springs in a trap": (
        lambda: SpectralChain(variances.Springs(2, 1 / 3, (2.0, 0.5, 0.3))),
        lambda: SpectralChain(variances.Springs()),
    ),
    "isotropic": (
        lambda: SpectralChain(variances.Isotropic(2.0, 0.3)),
        lambda: SpectralChain(variances.Isotropic()),
    ),
    "globular": (lambda: GlobularChain(2.0, 0.7, 0.4), GlobularChain),
    "graph": (lambda: SpectralGraph(variances.PowerLaw(1.0, 2.0)), SpectralGraph),
    "harmonic graph": (lambda: HarmonicGraph(3.0), HarmonicGraph),
}


@pytest.mark.parametrize("name", FITS)
def test_fits_find_the_truth_and_are_the_most_likely(name):
    truth, made = FITS[name][0](), FITS[name][1]()
    like = molecules([5, 12, 30, 1, 2] * 12)
    data = like.replace(truth.sample(like, generator()))
    fitted = made.fit(data)
    assert fitted is made
    assert torch.allclose(fitted.theta, truth.theta, atol=0.15, rtol=0.3)
    best = fitted.log_prob(data.x, data).sum()
    for k in range(len(fitted.theta) - (name == "globular")):  # whose exponent is given
        for change in (-0.01, 0.01):
            fitted.theta[k] += change
            assert fitted.log_prob(data.x, data).sum() < best
            fitted.theta[k] -= change


def test_a_fit_in_pieces_is_the_fit_of_the_whole(monkeypatch):
    like = sets([5, 12, 30, 0, 1, 2] * 5)
    data = like.replace(HarmonicChain(0.7).sample(like, generator()))
    whole = SpectralChain().fit(data).theta
    monkeypatch.setattr("scifm.priors.points.PAIRS", 500)
    assert torch.allclose(SpectralChain().fit(data).theta, whole, rtol=1e-10)


def test_sets_too_small_for_freedom_do_not_disturb_a_fit():
    like = sets([6, 9, 4])
    x = HarmonicChain(0.7).sample(like, generator())
    more = Batch.join([like.replace(x), sets([1, 0, 1])])
    assert torch.allclose(SpectralChain().fit(like.replace(x)).theta, SpectralChain().fit(more).theta)


def test_per_mode_variances_are_pooled_where_modes_are_degenerate():
    ring = Batch(torch.zeros(6, 3, dtype=DOUBLE), torch.zeros(6, dtype=torch.long), 1)
    ring = Batch(ring.x, ring.index, 1, edge_index=torch.tensor([[0, 1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 0]]))
    data = Batch.join([ring] * 50)
    data = data.replace(HarmonicGraph(2.0).sample(data, generator()))
    prior = SpectralGraph(variances.PerMode(6)).fit(data)
    v = prior.theta  # a ring has eigenvalues 1, 1, 3, 3, 4
    assert v[0] == v[1] and v[2] == v[3] and v[1] != v[2]
    turned = Batch(data.x.roll(1, 0), data.index, 50, edge_index=data.edge_index)  # renumbered around the ring
    x = prior.sample(data, generator(1))
    rolled = Batch(x, data.index, 50).split()
    again = torch.cat([s.roll(2, 0) for s in rolled])
    assert torch.allclose(prior.log_prob(again, turned), prior.log_prob(x, data), rtol=1e-9)


def test_the_numbers_of_a_law_are_readable():
    assert HarmonicChain(2.0).numbers == {"log_spring": pytest.approx(math.log(2))}
    assert set(SpectralChain().numbers) == {"log_scale", "slope"}
    cubic = SpectralChain(variances.Cubic())
    assert len(cubic.numbers) == 8
    like = sets([5, 12, 30, 21] * 20)
    data = like.replace(HarmonicChain(0.7).sample(like, generator()))
    gain = cubic.fit(data).log_prob(data.x, data).sum() - HarmonicChain().fit(data).log_prob(data.x, data).sum()
    assert 0 < gain < 12  # what seven idle numbers buy: χ²/2 of 7 degrees of freedom


def growing():
    like = sets([4, 5])
    return like.replace(HarmonicChain().sample(like, generator()))


# -- mistakes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: HarmonicChain(-1.0), "spring must be positive"),
        (lambda: HarmonicChain(between=0.0), "between must be positive"),
        (
            lambda: SpectralChain(variances.Springs(2, None, (1.0, -0.3))).sample(sets()),
            "sample 0 no positive variance",
        ),
        (lambda: SpectralChain(variances.Springs(0)), "order must be at least 1"),
        (lambda: SpectralChain(variances.Springs(2, 0.3, (1.0, 1.0))), "must be trap, spring_1, spring_2"),
        (lambda: SpectralChain(variances.Springs()).sample(sets()), "Springs is made from data"),
        (lambda: SpectralChain(variances.PerMode(1)), "at least 2"),
        (lambda: HarmonicGraph(weak=-1.0), "weak must be zero or positive"),
        (lambda: GlobularChain(exponent=0.7), "between 0 and 1/2"),
        (lambda: GlobularChain(radius=math.nan), "radius must be positive"),
        (lambda: HarmonicChain().sample(Batch(torch.zeros(3, 3))), r"n numbers are a set of n points as \(n, 1\)"),
        (lambda: HarmonicChain(chain="chain").sample(sets()), r"no nodes\['chain'\]; its nodes are none"),
        (lambda: HarmonicChain(position="p").sample(sets([2], nodes={"p": torch.tensor([2, 2])})), "must increase"),
        (lambda: HarmonicGraph().sample(sets()), "no edge_index"),
        (lambda: HarmonicGraph(stiffness="q").sample(molecules()), r"no edges\['q'\]; its edges are \['k'\]"),
        (lambda: HarmonicChain().log_prob(noise(sum(SIZES), 3), sets()), "centre at the origin; sample 0"),
        (lambda: SpectralChain(variances.Cubic()).sample(sets()), "Cubic is made from data"),
        (lambda: SpectralChain(variances.PerMode(4)).fit(growing()), "made for sets of 4 points, got one of 5"),
        (lambda: SpectralChain().fit(sets([1, 0])), "at least two points that differ"),
        (lambda: SpectralChain().fit(sets([4])), "at least two points that differ"),
        (lambda: GlobularChain().fit(sets([4])), "at least two points that differ"),
        (lambda: SpectralChain().fit(Batch(noise(9, 2, 1) * torch.tensor([[1.0], [0]]))), "centre"),
        (lambda: FullPoints(3).fit(sets([3, 4])), "at least 5 sets of 3 points"),
        (lambda: FullPoints(3).sample(sets([3])), "no covariance yet"),
        (lambda: FullPoints(3, torch.eye(3)).sample(sets([3, 4])), "got sets of 3, 4 points"),
        (lambda: FullPoints(3, torch.ones(3, 3)), "singular on centred sets"),
        (lambda: FullPoints(3, torch.eye(4)), r"symmetric \(3, 3\)"),
    ],
)
def test_mistakes_are_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()


def test_data_that_do_not_determine_a_law_are_refused():
    pair = noise(9, 2, 1)
    pairs = Batch(pair - pair.mean(1, keepdim=True))
    with pytest.raises(ValueError, match="PowerLaw: these data do not determine the 2 numbers"):
        SpectralChain().fit(pairs)
    alike = Batch((lambda x: x - x.mean(1, keepdim=True))(noise(9, 6, 3)))
    with pytest.raises(ValueError, match="Isotropic: these data do not determine"):
        SpectralChain(variances.Isotropic()).fit(alike)


def test_stiffness_that_differs_between_directions_is_refused():
    like = Batch(
        torch.zeros(2, 3),
        torch.zeros(2, dtype=torch.long),
        1,
        edge_index=torch.tensor([[0, 1], [1, 0]]),
        edges={"k": torch.tensor([1.0, 2.0])},
    )
    with pytest.raises(ValueError, match="differs between the two directions"):
        HarmonicGraph(stiffness="k").sample(like)


def test_graph_priors_do_not_notice_an_exchange_of_twins():
    """Two hydrogens of one carbon: relabelling them keeps the bonds, and the density must not change."""
    bonds = torch.tensor([[0, 0, 0, 1, 2, 3], [1, 2, 3, 0, 0, 0]])
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    like = Batch(x - x.mean(0), torch.zeros(4, dtype=torch.long), 1, edge_index=bonds)
    for prior in (HarmonicGraph(), SpectralGraph()):
        assert "automorphism" in prior.symmetries
        assert torch.allclose(prior.log_prob(like.x, like), prior.log_prob(like.x[[0, 2, 1, 3]], like))
        assert not torch.allclose(prior.log_prob(like.x, like), prior.log_prob(like.x[[1, 0, 2, 3]], like))
    assert "automorphism" not in SpectralGraph(variances.PerMode(4)).symmetries


@pytest.mark.parametrize("n", [20, 2000])
def test_long_chains_in_single_precision_have_the_accuracy_that_is_stated(n):
    prior, like = HarmonicChain(), Batch(torch.zeros(2, n, 3, dtype=DOUBLE))
    x = prior.sample(like, generator())
    wide, narrow = prior.log_prob(x, like), prior.log_prob(x.float(), like.to(torch.float32))
    assert narrow.dtype == torch.float32
    assert torch.allclose(narrow.double(), wide, rtol=5e-7, atol=0)


@pytest.mark.parametrize("prior", [MeanFreeGaussian(), HarmonicChain(), GlobularChain()])
def test_what_is_not_finite_is_called_so_and_not_off_centre(prior):
    x = noise(3, 4, 3)
    x = x - x.mean(1, keepdim=True)
    x[1, 2] = math.nan
    with pytest.raises(ValueError, match="sample 1 is not finite"):
        prior.log_prob(x, Batch(x))


@pytest.mark.parametrize("prior", [HarmonicChain(), SpectralChain()])
def test_no_samples_are_no_data_to_fit(prior):
    with pytest.raises(ValueError, match=f"{type(prior).__name__}.fit: the batch is empty"):
        prior.fit(Batch(torch.zeros(0, 4, 3)))
