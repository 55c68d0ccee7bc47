"""Velocity networks: shapes, symmetries, independence of batch mates, and clear refusals."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from scifm.batch import Batch
from scifm.networks import FNO, MLP, DiT, PointNet, Pole, SinusoidalTime, UNet


def ragged(counts: list[int], dim: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Batch:
    index = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    x = torch.randn(len(index), dim, dtype=dtype, generator=torch.Generator().manual_seed(seed))
    return Batch(x, index, len(counts))


def dense(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Batch:
    return Batch(torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed)))


def wake(network: nn.Module, seed: int = 1) -> nn.Module:
    """The same network in float64 with no zeros left: the zero head hides every law tested here."""
    generator = torch.Generator().manual_seed(seed)
    network = network.double()
    with torch.no_grad():
        for p in network.parameters():
            fan = max(1, p[0].numel()) if p.ndim > 1 else 1
            p.add_(torch.randn(p.shape, dtype=p.dtype, generator=generator) / (2 * fan**0.5))
    return network


def times(batch: Batch) -> Tensor:
    return torch.linspace(0, 1, len(batch), dtype=batch.x.dtype)


CASES = {
    "mlp vector": (lambda: MLP(3, hidden=(16, 16)), lambda n: dense(n, 3)),
    "mlp event": (lambda: MLP((2, 3), hidden=(16,)), lambda n: dense(n, 2, 3)),
    "pointnet dense": (lambda: PointNet(2, hidden=(16, 16)), lambda n: dense(n, 2)),
    "pointnet ragged": (lambda: PointNet(2, hidden=(16, 16)), lambda n: ragged([3, 1, 5, 2, 4, 1, 2][:n], 2)),
    "unet odd": (lambda: UNet(1, widths=(8, 16, 16)), lambda n: dense(n, 1, 25, 53)),
    "unet stem": (
        lambda: UNet(2, widths=(8, 16), stem=2, padding=("reflect", "circular")),
        lambda n: dense(n, 2, 9, 12),
    ),
    "unet one axis": (lambda: UNet(1, widths=(8, 8), padding=("reflect",)), lambda n: dense(n, 1, 13)),
    "unet three axes": (
        lambda: UNet(1, widths=(8, 8), padding=("circular", "replicate", "reflect"), stem=2),
        lambda n: dense(n, 1, 4, 5, 3),
    ),
    "unet blocks": (
        lambda: UNet(1, widths=(8,), blocks=2, padding="circular", position=0),
        lambda n: dense(n, 1, 5, 5),
    ),
    "unet pole": (
        lambda: UNet(2, widths=(8, 8), padding=(Pole(rows=True, vectors=(0,)), "circular"), stem=2),
        lambda n: dense(n, 2, 7, 10),
    ),
    "fno": (lambda: FNO(2, 8, modes=(4, 5), layers=2), lambda n: dense(n, 2, 9, 13)),
    "fno torus": (lambda: FNO(1, 8, modes=3, layers=1, padding="circular"), lambda n: dense(n, 1, 6, 7)),
    "fno walls": (lambda: FNO(1, 8, modes=3, layers=1, padding="reflect"), lambda n: dense(n, 1, 6, 5)),
    "fno one axis": (lambda: FNO(1, 8, modes=3, layers=1, padding=("circular",)), lambda n: dense(n, 1, 9)),
    "dit": (lambda: DiT(2, 4, 16, 2, 2), lambda n: dense(n, 2, 9, 13)),
    "dit pole": (lambda: DiT(1, 2, 16, 1, 2, padding=("pole", "circular")), lambda n: dense(n, 1, 5, 6)),
    "dit three axes": (lambda: DiT(1, 2, 12, 1, 2, padding=("reflect",) * 3), lambda n: dense(n, 1, 4, 3, 5)),
}
every = pytest.mark.parametrize(("make", "data"), list(CASES.values()), ids=list(CASES))


@every
def test_output_is_shaped_typed_and_finite_like_the_input(make, data):
    for dtype in (torch.float32, torch.float64):
        for n in (1, 4):
            batch = data(n).to(dtype)
            out = wake(make()).to(dtype)(times(batch), batch.x, batch)
            assert out.shape == batch.x.shape and out.dtype == dtype and out.isfinite().all()
            assert out.abs().max() > 0


@every
def test_zero_head_makes_the_untrained_velocity_zero(make, data):
    batch = data(3)
    out = make().double()(times(batch), batch.x, batch)
    assert torch.equal(out, torch.zeros_like(batch.x))


@every
def test_a_sample_does_not_see_its_batch_mates(make, data):
    network, batch = wake(make()), data(4)
    t = times(batch)
    whole = batch.replace(network(t, batch.x, batch))
    for b in range(len(batch)):
        alone = batch.select([b])
        torch.testing.assert_close(network(t[b : b + 1], alone.x, alone), whole.select([b]).x, rtol=0, atol=1e-12)
    loud = batch.select([0, 1])
    mate = loud.select([1])
    loud = Batch.join([loud.select([0]), mate.replace(1e6 * mate.x)])
    torch.testing.assert_close(
        batch.replace(whole.x).select([0]).x,
        loud.replace(network(t[:2], loud.x, loud)).select([0]).x,
        rtol=0,
        atol=1e-12,
    )


@every
def test_gradient_reaches_every_parameter_and_the_input(make, data):
    network, batch = wake(make()), data(3)
    x = batch.x.clone().requires_grad_()
    network(times(batch) + 0.1, x, batch).square().sum().backward()
    for name, p in network.named_parameters():
        assert p.grad is not None and p.grad.abs().max() > 0, name
    assert x.grad is not None and (x.grad.flatten(1).abs().max(1).values > 0).all()


@every
def test_output_depends_on_time_and_each_sample_on_its_own(make, data):
    network, batch = wake(make()), data(4)
    before = batch.replace(network(torch.full((4,), 0.3, dtype=torch.float64), batch.x, batch))
    t = torch.full((4,), 0.3, dtype=torch.float64)
    t[2] = 0.7
    after = batch.replace(network(t, batch.x, batch))
    change = batch.total((after.x - before.x).abs())
    assert change[2] > 1e-3 and change[[0, 1, 3]].max() < 1e-12


@every
def test_vmapped_reverse_mode_agrees_with_probes_one_by_one(make, data):
    """Exact and blocked traces push many probes through one graph."""
    network, batch = wake(make()), data(2)
    x = batch.x.clone().requires_grad_()
    out = network(times(batch), x, batch)
    probes = torch.randn(3, *x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(3))
    together = torch.autograd.grad(out, x, probes, is_grads_batched=True, retain_graph=True)[0]
    for probe, got in zip(probes, together, strict=True):
        one = torch.autograd.grad(out, x, probe, retain_graph=True)[0]
        torch.testing.assert_close(got, one, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("network", [MLP(4, hidden=(8,)), PointNet(4, hidden=(8,))])
def test_batch_as_large_as_the_dimension_is_not_broadcast_across_samples(network):
    batch = dense(4, 4)
    network = wake(network)
    t = times(batch)
    rows = [network(t[b : b + 1], batch.x[b : b + 1], batch.select([b])) for b in range(4)]
    torch.testing.assert_close(network(t, batch.x, batch), torch.cat(rows), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("stem", "widths"), [(1, (8, 16, 16)), (2, (8, 16)), (2, (8, 8, 8))])
def test_circular_axis_commutes_with_shifts_by_the_multiple(stem, widths):
    network = wake(UNet(1, widths=widths, stem=stem, padding=("replicate", "circular")))
    batch = dense(2, 1, 2 * network.multiple - 1, 3 * network.multiple)
    t = times(batch)
    assert network.multiple == stem * 2 ** (len(widths) - 1)

    def broken(axis: int) -> float:
        moved = batch.replace(batch.x.roll(network.multiple, axis))
        change = network(t, moved.x, moved) - network(t, batch.x, batch).roll(network.multiple, axis)
        return change.abs().max().item()

    assert broken(3) < 1e-12
    assert broken(2) > 1e-3  # the walled axis must know where its walls are


def test_walls_break_shifts_even_without_position_features():
    for mode in ("replicate", "reflect"):
        network = wake(UNet(1, widths=(8, 8), padding=("circular", mode), position=0))
        batch = dense(1, 1, 8, 8)
        moved = batch.replace(batch.x.roll(2, 3))
        difference = network(times(batch), moved.x, moved) - network(times(batch), batch.x, batch).roll(2, 3)
        assert difference.abs().max() > 1e-4


def test_circular_commutes_with_shifts_along_both_axes_at_once():
    network = wake(UNet(2, widths=(8, 8), padding="circular"))
    batch = dense(2, 2, 6, 10)
    moved = batch.replace(batch.x.roll((2, 4), (2, 3)))
    torch.testing.assert_close(
        network(times(batch), moved.x, moved),
        network(times(batch), batch.x, batch).roll((2, 4), (2, 3)),
        rtol=0,
        atol=1e-12,
    )


@pytest.mark.parametrize("mode", ["replicate", "reflect", "circular"])
def test_grids_smaller_than_one_multiple_are_served(mode):
    network = wake(UNet(1, widths=(8, 8, 8), padding=mode, stem=2))
    for grid in ((1, 1), (2, 3), (1, 9)):
        batch = dense(2, 1, *grid)
        out = network(times(batch), batch.x, batch)
        assert out.shape == batch.x.shape and out.isfinite().all()


def test_growing_follows_the_boundary_rule():
    from scifm.networks.padding import extend

    x = torch.arange(3.0)[None, None]
    assert extend(x, 0, 0, 5, ("replicate",))[0, 0].tolist() == [0, 1, 2, 2, 2, 2, 2, 2]
    assert extend(x, 0, 0, 5, ("circular",))[0, 0].tolist() == [0, 1, 2, 0, 1, 2, 0, 1]
    assert extend(x, 0, 1, 5, ("reflect",))[0, 0].tolist() == [1, 0, 1, 2, 1, 0, 1, 2, 1]


def test_folding_agrees_with_pixel_unshuffle_and_is_undone():
    from scifm.networks.pixels import fold, unfold

    x = dense(2, 3, 4, 6).x
    assert torch.equal(fold(x, 2), nn.functional.pixel_unshuffle(x, 2))
    assert torch.equal(unfold(fold(x, 2), 2, 3), x)
    x = dense(2, 3, 4, 6, 2).x
    assert fold(x, 2).shape == (2, 24, 2, 3, 1) and torch.equal(unfold(fold(x, 2), 2, 3), x)


def test_pointnet_is_permutation_equivariant_within_each_set():
    network, batch = wake(PointNet(3)), ragged([4, 1, 6], 3)
    order = torch.cat([torch.tensor([2, 0, 3, 1]), torch.tensor([4]), 5 + torch.tensor([5, 3, 0, 1, 4, 2])])
    out = network(times(batch), batch.x, batch)
    moved = network(times(batch), batch.x[order], batch.replace(batch.x[order]))
    torch.testing.assert_close(moved, out[order], rtol=0, atol=1e-12)


def test_pointnet_sees_the_other_points_of_a_set_and_a_vector_as_a_set_of_one():
    network, batch = wake(PointNet(2)), ragged([3, 3], 2)
    t = times(batch)
    x = batch.x.clone()
    x[0] += 1
    change = (network(t, x, batch) - network(t, batch.x, batch)).abs().amax(1)
    assert (change[:3] > 1e-6).all() and change[3:].max() == 0
    one, vector = ragged([1, 1, 1], 2), dense(3, 2)
    assert torch.equal(network(times(vector), vector.x, vector), network(times(vector), vector.x, one))


def test_pointnet_allows_empty_sets():
    network, batch = wake(PointNet(2)), ragged([2, 0, 3, 0], 2)
    assert network(times(batch), batch.x, batch).isfinite().all()


def test_time_features_are_sines_and_cosines_in_the_precision_of_time():
    waves = SinusoidalTime(8, fastest=64.0)
    t = torch.tensor([0.0, 0.25, 1.0], dtype=torch.float64)
    expected = t[:, None] * torch.tensor([1.0, 4.0, 16.0, 64.0], dtype=torch.float64)
    torch.testing.assert_close(waves(t), torch.cat([expected.sin(), expected.cos()], 1), rtol=1e-12, atol=1e-12)
    assert waves(t.float()).dtype == torch.float32


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: MLP(0), "event must be"),
        (lambda: MLP(2, hidden=()), "hidden must be"),
        (lambda: MLP(2, hidden=(8, 2.5)), "hidden must be"),
        (lambda: MLP(2, time_width=5), "width must be even"),
        (lambda: SinusoidalTime(8, fastest=0.5), "fastest must be"),
        (lambda: PointNet(-1), "dim must be"),
        (lambda: PointNet(2, hidden=(0,)), "hidden must be"),
        (lambda: UNet(0), "channels must be"),
        (lambda: UNet(1, widths=()), "widths must be"),
        (lambda: UNet(1, widths=(8, -8)), "widths must be"),
        (lambda: UNet(1, blocks=0), "blocks must be"),
        (lambda: UNet(1, stem=0), "stem must be"),
        (lambda: UNet(1, position=-1), "position must be"),
        (lambda: UNet(1, padding="periodic"), "padding must be one of replicate, reflect, circular"),
        (lambda: UNet(1, padding=("circular",) * 4), "1 to 3 grid axes"),
        (lambda: UNet(1, padding=()), "1 to 3 grid axes"),
    ],
)
def test_bad_constructor_arguments_are_named(make, says):
    with pytest.raises(ValueError, match=says):
        make()


@pytest.mark.parametrize(
    ("network", "batch", "says"),
    [
        (MLP(3), dense(2, 4), r"shape \(3,\), got \(4,\)"),
        (MLP(2), ragged([2, 2], 2), "MLP works on dense"),
        (PointNet(3), ragged([2, 2], 2), "rows of 3 numbers"),
        (PointNet(2), dense(2, 2, 2), "rows of 2 numbers"),
        (UNet(1, widths=(8,)), dense(2, 3, 8, 8), "1 channel"),
        (UNet(1, widths=(8,)), dense(2, 1, 8), "2 grid axes"),
        (UNet(1, widths=(8,)), dense(2, 8, 8, 1), "Channels come first"),
        (UNet(2, widths=(8,)), ragged([2, 2], 2), "UNet works on dense"),
        (FNO(1, 8), dense(2, 3, 8, 8), "FNO: made for 1 channel"),
        (FNO(2, 8), ragged([2, 2], 2), "FNO works on dense"),
        (DiT(1, width=16), dense(2, 1, 8), "DiT: made for 1 channel.*2 grid axes"),
        (DiT(2, width=16), ragged([2, 2], 2), "DiT works on dense"),
    ],
)
def test_batches_that_do_not_fit_are_refused(network, batch, says):
    with pytest.raises(ValueError, match=says):
        network.double()(times(batch), batch.x, batch)


@pytest.mark.parametrize(
    ("network", "batch"),
    [(MLP(3), dense(3, 3)), (PointNet(3), dense(3, 3)), (UNet(1, widths=(8,)), dense(3, 1, 4, 4))],
)
def test_times_that_are_not_one_per_sample_are_refused(network, batch):
    for t in (torch.tensor(0.5), torch.full((3, 1), 0.5), torch.full((2,), 0.5)):
        with pytest.raises(ValueError, match=r"one time per sample, shape \(3,\)"):
            network.double()(t.double(), batch.x, batch)
