"""A session in memory that shows some of its inner tensors on the way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from calib.calibration.cpu_session import open_on_cpu, run_on_cpu
from runtime.artifacts.metadata import Artifact
from runtime.sessions.session import Inputs, Outputs

See = Callable[[str, npt.NDArray[np.float32]], None]


class TappedSession:
    """Satisfies `runtime.sessions.session.Session`, on ONNX Runtime's CPU provider.

    Args:
        model: left as it is.
        artifact: its spec and manifest.
        taps: names of float tensors; `see` is called with each after every run.
        see: takes a tap's name and its numbers.
        threads: of the CPU; None takes all cores.
    """

    def __init__(
        self,
        model: ir.Model,
        artifact: Artifact,
        taps: Sequence[str] = (),
        see: See = lambda name, values: None,
        threads: int | None = None,
    ) -> None:
        copy = model.clone()
        self._answers = [str(value.name) for value in copy.graph.outputs]
        self._taps, self._see = list(taps), see
        values = {value.name: value for node in copy.graph for value in node.outputs}
        for name in self._taps:
            copy.graph.outputs.append(values[name])
        self._artifact = replace(artifact, path=Path("calibration graph"))
        self._session = open_on_cpu(copy, threads)

    @property
    def artifact(self) -> Artifact:
        """As given, under a name for messages."""
        return self._artifact

    def run(self, inputs: Inputs) -> Outputs:
        """Run once."""
        names = [*self._answers, *self._taps]
        values = run_on_cpu(self._session, names, inputs)
        for name, seen in zip(self._taps, values[len(self._answers) :], strict=True):
            self._see(name, seen.astype(np.float32, copy=False))
        return dict(zip(self._answers, values, strict=False))

    def close(self) -> None:
        """Free the network."""
        self._session = None
