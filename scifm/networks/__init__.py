"""Velocity networks: any `nn.Module` with `forward(t (B,), x, batch) -> like x` will do; these are ours.

    MLP       dense vectors (B, D): tables, two-dimensional toys
    UNet      dense grids (B, C, *grid) in one to three dimensions, periodic or walled per axis
    PointNet  sets of points (N, D), permutation equivariant; a dense vector counts as a set of one point
    EGNN      sets of points in space, equivariant under rotations, reflections and permutations

None of them lets one sample of a batch see another (no batch norm), so a likelihood never depends on the company
a sample keeps.  All start from a zero head: the untrained velocity is zero everywhere and the untrained flow is
its prior.
"""

from __future__ import annotations

from scifm.networks.chain import ChainNet
from scifm.networks.egnn import EGNN
from scifm.networks.gaussian_skip import GaussianSkip
from scifm.networks.mlp import MLP
from scifm.networks.pointnet import PointNet
from scifm.networks.time import SinusoidalTime
from scifm.networks.unet import UNet
from scifm.networks.unwhitened import Unwhitened

__all__ = ["EGNN", "MLP", "ChainNet", "GaussianSkip", "PointNet", "SinusoidalTime", "UNet", "Unwhitened"]
