"""Run the graph on photos and look at its inner tensors, valid rows only."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from calib.calibration.cpu_session import open_on_cpu, run_on_cpu
from export.roles import role_of
from model.arrays import Float32
from model.errors import ArtifactError
from runtime.preprocessing.canvas import Canvas

# Fewer kinds of rows than roles: the role of the node that pooled them tells.
_PROPOSAL_POOL, _DETECTION_POOLS = "box_pool", ("mask_pool", "keypoint_pool")
_DETECTION_HEADS = ("mask_head", "keypoint_head")

Rows = npt.NDArray[np.bool_] | None


class Activations:
    """A copy of the graph whose inner tensors are outputs, in ONNX Runtime.

    ONNX Runtime keeps all of them until a run ends. A graph of a fixed batch is therefore run as
    often as it has rows, each time for a part of the tensors: memory is that of one photo.

    Args:
        model: left as it is.
        wanted: names of float32 tensors.
        threads: of the CPU; None takes all cores.
    """

    def __init__(self, model: ir.Model, wanted: Sequence[str], threads: int | None = None) -> None:
        # Large tensors stand together, early in the body: each part gets every n-th.
        count = min(_fixed_batch(model.graph), max(len(wanted), 1))
        self._parts = [_Part(model, wanted[i::count], threads) for i in range(count)]

    def run(self, canvas: Canvas) -> Iterator[tuple[str, Float32]]:
        """Each wanted tensor's rows that mean something, [rows, …], one tensor after the other.

        Raises:
            ArtifactError: ONNX Runtime failed.
        """
        for part in self._parts:
            yield from part.run(canvas)


class _Part:
    """Some of the tensors, in a session of their own."""

    def __init__(self, model: ir.Model, wanted: Sequence[str], threads: int | None) -> None:
        copy = model.clone()
        graph = copy.graph
        values = {v.name: v for v in _all_values(graph)}
        self._wanted = list(wanted)
        self._kinds = [_kind(values[name]) for name in wanted]
        counts = values["counts"]
        validity = _proposal_validity(graph)
        for name in wanted:
            values[name].dtype = ir.DataType.FLOAT
        validity.dtype = ir.DataType.BOOL
        graph.outputs[:] = [counts, validity, *(values[name] for name in wanted)]
        self._session = open_on_cpu(copy, threads, for_inner_tensors=True)

    def run(self, canvas: Canvas) -> Iterator[tuple[str, Float32]]:
        """As `Activations.run`."""
        feed = {"images": canvas.images, "image_hw": canvas.image_hw}
        counts, valid, *answers = run_on_cpu(self._session, None, feed)
        answers.reverse()
        for name, kind in zip(self._wanted, self._kinds, strict=True):
            # Freed as soon as it has been looked at: together they are gigabytes.
            values = answers.pop()
            rows = kind(values, valid, counts)
            yield name, values if rows is None else values[rows]


RowKind = Callable[[Float32, npt.NDArray[np.bool_], npt.NDArray[np.int32]], Rows]


def _kind(value: ir.Value) -> RowKind:
    """Which rows of a tensor count, by the node that pooled what it was made of."""
    current: ir.Value | None = value
    while current is not None:
        node = current.producer()
        if node is None:
            return _every_row
        if role_of(node) == _PROPOSAL_POOL:
            return _valid_proposals
        if node.op_type == "Compress" and role_of(node) in _DETECTION_HEADS:
            return _filled_rows
        if role_of(node) in _DETECTION_POOLS:
            return _valid_detections
        current = node.inputs[0] if node.inputs else None
    return _every_row


def _every_row(
    values: Float32, valid: npt.NDArray[np.bool_], counts: npt.NDArray[np.int32]
) -> Rows:
    return None


def _valid_proposals(
    values: Float32, valid: npt.NDArray[np.bool_], counts: npt.NDArray[np.int32]
) -> Rows:
    """Rows are [N * R]; a proposal that was filled in is no proposal."""
    return valid.reshape(-1)


def _valid_detections(
    values: Float32, valid: npt.NDArray[np.bool_], counts: npt.NDArray[np.int32]
) -> Rows:
    """Rows are [N * D], those of an image first."""
    per_image = len(values) // len(counts)
    filled = np.arange(per_image) < counts[:, None]
    rows: npt.NDArray[np.bool_] = filled.reshape(-1)
    return rows


def _filled_rows(
    values: Float32, valid: npt.NDArray[np.bool_], counts: npt.NDArray[np.int32]
) -> Rows:
    """Empty rows were taken out already (`export.passes.compact_heads`), but for the first."""
    rows = np.ones(len(values), bool)
    rows[0] = counts[0] > 0
    return rows


def _proposal_validity(graph: ir.Graph) -> ir.Value:
    """Bool [N, R]: the only truth that the RPN hands to the selection of detections."""
    for node in graph:
        if role_of(node) != "rpn":
            continue
        for value in node.outputs:
            readers = {role_of(reader) for reader, _ in value.uses()}
            if node.op_type == "Greater" and "select" in readers:
                return value
    raise ArtifactError(
        "calibration: the graph does not say which proposals are valid; expected one that "
        "`maskport export` wrote"
    )


def _fixed_batch(graph: ir.Graph) -> int:
    """Photos that every run takes; 1 where the graph takes any number."""
    images = next(value for value in graph.inputs if value.name == "images")
    rows = None if images.shape is None else images.shape[0]
    return rows if isinstance(rows, int) else 1


def _all_values(graph: ir.Graph) -> Iterator[ir.Value]:
    yield from graph.inputs
    for node in graph:
        yield from node.outputs
