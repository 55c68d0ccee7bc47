"""The public check of symmetries: right velocities pass, and each broken law is caught and named."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from scifm.batch import Batch
from scifm.networks import EGNN, MLP, PointNet, SetTransformer, UNet
from scifm.testing import check_equivariant, check_velocity

ALL = ("translation", "rotation", "reflection", "permutation")
EDGES = torch.tensor([[0, 1, 1, 2, 4, 5], [1, 0, 2, 1, 5, 4]])


def sets(dtype: torch.dtype = torch.float64) -> Batch:
    g = torch.Generator().manual_seed(0)
    nodes, edges = {"mass": 1 + torch.rand(6, generator=g)}, {"k": 1 + torch.rand(6, generator=g)}
    x = torch.randn(6, 3, generator=g, dtype=torch.float64)
    return Batch(x, torch.tensor([0, 0, 0, 0, 2, 2]), 3, {}, nodes, EDGES, edges).to(dtype)


def clouds(dtype: torch.dtype = torch.float64) -> Batch:
    return Batch(torch.randn(3, 4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)).to(dtype)


class Springs(nn.Module):
    """Masses on springs along the edges, and one fault."""

    def __init__(self, fault: str | None = None):
        super().__init__()
        self.fault = fault

    def forward(self, t: Tensor, x: Tensor, batch: Batch) -> Tensor:
        points = batch.replace(x).points
        y, index = points.x, points.index
        mean = y.new_zeros(len(points), 3).index_add(0, index, y) / points.counts.clamp(min=1)[:, None]
        v = y - mean[index]
        v = v * v.square().sum(1, keepdim=True)
        if points.nodes:
            i, j = points.edge_index
            v = (v / points.nodes["mass"][:, None]).index_add(0, i, (y[j] - y[i]) * points.edges["k"][:, None])
        return (v + self.wrong(y, v, points)).reshape(x.shape)

    def wrong(self, y: Tensor, v: Tensor, points: Batch) -> Tensor | float:
        if self.fault == "translation":
            return 1e-6 * y
        if self.fault == "rotation":
            return 1e-6 * v.square()
        if self.fault == "reflection":  # a pseudovector from positions in the order of mass
            return 1e-6 * torch.linalg.cross(v, v.flip(0) if len(points) == 1 else v.roll(1, 0), dim=1)
        if self.fault == "permutation":
            return 1e-6 * v * torch.arange(len(v))[:, None]
        return 0.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("batch", [sets, clouds])
def test_a_right_velocity_passes(batch, dtype):
    check_equivariant(Springs(), batch(dtype), ALL)
    check_velocity(Springs(), batch(dtype), ALL)


BROKEN = {
    "translation": "moving the points changes the answer",
    "rotation": "turning the points does not turn the answer",
    "permutation": "reordering the rows does not reorder the answer",
}


@pytest.mark.parametrize("batch", [sets, clouds])
@pytest.mark.parametrize("fault", BROKEN)
def test_each_broken_law_is_named_and_the_others_pass(fault, batch):
    with pytest.raises(AssertionError, match=BROKEN[fault]):
        check_equivariant(Springs(fault), batch(), (fault,))
    kept = {"translation": ("permutation", "rotation"), "rotation": ("translation",), "permutation": ("rotation",)}
    check_equivariant(Springs(fault), batch(), kept[fault], lacks=(fault,))


def test_a_velocity_of_one_hand_is_caught_by_reflections_only():
    one = sets().select([0])
    with pytest.raises(AssertionError, match="mirroring the points does not mirror the answer"):
        check_equivariant(Springs("reflection"), one, ("reflection",))
    check_equivariant(Springs("reflection"), one, ("translation", "rotation"), lacks=("reflection",))


@pytest.mark.parametrize("word", ALL)
def test_a_symmetry_that_should_not_be_there_is_caught(word):
    with pytest.raises(AssertionError, match="just|changes nothing"):
        check_equivariant(Springs(), sets(), (), lacks=(word,))


def test_three_points_are_their_own_mirror_image():
    """So says the page: with labels or not, a plane through them is left as it is."""
    three = Batch(torch.randn(2, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
    check_equivariant(Springs(), three, ("reflection",))


def test_a_velocity_of_zero_proves_nothing():
    network, batch = EGNN(3, 8, 1).double(), clouds()
    with pytest.raises(AssertionError, match="zero everywhere"):
        check_equivariant(network, batch)
    nn.init.normal_(network.layers[0].move[2].weight)
    check_equivariant(network, batch)


def test_by_default_the_networks_own_symmetries_are_checked():
    class Claims(Springs):
        symmetries = frozenset({"rotation", "permutation"})

    check_equivariant(Claims("translation"), sets())
    check_equivariant(Springs("rotation"), sets())  # claims nothing
    with pytest.raises(AssertionError, match="turning the points"):
        check_equivariant(Claims("rotation"), sets())
    with pytest.raises(AssertionError, match="turning the points"):
        check_velocity(Claims("rotation"), sets())
    check_velocity(Claims("rotation"), sets(), ())


def test_pairs_of_points_are_always_exchanged():
    """A random order of two is often the same order."""
    two = Batch(torch.randn(1, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
    for seed in range(6):
        with pytest.raises(AssertionError, match="reordering"):
            check_equivariant(Springs("permutation"), two, ("permutation",), seed=seed)


@pytest.mark.parametrize("dim", [1, 2, 4])
def test_dimensions_other_than_three(dim):
    class Centre(nn.Module):
        def forward(self, t: Tensor, x: Tensor, batch: Batch) -> Tensor:
            return x.mean(1, keepdim=True) - x

    x = torch.randn(2, 3, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    check_equivariant(Centre(), Batch(x), ALL)


def test_unknown_and_contradictory_words_are_refused():
    with pytest.raises(ValueError, match="expected symmetries among translation, .*, got spin"):
        check_equivariant(Springs(), sets(), ("spin",))
    with pytest.raises(ValueError, match="rotation is both claimed and lacked"):
        check_equivariant(Springs(), sets(), ("rotation",), lacks=("rotation",))
    with pytest.raises(ValueError, match="samples of n points"):
        check_equivariant(lambda t, x, batch: x, Batch(torch.ones(2, 1, 4, 4)), ("rotation",))


def test_the_checked_batch_is_left_as_it_was():
    batch = sets()
    before = batch.x.clone()
    check_equivariant(Springs(), batch, ALL)
    assert torch.equal(batch.x, before)


def test_networks_declare_what_they_have():
    assert PointNet.symmetries == SetTransformer.symmetries == {"permutation"}
    assert EGNN.symmetries == set(ALL)
    assert not MLP.symmetries and not UNet.symmetries  # none: a coupling that turns draws is refused
