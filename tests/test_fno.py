"""Fourier neural operators: modes against independent transforms, grids of other sizes, and clear refusals."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from scifm.batch import Batch
from scifm.networks import FNO
from scifm.networks.fno import _Spectral
from scifm.networks.modes import Modes, kinds_of
from scifm.testing import check_shift_equivariant

DOUBLE = torch.float64


def field(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def wake(network: nn.Module) -> nn.Module:
    torch.manual_seed(1)
    for p in network.parameters():
        nn.init.normal_(p, std=0.3)
    return network.double()


PADDINGS = [
    (("circular",), (7,)),
    (("circular",), (8,)),
    (("circular",), (1,)),
    (("replicate",), (7,)),
    (("reflect", "circular"), (5, 8)),
    (("circular", "pole"), (8, 5)),
    (("circular", "circular"), (6, 7)),
    (("circular", "replicate", "circular"), (4, 3, 6)),
]
grids = pytest.mark.parametrize(("padding", "grid"), PADDINGS, ids=[f"{p} {g}" for p, g in PADDINGS])


def test_the_last_circular_axis_has_half_the_wavenumbers():
    assert kinds_of(("circular", "replicate", "circular")) == ("signed", "cosine", "half")
    assert kinds_of(("circular", "reflect")) == ("half", "cosine") and kinds_of(("reflect",)) == ("cosine",)


@grids
def test_all_modes_give_the_field_back(padding, grid):
    if any(rule == "circular" and n % 2 == 0 for rule, n in zip(padding[:-1], grid[:-1], strict=True)):
        grid = tuple(n + 1 for n in grid)  # of a signed axis the fastest mode of even grids, ± at once, is left out
    h = field(2, 3, *grid)
    modes = Modes(h, (99,) * len(grid), padding)
    torch.testing.assert_close(modes.synthesise(modes.analyse(h)), h, rtol=0, atol=1e-12)


@grids
def test_few_modes_are_a_projection(padding, grid):
    h = field(2, 3, *grid)
    modes = Modes(h, (2,) * len(grid), padding)
    low = modes.synthesise(modes.analyse(h))
    torch.testing.assert_close(modes.synthesise(modes.analyse(low)), low, rtol=0, atol=1e-12)
    torch.testing.assert_close((low * (h - low)).sum(), h.new_zeros(()), rtol=0, atol=1e-12)


@pytest.mark.parametrize("grid", [(6, 7), (5, 8)])
def test_fourier_modes_are_those_of_an_fft(grid):
    h, m = field(2, 3, *grid), (3, 4)
    c = Modes(h, m, ("circular", "circular")).analyse(h)
    wanted = torch.fft.rfft2(h, norm="forward")[..., : m[1]]
    torch.testing.assert_close(c, wanted[..., [-2, -1, 0, 1, 2], :], rtol=0, atol=1e-12)


def test_cosine_modes_are_those_of_a_dct():
    scipy_fft = pytest.importorskip("scipy.fft")
    h = field(2, 3, 7)
    wanted = torch.from_numpy(scipy_fft.dct(h.numpy(), type=2)) / 14
    c = Modes(h, (5,), ("replicate",)).analyse(h)
    torch.testing.assert_close(c, wanted[..., :5], rtol=0, atol=1e-12)


def test_spectral_convolution_is_that_of_li_et_al():
    """Their rfft, matrices and irfft, with zeros for the modes that are left out."""
    torch.manual_seed(0)
    k, h = _Spectral(3, (3,), ("circular",)).double(), field(2, 3, 9)
    c = torch.fft.rfft(h)
    out = torch.zeros_like(c)
    out[..., :3] = torch.einsum("bik,kio->bok", c[..., :3], torch.view_as_complex(k.weight))
    torch.testing.assert_close(k(h, Modes(h, (3,), ("circular",))), torch.fft.irfft(out, n=9), rtol=0, atol=1e-12)


def test_a_spectral_convolution_is_the_same_on_finer_grids():
    torch.manual_seed(0)
    k = _Spectral(2, (4, 4), ("circular", "circular")).double()
    y, x = (torch.arange(n, dtype=DOUBLE) / n * 2 * torch.pi for n in (10, 16))

    def smooth(y: Tensor, x: Tensor) -> Tensor:
        return torch.stack([(2 * y[:, None] - 3 * x).cos(), (y[:, None] + x).sin() + y.cos()[:, None]])[None]

    coarse, fine = smooth(y[::2], x[::2]), smooth(y, x)
    on = [k(h, Modes(h, (4, 4), ("circular", "circular"))) for h in (coarse, fine)]
    one = k(coarse, Modes(coarse, (4, 4), ("circular", "circular")))
    assert torch.equal(on[0], one) and Modes(coarse, (4, 4), ("circular", "circular")).counts == (5, 4)
    # 5 rows have the wavenumbers −2 … 2, and the field none above: both grids know all of it
    torch.testing.assert_close(on[0], on[1][..., ::2, ::2], rtol=0, atol=1e-12)


@pytest.mark.parametrize("grid", [(25, 53), (9, 16)])
def test_every_shift_of_a_circular_axis(grid):
    net, batch = wake(FNO(1, 4, (6, 5), 2)), Batch(field(1, 1, *grid))
    check_shift_equivariant(net, batch, axes=[1])
    t, v = torch.zeros(1, dtype=DOUBLE), net(torch.zeros(1, dtype=DOUBLE), batch.x, batch)
    for shift in range(grid[1]):
        moved = batch.replace(batch.x.roll(shift, 3))
        torch.testing.assert_close(net(t, moved.x, moved), v.roll(shift, 3), rtol=0, atol=1e-10)


@pytest.mark.parametrize("grid", [(6, 9), (4, 4)])
def test_every_shift_of_a_torus(grid):
    check_shift_equivariant(wake(FNO(1, 4, 3, 2, padding="circular")), Batch(field(1, 1, *grid)), axes=[0, 1])


@pytest.mark.parametrize("grid", [(1, 1), (2, 3), (5, 4), (30, 31)])
def test_grids_of_fewer_modes_use_those_they_have(grid):
    """One network for grids of any size; where modes beyond the grid had weights, they change nothing."""
    net, x = wake(FNO(1, 4, (4, 4), 1, padding=("replicate", "circular"))), field(2, 1, *grid)
    t = torch.zeros(2, dtype=DOUBLE)
    v = net(t, x, Batch(x))
    assert v.shape == x.shape and v.isfinite().all() and v.abs().max() > 0
    with torch.no_grad():
        net.layers[0].spectral.weight[min(4, grid[0]) :] += 1
        net.layers[0].spectral.weight[:, min(4, grid[1] // 2 + 1) :] += 1
    assert torch.equal(net(t, x, Batch(x)), v)


def test_the_skip_starts_as_the_identity():
    layer, h = FNO(1, 6, 3, 1).layers[0], torch.randn(1, 6, 4, 5)
    torch.testing.assert_close(layer.skip(h), h)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: FNO(0), "channels, width and layers must be"),
        (lambda: FNO(1, 0), "channels, width and layers must be"),
        (lambda: FNO(1, layers=0), "channels, width and layers must be"),
        (lambda: FNO(1, modes=0), "modes must be"),
        (lambda: FNO(1, modes=(3, 2.5)), "modes must be"),
        (lambda: FNO(1, modes=(3,)), r"one per grid axis \(2\), got \(3,\)"),
        (lambda: FNO(1, position=-1), "position must be"),
        (lambda: FNO(1, padding="periodic"), "padding must be one of"),
    ],
)
def test_bad_constructor_arguments_are_named(make, says):
    with pytest.raises(ValueError, match=f"FNO: .*{says}"):
        make()
