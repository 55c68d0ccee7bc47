"""Proper scores of an ensemble x_1 ... x_M against what was observed, y: less is better, the truth is best on average.

    CRPS       (1/M) Σ_i |x_i − y|  −  ½ mean |x_i − x_j|         of one number          (Matheson and Winkler 1976)
    energy     (1/M) Σ_i ‖x_i − y‖  −  ½ mean ‖x_i − x_j‖         of a whole field     (Gneiting and Raftery 2007)
    variogram  mean over pairs a, b of ( |y_a − y_b|^p − (1/M) Σ_i |x_ia − x_ib|^p )²   (Scheuerer and Hamill 2015)
    Brier      (share of x_i above c  −  [y > c])²                 of an event                       (Brier 1950)

‖v‖² is the (area-weighted) *mean* of the squares over a field, so that energy score and CRPS have the unit of a value.

**Fair or not.**  Over all M² pairs the mean contains M zeros: that is the score of the empirical law, which a small
ensemble of the true law loses to a narrower one.  Over the M (M − 1) pairs of two members it is fair (Ferro 2014): its
expectation is that of an ensemble without end.  Compare ensembles of different sizes, or below 20 members, by the fair
form.  For Brier, fair subtracts p (1 − p) / (M − 1).

The mean of pairs in the CRPS is (2/M²) Σ_i (2i − M − 1) x_(i) of sorted members: M log M, not M².

CRPS and energy score see the marginal law and the overall distance; the variogram score sees whether neighbours vary
together.  Which definitions: those of GenCast's published scores (Couairon et al. 2024); see docs/fields.md.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["brier", "crps", "energy_score", "threshold_weighted_crps", "variogram_score"]


def crps(members: Tensor, observed: Tensor, fair: bool = False) -> Tensor:
    """Continuous ranked probability score of each value, in its unit.

    Args:
        members: (M, ...) the ensemble.
        observed: (...) what came.
        fair: as of an ensemble without end; needs two members. Not fair, one member gives |x − y|.

    Returns:
        (...); average it with `area_mean`. NaN where a value is NaN.

    Raises:
        ValueError: for shapes that do not fit, or too few members.

    Example:
        >>> crps(torch.tensor([[0.0], [1.0]]), torch.tensor([0.0]))
        tensor([0.2500])
        >>> crps(torch.tensor([[0.0], [1.0]]), torch.tensor([0.0]), fair=True)
        tensor([0.])
    """
    count = check_ensemble("crps", members, observed, fair)
    gaps = (members - observed).sort(0).values  # of the gaps, not the values: 280 K and 281 K leave few digits
    rank = 2 * torch.arange(1, count + 1, dtype=gaps.dtype, device=gaps.device) - count - 1
    spread = (rank.reshape(-1, *[1] * observed.ndim) * gaps).sum(0)
    return gaps.abs().mean(0) - spread / (count * (count - fair))


def threshold_weighted_crps(
    members: Tensor, observed: Tensor, low: float = -math.inf, high: float = math.inf, fair: bool = False
) -> Tensor:
    """CRPS that counts thresholds between `low` and `high` only: ∫ (F(r) − [y ≤ r])² over [low, high].

    It is the CRPS of all values clamped to the interval, and so proper, unlike a mean over the cases where
    something extreme happened (Gneiting and Ranjan 2011; Allen, Ginsbourger and Ziegel 2023).

    Args and Returns: as `crps`.

    Example:
        >>> threshold_weighted_crps(torch.tensor([[0.0], [1.0]]), torch.tensor([0.0]), low=0.5)
        tensor([0.1250])
    """
    if not low < high:
        raise ValueError(f"threshold_weighted_crps: expected low < high, got {low} and {high}.")
    return crps(members.clamp(low, high), observed.clamp(low, high), fair)


def energy_score(
    members: Tensor, observed: Tensor, weights: Tensor | None = None, fair: bool = False, event: int = 2
) -> Tensor:
    """Energy score of each field, by the area-weighted root mean square, in the unit of a value.

    Args:
        members: (M, ..., *grid).
        observed: (..., *grid).
        weights: broadcasts to (*grid), as for `area_mean`; a cell of weight 0 is not looked at.
        fair: as for `crps`.
        event: number of last dims that make a field: 2 for a map, 3 for all channels together.

    Returns:
        (...), float64.

    Raises:
        ValueError: as `crps`.

    Example:
        >>> energy_score(torch.tensor([[[3.0, 4.0]], [[3.0, 4.0]]]), torch.zeros(1, 2))
        tensor(3.5355, dtype=torch.float64)
    """
    count = check_ensemble("energy_score", members, observed, fair)
    w = _field_weights("energy_score", observed, weights, event)
    gaps = (members.double() - observed.double()).flatten(-event)  # (M, ..., D)
    gaps = torch.where(w > 0, gaps, 0.0) * (w / w.sum()).sqrt()
    error = gaps.square().sum(-1).sqrt().mean(0)
    pairs = torch.zeros_like(error)
    for i in range(1, count):  # one member against those before it: memory of M fields, not of M²
        pairs += (gaps[:i] - gaps[i]).square().sum(-1).sqrt().sum(0)
    return error - pairs / (count * (count - fair))


def variogram_score(
    members: Tensor,
    observed: Tensor,
    weights: Tensor | None = None,
    p: float = 0.5,
    pairs: int = 2000,
    event: int = 2,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Variogram score of each field: do places differ from each other as much as they should?

    Args:
        members, observed, weights, event: as for `energy_score`.  Pairs are drawn by the weights of both places.
        p: order of the variogram.
        pairs: of two places that are drawn, the same for all fields; scores from different pairs do not compare.
        generator: draws them.

    Returns:
        (...), float64; mean over the pairs, in the unit of a value to the 2p.

    Example:
        >>> field = torch.tensor([[0.0, 4.0]])
        >>> variogram_score(torch.stack([field, -field]), field), variogram_score(torch.zeros(1, 1, 2), field)
        (tensor(0., dtype=torch.float64), tensor(4., dtype=torch.float64))
    """
    check_ensemble("variogram_score", members, observed, False)
    w = _field_weights("variogram_score", observed, weights, event)
    if int((w > 0).sum()) < 2 or not 0 < p < math.inf or pairs < 1:
        raise ValueError(
            f"variogram_score: expected two places of positive weight, p > 0 and pairs > 0, got {int((w > 0).sum())} "
            f"places, p={p}, pairs={pairs}."
        )
    a, b = _draw_pairs(w, pairs, generator)
    x, y = members.double().flatten(-event), observed.double().flatten(-event)
    made = torch.stack([(one[..., a] - one[..., b]).abs().pow(p) for one in x]).mean(0)
    return ((y[..., a] - y[..., b]).abs().pow(p) - made).square().mean(-1)


def brier(members: Tensor, observed: Tensor, threshold: float | Tensor, fair: bool = False) -> Tensor:
    """Brier score of the event that a value is above a threshold, in [0, 1] unless it is fair.

    Args:
        members, observed, fair: as for `crps`.
        threshold: a number, or one per place, such as a quantile of a climatology; broadcasts to (...).

    Example:
        >>> brier(torch.tensor([[0.0], [2.0], [3.0], [4.0]]), torch.tensor([5.0]), 1.0)
        tensor([0.0625])
    """
    count = check_ensemble("brier", members, observed, fair)
    share = (members > threshold).to(observed).mean(0)
    score = (share - (observed > threshold).to(observed)).square()
    score = score - share * (1 - share) / (count - 1) if fair else score
    unknown = members.isnan().any(0) | observed.isnan()
    return torch.where(unknown, torch.nan, score)


# -- what the scores share -----------------------------------------------------------------------------------------


def check_ensemble(who: str, members: Tensor, observed: Tensor, two: bool) -> int:
    """The number of members, M.

    Args:
        who: whom to name in an error.
        two: whether a single member is too few.

    Raises:
        ValueError: for shapes other than (M, ...) and (...), or too few members.
    """
    if members.ndim != observed.ndim + 1 or members.shape[1:] != observed.shape:
        raise ValueError(
            f"{who}: expected members (M, ...) and observed (...), got {tuple(members.shape)} and "
            f"{tuple(observed.shape)}; members come first, movedim brings them there."
        )
    if not (members.is_floating_point() and observed.is_floating_point()):
        raise ValueError(f"{who}: expected floating-point values, got {members.dtype} and {observed.dtype}.")
    if len(members) < 1 + two:
        raise ValueError(
            f"{who}: expected at least {1 + two} members{' for what is fair' if two else ''}, got {len(members)}."
        )
    return len(members)


def _field_weights(who: str, observed: Tensor, weights: Tensor | None, event: int) -> Tensor:
    """(D,) float64 on the flattened grid."""
    if not 1 <= event <= observed.ndim:
        raise ValueError(f"{who}: fields of {event} dims need observed (..., *grid), got {tuple(observed.shape)}.")
    grid = observed.shape[observed.ndim - event :]
    if weights is None:
        return torch.ones(math.prod(grid), dtype=torch.float64, device=observed.device)
    try:
        w = weights.to(observed.device, torch.float64).expand(grid)
    except RuntimeError as error:
        raise ValueError(f"{who}: weights {tuple(weights.shape)} do not fit the grid {tuple(grid)}.") from error
    if not (w.isfinite().all() and (w >= 0).all() and (w > 0).any()):
        raise ValueError(f"{who}: expected finite weights, none negative and not all 0; make them with area_weights.")
    return w.flatten()


def _draw_pairs(w: Tensor, pairs: int, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """Two different places each, by the weights of both."""
    device = w.device if generator is None else generator.device
    w = w.to(device)
    a = torch.multinomial(w, pairs, replacement=True, generator=generator)
    b = torch.multinomial(w, pairs, replacement=True, generator=generator)
    while (same := a == b).any():
        b[same] = torch.multinomial(w, int(same.sum()), replacement=True, generator=generator)
    return a, b
