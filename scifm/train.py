"""Training: one loop, readable from top to bottom.

Everything that happens at step s follows from the seed, s and the state in the last checkpoint: which samples are
drawn, and with which x0 they are paired, is a function of (seed, s), see `scifm.pairs`; times and the noise of the path
come from one generator whose state is saved.  So a run that was killed and resumed ends in the same bytes as one that
was not, with the same number of threads.  On CUDA the sums of ragged sets are atomic, and the last digits may differ.
"""

from __future__ import annotations

import copy
import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim.swa_utils import get_ema_multi_avg_fn

from scifm import checkpoint
from scifm.batch import Batch
from scifm.flow import Flow
from scifm.history import History
from scifm.interruptions import interruptions
from scifm.likelihood import bits_per_dim, dequantise
from scifm.pairs import Pairs
from scifm.randomness import restore_states, states
from scifm.run import versions
from scifm.schedule import draw, learning_rate
from scifm.solve import Solver, SolverError
from scifm.trace import Hutchinson

if TYPE_CHECKING:
    from scifm.recipe import Recipe

__all__ = ["State", "TrainingError", "train", "update"]


class TrainingError(RuntimeError):
    """Training cannot go on; the message says at which step and batch, and what usually cures it."""


def train(
    recipe: Recipe,
    folder: Path,
    *,
    seed: int = 0,
    device: str = "cpu",
    tracker: Any = None,
    resume: bool = False,
    progress: bool = True,
) -> Flow:
    """Fit the flow of a recipe; checkpoints and metrics go to `folder`.

    Args:
        recipe: flow, data and plain numbers.
        folder: gets `checkpoints/` and `metrics.jsonl`.
        seed: decides the order of the data and all noise. Torch's global state is seeded too, for dropout.
        tracker: has `log(metrics, step)`; None for none.
        resume: go on from the latest checkpoint.

    Returns:
        the flow with averaged (EMA) weights.

    Raises:
        TrainingError: where loss or gradient stop being finite.
        KeyboardInterrupt: after an interruption, once the step is finished and saved.
    """
    state = State.start(recipe, seed, device)
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)  # for dropout, which knows no other source
    step = _restore(folder, state) if resume else 0
    history = History(folder / "metrics.jsonl", tracker, step)

    with (
        interruptions() as interrupted,
        Pairs(recipe, seed, device) as pairs,
        _bar(recipe.steps, step, progress) as bar,
    ):
        while step < recipe.steps:
            batch, x0 = pairs.at(step)
            loss, norm = update(state, recipe, step, batch, x0)
            step += 1

            last = step == recipe.steps or interrupted.is_set()
            history.add(loss, norm)
            bar.update()
            if step % recipe.log_every == 0 or last:
                row = history.write(step, {"train/learning_rate": learning_rate(step - 1, recipe)})
                bar.set_postfix(loss=f"{row['train/loss']:.4f}")
            if step % recipe.valid_every == 0 or step == recipe.steps:
                row = history.write(step, _validate(state.ema, recipe, device))
                bar.write(_line(step, row))
            if step % recipe.checkpoint_every == 0 or last:
                _save(folder, step, state)
            if last and step < recipe.steps:
                raise KeyboardInterrupt
    return state.ema


@dataclass
class State:
    """What changes while training, and what a checkpoint holds."""

    flow: Flow
    ema: Flow
    optimiser: torch.optim.Optimizer
    generator: torch.Generator
    seed: int

    @classmethod
    def start(cls, recipe: Recipe, seed: int = 0, device: str = "cpu") -> State:
        """Before the first step: averaged weights equal to the weights, no moments."""
        flow = recipe.flow.to(device).train()
        ema = copy.deepcopy(flow).requires_grad_(False).eval()
        return cls(flow, ema, _optimiser(flow, recipe), torch.Generator().manual_seed(seed), seed)


def update(state: State, recipe: Recipe, step: int, batch: Batch, x0: Tensor) -> tuple[Tensor, Tensor]:
    """One step of the optimiser; returns the mean loss and the norm of the gradient before clipping, both ().

    Raises:
        TrainingError: where one of them is not finite, before it reaches the weights.
    """
    loss = state.flow.loss(batch, state.generator, x0)
    mean = loss.mean()
    state.optimiser.zero_grad(set_to_none=True)
    mean.backward()
    weights = [p for group in state.optimiser.param_groups for p in group["params"]]
    norm = get_total_norm([p.grad for p in weights if p.grad is not None])
    length, value = torch.stack([norm, mean.detach()]).tolist()  # one wait for the device, not two
    if not math.isfinite(length + value):
        raise _error(loss.detach(), length, batch, recipe, step, state.seed)
    if length + 1e-6 > recipe.clip:
        clip_grads_with_norm_(weights, recipe.clip, norm)
    for group in state.optimiser.param_groups:
        group["lr"] = learning_rate(step, recipe)
    state.optimiser.step()
    _average(state.ema, state.flow, recipe.ema, step)
    return mean.detach(), norm


def _optimiser(flow: Flow, recipe: Recipe) -> torch.optim.AdamW:
    parameters = [p for p in flow.velocity.parameters() if p.requires_grad]
    if not parameters:
        raise TrainingError("train: the flow has no parameters to train; its velocity must be a network.")
    for name, part in (("prior", flow.prior), ("transform", flow.transform)):
        if any(p.requires_grad for p in part.parameters()):
            raise TrainingError(
                f"train: the {name} has parameters that ask for gradients, and the flow-matching loss would collapse "
                "them (a narrow prior is easy to flow from); keep its numbers as buffers and set them in fit."
            )
    settings: dict[str, Any] = {"lr": recipe.learning_rate, "weight_decay": recipe.weight_decay}
    try:
        return torch.optim.AdamW(parameters, fused=True, **settings)
    except RuntimeError:  # this device or dtype has no fused kernel
        return torch.optim.AdamW(parameters, **settings)


@torch.no_grad()
def _average(ema: Flow, flow: Flow, decay: float, step: int) -> None:
    """Move the averaged weights; the average is short at first, or it would remember the initial weights."""
    average = get_ema_multi_avg_fn(min(decay, (1 + step) / (10 + step)))
    average(list(ema.parameters()), [p.detach() for p in flow.parameters()], torch.tensor(step))
    # Running statistics are no weights. Prior and transform have none, and their buffers may be large.
    for mean, now in zip(ema.velocity.buffers(), flow.velocity.buffers(), strict=True):
        mean.copy_(now)


def _error(loss: Tensor, norm: float, batch: Batch, recipe: Recipe, step: int, seed: int) -> TrainingError:
    """What to say of a step that is not finite."""
    samples = draw(len(recipe.data.train), recipe.batch_size, step, seed)
    bad_data = batch.total((~batch.x.isfinite()).double()) > 0
    bad_loss = ~loss.isfinite()
    who = samples[(bad_data | bad_loss).cpu()].tolist()
    if bad_data.any():
        cure = "These samples hold NaN or infinity: fill or drop them."
    else:
        cure = "The data are finite, so the network diverged: lower learning_rate, or raise warmup."
    return TrainingError(
        f"train: loss {float(loss.mean()):.4g}, gradient norm {norm:.4g} at step {step + 1}, in the "
        f"batch of training samples {samples[:6].tolist()}{'...' if len(samples) > 6 else ''}; "
        f"not finite for {who[:6] or 'the gradient only'}. {cure} The last checkpoint is untouched."
    )


@torch.no_grad()
def _validate(ema: Flow, recipe: Recipe, device: str) -> dict[str, float]:
    """Loss and likelihood of a fixed, evenly spread subset of the validation data, with fixed noise."""
    valid = recipe.data.valid
    count = min(recipe.valid_samples, len(valid))
    subset = valid.select(torch.linspace(0, len(valid) - 1, count).long())
    generator = torch.Generator().manual_seed(0)
    batch = dequantise(subset, recipe.data.delta, generator).to(device)
    row = {"valid/loss": float(ema.loss(batch, generator).mean())}
    # Fixed steps and one probe: cheap, and the same noise each time, so that the curve is smooth.
    settings: dict[str, Any] = {"delta": recipe.data.delta, "solver": Solver("rk4", steps=8), "check": 0}
    if int(subset.dims.max()) > 64:
        settings["trace"] = Hutchinson(1)
    try:
        score = bits_per_dim(ema, subset.to(device), generator=torch.Generator().manual_seed(0), **settings)
    except SolverError:  # an early, wild velocity: no number is better than a wrong one
        return row
    return row | {"valid/bits_per_dim": score.value, "valid/bits_per_dim_stderr": score.stderr}


def _save(folder: Path, step: int, state: State) -> None:
    packed, meta = checkpoint.pack(state.optimiser)
    tensors = {f"model.{k}": v for k, v in state.flow.state_dict().items()}
    tensors |= {f"ema.{k}": v for k, v in state.ema.state_dict().items()}
    tensors |= {f"optimiser.{k}": v for k, v in packed.items()}
    random, plain = states(state.generator)
    tensors |= {f"rng.{k}": v for k, v in random.items()}
    recipe = folder / "recipe.py"
    about = {
        "optimiser": meta,
        "rng": plain,
        "seed": state.seed,  # with the step it fixes the position in the data
        "versions": versions(),
        "recipe": recipe.read_text(encoding="utf-8") if recipe.exists() else None,
    }
    checkpoint.save(folder / "checkpoints", step, tensors, about)


def _restore(folder: Path, state: State) -> int:
    tensors, meta, step = checkpoint.load(folder / "checkpoints")

    def part(name: str) -> dict[str, Tensor]:
        return {k[len(name) + 1 :]: v for k, v in tensors.items() if k.startswith(name + ".")}

    if meta["seed"] != state.seed:
        raise TrainingError(
            f"train: the checkpoint is of seed {meta['seed']}, not {state.seed}; resume with that seed."
        )
    now = versions()
    changed = [f"{k} {v} -> {now.get(k)}" for k, v in meta["versions"].items() if now.get(k) != v]
    if changed:
        warnings.warn(f"resumed with other versions ({', '.join(changed)}): expect other last digits", stacklevel=3)
    state.flow.load_state_dict(part("model"))
    state.ema.load_state_dict(part("ema"))
    checkpoint.unpack(state.optimiser, part("optimiser"), meta["optimiser"])
    restore_states(state.generator, part("rng"), meta["rng"])
    return step


def _line(step: int, row: dict[str, float]) -> str:
    bits = row.get("valid/bits_per_dim")
    nll = "" if bits is None else f", NLL {bits:.3f} ± {row['valid/bits_per_dim_stderr']:.3f} bits/dim"
    return f"step {step}: validation loss {row['valid/loss']:.4f}{nll}"


def _bar(total: int, initial: int, progress: bool) -> Any:
    from tqdm import tqdm

    return tqdm(total=total, initial=initial, disable=not progress, unit="step", desc="train", dynamic_ncols=True)
