"""What was read from structure files, what was left out, and why: plain counts that add up over files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

__all__ = ["Report"]


@dataclass(frozen=True)
class Report:
    """The account of a reading.

    Attributes:
        files: that gave at least one chain.
        chains, residues: that were kept.
        notes: about what was kept, with counts: modified residues, alternate positions, gaps.
        dropped: what was left out, with counts.
        refused: files that gave nothing, each with its reason.

    Example:
        >>> print(Report(1, 1, 129, {}, {"water molecules": 78}))
        1 file gave 1 chain of 129 residues
        left out: water molecules (78)
    """

    files: int = 0
    chains: int = 0
    residues: int = 0
    notes: Mapping[str, int] = field(default_factory=dict)
    dropped: Mapping[str, int] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)

    @staticmethod
    def join(reports: Sequence[Report]) -> Report:
        """The account of several readings."""
        return Report(
            sum(r.files for r in reports),
            sum(r.chains for r in reports),
            sum(r.residues for r in reports),
            _add([r.notes for r in reports]),
            _add([r.dropped for r in reports]),
            {k: v for r in reports for k, v in r.refused.items()},
        )

    def __str__(self) -> str:
        lines = [
            f"{self.files} {_plural('file', self.files)} gave {self.chains} {_plural('chain', self.chains)} of "
            f"{self.residues} {_plural('residue', self.residues)}"
        ]
        for head, counts in (("with", self.notes), ("left out", self.dropped)):
            if counts:
                lines.append(f"{head}: " + ", ".join(f"{what} ({n})" for what, n in counts.items()))
        if self.refused:
            lines.append(f"refused: {len(self.refused)} {_plural('file', len(self.refused))}")
            lines += [f"  {reason}" for reason in list(self.refused.values())[:_SHOWN]]
            if len(self.refused) > _SHOWN:
                lines.append(f"  ... and {len(self.refused) - _SHOWN} more, in Report.refused")
        return "\n".join(lines)


_SHOWN = 5  # refused files that are printed


def _plural(word: str, count: int) -> str:
    return word if count == 1 else f"{word}s"


def _add(counts: Sequence[Mapping[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for found in counts:
        for what, n in found.items():
            total[what] = total.get(what, 0) + n
    return total
