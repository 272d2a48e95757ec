"""Read tensors from an untrusted weights file without running anything that is in it."""

from __future__ import annotations

import hashlib
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.errors import CheckpointError

STATE_DICT_LINE = 'torch.save(model.state_dict(), "weights.pth")'
_WRAPPERS = ("model", "state_dict", "model_state_dict")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a state dict from `.pth` / `.pt` or `.safetensors`.

    Wrapping dicts (`{"model": …}`, `{"state_dict": …}`) and the `module.` prefix of
    data-parallel training are taken off; floating tensors become float32.

    Raises:
        CheckpointError: missing, empty, truncated, not weights, or holding anything but plain
            tensors and containers. Nothing in the file is executed.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; expected a .pth or .safetensors file")
    if path.stat().st_size == 0:
        raise CheckpointError(f"{path}: the file is empty; expected a .pth or .safetensors file")
    loaded = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    tensors = _tensors_only(_unwrap(loaded, path), path)
    if tensors and all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): t for name, t in tensors.items()}
    return {name: t.float() if t.is_floating_point() else t for name, t in tensors.items()}


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, as lower-case hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_safetensors(path: Path) -> object:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path}: not a readable .safetensors file ({error})") from error


def _read_torch(path: Path) -> object:
    _refuse_zip_bomb(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(_unsafe(path, error)) from error
    except Exception as error:  # torch.load raises many types on damaged files
        raise CheckpointError(
            f"{path}: cannot be read as PyTorch weights, it may be truncated or of another kind "
            f"({_first_line(error)}); save the weights again with {STATE_DICT_LINE}"
        ) from error


def _unsafe(path: Path, error: pickle.UnpicklingError) -> str:
    text = str(error)
    if "GLOBAL" in text or "global" in text:
        return (
            f"{path}: holds Python objects, not only weights (a pickled model, perhaps); nothing "
            f"in it was executed; save the weights alone with {STATE_DICT_LINE}"
        )
    return (
        f"{path}: cannot be read as PyTorch weights, it may be truncated or of another kind; "
        f"save the weights with {STATE_DICT_LINE}"
    )


def _refuse_zip_bomb(path: Path) -> None:
    """PyTorch stores its zip entries uncompressed; one that inflates is not PyTorch's."""
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            total = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise CheckpointError(f"{path}: damaged archive ({error})") from error
    if total > path.stat().st_size:
        raise CheckpointError(
            f"{path}: its entries claim {total} bytes, more than the file has; "
            "this is no file that PyTorch wrote"
        )


def _unwrap(loaded: object, path: Path) -> Mapping[str, Any]:
    for _ in range(2):
        if not isinstance(loaded, Mapping):
            break
        inner = next((loaded[k] for k in _WRAPPERS if isinstance(loaded.get(k), Mapping)), None)
        if inner is None:
            return loaded
        loaded = inner
    if not isinstance(loaded, Mapping):
        raise CheckpointError(
            f"{path}: expected a state dict, got {type(loaded).__name__}; "
            f"save the weights with {STATE_DICT_LINE}"
        )
    return loaded


def _tensors_only(state: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    tensors = {k: v.detach() for k, v in state.items() if isinstance(v, Tensor)}
    if not tensors:
        found = ", ".join(repr(k) for k in list(state)[:5]) or "nothing"
        raise CheckpointError(
            f"{path}: no tensors in it (found {found}); expected a Mask R-CNN state dict, "
            f"saved with {STATE_DICT_LINE}"
        )
    return {str(name): tensor for name, tensor in tensors.items()}


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:120] if text else type(error).__name__
