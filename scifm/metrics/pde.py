"""Do fields obey their equation, and by how much do predictions miss a solution?

Residual of Darcy's law on a unit square, −∇·(a ∇u) = f, by finite volumes around the inner points,

    r = −(1/h²) Σ over 4 neighbours n of a_n (u_n − u),      a_n = 2 a a' / (a + a')  the harmonic mean at the face

which is what a flux through two half cells in a row sees; second order where a is smooth (Patankar 1980).  On data that
were solved on a finer grid and thinned, faces at a jump of a are not where they were: the residual of the *data* is the
floor to read samples against, not zero.  `neuraloperator`'s Darcy sets obey a = 18 where x is true, 1 where it is not,
and f = 50, up to a factor of both, with u = 0 at the edge and h = 1/n.  Over all inner points they leave a root mean
square of 1.1 f (16 x 16) to 1.5 f (32 x 32); where x is the same at all four neighbours 0.25 and 0.19 f, in the median
2 and 1 %.

Errors of predictions u of solutions v, as PDEBench names them (Takamoto et al. 2022), of fields (B, *grid):

    cRMSE   ( mean over fields of (mean u − mean v)² )^½                 what should be conserved
    bRMSE   mean over fields of ( mean over faces of (u − v)² )^½          a corner is of two faces
    fRMSE   mean over shells of ( mean over fields of Σ |F(u − v)|² )^½ / N     shells ⌊|k|⌋ in 0–3, 4–11, 12 and more

    VRMSE   ( mean (u − v)² / (mean (v − mean v)² + ε) )^½,  ε = 1e-7     of each field (Ohana et al. 2024)

PDEBench's sums over a shell run over the quadrant of positive wavenumbers below Nyquist, in one dimension up to it.
That is kept, so that numbers compare.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["boundary_rmse", "conserved_rmse", "darcy_residual", "fourier_rmse", "residual_norm", "vrmse"]


def darcy_residual(a: Tensor, u: Tensor, spacing: float | None = None) -> Tensor:
    """−∇·(a ∇u) at the inner points of a square grid; subtract f for the residual.

    Args:
        a: (..., H, W) permeability, positive.
        u: (..., H, W) pressure.
        spacing: h between points; by default 1/W, as where only one of two edges has points. With points on both
            edges of a unit square it is 1/(W − 1).

    Returns:
        (..., H − 2, W − 2).

    Raises:
        ValueError: for shapes that do not fit, or a permeability that is not positive.

    Example:
        >>> s = torch.linspace(0, 1, 9, dtype=torch.float64)
        >>> u = 0.5 * s * (1 - s)
        >>> darcy_residual(torch.ones(9, 9, dtype=torch.float64), u.expand(9, 9), 1 / 8)[0, :3]
        tensor([1., 1., 1.], dtype=torch.float64)
    """
    if a.shape != u.shape or a.ndim < 2 or min(a.shape[-2:]) < 3:
        raise ValueError(
            f"darcy_residual: expected a and u (..., H, W) from 3 x 3, got {tuple(a.shape)}, {tuple(u.shape)}."
        )
    if not bool((a > 0).all()):
        raise ValueError(
            f"darcy_residual: expected a positive permeability, got {float(a.min()):g}; a flag of two materials is "
            "none, give their values, such as torch.where(x, 18.0, 1.0)."
        )
    h = 1 / a.shape[-1] if spacing is None else spacing
    total = torch.zeros_like(u[..., 1:-1, 1:-1])
    for axis in (-2, -1):
        n = a.shape[axis]
        left, right = a.narrow(axis, 0, n - 1), a.narrow(axis, 1, n - 1)
        flux = 2 * left * right / (left + right) * u.diff(dim=axis)
        across = -1 if axis == -2 else -2
        total = total - flux.diff(dim=axis).narrow(across, 1, a.shape[across] - 2)
    return total / h**2


def residual_norm(residual: Tensor, scale: float = 1.0, keep: Tensor | None = None) -> Tensor:
    """Root mean square of each field's residual (..., H, W) over a scale, such as the source f: (...).

    Args:
        keep: broadcasts to the residual, true where it counts; away from jumps of a coefficient, say.

    Example:
        >>> residual_norm(torch.tensor([[3.0, -4.0], [0.0, 0.0]]), scale=5.0)
        tensor(0.5000)
    """
    if residual.ndim < 2 or scale <= 0:
        raise ValueError(
            f"residual_norm: expected (..., H, W) and a positive scale, got {tuple(residual.shape)}, {scale}."
        )
    count = torch.ones_like(residual) if keep is None else keep.to(residual).expand_as(residual)
    squares = torch.where(count > 0, residual, 0.0).square()
    return (squares.sum((-2, -1)) / count.sum((-2, -1))).sqrt() / scale


def conserved_rmse(u: Tensor, v: Tensor) -> Tensor:
    """cRMSE of fields (B, *grid), a number: how far integrals are off.

    Example:
        >>> conserved_rmse(torch.ones(2, 4), torch.zeros(2, 4))
        tensor(1.)
    """
    return _gap("conserved_rmse", u, v).flatten(1).mean(1).square().mean().sqrt()


def boundary_rmse(u: Tensor, v: Tensor) -> Tensor:
    """bRMSE of fields (B, *grid), a number: how far values at the edges are off.

    Example:
        >>> boundary_rmse(torch.tensor([[2.0, 9.0, 0.0]]), torch.zeros(1, 3))
        tensor(1.4142)
    """
    squares = _gap("boundary_rmse", u, v).square()
    faces = [squares.select(axis, end).reshape(len(u), -1) for axis in range(1, u.ndim) for end in (0, -1)]
    return torch.cat(faces, 1).mean(1).sqrt().mean()


def fourier_rmse(u: Tensor, v: Tensor, edges: tuple[int, int] = (4, 12)) -> tuple[Tensor, Tensor, Tensor]:
    """fRMSE of fields (B, *grid): of low, middle and high wavenumbers, on a domain of size 1.

    A band that the grid does not reach is NaN.

    Example:
        >>> wave = torch.cos(torch.arange(32) * 2 * torch.pi / 32 * 5)[None]
        >>> [round(float(e), 4) for e in fourier_rmse(wave, torch.zeros(1, 32))]
        [0.0, 0.0625, 0.0]
    """
    gap = _gap("fourier_rmse", u, v)
    halves = [n // 2 + (u.ndim == 2) for n in u.shape[1:]]
    power = torch.fft.fftn(gap, dim=tuple(range(1, u.ndim))).abs().square()
    distance = torch.zeros((), dtype=torch.float64, device=u.device)
    for axis, half in enumerate(halves):
        power = power.narrow(axis + 1, 0, half)
        k = torch.arange(half, dtype=torch.float64, device=u.device).square()
        distance = distance + k.reshape(-1, *[1] * (len(halves) - axis - 1))
    shell = distance.sqrt().floor().long().flatten()
    inside = shell < min(halves)
    total = torch.zeros(len(u), min(halves), dtype=power.dtype, device=u.device)
    total.index_add_(1, shell[inside], power.flatten(1)[:, inside])
    each = total.mean(0).sqrt() / gap[0].numel()
    low, high = edges
    return each[:low].mean(), each[low:high].mean(), each[high:].mean()


def vrmse(u: Tensor, v: Tensor) -> Tensor:
    """VRMSE of each field (B, *grid): (B,). The field's own mean as a prediction scores 1.

    Example:
        >>> vrmse(torch.full((1, 3), 2.0), torch.tensor([[1.0, 2.0, 3.0]]))
        tensor([1.0000])
    """
    squares, spread = _gap("vrmse", u, v).flatten(1).square().mean(1), v.flatten(1).var(1, correction=0)
    return (squares / (spread + 1e-7)).sqrt()


def _gap(who: str, u: Tensor, v: Tensor) -> Tensor:
    if u.shape != v.shape or u.ndim < 2 or not u.numel():
        raise ValueError(f"{who}: expected u and v (B, *grid) of one shape, got {tuple(u.shape)} and {tuple(v.shape)}.")
    return u - v
