"""What a network knows besides positions: classes and numbers, of points, samples and bonds, and clear refusals."""

from __future__ import annotations

import pytest
import torch

from scifm.batch import Batch
from scifm.blocks import blocks
from scifm.networks import EGNN, Radial
from scifm.networks.conditions import Conditions, numbers
from scifm.networks.partners import SMALL, Partners
from scifm.networks.radial import radial_of

T = torch.tensor([0.2, 0.7], dtype=torch.float64)
BONDS = torch.tensor([[0, 1, 1, 2, 3, 4], [1, 0, 2, 1, 4, 3]])


def molecules(**change) -> Batch:
    """Three atoms and two, with elements, bonds, charges and a label each."""
    g = torch.Generator().manual_seed(0)
    parts = {
        "x": torch.randn(5, 3, generator=g, dtype=torch.float64),
        "index": torch.tensor([0, 0, 0, 1, 1]),
        "size": 2,
        "context": {"label": torch.tensor([1, 0]), "heat": torch.randn(2, 2, generator=g)},
        "nodes": {"z": torch.tensor([1, 6, 1, 8, 1]), "charge": torch.randn(5, generator=g)},
        "edge_index": BONDS,
        "edges": {"bond": torch.tensor([0, 0, 1, 1, 3, 3])},
    }
    return Batch(**{**parts, **change})


def test_features_are_the_sum_of_what_is_known():
    torch.manual_seed(0)
    batch, net = molecules(), Conditions(8, {"z": 10, "charge": 1}, {"label": 3, "heat": 2}).double()
    got, of_time = net(T, batch), net.time(net.embed(T))
    for row in range(5):
        b = int(batch.index[row])
        wanted = of_time[b] + net.nodes["z"].weight[:, batch.nodes["z"][row]]
        wanted = wanted + net.nodes["charge"].weight[:, 0] * batch.nodes["charge"][row].double()
        wanted = wanted + net.context["label"].weight[:, batch.context["label"][b]]
        wanted = wanted + net.context["heat"].weight @ batch.context["heat"][b].double()
        torch.testing.assert_close(got[row], wanted)


def test_pairs_carry_the_bond_and_nothing_where_there_is_none():
    batch, net = molecules(), Conditions(8, edges={"bond": 4})
    assert net.pair_width == 5 and Conditions(8).pair_width == 0
    joined = torch.zeros(5, 5, 5, dtype=torch.float64)
    for (i, j), bond in zip(BONDS.T.tolist(), batch.edges["bond"].tolist(), strict=True):
        joined[i, j, 0] = joined[i, j, 1 + bond] = 1
    for block in blocks(batch):
        found = net.pairs(batch, block)
        for k in range(len(block.samples)):
            rows = block.row[k][block.mask[k]]
            n = len(rows)
            assert torch.equal(found[k, :n, :n], joined[rows][:, rows])
            assert found[k].sum() == found[k, :n, :n].sum()  # nothing beyond the points


def test_a_bond_that_is_given_once_counts_in_both_directions():
    net, both = Conditions(8, edges={"bond": 4}), molecules()
    once = molecules(edge_index=BONDS[:, ::2], edges={"bond": both.edges["bond"][::2]})
    for one, other in zip(blocks(once), blocks(both), strict=True):
        assert torch.equal(net.pairs(once, one), net.pairs(both, other))


def test_classes_are_made_once_for_a_layout_and_numbers_keep_their_gradient():
    charge = torch.randn(5, requires_grad=True)
    batch = molecules(nodes={"z": torch.tensor([1, 6, 1, 8, 1]), "charge": charge})
    net = Conditions(8, {"z": 10, "charge": 1}).double()
    for _ in range(2):  # a graph that is kept would be used up
        net(T, batch).square().sum().backward()
    assert charge.grad is not None and charge.grad.abs().min() > 0
    first, second = (numbers("net", b, "nodes", "z", 10) for b in (batch, batch.replace(batch.x + 1)))
    assert first is second


def test_labels_weigh_as_much_as_time():
    """One of k classes is there at a time; a layer made for k numbers at once would make it too quiet to hear."""
    torch.manual_seed(0)
    assert 0.7 < float(Conditions(64, {"residue": 21}).nodes["residue"].weight.detach().std(1).mean()) < 1.3


REFUSED = [
    ({"nodes": {"q": 3}}, {}, r"made for nodes\['q'\], which the batch does not carry; it has \['charge', 'z'\]"),
    ({"context": {"q": 3}}, {}, r"made for context\['q'\].*\['heat', 'label'\]"),
    ({"edges": {"q": 3}}, {}, r"made for edges\['q'\].*\['bond'\]"),
    ({"edges": {"bond": 4}}, {"edge_index": None, "edges": {}}, "made for the edges bond, but the batch has no edge"),
    ({"nodes": {"z": 8}}, {}, r"classes 0 to 7, got 1 to 8; make the network with a larger number"),
    ({"nodes": {"z": 9}}, {"nodes": {"z": torch.tensor([-1, 0, 0, 0, 0])}}, "got -1 to 0"),
    ({"edges": {"bond": 3}}, {}, "classes 0 to 2, got 0 to 3"),
    ({"context": {"heat": 3}}, {}, r"must hold 3 numbers each, got 2"),
    ({"nodes": {"z": 9}}, {"nodes": {"z": torch.zeros(5, 2, dtype=torch.long)}}, "one class each, got shape"),
]


@pytest.mark.parametrize(("sizes", "change", "says"), REFUSED)
def test_what_does_not_fit_is_refused(sizes, change, says):
    batch, net = molecules(**change), EGNN(3, 8, 1, **sizes).double()
    with pytest.raises(ValueError, match=says):
        net(T, batch.x, batch)


@pytest.mark.parametrize("size", [0, -1, 2.5, True])
def test_sizes_that_are_no_numbers_are_refused(size):
    with pytest.raises(ValueError, match="nodes must name whole numbers"):
        Conditions(8, nodes={"z": size})


@pytest.mark.parametrize("t", [torch.tensor(0.5), torch.full((2, 1), 0.5), torch.full((5,), 0.5)])
def test_times_that_are_not_one_per_sample_are_refused(t):
    with pytest.raises(ValueError, match=r"one time per sample, shape \(2,\)"):
        Conditions(8)(t, molecules())


# -- distances and partners ----------------------------------------------------------------------------


def test_radial_features_are_cosines_of_a_bounded_distance():
    radial, d = Radial(4, 2.0), torch.tensor([0.0, 2.0, 6.0, 1e6], dtype=torch.float64)
    f, found = radial(d.square())
    torch.testing.assert_close(found[1:, 0], d[1:], rtol=1e-5, atol=0)
    u = torch.tensor([0.0, 0.5, 0.75, 1.0], dtype=torch.float64)
    torch.testing.assert_close(f, (torch.pi * u[:, None] * torch.arange(4)).cos(), rtol=0, atol=1e-2)
    assert radial.envelope(found).eq(1).all()


def test_a_cutoff_ends_with_two_continuous_derivatives():
    d = torch.tensor([0.0, 1.5, 2.9999, 3.0, 4.0], dtype=torch.float64, requires_grad=True)
    s = Radial(cutoff=3.0).envelope(d)
    torch.testing.assert_close(s, torch.tensor([1, 0.5, 0, 0, 0], dtype=torch.float64), rtol=0, atol=1e-8)
    slope = torch.autograd.grad(s.sum(), d, create_graph=True)[0]
    bend = torch.autograd.grad(slope.sum(), d)[0]
    assert slope[2:].abs().max() < 1e-6 and slope[1] < -0.1 and bend[2:].abs().max() < 1e-3


@pytest.mark.parametrize("bad", [{"count": 0}, {"scale": 0.0}, {"scale": float("inf")}, {"cutoff": 0.0}])
def test_bad_radial_arguments_are_named(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        Radial(**bad)


def test_a_scale_is_short_for_a_radial():
    own = Radial(8, 2.0, 5.0)
    assert radial_of(own) is own and radial_of(2.5).scale == 2.5


@pytest.mark.parametrize("n", [1, 2, 5, SMALL, SMALL + 1])
def test_partners_are_all_others_once(n):
    batch = Batch(torch.arange(2.0 * n)[:, None], torch.arange(2).repeat_interleave(n), 2)
    (block,) = blocks(batch)
    near, x = Partners(block, torch.float32), block.pad(batch.x)
    met = torch.ones(2, n, near.m, 1) if near.met is None else near.met
    found = near.of(x).expand(2, n, near.m, 1)
    table = torch.arange(2.0 * n * n).reshape(2, n, n)
    among = near.among(table)
    for b in range(2):
        for i in range(n):
            seen = met[b, i, :, 0] > 0
            assert sorted(found[b, i, seen, 0].tolist()) == [b * n + j for j in range(n) if j != i]
            assert torch.equal(among[b, i] - table[b, i, 0] + b * n, found[b, i, :, 0])  # in one order


def test_partners_of_padded_sets_are_there_or_masked():
    batch = Batch(torch.arange(8.0)[:, None] + 1, torch.tensor([0, 0, 0, 0, 0, 1, 1, 1]), 2)
    (block,) = blocks(batch)
    near, x = Partners(block, torch.float32), block.pad(batch.x)
    for row, (seen, others) in enumerate(zip(near.met[..., 0], near.of(x)[..., 0], strict=True)):
        own = x[row][block.mask[row], 0].tolist()
        for i, value in enumerate(own):
            assert sorted(others[i][seen[i] > 0].tolist()) == [v for v in own if v != value]
        assert not seen[~block.mask[row]].any()
