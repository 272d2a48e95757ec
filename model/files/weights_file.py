"""Read tensors from an untrusted weights file without running anything that is in it."""

from __future__ import annotations

import hashlib
import io
import pickle
import stat
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from model.errors import CheckpointError
from model.files.keras_h5 import read_keras_h5
from model.files.pickle_limits import refuse_towers
from model.files.pickled_array import Allowance, RefusedError
from model.files.torch_placeholders import StoredArray, stand_ins, values_of
from model.files.zoo_pickle import read_zoo_pickle

STATE_DICT_LINE = 'torch.save(model.state_dict(), "weights.pth")'
_TRAINING_STATE = (
    "the state of an MMDetection training, with Python objects beside the weights; nothing in it "
    'was executed; where MMDetection is installed, save torch.load(FILE)["state_dict"] alone: '
    'torch.save(state_dict, "weights.pth")'
)
# Of compiled, data-parallel and Lightning's modules, in the orders that they wrap each other.
_WRAPPER_PREFIXES = ("_orig_mod.", "module.", "_orig_mod.", "model.", "_orig_mod.", "module.")
# The averaged weights last: where others are beside them, those are meant.
_WRAPPERS = (
    "model",
    "state_dict",
    "model_state_dict",
    "ema_state",
    "ema_state_dict",
    "state_dict_ema",
    "model_ema",
)
_PICKLES_OF_OLD_FILES = 5  # magic number, version, machine, weights, names of the storages
# Far above any network's; they keep the search for the closest name short on hostile files.
_MAX_TENSORS, _MAX_NAME = 20_000, 300


@dataclass(frozen=True, slots=True)
class Weights:
    """What a weights file holds: tensors by name, floating ones in float32.

    `meta` is the plain data that MMDetection keeps beside the weights.
    """

    tensors: dict[str, Tensor]
    meta: Mapping[Any, object] = field(default_factory=dict)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of `read_weights`."""
    return read_weights(path).tensors


def read_weights(path: Path) -> Weights:
    """Read weights: `.pth` / `.pt`, `.safetensors`, detectron2's zoo `.pkl`, Keras' `.h5`.

    Wrapping dicts (`{"model": …}`, `{"state_dict": …}`) and the prefixes of compiled, data-parallel
    and Lightning's modules are taken off; NumPy arrays become tensors, floating ones float32.

    Raises:
        CheckpointError: missing, empty, truncated, not weights, or holding anything but plain
            finite tensors and containers. Nothing in the file is executed.
    """
    size = _require_file(path)
    loaded = _loaded(path)
    tensors = _tensors_only(_thawed(_unwrap(loaded, path), size, path), path)
    _refuse_claims(tensors, size, path)
    for prefix in _WRAPPER_PREFIXES:
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): t for name, t in tensors.items()}
    floats = {name: _as_float32(name, t, path) for name, t in tensors.items()}
    meta = loaded.get("meta") if isinstance(loaded, Mapping) else None
    return Weights(floats, meta if isinstance(meta, Mapping) else {})


def _loaded(path: Path) -> object:
    match path.suffix.lower():
        case ".safetensors":
            return _read_safetensors(path)
        case ".pkl":
            return _as_tensors(read_zoo_pickle(path))
        case ".h5" | ".hdf5":
            return _as_tensors(read_keras_h5(path))
        case _:
            return _read_torch(path)


def _as_tensors(arrays: Mapping[Any, NDArray[Any]]) -> dict[Any, Tensor]:
    return {name: torch.from_numpy(values) for name, values in arrays.items()}


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, as lower-case hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _require_file(path: Path) -> int:
    """Answer the size of a regular file that can be read; a pipe would block for ever."""
    expected = "expected a .pth, .safetensors, .pkl or .h5 file"
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            kind = "a folder" if stat.S_ISDIR(found.st_mode) else "a pipe or device"
            raise CheckpointError(f"{path}: {kind}; {expected}")
        with path.open("rb"):
            pass
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such file; {expected}") from error
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(f"{path}: cannot be opened ({reason}); {expected}") from error
    if found.st_size == 0:
        raise CheckpointError(f"{path}: the file is empty; {expected}")
    return found.st_size


def _read_safetensors(path: Path) -> object:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    # A damaged header names types and shapes at will, and torch complains in many ways.
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise CheckpointError(
            f"{path}: not a readable .safetensors file ({_first_line(error)}); it may be truncated"
        ) from error


def _read_torch(path: Path) -> object:
    _refuse_zip_bomb(path)
    try:
        _refuse_towers(path)
        with warnings.catch_warnings():
            # Of odd files torch speaks in warnings first; the error says what matters.
            warnings.simplefilter("ignore")
            with stand_ins():
                return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises many types on damaged files
        raise CheckpointError(_unreadable(path, error)) from error


def _refuse_towers(path: Path) -> None:
    """In every pickle that torch would read; files of before 1.6 begin with several."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                if entry.filename.endswith("data.pkl"):
                    refuse_towers(io.BytesIO(archive.read(entry)))
        return
    with path.open("rb") as file:
        for _ in range(_PICKLES_OF_OLD_FILES):
            if not file.peek(1):
                break
            refuse_towers(file)


def _unreadable(path: Path, error: Exception) -> str:
    text = str(error)
    if isinstance(error, pickle.UnpicklingError) and "GLOBAL" in text:
        if "GLOBAL mmengine." in text or "GLOBAL mmcv." in text or "GLOBAL mmdet." in text:
            return f"{path}: {_TRAINING_STATE}"
        return (
            f"{path}: holds Python objects, not only weights (a pickled model, perhaps); nothing "
            f"in it was executed; save the weights alone with {STATE_DICT_LINE}"
        )
    reason = "" if isinstance(error, pickle.UnpicklingError) else f" ({_first_line(error)})"
    return (
        f"{path}: cannot be read as PyTorch weights, it may be truncated or of another "
        f"kind{reason}; save the weights with {STATE_DICT_LINE}"
    )


def _refuse_zip_bomb(path: Path) -> None:
    """PyTorch stores its zip entries uncompressed; one that inflates is not PyTorch's."""
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            total = sum(entry.file_size for entry in archive.infolist())
    except Exception as error:  # zipfile, too, raises many types on damaged files
        raise CheckpointError(f"{path}: damaged archive ({_first_line(error)})") from error
    if total > path.stat().st_size:
        raise CheckpointError(
            f"{path}: its entries claim {total} bytes, more than the file has; "
            f"PyTorch writes no such file; save the weights with {STATE_DICT_LINE}"
        )


def _unwrap(loaded: object, path: Path) -> Mapping[Any, Any]:
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


def _thawed(state: Mapping[Any, Any], file_size: int, path: Path) -> Mapping[Any, Any]:
    """Tensors for NumPy arrays, of which a file holds the bytes."""
    allowance = Allowance(file_size)
    thawed = dict(state)
    for name, value in state.items():
        if isinstance(value, StoredArray):
            try:
                thawed[name] = torch.from_numpy(values_of(value, allowance))
            except (RefusedError, TypeError) as error:  # TypeError: numbers that torch lacks
                raise CheckpointError(
                    f"{path}: tensor {_shown(name)}: {_first_line(error)}; expected plain numbers, "
                    f"saved with {STATE_DICT_LINE}"
                ) from error
    return thawed


def _tensors_only(state: Mapping[Any, Any], path: Path) -> dict[str, Tensor]:
    tensors = {k: v.detach() for k, v in state.items() if isinstance(v, Tensor)}
    if not tensors:
        found = ", ".join(_shown(k) for k in list(state)[:5]) or "nothing"
        raise CheckpointError(
            f"{path}: no tensors in it (found {found}); expected a Mask R-CNN state dict, "
            f"saved with {STATE_DICT_LINE}"
        )
    for name in tensors:
        if not isinstance(name, str) or len(name) > _MAX_NAME:
            raise CheckpointError(
                f"{path}: a tensor's name is {_shown(name)}; expected a state dict, whose names "
                f"are texts of at most {_MAX_NAME} characters, saved with {STATE_DICT_LINE}"
            )
    return tensors


def _shown(key: object) -> str:
    # The repr of a hostile key, a tuple of tuples say, may be longer than memory.
    return repr(key[:60]) if isinstance(key, str) else f"a key of type {type(key).__name__}"


def _refuse_claims(tensors: Mapping[str, Tensor], file_size: int, path: Path) -> None:
    """Refuse tensors without plain values, and more values than the file can hold."""
    if len(tensors) > _MAX_TENSORS:
        raise CheckpointError(f"{path}: {len(tensors)} tensors; expected at most {_MAX_TENSORS}")
    for name, tensor in tensors.items():
        kind = _odd_kind(tensor)
        if kind is not None:
            raise CheckpointError(
                f"{path}: tensor '{name}' is {kind}; expected plain numbers, saved with "
                f"{STATE_DICT_LINE}"
            )
    # A view can claim any shape over a few bytes; converting it would fill the memory.
    claimed = sum(tensor.numel() for tensor in tensors.values())
    if claimed > file_size:
        raise CheckpointError(
            f"{path}: its tensors claim {claimed} values, more than a file of {file_size} bytes "
            f"holds; save the weights with {STATE_DICT_LINE}"
        )


def _odd_kind(tensor: Tensor) -> str | None:
    if tensor.is_nested:
        return "nested"
    if tensor.layout != torch.strided:
        return f"sparse ({str(tensor.layout).removeprefix('torch.')})"
    if tensor.is_meta:
        return "a meta tensor, a shape without values"
    if tensor.is_quantized:
        return f"quantised ({str(tensor.dtype).removeprefix('torch.')})"
    if tensor.is_complex():
        return f"complex ({str(tensor.dtype).removeprefix('torch.')})"
    return f"empty, of shape {tuple(tensor.shape)}" if tensor.numel() == 0 else None


def _as_float32(name: str, tensor: Tensor, path: Path) -> Tensor:
    if not tensor.is_floating_point():
        return tensor
    try:
        values = tensor.float()
    except (RuntimeError, NotImplementedError) as error:  # packed types narrower than a byte
        raise CheckpointError(
            f"{path}: tensor '{name}' of {tensor.dtype} cannot become float32; "
            "save the weights in float32"
        ) from error
    if not bool(torch.isfinite(values).all()):
        raise CheckpointError(
            f"{path}: tensor '{name}' holds NaN or Inf; the training diverged, or a conversion "
            "to half precision overflowed; use an earlier checkpoint"
        )
    return values


def _first_line(error: Exception) -> str:
    """The first sentence; torch's errors go on for pages."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].split(". ")[0].rstrip(".")[:120]
