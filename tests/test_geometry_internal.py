"""Internal coordinates: closed forms, signs, round trips, the determinant, gradients on the line and in the point."""

from __future__ import annotations

import math

import pytest
import torch

from scifm import Batch
from scifm.geometry import (
    angles,
    bond_lengths,
    by_sample,
    from_internal,
    joined,
    log_det_internal,
    place,
    random_rotation,
    runs,
    torsions,
    volumes,
)

DTYPE = torch.float64
TETRAHEDRON = torch.tensor([[0.0, 0, 0], [1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], dtype=DTYPE)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DTYPE)


def helix(n=12, radius=2.3, rise=1.5, turn=100.0, dtype=DTYPE):
    t = torch.arange(n, dtype=dtype)
    w = math.radians(turn)
    return torch.stack([radius * torch.cos(w * t), radius * torch.sin(w * t), rise * t], -1)


def test_a_tetrahedron_has_its_angles_and_bonds():
    index = torch.tensor([[1, 1, 1, 2, 2, 3], [0, 0, 0, 0, 0, 0], [2, 3, 4, 3, 4, 4]])
    found = torch.rad2deg(angles(TETRAHEDRON, index))
    torch.testing.assert_close(found, torch.full((6,), 109.47122063449069, dtype=DTYPE))
    assert bond_lengths(TETRAHEDRON, index[:2]).tolist() == pytest.approx([math.sqrt(3)] * 6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("hand", [1, -1])
def test_a_regular_helix_has_its_closed_form(hand, dtype):
    """Bond b, chords over two and three bonds, and with them θ and φ by the law of cosines."""
    r, h, w = 2.3, 1.5, math.radians(100)
    x = helix(dtype=dtype) * torch.tensor([1.0, hand, 1.0], dtype=dtype)
    b2, two2, three2 = (4 * r**2 * math.sin(k * w / 2) ** 2 + (k * h) ** 2 for k in (1, 2, 3))
    cos = 1 - two2 / (2 * b2)
    # |b1 + b2 + b3|² = 3b² − 4b² cos θ + 2b² cos² θ − 2b² sin² θ cos φ
    phi = math.acos((3 - 4 * cos + 2 * cos**2 - three2 / b2) / (2 * (1 - cos**2)))
    torch.testing.assert_close(bond_lengths(x), torch.full((11,), math.sqrt(b2), dtype=dtype))
    torch.testing.assert_close(angles(x), torch.full((10,), math.acos(cos), dtype=dtype))
    torch.testing.assert_close(torsions(x), torch.full((9,), hand * phi, dtype=dtype), rtol=1e-5, atol=1e-5)
    assert math.degrees(phi) == pytest.approx(50, abs=1) and math.degrees(math.acos(cos)) == pytest.approx(91, abs=1)


@pytest.mark.parametrize("phi", [0.0, 30.0, 90.0, 179.0, -60.0, -120.0])
def test_torsions_have_the_sign_of_iupac(phi):
    """Looking from the second to the third, the far bond is clockwise of the near one."""
    p = math.radians(phi)
    # the viewer at the second point looks to −z with y up: x points to the right, and clockwise is from y to x
    x = torch.tensor([[0.0, 1, 1], [0, 0, 1], [0, 0, 0], [math.sin(p), math.cos(p), 0]], dtype=DTYPE)
    assert float(torch.rad2deg(torsions(x))[0]) == pytest.approx(phi, abs=1e-9)


def test_motions_change_nothing_and_mirrors_change_signs():
    x, r = normal(9, 3), random_rotation(1, 3, torch.Generator().manual_seed(1), DTYPE)[0]
    moved, mirrored = x @ r.T + 2, x * torch.tensor([1.0, 1.0, -1.0], dtype=DTYPE)
    for f in (bond_lengths, angles, torsions, volumes):
        torch.testing.assert_close(f(moved), f(x))
    for f in (bond_lengths, angles):
        torch.testing.assert_close(f(mirrored), f(x))
    for f in (torsions, volumes):
        torch.testing.assert_close(f(mirrored), -f(x))
        torch.testing.assert_close(f(x.flip(0)), f(x).flip(0))  # read backwards it turns the same way
    assert bool((volumes(x).sign() == torsions(x).sign()).all())


def test_columns_of_an_index_and_consecutive_points_agree():
    x = normal(2, 7, 3)
    for f, k in ((bond_lengths, 2), (angles, 3), (torsions, 4), (volumes, 4)):
        index = torch.arange(7 - k + 1) + torch.arange(k)[:, None]
        torch.testing.assert_close(f(x, index), f(x))
        assert f(x[:, :1]).shape == (2, 0) and f(x[:, :0]).shape == (2, 0)
        assert f(x, index[:, :0]).shape == (2, 0)
        torch.testing.assert_close(torch.vmap(f)(x), f(x))
    torch.testing.assert_close(angles(x[..., :2]), angles(torch.cat([x[..., :2], 0 * x[..., :1]], -1)))


# -- back ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(2,), (3,), (4,), (12,), (5, 9), (3, 3), (0, 5)])
def test_a_chain_comes_back_from_its_internal_coordinates(shape, dtype):
    x = normal(*shape, 3).to(dtype)
    known = bond_lengths(x), angles(x), torsions(x)
    again = from_internal(*known)
    assert again.shape == x.shape and again.dtype == dtype
    tolerance = {"atol": 1e-3, "rtol": 1e-3} if dtype == torch.float32 else {"atol": 1e-9, "rtol": 1e-9}
    for a, b in zip((bond_lengths(again), angles(again)), known, strict=False):
        torch.testing.assert_close(a, b, **tolerance)
    turned = torsions(again) - known[2]
    torch.testing.assert_close(torch.cos(turned), torch.ones_like(turned), **tolerance)
    pairs = (again[..., :, None, :] - again[..., None, :, :]).square().sum(-1)
    torch.testing.assert_close(pairs, (x[..., :, None, :] - x[..., None, :, :]).square().sum(-1), **tolerance)
    assert bool((again[..., 0, :] == 0).all()) and bool((again[..., 1, 1:] == 0).all())


def test_one_atom_is_placed_where_it_was():
    x = normal(6, 4, 3)
    r, theta, phi = bond_lengths(x)[:, 2], angles(x)[:, 1], torsions(x)[:, 0]
    torch.testing.assert_close(place(*x[:, :3].unbind(1), r, theta, phi), x[:, 3])


@pytest.mark.parametrize("n", [2, 3, 4, 7])
def test_the_determinant_is_that_of_the_jacobian(n):
    length = 1 + torch.rand(n - 1, generator=torch.Generator().manual_seed(0), dtype=DTYPE)
    angle = torch.linspace(0.6, 2.4, n - 2, dtype=DTYPE)
    torsion = torch.linspace(-3, 2, max(n - 3, 0), dtype=DTYPE)
    sizes = [n - 1, n - 2, max(n - 3, 0)]

    def free(q):
        x = from_internal(*q.split(sizes))
        return torch.cat([x[1, :1], x[2:3, :2].reshape(-1), x[3:].reshape(-1)])

    jacobian = torch.autograd.functional.jacobian(free, torch.cat([length, angle, torsion]))
    assert jacobian.shape == ((3 * n - 6, 3 * n - 6) if n > 2 else (1, 1))
    torch.testing.assert_close(log_det_internal(length, angle), torch.linalg.slogdet(jacobian).logabsdet)


def test_coordinates_that_make_no_chain_are_refused():
    with pytest.raises(ValueError, match="3 lengths make a chain of 4 points with 2 angles and 1 torsions"):
        from_internal(torch.ones(3), torch.ones(3), torch.ones(1))
    with pytest.raises(ValueError, match=r"index \(3, m\)"):
        angles(normal(5, 3), torch.zeros(2, 4, dtype=torch.long))
    with pytest.raises(ValueError, match="3 dimensions"):
        torsions(normal(5, 2))
    with pytest.raises(ValueError, match="2 or 3 dimensions"):
        angles(normal(5, 4))
    with pytest.raises(ValueError, match="expected points"):
        bond_lengths(normal(5))


# -- gradients ----------------------------------------------------------------------------------------------------


def test_gradients_in_general_position():
    x = normal(6, 3).requires_grad_()
    for f in (bond_lengths, angles, torsions, volumes):
        assert torch.autograd.gradcheck(f, (x,))
    q = (
        torch.rand(4, dtype=DTYPE, generator=torch.Generator().manual_seed(0)) + 1,
        angles(x.detach())[:3],
        torsions(x.detach())[:2],
    )
    assert torch.autograd.gradcheck(from_internal, tuple(v.requires_grad_() for v in q))


@pytest.mark.parametrize(
    "x",
    [
        torch.zeros(5, 3),  # coincident
        torch.arange(5.0)[:, None] * torch.tensor([1.0, 2.0, -1.0]),  # on a line
        torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 0, 0], [0, 1, 0], [0, 1, 0]]),  # folded back, and a double point
    ],
)
def test_degenerate_chains_have_finite_values_and_gradients(x):
    x = x.to(DTYPE).requires_grad_()
    for f in (bond_lengths, angles, torsions, volumes):
        value = f(x)
        (gradient,) = torch.autograd.grad(value.sum(), x)
        assert bool(value.isfinite().all()) and bool(gradient.isfinite().all()), f.__name__
    again = from_internal(bond_lengths(x), angles(x), torsions(x))
    (gradient,) = torch.autograd.grad(again.sum(), x)
    assert bool(again.isfinite().all()) and bool(gradient.isfinite().all())


def test_straight_and_folded_angles_are_exact():
    x = torch.tensor([[0.0, 0, 0], [1, 1, 1], [3, 3, 3], [2, 2, 2]], dtype=DTYPE)
    assert angles(x).tolist() == pytest.approx([math.pi, 0.0], abs=1e-12)
    tiny = torch.tensor([[1.0, 1e-9, 0.0], [0, 0, 0], [1, 0, 0]], dtype=DTYPE)
    assert float(angles(tiny)[0]) == pytest.approx(1e-9, rel=1e-6)  # an arc cosine would say 0


# -- runs ---------------------------------------------------------------------------------------------------------


def chains():
    index = torch.tensor([0] * 5 + [2] * 4 + [3])
    nodes = {
        "chain": torch.tensor([0, 0, 0, 1, 1, 0, 0, 0, 0, 0]),
        "position": torch.tensor([1, 2, 3, 4, 5, 7, 8, 10, 11, 0]),
    }
    return Batch(normal(10, 3), index, 5, nodes=nodes)


def test_runs_stop_at_samples_chains_and_gaps():
    batch = chains()
    assert joined(batch).tolist() == [True, True, False, True, False, True, False, True, False]
    assert runs(batch, 1).tolist() == [list(range(10))]
    assert runs(batch, 2).T.tolist() == [[0, 1], [1, 2], [3, 4], [5, 6], [7, 8]]
    assert runs(batch, 3).T.tolist() == [[0, 1, 2]]
    assert runs(batch, 4).shape == (4, 0) and runs(batch, 40).shape == (40, 0)
    with pytest.raises(ValueError, match="at least 1"):
        runs(batch, 0)


def test_runs_without_names_are_the_rows_of_each_sample():
    batch = Batch(normal(5, 3), torch.tensor([0, 0, 1, 1, 1]), 2)
    assert runs(batch, 3).tolist() == [[2], [3], [4]]
    dense = Batch(normal(2, 3, 3))
    assert runs(dense, 2).T.tolist() == [[0, 1], [1, 2], [3, 4], [4, 5]]
    empty = Batch(normal(0, 3), torch.zeros(0, dtype=torch.long), 2)
    assert runs(empty, 2).shape == (2, 0) and joined(empty).shape == (0,)


def test_values_go_back_to_their_samples():
    batch = chains()
    two = runs(batch, 2)
    parts = by_sample(batch, two, bond_lengths(batch.x, two))
    assert [len(p) for p in parts] == [3, 0, 2, 0, 0]
    torch.testing.assert_close(parts[2], bond_lengths(batch.x[[5, 6, 7, 8]])[[0, 2]])
    with pytest.raises(ValueError, match="order of the samples"):
        by_sample(batch, two.flip(1), torch.zeros(5))
