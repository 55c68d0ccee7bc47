"""The command `scifm`: train, sample, score, fill, reweight, report, list, info.

Nothing heavy is imported before the words of the command line have been understood: help and misspelt words answer
at once, in one line that names the nearest right word.  SCIFM_DEBUG=1 shows where an error came from.

Exit status: 0 done; 1 the computation failed; 2 the command or its input was wrong; 130 interrupted; 141 the reader of
the output went away before the work was done.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module

from scifm import __version__
from scifm.commands.words import WrongUse
from scifm.recipe import nearest

__all__ = ["main"]

_WORK = ("train", "sample", "score", "fill", "reweight", "report")
_COMMANDS = (*_WORK, "list", "info")
_HELP = """\
usage: scifm COMMAND ...

A flow is a velocity network, a prior, a coupling and a path; it is trained, sampled and scored.

  train RECIPE    train a recipe, then sample, score and report it
  sample RUN      draw samples from a trained run
  score RUN       held-out likelihood in bits per dimension, with its error
  fill RUN FILE   complete fields from those with gaps, with a trained run
  reweight RUN    samples weighted to the law of a known energy: effective samples, log Z
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
            print(_HELP, end="", flush=True)
            return 0
        if words[0] in ("-V", "--version", "version"):
            print(f"scifm {__version__}", flush=True)
            return 0
        if words[0] not in _COMMANDS:
            what = "flag" if words[0].startswith("-") else "command"
            raise WrongUse(f"no {what} {words[0]!r}.{nearest(words[0], _COMMANDS)}")
        status = import_module(f"scifm.commands.{words[0]}").command(words[1:])
        if sys.stdout is not None:  # closed from the start
            sys.stdout.flush()  # a reader that has gone is met here, and not when Python ends
        return status
    except WrongUse as error:
        return _say(error, 2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        if sys.stdout is not None:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141 if words and words[0] in _WORK else 0  # `scifm list | head` has done all that was asked for
    except Exception as error:
        if os.environ.get("SCIFM_DEBUG"):
            raise
        return _explain(error)


_SLIPS = (TypeError, AttributeError, KeyError, NameError)  # of the pen, in a recipe's own line


def _explain(error: Exception) -> int:
    """One line where scifm or the recipe found the fault; a traceback where neither expected it."""
    if isinstance(error, ImportError):
        return _say(f"{error}; the recipe needs a package that is missing, or is more than one file.", 2)
    if isinstance(error, FileNotFoundError | FileExistsError | PermissionError | IsADirectoryError):
        return _say(error, 2)
    if isinstance(error, OSError):  # a full disk, a lost network: no fault of any line
        return _say(error, 1)
    frames = [(f, n, str(f.f_globals.get("__name__"))) for f, n in traceback.walk_tb(error.__traceback__)]
    # a misspelt `torch.zeors` in a recipe is found out in torch's __getattr__, and is the recipe's
    frame, line, module = next(f for f in reversed(frames) if f[0].f_code.co_name != "__getattr__")
    place = f"{frame.f_code.co_filename}, line {line}"
    if module.startswith("scifm."):
        if isinstance(error, ValueError | TypeError):
            return _say(error, 2)
        if isinstance(error, RuntimeError | NotImplementedError):
            return _say(error, 1)
    elif isinstance(error, ValueError) and module.startswith(("scifm_recipe_", "scifm_datasets_")):
        return _say(f"{place}: {error}", 2)
    elif isinstance(error, _SLIPS) and module.startswith("scifm_recipe_"):
        return _say(f"{place}: {type(error).__name__}: {error}", 2)
    traceback.print_exception(error)
    return 1


def _say(message: object, status: int) -> int:
    print(f"scifm: {' '.join(str(message).split())}", file=sys.stderr)
    return status
