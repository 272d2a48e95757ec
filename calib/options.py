"""`QuantizeOptions`: how to quantize; impossible combinations are refused."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from calib.graph.formats import FORMATS
from calib.graph.presets import PRESETS, Preset
from calib.observers.methods import METHODS
from model.errors import UsageError, require_one_of
from runtime.sources.pixel_format import ValueRange
from runtime.whole_numbers import require_threads

if TYPE_CHECKING:
    from torch import nn

    from model.live.builder import Builder

FloatType = Literal["fp32", "fp16"]
Rounding = Literal["gptq", "nearest"]
DEFAULT_METHOD = "mse"
DEFAULT_ROUNDING: Rounding = "gptq"
_MOST_POINTS = 100.0


@dataclass(frozen=True, slots=True)
class QuantizeOptions:
    """How to quantize.

    Attributes:
        format: "int8" or "fp8"; see `calib.graph.formats`.
        float_type: of the layers that are not quantized.
        method: of choosing ranges; see `calib.observers.methods`.
        rounding: of the weights: by GPTQ on photos, or each to the nearest code.
        writer: "tensorrt" or "onnxruntime"; None follows the file's target. Checked, once the file
            is known, by `calib.writers.registry.writer_for`.
        preset: which layers are quantized; see `calib.graph.presets`.
        table: path of the calibration table; None puts it beside the output.
        import_cache: a TensorRT calibration cache that gives the ranges, in place of photos.
        budget: points of agreement AP that may be lost; None quantizes the preset's layers. See
            `calib.search.search`.
        reference: a checkpoint or an ONNX file to agree with; None is the input graph.
        reference_model: a live module to agree with, or the code that builds it and takes the
            weights of `reference`.
        reduce_range: give weights 7 bits, so that int8 sums do not saturate on a CPU without VNNI;
            None decides by this CPU where Q/DQ are placed for ONNX Runtime.
        threads: of the CPU; None takes all cores.
        value_range: of the photos, see `runtime.predictor.Predictor`.

    Raises:
        UsageError: an unknown value, or options that exclude each other.
    """

    format: str = "int8"
    float_type: FloatType = "fp32"
    method: str = DEFAULT_METHOD
    rounding: Rounding = DEFAULT_ROUNDING
    writer: str | None = None
    preset: Preset = "accurate"
    table: Path | None = None
    import_cache: Path | None = None
    budget: float | None = None
    reference: Path | None = None
    reference_model: nn.Module | Builder | None = None
    reduce_range: bool | None = None
    threads: int | None = None
    value_range: ValueRange | None = None

    def __post_init__(self) -> None:
        """Check all values."""
        require_one_of("--format", self.format, FORMATS)
        require_one_of("--float-type", self.float_type, get_args(FloatType))
        require_one_of("--method", self.method, METHODS)
        require_one_of("--rounding", self.rounding, get_args(Rounding))
        require_one_of("--preset", self.preset, PRESETS)
        if self.budget is not None:
            _require_points("--budget", self.budget)
        if self.threads is not None:
            require_threads(self.threads)
        if self.reduce_range and self.format != "int8":
            raise UsageError("--reduce-range: only int8 has a range to reduce; leave it out")
        if self.import_cache is not None:
            needs_photos = {
                "--budget": self.budget is not None,
                "--table": self.table is not None,
                "--method": self.method != DEFAULT_METHOD,
            }
            require_no_photos(needs_photos)

    @property
    def uses_gptq(self) -> bool:
        """Whether photos are run for it: FP8 and imported ranges are rounded to nearest."""
        return self.rounding == "gptq" and self.format == "int8" and self.import_cache is None


def require_no_photos(options: dict[str, bool]) -> None:
    """Refuse options that need photos beside an imported cache.

    Raises:
        UsageError: names the first option that is set.
    """
    for option, is_set in options.items():
        if is_set:
            raise UsageError(f"--import-cache: {option} needs photos; leave one of them out")


def _require_points(option: str, value: object) -> None:
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if not is_number or not 0.0 <= float(value) <= _MOST_POINTS:  # type: ignore[arg-type]
        raise UsageError(
            f"{option}: expected points of AP from 0 to {_MOST_POINTS:g}, got {value!r}"
        )
