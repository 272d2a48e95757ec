"""Read the weights of an untrusted Keras `.h5` file.

HDF5 allows links to other files, datasets without stored values, and filters. Keras writes only
groups and plain floating-point arrays. All objects are checked before any value is read, and
anything else is refused. Attributes are not read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.errors import CheckpointError, MissingDependencyError, first_line

_SAVE_LINE = 'model.save_weights("weights.h5")'
# The file of a whole model has its weights in this group, the optimizer's state in another.
_WEIGHTS = "model_weights"
_FLOAT_BYTES = (2, 4, 8)


@dataclass(frozen=True, slots=True)
class H5Limits:
    """Bounds on a file, far above any network's."""

    objects: int = 20_000
    depth: int = 8
    dimensions: int = 8


def read_keras_h5(path: Path, limits: H5Limits | None = None) -> dict[str, NDArray[np.float32]]:
    """Read all arrays.

    Returns:
        float32 arrays by their path in the file without Keras' `:0`, like `conv1/conv1/kernel`.

    Raises:
        CheckpointError: not HDF5, damaged, beyond `limits`, or holding anything but groups and
            plain floating-point arrays that are stored in the file itself.
        MissingDependencyError: h5py is not installed.
    """
    h5py = _library(path)
    try:
        with h5py.File(path, "r", locking=False) as file:
            root = file
            if _link(h5py, file, _WEIGHTS, path) is not None:
                root = _open(h5py, file, _WEIGHTS, path)
            datasets = dict(_datasets(h5py, root, path, limits or H5Limits()))
            _refuse_more_than_stored(list(datasets.values()), path)
            return {name: np.asarray(d[()], np.float32) for name, d in datasets.items()}
    # On damaged files h5py raises many types.
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{path}: not a readable HDF5 file ({_plain(first_line(error))}); it may be truncated; "
            f"save the weights with {_SAVE_LINE}"
        ) from error


def _library(path: Path) -> Any:
    try:
        import h5py
    except ImportError as error:
        raise MissingDependencyError(
            f"{path}: reading HDF5 needs h5py, which is not installed; pip install 'maskport[h5]'"
        ) from error
    return h5py


def _datasets(h5py: Any, root: Any, path: Path, limits: H5Limits) -> Iterator[tuple[str, Any]]:
    """Every array of the file by its name, checked but not read."""
    if not isinstance(root, h5py.Group):
        raise _refusal(path, _WEIGHTS, "is no group")
    addresses = {int(h5py.h5o.get_info(root.id).addr)}
    pending = [("", 0, root)]
    while pending:
        prefix, depth, group = pending.pop()
        for key in group:
            name = f"{prefix}{key}"
            item = _open(h5py, group, key, path, name)
            address = int(h5py.h5o.get_info(item.id).addr)
            if address in addresses:
                raise _refusal(path, name, "is stored twice, also under another name")
            if depth == limits.depth or len(addresses) == limits.objects:
                raise _refusal(path, name, "is nested too deeply, or is one of too many objects")
            addresses.add(address)
            if isinstance(item, h5py.Group):
                pending.append((f"{name}/", depth + 1, item))
            elif isinstance(item, h5py.Dataset):
                _refuse_unusual(h5py, item, name, path, limits)
                yield name.removesuffix(":0"), item
            else:
                raise _refusal(path, name, "is neither a group nor an array")


def _link(h5py: Any, group: Any, key: str, path: Path, name: str = "") -> type | None:
    """The class of a link, without following it; None if there is none."""
    try:
        link: type | None = group.get(key, getclass=True, getlink=True)
    except TypeError as error:  # a user-defined link type
        raise _refusal(path, name or key, "is a link of an unknown type") from error
    return link


def _open(h5py: Any, group: Any, key: str, path: Path, name: str = "") -> Any:
    """Follow a hard link; other links may leave the file and are refused."""
    link = _link(h5py, group, key, path, name)
    if link is not h5py.HardLink:
        problems = {h5py.ExternalLink: "links to another file", h5py.SoftLink: "is a soft link"}
        raise _refusal(path, name or key, problems.get(link, "is a link of an unknown type"))
    return group[key]


def _refuse_unusual(h5py: Any, dataset: Any, name: str, path: Path, limits: H5Limits) -> None:
    """Refuse values that are stored elsewhere or nowhere, filtered, or not floating point."""
    low = dataset.id
    properties = low.get_create_plist()
    # In this order: the storage is checked before the shape is read.
    if properties.get_layout() == h5py.h5d.VIRTUAL or properties.get_external_count() > 0:
        raise _refusal(path, name, "has its values in other files")
    if properties.get_nfilters() > 0:
        raise _refusal(path, name, "is compressed or filtered")
    dtype = low.get_type()
    if dtype.get_class() != h5py.h5t.FLOAT or dtype.get_size() not in _FLOAT_BYTES:
        raise _refusal(path, name, "is not of floating point in 16, 32 or 64 bits")
    shape = dataset.shape
    if not shape or 0 in shape or len(shape) > limits.dimensions:
        raise _refusal(path, name, f"has shape {shape}")
    claimed, stored = math.prod(shape) * dtype.get_size(), low.get_storage_size()
    if claimed > stored:
        raise _refusal(
            path, name, f"of shape {shape} claims {claimed} bytes; {stored} are in the file"
        )


def _refuse_more_than_stored(datasets: list[Any], path: Path) -> None:
    """Refuse arrays that together claim more bytes than the file has."""
    size = path.stat().st_size
    claimed = sum(dataset.id.get_storage_size() for dataset in datasets)
    if claimed > size:
        raise CheckpointError(
            f"{path}: its arrays claim {claimed} bytes, more than the {size} of the file; it may "
            f"be truncated; save the weights with {_SAVE_LINE}"
        )
    if not datasets:
        raise CheckpointError(
            f"{path}: holds no arrays; expected the weights of a Keras model, saved with "
            f"{_SAVE_LINE}"
        )


def _refusal(path: Path, name: str, what: str) -> CheckpointError:
    return CheckpointError(
        f"{path}: {_plain(repr(name[:80]))} {what}; expected only groups and plain arrays, as "
        f"Keras writes them with {_SAVE_LINE}"
    )


def _plain(text: str) -> str:
    """Escape text for one line; names in the file may hold any character."""
    return text.encode("unicode_escape").decode("ascii") if not text.isprintable() else text
