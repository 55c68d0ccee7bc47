"""Samples that stay in their file: a batch to training, but read when they are asked for.

A file may be larger than memory.  Training needs of its data their number and, at each step, the samples of a batch; so
a split may be `Stored`: it knows how to read a stretch of the file, reads the chunks that a batch touches, and keeps
the last few of them at hand.

A shuffle over all samples would read a whole chunk for each of them.  So chunks are shuffled, `together` of them are
taken at a time, and their samples are shuffled among themselves: each chunk is read once per epoch, and a batch mixes
as many chunks as memory allows.  The order is a pure function of the seed and the epoch, as it is for data in memory,
and a killed run goes on with the samples that it would have seen.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from scifm.batch import Batch
from scifm.schedule import Stretches

__all__ = ["Stored", "some"]

MEMORY = 2**28  # bytes of chunks at hand


class Stored:
    """Samples in a file, read chunk by chunk when they are selected.

    Args:
        read: (first, last) -> the samples first … last − 1 of the file as a `Batch`, on the CPU, in the user's units.
            It refuses what no training should see: values that are missing or infinite.
        count: samples in the file.
        chunk: of how many samples the file's pieces are, which are cheap to read whole.
        samples: (n,) which of them are in this split, in rising order; all if None.
        memory: bytes of chunks that are kept at hand, at least three.

    Attributes:
        head: the first sample, as a batch.

    Raises:
        ValueError: for a split without samples, samples that are not in the file or not in order, and whatever `read`
            raises for the first sample.

    Example:
        >>> x = torch.arange(10.0)[:, None]
        >>> stored = Stored(lambda first, last: Batch(x[first:last]), count=10, chunk=4, samples=torch.arange(2, 9))
        >>> len(stored), stored.select([0, 5]).x[:, 0].tolist(), stored.stretches.sizes
        (7, [2.0, 7.0], (2, 4, 1))
    """

    def __init__(
        self,
        read: Callable[[int, int], Batch],
        count: int,
        chunk: int,
        samples: Tensor | None = None,
        memory: int = MEMORY,
    ):
        if chunk < 1 or memory < 1:
            raise ValueError(f"Stored: chunk and memory must be at least 1, got {chunk} and {memory}.")
        samples = torch.arange(count) if samples is None else samples.long()
        if not len(samples):
            raise ValueError(f"Stored: none of the {count} samples of the file are in this split; choose others.")
        if int(samples.min()) < 0 or int(samples.max()) >= count or (samples.diff() <= 0).any():
            raise ValueError(
                f"Stored: samples must be different numbers of 0 … {count - 1} in rising order, got {samples}."
            )
        self.count, self.chunk, self.samples, self.memory = count, chunk, samples, memory
        self._read, self._lock = read, threading.Lock()
        self._chunks: OrderedDict[int, Batch] = OrderedDict()
        first = int(samples[0])
        self.head = read(first, first + 1)
        if len(self.head) != 1:
            raise ValueError(f"Stored: asked to read one sample, the reader gave {len(self.head)}.")
        self.keep = max(3, memory // max(1, self.chunk * _bytes(self.head)))
        owner = samples.div(chunk, rounding_mode="floor")
        # a third is shuffled together: at hand are the samples before, those of now and those to come
        self.stretches = Stretches(tuple(owner.unique_consecutive(return_counts=True)[1].tolist()), self.keep // 3)

    def __len__(self) -> int:
        return len(self.samples)

    def select(self, samples: Tensor | Sequence[int]) -> Batch:
        """The chosen samples in memory, in the order given; chunks that are not at hand are read."""
        samples = torch.as_tensor(samples)
        where = self.samples[samples if samples.dtype == torch.bool else samples.long()]
        if not len(where):
            return self.head.select([])
        owner = where.div(self.chunk, rounding_mode="floor")
        parts, rows = [], []
        for chunk in owner.unique().tolist():
            here = (owner == chunk).nonzero()[:, 0]
            parts.append(self._at(chunk).select(where[here] - chunk * self.chunk))
            rows.append(here)
        return Batch.join(parts).select(torch.cat(rows).argsort())

    def some(self, most: int = 2048) -> Batch:
        """At most so many samples, evenly spaced, in memory: to fit transforms and priors to.

        Fits work in double precision and on copies, so of large samples there are fewer: what fits into an eighth of
        the memory, but 64 at least.
        """
        number = min(most, len(self), max(64, self.memory // (8 * _bytes(self.head))))
        chosen = torch.linspace(0, len(self) - 1, number, dtype=torch.float64).round().long()
        if not self.head.dense:
            return self.select(chosen)
        # Filled in place and one by one: small tensors that are kept while chunks come and go leave holes between them,
        # and the heap grew to several times what it held.
        out = self.head.select([0] * number)
        for n, where in enumerate(self.samples[chosen].tolist()):
            one = self._load(where, where + 1)
            out.x[n] = one.x[0]
            for name, value in out.context.items():
                value[n] = one.context[name][0]
        return out

    def check(self, progress: bool = True) -> None:
        """Read all of this split once, so that what is wrong with it is known before training.

        Raises:
            ValueError: whatever `read` raises, for the first chunk that it refuses.
        """
        from tqdm import tqdm

        chunks = self.samples.div(self.chunk, rounding_mode="floor").unique_consecutive().tolist()
        for chunk in tqdm(chunks, disable=not progress, desc="check", unit="chunk", dynamic_ncols=True):
            self._load(*self._ends(chunk))

    def _at(self, chunk: int) -> Batch:
        with self._lock:  # pairs are made by a thread, scores by another
            if chunk not in self._chunks:
                while len(self._chunks) >= self.keep:
                    self._chunks.popitem(last=False)
                self._chunks[chunk] = self._load(*self._ends(chunk))
            self._chunks.move_to_end(chunk)
            return self._chunks[chunk]

    def _ends(self, chunk: int) -> tuple[int, int]:
        return chunk * self.chunk, min((chunk + 1) * self.chunk, self.count)

    def _load(self, first: int, last: int) -> Batch:
        batch = self._read(first, last)
        if len(batch) != last - first or batch.event != self.head.event or batch.x.dtype != self.head.x.dtype:
            raise ValueError(
                f"Stored: samples {first} to {last - 1} are {len(batch)} of {batch.x.dtype} {batch.event}, the first "
                f"sample is {self.head.x.dtype} {self.head.event}."
            )
        return batch


def some(split: Batch | Stored, most: int = 2048) -> Batch:
    """What can be fitted to: a batch as it is, of stored samples at most so many."""
    return split.some(most) if isinstance(split, Stored) else split


def _bytes(batch: Batch) -> int:
    return sum(v.numel() * v.element_size() for v in (batch.x, *batch.context.values(), *batch.nodes.values()))
