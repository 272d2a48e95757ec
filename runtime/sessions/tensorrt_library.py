"""The bindings that run an engine, and the checks before they see it."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from types import ModuleType
from typing import Any

from model.errors import ArtifactError, MissingDependencyError
from runtime.artifacts.engine_manifest import EngineFile

_EXTRAS = {"tensorrt": "tensorrt", "tensorrt_rtx": "rtx"}


def load_library(read: EngineFile) -> ModuleType:
    """Import the library that an engine was built with, of a version that can run it.

    Raises:
        MissingDependencyError: it is not installed.
        ArtifactError: another version is.
    """
    info, path = read.info, read.artifact.path
    try:
        module = importlib.import_module(info.library)
    except ImportError as error:
        raise MissingDependencyError(
            f"{path}: needs {info.library} {info.library_version}, which is not installed; "
            f"pip install 'maskport[{_EXTRAS[info.library]}]'"
        ) from error
    installed = str(module.__version__)
    if installed != info.library_version and not _is_later(installed, info):
        raise ArtifactError(
            f"{path}: was built with {info.library} {info.library_version}, installed is "
            f"{installed}; build it again with maskport engine, or install that version"
        )
    return module


def _is_later(installed: str, info: Any) -> bool:
    """Whether a version-compatible engine may run here: later versions may, earlier ones not."""
    return bool(info.version_compatible) and _numbers(installed) >= _numbers(info.library_version)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def check_architecture(read: EngineFile, local: str) -> None:
    """Refuse an engine for another GPU before the library sees it.

    Raises:
        ArtifactError: the engine was built for an architecture that this GPU is not.
    """
    info = read.info
    here = _capability(local)
    fits = {
        "ampere-plus": here is not None and here >= 80,
        "same-compute-capability": local == info.architecture,
    }.get(info.hardware_compatible, local == info.architecture)
    if not fits:
        raise ArtifactError(
            f"{read.artifact.path}: was built for {info.architecture}, this GPU is {local}; "
            f"build it for {local} with maskport engine"
        )


def _capability(architecture: str) -> int | None:
    """89 of "sm89"; None of anything else."""
    match = re.fullmatch(r"sm([0-9]{2,3})", architecture)
    return int(match[1]) if match else None


def listening_logger(trt: Any, listen: Callable[[str, bool], None]) -> Any:
    """A logger of the library that passes warnings and errors on, one line each.

    Args:
        trt: the bindings.
        listen: takes the text, and whether it is an error.
    """

    class _Listener(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            if severity <= trt.ILogger.WARNING:
                listen(" ".join(msg.split()), bool(severity <= trt.ILogger.ERROR))

    return _Listener()
