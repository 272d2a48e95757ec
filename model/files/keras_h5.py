"""Read the weights of a Keras `.h5` file that may come from anybody.

HDF5 can point at other files, at whole datasets that are stored nowhere, and at filters that
inflate or load code. Keras writes none of that: groups, and in them plain arrays of floating
point. Everything is looked at before any value is read, and anything else is refused.
Attributes are not read at all.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.errors import CheckpointError, MissingDependencyError

_SAVE_LINE = 'model.save_weights("weights.h5")'
# A whole model's file has its weights in this group, an optimizer's state in another.
_WEIGHTS = "model_weights"
# Far above any network's.
_MAX_OBJECTS, _MAX_DEPTH, _MAX_DIMS = 20_000, 8, 8
_FLOAT_BYTES = (2, 4, 8)


def read_keras_h5(path: Path) -> dict[str, NDArray[np.float32]]:
    """Read all arrays.

    Returns:
        float32 arrays by their path in the file without Keras' `:0`, like `conv1/conv1/kernel`.

    Raises:
        CheckpointError: not HDF5, damaged, or holding anything but groups and plain arrays of
            floating point that are in the file themselves.
        MissingDependencyError: h5py is not installed.
    """
    h5py = _library(path)
    try:
        with h5py.File(path, "r", locking=False) as file:
            root = file
            if _link(h5py, file, _WEIGHTS, path) is not None:
                root = _opened(h5py, file, _WEIGHTS, path)
            found = list(_datasets(h5py, root, path))
            _refuse_more_than_stored([d for _, d in found], path)
            return {name: np.asarray(d[()], np.float32) for name, d in found}
    # Damaged files fail anywhere in the library, in many ways.
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError) as error:
        reason = (str(error).strip() or type(error).__name__).partition("\n")[0][:120]
        raise CheckpointError(
            f"{path}: not a readable HDF5 file ({_plain(reason)}); it may be truncated; "
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


def _datasets(h5py: Any, root: Any, path: Path) -> Iterator[tuple[str, Any]]:
    """Every array of the file by its name, looked at but not read."""
    if not isinstance(root, h5py.Group):
        raise _refusal(path, _WEIGHTS, "is no group")
    seen = {int(h5py.h5o.get_info(root.id).addr)}
    waiting = [("", 0, root)]
    while waiting:
        prefix, depth, group = waiting.pop()
        for key in group:
            name = f"{prefix}{key}"
            item = _opened(h5py, group, key, path, name)
            address = int(h5py.h5o.get_info(item.id).addr)
            if address in seen:
                raise _refusal(path, name, "is there twice, under another name too")
            if depth == _MAX_DEPTH or len(seen) == _MAX_OBJECTS:
                raise _refusal(path, name, "lies too deep, or is one of too many")
            seen.add(address)
            if isinstance(item, h5py.Group):
                waiting.append((f"{name}/", depth + 1, item))
            elif isinstance(item, h5py.Dataset):
                _refuse_unusual(h5py, item, name, path)
                yield name.removesuffix(":0"), item
            else:
                raise _refusal(path, name, "is neither a group nor an array")


def _link(h5py: Any, group: Any, key: str, path: Path, name: str = "") -> type | None:
    """The kind of a link, without following it; None where there is none."""
    try:
        kind: type | None = group.get(key, getclass=True, getlink=True)
    except TypeError as error:  # of a kind that users of HDF5 can define
        raise _refusal(path, name or key, "is a link of an unknown kind") from error
    return kind


def _opened(h5py: Any, group: Any, key: str, path: Path, name: str = "") -> Any:
    """What a plain link leads to; others may lead out of the file and are not followed."""
    kind = _link(h5py, group, key, path, name)
    if kind is not h5py.HardLink:
        said = {h5py.ExternalLink: "links to another file", h5py.SoftLink: "is a soft link"}
        raise _refusal(path, name or key, said.get(kind, "is a link of an unknown kind"))
    return group[key]


def _refuse_unusual(h5py: Any, dataset: Any, name: str, path: Path) -> None:
    """Refuse what is stored elsewhere or nowhere, needs a filter, or is no floating point."""
    low = dataset.id
    stored = low.get_create_plist()
    # In this order: asking a virtual dataset for its shape opens other files.
    if stored.get_layout() == h5py.h5d.VIRTUAL or stored.get_external_count() > 0:
        raise _refusal(path, name, "has its values in other files")
    if stored.get_nfilters() > 0:
        raise _refusal(path, name, "is compressed or filtered")
    kind = low.get_type()
    if kind.get_class() != h5py.h5t.FLOAT or kind.get_size() not in _FLOAT_BYTES:
        raise _refusal(path, name, "is not of floating point in 16, 32 or 64 bits")
    shape = dataset.shape
    if not shape or 0 in shape or len(shape) > _MAX_DIMS:
        raise _refusal(path, name, f"has shape {shape}")
    claimed, there = math.prod(shape) * kind.get_size(), low.get_storage_size()
    if claimed > there:
        raise _refusal(
            path, name, f"of shape {shape} claims {claimed} bytes, of which {there} are in the file"
        )


def _refuse_more_than_stored(datasets: list[Any], path: Path) -> None:
    """A file can say what it likes of its arrays, but not hold more than its bytes."""
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
    """Text for one line; names in the file may hold anything."""
    return text.encode("unicode_escape").decode("ascii") if not text.isprintable() else text
