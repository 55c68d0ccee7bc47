"""Sets of points bound by a graph: molecules with their bonds.

The modes are those of the graph's Laplacian L (`scifm.priors.modes`), which each sample has from its own
`edge_index`.  Springs on the bonds give S = 1/aλ, that is p(x) ∝ exp(−½ a Σ_bonds w |x_i − x_j|²).  Bonds are stiffer
than that, and a molecule stretches less far than a Gaussian chain, so real ones have steeper laws: on alanine
dipeptide S ~ λ^−3.1.

A graph of several pieces, a salt say, has as many zero modes, and a density only if something holds the pieces
together: `weak`, a spring from every point to the centre, which adds to every λ.  References: Jing et al. 2023; Stärk
et al. 2024 (harmonic priors).
"""

from __future__ import annotations

from scifm.batch import Batch
from scifm.priors.laplacians import bond_laplacians
from scifm.priors.modes import Modes, laplacian_modes
from scifm.priors.points import SpectralPoints
from scifm.priors.variances import Harmonic, PerMode, PowerLaw, VarianceLaw

__all__ = ["HarmonicGraph", "SpectralGraph"]


class HarmonicGraph(SpectralPoints):
    """Springs on bonds, centred; ragged batches with `edge_index`, a bond once or in both directions.

    Args:
        spring: a, in model units to the power −2.
        stiffness: name in edges of a positive number w per bond, or None: all alike.
        weak: added to all eigenvalues of the Laplacian; positive where graphs may fall into pieces.

    Example:
        >>> ring = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]])
        >>> like = Batch(torch.zeros(4, 3), torch.zeros(4, dtype=torch.long), 1, edge_index=ring)
        >>> HarmonicGraph(2.0).log_prob(like.x, like)
        tensor([-0.9924])
    """

    symmetries = SpectralPoints.symmetries | {"automorphism"}

    def __init__(self, spring: float = 1.0, stiffness: str | None = None, weak: float = 0.0):
        super().__init__(Harmonic(spring))
        self.stiffness, self.weak = stiffness, _checked("HarmonicGraph", weak)

    def modes(self, points: Batch) -> Modes:
        return _modes("HarmonicGraph", points, self.stiffness, self.weak)

    def fit(self, batch: Batch) -> HarmonicGraph:
        """The most likely spring constant."""
        self._learn(batch)
        return self


class SpectralGraph(SpectralPoints):
    """Modes of the graph of bonds with the variance that a law says, a power law unless another is given.

    Args:
        law: one of `scifm.priors.variances`, in model units; `PerMode(n)` for conformations of one molecule.
        stiffness, weak: as for `HarmonicGraph`.
    """

    def __init__(self, law: VarianceLaw = PowerLaw(), stiffness: str | None = None, weak: float = 0.0):
        super().__init__(law)
        if not isinstance(law, PerMode):  # modes of one eigenvalue, which an exchange of twins mixes, have one variance
            self.symmetries = self.symmetries | {"automorphism"}
        self.stiffness, self.weak = stiffness, _checked("SpectralGraph", weak)

    def modes(self, points: Batch) -> Modes:
        return _modes("SpectralGraph", points, self.stiffness, self.weak)

    def fit(self, batch: Batch) -> SpectralGraph:
        """The most likely numbers of the law."""
        self._learn(batch)
        return self


def _checked(who: str, weak: float) -> float:
    if not 0 <= weak < float("inf"):
        raise ValueError(f"{who}: weak must be zero or positive, got {weak}.")
    return float(weak)


def _modes(who: str, points: Batch, stiffness: str | None, weak: float) -> Modes:
    return points.keep(
        ("graph modes", stiffness, weak, points.x.dtype),
        lambda: laplacian_modes(who, points, bond_laplacians(who, points, stiffness), weak),
    )
