"""A network that sees data coordinates in a flow that learns in its prior's metric.

In the metric "prior" a flow moves z = C^-½ (x − m), and its loss weighs small scales as much as large ones.  But
geometry lies in x: bond lengths, contacts and clashes are distances of points in space, not of whitened ones.  So the
network is given x = m + C^½ z, and what it answers, a velocity in space, is whitened:

    v(t, z) = C^-½ w(t, m + C^½ z).

Nothing else changes: flow, loss and likelihood see v.  Traces go in reverse mode.
"""

from __future__ import annotations

from torch import Tensor, nn

from scifm.batch import Batch
from scifm.priors.base import Prior
from scifm.symmetries import symmetries_of

__all__ = ["Unwhitened"]


class Unwhitened(nn.Module):
    """A velocity in data coordinates as a velocity in whitened ones.

    Args:
        velocity: network on x, in model units, whose answers are velocities of x.
        prior: that of the flow, fitted; its whitening must be affine.

    Raises:
        ValueError: for a prior that does not whiten.

    Example:
        >>> from scifm import networks, priors
        >>> x, velocity = torch.randn(2, 5, 3), Unwhitened(networks.EGNN(3, 8), priors.HarmonicChain())
        >>> velocity(torch.rand(2), x - x.mean(1, keepdim=True), Batch(x)).shape
        torch.Size([2, 5, 3])
    """

    def __init__(self, velocity: nn.Module, prior: Prior):
        super().__init__()
        if not prior.whitens:
            who = type(prior).__name__
            raise ValueError(f"Unwhitened: {who} does not whiten, so a flow cannot learn in its metric.")
        self.velocity, self.prior = velocity, prior
        self.symmetries = symmetries_of(velocity) & symmetries_of(prior)

    def forward(self, t: Tensor, x: Tensor, batch: Batch) -> Tensor:
        coloured = self.prior.colour(x, batch)
        velocity = self.prior.project(self.velocity(t, coloured, batch.replace(coloured)), batch)
        # whitening is affine, and a velocity is a difference of points
        return self.prior.whiten(coloured + velocity, batch) - self.prior.project(x, batch)
