"""The command `scifm`: train, sample, score, report, list, info.

Nothing heavy is imported before the words of the command line have been understood: help and misspelt words answer
at once, in one line that names the nearest right word.  SCIFM_DEBUG=1 shows where an error came from.

Exit status: 0 done; 1 the computation failed; 2 the command or its input was wrong; 130 interrupted.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from scifm import __version__
from scifm.commands.words import WrongUse
from scifm.recipe import nearest

__all__ = ["main"]

_COMMANDS = ("train", "sample", "score", "report", "list", "info")
_HELP = """\
usage: scifm COMMAND ...

A flow is a velocity network, a prior, a coupling and a path; it is trained, sampled and scored.

  train RECIPE    train a recipe, then sample, score and report it
  sample RUN      draw samples from a trained run
  score RUN       held-out likelihood in bits per dimension, with its error
  report RUN      figures and report.md
  list            recipes, data sets and runs
  info [RUN]      versions, devices and places; or all about a run

  scifm train quickstart          a first result in minutes
  scifm COMMAND --help            the flags of a command
  scifm train RECIPE --help       the flags of a recipe
  scifm --version
"""


def main(words: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    words = list(sys.argv[1:] if words is None else words)
    try:
        if not words or words[0] in ("-h", "--help", "help"):
            print(_HELP, end="")
            return 0
        if words[0] in ("-V", "--version", "version"):
            print(f"scifm {__version__}")
            return 0
        if words[0] not in _COMMANDS:
            what = "flag" if words[0].startswith("-") else "command"
            raise WrongUse(f"no {what} {words[0]!r}.{nearest(words[0], _COMMANDS)}")
        return import_module(f"scifm.commands.{words[0]}").command(words[1:])
    except WrongUse as error:
        return _say(error, 2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `scifm list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if os.environ.get("SCIFM_DEBUG"):
            raise
        return _explain(error)


def _explain(error: Exception) -> int:
    """One line where scifm or the recipe found the fault; a traceback where neither expected it."""
    if isinstance(error, ImportError):
        return _say(f"{error}; the recipe needs a package that is missing, or is more than one file.", 2)
    if isinstance(error, FileNotFoundError | FileExistsError | PermissionError | IsADirectoryError):
        return _say(error, 2)
    place = traceback.extract_tb(error.__traceback__)[-1]
    if Path(place.filename).is_relative_to(Path(__file__).parent):
        if isinstance(error, ValueError | TypeError):
            return _say(error, 2)
        if isinstance(error, RuntimeError | NotImplementedError):
            return _say(error, 1)
    elif isinstance(error, ValueError) and f"scifm_recipe_{Path(place.filename).stem}" in sys.modules:
        return _say(f"{place.filename}, line {place.lineno}: {error}", 2)
    traceback.print_exception(error)
    return 1


def _say(message: object, status: int) -> int:
    print(f"scifm: {' '.join(str(message).split())}", file=sys.stderr)
    return status
