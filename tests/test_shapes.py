"""Points on shapes and meshes are even in area or length: against closed forms and quadrature."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from scifm.data import shapes
from scifm.data.clouds import clouds_of
from scifm.data.meshes import Mesh, check_mesh, sample_surface
from scifm.geometry import random_rotation

N = 40_000


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def agrees(values, expected, sigmas=4.5):
    """Whether the mean of independent values is the expected one, by their own spread."""
    error = float(values.std()) / math.sqrt(len(values)) + 1e-12
    assert abs(float(values.mean()) - expected) < sigmas * error, (float(values.mean()), expected, error)


def quadrature(place, size, u_range=(0, 2 * math.pi), v_range=(0, 2 * math.pi), n=800):
    """Even means over a surface X(u, v), or a curve X(u), of the functions in `size`, by the midpoint rule."""
    u = torch.linspace(*u_range, n + 1, dtype=torch.float64)
    v = torch.linspace(*v_range, n + 1, dtype=torch.float64)
    u, v = torch.meshgrid((u[1:] + u[:-1]) / 2, (v[1:] + v[:-1]) / 2, indexing="ij")
    h = 1e-5
    x = place(u, v)
    a, b = (place(u + h, v) - place(u - h, v)) / (2 * h), (place(u, v + h) - place(u, v - h)) / (2 * h)
    weight = torch.linalg.cross(a, b).norm(dim=-1)
    return [float((f(x) * weight).sum() / weight.sum()) for f in size]


MOMENTS = [
    lambda x: x[..., 0] ** 2,
    lambda x: x[..., 1] ** 2,
    lambda x: x[..., 2] ** 2,
    lambda x: x[..., 2].abs(),
    lambda x: (x[..., 0] * x[..., 1]) ** 2,
    lambda x: x[..., 0] ** 4,
]


def on_sphere(u, v):
    return torch.stack([v.sin() * u.cos(), v.sin() * u.sin(), v.cos()], -1)


# -- shapes ----------------------------------------------------------------------------------------------------------


def test_heights_on_a_sphere_are_uniform():
    """Archimedes: a zone's area is that of the cylinder around it."""
    z = shapes.Ellipsoid(2.0, 2.0, 2.0)(N, generator())[:, 2] / 2
    steps = torch.linspace(0, 1, N, dtype=torch.float64)
    assert ((z.sort().values + 1) / 2 - steps).abs().max() < 1.95 / math.sqrt(N)  # Kolmogorov and Smirnov, 0.1 %


@pytest.mark.parametrize("axes", [(1.0, 0.7, 0.4), (0.5, 0.5, 1.5)])
def test_ellipsoids_are_even_in_area(axes):
    x = shapes.Ellipsoid(*axes)(N, generator(1))
    scale = torch.tensor(axes, dtype=torch.float64)
    torch.testing.assert_close((x / scale).norm(dim=1), torch.ones(N, dtype=torch.float64))
    known = quadrature(lambda u, v: on_sphere(u, v) * scale, MOMENTS, v_range=(0, math.pi))
    for moment, expected in zip(MOMENTS, known, strict=True):
        agrees(moment(x), expected)


def test_tori_are_even_in_area():
    R, r = 1.0, 0.4
    x = shapes.Torus(R, r)(N, generator(2))
    rho = x[:, :2].norm(dim=1)
    torch.testing.assert_close((rho - R) ** 2 + x[:, 2] ** 2, torch.full((N,), r * r, dtype=torch.float64))
    agrees(rho**2, R * R + 1.5 * r * r)  # ∫(R + r cos θ)³ dθ / ∫(R + r cos θ) dθ
    agrees((rho > R).double(), 0.5 + r / (math.pi * R))  # Pappus
    angle = torch.atan2(x[:, 1], x[:, 0])
    agrees(angle.cos(), 0.0)


def test_boxes_share_points_by_the_area_of_faces():
    sides = (1.0, 2.0, 4.0)
    x = shapes.Box(*sides)(N, generator(3))
    half = torch.tensor(sides, dtype=torch.float64) / 2
    assert (x.abs() <= half + 1e-12).all()
    on = (x.abs() - half).abs() < 1e-12
    assert (on.sum(1) == 1).all()
    area = [sides[1] * sides[2], sides[0] * sides[2], sides[0] * sides[1]]
    for k in range(3):
        agrees((on[:, k] & (x[:, k] > 0)).double(), area[k] / sum(area) / 2)
    agrees(x[on[:, 0], 1] ** 2, sides[1] ** 2 / 12)


def superquadric(a, b, c, e1, e2):
    def power(x, e):
        return x.sign() * x.abs().clamp(min=1e-9) ** e

    def place(u, v):
        flat = power(v.cos(), e1)
        return torch.stack([a * flat * power(u.cos(), e2), b * flat * power(u.sin(), e2), c * power(v.sin(), e1)], -1)

    return place


@pytest.mark.parametrize(
    "shape",
    [(1.0, 0.7, 0.5, 1.0, 1.0), (1.0, 0.6, 0.8, 1.6, 1.2), (0.8, 1.0, 0.5, 0.6, 1.4), (1.0, 1.0, 1.0, 2.0, 2.0)],
)
def test_superquadrics_are_even_in_area(shape):
    x = shapes.Superquadric(*shape)(N, generator(4))
    gauge, _ = shapes.Superquadric(*shape).gauge(x / x.norm(dim=1, keepdim=True))
    torch.testing.assert_close(gauge * x.norm(dim=1), torch.ones(N, dtype=torch.float64))
    # Small cells next to the seams of the map weigh little in these moments.
    known = quadrature(superquadric(*shape), MOMENTS, v_range=(-math.pi / 2, math.pi / 2), n=600)
    for moment, expected in zip(MOMENTS, known, strict=True):
        assert float(moment(x).mean()) == pytest.approx(expected, rel=0.02)


def test_superquadrics_lie_between_boxes_and_octahedra():
    x = shapes.Superquadric(1.0, 1.0, 1.0, 2.0, 2.0)(N, generator(5))
    torch.testing.assert_close(x.abs().sum(1), torch.ones(N, dtype=torch.float64))
    agrees(x[:, 0] ** 2, 1 / 6)
    box = shapes.Superquadric(0.5, 1.0, 2.0, 0.05, 0.05)(N, generator(6))
    flat = shapes.Box(1.0, 2.0, 4.0)(N, generator(6))
    assert float(((box**2).mean(0) / (flat**2).mean(0) - 1).abs().max()) < 0.05


@pytest.mark.parametrize("e", [0.05, 0.3, 1.0, 2.0])
def test_the_slope_of_the_gauge_is_its_gradient(e):
    shape = shapes.Superquadric(1.0, 0.7, 0.5, e, e)
    s = torch.randn(50, 3, generator=generator(7), dtype=torch.float64)
    s = (s / s.norm(dim=1, keepdim=True)).requires_grad_()
    value, slope = shape.gauge(s)
    (gradient,) = torch.autograd.grad(value.sum(), s)
    torch.testing.assert_close(slope, gradient.norm(dim=1), rtol=1e-6, atol=0)
    torch.testing.assert_close((gradient * s).sum(1), value, rtol=1e-6, atol=0)  # Euler


def test_curves_are_even_in_length():
    helix = shapes.Helix(0.6, 0.7, 2.0)(N, generator(8))
    torch.testing.assert_close(helix[:, :2].norm(dim=1), torch.full((N,), 0.6, dtype=torch.float64))
    z = (helix[:, 2] / (0.7 * 2.0) + 0.5).sort().values
    assert (z - torch.linspace(0, 1, N, dtype=torch.float64)).abs().max() < 1.95 / math.sqrt(N)
    t = torch.linspace(0, 2 * math.pi, 200_001, dtype=torch.float64)[:-1].requires_grad_()
    curve = torch.stack([t.sin() + 2 * (2 * t).sin(), t.cos() - 2 * (2 * t).cos(), -(3 * t).sin()], 1) / 3
    speed = torch.stack([torch.autograd.grad(c.sum(), t, retain_graph=True)[0] for c in curve.T], 1).norm(dim=1)
    knot = shapes.Trefoil()(N, generator(9))
    for moment in MOMENTS:
        agrees(moment(knot), float((moment(curve) * speed).sum().detach() / speed.sum().detach()))


def test_left_and_right_are_mirror_images():
    for right, left in (
        (shapes.Helix(handed=1), shapes.Helix(handed=-1)),
        (shapes.Trefoil(1.0, 1), shapes.Trefoil(1.0, -1)),
    ):
        a, b = right(500, generator(1)), left(500, generator(1))
        mirrored = [
            (a * torch.tensor(s, dtype=torch.float64) - b).abs().max() < 1e-12 for s in ([1, -1, 1], [1, 1, -1])
        ]
        assert any(mirrored)
        # a curve's torsion changes sign: the volume of four neighbours along a helix says which hand it is
    t = shapes.Helix(handed=1)(2000, generator(2))
    t = t[t[:, 2].argsort()][::100]
    edges = t.diff(dim=0)
    assert (torch.linalg.det(torch.stack([edges[:-2], edges[1:-1], edges[2:]], 1)) > 0).all()


@pytest.mark.parametrize("kind", shapes.KINDS)
def test_random_shapes_follow_their_generator(kind):
    def draw(seed):
        return shapes.random_shape(kind, generator(seed))(7, generator(seed))

    assert torch.equal(draw(3), draw(3)) and not torch.equal(draw(3), draw(4))
    assert draw(3).shape == (7, 3) and shapes.random_shape(kind, generator(0))(1, generator()).shape == (1, 3)
    reach = max(float(shapes.random_shape(kind, generator(k))(300, generator(k)).norm(dim=1).max()) for k in range(5))
    assert 0.3 < reach < 2.0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: shapes.Ellipsoid(1.0, 0.0, 1.0), "b must be positive"),
        (lambda: shapes.Torus(0.5, 0.5), "r < R"),
        (lambda: shapes.Box(math.inf, 1, 1), "a must be positive and finite"),
        (lambda: shapes.Superquadric(e1=2.5), "from 0.05 to 2"),
        (lambda: shapes.Helix(handed=0), "1 .right. or -1 .left."),
        (lambda: shapes.Trefoil(handed=2), "1 or -1"),
        (lambda: shapes.random_shape("cube", generator()), "no kind 'cube'; there are sphere"),
    ],
)
def test_shapes_that_are_none_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# -- meshes ----------------------------------------------------------------------------------------------------------


def cube(side=2.0):
    x = torch.tensor([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)], dtype=torch.float64) * side
    quads = [[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]]
    faces = torch.tensor([t for q in quads for t in (q[:3], [q[0], *q[2:]])])
    return check_mesh(Mesh(x, faces))


def soup(n=30, seed=0):
    """Triangles of very different areas."""
    corners = torch.randn(n, 3, 3, generator=generator(seed), dtype=torch.float64)
    corners = corners * torch.logspace(-1.5, 0.5, n, dtype=torch.float64)[:, None, None]
    return Mesh(corners.reshape(-1, 3), torch.arange(3 * n).reshape(n, 3))


def test_area_centre_and_size_of_a_cube():
    mesh = cube(2.0)
    assert float(mesh.areas.sum()) == pytest.approx(24)
    np.testing.assert_allclose(mesh.centre, [1, 1, 1])
    assert mesh.size**2 == pytest.approx(1 + 2 / 3)  # of a face: 1 across it, and 1/3 in each direction along it
    unit = mesh.moved(-mesh.centre, 1 / mesh.size)
    np.testing.assert_allclose(unit.centre, 0, atol=1e-12)
    assert unit.size == pytest.approx(1)


def test_triangles_get_points_by_their_area():
    mesh = soup()
    x = sample_surface(mesh, N, generator(1))
    # which triangle a point is of: where its distance from the plane, and out of the triangle, is zero
    a, b, c = mesh.corners.unbind(1)
    normal = torch.linalg.cross(b - a, c - a)
    count = torch.zeros(len(a))
    for k in range(len(a)):
        basis = torch.stack([b[k] - a[k], c[k] - a[k], normal[k]], 1)
        u, v, w = torch.linalg.solve(basis, (x - a[k]).T)
        count[k] = ((w.abs() * normal[k].norm() < 1e-9) & (u > -1e-9) & (v > -1e-9) & (u + v < 1 + 1e-9)).sum()
    assert int(count.sum()) == N
    share = mesh.areas / mesh.areas.sum()
    statistic = float(((count - N * share) ** 2 / (N * share)).sum())
    assert statistic < 29 + 5 * math.sqrt(2 * 29)  # chi-squared with 29 degrees of freedom
    assert float(count.min()) < 20 < 5000 < float(count.max())


def test_points_are_even_within_a_triangle():
    corners = torch.tensor([[0.0, 0, 0], [3, 0, 0], [0, 1, 0]], dtype=torch.float64)
    x = sample_surface(Mesh(corners, torch.tensor([[0, 1, 2]])), N, generator(2))
    u, v = x[:, 0] / 3, x[:, 1]
    assert (u >= 0).all() and (v >= 0).all() and (u + v <= 1 + 1e-12).all() and (x[:, 2] == 0).all()
    agrees(u, 1 / 3), agrees(v, 1 / 3), agrees(u * v, 1 / 12), agrees(u**2, 1 / 6)
    agrees(((u + v) < 0.5).double(), 0.25)


def test_samples_have_the_moments_of_the_surface():
    mesh = soup(seed=3)
    x = sample_surface(mesh, 4 * N, generator(3))
    for k in range(3):
        agrees(x[:, k], float(mesh.centre[k]))
    agrees((x - mesh.centre).square().sum(1), mesh.size**2)


def test_samples_move_with_the_mesh():
    mesh = soup(seed=4)
    turn = random_rotation(1, 3, generator(5), torch.float64)[0]
    moved = replace(mesh, vertices=mesh.vertices @ turn.T * 3 + 5)
    a, b = (sample_surface(m, 100, generator(6)) for m in (mesh, moved))
    torch.testing.assert_close(a @ turn.T * 3 + 5, b)
    assert torch.equal(a, sample_surface(mesh, 100, generator(6)))


# -- clouds ----------------------------------------------------------------------------------------------------------


def test_clouds_are_dense_or_ragged_and_follow_their_generator():
    surfaces = [shapes.Torus(), soup(), shapes.Helix()]
    dense = clouds_of(surfaces, 16, 0.0, generator(1))
    assert dense.dense and dense.x.shape == (3, 16, 3) and dense.x.dtype == torch.float32
    ragged = clouds_of(surfaces * 20, (4, 9), 0.1, generator(1), dtype=torch.float64)
    assert (
        not ragged.dense and ragged.counts.min() == 4 and ragged.counts.max() == 9 and ragged.x.dtype == torch.float64
    )
    assert torch.equal(ragged.x, clouds_of(surfaces * 20, (4, 9), 0.1, generator(1), dtype=torch.float64).x)
    assert clouds_of(surfaces[:1], (1, 1), 0.0, generator()).counts.tolist() == [1]


def test_noise_is_normal_about_the_surface():
    plain, noisy = (
        clouds_of([shapes.Ellipsoid()] * 20, 2000, s, generator(2), dtype=torch.float64).x for s in (0.0, 0.05)
    )
    torch.testing.assert_close(plain.norm(dim=-1), torch.ones(20, 2000, dtype=torch.float64))
    radius = noisy.norm(dim=-1).flatten()
    agrees(radius**2, 1 + 3 * 0.05**2)
    assert float(radius.std()) == pytest.approx(0.05, rel=0.03)


def test_turned_clouds_have_no_axis():
    x = clouds_of([shapes.Helix(0.1, 0.7, 2.0)] * 3000, 4, 0.0, generator(3), turn=True, dtype=torch.float64).x
    direction = torch.linalg.svd(x - x.mean(1, keepdim=True)).Vh[:, 0]
    for k in range(3):
        agrees(direction[:, k] ** 2, 1 / 3)
