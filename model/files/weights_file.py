"""Read tensors from an untrusted weights file without executing anything in it."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import stat
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from model.errors import CheckpointError, first_line
from model.files.keras_h5 import read_keras_h5
from model.files.pickle_limits import check_pickle
from model.files.pickled_array import Allowance, RefusedError, shown
from model.files.torch_placeholders import StoredArray, placeholders, values_of
from model.files.wrappings import Location, Recognizer, locate
from model.files.zoo_pickle import read_zoo_pickle

STATE_DICT_LINE = 'torch.save(model.state_dict(), "weights.pth")'
_EXPECTED = "expected a .pth, .safetensors, .pkl or .h5 file"
_TRAINING_STATE = (
    "an MMDetection training state, with Python objects besides the weights; nothing in it "
    'was executed; where MMDetection is installed, save torch.load(FILE)["state_dict"] alone: '
    'torch.save(state_dict, "weights.pth")'
)
_LEGACY_PICKLES = 5  # magic number, version, machine, weights, storage names
# Far above any network's; they bound the search for the closest name.
_MAX_TENSORS, _MAX_NAME = 20_000, 300


@dataclass(frozen=True, slots=True)
class Weights:
    """The content of a weights file.

    Attributes:
        tensors: by name, floating-point ones in float32.
        sha256: of the file, lower-case hex.
        location: of the tensors in the file.
        others: of other networks in it.
        content: all of the file; untrusted plain data beside the tensors.
        header: the metadata of a `.safetensors` file.
    """

    tensors: dict[str, Tensor]
    sha256: str
    location: Location
    others: tuple[Location, ...] = ()
    content: Mapping[Any, object] = field(default_factory=dict)
    header: Mapping[str, str] = field(default_factory=dict)

    def taken(self, unused: int = 0) -> str:
        """Which tensors of the file these are, without `unused` ones; empty for all."""
        beside = sum(isinstance(v, Tensor | StoredArray) for v in self.location.content.values())
        unused += beside - len(self.tensors)
        if self.location.is_plain and not self.others and not unused:
            return ""
        parts = [str(self.location)]
        if self.others:
            parts.append(f"not used: {', '.join(map(str, self.others))}")
        if unused:
            parts.append(f"other tensors beside it: {unused}")
        return "; ".join(parts)


def read_weights(path: Path, known: Sequence[Recognizer] = ()) -> Weights:
    """Read weights: `.pth` / `.pt`, `.safetensors`, detectron2's zoo `.pkl`, Keras' `.h5`.

    Dicts around the weights (`{"model": …}`), a prefix of all names (`detector.`) and the names of
    wrapping modules (`module.`, `_orig_mod.`) are removed. NumPy arrays become tensors,
    floating-point ones float32.

    Args:
        path: of the file.
        known: networks to search for; a file with none of them gives its dict with most tensors.

    Raises:
        CheckpointError: missing, empty, truncated, not weights, replaced while it was read, or
            holding anything but plain finite tensors and containers. Nothing in the file is
            executed.
    """
    size = _require_file(path)
    with _unchanged(path) as sha256:
        loaded, header = _load(path)
    if not isinstance(loaded, Mapping):
        raise CheckpointError(
            f"{path}: expected a state dict, got {type(loaded).__name__}; "
            f"save the weights with {STATE_DICT_LINE}"
        )
    location, *others = locate(loaded, known)
    own = _own_names(location, path)
    if not own:
        keys = ", ".join(shown(key) for key in islice(loaded, 5)) or "nothing"
        raise CheckpointError(
            f"{path}: no tensors in it, got {keys}; expected a Mask R-CNN state dict, "
            f"saved with {STATE_DICT_LINE}"
        )
    tensors = _checked_names(_arrays_to_tensors(own, size, path), path)
    _refuse_claims(tensors, size, path)
    floats = {name: _as_float32(name, t, path) for name, t in tensors.items()}
    return Weights(floats, sha256, location, tuple(others), loaded, header)


def _own_names(location: Location, path: Path) -> dict[Any, Any]:
    """The located tensors by the network's own names."""
    names: dict[Any, Any] = {}
    for own, name in location.tensors():
        if own in names:
            raise CheckpointError(
                f"{path}: holds tensor {shown(own)} twice, as {shown(names[own])} and "
                f"{shown(name)}; keep one of them"
            )
        names[own] = name
    return {own: location.content[name] for own, name in names.items()}


@contextmanager
def _unchanged(path: Path) -> Iterator[str]:
    """Yield the file's SHA-256; the file must still be the same one when the block ends."""
    with path.open("rb") as file:
        before = _identity(os.fstat(file.fileno()))
        yield hashlib.file_digest(file, "sha256").hexdigest()
    try:
        is_same = _identity(path.stat()) == before
    except OSError:
        is_same = False
    if not is_same:
        raise CheckpointError(f"{path}: the file changed while it was read; load it again")


def _identity(status: os.stat_result) -> tuple[int, ...]:
    times = status.st_mtime_ns, status.st_ctime_ns
    return status.st_dev, status.st_ino, status.st_size, *times


def _load(path: Path) -> tuple[object, Mapping[str, str]]:
    """The file's content as its format's reader gives it, and a `.safetensors` header."""
    match path.suffix.lower():
        case ".safetensors":
            return _read_safetensors(path)
        case ".pkl":
            return _as_tensors(read_zoo_pickle(path)), {}
        case ".h5" | ".hdf5":
            return _as_tensors(read_keras_h5(path)), {}
        case _:
            return _read_torch(path), {}


def _as_tensors(arrays: Mapping[Any, NDArray[Any]]) -> dict[Any, Tensor]:
    return {name: torch.from_numpy(values) for name, values in arrays.items()}


def _require_file(path: Path) -> int:
    """The size of a readable regular file; opening a pipe would block forever."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            what = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe or device"
            raise CheckpointError(f"{path}: {what}; {_EXPECTED}")
        with path.open("rb"):
            pass
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such file; {_EXPECTED}") from error
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(f"{path}: cannot be opened ({reason}); {_EXPECTED}") from error
    if status.st_size == 0:
        raise CheckpointError(f"{path}: the file is empty; {_EXPECTED}")
    return status.st_size


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], Mapping[str, str]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            # The library maps the file: without a copy, a later write to it changes the tensors.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
            return tensors, file.metadata() or {}
    # A damaged header may hold any dtype and shape; torch raises many types.
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise CheckpointError(
            f"{path}: not a readable .safetensors file ({_reason(error)}); it may be truncated"
        ) from error


def _read_torch(path: Path) -> object:
    try:
        _check_pickles(path)
        with warnings.catch_warnings():
            # torch warns about odd files before it raises; the error is enough.
            warnings.simplefilter("ignore")
            with placeholders():
                return torch.load(path, map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except Exception as error:  # torch.load raises many types on damaged files
        raise CheckpointError(_unreadable(path, error)) from error


def _check_pickles(path: Path) -> None:
    """Check every pickle that torch would read; files older than torch 1.6 start with several."""
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            for _ in range(_LEGACY_PICKLES):
                if not file.peek(1):
                    break
                check_pickle(file)
        return
    with _archive(path) as archive:
        _refuse_programs(archive, path)
        for entry in archive.infolist():
            if entry.filename.endswith("data.pkl"):
                check_pickle(io.BytesIO(archive.read(entry)))


def _archive(path: Path) -> zipfile.ZipFile:
    """Open torch's zip archive; torch does not compress, so its entries fit into the file."""
    try:
        archive = zipfile.ZipFile(path)
    except Exception as error:  # zipfile, too, raises many types on damaged files
        raise CheckpointError(
            f"{path}: damaged archive ({_reason(error)}); save or download it again"
        ) from error
    total = sum(entry.file_size for entry in archive.infolist())
    if total > path.stat().st_size:
        archive.close()
        raise CheckpointError(
            f"{path}: its entries claim {total} bytes, more than the file has; "
            f"PyTorch writes no such file; save the weights with {STATE_DICT_LINE}"
        )
    return archive


def _refuse_programs(archive: zipfile.ZipFile, path: Path) -> None:
    """Archives of PyTorch with code beside the weights."""
    files = {name.partition("/")[2] for name in archive.namelist()}
    what = None
    if "constants.pkl" in files or any(name.startswith("code/") for name in files):
        what = "a TorchScript archive (torch.jit.save)"
    elif "archive_format" in files or "serialized_exported_program.json" in files:
        what = "an exported program (torch.export.save)"
    if what is not None:
        raise CheckpointError(
            f"{path}: {what}, a program whose parts cannot be exported; nothing in it was "
            f"executed; where the model is built in Python, save its weights with {STATE_DICT_LINE}"
        )


def _unreadable(path: Path, error: Exception) -> str:
    text = str(error)
    if isinstance(error, pickle.UnpicklingError) and "GLOBAL" in text:
        if any(f"GLOBAL {package}." in text for package in ("mmengine", "mmcv", "mmdet")):
            return f"{path}: {_TRAINING_STATE}"
        return (
            f"{path}: holds Python objects, not only weights (a pickled model, perhaps); nothing "
            f"in it was executed; save the weights alone with {STATE_DICT_LINE}"
        )
    reason = "" if isinstance(error, pickle.UnpicklingError) else f" ({_reason(error)})"
    return (
        f"{path}: cannot be read as PyTorch weights; it may be truncated or in another "
        f"format{reason}; save the weights with {STATE_DICT_LINE}"
    )


def _arrays_to_tensors(state: Mapping[Any, Any], file_size: int, path: Path) -> Mapping[Any, Any]:
    """Replace NumPy arrays by tensors; together they hold no more bytes than the file."""
    allowance = Allowance(file_size)
    converted = dict(state)
    for name, value in state.items():
        if isinstance(value, StoredArray):
            try:
                converted[name] = torch.from_numpy(values_of(value, allowance))
            except (RefusedError, TypeError) as error:  # TypeError: a dtype that torch lacks
                raise CheckpointError(
                    f"{path}: tensor {shown(name)}: {_reason(error)}; expected plain numbers, "
                    f"saved with {STATE_DICT_LINE}"
                ) from error
    return converted


def _checked_names(state: Mapping[Any, Any], path: Path) -> dict[str, Tensor]:
    tensors = {name: tensor.detach() for name, tensor in state.items()}
    for name in tensors:
        if not isinstance(name, str) or len(name) > _MAX_NAME:
            raise CheckpointError(
                f"{path}: a tensor's name is {shown(name)}; expected a state dict, whose names "
                f"are strings of at most {_MAX_NAME} characters, saved with {STATE_DICT_LINE}"
            )
    return tensors


def _refuse_claims(tensors: Mapping[str, Tensor], file_size: int, path: Path) -> None:
    """Refuse tensors without plain values, and more values than the file can hold."""
    if len(tensors) > _MAX_TENSORS:
        raise CheckpointError(f"{path}: {len(tensors)} tensors; expected at most {_MAX_TENSORS}")
    for name, tensor in tensors.items():
        problem = _unsupported(tensor)
        if problem is not None:
            raise CheckpointError(
                f"{path}: tensor '{name}' is {problem}; expected plain numbers, saved with "
                f"{STATE_DICT_LINE}"
            )
    # Conversion copies every value, also those that share their bytes.
    claimed = sum(tensor.numel() for tensor in tensors.values())
    if claimed > file_size:
        raise CheckpointError(
            f"{path}: its tensors claim {claimed} values, more than a file of {file_size} bytes "
            f"holds; save the weights with {STATE_DICT_LINE}"
        )


def _unsupported(tensor: Tensor) -> str | None:
    if tensor.is_nested:
        return "nested"
    if tensor.layout != torch.strided:
        return f"sparse ({str(tensor.layout).removeprefix('torch.')})"
    if tensor.is_meta:
        return "a meta tensor, a shape without values"
    if tensor.is_quantized:
        return f"quantized ({str(tensor.dtype).removeprefix('torch.')})"
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


def _reason(error: Exception) -> str:
    """The first sentence; torch's messages run over pages."""
    return first_line(error).split(". ")[0].rstrip(".")
