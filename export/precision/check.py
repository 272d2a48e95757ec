"""Check a new file in half precision on one photo: value ranges, then detections."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from export.parity.check import CheckReport, at_threshold
from export.precision.formats import HalfFormat
from export.precision.ranges import RangeReport, refuse_overflow
from export.precision.session import EmulatedSession
from model.errors import ExportError
from runtime.compare.half_limits import HALF_LIMITS, HalfVerdict, check_half_run
from runtime.compare.matching import compare
from runtime.predictor import Predictor


@dataclass(frozen=True, slots=True)
class HalfCheckReport:
    """The emulator's results: the agreement with the eager model, and the value ranges."""

    verdict: HalfVerdict
    ranges: RangeReport

    def __str__(self) -> str:
        return f"{self.verdict} · {self.ranges}"


def check_half(
    path: Path, photo: npt.NDArray[np.uint8], fp32: CheckReport, half: HalfFormat
) -> HalfCheckReport:
    """Run the file under emulation and compare it with the eager model.

    Args:
        path: the file in half precision.
        photo: uint8 [h, w, 3] RGB, the one of `fp32`.
        fp32: the check of the float32 graph on the same photo; its score threshold is used too.
        half: the file's format.

    Raises:
        ExportError: a tensor overflows; or the agreement with the eager model is below the limits
            of `runtime.compare.half_limits`.
    """
    assert fp32.reference is not None
    lowered = at_threshold(path, fp32.score_threshold) if fp32.lowered else nullcontext(path)
    with lowered as file:
        session = EmulatedSession(file, ranges=True)
        with Predictor(session, on_uncertified="ignore") as predictor:
            detections = predictor.predict(photo)
    others = "fp32 or bf16" if half.name == "fp16" else "fp32"
    refuse_overflow(session.ranges, half, fp32.photo, f"export with --precision {others}")
    comparison = compare(fp32.reference, detections, fp32.photo)
    verdict = check_half_run([comparison], HALF_LIMITS[half.name])
    if not verdict.passed:
        raise ExportError(
            f"the file in {half.title} differs from the eager model beyond the limits ({verdict}); "
            "check on a photo with objects of the model's classes (--check-image), or export with "
            "another --precision; no file was written"
        )
    return HalfCheckReport(verdict, session.ranges.of_format(half))
