"""HDF5 files that no reader should believe, each built by a function of this module."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.keras_matterport import Widths, keras_path, random_weights, write_h5

# Every hostile file is a sound one with this array replaced.
VICTIM = "conv1/kernel"
PLACE = keras_path(VICTIM)
SHAPE = (7, 7, 3, 8)


def sound(path: Path) -> None:
    write_h5(path, random_weights(Widths()))


def _replaced(path: Path, build: Callable[[Any, Any], None]) -> None:
    """A sound file in which `build(h5py, group)` makes the victim anew."""
    import h5py

    weights = random_weights(Widths())
    del weights[VICTIM]
    write_h5(path, weights)
    with h5py.File(path, "a") as file:
        group, _, name = PLACE.rpartition("/")
        build(h5py, (file.require_group(group), name, path))


def _external_link(h5py: Any, at: Any) -> None:
    group, name, path = at
    with h5py.File(path.with_name("secret.h5"), "w") as other:
        other["kernel"] = np.zeros(SHAPE, np.float32)
    group[name] = h5py.ExternalLink("secret.h5", "/kernel")


def _soft_link(h5py: Any, at: Any) -> None:
    group, name, _ = at
    group[name] = h5py.SoftLink("/bn_conv1/bn_conv1/gamma:0")


def _broken_soft_link(h5py: Any, at: Any) -> None:
    group, name, _ = at
    group[name] = h5py.SoftLink("/nowhere\n")


def _external_storage(h5py: Any, at: Any) -> None:
    group, name, path = at
    raw = path.with_name("secret.raw")
    raw.write_bytes(bytes(4 * int(np.prod(SHAPE))))
    group.create_dataset(name, SHAPE, np.float32, external=[(str(raw), 0, 4 * int(np.prod(SHAPE)))])


def _virtual(h5py: Any, at: Any) -> None:
    group, name, path = at
    with h5py.File(path.with_name("secret.h5"), "w") as other:
        other["kernel"] = np.zeros(SHAPE, np.float32)
    layout = h5py.VirtualLayout(SHAPE, np.float32)
    layout[:] = h5py.VirtualSource(str(path.with_name("secret.h5")), "kernel", SHAPE)
    group.create_virtual_dataset(name, layout)


def _stored_nowhere(h5py: Any, at: Any) -> None:
    """A thousand terabytes that cost nothing: nobody wrote them."""
    group, name, _ = at
    group.create_dataset(name, (1 << 16, 1 << 16, 1 << 16), np.float32, chunks=(64, 64, 64))


def _bomb(h5py: Any, at: Any) -> None:
    """64 MB of zeros in a few kilobytes; a larger one only takes longer to build."""
    group, name, _ = at
    group.create_dataset(name, (16 << 20,), np.float32, compression="gzip", compression_opts=9)
    group[name][:] = 0


def _objects(h5py: Any, at: Any) -> None:
    group, name, _ = at
    group.create_dataset(name, (3,), h5py.string_dtype())


def _references(h5py: Any, at: Any) -> None:
    group, name, _ = at
    group.create_dataset(name, (3,), h5py.ref_dtype)


def _integers(h5py: Any, at: Any) -> None:
    group, name, _ = at
    group[name] = np.ones(SHAPE, np.int64)


def _compound(h5py: Any, at: Any) -> None:
    group, name, _ = at
    group.create_dataset(name, (3,), np.dtype([("a", "f4"), ("b", "i4")]))


def _no_values(h5py: Any, at: Any) -> None:
    group, name, _ = at
    group[name] = h5py.Empty("f4")


def _named_type(h5py: Any, at: Any) -> None:
    group, name, _ = at
    group[name] = np.dtype("f4")


def _cycle(h5py: Any, at: Any) -> None:
    group, name, _ = at
    group[name] = group.file["/"]


def _twice(h5py: Any, at: Any) -> None:
    group, name, _ = at
    group[name] = group.file["bn_conv1/bn_conv1/gamma:0"]


def _deep(h5py: Any, at: Any) -> None:
    group, name, _ = at
    group.create_dataset(name + "/a" * 40, data=np.ones(SHAPE, np.float32))


def _not_finite(h5py: Any, at: Any) -> None:
    group, name, _ = at
    group[name] = np.full(SHAPE, np.nan, np.float32)


REPLACED: dict[str, Callable[[Any, Any], None]] = {
    "external-link": _external_link,
    "soft-link": _soft_link,
    "broken-soft-link": _broken_soft_link,
    "external-storage": _external_storage,
    "virtual": _virtual,
    "stored-nowhere": _stored_nowhere,
    "bomb": _bomb,
    "objects": _objects,
    "references": _references,
    "integers": _integers,
    "compound": _compound,
    "no-values": _no_values,
    "named-type": _named_type,
    "cycle": _cycle,
    "twice": _twice,
    "deep": _deep,
    "not-finite": _not_finite,
}


def _weights_elsewhere(path: Path) -> None:
    """The group of the weights itself is a link."""
    import h5py

    sound(path.with_name("secret.h5"))
    with h5py.File(path, "w") as file:
        file["model_weights"] = h5py.ExternalLink("secret.h5", "/")


def _weights_are_an_array(path: Path) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        file["model_weights"] = np.zeros(3, np.float32)


def _no_arrays(path: Path) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        file.create_group("conv1/conv1")


WHOLE: dict[str, Callable[[Path], Any]] = {
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("not HDF5 at all\n" * 100),
    "signature-only": lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n"),
    "weights-elsewhere": _weights_elsewhere,
    "weights-are-an-array": _weights_are_an_array,
    "no-arrays": _no_arrays,
}


def make(kind: str, path: Path) -> None:
    """Build a hostile file, and what it points at beside it."""
    if kind in WHOLE:
        WHOLE[kind](path)
    else:
        _replaced(path, REPLACED[kind])
