"""Samples in chunks: each its seed's, with the density that scoring finds, in bounded memory, whole in the file."""

from __future__ import annotations

import weakref
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from scifm import Batch, Flow, Recipe, Solver, Stochastic, verbs
from scifm.data import Data
from scifm.data.transforms import Affine
from scifm.likelihood import bits_per_dim
from scifm.parts import Parts
from scifm.priors import Gaussian
from scifm.report import read_samples
from scifm.trace import Exact, Hutchinson

FINE, FEW = Solver(rtol=1e-7, atol=1e-7), Solver("rk4", steps=2)


class Bend(nn.Module):
    """A velocity of any layout that depends on the condition; it notes how many samples came at once."""

    def __init__(self) -> None:
        super().__init__()
        self.strength, self.largest, self.calls = nn.Parameter(torch.tensor(0.8, dtype=torch.float64)), 0, 0

    def forward(self, t: torch.Tensor, x: torch.Tensor, batch: Batch) -> torch.Tensor:
        self.largest, self.calls = max(self.largest, len(batch)), self.calls + 1
        pull = batch.spread(batch.context["label"].to(x) + t.to(x))
        other = x.roll(1, -1)  # a Jacobian with something off the diagonal
        return self.strength * torch.tanh(x + 0.5 * other) * pull


def data(layout: str, samples: int = 5) -> Batch:
    g = torch.Generator().manual_seed(0)
    label = {"label": torch.arange(samples) % 3, "place": torch.randn(samples, 2, generator=g)}
    if layout == "dense":
        return Batch(torch.randn(samples, 1, 3, 4, generator=g, dtype=torch.float64), context=label)
    counts = torch.arange(samples) % 3 + 1  # 1, 2 or 3 rows
    index, rows = torch.repeat_interleave(torch.arange(samples), counts), int(counts.sum())
    x = torch.randn(rows, 2, generator=g, dtype=torch.float64)
    ends = torch.arange(rows).repeat(2, 1)  # each row to itself
    nodes, edges = {"z": torch.arange(rows)}, {"length": torch.randn(rows, 3, generator=g)}
    return Batch(x, index, samples, label, nodes, ends, edges)


def recipe(layout: str = "dense", **settings: Any) -> Recipe:
    batch = data(layout)
    flow = Flow(Bend(), Gaussian(std=1.5), transform=Affine(shift=1.0, scale=2.0))
    return Recipe(flow, Data(layout, batch, batch, batch, **settings))


LAYOUTS = pytest.mark.parametrize("layout", ["dense", "ragged"])


# -- numbers ---------------------------------------------------------------------------------------------


@LAYOUTS
@pytest.mark.parametrize(
    ("solver", "trace"),
    [(FINE, None), (FEW, Exact()), (FEW, Hutchinson(3)), (Stochastic("heun", 3), None), (Stochastic("euler", 5), None)],
    ids=["plain", "exact", "probes", "heun", "euler"],
)
def test_a_sample_is_its_seed_s_whatever_the_chunk(layout: str, solver: Any, trace: Any) -> None:
    def drawn(number: int, chunk: int, seed: int = 0) -> list[torch.Tensor]:
        found = list(verbs.chunks(recipe(layout), number, seed=seed, solver=solver, trace=trace, chunk=chunk))
        logs = [d.log_prob for d in found if d.log_prob is not None]
        errors = [d.stderr for d in found if d.stderr is not None]
        batch = Batch.join([d.batch for d in found])
        assert len(batch) == number and len(logs) == (len(found) if trace else 0)
        assert len(errors) == (len(found) if isinstance(trace, Hutchinson) else 0)
        return [torch.cat(v) for v in (batch.split(), logs, errors) if v]  # type: ignore[arg-type]

    whole = drawn(7, 64)
    for other in (drawn(7, 3), drawn(7, 1)):
        assert all(torch.allclose(a, b, rtol=0, atol=1e-12) for a, b in zip(whole, other, strict=True))
    fewer = drawn(4, 3)
    assert all(torch.allclose(a[: len(b)], b, rtol=0, atol=1e-12) for a, b in zip(whole, fewer, strict=True))
    assert not any(torch.allclose(a, b, atol=1e-3) for a, b in zip(whole, drawn(7, 64, seed=1), strict=True))


def test_sizes_and_conditions_are_those_that_are_given_and_a_sample_does_not_depend_on_how_many() -> None:
    made, given = recipe("ragged"), data("ragged").select([2, 2, 0])
    (drawn,) = verbs.chunks(made, 5, solver=FEW, given=given)
    wanted = given.select([0, 1, 2, 0, 1])
    assert drawn.batch.counts.tolist() == wanted.counts.tolist() == [3, 3, 1, 3, 3]
    assert torch.equal(drawn.batch.nodes["z"], wanted.nodes["z"])
    assert torch.equal(drawn.batch.context["label"], wanted.context["label"])
    with pytest.raises(ValueError, match="no samples whose conditions"):
        verbs.chunks(made, 5, given=given.select([]))


@LAYOUTS
def test_the_density_of_a_sample_is_the_one_that_scoring_finds(layout: str) -> None:
    made = recipe(layout)
    for drawn in verbs.chunks(made, 7, solver=FINE, trace=Exact(), chunk=4):
        scored = made.flow.log_prob(drawn.batch, Exact(), FINE)
        assert drawn.log_prob is not None and drawn.log_prob.dtype == torch.float64 and drawn.probes == 0
        assert torch.allclose(drawn.log_prob, scored, rtol=0, atol=1e-5)
        assert drawn.log_prob.std() > 0.1  # not a constant


def test_the_error_of_the_probes_is_that_of_the_log_density() -> None:
    exact = torch.cat([d.log_prob for d in verbs.chunks(recipe(), 60, solver=FEW, trace=Exact())])  # type: ignore[misc]
    (drawn,) = verbs.chunks(recipe(), 60, solver=FEW, trace=Hutchinson(30))
    assert drawn.log_prob is not None and drawn.stderr is not None and drawn.probes == 30
    off = (drawn.log_prob - exact) / drawn.stderr
    assert 0.6 < off.std() < 1.6 and off.mean().abs() < 0.6
    (single,) = verbs.chunks(recipe(), 3, solver=FINE, trace=Hutchinson(1))
    assert single.stderr is None and single.probes == 1


@LAYOUTS
@pytest.mark.parametrize("solver", [FEW, Stochastic("heun", 4), Stochastic("euler", 4)])
def test_a_sample_is_what_the_flow_makes_of_its_generator(layout: str, solver: Any) -> None:
    made = recipe(layout)
    test, trace = made.data.test, Hutchinson(2) if solver is FEW else None
    drawn = list(verbs.chunks(made, 7, seed=3, solver=solver, trace=trace, chunk=1))
    for k, one in enumerate(drawn):
        generator, like = torch.Generator().manual_seed(verbs.seed_of(3, k)), test.select([k % len(test)])
        if trace is None:
            assert torch.allclose(one.batch.x, made.flow.sample(like, generator, solver).x, atol=1e-12)
        else:
            batch, log_prob, _ = made.flow.sample_and_log_prob(like, generator, solver, trace)
            assert one.log_prob is not None and torch.allclose(one.batch.x, batch.x, atol=1e-12)
            assert torch.allclose(one.log_prob, log_prob, atol=1e-12)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"number": 0}, "at least 1, got 0"),
        ({"chunk": 0}, "at least 1, got 3, 0"),
        ({"solver": Stochastic(steps=5), "trace": Exact()}, "a stochastic equation has no log-density"),
        ({"solver": Solver("rk4", steps=1), "trace": Exact()}, "a single step gives no usable log-density"),
    ],
)
def test_settings_that_make_no_sense_are_refused_at_the_call(settings: dict[str, Any], named: str) -> None:
    made = recipe()
    with pytest.raises(ValueError, match=named):
        verbs.chunks(made, settings.pop("number", 3), **settings)
    assert made.flow.velocity.calls == 0


# -- memory ----------------------------------------------------------------------------------------------


class Watch:
    """A `keep` that counts the chunks whose numbers are still held, when the next is made."""

    def __init__(self, keep: Any) -> None:
        self.keep, self.refs, self.most = keep, [], 0

    def __call__(self, samples: range, make: Any) -> dict[str, torch.Tensor]:
        self.most = max(self.most, sum(r() is not None for r in self.refs))
        found = self.keep(samples, make)
        self.refs.append(weakref.ref(found["x"]))
        return found


@LAYOUTS
def test_memory_does_not_grow_with_the_number_of_samples(layout: str, tmp_path: Path) -> None:
    made = recipe(layout)
    with Parts.of(tmp_path / "x.npz", {}) as parts:
        watch = Watch(parts)
        deque(verbs.chunks(made, 60, solver=FEW, trace=Exact(), chunk=4, keep=watch), maxlen=0)
        assert made.flow.velocity.largest == 4 and len(watch.refs) == 15
        assert watch.most == 0  # nobody holds what is done while the next is made
        calls = made.flow.velocity.calls

        def again() -> Any:
            return verbs.chunks(made, 60, solver=FEW, trace=Exact(), chunk=4, keep=watch)

        verbs.write_chunks(again, made.data, tmp_path / "x.npz", {})  # joining neither computes nor collects
        assert watch.most == 1 and len(watch.refs) > 15 and made.flow.velocity.calls == calls
    with np.load(tmp_path / "x.npz") as file:
        assert len(file["count"]) == len(file["log_prob"]) == 60


# -- files -----------------------------------------------------------------------------------------------


@LAYOUTS
@pytest.mark.parametrize("chunk", [2, 64])
def test_an_npz_of_chunks_is_that_of_the_whole(layout: str, chunk: int, tmp_path: Path) -> None:
    made, about = recipe(layout), {"seed": 0, "trace": "hutchinson"}
    drawn = list(verbs.chunks(made, 7, trace=Hutchinson(2), chunk=chunk))
    path = verbs.write_chunks(lambda: drawn, made.data, tmp_path / "x", about)
    batch = Batch.join([d.batch for d in drawn])
    wanted: dict[str, Any] = {"x": batch.x, "count": batch.counts}
    wanted |= {f"context.{k}": v for k, v in batch.context.items()}
    wanted["log_prob"] = torch.cat([d.log_prob for d in drawn])  # type: ignore[misc]
    wanted["log_prob_stderr"] = torch.cat([d.stderr for d in drawn])  # type: ignore[misc]
    if layout == "ragged":
        wanted |= {"nodes.z": batch.nodes["z"], "edges.length": batch.edges["length"], "edge_index": batch.edge_index}
    with np.load(path, allow_pickle=False) as file:
        assert set(file) == {*wanted, "about"} and file["about"].tolist() == ["seed=0", "trace=hutchinson"]
        for name, value in wanted.items():
            assert file[name].dtype == value.numpy().dtype and np.array_equal(file[name], value.numpy()), name
    assert np.array_equal(read_samples(path), batch.x.numpy())


def export(batch: Batch) -> Any:
    import xarray as xr

    return xr.Dataset({"height": (("realization", "y", "x"), batch.x[:, 0].numpy(), {"units": "m"})})


def other_dims(batch: Batch) -> Any:
    import xarray as xr

    return xr.DataArray(batch.x[:, 0].numpy(), dims=("draw", "y", "x"), attrs={"units": "m"})


@pytest.mark.parametrize(("how", "dim"), [(export, "realization"), (other_dims, "draw")])
def test_netcdf_holds_the_log_density_beside_the_samples_and_is_still_read(how: Any, dim: str, tmp_path: Path) -> None:
    xr: Any = pytest.importorskip("xarray")
    made = recipe(export=how, unit="m")
    drawn = list(verbs.chunks(made, 7, trace=Hutchinson(2), chunk=3))
    path = verbs.write_chunks(lambda: drawn, made.data, tmp_path / "x", {"seed": 4, "trace": "hutchinson"})
    x = torch.cat([d.batch.x for d in drawn]).numpy()
    with xr.open_dataset(path) as file:
        assert file["log_prob"].dims == file["log_prob_stderr"].dims == (dim,)
        assert np.array_equal(file["log_prob"], np.concatenate([d.log_prob for d in drawn]))  # type: ignore[arg-type]
        assert np.array_equal(file["log_prob_stderr"], np.concatenate([d.stderr for d in drawn]))  # type: ignore[arg-type]
        told = file["log_prob"].attrs
        assert (
            told["units"] == "1"
            and "in nats" in told["long_name"]
            and told["trace"] == "hutchinson"
            and told["probes"] == 2
        )
        assert "natural logarithm" in told["long_name"] and "(m)^D" in told["comment"]
        assert file.attrs["scifm_seed"] == 4 and "scifm" in file.attrs["history"]
    assert np.array_equal(read_samples(path, (1, 3, 4)), x) and np.array_equal(read_samples(path), x)
    plain = verbs.write_samples(Batch.join([d.batch for d in drawn]), made.data, tmp_path / "y.nc", {})
    with xr.open_dataset(plain) as file:
        assert "log_prob" not in file


def test_a_log_density_of_samples_on_a_lattice_says_that_they_were_rounded(tmp_path: Path) -> None:
    from scifm.labelled import units_of

    whole = Batch(torch.arange(8.0).reshape(4, 2))
    assert "rounded to steps of 1" in units_of(Data("counts", whole, whole, whole, delta=1.0))
    assert "rounded" not in units_of(Data("numbers", whole, whole, whole))


# -- scores ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trace", [Exact(), Hutchinson(2)])
def test_a_score_of_kept_chunks_is_the_same_to_the_last_digit(trace: Any, tmp_path: Path) -> None:
    made, done = recipe(), []
    settings: dict[str, Any] = {"delta": 0.1, "trace": trace, "chunk": 2, "check": 0}

    def score(**more: Any) -> Any:
        generator = torch.Generator().manual_seed(3)
        return bits_per_dim(made.flow, made.data.test, generator=generator, **settings, **more)

    def stop(samples: int) -> None:
        done.append(samples)
        if len(done) == 2:
            raise KeyboardInterrupt

    with Parts.of(tmp_path / "score.json", {}) as parts:
        with pytest.raises(KeyboardInterrupt):
            score(keep=parts, progress=stop)
        assert parts.done == 4
        after = score(keep=parts)
        calls = made.flow.velocity.calls
        assert score(keep=parts) == after == score() and "probe" in after.trace or trace == Exact()
        assert made.flow.velocity.calls > calls  # the last one made its own
        calls = made.flow.velocity.calls
        score(keep=parts)
        assert made.flow.velocity.calls == calls


def test_a_split_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match="one of test, valid, train, got 'tset'"):
        verbs.held_out(recipe(), "tset")
    with pytest.raises(ValueError, match="at least one sample, got 0"):
        verbs.held_out(recipe(), samples=0)
    assert len(verbs.held_out(recipe(), samples=3)) == 3
