"""detectron2's zoo files: NumPy arrays by name, and whether the names fit only by their ends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.errors import CheckpointError
from model.files.numpy_pickle import read_pickle
from model.files.pickled_array import PickledArray

_TORCH_ARCHIVE = b"PK\x03\x04"


@dataclass(frozen=True, slots=True)
class ZooFile:
    """Arrays under the names of the file; keys and values that are no arrays are left out.

    With `matching_heuristics` detectron2 gives an array to the parameter whose name ends with
    the array's, the longest end first; without it names must be equal.
    """

    arrays: Mapping[Any, NDArray[np.generic]]
    matching_heuristics: bool


def read_zoo_pickle(path: Path) -> ZooFile:
    """Read `{"model": {name: array}, "matching_heuristics": bool}`, or the inner dict alone.

    Raises:
        CheckpointError: not such a file, or of Caffe2's Detectron. Nothing in it is executed.
    """
    _refuse_torch(path)
    loaded = read_pickle(path)
    if not isinstance(loaded, dict):
        raise CheckpointError(
            f"{path}: a pickle of type {type(loaded).__name__}; expected NumPy arrays by name, as "
            "in detectron2's zoo; what torch.save wrote takes the name .pth"
        )
    inner = loaded.get("model", loaded)
    if not isinstance(inner, dict):
        raise CheckpointError(
            f"{path}: its 'model' is of type {type(inner).__name__}; expected a dict of NumPy "
            "arrays by name, as in detectron2's zoo"
        )
    _refuse_caffe2(path, inner)
    arrays = {key: v for key, value in inner.items() if (v := _values(value)) is not None}
    return ZooFile(arrays, loaded.get("matching_heuristics") is True)


def _values(value: object) -> NDArray[np.generic] | None:
    return value.values if isinstance(value, PickledArray) else None


def _refuse_torch(path: Path) -> None:
    with path.open("rb") as file:
        if file.read(len(_TORCH_ARCHIVE)) == _TORCH_ARCHIVE:
            raise CheckpointError(
                f"{path}: an archive, as torch.save writes it, not a pickle of NumPy arrays; "
                "give it the suffix .pth"
            )


def _refuse_caffe2(path: Path, loaded: Mapping[Any, object]) -> None:
    """Caffe2 has no modules: its names, such as 'res2_0_branch2a_w', are without dots."""
    arrays = (name for name, value in loaded.items() if isinstance(value, PickledArray))
    names = [name for name in arrays if isinstance(name, str)]
    is_flat = bool(names) and not any("." in name for name in names)
    if "blobs" in loaded or is_flat:
        raise CheckpointError(
            f"{path}: a Detectron file of Caffe2 ('blobs', names without dots), which is not read "
            "here; load it in detectron2 with its configuration and save the network with "
            'torch.save(model.state_dict(), "weights.pth")'
        )
