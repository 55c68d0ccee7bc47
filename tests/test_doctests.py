"""The examples in docstrings run, each module on its own, seeded so that those that draw numbers are repeatable."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest
import torch

import scifm

MODULES = sorted(m.name for m in pkgutil.walk_packages(scifm.__path__, "scifm.") if "._bundled" not in m.name)


@pytest.mark.parametrize("name", MODULES)
def test_examples_of(name):
    module = importlib.import_module(name)
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    with torch.random.fork_rng():
        torch.manual_seed(0)
        result = doctest.testmod(module, optionflags=flags, extraglobs={"torch": torch})
    assert result.failed == 0, f"{result.failed} of {result.attempted} examples of {name} fail; see the output above"
