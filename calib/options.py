"""What can be asked of a quantisation, and what cannot."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Literal, get_args

from calib.graph.formats import FORMATS
from calib.graph.presets import Preset, checked_preset
from calib.observers.methods import method_named
from model.errors import UsageError
from runtime.whole_numbers import require_threads

Rest = Literal["fp32", "fp16"]
Rounding = Literal["learned", "nearest"]
DEFAULT_METHOD = "mse"
DEFAULT_ROUNDING: Rounding = "learned"
_MOST_POINTS = 100.0


@dataclass(frozen=True, slots=True)
class QuantizeOptions:
    """How to quantise.

    Attributes:
        format: "int8" or "fp8"; see `calib.graph.formats`.
        rest: what the layers compute in that are not quantised.
        method: of choosing ranges; see `calib.observers.methods`.
        rounding: of the weights: learned on photos, or each to the nearest.
        writer: "tensorrt" or "onnxruntime"; None goes by the file's target.
        preset: which layers are quantised; see `calib.graph.presets`.
        table: where the calibration table is; None puts it beside the output.
        import_cache: a TensorRT calibration cache to take the ranges from, instead of photos.
        budget: points of agreement AP that may be lost; None keeps what the policy keeps. See
            `calib.search.budget`.
        reference: what to agree with, a checkpoint or an ONNX file; None is the input graph.
        reduce_range: give weights 7 bits, so that no sum of two products overflows on a CPU without
            VNNI; None does so where this CPU needs it and the Q/DQ are for ONNX Runtime.
        threads: of the CPU; None takes all cores.

    Raises:
        UsageError: one that there is not, or two that do not go together. The writer is checked
            when the file is known, by `calib.writers.registry.writer_for`.
    """

    format: str = "int8"
    rest: Rest = "fp32"
    method: str = DEFAULT_METHOD
    rounding: Rounding = DEFAULT_ROUNDING
    writer: str | None = None
    preset: Preset = "accurate"
    table: Path | None = None
    import_cache: Path | None = None
    budget: float | None = None
    reference: Path | None = None
    reduce_range: bool | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        """What is impossible would else be found late, or be left out in silence."""
        _require_one_of("--format", self.format, FORMATS)
        _require_one_of("--rest", self.rest, get_args(Rest))
        method_named(self.method)
        _require_one_of("--rounding", self.rounding, get_args(Rounding))
        checked_preset(self.preset)
        if self.budget is not None:
            _require_within("--budget", "points of AP", self.budget, _MOST_POINTS)
        if self.threads is not None:
            require_threads(self.threads)
        if self.reduce_range and self.format != "int8":
            raise UsageError("--reduce-range: only int8 has a range to reduce; leave it out")
        if self.import_cache is not None:
            self._require_no_photos()

    def _require_no_photos(self) -> None:
        """An imported cache holds the ranges, and no photo is looked at."""
        given = {
            "--budget": self.budget is not None,
            "--table": self.table is not None,
            "--method": self.method != DEFAULT_METHOD,
        }
        for option, is_given in given.items():
            if is_given:
                raise needs_photos(option)

    @property
    def learns_rounding(self) -> bool:
        """Whether photos are looked at for it: floats are rounded to nearest anyway."""
        return self.rounding == "learned" and self.format == "int8" and self.import_cache is None


def needs_photos(option: str) -> UsageError:
    """What to say of an option that asks an imported cache for what only photos show."""
    return UsageError(f"--import-cache: {option} needs photos; leave one of them out")


def _require_one_of(option: str, value: object, known: Collection[str]) -> None:
    if value not in list(known):
        raise UsageError(f"{option}: expected one of {', '.join(known)}, got '{value}'")


def _require_within(option: str, what: str, value: object, most: float) -> None:
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if not is_number or not 0.0 <= float(value) <= most:  # type: ignore[arg-type]
        raise UsageError(f"{option}: expected {what} from 0 to {most:g}, got {value!r}")
