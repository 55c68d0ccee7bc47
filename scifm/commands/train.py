"""`scifm train RECIPE [flags]` and `scifm train --resume RUN`: train, then sample, score and report."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scifm.commands.resumable import chunked, settings_of
from scifm.commands.words import Parser, WrongUse, bar, machine, machine_flags, whole
from scifm.data.fetch import sha256_of
from scifm.recipe import RecipeFile, load_recipe
from scifm.run import Run

if TYPE_CHECKING:
    from scifm.recipe import Recipe
    from scifm.track import Tracker

__all__ = ["command"]


def command(words: Sequence[str]) -> int:
    """`scifm train RECIPE [flags]` or `scifm train --resume RUN`."""
    # A first look for the recipe, whose flags are not known before it is.
    first, rest = _train_parser(help=False).parse_known_args([w for w in words if w not in ("-h", "--help")])
    parser = _train_parser()
    if first.resume is not None:
        with _heedless():
            return _resume(parser, words)
    if first.recipe is None:
        parser.understand(words)
        parser.error("expected a recipe: a Python file, or one of `scifm list recipes`.")
    file = _recipe_file(parser, first.recipe, rest)
    reserved = {action.dest for action in parser._actions}
    if taken := [f.name for f in file.flags if f.name in reserved]:
        raise WrongUse(f"{file.path}: the keyword {taken[0]!r} is a flag of `scifm train`; rename it in the recipe.")
    group = parser.add_argument_group(f"flags of {file.name}", file.doc.splitlines()[0] if file.doc else None)
    for flag in file.flags:
        flag.add_to(group)
    found = vars(parser.understand(words))
    given = {f.name: found[f.name] for f in file.flags if f.name in found}
    if found["out"] is not None:
        Run.check_free(found["out"].expanduser())
    with _heedless():
        return _train(file, given, found)


def _train_parser(help: bool = True) -> Parser:
    parser = Parser("train", "Train a recipe, then sample, score and report it.", add_help=help)
    parser.add_argument("recipe", nargs="?", metavar="RECIPE", help="a Python file, or one of `scifm list recipes`")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="new folder (default runs/<recipe>-<number>)")
    parser.add_argument("--seed", type=whole, metavar="INT", help="decides weights, data order and noise (default 0)")
    machine_flags(parser)
    parser.add_argument("--track", choices=("mlflow", "none"), help="default mlflow, or as the run began")
    parser.add_argument("--resume", type=Path, metavar="RUN", help="go on with a run that was stopped, bit for bit")
    return parser


def _recipe_file(parser: Parser, where: str, rest: Sequence[str]) -> RecipeFile:
    try:
        return load_recipe(where)
    except FileNotFoundError as error:
        # The value of an unknown flag that comes before the recipe looks like the recipe: `--sed 3 moons`.
        unknown = [word for word in rest if word.startswith("--")]
        if unknown and not where.endswith(".py"):
            parser.no_flag(unknown[0], "The recipe comes before its own flags.")
        raise WrongUse(str(error)) from error


def _train(file: RecipeFile, given: dict[str, Any], found: dict[str, Any]) -> int:
    device, threads = machine(found["device"], found["threads"])
    import torch

    seed = found["seed"] or 0
    torch.manual_seed(seed)  # a recipe's networks draw their weights from torch's global source
    from scifm.priors.choice import choices

    function = file.function()
    with choices() as chosen:
        recipe = file.build(given, function)
    run = Run.create(
        found["out"] and found["out"].expanduser(),
        file,
        given,
        recipe.data.files,
        None if recipe.data.spec is None else recipe.data.spec.to_json(),
        seed=seed,
        device=device,
        threads=threads,
        track=found["track"] or "mlflow",
        parameters=sum(p.numel() for p in recipe.flow.parameters()),
        keywords=file.keywords(function, given),
        numbers=recipe.numbers(),
        choices=chosen,
        dtype=str(recipe.data.first.x.dtype).removeprefix("torch."),
        summary=recipe.data.summary,
    )
    with run.lock():
        return _carry_out(run, recipe, device, resume=False)


def _resume(parser: Parser, words: Sequence[str]) -> int:
    found = parser.understand(words)
    if found.recipe is not None or found.out is not None or found.seed is not None:
        parser.error("--resume takes the recipe, its flags, the seed and the folder from the run; leave them out.")
    run = Run.open(found.resume)
    _refuse_finished(run)
    if run.status == "running":
        raise WrongUse(f"{run.folder} is being trained by another process.")
    from scifm import checkpoint

    with run.lock():  # nothing of the run is changed without it
        run = Run.open(run.folder)  # as the process left it that held the lock before
        _refuse_finished(run)
        # the same number of threads, or sums are added in another order and the last bits differ
        device = run.record["device"] if found.device == "auto" else found.device
        device, _ = machine(device, found.threads or run.record["threads"])
        recipe = run.build()
        resume = bool(checkpoint.steps(run.folder / "checkpoints"))  # none yet: begin again, from the same seed
        track = found.track or run.record.get("track", "mlflow")
        return _carry_out(run.update(status="running", track=track), recipe, device, resume)


def _refuse_finished(run: Run) -> None:
    if run.record["status"] == "finished":
        again = f"scifm score {shlex.quote(str(run.folder))} --output again.json"
        raise WrongUse(f"{run.folder} is finished, there is nothing to resume; `{again}` scores it again.")


def _carry_out(run: Run, recipe: Recipe, device: str, resume: bool) -> int:
    """Train, sample, score, report; whatever happens, the run and its tracker know how it ended."""
    from scifm.track import open_tracker
    from scifm.train import train as fit

    record, status = run.record, "FAILED"
    print(
        f"{recipe.data.summary}\n{run.folder}: {record['parameters']:,} parameters on {device}, seed {record['seed']}"
    )
    tracker = open_tracker(record["track"], record["recipe"], f"{record['recipe']}-{record['seed']}", run.folder)
    try:
        tracker.log_params(_params(record))
        tracker.artifact(run.folder / "recipe.py")
        flow = fit(
            recipe, run.folder, seed=record["seed"], device=device, tracker=tracker,
            resume=resume, progress=sys.stderr.isatty(),
        )  # fmt: skip
        run = run.update(status="trained")
        run = _finish(run, replace(recipe, flow=flow), device, tracker)
        run, status = run.update(status="finished"), "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        if run.record["status"] == "running":
            run = run.update(status="interrupted")
        print(f"\ninterrupted; go on with: scifm train --resume {run.folder}", file=sys.stderr)
        return 130
    except Exception:
        if run.record["status"] == "running":
            with contextlib.suppress(OSError):  # on a full disk the first error is the one to show
                run = run.update(status="failed")
        raise
    finally:
        tracker.close(status)
    return 0


def _params(record: dict[str, Any]) -> dict[str, Any]:
    git = record["git"] or {}
    params = {**record["keywords"], **{f"recipe.{k}": v for k, v in record["numbers"].items()}}
    params |= {k: record[k] for k in ("seed", "device", "threads", "parameters", "recipe")}
    params |= {f"version.{k}": v for k, v in record["versions"].items()}
    return params | {"git.commit": git.get("commit", "none"), "git.dirty": git.get("dirty", "none")}


def _finish(run: Run, recipe: Recipe, device: str, tracker: Tracker) -> Run:
    """Samples, score, figures and page; what this made before the run was cut off is kept."""
    from scifm import verbs
    from scifm.commands.report import draw_report
    from scifm.proof import proof
    from scifm.whole import whole

    seed, step, number = run.record["seed"], recipe.steps, recipe.test_samples
    if not _is_final(run, run.samples, step):
        for name in ("samples.nc", "samples.npz"):
            _set_aside(run.folder / name)
        run = _note_final(run, _sample(run, recipe, number, device), step)
    if recipe.data.spec is not None:
        run = run.update(proof=proof(recipe))
    path, scored = run.folder / "score.json", recipe.flow.prior.has_density
    if scored and not _is_final(run, path, step):
        with bar("score", min(number, len(recipe.data.test))) as shown:
            result = verbs.score(recipe, seed=seed, device=device, progress=shown.update)
        _set_aside(path)
        more = whole(recipe.flow.prior, recipe.data, verbs.held_out(recipe).to(device), result)
        about = {"split": "test", "seed": seed, "step": step, "weights": "ema", "unit": recipe.data.unit}
        verbs.write_score(path, result, whole=more, **about)
        run = _note_final(run, path, step)
    _publish(run, tracker, recipe.steps)
    if scored:
        print(f"\n{run.score['line'].replace(' | ', chr(10) + '  ')}")  # type: ignore[index]
    else:
        print(f"\nno score: {type(recipe.flow.prior).__name__} has no density, so the flow has no likelihood")
    made = draw_report(run, recipe)
    for file in [p for p in (run.samples, path if scored else None, *made) if p is not None]:
        tracker.artifact(file)
    print(f"{run.samples}\n{run.folder / 'report.md'}")
    return run


def _sample(run: Run, recipe: Recipe, number: int, device: str) -> Path:
    """Samples in chunks, as `scifm sample` draws them; what was drawn before the run was cut off is not drawn again."""
    from scifm import verbs
    from scifm.samples import solver_words
    from scifm.solve import Solver

    seed, step, solver, data = run.record["seed"], recipe.steps, Solver(), recipe.data
    output = verbs.output(run.folder / "samples", data)
    decide = {"number": number, "seed": seed, "step": step, "solver": repr(solver), "device": device}
    settings = settings_of(run, recipe, data.test, argparse.Namespace(weights="ema", chunk=64), decide)
    about = {"run": run.folder.name, "seed": seed, "step": step, "recipe": run.record["recipe"], **solver_words(solver)}
    with bar("sample", number) as shown, chunked(output, settings, number, overwrite=True) as parts:
        chunks = partial(verbs.chunks, recipe, number, seed=seed, device=device, solver=solver, chunk=64, keep=parts)
        path = verbs.write_chunks(chunks, data, output, about, first=chunks(progress=shown.update))
        parts.remove()
    return path


def _note_final(run: Run, path: Path, step: int) -> Run:
    """Record that a file was made here, after the whole training, with the recipe's settings."""
    entry = {"step": step, "sha256": sha256_of(path)}
    return run.update(final={**run.record.get("final", {}), path.name: entry})


def _is_final(run: Run, path: Path | None, step: int) -> bool:
    """Whether a file is there, byte for byte as `_note_final` saw it."""
    if path is None or not path.exists():
        return False
    return run.record.get("final", {}).get(path.name) == {"step": step, "sha256": sha256_of(path)}


def _set_aside(path: Path) -> None:
    """Give up a name that a user's own score or samples took; nothing is lost."""
    if not os.path.lexists(path):
        return
    names = (f"{path.stem}-before{'' if n == 1 else f'-{n}'}{path.suffix}" for n in itertools.count(1))
    aside = next(p for name in names if not os.path.lexists(p := path.with_name(name)))
    path.rename(aside)
    print(f"{path} was not made at the end of the training; it is now {aside.name}")


def _publish(run: Run, tracker: Tracker, step: int) -> None:
    score = run.score or {}
    names = ("value", "stderr", "probe_stderr", "solver_error", "nfe")
    metrics = {f"test/bits_per_dim{'' if k == 'value' else '_' + k}": score.get(k) for k in names}
    for name, estimate in score.get("baselines", {}).items():
        metrics[f"test/baseline/{name}"] = estimate["value"]
    metrics |= {f"test/{k}": score[k]["value"] for k in ("nats", "floor", "sizes") if k in score}
    tracker.log({k: v for k, v in metrics.items() if v is not None}, step)
    settings = ("samples", "delta", "draws", "trace", "solver", "split")
    tracker.log_params({f"score.{k}": score.get(k) for k in settings})


# -- a reader that goes away ---------------------------------------------------------------------------


class _Heedless:
    """An output stream that may be closed by its reader: what is written then is lost, and nothing else."""

    def __init__(self, stream: Any):
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with self._lost():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._lost():
            self._stream.flush()

    @contextlib.contextmanager
    def _lost(self) -> Iterator[None]:
        try:
            yield
        except OSError:  # also what is still in the buffer must go somewhere when Python ends
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


@contextlib.contextmanager
def _heedless() -> Iterator[None]:
    """Train on where nobody reads the output any more: `scifm train moons | head -1`, or `>&-`."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed from the start: Python would give its number to the next file
            setattr(sys, name, open(os.devnull, "w"))
    out, err = _Heedless(sys.stdout), _Heedless(sys.stderr)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):  # type: ignore[type-var]
        try:
            yield
        finally:
            out.flush()
            err.flush()
