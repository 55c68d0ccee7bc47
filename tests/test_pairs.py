"""Pairs of training: a pure function of (seed, block), by whatever thread, rank or order they are asked for."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from torch import nn

from scifm import Batch, Flow, Recipe, checkpoint, couplings, networks, priors
from scifm.data import Data, moons
from scifm.data.transforms import Standardise
from scifm.pairs import Pairs
from scifm.schedule import draw, seed_of
from scifm.train import train


class Still(nn.Module):
    def forward(self, t, x, batch):
        return torch.zeros_like(x)


def dense(n, g, labels=0):
    context = {"number": torch.arange(n)}
    if labels:
        context["label"] = torch.arange(n) % labels
    return Batch(5 + 2 * torch.randn(n, 2, generator=g), context=context)


def ragged(n, g, labels=0):
    sizes = torch.arange(n) % 3 + 1
    index = torch.repeat_interleave(torch.arange(n), sizes)
    return Batch(torch.randn(len(index), 2, generator=g), index, n, context={"number": torch.arange(n)})


def recipe(coupling=None, kind=dense, n=60, labels=0, delta=None, **numbers):
    g = torch.Generator().manual_seed(1)
    splits = [kind(m, g, labels) for m in (n, 6, 6)]
    if delta:
        splits = [s.replace((s.x / delta).round() * delta) for s in splits]
    coupling = couplings.OptimalTransport(ignore=("number",)) if coupling is None else coupling
    flow = Flow(Still(), priors.Gaussian(), coupling=coupling, transform=Standardise().fit(splits[0]))
    settings = {"batch_size": 8, "pool": 3, "steps": 100}
    return Recipe(flow, Data("points", *splits, delta=delta), **{**settings, **numbers})


def all_pairs(r, steps, seed=0, **settings):
    with Pairs(r, seed, **settings) as pairs:
        return [pairs.at(step) for step in steps]


def equal(a, b):
    return all(
        torch.equal(p.x, q.x) and torch.equal(x0, y0) and torch.equal(p.context["number"], q.context["number"])
        for (p, x0), (q, y0) in zip(a, b, strict=True)
    )


def cost(r, pairs):
    return float(torch.cat([(r.flow.transform(b).x - x0).square().sum(1) for b, x0 in pairs]).mean())


@pytest.mark.parametrize("kind", [dense, ragged])
@pytest.mark.parametrize("coupling", [couplings.independent, None])
@pytest.mark.parametrize("pool", [1, 3])
def test_pairs_are_a_pure_function_of_seed_and_step(kind, coupling, pool):
    r = recipe(coupling, kind, pool=pool, delta=0.5)
    forward = all_pairs(r, range(9))
    order = [7, 2, 8, 0, 0, 5, 3, 1, 6, 4]
    shuffled = dict(zip(order, all_pairs(r, order), strict=True))
    assert equal(forward, [shuffled[s] for s in range(9)])
    assert equal(forward, all_pairs(r, range(9), ahead=False))
    assert equal(forward[4:], all_pairs(r, range(4, 9)))  # as after a resume, in the middle of a block
    assert not equal(forward, all_pairs(r, range(9), seed=1))
    assert not torch.equal(forward[0][1], forward[3][1])


@pytest.mark.parametrize("pool", [1, 2, 5])
def test_the_samples_of_a_step_do_not_depend_on_the_pool(pool):
    r = recipe(pool=pool)
    for step, (batch, _) in enumerate(all_pairs(r, range(12), seed=4)):
        samples = draw(60, 8, step, seed=4)
        assert torch.equal(batch.context["number"], samples)
        assert torch.equal(batch.x, r.data.train.x[samples])


@pytest.mark.parametrize("kind", [dense, ragged])
@pytest.mark.parametrize("pool", [1, 3])
@pytest.mark.parametrize("world", [2, 4])
def test_the_ranks_together_have_the_pairs_of_one_process(kind, pool, world):
    r = recipe(kind=kind, pool=pool, delta=0.5)
    whole = all_pairs(r, range(7))
    parts = [all_pairs(r, range(7), part=(rank, world)) for rank in range(world)]
    for step, (batch, x0) in enumerate(whole):
        layout = batch.replace(x0)
        for rank in range(world):
            mine, own = parts[rank][step]
            chosen = range(rank, len(batch), world)
            assert torch.equal(mine.x, batch.select(chosen).x) and torch.equal(own, layout.select(chosen).x)
            assert len(mine) == len(batch) // world


def test_a_batch_that_cannot_be_dealt_evenly_is_refused():
    with pytest.raises(ValueError, match=r"batch_size=8 cannot be dealt to rank 0 of 3 .* multiple"):
        Pairs(recipe(), 0, part=(0, 3))
    with pytest.raises(ValueError, match="rank 2 of 2"):
        Pairs(recipe(), 0, part=(2, 2))


def test_the_pool_is_paired_as_one():
    """The pairs of a block are the coupling of all its draws with all its samples, which no batch of it knows."""
    r = recipe(pool=4)
    pairs = all_pairs(r, range(4))
    x1 = torch.cat([r.flow.transform(b).x for b, _ in pairs])
    x0 = torch.cat([x0 for _, x0 in pairs])
    again = couplings.OptimalTransport()(x0.flip(0), Batch(x1))
    torch.testing.assert_close(again, x0)
    plain = torch.cat([x0 for _, x0 in all_pairs(recipe(Watched(), pool=4), range(4))])
    assert torch.equal(x0.sort(0).values, plain.sort(0).values)  # each draw once, and the same draws


def test_a_larger_pool_gives_shorter_paths():
    costs = [cost(r, all_pairs(r, range(48))) for r in (recipe(n=384, pool=p) for p in (1, 4, 16))]
    plain = recipe(couplings.independent, n=384)
    assert costs[2] < 0.9 * costs[1] < 0.8 * costs[0] < 0.5 * cost(plain, all_pairs(plain, range(48)))


def test_a_pool_larger_than_the_data_takes_from_several_epochs():
    r = recipe(n=10, pool=5)  # 40 samples a block
    numbers = torch.cat([b.context["number"] for b, _ in all_pairs(r, range(5))])
    assert torch.bincount(numbers).tolist() == [4] * 10
    assert equal(all_pairs(r, range(5)), all_pairs(r, range(5), ahead=False))


def test_labels_stay_with_their_samples_and_pairs_do_not_cross_them():
    r = recipe(couplings.OptimalTransport(ignore=("number",)), labels=3, pool=4)
    pairs = all_pairs(r, range(4))
    for batch, _ in pairs:
        assert torch.equal(batch.context["label"], batch.context["number"] % 3)
    plain = all_pairs(recipe(Watched(), labels=3, pool=4), range(4))
    for label in range(3):
        kept, drawn = (torch.cat([x0[b.context["label"] == label] for b, x0 in p]) for p in (pairs, plain))
        assert torch.equal(kept.sort(0).values, drawn.sort(0).values)


def test_draws_follow_the_prior_and_the_dtype():
    r = recipe(couplings.independent)
    r = Recipe(Flow(Still(), priors.Gaussian(mean=3.0, std=0.5)), r.data, batch_size=1000, pool=2)
    x0 = torch.cat([x0 for _, x0 in all_pairs(r, range(4))])
    assert abs(float(x0.mean()) - 3) < 0.05 and abs(float(x0.std()) - 0.5) < 0.03
    splits = [Batch(s.x.double()) for s in (r.data.train, r.data.valid, r.data.test)]
    ((batch, x0),) = all_pairs(Recipe(r.flow, Data("double", *splits), batch_size=1), [0])
    assert x0.dtype == batch.x.dtype == torch.float64 and x0.shape == (1, 2)


def test_integers_get_their_noise_before_they_are_paired():
    r = recipe(delta=0.5)
    batch, _ = all_pairs(r, [0])[0]
    noise = batch.x - r.data.train.x[batch.context["number"]]
    assert 0 < noise.abs().max() <= 0.25 and noise.unique().numel() == noise.numel()


# -- the thread ----------------------------------------------------------------------------------------


class Watched:
    """A coupling that tells where it ran and fails at one of its calls."""

    def __init__(self, fails=None):
        self.threads, self.cores, self.fails = [], [], fails
        self.called = threading.Semaphore(0)

    def __deepcopy__(self, memo):
        return self

    def __call__(self, x0, batch, generator=None):
        self.threads.append(threading.current_thread())
        self.cores.append(torch.get_num_threads())
        self.called.release()
        if self.fails == len(self.threads) - 1:
            raise FloatingPointError("no transport plan")
        return x0


def ours():
    return [t for t in threading.enumerate() if t.name.startswith("scifm-pairs")]


def test_the_next_block_is_made_while_this_one_is_used():
    watched = Watched()
    with Pairs(recipe(watched, pool=2, steps=5), 0) as pairs:
        pairs.at(0)
        assert watched.called.acquire(timeout=10) and watched.called.acquire(timeout=10)  # block 1, asked by nobody
        for step in range(1, 5):
            pairs.at(step)
    assert len(watched.threads) == 3  # and none past the last step
    assert threading.current_thread() not in watched.threads and len(set(watched.threads)) == 1


def test_without_looking_ahead_only_what_is_asked_for_is_made():
    watched = Watched()
    with Pairs(recipe(watched, pool=2), 0, ahead=False) as pairs:
        for step in (0, 1, 2):
            pairs.at(step)
    assert len(watched.threads) == 2


def test_the_thread_has_one_core_and_leaves_ours_alone():
    watched, before = Watched(), torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with Pairs(recipe(watched), 0) as pairs:
            pairs.at(0)
        assert torch.get_num_threads() == 2
        later = []
        thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
        thread.start()
        thread.join()
    finally:
        torch.set_num_threads(before)
    assert set(watched.cores) == {1} and later == [2]


def test_independent_pairs_need_no_thread():
    before = set(ours())  # of tests before, on their way out
    with Pairs(recipe(couplings.independent), 0) as pairs:
        pairs.at(0)
        assert set(ours()) <= before


@pytest.mark.parametrize("ahead", [True, False])
def test_an_error_of_the_thread_is_raised_at_its_step(ahead):
    with Pairs(recipe(Watched(fails=1), pool=2), 0, ahead=ahead) as pairs:
        assert pairs.at(0) and pairs.at(1)  # though the next block has failed by now, or will
        with pytest.raises(FloatingPointError, match="no transport plan"):
            pairs.at(2)


def test_a_failed_training_says_why_and_leaves_no_thread(tmp_path):
    r = recipe(Watched(fails=2), pool=2)
    r = Recipe(Flow(networks.MLP(2, hidden=(4,)), r.flow.prior, coupling=r.flow.coupling), r.data, pool=2, steps=50)
    with pytest.raises(FloatingPointError, match="no transport plan"):
        train(r, tmp_path, progress=False)
    for thread in ours():
        thread.join(10)
    assert ours() == []


# -- training on them ----------------------------------------------------------------------------------


def trained(folder, steps=12, **settings):
    torch.manual_seed(0)
    r = recipe(pool=4, steps=steps)
    flow = Flow(networks.MLP(2, hidden=(8,)), r.flow.prior, coupling=r.flow.coupling, transform=r.flow.transform)
    numbers = {"log_every": 2, "valid_every": 6, "checkpoint_every": 2, "warmup": 2, "batch_size": 8, "pool": 4}
    train(Recipe(flow, r.data, steps=steps, **numbers), folder, seed=3, progress=False, **settings)


def final(folder):
    return checkpoint.load(folder / "checkpoints")[0]


@pytest.mark.parametrize("stop", [2, 5, 8])
def test_a_run_resumed_in_the_middle_of_a_block_ends_in_the_same_bytes(tmp_path, stop):
    class Dies:
        def log(self, metrics, step):
            if step > stop:
                raise InterruptedError

    trained(tmp_path / "whole")
    with pytest.raises(InterruptedError):
        trained(tmp_path / "part", tracker=Dies())
    trained(tmp_path / "part", resume=True)
    whole, part = final(tmp_path / "whole"), final(tmp_path / "part")
    assert whole.keys() == part.keys() and all(torch.equal(whole[k], part[k]) for k in whole)


def test_a_run_does_not_depend_on_looking_ahead(tmp_path, monkeypatch):
    trained(tmp_path / "ahead")
    made = Pairs.__init__
    monkeypatch.setattr(Pairs, "__init__", lambda self, *a: made(self, *a, ahead=False))
    trained(tmp_path / "behind")
    a, b = final(tmp_path / "ahead"), final(tmp_path / "behind")
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_pairs_that_are_given_are_used():
    flow = Flow(Still(), priors.Gaussian(), coupling=Watched(fails=0))
    batch = Batch(torch.randn(2, 2))  # B == D: nothing may broadcast
    x0 = torch.randn(2, 2)
    torch.testing.assert_close(flow.loss(batch, x0=x0), (batch.x - x0).square().mean(1))
    with pytest.raises(ValueError, match=r"x0: expected torch.float32 of shape \(2, 2\), got torch.float32 \(2,\)"):
        flow.loss(batch, x0=x0[0])
    with pytest.raises(ValueError, match="got torch.float64"):
        flow.loss(batch, x0=x0.double())


@pytest.mark.parametrize("pool", [0, -1, 1.5, True])
def test_a_pool_is_a_whole_number(pool):
    with pytest.raises((TypeError, ValueError), match="pool must be a whole number of at least 1"):
        recipe(pool=pool)


def test_seeds_differ_between_neighbours_and_things():
    seeds = [seed_of(s, *w) for s in range(5) for w in ((0,), (1,), ("pairs", 0), ("pairs", 1), ("times", 1, 0))]
    assert len(set(seeds)) == len(seeds) and all(0 <= s < 2**56 for s in seeds)


def halfway(n, generator=None):
    """No draw: the only noise is that of the pairs."""
    return torch.full((n,), 0.5, dtype=torch.float64)


def train_twice(folder):
    """Some steps, and more after a resume in the middle of a block; returns the weights."""
    torch.manual_seed(0)
    flow = Flow(networks.MLP(2, hidden=(8,)), priors.Gaussian(), coupling=couplings.OptimalTransport(), times=halfway)
    numbers = {"batch_size": 16, "pool": 2, "checkpoint_every": 4, "valid_every": 100, "valid_samples": 8, "warmup": 2}
    for steps, resume in ((3, False), (9, True)):
        train(Recipe(flow, moons(80), steps=steps, **numbers), folder, progress=False, resume=resume)
    return flow.velocity.state_dict()


def one_of(rank, world, folder):
    torch.set_num_threads(1)
    store = torch.distributed.FileStore(str(folder / "store"), world)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=world)
    torch.save(train_twice(folder), folder / f"weights-{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_train_as_one(tmp_path):
    (tmp_path / "two").mkdir()
    code = "import sys, pathlib, test_pairs; test_pairs.one_of(int(sys.argv[1]), 2, pathlib.Path(sys.argv[2]))"
    words = [[sys.executable, "-c", code, str(rank), str(tmp_path / "two")] for rank in range(2)]
    both = [subprocess.Popen(w, stderr=subprocess.PIPE, cwd=Path(__file__).parent) for w in words]
    one = train_twice(tmp_path / "one")
    for process in both:
        error = process.communicate(timeout=100)[1]
        assert process.returncode == 0, error.decode()
    first, second = (torch.load(tmp_path / "two" / f"weights-{rank}.pt", weights_only=True) for rank in range(2))
    for name in one:
        assert torch.equal(first[name], second[name])
        torch.testing.assert_close(first[name], one[name], rtol=1e-4, atol=1e-5)
    steps = [checkpoint.steps(tmp_path / name / "checkpoints") for name in ("one", "two")]
    assert steps[0] == steps[1] == [8, 9]
