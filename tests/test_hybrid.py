"""Couplings with noise mixed in, transport found beforehand on super-sets, and the public check of moved draws."""

import copy

import pytest
import torch

from scifm import Batch, Flow, couplings, networks, priors
from scifm.couplings import Aligned, EquivariantTransport, Hybrid, OptimalTransport, Paired, superset, transport_map
from scifm.couplings.pairing import products
from scifm.testing import check_coupling

CENTRED = priors.MeanFreeGaussian(2.0)


def fresh(seed=0):
    return torch.Generator().manual_seed(seed)


def cloud(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=fresh(seed), dtype=torch.float64).to(dtype)


def ragged(counts, d=3, **more):
    index = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    return Batch(cloud(sum(counts), d), index, len(counts), **more)


def molecules():
    z, bonds = torch.tensor([6, 1, 1, 1, 1] * 2 + [8, 1, 1]), [(0, 1), (0, 2), (0, 3), (0, 4)]
    bonds += [(5 + a, 5 + b) for a, b in bonds] + [(10, 11), (10, 12)]
    return ragged([5, 5, 3], nodes={"z": z}, edge_index=torch.tensor(bonds).T)


BATCHES = {
    "dense": Batch(cloud(9, 5, 3)),
    "plane": Batch(cloud(9, 4, 2, dtype=torch.float32)),
    "pairs": Batch(cloud(4, 2, 3)),
    "points": Batch(cloud(4, 1, 3)),
    "ragged": ragged([4, 1, 0, 4, 2, 7, 0, 4]),
    "species": ragged([4, 4, 4, 6], nodes={"z": torch.tensor([1, 1, 2, 2] * 4 + [2, 1])}),
    "bonds": molecules(),
    "labels": Batch(cloud(9, 4, 3), context={"label": torch.arange(9) % 2}),
}
MOVING = {
    "aligned": Aligned(),
    "reflections": Aligned(reflection=True, starts=10),
    "rotation": Aligned(permutation=False),
    "permutation": Aligned(rotation=False),
    "equivariant": EquivariantTransport(),
    "all pairs": EquivariantTransport("pairs", Aligned(starts=1)),
}


# -- the public check ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BATCHES)
@pytest.mark.parametrize("how", MOVING)
def test_moving_couplings_pass_the_public_check(how, name):
    check_coupling(MOVING[how], BATCHES[name], CENTRED)
    check_coupling(Hybrid(CENTRED, MOVING[how], 0.0), BATCHES[name], CENTRED)


def declares(function, *symmetries):
    class Own:
        def __init__(self):
            self.symmetries = frozenset(symmetries)

        def __call__(self, x0, batch, generator=None):
            return function(x0, batch)

    return Own()


def test_the_public_check_finds_what_was_not_declared():
    batch, mirror = BATCHES["dense"], torch.tensor([1.0, 1.0, -1.0]).double()
    turn = torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]).double()
    everything = ("rotation", "reflection", "permutation")
    allowed = {
        "turns": (lambda x, b: x @ turn, "rotation"),
        "mirrors": (lambda x, b: x * mirror, "reflection"),
        "relabels": (lambda x, b: x.flip(-2), "permutation"),
    }
    for act, needed in allowed.values():
        with pytest.raises(AssertionError, match="alike"):  # a move that was allowed, but does not look at the data
            check_coupling(declares(act, *everything), batch, CENTRED)
        rest = [s for s in everything if s != needed and (needed, s) != ("rotation", "reflection")]
        with pytest.raises(AssertionError, match="exactly once"):
            check_coupling(declares(act, *rest), batch, CENTRED)
    for act in (lambda x, b: 2 * x, lambda x, b: x[:1].expand_as(x).clone(), lambda x, b: x + b.x):
        with pytest.raises(AssertionError, match="exactly once"):
            check_coupling(declares(act, *everything), batch, CENTRED)
    with pytest.raises(AssertionError, match="exactly once"):  # hydrogens of a methane for its carbon
        exchange = declares(lambda x, b: x[[1, 0, *range(2, 13)]], "automorphism", "rotation")
        check_coupling(exchange, BATCHES["bonds"], CENTRED)
    with pytest.raises(AssertionError, match="turned alike"):
        check_coupling(declares(lambda x, b: x @ turn, "rotation"), batch, CENTRED)


# -- noise mixed in ------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", (0.0, 0.2, 1.0))
@pytest.mark.parametrize("name", ("dense", "plane", "ragged", "bonds"))
def test_mixtures_pass_the_public_check(name, share):
    for inner in (couplings.independent, EquivariantTransport()):
        check_coupling(Hybrid(CENTRED, inner, share), BATCHES[name], CENTRED, mixes=True)


def test_the_public_check_finds_another_law():
    for wrong in (lambda x, b, g=None: 0.9 * x, lambda x, b, g=None: 0.5 * (x + CENTRED.sample(b, g))):
        with pytest.raises(AssertionError, match="does not follow the prior"):
            check_coupling(wrong, Batch(cloud(32, 5, 3)), CENTRED, mixes=True)


def test_limits_and_cost_between_them():
    prior, batch = priors.Gaussian(3.0, 2.0), Batch(3 + 2 * cloud(200, 2, seed=1))
    x0, paired = prior.sample(batch, fresh()), None
    costs = []
    for share in (0.0, 0.2, 0.5, 1.0):
        mixed = Hybrid(prior, OptimalTransport(), share)(x0, batch, fresh(11))
        paired = mixed if paired is None else paired
        costs.append(float((mixed - batch.x).square().sum(1).mean()))
    assert torch.equal(paired, OptimalTransport()(x0, batch))
    assert costs == sorted(costs) and costs[-1] > 10 * costs[0]
    assert torch.equal(mixed, prior.sample(batch, fresh(11)))
    near = Hybrid(prior, OptimalTransport(), 1e-12)(x0, batch, fresh(1))
    assert torch.allclose(near, paired, atol=1e-4)


@pytest.mark.parametrize(
    "prior", (priors.Gaussian(torch.tensor([5.0, -1.0, 0.0]), 0.5), CENTRED), ids=("mean", "centred")
)
def test_moments_of_mixed_draws_are_the_priors(prior):
    """With a mean that is not zero, and on a subspace, where x0 is tied to x1 by exact transport."""
    batch = Batch(cloud(2000, 2, 3, seed=3) - cloud(2000, 2, 3, seed=3).mean(1, keepdim=True))
    coupling = Hybrid(prior, OptimalTransport(), 0.3)
    parts = [batch.select(range(k, k + 100)) for k in range(0, 2000, 100)]
    x = torch.cat([coupling(prior.sample(b, fresh(k)), b, fresh(k + 99)) for k, b in enumerate(parts)]).flatten(1)
    y = prior.sample(Batch(cloud(20000, 2, 3)), fresh(7)).flatten(1)
    width = float(y.std())
    assert (x.mean(0) - y.mean(0)).abs().max() < 5 * width / 2000**0.5
    assert (x.T.cov() - y.T.cov()).abs().max() < 5 * width**2 * (2 / 2000) ** 0.5


def test_hybrid_inherits_and_refuses():
    batch, net = BATCHES["dense"], networks.EGNN(3, 8, 1)
    inner = EquivariantTransport(within=Aligned(ignore=("z",)), ignore=("label",))
    mixed = Hybrid(CENTRED, inner)
    assert mixed.symmetries == inner.symmetries and couplings.crossed_by(mixed) == couplings.crossed_by(inner)
    assert Hybrid(CENTRED, OptimalTransport()).symmetries == frozenset()
    Flow(net, CENTRED, coupling=mixed)
    Flow(net, priors.MeanFreeGaussian(2.0), coupling=mixed)
    for other in (priors.MeanFreeGaussian(1.0), priors.Gaussian(std=2.0)):
        with pytest.raises(ValueError, match="another MeanFreeGaussian than the flow's"):
            Flow(net, other, coupling=mixed)
    with pytest.raises(ValueError, match="Gaussian prior that whitens, got Mixture"):
        Hybrid(priors.Mixture([priors.Gaussian(), priors.Gaussian(1.0)]), inner)
    for bad in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="noise must be from 0 to 1"):
            Hybrid(CENTRED, inner, bad)
    with pytest.raises(TypeError, match="a prior and a coupling"):
        Hybrid(inner, CENTRED, 0.1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="not finite"):
        Hybrid(CENTRED, lambda x0, batch, generator: x0 / 0)(batch.x, batch)


# -- super-sets ----------------------------------------------------------------------------------------


def surface(count, seed=0):
    """Points on a torus, as a scanned surface would give them."""
    u, v = 2 * torch.pi * torch.rand(2, count, generator=fresh(seed), dtype=torch.float64)
    return torch.stack([(2 + v.cos()) * u.cos(), (2 + v.cos()) * u.sin(), v.sin()], 1)


def cost(x, y):
    return float((x - y).square().sum(1).mean())


def test_a_map_is_exact_in_one_block_and_nearly_so_in_many():
    x, y = cloud(600, 3), surface(600)
    best = couplings.assign(products(y, x))
    assert cost(x[transport_map(x, y, 600)], y) == pytest.approx(cost(x[best], y))
    costs = []
    for passes in (0, 1, 4):
        order = transport_map(x, y, 100, passes, fresh())
        assert torch.equal(order.sort()[0], torch.arange(600))
        costs.append(cost(x[order], y))
    assert costs == sorted(costs, reverse=True)
    assert costs[-1] < 1.05 * cost(x[best], y) < costs[0]
    assert torch.equal(transport_map(x, y, 100, 2, fresh()), transport_map(x, y, 100, 2, fresh()))
    for count in (0, 1, 2, 3):
        assert transport_map(x[:count], y[:count], 1).sort()[0].tolist() == list(range(count))
    line = transport_map(x[:, :1], y[:, :1], 7)
    assert torch.equal(x[line, 0], x[:, 0].sort()[0][y[:, 0].argsort().argsort()])


@pytest.mark.parametrize("prior", (priors.Gaussian(), CENTRED), ids=("white", "centred"))
def test_views_are_parts_of_the_clouds_and_their_x0_follow_the_prior(prior):
    clouds = [surface(1003, k).sort(0)[0] for k in range(3)]  # neighbours in order, which a view must not follow
    index = torch.arange(3).repeat_interleave(1003)
    dense = Batch(torch.cat(clouds), index, 3, context={"label": torch.tensor([7, 8, 9])})
    x0, views = superset(dense, prior, 4, fresh(1), block=128, passes=1)
    assert (
        len(views) == 750
        and views.counts.eq(4).all()
        and views.context["label"].tolist() == [7] * 250 + [8] * 250 + [9] * 250
    )
    if prior is CENTRED:
        assert prior.project(views.x, views).allclose(views.x) and prior.project(x0, views).allclose(x0)
    else:
        every = {tuple(row) for row in dense.x.tolist()}
        assert {tuple(row) for row in views.x.tolist()} <= every and len({tuple(r) for r in views.x.tolist()}) == 3000
        assert len({tuple(row) for row in x0.tolist()}) == 3000
    sets, reference = x0.reshape(750, 12), prior.sample(Batch(cloud(20000, 4, 3)), fresh(2)).flatten(1)
    width = float(reference.std())
    assert (sets.T.cov() - reference.T.cov()).abs().max() < 5 * width**2 * (2 / 750) ** 0.5
    fourth = reference.pow(4).mean()
    assert abs(sets.pow(4).mean() - fourth) < 5 * float(reference.pow(4).std()) / 3000**0.5
    again, same = superset(dense, prior, 4, fresh(1), block=128, passes=1)
    assert torch.equal(again, x0) and torch.equal(same.x, views.x)
    drawn = prior.sample(views, fresh(3))
    assert cost(x0, views.x) < 0.6 * cost(drawn, views.x)


def test_views_train_a_flow_through_a_file(tmp_path):
    dense = Batch(surface(400).float(), torch.arange(2).repeat_interleave(200), 2)
    x0, views = superset(dense, CENTRED, 50, fresh())
    data = couplings.read_pairs(couplings.write_pairs(tmp_path / "pairs.safetensors", x0, views))
    assert torch.equal(Paired()(torch.zeros_like(x0), data), x0)
    prior = priors.MeanFreeGaussian(2.0)
    flow = Flow(networks.PointNet(3), prior, coupling=Hybrid(prior, Paired(), 0.2))
    assert flow.loss(data, fresh()).isfinite().all()


def test_superset_refusals():
    dense = Batch(surface(100), torch.arange(2).repeat_interleave(50), 2)
    named = Batch(surface(100), torch.arange(2).repeat_interleave(50), 2, nodes={"z": torch.zeros(100)})
    for bad in (
        lambda: superset(dense, priors.Gaussian(torch.zeros(3)), 10),
        lambda: superset(named, CENTRED, 10),
        lambda: superset(Batch(cloud(3, 5, 3)), CENTRED, 5),
        lambda: superset(dense, CENTRED, 51),
        lambda: superset(dense, CENTRED, 0),
        lambda: superset(dense, CENTRED, 5, block=0),
        lambda: transport_map(cloud(3, 2), cloud(4, 2)),
        lambda: transport_map(cloud(3, 2) / 0, cloud(3, 2)),
    ):
        with pytest.raises(ValueError, match="expected"):
            bad()


def test_superset_refuses_noise_that_is_wider_for_more_points():
    dense = Batch(surface(100), torch.arange(2).repeat_interleave(50), 2)
    dense = dense.replace(CENTRED.project(dense.x, dense))
    growing, fixed = (priors.SpectralChain(priors.variances.Isotropic(2.0, growth)) for growth in (0.3, 0.0))
    with pytest.raises(ValueError, match="width of SpectralChain depends on the number of points"):
        superset(dense, growing, 10, fresh())
    assert superset(dense, fixed, 10, fresh())[0].shape == dense.x.shape


def test_hybrid_knows_laws_whose_numbers_agree():
    isotropic = priors.SpectralChain(priors.variances.Isotropic(1.0, 1.0))
    power, stiffer = priors.SpectralChain(), priors.SpectralChain(between=0.5)
    for other in (isotropic, stiffer):
        with pytest.raises(ValueError, match="Hybrid mixes in draws of another SpectralChain"):
            Flow(networks.EGNN(3, 8), power, coupling=Hybrid(other, couplings.independent))
    Flow(networks.EGNN(3, 8), power.eval(), coupling=Hybrid(copy.deepcopy(power).train(), couplings.independent))
