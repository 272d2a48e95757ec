"""A file in half precision, run by the emulator: a session like any other."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from export.onnx_file import read_onnx
from export.precision.emulator import RANGES_OUTPUT, emulate
from export.precision.ranges import STATISTICS, RangeReport, read_statistics
from model.arrays import Float64
from model.errors import ArtifactError, in_brief
from runtime.artifacts.metadata import Artifact
from runtime.sessions.session import Inputs, Outputs
from runtime.whole_numbers import require_threads


class EmulatedSession:
    """Answers what the file declares, half precision included; needs the `export` extra.

    Args:
        path: an ONNX file that maskport wrote, of any precision.
        ranges: also note what every half tensor reaches; see `ranges`.
        threads: of the CPU; None takes ONNX Runtime's own choice.

    Raises:
        ArtifactError: the file is damaged, not ours, or beyond what ONNX Runtime runs.
        ExportError: the file cannot be emulated.
        UsageError: that is no number of threads.
    """

    def __init__(self, path: Path, ranges: bool = False, threads: int | None = None) -> None:
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
        import onnxruntime as ort

        if threads is not None:
            require_threads(threads)

        read = read_onnx(path)
        emulation = emulate(read.model, ranges)
        self._artifact, self._tensors = read.artifact, emulation.tensors
        self._path = path
        # float64: in float32 a count stops growing at 2**24.
        self._numbers: Float64 | None = None
        options = ort.SessionOptions()
        # Every node as it stands: an optimiser may fuse or reorder what rounds.
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 4
        if threads is not None:
            options.intra_op_num_threads = threads
        try:
            self._session: Any = ort.InferenceSession(
                emulation.model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime raises a type of its own per status code
            raise ArtifactError(
                f"{path}: the emulated graph does not run ({in_brief(error)}); export it again"
            ) from error
        self._outputs = [output.name for output in self._session.get_outputs()]

    @property
    def artifact(self) -> Artifact:
        """The spec and the manifest inside the file."""
        return self._artifact

    def run(self, inputs: Inputs) -> Outputs:
        """Run once.

        Raises:
            ArtifactError: ONNX Runtime failed, or the session is closed.
        """
        if self._session is None:
            raise ArtifactError(f"{self._path}: the session is closed; open it again")
        try:
            values = self._session.run(None, dict(inputs))
        except Exception as error:  # a type of its own per status code
            raise ArtifactError(
                f"{self._path}: the emulated graph failed ({in_brief(error)}); export it again"
            ) from error
        answer = dict(zip(self._outputs, values, strict=True))
        numbers = answer.pop(RANGES_OUTPUT, None)
        if numbers is not None:
            now = numbers.astype(np.float64)
            self._numbers = now if self._numbers is None else _merged(self._numbers, now)
        return answer

    @property
    def ranges(self) -> RangeReport:
        """What the runs so far have shown; the tensors of one that noted no ranges are none."""
        if self._numbers is None:
            return RangeReport(())
        return read_statistics(self._tensors, self._numbers)

    def close(self) -> None:
        """Free the session."""
        self._session = None


def _merged(before: Float64, now: Float64) -> Float64:
    """Counts add up; the second of every five is a largest number."""
    total = before + now
    total[1::STATISTICS] = np.maximum(before, now)[1::STATISTICS]
    return total
