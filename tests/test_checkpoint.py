"""Checkpoints: what is read is what was written, or a clear refusal; a crash leaves the one before."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from scifm import checkpoint


def write(folder: Path, *steps: int) -> None:
    for step in steps:
        checkpoint.save(folder, step, {"model.w": torch.full((3,), float(step))}, {"seed": 1})


def test_every_dtype_and_layout_comes_back(tmp_path: Path) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    tensors = {
        "half": base.bfloat16(),
        "double": base.double(),
        "bytes": torch.get_rng_state(),
        "flag": torch.tensor(True),
        "number": torch.tensor(3),
        "empty": torch.zeros(0, 2),
        "strided": base.T,
        "tied": base,  # shares memory with the one before: safetensors alone would refuse
        "part": base[1:],
    }
    checkpoint.save(tmp_path, 7, tensors, {"a": [1, None, "x"], "b": {"c": 0.1}})
    found, meta, step = checkpoint.load(tmp_path)
    assert step == 7 and meta == {"a": [1, None, "x"], "b": {"c": 0.1}}
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor), name


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.AdamW(p, lr=0.1, fused=True),
        lambda p: torch.optim.AdamW([{"params": p[:1], "lr": 0.1}, {"params": p[1:], "lr": 0.01}], amsgrad=True),
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
        lambda p: torch.optim.RMSprop(p, lr=0.1, centered=True),
    ],
    ids=["adamw", "groups", "sgd", "rmsprop"],
)
def test_an_optimiser_goes_on_bit_for_bit(tmp_path: Path, make) -> None:
    def step(net: torch.nn.Linear, optimiser: torch.optim.Optimizer) -> None:
        optimiser.zero_grad()
        net(torch.ones(4, 3)).square().sum().backward()
        optimiser.step()

    net = torch.nn.Linear(3, 2)
    optimiser = make(list(net.parameters()))
    for _ in range(3):
        step(net, optimiser)
    tensors, meta = checkpoint.pack(optimiser)
    checkpoint.save(tmp_path, 3, {**tensors, **{f"net.{k}": v for k, v in net.state_dict().items()}}, {"o": meta})

    again = torch.nn.Linear(3, 2)
    found, meta, _ = checkpoint.load(tmp_path)
    again.load_state_dict({k[4:]: v for k, v in found.items() if k.startswith("net.")})
    other = make(list(again.parameters()))
    checkpoint.unpack(other, found, meta["o"])
    for _ in range(3):
        step(net, optimiser)
        step(again, other)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), again.parameters(), strict=True))


def test_an_optimiser_of_other_parameters_is_refused() -> None:
    tensors, meta = checkpoint.pack(torch.optim.SGD([torch.zeros(2)], lr=0.1))
    with pytest.raises(ValueError, match="parameter group"):
        checkpoint.unpack(torch.optim.SGD([torch.zeros(2), torch.zeros(3)], lr=0.1), tensors, meta)


def test_only_the_newest_are_kept_and_litter_goes(tmp_path: Path) -> None:
    (tmp_path / ".tmp-00000001-99").mkdir()  # of a killed process
    write(tmp_path, 1, 2, 30)
    assert checkpoint.steps(tmp_path) == [2, 30]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000002", "step-00000030"]
    checkpoint.save(tmp_path, 40, {}, {}, keep=1)
    assert checkpoint.steps(tmp_path) == [40]


def test_a_step_can_be_written_again(tmp_path: Path) -> None:
    write(tmp_path, 5)
    checkpoint.save(tmp_path, 5, {"model.w": torch.ones(1)}, {"seed": 2})
    tensors, meta, _ = checkpoint.load(tmp_path)
    assert meta == {"seed": 2} and torch.equal(tensors["model.w"], torch.ones(1))
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000005"]


@pytest.fixture
def full_disk() -> Iterator[None]:
    """Every write past 4 KiB of a file fails, as on a full disk, in C and Rust as in Python."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size", ["numbers", "meta"])
def test_a_full_disk_is_said_and_leaves_no_litter(tmp_path: Path, full_disk: None, size: str) -> None:
    large = (
        {"tensors": {"w": torch.zeros(9999)}, "meta": {}}
        if size == "numbers"
        else {"tensors": {}, "meta": {"m": "x" * 9999}}
    )
    with pytest.raises(OSError, match="step-00000004 cannot be written .*disk full. There is no checkpoint before it"):
        checkpoint.save(tmp_path, 4, **large)
    write(tmp_path, 5)
    for step in (5, 6):  # also where a step is written again
        with pytest.raises(OSError, match="disk full. The last checkpoint is kept, of step 5"):
            checkpoint.save(tmp_path, step, **large)
        assert [p.name for p in tmp_path.iterdir()] == ["step-00000005"] and checkpoint.load(tmp_path)[2] == 5


def test_a_place_that_is_no_folder_is_said(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("")
    with pytest.raises(OSError, match="checkpoint: .* cannot be written"):
        write(tmp_path / "checkpoints", 1)


def test_the_same_step_comes_back_if_its_rename_fails(tmp_path: Path, monkeypatch) -> None:
    write(tmp_path, 5)
    replace = os.replace

    def crash(source: Path, target: Path) -> None:
        if target.name.startswith("step-"):
            raise OSError("no space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(OSError, match="is kept, of step 5"):
        write(tmp_path, 5)
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000005"] and checkpoint.load(tmp_path)[2] == 5


@pytest.mark.parametrize("where", ["write", "rename"])
def test_a_crash_while_saving_leaves_the_one_before(tmp_path: Path, monkeypatch, where: str) -> None:
    write(tmp_path, 5)

    def crash(*args: object, **settings: object) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(*((checkpoint.json, "dumps", crash) if where == "write" else (os, "replace", crash)))
        with pytest.raises(OSError, match="no space"):
            write(tmp_path, 6)
    assert checkpoint.load(tmp_path)[2] == 5
    write(tmp_path, 6)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000005", "step-00000006"]


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["state.safetensors", "state.json"])
@pytest.mark.parametrize("damage", [truncate, Path.unlink, lambda p: p.write_bytes(b""), flip])
def test_a_damaged_newest_falls_back_with_a_warning(tmp_path: Path, capsys, damage, name: str) -> None:
    write(tmp_path, 1, 2)
    damage(tmp_path / "step-00000002" / name)
    tensors, _, step = checkpoint.load(tmp_path)
    assert step == 1 and torch.equal(tensors["model.w"], torch.ones(3))
    warning = capsys.readouterr().err
    assert warning.startswith("warning: ") and "step-00000002" in warning and "step 1" in warning
    with pytest.raises(ValueError, match="step-00000002"):  # asked for by number, no other will do
        checkpoint.load(tmp_path, 2)


def test_all_damaged_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, 1, 2)
    for step in (1, 2):
        truncate(tmp_path / f"step-{step:08d}" / "state.safetensors")
    with pytest.raises(ValueError, match="train again"):
        checkpoint.load(tmp_path)


@pytest.mark.parametrize(("content", "message"), [({"format": 99}, "format 99"), ({"x": 1}, "not written by scifm")])
def test_a_foreign_checkpoint_is_an_error_and_not_passed_over(tmp_path: Path, content: dict, message: str) -> None:
    write(tmp_path, 1, 2)
    (tmp_path / "step-00000002" / "state.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        checkpoint.load(tmp_path)


def test_nothing_to_load(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        checkpoint.load(tmp_path / "nowhere")
    write(tmp_path, 4)
    with pytest.raises(FileNotFoundError, match=r"no step 9 .* \[4\]"):
        checkpoint.load(tmp_path, 9)


def test_what_json_cannot_hold_is_named() -> None:
    optimiser = torch.optim.SGD([torch.zeros(2)], lr=0.1)
    optimiser.param_groups[0]["odd"] = object()
    with pytest.raises(TypeError, match="odd is a object"):
        checkpoint.pack(optimiser)
