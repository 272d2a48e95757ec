"""hotcoco and pycocotools: from inputs to accumulated precision and recall.

pycocotools is the reference. hotcoco gives the same arrays, bit for bit, in a fraction of the time
and memory; `tests/runtime/compare/test_coco_evaluators.py` compares them.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any, Literal

import numpy as np

from model.arrays import Float64
from model.errors import MissingDependencyError
from runtime.compare.coco_inputs import CocoInputs

Evaluator = Literal["hotcoco", "pycocotools"]


def default_evaluator() -> Evaluator:
    """The faster one that is installed: hotcoco, else pycocotools."""
    return "pycocotools" if importlib.util.find_spec("hotcoco") is None else "hotcoco"


def evaluator_version(evaluator: Evaluator) -> str:
    """Name and version, for reports."""
    return f"{evaluator} {version(evaluator)}"


def require_pycocotools(what: str = "COCO AP needs", alternative: str = "") -> None:
    """Check that AP can be computed; `what` and `alternative` are for the message.

    Raises:
        MissingDependencyError: pycocotools is not installed.
    """
    require_evaluator("pycocotools", what, alternative)


def require_evaluator(
    evaluator: Evaluator, what: str = "COCO AP needs", alternative: str = ""
) -> None:
    """As `require_pycocotools`, for either."""
    try:
        importlib.import_module(evaluator)
    except ImportError as error:
        raise MissingDependencyError(
            f"{what} {evaluator}, which is not installed; pip install 'maskport[eval]'{alternative}"
        ) from error


def accumulate(inputs: CocoInputs, evaluator: Evaluator) -> tuple[Float64, Float64]:
    """Precision [T, R, K, A, M] and recall [T, K, A, M]; -1 where there is no ground truth.

    Legend: T IoU thresholds, R recall thresholds, K categories, A area ranges (all, then COCO's),
    M `inputs.limits`.
    """
    evaluation = _EVALUATED[evaluator](inputs)
    arrays: Mapping[str, Any] = evaluation.eval
    return np.asarray(arrays["precision"]), np.asarray(arrays["recall"])


def hotcoco_evaluation(inputs: CocoInputs) -> Any:
    """An accumulated `hotcoco.COCOeval`."""
    import hotcoco

    def indexed(rows: list[dict[str, Any]]) -> Any:
        return hotcoco.COCO(_document(inputs, rows))

    return _run(
        hotcoco.COCOeval(indexed(inputs.truth), indexed(inputs.rows), inputs.iou_type), inputs
    )


def _pycocotools_evaluation(inputs: CocoInputs) -> Any:
    from pycocotools import coco, cocoeval

    def indexed(rows: list[dict[str, Any]]) -> Any:
        # `loadRes` fails on an empty list.
        one = coco.COCO()
        # pycocotools changes its input.
        one.dataset = _document(inputs, [dict(row) for row in rows])
        one.createIndex()
        return one

    with contextlib.redirect_stdout(io.StringIO()):
        return _run(
            cocoeval.COCOeval(indexed(inputs.truth), indexed(inputs.rows), inputs.iou_type), inputs
        )


_EVALUATED: Mapping[Evaluator, Callable[[CocoInputs], Any]] = {
    "hotcoco": hotcoco_evaluation,
    "pycocotools": _pycocotools_evaluation,
}


def _document(inputs: CocoInputs, rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {"images": inputs.images, "categories": inputs.categories, "annotations": rows}


def _run(evaluation: Any, inputs: CocoInputs) -> Any:
    parameters = evaluation.params
    parameters.maxDets = inputs.limits
    if inputs.sigmas:
        parameters.kpt_oks_sigmas = np.array(inputs.sigmas)
    evaluation.params = parameters
    evaluation.evaluate()
    evaluation.accumulate()
    return evaluation
