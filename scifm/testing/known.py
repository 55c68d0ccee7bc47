"""A law whose density, flow and velocity are all known: a Gaussian mixture in d dimensions.

With x_t = t x1 + (1 − t) x0, x0 ~ N(0, C_0) and x1 ~ Σ_k π_k N(m_k, C_k), the pair is Gaussian given k:

    x_t | k ~ N(t m_k, S_k),                                         S_k = t² C_k + (1 − t)² C_0,
    E[u | x_t, k] = m_k + (t C_k − (1 − t) C_0) S_k⁻¹ (x_t − t m_k),
    v(t, x) = Σ_k r_k(t, x) E[u | x_t = x, k],                        r_k ∝ π_k N(x; t m_k, S_k).

The flow of this v carries N(0, C_0) exactly into the mixture, so a likelihood that is computed with it can be compared
with the mixture's own.  All covariances share their eigenvectors here, the columns of a rotation.
References: Lipman et al. 2023 for the field as a conditional mean; the rest is Gaussian conditioning.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from scifm.batch import Batch
from scifm.priors import FullGaussian

__all__ = ["KnownMixture"]


class KnownMixture(nn.Module):
    """The mixture, as the velocity network that makes it from its `prior` along the linear path.

    Args:
        means: (K, d), in the rotated coordinates.
        variances: (K, d) of the components there.
        prior_variance: (d,) there.
        rotation: (d, d) orthogonal; from rotated to the data's coordinates.
        event: shape of a sample, d numbers; (d,) if None.
    """

    def __init__(
        self,
        means: Tensor,
        variances: Tensor,
        prior_variance: Tensor,
        rotation: Tensor,
        event: tuple[int, ...] | None = None,
    ):
        super().__init__()
        d = means.shape[1]
        self.event = (d,) if event is None else event
        if variances.shape != means.shape or prior_variance.shape != (d,) or math.prod(self.event) != d:
            raise ValueError(
                "KnownMixture: expected means and variances (K, d), prior_variance (d,) and an event of d numbers, "
                f"got {tuple(means.shape)}, {tuple(variances.shape)}, {tuple(prior_variance.shape)}, {self.event}."
            )
        self.means: Tensor
        self.variances: Tensor
        self.base: Tensor
        self.rotation: Tensor
        for name, value in (("means", means), ("variances", variances), ("base", prior_variance)):
            self.register_buffer(name, value.double())
        self.register_buffer("rotation", rotation.double())

    @property
    def prior(self) -> FullGaussian:
        """N(0, C_0), in the data's coordinates."""
        return FullGaussian(self.event, covariance=self.rotation * self.base @ self.rotation.T)

    def forward(self, t: Tensor, x: Tensor, batch: Batch) -> Tensor:
        """The velocity: t (B,), x (B, *event) -> like x."""
        y = x.reshape(len(x), -1) @ self.rotation.to(x)
        means, variances, base = (v.to(x) for v in (self.means, self.variances, self.base))
        s = t.to(x)[:, None, None]  # (B, 1, 1) beside (K, d)
        spread = s.square() * variances + (1 - s).square() * base
        away = y[:, None] - s * means
        share = (-0.5 * (away.square() / spread + spread.log()).sum(2)).softmax(1)
        slope = means + (s * variances - (1 - s) * base) / spread * away
        return ((share[:, :, None] * slope).sum(1) @ self.rotation.to(x).T).reshape(x.shape)

    def sample(self, number: int, generator: torch.Generator) -> Tensor:
        """Data (number, *event), float64."""
        k = torch.randint(len(self.means), (number,), generator=generator)
        noise = torch.randn(number, self.means.shape[1], generator=generator, dtype=torch.float64)
        y = self.means[k] + self.variances[k].sqrt() * noise
        return (y @ self.rotation.T).reshape(number, *self.event)

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density of data in nats, (B,)."""
        y = x.reshape(len(x), -1).double() @ self.rotation
        away = (y[:, None] - self.means).square() / self.variances + (2 * math.pi * self.variances).log()
        return (-0.5 * away.sum(2)).logsumexp(1) - math.log(len(self.means))

    def bits(self, number: int, generator: torch.Generator) -> float:
        """Expected bits per dimension of data, by Monte Carlo."""
        log_prob = torch.cat([self.log_prob(self.sample(10_000, generator)) for _ in range(max(1, number // 10_000))])
        return -float(log_prob.mean()) / (self.means.shape[1] * math.log(2))

    @staticmethod
    def plane() -> KnownMixture:
        """Three unequal clusters in the plane, white prior."""
        means = torch.tensor([[2.0, 0.0], [-1.0, 1.5], [-0.5, -2.0]])
        variances = torch.tensor([[0.1, 0.4], [0.3, 0.1], [0.2, 0.2]])
        angle = torch.tensor(0.5, dtype=torch.float64)
        rotation = torch.stack([torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])])
        return KnownMixture(means, variances, torch.ones(2), rotation)

    @staticmethod
    def coloured(event: tuple[int, ...] = (1, 8, 8), components: int = 4) -> KnownMixture:
        """Clusters with decaying spectra in a random rotation, and a coloured prior."""
        g = torch.Generator().manual_seed(0)
        d = math.prod(event)
        decay = torch.arange(1, d + 1, dtype=torch.float64) ** -0.5
        rotation, _ = torch.linalg.qr(torch.randn(d, d, generator=g, dtype=torch.float64))
        means = torch.randn(components, d, generator=g, dtype=torch.float64) * decay
        width = 0.5 + 0.8 * torch.rand(components, 1, generator=g, dtype=torch.float64)
        return KnownMixture(means, (width * decay).square(), (1.5 * decay).square(), rotation, event)
