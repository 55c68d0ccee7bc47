"""One step of the optimiser: clipping, averaging and the check for what is not finite, each by its definition."""

import math

import pytest
import torch
from torch import nn

from scifm import Batch, Flow, Recipe, networks, priors
from scifm.data import Data
from scifm.pairs import Pairs
from scifm.step import State, TrainingError, processes, update


def recipe(velocity=None, dtype=torch.float32, **numbers):
    torch.manual_seed(0)
    g = torch.Generator().manual_seed(0)
    data = Data("points", *(Batch(3 + torch.randn(n, 2, generator=g, dtype=dtype)) for n in (40, 5, 5)))
    velocity = networks.MLP(2, hidden=(8,)) if velocity is None else velocity
    settings = {"batch_size": 8, "steps": 100, "warmup": 0, "pool": 2}
    return Recipe(Flow(velocity.to(dtype), priors.Gaussian()), data, **{**settings, **numbers})


def gradient(r, state, step, batch, x0):
    """Loss and gradient as autograd gives them, of the same draws of time; one vector."""
    noise = state.generator.clone_state()
    loss = r.flow.loss(batch, noise, x0).mean()
    parts = torch.autograd.grad(loss, list(r.flow.velocity.parameters()))
    return loss.detach(), torch.cat([p.flatten() for p in parts])


def grads(r):
    return torch.cat([p.grad.flatten() for p in r.flow.velocity.parameters()])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("clip", [1e-3, 0.5, 1e3])
def test_gradients_are_scaled_to_the_norm_of_clip_and_only_down(clip, dtype):
    r = recipe(clip=clip, dtype=dtype)
    state = State.start(r)
    with Pairs(r, 0) as pairs:
        for step in range(6):
            batch, x0 = pairs.at(step)
            loss, whole = gradient(r, state, step, batch, x0)
            value, norm = update(state, r, step, batch, x0)
            torch.testing.assert_close(value, loss)
            torch.testing.assert_close(norm, whole.norm())
            torch.testing.assert_close(grads(r), whole * min(1.0, clip / float(whole.norm())))


def test_averaged_weights_follow_their_recursion():
    r = recipe(ema=0.5, learning_rate=0.1)
    state = State.start(r)
    mean = [p.detach().clone() for p in r.flow.velocity.parameters()]
    with Pairs(r, 0) as pairs:
        for step in range(12):
            update(state, r, step, *pairs.at(step))
            decay = min(0.5, (1 + step) / (10 + step))
            mean = [decay * m + (1 - decay) * p.detach() for m, p in zip(mean, r.flow.parameters(), strict=True)]
    for m, p, q in zip(mean, state.ema.parameters(), r.flow.parameters(), strict=True):
        torch.testing.assert_close(m, p.detach())
        assert not torch.equal(p, q)


class Scaled(nn.Module):
    """A velocity whose loss (w + 1e20, squared) or gradient (steep) is not finite, and the other is."""

    def __init__(self, scale=0.0, steep=False):
        super().__init__()
        self.weight, self.scale, self.steep = nn.Parameter(torch.ones(())), scale, steep

    def forward(self, t, x, batch):
        if self.steep:  # √(w − 1) at w = 1: zero, with an infinite slope
            return x * (self.weight - 1).sqrt()
        return x * 0 + self.weight + self.scale


@pytest.mark.parametrize("velocity", [Scaled(1e20), Scaled(steep=True), Scaled(math.nan), Scaled(math.inf)])
def test_nothing_that_is_not_finite_reaches_the_weights(velocity):
    r = recipe(velocity)
    state = State.start(r)
    with Pairs(r, 0) as pairs:
        batch, x0 = pairs.at(0)
    loss, slope = gradient(r, state, 0, batch, x0)
    assert bool(loss.isfinite()) == velocity.steep and bool(slope.isfinite().all()) == (velocity.scale == 1e20)
    with pytest.raises(TrainingError, match=r"at step 1, in the batch of training samples \[.*lower learning_rate"):
        update(state, r, 0, batch, x0)
    assert float(velocity.weight.detach()) == 1.0 == float(next(state.ema.parameters()))


def test_bad_data_are_named():
    r = recipe()
    with Pairs(r, 0) as pairs:
        batch, x0 = pairs.at(0)
    x = batch.x.clone()
    x[3, 1] = math.nan
    who = int((r.data.train.x == batch.x[3]).all(1).nonzero())
    with pytest.raises(TrainingError, match=rf"not finite for \[{who}\]\. These samples hold NaN"):
        update(State.start(r), r, 0, batch.replace(x), x0)


def test_weights_that_are_not_asked_for_gradients_stay():
    velocity = networks.MLP(2, hidden=(8,))
    for p in velocity.body.parameters():
        p.requires_grad_(False)
    r = recipe(velocity, learning_rate=0.1)
    state = State.start(r)
    before = [p.clone() for p in velocity.body.parameters()]
    with Pairs(r, 0) as pairs:
        for step in range(3):
            update(state, r, step, *pairs.at(step))
    assert all(torch.equal(p, q) for p, q in zip(before, velocity.body.parameters(), strict=True))
    assert velocity.head.weight.abs().max() > 0


def test_one_process_is_the_first_of_one():
    assert processes() == (0, 1)
