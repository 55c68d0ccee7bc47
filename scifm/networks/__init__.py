"""Velocity networks: any `nn.Module` with `forward(t (B,), x, batch) -> like x` will do; these are ours.

    MLP             dense vectors (B, D): tables, two-dimensional toys
    UNet            dense grids (B, C, *grid) in one to three dimensions, periodic, walled or from pole to pole per axis
    FNO             the same by lowest modes: equivariant under every shift along periodic axes
    DiT             the same by attention between patches
    PointNet        sets of points (N, D), permutation equivariant; a dense vector counts as a set of one point
    LeadingModes    one molecule's conformations, few of them: the modes of the largest variance, and nothing else
    SetTransformer  clouds of many points: attention, through inducing points where n² is too much
    EGNN            sets of points in any dimension, equivariant under rotations, reflections and permutations
    PaiNN           the same in space, with vectors beside scalars; cheaper than EGNN for many points; chiral if asked
    TensorProduct   the same with spherical tensors of any degree, by e3nn; chiral if asked
    Residues        chains of residues, by their Cα: neighbours along the chain and in space; chiral unless told not to

Those on grids are told other fields, labels, season and places by `GridConditions`.  The last five look at what does
not flow: labels of points, of samples and of bonds, by `nodes`, `context` and `edges`.
Around them, GaussianSkip adds what is right for Gaussian data, and Unwhitened shows data coordinates to a network in a
flow that learns in the metric of its prior.
`symmetries` of a network says under what it is equivariant; `scifm.testing.check_equivariant` checks that.

None of them lets one sample of a batch see another (no batch norm), so a likelihood never depends on the company
a sample keeps.  All start from a zero head: the untrained velocity is zero everywhere and the untrained flow is
its prior.
"""

from __future__ import annotations

from scifm.networks.dit import DiT
from scifm.networks.egnn import EGNN
from scifm.networks.fno import FNO
from scifm.networks.gaussian_skip import GaussianSkip
from scifm.networks.grid_conditions import GridConditions, coordinates
from scifm.networks.leading_modes import LeadingModes
from scifm.networks.mlp import MLP
from scifm.networks.padding import Pole
from scifm.networks.painn import PaiNN
from scifm.networks.pointnet import PointNet
from scifm.networks.radial import Radial
from scifm.networks.residues import Residues
from scifm.networks.set_transformer import SetTransformer
from scifm.networks.tensor_product import TensorProduct
from scifm.networks.time import SinusoidalTime
from scifm.networks.unet import UNet
from scifm.networks.unwhitened import Unwhitened

__all__ = [
    "DiT",
    "EGNN",
    "FNO",
    "GaussianSkip",
    "GridConditions",
    "LeadingModes",
    "MLP",
    "PaiNN",
    "PointNet",
    "Pole",
    "Radial",
    "Residues",
    "SetTransformer",
    "SinusoidalTime",
    "TensorProduct",
    "UNet",
    "Unwhitened",
    "coordinates",
]
