"""A fixed pairing that comes with the data: measured pairs, or the pairs of a flow (reflow).

Where each x1 has its x0 already (a forecast and what was observed, a coarse and a fine field, an earlier and a later
state), there is nothing to draw and nothing to solve: the partner travels with the sample, in `context` or, row by row,
in `nodes`.

Reflow (Liu, Gong and Liu 2023) makes such pairs from a trained flow: x0 of the prior, x1 where the flow carries it.
The marginals stay, the cost of the pairs does not grow for any convex cost, and a second flow trained on them has
straighter curves, which few steps follow.  Pairs are kept in a safetensors file: no pickle, and a file that was cut
short is told from a whole one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.schedule import seed_of
from scifm.solve import Solver

if TYPE_CHECKING:
    from scifm.flow import Flow

__all__ = ["Paired", "read_pairs", "reflow", "write_pairs"]

FORMAT = "scifm pairs 1"
GROUPS = ("context", "nodes", "edges")


@dataclass(frozen=True)
class Paired:
    """The partner of each sample is in the data: `batch.context[name]` when dense, `batch.nodes[name]` when ragged.

    It is in model units, x0 and not what a transform makes model units from.  The flow's prior should be the law of
    these x0, or samples will start elsewhere; its draws are not used in training.

    Args:
        name: of the partner, shaped like x.

    Example:
        >>> batch = Batch(torch.ones(2, 1), context={"x0": torch.tensor([[3.0], [4.0]])})
        >>> Paired()(torch.zeros(2, 1), batch)
        tensor([[3.],
                [4.]])
    """

    name: str = "x0"

    def __call__(self, x0: Tensor, batch: Batch, generator: torch.Generator | None = None) -> Tensor:
        """The partners (rows, *event) of `batch.x`; the draws x0 are left aside.

        Raises:
            ValueError: where the batch has no such partner, or it is not finite or of another shape or dtype than x.
        """
        kind, others = ("context", batch.context) if batch.dense else ("nodes", batch.nodes)
        if self.name not in others:
            raise ValueError(
                f"Paired: expected the partner of each sample in {kind}[{self.name!r}], but {kind} holds "
                f"{', '.join(others) or 'nothing'}; put x0 there, shaped like x, or give Paired(name=)."
            )
        partner = others[self.name]
        if partner.shape != batch.x.shape or partner.dtype != batch.x.dtype:
            raise ValueError(
                f"Paired: {kind}[{self.name!r}] must be like x, {batch.x.dtype} {tuple(batch.x.shape)}, got "
                f"{partner.dtype} {tuple(partner.shape)}."
            )
        if not partner.isfinite().all():
            raise ValueError(f"Paired: {kind}[{self.name!r}] holds NaN or infinity; drop the pairs that do.")
        return partner


def write_pairs(path: Path | str, x0: Tensor, batch: Batch) -> Path:
    """Write samples and their partners, atomically.

    Args:
        path: of the safetensors file; replaced if it is there.
        x0: partners in model units, shaped like `batch.x`.
        batch: samples, in the user's units, with all that belongs to them.

    Raises:
        ValueError: where x0 is not shaped like the samples, or the path cannot be written.
    """
    from safetensors.torch import save_file

    from scifm.disk import atomic, check_output

    path = Path(path)
    if x0.shape != batch.x.shape or x0.dtype != batch.x.dtype:
        raise ValueError(
            f"write_pairs: x0 must be like the samples, {batch.x.dtype} {tuple(batch.x.shape)}, got {x0.dtype} "
            f"{tuple(x0.shape)}."
        )
    check_output(path)
    tensors = {"x": batch.x, "pairs.x0": x0}
    if not batch.dense:
        tensors["counts"] = batch.counts
    if batch.edge_index is not None:
        tensors["edge_index"] = batch.edge_index
    for group in GROUPS:
        tensors |= {f"{group}.{name}": value for name, value in getattr(batch, group).items()}
    plain = {k: v.detach().cpu().clone(memory_format=torch.contiguous_format) for k, v in tensors.items()}
    with atomic(path) as temporary:
        save_file(plain, temporary, {"format": FORMAT})
    return path


def read_pairs(path: Path | str, name: str = "x0") -> Batch:
    """The samples of a file, with their partners where `Paired(name)` looks for them.

    Raises:
        FileNotFoundError: where there is no such file.
        ValueError: where it is cut short or changed, or holds something else.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"read_pairs: there is no file {path}; write it with reflow or write_pairs.")
    try:
        with safe_open(path, "pt") as file:
            found = (file.metadata() or {}).get("format")
            tensors = {key: file.get_tensor(key) for key in file.keys()}
    except SafetensorError as error:
        raise ValueError(
            f"read_pairs: {path} is cut short or no safetensors file ({error}); write it again."
        ) from error
    if found != FORMAT:
        raise ValueError(
            f"read_pairs: {path} holds {found or 'other tensors'}, expected {FORMAT}, as write_pairs makes it."
        )
    groups: dict[str, Any] = {
        g: {k[len(g) + 1 :]: v for k, v in tensors.items() if k.startswith(g + ".")} for g in GROUPS
    }
    groups["nodes" if "counts" in tensors else "context"][name] = tensors["pairs.x0"]
    if "counts" in tensors:
        counts = tensors["counts"]
        groups["size"], groups["edge_index"] = len(counts), tensors.get("edge_index")
        groups["index"] = torch.repeat_interleave(torch.arange(len(counts)), counts)
    return Batch(tensors["x"], **groups)


def reflow(
    flow: Flow,
    like: Batch,
    path: Path | str,
    *,
    number: int | None = None,
    seed: int = 0,
    chunk: int = 256,
    solver: Solver = Solver(),
    progress: Callable[[int], Any] | None = None,
) -> Path:
    """Draw from the prior, let the flow carry the draws, and write the pairs: what a second flow is trained on.

    Args:
        flow: trained; the prior and transform of the second flow must be the same.
        like: layouts and conditions of the pairs, in its order and over again; values are not looked at.
        number: of pairs; as many as `like` has if None.
        seed: together with its number it decides a pair, as for `scifm sample`.
        chunk: samples that travel together: bounds the memory beside the pairs themselves, and changes no pair.
        progress: called with the number of pairs made after each chunk.
    """
    from scifm.disk import check_output

    number = len(like) if number is None else number
    if number < 1 or chunk < 1 or len(like) == 0:
        raise ValueError(
            f"reflow: the number of pairs, the chunk and the size of like must be at least 1, got {number}, {chunk}, "
            f"{len(like)}."
        )
    check_output(Path(path))
    partners, samples = [], []
    for first in range(0, number, chunk):
        wanted = range(first, min(first + chunk, number))
        part = like.select([k % len(like) for k in wanted])
        draws = []
        for i, k in enumerate(wanted):
            draws.append(flow.prior.sample(part.select([i]), torch.Generator().manual_seed(seed_of(seed, k))))
        x0 = torch.cat(draws)
        samples.append(flow.sample(part, solver=solver, x0=x0).to("cpu"))
        partners.append(x0.cpu())
        if progress is not None:
            progress(len(wanted))
    return write_pairs(path, torch.cat(partners), Batch.join(samples))
