"""Rotations and superposition: the optimum and det +1 for every cloud there is, gradients, weights, Haar measure."""

import math

import pytest
import torch

from scifm.geometry import (
    align,
    centre,
    centred,
    covariance,
    kabsch,
    nearest_rotation,
    overlap,
    principal_axes,
    random_rotation,
    rmsd,
    signs,
    widths,
)

DTYPES = (torch.float32, torch.float64)
N = 1000


def fresh(seed=0):
    return torch.Generator().manual_seed(seed)


def cloud(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=fresh(seed), dtype=torch.float64).to(dtype)


def clouds(kind, d, dtype):
    """(x, y), a thousand pairs of clouds or more of one kind."""
    x, turn = cloud(N, 7, d, dtype=dtype), random_rotation(N, d, fresh(3), dtype)
    flat = x * torch.tensor([1.0] * (d - 1) + [0.0]).to(x)
    line = x[..., :1] * turn[:, :1]
    axis = torch.cat([torch.eye(d, dtype=dtype), -torch.eye(d, dtype=dtype)]).expand(N, 2 * d, d)
    return {
        "random": (x, cloud(N, 7, d, seed=1, dtype=dtype)),
        "turned": (x, x @ turn.mT + 3),
        "mirrored": (x, -x @ turn.mT if d == 3 else x.flip(-1)),
        "planar": (flat, x @ turn.mT),
        "both planar": (flat, flat @ turn.mT),
        "planar, mirrored": (flat, (flat * torch.tensor([-1.0] + [1.0] * (d - 1)).to(x)) @ turn.mT),
        "linear": (line, x),
        "both linear": (line, line.flip(0)),
        "coincident": (x, torch.ones_like(x)),
        "both coincident": (torch.ones_like(x), torch.ones_like(x)),
        "one": (x[:, :1], x[:, 1:2]),
        "two": (x[:, :2], x[:, 2:4]),
        "three": (x[:, :3], x[:, 3:6]),
        "none": (x[:, :0], x[:, :0]),
        "as wide every way": (axis, axis @ turn.mT),
        "as wide every way, mirrored": (axis, -axis @ turn.mT + 1e-9 * x[:, : 2 * d] if d == 3 else axis.flip(-1)),
        "nearly mirrored": (axis + 1e-5 * x[:, : 2 * d].sin(), -axis @ turn.mT),
        "far away": (x + 1e3, x @ turn.mT - 1e3),
        "small": (1e-9 * x, 1e9 * cloud(N, 7, d, seed=1, dtype=dtype)),
    }[kind]


KINDS = (
    "random turned mirrored planar linear coincident one two three none small".split()
    + ["both planar", "both linear", "both coincident", "planar, mirrored", "far away"]
    + ["as wide every way", "as wide every way, mirrored", "nearly mirrored"]
)


def best(h, reflect=False):
    """max tr(RᵀH) by singular values, in float64."""
    s = torch.linalg.svdvals(h.double())
    if not reflect:
        s[..., -1] *= torch.where(torch.linalg.det(h.double()) < 0, -1.0, 1.0)
    return s.sum(-1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("d", (2, 3))
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reflect", (False, True))
def test_kabsch_is_the_best_rotation(kind, d, dtype, reflect):
    x, y = clouds(kind, d, dtype)
    if d == 2 and "every way" in kind or d == 2 and kind == "nearly mirrored":
        x, y = x[:, :4], y[:, :4]
    r = kabsch(x, y, reflect=reflect)
    assert r.shape == (N, d, d) and r.dtype == dtype
    det = torch.linalg.det(r.double())
    assert ((det.abs() if reflect else det) - 1).abs().max() < 1e-6
    h = covariance(centred(x), centred(y))
    scale = h.double().flatten(1).norm(dim=1).clamp(min=1e-300)
    lost = (best(h, reflect) - (r.double() * h.double()).sum((-2, -1))) / scale
    assert lost.abs().max() < 1e-6
    assert ((overlap(h, reflect).double() - best(h, reflect)) / scale).abs().max() < 1e-6


@pytest.mark.parametrize("count", (0, 1, 63, 64, 9000))
def test_few_and_many_agree(count):
    h = cloud(count, 3, 3)
    one = torch.stack([nearest_rotation(m) for m in h[:200]]) if count else h
    assert nearest_rotation(h).shape == (count, 3, 3)
    assert torch.allclose(nearest_rotation(h)[:200], one, atol=1e-9)
    assert overlap(h).shape == (count,)


def test_other_dimensions_and_shapes():
    h = cloud(2, 3, 5, 5)
    r = nearest_rotation(h)
    assert torch.allclose(torch.linalg.det(r), torch.ones(2, 3).double())
    assert torch.allclose((r * h).sum((-2, -1)), best(h)) and torch.allclose(overlap(h), best(h))
    assert torch.equal(nearest_rotation(torch.zeros(3, 3)), torch.eye(3))
    assert nearest_rotation(torch.tensor([[-2.0]])) == 1 and nearest_rotation(torch.tensor([[-2.0]]), True) == -1
    x, y = cloud(4, 1, 9, 3), cloud(5, 9, 3, seed=1)
    assert torch.allclose(kabsch(x, y)[2, 3], kabsch(x[2, 0], y[3]))


@pytest.mark.parametrize("count, d", [(9, 3), (100, 3), (9, 4)])
def test_not_finite_stays_so_and_spoils_no_other(count, d):
    h = cloud(count, d, d)
    spoiled = h.clone()
    spoiled[7] = math.nan
    r = nearest_rotation(spoiled)
    assert r[7].isnan().all()
    keep = torch.arange(count) != 7
    assert torch.equal(r[keep], nearest_rotation(h)[keep])


def test_x_is_what_moves():
    x, r = cloud(5, 3), random_rotation(1, 3, fresh(), torch.float64)[0]
    assert torch.allclose(kabsch(x, x @ r.mT + 2), r)
    assert torch.allclose(align(x, x @ r.mT + 2), x @ r.mT + 2)
    about = kabsch(x, x @ r.mT, about_centre=False)
    assert torch.allclose(about, r)


def test_a_mirror_image_is_not_superposed():
    x = cloud(6, 3)
    y = x * torch.tensor([1.0, 1.0, -1.0])
    assert rmsd(x, y) > 0.1 and rmsd(x, y, reflect=True) < 1e-6


@pytest.mark.parametrize("d", (2, 3))
def test_weights_leave_points_out(d):
    x, y = cloud(3, 8, d), cloud(3, 8, d, seed=1)
    weights = torch.ones(3, 8)
    weights[:, 5:] = 0
    assert torch.allclose(kabsch(x, y, weights), kabsch(x[:, :5], y[:, :5]))
    assert torch.allclose(rmsd(x, y, weights), rmsd(x[:, :5], y[:, :5]))
    assert torch.allclose(centre(x, weights), centre(x[:, :5]))
    assert torch.allclose(widths(x, weights), widths(x[:, :5]))
    twice = torch.cat([x, x[:, :2]], 1), torch.cat([y, y[:, :2]], 1)
    weights = torch.tensor([2.0] * 2 + [1.0] * 6)
    assert torch.allclose(align(x, y, weights), align(*twice)[:, :8])
    assert not centre(x, torch.zeros(3, 8)).any() and torch.equal(
        kabsch(x, y, torch.zeros(3, 8)), torch.eye(d).double().expand(3, d, d)
    )


def test_rmsd_is_invariant_and_symmetric():
    x, y = cloud(4, 7, 3), cloud(4, 7, 3, seed=1)
    r = random_rotation(4, 3, fresh(), torch.float64)
    assert torch.allclose(rmsd(x, y), rmsd(x @ r.mT + 5, y)) and torch.allclose(rmsd(x, y), rmsd(y, x))
    assert (rmsd(x, y) < rmsd(x, y, aligned=False)).all()


def test_gradient_of_rmsd_is_exact_though_rotations_are_detached():
    x, y = cloud(6, 3).requires_grad_(), cloud(6, 3, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, y: rmsd(x, y), (x, y))
    assert not kabsch(x, y).requires_grad and align(x, y).requires_grad


@pytest.mark.parametrize("d", (1, 2, 3, 4))
def test_random_rotations_are_haar(d):
    r = random_rotation(4000, d, fresh(), torch.float64)
    assert torch.allclose(r @ r.mT, torch.eye(d).double().expand(4000, d, d), atol=1e-12)
    assert torch.allclose(torch.linalg.det(r), torch.ones(4000).double())
    if d > 1:
        assert r.mean(0).abs().max() < 5 / math.sqrt(4000)
        assert (r.square().mean(0) - 1 / d).abs().max() < 5 / math.sqrt(4000)
    if d == 3:  # the angle has density (1 − cos ω)/π, so E tr R = 0 and E (tr R)² = 1
        trace = r.diagonal(dim1=1, dim2=2).sum(1)
        assert abs(trace.mean()) < 5 / math.sqrt(4000) and abs(trace.square().mean() - 1) < 0.15
    assert torch.equal(random_rotation(3, d, fresh(1)), random_rotation(3, d, fresh(1)))


@pytest.mark.parametrize("d", (2, 3))
def test_principal_axes(d):
    x = cloud(5, 9, d)
    axes, wide = principal_axes(x)
    assert torch.allclose(torch.linalg.det(axes), torch.ones(5).double())
    z = x @ axes
    assert torch.allclose(z.mT @ z, torch.diag_embed(wide.square()), atol=1e-9)
    assert torch.allclose(wide, torch.linalg.svdvals(x)) and torch.allclose(widths(x), wide)
    assert len(signs(d)) == 2 ** (d - 1) and (signs(d).prod(1) == 1).all() and len(signs(d, True)) == 2**d


def test_refusals():
    x = cloud(4, 3)
    for call in (
        lambda: kabsch(x, x[:3]),
        lambda: rmsd(x, x[:, :2]),
        lambda: centre(x[0]),
        lambda: kabsch(x, x, torch.ones(3)),
        lambda: nearest_rotation(x),
        lambda: random_rotation(2, 0),
        lambda: centre(x.long()),
    ):
        with pytest.raises(ValueError, match="expected"):
            call()


@pytest.mark.parametrize("count, d", [(3, 3), (100, 3), (3, 2), (3, 4)])
def test_transforms_of_torch_func_hold_the_rotation_fixed(count, d):
    """A velocity that aligns its points is pushed through jvp and vmap by exact traces."""
    x, y, v = (cloud(count, 6, d, seed=seed) for seed in range(3))
    r = kabsch(x, y)

    def fixed(x):
        return centred(x) @ r.mT + y.mean(1, keepdim=True)

    assert torch.allclose(torch.func.grad(lambda x: rmsd(x, y).sum())(x), gradient(lambda x: rmsd(x, y).sum(), x))
    value, tangent = torch.func.jvp(lambda x: align(x, y), (x,), (v,))
    assert torch.allclose(value, fixed(x)) and torch.allclose(tangent, fixed(x + v) - fixed(x))
    each = torch.vmap(lambda x, y: align(x, y))(x, y)
    assert torch.allclose(each, align(x, y), atol=1e-6)
    assert torch.allclose(torch.vmap(overlap, in_dims=2)(r.movedim(0, 2)), torch.full((count,), float(d)).to(x))


def gradient(function, x):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(function(x), x)[0]
