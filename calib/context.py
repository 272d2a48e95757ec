"""What all stages of one quantization share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from calib.calibration.photos import Photo, read_photo
from calib.graph.formats import FORMATS, INT8_REDUCED, Format
from calib.options import QuantizeOptions
from calib.rounding.vnni import int8_accumulation_saturates
from calib.writers.registry import writer_for
from export.onnx_file import OnnxFile
from runtime.artifacts.metadata import Artifact
from runtime.sources.pixel_format import PixelFormat, Pixels

Progress = Callable[[int, str], Callable[[int], None]]

# Decoded photos to keep: the first are read by several stages.
_CACHE_BYTES = 256 << 20


def silent(total: int, title: str) -> Callable[[int], None]:
    """A `Progress` that shows nothing."""
    return lambda done: None


@dataclass(slots=True)
class RunContext:
    """One quantization.

    Attributes:
        artifact: spec and manifest of the FP32 file.
        model_sha256: of that file.
        options: how to quantize.
        writer: where Q/DQ pairs go; a name of `calib.writers.registry`.
        progress: see `calib.quantize.quantize`.
        advance: takes the number of photos that the current stage has finished.
        skipped: reasons by photo that could not be used.
    """

    artifact: Artifact
    model_sha256: str
    options: QuantizeOptions
    writer: str
    progress: Progress = silent
    advance: Callable[[int], None] = lambda done: None
    skipped: dict[Path, str] = field(default_factory=dict)
    _decoded: dict[Path, Pixels] = field(default_factory=dict)

    @classmethod
    def of(
        cls, file: OnnxFile, options: QuantizeOptions, progress: Progress = silent
    ) -> RunContext:
        """For an FP32 file.

        Raises:
            UsageError: no such writer, or a format that it cannot write.
        """
        writer = writer_for(file.artifact.manifest.target, options)
        return cls(file.artifact, file.sha256, options, writer, progress)

    @property
    def threads(self) -> int | None:
        """Of the CPU; None takes all cores."""
        return self.options.threads

    @property
    def format(self) -> Format:
        """Of quantized layers."""
        return INT8_REDUCED if self.reduces_range else FORMATS[self.options.format]

    @property
    def accumulation_saturates(self) -> bool:
        """Whether this CPU's int8 sums saturate for this file; see `calib.rounding.vnni`."""
        uses_int8_kernels = self.writer == "onnxruntime" and self.options.format == "int8"
        return uses_int8_kernels and int8_accumulation_saturates()

    @property
    def reduces_range(self) -> bool:
        """Whether weights have 7 bits."""
        choice = self.options.reduce_range
        return self.accumulation_saturates if choice is None else choice

    def start(self, photos: int, title: str) -> None:
        """Begin a stage that runs that many photos."""
        self.advance = self.progress(photos, title)

    @property
    def form(self) -> PixelFormat:
        """What the model takes of a photo."""
        return PixelFormat(self.artifact.spec.preprocess.channels, self.options.value_range)

    def pixels(self, photo: Photo) -> Pixels:
        """A decoded photo, as `runtime.sources.photos.decode_as`.

        Raises:
            ImageError: see `calib.calibration.photos.read_photo`.
        """
        if photo.path in self._decoded:
            return self._decoded[photo.path]
        pixels = read_photo(photo.path, self.artifact, self.form)
        if sum(kept.nbytes for kept in self._decoded.values()) + pixels.nbytes <= _CACHE_BYTES:
            self._decoded[photo.path] = pixels
        return pixels
