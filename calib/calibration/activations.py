"""Run the graph on photos and return inner tensors, valid rows only."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import onnx_ir as ir

from calib.calibration.cpu_session import open_on_cpu, run_on_cpu
from export.roles import role_of
from model.arrays import Bool, Float32, Int32
from model.errors import ArtifactError
from runtime.preprocessing.canvas import Canvas

_PROPOSAL_POOL, _DETECTION_POOLS = "box_pool", ("mask_pool", "keypoint_pool")
_DETECTION_HEADS = ("mask_head", "keypoint_head")

# The valid rows of a tensor, given its values, the proposals' validity [N, R] and counts [N] of
# detections; None for all rows.
RowFilter = Callable[[Float32, Bool, Int32], Bool | None]


class Activations:
    """A copy of the graph whose inner tensors are outputs, in ONNX Runtime.

    ONNX Runtime keeps all of them until a run ends. A graph of a fixed batch therefore runs once
    per row of the batch, each time for a part of the tensors: the memory is that of one photo.

    Args:
        model: not changed.
        names: of float32 tensors.
        threads: of the CPU; None takes all cores.
    """

    def __init__(self, model: ir.Model, names: Sequence[str], threads: int | None = None) -> None:
        # The largest tensors are neighbors, early in the body: each part gets every n-th.
        count = min(_fixed_batch(model.graph), max(len(names), 1))
        self._parts = [_Part(model, names[i::count], threads) for i in range(count)]

    def run(self, canvas: Canvas) -> Iterator[tuple[str, Float32]]:
        """Name and valid rows, [rows, …], of one tensor after the other.

        Raises:
            ArtifactError: ONNX Runtime failed.
        """
        for part in self._parts:
            yield from part.run(canvas)


class _Part:
    """Some of the tensors, in a session of their own."""

    def __init__(self, model: ir.Model, names: Sequence[str], threads: int | None) -> None:
        copy = model.clone()
        graph = copy.graph
        values = {v.name: v for v in _all_values(graph)}
        self._names = list(names)
        self._filters = [_row_filter(values[name]) for name in names]
        counts = values["counts"]
        validity = _proposal_validity(graph)
        for name in names:
            values[name].dtype = ir.DataType.FLOAT
        validity.dtype = ir.DataType.BOOL
        graph.outputs[:] = [counts, validity, *(values[name] for name in names)]
        self._session = open_on_cpu(copy, threads, for_inner_tensors=True)

    def run(self, canvas: Canvas) -> Iterator[tuple[str, Float32]]:
        """As `Activations.run`."""
        inputs = {"images": canvas.images, "image_hw": canvas.image_hw}
        counts, valid, *tensors = run_on_cpu(self._session, None, inputs)
        tensors.reverse()
        for name, row_filter in zip(self._names, self._filters, strict=True):
            # Freed after use: together they take gigabytes.
            values = tensors.pop()
            rows = row_filter(values, valid, counts)
            yield name, values if rows is None else values[rows]


def _row_filter(value: ir.Value) -> RowFilter:
    """By the pooling node that the tensor was computed from."""
    current: ir.Value | None = value
    while current is not None:
        node = current.producer()
        if node is None:
            return _all_rows
        if role_of(node) == _PROPOSAL_POOL:
            return _valid_proposals
        if node.op_type == "Compress" and role_of(node) in _DETECTION_HEADS:
            return _compacted_rows
        if role_of(node) in _DETECTION_POOLS:
            return _valid_detections
        current = node.inputs[0] if node.inputs else None
    return _all_rows


def _all_rows(values: Float32, valid: Bool, counts: Int32) -> Bool | None:
    return None


def _valid_proposals(values: Float32, valid: Bool, counts: Int32) -> Bool:
    """Rows are [N * R]; padding is not a proposal."""
    return valid.reshape(-1)


def _valid_detections(values: Float32, valid: Bool, counts: Int32) -> Bool:
    """Rows are [N * D], grouped by image."""
    per_image = len(values) // len(counts)
    rows: Bool = np.arange(per_image) < counts[:, None]
    return rows.reshape(-1)


def _compacted_rows(values: Float32, valid: Bool, counts: Int32) -> Bool:
    """`export.passes.compact_heads` has removed empty rows, except for the first."""
    rows = np.ones(len(values), bool)
    rows[0] = counts[0] > 0
    return rows


def _proposal_validity(graph: ir.Graph) -> ir.Value:
    """Bool [N, R]: the only boolean that the RPN passes to the selection of detections."""
    for node in graph:
        if role_of(node) != "rpn":
            continue
        for value in node.outputs:
            readers = {role_of(reader) for reader, _ in value.uses()}
            if node.op_type == "Greater" and "select" in readers:
                return value
    raise ArtifactError(
        "calibration: the graph has no output that marks valid proposals; expected a graph that "
        "`maskport export` wrote"
    )


def _fixed_batch(graph: ir.Graph) -> int:
    """Photos of every run; 1 where the graph takes any number."""
    images = next(value for value in graph.inputs if value.name == "images")
    rows = None if images.shape is None else images.shape[0]
    return rows if isinstance(rows, int) else 1


def _all_values(graph: ir.Graph) -> Iterator[ir.Value]:
    yield from graph.inputs
    for node in graph:
        yield from node.outputs
