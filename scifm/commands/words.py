"""Understanding the words of a command line: parsers, flags that commands share, and errors of one line."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from scifm.recipe import nearest

if TYPE_CHECKING:
    from scifm.solve import Solver

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
    parser.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu, cuda, cuda:1 (default auto)")
    parser.add_argument("--threads", type=positive, metavar="INT", help="CPU threads (default: torch's choice)")


def run_parser(command: str, description: str) -> Parser:
    parser = Parser(command, description)
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a run")
    machine_flags(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace what exists")
    return parser


def flow_flags(parser: Parser) -> None:
    parser.add_argument("--seed", type=whole, metavar="INT", help="default: the run's")
    parser.add_argument("--weights", choices=("ema", "model"), default="ema", help="averaged or last (default ema)")
    parser.add_argument("--chunk", type=positive, default=64, metavar="INT", help="samples at a time (default 64)")
    parser.add_argument(
        "--method", default="dopri5", metavar="NAME", help="dopri5, tsit5, rk4, heun, ... (default dopri5)"
    )
    parser.add_argument("--steps", type=positive, metavar="INT", help="fixed steps; without it they adapt")
    parser.add_argument("--rtol", type=float, default=1e-5, metavar="FLOAT", help="default 1e-5")
    parser.add_argument("--atol", type=float, default=1e-5, metavar="FLOAT", help="default 1e-5")


def whole(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = -1
    if value < 0:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 0, got {text!r}.")
    return value


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}.")
    return int(text)


def devices() -> list[str]:
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
    if threads is not None:
        torch.set_num_threads(threads)
    return device, torch.get_num_threads()


def solver_of(found: argparse.Namespace) -> Solver:
    from scifm.solve import METHODS, Solver

    if found.method not in METHODS:
        raise WrongUse(f"no method {found.method!r}.{nearest(found.method, METHODS)}")
    return Solver(found.method, found.rtol, found.atol, found.steps)


def bar(what: str, total: int) -> Any:
    from tqdm import tqdm

    return tqdm(total=total, desc=what, unit="sample", disable=None, dynamic_ncols=True)
