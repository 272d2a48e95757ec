"""A session in memory that also passes inner tensors to a callback."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir

from calib.calibration.cpu_session import open_on_cpu, run_on_cpu
from model.arrays import Float32
from runtime.artifacts.metadata import Artifact
from runtime.sessions.session import Inputs, Outputs

TapCallback = Callable[[str, Float32], None]


class TappedSession:
    """Satisfies `runtime.sessions.session.Session`, on ONNX Runtime's CPU provider.

    Args:
        model: not changed.
        artifact: its spec and manifest.
        taps: names of float tensors.
        on_tap: called with each tap's name and values after every run.
        threads: of the CPU; None takes all cores.
    """

    def __init__(
        self,
        model: ir.Model,
        artifact: Artifact,
        taps: Sequence[str] = (),
        on_tap: TapCallback = lambda name, values: None,
        threads: int | None = None,
    ) -> None:
        copy = model.clone()
        self._outputs = [str(value.name) for value in copy.graph.outputs]
        self._taps, self._on_tap = list(taps), on_tap
        values = {value.name: value for node in copy.graph for value in node.outputs}
        for name in self._taps:
            copy.graph.outputs.append(values[name])
        # With a path for messages.
        self.artifact = replace(artifact, path=Path("calibration graph"))
        self._session = open_on_cpu(copy, threads)

    def run(self, inputs: Inputs) -> Outputs:
        """Run once."""
        names = [*self._outputs, *self._taps]
        values = run_on_cpu(self._session, names, inputs)
        for name, tapped in zip(self._taps, values[len(self._outputs) :], strict=True):
            self._on_tap(name, tapped.astype(np.float32, copy=False))
        return dict(zip(self._outputs, values, strict=False))

    def close(self) -> None:
        """Free the network."""
        self._session = None
