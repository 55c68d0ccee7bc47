"""Pairs that come with the data: found, refused, written, read again, and made by a flow (reflow)."""

import math

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from scifm import Batch, Flow, Recipe, Solver, networks, priors
from scifm.couplings import Paired, independent, read_pairs, reflow, write_pairs
from scifm.data import Data
from scifm.data.transforms import Affine
from scifm.pairs import Pairs
from scifm.train import train
from scifm.verbs import seed_of


def dense(n=6, dtype=torch.float32):
    g = torch.Generator().manual_seed(0)
    return Batch(torch.randn(n, 2, generator=g, dtype=dtype), context={"label": torch.arange(n) % 2})


def ragged(sizes=(2, 0, 3, 1), dtype=torch.float32):
    index = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    g = torch.Generator().manual_seed(0)
    x = torch.randn(len(index), 3, generator=g, dtype=dtype)
    a, b = (torch.arange(len(index) - 1) + i for i in range(2))  # a chain through each sample
    edge_index = torch.stack([a, b])[:, index[a] == index[b]]
    return Batch(
        x, index, len(sizes), {"label": torch.arange(len(sizes))}, {"kind": torch.arange(len(index))}, edge_index,
        {"length": torch.rand(edge_index.shape[1], generator=g)},
    )  # fmt: skip


def having(batch, x0, name="x0"):
    """The batch with x0 where Paired looks for it."""
    if batch.dense:
        return Batch(batch.x, context={**batch.context, name: x0})
    return Batch(
        batch.x, batch.index, batch.size, batch.context, {**batch.nodes, name: x0}, batch.edge_index, batch.edges
    )


def same(a, b):
    assert torch.equal(a.x, b.x) and a.size == b.size and a.dense == b.dense and a.x.dtype == b.x.dtype
    assert torch.equal(a.counts, b.counts)
    for one, other in ((a.context, b.context), (a.nodes, b.nodes), (a.edges, b.edges)):
        assert one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)
    assert (a.edge_index is None) == (b.edge_index is None)
    assert a.edge_index is None or torch.equal(a.edge_index, b.edge_index)


# -- the coupling --------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [dense(), dense(1), dense(2), ragged(), dense(dtype=torch.float64)])
def test_the_partner_is_found_and_the_draws_are_left_aside(batch):
    x0 = batch.x.flip(0) + 1
    drawn = torch.randn(batch.x.shape)
    assert torch.equal(Paired()(drawn, having(batch, x0)), x0)
    assert torch.equal(Paired("from")(drawn, having(batch, x0, "from")), x0)
    flow = Flow(networks.MLP(2) if batch.dense else networks.PointNet(3), priors.Gaussian(), coupling=Paired())
    assert torch.equal(flow.pair(having(batch, x0)), x0)


@pytest.mark.parametrize("batch", [dense(), ragged()])
def test_a_missing_or_unfit_partner_is_named(batch):
    place = "context" if batch.dense else "nodes"
    with pytest.raises(ValueError, match=rf"expected the partner of each sample in {place}\['x0'\].*(label|kind)"):
        Paired()(batch.x, batch)
    with pytest.raises(ValueError, match="holds nothing"):
        Paired()(batch.x, Batch(batch.x, batch.index, batch.size))
    with pytest.raises(ValueError, match=r"must be like x, torch.float32 \(\d, \d\), got torch.float32 \(\d,\)"):
        Paired()(batch.x, having(batch, batch.x[:, 0]))  # would broadcast where B == D
    with pytest.raises(ValueError, match="got torch.float64"):
        Paired()(batch.x, having(batch, batch.x.double()))
    with pytest.raises(ValueError, match="NaN or infinity"):
        Paired()(batch.x, having(batch, batch.x / 0))


def test_pairs_stay_together_in_training():
    batch = dense(50)
    batch = having(batch, 2 * batch.x + 1)
    flow = Flow(networks.MLP(2), priors.Gaussian(), coupling=Paired())
    with Pairs(Recipe(flow, Data("pairs", batch, batch, batch), batch_size=7, pool=3), 0) as pairs:
        for step in range(10):
            part, x0 = pairs.at(step)
            assert torch.equal(x0, 2 * part.x + 1)


# -- files ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [dense(), dense(1), ragged(), ragged((1, 2, 2, 0)), dense(dtype=torch.float64)])
def test_what_is_written_is_read(tmp_path, batch):
    x0 = batch.x.flip(0) + 1
    path = write_pairs(tmp_path / "new" / "pairs.safetensors", x0, batch)
    same(read_pairs(path), having(batch, x0))
    same(read_pairs(path, "from"), having(batch, x0, "from"))
    strided = having(batch, x0.clone())
    write_pairs(path, strided.x.T.contiguous().T, strided)  # replaces, and strided memory is no matter
    assert torch.equal(Paired()(x0, read_pairs(path)), batch.x)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_file_that_is_not_whole_is_told(tmp_path):
    path = write_pairs(tmp_path / "pairs.safetensors", dense().x, dense())
    whole = path.read_bytes()
    for length in (0, 5, 60, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(
            ValueError, match=r"pairs.safetensors is cut short or no safetensors file .* write it again"
        ):
            read_pairs(path)
    path.write_bytes(b"\x80\x04" + whole)  # a pickle, say
    with pytest.raises(ValueError, match="cut short or no safetensors"):
        read_pairs(path)
    save_file({"x": torch.zeros(2)}, path)
    with pytest.raises(ValueError, match="holds other tensors, expected scifm pairs 1"):
        read_pairs(path)
    with pytest.raises(FileNotFoundError, match="there is no file"):
        read_pairs(tmp_path / "none")


def test_a_bad_write_leaves_what_was_there(tmp_path):
    path = write_pairs(tmp_path / "pairs.safetensors", dense().x, dense())
    before = path.read_bytes()
    with pytest.raises(ValueError, match="x0 must be like the samples"):
        write_pairs(path, dense().x[:3], dense())
    with pytest.raises(ValueError, match="x0 must be like the samples"):
        write_pairs(path, dense().x.double(), dense())
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1
    with pytest.raises(ValueError, match="cannot be written"):
        write_pairs(tmp_path, dense().x, dense())


# -- reflow --------------------------------------------------------------------------------------------


class Between(nn.Module):
    """The velocity of N(0, s0²) -> N(0, s1²) under the linear path with independent pairs, v = x σ̇_t / σ_t."""

    def __init__(self, s1, s0=1.0):
        super().__init__()
        self.s0, self.s1 = s0, s1

    def forward(self, t, x, batch):
        t = batch.spread(t)
        variance = ((1 - t) * self.s0) ** 2 + (t * self.s1) ** 2
        return x * (t * self.s1**2 - (1 - t) * self.s0**2) / variance


TIGHT = Solver(rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("like", [dense(dtype=torch.float64), ragged(dtype=torch.float64)])
def test_reflow_of_a_gaussian_flow_gives_the_transport_map(tmp_path, like):
    """In one dimension and radially the flow map of Gaussians is the monotone one, x1 = (s1 / s0) x0."""
    flow = Flow(Between(3.0), priors.Gaussian(), transform=Affine(shift=-5.0, scale=0.5))
    batch = read_pairs(reflow(flow, like, tmp_path / "pairs", solver=TIGHT, chunk=2))
    x0 = (batch.context if batch.dense else batch.nodes)["x0"]
    torch.testing.assert_close(batch.x, 5 + 2 * 3 * x0, rtol=1e-6, atol=1e-6)  # in the user's units
    same(having(like.replace(batch.x), x0), batch)  # with all that belongs to the samples
    assert torch.equal(Paired()(x0, batch), x0)


def test_a_pair_depends_on_its_seed_and_number_only(tmp_path):
    flow, like = Flow(Between(2.0), priors.Gaussian()), ragged()
    one = read_pairs(reflow(flow, like, tmp_path / "a", number=7, seed=5, chunk=7))
    other = read_pairs(reflow(flow, like, tmp_path / "b", number=7, seed=5, chunk=2))
    torch.testing.assert_close(one.x, other.x, rtol=1e-5, atol=1e-6)
    assert torch.equal(one.nodes["x0"], other.nodes["x0"]) and len(one) == 7
    few = read_pairs(reflow(flow, like, tmp_path / "c", number=3, seed=5))
    assert torch.equal(few.nodes["x0"], one.select(range(3)).nodes["x0"])
    first = priors.Gaussian().sample(like.select([0]), torch.Generator().manual_seed(seed_of(5, 0)))
    assert torch.equal(one.select([0]).nodes["x0"], first)  # as `scifm sample` draws
    unlike = read_pairs(reflow(flow, like, tmp_path / "d", number=7, seed=6))
    assert not torch.equal(unlike.nodes["x0"], one.nodes["x0"])


def test_reflow_tells_its_progress_and_refuses_nonsense_before_it_works(tmp_path):
    flow, done = Flow(Between(2.0), priors.Gaussian()), []
    reflow(flow, dense(5), tmp_path / "pairs", number=12, chunk=5, progress=done.append)
    assert done == [5, 5, 2]

    class Never(nn.Module):
        def forward(self, t, x, batch):
            raise AssertionError("it has begun")

    flow = Flow(Never(), priors.Gaussian())
    for settings in ({"number": 0}, {"chunk": 0}):
        with pytest.raises(ValueError, match="must be at least 1, got"):
            reflow(flow, dense(), tmp_path / "pairs", **settings)
    with pytest.raises(ValueError, match="must be at least 1, got 0"):
        reflow(flow, dense().select([]), tmp_path / "pairs")
    with pytest.raises(ValueError, match="cannot be written"):
        reflow(flow, dense(), tmp_path)


def energy(flow, like, x0):
    """∫ E‖v‖² dt along the flow's own curves, by the midpoint rule."""
    x, total, steps = x0, 0.0, 50
    with torch.no_grad():
        for k in range(steps):
            t = torch.full((len(like),), (k + 0.5) / steps)
            v = flow.velocity(t, x + flow.velocity(t, x, like.replace(x)) / (2 * steps), like.replace(x))
            total += float(v.square().sum(1).mean()) / steps
            x = x + v / steps
    return total


def test_training_on_the_pairs_is_straight(tmp_path):
    """Reflow of Gaussians: the second flow's path energy is that of the transport map, and one step samples it."""
    first = Flow(Between(3.0), priors.Gaussian())
    like = Batch(torch.zeros(2000, 1))
    data = read_pairs(reflow(first, like, tmp_path / "pairs"))
    w2 = (3 - 1) ** 2
    cost = float((data.x - data.context["x0"]).square().sum(1).mean())
    assert abs(cost / w2 - 1) < 0.1
    torch.manual_seed(0)
    small = Data("pairs", data, data.select(range(50)), data.select(range(50)))

    def second(coupling, folder):
        flow = Flow(networks.MLP(1, hidden=(32, 32)), priors.Gaussian(), coupling=coupling)
        numbers = {"batch_size": 128, "learning_rate": 1e-2, "ema": 0.98, "valid_samples": 10, "valid_every": 400}
        return train(Recipe(flow, small, steps=400, **numbers), tmp_path / folder, progress=False)

    straight, curved = second(Paired(), "straight"), second(independent, "curved")
    x0 = data.context["x0"]
    assert abs(energy(straight, data, x0) / cost - 1) < 0.1
    with torch.no_grad():
        start = torch.zeros(len(data))
        jump = [x0 + flow.velocity(start, x0, data.replace(x0)) for flow in (straight, curved)]
    error = [math.sqrt(float((x - data.x).square().mean())) for x in jump]
    assert error[0] < 0.3 < 1.5 < error[1]  # one Euler step from straight curves, and from others
