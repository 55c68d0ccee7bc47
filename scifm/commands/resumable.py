"""Work in chunks that the same command goes on with after Ctrl-C, a kill or a power cut."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scifm import __version__
from scifm.commands.words import bar
from scifm.data.fetch import sha256_of
from scifm.interruptions import interruptions
from scifm.run import Run

if TYPE_CHECKING:
    from scifm.batch import Batch
    from scifm.parts import Parts
    from scifm.recipe import Recipe

__all__ = ["carry_out", "chunked", "settings_of"]


def settings_of(
    run: Run, recipe: Recipe, data: Batch, found: argparse.Namespace, more: Mapping[str, Any]
) -> dict[str, Any]:
    """All that decides the numbers of a job, to the last bit, so that chunks of two jobs are never mixed.

    Args:
        data: whose values or conditions go in.
        found: the words of `flow_flags`.
        more: what is special to the job.
    """
    import torch

    from scifm.parts import checksum
    from scifm.samples import contents

    return {
        **more,
        "weights": found.weights,
        "chunk": found.chunk,
        "scifm": __version__,
        "torch": torch.__version__,
        "dtype": str(data.x.dtype),
        "dims": float(data.dims.double().sum()),
        "recipe": sha256_of(run.folder / "recipe.py"),
        "flow": checksum(recipe.flow.state_dict()),
        "data": checksum(contents(data)),
    }


@contextmanager
def chunked(output: Path, settings: Mapping[str, Any], total: int, overwrite: bool) -> Iterator[Parts]:
    """The finished chunks of the job that writes `output`; says on stderr how many samples are there already."""
    from scifm.parts import Parts

    with Parts.of(output, settings, overwrite) as parts:
        if parts.done:
            print(f"going on after {parts.done} of {total} samples", file=sys.stderr)
        yield parts


def carry_out(
    what: str,
    words: Sequence[str],
    parts: Parts,
    total: int,
    work: Callable[[Callable[[int], Any]], Any],
    finish: Callable[[Any], Any],
) -> int:
    """Work under a progress bar, then write what came of it; the exit status.

    Ctrl-C, or a polite kill, waits for the end of the chunk; a second one acts at once.  Either says how to go on.

    Args:
        what, words: the command and what it was called with.
        total: samples in all.
        work: takes a callable that must be called with the number of samples after each chunk, once it is kept.
        finish: takes what `work` returned.
    """
    try:
        with bar(what, total) as shown, interruptions() as flag:

            def progress(samples: int) -> None:
                if shown.n + samples > shown.total:
                    shown.total += total  # a score that needs another turn of probes
                shown.update(samples)
                if flag.is_set():
                    raise KeyboardInterrupt

            result = work(progress)
        finish(result)
    except KeyboardInterrupt:
        again = shlex.join(["scifm", what, *words])
        print(f"\ninterrupted after {parts.done} of {total} samples; go on with: {again}", file=sys.stderr)
        return 130
    return 0
