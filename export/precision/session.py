"""A session that runs a file in half precision under emulation."""

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
    """Computes with the declared types, including half precision; needs the `export` extra.

    Args:
        path: an ONNX file from maskport, of any precision.
        ranges: also record the values of every half tensor; see `ranges`.
        threads: of the CPU; None: ONNX Runtime's default.

    Raises:
        ArtifactError: the file is damaged, not ours, or ONNX Runtime cannot run it.
        ExportError: the file cannot be emulated.
        UsageError: an invalid number of threads.
    """

    def __init__(self, path: Path, ranges: bool = False, threads: int | None = None) -> None:
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
        import onnxruntime as ort

        if threads is not None:
            require_threads(threads)

        file = read_onnx(path)
        emulation = emulate(file.model, ranges)
        self._artifact, self._tensors = file.artifact, emulation.tensors
        self._path = path
        # float64: float32 counts stop at 2**24.
        self._statistics: Float64 | None = None
        options = ort.SessionOptions()
        # Without optimization, which could fuse or reorder the rounding.
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 4
        if threads is not None:
            options.intra_op_num_threads = threads
        try:
            self._session: Any = ort.InferenceSession(
                emulation.model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime has an exception type per status code
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
        except Exception as error:  # an exception type per status code
            raise ArtifactError(
                f"{self._path}: the emulated graph failed ({in_brief(error)}); export it again"
            ) from error
        outputs = dict(zip(self._outputs, values, strict=True))
        statistics = outputs.pop(RANGES_OUTPUT, None)
        if statistics is not None:
            new, old = statistics.astype(np.float64), self._statistics
            self._statistics = new if old is None else _merged(old, new)
        return outputs

    @property
    def ranges(self) -> RangeReport:
        """The values of all runs so far; empty without `ranges`."""
        if self._statistics is None:
            return RangeReport(())
        return read_statistics(self._tensors, self._statistics)

    def close(self) -> None:
        """Free the session."""
        self._session = None


def _merged(old: Float64, new: Float64) -> Float64:
    """Add the counts; the second of every five values is a maximum."""
    total = old + new
    total[1::STATISTICS] = np.maximum(old, new)[1::STATISTICS]
    return total
