"""Finished chunks of a long job, kept on the disk until its output is there.

    .maps.nc.parts/                             beside the output maps.nc, hidden
      settings.json                             all that decides the numbers, to say what differs
      0000000000-0000000064.safetensors         what was found for samples 0 to 63
      0000000064-0000000128.safetensors
      .lock                                     held by the process that works on it

A chunk is written beside its place, flushed and moved there, so that `kill -9` leaves the whole of it or nothing.  It
carries a checksum of its numbers and of the job's settings: one that was cut short or changed, or that belongs to other
settings, is made again and never mixed in.  Plain numbers (safetensors) and JSON, no pickle.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scifm.disk import atomic, locked, write_json

__all__ = ["Keep", "Parts", "checksum", "made"]

_NAME = re.compile(r"(\d{10})-(\d{10})\.safetensors")

Tensors = dict[str, Tensor]
Keep = Callable[[range, Callable[[], Tensors]], Tensors]


def made(samples: range, make: Callable[[], Tensors]) -> Tensors:
    """Keeps nothing: what a `Parts` is where nothing shall go to the disk."""
    return make()


def checksum(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, types, shapes and values, whatever the device and the order of the names."""
    found = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        value = tensor.detach().cpu().contiguous()
        found.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        found.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


@dataclass(frozen=True)
class Parts:
    """The finished chunks of one job. A call gives the chunk that is there, or makes and keeps it.

    Args:
        folder: where they are.
        job: checksum of the settings, which every chunk carries.
    """

    folder: Path
    job: str

    @staticmethod
    @contextlib.contextmanager
    def of(output: Path, settings: Mapping[str, Any], overwrite: bool = False) -> Iterator[Parts]:
        """The chunks of the job that writes `output`, held for one process. Call `remove` once the output is there.

        Args:
            output: the file that the job writes in the end.
            settings: all that decides its numbers, plain values.
            overwrite: give up chunks that were made with other settings.

        Raises:
            FileExistsError: where there are chunks of other settings; the message names what differs.
            RuntimeError: where another process is at work on the same output.
            OSError: where nothing can be written.
        """
        output, plain = Path(output), json.loads(json.dumps(settings, default=str))
        parts = Parts(output.with_name(f".{output.name}.parts"), _digest(plain))
        new = [p for p in parts.folder.parents if not p.exists()]
        parts.folder.mkdir(parents=True, exist_ok=True)
        with locked(parts.folder / ".lock", f"{output} is being made by another process."):
            try:
                parts._begin(output, plain, overwrite)
                yield parts
            finally:
                if not parts.done:  # nothing to go on from: leave no litter
                    parts.remove()
                    with contextlib.suppress(OSError):  # not empty
                        for folder in new:
                            folder.rmdir()

    def _begin(self, output: Path, settings: dict[str, Any], overwrite: bool) -> None:
        path = self.folder / "settings.json"
        before = _read_settings(path)
        if self.done and before is not None and before != settings:
            if not overwrite:
                raise FileExistsError(
                    f"{self.folder} holds {self.done} finished samples of other settings: "
                    f"{_differences(before, settings)}. Give those again to go on, --overwrite to start anew, or "
                    "another --output."
                )
            for chunk in self._chunks():
                (self.folder / chunk).unlink()  # before the new settings are there: never the new ones on old chunks
        for litter in self.folder.glob(".*.safetensors"):  # of a killed process: we hold the lock
            litter.unlink()
        if before != settings:
            write_json(path, {"output": output.name, "settings": settings})

    @property
    def done(self) -> int:
        """Samples that are there."""
        return sum(int(m[2]) - int(m[1]) for m in map(_NAME.fullmatch, self._chunks()) if m)

    def _chunks(self) -> list[str]:
        names = os.listdir(self.folder) if self.folder.is_dir() else ()
        return sorted(n for n in names if _NAME.fullmatch(n))

    def __call__(self, samples: range, make: Callable[[], Tensors]) -> Tensors:
        """The numbers of these samples: read where they are there, otherwise made, and kept.

        Args:
            samples: consecutive numbers of samples; they name the chunk.
            make: computes its tensors, by name.

        Raises:
            OSError: where the chunk cannot be written; those before it stay.
        """
        path = self.folder / f"{samples.start:010d}-{samples.stop:010d}.safetensors"
        if path.exists():
            found = self._read(path)
            if found is not None:
                return found
            print(f"warning: {path} is cut short or changed; its samples are made again.", file=sys.stderr)
        tensors = {k: v.detach().cpu().contiguous() for k, v in make().items()}
        self._write(path, tensors)
        return tensors

    def _write(self, path: Path, tensors: Tensors) -> None:
        from safetensors.torch import save

        content = save(tensors, {"job": self.job, "sha256": checksum(tensors)})
        try:
            with atomic(path) as temporary, open(temporary, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise OSError(
                f"{path} cannot be written ({error}): disk full? The {self.done} samples before it are kept; make "
                "room, and the same command goes on."
            ) from error

    def _read(self, path: Path) -> Tensors | None:
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "pt") as file:  # tensors of an open file are a view of it: clone them
                tensors, told = {k: file.get_tensor(k).clone() for k in file.keys()}, file.metadata() or {}
        except (OSError, SafetensorError):
            return None
        return tensors if told == {"job": self.job, "sha256": checksum(tensors)} else None

    def remove(self) -> None:
        """Remove the chunks, once the output is in its place."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _digest(settings: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def _read_settings(path: Path) -> dict[str, Any] | None:
    """None where they cannot be read; the chunks then tell by themselves whose they are."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))["settings"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    names = [k for k in {**before, **now} if before.get(k) != now.get(k)]
    return ", ".join(f"{k} {_short(before.get(k))} (now {_short(now.get(k))})" for k in names)


def _short(value: Any) -> str:
    """A setting in a message; of a checksum the beginning."""
    text = "none" if value is None else str(value)
    return text[:12] if re.fullmatch(r"[0-9a-f]{64}", text) else text
