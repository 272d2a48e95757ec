"""The rows of an evaluation: FP32, emulated FP16 and BF16, 8 bits, 8 bits within a budget."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from calib.evaluation.agreement import confident_rows, detect
from calib.evaluation.half_emulation import open_emulated, open_file, open_graph
from calib.evaluation.measure import EvaluationRow, Reference, evaluate_session
from calib.evaluation.photos import EvaluationSet
from calib.evaluation.reference import open_reference
from calib.quantizer import Quantizer
from export.precision.formats import FORMATS
from model.errors import ExportError
from runtime.sessions.open import open_session
from runtime.sessions.session import Session


@dataclass(frozen=True, slots=True)
class Evaluation:
    """All rows.

    `missing` gives the reason, by title, where a precision has no row: for instance a weight that
    exceeds FP16, which does not concern an INT8 file. `confident` is the number of the reference's
    detections of score 0.3 and more, the ground truth of agreement AP.
    """

    rows: tuple[EvaluationRow, ...]
    missing: Mapping[str, str]
    photos: int
    confident: int


# Runs of all photos: the reference, FP32, FP16, BF16 and 8 bits.
_RUNS = 5
_Opener = Callable[[], tuple[Session, int]]


def evaluate_file(quantizer: Quantizer, output: Path, photos: EvaluationSet) -> Evaluation:
    """Evaluate the quantized file beside other precisions of its source.

    Args:
        quantizer: that wrote the file.
        output: the quantized file.
        photos: held-out ones.

    Raises:
        UsageError: another model as reference.
    """
    context = quantizer.context
    runs = _RUNS + (context.options.budget is not None)
    context.start(runs * len(photos.paths), "evaluating")
    detections = detect(
        open_reference(context), photos.paths, context.advance, context.options.value_range
    )
    reference = Reference(photos, detections, context.artifact.spec, context.options.value_range)
    rows, missing = [], {}
    for title, opener in _openers(quantizer, output):
        try:
            session, size = opener()
        except ExportError as error:
            missing[title] = str(error)
            context.advance(len(photos.paths))
            continue
        rows.append(evaluate_session(title, session, size, reference, context.advance))
    return Evaluation(tuple(rows), missing, len(photos.paths), confident_rows(detections))


def _openers(quantizer: Quantizer, output: Path) -> Iterator[tuple[str, _Opener]]:
    """By title, functions that open a session and return it with its file's size in bytes."""
    context, options = quantizer.context, quantizer.context.options
    source = context.artifact.path

    def preset() -> tuple[Session, int]:
        model, _ = quantizer.quantized(quantizer.preset_nodes)
        size = len(ir.serde.serialize_model(model).SerializeToString())
        return open_graph(model, context), size

    yield "FP32", lambda: (open_session(source, None, context.threads), source.stat().st_size)
    for half in FORMATS.values():
        yield (
            f"{half.title} (emulated)",
            lambda half=half: open_emulated(quantizer.model.clone(), half, context),  # type: ignore[misc]
        )
    title = options.format.upper()
    if options.float_type == "fp16":
        title += "+FP16 (emulated)"
    if options.budget is not None:
        yield f"{title}, preset {options.preset}", preset
        title += " within the budget"
    yield title, lambda: (open_file(output, context), output.stat().st_size)
