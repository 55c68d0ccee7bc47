"""One table of how generated structures compare with data: every row is a number that a chemist would look at first.

Chains (residues that follow each other, see `scifm.geometry.runs`): neighbour distances, angles of three, torsions of
four in a row, handedness.  Bond graphs (`edge_index`): lengths of the bonds, and angles between two bonds at an atom.
All sets: pair distances and radius of gyration.  Each row is a `Comparison`: the distance from the data, its error, and
what two sets of data would differ by.
"""

from __future__ import annotations

import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.geometry import angles, bond_lengths, by_sample, runs, torsions
from scifm.metrics.chains import radius_of_gyration
from scifm.metrics.distributions import Comparison, compare
from scifm.metrics.handedness import handedness

__all__ = ["bond_angles", "compare_structures", "of_bonds", "of_chains"]


def compare_structures(
    samples: Batch,
    data: Batch,
    generator: torch.Generator | None = None,
    draws: int = 50,
    chain: bool | None = None,
) -> dict[str, Comparison]:
    """Compare sets of points in 2 or 3 dimensions, by the name of what is compared.

    Rows: "radius of gyration" of all; "neighbour distance", "chain angle", "chain torsion" and "handedness" of chains;
    "bond length" and "bond angle" where both have `edge_index`. Angles are in degrees. What does not exist in both
    (torsions in a plane) is left out.

    Args:
        samples, data: sets of points, ragged rows (N, d) or dense events (n, d); they need not be of the same sizes.
        generator, draws: of halves and resamples; see `compare`.
        chain: whether rows that follow each other are neighbours of a chain; if None, where data have
            `nodes["position"]`.

    Example:
        >>> g = torch.Generator().manual_seed(0)
        >>> data = Batch(torch.randn(30, 7, 3, generator=g))
        >>> list(compare_structures(data.replace(2 * data.x), data, g, draws=5))
        ['radius of gyration']
    """
    samples, data = samples.points, data.points
    found = {"radius of gyration": ([*radius_of_gyration(samples)], [*radius_of_gyration(data)], None)}
    if chain or (chain is None and "position" in data.nodes):
        both = of_chains(samples), of_chains(data)
        periods = {"chain torsion": 360.0}
        found |= {k: (both[0][k], both[1][k], periods.get(k)) for k in both[1] if k in both[0]}
    if data.edge_index is not None and samples.edge_index is not None:
        both = of_bonds(samples), of_bonds(data)
        found |= {k: (both[0][k], both[1][k], None) for k in both[1]}
    table = {}
    for name, (x, y, period) in found.items():
        x, y = ([v.reshape(-1)[v.reshape(-1).isfinite()] for v in values] for values in (x, y))
        if sum(len(v) for v in x) and sum(len(v) for v in y):
            table[name] = compare(x, y, period, generator, draws)
    return table


def of_chains(batch: Batch) -> dict[str, list[Tensor]]:
    """Neighbour distances, angles and torsions (degrees), and handedness of chains: a tensor per sample each."""
    points = batch.points
    two, three, four = (runs(points, k) for k in (2, 3, 4))
    found = {"neighbour distance": by_sample(points, two, bond_lengths(points.x, two))}
    if points.x.shape[-1] in (2, 3):
        found["chain angle"] = by_sample(points, three, torch.rad2deg(angles(points.x, three)))
    if points.x.shape[-1] == 3:
        found["chain torsion"] = by_sample(points, four, torch.rad2deg(torsions(points.x, four)))
        found["handedness"] = list(handedness(points))
    return found


def of_bonds(batch: Batch) -> dict[str, list[Tensor]]:
    """Lengths of bonds, each once, and angles (degrees) between two bonds at a point: a tensor per sample each."""
    points = batch.points
    if points.edge_index is None:
        raise ValueError("of_bonds: expected a batch with edge_index, the bonds.")
    bonds = points.edge_index[:, points.edge_index[0] < points.edge_index[1]]
    bonds = bonds[:, bonds[0].argsort(stable=True)]
    found = {"bond length": by_sample(points, bonds, bond_lengths(points.x, bonds))}
    if points.x.shape[-1] in (2, 3):
        three = bond_angles(points.edge_index)
        found["bond angle"] = by_sample(points, three, torch.rad2deg(angles(points.x, three)))
    return found


def bond_angles(edge_index: Tensor) -> Tensor:
    """(3, m) all pairs of bonds that meet at a point, which is the middle row; each angle once.

    Args:
        edge_index: (2, E), both directions of each bond.

    Example:
        >>> bond_angles(torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]))
        tensor([[0],
                [1],
                [2]])
    """
    end, centre = edge_index[:, edge_index[1].argsort(stable=True)]
    degree = torch.bincount(centre) if len(centre) else centre
    each = degree[centre]  # bonds at the centre of each bond
    first = torch.arange(len(centre), device=centre.device).repeat_interleave(each)
    start = (degree.cumsum(0) - degree)[centre].repeat_interleave(each)
    within = torch.arange(len(first), device=first.device) - (each.cumsum(0) - each).repeat_interleave(each)
    second = start + within
    three = torch.stack([end[first], centre[first], end[second]])
    return three[:, three[0] < three[2]]
