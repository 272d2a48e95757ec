"""Whether ONNX Runtime's 8-bit products are added up exactly on this CPU.

Without VNNI, x86 multiplies unsigned by signed bytes two at a time into 16 bits, which saturate at
32,767: 255 x 127 twice is beyond that, and so are many sums of real layers. Nothing in the graph
or in the file shows it. Codes of weights up to 64 keep every such pair within 16 bits.
"""

from __future__ import annotations

from functools import cache

import numpy as np

_DEPTH, _COLUMNS = 64, 16
_LARGEST_DATA, _LARGEST_WEIGHT = 255, 127


@cache
def sums_saturate() -> bool:
    """Try it: the largest codes against each other, by the kernel that layers use."""
    import onnx_ir as ir
    import onnxruntime as ort

    data = ir.val("data", ir.DataType.UINT8, [_COLUMNS, _DEPTH])
    weights = np.full((_DEPTH, _COLUMNS), _LARGEST_WEIGHT, np.int8)
    constant = ir.Value(name="weights", const_value=ir.tensor(weights, name="weights"))
    product = ir.node("MatMulInteger", [data, constant])
    product.outputs[0].name = "sums"
    product.outputs[0].dtype = ir.DataType.INT32
    product.outputs[0].shape = ir.Shape([_COLUMNS, _COLUMNS])
    graph = ir.Graph(
        [data], product.outputs, nodes=[product], initializers=[constant], opset_imports={"": 18}
    )
    model = ir.serde.serialize_model(ir.Model(graph, ir_version=8)).SerializeToString()
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    largest = np.full((_COLUMNS, _DEPTH), _LARGEST_DATA, np.uint8)
    (sums,) = session.run(None, {"data": largest})
    return bool((sums != _DEPTH * _LARGEST_DATA * _LARGEST_WEIGHT).any())
