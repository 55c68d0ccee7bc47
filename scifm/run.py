"""A run is a folder that holds everything `scifm sample` and `scifm score` need.

    runs/quickstart-1/
      run.json        recipe's name and flags, seed, device, versions, git commit, number of parameters, status, and the
                      bases that the data chose (`scifm.priors.best`)
      recipe.py       copy of the recipe, which is what is run again
      data/           copies of the data's files, where they are small: <number>/<folder>/<file>
      spec.json       what the file of a grid said beside its values (`GridSpec`)
      checkpoints/    step-00002000/: weights, averaged weights, optimiser, random states
      metrics.jsonl   the course of the training, a line per entry
      samples.nc      (or .npz) drawn samples
      score.json      bits per dimension with its error, settings and Gaussian baselines
      figures/  report.md

Files are written beside their place and moved there (`scifm.disk`).
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from scifm import __version__
from scifm.data import fetch
from scifm.disk import atomic, check_output, is_locked, locked, read_json, write_json
from scifm.provenance import copy_data, git_state, versions
from scifm.recipe import RecipeFile, load_recipe, nearest

if TYPE_CHECKING:
    from scifm.data.grids import GridSpec
    from scifm.recipe import Recipe

__all__ = ["FORMAT", "Run"]

FORMAT = 1


@dataclass(frozen=True)
class Run:
    """A run's folder.

    Attributes:
        folder: where it is.
        record: what run.json held when it was opened.
    """

    folder: Path
    record: dict[str, Any]

    # -- making and opening ----------------------------------------------------------------------------

    @staticmethod
    def check_free(folder: Path) -> None:
        """Refuse a place that holds anything.

        Raises:
            FileExistsError: the message says how to go on.
            ValueError: where no folder can be made.
        """
        if not os.path.lexists(folder):
            check_output(folder)
            return
        if (folder / "run.json").exists():
            raise FileExistsError(
                f"{folder} already holds a run: go on with it by `scifm train --resume {folder}`, "
                "or choose another folder with --out."
            )
        if not folder.is_dir() or any(folder.iterdir()):
            what = "is not empty" if folder.is_dir() else "is a file"
            raise FileExistsError(f"{folder} {what}, and nothing is overwritten: choose another with --out.")
        check_output(folder / "run.json")

    @staticmethod
    def create(
        folder: Path | None,
        file: RecipeFile,
        given: Mapping[str, Any],
        files: Sequence[Path] = (),
        spec: str | None = None,
        **record: Any,
    ) -> Run:
        """Make a run's folder.

        Args:
            folder: a new or empty folder; None takes the first free `runs/<recipe>-<number>`.
            file: the recipe, which is copied.
            given: the flags that were given.
            files: what the data were read from; copied where they are under 64 MB together.
            spec: of a grid, as JSON.
            record: more for run.json: seed, device, threads, parameters, ...

        Raises:
            FileExistsError: where the folder holds anything.
        """
        if folder is None:
            folder = _numbered(Path("runs"), file.name)
        else:
            Run.check_free(folder)
            folder.mkdir(parents=True, exist_ok=True)
        with atomic(folder / "recipe.py") as path:
            path.write_text(file.source, encoding="utf-8")
        if spec is not None:
            with atomic(folder / "spec.json") as path:
                path.write_text(spec, encoding="utf-8")
        data = copy_data(files, folder)
        full = {
            "format": FORMAT,
            "recipe": file.name,
            "source": str(file.path.resolve()),
            "flags": dict(given),
            "cwd": os.getcwd(),
            "status": "running",
            "started": datetime.now().astimezone().isoformat(timespec="milliseconds"),
            **record,
            "data": data,
            "versions": versions(),
            "git": git_state(Path(__file__).resolve().parent.parent, exact=True),
            "recipe_git": git_state(file.path.resolve().parent),
        }
        write_json(folder / "run.json", full)  # last: with it the folder is a run
        return Run(folder, full)

    @staticmethod
    def open(folder: Path | str) -> Run:
        """Open a run.

        Raises:
            FileNotFoundError: where the folder is no run; the message names the nearest that is.
            ValueError: where run.json is damaged or of another version.
        """
        folder = Path(folder).expanduser()
        path = folder / "run.json"
        if not path.is_file():
            options = {r.folder.name: str(r.folder) for r in [*Run.all(folder.parent), *Run.all(Path("runs"))]}
            hint = nearest(folder.name, options)
            for name, place in options.items():
                hint = hint.replace(f"{name!r}", f"{place!r}")
            what = "holds no run (no run.json)" if folder.is_dir() else "is no run: there is no such folder"
            raise FileNotFoundError(f"{folder} {what}.{hint or ' `scifm list runs` shows those in runs/.'}")
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            number = record["format"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is damaged or was not written by scifm.") from error
        if number != FORMAT:
            raise ValueError(f"{path} has format {number}; this scifm {__version__} reads format {FORMAT}.")
        return Run(folder, record)

    @staticmethod
    def all(folder: Path) -> list[Run]:
        """The readable runs directly in a folder, oldest first."""
        runs = []
        for path in folder.glob("*/run.json") if folder.is_dir() else ():
            with contextlib.suppress(ValueError, OSError):
                runs.append(Run.open(path.parent))
        return sorted(runs, key=lambda r: str(r.record.get("started")))

    # -- its parts -------------------------------------------------------------------------------------

    @property
    def status(self) -> str:
        """running, stopped (killed: resume it), interrupted, failed, trained or finished."""
        status = str(self.record.get("status"))
        if status != "running" or self._locked():
            return status
        return "stopped"

    @property
    def score(self) -> dict[str, Any] | None:
        """Contents of score.json, if there is one."""
        return read_json(self.folder / "score.json")

    @property
    def metrics(self) -> list[dict[str, float]]:
        """The lines of metrics.jsonl, in order; a last line that was cut short is left out."""
        path = self.folder / "metrics.jsonl"
        rows = []
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
            with contextlib.suppress(ValueError):
                rows.append(json.loads(line))
        return rows

    @property
    def samples(self) -> Path | None:
        """The file of drawn samples, if there is one."""
        found = [p for p in (self.folder / "samples.nc", self.folder / "samples.npz") if p.exists()]
        return found[0] if found else None

    @property
    def spec(self) -> GridSpec | None:
        """What the file of a grid said beside its values; None where there was none.

        Raises:
            ValueError: where spec.json is damaged.
        """
        from scifm.data.grids import GridSpec

        path = self.folder / "spec.json"
        return GridSpec.from_json(path.read_text(encoding="utf-8")) if path.exists() else None

    def update(self, **record: Any) -> Run:
        """Change entries of run.json; the run with its new record."""
        record = {**self.record, **record}
        write_json(self.folder / "run.json", record)
        return Run(self.folder, record)

    def recipe_file(self) -> RecipeFile:
        """The copy of the recipe."""
        return load_recipe(self.folder / "recipe.py")

    def flags(self, file: RecipeFile) -> dict[str, Any]:
        """The flags that were given, as the recipe takes them, and the paths that are its defaults.

        A path of a data file that was copied becomes that of the copy; other paths are those of the folder in which
        the training was started.
        """
        paths = {f.name for f in file.flags if f.kind is Path}
        defaults = {k: v for k, v in self.record.get("keywords", {}).items() if k in paths and v is not None}
        given = {}
        for name, value in {**defaults, **self.record["flags"]}.items():
            several = isinstance(value, list | tuple)
            values = list(value) if several else [value]
            if name in paths and value is not None:
                values = [self._find(v) for v in values]
                if name not in self.record["flags"] and not all(v.exists() for v in values):
                    continue  # the recipe's own default, which may mean something else
            given[name] = tuple(values) if several else values[0]
        return given

    def _find(self, path: Path | str) -> Path:
        """Where a path of the training is now: the run's copy, or the original place."""
        place = os.path.abspath(os.path.join(self.record.get("cwd", ""), os.path.expanduser(path)))
        copies = {d["file"]: self.folder / d["copy"] for d in self.record.get("data", ()) if d.get("copy")}
        copy = copies.get(place)
        return copy if copy is not None and copy.exists() else Path(place)

    def build(self, files: bool = True) -> Recipe:
        """Run the copy of the recipe with the run's flags and seed: untrained, exactly as the training began.

        Args:
            files: compare those that were read with those of the training.

        Raises:
            FileNotFoundError: where a file of the data is gone; the message names it.
            ValueError: where the recipe now reads other data than those that it was trained on.
        """
        import torch

        from scifm.priors.choice import choices

        file = self.recipe_file()
        copies = [(self.folder / d["copy"]).parents[1] for d in self.record.get("data", ()) if d.get("copy")]
        token = fetch.search_path.set((*copies, *fetch.search_path.get()))
        try:
            torch.manual_seed(int(self.record.get("seed", 0)))
            with choices(self.record.get("choices")):  # what the data chose stays chosen
                recipe = file.build(self.flags(file))
        except FileNotFoundError as error:
            if not (gone := self._gone()):
                raise
            raise FileNotFoundError(
                f"{gone[0]}, on which {self.folder} was trained, is not there any more, and was too large for a run to "
                "keep a copy of it. Put it back, or a link to it in its place. "
                "(`scifm sample` does without the file where a run of a grid is finished.)"
            ) from error
        finally:
            fetch.search_path.reset(token)
        if files:
            self._check_data(recipe.data.files)
        return recipe

    def _gone(self) -> list[str]:
        """Files of the data that are neither where they were nor kept as copies."""
        return [d["file"] for d in self.record.get("data", ()) if not self._find(d["file"]).exists()]

    def _check_data(self, files: Sequence[Path]) -> None:
        """Compare the files that were read with those of the training, in their order."""
        before = self.record.get("data", ())
        if len(files) != len(before):
            raise ValueError(
                f"{self.folder}: its recipe reads {len(files)} data files now, and {len(before)} when it was trained."
            )
        for file, entry in zip(files, before, strict=True):
            if (found := fetch.sha256_of(file)) != entry.get("sha256", found):
                raise ValueError(
                    f"{file} is not what {self.folder} was trained on (sha256 {found[:12]} instead of "
                    f"{entry['sha256'][:12]}); put the old {entry['file']} back, or train again."
                )

    def rebuild(self, weights: Literal["ema", "model"] = "ema", device: str = "cpu") -> Recipe:
        """The recipe with the weights of the latest checkpoint.

        Args:
            weights: "ema", the averaged ones, or "model", the last ones.
            device: where the flow goes.

        Raises:
            FileNotFoundError: where there is no checkpoint yet.
            ValueError: where the checkpoint does not fit the recipe, or the data changed.
        """
        return self.restore(weights, device)[0]

    def restore(self, weights: Literal["ema", "model"] = "ema", device: str = "cpu") -> tuple[Recipe, int]:
        """As `rebuild`, with the step of the checkpoint."""
        from scifm import checkpoint

        tensors, _, step = checkpoint.load(self.folder / "checkpoints")
        recipe = self.build()
        self._load(recipe, tensors, weights, step)
        recipe.flow.to(device).eval()
        return recipe, step

    def restore_to_sample(self, weights: Literal["ema", "model"] = "ema", device: str = "cpu") -> tuple[Recipe, int]:
        """As `restore`; of a finished run of a grid also where its file is gone.

        Then made-up values in the form of the file stand in for the data, for drawing samples and for nothing else.
        The flow is put to the proof that the training left (`scifm.proof`).

        Raises:
            FileNotFoundError, ValueError: as for `restore`; also where the flow fails its proof.
        """
        gone, proven = self._gone(), self.record.get("proof")
        if len(gone) != 1 or len(self.record["data"]) != 1 or not proven or (spec := self.spec) is None:
            return self.restore(weights, device)
        import torch

        from scifm import checkpoint
        from scifm.data.grids.standing import Standing, standing
        from scifm.proof import agrees

        known = Standing(spec, getattr(torch, self.record["dtype"]))
        token = standing.set(known)
        try:
            tensors, _, step = checkpoint.load(self.folder / "checkpoints")
            recipe = self.build(files=False)
        finally:
            standing.reset(token)
        if known.used:
            needs = (
                f"{gone[0]}, on which {self.folder} was trained, is not there any more, and its recipe needs it: "
                "the flow keeps something of the data outside of its weights, in a plain number instead of a "
                "buffer perhaps, or it comes from another version. Put the file back, or a link to it in its place."
            )
            try:
                self._load(recipe, tensors, "ema", step)
            except ValueError as error:  # the recipe makes another network or prior of other data
                raise FileNotFoundError(needs) from error
            if not agrees(recipe, proven):
                raise FileNotFoundError(needs)
        self._load(recipe, tensors, weights, step)
        recipe.flow.to(device).eval()
        return recipe, step

    def _load(self, recipe: Recipe, tensors: Mapping[str, Any], weights: str, step: int) -> None:
        """Weights of a checkpoint into a flow."""
        state = {k.split(".", 1)[1]: v for k, v in tensors.items() if k.split(".", 1)[0] == weights}
        try:
            recipe.flow.load_state_dict(state)
        except RuntimeError as error:
            first = " ".join(str(error).split())[:200]
            raise ValueError(f"the checkpoint of step {step} does not fit {self.folder}/recipe.py: {first}") from error

    # -- one trainer at a time -------------------------------------------------------------------------

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run while training; the system lets go of it whatever kills the process.

        Raises:
            RuntimeError: where another process holds it.
        """
        with locked(self.folder / ".lock", f"{self.folder} is being trained by another process."):
            yield

    def _locked(self) -> bool:
        return is_locked(self.folder / ".lock")


def _numbered(parent: Path, name: str) -> Path:
    """Make the first free `parent/name-1`, `name-2`, ...; two processes never get the same."""
    parent.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        folder = parent / f"{name}-{number}"
        try:
            folder.mkdir()
            return folder
        except FileExistsError:
            number += 1
