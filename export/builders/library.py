"""The library of a target: TensorRT or TensorRT-RTX."""

from __future__ import annotations

from export.builders.rtx import RtxLibrary
from export.builders.tensorrt import TensorRTLibrary

# Both have `name`, `module` (the bindings), `version`, and the same methods.
Library = RtxLibrary | TensorRTLibrary


def library_of(target: str) -> Library:
    """The adapter for "tensorrt" or "tensorrt-rtx".

    Raises:
        MissingDependencyError: the library is not installed.
    """
    return RtxLibrary() if target == "tensorrt-rtx" else TensorRTLibrary()
