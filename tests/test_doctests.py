"""The examples in docstrings and in docs/ run, seeded so that those that draw numbers are repeatable."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest
import torch

import scifm

MODULES = sorted(m.name for m in pkgutil.walk_packages(scifm.__path__, "scifm.") if "._bundled" not in m.name)

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
DOCS = Path(__file__).resolve().parent.parent / "docs"
SESSIONS = {p.name: re.findall(r"^```pycon\n(.*?)^```$", p.read_text(), re.M | re.S) for p in sorted(DOCS.glob("*.md"))}


@pytest.mark.parametrize("name", MODULES)
def test_examples_of(name):
    module = importlib.import_module(name)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        result = doctest.testmod(module, optionflags=FLAGS, extraglobs={"torch": torch})
    assert result.failed == 0, f"{result.failed} of {result.attempted} examples of {name} fail; see the output above"


@pytest.mark.parametrize("name", [name for name, found in SESSIONS.items() if found])
def test_sessions_of_docs(name):
    """What a page shows as typed into Python is what Python answers, in order and in one namespace."""
    test = doctest.DocTestParser().get_doctest("\n".join(SESSIONS[name]), {}, name, name, 0)
    assert test.examples
    with torch.random.fork_rng():
        torch.manual_seed(0)
        result = doctest.DocTestRunner(optionflags=FLAGS).run(test)
    assert result.failed == 0, f"{result.failed} of {result.attempted} lines of docs/{name}; see the output above"


def test_there_is_a_session_and_a_wrong_answer_is_noticed(capsys):
    assert "metrics.nats" in "".join(SESSIONS["points.md"])
    wrong = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", {}, "x", "x", 0)
    assert doctest.DocTestRunner(optionflags=FLAGS).run(wrong).failed == 1
