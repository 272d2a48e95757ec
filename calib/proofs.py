"""The rows of the proof: FP32, FP16 and BF16 under emulation, 8 bits, 8 bits within a budget."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir

from calib.evaluation import EvaluationPhotos, Proof, image_ids, prove
from calib.job import Job
from calib.judge import detect
from calib.reference import open_reference
from calib.rest import emulated_half
from calib.tapped_session import TappedSession
from export.precision.formats import FORMATS
from runtime.sessions.session import Session, open_session


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Photos that nothing was chosen by, and COCO annotations where there are some."""

    photos: Sequence[Path]
    truth: Mapping[str, Any] | None = None


ROWS = ("FP32", "FP16", "BF16", "INT8", "INT8 within the budget")


def all_proofs(
    job: Job, source: Path, output: Path, on: Evaluation, advance: Callable[[int], None]
) -> tuple[Proof, ...]:
    """Every row, the photos being read only here.

    Args:
        job: prepared.
        source: the FP32 file.
        output: the quantised one.
        on: the photos.
        advance: called with photos done, at most (len(ROWS) + 1) times all of them.

    Raises:
        UsageError: annotations that do not name the photos, or another model as reference.
    """
    if on.truth is not None:
        image_ids(on.photos, on.truth)
    threads = job.options.threads
    reference = (
        open_session(source, None, threads)
        if job.options.reference is None
        else open_reference(job.options.reference, job.artifact, threads)
    )
    found = detect(reference, on.photos, advance)
    photos = EvaluationPhotos(on.photos, found, job.artifact.spec, on.truth)
    rows = _rows(job, source, output)
    return tuple(prove(title, session, size, photos, advance) for title, session, size in rows)


def _rows(job: Job, source: Path, output: Path) -> Iterator[tuple[str, Session, int]]:
    threads = job.options.threads
    yield "FP32", open_session(source, None, threads), source.stat().st_size
    for half in FORMATS.values():
        model = ir.serde.deserialize_model(job.file.model)
        session, size = emulated_half(model, job.artifact, half, threads)
        yield f"{half.title} (emulated)", session, size
    kind = job.options.format.upper()
    if job.options.budget is None:
        yield kind, open_session(output, None, threads), output.stat().st_size
        return
    model, _ = job.quantised(job.default_choice)
    size = len(ir.serde.serialize_model(model).SerializeToString())
    yield f"{kind}, the policy's choice", TappedSession(model, job.artifact, threads=threads), size
    yield f"{kind} within the budget", open_session(output, None, threads), output.stat().st_size
