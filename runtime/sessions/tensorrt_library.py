"""The TensorRT bindings of an engine, and the checks before they read it."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from types import ModuleType
from typing import Any

from model.errors import ArtifactError, MissingDependencyError
from runtime.artifacts.engine_manifest import EngineFile

_EXTRAS = {"tensorrt": "tensorrt", "tensorrt_rtx": "rtx"}


def load_library(engine: EngineFile) -> ModuleType:
    """Import the library that an engine was built with, in a version that can run it.

    Raises:
        MissingDependencyError: it is not installed.
        ArtifactError: the installed version cannot run it.
    """
    info, path = engine.info, engine.artifact.path
    try:
        module = importlib.import_module(info.library)
    except ImportError as error:
        raise MissingDependencyError(
            f"{path}: needs {info.library} {info.library_version}, which is not installed; "
            f"pip install 'maskport[{_EXTRAS[info.library]}]'"
        ) from error
    installed = str(module.__version__)
    # A later library runs an engine that is version-compatible.
    is_later = info.version_compatible and _numbers(installed) >= _numbers(info.library_version)
    if installed != info.library_version and not is_later:
        raise ArtifactError(
            f"{path}: built with {info.library} {info.library_version}, but {installed} is "
            f"installed; build it again with maskport engine, or install that version"
        )
    return module


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def check_architecture(engine: EngineFile, local: str) -> None:
    """Refuse an engine for another GPU before the library reads it.

    Raises:
        ArtifactError: the engine was built for another architecture.
    """
    info = engine.info
    capability = _capability(local)
    fits = {
        "ampere-plus": capability is not None and capability >= 80,
        "same-compute-capability": local == info.architecture,
    }.get(info.hardware_compatible, local == info.architecture)
    if not fits:
        raise ArtifactError(
            f"{engine.artifact.path}: built for {info.architecture}, this GPU is {local}; "
            f"build it for {local} with maskport engine"
        )


def _capability(architecture: str) -> int | None:
    """89 for "sm89"; None for any other text."""
    match = re.fullmatch(r"sm([0-9]{2,3})", architecture)
    return int(match[1]) if match else None


def forwarding_logger(trt: Any, on_log: Callable[[str, bool], None]) -> Any:
    """A TensorRT logger that forwards warnings and errors, one line each.

    Args:
        trt: the bindings.
        on_log: receives the message, and whether it is an error.
    """

    class _Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            if severity <= trt.ILogger.WARNING:
                on_log(" ".join(msg.split()), bool(severity <= trt.ILogger.ERROR))

    return _Logger()
