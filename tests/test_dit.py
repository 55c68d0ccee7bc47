"""The diffusion transformer: attention as defined, layers that start as the identity, places, and clear refusals."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from scifm.batch import Batch
from scifm.networks import DiT
from scifm.networks.dit import _Layer, _places

DOUBLE = torch.float64


def field(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)


def test_attention_is_pytorchs():
    torch.manual_seed(0)
    layer, h = _Layer(12, 3, 4).double(), field(2, 5, 12)
    q, k, v = (layer.tokens(h)[..., part].unflatten(-1, (3, 4)).transpose(1, 2) for part in torch.arange(36).split(12))
    wanted = layer.leave(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
    torch.testing.assert_close(layer._attend(h), wanted)


def test_layers_start_as_the_identity_and_the_velocity_as_zero():
    net, x = DiT(1, 2, 16, 2, 2).double(), field(2, 1, 4, 6)
    h, waves = field(2, 5, 16), field(2, 64)
    assert all(torch.equal(layer(h, waves), h) for layer in net.layers)
    assert torch.equal(net(torch.rand(2, dtype=DOUBLE), x, Batch(x)), torch.zeros_like(x))


def test_no_two_tokens_are_at_one_place_and_circles_close():
    padding = ("replicate", "circular")
    places = _places(field(1, 1, 7, 13), padding, 32).reshape(7, 13, 32)
    apart = torch.cdist(places.reshape(91, 32), places.reshape(91, 32)) + 9 * torch.eye(91, dtype=DOUBLE)
    assert apart.min() > 0.1
    step = (places - places.roll(1, 1)).norm(dim=2)
    torch.testing.assert_close(step, step[:1, :1].expand(7, 13))  # from the last to the first as between any two
    slow = places[..., [0, 8]]  # the slowest sine and cosine of the walled axis
    ends = (slow - slow.roll(1, 0)).norm(dim=2)
    assert (ends[0] > 4 * ends[1:].amax(0)).all()  # walls are apart


def test_every_token_sees_every_other():
    torch.manual_seed(0)
    net, x = DiT(1, 4, 16, 1, 2).double(), field(1, 1, 9, 10).requires_grad_()
    with torch.no_grad():
        for p in net.parameters():
            p.normal_(std=0.3)
    (slope,) = torch.autograd.grad(net(torch.zeros(1, dtype=DOUBLE), x, Batch(x))[0, 0, 0, 0], x)
    assert (slope != 0).all()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: DiT(0), "channels, patch, width, layers and heads must be"),
        (lambda: DiT(1, patch=0), "patch, width"),
        (lambda: DiT(1, layers=0), "layers and heads must be"),
        (
            lambda: DiT(1, width=18, heads=4),
            r"of heads \(4\) and of sines and cosines on 2 axes \(4\), got 18",
        ),
        (lambda: DiT(1, width=20, heads=4, padding=("circular",) * 3), r"on 3 axes \(6\), got 20"),
        (lambda: DiT(1, padding="periodic"), "padding must be one of"),
    ],
)
def test_bad_constructor_arguments_are_named(make, says):
    with pytest.raises(ValueError, match=f"DiT: .*{says}"):
        make()
