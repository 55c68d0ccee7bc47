"""Couplings of a batch, law by law: marginals, limits, groups, seeds, metric, and conditions that stay independent."""

import math
import warnings

import ot
import pytest
import torch

from scifm import Batch, couplings, priors
from scifm.couplings.conditional import saving, weight_of
from scifm.couplings.entropic import solve, spread
from scifm.couplings.pairing import products, squared
from scifm.couplings.partial import cheapest
from scifm.couplings.plan import complete, draw
from scifm.testing import check_coupling

ConditionalTransport, OptimalTransport = couplings.ConditionalTransport, couplings.OptimalTransport
Partial, Sinkhorn, Unbalanced = couplings.Partial, couplings.Sinkhorn, couplings.Unbalanced


def fresh(seed=0):
    return torch.Generator().manual_seed(seed)


def cloud(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=fresh(seed), dtype=dtype)


INDEX = torch.tensor([0, 0, 1, 1, 2, 2, 2, 3, 3, 5, 5, 5])
RAGGED = Batch(cloud(12, 3), INDEX, 6)  # one sample is empty
SPECIES = Batch(
    cloud(8, 3), torch.arange(4).repeat_interleave(2), 4, nodes={"z": torch.tensor([1, 2, 1, 2, 2, 1, 2, 1])}
)
LABELLED = Batch(cloud(12, 2), context={"y": torch.arange(12) % 3})
BATCHES = {
    "dense": Batch(cloud(9, 3)),
    "B equals D": Batch(cloud(3, 3)),
    "float64": Batch(cloud(9, 3, dtype=torch.float64)),
    "one": Batch(cloud(1, 2)),
    "two": Batch(cloud(2, 2)),
    "grid": Batch(cloud(6, 2, 4, 4)),
    "labels": LABELLED,
    "ragged": RAGGED,
    "species": SPECIES,
    "all alike": Batch(torch.ones(5, 2)),
}
PERMUTATIONS = {
    "exact": OptimalTransport(),
    "exact, prior": OptimalTransport(prior=priors.Gaussian(1.0, 3.0)),
    "partial": Partial(0.5),
    "partial 0": Partial(0.0),
    "partial 1": Partial(1.0),
}
PLANS = {
    "sinkhorn": Sinkhorn(),
    "sinkhorn, wide": Sinkhorn(10.0),
    "sinkhorn, prior": Sinkhorn(prior=priors.Gaussian(std=3.0)),
    "unbalanced": Unbalanced(),
    "unbalanced, cheap": Unbalanced(0.05, 0.5),
}
ALL = {**PERMUTATIONS, **PLANS}


@pytest.mark.parametrize("batch", BATCHES.values(), ids=BATCHES)
@pytest.mark.parametrize("name", PERMUTATIONS)
def test_permutations_pass_the_public_check(name, batch):
    check_coupling(PERMUTATIONS[name], batch)


@pytest.mark.parametrize("name", ["dense", "one", "grid", "labels", "ragged", "all alike"])
@pytest.mark.parametrize("coupling", [Sinkhorn(), Unbalanced(0.5)])
def test_plans_pass_the_public_check(coupling, name):
    check_coupling(coupling, BATCHES[name], permutes=False)


@pytest.mark.parametrize("weight", [None, 0.0, 1.0, 1e6])
@pytest.mark.parametrize("metric", ["square", "cosine"])
def test_conditional_transport_passes_the_public_check_and_keeps_to_labels(weight, metric):
    context = {"y": torch.arange(12) % 3, "c": cloud(12, 2, seed=1), "n": torch.arange(12)}
    coupling = ConditionalTransport(("c", "n"), weight, metric=metric)
    check_coupling(coupling, Batch(cloud(12, 2), context=context), ignore=("c", "n"))
    ragged = Batch(RAGGED.x, INDEX, 6, context={"c": cloud(6), "n": torch.arange(6)})
    check_coupling(coupling, ragged, ignore=("c", "n"))


@pytest.mark.parametrize("name", ALL)
def test_randomness_is_the_generators(name):
    x0, batch = cloud(30, 2), Batch(cloud(30, 2, seed=1))
    state = torch.get_rng_state()
    one, again, other = (ALL[name](x0, batch, fresh(s)) for s in (0, 0, 1))
    assert torch.equal(one, again) and torch.equal(state, torch.get_rng_state())
    assert torch.equal(one, other) == (name in ("exact", "exact, prior", "partial 1"))
    ALL[name](x0, batch)  # without a generator it works as well


@pytest.mark.parametrize("name", ALL)
def test_bad_input_is_refused_by_all(name):
    coupling, batch = ALL[name], Batch(cloud(4, 3))
    who = type(coupling).__name__
    for x0 in (cloud(4, 2), cloud(3, 3), cloud(12).reshape(4, 3, 1), cloud(4, 3).double()):
        with pytest.raises(ValueError, match=f"{who}: x0 .* must be shaped like the data"):
            coupling(x0, batch)
    for x0, x1 in ((cloud(4, 3) * torch.nan, cloud(4, 3)), (cloud(4, 3), cloud(4, 3) / 0.0)):
        with pytest.raises(ValueError, match=f"{who}: data or prior draws are not finite"):
            coupling(x0, Batch(x1))
    with pytest.raises(ValueError, match=f"{who}: the batch is empty"):
        coupling(torch.zeros(0, 3), Batch(torch.zeros(0, 3)))
    with pytest.warns(UserWarning, match=f"{who}: no two samples"):
        lonely = Batch(batch.x, context={"c": torch.arange(4.0)})
        assert torch.equal(coupling(cloud(4, 3), lonely), cloud(4, 3))


def test_no_gradient_flows_through_the_choice_but_draws_keep_theirs():
    x0 = cloud(6, 2).requires_grad_()
    assert not OptimalTransport()(x0, Batch(cloud(6, 2, seed=1).requires_grad_())).requires_grad
    assert x0.requires_grad


def test_samples_of_a_ragged_batch_get_whole_samples():
    """Two points each: the pairing is that of the six numbers of a sample."""
    index = torch.arange(40).repeat_interleave(2)
    x0, x1 = cloud(80, 3), cloud(80, 3, seed=1)
    ragged = OptimalTransport()(x0, Batch(x1, index, 40))
    dense = OptimalTransport()(x0.reshape(40, 6), Batch(x1.reshape(40, 6)))
    assert torch.equal(ragged.reshape(40, 6), dense)


@pytest.mark.parametrize("batch", [Batch(cloud(4, 3)), Batch(cloud(8, 3), torch.arange(4).repeat_interleave(2), 4)])
def test_stacking_keeps_the_order_asked_for(batch):
    every = batch.stack(batch.x, torch.arange(4))
    for samples in ([2, 0, 3, 1], [1, 3], [0]):
        chosen = torch.tensor(samples, dtype=torch.long)
        assert torch.equal(batch.stack(batch.x, chosen), every[chosen])


def test_the_priors_metric_is_whitened_transport():
    """Where one direction is a hundred times wider, plain transport sees that direction alone."""
    std = torch.tensor([100.0, 1.0])
    prior = priors.Gaussian(mean=torch.tensor([5.0, -1.0]), std=std)
    x1, x0 = std * cloud(200, 2), prior.sample(Batch(torch.zeros(200, 2)), fresh(1))
    white = OptimalTransport()(x0 / std, Batch(x1 / std)) * std
    paired = OptimalTransport(prior=prior)(x0, Batch(x1))
    assert torch.allclose(paired, white)
    plain = OptimalTransport()(x0, Batch(x1))
    assert float((plain - x1)[:, 1].var()) > 1.2 and float((paired - x1)[:, 1].var()) < 0.5


class Seasonal(priors.Gaussian):
    """A prior whose law is told by a season."""

    conditional = ("season",)


def test_pairs_never_cross_what_the_prior_itself_depends_on():
    batch = Batch(cloud(4, 2), context={"season": torch.arange(4.0), "c": torch.arange(4.0)})
    for coupling in (
        OptimalTransport(ignore=("season", "c"), prior=Seasonal()),
        ConditionalTransport(("season",), ignore=("c",), prior=Seasonal()),
    ):
        with pytest.raises(ValueError, match="law of Seasonal depends on season"):
            coupling(cloud(4, 2, seed=1), batch)
    with pytest.warns(UserWarning, match="no two samples"):
        OptimalTransport(ignore=("c",), prior=Seasonal())(cloud(4, 2, seed=1), batch)


# -- plans ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_a_completed_plan_has_both_marginals_and_keeps_what_fits(seed):
    plan = torch.rand(8, 8, generator=fresh(seed), dtype=torch.float64) * 0.2
    plan[2] = 0
    done, chance = complete(plan)
    assert (done.sum(0) - 1).abs().max() < 1e-12 and (done.sum(1) - 1).abs().max() < 1e-12 and (done >= 0).all()
    assert 1 / 8 <= chance < 1
    small = plan / plan.sum(1).max() / 8
    assert (complete(small)[0] >= small).all()
    flat, chance = complete(torch.zeros(4, 4))
    assert torch.equal(flat, torch.full((4, 4), 0.25)) and chance == 1
    eye, chance = complete(torch.eye(4))
    assert torch.equal(eye, torch.eye(4)) and chance == 0


def test_draws_follow_the_rows_of_a_plan():
    plan = torch.tensor([[0.5, 0.0, 0.5], [0.0, 1.0, 0.0], [0.0, 0.0, 2.0]])
    counts, g = torch.zeros(3, 3), fresh()
    for _ in range(4000):
        counts[torch.arange(3), draw(plan, g)] += 1
    assert (counts[plan == 0] == 0).all()
    assert abs(float(counts[0, 0]) / 4000 - 0.5) < 4 * 0.5 / math.sqrt(4000)


def test_sinkhorn_is_the_plan_of_pot():
    cost = squared(cloud(30, 3), cloud(30, 3, seed=1))
    epsilon = 0.1 * spread(cost)
    ones = torch.ones(30, dtype=torch.float64)
    theirs = ot.sinkhorn(ones, ones, cost, epsilon, method="sinkhorn_log", stopThr=1e-12, numItermax=100_000)
    ours = Sinkhorn(0.1, tolerance=1e-10, rounds=10_000).plan(cost)
    assert (ours - theirs).abs().max() < 1e-8


@pytest.mark.parametrize("price", [0.3, 3.0])
def test_unbalanced_is_the_plan_of_pot(price):
    cost = squared(cloud(30, 3), cloud(30, 3, seed=1))
    epsilon, rho = 0.1 * spread(cost), price * float(cost.median())
    mass = torch.full((30,), 1 / 30, dtype=torch.float64)
    theirs = 30 * ot.unbalanced.sinkhorn_unbalanced(mass, mass, cost, epsilon, rho, stopThr=1e-13, numItermax=100_000)
    ours, error = solve(cost, epsilon, 10_000, 1e-11, rho)
    assert error < 1e-11 and (ours - theirs).abs().max() < 1e-7


@pytest.mark.parametrize("epsilon", [1e-3, 0.01, 0.1, 1.0, 100.0])
def test_sinkhorns_marginals_hold_at_every_epsilon(epsilon):
    plan = Sinkhorn(epsilon, rounds=20_000).plan(products(cloud(40, 2).double(), cloud(40, 2, seed=1).double()))
    assert (plan.sum(0) - 1).abs().max() < 1e-12 and (plan.sum(1) - 1).abs().max() < 1e-12 and (plan >= 0).all()


def test_sinkhorn_goes_from_exact_to_independent():
    x1, x0 = cloud(24, 2, dtype=torch.float64), cloud(24, 2, seed=1, dtype=torch.float64)
    exact = OptimalTransport()(x0, Batch(x1))
    assert torch.equal(Sinkhorn(5e-4, rounds=50_000)(x0, Batch(x1), fresh()), exact)
    flat = Sinkhorn(1e4).plan(products(x1, x0))
    assert (flat - 1 / 24).abs().max() < 1e-4
    costs = [float((Sinkhorn(e).plan(squared(x1, x0)) * squared(x1, x0)).sum()) for e in (0.01, 0.1, 1.0, 10.0)]
    assert float((exact - x1).square().sum()) < costs[0] < costs[1] < costs[2] < costs[3] < squared(x1, x0).sum() / 24


@pytest.mark.parametrize("dims", [2, 64, 512])
def test_epsilon_is_relative_to_the_cost(dims):
    """Units and distant clouds change nothing, and in many dimensions it is not the independent coupling."""
    x1, x0 = cloud(32, dims, dtype=torch.float64), cloud(32, dims, seed=1, dtype=torch.float64)
    sinkhorn = Sinkhorn(0.2, tolerance=1e-7, rounds=20_000)
    plan = sinkhorn.plan(squared(x1, x0))
    for factor, shift in ((1e6, 0.0), (1e-6, 0.0), (1.0, 50.0)):
        other = sinkhorn.plan(squared(factor * x1 + shift, factor * x0))
        assert (plan - other).abs().max() < 1e-4
    assert float(plan.amax(1).mean()) > 0.2  # a flat plan has 1/32


def test_what_does_not_converge_is_an_error_and_never_a_flat_plan():
    x1, x0 = cloud(64, 2), cloud(64, 2, seed=1)
    with pytest.raises(RuntimeError, match="Sinkhorn: the marginals are still off by .*raise epsilon"):
        Sinkhorn(1e-5, rounds=40)(x0, Batch(x1), fresh())
    with pytest.raises(RuntimeError, match="Unbalanced: the marginals are still off by .*raise epsilon"):
        Unbalanced(100.0, 1e-4, rounds=20, tolerance=1e-6)(x0, Batch(x1), fresh())


def test_an_outlier_spoils_the_exact_pairing_and_not_the_relaxed_ones():
    """A line of points and one at 100: exact transport may shift everybody, partial and unbalanced leave it out."""
    x1 = torch.arange(20.0)[:, None]
    x0 = x1 + 0.1
    x0[0] = 100.0  # the draw near sample 0 is gone: exact transport shifts all draws by one
    exact = OptimalTransport()(x0, Batch(x1))
    assert ((exact - x1).abs()[:-1] > 0.5).all()
    partial = Partial(0.95)(x0, Batch(x1), fresh())
    assert torch.allclose((partial - x1)[1:], torch.full((19, 1), 0.1), atol=1e-4) and partial[0] == 100
    plan, chance = Unbalanced(0.2, 0.01).plan(squared(x1, x0))
    assert 0.05 <= chance < 0.2 and float(plan.diagonal()[1:].min()) > 0.3
    assert float(plan[:, 0].max()) < 0.2  # the outlier is left to chance: no sample is sure to get it


def test_unbalanced_goes_from_sinkhorn_to_independent():
    cost = squared(cloud(30, 2), cloud(30, 2, seed=1))
    balanced = Sinkhorn(0.1, tolerance=1e-8).plan(cost)
    dear, chance = Unbalanced(1e4, 0.1, tolerance=1e-8, rounds=50_000).plan(cost)
    assert chance < 1e-3 and (dear - balanced).abs().max() < 1e-3
    shares = [Unbalanced(price, 0.1).plan(cost)[1] for price in (10.0, 1.0, 0.1, 0.01)]
    assert shares == sorted(shares) and shares[0] < 0.1 and shares[-1] > 0.9
    for price in (10.0, 0.1):
        plan = Unbalanced(price, 0.1).plan(cost)[0]
        assert (plan.sum(0) - 1).abs().max() < 1e-12 and (plan.sum(1) - 1).abs().max() < 1e-12


@pytest.mark.parametrize("pairs", range(6))
def test_the_cheapest_pairs_are_the_cheapest_of_all_choices(pairs):
    """POT's partial transport of k/n of the mass has the same cost."""
    cost = squared(cloud(5, 2), cloud(5, 2, seed=1))
    order = cheapest(cost, pairs)
    kept = order >= 0
    assert int(kept.sum()) == pairs and len(order[kept].unique()) == pairs
    ones = torch.ones(5, dtype=torch.float64).numpy()
    theirs = (ot.partial.partial_wasserstein(ones, ones, cost.numpy(), m=pairs) * cost.numpy()).sum() if pairs else 0.0
    assert abs(float(cost[kept.nonzero()[:, 0], order[kept]].sum()) - theirs) < 1e-9


def test_pairs_that_cost_nothing_are_not_added_to_the_share():
    assert int((cheapest(torch.zeros(6, 6), 2) >= 0).sum()) == 2
    assert int((cheapest(1 - torch.eye(6), 4) >= 0).sum()) == 4


def test_partial_goes_from_independent_to_exact():
    x1, x0 = cloud(60, 2), cloud(60, 2, seed=1)
    assert torch.equal(Partial(1.0)(x0, Batch(x1), fresh()), OptimalTransport()(x0, Batch(x1)))
    costs = [float((Partial(s)(x0, Batch(x1), fresh()) - x1).square().sum()) for s in (1.0, 0.7, 0.3, 0.0)]
    assert costs == sorted(costs) and costs[-1] > 2 * costs[0]


# -- conditions ----------------------------------------------------------------------------------------


def skew(coupling, rounds=8, n=256):
    """R² of x0 given c, zero where draws and conditions are independent, and the cost. Data are their c, and noise."""
    g, pairs = fresh(), []
    for _ in range(rounds):
        c = torch.rand(n, generator=g) * 4 - 2
        x1 = torch.stack([c + 0.1 * torch.randn(n, generator=g), torch.randn(n, generator=g)], 1)
        x0 = torch.randn(n, 2, generator=g)
        paired = coupling(x0, Batch(x1, context={"c": c}), g)
        pairs.append((c, paired[:, 0], (paired - x1).square().sum(1).mean()))
    c, x0, cost = (torch.stack([p[i] for p in pairs]).flatten() for i in range(3))
    return float(torch.corrcoef(torch.stack([c, x0]))[0, 1] ** 2), float(cost.mean())


def test_transport_that_ignores_a_condition_skews_the_prior_and_c2ot_does_not():
    independent, far = skew(couplings.independent)
    blind, near = skew(OptimalTransport(ignore=("c",)))
    fair, between = skew(ConditionalTransport(("c",)))
    assert independent < 0.005 and blind > 0.8
    assert fair < 0.05
    assert near < between < 0.9 * far  # and it still gains on the coordinate that c says nothing about


def test_the_skew_falls_as_the_weight_grows_and_as_the_ratio_falls():
    skews = [skew(ConditionalTransport(("c",), w), 2)[0] for w in (0.0, 1.0, 100.0)]
    assert skews[0] > 0.8 and skews == sorted(skews, reverse=True) and skews[-1] < 0.02
    skews = [skew(ConditionalTransport(("c",), ratio=r), 2)[0] for r in (0.4, 0.1, 0.02)]
    assert skews == sorted(skews, reverse=True) and skews[0] > 0.1


def test_weight_zero_is_transport_that_ignores_and_infinity_leaves_draws_where_they_are():
    x0, batch = cloud(50, 2), Batch(cloud(50, 2, seed=1), context={"c": cloud(50, 3, seed=2)})
    ignoring = OptimalTransport(ignore=("c",))(x0, batch)
    assert torch.equal(ConditionalTransport(("c",), 0.0)(x0, batch), ignoring)
    assert torch.equal(ConditionalTransport(("c",), 1e6)(x0, batch), x0)


@pytest.mark.parametrize("weight", [None, 1e5])
def test_labels_named_as_conditions_are_not_crossed(weight):
    """Equal conditions cost nothing: discrete C²OT is transport within the labels."""
    x0, x1, label = cloud(60, 2), cloud(60, 2, seed=1), torch.arange(60) % 3
    within = OptimalTransport()(x0, Batch(x1, context={"y": label}))
    batch = Batch(x1, context={"y": torch.nn.functional.one_hot(label)})
    paired = ConditionalTransport(("y",), weight, ratio=0.05)(x0, batch)
    assert torch.equal(paired, within)


def test_the_weight_is_the_one_that_leaves_the_share_of_pairs():
    x1, x0, c = cloud(80, 2), cloud(80, 2, seed=1) + 3, cloud(80, seed=2)
    apart = (c[:, None] - c).square()
    distance = squared(x1, x0)
    cost = products(x1, x0)
    true = (distance.diagonal()[:, None] - distance).float()
    assert (saving(cost, x1, x0) - true).abs().max() < 1e-3
    for ratio in (0.02, 0.05, 0.3):
        w = weight_of(saving(cost, x1, x0), apart, ratio)
        share = float((distance + w * apart <= distance.diagonal()[:, None] + 1e-4).double().mean())
        assert abs(share - ratio) < 1.5 / 80
    assert weight_of(saving(cost, x1, x0), apart, 0.99) == 0.0  # less than that is eligible at w = 0


def test_units_of_a_condition_do_not_matter():
    c = cloud(50, 2, seed=2)
    x0, x1 = cloud(50, 2), cloud(50, 2, seed=1)
    one = ConditionalTransport(("a", "b"))(x0, Batch(x1, context={"a": c[:, 0], "b": c[:, 1]}))
    kelvin = ConditionalTransport(("a", "b"))(x0, Batch(x1, context={"a": 1e4 * c[:, 0], "b": c[:, 1] + 7}))
    assert torch.equal(one, kelvin)


def test_conditions_that_are_all_alike_or_whole_numbers_are_fine():
    x0, x1 = cloud(20, 2), cloud(20, 2, seed=1)
    same = Batch(x1, context={"c": torch.ones(20)})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(ConditionalTransport(("c",))(x0, same), OptimalTransport()(x0, Batch(x1)))
        ConditionalTransport(("c",), metric="cosine")(x0, Batch(x1, context={"c": torch.zeros(20, 3)}))
        ConditionalTransport(("c",))(x0, Batch(x1, context={"c": torch.arange(20)}))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Sinkhorn(0.0), "epsilon must be positive"),
        (lambda: Sinkhorn(math.inf), "epsilon must be positive"),
        (lambda: Sinkhorn(rounds=0), "rounds >= 1"),
        (lambda: Sinkhorn(tolerance=0.0), "tolerance"),
        (lambda: Unbalanced(-1.0), "price must be positive"),
        (lambda: Unbalanced(epsilon=math.nan), "epsilon must be positive"),
        (lambda: Unbalanced(tolerance=2.0), "tolerance"),
        (lambda: Partial(1.1), "share must be"),
        (lambda: Partial(math.nan), "share must be"),
        (lambda: ConditionalTransport("lon"), "tuple of names"),
        (lambda: ConditionalTransport(()), "tuple of names"),
        (lambda: ConditionalTransport(("c",), math.inf), "leave the condition out of on"),
        (lambda: ConditionalTransport(("c",), ratio=0.0), "ratio"),
        (lambda: ConditionalTransport(("c",), metric="l1"), "metric"),  # type: ignore[arg-type]
        (lambda: ConditionalTransport(("c",))(cloud(3, 2), Batch(cloud(3, 2))), "no context 'c'; it has none"),
        (
            lambda: ConditionalTransport(("c",))(
                cloud(2, 2), Batch(cloud(2, 2), context={"c": torch.tensor([1.0, torch.nan])})
            ),
            "context 'c' is not finite",
        ),
    ],
)
def test_settings_out_of_range_are_refused_with_a_cure(make, says):
    with pytest.raises(ValueError, match=says):
        make()


# -- the public check ----------------------------------------------------------------------------------


def test_the_check_catches_plans_that_are_not_couplings():
    batch = Batch(cloud(8, 2), context={"y": torch.arange(8) % 2})

    def favours(x0, batch, generator=None):
        """Each sample takes the nearest draw: x0 is then no draw of the prior."""
        return x0[torch.cdist(batch.x, x0).argmin(1)]

    def crosses(x0, batch, generator=None):
        return x0[torch.randint(len(x0), (len(x0),), generator=generator)]

    with pytest.raises(AssertionError, match="too often or too seldom"):
        check_coupling(favours, Batch(cloud(8, 2, seed=1)), permutes=False)
    with pytest.raises(AssertionError, match="not its own"):
        check_coupling(crosses, batch, permutes=False)
    check_coupling(crosses, Batch(cloud(8, 2)), permutes=False)
    with pytest.raises(AssertionError, match="exactly once"):
        check_coupling(Sinkhorn(), Batch(cloud(30, 2)))


def test_an_absolute_regularisation_gives_the_closed_form_of_the_schrodinger_bridge():
    """Between N(0, 1) and N(0, 1) on a line the entropic plan of ε = 2 s² is normal with covariance
    √(1 + s⁴/4) − s²/2 (Janati et al. 2020), whatever the units' relative size."""
    n, s = 1500, 1.2
    g = torch.Generator().manual_seed(0)
    x0, x1 = torch.randn(2, n, 1, generator=g, dtype=torch.float64)
    pairs = [
        couplings.Sinkhorn(2 * s**2, absolute=True)(x0, Batch(x1), torch.Generator().manual_seed(k)) for k in range(4)
    ]
    found = float(torch.stack([(p * x1).mean() - p.mean() * x1.mean() for p in pairs]).mean())
    assert abs(found - (math.sqrt(1 + s**4 / 4) - s**2 / 2)) < 0.05
    relative = couplings.Sinkhorn(2 * s**2)(x0, Batch(x1), torch.Generator().manual_seed(0))
    assert abs(float((relative * x1).mean()) - found) > 0.05
