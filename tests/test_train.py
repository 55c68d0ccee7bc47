"""The training loop: learns, resumes to the byte, stops early on NaN, and treats data as promised."""

import json
import math
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from torch import nn

from scifm import Batch, Flow, Recipe, checkpoint, networks, priors
from scifm.data import Data, moons
from scifm.schedule import draw, learning_rate
from scifm.train import TrainingError, train


def points(n=200, seed=0):
    g = torch.Generator().manual_seed(seed)
    return [Batch(3 + 0.5 * torch.randn(m, 2, generator=g)) for m in (n, 40, 40)]


def recipe(steps=40, velocity=None, data=None, **numbers):
    torch.manual_seed(0)
    velocity = networks.MLP(2, hidden=(16, 16)) if velocity is None else velocity
    data = Data("points", *points()) if data is None else data
    settings = {"batch_size": 16, "log_every": 5, "valid_every": 20, "checkpoint_every": 10, "warmup": 5}
    return Recipe(Flow(velocity, priors.Gaussian()), data, steps=steps, **{**settings, **numbers})


def final(folder):
    """Bytes of the last checkpoint's tensors."""
    last = sorted((folder / "checkpoints").glob("step-*"))[-1]
    return last.name, (last / "state.safetensors").read_bytes()


def test_it_learns_and_keeps_a_record(tmp_path):
    ema = train(recipe(400, learning_rate=1e-2), tmp_path, progress=False)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    losses = [r["train/loss"] for r in rows if "train/loss" in r]
    assert losses[-1] < 0.5 * losses[0]
    bits = [r["valid/bits_per_dim"] for r in rows if "valid/bits_per_dim" in r]
    entropy = 0.5 * math.log2(2 * math.pi * math.e * 0.5**2)  # of the law that made the data
    assert bits[-1] < bits[0] - 0.5 and abs(bits[-1] - entropy) < 0.4
    assert all("valid/bits_per_dim_stderr" in r for r in rows if "valid/bits_per_dim" in r)
    samples = ema.sample(Batch(torch.zeros(200, 2)), torch.Generator().manual_seed(0)).x
    assert (samples.mean(0) - 3).abs().max() < 0.25


@pytest.mark.parametrize("stop", [10, 20, 30])
def test_resuming_ends_in_the_same_bytes(tmp_path, stop):
    train(recipe(), tmp_path / "whole", seed=3, progress=False)
    with pytest.raises(_Killed):
        train(recipe(), tmp_path / "part", seed=3, progress=False, tracker=_Dies(stop + 5))
    torch.manual_seed(123)  # a new process would not have the old one's global state
    train(recipe(), tmp_path / "part", seed=3, progress=False, resume=True)
    assert final(tmp_path / "part") == final(tmp_path / "whole")
    assert (tmp_path / "part" / "metrics.jsonl").read_text() == (tmp_path / "whole" / "metrics.jsonl").read_text()


class _Killed(Exception):
    pass


class _Dies:
    """A tracker that ends the run at a step, between two checkpoints."""

    def __init__(self, step):
        self.step = step

    def log(self, metrics, step):
        if step >= self.step:
            raise _Killed


def test_the_seed_decides(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(recipe(20), tmp_path / name, seed=seed, progress=False)
    assert final(tmp_path / "a") == final(tmp_path / "b") != final(tmp_path / "c")
    with pytest.raises(TrainingError, match="of seed 0, not 5"):
        train(recipe(30), tmp_path / "a", seed=5, resume=True, progress=False)


RUN = [
    sys.executable,
    "-m",
    "scifm",
    "train",
    "moons",
    "--steps",
    "1500",
    "--width",
    "16",
    "--batch-size",
    "32",
    "--track",
    "none",
    "--threads",
    "1",
]


def test_kill_minus_nine_and_resume_ends_in_the_same_bytes(tmp_path):
    """Real processes: one runs through, one is killed at an arbitrary moment and resumed."""
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([*RUN, "--out", str(tmp_path / "whole")], check=True, env=env, capture_output=True)
    victim = subprocess.Popen([*RUN, "--out", str(tmp_path / "part")], env=env, stderr=subprocess.DEVNULL)
    metrics = tmp_path / "part" / "metrics.jsonl"
    deadline = time.time() + 120
    while time.time() < deadline and not (metrics.exists() and '"step": 300' in metrics.read_text()):
        time.sleep(0.005)
    victim.send_signal(signal.SIGKILL)
    assert victim.wait() == -signal.SIGKILL
    assert 250 <= checkpoint.steps(tmp_path / "part" / "checkpoints")[-1] < 1500
    subprocess.run(
        [*RUN[:3], "train", "--resume", str(tmp_path / "part"), "--track", "none", "--threads", "1"],
        check=True,
        env=env,
        capture_output=True,
    )
    assert final(tmp_path / "part") == final(tmp_path / "whole")


def test_an_interruption_finishes_the_step_and_leaves_a_checkpoint(tmp_path):
    class Interrupts:
        def log(self, metrics, step):
            if step == 15:
                os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)  # ignored, where a shell runs the tests in the background
    with pytest.raises(KeyboardInterrupt):
        train(recipe(), tmp_path / "part", seed=3, progress=False, tracker=Interrupts())
    assert checkpoint.steps(tmp_path / "part" / "checkpoints")[-1] == 16
    assert signal.getsignal(signal.SIGINT) is before
    train(recipe(), tmp_path / "part", seed=3, progress=False, resume=True)
    train(recipe(), tmp_path / "whole", seed=3, progress=False)
    assert final(tmp_path / "part") == final(tmp_path / "whole")


class Explodes(nn.Module):
    """Finite until its weight has been trained a little."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.calls = 0

    def forward(self, t, x, batch):
        self.calls += self.training
        return x * self.weight * (torch.nan if self.calls > 13 else 1.0)


def test_nan_stops_at_once_names_the_batch_and_spares_the_checkpoint(tmp_path):
    with pytest.raises(TrainingError, match=r"at step 14, in the batch of training samples \[.*network diverged"):
        train(recipe(velocity=Explodes(), valid_every=1000), tmp_path, progress=False)
    assert checkpoint.steps(tmp_path / "checkpoints") == [10]
    tensors, _, _ = checkpoint.load(tmp_path / "checkpoints")
    assert all(v.isfinite().all() for v in tensors.values() if v.is_floating_point())


def test_nothing_to_train_is_said(tmp_path):
    class Still(nn.Module):
        def forward(self, t, x, batch):
            return torch.zeros_like(x)

    with pytest.raises(TrainingError, match="no parameters"):
        train(recipe(velocity=Still()), tmp_path, progress=False)


def test_a_learnable_prior_is_refused(tmp_path):
    class Learns(priors.Prior):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def sample(self, like, generator=None):
            return self.scale * like.randn(generator)

        def log_prob(self, x, like):
            return priors.Gaussian(std=self.scale.detach()).log_prob(x, like)

    r = recipe()
    with pytest.raises(TrainingError, match="would collapse"):
        train(Recipe(Flow(r.flow.velocity, Learns()), r.data, steps=3), tmp_path, progress=False)


def test_running_statistics_are_carried_over(tmp_path):
    class Counts(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = networks.MLP(2, hidden=(8,))
            self.register_buffer("seen", torch.zeros(()))

        def forward(self, t, x, batch):
            if self.training:
                self.seen += 1
            return self.net(t, x, batch)

    ema = train(recipe(10, velocity=Counts()), tmp_path, progress=False)
    assert float(ema.velocity.seen) == 10


def test_every_random_state_is_resumed(tmp_path):
    """A network that draws from torch's, NumPy's and Python's global states, as a user's may."""
    import random

    import numpy as np

    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = networks.MLP(2, hidden=(8,))

        def forward(self, t, x, batch):
            if self.training:
                x = x + float(torch.rand(())) + float(np.random.rand()) + random.random()
            return self.net(t, x, batch)

    def seeded():
        random.seed(0)
        np.random.seed(0)
        torch.manual_seed(0)
        return recipe(velocity=Noisy())

    train(seeded(), tmp_path / "whole", progress=False)
    with pytest.raises(_Killed):
        train(seeded(), tmp_path / "part", progress=False, tracker=_Dies(25))
    random.seed(99)
    np.random.seed(99)
    train(recipe(velocity=Noisy()), tmp_path / "part", progress=False, resume=True)
    assert final(tmp_path / "part") == final(tmp_path / "whole")


def test_every_epoch_is_one_shuffle_of_all_samples():
    stream = torch.cat([draw(10, 4, step, seed=1) for step in range(10)])
    for epoch in range(4):
        assert sorted(stream[10 * epoch : 10 * epoch + 10].tolist()) == list(range(10))
    assert stream[:10].tolist() != stream[10:20].tolist()
    assert torch.equal(draw(10, 4, 7, 1), draw(10, 4, 7, 1)) and not torch.equal(draw(10, 4, 7, 1), draw(10, 4, 7, 2))
    assert sorted(draw(3, 7, 0, 0).tolist())[:2] == [0, 0]  # a batch larger than the data takes from several epochs


def test_learning_rate_warms_up_and_falls_to_nothing():
    r = recipe(100, warmup=10, learning_rate=2.0)
    rates = [learning_rate(s, r) for s in range(100)]
    assert rates[0] == pytest.approx(0.2) and max(rates) == pytest.approx(2.0)
    assert rates[9] == pytest.approx(2.0) and rates[-1] < 0.002
    assert all(a >= b for a, b in zip(rates[10:], rates[11:], strict=False))


def test_integer_data_are_dequantised_while_training(tmp_path):
    seen = []

    levels = Data("levels", *(Batch(p.x.round()) for p in points()), delta=1.0)
    flow_recipe = recipe(5, data=levels)
    original = flow_recipe.flow.transform.forward

    def forward(batch):
        seen.append(batch.x)
        return original(batch)

    flow_recipe.flow.transform.forward = forward
    train(flow_recipe, tmp_path, progress=False)
    noisy = seen[0]
    assert not torch.equal(noisy, noisy.round()) and (noisy - noisy.round()).abs().max() <= 0.5


def test_ragged_sets_go_through_the_same_loop(tmp_path):
    g = torch.Generator().manual_seed(0)

    def sets(n):
        sizes = torch.randint(1, 6, (n,), generator=g)
        index = torch.repeat_interleave(torch.arange(n), sizes)
        return Batch(2 + 0.3 * torch.randn(len(index), 3, generator=g), index, n)

    data = Data("sets", sets(100), sets(20), sets(20))
    r = recipe(150, velocity=networks.PointNet(3), data=data, learning_rate=5e-3, valid_every=75, valid_samples=10)
    ema = train(r, tmp_path, progress=False)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    bits = [row["valid/bits_per_dim"] for row in rows if "valid/bits_per_dim" in row]
    assert bits[-1] < 1.3  # white noise around zero would score above 3
    assert ema.sample(data.test, torch.Generator().manual_seed(0)).counts.tolist() == data.test.counts.tolist()


def test_averaged_weights_lag_behind_and_zero_decay_means_none(tmp_path):
    r = recipe(30, ema=0.0)
    ema = train(r, tmp_path / "a", progress=False)
    for p, q in zip(ema.parameters(), r.flow.parameters(), strict=True):
        assert torch.equal(p, q)
    r = recipe(30, ema=0.99)
    ema = train(r, tmp_path / "b", progress=False)
    assert any(not torch.equal(p, q) for p, q in zip(ema.parameters(), r.flow.parameters(), strict=True))
    assert not any(p.requires_grad for p in ema.parameters())


def test_moons_have_an_upper_bound_on_bits(tmp_path):
    """A trained flow beats its own prior on data it has not seen."""
    data = moons(2000)
    torch.manual_seed(0)
    r = Recipe(
        Flow(networks.MLP(2, hidden=(64, 64)), priors.Gaussian()), data, steps=400, batch_size=128, learning_rate=3e-3
    )
    ema = train(r, tmp_path, progress=False)
    score = ema.bits_per_dim(data.test)
    prior = -float(priors.Gaussian().log_prob(data.test.x, data.test).mean()) / 2 / 0.6931
    assert score.value + 3 * score.stderr < prior - 0.3


def test_an_error_that_a_single_sample_does_not_have_is_no_number():
    from scifm.train import _line

    row = {"valid/loss": 1.0, "valid/bits_per_dim": 2.0, "valid/bits_per_dim_stderr": float("nan")}
    assert _line(5, row) == "step 5: validation loss 1.0000, NLL 2.000 ± ? bits/dim"
