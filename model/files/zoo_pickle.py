"""detectron2's zoo files: NumPy arrays by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.errors import CheckpointError
from model.files.numpy_pickle import read_pickle
from model.files.pickled_array import PickledArray

_TORCH_ARCHIVE = b"PK\x03\x04"
# Names of a body alone; a whole network's names have `backbone.bottom_up.` before them.
_SUFFIXES = ("stem.", "res2.", "bottom_up.", "fpn_lateral2.")


def read_zoo_pickle(path: Path) -> dict[Any, NDArray[np.generic]]:
    """Read `{"model": {name: array}}`, or the inner dict alone.

    Values that are not arrays are left out. With "matching_heuristics" detectron2 assigns an array
    to the parameter whose name ends with the array's name; here names must be complete.

    Raises:
        CheckpointError: not such a file, a file of Caffe2's Detectron, or name suffixes only.
            Nothing in it is executed.
    """
    _refuse_torch(path)
    loaded = read_pickle(path)
    if not isinstance(loaded, dict):
        raise CheckpointError(
            f"{path}: a pickle of type {type(loaded).__name__}; expected NumPy arrays by name, as "
            "in detectron2's zoo; rename a file of torch.save to .pth"
        )
    inner = loaded.get("model", loaded)
    if not isinstance(inner, dict):
        raise CheckpointError(
            f"{path}: its 'model' is of type {type(inner).__name__}; expected a dict of NumPy "
            "arrays by name, as in detectron2's zoo"
        )
    _refuse_caffe2(path, inner)
    arrays = {key: v for key, value in inner.items() if (v := _values(value)) is not None}
    if loaded.get("matching_heuristics") is True:
        _refuse_suffixes(path, arrays)
    return arrays


def _values(value: object) -> NDArray[np.generic] | None:
    return value.values if isinstance(value, PickledArray) else None


def _refuse_torch(path: Path) -> None:
    with path.open("rb") as file:
        if file.read(len(_TORCH_ARCHIVE)) == _TORCH_ARCHIVE:
            raise CheckpointError(
                f"{path}: an archive, as torch.save writes it, not a pickle of NumPy arrays; "
                "rename it to .pth"
            )


def _refuse_caffe2(path: Path, loaded: Mapping[Any, object]) -> None:
    """Caffe2 has no modules, so its names have no dots: 'res2_0_branch2a_w'."""
    arrays = (name for name, value in loaded.items() if isinstance(value, PickledArray))
    names = [name for name in arrays if isinstance(name, str)]
    is_flat = bool(names) and not any("." in name for name in names)
    if "blobs" in loaded or is_flat:
        raise CheckpointError(
            f"{path}: a Detectron file of Caffe2 ('blobs', names without dots), which is not "
            "supported; load it in detectron2 with its configuration and save the network with "
            'torch.save(model.state_dict(), "weights.pth")'
        )


def _refuse_suffixes(path: Path, names: Iterable[object]) -> None:
    """Weights to start a training from have suffixes only; the zoo's whole networks do not."""
    strings = (name for name in names if isinstance(name, str))
    suffix = next((name for name in strings if name.startswith(_SUFFIXES)), None)
    if suffix is not None:
        raise CheckpointError(
            f"{path}: names such as {suffix[:60]!r} are only suffixes of the network's names "
            "('matching_heuristics'), which are not matched; expected complete names, "
            "'backbone.bottom_up.…'; load it in detectron2 with its configuration and save the "
            'network with torch.save(model.state_dict(), "weights.pth")'
        )
