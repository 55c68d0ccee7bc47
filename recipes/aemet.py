"""Temperature through the year at 73 weather stations: a flow of curves from the Gaussian of their covariance.

Seventy-three curves of 365 days are nearly Gaussian in all but a few directions: two principal components hold 98.8 %
of the variance, and coasts, islands and mountains make them skewed.  So the prior is the full covariance, shrunk to a
periodic spectrum, and the network moves only the few modes of the largest variance; all others stay what the prior
makes of them, where a network on all 365 values would learn the noise of 73 curves by heart.

`benchmarks/aemet.py` runs the protocol of functional flow matching (Kerrigan et al. 2024) with this flow and with
Gaussians in closed form beside it.
"""

from __future__ import annotations

from torch import Tensor, nn

from scifm import Batch, Flow, Objective, Recipe, networks, priors, times
from scifm.data import load_dataset
from scifm.priors import spectra


class Modes(nn.Module):
    """A velocity in the `count` modes of the prior's largest variance; zero in all others.

    It works on whitened coordinates z = C^-½ (x − m), whose coefficients along the modes are cᵢ = ⟨z, eᵢ⟩: of unit
    variance each, and independent if the data were Gaussian.
    """

    symmetries = frozenset()

    def __init__(self, prior: priors.FullGaussian, count: int, width: int):
        super().__init__()
        self.register_buffer("modes", prior.modes[:, -count:].clone())  # variances increase
        self.velocity = networks.MLP(count, hidden=(width, width, width))

    def forward(self, t: Tensor, x: Tensor, batch: Batch) -> Tensor:
        modes = self.modes.to(x)
        c = x.flatten(1) @ modes
        return (self.velocity(t, c, Batch(c)) @ modes.T).reshape(x.shape)


def recipe(
    *,
    held: bool = True,
    modes: int = 5,
    width: int = 64,
    steps: int = 2000,
    batch_size: int = 73,
    learning_rate: float = 3e-3,
):
    """A flow of temperature curves.

    held: keep stations out for validation and test; --no-held trains on all 73, as the published protocol does
    modes: of the covariance, in which the flow differs from its prior
    width: of the network's three layers
    steps: of the optimiser
    batch_size: curves per step
    learning_rate: the largest
    """
    module = load_dataset("aemet")
    data = module.aemet(held=held)
    scale = module.rescaled(data.train)
    smooth = priors.SpectralGaussian((1, 365), periodic=True, spectrum=spectra.PerMode())
    prior = priors.FullGaussian((1, 365), target=smooth).fit(scale(data.train))
    return Recipe(
        Flow(Modes(prior, modes, width), prior, objective=Objective(times=times.stratified), transform=scale),
        data,
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        valid_every=1000,
        checkpoint_every=1000,
    )
