"""Polymers: points in a row, each bound to the next.

The modes of a chain of equal links are cosines along it (Rouse 1953), λ_k = 4 sin²(πk/2n), and the law of the modes
decides what polymer it is.  Springs give S = 1/aλ, an ideal chain: links of mean square length d/a and a squared
radius of gyration (n² − 1)d/6na.  A power law S = A λ^−b has stiff (b > 1) or crumpled (b < 1) ones; for Cα atoms of
proteins the most likely b is 1.27.

One sample is one chain, unless told otherwise: `chain` names a label in nodes, and where it changes from one row to
the next the link is `between` times as stiff; `position` names their numbers along the chain, and a jump by m is m
links in series. Padding and cropping have no part in it: each length has its own modes.

In single precision a log-density is within 5e-7 of its size: 0.002 of 13,000 nats for a chain of 2,000 points, 1e-5 of
120 for one of 20. Differences between long chains that matter below that want float64.

References: Rouse 1953; Jing et al. 2023 (EigenFold) and Jing, Berger and Jaakkola 2024 (AlphaFlow), for harmonic
priors.
"""

from __future__ import annotations

from scifm.batch import Batch
from scifm.priors.laplacians import link_laplacians
from scifm.priors.modes import Modes, laplacian_modes, path_modes
from scifm.priors.points import SpectralPoints
from scifm.priors.variances import Harmonic, PowerLaw, VarianceLaw

__all__ = ["HarmonicChain", "SpectralChain"]


class HarmonicChain(SpectralPoints):
    """Springs between neighbours: p(x) ∝ exp(−½ a Σ_i w_i |x_(i+1) − x_i|²), centred.

    Args:
        spring: a, in model units to the power −2; the default has links of 3.8, as Cα atoms in Angstrom.
        chain: name in nodes of the number of the chain within its sample, or None: a sample is one chain.
        position: name in nodes of whole numbers along the chain, or None: no gaps.
        between: w of the link from one chain to the next; 1 within a chain, 1/m over a jump by m.

    Example:
        >>> like = Batch(torch.zeros(5, 3), torch.tensor([0, 0, 0, 1, 1]), 2)
        >>> HarmonicChain().log_prob(like.x, like)
        tensor([-8.5799, -4.0742])
    """

    def __init__(
        self,
        spring: float = 3 / 3.8**2,
        chain: str | None = None,
        position: str | None = None,
        between: float = 0.01,
    ):
        super().__init__(Harmonic(spring))
        self.chain, self.position, self.between = _checked("HarmonicChain", chain, position, between)
        self.conditional = tuple(name for name in (chain, position) if name is not None)

    def modes(self, points: Batch) -> Modes:
        return _modes("HarmonicChain", points, self.chain, self.position, self.between)

    def fit(self, batch: Batch) -> HarmonicChain:
        """The most likely spring constant."""
        self._learn(batch)
        return self


class SpectralChain(SpectralPoints):
    """A chain whose modes have the variance that a law says, a power law unless another is given.

    Args:
        law: one of `scifm.priors.variances`, in model units.
        chain, position, between: as for `HarmonicChain`.

    Example:
        >>> x = HarmonicChain(0.5).sample(Batch(torch.zeros(300, 20, 3)), torch.Generator().manual_seed(0))
        >>> SpectralChain().fit(Batch(x)).numbers
        {'log_scale': 0.7..., 'slope': 1.0...}
    """

    def __init__(
        self,
        law: VarianceLaw = PowerLaw(),
        chain: str | None = None,
        position: str | None = None,
        between: float = 0.01,
    ):
        super().__init__(law)
        self.chain, self.position, self.between = _checked("SpectralChain", chain, position, between)
        self.conditional = tuple(name for name in (chain, position) if name is not None)

    def modes(self, points: Batch) -> Modes:
        return _modes("SpectralChain", points, self.chain, self.position, self.between)

    def fit(self, batch: Batch) -> SpectralChain:
        """The most likely numbers of the law."""
        self._learn(batch)
        return self


def _checked(who: str, chain: str | None, position: str | None, between: float) -> tuple[str | None, str | None, float]:
    if not 0 < between < float("inf"):
        raise ValueError(
            f"{who}: between must be positive, got {between}: pieces that nothing holds together have no density."
        )
    return chain, position, float(between)


def _modes(who: str, points: Batch, chain: str | None, position: str | None, between: float) -> Modes:
    if chain is None and position is None:
        return path_modes(points)

    def make() -> Modes:
        laplacians = link_laplacians(who, points, chain, position, between)
        return path_modes(points) if laplacians is None else laplacian_modes(who, points, laplacians)

    return points.keep(("chain modes", chain, position, between, points.x.dtype), make)
