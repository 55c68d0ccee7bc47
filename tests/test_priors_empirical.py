"""Draws from a data set: whole samples, of the right kind, and no density."""

import copy
import math

import pytest
import torch

from scifm.batch import Batch
from scifm.couplings import independent
from scifm.flow import Flow
from scifm.networks import MLP
from scifm.priors import Empirical


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def data(n=6, dtype=torch.float32):
    """Sample b holds the number b everywhere; labels alternate."""
    x = torch.arange(n, dtype=dtype)[:, None, None].expand(n, 2, 3).clone()
    return Batch(x, context={"label": torch.arange(n) % 2, "time": torch.arange(n) / 2})


def sets():
    """Samples of 2, 3, 2, 0 and 3 rows, sample b full of b, with a type per row."""
    index = torch.tensor([0, 0, 1, 1, 1, 2, 2, 4, 4, 4])
    kind = torch.tensor([0, 1, 0, 0, 1, 1, 0, 0, 0, 1])
    return Batch(index[:, None].float().expand(10, 3).clone(), index, 5, nodes={"kind": kind})


def test_draws_are_whole_samples_all_of_them_equally_often():
    prior = Empirical(data())
    like = Batch(torch.zeros(6000, 2, 3))
    x = prior.sample(like, generator())
    assert (x == x[:, :1, :1]).all()
    counts = torch.bincount(x[:, 0, 0].long(), minlength=6)
    assert (counts - 1000).abs().max() < 6 * math.sqrt(1000 * 5 / 6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n", [1, 3])  # 3: as many samples as the last axis is long
def test_draws_are_shaped_typed_and_placed_like_the_batch(dtype, n):
    x = Empirical(data()).sample(Batch(torch.full((n, 2, 3), math.nan, dtype=dtype)), generator())
    assert x.shape == (n, 2, 3) and x.dtype == dtype


def test_draws_come_from_the_generator_alone():
    prior, like, before = Empirical(data()), Batch(torch.zeros(20, 2, 3)), torch.get_rng_state()
    a, b, c = (prior.sample(like, generator(seed)) for seed in (0, 0, 1))
    assert torch.equal(a, b) and not torch.equal(a, c) and torch.equal(torch.get_rng_state(), before)
    assert prior.sample(like).shape == a.shape


@pytest.mark.parametrize("names", [("label",), ("label", "time")])
def test_conditions_that_must_match_do(names):
    wanted = data()
    like = wanted.select(torch.arange(6).repeat(20))
    x = Empirical(wanted, match=names).sample(like, generator())
    for b in range(len(like)):
        drawn = int(x[b, 0, 0])
        for name in names:
            assert wanted.context[name][drawn] == like.context[name][b]
    if names == ("label",):
        assert len(x[like.context["label"] == 0].unique()) == 3  # all that match are drawn


def test_conditions_match_across_precisions():
    wanted = data(dtype=torch.float64)
    wanted = Batch(wanted.x, context={"time": wanted.context["time"].double() * torch.tensor([-0.0, 1, 1, 1, 1, 1])})
    like = wanted.to(torch.float32)
    like = Batch(like.x, context={"time": like.context["time"] + 0.0})  # and zeros, of either sign
    assert torch.equal(Empirical(wanted, ["time"]).sample(like, generator())[:, 0, 0], torch.arange(6.0))


def test_sets_are_drawn_among_those_of_equal_size():
    like = sets()
    x = Empirical(sets()).sample(like, generator())
    seen = set()
    for seed in range(30):
        x = Empirical(sets()).sample(like, generator(seed))
        for b, one in enumerate(like.replace(x).split()):
            assert one.shape == (int(like.counts[b]), 3) and (one == one[:1]).all()
            seen |= {(b, int(one[0, 0]))} if len(one) else set()
    assert seen == {(0, 0), (0, 2), (1, 1), (1, 4), (2, 0), (2, 2), (4, 1), (4, 4)}


def test_rows_match_too():
    like = sets()
    for seed in range(10):
        x = Empirical(sets(), match=["kind"]).sample(like, generator(seed))
        first = [int(one[0, 0]) if len(one) else None for one in like.replace(x).split()]
        assert first[0] == 0 and first[2] == 2 and first[1] in (1, 4) and first[4] in (1, 4)


def test_there_is_no_density_and_the_error_says_what_to_take():
    prior = Empirical(data())
    assert not prior.has_density and not prior.gaussian and not prior.whitens
    for call in (prior.log_prob, prior.score):
        with pytest.raises(NotImplementedError, match="no density and no score.*FullGaussian"):
            call(data().x, data())


def test_copies_share_the_data_and_checkpoints_do_not_hold_them():
    prior = Empirical(data(), ["label"])
    twin = copy.deepcopy(prior)
    assert twin is not prior and twin.batch is prior.batch and twin.match == ("label",)
    assert torch.equal(twin.sample(data(), generator()), prior.sample(data(), generator()))
    assert not prior.state_dict() and prior.conditional == ("label",)


def test_a_flow_from_data_to_data_trains_and_samples():
    """Source and target are known points: the flow's loss is that of their differences."""
    source = Batch(torch.full((4, 2), -1.0))
    torch.manual_seed(0)
    flow = Flow(MLP(2), Empirical(source), coupling=independent)
    batch = Batch(torch.ones(8, 2))
    loss = flow.loss(batch, generator())
    with torch.no_grad():
        assert torch.allclose(loss, torch.full((8,), 4.0))  # a zero head: v = 0, u = 2
    assert torch.allclose(flow.sample(Batch(torch.zeros(3, 2)), generator()).x, torch.full((3, 2), -1.0))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: Empirical(Batch(torch.zeros(0, 2))), "finite samples to draw from, got 0"),
        (lambda: Empirical(Batch(torch.full((2, 2), math.nan))), "finite samples"),
        (lambda: Empirical(data(), ["season"]), "no 'season' in the context"),
        (lambda: Empirical(data(), ["label"]).sample(Batch(torch.zeros(2, 2, 3))), "no 'label' in the context"),
        (lambda: Empirical(data()).sample(Batch(torch.zeros(2, 3, 2))), "the same shape"),
        (lambda: Empirical(data()).sample(sets()), "the batch is ragged"),
        (
            lambda: Empirical(data(), ["label"]).sample(
                Batch(torch.zeros(2, 2, 3), context={"label": torch.tensor([1, 5])})
            ),
            "for sample 1: none of the 6 has 1 rows and equal",
        ),
        (
            lambda: Empirical(sets()).sample(Batch(torch.zeros(4, 3), torch.zeros(4, dtype=torch.long), 1)),
            "has 4 rows",
        ),
    ],
)
def test_what_cannot_be_drawn_is_said(call, says):
    with pytest.raises(ValueError, match=says):
        call()
