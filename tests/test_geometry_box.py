"""Periodic boxes: the nearest image against brute force, however skewed the cell."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from scifm.geometry import Box

DTYPE = torch.float64


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DTYPE)


def nearest_of(v, cell, reach):
    """Length of the shortest of all images of v (*batch, m, d) within `reach` cells of the rounded one."""
    d = cell.shape[-1]
    cells = torch.tensor(list(itertools.product(range(-reach, reach + 1), repeat=d)), dtype=DTYPE) @ cell
    start = v - (v @ torch.linalg.inv(cell)).round() @ cell
    return (start[..., None, :] - cells[..., None, :, :]).square().sum(-1).amin(-1).sqrt()


def skewed(seed, d=3, skew=1.0):
    return torch.eye(d, dtype=DTYPE) + skew * normal(d, d, seed=seed).tril(-1)


@pytest.mark.parametrize("d", [2, 3])
def test_the_minimum_image_is_the_nearest_of_125_images_of_random_cells(d):
    cells = torch.stack([skewed(seed, d, 0.5) for seed in range(60)])
    v = 3 * normal(60, 50, d)
    found = Box(cells).minimum_image(v)
    shift = (v - found) @ torch.linalg.inv(cells)
    torch.testing.assert_close(shift, shift.round(), atol=1e-9, rtol=0)  # it is an image
    torch.testing.assert_close(found.square().sum(-1).sqrt(), nearest_of(v, cells, 2 if d == 3 else 4))


def test_27_cells_are_not_enough_for_a_very_skewed_one_and_it_is_right_all_the_same():
    base = skewed(7, skew=0.5)
    cell = torch.tensor([[1.0, 0.0, 0.0], [4.0, 1.0, 0.0], [-3.0, 4.0, 1.0]], dtype=DTYPE) @ base
    v = 2 * normal(300, 3)
    found = Box(cell).minimum_image(v).square().sum(-1).sqrt()
    assert (nearest_of(v, cell, 1) > found + 0.1).sum() > 30
    torch.testing.assert_close(found, nearest_of(v, base, 2))


def test_one_step_is_not_enough_for_a_cell_that_is_nearly_a_cube():
    """Its reduced base is far from one, so that the first neighbour is sometimes not the last: once in a hundred."""
    cell = torch.tensor([[1.0359, 0.0673, 0.011], [0.011, 0.9661, 0.0012], [-0.0647, -0.0175, 1.0696]], dtype=DTYPE)
    v = 4 * normal(4000, 3)
    torch.testing.assert_close(Box(cell).minimum_image(v).square().sum(-1).sqrt(), nearest_of(v, cell, 2))


@pytest.mark.parametrize("times", [1, 40, 12345])
def test_a_cell_and_a_sheared_one_of_the_same_lattice_are_the_same_box(times):
    cell = skewed(3)
    sheared = cell + times * torch.tensor([[0.0, 0, 0], [1, 0, 0], [-2, 1, 0]], dtype=DTYPE) @ cell
    a, b, v = Box(cell), Box(sheared), 3 * normal(200, 3)
    torch.testing.assert_close(a.minimum_image(v), b.minimum_image(v), atol=1e-6, rtol=0)
    torch.testing.assert_close(a.volume, b.volume, atol=1e-5, rtol=0)
    torch.testing.assert_close(a.inradius, b.inradius, atol=1e-6, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_right_angled_box_rounds_in_any_dimension(dtype):
    lengths = torch.tensor([2.0, 3.0, 5.0, 7.0], dtype=dtype)
    v = (20 * normal(100, 4)).to(dtype)
    found = Box(lengths).minimum_image(v)
    assert found.dtype == dtype and bool((found.abs() <= lengths / 2 * (1 + 1e-6)).all())
    torch.testing.assert_close(found, v - lengths * (v / lengths).round(), atol=1e-5, rtol=0)
    assert float(Box(lengths).inradius) == 1.0 and float(Box(lengths).volume) == pytest.approx(210.0)


def test_hexagonal_and_face_centred_cells_have_their_known_inradius():
    hexagonal = torch.tensor([[1.0, 0.0], [-0.5, math.sqrt(3) / 2]], dtype=DTYPE)
    cubic = torch.tensor([[0.0, 1, 1], [1, 0, 1], [1, 1, 0]], dtype=DTYPE)
    assert float(Box(hexagonal).inradius) == pytest.approx(0.5)
    assert float(Box(cubic).inradius) == pytest.approx(math.sqrt(2) / 2)
    # the deepest hole of the face-centred lattice is an octahedron's middle, one half edge of the cube away
    hole = Box(cubic).minimum_image(torch.tensor([[1.0, 0.0, 0.0]], dtype=DTYPE))
    assert float(hole.norm()) == pytest.approx(1.0)


@pytest.mark.parametrize("batch", [1, 3, 4])  # 3 samples in 3 dimensions: nothing may be guessed from sizes
def test_a_box_per_sample_is_each_sample_s_own(batch):
    cells = torch.stack([skewed(seed) for seed in range(batch)])
    v, box = 3 * normal(batch, 5, 2, 3), Box(cells)
    for b in range(batch):
        torch.testing.assert_close(box.minimum_image(v)[b], Box(cells[b]).minimum_image(v[b]))
        torch.testing.assert_close(box.wrap(v)[b], Box(cells[b]).wrap(v[b]))
    some = torch.tensor([batch - 1, 0])
    torch.testing.assert_close(box.take(some).minimum_image(v[some]), box.minimum_image(v)[some])
    assert Box(cells[0]).take(some).cell.shape == (3, 3)
    sizes = torch.rand(batch, 3, generator=torch.Generator().manual_seed(0), dtype=DTYPE) + 1
    right = Box(torch.diag_embed(sizes))
    assert right.orthogonal
    torch.testing.assert_close(right.wrap(v)[0], Box(sizes[0]).wrap(v[0]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("cell", [torch.tensor([2.0, 3.0, 0.7], dtype=DTYPE), skewed(1)])
def test_wrapped_points_are_images_inside_the_cell(cell, dtype):
    box, x = Box(cell.to(dtype)), (9 * normal(500, 3)).to(dtype)
    x[:4] = torch.tensor([[-1e-12, -1e-12, -1e-12], [0, 0, 0], [2, 3, 0.7], [-2, -3, -0.7]])
    wrapped = box.wrap(x)
    eps = 40 * torch.finfo(dtype).eps
    fractional = box.fractional(wrapped)
    assert bool((fractional >= -eps).all()) and bool((fractional < 1 + eps).all())
    shift = box.fractional(x - wrapped)
    torch.testing.assert_close(shift, shift.round(), atol=100 * eps, rtol=0)
    if box.orthogonal:
        assert bool((fractional < 1).all())  # −1e-12 + L is L in float32: it must not stay there


@pytest.mark.parametrize("cell", [torch.tensor([2.0, 3.0, 4.0], dtype=DTYPE), skewed(5)])
def test_the_circular_centre_moves_with_the_points_and_does_not_see_how_they_are_wrapped(cell):
    box = Box(cell)
    x = 0.1 * normal(6, 3) + torch.tensor([1.9, 0.1, 3.9], dtype=DTYPE)
    centre = box.centre(x)
    near = box.minimum_image(x.mean(0) - centre)
    assert float(near.norm()) < 0.02  # a small cluster: nearly its mean, which wrapping would spoil
    torch.testing.assert_close(box.centre(box.wrap(x)), centre)
    move = normal(3, seed=4)
    torch.testing.assert_close(box.minimum_image(box.centre(x + move) - centre - move), torch.zeros(3, dtype=DTYPE))
    padded = torch.cat([x, torch.zeros(2, 3, dtype=DTYPE)])
    weights = torch.tensor([1.0] * 6 + [0.0] * 2, dtype=DTYPE)
    torch.testing.assert_close(box.centre(padded, weights), centre)


def test_where_there_is_no_centre_it_is_finite_and_so_is_its_gradient():
    box = Box(torch.tensor([1.0, 1.0], dtype=DTYPE))
    x = torch.zeros(0, 2, dtype=DTYPE, requires_grad=True)
    assert box.centre(x).tolist() == [0.0, 0.0]
    weights = torch.zeros(3, dtype=DTYPE)
    y = normal(3, 2).requires_grad_()
    box.centre(y, weights).sum().backward()
    assert y.grad is not None and bool(y.grad.isfinite().all())


@pytest.mark.parametrize("cell", [torch.tensor([2.0, 3.0, 4.0], dtype=DTYPE), skewed(2)])
def test_gradients_pass_to_points_and_cell(cell):
    v = normal(4, 3)

    def image(v, cell):
        return Box(cell).minimum_image(v)

    assert torch.autograd.gradcheck(image, (v.requires_grad_(), cell.clone().requires_grad_()))
    assert torch.autograd.gradcheck(lambda v: Box(cell).centre(v), (v,))
    jacobian = torch.func.jacrev(Box(cell).minimum_image)(v.detach()[0])
    torch.testing.assert_close(jacobian, torch.eye(3, dtype=DTYPE))
    together = torch.vmap(Box(cell).minimum_image)(v.detach())
    torch.testing.assert_close(together, Box(cell).minimum_image(v.detach()))


def test_shapes_without_points_pass():
    box = Box(skewed(0))
    assert box.minimum_image(torch.zeros(0, 4, 3, dtype=DTYPE)).shape == (0, 4, 3)
    assert box.minimum_image(torch.zeros(3, dtype=DTYPE)).shape == (3,)


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (torch.ones(4, 3), "diag_embed"),
        (torch.tensor([1, 2, 3]), "floating type"),
        (torch.tensor(1.0), "lengths"),
        (torch.tensor([1.0, math.nan, 1.0]), "not finite"),
        (torch.tensor([1.0, 0.0, 1.0]), "no volume"),
        (torch.tensor([[1.0, 1.0], [2.0, 2.0]]), "no volume"),
        (torch.eye(4) + torch.ones(4, 4).tril(-1), "up to three dimensions"),
    ],
)
def test_what_is_no_box(cell, message):
    with pytest.raises(ValueError, match=message):
        Box(cell)


def test_points_of_another_dimension_or_batch_are_refused():
    with pytest.raises(ValueError, match=r"expected points \(\*batch, \.\.\., 3\)"):
        Box(torch.ones(3)).wrap(torch.zeros(5, 2))
    with pytest.raises(ValueError, match="batch"):
        Box(torch.diag_embed(torch.ones(4, 3))).wrap(torch.zeros(5, 2, 3))
    with pytest.raises(ValueError, match="batch"):
        Box(torch.diag_embed(torch.ones(4, 3))).wrap(torch.zeros(4))
