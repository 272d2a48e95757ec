"""Tensors out of files of every sound form; the hostile ones are in tests/hostile."""

from __future__ import annotations

import argparse
import hashlib
import warnings
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from model.checkpoint import DIALECTS
from model.errors import CheckpointError
from model.files import weights_file
from model.files.weights_file import read_weights
from tests.small_checkpoint import sound_state

FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def _wrapped(state: dict[str, Tensor]) -> dict[str, Callable[[], object]]:
    parallel = {f"module.{name}": tensor for name, tensor in state.items()}
    return {
        "plain": lambda: state,
        "ordered": lambda: OrderedDict(state),
        "model": lambda: {"model": state, "optimizer": {"state": [1, 2]}, "epoch": 7},
        "state_dict": lambda: {"state_dict": state, "best": 0.5},
        "model_state_dict": lambda: {"model_state_dict": state},
        "ema-alone": lambda: {"ema_state": state, "step": 9},
        "ema-of-timm-alone": lambda: {"state_dict_ema": state},
        "ema-beside": lambda: {"ema_state": {"x": torch.ones(1)}, "state_dict": state},
        "lightning": lambda: {"state_dict": {f"model.{n}": t for n, t in state.items()}},
        "two-wrappers": lambda: {"model": {"state_dict": state}},
        "module": lambda: parallel,
        "wrapped-module": lambda: {"model": OrderedDict(parallel)},
        "parameters": lambda: {
            n: nn.Parameter(t) if t.is_floating_point() else t for n, t in state.items()
        },
        "beside-numbers": lambda: {**state, "epoch": 3, "names": ["cat", "dog"]},
    }


def assert_equal(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert list(actual) == list(expected)
    for name, tensor in expected.items():
        assert torch.equal(actual[name], tensor), name
        assert not actual[name].requires_grad


@pytest.mark.parametrize("case", _wrapped({}))
def test_wrappers_come_off(case: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(_wrapped(sound_state())[case](), path)
    assert_equal(read_weights(path, DIALECTS).tensors, sound_state())


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ""])
@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
def test_any_name_and_container(suffix: str, is_zip: bool, tmp_path: Path) -> None:
    path = tmp_path / f"weights{suffix}"
    torch.save(sound_state(), path, _use_new_zipfile_serialization=is_zip)
    assert_equal(read_weights(path).tensors, sound_state())


@pytest.mark.parametrize("name", ["weights.safetensors", "WEIGHTS.SafeTensors"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_safetensors(name: str, prefix: str, tmp_path: Path) -> None:
    save_file({prefix + n: t for n, t in sound_state().items()}, tmp_path / name)
    actual = read_weights(tmp_path / name).tensors
    assert_equal({n: actual[n] for n in sound_state()}, sound_state())
    assert len(actual) == len(sound_state())


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_floats_become_float32(dtype: torch.dtype, suffix: str, tmp_path: Path) -> None:
    state = {n: t.to(dtype) if t.is_floating_point() else t for n, t in sound_state().items()}
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save(state, path)
    else:
        save_file(state, path)
    actual = read_weights(path).tensors
    for name, tensor in state.items():
        expected = tensor.float() if tensor.is_floating_point() else tensor
        assert actual[name].dtype == expected.dtype
        assert torch.equal(actual[name], expected)


def test_shared_and_transposed_tensors_are_read(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    base = torch.arange(6.0).reshape(2, 3)
    torch.save({"a": base, "b": base, "c": base.T, "d": base[:, :1]}, path)
    assert_equal(read_weights(path).tensors, {"a": base, "b": base, "c": base.T, "d": base[:, :1]})
    torch.save({"module.a": torch.ones(2), "b": torch.ones(2)}, path)
    assert list(read_weights(path).tensors) == ["a", "b"]
    target, link = tmp_path / "weights.pth", tmp_path / "link.pth"
    torch.save(sound_state(), target)
    link.symlink_to(target)
    assert_equal(read_weights(link).tensors, sound_state())
    torch.save({"a": torch.zeros(300_000)}, path)
    assert read_weights(path).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_pickled_model_error_shows_what_to_run(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(nn.Linear(2, 2), path)
    with pytest.raises(CheckpointError) as caught:
        read_weights(path)
    message = str(caught.value)
    assert 'torch.save(model.state_dict(), "weights.pth")' in message
    assert "nothing in it was executed" in message


def test_no_warning_of_torch_comes_through(tmp_path: Path) -> None:
    """An unusual pickle protocol is torch's business; the file is sound."""
    path = tmp_path / "weights.pth"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save({"a": torch.ones(2)}, path, pickle_protocol=3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_equal(read_weights(path).tensors, {"a": torch.ones(2)})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_single_nan_or_inf_is_refused(value: float, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    tensor = torch.zeros(1000)
    tensor[617] = value
    torch.save({"good": torch.ones(3), "bad": tensor}, path)
    with pytest.raises(CheckpointError, match="tensor 'bad' holds NaN or Inf"):
        read_weights(path)


def _save(value: float, path: Path) -> None:
    state = {"a": torch.full((3,), value)}
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("how", ["replaced", "overwritten", "removed"])
def test_a_file_that_changes_while_it_is_read_is_refused(
    how: str, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hash and the tensors are always of the same bytes."""
    path, other = tmp_path / f"weights{suffix}", tmp_path / f"other{suffix}"
    _save(1.0, path)
    _save(2.0, other)
    load = weights_file._load

    def change_then_load(path: Path) -> object:
        if how == "replaced":
            other.replace(path)
        elif how == "overwritten":
            path.write_bytes(other.read_bytes() + b"\0")
        loaded = load(path)
        if how == "removed":
            path.unlink()
        return loaded

    monkeypatch.setattr(weights_file, "_load", change_then_load)
    with pytest.raises(CheckpointError, match=r"changed while it was read|truncated"):
        read_weights(path)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_tensors_do_not_follow_the_file(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"weights{suffix}"
    _save(1.0, path)
    tensors = read_weights(path).tensors
    size = path.stat().st_size
    with path.open("r+b") as file:  # the same file, not a new one
        file.write(bytes(size))
    assert tensors["a"].tolist() == [1.0] * 3


def test_a_wrapper_name_that_wraps_nothing(tmp_path: Path, subtests: pytest.Subtests) -> None:
    for case, state in [
        ("model-is-a-list", {"model": [1, 2], "a": torch.ones(2)}),
        ("model-is-none", {"model": None, "a": torch.ones(2)}),
        ("state-dict-is-a-number", {"state_dict": 3, "a": torch.ones(2)}),
    ]:
        with subtests.test(case):
            path = tmp_path / "weights.pth"
            torch.save(state, path)
            assert list(read_weights(path).tensors) == ["a"]


def test_wrapped_weights(tmp_path: Path) -> None:
    """torchvision's reference script saves `{"model": …, "args": argparse.Namespace}`."""
    path = tmp_path / "model_25.pth"
    args = argparse.Namespace(lr=0.02, data_path="coco", aspect_ratio_group_factor=3)
    torch.save({"model": {"a": torch.ones(2)}, "args": args, "epoch": 25}, path)
    assert read_weights(path).tensors["a"].tolist() == [1.0, 1.0]
    for prefix in ("_orig_mod.", "module.", "module._orig_mod.", "_orig_mod.module."):
        torch.save({f"{prefix}a": torch.ones(1), f"{prefix}b": torch.ones(1)}, tmp_path / "w.pth")
        assert set(read_weights(tmp_path / "w.pth").tensors) == {"a", "b"}
