"""The interface of a library to the builder; `tensorrt.py` and `rtx.py` implement it."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING, Protocol

from export.builders.options import BuildOptions

if TYPE_CHECKING:
    import tensorrt as trt


class Library(Protocol):
    """TensorRT or TensorRT-RTX.

    Attributes:
        name: "tensorrt" or "tensorrt_rtx".
        module: the imported bindings; both have the same builder, network and parser.
    """

    name: str
    module: ModuleType

    @property
    def version(self) -> str:
        """Version of the installed library."""

    def architectures(self, requested: tuple[str, ...]) -> tuple[str, ...]:
        """The architectures to build for, one engine each, from those that the user requested.

        Raises:
            UsageError: the library cannot build for one of them.
            DeviceError: the library builds for the local GPU, but there is none.
        """

    def configure(
        self, config: trt.IBuilderConfig, architecture: str, options: BuildOptions
    ) -> None:
        """Set the library's own part of the builder configuration.

        Raises:
            UsageError: an option that this library does not support.
        """

    @property
    def opens_what_it_builds(self) -> bool:
        """Whether this machine can open a built engine, to check its types."""

    def finish(self, config: trt.IBuilderConfig, options: BuildOptions) -> None:
        """Save the side products of a successful build, such as the timing cache."""
