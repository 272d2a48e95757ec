"""TensorRT: engines for the GPU of this machine, 10.12 and later, strongly typed."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from export.builders.options import BuildOptions
from model.errors import MissingDependencyError, UsageError
from runtime.cuda.driver import local_architecture
from runtime.files import atomic_path

if TYPE_CHECKING:
    import tensorrt as trt

OLDEST = (10, 12)
# Read by native code in its own format; about a megabyte per engine is usual.
_MAX_CACHE_BYTES = 512 * 2**20


class TensorRTLibrary:
    """The adapter."""

    name = "tensorrt"

    def __init__(self) -> None:
        try:
            import tensorrt
        except ImportError as error:
            raise MissingDependencyError(
                "TensorRT is not installed; pip install 'maskport[tensorrt]' (its libraries come "
                "from the vendor's own index), or export with --target tensorrt-rtx, which "
                "builds without a GPU"
            ) from error
        self.module: ModuleType = tensorrt
        if tuple(int(part) for part in self.version.split(".")[:2]) < OLDEST:
            raise MissingDependencyError(
                f"TensorRT {self.version}: expected {OLDEST[0]}.{OLDEST[1]} or later, the first "
                "with complete strong typing; pip install -U 'maskport[tensorrt]'"
            )

    @property
    def version(self) -> str:
        """Version of the installed library."""
        return str(self.module.__version__)

    def architectures(self, requested: tuple[str, ...]) -> tuple[str, ...]:
        """The local GPU's, the only one that TensorRT builds for.

        Raises:
            UsageError: another one is requested.
            DeviceError: there is no GPU.
        """
        local = local_architecture()
        if requested and requested != (local,):
            raise UsageError(
                f"--gpu {','.join(requested)}: TensorRT builds for the local GPU, {local}; "
                "leave --gpu out, or export with --target tensorrt-rtx to build for others"
            )
        return (local,)

    def configure(
        self, config: trt.IBuilderConfig, architecture: str, options: BuildOptions
    ) -> None:
        """Set compatibility flags and the timing cache."""
        del architecture
        if not TYPE_CHECKING:
            trt = self.module
        # `inspection.py` reads the layer types from it.
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
        if options.version_compatible:
            config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
            # Otherwise the engine contains host code, which our session never runs.
            config.set_flag(trt.BuilderFlag.EXCLUDE_LEAN_RUNTIME)
        level = trt.HardwareCompatibilityLevel
        if options.hardware_compatible == "ampere-plus":
            config.hardware_compatibility_level = level.AMPERE_PLUS
        elif options.hardware_compatible == "same-compute-capability":
            config.hardware_compatibility_level = level.SAME_COMPUTE_CAPABILITY
        if options.timing_cache is not None:
            cache = config.create_timing_cache(_read_cache(options.timing_cache))
            if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
                raise UsageError(
                    f"--timing-cache {options.timing_cache}: made by another TensorRT or GPU; "
                    "delete it or use another file"
                )

    @property
    def opens_what_it_builds(self) -> bool:
        """Yes: it builds for the local GPU."""
        return True

    def finish(self, config: trt.IBuilderConfig, options: BuildOptions) -> None:
        """Write the timing cache back."""
        if options.timing_cache is None:
            return
        cache = config.get_timing_cache()
        if cache is not None:
            with atomic_path(options.timing_cache) as temporary:
                temporary.write_bytes(bytes(memoryview(cache.serialize())))


def _read_cache(path: Path) -> bytes:
    if not path.exists():
        return b""
    if not path.is_file() or path.stat().st_size > _MAX_CACHE_BYTES:
        raise UsageError(f"--timing-cache {path}: not a timing cache; use another file")
    return path.read_bytes()
