"""Cost of each stage of the `native` graph: nodes, bytes moved and multiply-adds.

Counted from the graph at 800x1344 and batch 1. Every node reads its inputs and writes its outputs
once (a compiler fuses many, so bytes are an upper bound). `before` is the same lowering without
optimizations: one block per NMS, 2,000 candidates, int64 indices, padded top-k. The last rows are
the lower bound: the convolutions and products with weights.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

import onnx_ir as ir

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import photos, results
from export import tracing
from export.roles import role_of
from export.targets import native_candidates
from model.mask_rcnn import MaskRCNN
from model.native.options import NativeOptions
from model.spec import ModelSpec

STAGES = (
    "normalise", "body", "fpn", "rpn", "rpn NMS", "box_pool", "box_head", "select", "select NMS",
    "mask_pool", "mask_head", "outputs",
)  # fmt: skip
SHAPE = tracing.GraphShape(batch=1, height=800, width=1344)


@dataclass(slots=True)
class Cost:
    """Sums over the nodes of a stage."""

    nodes: int = 0
    bytes_moved: int = 0
    multiply_adds: int = 0

    def __iadd__(self, other: Cost) -> Cost:
        self.nodes += other.nodes
        self.bytes_moved += other.bytes_moved
        self.multiply_adds += other.multiply_adds
        return self


def main() -> int:
    """Count both graphs."""
    args = _arguments()
    checkpoint = photos.load_fitted(800, 1333)
    after, floor = _count(replace(checkpoint, spec=_with_candidates(checkpoint.spec)).build())
    before, _ = _count(checkpoint.build(), plain=True)
    columns = ("stage", "nodes", "before", "MB moved", "before", "G multiply-adds", "before")
    rows = [_row(stage, after[stage], before[stage]) for stage in STAGES]
    rows.append(_row("all", _total(after), _total(before)))
    fraction = floor.multiply_adds / _total(after).multiply_adds
    note = (
        f"Convolutions and products with weights: {floor.multiply_adds / 1e9:.1f} G multiply-adds, "
        f"{100 * fraction:.2f} % of all; they alone move {floor.bytes_moved / 1e6:.0f} MB."
    )
    data = {"rows": rows, "floor_multiply_adds": floor.multiply_adds}
    body = f"{results.table(columns, rows)}\n\n{note}"
    results.write("Cost of the native graph", body, data, args.json, args.markdown)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    return parser.parse_args()


def _with_candidates(spec: ModelSpec) -> ModelSpec:
    return replace(spec, box=replace(spec.box, candidates=native_candidates(spec)))


def _count(model: MaskRCNN, plain: bool = False) -> tuple[dict[str, Cost], Cost]:
    """Costs per stage, and of the layers with weights alone."""
    if plain:
        options = NativeOptions(nms_block=4096)
        graph = tracing.trace(model, SHAPE, native_options=options, native_passes=())
    else:
        graph = tracing.trace(model, SHAPE, native_options=NativeOptions())
    stages: dict[str, Cost] = defaultdict(Cost)
    floor = Cost()
    for node in graph.graph:
        cost = Cost(1, _bytes(node), _multiply_adds(node))
        stages[_stage(node)] += cost
        if any(value is not None and value.is_initializer() for value in node.inputs[1:2]):
            floor += cost if cost.multiply_adds else Cost()
    return stages, floor


def _stage(node: ir.Node) -> str:
    """The node's role, with the nodes on pairs of boxes or in half precision as its NMS."""
    role = role_of(node)
    if role not in ("rpn", "select"):
        return role
    shapes = [_shape(value) for value in node.outputs]
    pairs = any(len(s) == 3 and min(s[1:]) > 64 and len(set(s[1:])) <= 2 for s in shapes)
    is_half = any(value.dtype == ir.DataType.FLOAT16 for value in node.outputs)
    return f"{role} NMS" if is_half or (pairs and node.op_type not in ("Conv", "Reshape")) else role


def _shape(value: ir.Value | None) -> tuple[int, ...]:
    if value is None or value.shape is None:
        return ()
    return tuple(side if isinstance(side, int) else 1 for side in value.shape)


def _bytes(node: ir.Node) -> int:
    values = [*node.inputs, *node.outputs]
    return sum(
        int(prod(_shape(value)) * value.dtype.itemsize)
        for value in values
        if value is not None and value.dtype is not None
    )


def _multiply_adds(node: ir.Node) -> int:
    out = prod(_shape(node.outputs[0]))
    if node.op_type == "Conv":
        return out * prod(_shape(node.inputs[1])[1:])
    if node.op_type == "ConvTranspose":
        return prod(_shape(node.inputs[0])) * prod(_shape(node.inputs[1])[1:])
    if node.op_type in ("Gemm", "MatMul"):
        left = _shape(node.inputs[0])
        return out * (left[-1] if left else 1)
    return 0


def _total(stages: dict[str, Cost]) -> Cost:
    total = Cost()
    for cost in stages.values():
        total += cost
    return total


def _row(name: str, after: Cost, before: Cost) -> list[str]:
    return [
        name,
        str(after.nodes),
        str(before.nodes),
        f"{after.bytes_moved / 1e6:.0f}",
        f"{before.bytes_moved / 1e6:.0f}",
        f"{after.multiply_adds / 1e9:.3f}",
        f"{before.multiply_adds / 1e9:.3f}",
    ]


if __name__ == "__main__":
    sys.exit(main())
