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


# Of the body alone, as `backbone.bottom_up.` would stand before them in a whole network.
_ENDS = ("stem.", "res2.", "bottom_up.", "fpn_lateral2.")


def read_zoo_pickle(path: Path) -> dict[Any, NDArray[np.generic]]:
    """Read `{"model": {name: array}}`, or the inner dict alone.

    Keys and values that are no arrays are left out. With "matching_heuristics" detectron2 gives an
    array to the parameter whose name ends with the array's; here names must be whole.

    Raises:
        CheckpointError: not such a file, of Caffe2's Detectron, or with the ends of names. Nothing
            in it is executed.
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
    if loaded.get("matching_heuristics") is True:
        _refuse_ends(path, arrays)
    return arrays


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


def _refuse_ends(path: Path, names: Iterable[object]) -> None:
    """Weights to start a training from have them; whole networks of the zoo do not."""
    end = next((name for name in names if isinstance(name, str) and name.startswith(_ENDS)), None)
    if end is not None:
        raise CheckpointError(
            f"{path}: names such as {end[:60]!r} are the ends of a network's "
            "('matching_heuristics'), which are not matched here; expected whole names, "
            "'backbone.bottom_up.…'; load it in detectron2 with its configuration and save the "
            'network with torch.save(model.state_dict(), "weights.pth")'
        )
