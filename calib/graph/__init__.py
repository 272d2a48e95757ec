"""Which layers and tensors of the graph become 8-bit.

formats: int8 and FP8: levels, rounding, operator set; limits of ranges.
layers: the weighted layers, with role, weights and axes.
presets: `accurate`, `balanced`, `fast`: the layers that each quantizes.
groups: layers that the budget search quantizes together.
placement: where Q/DQ pairs go, for TensorRT and for ONNX Runtime.
"""
