"""TensorRT-RTX: engines for a named architecture, built ahead of time on any machine."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING

from export.builders.options import BuildOptions
from model.errors import MissingDependencyError, UsageError

if TYPE_CHECKING:
    import tensorrt_rtx as trt


class RtxLibrary:
    """The adapter.

    It sets no timing cache: RTX does not use one, and requesting one makes a build need a GPU.
    """

    name = "tensorrt_rtx"

    def __init__(self) -> None:
        try:
            import tensorrt_rtx
        except ImportError as error:
            raise MissingDependencyError(
                "TensorRT-RTX is not installed; pip install 'maskport[rtx]'"
            ) from error
        self.module: ModuleType = tensorrt_rtx

    @property
    def version(self) -> str:
        """Version of the installed library."""
        return str(self.module.__version__)

    def architectures(self, requested: tuple[str, ...]) -> tuple[str, ...]:
        """The requested architectures, one engine each; there is no default.

        Raises:
            UsageError: none is given, or the library cannot build for one of them.
        """
        known = self.known()
        if not requested:
            raise UsageError(f"--gpu: expected one or more of {','.join(known)}")
        for architecture in requested:
            if architecture not in known:
                raise UsageError(
                    f"--gpu {architecture}: TensorRT-RTX {self.version} builds for "
                    f"{', '.join(known)}; other GPUs need TensorRT (--target tensorrt)"
                )
        return tuple(dict.fromkeys(requested))

    def known(self) -> tuple[str, ...]:
        """Architectures that the library can build for, like "sm89"."""
        members = self.module.ComputeCapability.__members__
        names = [name.lower() for name in members if name.startswith("SM")]
        return tuple(sorted(names, key=lambda name: int(name[2:])))

    def configure(
        self, config: trt.IBuilderConfig, architecture: str, options: BuildOptions
    ) -> None:
        """Set the compute capability.

        Raises:
            UsageError: an option that only TensorRT supports.
        """
        for name, is_set in (
            ("--timing-cache", options.timing_cache is not None),
            ("--version-compatible", options.version_compatible),
            ("--hardware-compatible", options.hardware_compatible != "none"),
        ):
            if is_set:
                raise UsageError(f"{name}: only for TensorRT; leave it out for TensorRT-RTX")
        config.num_compute_capabilities = 1
        capability = self.module.ComputeCapability.__members__[architecture.upper()]
        if not config.set_compute_capability(capability, 0):
            raise UsageError(
                f"--gpu {architecture}: rejected by TensorRT-RTX {self.version}; leave it out"
            )

    @property
    def opens_what_it_builds(self) -> bool:
        """No: it needs a GPU, where it compiles its last kernels."""
        return False

    def finish(self, config: trt.IBuilderConfig, options: BuildOptions) -> None:
        """A build has no side products."""
