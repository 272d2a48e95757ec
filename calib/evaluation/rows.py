"""The rows of the proof: FP32, FP16 and BF16 under emulation, 8 bits, 8 bits within a budget."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir

from calib.evaluation.agreement import detect, sure_rows
from calib.evaluation.annotations import require_sizes
from calib.evaluation.candidate_session import session_of_file, session_of_model
from calib.evaluation.half_emulation import emulated_half
from calib.evaluation.measure import EvaluationPhotos, Proof, prove
from calib.evaluation.reference import open_reference
from calib.options import QuantizeOptions
from calib.quantizer import Job
from export.precision.formats import FORMATS
from model.errors import ExportError
from runtime.sessions.open import open_session
from runtime.sessions.session import Session


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Photos that nothing was chosen by, and COCO annotations where there are some."""

    photos: Sequence[Path]
    truth: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Proofs:
    """What came of all rows.

    `missing` says, by title, why a precision has no row: a weight that FP16 does not hold is no
    fault of an INT8 file. `sure` counts the reference's rows of score 0.3 and more on the `photos`,
    which agreement is measured by.
    """

    rows: tuple[Proof, ...]
    missing: Mapping[str, str]
    photos: int
    sure: int


# FP32, FP16, BF16 and 8 bits; with a budget also the policy's choice.
_ROWS = 4
_Opened = Callable[[], tuple[Session, int]]


def runs_of_a_proof(options: QuantizeOptions) -> int:
    """How often the photos are run by `all_proofs`, the reference included."""
    return 1 + _ROWS + (options.budget is not None)


def all_proofs(
    job: Job, source: Path, output: Path, on: Evaluation, advance: Callable[[int], None]
) -> Proofs:
    """Every row, the photos being detected on only here.

    Args:
        job: prepared.
        source: the FP32 file.
        output: the quantised one.
        on: the photos.
        advance: called with photos done, `runs_of_a_proof` times all of them.

    Raises:
        UsageError: annotations that do not name the photos, or another model as reference.
    """
    threads = job.options.threads
    reference = (
        open_session(source, None, threads)
        if job.options.reference is None
        else open_reference(job.options.reference, job.artifact, threads)
    )
    found = detect(reference, on.photos, advance)
    if on.truth is not None:
        shapes = [result.image_hw for result in found]
        require_sizes(dict(zip(on.photos, shapes, strict=True)), on.truth)
    photos = EvaluationPhotos(on.photos, found, job.artifact.spec, on.truth)
    rows, missing = [], {}
    for title, opened in _rows(job, source, output):
        try:
            session, size = opened()
        except ExportError as error:
            missing[title] = str(error)
            advance(len(on.photos))
            continue
        rows.append(prove(title, session, size, photos, advance))
    return Proofs(tuple(rows), missing, len(on.photos), sure_rows(found))


def _rows(job: Job, source: Path, output: Path) -> Iterator[tuple[str, _Opened]]:
    """Titles, and what opens a session and tells its file's size; one is open at a time."""
    threads, options = job.options.threads, job.options

    def half(name: str) -> tuple[Session, int]:
        model = ir.serde.deserialize_model(job.file.model)
        return emulated_half(model, job.artifact, FORMATS[name], threads)

    def of_policy() -> tuple[Session, int]:
        model, _ = job.quantised(job.default_choice)
        size = len(ir.serde.serialize_model(model).SerializeToString())
        return session_of_model(job, model), size

    def of_file() -> tuple[Session, int]:
        return session_of_file(job, output), output.stat().st_size

    yield "FP32", lambda: (open_session(source, None, threads), source.stat().st_size)
    for name, one in FORMATS.items():
        yield f"{one.title} (emulated)", lambda name=name: half(name)  # type: ignore[misc]
    kind = options.format.upper()
    if options.rest == "fp16":
        kind += "+FP16 (emulated)"
    if options.budget is None:
        yield kind, of_file
        return
    yield f"{kind}, the policy's choice", of_policy
    yield f"{kind} within the budget", of_file
