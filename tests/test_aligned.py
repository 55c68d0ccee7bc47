"""Aligned and equivariant couplings: orbits, marginals, equivariance, species, bonds and conditions, cost."""

import itertools
from dataclasses import replace

import pytest
import torch

from scifm import Batch, couplings, priors
from scifm.couplings import Aligned, EquivariantTransport, assign_many
from scifm.couplings.superpose import Moves, invariants, superpose
from scifm.couplings.twins import twins
from scifm.data import load_dataset
from scifm.energies import LennardJones
from scifm.geometry import kabsch, random_rotation

PRIOR = priors.MeanFreeGaussian()


def fresh(seed=0):
    return torch.Generator().manual_seed(seed)


def cloud(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=fresh(seed), dtype=torch.float64).to(dtype)


def ragged(counts, d=3, dtype=torch.float64, **more):
    index = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    return Batch(cloud(sum(counts), d, dtype=dtype), index, len(counts), **more)


def molecules():
    """Two methanes, each with its own numbering, a water and a lone ion, bonded."""
    z = torch.tensor([6, 1, 1, 1, 1, 1, 1, 6, 1, 1, 8, 1, 1, 11])
    bonds = [(0, 1), (0, 2), (0, 3), (0, 4), (7, 5), (7, 6), (7, 8), (7, 9), (10, 11), (10, 12)]
    both = torch.tensor(bonds + [(b, a) for a, b in bonds]).T
    return ragged([5, 5, 3, 1], nodes={"z": z}, edge_index=both, edges={"bond": torch.zeros(20).long()})


BATCHES = {
    "dense": Batch(cloud(9, 5, 3)),
    "plane": Batch(cloud(9, 4, 2)),
    "float32": Batch(cloud(9, 5, 3, dtype=torch.float32)),
    "B equals n": Batch(cloud(3, 3, 3)),
    "one sample": Batch(cloud(1, 5, 3)),
    "one point": Batch(cloud(4, 1, 3)),
    "two points": Batch(cloud(4, 2, 3)),
    "ragged": ragged([4, 1, 0, 4, 2, 7, 0]),
    "ragged plane": ragged([4, 1, 0, 4, 2, 7, 0], 2),
    "species": ragged([4, 4, 4, 6], nodes={"z": torch.tensor([1, 1, 2, 2] * 4 + [2, 1])}),
    "bonds": molecules(),
    "labels": Batch(cloud(9, 4, 3), context={"label": torch.arange(9) % 2}),
    "alike": Batch(torch.ones(4, 3, 3)),
}
WITHIN = {
    "both": Aligned(),
    "one start": Aligned(starts=1, sweeps=1),
    "many starts": Aligned(starts=7, sweeps=3),
    "reflections": Aligned(reflection=True, starts=10),
    "rotation": Aligned(permutation=False),
    "permutation": Aligned(rotation=False),
}
EVERY = WITHIN | {
    f"{across}, {name}": EquivariantTransport(across, WITHIN[name])
    for across in ("invariants", "pairs")
    for name in ("both", "rotation", "permutation")
}


def draws(batch, seed=1):
    return PRIOR.sample(batch, fresh(seed))


def sets(x, batch):
    return batch.points.replace(x.reshape(batch.points.x.shape)).split()


def cost(x, batch):
    return batch.total((x - batch.x).square())


def distances(x):
    return torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")


@pytest.mark.parametrize("name", BATCHES)
@pytest.mark.parametrize("how", EVERY)
def test_every_draw_is_moved_by_what_was_declared(how, name):
    """Each result is one of the draws of its group, turned and relabelled within kinds, and each draw is used once."""
    coupling, batch = EVERY[how], BATCHES[name]
    x0 = draws(batch)
    before = x0.clone(), batch.x.clone()
    paired = coupling(x0, batch, fresh(2))
    assert paired.shape == x0.shape and paired.dtype == x0.dtype
    assert torch.equal(x0, before[0]) and torch.equal(batch.x, before[1])
    assert torch.equal(paired, coupling(x0, batch, fresh(2)))
    kinds, tolerance = twins(batch.points), 1e-4 if x0.dtype == torch.float32 else 1e-7
    kinds = torch.zeros(len(batch.points.x)).long() if kinds is None else kinds
    kinds = batch.points.replace(kinds).split()
    old, new = sets(x0, batch), sets(paired, batch)
    groups = batch.groups() if isinstance(coupling, EquivariantTransport) else torch.arange(len(batch))[:, None]
    for group in groups:
        free = set(group.tolist())
        for b in group.tolist():
            found = [a for a in free if moved(old[a], new[b], kinds[b], coupling, tolerance)]
            assert found, f"sample {b} has a draw that is none of its group's"
            free.remove(found[0])


def relabels(coupling):
    return not coupling.symmetries.isdisjoint({"permutation", "automorphism"})


def moved(a, b, kinds, coupling, tolerance):
    """Whether b is a turned and relabelled within kinds, by trying all relabellings (of small sets)."""
    n = len(a)
    if n == 0 or n != len(b):
        return n == len(b)
    if n > 5 and relabels(coupling):  # an invariant instead
        return torch.allclose(distances(a).flatten().sort()[0], distances(b).flatten().sort()[0], atol=tolerance)
    orders = itertools.permutations(range(n)) if relabels(coupling) else [range(n)]
    order = torch.tensor([list(o) for o in orders], dtype=torch.long).reshape(-1, n)
    order = order[(kinds[order] == kinds).all(1)]
    c = a[order]
    if "rotation" in coupling.symmetries:
        c = c @ kabsch(c, b.expand_as(c), about_centre=False, reflect="reflection" in coupling.symmetries).mT
    return bool(((c - b).abs() < tolerance).all(-1).all(-1).any())


@pytest.mark.parametrize("name", BATCHES)
@pytest.mark.parametrize("how", WITHIN)
def test_alignment_never_costs(how, name):
    batch = BATCHES[name]
    x0 = draws(batch)
    assert (cost(WITHIN[how](x0, batch, fresh()), batch) <= cost(x0, batch) * (1 + 1e-5) + 1e-9).all()


def test_more_starts_and_more_freedom_cost_less():
    batch = Batch(cloud(40, 8, 3))
    x0 = draws(batch)

    def mean(coupling):
        return float(cost(coupling(x0, batch, fresh()), batch).mean())

    plain, one, both = mean(couplings.independent), mean(Aligned(starts=1, sweeps=1)), mean(Aligned())
    many = mean(Aligned(starts=30, sweeps=4))
    assert many < both < one < plain
    assert mean(Aligned(permutation=False)) < plain and mean(Aligned(rotation=False)) < plain
    across, pairs = mean(EquivariantTransport()), mean(EquivariantTransport("pairs"))
    assert pairs < across < both and pairs < mean(couplings.OptimalTransport())


@pytest.mark.parametrize("reflect", (False, True))
@pytest.mark.parametrize("d", (2, 3))
def test_a_moved_copy_is_found_again(d, reflect):
    """Data that are draws, moved: the cost is zero, within a pair and across the batch."""
    x0 = draws(Batch(cloud(12, 6, d)))
    moves = random_rotation(12, d, fresh(3), torch.float64)
    if reflect:
        moves[:, 0] *= -1
    order = torch.stack([torch.randperm(6, generator=fresh(i)) for i in range(12)])
    y = torch.take_along_dim(x0, order[..., None], 1) @ moves.mT
    within = Aligned(reflection=reflect, starts=8)
    assert cost(within(x0, Batch(y), fresh()), Batch(y)).max() < 1e-12
    mixed = Batch(y[torch.randperm(12, generator=fresh())])
    for across in ("invariants", "pairs"):
        assert cost(EquivariantTransport(across, within)(x0, mixed, fresh()), mixed).max() < 1e-12
    if reflect and d == 3:
        assert cost(Aligned()(x0, Batch(y)), Batch(y)).min() > 1e-3


@pytest.mark.parametrize("how", EVERY)
def test_it_turns_and_relabels_with_the_data(how):
    """coupling(g x0, g x1) = g coupling(x0, x1) for what it uses: the law of x0 then is invariant if that of x1 is."""
    coupling = EVERY[how]
    if how in ("many starts", "reflections"):
        coupling = replace(coupling, starts=8 if coupling.reflection else 4)  # without those at random
    batch = Batch(cloud(8, 5, 3))
    x0 = draws(batch)
    paired = coupling(x0, batch)
    if "rotation" in coupling.symmetries:
        r = random_rotation(1, 3, fresh(4), torch.float64)[0]
        assert torch.allclose(coupling(x0 @ r.mT, Batch(batch.x @ r.mT)), paired @ r.mT, atol=1e-7)
    order = torch.randperm(5, generator=fresh(4))
    assert torch.allclose(coupling(x0[:, order], Batch(batch.x[:, order])), paired[:, order], atol=1e-7)


@pytest.mark.parametrize("how", ("both", "rotation", "invariants, both", "pairs, both"))
def test_only_the_orbit_counts(how):
    """coupling(g x0, x1) = coupling(x0, x1) where the starts turn with the clouds: how a draw lies does not matter."""
    coupling, batch = EVERY[how], Batch(cloud(8, 5, 3))
    x0, r = draws(batch), random_rotation(8, 3, fresh(4), torch.float64)
    turned = x0 @ r.mT
    if relabels(coupling):
        turned = turned[:, torch.randperm(5, generator=fresh(4))]
    assert torch.allclose(coupling(turned, batch), coupling(x0, batch), atol=1e-7)


@pytest.mark.parametrize("how", ("both", "one start", "invariants, both", "pairs, permutation"))
def test_x0_follows_the_prior_over_turned_data(how):
    """Moments and fourth moments of x0 over data turned and relabelled at random, against the prior's."""
    coupling, y = EVERY[how], torch.tensor([[0.0, 0.0, 3.0], [0.0, 0.0, -2.0], [1.0, 0.0, -1.0], [-1.0, 0.0, 0.0]])
    total = 2000
    turn, order = random_rotation(total, 3, fresh(5)), torch.rand(total, 4, generator=fresh(6)).argsort(1)
    data = torch.take_along_dim(y.expand(total, 4, 3), order[..., None], 1) @ turn.mT
    parts = []
    for k, part in enumerate(data.split(10 if "pairs" in how else 100)):
        batch = Batch(part)
        parts.append(coupling(draws(batch, 100 + k), batch, fresh(k)))
    x = torch.cat(parts).double().flatten(1)
    expected = torch.kron(torch.eye(4) - 0.25, torch.eye(3)).double()
    assert x.mean(0).abs().max() < 5 * (0.75 / total) ** 0.5
    spread = (2.5 / total) ** 0.5
    assert (x.T @ x / total - expected).abs().max() < 5 * spread * 0.75
    assert (x.pow(4).mean(0) - 3 * 0.75**2).abs().max() < 5 * (96 * 0.75**4 / total) ** 0.5


def test_bonds_are_kept():
    """Methane's hydrogens are twins of their own carbon; those of two molecules in one sample are not."""
    batch = molecules()
    kinds = batch.replace(twins(batch)).split()
    assert len(kinds[0].unique()) == 2 and len(kinds[2].unique()) == 2
    z = torch.tensor([6, 1, 1, 6, 1, 1])
    bonds = torch.tensor([[0, 0, 3, 3, 1, 2, 4, 5], [1, 2, 4, 5, 0, 0, 3, 3]])
    pair = Batch(cloud(6, 3), torch.zeros(6).long(), 1, nodes={"z": z}, edge_index=bonds)
    k = twins(pair)
    assert k[1] == k[2] and k[4] == k[5] and k[1] != k[4] and k[0] != k[3]
    told = replace(pair, edges={"bond": torch.tensor([0, 1, 0, 0, 0, 1, 0, 0])})
    k = twins(told)
    assert k[1] != k[2] and k[4] == k[5]
    one_way = replace(pair, edge_index=torch.tensor([[0, 2, 3, 3], [1, 0, 4, 5]]))
    k = twins(one_way)
    assert k[1] != k[2] and k[4] == k[5]
    marked = replace(pair, nodes={"z": z, "charge": torch.tensor([0.0, 0, 1, 0, 0, 0])})
    assert twins(marked)[1] != twins(marked)[2]
    assert twins(marked, ("charge",))[1] == twins(marked, ("charge",))[2]
    x0 = draws(pair)
    paired = Aligned(starts=20)(x0, pair, fresh())
    length = (paired[bonds[0]] - paired[bonds[1]]).norm(dim=1)
    assert torch.allclose(length.sort()[0], (x0[bonds[0]] - x0[bonds[1]]).norm(dim=1).sort()[0])


def test_neighbours_that_do_not_exchange_leave_only_themselves():
    batch = Batch(cloud(4, 3), torch.zeros(4).long(), 1, nodes={"position": torch.arange(4)})
    x0 = draws(batch)
    assert torch.allclose(Aligned()(x0, batch), Aligned(permutation=False)(x0, batch))
    assert torch.equal(Aligned(rotation=False)(x0, batch), x0)


def test_alignment_of_a_pair_does_not_depend_on_the_batch():
    batch = ragged([5, 3, 9, 3, 5, 1])
    x0 = draws(batch)
    paired = batch.replace(Aligned()(x0, batch)).split()
    for b, draw in enumerate(batch.replace(x0).split()):
        alone = batch.select([b])
        assert torch.allclose(Aligned()(draw, alone), paired[b], atol=1e-9)


def test_optimum_by_brute_force():
    """Of all relabellings, with the best rotation each: many starts find the best, and none is better."""
    x, y = cloud(6, 4, 3), cloud(6, 4, 3, seed=1)
    every = torch.tensor(list(itertools.permutations(range(4))))
    best = torch.stack([(kabsch(x[:, o], y, about_centre=False) * (y.mT @ x[:, o])).sum((1, 2)) for o in every]).amax(0)
    found = superpose(x, y, None, Moves(starts=60, sweeps=6), fresh())
    assert torch.allclose(found.overlap, best, atol=1e-9)
    assert torch.allclose((found(x) * y).sum((1, 2)), best, atol=1e-9)
    assert (superpose(x, y, None, Moves()).overlap <= best + 1e-9).all()


def test_invariants_bound_the_cost():
    moves = Moves()
    x, y = cloud(50, 6, 3), cloud(50, 6, 3, seed=1)
    r, order = random_rotation(50, 3, fresh(), torch.float64), torch.randperm(6, generator=fresh())
    assert torch.allclose(invariants(x, None, moves), invariants(x[:, order] @ r.mT, None, moves))
    kinds = torch.tensor([0, 1, 0, 1, 0, 1])
    within = torch.tensor([2, 1, 4, 5, 0, 3])
    assert torch.allclose(invariants(x, kinds, moves), invariants(x[:, within] @ r.mT, kinds, moves))
    assert not torch.allclose(invariants(x, kinds, moves), invariants(x[:, order] @ r.mT, kinds, moves))
    radii = invariants(x, None, moves)[:, 18:] - invariants(y, None, moves)[:, 18:]
    aligned = superpose(x, y, None, Moves(starts=30, sweeps=4), fresh())
    assert (radii.square().sum(1) <= (aligned(x) - y).square().sum((1, 2)) + 1e-9).all()


def relaxed(count):
    """Clusters of 13 points that have slid down the energy of Lennard and Jones, centred."""
    x, energy = 2 * cloud(count, 13, 3, seed=5, dtype=torch.float32), LennardJones(each_pair=2)
    for _ in range(300):
        x = x - 1e-3 * energy.gradient(x).clamp(-20, 20)
    return Batch(x - x.mean(1, keepdim=True))


@pytest.mark.parametrize("source", ["relaxed", "published"])
def test_invariants_find_what_aligning_all_pairs_finds(source, request):
    """LJ13 at a batch of 256: within 2 % of the cost of all pairs aligned from one start; the pairs at hand are not."""
    if source == "published":
        request.getfixturevalue("scifm_data")("lj13")
        every = load_dataset("lj13").lj13().train
        data = every.select(torch.linspace(0, len(every) - 1, 256).long())
    else:
        data = relaxed(256)
    x0 = priors.MeanFreeGaussian().fit(data).sample(data, fresh())
    reference = EquivariantTransport("pairs", Aligned(starts=1, sweeps=1))
    ours, theirs, within = (
        cost(c(x0, data, fresh()), data).mean() for c in (EquivariantTransport(), reference, Aligned())
    )
    assert ours <= 1.02 * theirs < within


class Own(torch.nn.Module):
    """A network of a user's own, that says nothing of its symmetries."""


@pytest.mark.parametrize("wrapped", [False, True])
def test_what_the_velocity_looks_at_is_not_ignored(wrapped):
    """Exchanged across species by the coupling, told apart by the network: x0 given x1 would not be the prior's."""
    from scifm import Flow, networks

    net = networks.EGNN(3, 8, 1, nodes={"z": 3})
    net = networks.GaussianSkip(net) if wrapped else net
    for coupling in (Aligned(ignore=("z",)), EquivariantTransport(within=Aligned(ignore=("z",)))):
        with pytest.raises(ValueError, match="relabels points across z, at which"):
            Flow(net, PRIOR, coupling=coupling)
    Flow(net, PRIOR, coupling=Aligned())
    Flow(networks.EGNN(3, 8, 1), PRIOR, coupling=Aligned(ignore=("z",)))


def test_flow_refuses_what_the_prior_or_the_velocity_lacks():
    from scifm import Flow, networks

    aligned, net = Aligned(), Own()
    assert aligned.symmetries == {"rotation", "automorphism"}
    assert Aligned(ignore=("z",)).symmetries == {"rotation", "permutation"}
    assert EquivariantTransport(within=Aligned(reflection=True)).symmetries == aligned.symmetries | {"reflection"}
    Flow(net, PRIOR, coupling=Aligned())
    for coupling in (Aligned(), EquivariantTransport()):
        with pytest.raises(ValueError, match="rotation"):
            Flow(net, priors.Gaussian(torch.tensor([0.0, 0.0, 1.0])), coupling=coupling)
    for other in (networks.MLP((4, 3)), networks.PointNet(3)):
        with pytest.raises(ValueError, match=f"{type(other).__name__} is not equivariant"):
            Flow(other, PRIOR, coupling=Aligned())
    net.symmetries = frozenset({"permutation"})
    with pytest.raises(ValueError, match="Own is not equivariant"):
        Flow(net, PRIOR, coupling=Aligned())
    Flow(net, PRIOR, coupling=Aligned(rotation=False))
    assert couplings.crossed_by(EquivariantTransport(within=Aligned(ignore=("z",)), ignore=("label",))) == (
        "label",
        "z",
    )
    assert couplings.crossed_by(Aligned(ignore=("z",))) == ("z",)


class Springs(priors.MeanFreeGaussian):
    """Stands for a prior of chains, which look at the order of points, or of bonds, which look at edges."""

    def __init__(self, *more):
        super().__init__()
        self.symmetries = frozenset({"rotation", "reflection", *more})


def test_relabelling_needs_a_prior_that_does_not_notice_it():
    """A chain refuses all relabelling, springs on bonds that of points which ignored nodes tell apart."""
    from scifm import Flow

    net = Own()
    chain, bonds = Springs(), Springs("automorphism")
    for coupling in (Aligned(), EquivariantTransport(), Aligned(rotation=False), Aligned(ignore=("z",))):
        with pytest.raises(ValueError, match="Flow: the coupling uses .* under which Springs is not invariant"):
            Flow(net, chain, coupling=coupling)
    Flow(net, chain, coupling=Aligned(permutation=False))
    Flow(net, bonds, coupling=EquivariantTransport())
    with pytest.raises(ValueError, match="uses permutation, under which Springs"):
        Flow(net, bonds, coupling=Aligned(ignore=("z",)))
    net.symmetries = frozenset({"rotation"})
    with pytest.raises(ValueError, match="automorphism, under which Own is not equivariant"):
        Flow(net, bonds, coupling=Aligned())
    net.symmetries = frozenset({"rotation", "automorphism"})
    Flow(net, bonds, coupling=Aligned())


def test_assign_many():
    costs = cloud(3, 4, 6, 6)
    found = assign_many(costs)
    for i, j in itertools.product(range(3), range(4)):
        assert torch.equal(found[i, j], couplings.assign(costs[i, j]))
    assert assign_many(costs[:, :0]).shape == (3, 0, 6) and assign_many(costs[..., :1, :1]).shape == (3, 4, 1)
    with pytest.raises(ValueError, match="finite"):
        assign_many(costs / 0)


def test_refusals():
    batch = Batch(cloud(4, 5, 3))
    for bad in (
        lambda: Aligned(rotation=False, permutation=False),
        lambda: Aligned(rotation=False, reflection=True),
        lambda: Aligned(starts=0),
        lambda: Aligned(ignore="z"),
        lambda: EquivariantTransport("all"),
        lambda: Aligned()(batch.x[:3], batch),
        lambda: Aligned()(batch.x.float(), batch),
        lambda: Aligned()(batch.x / 0, batch),
        lambda: Aligned()(cloud(4, 7), Batch(cloud(4, 7))),
        lambda: Aligned()(cloud(4, 7, 5), Batch(cloud(4, 7, 5))),
        lambda: EquivariantTransport()(cloud(4, 2, 7, 3), Batch(cloud(4, 2, 7, 3))),
        lambda: Aligned()(batch.x[:0], batch.select([])),
    ):
        with pytest.raises(ValueError, match="Aligned|EquivariantTransport"):
            bad()
    assert Aligned(rotation=False)(cloud(4, 7, 5), Batch(cloud(4, 7, 5))).shape == (4, 7, 5)


@pytest.mark.parametrize("coupling", (Aligned(starts=6), EquivariantTransport()), ids=("aligned", "equivariant"))
def test_the_thread_that_pairs_ahead_changes_nothing(coupling):
    from scifm import Flow, Recipe
    from scifm.data import Data
    from scifm.pairs import Pairs

    few = Batch(cloud(4, 5, 3, dtype=torch.float32))
    data = Data("clouds", Batch(cloud(40, 5, 3, dtype=torch.float32)), few, few)
    recipe = Recipe(Flow(torch.nn.Identity(), PRIOR, coupling=coupling), data, steps=6, batch_size=8, pool=2)
    with Pairs(recipe, seed=3) as ahead, Pairs(recipe, seed=3, ahead=False) as waited:
        for step in (0, 1, 2, 5):
            (a, x0), (b, same) = ahead.at(step), waited.at(step)
            assert torch.equal(a.x, b.x) and torch.equal(x0, same)
