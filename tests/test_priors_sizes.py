"""Laws of what is there before anything flows: sizes and compositions."""

import math

import pytest
import torch

from scifm.batch import Batch
from scifm.priors import Composition, MeanFreeGaussian, Sizes

COUNTS = torch.tensor([3, 5, 5, 9, 9, 9, 12])


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_the_empirical_law_is_the_share_of_each_size():
    sizes = Sizes.fit(COUNTS, smoothing=0.0)
    got = sizes.log_prob(torch.tensor([3, 5, 9, 12])).exp() * 7
    assert torch.allclose(got, torch.tensor([1.0, 2, 3, 1], dtype=torch.float64))
    unseen = sizes.log_prob(torch.tensor([0, 4, 13, 10_000, -1]))
    assert unseen.tolist() == [-math.inf] * 5


@pytest.mark.parametrize("smoothing", [0.3, 2.0, 40.0, None])
def test_smoothed_laws_are_normalised_and_leave_no_holes(smoothing):
    sizes = Sizes.fit(COUNTS, smoothing, least=2)
    assert sizes.log_prob(torch.arange(3000)).exp().sum() == pytest.approx(1, abs=1e-12)
    assert sizes.log_prob(torch.arange(2)).tolist() == [-math.inf] * 2
    assert sizes.log_prob(torch.arange(2, 2000)).isfinite().all()


def test_a_kernel_is_a_discrete_laplace_law():
    sizes = Sizes.fit(torch.tensor([50]), smoothing=2.0)
    ratio = sizes.log_prob(torch.tensor([50, 51, 47])) - sizes.log_prob(torch.tensor([50]))
    assert torch.allclose(ratio, torch.tensor([0.0, -0.5, -1.5], dtype=torch.float64))


def test_draws_follow_the_law():
    sizes = Sizes.fit(COUNTS, smoothing=1.0)
    drawn = sizes.sample(50_000, generator())
    share = torch.bincount(drawn) / 50_000
    assert drawn.dtype == torch.int64 and len(share) > 17  # beyond what was seen
    assert torch.allclose(share.double(), sizes.log_prob(torch.arange(len(share))).exp(), atol=0.007)
    assert torch.equal(sizes.sample(9, generator(1)), sizes.sample(9, generator(1)))
    only = Sizes.fit(COUNTS, smoothing=0.0).sample(1000, generator())
    assert set(only.tolist()) == {3, 5, 9, 12}  # and nothing of probability zero


def test_the_width_that_is_chosen_predicts_new_sizes_best():
    truth = torch.distributions.Poisson(60.0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        seen, new = truth.sample((60,)).long(), truth.sample((5000,)).long()
    score = {h: float(Sizes.fit(seen, h).log_prob(new).mean()) for h in (0.25, 1.0, 4.0, 32.0)}
    chosen = float(Sizes.fit(seen).log_prob(new).mean())
    assert chosen > max(score.values()) - 0.1
    assert Sizes.fit(seen, 0.0).log_prob(new).mean() == -math.inf
    entropy = -float(truth.log_prob(torch.arange(200.0)).exp() @ truth.log_prob(torch.arange(200.0)))
    assert -chosen == pytest.approx(entropy, abs=0.1)


def test_the_joint_law_of_size_and_positions_is_normalised():
    """Σ_n p(n) ∫ p(x|n) dx = 1, by importance sampling from a wider law of both."""
    sizes, prior = Sizes(torch.tensor([0.0, 0, 0.3, 0.7])), MeanFreeGaussian(1.0)
    wide, proposal = Sizes(torch.tensor([0.0, 0, 0.5, 0.5])), MeanFreeGaussian(1.5)
    like = wide.like(20_000, 1, generator(), torch.float64)
    x = proposal.sample(like, generator(1))
    ratio = sizes.log_prob(like.counts) + prior.log_prob(x, like)
    ratio = ratio - wide.log_prob(like.counts) - proposal.log_prob(x, like)
    assert ratio.exp().mean() == pytest.approx(1, abs=0.03)


def test_a_layout_of_drawn_sizes():
    like = Sizes.fit(COUNTS, smoothing=0.0).like(6, 3, generator())
    assert len(like) == 6 and like.event == (3,) and not like.x.any()
    assert set(like.counts.tolist()) <= {3, 5, 9, 12}
    assert like.counts.tolist() == Sizes.fit(COUNTS, smoothing=0.0).sample(6, generator()).tolist()


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: Sizes(torch.tensor([0.5, 0.6])), "the sum 1, got 1.1"),
        (lambda: Sizes(torch.tensor([0.5, 0.5]), 0.5), "the sum 1, got 1.5"),
        (lambda: Sizes(torch.tensor([1.0]), 1.0), "a tail in"),
        (lambda: Sizes(torch.tensor([-0.5, 1.5])), "not negative"),
        (lambda: Sizes.fit(torch.tensor([])), "whole number"),
        (lambda: Sizes.fit(torch.tensor([2.5])), "whole number"),
        (lambda: Sizes.fit(torch.tensor([0, 3])), "at least 1"),
        (lambda: Sizes.fit(COUNTS, -1.0), "smoothing must be zero or positive"),
        (lambda: Sizes.fit(COUNTS[:1]), "give smoothing="),
        (lambda: Composition(Batch(torch.zeros(0, 3))), "data is empty"),
        (lambda: Composition(Batch(torch.zeros(2, 3)))(0), "at least 1"),
    ],
)
def test_mistakes_are_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()


# -- compositions ---------------------------------------------------------------------------------------------------


def molecules():
    """Carbon monoxide, water and helium, and a label of each."""
    return Batch(
        torch.randn(6, 3, generator=generator()),
        torch.tensor([0, 0, 1, 1, 1, 2]),
        3,
        context={"label": torch.tensor([10, 11, 12])},
        nodes={"z": torch.tensor([6, 8, 8, 1, 1, 2])},
        edge_index=torch.tensor([[0, 2, 2], [1, 3, 4]]),
        edges={"bond": torch.tensor([2, 0, 0])},
    )


def test_whole_compositions_are_drawn_and_positions_are_not():
    whole = {10: ([6, 8], [[0, 1]], [2]), 11: ([8, 1, 1], [[0, 1], [0, 2]], [0, 0]), 12: ([2], [], [])}
    like = Composition(molecules())(200, generator())
    assert len(like) == 200 and not like.x.any() and like.edge_index is not None
    for b in range(0, 200, 5):
        one = like.select([b])
        z, ends, bonds = whole[int(one.context["label"])]
        assert one.nodes["z"].tolist() == z
        assert one.edge_index.T.tolist() == ends and one.edges["bond"].tolist() == bonds
    share = torch.bincount(like.context["label"] - 10) / 200
    assert torch.allclose(share, torch.tensor(1 / 3), atol=0.1)
    assert torch.equal(
        Composition(molecules())(5, generator(3)).nodes["z"], Composition(molecules())(5, generator(3)).nodes["z"]
    )


def test_dense_data_lend_their_conditions():
    data = Batch(torch.randn(4, 2, 3, generator=generator()), context={"label": torch.arange(4)})
    like = Composition(data)(50, generator())
    assert like.x.shape == (50, 2, 3) and not like.x.any() and set(like.context["label"].tolist()) == {0, 1, 2, 3}


def test_a_tail_of_nothing_gives_no_sizes():
    sizes = Sizes(torch.tensor([0.5, 0.5, 0.0], dtype=torch.float64), tail=0.5)
    drawn = sizes.sample(1000, generator())
    assert drawn.max() == 1 and sizes.log_prob(drawn).isfinite().all()
