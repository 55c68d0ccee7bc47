"""The rotation nearest to a matrix, in closed form, and rotations at random.

Given H in R^(d×d), which rotation R has the largest overlap tr(RᵀH)?  With H = Σ_i w_i y_i x_iᵀ it is the one that
turns the points x onto the points y (Kabsch 1976; Wahba 1965).  From a singular value decomposition, H = U S Vᵀ, it is
U diag(1, .., 1, det UVᵀ) Vᵀ: the determinant is what tells a rotation from a mirror image.

In space, with s1 ≥ s2 ≥ |s3| the singular values, s3 of the sign of det H, no decomposition is needed (Markley 1993):

    R = [(κ + |H|²) H + λ cof H − H Hᵀ H] / ζ,    λ = s1 + s2 + s3,   κ = (λ² − |H|²)/2,   ζ = κλ − det H

|H| is Frobenius' norm.  λ = tr(RᵀH), the largest root of (λ² − |H|²)² − 8 λ det H − 4 |cof H|² = 0, which is also the
characteristic polynomial of Horn's quaternion matrix (1987; QCP: Theobald 2005).  Here it is not iterated from far
away: s1² is the largest eigenvalue of HᵀH by the trigonometric formula, (s2 + s3)² = |H|² − s1² + 2 det H/s1, and two
steps of Newton remove what rounding left.  All of it is elementwise arithmetic in float64.

ζ = (s1+s2)(s2+s3)(s3+s1) vanishes where the best rotation is not unique: all points on a line, or an exact mirror image
of a cloud that is as wide one way as another.  There, for s2 + s3 < 10⁻³ |H|, and for a few matrices, where a call
costs more than the arithmetic, a decomposition serves.  H = 0 gives the identity.

All rotations are detached: there is nothing to differentiate in the optimum's value, whose derivative along R vanishes,
and derivatives of R itself diverge where singular values meet.  Under torch.func's transforms (grad, jvp, vmap) they
are constants, too.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["nearest_rotation", "overlap", "random_rotation"]

FEW = 32  # matrices below which decompositions take no longer than the many small steps of the closed form
UNCLEAR = 1e-3  # (s2 + s3)/|H| below which the best rotation is taken from a decomposition
CHUNK = 8192  # matrices at a time on a CPU, so that they stay in its cache
ROUND = np.array([0, 1, 2, 0, 1])


@torch.no_grad()
def nearest_rotation(h: Tensor, reflect: bool = False) -> Tensor:
    """The rotation R that maximises tr(RᵀH), det R = +1.

    Args:
        h: (..., d, d).
        reflect: allow reflections too: det R = ±1, with the larger overlap.

    Returns:
        (..., d, d) like h, without gradient. Where several are as good, one of them; the identity for h = 0.

    Raises:
        ValueError: for matrices that are not square.

    Example:
        >>> nearest_rotation(torch.tensor([[0.0, -3.0], [2.0, 0.0]]))
        tensor([[ 0., -1.],
                [ 1.,  0.]])
    """
    _check("nearest_rotation", h)
    return _constant(_rotations, h.detach(), reflect)


@torch.no_grad()
def overlap(h: Tensor, reflect: bool = False) -> Tensor:
    """max tr(RᵀH) over rotations, (...) for h (..., d, d): the value alone, which takes half the time of R.

    Σ w|y − Rx|² = Σ w|x|² + Σ w|y|² − 2 overlap at the optimum.

    Example:
        >>> overlap(torch.eye(3)), overlap(-torch.eye(3)), overlap(-torch.eye(3), reflect=True)
        (tensor(3.), tensor(1.), tensor(3.))
    """
    _check("overlap", h)
    return _constant(_overlaps, h.detach(), reflect)


def random_rotation(
    count: int, d: int = 3, generator: torch.Generator | None = None, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Rotations (count, d, d) drawn uniformly (Haar), det +1, where the generator lives.

    A QR decomposition of white noise with the signs of R's diagonal taken out (Mezzadri 2007); a column is turned about
    where the determinant is −1.

    Raises:
        ValueError: for d < 1 or count < 0.

    Example:
        >>> q = random_rotation(5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        >>> torch.allclose(q @ q.mT, torch.eye(3, dtype=q.dtype)), torch.allclose(q.det(), torch.ones(5).double())
        (True, True)
    """
    if d < 1 or count < 0:
        raise ValueError(f"random_rotation: expected count >= 0 and d >= 1, got {count}, {d}.")
    device = None if generator is None else generator.device
    noise = torch.randn(count, d, d, generator=generator, dtype=torch.float64, device=device)
    q, r = torch.linalg.qr(noise)
    q = q * torch.where(r.diagonal(dim1=-2, dim2=-1) < 0, -1.0, 1.0)[:, None, :]
    return _proper(q).to(dtype)


def _constant(function: Callable[[Tensor, bool], Tensor], h: Tensor, reflect: bool) -> Tensor:
    if torch._C._are_functorch_transforms_active():  # asked first, since `apply` takes as long as a small batch
        return _Constant.apply(function, h, reflect)
    return function(h, reflect)


class _Constant(torch.autograd.Function):
    """A function of matrices (..., d, d), each on its own, without derivatives.

    torch.func takes its wrappers off before `forward`, so that NumPy may see the numbers.
    """

    @staticmethod
    def forward(function: Callable[[Tensor, bool], Tensor], h: Tensor, reflect: bool) -> Tensor:
        return function(h, reflect)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.mark_non_differentiable(output)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return None, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        return None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], function: Any, h: Tensor, reflect: bool) -> tuple[Tensor, int]:
        return _Constant.apply(function, h.movedim(in_dims[1], 0), reflect), 0


def _check(who: str, h: Tensor) -> None:
    if h.ndim < 2 or h.shape[-1] != h.shape[-2] or not h.is_floating_point() or not h.shape[-1]:
        raise ValueError(f"{who}: expected square matrices (..., d, d), got {h.dtype} {tuple(h.shape)}.")


def _rotations(h: Tensor, reflect: bool) -> Tensor:
    flat, d = _flat(h), h.shape[-1]
    if d == 2:
        r = _turn(flat, reflect)
    elif d != 3 or len(flat) < FEW:
        r = _decompose(flat, reflect)
    else:
        r = _piecewise(_closed, flat, reflect)
    return r.to(h.dtype).reshape(h.shape)


def _overlaps(h: Tensor, reflect: bool) -> Tensor:
    flat, d = _flat(h), h.shape[-1]
    if d == 2:
        value = torch.hypot(*_halves(_flipped(flat) if reflect else flat))
    elif d != 3:
        value = (_decompose(flat, reflect) * flat).sum((-2, -1))
    else:
        value = _piecewise(_value, flat, reflect)
    return value.to(h.dtype).reshape(h.shape[:-2])


def _flat(h: Tensor) -> Tensor:
    return h.double().reshape(-1, *h.shape[-2:])


def _piecewise(form: Callable[[Tensor, bool], Tensor], h: Tensor, reflect: bool) -> Tensor:
    if len(h) <= CHUNK or h.device.type != "cpu":
        return form(h, reflect)
    return torch.cat([form(part, reflect) for part in h.split(CHUNK)])


def _proper(q: Tensor) -> Tensor:
    """Orthogonal matrices with the last column turned about where the determinant is −1."""
    sign = torch.linalg.det(q).sign()
    return torch.cat([q[..., :-1], q[..., -1:] * sign[:, None, None]], -1)


def _decompose(h: Tensor, reflect: bool) -> Tensor:
    """By singular values, NumPy's on a CPU, which take half the time where matrices are few; not a number stays so."""
    m: Any = h.numpy() if h.device.type == "cpu" else h
    xp: Any = _arithmetic(m)[0]
    try:
        u, s, v = xp.linalg.svd(m)
    except (np.linalg.LinAlgError, RuntimeError):  # torch's own is one
        finite = torch.isfinite(h).all(-1).all(-1)
        if finite.all():
            raise
        r = torch.full_like(h, math.nan)
        r[finite] = _decompose(h[finite], reflect)
        return r
    r = u @ v
    if not reflect:
        mirrored = xp.linalg.det(r) < 0
        if mirrored.any():
            r = r - 2.0 * mirrored[:, None, None] * (u[..., -1:] * v[..., -1:, :])
    r, zero = torch.as_tensor(r), s[:, 0] == 0
    if zero.any():
        r[torch.as_tensor(zero)] = torch.eye(h.shape[-1], dtype=h.dtype, device=h.device)
    return r


# -- the plane ---------------------------------------------------------------------------------------------


def _turn(h: Tensor, reflect: bool) -> Tensor:
    """The rotation by atan2(h10 − h01, h00 + h11), by its cosine and sine."""
    flipped = _flipped(h) if reflect else h
    a, b = _halves(flipped)
    length = torch.hypot(a, b)
    cos, sin = torch.where(length > 0, a / length, 1.0), torch.where(length > 0, b / length, 0.0)
    r = torch.stack([cos, -sin, sin, cos], -1).reshape(h.shape)
    return torch.where((flipped != h).any(-1)[..., None], r * torch.tensor([1.0, -1.0]).to(r), r)


def _halves(h: Tensor) -> tuple[Tensor, Tensor]:
    return h[:, 0, 0] + h[:, 1, 1], h[:, 1, 0] - h[:, 0, 1]


def _flipped(h: Tensor) -> Tensor:
    """h with its last column turned about where its determinant is negative."""
    sign = torch.where(h[:, 0, 0] * h[:, 1, 1] < h[:, 0, 1] * h[:, 1, 0], -1.0, 1.0)
    return torch.stack([h[..., 0], h[..., 1] * sign[:, None]], -1)


# -- space, with the matrices along the last axis, (3, 3, B), along which arithmetic is fast: NumPy's on a CPU, where a
# small step takes a fifth of torch's time, and torch's elsewhere ------------------------------------------


def _stacked(h: Tensor) -> Any:
    h = h.permute(1, 2, 0)
    return np.ascontiguousarray(h.numpy()) if h.device.type == "cpu" else h.contiguous()


def _arithmetic(h: Any) -> tuple[Any, Callable[[Any, float], Any]]:
    """The module of an array, and its quickest maximum of an array and a number."""
    return (np, np.maximum) if isinstance(h, np.ndarray) else (torch, torch.clamp)


def _largest(h: Any, reflect: bool) -> tuple[Any, ...]:
    """λ/|h| of h (3, 3, B); then |h|, sign, sign·h/|h|, its cofactors, det and s2 + s3; sign −1 is a reflection."""
    xp, least = _arithmetic(h)
    norm = xp.sqrt(xp.einsum("ijb,ijb->b", h, h))
    h = h / least(norm, 1e-300)
    again = h[ROUND[:, None], ROUND]  # rows and columns go on after the third with the first
    cof = again[1:4, 1:4] * again[2:5, 2:5] - again[1:4, 2:5] * again[2:5, 1:4]
    det = xp.einsum("jb,jb->b", h[0], cof[0])
    sign = xp.where(det < 0, -1.0, 1.0) if reflect else 1.0
    h, det = h * sign, det * sign  # the cofactors are quadratic
    c = xp.einsum("ijb,ijb->b", cof, cof)
    p = xp.sqrt(least(1 - 3 * c, 1e-200))  # HᵀH has the eigenvalues (1 + 2 p cos(φ + 2πk/3))/3
    angle = xp.arccos(xp.clip((2 - 9 * c + 27 * det * det) / (2 * p * p * p), -1, 1)) / 3
    square = (1 + 2 * p * xp.cos(angle)) / 3
    s1 = xp.sqrt(square)
    rest = xp.sqrt(least(1 - square + 2 * det / s1, 0.0))
    q, most = s1 + rest, rest / 8  # the next root is 2 (s2 + s3) away
    for _ in range(2):
        a = q * q - 1
        step = (a * a - 8 * det * q - 4 * c) / least(4 * (a * q - 2 * det), 1e-12)
        q = q - xp.clip(step, -most, most)
    return q, norm, sign, h, cof, det, rest


def _closed(h: Tensor, reflect: bool) -> Tensor:
    q, norm, sign, unit, cof, det, rest = _largest(_stacked(h), reflect)
    xp, least = _arithmetic(unit)
    kappa = (q * q - 1) / 2
    gram = xp.einsum("ikb,jkb->ijb", unit, unit)
    cube = xp.einsum("ijb,jkb->ikb", gram, unit)
    r = ((kappa + 1) * unit + q * cof - cube) / least(kappa * q - det, 1e-12)
    gram = xp.einsum("kib,kjb->ijb", r, r)  # RᵀR, 1 but for rounding; a step of Newton and Schulz takes that out
    r = (1.5 * r - 0.5 * xp.einsum("ijb,jkb->ikb", r, gram)) * sign
    r = torch.as_tensor(r).permute(2, 0, 1)
    unclear = (rest < UNCLEAR) & (norm < math.inf)
    if unclear.any():
        unclear = torch.as_tensor(unclear)
        r = r.contiguous()
        r[unclear] = _decompose(h[unclear], reflect)
    return r


def _value(h: Tensor, reflect: bool) -> Tensor:
    q, norm, _, _, _, _, rest = _largest(_stacked(h), reflect)
    value, unclear = torch.as_tensor(q * norm), (rest < UNCLEAR) & (norm < math.inf)
    if unclear.any():
        unclear = torch.as_tensor(unclear)
        value[unclear] = (_decompose(h[unclear], reflect) * h[unclear]).sum((-2, -1))
    return value
