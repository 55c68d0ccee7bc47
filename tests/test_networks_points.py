"""Networks on sets of points: the symmetries they claim, with labels of points, samples and bonds, and derivatives."""

from __future__ import annotations

import pytest
import torch

from scifm import Batch, networks, trace
from scifm.testing import check_equivariant, check_velocity

DOUBLE = torch.float64
LABELS = {"nodes": {"z": 4}, "context": {"label": 3, "heat": 2}}
BONDS = {"edges": {"bond": 3}}

MAKE = {
    "EGNN": lambda **told: networks.EGNN(3, 12, 2, nodes=told.get("nodes", {}), context=told.get("context", {}),
                                         edges=told.get("edges", {})),
    "PaiNN": lambda **told: networks.PaiNN(12, 2, **told),
    "PaiNN, chiral": lambda **told: networks.PaiNN(12, 2, chiral=True, **told),
    "TensorProduct, l = 1": lambda **told: networks.TensorProduct((8, 4), 2, **told),
    "TensorProduct, l = 2": lambda **told: networks.TensorProduct((8, 4, 2), 2, **told),
    "TensorProduct, chiral": lambda **told: networks.TensorProduct((8, 4), 2, chiral=True, **told),
    "Residues": lambda **told: networks.Residues(12, 2, window=3, **told),
    "Residues, not chiral": lambda **told: networks.Residues(12, 2, window=3, chiral=False, **told),
    "SetTransformer": lambda **told: networks.SetTransformer(3, 16, 2, **told),
    "SetTransformer, inducing": lambda **told: networks.SetTransformer(3, 16, 2, inducing=3, **told),
}  # fmt: skip
WITH_BONDS = [name for name in MAKE if name.startswith(("EGNN", "PaiNN", "Tensor"))]


def loud(network, dtype, seed=1):
    """With weights everywhere: the untrained head is zero, for which all laws hold."""
    generator = torch.Generator().manual_seed(seed)
    network = network.to(DOUBLE)
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.1 * torch.randn(weight.shape, generator=generator, dtype=DOUBLE))
    return network.to(dtype)


def labelled(*counts, dtype=DOUBLE, seed=0):
    """Chains with species, classes, numbers and bonds along the chain in both directions."""
    generator = torch.Generator().manual_seed(seed)
    rows, size = sum(counts), len(counts)
    index = torch.arange(size).repeat_interleave(torch.tensor(counts))
    x = 1.5 * torch.randn(rows, 3, generator=generator, dtype=DOUBLE)
    forth = torch.tensor([[i, i + 1] for i in range(rows - 1) if index[i] == index[i + 1]]).reshape(-1, 2).T
    bond = torch.randint(3, (forth.shape[1],), generator=generator)
    return Batch(
        x.to(dtype),
        index,
        size,
        {
            "label": torch.randint(3, (size,), generator=generator),
            "heat": torch.randn(size, 2, generator=generator, dtype=DOUBLE).to(dtype),
        },
        {"z": torch.randint(4, (rows,), generator=generator)},
        torch.cat([forth, forth.flip(0)], 1),
        {"bond": torch.cat([bond, bond])},
    )


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE], ids=["float32", "float64"])
@pytest.mark.parametrize("name", MAKE)
def test_symmetries_that_are_claimed_hold_on_ragged_sets(name, dtype):
    told = {**LABELS, **(BONDS if name in WITH_BONDS else {})}
    network, batch = loud(MAKE[name](**told), dtype), labelled(6, 0, 1, 2, 5, dtype=dtype)
    lacks = {"reflection"} - network.symmetries
    check_equivariant(network, batch, lacks=lacks)
    check_velocity(network, batch)


@pytest.mark.parametrize("name", MAKE)
def test_and_on_dense_sets_as_on_ragged_ones(name):
    network = loud(MAKE[name](), DOUBLE)
    x = torch.randn(3, 6, 3, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
    t = torch.tensor([0.1, 0.5, 0.9], dtype=DOUBLE)
    check_equivariant(network, Batch(x))
    ragged = Batch(x.reshape(-1, 3), torch.arange(3).repeat_interleave(6), 3)
    assert torch.allclose(network(t, x, Batch(x)).reshape(-1, 3), network(t, ragged.x, ragged))


@pytest.mark.parametrize("name", MAKE)
def test_untrained_it_is_at_rest_and_trained_it_keeps_the_centre(name):
    batch, t = labelled(4, 7), torch.tensor([0.2, 0.7], dtype=DOUBLE)
    assert not MAKE[name]().double()(t, batch.x, batch).any()
    if name.startswith("SetTransformer"):
        return  # for clouds that stand somewhere
    v = loud(MAKE[name](), DOUBLE)(t, batch.x, batch)
    for column in v.unbind(1):
        assert torch.allclose(batch.total(column), torch.zeros(2, dtype=DOUBLE), atol=1e-10)


@pytest.mark.parametrize("mode", ["reverse", "forward"])
@pytest.mark.parametrize("name", MAKE)
def test_traces_are_those_of_the_jacobian(name, mode):
    network, batch = loud(MAKE[name](), DOUBLE), labelled(4, 1, 3)
    t = torch.tensor([0.3, 0.6, 0.9], dtype=DOUBLE)
    _, found = trace.Exact(mode=mode)(network, t, batch.x, batch, None)
    jacobian = torch.autograd.functional.jacobian(lambda x: network(t, x, batch), batch.x)
    diagonal = torch.einsum("ncnc->nc", jacobian)
    assert torch.allclose(found[:, 0], batch.total(diagonal), atol=1e-9)
    other = batch.index[:, None] != batch.index
    assert not jacobian.abs().amax((1, 3))[other].any()  # no sample sees another


@pytest.mark.parametrize("name", MAKE)
@pytest.mark.parametrize("kind", ["z", "label", "heat", "bond"])
def test_what_does_not_flow_is_looked_at(name, kind):
    if kind == "bond" and name not in WITH_BONDS:
        pytest.skip("it knows no bonds")
    told = {**LABELS, **(BONDS if name in WITH_BONDS else {})}
    network, batch = loud(MAKE[name](**told), DOUBLE), labelled(5, 4)
    t = torch.tensor([0.3, 0.6], dtype=DOUBLE)
    before = network(t, batch.x, batch)
    context, nodes, edges = dict(batch.context), dict(batch.nodes), dict(batch.edges)
    group = {"z": nodes, "label": context, "heat": context, "bond": edges}[kind]
    group[kind] = (group[kind] + 1) % {"z": 4, "label": 3, "bond": 3}[kind] if kind != "heat" else group[kind] + 1
    after = network(t, batch.x, Batch(batch.x, batch.index, 2, context, nodes, batch.edge_index, edges))
    assert not torch.allclose(before, after)


def plain(layer, x, h, radial, pairs, mask):
    """An EGNN layer with the first linear map on concatenated features, as it is usually written."""
    b, n, width = h.shape
    apart = x[:, :, None] - x[:, None]
    f, d = radial(apart.square().sum(-1))
    both = [h[:, :, None].expand(b, n, n, width), h[:, None].expand(b, n, n, width), f]
    weight = torch.cat([layer.receiver.weight, layer.sender.weight, layer.pair.weight], 1)
    first = torch.cat(both, -1) @ weight.T + layer.receiver.bias
    m = torch.nn.functional.silu(layer.edge(torch.nn.functional.silu(first)))
    x = x + (layer.move(m) * mask / (d + layer.scale) * apart).sum(2)
    return (
        x if layer.last else (x, h + layer.node(torch.cat([h, (layer.attention(m).sigmoid() * mask * m).sum(2)], -1)))
    )


def test_the_split_first_layer_is_the_unsplit_one():
    network = loud(networks.EGNN(3, 12, 2), DOUBLE)
    x = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
    batch, t = Batch(x), torch.tensor([0.2, 0.8], dtype=DOUBLE)
    h = network.conditions(t, batch.points).reshape(2, 5, 12)
    mask = (1 - torch.eye(5, dtype=DOUBLE))[None, :, :, None].expand(2, 5, 5, 1)
    y, h = plain(network.layers[0], x, h, network.radial, None, mask)
    y = plain(network.layers[1], y, h, network.radial, None, mask)
    wanted = y - x
    assert torch.allclose(network(t, x, batch), wanted - wanted.mean(1, keepdim=True), atol=1e-10)


# -- refusals ------------------------------------------------------------------------------------------

BAD = {
    "points of another dimension": (lambda n: n, lambda b: Batch(b.x[:, :2], b.index, 2), "coordinates|numbers|points"),
    "a label that is missing": (lambda n: n, lambda b: Batch(b.x, b.index, 2), "does not carry"),
    "a class out of range": (
        lambda n: n,
        lambda b: Batch(b.x, b.index, 2, b.context, {"z": b.nodes["z"] + 3}),
        "classes 0 to 3",
    ),
    "numbers of another width": (
        lambda n: n,
        lambda b: Batch(b.x, b.index, 2, {**b.context, "heat": b.context["heat"][:, :1]}, b.nodes),
        "must hold 2 numbers",
    ),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("name", ["EGNN", "PaiNN", "Residues", "SetTransformer"])
def test_what_a_network_was_not_made_for_is_refused(name, case):
    _, change, message = BAD[case]
    network, batch = MAKE[name](**LABELS).double(), labelled(3, 4)
    with pytest.raises(ValueError, match=message):
        bad = change(batch)
        network(torch.rand(2, dtype=DOUBLE), bad.x, bad)


def test_edges_without_a_graph_are_refused():
    network = networks.EGNN(3, 8, 1, edges={"bond": 2})
    x = torch.zeros(2, 4, 3)
    with pytest.raises(ValueError, match="no edge_index"):
        network(torch.rand(2), x, Batch(x))


def test_velocities_keep_their_digits_where_coordinates_are_large():
    """Not the difference of two positions: what a network moves may be small beside where the points are."""
    torch.manual_seed(0)
    network = networks.EGNN(3, 16, 2, scale=1e4)
    torch.nn.init.normal_(network.layers[0].move[-1].weight, std=0.01)
    x = 1e4 * torch.randn(4, 6, 3, generator=torch.Generator().manual_seed(0))
    t = torch.linspace(0, 1, 4)
    single, double = network(t, x, Batch(x)), network.double()(t.double(), x.double(), Batch(x.double()))
    assert (single - double).abs().max() < 1e-5 * double.abs().max()
