"""Tables of sets of points, samples beside data, for `scifm report`: what the figures show, in numbers.

    energies known          energy, pair distances, radius of gyration     `metrics.compare`
    chains, bonds           what `metrics.compare_structures` measures
    elements in space       shares of valid molecules                       `metrics.validity`
    all else                MMD, coverage, 1-NNA                            `metrics.cloud_scores`

Samples stand beside those of the test split that they have sizes and conditions from, so a difference is none of
composition; where nothing tells test samples apart, beside as many from the whole split, since neighbours in a file,
such as frames of a trajectory, are alike.  As many training samples are measured in the same way, since what they
differ by no flow needs to beat.
The work is bounded, by the numbers in capitals below, and each caption says how many samples went in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.data.source import Data
from scifm.data.stored import some
from scifm.energies import Energy
from scifm.geometry import alpha_carbons
from scifm.metrics import (
    Comparison,
    bonds_recovered,
    cloud_scores,
    compare,
    compare_structures,
    pair_distances,
    validity,
)

__all__ = ["Table", "are_points", "beside", "clouds", "fitting", "molecules", "particles", "structures"]

SAMPLES, CLOUDS = 300, 100  # at most so many, of clouds fewer: each is held against each
POINTS = 20_000  # of all samples of a side together
PAIRS = 50_000  # of points, of all samples of a side together
DRAWS = 20  # resamples for an error
EACH = 512  # points of a cloud; of a larger one as many are taken at random
DISTANCES = 200_000_000  # between points of clouds, of all pairs of clouds together


@dataclass(frozen=True)
class Table:
    """A table; `str` gives it as Markdown, the caption above it.

    Attributes:
        caption: what went in and what the columns are.
        header: names of the columns, the first of which is text and the others numbers.
        rows: cells, as many as there are columns.
    """

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def __str__(self) -> str:
        line = "|---|" + "--:|" * (len(self.header) - 1)
        return "\n".join([self.caption, "", _line(self.header), line, *map(_line, self.rows)])


def fitting(samples: Batch, data: Data) -> dict[str, Callable[[], Table]]:
    """The tables that fit a data set, by name, each made when it is called; none for what is no set of points.

    Args:
        samples: of a flow of the data, in their units; sample k has size and conditions of the k-th of the test split.
        data: with its test split, training split, unit and energy.
    """
    test, unit = data.test, data.unit
    if not are_points(test) or samples.points.event != test.points.event:
        return {}
    number = min(len(samples), len(test))
    three = samples.select(range(number)), beside(test, number), _evenly(some(data.train), number)
    nodes, bonded = test.points.nodes, test.points.edge_index is not None
    found: dict[str, Callable[[], Table]] = {}
    if data.energy is not None:
        found["the table of energies"] = partial(particles, *three, data.energy, unit)
    if bonded or "position" in nodes:
        found["the table of structures"] = partial(structures, *three, unit)
    if "z" in nodes and test.event == (3,):
        found["the table of molecules"] = partial(molecules, *three)
    return found or {"the table of clouds": partial(clouds, *three, unit)}


def are_points(data: Batch) -> bool:
    """Whether samples are sets of points in the plane or in space: ragged rows (d,), dense events (n, d)."""
    return data.event[-1:] in ((2,), (3,)) and len(data.event) == (2 if data.dense else 1)


def beside(test: Batch, number: int) -> Batch:
    """The test samples that the first `number` samples of a flow are held against.

    Args:
        test: a test split, whose k-th sample gave the k-th of the flow its size and conditions.
        number: at most so many, all of the split if it has fewer.

    Returns:
        the first ones; where all have one size and the same conditions, as many evenly spaced over the split.
    """
    if len(test.groups()) < 2:
        return _evenly(test, number)
    return test.select(range(min(number, len(test))))


def particles(samples: Batch, data: Batch, train: Batch, energy: Energy, unit: str = "") -> Table:
    """Energies in kT, pair distances and radius of gyration of samples beside data.

    Args:
        samples, data: sets of points, the k-th of both with the same size and conditions.
        train: training data, for how far two sets of data are apart.
        energy: that the data follow.
        unit: of the coordinates.
    """
    counts = data.points.counts.double()
    number = _fitting(counts * (counts - 1) / 2, PAIRS, SAMPLES)
    samples, data, train = _three(samples, data, train, number)
    energies, pairs = ([of(b) for b in (samples, data, train)] for of in (partial(_energies, energy), _pairs))
    both: list[dict[str, Comparison]] = []
    for k, draws in ((0, DRAWS), (2, 0)):
        g = torch.Generator().manual_seed(0)
        found = {"energy": compare(energies[k], energies[1], None, g, draws)}
        if pairs[k] and pairs[1]:
            found["pair distance"] = compare(pairs[k], pairs[1], None, g, draws)
        both.append(found | compare_structures((samples, data, train)[k], data, g, draws, chain=False))
    return _comparisons(both[0], both[1], number, {"energy": "kT"}, unit)


def structures(samples: Batch, data: Batch, train: Batch, unit: str = "") -> Table:
    """Chains and bonds of samples beside data, a row per number that `metrics.compare_structures` knows.

    Args:
        samples, data, train, unit: as for `particles`; of whole backbones the Cα atoms are looked at.
    """
    samples, data, train = (alpha_carbons(b) for b in (samples, data, train))
    number = _fitting(data.points.counts, POINTS, SAMPLES)
    samples, data, train = _three(samples, data, train, number)
    found = compare_structures(samples, data, torch.Generator().manual_seed(0), DRAWS)
    beside = compare_structures(train, data, draws=0)
    return _comparisons(found, beside, number, {}, unit)


def molecules(samples: Batch, data: Batch, train: Batch) -> Table:
    """Shares of valid molecules, see `metrics.validity`, of samples and of data.

    Args:
        samples, data, train: ragged, x (N, 3) in Å with nodes["z"]; where there are bonds, also the share whose
            distances tell exactly these.
    """
    number = _fitting(data.counts, POINTS, SAMPLES)
    three = _three(samples, data, train, number)
    columns = []
    for batch in three:
        shares = {k.replace("_", " "): v for k, v in vars(validity(batch)).items() if k != "molecules"}
        if batch.edge_index is not None:
            shares["bonds recovered"] = float(bonds_recovered(batch).double().mean())
        columns.append(shares)
    rows = [[name, *(_share(c.get(name, math.nan)) for c in columns)] for name in columns[0]]
    caption = (
        f"Molecules: {_how_many(number)}. Orders of bonds are read from distances; an atom is stable if its orders sum "
        "to a valence of its element, a molecule is valid if all atoms are stable and it is in one piece, unique among "
        "the valid; bonds are recovered if the distances tell exactly the given ones. Data do not reach 100 % either."
    )
    return Table(caption, ("share", "samples", "data", "training data"), rows)


def clouds(samples: Batch, data: Batch, train: Batch, unit: str = "") -> Table:
    """MMD, coverage and 1-NNA by the Chamfer distance, of samples and of training data, see `metrics.cloud_scores`.

    Args:
        samples, data, train, unit: as for `particles`; clouds without points are left out.
    """
    most = min(EACH, int(data.points.counts.max()))
    number = min(CLOUDS, len(data), max(2, math.isqrt(DISTANCES // (2 * most**2))))
    g = torch.Generator().manual_seed(0)
    samples, data, train = (_thinned(b, g) for b in _three(samples, data, train, number))
    rows = []
    for name, batch in (("samples", samples), ("training data", train)):
        scores = cloud_scores(batch, data)
        rows.append([name, f"{scores.mmd:.3g}", _share(scores.coverage), _share(scores.accuracy)])
    caption = (
        f"Clouds by their Chamfer distance: {_how_many(number)}, at most {EACH} points of each. MMD: distance of a "
        "cloud of the data to the nearest one, less is better; coverage: share of the data that is nearest to one, "
        "more is better; 1-NNA: 50 % is perfect, 100 % worst. All depend on the number of clouds."
    )
    return Table(caption, ("clouds", _with("MMD", f"{unit}²" if unit else ""), "coverage", "1-NNA"), rows)


# -- parts ----------------------------------------------------------------------------------------------------


def _comparisons(
    found: Mapping[str, Comparison], train: Mapping[str, Comparison], number: int, units: Mapping[str, str], unit: str
) -> Table:
    known = {"chain angle": "°", "chain torsion": "°", "bond angle": "°", "handedness": "", **units}
    rows = []
    for name, c in found.items():
        beside = f"{train[name].wasserstein:.3g}" if name in train else "–"
        moments = (f"{mean:.4g} ({std:.3g})" for mean, std in ((c.mean, c.std), (c.data_mean, c.data_std)))
        distance = f"{c.wasserstein:.3g} ± {c.stderr:.1g}"
        rows.append([_with(name, known.get(name, unit)), *moments, distance, f"{c.floor:.2g}", beside, f"{c.ks:.3f}"])
    caption = (
        f"Structures: {_how_many(number)}. Mean, and standard deviation in brackets. W1: Wasserstein distance of "
        "samples and data; same law: what two sets of data of this size differ by; training data: theirs from the "
        "data; KS: Kolmogorov–Smirnov distance."
    )
    return Table(caption, ("", "samples", "data", "W1", "same law", "training data", "KS"), rows)


def _how_many(number: int) -> str:
    return f"{number} samples beside the {number} of the test split with their sizes and conditions"


def _fitting(sizes: Tensor, whole: int, most: int) -> int:
    """How many of the first samples have sizes (B,) that add up to no more than a whole; at least two, or all."""
    within = int((sizes.double().cumsum(0) <= whole).sum())
    return min(len(sizes), most, max(2, within))


def _three(samples: Batch, data: Batch, train: Batch, number: int) -> tuple[Batch, Batch, Batch]:
    """As many of each: the first samples, the data they stand beside, training data from everywhere."""
    return samples.select(range(number)), beside(data, number), _evenly(train, number)


def _evenly(batch: Batch, number: int) -> Batch:
    if number >= len(batch):
        return batch
    return batch.select(torch.linspace(0, len(batch) - 1, number).round().long())


def _thinned(batch: Batch, generator: torch.Generator) -> Batch:
    """Clouds with points, each with EACH of them at most, taken at random."""
    sets = [x.cpu() for x in batch.points.split() if len(x)]
    sets = [x if len(x) <= EACH else x[torch.randperm(len(x), generator=generator)[:EACH]] for x in sets]
    index = torch.arange(len(sets)).repeat_interleave(torch.tensor([len(x) for x in sets]))
    return Batch(torch.cat(sets), index, len(sets))


def _energies(energy: Energy, batch: Batch) -> list[Tensor]:
    return [u for u in energy.of(batch) if bool(u.isfinite())]


def _pairs(batch: Batch) -> list[Tensor]:
    """Finite distances of all pairs of points, a tensor per sample that has two; samples of one size together."""
    points, found = batch.points, []
    for n in points.counts.unique().tolist():
        alike = points.select(points.counts == n)
        found += [d[d.isfinite()] for d in pair_distances(alike).split(n * (n - 1) // 2)] if n > 1 else []
    return found


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _share(value: float) -> str:
    return "–" if math.isnan(value) else f"{100 * value:.1f} %"


def _with(name: str, unit: str) -> str:
    return f"{name} [{unit}]" if unit else name
