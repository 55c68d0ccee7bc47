"""Superposition of clouds of points whose points correspond: the rigid motion that brings one nearest to another.

    min over R, det R = +1, and t of  Σ_i w_i |R x_i + t − y_i|²

The best t maps centre on centre, and R is the rotation nearest to H = Σ w (y − c_y)(x − c_x)ᵀ (Kabsch 1976), see
`scifm.geometry.rotation`.  **x is what moves**: with points in rows, x @ R.mT lies on y.

R is detached.  For `rmsd` that loses nothing: at the optimum the derivative along R is zero, so the gradient is exact
wherever the distance is not zero.  `align` is, to its gradient, a rigid motion that is held fixed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from scifm.geometry.centre import centre, centred, check_cloud
from scifm.geometry.rotation import nearest_rotation

__all__ = ["align", "covariance", "kabsch", "rmsd"]


def covariance(x: Tensor, y: Tensor, weights: Tensor | None = None) -> Tensor:
    """H = Σ_i w_i y_i x_iᵀ, (..., d, d), about the origin: center first if you mean about the centres."""
    if weights is not None:
        y = y * weights.to(y)[..., None]
    return y.mT @ x


def kabsch(
    x: Tensor, y: Tensor, weights: Tensor | None = None, *, about_centre: bool = True, reflect: bool = False
) -> Tensor:
    """The rotation that turns the points x onto the points y: minimises Σ w |R x − y|², det R = +1.

    Planar, linear, coincident and mirrored clouds, single points and empty clouds included; where several rotations are
    as good, one of them.

    Args:
        x: (..., n, d) points that are turned.
        y: (..., n, d) points that stay, in the order of x; leading axes broadcast.
        weights: (..., n), not negative; all equal if None; 0 leaves a point out.
        about_centre: move both centres to the origin first. False turns about the origin.
        reflect: allow reflections, det R = ±1.

    Returns:
        R (..., d, d), without gradient; `x @ R.mT` are the turned points.

    Raises:
        ValueError: where the clouds differ in number or dimension of their points.

    Example:
        >>> x = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
        >>> y = torch.tensor([[5.0, 0.0], [5.0, 1.0]])
        >>> kabsch(x, y)
        tensor([[ 0., -1.],
                [ 1.,  0.]])
    """
    _check("kabsch", x, y, weights)
    x, y = x.detach(), y.detach()
    if x.dtype not in (torch.float32, torch.float64):
        r = kabsch(x.float(), y.float(), weights, about_centre=about_centre, reflect=reflect)
        return r.to(x.dtype)
    if about_centre:
        x, y = centred(x, weights), centred(y, weights)
    return nearest_rotation(covariance(x, y, weights), reflect)


def align(x: Tensor, y: Tensor, weights: Tensor | None = None, *, reflect: bool = False) -> Tensor:
    """x (..., n, d) moved rigidly onto y: turned by `kabsch`, and centre upon centre.

    Gradients pass through x and the centres, not through the rotation.

    Example:
        >>> align(torch.tensor([[0.0, 0.0], [1.0, 0.0]]), torch.tensor([[5.0, 0.0], [5.0, 1.0]]))
        tensor([[5., 0.],
                [5., 1.]])
    """
    r = kabsch(x, y, weights, reflect=reflect)
    return centred(x, weights) @ r.mT + centre(y, weights)


def rmsd(x: Tensor, y: Tensor, weights: Tensor | None = None, *, aligned: bool = True, reflect: bool = False) -> Tensor:
    """Root of the weighted mean of |x − y|², (...), in the unit of x; after alignment unless `aligned` is False.

    Example:
        >>> rmsd(torch.tensor([[0.0, 0.0], [1.0, 0.0]]), torch.tensor([[5.0, 0.0], [5.0, 3.0]]))
        tensor(1.)
    """
    _check("rmsd", x, y, weights)
    apart = (align(x, y, weights, reflect=reflect) if aligned else x) - y
    square = apart.square().sum(-1)
    if weights is None:
        return (square.sum(-1) / max(1, square.shape[-1])).sqrt()
    weights = weights.to(square)
    total = weights.sum(-1)
    return ((weights * square).sum(-1) / torch.where(total > 0, total, 1.0)).sqrt()


def _check(who: str, x: Tensor, y: Tensor, weights: Tensor | None) -> None:
    check_cloud(who, x, weights)
    check_cloud(who, y)
    if x.shape[-2:] != y.shape[-2:]:
        raise ValueError(
            f"{who}: expected clouds of the same points, (..., n, d) each, got {tuple(x.shape)} and {tuple(y.shape)}; "
            "points that do not correspond need couplings.Aligned."
        )
