"""Understanding the words of a command line: parsers, flags that commands share, and errors of one line."""

from __future__ import annotations

import argparse
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from scifm.recipe import nearest

if TYPE_CHECKING:
    from scifm.solve import Solver
    from scifm.trace import Trace

__all__ = [
    "Parser",
    "WrongUse",
    "bar",
    "devices",
    "flow_flags",
    "machine",
    "machine_flags",
    "positive",
    "run_parser",
    "solver_of",
    "tolerance",
    "trace_flags",
    "trace_of",
    "whole",
]


class WrongUse(Exception):
    """The words of the command line make no sense; the message is one line."""


class Parser(argparse.ArgumentParser):
    """argparse with errors of one line, no abbreviations and no usage block."""

    def __init__(self, command: str, description: str, **settings: Any):
        super().__init__(
            prog=f"scifm {command}",
            description=description,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            **settings,
        )
        # argparse before Python 3.14 takes the value of `--shift -1e-3` for a flag
        self._negative_number_matcher = re.compile(r"^-(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$")

    def error(self, message: str) -> NoReturn:
        """Raise WrongUse with the message and where the flags are explained."""
        raise WrongUse(f"{self.prog.removeprefix('scifm ')}: {message} (flags: {self.prog} --help)")

    def understand(self, words: Sequence[str]) -> argparse.Namespace:
        """Parse all words; the first that is not understood is named with its nearest neighbour."""
        found, rest = self.parse_known_args(words)
        if rest and rest[0].startswith("-"):
            self.no_flag(rest[0])
        if rest:
            self.error(f"does not know what to do with {rest[0]!r}.")
        return found

    def no_flag(self, word: str, more: str = "") -> NoReturn:
        """The error for an unknown flag."""
        name = word.split("=")[0]
        options = [o for action in self._actions for o in action.option_strings if o.startswith("--")]
        self.error(f"no flag {name!r}.{nearest(name, options)}{' ' + more if more else ''}")


# -- shared flags


def machine_flags(parser: Parser) -> None:
    """Declare --device and --threads, which `machine` takes."""
    parser.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu, cuda, cuda:1 (default auto)")
    parser.add_argument("--threads", type=positive, metavar="INT", help="CPU threads (default: half of the cores)")


def run_parser(command: str, description: str) -> Parser:
    """A parser for a command on a run: RUN, --device, --threads and --overwrite."""
    parser = Parser(command, description)
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a run")
    machine_flags(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace what exists")
    return parser


def flow_flags(parser: Parser) -> None:
    """Declare what decides how a flow is solved: seed, weights, chunk and the solver's settings."""
    parser.add_argument("--seed", type=whole, metavar="INT", help="default: the run's")
    parser.add_argument("--weights", choices=("ema", "model"), default="ema", help="averaged or last (default ema)")
    parser.add_argument("--chunk", type=positive, default=64, metavar="INT", help="samples at a time (default 64)")
    parser.add_argument("--method", metavar="NAME", help="bosh5, dopri5, tsit5, rk4, ... (default bosh5)")
    parser.add_argument("--steps", type=positive, metavar="INT", help="fixed steps; without it they adapt")
    parser.add_argument("--rtol", type=tolerance, metavar="FLOAT", help="default 1e-5")
    parser.add_argument("--atol", type=tolerance, metavar="FLOAT", help="default 1e-5")


def trace_flags(parser: Parser) -> None:
    """Declare --probes and --exact, of which `trace_of` makes a divergence estimator."""
    trace = parser.add_mutually_exclusive_group()
    trace.add_argument("--probes", type=positive, metavar="INT", help="Hutchinson probes")
    trace.add_argument("--exact", action="store_true", help="exact trace")


def whole(text: str) -> int:
    """A flag's value as a whole number of at least 0 that fits into 64 bits, as a seed must."""
    return _integer(text, 0, 2**63)


def positive(text: str) -> int:
    """A flag's value as a whole number of at least 1; as a number of threads or samples it fits into 32 bits."""
    return _integer(text, 1, 2**31)


def _integer(text: str, least: int, bound: int) -> int:
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if value < least:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least {least}, got {text!r}.")
    if value >= bound:
        raise argparse.ArgumentTypeError(f"expected a whole number below 2^{bound.bit_length() - 1}, got {text!r}.")
    return value


def tolerance(text: str) -> float:
    """A flag's value as a positive, finite number."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"invalid float {text!r}: expected a positive, finite number.")
    return value


def devices() -> list[str]:
    """Devices of this machine, as torch names them; the CPU comes first."""
    import torch

    return ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]


def machine(device: str, threads: int | None) -> tuple[str, int]:
    """Device and number of threads, which are set here."""
    import torch

    found = devices()
    if device == "auto":
        device = "cuda" if len(found) > 1 else "cpu"
    if device not in found and not (device == "cuda" and len(found) > 1):
        raise WrongUse(f"no device {device!r}; this machine has {', '.join(found)}.")
    if threads is None and "OMP_NUM_THREADS" not in os.environ:
        # Where anything else runs, threads on all cores wait for each other, and training crawls.
        threads = max(1, torch.get_num_threads() // 2)
    if threads is not None:
        torch.set_num_threads(threads)
    return device, torch.get_num_threads()


def solver_of(found: argparse.Namespace) -> Solver:
    """The solver that the words of `flow_flags` ask for; an unknown method is named with its nearest neighbour."""
    from scifm.solve import METHODS, Solver

    method = found.method or "bosh5"
    if method not in METHODS:
        raise WrongUse(f"no method {method!r}.{nearest(method, METHODS)}")
    if found.steps and (found.rtol or found.atol):
        raise WrongUse("--steps are fixed, so --rtol and --atol would have no effect; give one or the other.")
    return Solver(method, found.rtol or 1e-5, found.atol or 1e-5, found.steps)


def trace_of(found: argparse.Namespace) -> Trace | None:
    """The divergence estimator that the words of `trace_flags` ask for; None leaves it to the data."""
    from scifm.trace import Exact, Hutchinson

    return Exact() if found.exact else Hutchinson(found.probes) if found.probes else None


def bar(what: str, total: int) -> Any:
    """A progress bar over samples, a context with `update(n)`; silent where stderr is no terminal."""
    from tqdm import tqdm

    return tqdm(total=total, desc=what, unit="sample", disable=None, dynamic_ncols=True)
