"""A choice of layers in a session that computes what its file would say."""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnx_ir as ir

from calib.calibration.tapped_session import TappedSession
from calib.quantizer import Job
from export.precision.session import EmulatedSession
from runtime.sessions.open import open_session
from runtime.sessions.session import Session


def session_of_model(job: Job, model: ir.Model) -> Session:
    """Open what `Job.quantised` answers.

    Halves are emulated: on a CPU, ONNX Runtime would compute them in float32.
    """
    if job.options.rest == "fp32":
        return TappedSession(model, job.artifact, threads=job.options.threads)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "candidate.onnx"
        ir.save(model, path)
        return EmulatedSession(path, threads=job.options.threads)


def session_of_file(job: Job, path: Path) -> Session:
    """Open a file that was written for the job; halves are emulated."""
    if job.options.rest == "fp32":
        return open_session(path, None, job.options.threads)
    return EmulatedSession(path, threads=job.options.threads)
