"""Whether ONNX Runtime's int8 kernels sum their products exactly on this CPU.

Without VNNI, x86 multiplies uint8 by int8 in pairs and adds each pair in 16 bits, which saturate at
32,767: 255 x 127 twice exceeds that, and so do sums of real layers. Neither the graph nor the file
shows it. With weight codes up to 64 every pair fits 16 bits.
"""

from __future__ import annotations

from functools import cache

import numpy as np

_DEPTH, _COLUMNS = 64, 16
_LARGEST_DATA, _LARGEST_WEIGHT = 255, 127


@cache
def int8_accumulation_saturates() -> bool:
    """Multiply the largest codes, by the kernel that layers use, and check the sums."""
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
