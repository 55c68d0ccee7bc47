"""Checkpoints: safetensors for the numbers, JSON for the rest, never a pickle.

    checkpoints/
      step-00000250/state.safetensors   every tensor, by name
      step-00000250/state.json          format, step, checksum, and what the trainer wants to remember
      step-00000500/...

A checkpoint is written in a hidden folder beside its place, flushed to the disk and moved there by one rename, so
that `kill -9` leaves either the whole of it or nothing.  Trainer and `scifm.run` agree on the tensors' names:

    model.<name>   the flow's state_dict: weights, and buffers of the prior and the transform
    ema.<name>     the same with averaged weights
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

__all__ = ["FORMAT", "load", "pack", "save", "steps", "unpack"]

FORMAT = 1
_NAME = re.compile(r"step-(\d{8,})$")


class Damaged(ValueError):
    """A checkpoint that is not what was written: cut short or changed."""


def save(folder: Path | str, step: int, tensors: Mapping[str, Tensor], meta: Mapping[str, Any], keep: int = 2) -> Path:
    """Write one checkpoint atomically and drop all but the newest `keep`.

    Args:
        folder: where checkpoints live; made if missing.
        step: training steps done.
        tensors: any dtype and device; shared or strided memory is copied.
        meta: plain values that JSON can hold.
        keep: how many to leave. Two, so that a damaged disk block costs some steps and not the run.

    Returns:
        the checkpoint's folder.

    Raises:
        OSError: where it cannot be written, as on a full disk; those before it are untouched, and no litter is left.
    """
    from safetensors import SafetensorError

    folder = Path(folder)
    temporary, final = folder / f".tmp-{step:08d}-{os.getpid()}", folder / f"step-{step:08d}"
    aside = folder / f".tmp-old-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for litter in folder.glob(".tmp-*"):  # of a killed process: only one trainer writes here
            shutil.rmtree(litter, ignore_errors=True)
        _write(temporary, step, tensors, meta)
        if final.exists():  # the same step again: a rename cannot replace a folder that holds files
            os.replace(final, aside)
        os.replace(temporary, final)
        _flush(folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if aside.exists() and not final.exists():
            aside.rename(final)
        kept = steps(folder)
        left = f"The last checkpoint is kept, of step {kept[-1]}" if kept else "There is no checkpoint before it"
        raise OSError(f"checkpoint: {final} cannot be written ({error}): disk full? {left}.") from error
    for old in steps(folder)[:-keep] if keep else []:
        shutil.rmtree(folder / f"step-{old:08d}", ignore_errors=True)
    shutil.rmtree(aside, ignore_errors=True)
    return final


def _write(folder: Path, step: int, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
    from safetensors.torch import save_file

    folder.mkdir()
    numbers = folder / "state.safetensors"
    # safetensors refuses tensors that share memory (tied weights) or are strided: a clone is neither.
    plain = torch.contiguous_format
    save_file({k: v.detach().cpu().clone(memory_format=plain) for k, v in tensors.items()}, numbers)
    state = {"format": FORMAT, "step": step, "sha256": _checksum(numbers), "meta": dict(meta)}
    (folder / "state.json").write_text(json.dumps(state, indent=1), encoding="utf-8")
    for path in (numbers, folder / "state.json", folder):
        _flush(path)


def steps(folder: Path | str) -> list[int]:
    """Steps of the checkpoints in a folder, oldest first; empty where there is no such folder."""
    folder = Path(folder)
    if not folder.is_dir():
        return []
    found = (_NAME.match(p.name) for p in folder.iterdir() if p.is_dir())
    return sorted(int(m.group(1)) for m in found if m)


def load(folder: Path | str, step: int | None = None) -> tuple[dict[str, Tensor], dict[str, Any], int]:
    """Read the newest checkpoint, or that of a step.

    A newest checkpoint that was cut short or changed is passed over for the one before, with a warning on
    stderr.

    Returns:
        tensors by name, on the CPU; meta; step.

    Raises:
        FileNotFoundError: where there is none.
        ValueError: where all are damaged, the step's is, or another version of scifm wrote it.
    """
    folder = Path(folder)
    found = steps(folder)
    if step is not None and step not in found:
        raise FileNotFoundError(f"checkpoint: no step {step} in {folder}; it holds {found or 'none'}.")
    if not found:
        raise FileNotFoundError(f"checkpoint: no checkpoint in {folder}; the run stopped before its first.")
    candidates = [step] if step is not None else found[::-1]
    for i, candidate in enumerate(candidates):
        try:
            tensors, meta = _read(folder / f"step-{candidate:08d}", candidate)
        except Damaged as error:
            if i + 1 == len(candidates):
                raise ValueError(f"{error} No older checkpoint is left: train again.") from error
            print(f"warning: {error} Going back to step {candidates[i + 1]}.", file=sys.stderr)
            continue
        return tensors, meta, candidate
    raise AssertionError("unreachable")


def _read(path: Path, step: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        state = json.loads((path / "state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:  # ValueError: not JSON, not UTF-8
        name = type(error).__name__
        raise Damaged(f"checkpoint: {path / 'state.json'} cannot be read ({name}).") from error
    if not isinstance(state, dict) or not isinstance(state.get("format"), int):
        raise ValueError(f"checkpoint: {path} was not written by scifm (state.json has no format number).")
    if state["format"] != FORMAT:
        raise ValueError(
            f"checkpoint: {path} has format {state['format']}, this scifm reads format {FORMAT}; "
            "use the version of scifm named in the run's run.json."
        )
    numbers = path / "state.safetensors"
    if not numbers.is_file() or _checksum(numbers) != state.get("sha256") or state.get("step") != step:
        raise Damaged(f"checkpoint: {numbers} is cut short or changed (its checksum differs).")
    try:
        return load_file(numbers), state["meta"]
    except (SafetensorError, KeyError) as error:
        raise Damaged(f"checkpoint: {numbers} cannot be read ({error}).") from error


def _checksum(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    """Ask the disk to keep a file or folder; Windows opens no folders and needs no such thing."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# -- optimisers ----------------------------------------------------------------------------------------


def pack(optimiser: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An optimiser's state as tensors by name and, for JSON, the rest.

    Example:
        >>> adam = torch.optim.Adam([torch.zeros(2, requires_grad=True)])
        >>> adam.param_groups[0]["params"][0].sum().backward(); adam.step()
        >>> tensors, meta = pack(adam)
        >>> sorted(tensors)
        ['state.0.exp_avg', 'state.0.exp_avg_sq', 'state.0.step']
        >>> unpack(adam, tensors, meta)
    """
    tensors: dict[str, Tensor] = {}
    return tensors, {k: _take(v, k, tensors) for k, v in optimiser.state_dict().items()}


def unpack(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
    """Put back what `pack` took out, exactly; the optimiser must hold the same parameters.

    Raises:
        ValueError: where it holds others.
    """
    optimiser.load_state_dict({k: _give(v, tensors) for k, v in meta.items()})


def _take(node: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """Copy a nested state, moving its tensors to `tensors`; JSON knows neither tuples nor int keys, so mark them."""
    if isinstance(node, Tensor):
        tensors[name] = node
        return {"tensor": name}
    if isinstance(node, Mapping):
        return {"dict": [[k, _take(v, f"{name}.{k}", tensors)] for k, v in node.items()]}
    if isinstance(node, tuple | list):
        items = [_take(v, f"{name}.{i}", tensors) for i, v in enumerate(node)]
        return {"tuple": items} if isinstance(node, tuple) else items
    if node is None or isinstance(node, str | int | float | bool):
        return node
    raise TypeError(f"checkpoint: {name} is a {type(node).__name__}; expected tensors and plain values.")


def _give(node: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(node, list):
        return [_give(v, tensors) for v in node]
    if not isinstance(node, dict):
        return node
    if "tensor" in node:
        return tensors[node["tensor"]]
    if "tuple" in node:
        return tuple(_give(v, tensors) for v in node["tuple"])
    return {k: _give(v, tensors) for k, v in node["dict"]}
