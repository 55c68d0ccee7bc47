"""Training: one loop, readable from top to bottom.

Everything that happens at step s follows from the seed, s and the state in the last checkpoint: which samples are
drawn, and with which x0 they are paired, is a function of (seed, s), see `scifm.pairs`; times and the noise of the path
come from one generator whose state is saved.  So a run that was killed and resumed ends in the same bytes as one that
was not, with the same number of threads.  On CUDA the sums of ragged sets are atomic, and the last digits may differ.

Where torch.distributed is initialised, each process takes its share of every batch, gradients are averaged, and the
first process writes.  `scifm.step` is what happens within a step.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, distributed

from scifm import checkpoint
from scifm.bits import known
from scifm.flow import Flow
from scifm.history import History
from scifm.interruptions import interruptions
from scifm.likelihood import bits_per_dim, dequantise
from scifm.pairs import Pairs
from scifm.provenance import versions
from scifm.randomness import restore_states, states
from scifm.schedule import learning_rate, seed_of
from scifm.solve import Solver, SolverError
from scifm.step import State, TrainingError, update
from scifm.trace import Hutchinson

if TYPE_CHECKING:
    from scifm.recipe import Recipe

__all__ = ["TrainingError", "train"]


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

    Under DDP (torchrun, and `torch.distributed.init_process_group` before this call) every process calls this with the
    same recipe, weights, folder and seed, and its own device; the recipe's batch is that of all of them together.

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
    rank, world = state.rank, state.world
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)  # for dropout, which knows no other source
    if world > 1:
        distributed.barrier()  # a checkpoint that the first process is still writing is waited for
    step = _restore(folder, state) if resume else 0
    if rank:  # times and dropout of its own; the record is kept by the first process
        torch.manual_seed(seed_of(seed, "dropout", rank, step))
        state.generator.manual_seed(seed_of(seed, "times", rank, step))
        tracker, progress = None, False
    history = History(folder / (f"metrics-{rank}.jsonl" if rank else "metrics.jsonl"), tracker, step)
    pairs, bar = Pairs(recipe, seed, device, (rank, world)), _bar(recipe.steps, step, progress)

    with interruptions() as interrupted, pairs, bar:
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
            if not rank and (step % recipe.checkpoint_every == 0 or last):
                _save(folder, step, state)
            if last and step < recipe.steps:
                raise KeyboardInterrupt
    return state.ema


@torch.no_grad()
def _validate(ema: Flow, recipe: Recipe, device: str) -> dict[str, float]:
    """Loss and likelihood of a fixed, evenly spread subset of the validation data, with fixed noise."""
    valid = recipe.data.valid
    count = min(recipe.valid_samples, len(valid))
    subset = valid.select(torch.linspace(0, len(valid) - 1, count).long())
    generator = torch.Generator().manual_seed(0)
    batch = dequantise(subset, recipe.data.delta, generator).to(device)
    row = {"valid/loss": float(ema.loss(batch, generator).mean())}
    if not ema.prior.has_density:  # from data to data: there is no likelihood
        return row
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
    nll = "" if bits is None else f", NLL {bits:.3f} ± {known(row['valid/bits_per_dim_stderr'])} bits/dim"
    return f"step {step}: validation loss {row['valid/loss']:.4f}{nll}"


def _bar(total: int, initial: int, progress: bool) -> Any:
    from tqdm import tqdm

    return tqdm(total=total, initial=initial, disable=not progress, unit="step", desc="train", dynamic_ncols=True)
