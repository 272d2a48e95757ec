"""Compare a written file with the eager model on one photo, before the file may exist."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx

from export.onnx_file import remove_checksum
from export.parity.network_reference import NetworkEager, eager_of, model_noise
from export.parity.torchvision_reference import EagerRun, TorchvisionEager
from model.checkpoint import Checkpoint
from model.errors import ExportError
from runtime.compare.attribution import explain
from runtime.compare.limits import FP32_ONNX, Limits, Verdict, check
from runtime.compare.matching import compare
from runtime.compare.noise import Noise, widened
from runtime.compare.result_protocol import DetectionResult
from runtime.detections import Detections
from runtime.predictor import Predictor

MIN_DETECTIONS = 20
_MAX_RANK = 60
_REMEDIES = "--nms-rounds, --candidates or --max-sampling"
THRESHOLD_INITIALISER = "select.score_threshold"


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What the comparison gave, on which photo, at which score threshold.

    `noise` names the limits where they are wider than for a trained network; `reference` is the
    eager model's answer.
    """

    verdict: Verdict
    photo: str
    score_threshold: float
    lowered: bool
    certified: bool = True
    noise: str = ""
    reference: DetectionResult | None = None

    def __str__(self) -> str:
        how = f" with the score threshold at {self.score_threshold:.2g}" if self.lowered else ""
        inexact = "" if self.certified else f" · not certified there: more {_REMEDIES}"
        wide = f" · limits: {self.noise}" if self.noise else ""
        return f"{self.verdict} · against eager PyTorch on {self.photo}{how}{inexact}{wide}"


def check_file(
    checkpoint: Checkpoint, path: Path, photo: npt.NDArray[np.uint8], name: str
) -> CheckReport:
    """Run the file in ONNX Runtime and the eager model on one photo.

    Where the eager model finds fewer than 20 objects, the score threshold is lowered on both
    sides, to the widest gap between its scores, so that the check always compares something.
    Where the file is beyond the limits, the eager model is compared with itself under other
    convolutions: a model that rounding moves more has wider limits (`runtime.compare.noise`).

    Raises:
        ExportError: a difference beyond the limits of `runtime.compare.limits`, or fewer than
            20 detections at any threshold.
    """
    with Predictor.open(path, on_uncertified="ignore") as predictor:
        manifest = predictor.artifact.manifest
        canvas = None
        if manifest.height is not None and manifest.width is not None:
            canvas = manifest.height, manifest.width
        eager = eager_of(checkpoint, canvas)
        run = eager.run(photo)
        threshold = checkpoint.spec.box.score_threshold
        if len(run.detections) >= min(MIN_DETECTIONS, checkpoint.spec.box.detections):
            found = predictor.predict(photo)
            return _Check(eager, photo, name, threshold, False).report(run, found)
    threshold = _widest_gap(eager.run(photo, 0.0), name)
    run = eager.run(photo, threshold)
    with tempfile.TemporaryDirectory() as folder:
        lowered = Path(folder) / "lowered.onnx"
        with_threshold(path, lowered, threshold)
        with Predictor.open(lowered, on_uncertified="ignore") as predictor:
            found = predictor.predict(photo)
            return _Check(eager, photo, name, threshold, True).report(run, found)


def _widest_gap(run: EagerRun, name: str) -> float:
    """A threshold in the middle of the widest gap between the scores of rank 20 to 60."""
    scores = np.sort(run.detections.scores)[::-1][:_MAX_RANK]
    wanted = min(MIN_DETECTIONS, run.trace.spec.box.detections)
    if len(scores) < wanted:
        raise ExportError(
            f"check: the eager model finds {len(scores)} objects on {name} at any score, "
            f"expected at least {wanted}; check on another photo with --check-image"
        )
    tail = scores[wanted - 1 :]
    if len(tail) == 1:
        return float(tail[0]) / 2
    at = int(np.argmax(tail[:-1] - tail[1:]))
    return float(tail[at] + tail[at + 1]) / 2


def with_threshold(source: Path, target: Path, threshold: float) -> None:
    """Copy a file with another score threshold.

    Raises:
        ExportError: the graph has no such initialiser.
    """
    model = remove_checksum(onnx.load(source))
    for tensor in model.graph.initializer:
        if tensor.name == THRESHOLD_INITIALISER:
            tensor.CopyFrom(
                onnx.numpy_helper.from_array(np.array(threshold, np.float32), tensor.name)
            )
            onnx.save(model, target)
            return
    raise ExportError(f"check: expected an initializer '{THRESHOLD_INITIALISER}' in the graph")


@dataclass(frozen=True, slots=True)
class _Check:
    """One photo at one score threshold; `lowered` when it is not the model's own."""

    eager: TorchvisionEager | NetworkEager
    photo: npt.NDArray[np.uint8]
    name: str
    threshold: float
    lowered: bool

    def report(self, run: EagerRun, found: Detections) -> CheckReport:
        verdict = self._verdict(run, found, FP32_ONNX)
        noise = ""
        if not verdict.passed:
            wider = widened(FP32_ONNX, self._noise(run))
            if wider.name != FP32_ONNX.name:
                verdict, noise = self._verdict(run, found, wider), wider.name
        if not verdict.passed and not found.exact:
            raise ExportError(
                f"the file differs from the eager model ({verdict}) and does not certify its "
                f"answer on {self.name}; export with more {_REMEDIES}; no file was written"
            )
        if not verdict.passed:
            rows = "; ".join(str(e) for e in verdict.excesses[:3])
            raise ExportError(
                f"the file differs from the eager model beyond the limits ({verdict}): {rows}; "
                "no file was written"
            )
        return CheckReport(
            verdict, self.name, self.threshold, self.lowered, found.exact, noise, run.detections
        )

    def _verdict(self, run: EagerRun, found: Detections, limits: Limits) -> Verdict:
        comparison = compare(run.detections, found, self.name)
        return explain(check([comparison], limits), [comparison], lambda _: run.trace)

    def _noise(self, run: EagerRun) -> Noise:
        """What rounding alone does to this model on this photo."""
        return model_noise(self.eager, self.photo, self.threshold, run)
